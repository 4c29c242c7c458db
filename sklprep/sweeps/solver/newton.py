r"""Newton's method with preconditioned conjugate gradients, for many labelings in lockstep.

The objective of a labeling, with weights c of its rows, is

.. math:: f(W, b) = \tfrac12 \|W\|^2 + \sum_i c_i \, \ell(\tilde x_i^T W + b, y_i) .

Each step solves :math:`(I + \tilde X^T D \tilde X) \Delta = -\nabla f` roughly, with D the
Hessian of the loss in the decisions, and moves along :math:`\Delta` as far as the objective falls
enough [1]_ [2]_. All labelings step at the same time, so that their products with one matrix are
one product; those that have finished leave.

**Stopping rule.** A labeling has finished after a full step, from a gradient in float64, that
changes neither its coefficients nor its intercepts by more than `tol`:

.. math:: \|\Delta_W\| \le \mathtt{tol} \, \|W\|, \qquad
          \sqrt n \, \|\Delta_b\| \le \mathtt{tol} \, \|\tilde X W + b\| .

To first order :math:`\|\Delta_W\|` is the error before the step, of which the step leaves a
fraction. So coefficients are relatively as exact as `tol`, and no decision is off by more than
:math:`\mathtt{tol} \, \|W\| \|\tilde x\|` and the intercept's part. This holds whatever the
penalty, the number of rows or the units of X, where a bound of the gradient depends on all of them.
At the default of 1e-2, decisions of 18 data sets, permuted labels among them, were within 1e-4 to
2e-3 of the largest. At tol 1e-8 they are within 1e-9, except for models penalised so weakly
(C = 1e5 and separable labels) that float64 leaves 1e-6.

**Cost.** A step takes 2 to 5 products (`spaces`) far from the optimum and one evaluation of the
loss. With C = 1 and four classes, it took 5 to 8 steps and 15 to 40 products per labeling at the
default tolerance: few for noise, many for correlated columns.

References
----------
.. [1] C.-J. Lin, R. C. Weng and S. S. Keerthi (2008). Trust region Newton method for large-scale
   logistic regression. JMLR 9, 627-650.
.. [2] S. G. Nash and A. Sofer (1990). Assessing a search direction within a truncated-Newton
   method. Operations Research Letters 9(4), 219-221.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.sweeps.solver.arrays import Array, to_numpy
from sklprep.sweeps.solver.gradients import NewtonSystem
from sklprep.sweeps.solver.losses import Loss
from sklprep.sweeps.solver.spaces import Space

_ENOUGH = 0.5
"""A step is solved when the last product's share of the decrement, times the number of products,
is below this, as Nash and Sofer advise: a test that costs no product, where one of the residual
costs a product. 1 took a third more steps, each with an evaluation of the loss."""

_ENOUGH_LATE = 0.02
"""The same near the optimum, where steps converge faster than linearly if they are solved well."""

_LATE = 3e-3
"""Late is below this change."""

_COARSE = 3e-2
"""Down to this change, decisions are updated in the dtype of products. Then they are computed from
the coefficients in float64, for every further step."""

_AT_ROUNDING = 1e-5
"""Below this change, two steps that do not halve it only move rounding errors."""

_ROUNDINGS = 16
"""The objective may rise by this many units in its last place, which is the error of its sum: steps
near the optimum gain less."""

_STUCK = 1e-6
"""A step that is shortened below this is not downhill: products must be more precise."""

_TINY = float(np.finfo(np.float32).tiny)
_ARMIJO = 1e-4
_MAX_HALVINGS = 40
_MAX_STEPS = 200


@dataclass
class Solution:
    """Coefficients of a batch of labelings, and how they were reached.

    Attributes
    ----------
    A : array of shape (classes, labelings, width), float64
    intercept : array of shape (classes, labelings, 1), float64
    n_steps : ndarray of shape (labelings,), int64
    change : ndarray of shape (labelings,), float64
        Change in the last step, relative to coefficients and decisions.
    converged : ndarray of shape (labelings,), bool
        Whether the change was below `tol`, or at rounding error.
    """

    A: Array
    intercept: Array
    n_steps: NDArray[np.int64]
    change: NDArray[np.float64]
    converged: NDArray[np.bool_]


def minimize(
    space: Space,
    loss: Loss,
    target: Array,
    weights: Array,
    intercept: Array | None,
    tol: float,
) -> Solution:
    """Fit a batch of labelings.

    Parameters
    ----------
    space : DualSpace or PrimalSpace
    loss : Sigmoid or Softmax
    target : array of shape (classes, labelings, rows), float64
        1 for the class of a row.
    weights : array of shape (1, labelings, rows or 1), float64
        C times the weights of the rows.
    intercept : array of shape (classes, labelings, 1), float64, or None
        Where to start; None for a model without intercept.
    tol : float
        The largest change, relative to coefficients and decisions, of the last step.

    Returns
    -------
    Solution
    """
    xp = space.xp
    n_classes, n_labelings, _ = target.shape
    shape = (n_classes, n_labelings, space.width)
    largest = float(xp.max(xp.mean(weights, axis=-1))) / 4  # the curvature of even odds
    dtype = space.precision(largest)
    found = Solution(
        A=space.place.array(np.zeros(shape)),
        intercept=space.place.array(np.zeros((n_classes, n_labelings, 1)))
        if intercept is None
        else intercept,
        n_steps=np.zeros(n_labelings, np.int64),
        change=np.full(n_labelings, np.inf),
        converged=np.zeros(n_labelings, bool),
    )
    for end, outer, exact in ((max(tol, _COARSE), dtype, False), (tol, xp.float64, True)):
        cast = xp.astype(weights, outer, copy=False)
        batch = _Batch(
            space=space,
            loss=loss,
            dtype=dtype,
            has_intercept=intercept is not None,
            target=xp.astype(target, outer) * cast,
            weights=cast,
            A=_without_common_part(xp.astype(found.A, outer), xp),
            intercept=xp.astype(found.intercept, outer),
            change=found.change.copy(),
            previous=found.change.copy(),
        )
        _run(batch, found, end, exact=exact)
    return found


def _run(batch: _Batch, found: Solution, tol: float, *, exact: bool) -> None:
    """Step until every labeling has finished; finished ones leave, and are stored in `found`."""
    index = batch.space.place.index
    where = np.arange(len(found.n_steps))
    for step in range(_MAX_STEPS):
        two_ago = batch.previous
        if exact or step == 0:
            batch.start()
        lengths = batch.step()
        found.n_steps[where] += 1
        converged = (lengths == 1) & (batch.change <= tol)
        stuck = lengths < _STUCK
        if exact:
            # steps leave a fraction of the change, unless they are of rounding errors
            converged |= (batch.change < _AT_ROUNDING) & (batch.change > two_ago / 2)
        if stuck.any() and (not exact or batch.dtype == batch.space.xp.float64):
            leave = converged | stuck  # for float64; or there is nothing to gain any more
        else:
            leave = converged
            batch.dtype = batch.space.xp.float64 if stuck.any() else batch.dtype
        left = np.flatnonzero(~leave)
        last = step + 1 == _MAX_STEPS
        if len(left) == len(where) and not last:
            continue
        done = np.arange(len(where)) if last else np.flatnonzero(leave)
        found.A[:, index(where[done]), :] = _take(batch, batch.A, done, found.A)
        found.intercept[:, index(where[done]), :] = _take(batch, batch.intercept, done, found.A)
        found.change[where[done]] = batch.change[done]
        found.converged[where[done]] = converged[done]
        if not len(left):
            return
        where = where[left]
        batch = batch.take(left)


def _without_common_part(A: Array, xp: Any) -> Array:
    """Remove what rounding adds to all classes; products infer the last class from the others."""
    return A if A.shape[0] < 3 else A - xp.mean(A, axis=0)


def _take(batch: _Batch, values: Array, columns: NDArray[np.intp], like: Array) -> Array:
    xp = batch.space.xp
    return xp.astype(xp.take(values, batch.space.place.index(columns), axis=1), like.dtype)


@dataclass
class _Batch:
    """Labelings that are being fitted: arrays of shape (classes, labelings, rows, width or 1).

    F are the decisions without the intercept, `norms` the squared norms of the coefficients, and
    `value` the losses, which sum up terms of the size `size`. All follow the steps, and are
    computed from A by `start`.
    """

    space: Space
    loss: Loss
    dtype: Any
    has_intercept: bool
    target: Array
    weights: Array
    A: Array
    intercept: Array
    change: NDArray[np.float64]
    previous: NDArray[np.float64]
    F: Array = None
    P: Array = None
    value: Any = None
    size: Any = None
    norms: Any = None

    def take(self, columns: NDArray[np.intp]) -> _Batch:
        """Give some of the labelings."""
        xp, index = self.space.xp, self.space.place.index(columns)
        kept: dict[str, Any] = {
            name: xp.take(getattr(self, name), index, axis=1)
            for name in ("target", "weights", "A", "intercept", "F", "P")
        }
        for name in ("change", "previous", "value", "size", "norms"):
            kept[name] = getattr(self, name)[columns]
        return replace(self, space=self.space.take(columns), **kept)

    def start(self) -> None:
        """Compute decisions, norms, probabilities and losses from the coefficients."""
        self.F = self.space.image(self.A)
        self.norms = self._pair(self.A, self.A, self.F)
        self.P, self.value, self.size = self._evaluate(self.F + self.intercept)

    def step(self) -> NDArray[np.float64]:
        """Do one step of Newton's method; give its lengths, 1 for full ones."""
        xp, space = self.space.xp, self.space
        if self.A.dtype == xp.float64:
            decisions = self.F + self.intercept
            residual = self.loss.residual(self.P, decisions, self.target, self.weights)
        else:
            residual = self.target - self.P * self.weights
        slope = xp.sum(residual, axis=-1, keepdims=True)
        residual = space.adjoint(residual)
        residual -= self.A
        system = NewtonSystem(
            space,
            self.loss,
            xp.astype(self.P, self.dtype, copy=False),
            xp.astype(self.weights, self.dtype, copy=False),
            has_intercept=self.has_intercept,
        )
        x, moved, image, squares = system.solve(
            xp.astype(residual, self.dtype, copy=False),
            xp.astype(slope, self.dtype, copy=False),
            np.where(self.change < _LATE, _ENOUGH_LATE, _ENOUGH),
        )
        x, moved, image = (xp.astype(v, self.A.dtype, copy=False) for v in (x, moved, image))
        return self._move(_without_common_part(x, xp), moved, image, squares)

    def _move(
        self, x: Array, moved: Array, image: Array, squares: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Move along x as far as the objective falls enough; give the lengths of the steps."""
        # the penalty along the step is a parabola, halves of norms + 2 t flat + t^2 curved
        flat, curved = self._pair(self.A, x, image), self._pair(x, x, image)
        rounding = _ROUNDINGS * float(self.space.xp.finfo(self.A.dtype).eps) * self.size
        lengths = np.ones(len(squares))
        for _ in range(_MAX_HALVINGS):
            t = self.space.place.array(lengths.reshape(1, -1, 1), dtype=self.A.dtype)
            F, intercept = self.F + t * image, self.intercept + t * moved
            decisions = F + intercept
            P, value, size = self._evaluate(decisions)
            change = value - self.value + lengths * flat + lengths**2 * curved / 2
            too_far = ~(change <= rounding - _ARMIJO * lengths * squares)
            if not too_far.any():
                break
            lengths[too_far] /= 2
        self.F, self.P, self.intercept, self.value, self.size = F, P, intercept, value, size
        self.A += t * x
        self.norms = self.norms + 2 * lengths * flat + lengths**2 * curved
        ratios = lengths**2 * np.maximum(curved, 0) / np.maximum(self.norms, _TINY)
        # no penalty bounds the step of the intercept, which is compared with the decisions
        shifts = lengths**2 * self._squares(moved) * F.shape[-1]
        shifts /= np.maximum(self._squares(decisions), _TINY)
        self.previous, self.change = self.change, np.sqrt(np.maximum(ratios, shifts))
        return lengths

    def _evaluate(self, decisions: Array) -> tuple[Array, Any, Any]:
        P, value, size = self.loss.evaluate(decisions, self.target, self.weights)
        return P, to_numpy(value).astype(np.float64), to_numpy(size).astype(np.float64)

    def _squares(self, V: Array) -> NDArray[np.float64]:
        products = self.space.xp.sum(self.space.xp.vecdot(V, V, axis=-1), axis=0)
        return to_numpy(products).astype(np.float64)

    def _pair(self, u: Array, v: Array, image_of_v: Array) -> NDArray[np.float64]:
        products = self.space.xp.sum(self.space.pair(u, v, image_of_v), axis=0)
        return to_numpy(products).astype(np.float64)
