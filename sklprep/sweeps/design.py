"""The design of a sweep: which labelings are scored on which folds, drawn before the first fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import combinations, islice, product
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.fitting import Fitted, TrainingSet
from sklprep.sweeps.folds import Fold, FoldsError, describe_cv, draw_folds, most_folds, read_cv
from sklprep.sweeps.permutations import find_exact_permuter, make_permuter
from sklprep.sweeps.problem import Problem
from sklprep.sweeps.scorers import pool

PERMUTATION, REPEAT = range(2)
"""Purposes of random draws, which keep the draws of one seed apart."""

USUAL_FOLDS = 5
_MOST_TRIES = 30
"""Pairs of outer and inner folds that are tried to give advice: from 5 and 5 down there are 16, and
each takes 0.3 s at 1,000 rows."""

FEW_ROWS = 700
"""Rows up to which training sets share numpy's calls, see `sklprep.sweeps.solver.stacks`."""

_FOLDS_A_TASK = 50
"""Outer folds of small training sets in one task: those of ten repeats. Threads wait for Python's
lock less, the larger the stacks of the solver are: of 1,050 fits of 160 rows, two jobs took 8.5 s
with 15 folds a task, 7.0 s with 25 and 6.6 s with 50."""

INNER_IS_OUTER = "outer"
"""Value of `inner_cv` with which the inner folds of an outer fold are the other outer folds."""

FEWEST_SHARED = 4
"""Fewest outer folds that can be inner folds too: with 3, an inner model would see a third of the
rows, where that of the outer fold sees two thirds."""


class InputScores(NamedTuple):
    """Scores of one input, with what the inner folds chose in each outer fold.

    Attributes
    ----------
    scores, inner, seconds : ndarray of shape (n_folds,)
        Score on the test rows; mean score over the inner folds, NaN without them; time of fitting.
    candidates : ndarray of shape (n_folds,), int
        Positions of the parameters chosen.
    permuted : ndarray of shape (n_permutations,)
        Mean score over the folds.
    false_positive_rates : ndarray of shape (n_folds,), or None
        Those on the test rows, if a threshold was calibrated.
    others : ndarray of shape (n_others, n_folds)
        Scores on the test rows by the other scorers.
    """

    scores: NDArray[np.float64]
    inner: NDArray[np.float64]
    candidates: NDArray[np.intp]
    seconds: NDArray[np.float64]
    permuted: NDArray[np.float64]
    others: NDArray[np.float64]
    false_positive_rates: NDArray[np.float64] | None = None

    @classmethod
    def merge(cls, rounds: list[InputScores], n_repeats: int) -> InputScores:
        """Concatenate the folds of all repeats, and all permutations."""
        repeats, others = rounds[:n_repeats], rounds[n_repeats:]
        permuted = [one.permuted for one in repeats] + [[one.scores.mean()] for one in others]
        scores, inner, candidates, seconds = (
            np.concatenate([one[i] for one in repeats]) for i in range(4)
        )
        by_others = np.concatenate([one.others for one in repeats], axis=1)
        found = [one.false_positive_rates for one in repeats]
        rates = [of_folds for of_folds in found if of_folds is not None]
        return cls(
            scores,
            inner,
            candidates,
            seconds,
            np.concatenate(permuted),
            by_others,
            np.concatenate(rates) if rates else None,
        )


@dataclass(frozen=True)
class SharedFolds:
    """Labelings that are scored on the same folds, so that they can share the rest of a fit.

    Attributes
    ----------
    labels : ndarray of shape (n_labelings, n_samples)
    folds : list of Fold
    inner : list of list of Fold
        Inner folds of each outer fold; None if they are the other outer folds.
    n_nested : int
        How many labelings, from the first, have inner folds.
    """

    labels: NDArray[Any]
    folds: list[Fold]
    inner: list[list[Fold]] | None
    n_nested: int

    def training_sets(self) -> list[list[TrainingSet]]:
        """List the training sets of each outer fold: its own, then those of its inner folds.

        Where the inner folds are the other outer folds, the rows without folds j and k are the
        training set of the inner fold k of j, and of the inner fold j of k; it is listed once.
        """
        listed = []
        for k, (train, test) in enumerate(self.folds):
            sets = [TrainingSet(train, [test], len(self.labels), is_outer=True)]
            if self.n_nested and self.inner is None:
                for other, other_test in self.folds[k + 1 :]:
                    both = np.intersect1d(train, other, assume_unique=True)
                    sets.append(TrainingSet(both, [other_test, test], self.n_nested))
            elif self.n_nested and self.inner is not None:
                for fit, score in self.inner[k]:
                    sets.append(TrainingSet(fit, [score], self.n_nested))
            listed.append(sets)
        return listed

    def read(self, fitted: list[list[Fitted]], are_pooled: Sequence[bool]) -> InputScores:
        """Read the results of `training_sets`: the scores of what the inner folds choose.

        `are_pooled` says of each scorer, the leading one first, whether `pool` makes its scores.
        """
        outer = np.array([of_fold[0].scores[0] for of_fold in fitted])
        if are_pooled[0]:
            outer = pool(outer, self.labels, self.folds)
        n_folds, _, n_labelings = outer.shape
        chosen = np.zeros((n_folds, n_labelings), np.intp)
        inner = np.full(n_folds, np.nan)
        if self.n_nested:
            means = self.inner_means(fitted)
            chosen[:, : self.n_nested] = np.argmax(np.nan_to_num(means, nan=-np.inf), axis=1)
            inner = means[range(n_folds), chosen[:, 0], 0]
        scores = np.take_along_axis(outer, chosen[:, np.newaxis], axis=1)[:, 0]
        return InputScores(
            scores=scores[:, 0],
            inner=inner,
            candidates=chosen[:, 0],
            seconds=np.array([of_fold[0].seconds for of_fold in fitted]),
            permuted=scores[:, 1:].mean(axis=0),
            others=self._read_others(fitted, chosen[:, 0], are_pooled[1:]),
        )

    def _read_others(
        self, fitted: list[list[Fitted]], chosen: NDArray[np.intp], are_pooled: Sequence[bool]
    ) -> NDArray[np.float64]:
        found = np.array(
            [of_fold[0].others[:, 0, c] for of_fold, c in zip(fitted, chosen, strict=True)]
        ).T
        for i in np.flatnonzero(are_pooled):
            found[i] = pool(found[i][:, np.newaxis], self.labels[:1], self.folds)[:, 0]
        return found

    def inner_means(self, fitted: list[list[Fitted]]) -> NDArray[np.float64]:
        """Average over the inner folds: (n_folds, n_candidates, n_nested)."""
        return np.array(
            [
                np.mean([one.scores[t] for _, one, t in of_fold], axis=0)
                for of_fold in self.held_out(fitted)
            ]
        )

    def held_out(
        self, fitted: list[list[Fitted]]
    ) -> list[list[tuple[NDArray[np.int64], Fitted, int]]]:
        """List for each outer fold its inner folds: test rows, results, position among its tests.

        The model without folds j and k is that of an inner fold of both.
        """
        found: list[list[tuple[NDArray[np.int64], Fitted, int]]] = [[] for _ in self.folds]
        for k, of_fold in enumerate(fitted):
            for i, one in enumerate(of_fold[1:]):
                if self.inner is not None:
                    found[k].append((self.inner[k][i][1], one, 0))
                else:
                    j = k + 1 + i
                    found[k].append((self.folds[j][1], one, 0))
                    found[j].append((self.folds[k][1], one, 1))
        return found

    def inner_rows(self) -> list[NDArray[np.int64]]:
        """Give for each outer fold the rows that its inner folds hold out."""
        if self.inner is None:
            return [train for train, _ in self.folds]
        return [np.concatenate([test for _, test in of_fold]) for of_fold in self.inner]

    def one_by_one(self) -> list[SharedFolds]:
        """Give each labeling on the same folds by itself: for models that share nothing."""
        return [
            replace(self, labels=self.labels[i : i + 1], n_nested=int(i < self.n_nested))
            for i in range(len(self.labels))
        ]


Dealt = tuple[NDArray[Any], list[list[TrainingSet]]]
"""Labelings, and the training sets of some outer folds: what one task fits."""


def deal(rounds: Sequence[SharedFolds], *, small: bool) -> list[Dealt]:
    """Deal the training sets into tasks: one an outer fold, but those of small repeats together.

    Parameters
    ----------
    rounds : sequence of SharedFolds
    small : bool
        Whether a fit takes so little time that training sets gain from company.
    """
    tasks: list[Dealt] = []
    for one in rounds:
        listed = one.training_sets()
        if not small or len(one.labels) > 1:
            tasks += [(one.labels, [of_fold]) for of_fold in listed]
        elif tasks and _have_room(tasks[-1], one):
            tasks[-1][1].extend(listed)
        else:
            tasks.append((one.labels, listed))
    return tasks


def _have_room(task: Dealt, one: SharedFolds) -> bool:
    labels, listed = task
    return len(listed) + len(one.folds) <= _FOLDS_A_TASK and np.array_equal(labels, one.labels)


@dataclass(frozen=True)
class Design:
    """Folds and labelings of a sweep.

    Attributes
    ----------
    repeats : list of SharedFolds
        y on the folds of each repeat; the first has, after y, its permutations within test
        folds.
    redrawn : list of SharedFolds
        Permutations with folds of their own.
    n_labelings : float
        How many labelings the permutations are drawn from.
    """

    seed: int
    repeats: list[SharedFolds]
    redrawn: list[SharedFolds]
    outer_cv: str
    inner_cv: str
    n_labelings: float

    @property
    def folds(self) -> list[Fold]:
        return self.repeats[0].folds

    @property
    def is_nested(self) -> bool:
        return self.repeats[0].n_nested > 0

    def observed(self, *, nested: bool) -> list[SharedFolds]:
        """List y on the folds of each repeat, without permutations; with inner folds if nested."""
        return [
            replace(one, labels=one.labels[:1], n_nested=int(nested) and min(1, one.n_nested))
            for one in self.repeats
        ]

    def rounds(self, *, together: bool) -> list[SharedFolds]:
        """List what is fitted: labelings that share folds together, or each by itself."""
        first, *others = self.repeats
        if together:
            return [first, *others, *self.redrawn]
        alone, *permuted = first.one_by_one()
        return [alone, *others, *permuted, *self.redrawn]


def draw_design(
    problem: Problem,
    *,
    cv: Any,
    inner_cv: Any,
    n_permutations: int,
    n_repeats: int,
    random_state: Any,
) -> Design:
    """Draw every fold and every permutation, and refuse what these folds cannot score.

    With a grid, whose parameters are chosen anew for each permutation, or with a threshold that is
    calibrated anew, permutations have inner folds too.
    """
    seed = read_seed(random_state)
    cv = read_cv(cv, "cv")
    if isinstance(cv, list) and n_permutations:
        raise UsageError(
            "The permutation control redraws the folds, which a fixed list of splits in cv does"
            " not allow. Give cv as an int or a splitter, or n_permutations=0."
        )
    inner_cv = read_inner_cv(inner_cv, cv)
    try:
        drawn = [
            _draw_nested(problem, problem.y, one, inner_cv, reseed(seed, i))
            for i, one in enumerate(repeat_cv(cv, n_repeats, seed))
        ]
    except FoldsError as error:
        raise with_remedies(error, *_advise(problem, cv, inner_cv, seed)) from None
    folds, inner = drawn[0]
    labels, redrawn, n_labelings = _draw_permutations(
        problem, cv, inner_cv, folds, n_permutations, seed
    )
    is_nested = inner_cv is not None
    n_nested = len(labels) if is_nested and problem.nests_all else int(is_nested)
    repeats = [SharedFolds(np.stack(labels), folds, inner, n_nested)]
    repeats += [SharedFolds(problem.y[np.newaxis], *one, int(is_nested)) for one in drawn[1:]]
    of_inner = describe_inner(inner_cv)
    return Design(seed, repeats, redrawn, describe_cv(cv), of_inner, n_labelings)


def read_seed(random_state: Any) -> int:
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def keep_scorable(problem: Problem, design: Design, *, required: bool) -> Problem:
    """Leave out other scores that are undefined on a fold; refuse them if they were asked for."""
    kept = []
    for scoring in problem.other_scorings:
        try:
            for one in design.repeats:
                for k, fold in enumerate(one.folds):
                    scoring.require_scorable(problem.y, fold, f"fold {k}")
        except FoldsError as error:
            if required:
                raise with_remedies(error, f"leave {scoring.name} out of scoring") from None
        else:
            kept.append(scoring)
    return replace(problem, other_scorings=kept)


def can_repeat(cv: Any) -> bool:
    """Whether folds can be redrawn: for an int, or a splitter that shuffles."""
    return isinstance(cv, int) or getattr(cv, "shuffle", False) is True


def repeat_cv(cv: Any, n_repeats: int, seed: int) -> Iterator[Any]:
    """Give cv for each repeat; from the second on, a splitter has a seed of its own."""
    yield cv
    for i in range(1, n_repeats):
        if isinstance(cv, int):
            yield cv
        else:
            again = copy(cv)
            again.random_state = reseed(seed, i)
            yield again


def reseed(seed: int, repeat: int) -> int:
    """Give the seed of a repeat's folds; the first has the seed of the sweep."""
    return int(np.random.default_rng([seed, REPEAT, repeat]).integers(2**31)) if repeat else seed


def _draw_permutations(
    problem: Problem, cv: Any, inner_cv: Any, folds: list[Fold], n: int, seed: int
) -> tuple[list[NDArray[Any]], list[SharedFolds], float]:
    """Give y and labelings on its folds, labelings on folds of their own, how many there are."""
    if not n:
        return [problem.y], [], np.inf
    rng = np.random.default_rng([seed, PERMUTATION])
    nests_all = problem.nests_all and inner_cv is not None
    if inner_cv == INNER_IS_OUTER or not nests_all:
        permuter = find_exact_permuter(cv, problem.y, problem.groups, folds)
        if permuter is not None:
            permuted = [permuter.draw(rng) for _ in range(n)]
            return [problem.y, *permuted], [], permuter.n_labelings
    permuter = make_permuter(problem.y, problem.groups)
    permuted = [permuter.draw(rng) for _ in range(n)]
    inner_of = inner_cv if nests_all else None
    try:
        redrawn = [_redraw(problem, y, cv, inner_of, seed, i) for i, y in enumerate(permuted)]
    except FoldsError as error:
        raise with_remedies(error, "use n_permutations=0") from None
    return [problem.y], redrawn, permuter.n_labelings


def read_inner_cv(inner_cv: Any, cv: Any) -> Any:
    if isinstance(inner_cv, str) and inner_cv == "auto":
        return INNER_IS_OUTER if isinstance(cv, int) and cv >= FEWEST_SHARED else USUAL_FOLDS
    if inner_cv is None or (isinstance(inner_cv, str) and inner_cv == INNER_IS_OUTER):
        return inner_cv
    inner_cv = read_cv(inner_cv, "inner_cv")
    if isinstance(inner_cv, list):
        raise UsageError(
            "inner_cv must be an int, a splitter, 'outer', 'auto' or None: it splits training sets."
        )
    return inner_cv


def describe_inner(inner_cv: Any) -> str:
    return "the other outer folds" if inner_cv == INNER_IS_OUTER else describe_cv(inner_cv)


def _draw_nested(
    problem: Problem, y: NDArray[Any], cv: Any, inner_cv: Any, seed: int, of: str = ""
) -> tuple[list[Fold], list[list[Fold]] | None]:
    """Draw folds, and the inner folds of each, on which every model would have a score."""
    groups, scoring = problem.groups, problem.scoring
    folds = draw_folds(cv, y, groups, classify=problem.classify, seed=seed)
    for k, fold in enumerate(folds):
        scoring.require_scorable(y, fold, f"fold {k}{of}")
    if inner_cv is None:
        return folds, [[] for _ in folds]
    if inner_cv == INNER_IS_OUTER:
        _require_shareable(problem, y, folds, of)
        return folds, None
    inner: list[list[Fold]] = [[] for _ in folds]
    for k, (train, _) in enumerate(folds):
        where = f" in the training set of outer fold {k}{of}"
        options: dict[str, Any] = {"classify": problem.classify, "seed": seed, "where": where}
        for i, (fit, score) in enumerate(draw_folds(inner_cv, y[train], groups[train], **options)):
            fold = train[fit], train[score]
            scoring.require_scorable(y, fold, f"inner fold {i}{where}")
            inner[k].append(fold)
    return folds, inner


def _require_shareable(problem: Problem, y: NDArray[Any], folds: list[Fold], of: str) -> None:
    """Refuse outer folds that cannot be inner folds too."""
    tested = np.concatenate([test for _, test in folds])
    whole = all(len(train) + len(test) == len(y) for train, test in folds)
    if not whole or not np.array_equal(np.sort(tested), np.arange(len(y))):
        raise UsageError(
            "inner_cv='outer' needs outer folds that test each row once and train on all others."
            " Give inner_cv as an int."
        )
    if len(folds) < FEWEST_SHARED:
        raise UsageError(
            f"inner_cv='outer' needs at least {FEWEST_SHARED} outer folds, got {len(folds)}. Use"
            f" cv={FEWEST_SHARED} or more, or give inner_cv as an int."
        )
    for j, k in combinations(range(len(folds)), 2):
        both = np.intersect1d(folds[j][0], folds[k][0], assume_unique=True)
        for test in (folds[j][1], folds[k][1]):
            where = f"the rows without folds {j} and {k}{of}"
            problem.scoring.require_scorable(y, (both, test), where)


def _redraw(
    problem: Problem, y: NDArray[Any], cv: Any, inner_cv: Any, seed: int, i: int
) -> SharedFolds:
    folds, inner = _draw_nested(problem, y, cv, inner_cv, seed, f" of permutation {i}")
    return SharedFolds(y[np.newaxis], folds, inner, int(inner_cv is not None))


def _advise(problem: Problem, cv: Any, inner_cv: Any, seed: int) -> list[str]:
    """Suggest numbers of folds that work, found by trying, nearest to what was asked for."""
    most = most_folds(problem.y, problem.groups, classify=problem.classify)
    outer = range(min(cv if isinstance(cv, int) else USUAL_FOLDS, most), 1, -1)
    most_inner = min(inner_cv if isinstance(inner_cv, int) else USUAL_FOLDS, most - 1)
    inner = [None] if inner_cv is None else range(most_inner, 1, -1)
    for pair in islice(product(outer, inner), _MOST_TRIES):
        try:
            _draw_nested(problem, problem.y, *pair, seed)
        except InsufficientDataError:
            continue
        new = zip(("cv", "inner_cv"), pair, (cv, inner_cv), strict=True)
        names = [f"{name}={value}" for name, value, given in new if value != given]
        return [f"use {' with '.join(names)}"]
    return []


def with_remedies(error: FoldsError, *remedies: str) -> InsufficientDataError:
    *most, last = [*remedies, *error.remedies] or [
        "add rows: no number of folds was found that works"
    ]
    do = f"{', '.join(most)} or {last}" if most else last
    return InsufficientDataError(f"{error} {do[0].upper()}{do[1:]}.")
