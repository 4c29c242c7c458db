"""`SAEFeatureSelector`: from an `ActivationSet` to a sparse X of SAE features."""

from __future__ import annotations

import itertools
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack
from sklearn.utils.validation import check_is_fitted

from sklprep.activations.activation_set import ActivationSet, check_feature_exists
from sklprep.exceptions import FeatureNotFoundError
from sklprep.formats.layers import ALL, format_layers, parse_layers, require_layers
from sklprep.formats.members import Members
from sklprep.transformers.selection import Selector, pooling_of, validate_layers
from sklprep.transformers.sparse_output import keeps_sparse


@keeps_sparse(lambda X: True)
class SAEFeatureSelector(Selector):
    """Select the activations of SAE features of some layers, as one sparse matrix.

    The features of each SAE are concatenated in ascending layer order. `ActivationNormalizer`
    scales them by ``"maxabs"``, which keeps zeros zeros.

    Parameters
    ----------
    layers : int, list of int, or str, default="all"
        Layer numbers as in `LayerSelector`, among the layers with an SAE.
    features : int, list of int, or None, default=None
        Indices of the features to take from each SAE, in this order; None takes all.
    average_l0 : float, list of float, or None, default=None
        Which SAE to take, where a layer has several. A list takes all SAEs that it names.

    Attributes
    ----------
    layers_ : ndarray of shape (n_selected_layers,), int64
        The selected layer numbers, ascending.
    sae_layers_ : ndarray of shape (n_selected_saes,), int64
        Layer of each selected SAE, in the order of the columns.
    average_l0s_ : ndarray of shape (n_selected_saes,), float64, or None
        average_l0 of each; None for arrays, which do not carry it.
    has_siblings_ : ndarray of shape (n_selected_saes,), int64
        1 where the layer has several SAEs, so that column names need average_l0; otherwise 0.
    features_ : ndarray of shape (n_selected_features,), int64, or None
        The selected features; None for all.
    n_sae_features_ : int
        Number of features of an SAE.
    n_features_out_ : int
        Number of columns of the output.
    pooling_ : str or None
        How the tokens of the sentence files became rows; None for arrays.
    n_features_in_ : int
        Number of SAE configs of the input; of layers for 3-D, of columns for 2-D input.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only for 2-D input whose columns are named by strings.

    Raises
    ------
    LayerSpecError
        If `layers` cannot be read.
    LayerNotFoundError, FeatureNotFoundError
        If the data has no such layer, feature or average_l0, or a layer has several SAEs and
        `average_l0` names none of them.
    TypeError
        If `features` are not whole numbers.
    ValueError
        If `features` are empty or repeated, or the input does not fit what was seen in `fit`.

    See Also
    --------
    LayerSelector : Select hidden states or embeddings.

    Notes
    -----
    For a k-sparse probe, put `sklearn.feature_selection.SelectKBest` after the selector: as a step
    of the pipeline, it picks its k features anew in every fold, on the training rows alone.

    ``set_output(transform="pandas")`` raises scikit-learn's error for sparse output; the global
    ``set_config(transform_output="pandas")`` does not apply to this selector.

    Examples
    --------
    >>> from sklearn.feature_selection import SelectKBest, VarianceThreshold
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklprep import ActivationNormalizer, SAEFeatureSelector, make_activations
    >>> acts = make_activations(60, n_layers=4, d_model=8, n_features=32, random_state=0)
    >>> SAEFeatureSelector("1-2").fit_transform(acts).shape
    (60, 64)
    >>> SAEFeatureSelector(2, features=[5, 3]).fit(acts).get_feature_names_out()
    array(['L2_f00005', 'L2_f00003'], dtype=object)
    >>> probe = make_pipeline(
    ...     SAEFeatureSelector(2),
    ...     ActivationNormalizer("maxabs"),
    ...     VarianceThreshold(),  # features that are dead in a fold cannot be ranked
    ...     SelectKBest(k=4),
    ...     LogisticRegression(),
    ... )
    >>> cross_val_score(probe, acts, acts.labels).shape
    (5,)
    """

    __module__ = "sklprep"

    def __init__(self, layers: Any = ALL, features: Any = None, average_l0: Any = None) -> None:
        self.layers = layers
        self.features = features
        self.average_l0 = average_l0

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check layers, SAEs and features against the data.

        Parameters
        ----------
        X : ActivationSet of shape (n_samples,), array-like of shape \
(n_samples, n_layers, n_features), or {array-like, sparse matrix} of shape (n_samples, n_features)
            An array's layers are numbered from 0; a 2-D array or matrix is layer 0.
        y : ignored

        Returns
        -------
        SAEFeatureSelector
        """
        self._see_rows(X)
        if isinstance(X, ActivationSet):
            available = np.unique(X.sae_layers).tolist()
            if not available:
                X.rows.find_config(0)  # raises: there are no activations
            self._forget_columns(len(X.sae_layers))
        else:
            X = validate_layers(self, X, reset=True, accept_sparse="csr")
            available = list(range(1 if X.ndim == 2 else X.shape[1]))
        everything = isinstance(self.layers, str) and self.layers == ALL
        chosen = available if everything else parse_layers(self.layers)
        if isinstance(X, ActivationSet):
            configs = _find_configs(X, chosen, self.average_l0)
            self.sae_layers_ = X.sae_layers[configs]
            self.average_l0s_: Any = X.average_l0s[configs].astype(np.float64)
            n_saes = (self.sae_layers_[:, np.newaxis] == X.sae_layers).sum(axis=1)
            self.n_sae_features_ = X.n_sae_features
        else:
            refuse_average_l0(self.average_l0)
            require_layers(chosen, available)
            self.sae_layers_ = np.array(chosen, np.int64)
            self.average_l0s_ = None
            n_saes = np.ones(len(chosen))
            self.n_sae_features_ = X.shape[-1]
        self.has_siblings_ = (n_saes > 1).astype(np.int64)
        self.layers_ = np.unique(self.sae_layers_)
        self.features_ = None
        if self.features is not None:
            features = check_features(self.features, self.n_sae_features_, name="features")
            self.features_ = np.atleast_1d(features)
        return self

    def transform(self, X: Any) -> csr_array:
        """Select the fitted features.

        Parameters
        ----------
        X : ActivationSet or array-like, as in `fit`

        Returns
        -------
        CSR of shape (n_samples, n_selected_saes * n_selected_features)
            float32; float64 for a float64 array.

        Warns
        -----
        SklprepWarning
            Once for a source, if rows of `X` that were not in `fit` share a group with rows that
            were, as in a cross-validation that splits the tokens of a sentence.
        """
        check_is_fitted(self)
        self._check_rows(X)
        if isinstance(X, ActivationSet):
            configs = self._configs_of(X)
            self._check_width(X.n_sae_features)
            parts = [X.rows.config(config, self.features_) for config in configs]
        else:
            X = validate_layers(self, X, reset=False, accept_sparse="csr")
            layers = self.sae_layers_.tolist()
            require_layers(layers, range(1 if X.ndim == 2 else X.shape[1]))
            parts = [csr_array(X if X.ndim == 2 else X[:, layer]) for layer in layers]
            self._check_width(parts[0].shape[1])
            if self.features_ is not None:
                parts = [part[:, self.features_] for part in parts]
        return parts[0].copy() if len(parts) == 1 else csr_array(hstack(parts, format="csr"))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the columns ``L12_f01234``, and ``L12_f01234_l0_82`` where a layer has several SAEs.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Checked against the input where that has named columns; the names do not use it.

        Returns
        -------
        ndarray of str objects of shape (n_columns,)
        """
        check_is_fitted(self)
        self._check_input_features(input_features)
        digits = max(5, len(str(self.n_sae_features_ - 1)))
        features = range(self.n_sae_features_) if self.features_ is None else self.features_
        suffixes = [
            f"_l0_{np.format_float_positional(self.average_l0s_[i], trim='-')}" if several else ""
            for i, several in enumerate(self.has_siblings_)
        ]
        return np.array(
            [
                f"L{layer}_f{feature:0{digits}d}{suffix}"
                for layer, suffix in zip(self.sae_layers_, suffixes, strict=True)
                for feature in features
            ],
            dtype=object,
        )

    def _check_width(self, n_features: int) -> None:
        if n_features != self.n_sae_features_:
            raise ValueError(
                f"X has SAEs of {n_features} features, but SAEFeatureSelector was fitted on"
                f" {self.n_sae_features_}. Use activations of the same SAE."
            )

    def _saes_of(self, acts: ActivationSet) -> list[tuple[int, float | None]]:
        """List layer and average_l0 of each SAE; None where one side may not know the latter."""
        known = self.average_l0 is not None or None not in (self.pooling_, pooling_of(acts))
        layers = self.sae_layers_.tolist()
        if self.average_l0s_ is None or not known:
            return [(layer, None) for layer in layers]
        return list(zip(layers, self.average_l0s_.tolist(), strict=True))

    def find_members(self, acts: ActivationSet) -> Members:
        """Name the members of a set that the fitted selector reads."""
        check_is_fitted(self)
        configs = tuple(self._configs_of(acts))
        if self.features_ is None:
            return Members(configs=configs)
        return Members(features=tuple(itertools.product(configs, self.features_.tolist())))

    def _configs_of(self, acts: ActivationSet) -> list[int]:
        """Find the positions of the fitted SAEs among the `sae_layers` of a set."""
        return [acts.rows.find_config(*sae) for sae in self._saes_of(acts)]

    @property
    def n_features_out_(self) -> int:
        """Number of columns of the output."""
        check_is_fitted(self)
        width = self.n_sae_features_ if self.features_ is None else len(self.features_)
        return len(self.sae_layers_) * width

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _find_configs(acts: ActivationSet, layers: list[int], average_l0: Any) -> list[int]:
    """Find the positions of the layers' SAEs, by ascending layer and average_l0."""
    wanted = [None] if average_l0 is None else np.unique(average_l0).tolist()
    configs: list[int] = []
    used: set[float | None] = set()
    for layer in layers:
        there = set(acts.average_l0s[acts.sae_layers == layer].tolist())
        # if the layer has none of the values, the first one raises
        values = [value for value in wanted if value in there] or wanted[:1]
        configs += [acts.rows.find_config(layer, value) for value in values]
        used.update(values)
    for value in wanted:
        if value not in used:
            raise FeatureNotFoundError(
                f"average_l0 mismatch: none of the layers {format_layers(layers)} has an SAE config"
                f" with average_l0 {value:g}. Leave it out."
            )
    return configs


def check_features(features: Any, n_features: int, *, name: str) -> NDArray[np.int64]:
    """Read one feature index as a 0-d array, several as 1-d; refuse those that the SAE lacks."""
    several = list(features) if np.iterable(features) else [features]
    for feature in several:
        if not isinstance(feature, Integral) or isinstance(feature, bool):
            where = f" in {features!r}" if np.iterable(features) else ""
            raise TypeError(f"{name} must be an instance of int, got {feature!r}{where}.")
        check_feature_exists(int(feature), n_features)
    if not several:
        raise ValueError(f"{name} must hold at least one index, got {features!r}.")
    if len(set(several)) < len(several):
        raise ValueError(f"{name} must be distinct, got {features!r}.")
    return np.array(several if np.iterable(features) else features, np.int64)


def refuse_average_l0(average_l0: Any) -> None:
    """Raise unless it is None: arrays do not say which SAE they come from."""
    if average_l0 is not None:
        raise FeatureNotFoundError(
            f"average_l0 mismatch: {average_l0} was asked for, but arrays carry none."
            " Leave average_l0 out, or use ActivationSet.from_arrays(average_l0s=...)."
        )
