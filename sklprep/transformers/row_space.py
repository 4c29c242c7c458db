"""`RowSpaceProjector`: no more columns than training rows, and the same predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from sklprep.activations.arrays import read_tensor

_BLOCK_COLUMNS = 2048  # 13 MB of float64 at 800 rows: small beside X, large enough for BLAS

# Above what rounding leaves in the eigenvalues of a float64 Gram matrix, relative to the largest.
_TOLERANCE = 1e-12

_FLOATS = [np.float32, np.float64]


class RowSpaceProjector(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Project rows onto the space that the training rows span.

    With far fewer rows than columns, a model that depends on X only through inner products or
    distances predicts the same from the projection, and is fitted many times faster. Place it
    directly before the model, after steps that treat columns one by one, such as
    `ActivationNormalizer`.

    Parameters
    ----------
    residual : bool, default=False
        Append a column with the distance of each row from the row space. It is 0 for training rows,
        and makes their distances to all other rows equal to those in X.
    copy_X : bool, default=True
        If False, keep a reference to the training rows, and return X itself where it passes
        through. This saves the memory of X if nothing modifies it afterwards, as after
        `ActivationNormalizer`.

    Attributes
    ----------
    n_components_ : int
        r, the dimension of the row space; `n_features_in_` if X passes through.
    eigenvalues_ : ndarray of shape (n_components_,), float64, or None
        Eigenvalues of the Gram matrix of the training rows, descending. None, as are the next two,
        if X passes through.
    eigenvectors_ : ndarray of shape (n_samples, n_components_), float64, or None
        Eigenvectors of the same matrix, one per column.
    X_fit_ : ndarray of shape (n_samples, n_features_in_) or None
        The training rows.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Only for input whose columns are named by strings.

    Raises
    ------
    TypeError
        If a parameter is not a bool.
    ValueError
        If X has NaN or infinite values, or another number of columns than in `fit`.

    Notes
    -----
    **The same predictions**:

    * `LinearRegression`, `Ridge`, `RidgeCV`, `RidgeClassifier`;
    * `LogisticRegression` with the L2 penalty, at a tight `tol` such as 1e-7;
    * `LinearSVC` and `LinearSVR` with the L2 penalty and ``dual=True``, which ``"auto"`` is on X
      but not on a projection;
    * `SVC`, `NuSVC` and `SVR` with the kernels ``"linear"``, ``"poly"`` and ``"sigmoid"``;
    * `KNeighborsClassifier` and `KNeighborsRegressor`, Euclidean and uniformly weighted;
    * **only with** ``residual=True``: the kernel ``"rbf"``, and neighbors weighted by distance.

    Kernels need the same `gamma`: a number, or ``"scale"`` where the columns of X are centred, as
    they are after standardizing; ``"auto"`` counts columns.

    **Other predictions**: L1 penalties, `Lasso` and `ElasticNet`; `LinearDiscriminantAnalysis` and
    `QuadraticDiscriminantAnalysis`; naive Bayes; trees, forests and boosting; neural networks;
    metrics other than Euclidean; and steps after the projector that scale or select columns.

    Decision values agree to 1e-9 of the largest on float64, those of `LogisticRegression` with
    ``tol=1e-7`` to 1e-4. On float32 they agree to 1e-6 for neighbors, and for SVMs to 1e-4, or 1e-5
    at ``tol=1e-9``. `Ridge` and `LogisticRegression` compute in float32 themselves, and agree to
    1e-3 and 1e-2: on 816 rows of 59,904 standardized columns, the plain fits were off by 2e-4 and
    2e-3, those on the projection by 5e-7 and 1e-3. On columns that are not centred, the projection
    can cost `Ridge` 4e-3 on float32, unless it has ``solver="svd"``. Fits that stop early differ
    more: at `max_iter`, at the default `tol` of `LogisticRegression` (1e-1), or at that of `NuSVC`
    on float32 (3e-1).

    Let :math:`K = X X^T = U \Lambda U^T` be the Gram matrix of the n training rows, and
    :math:`V = \Lambda^{-1/2} U^T X` the r rows of an orthonormal basis of their span. Then

    .. math:: z = V x, \quad Z = U \Lambda^{1/2}, \quad Z Z^T = K, \quad
              \|x - x_i\|^2 = \|z - z_i\|^2 + \rho^2, \quad \rho^2 = \|x\|^2 - \|z\|^2

    for every row x and training row :math:`x_i`. A linear model with an L2 penalty has its
    coefficients in that span [1]_, [2]_: w on Z corresponds to :math:`V^T w` on X
    (`coef_on_input`), with the same intercept. `fit` costs :math:`n^2 d` multiplications and an
    eigendecomposition of K, but no SVD of X; `fit_transform` hardly more; `transform` :math:`n d`
    per row. V is not formed.

    K is accumulated in float64 over blocks of columns, and Z is rounded once, to the dtype of X.
    Directions whose eigenvalue is at most 1e-12 of the largest are dropped, such as those of
    duplicate rows and of the mean after centring; one always stays. Likewise :math:`\rho^2` is 0
    up to 1e-12 of the largest eigenvalue or of :math:`\|x\|^2`. With at least as many training
    rows as columns, X passes through unchanged, and :math:`\rho` is 0.

    References
    ----------
    .. [1] T. Hastie and R. Tibshirani (2004). Efficient quadratic regularization for expression
       arrays. Biostatistics 5(3), 329-340.
    .. [2] B. Schölkopf, R. Herbrich and A. J. Smola (2001). A generalized representer theorem.
       COLT, 416-426.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sklprep import RowSpaceProjector
    >>> X, y = np.random.default_rng(0).normal(size=(5, 1000)), np.arange(5.0)
    >>> projector = RowSpaceProjector()
    >>> Z = projector.fit_transform(X)
    >>> Z.shape, np.allclose(Z @ Z.T, X @ X.T)
    ((5, 5), True)
    >>> plain, projected = Ridge().fit(X, y), Ridge().fit(Z, y)
    >>> np.allclose(projector.coef_on_input(projected.coef_), plain.coef_)
    True
    """

    __module__ = "sklprep"

    def __init__(self, residual: bool = False, copy_X: bool = True) -> None:
        self.residual = residual
        self.copy_X = copy_X

    def fit(self, X: Any, y: Any = None) -> Self:
        """Find the row space.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        RowSpaceProjector
        """
        self._fit(X)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> NDArray[Any]:
        """Find the row space and project the training rows, faster than by `transform`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        ndarray of shape (n_samples, n_components_), plus a column for the residual
            float32, or float64 for float64 input.
        """
        X = self._fit(X)
        Z = X if self.X_fit_ is None else self.eigenvectors_ * np.sqrt(self.eigenvalues_)
        return self._assemble(Z, np.zeros(len(X)), X.dtype)

    def transform(self, X: Any) -> NDArray[Any]:
        """Project rows onto the row space of the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_components_), plus a column for the residual
            float32, or float64 for float64 input.
        """
        check_is_fitted(self)
        passes = self.X_fit_ is None
        X = read_tensor(X, "X")
        X = validate_data(self, X, reset=False, dtype=_FLOATS, copy=passes and self.copy_X)
        if passes:
            return self._assemble(X, np.zeros(len(X)), X.dtype)
        Z = _inner_products(X, self.X_fit_) @ self._dual_basis()
        squares = np.zeros(len(X))
        if self.residual:
            norms = sum(np.einsum("ij,ij->i", block, block) for (block,) in _blocks(X))
            squares = norms - np.einsum("ij,ij->i", Z, Z)
            squares[squares <= _TOLERANCE * np.maximum(norms, self.eigenvalues_[0])] = 0
        return self._assemble(Z, np.sqrt(squares), X.dtype)

    def inverse_transform(self, X: Any) -> NDArray[Any]:
        """Give the points of the row space that have these projections.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components_), plus a column for the residual
            That column is not used: it has no direction.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Rows of the row space as they were; of other rows, the part that lies in it.
            float32, or float64 for float64 input.
        """
        check_is_fitted(self)
        Z = check_array(read_tensor(X, "X"), dtype=_FLOATS)
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"X has {Z.shape[1]} columns, but this RowSpaceProjector gives"
                f" {self._n_features_out}. Use what its transform returned."
            )
        Z = Z[:, : self.n_components_]
        if self.X_fit_ is None:
            return Z.copy()
        weights = Z.astype(np.float64) @ self._dual_basis().T
        result = np.empty((len(Z), self.n_features_in_), Z.dtype)
        start = 0
        for (block,) in _blocks(self.X_fit_):
            stop = start + block.shape[1]
            result[:, start:stop] = weights @ block
            start = stop
        return result

    def coef_on_input(self, coef: Any) -> NDArray[Any]:
        """Turn coefficients of a linear model on the projection into those on X.

        Parameters
        ----------
        coef : array-like of shape (n_components_,) or (n_outputs, n_components_)
            `coef_` of the model; with ``residual=True`` one more, which is not used: the column
            is 0 in training, so an L2 penalty makes its coefficient 0.

        Returns
        -------
        ndarray of shape (n_features,) or (n_outputs, n_features)
            ``X @ coef.T`` is what ``transform(X) @ coef.T`` was. The intercept stays as it is.
        """
        coef = check_array(read_tensor(coef, "coef"), ensure_2d=False, dtype=_FLOATS)
        rows = self.inverse_transform(np.atleast_2d(coef))
        return rows[0] if coef.ndim == 1 else rows

    def _fit(self, X: Any) -> NDArray[Any]:
        for name in ("residual", "copy_X"):
            if not isinstance(getattr(self, name), bool | np.bool_):
                raise TypeError(
                    f"The {name!r} parameter of RowSpaceProjector must be an instance of 'bool'."
                    f" Got {getattr(self, name)!r} instead."
                )
        X = validate_data(self, read_tensor(X, "X"), dtype=_FLOATS, copy=self.copy_X)
        if X.shape[0] >= X.shape[1]:
            self.n_components_ = X.shape[1]
            self.X_fit_: Any = None
            self.eigenvalues_: Any = None
            self.eigenvectors_: Any = None
            return X
        values, vectors = np.linalg.eigh(_inner_products(X))
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        self.n_components_ = max(1, int(np.sum(values > _TOLERANCE * values[0])))
        vectors = vectors[:, : self.n_components_]
        largest = vectors[np.abs(vectors).argmax(axis=0), range(self.n_components_)]
        self.X_fit_ = X
        self.eigenvalues_ = values[: self.n_components_].copy()
        self.eigenvectors_ = np.ascontiguousarray(vectors * np.sign(largest))
        return X

    def _dual_basis(self) -> NDArray[np.float64]:
        """Give the matrix that turns inner products with the training rows into coordinates."""
        lengths = np.sqrt(self.eigenvalues_)
        return self.eigenvectors_ / np.where(lengths > 0, lengths, np.inf)

    def _assemble(
        self, Z: NDArray[Any], residual: NDArray[np.float64], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        Z = Z.astype(dtype, copy=False)
        return np.column_stack([Z, residual.astype(dtype)]) if self.residual else Z

    @property
    def _n_features_out(self) -> int:
        return self.n_components_ + int(self.residual)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _blocks(*matrices: NDArray[Any]) -> Iterator[tuple[NDArray[np.float64], ...]]:
    """Walk over the columns in float64 blocks of a constant width.

    Each block is in C order: the last bit of numpy's sums depends on the memory layout.
    """
    for start in range(0, matrices[0].shape[1], _BLOCK_COLUMNS):
        block = slice(start, start + _BLOCK_COLUMNS)
        yield tuple(np.array(m[:, block], dtype=np.float64, order="C") for m in matrices)


def _inner_products(X: NDArray[Any], Y: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Compute X Y', or X X' in half the time."""
    if Y is None:
        result = np.zeros((len(X), len(X)))
        for (block,) in _blocks(X):
            result += block @ block.T
        return result
    result = np.zeros((len(X), len(Y)))
    for left, right in _blocks(X, Y):
        result += left @ right.T
    return result
