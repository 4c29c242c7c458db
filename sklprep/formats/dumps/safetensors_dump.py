"""Tensors by name in ``.safetensors``: one file, files of different layers, or shards of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sklprep.exceptions import FileFormatError
from sklprep.files.faults import file_fault
from sklprep.files.listing import list_files
from sklprep.files.npy_file import FLOATS
from sklprep.files.raw_array import BFLOAT16, RawArray
from sklprep.files.safetensors_file import (
    SafetensorsHeader,
    is_safetensors,
    read_safetensors_header,
)
from sklprep.formats.dumps.dump import Dump, Request
from sklprep.formats.dumps.keys import PATTERNS, match_layers
from sklprep.formats.dumps.named_arrays import Store, open_stores

SUFFIX = ".safetensors"


def recognize(path: Path) -> bool:
    """Whether it is a file of tensors, or a folder that holds some."""
    return is_safetensors(path) if path.is_file() else bool(list_files(path, SUFFIX))


def open_safetensors(request: Request) -> Dump:
    """Open tensors by name.

    Layers have the numbers in their names. Tools that write the embeddings as number 0, as the
    tuple ``hidden_states`` of Hugging Face has them, need ``layer_offset=-1``.
    """
    path = request.path
    files = [path] if path.is_file() else list_files(path, SUFFIX)
    if not files:
        raise file_fault(path, None, f"holds no {SUFFIX} files", "at least one")
    headers = {file: read_safetensors_header(file) for file in files}
    stores = _arrange(path, headers, request.reading.key)
    return open_stores(stores, request, format="safetensors", version="1", files=files)


def _arrange(
    path: Path, headers: Mapping[Path, SafetensorsHeader], key: str | None
) -> Sequence[Store]:
    """Tell files of different layers, or of different tensors, from shards of rows."""
    by_layer = _layers_by_file(headers, key)
    if by_layer:
        rest = {file: header for file, header in headers.items() if file not in by_layer}
        return [_merge(path, by_layer, rest)]
    names = [set(header.tensors) for header in headers.values()]
    if len(names) == 1 or len(set.union(*names)) == sum(map(len, names)):
        return [_merge(path, {}, headers)]
    for file, own in zip(headers, names, strict=True):
        if own != names[0]:
            other = next(iter(headers)).name
            what = sorted(own ^ names[0])[0]
            raise file_fault(
                file,
                what[:80],
                f"is in only one of this file and {other}, which share others",
                "the same tensors in each file, of different rows, or different tensors",
                "Give each dump by itself.",
            )
    return [Store(file, header.tensors, header.metadata) for file, header in headers.items()]


def _layers_by_file(
    headers: Mapping[Path, SafetensorsHeader], key: str | None
) -> dict[Path, tuple[str, RawArray]]:
    """The one tensor of each file that has the number of a layer in its name."""
    patterns = PATTERNS if key is None else (key,)
    stems = [file.name.removesuffix(SUFFIX) for file in headers]
    fitting = {
        stem for p in patterns for found in match_layers(stems, p).values() for stem in found
    }
    layers = {}
    for file, header in headers.items():
        stem = file.name.removesuffix(SUFFIX)
        wide = [
            array
            for array in header.tensors.values()
            if len(array.shape) > 1 and array.dtype in (*FLOATS, BFLOAT16)
        ]
        names = [array.name or "" for array in wide]
        is_named = any(match_layers(names, pattern) for pattern in patterns)
        if stem in fitting and len(wide) == 1 and not is_named:
            layers[file] = stem, wide[0]
    return layers


def _merge(
    path: Path,
    by_layer: Mapping[Path, tuple[str, RawArray]],
    headers: Mapping[Path, SafetensorsHeader],
) -> Store:
    """Put the tensors of several files together."""
    arrays: dict[str, RawArray] = dict(by_layer.values())
    metadata: dict[str, str] = {}
    for file, header in headers.items():
        if twice := arrays.keys() & header.tensors.keys():
            raise _twice(file, min(twice))
        arrays |= header.tensors
        metadata |= header.metadata
    return Store(path, arrays, metadata)


def _twice(file: Path, name: str) -> FileFormatError:
    return file_fault(file, name[:80], "is in another file, too", "it once")
