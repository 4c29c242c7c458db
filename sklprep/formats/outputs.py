"""Outputs that would destroy an input are refused before any work is done."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sklprep.exceptions import OutputError
from sklprep.files.atomic import require_writable
from sklprep.formats.pack_manifest import MANIFEST
from sklprep.formats.pack_reader import is_pack
from sklprep.formats.sentence_folder import PATTERN

_Path = str | os.PathLike[str]


def require_safe_outputs(outputs: Iterable[_Path | None], inputs: Iterable[_Path | None]) -> None:
    """Refuse paths that cannot be written, or whose writing would change what is read.

    Parameters
    ----------
    outputs : iterable of path-like or None
        Files to write.
    inputs : iterable of path-like or None
        Files, folders of sentence files, and packs.

    Raises
    ------
    OutputError
        If an output cannot be written, is an input, or would be taken for a part of one; if two of
        them are the same file.
    """
    read = [Path(path) for path in inputs if path is not None]
    written: set[Path] = set()
    for path in [Path(path) for path in outputs if path is not None]:
        require_writable(path)
        place = _place(path)
        for given in read:
            if _is_part(place, given):
                raise OutputError(
                    f"Output {path} would be taken for an input, as {given} is one; name another"
                    " file."
                )
        if place in written:
            raise OutputError(f"Output {path} is asked for twice; give each a name of its own.")
        written.add(place)


def _place(path: Path) -> Path:
    """Where an entry stands, whether or not it is a link: that is what writing replaces."""
    return path.parent.resolve() / path.name


def _is_part(place: Path, given: Path) -> bool:
    if not given.is_dir():
        return place in (_place(given), given.resolve())
    folder = given.resolve()
    if is_pack(folder):
        return folder in place.parents and (place.suffix == ".npy" or place.name == MANIFEST)
    return place.parent == folder and place.match(PATTERN)
