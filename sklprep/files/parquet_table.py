"""Columns of Parquet files, as a CSV file would have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sklprep.exceptions import FileFormatError, UsageError
from sklprep.files.faults import file_fault
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at

_MAGIC = b"PAR1"


def is_parquet(path: Path) -> bool:
    """Tell by its first bytes whether a file is a Parquet file."""
    with RegularFile(path, "a table") as file:
        return read_at(file.fd, len(_MAGIC), 0) == _MAGIC


def parquet_columns(path: Path) -> list[str]:
    """Return the names of the columns."""
    return [str(name) for name in _open(path).schema_arrow.names]


def read_parquet(path: Path, columns: Sequence[str]) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Read some columns as lists of Python values, and the metadata of the schema.

    Raises
    ------
    FileFormatError
        If the file is damaged.
    UsageError
        If pyarrow is not installed.
    """
    file = _open(path)
    try:
        table = file.read(columns=list(columns), use_threads=False)
        values = {name: table.column(name).to_pylist() for name in columns}
        raw = file.schema_arrow.metadata or {}
        metadata = {key.decode(): value.decode() for key, value in raw.items()}
    except _errors() as error:
        raise _fault(path, error) from None
    return values, metadata


def _open(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            f'{path} is a Parquet file, which pyarrow reads: pip install "sklprep[parquet]".'
        ) from None
    if not path.is_file():
        raise file_fault(path, None, "is not a regular file", "a Parquet file")
    try:
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False)
    except _errors() as error:
        raise _fault(path, error) from None


def _errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that pyarrow raises for damaged files."""
    import pyarrow

    return (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError)


def _fault(path: Path, error: Exception) -> FileFormatError:
    what = "".join(c if c.isprintable() else " " for c in str(error))[:80]
    return file_fault(path, None, f"cannot be read ({what})", "a Parquet file")
