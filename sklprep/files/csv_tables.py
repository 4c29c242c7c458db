"""The CSV files that users write: labels and groups by sentence, ranked features."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError

_FIRST_INEXACT = 2**53  # from here on a float64 stands for several whole numbers
_MAX_INT = 2**63 - 1

# int() and float() take 1_0, which is a name, and the digits of every script
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_MISSING = ("", "nan", "NaN", "NaT", "<NA>", "#N/A")
"""How pandas, numpy and spreadsheets write what is missing. NA, None and null are names, too."""

_Row = tuple[int, dict[str, Any]]  # the line's number, and its values by column


def read_labels(path: str | os.PathLike[str], sentence_indices: NDArray[np.int64]) -> NDArray[Any]:
    """Read the column ``label`` of a CSV, joined by its column ``sentence_index``.

    Parameters
    ----------
    path : path-like
        UTF-8, with a header line. Other columns and sentences are not looked at.
    sentence_indices : ndarray of shape (n_rows,), int64
        Sentence of each row.

    Returns
    -------
    ndarray of shape (n_rows,)
        int64 if all labels are whole numbers, also written as 1.0, float64 if all are numbers, else
        text.

    Raises
    ------
    FileFormatError
        If a column or a sentence is missing, two lines contradict each other, or numbers are mixed
        with text.
    """
    lines = _read_by_sentence(path, "label", sentence_indices)
    read = {index: _read_value(text) for index, (_, text) in lines.items()}
    kinds = {isinstance(value, str) for value in read.values()}
    if len(kinds) > 1:
        number, text = next(lines[index] for index in read if isinstance(read[index], str))
        raise FileFormatError(
            f"{os.fspath(path)}: line {number} has the label {text!r} where others are numbers;"
            " expected all numbers or all text."
        )
    values = [read[index] for index in sentence_indices.tolist()]
    if kinds == {False} and max(map(abs, read.values()), default=0) > _MAX_INT:
        return np.array(values, np.float64)
    return np.array(values)


def read_groups(
    path: str | os.PathLike[str], sentence_indices: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Read the column ``group`` of a CSV as `read_labels` does; groups are numbered in order."""
    lines = _read_by_sentence(path, "group", sentence_indices)
    names = [_read_value(lines[index][1]) for index in sentence_indices.tolist()]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _read_by_sentence(
    path: str | os.PathLike[str], column: str, sentence_indices: NDArray[np.int64]
) -> dict[int, tuple[int, str]]:
    """Line number and value of each sentence that is asked for."""
    path = Path(path)
    lines: dict[int, tuple[int, str]] = {}
    for number, row in _read_rows(path, ("sentence_index", column), f"sentence_index, {column}"):
        value = (row[column] or "").strip()
        if value in _MISSING:
            continue
        # pandas writes 1.0 for 1 where an index was once missing
        index = _read_value((row["sentence_index"] or "").strip())
        if not isinstance(index, int):
            raise FileFormatError(
                f"{path}: line {number} has sentence_index {row['sentence_index']!r}; expected a"
                " whole number."
            )
        first, other = lines.setdefault(index, (number, value))
        if other != value:
            raise FileFormatError(
                f"{path}: line {number} gives sentence_index {index} the {column} {value!r}, line"
                f" {first} gives it {other!r}; expected one. Remove one of the two."
            )
    wanted = dict.fromkeys(sentence_indices.tolist())
    missing = [index for index in wanted if index not in lines]
    if missing:
        have = "1 sentence has" if len(missing) == 1 else f"{len(missing)} sentences have"
        raise FileFormatError(
            f"{path}: {have} no {column}, sentence_index {missing[0]} first;"
            " expected a line for each."
        )
    return {index: lines[index] for index in wanted}


def _read_value(text: str) -> Any:
    """An int where the text is a whole number, also written as 1.0; a float; or the text itself."""
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
        raise FileFormatError(f"{path}: there are no features in it; expected one a line.")
    return [feature for _, feature in sorted(rows, key=lambda item: item[0])][:top]


def _read_feature(
    path: Path, number: int, row: dict[str, Any]
) -> tuple[float, tuple[int, int, float | None]]:
    try:
        rank = float(row.get("rank") or number)
        average_l0 = float(row["average_l0"]) if row.get("average_l0") else None
        numbers = [float(row[name]) for name in ("layer", "feature_id")]  # 12.0 beside gaps
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
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            columns = list(reader.fieldnames or [])
            for mark, word in ((";", "semicolons"), ("\t", "tabs")):
                if len(columns) == 1 and mark in columns[0]:
                    raise FileFormatError(
                        f"{path}: its columns are separated by {word}; expected commas. Save it"
                        f" so: pandas.read_csv(path, sep={mark!r}).to_csv(path, index=False)."
                    )
            for name in needed:
                if columns.count(name) != 1:
                    found = "missing" if name not in columns else "there twice"
                    raise FileFormatError(
                        f"{path}: column {name!r} is {found}; expected {expected}, got"
                        f" {', '.join(columns) or 'an empty file'}."
                    )
            return [(reader.line_num, row) for row in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise FileFormatError(f"{path}: is not a CSV file in UTF-8 ({error}).") from None
