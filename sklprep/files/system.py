"""What an operating system may lack, each with what stands in for it.

Windows has neither `fcntl` nor ``os.pread``, opens no folder, and renames no open file.
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
_READ = os.O_RDONLY | BINARY | getattr(os, "O_NONBLOCK", 0)  # a pipe would be waited for
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_IS_POSIX = hasattr(os, "O_DIRECTORY")
NO_FOLDER = -1
"""Stands for an open folder where the system opens none."""


def open_to_read(path: Path, *, follow: bool = True) -> int:
    """Open whatever stands under a name, without waiting for it; not through a link if told so."""
    return os.open(path, _READ if follow else _READ | _NO_LINK)


def open_folder(path: Path, *, follow: bool = True) -> int:
    """Open a folder, to lock or to sync it; gives `NO_FOLDER` where the system opens none."""
    if _IS_POSIX:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else _NO_LINK))
    path.stat()  # raises if it is gone, as opening it would
    return NO_FOLDER


def close(fd: int) -> None:
    """Close what `open_to_read` or `open_folder` gave, and let go of its lock."""
    if fd != NO_FOLDER:
        os.close(fd)


def sync_to_disk(path: Path) -> None:
    """Bring a file, or what was made or renamed in a folder, to the disk, where the system can."""
    if path.is_dir():
        fd = open_folder(path)
    else:  # Windows syncs only what is open for writing
        fd = os.open(path, _READ if _IS_POSIX else os.O_RDWR | BINARY)
    try:
        if fd != NO_FOLDER:
            os.fsync(fd)
    finally:
        close(fd)


def lock(fd: int, *, wait: bool) -> None:
    """Lock an open file or folder until it is closed or its process ends, however it ends.

    The lock lies on the file itself: a lock file beside it would be left behind by a killed process
    (the `filelock` library leaves one too), and be one more thing to tell from a file in use.

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
        """Read at a position. It moves the file's own, so one thread at a time may do so."""
        os.lseek(fd, position, os.SEEK_SET)
        return os.read(fd, n_bytes)


if hasattr(os, "preadv"):

    def read_into(fd: int, buffer: memoryview, position: int) -> int:
        """Fill a buffer as far as one call does; gives the number of bytes, 0 at the end."""
        return os.preadv(fd, [buffer], position)

else:

    def read_into(fd: int, buffer: memoryview, position: int) -> int:
        """Fill a buffer as far as one call does; gives the number of bytes, 0 at the end."""
        piece = read_at(fd, len(buffer), position)
        buffer[: len(piece)] = piece
        return len(piece)
