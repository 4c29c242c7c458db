"""One split of one layer: what all labelings and penalties share, computed once on demand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.exceptions import UsageError
from sklprep.sweeps.solver.arrays import Array, Device, open_device, to_numpy
from sklprep.sweeps.solver.scaling import combine, measure, normalize, project

_LEAST_DISTINCT = 0.9
"""Below this share of distinct training rows the split works in their span. The Gram matrix of rows
that repeat has a null space in which steps drift off: of 200 rows with 10 to 52 distinct ones, as
final tokens before the first layer are, decisions were off by up to 0.1 of the largest. A span of
nearly as many rows as there are would cost more than the Gram matrix."""

_FEW_COLUMNS = 4
"""Decisions of k columns about m test rows take k (n + m) products of a row, at memory speed, or
m n with all training rows, which are this much faster."""

_FEW_PRODUCTS = 1e7
"""Multiplications of test rows with training rows that take less time than numpy's calls for doing
without: 0.3 ms."""

_FIRST_COLUMNS = 16
"""Rows are compared in these before all columns are read, and in the first one, by their values,
before these: of 160 rows that takes 0.02 ms, where a look at the bytes of each takes 0.25."""


class Split:
    r"""Training and test rows of one layer, normalized by the training rows.

    Parameters
    ----------
    X : array of shape (n_samples, n_features)
        A numpy array or a torch tensor of any real dtype. It is not copied, so it must not change
        while the split is used.
    train, test : array-like of shape (n_train,) and (n_test,), int or bool
        Positions or masks of rows.
    method : {"standardize", "minmax", "maxabs", "none"}, default="standardize"
        How columns are normalized, with the statistics of the training rows: the scalers of
        scikit-learn.
    fit_intercept : bool, default=True
        Whether the models of this split have an intercept. Then columns are centred whatever the
        method: this changes the intercept only, and keeps large means out of the inner products.
    device : str, torch.device or None, default=None
        Compute with torch on ``"cuda"`` or ``"cpu"``. None computes where X is.

    Attributes
    ----------
    n_samples, n_train, n_test : int
    n_features : int
        Columns in which models are fitted: those of X or, if many training rows are equal, as many
        as span them.
    is_dual : bool
        Whether models are fitted in the space of the training rows, because there are fewer of
        them than columns.
    train, test : ndarray of int
    place : Device

    Raises
    ------
    UsageError
        If X is not a matrix, there are no training rows, positions are outside X, the method is
        unknown, or X has NaN or infinite values.

    Notes
    -----
    With the centre m and the scale s of the columns, :math:`\tilde X = (X - m) / s`. A linear model
    with an L2 penalty has coefficients :math:`W = \tilde X^T A` in the span of the training rows,
    so that with :math:`K = \tilde X \tilde X^T` its decisions are :math:`K A + b` [1]_: everything
    else depends on K alone, which is n x n however many columns there are. K costs
    :math:`n^2 d` multiplications; a fit then takes some products with it.

    Statistics, rows and K are float64 whatever X is.

    References
    ----------
    .. [1] B. Schölkopf, R. Herbrich and A. J. Smola (2001). A generalized representer theorem.
       COLT, 416-426.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep.sweeps.solver import Split
    >>> X = np.random.default_rng(0).normal(size=(10, 200))
    >>> split = Split(X, train=range(8), test=[8, 9])
    >>> split.is_dual, split.gram().shape
    (True, (8, 8))
    """

    def __init__(
        self,
        X: Any,
        train: ArrayLike,
        test: ArrayLike,
        *,
        method: str = "standardize",
        fit_intercept: bool = True,
        device: Any = None,
    ) -> None:
        if not hasattr(X, "dtype"):
            X = np.asarray(X)
        if len(X.shape) != 2:
            raise UsageError(f"X must have two dimensions, got shape {tuple(X.shape)}.")
        self.place = open_device(X, device)
        self._X = X if device is None else self.place.array(X)
        self.train = _positions(train, len(X), "train")
        self.test = _positions(test, len(X), "test")
        if not len(self.train):
            raise UsageError("There are no training rows.")
        self.fit_intercept, self.n_samples = fit_intercept, len(X)
        self.n_train, self.n_test, self.n_features = len(self.train), len(self.test), X.shape[1]
        self._distinct = self.train
        if self.n_train < self.n_features:
            self._distinct = self.train[_first_of_equal(self._X, self.train, self.place)]
            if len(self._distinct) < _LEAST_DISTINCT * self.n_train:
                self.n_features = len(self._distinct)
        self.is_dual = self.n_train < self.n_features
        self._scaling = measure(self._X, self.train, method, self.place, centered=fit_intercept)
        self._basis: Array = None
        self._train_rows: Array = None
        self._test_rows: Array = None
        self._gram: Array = None
        self._cross: Array = None
        self._moments: Array = None
        self.spaces: dict[bool, Any] = {}

    def train_rows(self) -> Array:
        """Give the normalized training rows, (n_train, n_features)."""
        if self._train_rows is None:
            self._train_rows = self._normalize(self.train)
        return self._train_rows

    def test_rows(self) -> Array:
        """Give the normalized test rows, (n_test, n_features)."""
        if self._test_rows is None:
            self._test_rows = self._normalize(self.test)
            self._require_finite(self._test_rows)
        return self._test_rows

    def _require_finite(self, values: Array) -> None:
        if not bool(self.place.xp.all(self.place.xp.isfinite(values))):
            raise UsageError("X contains NaN or infinite values in its test rows.")

    def forget_rows(self) -> None:
        """Free the normalized rows, which are computed again where they are needed again."""
        self._train_rows = self._test_rows = None

    def _normalize(self, rows: NDArray[np.intp]) -> Array:
        normalized = normalize(self._X, rows, self._scaling, self.place)
        return normalized if self.n_features == self._X.shape[1] else normalized @ self._span()

    def _span(self) -> Array:
        """Give an orthonormal basis of the distinct training rows: (columns of X, n_features)."""
        if self._basis is None:
            rows = normalize(self._X, self._distinct, self._scaling, self.place)
            self._basis = self.place.xp.linalg.qr(rows.T)[0]
        return self._basis

    def gram(self) -> Array:
        """Give the inner products of the training rows, (n_train, n_train)."""
        if self._gram is None:
            train = self.train_rows()
            self._gram = train @ train.T  # numpy takes half the time for its own transpose
            if self.n_train * self.n_test * self.n_features <= _FEW_PRODUCTS:
                self._cross = train @ self.test_rows().T
        return self._gram

    def move_gram(self, place: Array) -> None:
        """Keep the inner products of the training rows in another array of their shape."""
        place[...] = self.gram()
        self._gram = place

    def moments(self) -> Array:
        """Give the inner products of the training columns: (n_features, n_features)."""
        if self._moments is None:
            train = self.train_rows()
            self._moments = train.T @ train
        return self._moments

    def decide(self, A: Array) -> Array:
        """Give the decisions on the test rows, without the intercept.

        Parameters
        ----------
        A : array of shape (..., n_train) in the dual, (..., n_features) in the primal, float64

        Returns
        -------
        array of shape (..., n_test)
        """
        if not self.is_dual:
            return A @ self.test_rows().T
        cost = math.prod(A.shape[:-1]) * _FEW_COLUMNS * (self.n_train + self.n_test)
        if self._cross is None and cost < self.n_train * self.n_test:
            W = self._combine(A)
            decisions = project(self._X, self.test, W, self._scaling, self.place)
            self._require_finite(decisions)
            return decisions
        if self._cross is None:
            self._cross = self.train_rows() @ self.test_rows().T
            self.forget_rows()
        return A @ self._cross

    def _combine(self, A: Array) -> Array:
        """Give the coefficients of columns, (..., n_features), of those of training rows."""
        if self._train_rows is not None:
            return A @ self._train_rows
        return combine(self._X, self.train, A, self._scaling, self.place)

    @property
    def scale(self) -> NDArray[np.float64]:
        """What columns are divided by, (n_features,)."""
        return to_numpy(self._scaling.scale)

    def coefficients(self, A: Array, intercept: Array) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give coefficients and intercepts on the columns that scikit-learn's scaler gives.

        Parameters
        ----------
        A : array of shape (..., n_train) in the dual, (..., n_features) in the primal, float64
        intercept : array of shape (...)

        Returns
        -------
        coef : ndarray of shape (..., columns of X)
        intercept : ndarray of shape (...)
        """
        coef = self._combine(A) if self.is_dual else A
        if self.n_features < self._X.shape[1]:
            coef = coef @ self._span().T
        moved = (self._scaling.center - self._scaling.shift) / self._scaling.scale
        return to_numpy(coef), to_numpy(intercept - self.place.xp.sum(coef * moved, axis=-1))


def _positions(rows: ArrayLike, n: int, name: str) -> NDArray[np.intp]:
    positions = np.asarray(rows)
    if positions.dtype == bool and positions.shape == (n,):
        positions = np.flatnonzero(positions)
    if positions.ndim != 1 or (positions.size and positions.dtype.kind not in "iu"):
        raise UsageError(
            f"{name} must be positions of rows or a mask of {n}, got {positions.dtype} of shape"
            f" {positions.shape}."
        )
    if positions.size and not (positions.min() >= 0 and positions.max() < n):
        raise UsageError(f"{name} has positions outside the {n} rows of X.")
    return positions.astype(np.intp)


def _first_of_equal(X: Array, rows: NDArray[np.intp], place: Device) -> NDArray[np.intp]:
    """Give the positions among some rows of X at which a row is not equal to an earlier one."""

    def take(columns: slice) -> NDArray[Any]:
        return to_numpy(place.xp.take(X[:, columns], place.index(rows), axis=0))

    enough = _LEAST_DISTINCT * len(rows)
    if len(np.unique(take(slice(1)))) >= enough:
        return np.arange(len(rows))
    for columns in (slice(_FIRST_COLUMNS), slice(None)):
        positions: dict[bytes, int] = {}
        for position, row in enumerate(take(columns)):
            positions.setdefault(row.tobytes(), position)
        if len(positions) >= enough:
            return np.arange(len(rows))
    return np.array(list(positions.values()))
