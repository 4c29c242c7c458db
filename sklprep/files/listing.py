"""The files of a folder, ordered by the numbers in their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_DIGITS = re.compile(r"([0-9]+)")


def list_files(folder: Path, suffix: str) -> list[Path]:
    """List the files of a folder with a suffix, 2 before 10; none if it is not a folder."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.name.endswith(suffix)]
    return sorted((path for path in found if path.is_file()), key=lambda path: natural(path.name))


def natural(name: str) -> tuple[Any, ...]:
    """Return a sort key that compares numbers in a name by value, padded with zeros or not.

    Examples
    --------
    >>> sorted(["shard_10", "shard_9"], key=natural)
    ['shard_9', 'shard_10']
    """
    parts = _DIGITS.split(name)
    return tuple(int(part) if number % 2 else part for number, part in enumerate(parts)), name
