"""Columns of Arrow streams, as the `datasets` library writes them: where their numbers are stored.

Only the messages (flatbuffers) that describe the columns, and the offsets of lists, are read; the
numbers stay in the file until they are needed. pyarrow would read a whole batch at once, or map the
file into memory. Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.files.npy_file import COPY_AGAIN
from sklprep.files.raw_array import RawArray, digest_of_start
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at

_MAGIC = b"ARROW1\0\0"  # start of an Arrow file, which continues as a stream
_CONTINUES = 0xFFFFFFFF
_MAX_MESSAGE_BYTES = 16 << 20
"""A message takes about 100 bytes per column, so this suffices for a hundred thousand columns."""
_MAX_BODY = 1 << 48
_MAX_NESTED = 8  # lists in lists; arrays have at most 5 axes
_SCHEMA, _BATCH = 1, 3  # kinds of messages

_INT, _FLOAT, _UTF8, _BOOL, _LIST, _STRUCT, _FIXED_LIST, _LARGE_UTF8, _LARGE_LIST = (
    *(2, 3, 5, 6, 12, 13, 16, 20, 21),
)
_BUFFERS = {
    **dict.fromkeys((_INT, _FLOAT, _BOOL, 7, 8, 9, 10, 11, 15, 18), 2),
    **dict.fromkeys((_UTF8, _LARGE_UTF8, 4, 19), 3),
    **dict.fromkeys((_LIST, _LARGE_LIST, 17), 2),
    **dict.fromkeys((_STRUCT, _FIXED_LIST), 1),
    1: 0,
}
"""Buffers of a column by its type, without its children. Unions and views are not read."""
_FLOATS = ("<f2", "<f4", "<f8")


@dataclass(frozen=True, slots=True)
class ArrowText:
    """A column of text: its offsets, and the bytes to which they point."""

    path: Path
    name: str
    offsets: RawArray
    data: RawArray

    dtype = "text"

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_rows,)."""
        return (self.offsets.shape[0] - 1,)

    @property
    def width(self) -> int:
        """One text per row."""
        return 1

    @property
    def n_vectors(self) -> int:
        """Texts are not vectors."""
        return 0

    def read(self, positions: NDArray[np.int64], /) -> NDArray[Any]:
        """Read some of the texts."""
        return self.read_all()[positions]

    def read_all(self) -> NDArray[Any]:
        """Read all texts."""
        offsets, data = self.offsets.read_all().astype(np.int64), self.data.read_all().tobytes()
        try:
            if offsets[0] < 0 or (np.diff(offsets) < 0).any() or offsets[-1] > len(data):
                raise ValueError("offsets point outside")
            ends = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
            texts = [data[start:stop].decode("utf-8") for start, stop in ends]
        except ValueError as error:
            what = str(error)[:60]
            raise FileFormatError(
                f"{self.path}: column {self.name!r} cannot be read ({what}); expected texts."
            ) from None
        return np.array(texts, np.str_)


@dataclass(frozen=True, slots=True)
class _Field:
    """A column, or the items of a list."""

    name: str
    kind: int
    dtype: str
    list_size: int
    is_encoded: bool
    children: tuple[_Field, ...]


def read_arrow_batches(path: Path) -> Iterator[dict[str, RawArray | ArrowText]]:
    """Find the columns of each record batch: numbers, arrays of one shape, and texts.

    Other columns, and those with missing values or with lists of different lengths, are left out.

    Raises
    ------
    FileFormatError
        If the file is damaged or compressed.
    """
    with RegularFile(path, "an Arrow stream") as file:
        seen = digest_of_start(file)
        fields: tuple[_Field, ...] | None = None
        try:
            for kind, header, body, n_bytes in _messages(file):
                if kind == _SCHEMA and fields is None:
                    fields = tuple(_read_field(table, 0) for table in header.tables(1))
                elif kind == _BATCH and fields is not None:
                    yield _Batch(file, header, body, n_bytes, seen).columns(fields)
        except (struct.error, IndexError, UnicodeDecodeError, OverflowError):
            raise file.fault(None, "has a broken message", "an Arrow stream", COPY_AGAIN) from None
        if fields is None:
            raise file.fault(None, "has no schema", "an Arrow stream", COPY_AGAIN)


def _messages(file: RegularFile) -> Iterator[tuple[int, _Table, int, int]]:
    """Yield kind and header of each message, and the position and length of its body."""
    position = len(_MAGIC) if read_at(file.fd, len(_MAGIC), 0) == _MAGIC else 0
    while start := read_at(file.fd, 8, position):
        mark, length = struct.unpack("<Ii", start)
        if mark != _CONTINUES or not 0 <= length <= _MAX_MESSAGE_BYTES:
            found = "has no message where one should begin"
            raise file.fault(None, found, "an Arrow stream", COPY_AGAIN)
        if length == 0:
            return
        raw = read_at(file.fd, length, position + 8)
        message = _Table.root(raw)
        body, n_bytes = position + 8 + length, message.number(3, "<q")
        if not 0 <= n_bytes <= _MAX_BODY or body + n_bytes > file.file_size:
            expected = f"{body + n_bytes:,} or more"
            raise file.fault(None, f"has {file.file_size:,} bytes", expected, COPY_AGAIN)
        header = message.table(2)
        if header is not None:
            yield message.number(1, "<B"), header, body, n_bytes
        position = body + n_bytes


class _Table:
    """A table of a flatbuffer; offsets outside it raise `struct.error` or `IndexError`."""

    def __init__(self, raw: bytes, at: int) -> None:
        self._raw, self._at = raw, at
        (back,) = struct.unpack_from("<i", raw, at)
        self._slots = at - back
        if self._slots < 0:
            raise IndexError
        (self._n_bytes,) = struct.unpack_from("<H", raw, self._slots)

    @classmethod
    def root(cls, raw: bytes) -> _Table:
        """Return the root table of a buffer."""
        return cls(raw, struct.unpack_from("<I", raw, 0)[0])

    def _place(self, slot: int) -> int | None:
        at = 4 + 2 * slot
        if at + 2 > self._n_bytes:
            return None
        (offset,) = struct.unpack_from("<H", self._raw, self._slots + at)
        return self._at + offset if offset else None

    def number(self, slot: int, kind: str) -> int:
        """Return a number; 0 if it is omitted."""
        place = self._place(slot)
        return 0 if place is None else int(struct.unpack_from(kind, self._raw, place)[0])

    def _target(self, slot: int) -> int | None:
        place = self._place(slot)
        return None if place is None else place + struct.unpack_from("<I", self._raw, place)[0]

    def table(self, slot: int) -> _Table | None:
        """Return a table within this one; None if it is omitted."""
        target = self._target(slot)
        return None if target is None else _Table(self._raw, target)

    def text(self, slot: int) -> str:
        """Return a text; empty if it is omitted."""
        target = self._target(slot)
        if target is None:
            return ""
        (length,) = struct.unpack_from("<I", self._raw, target)
        return self._raw[target + 4 : target + 4 + length].decode("utf-8")

    def tables(self, slot: int) -> list[_Table]:
        """Return a vector of tables."""
        start, length = self._vector(slot, 4)
        places = range(start, start + 4 * length, 4)
        return [_Table(self._raw, p + struct.unpack_from("<I", self._raw, p)[0]) for p in places]

    def pairs(self, slot: int) -> list[tuple[int, int]]:
        """Return a vector of structs of two numbers."""
        start, length = self._vector(slot, 16)
        return [struct.unpack_from("<qq", self._raw, start + 16 * n) for n in range(length)]

    def _vector(self, slot: int, size: int) -> tuple[int, int]:
        target = self._target(slot)
        if target is None:
            return 0, 0
        (length,) = struct.unpack_from("<I", self._raw, target)
        if target + 4 + size * length > len(self._raw):
            raise IndexError
        return target + 4, length


def _read_field(table: _Table, depth: int) -> _Field:
    if depth > _MAX_NESTED:
        raise IndexError
    kind, details = table.number(2, "<B"), table.table(3)
    dtype, list_size = "", 0
    if details is not None and kind == _FLOAT:
        precision = details.number(0, "<h")
        dtype = _FLOATS[precision] if 0 <= precision < 3 else ""
    elif details is not None and kind == _INT:
        bits, signed = details.number(0, "<i"), details.number(1, "<B")
        dtype = f"{'|' if bits == 8 else '<'}{'i' if signed else 'u'}{bits // 8}"
    elif details is not None and kind == _FIXED_LIST:
        list_size = details.number(0, "<i")
    children = tuple(_read_field(child, depth + 1) for child in table.tables(5))
    is_encoded = table.table(4) is not None
    return _Field(table.text(0), kind, dtype, list_size, is_encoded, children)


class _Batch:
    """The nodes and buffers of one record batch, taken in the order of its columns."""

    def __init__(
        self, file: RegularFile, header: _Table, body: int, n_bytes: int, seen: bytes
    ) -> None:
        self._file, self._body, self._n_bytes, self._seen = file, body, n_bytes, seen
        if header.table(3) is not None:
            do = "Save the dataset with save_to_disk, which does not compress."
            raise file.fault(None, "is compressed", "plain Arrow buffers", do)
        self._n_rows = header.number(0, "<q")
        self._nodes, self._buffers = iter(header.pairs(1)), iter(header.pairs(2))

    def columns(self, fields: tuple[_Field, ...]) -> dict[str, RawArray | ArrowText]:
        """Return the columns that can be read."""
        found = {}
        for field in fields:
            column = self._take(field, field.name, (self._n_rows,))
            if column is not None:
                found[field.name] = column
        return found

    def _take(
        self, field: _Field, name: str, shape: tuple[int, ...]
    ) -> RawArray | ArrowText | None:
        """Consume the nodes and buffers of a field; return its array if all rows have one shape."""
        kind = _INT if field.is_encoded else field.kind
        if kind not in _BUFFERS:
            raise self._file.fault(name[:80], "has a type that is not read", "numbers or lists")
        length, n_missing = self._next(self._nodes)
        buffers = [self._next(self._buffers) for _ in range(_BUFFERS[kind])]
        is_sound = shape != () and length == int(np.prod(shape)) and n_missing == 0
        if field.is_encoded:
            return None
        if kind in (_INT, _FLOAT) and field.dtype in (*_FLOATS, "<i8", "<i4", "<i2", "|i1", "|u1"):
            return self._array(name, field.dtype, shape, buffers[1]) if is_sound else None
        if kind in (_UTF8, _LARGE_UTF8) and is_sound and len(shape) == 1:
            wide = "<i8" if kind == _LARGE_UTF8 else "<i4"
            offsets = self._array(name, wide, (shape[0] + 1,), buffers[1])
            data = self._array(name, "|u1", (buffers[2][1],), buffers[2])
            return ArrowText(self._file.path, name, offsets, data)
        inner: tuple[int, ...] = ()
        if kind in (_LIST, _LARGE_LIST, _FIXED_LIST) and is_sound:
            size = (
                field.list_size if kind == _FIXED_LIST else self._list_size(kind, length, buffers)
            )
            inner = (*shape, size) if size > 0 else ()
        taken = [self._take(child, name, inner) for child in field.children]
        return taken[0] if inner and len(taken) == 1 else None

    def _next(self, pairs: Iterator[tuple[int, int]]) -> tuple[int, int]:
        pair = next(pairs, None)
        if pair is None:
            raise IndexError
        return pair

    def _list_size(self, kind: int, length: int, buffers: list[tuple[int, int]]) -> int:
        """Return the length of all lists, 0 if it differs."""
        dtype = "<i8" if kind == _LARGE_LIST else "<i4"
        if length < 1:
            return 0
        offsets = self._array(None, dtype, (length + 1,), buffers[1]).read_all()
        sizes = np.diff(offsets)
        return int(sizes[0]) if offsets[0] == 0 and (sizes == sizes[0]).all() else 0

    def _array(
        self, name: str | None, dtype: str, shape: tuple[int, ...], buffer: tuple[int, int]
    ) -> RawArray:
        start, n_bytes = buffer
        array = RawArray(self._file.path, name, dtype, shape, self._body + start, self._seen)
        if start < 0 or n_bytes < array.n_bytes or start + array.n_bytes > self._n_bytes:
            raise self._file.fault(
                name, f"has a buffer of {n_bytes:,} bytes", f"{array.n_bytes:,}", COPY_AGAIN
            )
        return array
