"""What both selectors check in their input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import validate_data

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.arrays import read_tensor
from sklprep.formats.rows import Siblings
from sklprep.transformers.worker_warnings import OnceWarnings

torn_groups = OnceWarnings()
"""One for each source, by its key: all folds would warn of the same groups."""


class Selector(TransformerMixin, BaseEstimator):
    """Checks that both selectors share."""

    _siblings: Siblings | None = None

    def _see_rows(self, X: Any) -> None:
        self.pooling_ = pooling_of(X)
        self.__dict__.pop("_siblings", None)
        if isinstance(X, ActivationSet) and (siblings := X.rows.find_siblings()) is not None:
            self._siblings = siblings

    def _check_rows(self, X: Any) -> None:
        pooling = pooling_of(X)
        if None not in (pooling, self.pooling_) and pooling != self.pooling_:
            raise ValueError(
                f"X has rows of pooling {pooling!r}, but {type(self).__name__} was fitted on"
                f" {self.pooling_!r}. Use load_activations(..., pooling={self.pooling_!r})."
            )
        siblings = self._siblings
        if siblings is None or not isinstance(X, ActivationSet):
            return
        if not torn_groups.has_shown(siblings.key) and X.rows.holds_any(siblings):
            torn_groups.warn(
                siblings.key,
                f"X has rows of groups of which {type(self).__name__} was fitted on other rows,"
                " perhaps tokens of one sentence: scored as test rows, they have siblings in"
                " training, which raises scores. Split by group, as in cross_val_score(pipe, acts,"
                " y, groups=acts.groups, cv=GroupKFold(5)).",
                stacklevel=3,
            )

    def __getstate__(self) -> Any:
        if not hasattr(self, "pooling_"):  # it may be on its way to a worker that fits it
            torn_groups.listen()
        return super().__getstate__()

    def _forget_columns(self, n_features: int) -> None:
        self.n_features_in_ = n_features
        if hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def _check_input_features(self, input_features: Any) -> None:
        if input_features is None:
            return
        names = np.asarray(input_features, dtype=object)
        seen = getattr(self, "feature_names_in_", None)
        if seen is not None and not np.array_equal(names, seen):
            raise ValueError("input_features is not equal to feature_names_in_")
        if len(names) != self.n_features_in_:
            raise ValueError(
                "input_features should have length equal to number of features"
                f" ({self.n_features_in_}), got {len(names)}"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def pooling_of(X: Any) -> str | None:
    return X.pooling if isinstance(X, ActivationSet) and X.rows.source.is_pooled else None


def validate_layers(
    estimator: Any, X: Any, *, reset: bool, accept_sparse: Any = False
) -> NDArray[Any]:
    """Validate an array of (n_samples, n_layers, width), or of one layer, as scikit-learn does."""
    X = validate_data(
        estimator,
        read_tensor(X, "X"),
        reset=reset,
        allow_nd=True,
        dtype=[np.float32, np.float64],
        accept_sparse=accept_sparse,
    )
    if X.ndim > 3:
        raise ValueError(
            f"Found array with dim {X.ndim}, while dim <= 3 is required by"
            f" {type(estimator).__name__}: (n_samples, n_layers, width)."
        )
    return X
