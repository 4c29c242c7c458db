"""Opening any input: a folder of sentence files, a pack, or a dump of another tool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklprep.exceptions import UsageError
from sklprep.formats.dumps.dump import Request
from sklprep.formats.pack_reader import Pack, is_pack
from sklprep.formats.sentence_folder import PATTERN, SentenceFolder

if TYPE_CHECKING:
    from sklprep.formats.dumps.dump_source import DumpSource

SENTENCES, PACK = "sentences", "pack"


def open_source(
    request: Request, *, n_jobs: int | None = None, progress: bool = True
) -> SentenceFolder | Pack | DumpSource:
    """Open a path as a source; its format is recognized by content unless the request names it.

    Parameters
    ----------
    request : Request
    n_jobs, progress
        As `SentenceFolder` takes them.

    Raises
    ------
    UsageError
        If the format is unknown, or options do not apply to it.
    """
    path = request.path
    name = request.reading.format or (PACK if is_pack(path) else _find_format(request))
    if name not in (SENTENCES, PACK):
        from sklprep.formats.dumps.table import FORMATS, open_dump

        if name not in FORMATS:
            known = ", ".join((SENTENCES, PACK, *FORMATS))
            raise UsageError(f"format must be one of {known}, got {name!r}.")
        return open_dump(request, name)
    if request.reading.key is not None or request.reading.layer_offset:
        what = "key" if request.reading.key is not None else "layer_offset"
        raise UsageError(
            f"{what}=... is for dumps of other tools; {path} is read as {name}, whose layers have"
            f" their own numbers. Leave {what} out."
        )
    if name == PACK:
        return Pack(path, pooling=request.pooling)
    return SentenceFolder(
        path,
        pooling=request.pooling or "final",
        n_jobs=n_jobs,
        progress=progress,
        skip_bad=request.skip_bad,
    )


def _find_format(request: Request) -> str:
    """Return the format of a path that is not a pack; sentence files if nothing recognizes it."""
    path = request.path
    if path.is_dir() and next(path.glob(PATTERN), None) is not None:
        return SENTENCES
    from sklprep.formats.dumps.table import find_format

    return find_format(path) or SENTENCES
