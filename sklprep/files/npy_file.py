"""Reading ``.npy`` files, and their header, which is also that of the members of an NPZ file."""

from __future__ import annotations

import ast
import functools
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at

MAX_HEADER_BYTES = 4096
"""numpy writes 118 bytes for a plain array. Headers are parsed as Python literals; numpy itself
took 954 MB and 4.8 s for a header with 500 MB of spaces."""

_MAX_DIMS = 32  # the limit of numpy before version 2, which has 64
_MAX_ARRAY_BYTES = 1 << 48  # 256 TB: sums of such sizes still fit into a C long

FLOATS = ("<f2", "<f4", "<f8")
"""Dtypes of activations. numpy lacks bfloat16; longer floats differ between machines."""

_PLAIN_DTYPE = re.compile(r"<[fiu][248]|[<|][iu]1|\|b1|<U[1-9][0-9]{0,7}")
"""All dtypes that are read: floats, integers, booleans and text, little-endian, as numpy writes
them on all common machines, and never of 0 bytes, of which a shape can claim any number."""

_LAST_CHARACTER = 0x10FFFF  # of Unicode; for others numpy raises SystemError


def is_plain_dtype(dtype: str) -> bool:
    """Tell whether arrays of a dtype, written as in a header, can be read and written.

    Examples
    --------
    >>> [is_plain_dtype(dtype) for dtype in ("<f4", "|b1", "<U12", ">f4", "|O", "|V2")]
    [True, True, True, False, False, False]
    """
    return _PLAIN_DTYPE.fullmatch(dtype) is not None


def find_bad_bytes(values: NDArray[Any]) -> tuple[str, str] | None:
    """Find bytes that are invalid for the dtype but that numpy would read: found, expected."""
    if values.size and values.dtype == bool and values.view(np.uint8).max() > 1:
        return "has bytes other than 0 and 1", "booleans"
    if values.dtype.kind == "U" and values.size:
        characters = values.reshape(-1).view("<u4")
        if characters.max() > _LAST_CHARACTER:
            return "has characters beyond unicode", "text"
    return None


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """The npy header of a member: dtype and shape of the array whose bytes follow."""

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


@functools.lru_cache(maxsize=256)  # the files of a folder have few different headers
def _literal(header: str) -> Any:
    return ast.literal_eval(header)


def parse_npy_header(
    start: bytes, fault: Callable[..., Exception], *, fortran: bool = False
) -> ArrayHeader:
    """Read the npy header at the start of a member or file, and refuse unsafe or foreign ones.

    `fault` builds the error from what was found, what was expected, and what to do; `fortran` says
    whether arrays may be in Fortran order.
    """
    if len(start) < 12 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise fault("is not a numpy array", "an npy header of version 1 to 3")
    prefix = 10 if start[6] == 1 else 12
    length = int.from_bytes(start[8:prefix], "little")
    if length > MAX_HEADER_BYTES or prefix + length > len(start):
        raise fault(f"has a header of {length:,} bytes", f"at most {MAX_HEADER_BYTES:,}")
    try:
        fields = _literal(start[prefix : prefix + length].decode("utf-8").strip())
        descr, turned, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        descr_text, shape_text = str(descr)[:60], repr(shape)[:60]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        raise fault("has a header that cannot be read", "descr, fortran_order, shape") from None
    if not isinstance(descr, str) or not is_plain_dtype(descr):
        raise fault(
            f"has dtype {descr_text!r}",
            "little-endian float, integer, bool or unicode",
            _say_what_to_do(descr_text),
        )
    dtype = np.dtype(descr)
    if (
        type(shape) is not tuple
        or len(shape) > _MAX_DIMS
        or any(type(n) is not int or n < 0 for n in shape)
        or math.prod(max(n, 1) for n in shape) * dtype.itemsize > _MAX_ARRAY_BYTES
    ):
        raise fault(f"has shape {shape_text}", f"at most {_MAX_DIMS} dimensions of sensible size")
    if turned not in (False, True) or (turned and len(shape) > 1 and not fortran):
        raise fault("is in Fortran order", "C order", "Save np.ascontiguousarray(array).")
    return ArrayHeader(dtype, shape, prefix + length)


def _say_what_to_do(descr: str) -> str:
    if "V" in descr:
        return "Save it as float32 (bfloat16 included)."
    if "O" in descr:
        return (
            "Python objects are stored as pickles, which are not read: save one array of numbers,"
            " for example np.stack(list(array)).astype(np.float32), or of text, for example"
            " array.astype(str). Pool rows of different lengths first, and leave out None."
        )
    return ""


class NpyFile(RegularFile):
    """An ``.npy`` file, read whole or by rows, in bounded pieces and never mapped into memory.

    Parameters
    ----------
    path : path-like
        A regular file.
    n_rows : int
        Number of rows to use; the file may have more, which are ignored.

    Raises
    ------
    FileFormatError
        If the file does not hold such an array.
    """

    def __init__(self, path: str | os.PathLike[str], n_rows: int) -> None:
        super().__init__(path, "an npy file")
        try:
            header = parse_npy_header(read_at(self._fd, MAX_HEADER_BYTES, 0), self._fault)
            if not header.shape or header.shape[0] < n_rows:
                raise self._fault(f"has shape {header.shape}", f"at least {n_rows} rows")
            self.dtype = header.dtype
            self.shape = (n_rows, *header.shape[1:])
            self.offset = header.data_offset
            self.row_bytes = math.prod(header.shape[1:]) * header.dtype.itemsize
            end = self.offset + n_rows * self.row_bytes
            if self.file_size < end:
                raise self._fault(f"has {self.file_size:,} bytes", f"{end:,} or more", COPY_AGAIN)
        except BaseException:
            self.close()
            raise

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read the rows from `start` to `stop`."""
        stop = self.shape[0] if stop is None else stop
        values = np.empty((stop - start, *self.shape[1:]), self.dtype)
        self._fill(values, start)
        return values

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read rows by their positions; consecutive rows are read at once."""
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if len(rows):
            breaks = np.flatnonzero(np.diff(rows) != 1) + 1
            for begin, end in zip([0, *breaks], [*breaks, len(rows)], strict=True):
                self._fill(values[begin:end], int(rows[begin]))
        return values

    def pieces(self, size: int, *, last: bool = False) -> Iterator[bytes]:
        """Yield the bytes of the data in pieces of one size and a rest; or only the last piece."""
        n_bytes = self.shape[0] * self.row_bytes
        position, end = self.offset, self.offset + n_bytes
        if last and n_bytes:
            position += (n_bytes - 1) // size * size
        while position < end:
            piece = read_at(self._fd, min(size, end - position), position)
            if not piece:
                raise self._fault("was cut short while it was read", "an unchanged file")
            position += len(piece)
            yield piece

    def _fill(self, values: NDArray[Any], start: int) -> None:
        self.fill(values, self.offset + start * self.row_bytes)
        if bad := find_bad_bytes(values):
            raise self._fault(*bad, COPY_AGAIN)

    def _fault(self, found: str, expected: str, do: str = "") -> FileFormatError:
        return self.fault(None, found, expected, do)
