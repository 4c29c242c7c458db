"""`LayerSelector`: from an `ActivationSet`, or an array of layers, to the matrix X."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from sklprep.activations.activation_set import ActivationSet
from sklprep.formats.layers import ALL, EMBEDDINGS, parse_layers, require_layers
from sklprep.formats.members import Members
from sklprep.transformers.selection import Selector, validate_layers


class LayerSelector(Selector):
    """Select hidden states of some layers, or the embeddings, as one matrix.

    Hidden states are concatenated in ascending layer order. The layers are a parameter, so a search
    can choose them, as in
    ``GridSearchCV(pipe, {"layerselector__layers": ["embeddings", "0-5", 12]})``.

    Parameters
    ----------
    layers : int, list of int, or str, default="all"
        Layer numbers as the data has them (not positions): one, several, a specification such as
        ``"0-2,10,15-17"``, ``"all"``, or ``"embeddings"`` for the token embeddings.

    Attributes
    ----------
    layers_ : ndarray of shape (n_selected_layers,), int64
        The selected layer numbers, ascending; empty for embeddings.
    hidden_size_ : int
        Width of one layer, or of the embeddings.
    n_features_out_ : int
        Number of columns of the output.
    pooling_ : str or None
        How the tokens of the sentence files became rows; None for arrays.
    n_features_in_ : int
        Number of layers of the input; of columns for 2-D input.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only for 2-D input whose columns are named by strings.

    Raises
    ------
    LayerSpecError
        If `layers` cannot be read.
    LayerNotFoundError
        If the data has no such layer.
    TypeError
        If embeddings are asked of an array.
    ValueError
        If the input does not fit what was seen in `fit`.

    Examples
    --------
    >>> from sklprep import LayerSelector, make_activations
    >>> acts = make_activations(20, n_layers=4, d_model=8, n_features=32, random_state=0)
    >>> LayerSelector("0,2-3").fit_transform(acts).shape
    (20, 24)
    >>> LayerSelector(2).fit(acts).get_feature_names_out()[:2]
    array(['L2_h0000', 'L2_h0001'], dtype=object)
    """

    __module__ = "sklprep"

    def __init__(self, layers: Any = ALL) -> None:
        self.layers = layers

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the layers against the data.

        Parameters
        ----------
        X : ActivationSet of shape (n_samples,), or array-like of shape \
(n_samples, n_layers, d_model)
            An array's layers are numbered from 0; a 2-D array is layer 0.
        y : ignored

        Returns
        -------
        LayerSelector
        """
        self._see_rows(X)
        if isinstance(X, ActivationSet):
            available = X.layers.tolist()
            self._forget_columns(len(available))
        else:
            X = validate_layers(self, X, reset=True)
            available = list(range(1 if X.ndim == 2 else X.shape[1]))
        if isinstance(self.layers, str) and self.layers == EMBEDDINGS:
            self._check_embeddings(X)
            self.layers_ = np.empty(0, np.int64)
            self.hidden_size_ = X.d_embed
            return self
        chosen = (
            available
            if isinstance(self.layers, str) and self.layers == ALL
            else parse_layers(self.layers)
        )
        require_layers(chosen, available)
        self.layers_ = np.array(chosen, np.int64)
        self.hidden_size_ = X.d_model if isinstance(X, ActivationSet) else X.shape[-1]
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Select the fitted layers.

        Parameters
        ----------
        X : ActivationSet or array-like, as in `fit`

        Returns
        -------
        ndarray of shape (n_samples, n_selected_layers * hidden_size_)
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
            if not len(self.layers_):
                parts = [X.embeddings]
            else:
                require_layers(self.layers_.tolist(), X.layers.tolist())
                parts = [X.layer(layer) for layer in self.layers_.tolist()]
        else:
            X = validate_layers(self, X, reset=False)
            if not len(self.layers_):
                self._check_embeddings(X)
            X = X[:, np.newaxis] if X.ndim == 2 else X
            require_layers(self.layers_.tolist(), range(X.shape[1]))
            parts = [X[:, layer] for layer in self.layers_]
        if parts[0].shape[1] != self.hidden_size_:
            raise ValueError(
                f"X has vectors of width {parts[0].shape[1]}, but LayerSelector was fitted on"
                f" width {self.hidden_size_}. Use activations of the same model."
            )
        return np.concatenate(parts, axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the columns ``L12_h0345`` (layer, position) or ``emb_0345``.

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
        digits = max(4, len(str(self.hidden_size_ - 1)))
        prefixes = [f"L{layer}_h" for layer in self.layers_] or ["emb_"]
        return np.array(
            [f"{prefix}{i:0{digits}d}" for prefix in prefixes for i in range(self.hidden_size_)],
            dtype=object,
        )

    def _check_embeddings(self, X: Any) -> None:
        if not isinstance(X, ActivationSet):
            raise TypeError(
                "layers='embeddings' needs an ActivationSet, got an array, which holds layers"
                " only. Use ActivationSet.from_arrays(embeddings=..., hidden_states=...)."
            )

    def find_members(self, acts: ActivationSet) -> Members:
        """Name the members of a set that the fitted selector reads."""
        check_is_fitted(self)
        layers = tuple(self.layers_.tolist())
        return Members(embeddings=not layers, layers=layers)

    @property
    def n_features_out_(self) -> int:
        """Number of columns of the output."""
        check_is_fitted(self)
        return max(1, len(self.layers_)) * self.hidden_size_
