"""The design of a sweep: outer and inner folds and permuted labels, drawn before the first fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice, product
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.folds import Fold, FoldsError, describe_cv, draw_folds, most_folds, read_cv
from sklprep.sweeps.problem import Problem

PERMUTATION, BOOTSTRAP = range(2)
"""What the random draws of one seed are for."""

_USUAL_FOLDS = 5
_MOST_TRIES = 30
"""Pairs of outer and inner folds that advice looks through: those of 5 and 5 are 16, and each takes
0.3 s at 1,000 rows."""


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
    problem: Problem, *, cv: Any, inner_cv: Any, n_permutations: int, random_state: Any
) -> Design:
    """Draw every fold and every permutation, and refuse what these folds could not score."""
    if isinstance(random_state, Integral):
        seed = int(random_state)
    else:
        seed = int(check_random_state(random_state).randint(2**31 - 1))
    cv = read_cv(cv, "cv")
    if isinstance(cv, list) and n_permutations:
        raise UsageError(
            "The permutation control redraws the folds, which a fixed list of splits in cv does"
            " not allow. Give cv as an int or a splitter, or n_permutations=0."
        )
    inner_cv = None if inner_cv is None else read_cv(inner_cv, "inner_cv")
    if isinstance(inner_cv, list):
        raise UsageError("inner_cv must be an int, a splitter or None: it splits training sets.")
    try:
        folds, inner = _draw_nested(problem, cv, inner_cv, seed)
    except FoldsError as error:
        raise _with_remedies(error, *_advise(problem, cv, inner_cv, seed)) from None
    try:
        permutations = _draw_permutations(problem, cv, n_permutations, seed)
    except FoldsError as error:
        raise _with_remedies(error, "use n_permutations=0") from None
    return Design(seed, folds, inner, permutations, describe_cv(cv), describe_cv(inner_cv))


def _draw_nested(
    problem: Problem, cv: Any, inner_cv: Any, seed: int
) -> tuple[list[Fold], list[list[Fold]]]:
    """Draw folds, and the inner folds of each, on which every model would have a score."""
    y, groups, scoring = problem.y, problem.groups, problem.scoring
    folds = _draw(problem, y, cv, seed)
    inner: list[list[Fold]] = [[] for _ in folds]
    for k, (train, test) in enumerate(folds):
        scoring.require_scorable(y, (train, test), f"fold {k}")
        if inner_cv is None:
            continue
        where = f" in the training set of outer fold {k}"
        options: dict[str, Any] = {"classify": problem.classify, "seed": seed, "where": where}
        for i, (fit, score) in enumerate(draw_folds(inner_cv, y[train], groups[train], **options)):
            fold = train[fit], train[score]
            scoring.require_scorable(y, fold, f"inner fold {i}{where}")
            inner[k].append(fold)
    return folds, inner


def _draw(problem: Problem, y: NDArray[Any], cv: Any, seed: int) -> list[Fold]:
    return draw_folds(cv, y, problem.groups, classify=problem.classify, seed=seed)


def _advise(problem: Problem, cv: Any, inner_cv: Any, seed: int) -> list[str]:
    """Say which numbers of folds would do, having tried them; the nearest to what was asked."""
    most = most_folds(problem.y, problem.groups, classify=problem.classify)
    outer = range(min(cv if isinstance(cv, int) else _USUAL_FOLDS, most), 1, -1)
    most_inner = min(inner_cv if isinstance(inner_cv, int) else _USUAL_FOLDS, most - 1)
    inner = [None] if inner_cv is None else range(most_inner, 1, -1)
    for pair in islice(product(outer, inner), _MOST_TRIES):
        try:
            _draw_nested(problem, *pair, seed)
        except InsufficientDataError:
            continue
        new = zip(("cv", "inner_cv"), pair, (cv, inner_cv), strict=True)
        names = [f"{name}={value}" for name, value, given in new if value != given]
        return [f"use {' with '.join(names)}"]
    return []


def _with_remedies(error: FoldsError, *remedies: str) -> InsufficientDataError:
    *most, last = [*remedies, *error.remedies] or [
        "add rows, as no number of folds was found that works"
    ]
    do = f"{', '.join(most)} or {last}" if most else last
    return InsufficientDataError(f"{error} {do[0].upper()}{do[1:]}.")


def _draw_permutations(
    problem: Problem, cv: Any, n_permutations: int, seed: int
) -> list[tuple[NDArray[Any], list[Fold]]]:
    if not n_permutations:
        return []
    permute = _make_permuter(problem.y, problem.groups)
    rng = np.random.default_rng([seed, PERMUTATION])
    permutations = []
    for i, y in enumerate([permute(rng) for _ in range(n_permutations)]):
        folds = _draw(problem, y, cv, seed)
        for k, fold in enumerate(folds):
            problem.scoring.require_scorable(y, fold, f"fold {k} of permutation {i}")
        permutations.append((y, folds))
    return permutations


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
