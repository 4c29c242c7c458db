"""Temporary files and folders that are locked while their process lives.

Their names are derived from the output, so the next run finds those of a killed run, and removes
them unless a live process holds their lock. Where the system or the file system does not support
locks, nothing is removed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from sklprep.files.system import BINARY, NO_FOLDER, close, lock, open_folder, open_to_read

_AT_ONCE = 8
"""Number of names that each run checks: it finds the files of up to so many processes that wrote
the same output at once and were all killed. Checking a free name takes a microsecond or two."""


def create_temporary_file(path: Path) -> tuple[int, Path]:
    """Create a hidden file beside the final one; return its locked descriptor and its path.

    It belongs to the caller until the descriptor is closed: rename or remove it before that.
    """

    def make(temporary: Path) -> int:
        return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o666)

    return _create(_names(path), make)


@contextlib.contextmanager
def temporary_folder(parent: Path, purpose: str) -> Iterator[Path]:
    """Create a hidden folder, which is removed at the end unless it was renamed."""

    def make(temporary: Path) -> int:
        temporary.mkdir()
        try:
            return open_folder(temporary, follow=False)
        except FileNotFoundError:  # another process took it for a leftover
            raise FileExistsError from None

    fd, temporary = _create(_names(parent / purpose), make)
    made = None
    try:
        made = temporary.stat()
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            # after a rename, another process may use the name
            if made is None or os.path.samestat(made, temporary.stat()):
                shutil.rmtree(temporary, ignore_errors=True)
        close(fd)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files or folders of killed runs that wrote this path."""
    for temporary in itertools.islice(_names(path), _AT_ONCE):
        remove_dead(temporary)


def remove_dead(path: Path) -> bool:
    """Remove a file or folder unless a live process locks it; tell whether its name is free."""
    try:
        fd = open_to_read(path, follow=False)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        lock(fd, wait=False)
        if is_at(fd, path):  # otherwise its owner has just renamed or removed it
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError:  # in use, or owned by another user
        return False
    finally:
        os.close(fd)
    return True


def is_at(fd: int, path: Path) -> bool:
    """Tell whether a path leads to an open file or folder: a lock is valid only if it does."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return fd == NO_FOLDER or os.path.samestat(os.fstat(fd), there)


def _names(path: Path) -> Iterator[Path]:
    for number in itertools.count():
        yield path.parent / f".{path.name[:50]}.{number}.sklprep.tmp"


def _create(names: Iterator[Path], make: Callable[[Path], int]) -> tuple[int, Path]:
    for temporary in names:
        while remove_dead(temporary):
            fd = None
            try:
                fd = _make_locked(temporary, make)
                if fd is not None and is_at(fd, temporary):
                    for other in itertools.islice(names, _AT_ONCE):
                        remove_dead(other)
                    return fd, temporary
            except KeyboardInterrupt:  # may come as soon as it exists
                if fd is not None:
                    close(fd)
                remove_dead(temporary)
                raise
            if fd is not None:
                close(fd)
    raise AssertionError("names do not end")


def _make_locked(temporary: Path, make: Callable[[Path], int]) -> int | None:
    """Create and lock a file or folder; None if another process interferes."""
    try:
        fd = make(temporary)
    except FileExistsError:
        return None
    try:
        lock(fd, wait=False)
    except BlockingIOError:  # another process took it for a leftover
        close(fd)
        return None
    except OSError:  # locks are not supported
        pass
    return fd
