"""Arrays of plain numbers within larger files, read by vectors in bounded pieces, never mapped."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.files.faults import file_fault
from sklprep.files.npy_file import COPY_AGAIN, find_bad_bytes
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at

BFLOAT16 = "bfloat16"
"""The only dtype here that numpy lacks: the upper half of a float32."""

_SEEN_BYTES = 4096
"""Bytes at the start of a file by which a changed file is recognized: they hold the names, shapes
and positions of its first arrays."""
_MAX_SMALL = 1 << 30
"""Limit for labels, masks and the like: so many rows would not fit in memory."""


@dataclass(frozen=True, slots=True)
class RawArray:
    """An array in C order at a position of a file.

    Parameters
    ----------
    path : Path
    name : str or None
        Its name in errors; None for the file itself.
    dtype : str
        As numpy writes it, or ``"bfloat16"``.
    shape : tuple of int
    offset : int
        Position of its first byte in the file.
    seen : bytes
        Result of `digest_of_start` when the file was opened.
    """

    path: Path
    name: str | None
    dtype: str
    shape: tuple[int, ...]
    offset: int
    seen: bytes

    @property
    def width(self) -> int:
        """Length of a vector along the last axis."""
        return self.shape[-1]

    @property
    def n_vectors(self) -> int:
        """Number of vectors along the last axis."""
        return math.prod(self.shape[:-1])

    @property
    def n_bytes(self) -> int:
        """Number of bytes in the file."""
        return math.prod(self.shape) * itemsize(self.dtype)

    def read(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Read vectors along the last axis by their positions in C order: (n, width)."""
        with self._open() as file:
            values = np.empty((len(positions), *self.shape[-1:]), _stored(self.dtype))
            row_bytes = values.itemsize * math.prod(self.shape[-1:])
            breaks = np.flatnonzero(np.diff(positions) != 1) + 1
            for start, stop in zip([0, *breaks], [*breaks, len(positions)], strict=True):
                if stop > start:
                    place = self.offset + int(positions[start]) * row_bytes
                    file.fill(values[start:stop], place, self.name)
        return self._decoded(values)

    def read_entries(self, start: int, stop: int) -> NDArray[Any]:
        """Read entries from `start` to `stop`, counted in C order."""
        values = np.empty(stop - start, _stored(self.dtype))
        with self._open() as file:
            file.fill(values, self.offset + start * values.itemsize, self.name)
        return self._decoded(values)

    def read_all(self) -> NDArray[Any]:
        """Read a small array completely."""
        if self.n_bytes > _MAX_SMALL:
            raise file_fault(
                self.path, self.name, f"has {self.n_bytes:,} bytes", f"at most {_MAX_SMALL:,}"
            )
        return self.read_entries(0, math.prod(self.shape)).reshape(self.shape)

    def _open(self) -> RegularFile:
        file = RegularFile(self.path, "a file of arrays")
        if digest_of_start(file) != self.seen:
            file.close()
            found, do = "has changed since it was opened", "Load it again."
            raise file_fault(self.path, None, found, "the same content", do)
        return file

    def _decoded(self, values: NDArray[Any]) -> NDArray[Any]:
        if bad := find_bad_bytes(values):
            raise file_fault(self.path, self.name, *bad, COPY_AGAIN)
        if self.dtype != BFLOAT16:
            return values
        wide = values.astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)


def itemsize(dtype: str) -> int:
    """Return the number of bytes of one number in the file."""
    return _stored(dtype).itemsize


def _stored(dtype: str) -> np.dtype[Any]:
    return np.dtype("<u2" if dtype == BFLOAT16 else dtype)


def digest_of_start(file: RegularFile) -> bytes:
    """Return a digest of the size and the start of a file, which shows whether it changed."""
    start = read_at(file.fd, _SEEN_BYTES, 0)
    return hashlib.blake2b(start + str(file.file_size).encode(), digest_size=16).digest()
