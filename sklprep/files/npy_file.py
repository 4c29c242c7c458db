"""Reading ``.npy`` files, and the header that they share with the members of an NPZ file."""

from __future__ import annotations

import ast
import functools
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.files.faults import file_fault

MAX_HEADER_BYTES = 4096
PIECE_BYTES = 4 << 20
_MAX_DIMS = 32
_MAX_ARRAY_BYTES = 1 << 48
MAX_CHAR = 0x10FFFF
_DTYPE = re.compile(r"<[fiu][248]|[<|][iu]1|\|b1|<U[1-9][0-9]{0,7}")


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """The npy header of a member: what numpy would make of the bytes that follow."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    data_offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one vector along the last axis."""
        return self.shape[-1] * self.dtype.itemsize

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize


COPY_AGAIN = "The file is damaged; copy or extract it again."


@functools.lru_cache(maxsize=256)  # the files of a folder repeat their headers
def _literal(header: str) -> Any:
    return ast.literal_eval(header)


def parse_npy_header(start: bytes, fault: Callable[..., FileFormatError]) -> ArrayHeader:
    """Read the npy header at the start of a member or file, refusing what numpy should not get.

    `fault` makes the error from what was found, what was expected, and what to do.
    """
    if len(start) < 12 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise fault("is not a numpy array", "an npy header of version 1 to 3")
    prefix = 10 if start[6] == 1 else 12
    length = int.from_bytes(start[8:prefix], "little")
    if length > MAX_HEADER_BYTES or prefix + length > len(start):
        raise fault(f"has a header of {length:,} bytes", f"at most {MAX_HEADER_BYTES:,}")
    try:
        fields = _literal(start[prefix : prefix + length].decode("utf-8").strip())
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        descr_text, shape_text = str(descr)[:60], repr(shape)[:60]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise fault("has a header that cannot be read", "descr, fortran_order, shape") from None
    if not isinstance(descr, str) or not _DTYPE.fullmatch(descr):
        raise fault(
            f"has dtype {descr_text!r}",
            "little-endian float, integer, bool or unicode",
            "Save it as float32 (bfloat16 included)." if "V" in descr_text else "",
        )
    dtype = np.dtype(descr)
    if (
        type(shape) is not tuple
        or len(shape) > _MAX_DIMS
        or any(type(n) is not int or n < 0 for n in shape)
        or math.prod(max(n, 1) for n in shape) * dtype.itemsize > _MAX_ARRAY_BYTES
    ):
        raise fault(f"has shape {shape_text}", f"at most {_MAX_DIMS} numbers of sensible size")
    if fortran not in (False, True) or (fortran and len(shape) > 1):
        raise fault("is in Fortran order", "C order", "Save np.ascontiguousarray(array).")
    return ArrayHeader(dtype, shape, prefix + length)


class NpyFile:
    """An ``.npy`` file, read in bounded pieces: whole, by rows, never mapped.

    Parameters
    ----------
    path : path-like
        A regular file.
    n_rows : int
        Rows that count; the file may hold more, which are not looked at.

    Raises
    ------
    FileFormatError
        If the file does not hold such an array.
    """

    def __init__(self, path: str | os.PathLike[str], n_rows: int) -> None:
        self.path = Path(path)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            info = os.fstat(self._fd)
            if not stat.S_ISREG(info.st_mode):
                raise self._fault("is not a regular file", "an npy file")
            header = parse_npy_header(os.pread(self._fd, MAX_HEADER_BYTES, 0), self._fault)
            if not header.shape or header.shape[0] < n_rows:
                raise self._fault(f"has shape {header.shape}", f"at least {n_rows} rows")
            self.dtype = header.dtype
            self.shape = (n_rows, *header.shape[1:])
            self.offset = header.data_offset
            self.row_bytes = math.prod(header.shape[1:]) * header.dtype.itemsize
            if info.st_size < self.offset + n_rows * self.row_bytes:
                raise self._fault(
                    f"has {info.st_size:,} bytes",
                    f"{self.offset + n_rows * self.row_bytes:,} or more",
                    COPY_AGAIN,
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read the rows from `start` to `stop`."""
        stop = self.shape[0] if stop is None else stop
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self._fill(values, start)
        return values

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read rows by position, runs of neighbours at once."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if len(rows):
            breaks = np.flatnonzero(np.diff(rows) != 1) + 1
            for begin, end in zip([0, *breaks], [*breaks, len(rows)], strict=True):
                self._fill(values[begin:end], int(rows[begin]))
        return values

    def pieces(self, *, last: bool = False) -> Iterator[bytes]:
        """Yield the data's bytes, in pieces of 4 MiB and a rest; or only the last of these."""
        n_bytes = self.shape[0] * self.row_bytes
        position, end = self.offset, self.offset + n_bytes
        if last and n_bytes:
            position += (n_bytes - 1) // PIECE_BYTES * PIECE_BYTES
        while position < end:
            piece = os.pread(self._fd, min(PIECE_BYTES, end - position), position)
            if not piece:
                raise self._fault("was cut short while it was read", "a file that stays")
            position += len(piece)
            yield piece

    def _fill(self, values: NDArray[Any], start: int) -> None:
        buffer = values.reshape(-1).view(np.uint8).data if values.size else memoryview(b"")
        position = self.offset + start * self.row_bytes
        done = 0
        while done < len(buffer):
            n = os.preadv(self._fd, [buffer[done : done + (64 << 20)]], position + done)
            if n == 0:
                raise self._fault("was cut short while it was read", "a file that stays")
            done += n
        if values.dtype.kind == "U" and done and values.reshape(-1).view("<u4").max() > MAX_CHAR:
            raise self._fault("has characters beyond unicode", "text", COPY_AGAIN)
        if values.dtype == bool and done and values.view(np.uint8).max() > 1:
            raise self._fault("has bytes other than 0 and 1", "booleans", COPY_AGAIN)

    def _fault(self, found: str, expected: str, do: str = "") -> FileFormatError:
        return file_fault(self.path, None, found, expected, do)
