"""Every random choice of a sweep but the resampling, made before the first fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.folds import Fold, describe_cv, draw_folds, read_cv

PERMUTATION, BOOTSTRAP = range(2)
"""What the random draws of one seed are for."""


@dataclass(frozen=True)
class Design:
    """Outer folds, the inner folds of each, and permuted labels with folds of their own."""

    seed: int
    folds: list[Fold]
    inner: list[list[Fold]]
    permutations: list[tuple[NDArray[Any], list[Fold]]]
    outer_cv: str
    inner_cv: str


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
    outer_cv = read_cv(cv, "cv")
    if isinstance(outer_cv, list) and n_permutations:
        raise UsageError(
            "The permutation control redraws the folds, which a fixed list of splits in cv does"
            " not allow. Give cv as an int or a splitter, or n_permutations=0."
        )
    inner_cv = None if inner_cv is None else read_cv(inner_cv, "inner_cv")
    if isinstance(inner_cv, list):
        raise UsageError("inner_cv must be an int, a splitter or None: it splits training sets.")
    options: dict[str, Any] = {"classify": classify, "seed": seed}
    folds = draw_folds(outer_cv, y, groups, **options)
    inner: list[list[Fold]] = [[] for _ in folds]
    if inner_cv is not None:
        for k, (train, _) in enumerate(folds):
            where = f" in the training set of outer fold {k}"
            inside = draw_folds(inner_cv, y[train], groups[train], **options, where=where)
            inner[k] = [(train[fit], train[score]) for fit, score in inside]
    permutations = [
        (permuted, draw_folds(outer_cv, permuted, groups, **options))
        for permuted in _permute(y, groups, n_permutations, seed)
    ]
    return Design(seed, folds, inner, permutations, describe_cv(outer_cv), describe_cv(inner_cv))


def _permute(
    y: NDArray[Any], groups: NDArray[np.int64], n_permutations: int, seed: int
) -> list[NDArray[Any]]:
    if not n_permutations:
        return []
    permute = _make_permuter(y, groups)
    rng = np.random.default_rng([seed, PERMUTATION])
    return [permute(rng) for _ in range(n_permutations)]


def _make_permuter(
    y: NDArray[Any], groups: NDArray[np.int64]
) -> Callable[[np.random.Generator], NDArray[Any]]:
    order = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    starts = np.cumsum(sizes) - sizes
    of_group = y[order[starts]]
    if np.array_equal(of_group[groups], y):
        return lambda rng: rng.permutation(of_group)[groups]
    # for each size a table: one row for each group of it, its columns the positions of its rows
    tables = [
        order[starts[sizes == size][:, np.newaxis] + np.arange(size)] for size in np.unique(sizes)
    ]
    can_move = sum(len(table) for table in tables if len(table) > 1)
    if can_move < len(sizes) / 2:
        raise InsufficientDataError(
            f"Only {can_move} of {len(sizes)} groups have a partner of equal size to swap labels"
            " with, and y varies within groups; the permutation control needs at least half."
            " Use n_permutations=0."
        )

    def permute(rng: np.random.Generator) -> NDArray[Any]:
        permuted = y.copy()
        for table in tables:
            permuted[table] = y[rng.permutation(table)]
        return permuted

    return permute
