"""Folds that keep groups whole, and the permutations of the control."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils import check_random_state

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.transformers.targets import ENOUGH_ACTIVE

Split = tuple[NDArray[np.int64], NDArray[np.int64]]

PERMUTATION, BOOTSTRAP = range(2)
"""What the random draws of one seed are for."""

_MAX_BINS = 4


@dataclass(frozen=True)
class Design:
    """Every random choice but the resampling, made before the first fit."""

    seed: int
    splits: list[Split]
    inner: list[list[Split]]
    permutations: list[tuple[NDArray[Any], list[Split]]]
    outer_folds: str
    inner_folds: str


def draw_design(
    y: NDArray[Any],
    groups: NDArray[np.int64],
    *,
    classify: bool,
    cv: Any,
    inner_cv: Any,
    n_permutations: int,
    random_state: Any,
) -> Design:
    """Draw every fold and every permutation, and refuse what these folds could not score."""
    if isinstance(random_state, Integral):
        seed = int(random_state)
    else:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    outer_cv = _check_cv(cv, "cv")
    if isinstance(outer_cv, list) and n_permutations:
        raise UsageError(
            "The permutation control redraws the folds, which a fixed list of splits in cv does"
            " not allow. Give cv as an int or a splitter, or n_permutations=0."
        )
    inner_cv = None if inner_cv is None else _check_cv(inner_cv, "inner_cv")
    if isinstance(inner_cv, list):
        raise UsageError("inner_cv must be an int, a splitter or None: it splits training sets.")
    splits = _draw_folds(outer_cv, y, groups, classify, seed)
    inner: list[list[Split]] = [[] for _ in splits]
    if inner_cv is not None:
        for k, (train, _) in enumerate(splits):
            where = f" in the training set of outer fold {k}"
            inside = _draw_folds(inner_cv, y[train], groups[train], classify, seed, where)
            inner[k] = [(train[fit], train[score]) for fit, score in inside]
    labels = []
    if n_permutations:
        permute = _make_permuter(y, groups)
        rng = np.random.default_rng([seed, PERMUTATION])
        labels = [permute(rng) for _ in range(n_permutations)]
    permutations = [
        (permuted, _draw_folds(outer_cv, permuted, groups, classify, seed)) for permuted in labels
    ]
    return Design(seed, splits, inner, permutations, _name_cv(outer_cv), _name_cv(inner_cv))


def _check_cv(cv: Any, name: str) -> Any:
    """Return an int, a splitter, or a list of splits."""
    if isinstance(cv, Integral) and not isinstance(cv, bool):
        if cv < 2:
            raise UsageError(f"{name} must be at least 2 folds, got {cv}.")
        return int(cv)
    if hasattr(cv, "split") and not isinstance(cv, str):
        return cv
    try:
        return [(np.asarray(train), np.asarray(test)) for train, test in cv]
    except (TypeError, ValueError):
        raise UsageError(
            f"{name} must be an int, a splitter or an iterable of (train, test) row positions,"
            f" got {cv!r}."
        ) from None


def _draw_folds(
    cv: Any,
    y: NDArray[Any],
    groups: NDArray[np.int64],
    classify: bool,
    seed: int,
    where: str = "",
) -> list[Split]:
    n_folds = cv if isinstance(cv, int) else 2
    _check_enough(y, groups, classify, n_folds, where)
    if isinstance(cv, list):
        splits = cv
    else:
        splitter = (
            _FastStratifiedGroupKFold(cv, shuffle=True, random_state=seed)
            if isinstance(cv, int)
            else cv
        )
        strata = y if classify else _make_strata(y, n_folds)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The groups parameter is ignored")
            splits = list(splitter.split(np.zeros(len(y)), strata, groups))
    if not isinstance(cv, int):
        for k, (train, test) in enumerate(splits):
            both = np.intersect1d(groups[train], groups[test])
            if len(both):
                raise UsageError(
                    f"Fold {k} of cv has rows of {len(both)} groups in training and test, so the"
                    " test rows would not be unseen. Use a splitter that keeps groups together,"
                    " such as StratifiedGroupKFold, or groups=range(n) if each row stands alone."
                )
    return splits


def _check_enough(
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
        raise InsufficientDataError(
            f"There are {n_groups} groups{where}, fewer than the {n_folds} folds."
        )
    if classify:
        pairs = np.unique(np.stack([codes.reshape(-1), groups]), axis=1)
        counts = np.bincount(pairs[0])
        if counts.min() < n_folds:
            raise InsufficientDataError(
                f"Class {values[counts.argmin()]} is in {counts.min()} of {n_groups} groups{where},"
                f" fewer than the {n_folds} folds. Use fewer folds, merge classes, or give y as"
                " floats if it is a quantity."
            )
    else:
        needed = n_folds if where else max(n_folds, ENOUGH_ACTIVE)
        active = len(np.unique(groups[y != 0]))
        if np.any(y == 0) and active < needed:
            raise InsufficientDataError(
                f"y is active (not zero) in {active} of {n_groups} groups{where}, fewer than the"
                f" {needed} it takes to score a prediction of it. Choose a feature that is active"
                " more often, or pool with mean or max."
            )


def _make_strata(y: NDArray[Any], n_folds: int) -> NDArray[np.int64]:
    """Bin a numeric y: zero, and quantiles of the others; each bin has a row for every fold."""
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


class _FastStratifiedGroupKFold(StratifiedGroupKFold):
    """The same folds, in a fraction of the time: one array operation tries all folds."""

    def _find_best_fold(
        self,
        y_counts_per_fold: NDArray[np.float64],
        y_cnt: NDArray[np.int64],
        group_y_counts: NDArray[np.float64],
    ) -> int:
        k = len(y_counts_per_fold)
        tried = np.repeat(y_counts_per_fold[np.newaxis], k, axis=0)
        tried[range(k), range(k)] += group_y_counts
        shares = tried / y_cnt
        shares -= shares.mean(axis=1, keepdims=True)
        spreads = np.sqrt((shares * shares).mean(axis=1)).mean(axis=1).tolist()
        sizes = y_counts_per_fold.sum(axis=1).tolist()
        best = 0
        for fold in range(1, k):
            close = abs(spreads[fold] - spreads[best]) <= 1e-8 + 1e-5 * spreads[best]
            if spreads[fold] < spreads[best] or (close and sizes[fold] < sizes[best]):
                best = fold
        return best


def _make_permuter(
    y: NDArray[Any], groups: NDArray[np.int64]
) -> Callable[[np.random.Generator], NDArray[Any]]:
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    of_group = y[order[starts]]
    if np.array_equal(of_group[groups], y):
        return lambda rng: rng.permutation(of_group)[groups]
    # one row for each group of a size, its columns the positions of the group's rows
    blocks = [
        order[starts[sizes == size][:, np.newaxis] + np.arange(size)] for size in np.unique(sizes)
    ]
    can_move = sum(len(block) for block in blocks if len(block) > 1)
    if can_move < len(sizes) / 2:
        raise InsufficientDataError(
            f"Only {can_move} of {len(sizes)} groups have a partner of equal size to swap labels"
            " with, and y varies within groups; the permutation control needs at least half."
            " Use n_permutations=0."
        )

    def permute(rng: np.random.Generator) -> NDArray[Any]:
        permuted = y.copy()
        for block in blocks:
            permuted[block] = y[rng.permutation(block)]
        return permuted

    return permute


def _name_cv(cv: Any) -> str:
    if isinstance(cv, int):
        return f"{cv} stratified folds of whole groups, shuffled"
    return "given splits" if isinstance(cv, list) else " ".join(repr(cv).split())
