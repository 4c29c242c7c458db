"""Writing files and folders atomically: they appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sklprep.exceptions import OutputError
from sklprep.files.system import HAS_LOCKS, sync_to_disk
from sklprep.files.temporary import create_temporary_file, temporary_folder

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, quota exceeded, file too large


def require_writable(path: str | os.PathLike[str]) -> None:
    """Refuse an output path that cannot be written, before any work is done.

    Missing parent folders are allowed: they are created when the file is written.

    Raises
    ------
    OutputError
        If the path is a folder, a pipe or a device, is below a file, or may not be written.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise OutputError(f"Output {path} is a folder; name a file, such as {path / 'x.npz'}.")
        if path.exists() and not path.is_file():
            raise OutputError(f"Output {path} is a pipe or a device; name a regular file.")
        parent = find_parent(path)
    except OSError as error:  # a name that is too long, a loop of links, ...
        raise OutputError(f"Output {path} cannot be written ({error.strerror}).") from None
    if not parent.is_dir():
        what = "a link to nothing" if parent.is_symlink() else "a file"
        raise OutputError(f"Output {path} cannot be written: {parent} is {what}, not a folder.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"Output {path} cannot be written: folder {parent} is read-only for you.")


def require_space(path: str | os.PathLike[str], n_bytes: int) -> None:
    """Refuse an output that does not fit on its disk, before any work is done.

    Raises
    ------
    OutputError
        If fewer than `n_bytes` are free on the disk.
    """
    disk = shutil.disk_usage(find_parent(Path(path)))
    if disk.total and n_bytes > disk.free:
        raise OutputError(
            f"Output {os.fspath(path)} needs {n_bytes / 1e6:,.1f} MB, but {disk.free / 1e6:,.1f} MB"
            " are free on its disk. Free some space, or choose another disk."
        )


def find_parent(path: Path) -> Path:
    """Return the innermost parent folder that exists."""
    parent = path.parent
    while not os.path.lexists(parent):
        parent = parent.parent
    return parent


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that appears under its name complete, or not at all.

    The bytes go to a hidden temporary file in the same folder, which is synced to disk and renamed
    on success, and removed on failure. If a process is killed, its temporary file is removed by the
    next one that writes this file. Parent folders are created. The mode follows the umask. Without
    `sync` the file survives a killed process, but perhaps not a power cut.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(pathlib.Path(folder, "new", "a.txt")) as file:
    ...         _ = file.write(b"whole")
    ...     pathlib.Path(folder, "new", "a.txt").read_bytes()
    b'whole'
    """
    path = Path(path)
    require_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, temporary = create_temporary_file(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error
    file = None
    try:
        with name_full_disk(path), os.fdopen(fd, "wb") as file:  # closing it releases the lock
            try:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
                if not HAS_LOCKS:
                    file.close()  # no lock to lose; Windows cannot rename an open file
                temporary.replace(path)
            except BaseException:
                if not HAS_LOCKS:
                    file.close()
                temporary.unlink(missing_ok=True)
                raise
    except BaseException:
        if file is None:  # interrupted before it was opened
            temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_to_disk(path.parent)


@contextlib.contextmanager
def name_full_disk(path: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that names the path and says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        raise OSError(
            error.errno,
            f"cannot be written ({error.strerror}); existing files are unchanged. Free some space,"
            " or choose another disk",
            str(path),
        ) from error


def require_new_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder that is not empty or cannot be created, before any work is done.

    An empty folder is allowed, and so are missing parents.

    Raises
    ------
    OutputError
        If the path is not empty, not a folder, or cannot be written.
    """
    path = Path(path)
    if not path.exists():
        require_writable(path)
    elif not path.is_dir():
        raise OutputError(f"Output {path} is not a folder; name one that does not exist yet.")
    elif any(path.iterdir()):
        raise OutputError(f"Output {path} is not empty; name a folder that does not exist yet.")


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Create a folder that appears under its name complete, or not at all.

    Yields a hidden temporary folder beside it, which is synced to disk with all its files and
    renamed on success, and removed on failure. Parent folders are created.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_folder(pathlib.Path(folder, "new")) as work:
    ...         _ = (work / "a.txt").write_bytes(b"whole")
    ...     pathlib.Path(folder, "new", "a.txt").read_bytes()
    b'whole'
    """
    path = Path(path)
    require_new_folder(path)
    target = path.resolve() if path.is_symlink() else path
    target.parent.mkdir(parents=True, exist_ok=True)
    with name_full_disk(path), temporary_folder(target.parent, target.name) as temporary:
        yield temporary
        for written in (*temporary.rglob("*"), temporary):
            sync_to_disk(written)
        require_new_folder(path)  # another process may have been faster
        temporary.rename(target)
    sync_to_disk(target.parent)
