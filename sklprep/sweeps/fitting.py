"""The only room that fits models: candidates and labelings of one input on some training sets."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.closed_forms import CLOSED_FORMS
from sklprep.sweeps.solver import Split, recognise_all
from sklprep.sweeps.workers import RemoteRows

Scorer = Callable[..., Any]

METHODS = ("predict", "predict_proba", "decision_function")
"""All that a made scorer can ask a model for."""

_OBSERVED_TOL = 1e-3
"""The solver's tolerance for what is reported: with it predictions and curves of real activations
were those of the optimum. Permuted labels have its default, at which 0.1 % of predictions differ
from the optimum, in either direction, for half the time; they are reported in the mean only."""

_LEAST_DISTINCT = 0.9
"""Share of rows that must be distinct for the solver. Of 200 rows with 10 to 52 distinct ones, as
final tokens before the first layer are, its decisions were off by up to 0.1 of the largest."""

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
        Only where the model splits by them.
    solve : bool
        Whether the models are those that the solver knows, and it is wanted.
    device : str or None
        Where the solver computes.
    """

    model: Any
    candidates: list[dict[str, Any]]
    scorer: Scorer
    scoring: str
    X: Any
    groups: NDArray[np.int64] | None = None
    solve: bool = False
    device: str | None = None


class TrainingSet(NamedTuple):
    """Rows that models are fitted on, and the sets of rows that each is scored on.

    Attributes
    ----------
    n_labelings : int
        How many labelings, from the first, are fitted.
    keep : bool
        Whether the models of the first labeling are kept, as far as its scorer sees them.
    """

    rows: NDArray[np.int64]
    tests: list[NDArray[np.int64]]
    n_labelings: int
    keep: bool = False


class Fitted(NamedTuple):
    """What a training set came to.

    Attributes
    ----------
    scores : ndarray of shape (n_tests, n_candidates, n_labelings)
    seconds : float
        Of fitting, for one model: those that are fitted together share it equally.
    models : list
        For each candidate that of the first labeling, or its `Answers` where these are all that
        the scorer looks at. Empty unless kept.
    """

    scores: NDArray[np.float64]
    seconds: float
    models: list[Any]


def is_made_scorer(scorer: Scorer) -> bool:
    """Whether `make_scorer` made it, as every scorer with a name.

    Then it asks a model for predictions, class probabilities or decision values, and looks at
    nothing else.
    """
    return isinstance(scorer, _MadeScorer)


def fit_training_sets(
    work: Work, labels: NDArray[Any], training_sets: list[TrainingSet]
) -> list[Fitted]:
    """Fit every candidate on every labeling of some training sets, and score it.

    Parameters
    ----------
    work : Work
    labels : ndarray of shape (n_labelings, n_samples)
    training_sets : list of TrainingSet
    """
    work = work._replace(X=work.X.read()) if isinstance(work.X, RemoteRows) else work
    fit = _solve if work.solve and not _repeats_itself(work.X) else _fit
    return [fit(work, labels, one) for one in training_sets]


def _repeats_itself(X: Any) -> bool:
    """Whether too few rows are distinct for the solver."""
    return len({row.tobytes() for row in np.asarray(X)}) < _LEAST_DISTINCT * len(X)


def make_models(model: Any, candidates: list[dict[str, Any]]) -> list[Any]:
    """Give an unfitted model for each candidate."""
    return [clone(model).set_params(**parameters) for parameters in candidates]


def _fit(work: Work, labels: NDArray[Any], training_set: TrainingSet) -> Fitted:
    """Fit one by one, as scikit-learn does."""
    train, tests, n_labelings, keep = training_set
    models = make_models(work.model, work.candidates)
    scores = np.empty((len(tests), len(models), n_labelings))
    kept, seconds = [], 0.0
    for c, labeling in np.ndindex(len(models), n_labelings):
        started = time.perf_counter()
        fitted = _fit_one(models[c], work, labels[labeling], train)
        seconds += time.perf_counter() - started
        for t, test in enumerate(tests):
            seen, X = fitted, work.X[test]
            if is_made_scorer(work.scorer) and hasattr(fitted, "__sklearn_tags__"):
                seen, X = Answers(fitted, X), np.arange(len(test))
            scores[t, c, labeling] = _score(work.scorer, seen, X, labels[labeling][test])
            if keep and t == labeling == 0:
                kept.append(seen.forget_model() if isinstance(seen, Answers) else seen)
    return Fitted(scores, seconds / scores[0].size, kept)


def _solve(work: Work, labels: NDArray[Any], training_set: TrainingSet) -> Fitted:
    """Fit all at once; by scikit-learn, which takes longer, what the solver could not."""
    train, tests, n_labelings, keep = training_set
    scores = np.empty((len(tests), len(work.candidates), n_labelings))
    positions = np.split(np.arange(sum(map(len, tests))), np.cumsum([len(test) for test in tests]))
    kept: list[Any] = [None] * len(work.candidates)
    seconds, splits = 0.0, {}
    models = make_models(work.model, work.candidates)
    for method, model, candidates, penalties in recognise_all(models) or []:
        started = time.perf_counter()
        key = method, model.fit_intercept
        if key not in splits:
            options: dict[str, Any] = {"fit_intercept": model.fit_intercept, "device": work.device}
            splits = {key: Split(work.X, train, np.concatenate(tests), method=method, **options)}
        precise = replace(model, tol=min(model.tol, _OBSERVED_TOL))
        observed = precise.fit(splits[key], labels[:1], penalties)
        fits = observed
        if n_labelings > 1:
            permuted = model.fit(splits[key], labels[1:n_labelings], penalties)
            fits = [one + others for one, others in zip(observed, permuted, strict=True)]
        seconds += time.perf_counter() - started
        for c, of_penalty in zip(candidates, fits, strict=True):
            for (t, test), (labeling, fit) in product(enumerate(tests), enumerate(of_penalty)):
                answers, y = Answers(fit, positions[t]), labels[labeling][test]
                if not fit.converged_:
                    again = _fit_one(models[c], work, labels[labeling], train)
                    answers = Answers(again, work.X[test])
                scores[t, c, labeling] = _score_answers(work, answers, y, permuted=labeling > 0)
                if keep and t == labeling == 0:
                    kept[c] = answers.forget_model()
    return Fitted(scores, seconds / scores[0].size, kept if keep else [])


def _score_answers(work: Work, answers: Answers, y: NDArray[Any], *, permuted: bool) -> float:
    """Score all test rows; permuted labels by a closed form, where there is one.

    Of 40 rows scikit-learn's accuracy takes 0.5 ms, more than the fit.
    """
    rows = np.arange(len(y))
    if permuted and work.scoring in CLOSED_FORMS:
        once = np.ones((1, len(y)), np.int64)
        return float(CLOSED_FORMS[work.scoring](answers, rows, y, once)[0])
    return _score(work.scorer, answers, rows, y)


def _fit_one(model: Any, work: Work, y: NDArray[Any], rows: NDArray[np.int64]) -> Any:
    model, X, y = clone(model), work.X[rows], y[rows]
    if work.groups is None:
        return model.fit(X, y)
    with config_context(enable_metadata_routing=True):  # hands groups on to any depth
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
                    f"Something within {kind} splits by group, and groups do not get there: {text}."
                    " Give it a cv that needs no groups, or make the search the outermost"
                    " estimator."
                ) from error
            raise


def _score(scorer: Scorer, model: Any, X: Any, y: NDArray[Any]) -> float:
    try:
        score = float(scorer(model, X, y))
    except AttributeError as error:
        if not isinstance(model, Answers):
            raise
        missing = " or ".join(method for method in METHODS if not _can(method)(model))
        raise UsageError(
            f"The scorer asks for what {type(model.model).__name__} does not have: it has no"
            f" {missing}. Choose another scoring."
        ) from error
    if np.isnan(score):
        raise InsufficientDataError(
            f"The scorer gives nan for {len(y)} test rows with {len(np.unique(y))} distinct values"
            " of y; expected a number. Choose folds or a scorer for which it is defined."
        )
    return score


def _can(method: str) -> Callable[[Answers], bool]:
    return lambda answers: method in answers.given or hasattr(answers.model, method)


class Answers:
    """A fitted model as far as a scorer sees it, with row positions for X.

    What it is asked for it asks of the model once, for all rows. So a scorer can score any resample
    of the rows for the price of an index, and what comes back from a worker is a few numbers.

    Parameters
    ----------
    model : fitted estimator or None
        None once nothing new will be asked.
    X : the test rows, or None

    Attributes
    ----------
    given : dict of str to ndarray
        What each method gave for all rows.
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

    def forget_model(self) -> Self:
        """Keep the answers alone: they are small enough to be sent about."""
        self.model = self.X = None
        return self

    def __sklearn_tags__(self) -> Any:
        return self.tags
