"""`ActivationNormalizer`: scikit-learn's scalers, fed float64 row blocks of a constant size."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn import preprocessing
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sklprep.activations.arrays import read_tensor
from sklprep.transformers.normalization_methods import KEEP_ZEROS, METHODS, is_method
from sklprep.transformers.sparse_output import keeps_sparse

_BLOCK_ROWS = 128
"""One size for all: sums over blocks of another size round to other bits. 14 MB of float64
at six layers of width 2,304."""


@keeps_sparse()
class ActivationNormalizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Normalize each column with one of scikit-learn's scalers, or not at all.

    Parameters
    ----------
    method : {"standardize", "minmax", "maxabs", "none"}, default="standardize"
        Subtract the mean and divide by the standard deviation; map to [0, 1]; divide by the
        largest absolute value; or leave X as it is. Sparse X, such as SAE features, allows the last
        two only.

    Attributes
    ----------
    scaler_ : StandardScaler, MinMaxScaler, MaxAbsScaler or None
        The fitted scaler.
    norm_params_ : dict
        The fitted parameters under the names they have in a dataset file.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only for input whose columns are named by strings.

    Raises
    ------
    ValueError
        If the method is unknown or would fill the zeros of sparse X, there are NaN or infinite
        values, or X has another number of columns than in `fit`.

    Notes
    -----
    With `standardize`, :math:`z = (x - \mu) / \sigma`, where :math:`\mu` and :math:`\sigma` are the
    mean and the population standard deviation (divided by n) of the column; with `minmax`,
    :math:`z = (x - \min) / (\max - \min)`; with `maxabs`, :math:`z = x / \max |x|`. A constant
    column has the scale 1 and becomes 0; with `maxabs`, only a column of zeros does. Sums,
    means and scales are float64 whatever the input, computed in row blocks of a constant size and
    rounded once, to the dtype of the input: on float32 activations with massive dimensions,
    scalers that compute in float32 err by 1e-4. The definitions are those of
    `sklearn.preprocessing`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep import ActivationNormalizer
    >>> X = np.array([[3000.0, 1.0], [3002.0, 1.0]], dtype=np.float32)
    >>> ActivationNormalizer().fit_transform(X)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    >>> ActivationNormalizer("minmax").fit(X).norm_params_["norm_max"]
    array([3.002e+03, 1.000e+00])
    """

    __module__ = "sklprep"

    def __init__(self, method: str = "standardize") -> None:
        self.method = method

    def fit(self, X: Any, y: Any = None) -> Self:
        """Compute the statistics of each column.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        ActivationNormalizer
        """
        return self._fit_blocks(self._validate(X, reset=True), first=True)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Add rows to the statistics.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        ActivationNormalizer
        """
        first = not hasattr(self, "scaler_")
        return self._fit_blocks(self._validate(X, reset=first), first=first)

    def transform(self, X: Any) -> NDArray[Any]:
        """Normalize each column with the fitted statistics.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray or CSR of shape (n_samples, n_features)
            Sparse if X is; float32, or float64 for float64 input.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        return (
            X.copy()
            if self.scaler_ is None
            else _by_blocks(X, _in_place(self.scaler_, "transform"))
        )

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Undo the normalization.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)

        Returns
        -------
        ndarray or CSR of shape (n_samples, n_features)
            Accurate to the precision of X, relative to the largest magnitude of each column.
        """
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        if self.scaler_ is None:
            return X.copy()
        return _by_blocks(X, _in_place(self.scaler_, "inverse_transform"))

    @property
    def norm_params_(self) -> dict[str, Any]:
        """The fitted parameters under the names they have in a dataset file.

        ``norm_method``, and ``norm_mean`` with ``norm_std``, ``norm_min`` with ``norm_max``, or
        ``norm_max_abs``: ndarrays of shape (n_features,), float64.
        """
        check_is_fitted(self)
        kind = None if self.scaler_ is None else type(self.scaler_).__name__
        # not by `method`, which may have been set anew since the fit
        name, method = next(item for item in METHODS.items() if item[1].scaler == kind)
        values = {key: getattr(self.scaler_, name) for key, name in method.parameters.items()}
        return {"norm_method": name, **{key: value.copy() for key, value in values.items()}}

    def _fit_blocks(self, X: NDArray[Any], *, first: bool) -> Self:
        if first:
            if not is_method(self.method):
                raise ValueError(
                    "The 'method' parameter of ActivationNormalizer must be a str among"
                    f" {set(METHODS)}. Got {self.method!r} instead."
                )
            if issparse(X) and self.method not in KEEP_ZEROS:
                raise ValueError(
                    f"method={self.method!r} would make sparse X dense, {4 * math.prod(X.shape):,}"
                    " bytes of it. Choose 'maxabs' or 'none', or StandardScaler(with_mean=False)."
                )
            scaler = METHODS[self.method].scaler
            self.scaler_ = None if scaler is None else getattr(preprocessing, scaler)()
        if self.scaler_ is not None:
            self.scaler_.set_output(transform="default")
            for start in range(0, X.shape[0], _BLOCK_ROWS):
                self.scaler_.partial_fit(_as_float64(X[start : start + _BLOCK_ROWS]))
        return self

    def _validate(self, X: Any, *, reset: bool) -> NDArray[Any]:
        X, dtypes = read_tensor(X, "X"), [np.float32, np.float64]
        return validate_data(self, X, reset=reset, dtype=dtypes, accept_sparse="csr")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "scaler_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.method in KEEP_ZEROS
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _as_float64(block: Any) -> Any:
    """Copy in C order, as numpy's sums depend on the memory layout."""
    is_sparse: bool = issparse(block)
    if is_sparse:
        return block.astype(np.float64)
    return np.array(block, dtype=np.float64, order="C")


def _in_place(scaler: Any, name: str) -> Callable[..., Any]:
    """Let `StandardScaler` write into the block, which is a copy already; the others cannot."""
    method: Callable[..., Any] = getattr(scaler, name)
    is_standard = isinstance(scaler, preprocessing.StandardScaler)
    return partial(method, copy=False) if is_standard else method


def _by_blocks(
    X: NDArray[Any], function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[Any]:
    if issparse(X):  # it works value by value, so blocks would change nothing
        return function(_as_float64(X)).astype(X.dtype)
    result = np.empty(X.shape, X.dtype)
    for start in range(0, len(X), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        result[block] = function(_as_float64(X[block]))
    return result
