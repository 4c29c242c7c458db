"""The design of a transfer matrix: folds of all sets together, and what is trained and tested."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklprep.sweeps.design import INNER_IS_OUTER, SharedFolds, read_inner_cv, repeat_cv, reseed
from sklprep.sweeps.folds import Fold, FoldsError, draw_folds, make_strata
from sklprep.sweeps.intervals import size_ratio, why_no_interval
from sklprep.sweeps.scorers import weighs_classes
from sklprep.sweeps.transfer_sets import JoinedSets

_FEWEST_LEFT = 3
"""Fewest sets with which leaving one out differs from training on the other one."""


class Round(NamedTuple):
    """Folds of all rows, and those within each training set; None if they are the other folds."""

    folds: list[Fold]
    inner: list[list[Fold]] | None


class Source(NamedTuple):
    """What is trained on, and the sets that it is scored on.

    Attributes
    ----------
    row : int
        Its row in the matrix.
    name : str
    has : ndarray of bool
        Whether a row of any set is trained on.
    columns : list of int
    """

    row: int
    name: str
    has: NDArray[np.bool_]
    columns: list[int]

    def restrict(self, fold: Fold) -> Fold:
        train, test = fold
        return train[self.has[train]], test[self.has[test]]

    def share(self, one: Round, y: NDArray[Any]) -> SharedFolds:
        """Give its part of a round."""
        inner = one.inner and [[self.restrict(fold) for fold in folds] for folds in one.inner]
        return SharedFolds(y[np.newaxis], [self.restrict(fold) for fold in one.folds], inner, 1)


def make_sources(joined: JoinedSets, *, leave_one_out: bool) -> list[Source]:
    """List what models are trained on: each set and, with three or more, all but each."""
    n_sets, sources = len(joined.names), []
    of_set = np.repeat(np.arange(n_sets), [len(rows) for rows in joined.members])
    for i, name in enumerate(joined.names):
        others = [j for j in range(n_sets) if j != i]
        sources.append(Source(i, name, of_set == i, [i, *others]))
    if leave_one_out and n_sets >= _FEWEST_LEFT:
        for i, name in enumerate(joined.names):
            sources.append(Source(n_sets, f"all but {name}", of_set != i, [i]))
    return sources


def draw_rounds(joined: JoinedSets, cv: Any, n_repeats: int, seed: int) -> list[Round]:
    """Draw the folds of all rows for each repeat; raise `FoldsError` where a set has too few."""
    problem = joined.problem
    for name, rows in zip(joined.names, joined.members, strict=True):  # whose errors name it
        n_folds = cv if isinstance(cv, int) else 2
        y, groups = problem.y[rows], problem.groups[rows]
        draw_folds(n_folds, y, groups, classify=problem.classify, seed=seed, where=f" of {name}")
    strata = _make_strata(joined, cv)
    inner_cv = read_inner_cv("auto", cv)
    rounds = []
    for i, one in enumerate(repeat_cv(cv, n_repeats, seed)):
        options: dict[str, Any] = {"classify": True, "seed": reseed(seed, i)}
        folds, inner = draw_folds(one, strata, problem.groups, **options), None
        if inner_cv != INNER_IS_OUTER:
            inner = [
                [
                    (train[fit], train[score])
                    for fit, score in draw_folds(
                        inner_cv, strata[train], problem.groups[train], **options
                    )
                ]
                for train, _ in folds
            ]
        rounds.append(Round(folds, inner))
    return rounds


def _make_strata(joined: JoinedSets, cv: Any) -> NDArray[np.int64]:
    """Number the strata that folds balance: the classes, or bins, of each set."""
    problem, offset = joined.problem, 0
    strata = np.empty(len(problem.y), np.int64)
    for rows in joined.members:
        values = problem.y[rows]
        if not problem.classify:
            values = make_strata(values, cv if isinstance(cv, int) else 2)
        codes = np.unique(values, return_inverse=True)[1].reshape(-1)
        strata[rows] = codes + offset
        offset += int(codes.max()) + 1
    return strata


def require_scorable(joined: JoinedSets, sources: Sequence[Source], one: Round) -> None:
    """Raise `FoldsError` where a fold has no score."""
    y, scoring = joined.problem.y, joined.problem.scoring

    def require(train: NDArray[np.int64], test: NDArray[np.int64], where: str) -> None:
        if not len(test) or not len(train):
            raise FoldsError(f"There are no rows in {where}.")
        scoring.require_scorable(y, (train, test), where)

    for source in sources:
        for k, (train, test) in enumerate(one.folds):
            own = train[source.has[train]]
            for column in source.columns:
                of_set = np.intersect1d(test, joined.members[column], assume_unique=True)
                name = joined.names[column]
                require(own, of_set, f"fold {k} of {name}, trained on {source.name}")
        for fold in _list_inner(source, one):
            require(*fold, f"an inner fold of {source.name}")


def _list_inner(source: Source, one: Round) -> list[Fold]:
    """List the inner folds of a source."""
    if one.inner is not None:
        return [source.restrict(fold) for folds in one.inner for fold in folds]
    return [
        (np.intersect1d(a[0], b[0], assume_unique=True), test)
        for a, b in combinations(map(source.restrict, one.folds), 2)
        for test in (a[1], b[1])
    ]


class Half(NamedTuple):
    column: int
    rows: NDArray[np.int64]


def draw_halves(joined: JoinedSets, seed: int) -> list[Half]:
    """Split the groups of all sets in two, and list the rows of each set in each half."""
    strata, groups = _make_strata(joined, 2), joined.problem.groups
    folds = draw_folds(2, strata, groups, classify=True, seed=seed)
    return [
        Half(column, np.intersect1d(half, rows, assume_unique=True))
        for half, _ in folds
        for column, rows in enumerate(joined.members)
    ]


def describe_folds(joined: JoinedSets, folds: list[Fold]) -> tuple[dict[str, str], list[float]]:
    """Give the reasons, by set, why scores have no interval, and the size ratio of each set."""
    problem = joined.problem
    by_class = problem.classify and weighs_classes(problem.scoring.name)
    reasons, ratios = {}, []
    for name, rows in zip(joined.names, joined.members, strict=True):
        own: list[Fold] = [
            (_positions_in(rows, train), _positions_in(rows, test)) for train, test in folds
        ]
        labels = problem.y[rows] if by_class else None
        if reason := why_no_interval(own, problem.groups[rows], labels):
            reasons[name] = reason
        ratios.append(size_ratio(own))
    return reasons, ratios


def _positions_in(rows: NDArray[np.int64], some: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the positions, among the ascending rows of a set, of those in `some`."""
    return np.searchsorted(rows, np.intersect1d(some, rows, assume_unique=True))
