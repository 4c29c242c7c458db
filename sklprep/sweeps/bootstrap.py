"""Resampling test rows with fixed models, for the interval of a score."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from threadpoolctl import threadpool_limits

from sklprep.sweeps.fitting import Answers
from sklprep.sweeps.scoring import Scoring

N_DRAWS = 1_000
"""Draws of an interval: the 25 beyond each bound place it to within a tenth of its width."""


def draw_counts(
    rng: np.random.Generator, groups: NDArray[np.int64], n_draws: int
) -> NDArray[np.int64]:
    """How often each row is drawn, (n_draws, n_rows), where whole groups are drawn."""
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    n_groups = codes.max() + 1
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws)
    return counts[:, codes]


def score_draws(
    scoring: Scoring, model: Any, X: Any, y: NDArray[Any], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Score each draw, a count for every row, of a fixed model; NaN where it has no score."""
    if scoring.name in _CLOSED_FORMS and isinstance(model, Answers):
        return _CLOSED_FORMS[scoring.name](model, X, y, counts)
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
                scores[i] = scoring.scorer(model, X[rows], y[rows])
    return scores


def middle_95(scores: NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the scores that are defined."""
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return np.nan, np.nan
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)


# The usual scores of all draws at once, as scikit-learn defines them with counts for weights. Its
# own functions take 1.5 to 10 s for the 1,000 draws of a fold of 40 rows, sample_weight or not, and
# these 0.2 to 17 ms; a sweep has 5 folds, and without them would wait longer for its interval than
# for its fits.


def _accuracies(model: Answers, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    return counts @ (y == model.predict(X)) / counts.sum(axis=1)


def _mean_recalls(model: Answers, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    hits, true, _ = _count_classes(model.predict(X), y, counts)
    return np.nanmean(np.where(true > 0, hits / np.maximum(true, 1), np.nan), axis=1)


def _mean_f1s(model: Answers, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    hits, true, predicted = _count_classes(model.predict(X), y, counts)
    f1s = 2 * hits / np.maximum(true + predicted, 1)
    return np.nanmean(np.where(true + predicted > 0, f1s, np.nan), axis=1)


def _count_classes(predicted: Any, y: Any, counts: Any) -> tuple[Any, Any, Any]:
    """Hits, true and predicted rows of each class, (n_draws, n_classes)."""
    classes = np.union1d(predicted, y)
    of_y, of_predicted = y[:, np.newaxis] == classes, predicted[:, np.newaxis] == classes
    return counts @ (of_y & of_predicted), counts @ of_y, counts @ of_predicted


def _roc_aucs(model: Answers, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    if "decision_function" in model.given:
        values = model.decision_function(X)
    else:
        values = model.predict_proba(X)[:, 1]
    positive = y == model.classes_[1]
    above, below = values[positive, np.newaxis], values[~positive]
    wins = (above > below) + 0.5 * (above == below)
    pairs = counts[:, positive].sum(axis=1) * counts[:, ~positive].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (counts[:, positive] @ wins * counts[:, ~positive]).sum(axis=1) / pairs


def _r2s(model: Answers, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    y = y.astype(np.float64)
    residual = counts @ (y - model.predict(X)) ** 2
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
