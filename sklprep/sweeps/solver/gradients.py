"""The equations of one step of Newton's method, by preconditioned conjugate gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.sweeps.solver.arrays import Array, to_numpy
from sklprep.sweeps.solver.losses import Loss
from sklprep.sweeps.solver.spaces import W_STEP, Space

_LOWER_CURVATURE = 0.5
"""Share of the mean curvature that the preconditioner assumes: rows that are fitted well have
hardly any, and 0.5 took up to a quarter fewer products than 1."""

_LEAST_CURVATURE = 1e-7
"""Lower bound of the intercept's curvature per row, relative to its weight: in float32 it vanishes
where a step made all rows of a batch certain, right or wrong."""

_TINY = float(np.finfo(np.float32).tiny)
_MAX_PRODUCTS = 1_000


class NewtonSystem:
    r"""The equations :math:`(I + \tilde X^T D \tilde X) x = r` of a batch of labelings.

    The intercept, which is not penalised, is one more unknown per class. It is preconditioned by
    the inverse of its own diagonal: as columns are centred, it is nearly independent of the
    others.

    Parameters
    ----------
    space : DualSpace or PrimalSpace
    loss : Sigmoid or Softmax
    P : array of shape (classes, labelings, rows)
        Probabilities, in the dtype of products.
    weights : array of shape (1, labelings, rows or 1)
    has_intercept : bool
    """

    def __init__(
        self, space: Space, loss: Loss, P: Array, weights: Array, *, has_intercept: bool
    ) -> None:
        self._space, self._loss, self._P, self._weights = space, loss, P, weights
        self._has_intercept = has_intercept
        self._hessian, total = loss.hessian(P, weights)
        mean = to_numpy(loss.curvature(total)).astype(np.float64) / P.shape[-1]
        exponent = np.log(np.maximum(mean * _LOWER_CURVATURE, _TINY)) / np.log(W_STEP)
        self._levels = W_STEP ** np.round(exponent)
        least = _LEAST_CURVATURE * space.xp.mean(weights, axis=-1, keepdims=True)
        self._intercept_scale = total + least * P.shape[-1]

    def solve(
        self, r: Array, rb: Array, enough: NDArray[np.float64]
    ) -> tuple[Array, Array, Array, NDArray[np.float64]]:
        """Solve for the step.

        Parameters
        ----------
        r, rb : array of shape (classes, labelings, width) and (classes, labelings, 1)
            Minus the gradient of coefficients and intercept. Overwritten.
        enough : ndarray of shape (labelings,)
            Stop when the last product's share of the decrement, times their number, is below.

        Returns
        -------
        x, xb, image : arrays
            The step of coefficients and intercept, and the image of x.
        squares : ndarray of shape (labelings,)
            Newton's decrement, squared.
        """
        xp, place = self._space.xp, self._space.place
        has_intercept = self._has_intercept
        system, where = self, np.arange(r.shape[1])
        z, zb, image_z = system._precondition(r, rb)
        rz = system._pair(r, rb, z, zb, image_z)
        squares, going = np.zeros(len(where)), rz > 0
        # without a preconditioner z is r itself, which the loop writes to
        now = {"r": r, "rb": rb, "d": z * 1, "db": zb * 1, "image_d": image_z}
        now |= {"x": r * 0, "xb": rb * 0, "image": image_z * 0}
        found = {name: now[name] for name in ("x", "xb", "image")}  # filled as labelings leave
        for n_products in range(1, _MAX_PRODUCTS + 1):
            decisions = now["image_d"] + now["db"] if has_intercept else now["image_d"]
            q = system._hessian(decisions)
            dhd = system._curvature(now["d"], now["image_d"], q, decisions)
            going &= dhd > 0
            a = np.where(going, rz, 0) / np.where(going, dhd, 1)
            squares[where] += a * rz
            factor = place.array(a.reshape(1, -1, 1), dtype=r.dtype)
            for name, along in (("x", "d"), ("xb", "db"), ("image", "image_d")):
                now[name] += factor * now[along]
            going &= n_products * a * rz > enough[where] * squares[where]
            leave = going.sum() <= self._space.crowded * len(going)
            if leave or n_products == _MAX_PRODUCTS:
                for name, whole in found.items():
                    if whole is not now[name]:
                        whole[:, place.index(where), :] = now[name]
            if not going.any():
                break
            q *= factor
            now["rb"] -= xp.sum(q, axis=-1, keepdims=True)
            now["r"] -= system._space.adjoint(q)
            now["r"] -= factor * now["d"]
            if leave:
                left = np.flatnonzero(going)
                now = {name: xp.take(v, place.index(left), axis=1) for name, v in now.items()}
                where, going, rz = where[left], going[left], rz[left]
                system = system._take(left)
            z, zb, image_z = system._precondition(now["r"], now["rb"])
            before, rz = rz, system._pair(now["r"], now["rb"], z, zb, image_z)
            going &= rz > 0
            b = np.where(going, rz, 0) / np.where(going, before, 1)
            factor = place.array(b.reshape(1, -1, 1), dtype=r.dtype)
            for name, new in (("d", z), ("db", zb), ("image_d", image_z)):
                now[name] *= factor
                now[name] += new
        return found["x"], found["xb"], found["image"], squares

    def _take(self, columns: NDArray[np.intp]) -> NewtonSystem:
        """Give the equations of some of the labelings."""
        xp, index = self._space.xp, self._space.place.index(columns)
        P, weights = (xp.take(values, index, axis=1) for values in (self._P, self._weights))
        space = self._space.take(columns)
        return NewtonSystem(space, self._loss, P, weights, has_intercept=self._has_intercept)

    def _curvature(self, d: Array, image: Array, q: Array, decisions: Array) -> Any:
        """Give d'Hd of directions, of which `q` is the product with the loss's Hessian."""
        xp = self._space.xp
        products = self._space.pair(d, d, image) + xp.vecdot(q, decisions, axis=-1)
        return to_numpy(xp.sum(products, axis=0)).astype(np.float64)

    def _precondition(self, r: Array, rb: Array) -> tuple[Array, Array, Array]:
        """Give preconditioned residuals, those of the intercept, and the image of the former."""
        xp = self._space.xp
        z, image = self._space.precondition(self._levels, r)
        if not self._has_intercept:
            return z, rb * 0, image
        zb = rb / self._intercept_scale
        if len(zb) > 1:
            zb = zb - xp.mean(zb, axis=0)
        return z, zb, image

    def _pair(
        self, u: Array, ub: Array, v: Array, vb: Array, image_of_v: Array
    ) -> NDArray[np.float64]:
        """Inner products of u and v, each with its intercept."""
        products = self._space.pair(u, v, image_of_v) + ub[:, :, 0] * vb[:, :, 0]
        return to_numpy(self._space.xp.sum(products, axis=0)).astype(np.float64)
