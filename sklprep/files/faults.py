"""Errors that name a file, or all faulty files of a folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

from sklprep.exceptions import FaultyFilesError, FileFormatError, SklprepWarning

_MOST_LISTED = 10


def file_fault(
    path: str | os.PathLike[str], member: str | None, found: str, expected: str, do: str = ""
) -> FileFormatError:
    """Build the error that names a file, a member of it, what was found and what was expected."""
    what = "" if member is None else f" member {member!r}"
    error = FileFormatError(f"{os.fspath(path)}:{what} {found}; expected {expected}. {do}".rstrip())
    error.member = member
    return error


def faulty_files(
    folder: str | os.PathLike[str], faults: Mapping[str, FileFormatError], n_files: int
) -> FaultyFilesError:
    """Build the error that names all faulty files of a folder, in a single line for one file."""
    faults = dict(sorted(faults.items()))
    if len(faults) == 1:
        return FaultyFilesError(str(*faults.values()), faults)
    others = ", or leave them out (skip_bad=True)" if len(faults) < n_files else ""
    head = (
        f"{os.fspath(folder)}: {len(faults)} of {n_files} files are at fault; expected none."
        f" Correct or remove them{others}:"
    )
    return FaultyFilesError(_list_faults(head, faults), faults)


def warn_left_out(
    folder: str | os.PathLike[str] | None, faults: Mapping[str, FileFormatError], n_files: int
) -> None:
    """Warn which files of a folder are left out, and why."""
    if len(faults) == 1:
        message = f"Leaving out a file. {next(iter(faults.values()))}"
    elif faults:
        head = f"Leaving out {len(faults)} of the {n_files} files of {folder}:"
        message = _list_faults(head, faults)
    else:
        return
    warnings.warn(message, SklprepWarning, stacklevel=3)


def _list_faults(head: str, faults: Mapping[str, FileFormatError]) -> str:
    lines = [" ".join(str(fault).split()) for fault in faults.values()]
    more = len(lines) - _MOST_LISTED
    return "\n".join([head, *lines[:_MOST_LISTED], *([f"and {more} more."] if more > 0 else [])])


def brief(error: Exception) -> str:
    """Describe an error in one line: of several faulty files the first, and how many more."""
    if not isinstance(error, FaultyFilesError) or len(error.faults) < 2:
        return str(error)
    first, *others = error.faults.values()
    return f"{first} ({len(others)} more files are at fault.)"


def not_finite(
    where: str, member: str, what: str, n_values: int, affected: str = ""
) -> FileFormatError:
    """Build the error of a file or a row with values that are not finite numbers."""
    return file_fault(
        where,
        member,
        f"{what} has {n_values} NaN or infinite values".lstrip(),
        f"finite numbers{affected}",
        "Extract these sentences again in float32: float16 overflows above 65,504.",
    )
