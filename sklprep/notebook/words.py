"""Labels and target values: summarized once, and written the same wherever they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

_MOST_COUNTS = 16
"""Most labels that are named, which still fit on a line; of more, the first ones are."""


@dataclass(frozen=True, slots=True)
class YSummary:
    """What y holds, or the labels of a set.

    Attributes
    ----------
    counts : dict of str to int, or None
        Number of rows with each label, in the order of the labels; None for a quantity.
    low, high : float
        Range of a quantity.
    n_active : int or list of int
        Rows where a quantity is not zero; with several columns, for each.
    n_active_rows, n_rows : int
        Rows where any column is not zero, and all rows.
    """

    counts: dict[str, int] | None
    n_rows: int
    low: float = 0.0
    high: float = 0.0
    n_active: int | list[int] = 0
    n_active_rows: int = 0


def summarize_y(y: Any) -> YSummary:
    """Count labels, or measure a quantity, which floats are taken to be."""
    values = np.asarray(y)
    if values.dtype.kind != "f" or not values.size:
        return YSummary(count(values), len(values))
    active = values != 0
    return YSummary(
        None,
        len(values),
        float(values.min()),
        float(values.max()),
        active.sum(axis=0).tolist(),
        int(active.reshape(len(values), -1).any(axis=1).sum()),
    )


def format_y(y: YSummary) -> str:
    """Write in words what y holds.

    Examples
    --------
    >>> format_y(summarize_y(np.array([0.0, 2.5])))
    '0 to 2.5, not zero in 1 of 2 rows'
    """
    if y.counts is not None:
        return format_counts(y.counts)
    return f"{y.low:.4g} to {y.high:.4g}, not zero in {y.n_active_rows} of {y.n_rows} rows"


def count(labels: Any) -> dict[str, int]:
    """Count how often each label occurs, in the order of the labels.

    Examples
    --------
    >>> count([1, 0, 1])
    {'0': 1, '1': 2}
    """
    values = np.asarray(labels)
    if values.dtype.hasobject:
        values = values.astype(str)
    names, counts = np.unique(values, return_counts=True)
    return {str(name): int(n) for name, n in zip(names.tolist(), counts, strict=True)}


def format_counts(counts: Mapping[str, int]) -> str:
    """Write counts for people; if there are many, only the first few.

    Examples
    --------
    >>> format_counts({"0": 1, "1": 3})
    '0: 1 (25.0%), 1: 3 (75.0%)'
    """
    n = sum(counts.values())
    shown = [f"{name}: {k} ({k / n:.1%})" for name, k in list(counts.items())[:_MOST_COUNTS]]
    more = [f"and {len(counts) - len(shown)} more"] if len(counts) > len(shown) else []
    return ", ".join([*shown, *more])
