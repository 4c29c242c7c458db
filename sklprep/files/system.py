"""Functions that some operating systems lack, each with a replacement.

Windows lacks `fcntl` and ``os.pread``, and cannot open folders or rename open files.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

BINARY = getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0)  # opening a pipe would block
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_IS_POSIX = hasattr(os, "O_DIRECTORY")
NO_FOLDER = -1
"""Stands for an open folder where the system cannot open folders."""


def open_to_read(path: Path, *, follow: bool = True) -> int:
    """Open a path without blocking; with ``follow=False``, a link is an error."""
    return os.open(path, _READ if follow else _READ | _NO_LINK)


def open_folder(path: Path, *, follow: bool = True) -> int:
    """Open a folder to lock or sync it; `NO_FOLDER` where the system cannot open folders."""
    if _IS_POSIX:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else _NO_LINK))
    path.stat()  # raises if it does not exist, as opening it would
    return NO_FOLDER


def close(fd: int) -> None:
    """Close a descriptor of `open_to_read` or `open_folder`, and release its lock."""
    if fd != NO_FOLDER:
        os.close(fd)


def sync_to_disk(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk, where the system supports it."""
    if path.is_dir():
        fd = open_folder(path)
    else:  # Windows syncs only files that are open for writing
        fd = os.open(path, _READ if _IS_POSIX else os.O_RDWR | BINARY)
    try:
        if fd != NO_FOLDER:
            os.fsync(fd)
    finally:
        close(fd)


def lock(fd: int, *, wait: bool) -> None:
    """Lock an open file or folder until it is closed or its process ends in any way.

    The file itself is locked: a separate lock file would be left behind by a killed process (the
    `filelock` library leaves one too).

    Raises
    ------
    BlockingIOError
        If another process holds it and `wait` is False.
    OSError
        If the system or the file system has no locks.
    """
    if not HAS_LOCKS or fd == NO_FOLDER:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


if hasattr(os, "pread"):
    read_at = os.pread
else:

    def read_at(fd: int, n_bytes: int, position: int, /) -> bytes:
        """Read at a position. This moves the file position, so only one thread may use the file."""
        os.lseek(fd, position, os.SEEK_SET)
        return os.read(fd, n_bytes)


if hasattr(os, "preadv"):

    def read_into(fd: int, buffer: memoryview, position: int) -> int:
        """Fill a buffer as far as one call does; return the number of bytes, 0 at the end."""
        return os.preadv(fd, [buffer], position)

else:

    def read_into(fd: int, buffer: memoryview, position: int) -> int:
        """Fill a buffer as far as one call does; return the number of bytes, 0 at the end."""
        piece = read_at(fd, len(buffer), position)
        buffer[: len(piece)] = piece
        return len(piece)
