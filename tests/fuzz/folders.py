"""Whole folders as dicts: the content of every file by its path below the folder."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path


def content_of(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def sizes_of(folder: Path) -> dict[str, int]:
    """Size of every file below a folder, some of which may go while they are listed."""
    sizes = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                sizes[str(path.relative_to(folder))] = path.stat().st_size
    return sizes


def write_all(folder: Path, content: Mapping[str, bytes | None]) -> None:
    """Make a folder of these files and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    write_below(folder, content)


def write_below(folder: Path, content: Mapping[str, bytes | None]) -> None:
    """Write files below a folder; None makes a folder in a file's place."""
    folder.mkdir(exist_ok=True)
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            path.mkdir()
        else:
            path.write_bytes(data)
