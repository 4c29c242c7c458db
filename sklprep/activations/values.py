"""Reading one value per row, such as labels and groups, as an array of a plain dtype."""

from __future__ import annotations

from numbers import Integral, Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.arrays import to_numpy
from sklprep.exceptions import InsufficientDataError, UsageError

_PLAIN = {"bool": np.bool_, "whole number": np.int64, "number": np.float64, "text": np.str_}


def read_values(values: Any, name: str, *, instead: str = "") -> NDArray[Any]:
    """Read labels, groups or a target, without missing values.

    Arrays of Python objects, such as pandas columns, become booleans, int64, float64 or text.

    Parameters
    ----------
    values : array-like
    name : str
        Name for errors.
    instead : str
        Further advice in an error about missing values.

    Returns
    -------
    ndarray of the same shape
        The values, in a dtype other than object.

    Raises
    ------
    InsufficientDataError
        If values are missing: None, NaN, pandas' NA and NaT.
    UsageError
        If they cannot be read as an array, or mix text with numbers.

    Examples
    --------
    >>> read_values(np.array([0, 1, True], dtype=object), "y")
    array([0, 1, 1])
    >>> read_values([b"no", b"yes"], "y").tolist()
    ['no', 'yes']
    >>> read_values([None, "yes"], "y")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    sklprep.exceptions.InsufficientDataError: y has 1 missing values among 2. Leave these rows ...
    """
    array = to_numpy(values, name)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind == "T":  # numpy strings of variable length
        array = array.astype(object)
    if n_missing := _count_missing(array):
        raise InsufficientDataError(
            f"{name} has {n_missing} missing values among {array.size}. Leave these rows out:"
            f" acts[rows], {name}[rows]{instead}."
        )
    return _unbox(array, name) if array.dtype == object else array


def read_texts(values: Any, name: str) -> NDArray[np.str_]:
    """Read one text per row; missing values (None, NaN) become empty texts.

    Examples
    --------
    >>> read_texts(["a", None, float("nan")], "sentences").tolist()
    ['a', '', '']
    """
    if isinstance(values, np.ndarray) and values.dtype.kind == "U":
        return values
    boxed = np.asarray(values, dtype=object)
    if boxed.ndim != 1:
        raise UsageError(f"{name} must be one-dimensional, got shape {boxed.shape}.")
    return np.array(["" if _is_missing(value) else str(value) for value in values], np.str_)


def _count_missing(array: NDArray[Any]) -> int:
    if array.dtype == object:
        return sum(map(_is_missing, array.reshape(-1).tolist()))
    if array.dtype.kind in "mM":
        return int(np.isnat(array).sum())
    return int(np.isnan(array).sum()) if array.dtype.kind in "fc" else 0


def _is_missing(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 (NaN and NaT of any library)
    except (TypeError, ValueError):  # pandas' NA cannot be compared
        return type(value).__name__ == "NAType"


def _unbox(array: NDArray[Any], name: str) -> NDArray[Any]:
    entries = array.reshape(-1).tolist()
    examples = {_kind(entry): entry for entry in reversed(entries)}
    if None in examples:
        entry = examples[None]
        raise UsageError(
            f"{name} holds {type(entry).__name__} objects such as {entry!r:.40}; expected numbers,"
            " booleans or text."
        )
    if len(examples) > 1 and "text" in examples:
        number = next(entry for kind, entry in examples.items() if kind != "text")
        raise UsageError(
            f"{name} mixes text and numbers, such as {examples['text']!r} and {number!r}. Make them"
            f" all text: [str(value) for value in {name}]."
        )
    widest = max(examples, key=list(_PLAIN).index, default="number")
    values = [entry.decode() if isinstance(entry, bytes) else entry for entry in entries]
    return np.array(values, _PLAIN[widest]).reshape(array.shape)


def _kind(entry: Any) -> Any:
    """Return the key of an entry in `_PLAIN`, or None."""
    if isinstance(entry, bool | np.bool_):
        return "bool"
    if isinstance(entry, str | bytes):
        return "text"
    if isinstance(entry, Integral):
        return "whole number"
    return "number" if isinstance(entry, Number) and not isinstance(entry, complex) else None
