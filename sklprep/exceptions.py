"""All errors and warnings that sklprep raises deliberately.

::

    Exception
    └── SklprepError                    base: catch this to catch them all
        ├── DataError (ValueError)      the data is at fault: exit code 1
        │   ├── FileFormatError         a damaged, foreign or inconsistent file
        │   │   ├── FaultyFilesError    all faulty files of a folder
        │   │   └── PipelineError       an embedded pipeline that is refused
        │   ├── LayerNotFoundError      a layer number that is not in the data
        │   ├── FeatureNotFoundError    a feature index or average_l0 that is not in the data
        │   └── InsufficientDataError   too few rows, groups or classes to score anything
        └── UsageError (ValueError)     the request is at fault: exit code 2
            ├── LayerSpecError          a layer specification that cannot be read
            └── OutputError             an output path that cannot be written

    UserWarning
    └── SklprepWarning                  the result is valid, but needs attention
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "DataError",
    "FaultyFilesError",
    "FeatureNotFoundError",
    "FileFormatError",
    "InsufficientDataError",
    "LayerNotFoundError",
    "LayerSpecError",
    "OutputError",
    "PipelineError",
    "SklprepError",
    "SklprepWarning",
    "UsageError",
]


class SklprepError(Exception):
    """Base class of all errors that sklprep raises deliberately."""


class DataError(SklprepError, ValueError):
    """The data do not support the request."""


class FileFormatError(DataError):
    """A file is damaged, in an unknown format, or inconsistent with the others in its folder.

    Attributes
    ----------
    member : str or None
        The faulty array; None if the whole file is faulty.
    """

    member: str | None = None


class FaultyFilesError(FileFormatError):
    """Files of a folder cannot be used for the request; the message names them.

    Attributes
    ----------
    faults : dict of str to FileFormatError
        The error of each faulty file, by its name in the folder.
    """

    def __init__(self, message: str, faults: Mapping[str, FileFormatError] | None = None) -> None:
        super().__init__(message)
        self.faults = dict(faults or {})


class PipelineError(FileFormatError):
    """The pipeline embedded in a dataset is refused, or does not agree with the dataset."""


class LayerNotFoundError(DataError):
    """A layer number is not in the data."""


class FeatureNotFoundError(DataError):
    """A feature index or an average_l0 is not in the data."""


class InsufficientDataError(DataError):
    """Too few rows, groups, classes or active rows for a meaningful result."""


class UsageError(SklprepError, ValueError):
    """The request contradicts itself or cannot be carried out."""


class LayerSpecError(UsageError):
    """A layer specification cannot be parsed."""


class OutputError(UsageError):
    """An output path cannot be written."""


class SklprepWarning(UserWarning):
    """The result is valid, but there is something to know about it."""
