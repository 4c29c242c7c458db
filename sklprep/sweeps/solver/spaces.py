r"""The spaces in which coefficients are found, and what makes conjugate gradients fast there.

Coefficients W of shape (n_features,) are held as :math:`A`, one number per training row with
:math:`W = \tilde X^T A`, in `DualSpace`, and as they are in `PrimalSpace`. Both answer the same
questions, for arrays of shape (classes, labelings, width):

========================  =====================================  ===========================
question                  dual                                   primal
========================  =====================================  ===========================
image: :math:`\tilde X W`  :math:`K A`                            :math:`\tilde X W`
adjoint of a residual r    r itself, for :math:`\tilde X^T r`     :math:`\tilde X^T r`
inner product of V, W      :math:`V^T (K W)`, the image of W      :math:`V^T W`
========================  =====================================  ===========================

**The preconditioner** is :math:`M = (I + w H)^{-1}`, with H = K or :math:`\tilde X^T \tilde X`, and
w the mean curvature of the loss. In the dual, conjugate gradients need of each residual r both
:math:`z = M r` and its image :math:`K z`. Because :math:`K M = (I - M) / w`, the image is
:math:`(r - z) / w`: a step of conjugate gradients costs one product with an n x n matrix, where
working in the eigenvectors of K, or with K and M, costs two. There is nothing to decompose either:
M comes from a Cholesky factor (16 ms for 816 rows in float32, on one core that takes 112-140 ms for
the eigenvectors), and w is rounded to powers of 16, so that the labelings and steps of a split
share two or three of them; exact w took as many steps.

**Precision.** Products are float32, twice as fast, as long as :math:`w \|H\|` times its precision
is small; the residual of every step that is allowed to end a fit is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self
from weakref import proxy

import numpy as np
from numpy.typing import NDArray

from sklprep.sweeps.solver.arrays import (
    Array,
    Cholesky,
    Device,
    invert_positive,
    plus_identity,
    times,
)
from sklprep.sweeps.solver.split import Split

Product = Callable[[Array, Array], None]
"""Writes the product of the first array into the second."""

Preconditioner = Callable[[Array], tuple[Array, Array]]
"""Takes residuals to preconditioned residuals and their images."""

W_STEP = 16.0
"""Curvatures are rounded to powers of this; 4 and 16 took equally many steps, 64 a fifth more."""

_MANY_COLUMNS = 32
"""Columns from which an inverse pays off: at 816 rows in float32 it takes 9 ms more than a Cholesky
factor, and a product with it is 0.3 ms faster than solving, fifteen times a fit."""

_SMALL = 512
"""Up to this width an inverse pays off for few columns too: a call of LAPACK takes longer."""

FLOAT32_LIMIT = 1.0
"""The largest ``w * norm(H) * eps`` for which float32 is used. Beyond it rounding the residual
moves decisions as much as a step does, and steps no longer converge."""

_CORRELATED = 4.0
"""Rows of white noise have a mean-square eigenvalue at most twice their mean one (n = d); the
activations of models tens of times. In between it does not matter."""

_SLOWNESS_OF_FEW = 3.0
"""How much slower few columns are multiplied than many: at memory speed (22 against 60 GFLOPS)."""


class Space(Protocol):
    """What Newton's method asks of a space of coefficients."""

    place: Device
    xp: Any
    width: int
    crowded: float

    def take(self, columns: NDArray[np.intp]) -> Space: ...
    def precision(self, largest_w: float) -> Any: ...
    def image(self, A: Array) -> Array: ...
    def adjoint(self, residual: Array) -> Array: ...
    def pair(self, u: Array, v: Array, image_of_v: Array) -> Array: ...
    def precondition(self, levels: NDArray[np.float64], r: Array) -> tuple[Array, Array]: ...


class _Space:
    """What both spaces share: the choice of precision and preconditioner by cost."""

    crowded = 0.75
    """Solved labelings stay until the others are fewer than this share: removing them copies the
    others."""

    def __init__(self, split: Split, width: int, *, many: bool) -> None:
        # the split holds its space, so a strong reference back would keep both from being freed
        self.split, self.width, self.many = proxy(split), width, many
        self.n_train = split.n_train
        self.place, self.xp = split.place, split.place.xp
        self._cast: dict[Any, Array] = {}
        self._solvers: dict[Any, tuple[float, Product]] = {}
        # as many as fit in two and a half layers; at least two, or they would be rebuilt for ever
        room = 2.5 * (split.n_train + split.n_test) * split.n_features / width**2
        self._n_kept = max(2, int(room))
        self._direct_cost = 0.0
        self.built = many
        self._norm: float | None = None

    def precision(self, largest_w: float) -> Any:
        """Choose the dtype of products."""
        small = largest_w * self.norm() * float(np.finfo(np.float32).eps) <= FLOAT32_LIMIT
        return self.xp.float32 if small else self.xp.float64

    def take(self, columns: NDArray[np.intp]) -> Self:
        """Give the space of some of the labelings, which is the same for all."""
        return self

    def precondition(self, levels: NDArray[np.float64], r: Array) -> tuple[Array, Array]:
        """Give :math:`(I + w H)^{-1} r` and its image, with w of each labeling.

        Parameters
        ----------
        levels : ndarray of shape (labelings,)
        r : array of shape (classes, labelings, width)
        """
        distinct = np.unique(levels)
        if len(distinct) == 1:
            return self.preconditioner(float(distinct[0]), r.dtype)(r)
        xp, place = self.xp, self.place
        z = xp.empty_like(r)
        image = xp.empty((*r.shape[:2], self.n_train), dtype=r.dtype, device=place.name)
        for w in distinct:
            index = place.index(np.flatnonzero(levels == w))
            apply = self.preconditioner(float(w), r.dtype)
            z[:, index, :], image[:, index, :] = apply(xp.take(r, index, axis=1))
        return z, image

    def preconditioner(self, w: float, dtype: Any) -> Preconditioner:
        """Give (I + w H)^-1, built or kept."""
        if not self.built:
            self.built = self._direct_cost > self._build_cost() or (
                self._direct_cost == 0 and self._is_correlated(dtype)
            )
        if not self.built:
            return self._direct(w, dtype)
        if w * self.norm() <= 1:  # I + w H has a condition of at most 2
            return self._plain(dtype)
        key = (w, dtype)
        if key not in self._solvers:
            while len(self._solvers) >= self._n_kept:
                del self._solvers[next(iter(self._solvers))]
            self._solvers[key] = self._build(w, dtype)
        return self._with(*self._solvers[key], dtype)

    def _build(self, w: float, dtype: Any) -> tuple[float, Product]:
        """Invert or factor I + w H; give w and what multiplies with the inverse."""
        try:
            matrix = plus_identity(self.xp, self._matrix(dtype), w)
            if self.many or self.width <= _SMALL or not self.place.is_numpy:
                inverse = invert_positive(self.place, matrix)
                return w, lambda r, out: times(r, inverse, out)
            return w, Cholesky(self.place, matrix).solve
        except ArithmeticError:
            # too ill-conditioned for the dtype; a smaller w preconditions less, but as exactly
            return self._build(w / W_STEP, dtype)

    def _direct(self, w: float, dtype: Any) -> Preconditioner:
        """Do without a matrix, as if all eigenvalues were equal to their mean; count the cost."""
        plain = self._plain(dtype)
        scale = 1 / (1 + w * self._mean_eigenvalue())

        def apply(r: Array) -> tuple[Array, Array]:
            n_columns = r.shape[0] * r.shape[1]
            products = 4.0 * self.n_train * self.split.n_features * n_columns
            self._direct_cost += _SLOWNESS_OF_FEW * products
            z, image = plain(r)
            image *= scale
            return z * scale, image

        return apply

    def _mean_eigenvalue(self) -> float:
        return self.norm() / min(self.n_train, self.split.n_features)

    def _is_correlated(self, dtype: Any) -> bool:
        """Estimate the eigenvalues' mean square over their mean, from a random direction."""
        random = np.random.default_rng(0).standard_normal((1, 1, self.n_train))
        r = self.adjoint(self.place.array(random, dtype=dtype))
        z, image = self._plain(dtype)(r)
        length = float(self.xp.sum(self.pair(z, z, image)))
        return float(self.xp.sum(image * image)) > _CORRELATED * length * self._mean_eigenvalue()

    def _build_cost(self) -> float:
        longer = max(self.n_train, self.split.n_features)
        return self.width**2 * longer + self.width**3 / 3

    def _times(self, V: Array, B: Array) -> Array:
        """Multiply; with three classes or more, which add up to zero, all but the last."""
        return self._balanced(lambda some, out: times(some, B, out), V, B.shape[1])

    def _balanced(self, multiply: Product, V: Array, width: int) -> Array:
        xp = self.xp
        result = xp.empty((*V.shape[:-1], width), dtype=V.dtype, device=self.place.name)
        if V.shape[0] < 3:
            multiply(V, result)
        else:
            multiply(V[:-1, :, :], result[:-1, :, :])
            result[-1, :, :] = -xp.sum(result[:-1, :, :], axis=0)
        return result

    def _train(self, dtype: Any) -> Array:
        """The normalized training rows in a dtype."""
        if dtype not in self._cast:
            rows = self.split.train_rows()
            self._cast[dtype] = self.xp.astype(rows, dtype, copy=False)
        return self._cast[dtype]

    def norm(self) -> float:
        raise NotImplementedError

    def adjoint(self, residual: Array) -> Array:
        raise NotImplementedError

    def pair(self, u: Array, v: Array, image_of_v: Array) -> Array:
        raise NotImplementedError

    def _matrix(self, dtype: Any) -> Array:
        raise NotImplementedError

    def _plain(self, dtype: Any) -> Preconditioner:
        raise NotImplementedError

    def _with(self, w: float, solve: Product, dtype: Any) -> Preconditioner:
        raise NotImplementedError


class DualSpace(_Space):
    """Coefficients as one number per training row.

    Parameters
    ----------
    split : Split
    many : bool
        Whether many columns will be fitted: their products go through the Gram matrix in float64.
        Those of few go through the rows, as the Gram matrix would cost more than it saves.
    """

    def __init__(self, split: Split, *, many: bool) -> None:
        super().__init__(split, split.n_train, many=many)
        self._grams: dict[Any, Array] = {}
        if many:
            split.gram()
            split.forget_rows()

    def image(self, A: Array) -> Array:
        """Decisions on the training rows, without the intercept."""
        if self.many:
            return self._times(A, self._matrix(A.dtype))
        train = self._train(A.dtype)
        return self._times(self._times(A, train), train.T)

    def adjoint(self, residual: Array) -> Array:
        """What a residual on the training rows is in this space."""
        return residual

    def pair(self, u: Array, v: Array, image_of_v: Array) -> Array:
        """Inner products of coefficients, (classes, labelings)."""
        return self.xp.vecdot(u, image_of_v, axis=-1)

    def norm(self) -> float:
        """An upper bound of the largest eigenvalue of the Gram matrix."""
        if self._norm is None:
            if self.many:
                sums = self.xp.sum(self.xp.abs(self.split.gram()), axis=0)
                self._norm = float(self.xp.max(sums))
            else:
                train = self.split.train_rows()
                self._norm = float(self.xp.sum(self.xp.vecdot(train, train, axis=-1)))
        return self._norm

    def _matrix(self, dtype: Any) -> Array:
        if dtype not in self._grams:
            if self.many:
                gram = self.split.gram()
                self._grams[dtype] = self.xp.astype(gram, dtype, copy=False)
            else:
                train = self._train(dtype)
                self._grams[dtype] = train @ train.T
        return self._grams[dtype]

    def _plain(self, dtype: Any) -> Preconditioner:
        if self.built:
            gram = self._matrix(dtype)
            return lambda r: (r, self._times(r, gram))
        train = self._train(dtype)
        return lambda r: (r, self._times(self._times(r, train), train.T))

    def _with(self, w: float, solve: Product, dtype: Any) -> Preconditioner:
        def apply(r: Array) -> tuple[Array, Array]:
            z = self._balanced(solve, r, self.width)
            image = r - z
            image *= 1 / w
            return z, image

        return apply


class PrimalSpace(_Space):
    """Coefficients as they are, for at least as many training rows as columns.

    Parameters
    ----------
    split : Split
    many : bool
        Whether many columns will be fitted, so that a preconditioner pays off at once.
    """

    def __init__(self, split: Split, *, many: bool) -> None:
        super().__init__(split, split.n_features, many=many)
        self._moments: dict[Any, Array] = {}

    def image(self, A: Array) -> Array:
        """Decisions on the training rows, without the intercept."""
        return self._times(A, self._train(A.dtype).T)

    def adjoint(self, residual: Array) -> Array:
        """What a residual on the training rows is in this space."""
        return self._times(residual, self._train(residual.dtype))

    def pair(self, u: Array, v: Array, image_of_v: Array) -> Array:
        """Inner products of coefficients, (classes, labelings)."""
        return self.xp.vecdot(u, v, axis=-1)

    def norm(self) -> float:
        """An upper bound of the largest eigenvalue of X'X: its trace."""
        if self._norm is None:
            train = self.split.train_rows()
            self._norm = float(self.xp.sum(self.xp.vecdot(train, train, axis=-1)))
        return self._norm

    def _matrix(self, dtype: Any) -> Array:
        if dtype not in self._moments:
            train = self._train(dtype)
            self._moments[dtype] = train.T @ train
        return self._moments[dtype]

    def _plain(self, dtype: Any) -> Preconditioner:
        train = self._train(dtype)
        return lambda r: (r, self._times(r, train.T))

    def _with(self, w: float, solve: Product, dtype: Any) -> Preconditioner:
        train = self._train(dtype)

        def apply(r: Array) -> tuple[Array, Array]:
            z = self._balanced(solve, r, self.width)
            return z, self._times(z, train.T)

        return apply
