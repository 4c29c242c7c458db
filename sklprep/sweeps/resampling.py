"""Resampling test rows with fixed models, for the interval of a score."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.utils import get_tags
from threadpoolctl import threadpool_limits

N_DRAWS = 1_000


class Answers:
    """What a fitted model says about its test rows, asked for by row position.

    The first call of a method asks the model; `forget` drops the model and the rows. So a scorer
    can score any resample of the rows for the price of an index.
    """

    def __init__(self, model: Any, X: Any) -> None:
        self._model, self._X, self._tags = model, X, get_tags(model)
        self._said: dict[str, Any] = {}
        if hasattr(model, "classes_"):
            self.classes_ = model.classes_

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._said:
            self._said[name] = getattr(self._model, name)(self._X)

        def answer(rows: NDArray[np.int64]) -> Any:
            return self._said[name][rows]

        answer.__name__ = name  # scorers look at it
        return answer

    def knows(self, name: str) -> bool:
        return name in self._said

    def forget(self) -> None:
        self._model = self._X = None

    def __sklearn_tags__(self) -> Any:
        return self._tags


def score_resamples(
    scorer: Callable[..., Any],
    scoring: str,
    judge: Any,
    X: NDArray[Any],
    y: NDArray[Any],
    counts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Score each draw, a count for every row, of a fixed model; NaN where it has no score."""
    if scoring in _CLOSED_FORMS and isinstance(judge, Answers):
        return _CLOSED_FORMS[scoring](judge, X, y, counts)
    scores = np.full(len(counts), np.nan)
    with (
        warnings.catch_warnings(),
        config_context(assume_finite=True, skip_parameter_validation=True),
        threadpool_limits(1, user_api="blas"),
    ):
        warnings.simplefilter("ignore")
        for i, count in enumerate(counts):
            rows = np.repeat(np.arange(len(y)), count)
            with suppress(ValueError):  # a class that was not drawn, for some scorers
                scores[i] = scorer(judge, X[rows], y[rows])
    return scores


# The usual scores of all draws at once, as scikit-learn defines them with counts for weights;
# one by one they would take seconds.


def _accuracies(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    return counts @ (y == judge.predict(X)) / counts.sum(axis=1)


def _mean_recalls(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    hits, true, _ = _count_classes(judge.predict(X), y, counts)
    return np.nanmean(np.where(true > 0, hits / np.maximum(true, 1), np.nan), axis=1)


def _mean_f1s(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    hits, true, said = _count_classes(judge.predict(X), y, counts)
    f1s = 2 * hits / np.maximum(true + said, 1)
    return np.nanmean(np.where(true + said > 0, f1s, np.nan), axis=1)


def _count_classes(predicted: Any, y: Any, counts: Any) -> tuple[Any, Any, Any]:
    """Hits, true and predicted rows of each class, (n_draws, n_classes)."""
    classes = np.union1d(predicted, y)
    true, said = y[:, np.newaxis] == classes, predicted[:, np.newaxis] == classes
    return counts @ (true & said), counts @ true, counts @ said


def _roc_aucs(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    said = judge.decision_function(X) if judge.knows("decision_function") else None
    said = judge.predict_proba(X)[:, 1] if said is None else said
    positive = y == judge.classes_[1]
    above, below = said[positive, np.newaxis], said[~positive]
    wins = (above > below) + 0.5 * (above == below)
    pairs = counts[:, positive].sum(axis=1) * counts[:, ~positive].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (counts[:, positive] @ wins * counts[:, ~positive]).sum(axis=1) / pairs


def _r2s(judge: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    y = y.astype(np.float64)
    residual = counts @ (y - judge.predict(X)) ** 2
    means = counts @ y / counts.sum(axis=1)
    total = (counts * (y - means[:, np.newaxis]) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(total > 0, residual / total, (residual > 0).astype(float))
    return 1 - ratio


_CLOSED_FORMS = {
    "accuracy": _accuracies,
    "balanced_accuracy": _mean_recalls,
    "f1_macro": _mean_f1s,
    "roc_auc": _roc_aucs,
    "r2": _r2s,
}
