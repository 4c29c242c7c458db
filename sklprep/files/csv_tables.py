"""Tables from users, CSV or Parquet: labels and groups by sentence, and ranked features."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.files.parquet_table import is_parquet, parquet_columns, read_parquet

_FIRST_INEXACT = 2**53  # from here on, several whole numbers share a float64
_MAX_INT = 2**63 - 1

# int() and float() also accept 1_0, which is a name, and digits of all scripts
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_MISSING = ("", "nan", "NaN", "NaT", "<NA>", "#N/A")
"""How pandas, numpy and spreadsheets write missing values. NA, None and null may be names."""

_INDEX = "sentence_index"
_SUFFIX = re.compile(r"\.(npz|safetensors)$")

_Row = tuple[int, dict[str, Any]]  # line number, and values by column


def read_labels(
    path: str | os.PathLike[str],
    sentence_indices: NDArray[np.int64],
    others: Mapping[str, Callable[[], NDArray[np.str_] | None]] | None = None,
) -> NDArray[Any]:
    """Read the column ``label`` of a table, joined by ``sentence_index`` or by another column.

    Parameters
    ----------
    path : path-like
        A Parquet file, or a CSV file in UTF-8 with a header line. Other columns and sentences are
        ignored.
    sentence_indices : ndarray of shape (n_rows,), int64
        Sentence of each row.
    others : mapping of str to callable, default=None
        Columns by which a table without ``sentence_index`` may be joined, such as ``file``. Each
        callable returns the values of the rows, or None where they have none.

    Returns
    -------
    ndarray of shape (n_rows,)
        int64 if all labels are whole numbers (1.0 is one), float64 if all are numbers, otherwise
        text.

    Raises
    ------
    FileFormatError
        If a column or a sentence is missing, two lines contradict each other, or numbers are mixed
        with text.
    """
    keys, lines = _read_by_sentence(path, "label", sentence_indices, others)
    read = {key: _read_value(text) for key, (_, text) in lines.items()}
    kinds = {isinstance(value, str) for value in read.values()}
    if len(kinds) > 1:
        number, text = next(lines[key] for key in read if isinstance(read[key], str))
        raise FileFormatError(
            f"{os.fspath(path)}: line {number} has the label {text!r} where others are numbers;"
            " expected all numbers or all text."
        )
    values = [read[key] for key in keys]
    if kinds == {False} and max(map(abs, read.values()), default=0) > _MAX_INT:
        return np.array(values, np.float64)
    return np.array(values)


def read_groups(
    path: str | os.PathLike[str],
    sentence_indices: NDArray[np.int64],
    others: Mapping[str, Callable[[], NDArray[np.str_] | None]] | None = None,
) -> NDArray[np.int64]:
    """Read the column ``group`` as `read_labels` does; groups are numbered in order of rows."""
    keys, lines = _read_by_sentence(path, "group", sentence_indices, others)
    names = [_read_value(lines[key][1]) for key in keys]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def read_columns(
    path: str | os.PathLike[str],
    sentence_indices: NDArray[np.int64],
    others: Mapping[str, Callable[[], NDArray[np.str_] | None]] | None = None,
) -> dict[str, NDArray[Any]]:
    """Read all columns but those by which a table is joined, as `read_labels` reads one.

    Returns
    -------
    dict of str to ndarray of shape (n_rows,)
        float64 where all values of a column are numbers, otherwise text.

    Raises
    ------
    FileFormatError
        If there is no such column; also as `read_labels`.
    """
    path, keys = Path(path), (_INDEX, *(others or {}))
    columns = _read_names(path)
    names = [name for name in columns if name not in keys]
    if not names:
        raise FileFormatError(
            f"{path}: has only the columns {', '.join(columns) or 'none'}; expected"
            f" {_INDEX} and at least one more."
        )
    found = {}
    for name in names:
        of_rows, lines = _read_by_sentence(path, name, sentence_indices, others)
        texts = {key: text for key, (_, text) in lines.items()}
        values = {key: _read_value(text) for key, text in texts.items()}
        if any(isinstance(value, str) for value in values.values()):
            found[name] = np.array([texts[key] for key in of_rows])
        else:
            found[name] = np.array([values[key] for key in of_rows], np.float64)
    return found


def _read_by_sentence(
    path: str | os.PathLike[str],
    column: str,
    sentence_indices: NDArray[np.int64],
    others: Mapping[str, Callable[[], NDArray[np.str_] | None]] | None,
) -> tuple[list[Any], dict[Any, tuple[int, str]]]:
    """Return the key of each row, and line number and value of each key."""
    path = Path(path)
    columns = _read_names(path)
    by, found = _find_key(columns, sentence_indices, others or {})
    keys = [_as_key(by, key) for key in found.tolist()]
    lines: dict[Any, tuple[int, str]] = {}
    instead = "".join(f" or {name}" for name in others or () if name not in columns)
    named = f"{by} ({instead.strip()})" if by == _INDEX and instead else by
    for number, row in _read_rows(path, (by, column), f"{named}, {column}"):
        value = (row[column] or "").strip()
        if value in _MISSING:
            continue
        key = _as_key(by, (row[by] or "").strip())
        if by == _INDEX and not isinstance(key, int):
            raise FileFormatError(
                f"{path}: line {number} has sentence_index {row[by]!r}; expected a whole number."
            )
        first, other = lines.setdefault(key, (number, value))
        if other != value:
            raise FileFormatError(
                f"{path}: line {number} gives {by} {key} the {column} {value!r}, line"
                f" {first} gives it {other!r}; expected one. Remove one of the two."
            )
    wanted = dict.fromkeys(keys)
    missing = [key for key in wanted if key not in lines]
    if missing:
        have = "1 sentence has" if len(missing) == 1 else f"{len(missing)} sentences have"
        raise FileFormatError(
            f"{path}: {have} no {column} (first: {by} {missing[0]})"
            + _say_mismatch(by, wanted, lines, others or {})
        )
    return keys, {key: lines[key] for key in wanted}


def _say_mismatch(
    by: str, wanted: Collection[Any], lines: Collection[Any], others: Collection[str]
) -> str:
    """Say what was expected of a table, and where it fits no sentence at all, what it holds."""
    expected = "; expected a line for each."
    if not lines or any(key in lines for key in wanted):
        return expected
    if by == _INDEX:
        held, do = f"its lines are for {by} {min(lines)} to {max(lines)}", "Number the lines"
    else:
        held, do = f"its first line is for {next(iter(lines))!r:.80}", f"Write each {by}"
    columns = " or ".join(name for name in (_INDEX, *others) if name != by)
    join = f", or join by a column {columns}" if columns else ""
    return f", and {held}{expected} {do} as the data do{join}."


def _find_key(
    columns: Collection[str],
    sentence_indices: NDArray[np.int64],
    others: Mapping[str, Callable[[], NDArray[np.str_] | None]],
) -> tuple[str, NDArray[Any]]:
    """Return the first column by which the table can be joined, and its values for the rows."""
    for name, read in others.items() if _INDEX not in columns else ():
        values = read() if name in columns else None
        if values is not None and (values != "").all():
            return name, values
    return _INDEX, sentence_indices


def _as_key(by: str, value: Any) -> Any:
    """Return what is compared: a number (1.0 equals 1), or a name without its suffix."""
    if by == _INDEX:
        return _read_value(value) if isinstance(value, str) else value
    return _SUFFIX.sub("", value) if by == "file" else value


def _read_names(path: Path) -> list[str]:
    if is_parquet(path):
        return parquet_columns(path)
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return next(csv.reader([file.readline()]), [])


def _read_value(text: str) -> Any:
    """Read a text as an int (also 1.0), otherwise as a float, otherwise as it is."""
    if not _NUMBER.fullmatch(text):
        return text
    if _WHOLE.fullmatch(text):
        return int(text)
    number = float(text)
    if not math.isfinite(number):  # 1e999
        return text
    return int(number) if number.is_integer() and abs(number) < _FIRST_INEXACT else number


def read_features(path: Path, top: int | None) -> list[tuple[int, int, float | None]]:
    """Read (layer, feature, average_l0) from a ranked_features.csv, best rank first.

    Raises
    ------
    FileFormatError
        If a column or a value is missing or not a number.
    """
    expected = "rank, layer, average_l0, feature_id"
    rows = [
        _read_feature(path, number, row)
        for number, row in _read_rows(path, ("layer", "feature_id"), expected)
    ]
    if not rows:
        raise FileFormatError(f"{path}: has no features; expected one per line.")
    return [feature for _, feature in sorted(rows, key=lambda item: item[0])][:top]


def _read_feature(
    path: Path, number: int, row: dict[str, Any]
) -> tuple[float, tuple[int, int, float | None]]:
    try:
        rank = float(row.get("rank") or number)
        average_l0 = float(row["average_l0"]) if row.get("average_l0") else None
        # as floats, because pandas writes 12.0 in a column with gaps
        numbers = [float(row[name]) for name in ("layer", "feature_id")]
        if not math.isfinite(rank) or not all(n.is_integer() and 0 <= n < 1e9 for n in numbers):
            raise ValueError
        layer, feature = map(int, numbers)
    except (TypeError, ValueError):
        raise FileFormatError(
            f"{path}: line {number} holds {list(row.values())}; expected numbers for rank and"
            " average_l0, and whole numbers from 0 for layer and feature_id."
        ) from None
    return rank, (layer, feature, average_l0)


def _read_rows(path: Path, needed: Sequence[str], expected: str) -> list[_Row]:
    if is_parquet(path):
        return _read_parquet_rows(path, needed, expected)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            columns = list(reader.fieldnames or [])
            for mark, word in ((";", "semicolons"), ("\t", "tabs")):
                if len(columns) == 1 and mark in columns[0]:
                    raise FileFormatError(
                        f"{path}: its columns are separated by {word}; expected commas. Convert"
                        f" it: pandas.read_csv(path, sep={mark!r}).to_csv(path, index=False)."
                    )
            for name in needed:
                if columns.count(name) != 1:
                    found = "missing" if name not in columns else "not unique"
                    raise FileFormatError(
                        f"{path}: column {name!r} is {found}; expected {expected}, got"
                        f" {', '.join(columns) or 'an empty file'}."
                    )
            return [(reader.line_num, row) for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise FileFormatError(f"{path}: is not a CSV file in UTF-8 ({error}).") from None


def _read_parquet_rows(path: Path, needed: Sequence[str], expected: str) -> list[_Row]:
    """Read rows, numbered from 1, with the texts that a CSV file would have."""
    columns = parquet_columns(path)
    for name in needed:
        if columns.count(name) != 1:
            found = "missing" if name not in columns else "not unique"
            raise FileFormatError(
                f"{path}: column {name!r} is {found}; expected {expected}, got"
                f" {', '.join(columns) or 'an empty file'}."
            )
    values, _ = read_parquet(path, needed)
    rows = zip(*(values[name] for name in needed), strict=True)
    return [
        (number, {k: "" if v is None else str(v) for k, v in zip(needed, row, strict=True)})
        for number, row in enumerate(rows, 1)
    ]
