"""Fast versions of the usual scores, as scikit-learn defines them.

On 40 rows, scikit-learn's accuracy takes 0.5 ms, more than a fit of the solver; these take 0.01 to
0.05 ms, and a permutation control scores tens of thousands of models. Each takes a model's answers
about test rows, the positions of rows among these, and their y.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def _accuracy(model: Any, X: Any, y: NDArray[Any]) -> float:
    return float(np.mean(y == model.predict(X)))


def _balanced_accuracy(model: Any, X: Any, y: NDArray[Any]) -> float:
    hits, true, _ = _count_classes(model.predict(X), y)
    return float(np.mean(hits[true > 0] / true[true > 0]))


def _f1_macro(model: Any, X: Any, y: NDArray[Any]) -> float:
    hits, true, predicted = _count_classes(model.predict(X), y)
    return float(np.mean(2 * hits / (true + predicted)))


def _count_classes(predicted: NDArray[Any], y: NDArray[Any]) -> tuple[Any, Any, Any]:
    """Count hits, true and predicted rows of each class that occurs in either."""
    classes = np.union1d(predicted, y)
    of_y, of_predicted = y[:, np.newaxis] == classes, predicted[:, np.newaxis] == classes
    return (of_y & of_predicted).sum(axis=0), of_y.sum(axis=0), of_predicted.sum(axis=0)


def _roc_auc(model: Any, X: Any, y: NDArray[Any]) -> float:
    """Mann and Whitney's U, from the ranks of the positive rows."""
    if hasattr(model, "decision_function"):
        values = model.decision_function(X)
    else:
        values = model.predict_proba(X)[:, 1]
    positive = y == model.classes_[1]
    n = int(positive.sum())
    wins = rankdata(values)[positive].sum() - n * (n + 1) / 2
    return float(wins / (n * (len(y) - n)))


def _r2(model: Any, X: Any, y: NDArray[Any]) -> float:
    y = y.astype(np.float64)
    residual, total = ((y - model.predict(X)) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return float(1 - residual / total) if total > 0 else float(residual == 0)


CLOSED_FORMS: dict[str, Callable[[Any, Any, NDArray[Any]], float]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced_accuracy,
    "f1_macro": _f1_macro,
    "roc_auc": _roc_auc,
    "r2": _r2,
}
