"""The header of ``.safetensors`` files, which says in JSON what lies where.

A memory map would count as memory, and a file that is cut short under it ends the process.
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
"""The safetensors library takes 100 MB. As Python objects a header has ten times its bytes, and
this much holds the texts of 100,000 sentences."""

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
"""Dtypes that are read. Tensors of others (float8, complex numbers) may lie beside them."""

_MAX_SIZE = 1 << 48  # numbers of a tensor, as for npy files: sizes fit into a C long
_MOST_DIMS = 32


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a file holds.

    Attributes
    ----------
    tensors : dict of str to RawArray
        Those of a dtype that is read, in the order of the file.
    unread : dict of str to str
        Dtype of each of the others.
    metadata : dict of str to str
    """

    tensors: dict[str, RawArray]
    unread: dict[str, str]
    metadata: dict[str, str]


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Tell by its first bytes whether a file may be one."""
    try:
        with RegularFile(path, "a safetensors file") as file:
            start = read_at(file.fd, 9, 0)
    except (OSError, FileFormatError):
        return False
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < 1 << 40


def read_safetensors_header(path: str | os.PathLike[str]) -> SafetensorsHeader:
    """Read what lies where, and check that the file holds it.

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
            raise file.fault(METADATA, "is not a table of texts", "JSON texts by name")
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
            raise ValueError("it is not a table")
    except (ValueError, RecursionError, MemoryError) as error:
        what = " ".join(str(error).split())[:80]
        raise file.fault(None, f"has no safetensors header ({what})", "JSON", COPY_AGAIN) from None
    return n_bytes, fields


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name is there twice")
    return fields


def _read_entry(file: RegularFile, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Dtype, shape, begin and end of a tensor."""
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
    """Require that tensors lie one behind the other, and that the file ends with the last."""
    position = 0
    for begin, end, name in places:
        if begin != position:
            what = ascii(name)[:80]
            raise file.fault(None, f"has {what} at {begin:,}", f"it at {position:,}", COPY_AGAIN)
        position = end
    if file.file_size != start + position:
        expected = f"{start + position:,} by its header"
        raise file.fault(None, f"has {file.file_size:,} bytes", expected, COPY_AGAIN)
