"""Confounds, which may predict the target themselves, and activations without their part."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    LogisticRegressionCV,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    RidgeCV,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC, LinearSVR

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.values import read_values
from sklprep.exceptions import SklprepWarning, UsageError

_LINEAR = (
    *(ElasticNet, Lasso, LinearRegression, LogisticRegression, LogisticRegressionCV),
    *(Ridge, RidgeClassifier, RidgeClassifierCV, RidgeCV, SGDClassifier, SGDRegressor),
    *(LinearDiscriminantAnalysis, LinearSVC, LinearSVR, NearestCentroid),
)

_FEW_VALUES = 20
"""Whole numbers with at most this many distinct values may be codes of a category."""

LENGTH, POSITION = "length", "position"
NAMED = (LENGTH, POSITION)
"""Confounds that are computed from the set itself."""


def read_confounds(confounds: Any, acts: Any) -> tuple[str, NDArray[np.float64]]:
    """Read confounds: their names, and their values, float64 of shape (n_samples, n_numbers).

    Parameters
    ----------
    confounds : str, list of str, array-like, DataFrame or mapping of str to array-like
        ``"length"``: characters and words of each sentence; ``"position"``: that of the sentence in
        its folder; or values of shape (n_samples,) or (n_samples, k). Text is a category: each of
        its values becomes a column of 0 and 1.
    acts : ActivationSet or ndarray

    Raises
    ------
    UsageError
        If there are none, they have other rows than `acts`, or a set without sentences is asked
        for their length.

    Examples
    --------
    >>> import numpy as np
    >>> known = {"source": ["a", "b", "a"], "size": [1.0, 2, 3]}
    >>> names, values = read_confounds(known, np.zeros(3))
    >>> names, values.tolist()
    ('source, size', [[1.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 0.0, 3.0]])
    """
    given: dict[str, Any]
    if isinstance(confounds, str):
        given = {confounds: None}
    elif isinstance(confounds, Mapping):
        given = dict(confounds)
    elif isinstance(confounds, list | tuple) and all(
        isinstance(one, str) and one in NAMED for one in confounds
    ):
        given = dict.fromkeys(confounds)
    elif hasattr(confounds, "columns"):
        given = {str(name): confounds[name] for name in confounds.columns}
    else:
        given = {"confounds": confounds}
    columns = [
        _read_named(name, acts) if values is None else _read_given(name, values, len(acts))
        for name, values in given.items()
    ]
    if not columns:
        raise UsageError("confounds has no columns; expected at least one.")
    return ", ".join(given), np.column_stack(columns)


def _read_named(name: str, acts: Any) -> NDArray[np.float64]:
    if name not in NAMED:
        raise UsageError(
            f"confounds={name!r} is not the name of a confound; expected 'length', 'position' or"
            " one value per row."
        )
    if name == POSITION:
        is_set = isinstance(acts, ActivationSet)
        positions = acts.sentence_indices if is_set else np.arange(len(acts))
        return np.asarray(positions, np.float64)[:, np.newaxis]
    sentences = acts.sentences if isinstance(acts, ActivationSet) else None
    if sentences is None:
        raise UsageError("confounds='length' needs sentences, which acts does not have.")
    return measure_sentences(sentences)


def require_linear(models: Iterable[Any]) -> None:
    """Refuse a model that is not linear: it can find the confounds again in the residuals.

    Residuals of columns with few values encode the confounds: from pure noise, a tree scored 0.89.
    """
    for model in models:
        last = model[-1] if isinstance(model, Pipeline) else model
        if not isinstance(last, _LINEAR):
            raise UsageError(
                f"confounds need a linear model, and {type(last).__name__} may find in residuals"
                " what was taken out of them. Choose a linear model, or leave confounds out."
            )


def measure_sentences(sentences: NDArray[np.str_]) -> NDArray[np.float64]:
    """Count the characters and the words of each sentence: (n_sentences, 2)."""
    return np.array([[len(text), len(text.split())] for text in sentences.tolist()], np.float64)


def _read_given(name: str, values: Any, n: int) -> NDArray[np.float64]:
    values = read_values(values, "confounds")
    if values.shape[:1] != (n,) or values.ndim > 2:
        raise UsageError(
            f"confounds {name!r} must have shape ({n},) or ({n}, k), one row per row of acts, got"
            f" {values.shape}."
        )
    if values.dtype.kind == "U":
        columns = values.reshape(n, -1).T
        return np.column_stack([column[:, np.newaxis] == np.unique(column) for column in columns])
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise UsageError(f"confounds {name!r} must be finite numbers or text.")
    n_values = len(np.unique(values))
    if values.dtype.kind in "iu" and 2 < n_values <= _FEW_VALUES:
        warnings.warn(
            f"confounds {name!r} has {n_values} values and is taken as a number. Give text if it is"
            " a category.",
            SklprepWarning,
            stacklevel=4,
        )
    return values.reshape(n, -1).astype(np.float64)


def residualize(
    X: Any, train: NDArray[np.int64], confounds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Subtract from each column of X what confounds predict of it by linear least squares.

    Parameters
    ----------
    X : ndarray or sparse array of shape (n_samples, n_features)
    train : ndarray of int
        Rows that the prediction is fitted on.
    confounds : ndarray of shape (n_samples, n_numbers)

    Returns
    -------
    ndarray of shape (n_samples, n_features), float64

    Examples
    --------
    >>> import numpy as np
    >>> length = np.array([[1.0], [2.0], [3.0], [4.0]])
    >>> np.abs(residualize(5 * length, np.array([0, 1, 2]), length)).max() < 1e-12
    np.True_
    """
    center, spread = confounds[train].mean(axis=0), confounds[train].std(axis=0)
    known = (confounds - center) / np.where(spread > 0, spread, 1)
    design = np.column_stack([np.ones(len(known)), known])
    X = np.asarray(X.toarray() if issparse(X) else X, np.float64)
    coefficients = np.linalg.lstsq(design[train], X[train], rcond=None)[0]
    return X - design @ coefficients
