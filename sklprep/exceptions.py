"""Every error and warning that sklprep raises on purpose.

::

    Exception
    └── SklprepError                    base: catch this to catch them all
        ├── DataError (ValueError)      the data is at fault: exit code 1
        │   ├── FileFormatError         a broken, foreign or inconsistent file
        │   │   ├── FaultyFilesError    all files of a folder that are at fault
        │   │   └── PipelineError       an embedded pipeline that the gate refuses
        │   ├── LayerNotFoundError      a layer number the data does not have
        │   ├── FeatureNotFoundError    a feature index or average_l0 the data does not have
        │   └── InsufficientDataError   too few rows, groups or classes to score anything
        └── UsageError (ValueError)     the request is at fault: exit code 2
            ├── LayerSpecError          a layer specification that cannot be read
            └── OutputError             an output path that cannot be written

    UserWarning
    └── SklprepWarning                  the result stands, but read the message
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
    """Base class of every error that sklprep raises on purpose."""


class DataError(SklprepError, ValueError):
    """The data cannot answer what was asked of it."""


class FileFormatError(DataError):
    """A file is broken, foreign, or disagrees with its neighbours.

    Attributes
    ----------
    member : str or None
        The array of the file that is at fault; None if it is the file itself.
    """

    member: str | None = None


class FaultyFilesError(FileFormatError):
    """Files of a folder cannot be used for what was asked; every one of them is named.

    Attributes
    ----------
    faults : dict of str to FileFormatError
        What is wrong with each file, by its name in the folder.
    """

    def __init__(self, message: str, faults: Mapping[str, FileFormatError] | None = None) -> None:
        super().__init__(message)
        self.faults = dict(faults or {})


class PipelineError(FileFormatError):
    """The pipeline embedded in a dataset is refused, or contradicts the dataset."""


class LayerNotFoundError(DataError):
    """A layer number that the data does not contain."""


class FeatureNotFoundError(DataError):
    """A feature index or an average_l0 that the data does not contain."""


class InsufficientDataError(DataError):
    """Too few rows, groups, classes or active rows for the answer to mean anything."""


class UsageError(SklprepError, ValueError):
    """The request contradicts itself or cannot be carried out."""


class LayerSpecError(UsageError):
    """A layer specification that cannot be read."""


class OutputError(UsageError):
    """An output path that cannot be written."""


class SklprepWarning(UserWarning):
    """The result stands, but its reader should know something about it."""
