"""The usual scores of many weightings of the test rows at once, as scikit-learn defines them.

Its own functions take 1.5 to 10 s for the 1,000 draws of a fold of 40 rows, `sample_weight` or
not, and these 0.2 to 17 ms; a sweep has 5 folds, and without them would wait longer for its
interval than for its fits.

Each takes what a model answers about test rows, the rows' positions among them, their y, and how
often each row counts, (n_weightings, n_rows); and gives a score for each weighting.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def _accuracies(model: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    return counts @ (y == model.predict(X)) / counts.sum(axis=1)


def _mean_recalls(model: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    hits, true, _ = _count_classes(model.predict(X), y, counts)
    return np.nanmean(np.where(true > 0, hits / np.maximum(true, 1), np.nan), axis=1)


def _mean_f1s(model: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    hits, true, predicted = _count_classes(model.predict(X), y, counts)
    f1s = 2 * hits / np.maximum(true + predicted, 1)
    return np.nanmean(np.where(true + predicted > 0, f1s, np.nan), axis=1)


def _count_classes(predicted: Any, y: Any, counts: Any) -> tuple[Any, Any, Any]:
    """Hits, true and predicted rows of each class, (n_draws, n_classes)."""
    classes = np.union1d(predicted, y)
    of_y, of_predicted = y[:, np.newaxis] == classes, predicted[:, np.newaxis] == classes
    return counts @ (of_y & of_predicted), counts @ of_y, counts @ of_predicted


def _roc_aucs(model: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    if hasattr(model, "decision_function"):
        values = model.decision_function(X)
    else:
        values = model.predict_proba(X)[:, 1]
    positive = y == model.classes_[1]
    above, below = values[positive, np.newaxis], values[~positive]
    wins = (above > below) + 0.5 * (above == below)
    pairs = counts[:, positive].sum(axis=1) * counts[:, ~positive].sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (counts[:, positive] @ wins * counts[:, ~positive]).sum(axis=1) / pairs


def _r2s(model: Any, X: Any, y: Any, counts: Any) -> NDArray[np.float64]:
    y = y.astype(np.float64)
    residual = counts @ (y - model.predict(X)) ** 2
    means = counts @ y / counts.sum(axis=1)
    total = (counts * (y - means[:, np.newaxis]) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(total > 0, residual / total, (residual > 0).astype(float))
    return 1 - ratio


CLOSED_FORMS = {
    "accuracy": _accuracies,
    "balanced_accuracy": _mean_recalls,
    "f1_macro": _mean_f1s,
    "roc_auc": _roc_aucs,
    "r2": _r2s,
}
