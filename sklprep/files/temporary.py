"""Temporary files and folders that are locked while their process lives.

Their names follow from what they are for, so the next run finds what a killed one left, and removes
it unless a live process holds its lock. Where the file system knows no locks, nothing is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

_AT_ONCE = 8
"""So many processes writing one file at once, all killed, leave nothing for ever."""

_LOOK = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def create_temporary_file(path: Path) -> tuple[int, Path]:
    """Create a hidden file beside the one that it becomes; returns its locked descriptor, and it.

    It belongs to the caller until the descriptor is closed: rename or remove it before that.
    """

    def make(temporary: Path) -> int:
        return os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    return _create(_names(path), make)


@contextlib.contextmanager
def temporary_folder(parent: Path, purpose: str) -> Iterator[Path]:
    """Make a hidden folder, which is removed at the end unless it was renamed."""

    def make(temporary: Path) -> int:
        temporary.mkdir()
        try:
            return os.open(temporary, _LOOK | os.O_DIRECTORY)
        except FileNotFoundError:  # another process takes it for a leftover
            raise FileExistsError from None

    fd, temporary = _create(_names(parent / purpose), make)
    try:
        yield temporary
    finally:
        if is_at(fd, temporary):  # the name of a renamed one may be another process's by now
            shutil.rmtree(temporary, ignore_errors=True)
        os.close(fd)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files or folders of killed runs that were to become this one."""
    for temporary in itertools.islice(_names(path), _AT_ONCE):
        remove_dead(temporary)


def remove_dead(path: Path) -> bool:
    """Remove a file or folder unless a live process holds its lock; whether its name is free."""
    try:
        fd = os.open(path, _LOOK)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(fd, path):  # else its owner has just renamed or removed it
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                shutil.rmtree(path)
            else:
                path.unlink()
    except OSError:  # it is in use, or not ours
        return False
    finally:
        os.close(fd)
    return True


def is_at(fd: int, path: Path) -> bool:
    """Whether a path leads to the open file or folder: a lock counts only if it does."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _names(path: Path) -> Iterator[Path]:
    for number in itertools.count():
        yield path.parent / f".{path.name[:50]}.{number}.sklprep.tmp"


def _create(names: Iterator[Path], make: Callable[[Path], int]) -> tuple[int, Path]:
    for temporary in names:
        while remove_dead(temporary):
            try:
                fd = make(temporary)
            except FileExistsError:  # another process comes in between
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another process takes it for a leftover
                os.close(fd)
                continue
            except OSError:  # no locks here
                pass
            if is_at(fd, temporary):
                for other in itertools.islice(names, _AT_ONCE):
                    remove_dead(other)
                return fd, temporary
            os.close(fd)
    raise AssertionError("names do not end")
