"""lmprobe datasets of format 2: shards of tensors, and a Parquet index that says what is where.

Each layer has its own shards. ``shard_index`` and ``row_offset`` of the index name the vector of
the last token of each prompt, ``token_shard_ids`` and ``token_shard_offsets`` those of all tokens,
where they were stored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.files.faults import file_fault
from sklprep.files.listing import list_files
from sklprep.files.npy_file import FLOATS
from sklprep.files.parquet_table import parquet_columns, read_parquet
from sklprep.files.raw_array import BFLOAT16, RawArray
from sklprep.files.safetensors_file import read_safetensors_header
from sklprep.formats.dumps.dump import Chain, Dump, Request, Sentences, Tokens
from sklprep.formats.dumps.keys import say_mapping, shift

_SUFFIX = ".parquet"
_INFO = "lmprobe:"
_PATTERN = re.compile(r"(?:[\w.-]|/(?!/)|\{(?:layer|shard)(?::0[1-9]d)?\})+", re.ASCII)
"""A name of a file: its fields are numbers of a few digits, and nothing else is formatted."""
_MAX_SHARDS = 100_000
_ONE_TOKEN = ("shard_index", "row_offset")
_EACH_TOKEN = ("token_shard_ids", "token_shard_offsets")


def recognize(path: Path) -> bool:
    """Whether it is a folder with an index and tensors."""
    return (path / "tensors").is_dir() and bool(list_files(path / "index", _SUFFIX))


def open_lmprobe(request: Request) -> Dump:
    """Open a dataset by its index.

    Layers have lmprobe's numbers, which are those of the blocks. Rows are the last tokens, unless
    all tokens were stored: then pooling says what becomes a row.
    """
    path = request.path
    indices = list_files(path / "index", _SUFFIX)
    if not indices:
        raise file_fault(path, None, "has no index", "index/*.parquet")
    columns, hidden, version = _read_index(indices)
    layers, shards = _read_layout(indices[0], hidden)
    offset = request.reading.layer_offset
    shift(layers, offset, path)
    full = hidden.get("storage") == "full_sequence" and all(n in columns for n in _EACH_TOKEN)
    chains, files, starts = {}, [*indices], None
    for layer in layers:
        arrays = [_find_array(path, indices[0], hidden, layer, n) for n in range(shards)]
        lengths = [array.shape[0] for array in arrays]
        if starts is not None and lengths != starts:
            raise file_fault(arrays[0].path, None, f"and others hold {lengths[:5]}", "as layer 0")
        starts = lengths
        chains[layer + offset] = Chain(arrays, lengths)
        files += [array.path for array in arrays]
    if len({chain.width for chain in chains.values()}) > 1:
        raise file_fault(path, None, "has layers of several widths", "one width")
    tokens = _find_tokens(indices[0], columns, starts or [], full=full)
    return Dump(
        format="lmprobe",
        version=version,
        path=path,
        mapping=say_mapping(str(hidden["key_pattern"]), layers, offset),
        files=files,
        tokens=tokens,
        has_tokens=full,
        embeddings=chains.pop(-1, None),
        layers=chains,
        sentences=_read_sentences(indices[0], columns),
        pooling=None if full else "final",
    )


def _read_index(
    indices: Sequence[Path],
) -> tuple[dict[str, list[Any]], Mapping[str, Any], str]:
    """Columns of all index files, what is said of the hidden layers, and the version."""
    wanted = (*_ONE_TOKEN, *_EACH_TOKEN, "text", "label")
    columns: dict[str, list[Any]] = {}
    for path in indices:
        there = [name for name in wanted if name in parquet_columns(path)]
        if missing := [name for name in _ONE_TOKEN if name not in there]:
            raise file_fault(path, missing[0], "is missing", "a column of an lmprobe index")
        values, metadata = read_parquet(path, there)
        if columns and columns.keys() != values.keys():
            raise file_fault(path, None, f"has columns {there}", f"{list(columns)} as the first")
        for name in there:
            columns.setdefault(name, []).extend(values[name])
    try:
        info = {name: json.loads(metadata[_INFO + name]) for name in ("format_version", "tensors")}
        hidden, version = info["tensors"]["hidden_layers"], str(info["format_version"])
        if not version.startswith("2.") or not isinstance(hidden, dict):
            raise ValueError(f"format version {version[:20]}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        what = "".join(c if c.isprintable() else " " for c in str(error))[:80]
        raise file_fault(
            indices[-1], None, f"has no metadata of lmprobe ({what})", "that of format 2"
        ) from None
    return columns, hidden, version


def _read_layout(index: Path, hidden: Mapping[str, Any]) -> tuple[list[int], int]:
    """The layers, and how many shards each has."""
    layers, shards = hidden.get("layers"), hidden.get("shards")
    if not (
        isinstance(layers, list)
        and layers
        and all(type(layer) is int and 0 <= layer < 10**6 for layer in layers)
        and len(set(layers)) == len(layers)
        and isinstance(shards, list)
        and 0 < len(shards) * len(layers) <= _MAX_SHARDS
    ):
        raise file_fault(index, "hidden_layers", "lists no layers or shards", "numbers of layers")
    for name in ("file_pattern", "key_pattern"):
        pattern = hidden.get(name)
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern) or ".." in pattern:
            raise file_fault(
                index,
                name,
                f"is {ascii(pattern)[:60]}",
                "a name with {layer} and {shard} below the folder",
            )
        if pattern.startswith("/"):
            raise file_fault(index, name, "leaves the folder", "a name below it")
    return sorted(layers), len(shards)


def _find_array(
    path: Path, index: Path, hidden: Mapping[str, Any], layer: int, shard: int
) -> RawArray:
    file = path / str(hidden["file_pattern"]).format(layer=layer, shard=shard)
    name = str(hidden["key_pattern"]).format(layer=layer, shard=shard)
    if not file.is_file():
        raise file_fault(file, None, "is missing", f"a file, as {index.name} says")
    array = read_safetensors_header(file).tensors.get(name)
    if array is None or len(array.shape) != 2 or array.dtype not in (*FLOATS, BFLOAT16):
        found = "is missing" if array is None else f"is {array.dtype} of shape {array.shape}"
        raise file_fault(file, name, found, "floats of shape (rows, width)")
    if 0 in array.shape:
        raise file_fault(file, name, f"has shape {array.shape}", "rows")
    return array


def _find_tokens(
    index: Path, columns: Mapping[str, list[Any]], lengths: Sequence[int], *, full: bool
) -> Tokens:
    """Where the tokens of each prompt stand, shard behind shard."""
    starts = np.cumsum([0, *lengths])
    names = _EACH_TOKEN if full else _ONE_TOKEN
    shards, offsets = (columns[name] for name in names)
    try:
        counts = [len(ids) for ids in shards] if full else [1] * len(shards)
        if full and counts != [len(ids) for ids in offsets]:
            raise ValueError("lists of several lengths")
        flat = [
            np.array(_flatten(values) if full else values, np.int64) for values in (shards, offsets)
        ]
        shard, place = flat
        if not len(counts) or min(counts) < 1:
            raise ValueError("a prompt without tokens")
        if (shard < 0).any() or (shard >= len(lengths)).any():
            raise ValueError("a shard that is not there")
        if (place < 0).any() or (place >= np.array(lengths)[shard]).any():
            raise ValueError("a row that is not there")
    except (TypeError, ValueError, OverflowError) as error:
        what = str(error)[:80]
        raise _bad_index(index, names[0], what) from None
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Tokens(starts[shard] + place, ends)


def _flatten(lists: list[Any]) -> list[Any]:
    return [number for numbers in lists for number in numbers]


def _bad_index(index: Path, name: str, what: str) -> FileFormatError:
    return file_fault(index, name, f"names {what}", "a shard and a row of each prompt")


def _read_sentences(index: Path, columns: Mapping[str, list[Any]]) -> Sentences:
    texts, labels = columns.get("text"), columns.get("label")
    found: NDArray[Any] | None = None
    if labels is not None and all(label is not None for label in labels):
        found = np.array(labels)
        if found.ndim != 1 or found.dtype.kind not in "biufU":
            raise file_fault(index, "label", f"is of {found.dtype}", "numbers or texts")
    return Sentences(
        labels=found,
        texts=None if texts is None else np.array([str(t or "") for t in texts], np.str_),
    )
