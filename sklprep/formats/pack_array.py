"""Appending rows to one array of a pack."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from sklprep.formats.pack_manifest import ArrayEntry
from sklprep.formats.segments import SEGMENT_BYTES, SegmentDigests

_WRITE_BYTES = 128 << 10
"""Bytes of rows that are collected before a write: a sentence adds only a few kilobytes to each of
many arrays, and writing and hashing so little at a time took much of the total time."""


class ArrayWriter:
    """An ``.npy`` file to which rows are appended, with the digests of its segments."""

    def __init__(
        self, path: Path, entry: ArrayEntry, *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        path.parent.mkdir(exist_ok=True)
        self.dtype = np.dtype(entry.dtype)
        self.row_shape = entry.shape[1:]
        self.row_bytes = int(np.prod(self.row_shape, dtype=np.int64)) * self.dtype.itemsize
        self._n = entry.shape[0]
        path.touch()
        self._file = path.open("r+b")
        self._write_header()
        offset = self._file.tell()
        end = offset + self._n * self.row_bytes
        self._file.truncate(end)
        whole = entry.segments[: (end - offset) // segment_bytes]
        self._digests = SegmentDigests(whole, size=segment_bytes)
        self._file.seek(offset + len(whole) * segment_bytes)
        self._digests.update(self._file.read(end - self._file.tell()))
        self._pending = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._n

    def append(self, rows: Any) -> None:
        """Append rows; they are written to the file many at a time."""
        self._pending += np.ascontiguousarray(rows, self.dtype).tobytes()
        self._n += len(rows)
        if len(self._pending) >= _WRITE_BYTES:
            self._write()

    def _write(self) -> None:
        self._file.write(self._pending)
        self._digests.update(self._pending)
        self._pending = bytearray()

    def entry(self) -> ArrayEntry:
        """Return the entry in the manifest for the rows so far."""
        return ArrayEntry.of(self.dtype.str, (self._n, *self.row_shape), self._digests.all())

    def finish(self, *, sync: bool) -> None:
        """Write all rows and the header with their number; with `sync`, also to the disk."""
        self._write()
        end = self._file.tell()
        self._write_header()
        self._file.seek(end)
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def _write_header(self) -> None:
        self._file.seek(0)
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": self.dtype.str,
                "fortran_order": False,
                "shape": (self._n, *self.row_shape),
            },
        )
