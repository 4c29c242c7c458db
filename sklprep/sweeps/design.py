"""The design of a sweep: which labelings are scored on which folds, drawn before the first fit."""

from __future__ import annotations

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

PERMUTATION, BOOTSTRAP = range(2)
"""What the random draws of one seed are for."""

_USUAL_FOLDS = 5
_MOST_TRIES = 30
"""Pairs of outer and inner folds that advice looks through: those of 5 and 5 are 16, and each takes
0.3 s at 1,000 rows."""


INNER_IS_OUTER = "outer"
"""The `inner_cv` by which the inner folds of an outer fold are the other outer folds."""

_FEWEST_SHARED = 4
"""Outer folds from which they can be inner folds too: of 3, a model would see a third of the rows
where that of the outer fold sees two thirds."""


class InputScores(NamedTuple):
    """Scores of one input, with what the inner folds chose in each outer fold.

    Attributes
    ----------
    scores, inner, seconds : ndarray of shape (n_folds,)
        On the test rows; the mean over the inner folds, NaN without them; of fitting.
    candidates : ndarray of shape (n_folds,), int
        The parameters chosen.
    models : list
        As `Fitted` has them, of the chosen parameters; empty without inner folds.
    permuted : ndarray of shape (n_permutations,)
        Mean score over the folds.
    """

    scores: NDArray[np.float64]
    inner: NDArray[np.float64]
    candidates: NDArray[np.intp]
    seconds: NDArray[np.float64]
    models: list[Any]
    permuted: NDArray[np.float64]

    @classmethod
    def merge(cls, rounds: list[InputScores]) -> InputScores:
        """Put permutations with folds of their own behind what was observed."""
        observed, *others = rounds
        redrawn = np.array([one.scores.mean() for one in others])
        return observed._replace(permuted=np.concatenate([observed.permuted, redrawn]))


@dataclass(frozen=True)
class SharedFolds:
    """Labelings that are scored on the same folds, so that they can share all else of a fit.

    Attributes
    ----------
    labels : ndarray of shape (n_labelings, n_samples)
    folds : list of Fold
    inner : list of list of Fold
        Of each outer fold, where these are folds of their own.
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
            sets = [TrainingSet(train, [test], len(self.labels), keep=self.n_nested > 0)]
            if self.n_nested and self.inner is None:
                for other, other_test in self.folds[k + 1 :]:
                    both = np.intersect1d(train, other, assume_unique=True)
                    sets.append(TrainingSet(both, [other_test, test], self.n_nested))
            elif self.n_nested and self.inner is not None:
                for fit, score in self.inner[k]:
                    sets.append(TrainingSet(fit, [score], self.n_nested))
            listed.append(sets)
        return listed

    def read(self, fitted: list[list[Fitted]]) -> InputScores:
        """Read what `training_sets` came to: the scores of what the inner folds choose."""
        outer = np.array([of_fold[0].scores[0] for of_fold in fitted])
        n_folds, _, n_labelings = outer.shape
        chosen = np.zeros((n_folds, n_labelings), np.intp)
        inner = np.full(n_folds, np.nan)
        if self.n_nested:
            means = self._inner_means(fitted)
            chosen[:, : self.n_nested] = np.argmax(np.nan_to_num(means, nan=-np.inf), axis=1)
            inner = means[range(n_folds), chosen[:, 0], 0]
        scores = np.take_along_axis(outer, chosen[:, np.newaxis], axis=1)[:, 0]
        return InputScores(
            scores=scores[:, 0],
            inner=inner,
            candidates=chosen[:, 0],
            seconds=np.array([of_fold[0].seconds for of_fold in fitted]),
            models=[
                of_fold[0].models[c]
                for of_fold, c in zip(fitted, chosen[:, 0], strict=True)
                if self.n_nested
            ],
            permuted=scores[:, 1:].mean(axis=0),
        )

    def _inner_means(self, fitted: list[list[Fitted]]) -> NDArray[np.float64]:
        """Average over the inner folds: (n_folds, n_candidates, n_nested)."""
        scores: list[list[Any]] = [[] for _ in self.folds]
        for k, of_fold in enumerate(fitted):
            for j, one in enumerate(of_fold[1:], start=k + 1):
                scores[k].append(one.scores[0])
                if self.inner is None:
                    scores[j].append(one.scores[1])
        return np.array([np.mean(of_fold, axis=0) for of_fold in scores])

    def one_by_one(self) -> list[SharedFolds]:
        """Give each labeling on the same folds by itself: for models that share nothing."""
        return [
            replace(self, labels=self.labels[i : i + 1], n_nested=int(i < self.n_nested))
            for i in range(len(self.labels))
        ]


@dataclass(frozen=True)
class Design:
    """Folds and labelings of a sweep.

    Attributes
    ----------
    observed : SharedFolds
        Its first labeling is y; the others are permutations within its test folds.
    redrawn : list of SharedFolds
        Permutations with folds of their own.
    """

    seed: int
    observed: SharedFolds
    redrawn: list[SharedFolds]
    outer_cv: str
    inner_cv: str

    @property
    def folds(self) -> list[Fold]:
        return self.observed.folds

    def alone(self) -> SharedFolds:
        """Give y on the outer folds, without permutations and inner folds."""
        return replace(self.observed, labels=self.observed.labels[:1], n_nested=0)

    def rounds(self, *, together: bool) -> list[SharedFolds]:
        """List what is fitted: labelings that share folds together, or each by itself."""
        return [*([self.observed] if together else self.observed.one_by_one()), *self.redrawn]


def draw_design(
    problem: Problem,
    *,
    cv: Any,
    inner_cv: Any,
    n_permutations: int,
    random_state: Any,
) -> Design:
    """Draw every fold and every permutation, and refuse what these folds could not score.

    With a grid, whose parameters are chosen anew for each permutation, permutations have inner
    folds too.
    """
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
    inner_cv = _read_inner_cv(inner_cv)
    try:
        folds, inner = _draw_nested(problem, problem.y, cv, inner_cv, seed)
    except FoldsError as error:
        raise _with_remedies(error, *_advise(problem, cv, inner_cv, seed)) from None
    nested_by_grid = problem.has_grid and inner_cv is not None
    share = inner_cv == INNER_IS_OUTER or not nested_by_grid
    permute = None
    if share and n_permutations:
        permute = find_exact_permuter(cv, problem.y, problem.groups, folds)
    labels, redrawn = [problem.y], []
    rng = np.random.default_rng([seed, PERMUTATION])
    if permute is not None:
        labels += [permute(rng) for _ in range(n_permutations)]
    elif n_permutations:
        permute = make_permuter(problem.y, problem.groups)
        permuted = [permute(rng) for _ in range(n_permutations)]
        inner_of = inner_cv if nested_by_grid else None
        try:
            redrawn = [_redraw(problem, y, cv, inner_of, seed, i) for i, y in enumerate(permuted)]
        except FoldsError as error:
            raise _with_remedies(error, "use n_permutations=0") from None
    n_nested = 0 if inner_cv is None else len(labels) if nested_by_grid else 1
    observed = SharedFolds(np.stack(labels), folds, inner, n_nested)
    return Design(seed, observed, redrawn, describe_cv(cv), _describe_inner(inner_cv))


def _read_inner_cv(inner_cv: Any) -> Any:
    if inner_cv is None or (isinstance(inner_cv, str) and inner_cv == INNER_IS_OUTER):
        return inner_cv
    inner_cv = read_cv(inner_cv, "inner_cv")
    if isinstance(inner_cv, list):
        raise UsageError(
            "inner_cv must be an int, a splitter, 'outer' or None: it splits training sets."
        )
    return inner_cv


def _describe_inner(inner_cv: Any) -> str:
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
    if len(folds) < _FEWEST_SHARED:
        raise UsageError(
            f"inner_cv='outer' needs at least {_FEWEST_SHARED} outer folds, got {len(folds)}. Use"
            f" cv={_FEWEST_SHARED} or more, or give inner_cv as an int."
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
    """Say which numbers of folds would do, having tried them; the nearest to what was asked."""
    most = most_folds(problem.y, problem.groups, classify=problem.classify)
    outer = range(min(cv if isinstance(cv, int) else _USUAL_FOLDS, most), 1, -1)
    most_inner = min(inner_cv if isinstance(inner_cv, int) else _USUAL_FOLDS, most - 1)
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


def _with_remedies(error: FoldsError, *remedies: str) -> InsufficientDataError:
    *most, last = [*remedies, *error.remedies] or [
        "add rows, as no number of folds was found that works"
    ]
    do = f"{', '.join(most)} or {last}" if most else last
    return InsufficientDataError(f"{error} {do[0].upper()}{do[1:]}.")
