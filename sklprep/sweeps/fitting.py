"""Fits all models of a sweep: candidates and labelings of one input on some training sets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone, is_regressor
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.closed_forms import CLOSED_FORMS
from sklprep.sweeps.solver import Candidates, Split, count_stacked, recognise_all
from sklprep.sweeps.workers import RemoteRows

Scorer = Callable[..., Any]
Aggregate = Callable[["Answers", NDArray[np.int64], NDArray[Any]], tuple["Answers", NDArray[Any]]]

METHODS = ("predict", "predict_proba", "decision_function")
"""All that a scorer from `make_scorer` can ask of a model."""

_OBSERVED_TOL = 1e-3
"""The solver's tolerance for scores of y: with it, predictions and curves of real activations were
those of the optimum. Inner folds and permuted labels are fitted at the solver's default, which
takes half the time and at which 0.1 % of predictions differ from the optimum, in either direction;
only their means count."""

_MadeScorer = type(make_scorer(accuracy_score))


class Work(NamedTuple):
    """What is fitted and scored on one input.

    Attributes
    ----------
    candidates : list of dict
        Parameters of the model that compete; one empty dict without a grid.
    scoring : str
        The scorer's name.
    groups : ndarray or None
        Given only if the model splits by them.
    solve : bool
        Whether the models are those that the solver knows, and it is wanted.
    device : str or None
        Where the solver computes.
    shape : tuple of int
        Shape of a score; () is a number.
    aggregate : callable or None
        From the answers about test rows, these rows and their y to the answers and y that are
        scored, see `sklprep.sweeps.aggregation`.
    sees : callable or None
        From X and the rows of a training set to the X that is fitted and scored, as `residualize`
        and `sklprep.sweeps.baselines.weigh_words`; None leaves X as it is.
    keep_decisions : bool
        Keep the decisions of models of two classes instead of scoring them.
    others : tuple of Scorer
        More scorers, for the first labeling only.
    """

    model: Any
    candidates: list[dict[str, Any]]
    scorer: Scorer
    scoring: str
    X: Any
    groups: NDArray[np.int64] | None = None
    solve: bool = False
    device: str | None = None
    shape: tuple[int, ...] = ()
    aggregate: Aggregate | None = None
    sees: Callable[[Any, NDArray[np.int64]], Any] | None = None
    keep_decisions: bool = False
    others: tuple[Scorer, ...] = ()

    @property
    def are_made(self) -> bool:
        """Whether `make_scorer` made all of its scorers."""
        return all(map(is_made_scorer, (self.scorer, *self.others)))

    def seen_by(self, training_set: TrainingSet) -> Work:
        """Give the work on X as the models of a training set see it."""
        if self.sees is None:
            return self
        return self._replace(X=self.sees(self.X, training_set.rows), sees=None)


class TrainingSet(NamedTuple):
    """Rows that models are fitted on, and the sets of rows that each is scored on.

    Attributes
    ----------
    n_labelings : int
        How many labelings, from the first, are fitted.
    is_outer : bool
        Whether it is the training set of an outer fold; only there are other scorers used.
    """

    rows: NDArray[np.int64]
    tests: list[NDArray[np.int64]]
    n_labelings: int
    is_outer: bool = False


class Fitted(NamedTuple):
    """Results of a training set.

    Attributes
    ----------
    scores : ndarray of shape (n_tests, n_candidates, n_labelings, *Work.shape)
    others : ndarray of shape (n_others, n_tests, n_candidates)
        Scores of the first labeling by the other scorers.
    seconds : float
        Time to fit one model; models that are fitted together share their time equally.
    decisions : list of ndarray of shape (n_candidates, n_labelings, n_rows)
        Decisions for the rows of each test set, if kept; larger for the second class.
    """

    scores: NDArray[np.float64]
    others: NDArray[np.float64]
    seconds: float
    decisions: list[NDArray[np.float64]]


def is_made_scorer(scorer: Scorer) -> bool:
    """Whether `make_scorer` made it, as it did every scorer with a name.

    Such a scorer asks a model for predictions, class probabilities or decision values, and looks at
    nothing else.
    """
    return isinstance(scorer, _MadeScorer)


def fit_training_sets(
    work: Work, labels: NDArray[Any], training_sets: list[list[TrainingSet]]
) -> list[list[Fitted]]:
    """Fit every candidate on every labeling of some training sets, and score it.

    Parameters
    ----------
    work : Work
    labels : ndarray of shape (n_labelings, n_samples)
    training_sets : list of list of TrainingSet
        One list for each of some outer folds.

    Returns
    -------
    list of list of Fitted
    """
    work = work._replace(X=work.X.read()) if isinstance(work.X, RemoteRows) else work
    models = make_models(work.model, work.candidates)
    every = [one for of_fold in training_sets for one in of_fold]
    found = (
        iter(_solve(work, models, labels, every))
        if work.solve
        else (_fit(work.seen_by(one), models, labels, one) for one in every)
    )
    return [list(islice(found, len(of_fold))) for of_fold in training_sets]


def make_models(model: Any, candidates: Sequence[dict[str, Any]]) -> list[Any]:
    """Give an unfitted model for each candidate."""
    return [clone(model).set_params(**parameters) for parameters in candidates]


def _fit(work: Work, models: list[Any], labels: NDArray[Any], training_set: TrainingSet) -> Fitted:
    """Fit one by one, as scikit-learn does."""
    rooms, seconds = _Rooms(work, training_set, len(models)), 0.0
    for c, labeling in np.ndindex(len(models), training_set.n_labelings):
        started = time.perf_counter()
        fitted = fit_one(models[c], work, labels[labeling], training_set.rows)
        seconds += time.perf_counter() - started
        for t, test in enumerate(training_set.tests):
            X, y = work.X[test], labels[labeling][test]
            if work.keep_decisions:
                rooms.decisions[t][c, labeling] = _decide(fitted, X)
            elif work.are_made and hasattr(fitted, "__sklearn_tags__"):
                rooms.score(t, c, labeling, Answers(fitted, X), y)
            else:
                rooms.scores[t, c, labeling] = _score(work.scorer, fitted, X, y)
                if rooms.has_others(labeling):
                    rooms.others[:, t, c] = [_score(one, fitted, X, y) for one in work.others]
    return rooms.fitted(seconds / (len(models) * training_set.n_labelings))


class _Rooms:
    """Arrays for the results of a training set."""

    def __init__(self, work: Work, training_set: TrainingSet, n_models: int) -> None:
        self._work, self._training_set = work, training_set
        tests, shape = training_set.tests, (n_models, training_set.n_labelings)
        n_others = len(work.others) if training_set.is_outer else 0
        self.scores = np.full((len(tests), *shape, *work.shape), np.nan)
        self.others = np.full((n_others, len(tests), n_models), np.nan)
        self.decisions = [np.empty((*shape, len(test))) for test in tests if work.keep_decisions]

    def has_others(self, labeling: int) -> bool:
        """Whether the other scorers score a labeling."""
        return labeling == 0 and len(self.others) > 0

    def score(self, t: int, c: int, labeling: int, answers: Answers, y: NDArray[Any]) -> None:
        """Score, or keep, what a model answers about the rows of a test."""
        work, test = self._work, self._training_set.tests[t]
        if work.keep_decisions:
            self.decisions[t][c, labeling] = _decide(answers, np.arange(len(test)))
            return
        if work.aggregate is not None:
            answers, y = work.aggregate(answers, test, y)
        rows = np.arange(len(y))
        # of 40 rows scikit-learn's accuracy takes 0.5 ms, more than the fit
        if work.scoring in CLOSED_FORMS:
            self.scores[t, c, labeling] = CLOSED_FORMS[work.scoring](answers, rows, y)
        else:
            self.scores[t, c, labeling] = _score(work.scorer, answers, rows, y)
        if self.has_others(labeling):
            self.others[:, t, c] = [_score(other, answers, rows, y) for other in work.others]

    def fitted(self, seconds: float) -> Fitted:
        return Fitted(self.scores, self.others, seconds, self.decisions)


def _decide(model: Any, X: Any) -> NDArray[np.float64]:
    """Give the decisions of a model of two classes, larger for the second class."""
    if hasattr(model, "decision_function"):
        return np.asarray(model.decision_function(X))
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(X)[:, 1])
    if is_regressor(model):
        return np.asarray(model.predict(X))
    kind = type(getattr(model, "model", model)).__name__
    raise UsageError(f"{kind} has no decision_function or predict_proba. Choose another scoring.")


def _solve(
    work: Work, models: list[Any], labels: NDArray[Any], training_sets: list[TrainingSet]
) -> list[Fitted]:
    """Fit at once what shares matrices, or calls: labelings, penalties, small training sets."""
    kinds = recognise_all(models) or []
    found: list[Any] = [None] * len(training_sets)
    for positions in _batches(work, kinds, training_sets):
        started = time.perf_counter()
        some = [training_sets[i] for i in positions]
        fits: list[dict[int, list[Any]]] = [{} for _ in some]  # by candidate, of all labelings
        works, splits = [work.seen_by(one) for one in some], list[Split]()
        for i, kind in enumerate(kinds):
            if not i or not _share_splits(kind, kinds[i - 1]):
                pairs = zip(works, some, strict=True)
                splits = [_open_split(seen, kind, one) for seen, one in pairs]
            _solve_kind(kind, labels, some, splits, fits)
        n_fits = len(models) * sum(one.n_labelings for one in some)
        seconds = (time.perf_counter() - started) / n_fits
        for i, seen, one, of_set in zip(positions, works, some, fits, strict=True):
            found[i] = _score_all(seen, models, labels, one, of_set).fitted(seconds)
    return found


def _batches(
    work: Work, kinds: list[Candidates], training_sets: list[TrainingSet]
) -> Iterator[NDArray[np.intp]]:
    """Give positions of training sets to fit together: those of outer and of inner folds apart."""
    is_outer = np.array([one.is_outer for one in training_sets])
    for alike in (np.flatnonzero(is_outer), np.flatnonzero(~is_outer)):
        if not len(alike):
            continue
        n_most = 1
        if all(len(kind.penalties) == 1 for kind in kinds):
            first = training_sets[alike[0]]
            split = _open_split(work.seen_by(first), kinds[0], first)
            n_most = count_stacked(split, share_rows=work.sees is None)
        yield from np.array_split(alike, math.ceil(len(alike) / n_most))


def _open_split(work: Work, kind: Candidates, one: TrainingSet) -> Split:
    options: dict[str, Any] = {"fit_intercept": kind.model.fit_intercept, "device": work.device}
    return Split(work.X, one.rows, np.concatenate(one.tests), method=kind.method, **options)


def _share_splits(one: Candidates, other: Candidates) -> bool:
    return (one.method, one.model.fit_intercept) == (other.method, other.model.fit_intercept)


def _solve_kind(
    kind: Candidates,
    labels: NDArray[Any],
    training_sets: list[TrainingSet],
    splits: list[Split],
    fits: list[dict[int, list[Any]]],
) -> None:
    """Fit candidates that differ in their penalty; y itself at a tighter tolerance."""
    if kind.model.kind != "logistic":  # which alone has a tolerance
        for one, split, of_set in zip(training_sets, splits, fits, strict=True):
            found = kind.model.fit(split, labels[: one.n_labelings], kind.penalties)
            of_set.update(zip(kind.positions, found, strict=True))
        return
    precise = replace(kind.model, tol=min(kind.model.tol, _OBSERVED_TOL))
    observed: list[Any] = [[] for _ in splits]
    if len(kind.penalties) > 1:
        observed = [precise.fit(split, labels[:1], kind.penalties) for split in splits]
    else:
        tol = precise.tol if training_sets[0].is_outer else kind.model.tol
        model = replace(kind.model, penalty=kind.penalties[0], tol=tol)
        observed = [[[fit]] for fit in model.fit_each(splits, labels[0])]
    for one, split, of_set, first in zip(training_sets, splits, fits, observed, strict=True):
        others: list[list[Any]] = [[] for _ in kind.penalties]
        if one.n_labelings > 1:
            others = kind.model.fit(split, labels[1 : one.n_labelings], kind.penalties)
        of_all = [of_y + permuted for of_y, permuted in zip(first, others, strict=True)]
        of_set.update(zip(kind.positions, of_all, strict=True))


def _score_all(
    work: Work,
    models: list[Any],
    labels: NDArray[Any],
    training_set: TrainingSet,
    fits: dict[int, list[Any]],
) -> _Rooms:
    """Score what the solver fitted or, where it did not converge, what scikit-learn fits."""
    rooms, tests = _Rooms(work, training_set, len(models)), training_set.tests
    positions = np.split(np.arange(sum(map(len, tests))), np.cumsum([len(test) for test in tests]))
    for c, of_candidate in fits.items():
        for (t, test), (labeling, fit) in product(enumerate(tests), enumerate(of_candidate)):
            answers = Answers(fit, positions[t])
            if not fit.converged_:
                again = fit_one(models[c], work, labels[labeling], training_set.rows)
                answers = Answers(again, work.X[test])
            rooms.score(t, c, labeling, answers, labels[labeling][test])
    return rooms


def fit_one(model: Any, work: Work, y: NDArray[Any], rows: NDArray[np.int64]) -> Any:
    """Fit a clone of a model on some rows, with their groups if it splits by them."""
    model, X, y = clone(model), work.X[rows], y[rows]
    if work.groups is None:
        return model.fit(X, y)
    with config_context(enable_metadata_routing=True):  # hands groups on at any depth
        try:
            return model.fit(X, y, groups=work.groups[rows])
        except (TypeError, ValueError) as error:
            text, kind = str(error).splitlines()[0].rstrip("."), type(model).__name__
            if "number of groups" in text:
                raise InsufficientDataError(
                    f"The cv within {kind} cannot split {len(y)} training rows: {text}. Give it"
                    " fewer folds."
                ) from error
            if "groups" in text:
                raise UsageError(
                    f"Something within {kind} splits by group, and groups do not reach it: {text}."
                    " Give it a cv that needs no groups, or make the search the outermost"
                    " estimator."
                ) from error
            raise


def _score(scorer: Scorer, model: Any, X: Any, y: NDArray[Any]) -> NDArray[np.float64]:
    try:
        score = np.asarray(scorer(model, X, y), np.float64)
    except AttributeError as error:
        if not isinstance(model, Answers):
            raise
        missing = " or ".join(method for method in METHODS if not _can(method)(model))
        raise UsageError(
            f"The scorer asks for what {type(model.model).__name__} does not have: it has no"
            f" {missing}. Choose another scoring."
        ) from error
    if np.isnan(score).any():
        raise InsufficientDataError(
            f"The scorer gives nan for {len(y)} test rows with {len(np.unique(y))} distinct values"
            " of y; expected a number. Choose folds or a scorer for which it is defined."
        )
    return score


def _can(method: str) -> Callable[[Answers], bool]:
    return lambda answers: method in answers.given or hasattr(answers.model, method)


class Answers:
    """A fitted model as a scorer sees it, with row positions in place of X.

    Each method of the model is called at most once, for all rows.

    Parameters
    ----------
    model : fitted estimator
    X : array of shape (n_rows, n_features) or None
        The test rows.

    Attributes
    ----------
    given : dict of str to ndarray
        What each method returned for all rows.
    """

    def __init__(self, model: Any, X: Any) -> None:
        self.model = model
        self.X = X
        self.given: dict[str, Any] = {}
        self.tags = get_tags(model)
        if hasattr(model, "classes_"):
            self.classes_ = model.classes_

    @available_if(_can("predict"))
    def predict(self, rows: NDArray[np.int64]) -> Any:
        return self._answer("predict", rows)

    @available_if(_can("predict_proba"))
    def predict_proba(self, rows: NDArray[np.int64]) -> Any:
        return self._answer("predict_proba", rows)

    @available_if(_can("decision_function"))
    def decision_function(self, rows: NDArray[np.int64]) -> Any:
        return self._answer("decision_function", rows)

    def _answer(self, method: str, rows: NDArray[np.int64]) -> Any:
        if method not in self.given:
            self.given[method] = getattr(self.model, method)(self.X)
        return self.given[method][rows]

    def __sklearn_tags__(self) -> Any:
        return self.tags
