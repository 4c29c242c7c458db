"""lmprobe datasets of format 2: shards of tensors, and a Parquet index.

Each layer has its own shards. In the index, ``shard_index`` and ``row_offset`` locate the vector of
the last token of each prompt, and ``token_shard_ids`` and ``token_shard_offsets`` those of all
tokens, if they were stored.
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
"""Pattern of a file name, in which only the numbers of layer and shard are formatted."""
_MAX_SHARDS = 100_000
_ONE_TOKEN = ("shard_index", "row_offset")
_EACH_TOKEN = ("token_shard_ids", "token_shard_offsets")


def recognize(path: Path) -> bool:
    """Tell whether a path is a folder with an index and tensors."""
    return (path / "tensors").is_dir() and bool(list_files(path / "index", _SUFFIX))


def open_lmprobe(request: Request) -> Dump:
    """Open a dataset by its index.

    Layers keep lmprobe's numbers, which are those of the blocks. Rows are the last tokens; if all
    tokens were stored, pooling says what becomes a row.
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
            found = f"and the other shards of layer {layer} have {lengths[:5]} rows"
            raise file_fault(arrays[0].path, None, found, f"{starts[:5]}, as in other layers")
        starts = lengths
        chains[layer + offset] = Chain(arrays, lengths)
        files += [array.path for array in arrays]
    if len({chain.width for chain in chains.values()}) > 1:
        raise file_fault(path, None, "has layers of different widths", "one width")
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
    """Read the columns of all index files, the entry of the hidden layers, and the version."""
    wanted = (*_ONE_TOKEN, *_EACH_TOKEN, "text", "label")
    columns: dict[str, list[Any]] = {}
    for path in indices:
        there = [name for name in wanted if name in parquet_columns(path)]
        if missing := [name for name in _ONE_TOKEN if name not in there]:
            raise file_fault(path, missing[0], "is missing", "a column of an lmprobe index")
        values, metadata = read_parquet(path, there)
        if columns and columns.keys() != values.keys():
            raise file_fault(path, None, f"has columns {there}", f"{list(columns)} as in the first")
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
            indices[-1], None, f"has no metadata of lmprobe ({what})", "those of format 2"
        ) from None
    return columns, hidden, version


def _read_layout(index: Path, hidden: Mapping[str, Any]) -> tuple[list[int], int]:
    """Return the layers, and the number of shards of each."""
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
            raise file_fault(index, name, "points outside the folder", "a name below it")
    return sorted(layers), len(shards)


def _find_array(
    path: Path, index: Path, hidden: Mapping[str, Any], layer: int, shard: int
) -> RawArray:
    file = path / str(hidden["file_pattern"]).format(layer=layer, shard=shard)
    name = str(hidden["key_pattern"]).format(layer=layer, shard=shard)
    if not file.is_file():
        raise file_fault(file, None, "is missing", f"this file, which {index.name} names")
    array = read_safetensors_header(file).tensors.get(name)
    if array is None or len(array.shape) != 2 or array.dtype not in (*FLOATS, BFLOAT16):
        found = "is missing" if array is None else f"is {array.dtype} of shape {array.shape}"
        raise file_fault(file, name, found, "floats of shape (rows, width)")
    if 0 in array.shape:
        raise file_fault(file, name, f"has shape {array.shape}", "at least one row")
    return array


def _find_tokens(
    index: Path, columns: Mapping[str, list[Any]], lengths: Sequence[int], *, full: bool
) -> Tokens:
    """Find the tokens of each prompt among the concatenated shards."""
    starts = np.cumsum([0, *lengths])
    names = _EACH_TOKEN if full else _ONE_TOKEN
    shards, offsets = (columns[name] for name in names)
    try:
        counts = [len(ids) for ids in shards] if full else [1] * len(shards)
        if full and counts != [len(ids) for ids in offsets]:
            raise ValueError("lists of different lengths")
        flat = [
            np.array(_flatten(values) if full else values, np.int64) for values in (shards, offsets)
        ]
        shard, place = flat
        if not len(counts) or min(counts) < 1:
            raise ValueError("a prompt without tokens")
        if (shard < 0).any() or (shard >= len(lengths)).any():
            raise ValueError("a shard that does not exist")
        if (place < 0).any() or (place >= np.array(lengths)[shard]).any():
            raise ValueError("a row that does not exist")
    except (TypeError, ValueError, OverflowError) as error:
        what = str(error)[:80]
        raise _bad_index(index, names[0], what) from None
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Tokens(starts[shard] + place, ends)


def _flatten(lists: list[Any]) -> list[Any]:
    return [number for numbers in lists for number in numbers]


def _bad_index(index: Path, name: str, what: str) -> FileFormatError:
    return file_fault(index, name, f"names {what}", "a shard and a row for each prompt")


def _read_sentences(index: Path, columns: Mapping[str, list[Any]]) -> Sentences:
    texts, labels = columns.get("text"), columns.get("label")
    found: NDArray[Any] | None = None
    if labels is not None and all(label is not None for label in labels):
        found = np.array(labels)
        if found.ndim != 1 or found.dtype.kind not in "biufU":
            raise file_fault(index, "label", f"has dtype {found.dtype}", "numbers or texts")
    return Sentences(
        labels=found,
        texts=None if texts is None else np.array([str(t or "") for t in texts], np.str_),
    )
