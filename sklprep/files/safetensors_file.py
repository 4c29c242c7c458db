"""The header of ``.safetensors`` files: JSON with name, dtype, shape and position of each tensor.

Files are not mapped: a map counts as memory, and if the file is cut short, the process is killed.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any

from sklprep.exceptions import FileFormatError
from sklprep.files.npy_file import COPY_AGAIN
from sklprep.files.raw_array import BFLOAT16, RawArray, digest_of_start, itemsize
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at

METADATA = "__metadata__"
MAX_HEADER_BYTES = 32 << 20
"""Enough for the texts of 100,000 sentences. The safetensors library accepts 100 MB, but as Python
objects a header needs ten times its bytes."""

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": BFLOAT16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
"""Dtypes that are read. Tensors of other dtypes (float8, complex) are ignored."""

_MAX_SIZE = 1 << 48  # numbers in a tensor, as for npy files: sizes fit into a C long
_MOST_DIMS = 32


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """The contents of a file.

    Attributes
    ----------
    tensors : dict of str to RawArray
        Tensors whose dtype is read, in the order of the file.
    unread : dict of str to str
        Dtype of each other tensor.
    metadata : dict of str to str
        Texts by name.
    """

    tensors: dict[str, RawArray]
    unread: dict[str, str]
    metadata: dict[str, str]


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Tell by its first bytes whether a file may be a safetensors file."""
    try:
        with RegularFile(path, "a safetensors file") as file:
            start = read_at(file.fd, 9, 0)
    except (OSError, FileFormatError):
        return False
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1 << 40


def read_safetensors_header(path: str | os.PathLike[str]) -> SafetensorsHeader:
    """Read the header, and check that the file holds all tensors.

    Raises
    ------
    FileFormatError
        If it is not a safetensors file, is cut short, or its tensors overlap.
    """
    with RegularFile(path, "a safetensors file") as file:
        n_bytes, fields = _read_json(file)
        seen = digest_of_start(file)
        metadata = fields.pop(METADATA, {})
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise file.fault(METADATA, "is not a mapping of texts", "a JSON object of texts")
        start = 8 + n_bytes
        tensors, unread, places = {}, {}, []
        for name, entry in fields.items():
            dtype, shape, begin, end = _read_entry(file, name, entry)
            places.append((begin, end, name))
            if dtype in DTYPES:
                own = (DTYPES[dtype], shape, start + begin, seen)
                tensors[name] = RawArray(file.path, name, *own)
            else:
                unread[name] = dtype
        _require_whole(file, start, sorted(places))
        return SafetensorsHeader(tensors, unread, metadata)


def _read_json(file: RegularFile) -> tuple[int, dict[str, Any]]:
    n_bytes = int.from_bytes(read_at(file.fd, 8, 0), "little")
    if file.file_size < 10 or n_bytes > MAX_HEADER_BYTES:
        found = f"has a header of {n_bytes:,} bytes" if file.file_size > 9 else "is cut short"
        raise file.fault(None, found, f"a safetensors header of at most {MAX_HEADER_BYTES:,}")
    if 8 + n_bytes > file.file_size:
        found = f"has {file.file_size:,} bytes"
        raise file.fault(None, found, f"a header of {n_bytes:,}", COPY_AGAIN)
    text = read_at(file.fd, n_bytes, 8)
    try:
        fields = json.loads(text.decode("utf-8"), object_pairs_hook=_distinct)
        if not isinstance(fields, dict):
            raise ValueError("it is not an object")
    except (ValueError, RecursionError, MemoryError) as error:
        what = " ".join(str(error).split())[:80]
        raise file.fault(None, f"has no safetensors header ({what})", "JSON", COPY_AGAIN) from None
    return n_bytes, fields


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name appears twice")
    return fields


def _read_entry(file: RegularFile, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Return dtype, shape, begin and end of a tensor."""
    shown = name if name.isprintable() and len(name) <= 80 else ascii(name)[:80]
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > _MOST_DIMS:
            raise TypeError
        if not all(type(n) is int and 0 <= n < _MAX_SIZE for n in (*shape, begin, end)):
            raise TypeError
    except (TypeError, KeyError, ValueError):
        raise file.fault(
            shown, f"is {str(entry)[:60]!r}", "dtype, shape and data_offsets", COPY_AGAIN
        ) from None
    size = math.prod(shape)
    n_bytes = size * itemsize(DTYPES[dtype]) if dtype in DTYPES else end - begin
    if begin > end or size > _MAX_SIZE or end - begin != n_bytes:
        raise file.fault(
            shown,
            f"has {end - begin:,} bytes for {dtype[:20]!r} of shape {str(shape)[:60]}",
            f"{n_bytes:,}"[:40],
            COPY_AGAIN,
        )
    return dtype, tuple(shape), begin, end


def _require_whole(file: RegularFile, start: int, places: list[tuple[int, int, str]]) -> None:
    """Require that tensors follow each other without gaps, and that the file ends with the last."""
    position = 0
    for begin, end, name in places:
        if begin != position:
            found = f"has {ascii(name)[:80]} at byte {begin:,}"
            raise file.fault(None, found, f"byte {position:,}", COPY_AGAIN)
        position = end
    if file.file_size != start + position:
        expected = f"{start + position:,} according to its header"
        raise file.fault(None, f"has {file.file_size:,} bytes", expected, COPY_AGAIN)
