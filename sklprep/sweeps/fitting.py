"""The only room that fits models: one outer fold of one input, or one permutation of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from sklprep.sweeps.folds import Fold
from sklprep.sweeps.workers import RemoteRows

Scorer = Callable[..., Any]

_MadeScorer = type(make_scorer(accuracy_score))
"""What `make_scorer` makes, and so every scorer with a name: it asks a model for predictions, class
probabilities or decision values, and looks at nothing else."""


class FoldResult(NamedTuple):
    """What one outer fold of one input came to.

    `model` is the fitted model, or its `Answers` where these are all that the scorer looks at.
    """

    score: float
    seconds: float
    inner_score: float
    model: Any


def fit_outer_fold(
    model: Any, scorer: Scorer, X: Any, y: NDArray[Any], fold: Fold, inner: list[Fold]
) -> FoldResult:
    """Fit on the training rows, score on the test rows, and average the inner folds' scores."""
    X = X.read() if isinstance(X, RemoteRows) else X
    train, test = fold
    started = time.perf_counter()
    fitted = clone(model).fit(X[train], y[train])
    seconds = time.perf_counter() - started
    if isinstance(scorer, _MadeScorer) and hasattr(fitted, "__sklearn_tags__"):
        fitted = Answers(fitted, X[test])
        score = float(scorer(fitted, np.arange(len(test)), y[test]))
        fitted.forget_model()
    else:
        score = float(scorer(fitted, X[test], y[test]))
    inner_score = fit_folds(model, scorer, X, y, inner) if inner else np.nan
    return FoldResult(score, seconds, inner_score, fitted)


def fit_folds(model: Any, scorer: Scorer, X: Any, y: NDArray[Any], folds: list[Fold]) -> float:
    """Mean score over folds."""
    X = X.read() if isinstance(X, RemoteRows) else X
    scores = [
        scorer(clone(model).fit(X[train], y[train]), X[test], y[test]) for train, test in folds
    ]
    return float(np.mean(scores))


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
