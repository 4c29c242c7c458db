"""The losses of logistic regression over decisions of shape (classes, labelings, rows).

Arguments that recur: F, the decisions; P, the probabilities; `weights` of shape
(1, labelings, rows or 1); `target`, the weights where the row is of the class, otherwise 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sklprep.sweeps.solver.arrays import Array


class Sigmoid:
    """Two classes as one column of decisions: log(1 + exp(f)) - t f, with t the second class."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    def evaluate(self, F: Array, target: Array, weights: Array) -> tuple[Array, Array, Array]:
        """Give probabilities as F, the loss of each labeling, and the size of what it sums."""
        xp = self._xp
        small = xp.exp(-xp.abs(F))  # never overflows
        losses = xp.log1p(small)
        losses += xp.maximum(F, F * 0)
        losses *= weights
        whole, own = xp.sum(losses, axis=(0, 2)), xp.vecdot(target, F, axis=-1)[0]
        P = xp.where(F > 0, 1 + small * 0, small)
        P /= 1 + small
        return P, whole - own, whole + xp.abs(own)

    def residual(self, P: Array, F: Array, target: Array, weights: Array) -> Array:
        """Give minus the gradient in F; as precise where P rounds to 1 as where it is small."""
        xp = self._xp
        small = xp.exp(-xp.abs(F))
        others = xp.where(F > 0, small, 1 + small * 0)
        others /= 1 + small
        return xp.where(target > 0, target * others, -weights * P)

    def hessian(self, P: Array, weights: Array) -> tuple[Callable[[Array], Array], Array]:
        """Give the product with the Hessian in F, and the sums over rows of its diagonal."""
        D = weights * P
        D *= 1 - P
        return (lambda V: D * V), self._xp.sum(D, axis=-1, keepdims=True)

    @staticmethod
    def curvature(total: Array) -> Array:
        """Give the Hessian's mean eigenvalue from what `hessian` says, times the rows."""
        return total[0, :, 0]


class Softmax:
    """Three classes or more: log sum_c exp(f_c) - f_t. Decisions may be shifted by any constant."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    def evaluate(self, F: Array, target: Array, weights: Array) -> tuple[Array, Array, Array]:
        """Give probabilities as F, the loss of each labeling, and the size of what it sums."""
        xp = self._xp
        highest = xp.max(F, axis=0)
        P = xp.exp(F - highest)
        total = xp.sum(P, axis=0)
        P /= total
        highest += xp.log(total)
        highest *= weights[0, :, :]
        whole, own = xp.sum(highest, axis=-1), xp.sum(xp.vecdot(target, F, axis=-1), axis=0)
        return P, whole - own, xp.abs(whole) + xp.abs(own)

    def residual(self, P: Array, F: Array, target: Array, weights: Array) -> Array:
        """Give minus the gradient in F; as precise where P rounds to 1 as where it is small."""
        xp = self._xp
        others = xp.where(target > 0, P * 0, weights * P)
        return xp.where(target > 0, xp.sum(others, axis=0), -others)

    def hessian(self, P: Array, weights: Array) -> tuple[Callable[[Array], Array], Array]:
        """Give the product with the Hessian in F, and the sums over rows of its diagonal."""
        xp, weighted = self._xp, weights * P

        def multiply(V: Array) -> Array:
            result = V - xp.sum(P * V, axis=0)
            result *= weighted
            return result

        total = xp.vecdot(weighted, 1 - P, axis=-1)
        return multiply, total[:, :, None]

    def curvature(self, total: Array) -> Array:
        """Give the Hessian's mean eigenvalue from what `hessian` says, times the rows.

        Of the k eigenvalues of diag(p) - pp' one is always zero: no decisions move along it.
        """
        return self._xp.sum(total[:, :, 0], axis=0) / (total.shape[0] - 1)


Loss = Sigmoid | Softmax
