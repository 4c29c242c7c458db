"""Refuse outputs that would overwrite an input, before any work is done."""

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
    """Refuse paths that cannot be written, or that are part of an input.

    Parameters
    ----------
    outputs : iterable of path-like or None
        Files to write.
    inputs : iterable of path-like or None
        Files, folders of sentence files, and packs.

    Raises
    ------
    OutputError
        If an output cannot be written, is an input, or would be read as part of one; or if two
        outputs are the same file.
    """
    read = [Path(path) for path in inputs if path is not None]
    written: set[Path] = set()
    for path in [Path(path) for path in outputs if path is not None]:
        require_writable(path)
        place = _place(path)
        for given in read:
            if _is_part(place, given):
                raise OutputError(
                    f"Output {path} would overwrite or become part of the input {given}; choose"
                    " another path."
                )
        if place in written:
            raise OutputError(f"Output {path} is given twice; give each output a different name.")
        written.add(place)


def _place(path: Path) -> Path:
    """Return the location of a path without following a link: writing replaces the link itself."""
    return path.parent.resolve() / path.name


def _is_part(place: Path, given: Path) -> bool:
    if not given.is_dir():
        return place in (_place(given), given.resolve())
    folder = given.resolve()
    if is_pack(folder):
        return folder in place.parents and (place.suffix == ".npy" or place.name == MANIFEST)
    return place.parent == folder and place.match(PATTERN)
