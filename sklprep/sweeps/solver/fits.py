"""Fitted models that answer for the test rows of their split, as scikit-learn's scorers ask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin


class _Fit(BaseEstimator):
    """What all fits have.

    Attributes
    ----------
    coef_, intercept_ : ndarray or None
        As scikit-learn's estimator has them, on normalized columns; None unless asked for.
    n_iter_ : int
        Steps of Newton's method; 0 for ridge models, which are solved directly.
    converged_ : bool
        If not, the decisions must not be used.
    """

    coef_: NDArray[np.float64] | None = None
    intercept_: Any = None
    n_iter_: int = 0
    converged_: bool = True


class ClassifierFit(ClassifierMixin, _Fit):
    """A classifier that takes positions among the test rows as X.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
    decisions : ndarray of shape (n_test,) for two classes, otherwise (n_test, n_classes)
    """

    def __init__(self, classes: NDArray[Any], decisions: NDArray[np.float64]) -> None:
        self.classes = classes
        self.decisions = decisions
        self.classes_ = classes

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Give the decisions of test rows at positions X."""
        return self.decisions[np.asarray(X).reshape(-1)]

    def predict(self, X: Any) -> NDArray[Any]:
        """Give the classes of test rows at positions X."""
        decisions = self.decision_function(X)
        codes = decisions > 0 if decisions.ndim == 1 else decisions.argmax(axis=1)
        return self.classes[codes.astype(np.intp)]


class LogisticFit(ClassifierFit):
    """A logistic regression that takes positions among the test rows as X."""

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Give the probabilities of test rows at positions X, (n_rows, n_classes)."""
        decisions = self.decision_function(X)
        if decisions.ndim == 1:
            return np.column_stack([expit(-decisions), expit(decisions)])
        return softmax(decisions, axis=1)

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Give the logarithms of the probabilities."""
        return np.log(self.predict_proba(X))


class RegressorFit(RegressorMixin, _Fit):
    """A regressor that takes positions among the test rows as X.

    Parameters
    ----------
    predictions : ndarray of shape (n_test,)
    """

    def __init__(self, predictions: NDArray[np.float64]) -> None:
        self.predictions = predictions

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Give the predictions of test rows at positions X."""
        return self.predictions[np.asarray(X).reshape(-1)]
