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
    """Tell whether a path is a safetensors file, or a folder with some."""
    return is_safetensors(path) if path.is_file() else bool(list_files(path, SUFFIX))


def open_safetensors(request: Request) -> Dump:
    """Open tensors by name.

    Layers keep the numbers in their names. If number 0 holds the embeddings, as in the tuple
    ``hidden_states`` of Hugging Face, ``layer_offset=-1`` is needed.
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
    """Distinguish files with different layers or tensors from files with different rows."""
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
                f"is in only one of this file and {other}, which share other tensors",
                "files with the same tensors, for different rows, or with different tensors",
                "Give each dump separately.",
            )
    return [Store(file, header.tensors, header.metadata) for file, header in headers.items()]


def _layers_by_file(
    headers: Mapping[Path, SafetensorsHeader], key: str | None
) -> dict[Path, tuple[str, RawArray]]:
    """Find the files that are named after a layer, and the only tensor of each."""
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
    """Merge the tensors of several files."""
    arrays: dict[str, RawArray] = dict(by_layer.values())
    metadata: dict[str, str] = {}
    for file, header in headers.items():
        if twice := arrays.keys() & header.tensors.keys():
            raise _twice(file, min(twice))
        arrays |= header.tensors
        metadata |= header.metadata
    return Store(path, arrays, metadata)


def _twice(file: Path, name: str) -> FileFormatError:
    return file_fault(file, name[:80], "is also in another file", "one tensor of this name")
