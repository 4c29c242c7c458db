"""Folds that keep groups whole, and refusals of what no cross-validation could score."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.transformers.targets import ENOUGH_ACTIVE

Fold = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Positions of training and of test rows."""


class FoldsError(InsufficientDataError):
    """These folds could not be scored; other folds of the same rows might.

    Attributes
    ----------
    remedies : tuple of str
        What else would help.
    """

    def __init__(self, message: str, remedies: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.remedies = remedies


_MAX_BINS = 4
"""Bins of a numeric y: with quartiles, folds have nearly equal means, and more bins would need more
rows than a fold of small data has."""


def read_cv(cv: Any, name: str) -> Any:
    """Return a number of folds, a splitter, or a list of folds."""
    if isinstance(cv, Integral) and not isinstance(cv, bool):
        if cv < 2:
            raise UsageError(f"{name} must be at least 2 folds, got {cv}.")
        return int(cv)
    if hasattr(cv, "split") and not isinstance(cv, str):
        return cv
    try:
        return [(_read_rows(train), _read_rows(test)) for train, test in cv]
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} must be an int, a splitter or an iterable of (train, test) row positions,"
            f" got {cv!r}."
        ) from None


def _read_rows(rows: Any) -> NDArray[np.int64]:
    """Read positions of rows, or a mask."""
    rows = np.asarray(rows)
    if rows.dtype == bool:
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise TypeError
    return rows


def draw_folds(
    cv: Any,
    y: NDArray[Any],
    groups: NDArray[np.int64],
    *,
    classify: bool,
    seed: int,
    where: str = "",
) -> list[Fold]:
    """Split the rows by `cv`, as `read_cv` returns it; `where` goes into messages.

    Raises
    ------
    InsufficientDataError
        If no model could be scored on such folds.
    UsageError
        If a given splitter breaks up groups, or its folds are invalid.
    """
    n_folds = cv if isinstance(cv, int) else 2
    _require_enough(y, groups, classify, n_folds, where)
    strata = y if classify else make_strata(y, n_folds)
    if isinstance(cv, int):
        return stratify(strata, groups, cv, seed)
    if isinstance(cv, list):
        folds = cv
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The groups parameter is ignored")
            folds = list(cv.split(np.zeros(len(y)), strata, groups))
    _require_rows(folds, len(y))
    _require_whole_groups(folds, groups)
    return folds


def most_folds(y: NDArray[Any], groups: NDArray[np.int64], *, classify: bool) -> int:
    """Give a number of folds beyond which some fold would lack a class, or any active row."""
    if not classify:
        active = groups[y != 0] if np.any(y == 0) else groups
        return len(np.unique(active))
    codes = np.unique(y, return_inverse=True)[1].reshape(-1)
    pairs = np.unique(np.stack([codes, groups]), axis=1)
    return int(np.bincount(pairs[0]).min())


def describe_cv(cv: Any) -> str:
    if isinstance(cv, int):
        return f"{cv} stratified folds of whole groups, shuffled"
    return "given splits" if isinstance(cv, list) else " ".join(repr(cv).split())


def stratify(
    strata: NDArray[Any], groups: NDArray[np.int64], n_folds: int, seed: int
) -> list[Fold]:
    """Deal whole groups into folds that resemble each other in their strata.

    The folds are those of scikit-learn's ``StratifiedGroupKFold(n_folds, shuffle=True)`` with the
    same seed. It is reimplemented because its Python loop over groups and folds would dominate a
    permutation control: on 1,000 rows it takes 0.47 s of CPU, this 0.08 s.
    """
    strata, sizes = np.unique(strata, return_inverse=True, return_counts=True)[1:]
    names, groups = np.unique(groups, return_inverse=True)
    n_groups, n_strata = len(names), len(sizes)
    cells = groups.reshape(-1) * n_strata + strata.reshape(-1)
    counts = np.bincount(cells, minlength=n_groups * n_strata).reshape(n_groups, n_strata)
    order = np.arange(n_groups)
    check_random_state(seed).shuffle(order)
    # groups that are hardest to balance first
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    fold_of = np.empty(n_groups, np.int64)
    dealt = np.zeros((n_folds, n_strata))
    for group in order:
        fold_of[group] = fold = _most_even(dealt, counts[group], sizes)
        dealt[fold] += counts[group]
    of_row = fold_of[groups.reshape(-1)]
    return [
        (np.flatnonzero(of_row != fold), np.flatnonzero(of_row == fold)) for fold in range(n_folds)
    ]


def _most_even(
    dealt: NDArray[np.float64], counts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> int:
    """Give the fold that a group must join to spread the strata most evenly over folds."""
    n_folds = len(dealt)
    tried = np.repeat(dealt[np.newaxis], n_folds, axis=0)
    tried[range(n_folds), range(n_folds)] += counts
    shares = tried / sizes
    shares -= shares.mean(axis=1, keepdims=True)
    spreads = np.sqrt((shares * shares).mean(axis=1)).mean(axis=1).tolist()
    n_rows = dealt.sum(axis=1).tolist()
    best = 0
    for fold in range(1, n_folds):
        # np.isclose, which takes 20 times as long on two numbers
        close = abs(spreads[fold] - spreads[best]) <= 1e-8 + 1e-5 * spreads[best]
        if spreads[fold] < spreads[best] or (close and n_rows[fold] < n_rows[best]):
            best = fold
    return best


def make_strata(y: NDArray[Any], n_folds: int) -> NDArray[np.int64]:
    """Bin a numeric y: zero, and quantiles of the others; each bin has a row for every fold.

    Labels are not binned, so that a regressor of labels has the folds of a classifier.
    """
    if y.dtype.kind in "iu" and np.unique(y, return_counts=True)[1].min() >= n_folds:
        return y.astype(np.int64)
    zero = y == 0
    if zero.sum() < n_folds:
        zero[:] = False
    strata = zero.astype(np.int64)
    for n_bins in range(_MAX_BINS, 0, -1):
        inner_edges = np.quantile(y[~zero], np.arange(1, n_bins) / n_bins)
        strata = np.where(zero, 0, 1 + np.searchsorted(inner_edges, y, side="right"))
        if np.unique(strata, return_counts=True)[1].min() >= n_folds:
            break
    return strata


def _require_rows(folds: list[Fold], n_rows: int) -> None:
    for k, fold in enumerate(folds):
        for name, rows in zip(("training", "test"), fold, strict=True):
            if not len(rows) or rows.min() < 0 or rows.max() >= n_rows:
                found = f"position {max(rows, key=abs)}" if len(rows) else "none"
                raise UsageError(
                    f"Fold {k} of cv must have {name} rows among the {n_rows} rows, got {found}."
                )
        repeated = len(fold[1]) - len(np.unique(fold[1]))
        if repeated:
            raise UsageError(
                f"Fold {k} of cv repeats {repeated} test rows, which would count twice. Give each"
                " test row of a fold once."
            )


def _require_whole_groups(folds: list[Fold], groups: NDArray[np.int64]) -> None:
    for k, (train, test) in enumerate(folds):
        both = np.intersect1d(groups[train], groups[test])
        if len(both):
            raise UsageError(
                f"Fold {k} of cv has rows of {len(both)} groups in training and test, so the"
                " test rows would not be unseen. Use a splitter that keeps groups together,"
                " such as StratifiedGroupKFold, or groups=range(n) if each row stands alone."
            )


def _require_enough(
    y: NDArray[Any], groups: NDArray[np.int64], classify: bool, n_folds: int, where: str
) -> None:
    """Refuse what no cross-validation of these folds could score, with the counts."""
    values, codes = np.unique(y, return_inverse=True)
    n_groups = len(np.unique(groups))
    if len(values) == 1:
        raise InsufficientDataError(
            f"All {len(y)} values of y{where} are {values[0]}: there is nothing to predict."
        )
    if n_groups < n_folds:
        raise FoldsError(f"There are {n_groups} groups{where}, fewer than the {n_folds} folds.")
    if classify:
        pairs = np.unique(np.stack([codes.reshape(-1), groups]), axis=1)
        counts = np.bincount(pairs[0])
        if counts.min() < n_folds:
            raise FoldsError(
                f"Class {values[counts.argmin()]} is in {counts.min()} of {n_groups} groups{where},"
                f" fewer than the {n_folds} folds.",
                ("merge classes", "give y as floats if it is a quantity"),
            )
    else:
        needed = n_folds if where else max(n_folds, ENOUGH_ACTIVE)
        active = len(np.unique(groups[y != 0]))
        if np.any(y == 0) and active < needed:
            kind = FoldsError if active >= ENOUGH_ACTIVE or where else InsufficientDataError
            raise kind(
                f"y is active (not zero) in {active} of {n_groups} groups{where}, fewer than the"
                f" {needed} it takes to score a prediction of it. Choose a feature that is active"
                " more often, or pool with mean or max."
            )
