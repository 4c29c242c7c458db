"""Activations that SAELens cached: a folder that `datasets` wrote, with a column for each hook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sklprep.exceptions import FileFormatError
from sklprep.files.arrow_file import read_arrow_batches
from sklprep.files.faults import file_fault
from sklprep.files.listing import list_files
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at
from sklprep.formats.dumps.dump import Dump, Request
from sklprep.formats.dumps.named_arrays import Store, open_stores

_STATE = "state.json"
_SUFFIX = ".arrow"
_MAX_STATE_BYTES = 8 << 20  # it lists the files, about a hundred bytes for each


def recognize(path: Path) -> bool:
    """Tell whether a path is a folder that ``Dataset.save_to_disk`` wrote."""
    return (path / _STATE).is_file() and bool(list_files(path, _SUFFIX))


def open_saelens(request: Request) -> Dump:
    """Open a folder of cached activations.

    Each row of a column has shape (context, width): a context is a sentence, whose tokens are all
    real, because SAELens packs contexts without padding. ``blocks.12.hook_resid_post`` is layer 12;
    any other hook needs a `key`, such as ``blocks.{layer}.hook_mlp_out``. The input of a block,
    ``hook_resid_pre``, is the output of the block before: use ``layer_offset=-1``.
    """
    path = request.path
    files = _list_data(path)
    stores = [
        Store(file, columns, {}, all_real=True)
        for file in files
        for columns in read_arrow_batches(file)
        if columns
    ]
    if not stores:
        raise file_fault(path, None, "holds no rows", "columns of arrays of one shape")
    return open_stores(stores, request, format="saelens", version=_version(path), files=files)


def _list_data(path: Path) -> list[Path]:
    """List the files in the order of their rows."""
    there = {file.name: file for file in list_files(path, _SUFFIX)}
    state = _read_json(path / _STATE)
    try:
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (TypeError, KeyError):
        raise file_fault(path / _STATE, None, "lists no _data_files", "names of files") from None
    missing = [name for name in names if name not in there]
    if missing or not names:
        found = f"names {ascii(missing[0])[:80]}, which is missing" if missing else "lists no file"
        raise file_fault(path / _STATE, None, found, "all of its files in the same folder")
    return [there[name] for name in names]


def _read_json(path: Path) -> Any:
    try:
        with RegularFile(path, "JSON") as file:
            return json.loads(read_at(file.fd, _MAX_STATE_BYTES, 0))
    except (ValueError, RecursionError, FileNotFoundError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise file_fault(path, None, "cannot be read as JSON", "what datasets writes") from None


def _version(path: Path) -> str:
    """Return the version of the dataset, or an empty text."""
    try:
        version = _read_json(path / "dataset_info.json").get("version", {})
        return str(version.get("version_str", ""))[:20]
    except (FileFormatError, AttributeError, OSError):
        return ""
