"""A regular file that is open for reading: pipes, devices and folders are refused unread."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.files.faults import file_fault
from sklprep.files.system import open_to_read, read_into

_READ_BYTES = 64 << 20
"""Bytes of one system call: Linux reads at most 2 GiB at once, and signals wait for its end."""


class RegularFile:
    """Base class of the readers of files with arrays.

    Parameters
    ----------
    path : path-like
    expected : str
        What errors say that the file should be.

    Attributes
    ----------
    path : Path
    file_size : int
        Number of bytes when it was opened.
    """

    def __init__(self, path: str | os.PathLike[str], expected: str) -> None:
        self.path = Path(path)
        self._fd = open_to_read(self.path)
        info = os.fstat(self._fd)
        self.file_size = info.st_size
        if not stat.S_ISREG(info.st_mode):
            self.close()
            raise self.fault(None, "is not a regular file", expected)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing it again has no effect."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def fd(self) -> int:
        """File descriptor."""
        return self._fd

    def fill(self, values: NDArray[Any], position: int, member: str | None = None) -> None:
        """Fill an array with the bytes at a position of the file."""
        buffer = values.reshape(-1).view(np.uint8).data if values.size else memoryview(b"")
        done = 0
        while done < len(buffer):
            n = read_into(self._fd, buffer[done : done + _READ_BYTES], position + done)
            if n == 0:
                raise self.fault(member, "was cut short while it was read", "an unchanged file")
            done += n

    def fault(self, member: str | None, found: str, expected: str, do: str = "") -> FileFormatError:
        """Build the error that names this file, the member, what was found and expected."""
        return file_fault(self.path, member, found, expected, do)
