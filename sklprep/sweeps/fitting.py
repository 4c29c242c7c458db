"""The only room that fits models: one outer fold of one input, or one permutation of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.folds import Fold
from sklprep.sweeps.workers import RemoteRows

Scorer = Callable[..., Any]

METHODS = ("predict", "predict_proba", "decision_function")
"""All that a made scorer can ask a model for."""

_MadeScorer = type(make_scorer(accuracy_score))


class Work(NamedTuple):
    """What is fitted and scored on one input; `groups` only where the model splits by them."""

    model: Any
    scorer: Scorer
    X: Any
    y: NDArray[Any]
    groups: NDArray[np.int64] | None = None


class FoldResult(NamedTuple):
    """What one outer fold of one input came to.

    `model` is the fitted model, or its `Answers` where these are all that the scorer looks at.
    """

    score: float
    seconds: float
    inner_score: float
    model: Any


def is_made_scorer(scorer: Scorer) -> bool:
    """Whether `make_scorer` made it, as every scorer with a name.

    Then it asks a model for predictions, class probabilities or decision values, and looks at
    nothing else.
    """
    return isinstance(scorer, _MadeScorer)


def fit_outer_fold(work: Work, fold: Fold, inner: list[Fold]) -> FoldResult:
    """Fit on the training rows, score on the test rows, and average the inner folds' scores."""
    work = _read(work)
    train, test = fold
    started = time.perf_counter()
    fitted = _fit(work, train)
    seconds = time.perf_counter() - started
    X, y = work.X[test], work.y[test]
    if is_made_scorer(work.scorer) and hasattr(fitted, "__sklearn_tags__"):
        fitted = Answers(fitted, X)
        score = _score(work.scorer, fitted, np.arange(len(test)), y)
        fitted.forget_model()
    else:
        score = _score(work.scorer, fitted, X, y)
    return FoldResult(score, seconds, fit_folds(work, inner) if inner else np.nan, fitted)


def fit_folds(work: Work, folds: list[Fold]) -> float:
    """Mean score over folds."""
    work = _read(work)
    scores = [
        _score(work.scorer, _fit(work, train), work.X[test], work.y[test]) for train, test in folds
    ]
    return float(np.mean(scores))


def _read(work: Work) -> Work:
    return work._replace(X=work.X.read()) if isinstance(work.X, RemoteRows) else work


def _fit(work: Work, rows: NDArray[np.int64]) -> Any:
    model, X, y = clone(work.model), work.X[rows], work.y[rows]
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

    def forget_model(self) -> None:
        """Keep the answers alone: they are small enough to be sent about."""
        self.model = self.X = None

    def __sklearn_tags__(self) -> Any:
        return self.tags
