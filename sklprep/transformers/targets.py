"""Target extractors: from an `ActivationSet` (or an array) to y."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.values import read_values
from sklprep.exceptions import DataError, SklprepWarning
from sklprep.formats.layers import require_layers
from sklprep.formats.members import Members
from sklprep.transformers.sae_selector import check_features, refuse_average_l0
from sklprep.transformers.selection import validate_layers

ENOUGH_ACTIVE = 10
"""Fewest active rows with which a feature is worth predicting: ten give each of five folds two,
while with two to four most test folds are constant."""


class FeatureTargetExtractor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Extract the activation of one SAE feature, or of several, as the regression target y.

    Parameters
    ----------
    layer : int
        Layer of the SAE.
    feature : int or list of int
        Index of the feature within the SAE; for a list, y has one column per feature.
    average_l0 : float or None, default=None
        Which SAE to use, where the layer has several.

    Attributes
    ----------
    average_l0_ : int, float or None
        average_l0 of the SAE that is used; None for arrays.
    n_features_in_ : int
        Number of SAE configs of the input; of layers for 3-D, of columns for 2-D input.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only for 2-D input whose columns are named by strings.
    n_sae_features_ : int
        Number of features of an SAE.

    Raises
    ------
    LayerNotFoundError, FeatureNotFoundError
        If the data has no such layer, feature or average_l0, or the layer has several SAEs and
        `average_l0` is None.
    TypeError
        If `layer` or `feature` is not a whole number.
    ValueError
        If the input does not fit what was seen in `fit`, or features are empty or repeated.

    Warns
    -----
    SklprepWarning
        In `fit_transform`, for each of several features that is active in fewer than 10 rows, as
        scikit-learn scores a constant column without a warning.

    Examples
    --------
    >>> from sklprep import FeatureTargetExtractor, make_activations
    >>> acts = make_activations(20, n_layers=4, d_model=8, n_features=32, random_state=0)
    >>> y = FeatureTargetExtractor(layer=2, feature=5).fit_transform(acts)
    >>> y.shape, y.dtype
    ((20,), dtype('float32'))
    >>> FeatureTargetExtractor(layer=2, feature=[1, 5]).fit_transform(acts).shape
    (20, 2)
    """

    __module__ = "sklprep"

    def __init__(self, layer: int, feature: Any, average_l0: float | None = None) -> None:
        self.layer = layer
        self.feature = feature
        self.average_l0 = average_l0

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check that the data has the feature.

        Parameters
        ----------
        X : ActivationSet of shape (n_samples,), or array-like of shape \
(n_samples, n_layers, n_features)
            An array's layers are numbered from 0; a 2-D array is layer 0.
        y : ignored

        Returns
        -------
        FeatureTargetExtractor
        """
        if not isinstance(self.layer, Integral) or isinstance(self.layer, bool):
            raise TypeError(f"layer must be an instance of int, got {self.layer!r}.")
        if isinstance(X, ActivationSet):
            self.n_features_in_ = len(X.sae_layers)
            if hasattr(self, "feature_names_in_"):
                del self.feature_names_in_
            config = X.rows.find_config(self.layer, self.average_l0)
            self.average_l0_: Any = X.average_l0s[config].item()
            check_features(self.feature, X.n_sae_features, name="feature")
            self.n_sae_features_: int = X.n_sae_features
        else:
            X = validate_layers(self, X, reset=True)
            self.average_l0_ = None
            self._select(X)
            self.n_sae_features_ = X.shape[-1]
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Extract the activation of the feature, or of each of them.

        Parameters
        ----------
        X : ActivationSet or array-like, as in `fit`

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_targets) for a list
            float32; float64 for a float64 array.
        """
        check_is_fitted(self)
        if isinstance(X, ActivationSet):
            n_features = X.n_sae_features
            y = X.feature(self.layer, self.feature, self.average_l0)
        else:
            X = validate_layers(self, X, reset=False)
            n_features = X.shape[-1]
            y = self._select(X)
        if n_features != self.n_sae_features_:
            raise ValueError(
                f"X has SAEs of {n_features} features, but FeatureTargetExtractor was fitted on"
                f" {self.n_sae_features_}. Use activations of the same SAE."
            )
        return y

    def fit_transform(self, X: Any, y: Any = None) -> NDArray[Any]:
        """Extract from the data that it is fitted on; see `fit` and `transform`.

        Parameters
        ----------
        X : ActivationSet or array-like, as in `fit`
        y : ignored

        Returns
        -------
        ndarray of shape (n_samples,), or (n_samples, n_targets) for a list
        """
        values = self.fit(X).transform(X)
        for feature, column in zip(self.feature, values.T, strict=True) if values.ndim > 1 else ():
            if message := describe_rarity(self.layer, feature, column):
                warnings.warn(message, SklprepWarning, stacklevel=2)
        return values

    def find_members(self, acts: ActivationSet) -> Members:
        """Name the members of a set that the extractor reads."""
        config = acts.rows.find_config(self.layer, self.average_l0)
        features = np.atleast_1d(self.feature).tolist()
        return Members(features=tuple((config, feature) for feature in features))

    def _select(self, X: NDArray[Any]) -> NDArray[Any]:
        refuse_average_l0(self.average_l0)
        X = X[:, np.newaxis] if X.ndim == 2 else X
        require_layers([self.layer], range(X.shape[1]))
        features = check_features(self.feature, X.shape[2], name="feature")
        return X[:, self.layer, features].copy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def describe_rarity(layer: int, feature: int, values: NDArray[Any]) -> str:
    """Say in how many rows a feature is active if they are too few; otherwise return ""."""
    active = int(np.count_nonzero(values))
    if active >= ENOUGH_ACTIVE:
        return ""
    return (
        f"Feature {feature} of layer {layer} is active in {active} of {len(values)} samples: too"
        " few to score a prediction of it. Choose a feature that is active more often, or pool with"
        " mean or max."
    )


class ConceptTargetExtractor(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):
    """Extract the concept labels as the classification target y.

    It has no parameters and learns nothing.

    Raises
    ------
    TypeError
        If the input is an array, which carries no labels.
    DataError
        If a label is missing or not a whole number; for sentence files, not in 0 to 3.

    Examples
    --------
    >>> from sklprep import ConceptTargetExtractor, make_activations
    >>> acts = make_activations(6, n_layers=4, d_model=8, n_features=32, random_state=0)
    >>> ConceptTargetExtractor().fit_transform(acts).dtype
    dtype('int64')
    """

    __module__ = "sklprep"

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check that X carries labels.

        Parameters
        ----------
        X : ActivationSet of shape (n_samples,)
        y : ignored

        Returns
        -------
        ConceptTargetExtractor
        """
        self.transform(X)
        return self

    def transform(self, X: Any) -> NDArray[np.int64]:
        """Extract the labels.

        Parameters
        ----------
        X : ActivationSet of shape (n_samples,)

        Returns
        -------
        ndarray of shape (n_samples,), int64
        """
        if not isinstance(X, ActivationSet):
            raise TypeError(
                f"ConceptTargetExtractor needs an ActivationSet, which carries labels, got"
                f" {type(X).__name__}. Use ActivationSet.from_arrays(labels=...), or your own y."
            )
        labels = read_values(X.labels, "labels")
        bad = np.ones(labels.shape, bool)
        if labels.dtype.kind in "iubf":
            with np.errstate(invalid="ignore"):
                whole = labels.astype(np.int64)
            bad = whole != labels
            if not bad.any():
                return whole
        raise DataError(
            f"Concept labels must be whole numbers, got {labels[bad][0].item()!r:.60}. Number them,"
            " for example in a CSV of labels (labels=...), or use them as y directly."
        )

    def find_members(self, acts: ActivationSet) -> Members:
        """Name the members of a set that the extractor reads: none, labels are there already."""
        return Members()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
