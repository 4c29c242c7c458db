"""Logistic regression, for all labelings and penalties of one split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.exceptions import UsageError
from sklprep.sweeps.solver.arrays import Array, to_numpy
from sklprep.sweeps.solver.fits import LogisticFit
from sklprep.sweeps.solver.labels import Labelings, read_labels, read_sample_weight
from sklprep.sweeps.solver.losses import Loss, Sigmoid, Softmax
from sklprep.sweeps.solver.newton import Solution, minimize
from sklprep.sweeps.solver.spaces import DualSpace, PrimalSpace
from sklprep.sweeps.solver.split import Split
from sklprep.sweeps.solver.stacks import count_stacked, stack_splits

TOL = 1e-2
"""The default of `tol`. On 18 data sets of 12 to 24 labelings no prediction of a test row differed
from the optimum's; of newton-cg's at its default tolerance 0.7 % did, of lbfgs's 1.1 %. At 3e-2 it
was 0.06 %."""

BATCH_ELEMENTS = 1 << 17
"""Classes times labelings times rows of a batch: a quarter megabyte in float32, so that what
conjugate gradients hold stays in the caches."""

_DEVICE_BATCH = 1 << 25
"""The same where torch computes: an accelerator wants large products."""

_MANY = 16
"""A Gram matrix in float64 pays off from one column per this many rows."""

_SMALLEST_SHARE = 1e-6

_SLACK = 1.1
"""How far a coefficient may be beyond its bound. Fits of well-conditioned rows stay below 1. Where
few rows are distinct, the Gram matrix has a null space, in which some labelings of a large batch
drift off to 10 and 1e6, and take their decisions along."""


def fit_logistic(
    split: Split,
    y: ArrayLike,
    penalties: Sequence[float] = (1.0,),
    *,
    class_weight: Any = None,
    sample_weight: ArrayLike | None = None,
    tol: float = TOL,
    keep_coef: bool = False,
) -> list[list[LogisticFit]]:
    r"""Fit L2-penalised logistic regressions: every labeling with every penalty.

    Parameters
    ----------
    split : Split
        Its `fit_intercept` says whether there is an intercept.
    y : array-like of shape (n_samples,) or (n_labelings, n_samples)
        Labels of all rows of X, of any type that sorts. Those of test rows are not used.
    penalties : sequence of float, default=(1.0,)
        Values of C.
    class_weight : dict, "balanced" or None, default=None
    sample_weight : array-like of shape (n_samples,), default=None
    tol : float, default=1e-2
        Relative precision of the coefficients, see Notes.
    keep_coef : bool, default=False
        Compute ``coef_`` and ``intercept_`` too.

    Returns
    -------
    list of list of LogisticFit
        A list for each penalty, with a fit for each labeling.

    Raises
    ------
    InsufficientDataError
        If the training rows of a labeling have one class only.
    UsageError
        If shapes do not fit, a penalty is not positive, or `tol` is not between 0 and 1.

    Notes
    -----
    The objective is that of `sklearn.linear_model.LogisticRegression`,

    .. math:: \min_{W, b} \; \tfrac12 \|W\|^2 + C \sum_i s_i \, \ell(W^T \tilde x_i + b, y_i)

    with the softmax loss and one column of W per class or, for two classes, the logistic loss and a
    single column; b is not penalised.

    It is minimized by Newton's method in lockstep: see the modules `newton` (derivation, stopping
    rule and its guarantees) and `spaces` (products, precision). Labelings go in batches of a
    constant size, so that a result depends on the arguments alone, not on the number of jobs.
    Predictions agree with the optimum in more test rows than those of scikit-learn's solvers at
    their defaults; ``tol=1e-8`` gives 1e-9 of the largest decision.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep.sweeps.solver import Split, fit_logistic
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["no", "yes"], 20)
    >>> X = rng.normal(size=(40, 100)) + (y == "yes")[:, np.newaxis]
    >>> split = Split(X, train=range(0, 40, 2), test=range(1, 40, 2))
    >>> permuted = [y, rng.permutation(y)]
    >>> strong, weak = fit_logistic(split, permuted, penalties=[0.01, 1.0])
    >>> float((weak[0].predict(range(20)) == y[split.test]).mean())
    1.0
    """
    penalties = [float(C) for C in penalties]
    if not all(0 < C < np.inf for C in penalties):
        raise UsageError(f"Penalties C must be positive and finite, got {penalties}.")
    if not 0 < tol < 1:
        raise UsageError(f"tol must be between 0 and 1, got {tol}.")
    weights = read_sample_weight(split, sample_weight)
    n_labelings, groups = read_labels(split, y)
    fits: list[list[Any]] = [[None] * n_labelings for _ in penalties]
    for labelings in groups:
        space = open_space(split, len(labelings.codes) * len(penalties) * len(labelings.classes))
        for columns in _batches(split, labelings, penalties):
            batch = _Batch(space, labelings, columns, penalties, class_weight, weights)
            for (penalty, labeling), fit in zip(columns, batch.fit(tol, keep_coef), strict=True):
                fits[penalty][labelings.positions[labeling]] = fit
    return fits


def open_space(split: Split, n_columns: int) -> DualSpace | PrimalSpace:
    """Choose the space of a split's coefficients, and keep it with the split."""
    many = n_columns * _MANY >= split.n_train
    if many not in split.spaces:
        split.spaces.clear()
        split.spaces[many] = (DualSpace if split.is_dual else PrimalSpace)(split, many=many)
    return split.spaces[many]


def _batches(
    split: Split, labelings: Labelings, penalties: list[float]
) -> Iterator[list[tuple[int, int]]]:
    """Give (penalty, labeling) by batches of a constant size, those of a penalty together."""
    columns = [(p, i) for p in range(len(penalties)) for i in range(len(labelings.codes))]
    n_classes = len(labelings.classes)
    elements = BATCH_ELEMENTS if split.place.is_numpy else _DEVICE_BATCH
    size = max(1, elements // (split.n_train * (1 if n_classes == 2 else n_classes)))
    for start in range(0, len(columns), size):
        yield columns[start : start + size]


class _Batch:
    """Some labelings with their penalties, as arrays."""

    def __init__(
        self,
        space: DualSpace | PrimalSpace,
        labelings: Labelings,
        columns: list[tuple[int, int]],
        penalties: list[float],
        class_weight: Any,
        sample_weight: NDArray[np.float64] | None,
    ) -> None:
        self._space, self._classes = space, labelings.classes
        C = np.array([penalties[penalty] for penalty, _ in columns])
        codes = labelings.codes[[labeling for _, labeling in columns]]
        some = Labelings(np.arange(len(columns)), labelings.classes, codes)
        by_class = some.class_weights(class_weight, sample_weight)
        rows = np.ones((1, 1)) if sample_weight is None else sample_weight[np.newaxis]
        rows = rows if by_class is None else rows * by_class
        self._weights = (C[:, np.newaxis] * rows)[np.newaxis]
        self._target = _make_target(codes, len(labelings.classes))

    def fit(self, tol: float, keep_coef: bool) -> list[LogisticFit]:
        space, split, array = self._space, self._space.split, self._space.place.array
        start = _start(self._weights, self._target) if split.fit_intercept else None
        found = minimize(
            space,
            _choose_loss(space.xp, self._target),
            array(self._target),
            array(self._weights),
            None if start is None else array(start),
            tol,
        )
        decisions = to_numpy(split.decide(found.A) + found.intercept)
        is_possible = _find_possible(found, self._weights, is_dual=split.is_dual)
        fits = []
        for column in range(decisions.shape[1]):
            fit = _describe(self._classes, decisions[:, column], found, column, is_possible)
            if keep_coef:
                A: Array = found.A[:, column, :]
                fit.coef_, fit.intercept_ = split.coefficients(A, found.intercept[:, column, 0])
            fits.append(fit)
        return fits


def fit_logistic_each(
    splits: Sequence[Split],
    y: ArrayLike,
    penalty: float = 1.0,
    *,
    class_weight: Any = None,
    tol: float = TOL,
) -> list[LogisticFit]:
    """Fit one labeling on each of several splits, in lockstep: see `stacks`.

    Parameters
    ----------
    splits : sequence of Split
        With the same X, method and intercept.
    y : array-like of shape (n_samples,)
    penalty : float, default=1.0
        C.
    class_weight, tol
        As in `fit_logistic`.

    Returns
    -------
    list of LogisticFit
        One for each split.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep.sweeps.solver import Split, fit_logistic_each
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.normal(size=(40, 100)), np.arange(40) % 2
    >>> folds = [np.arange(40) % 4 == k for k in range(4)]
    >>> fits = fit_logistic_each([Split(X, ~fold, fold) for fold in folds], y)
    >>> [fit.decisions.shape for fit in fits]
    [(10,), (10,), (10,), (10,)]
    """
    labelings: list[Labelings] = []
    for split in splits:
        labelings += read_labels(split, y)[1]
    fits: list[LogisticFit] = []
    start = 0
    while start < len(splits):
        first, n_most = labelings[start], count_stacked(splits[start])
        end = start + 1
        while end < min(len(splits), start + n_most) and _are_alike(
            (splits[start], first), (splits[end], labelings[end])
        ):
            end += 1
        if end == start + 1:
            options: dict[str, Any] = {"class_weight": class_weight, "tol": tol}
            fits += fit_logistic(splits[start], y, [penalty], **options)[0]
        else:
            some = slice(start, end)
            fits += _fit_stack(splits[some], labelings[some], penalty, class_weight, tol)
        start = end
    return fits


def _are_alike(one: tuple[Split, Labelings], other: tuple[Split, Labelings]) -> bool:
    """Whether two splits can be of the same stack."""
    (split, labels), (other_split, other_labels) = one, other
    return split.is_dual == other_split.is_dual and np.array_equal(
        labels.classes, other_labels.classes
    )


def _fit_stack(
    splits: Sequence[Split],
    labelings: Sequence[Labelings],
    penalty: float,
    class_weight: Any,
    tol: float,
) -> list[LogisticFit]:
    space, classes = stack_splits(splits), labelings[0].classes
    n = max(split.n_train for split in splits)
    weights = np.zeros((1, len(splits), n))
    target = np.zeros((1 if len(classes) == 2 else len(classes), len(splits), n))
    for i, of_split in enumerate(labelings):
        rows = slice(splits[i].n_train)
        by_class = of_split.class_weights(class_weight, None)
        weights[0, i, rows] = penalty if by_class is None else penalty * by_class[0]
        target[:, i, rows] = _make_target(of_split.codes, len(classes))[:, 0]
    start = _start(weights, target) if splits[0].fit_intercept else None
    found = minimize(space, _choose_loss(space.xp, target), target, weights, start, tol)
    is_possible = _find_possible(found, weights, is_dual=space.is_dual)
    fits = []
    for i, split in enumerate(splits):
        A = found.A[:, i, : split.n_train if split.is_dual else split.n_features]
        decisions = split.decide(A) + found.intercept[:, i]
        fits.append(_describe(classes, decisions, found, i, is_possible))
    return fits


def _make_target(codes: NDArray[np.intp], n_classes: int) -> NDArray[np.float64]:
    """Give 1 where a row has the class of a column of coefficients, else 0: (columns, *codes)."""
    shown = np.arange(1, 2) if n_classes == 2 else np.arange(n_classes)
    return (codes == shown[:, np.newaxis, np.newaxis]).astype(np.float64)


def _choose_loss(xp: Any, target: NDArray[np.float64]) -> Loss:
    return Sigmoid(xp) if len(target) == 1 else Softmax(xp)


def _start(weights: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the intercepts of the classes' shares, the optimum of a model without columns."""
    total = np.sum(weights * np.ones(target.shape[2]), axis=2, keepdims=True)
    shares = np.sum(weights * target, axis=2, keepdims=True) / total
    shares = np.clip(shares, _SMALLEST_SHARE, 1 - _SMALLEST_SHARE)
    if len(shares) == 1:
        return np.asarray(np.log(shares / (1 - shares)))
    return np.asarray(np.log(shares) - np.log(shares).mean(axis=0))


def _find_possible(
    found: Solution, weights: NDArray[np.float64], *, is_dual: bool
) -> NDArray[np.bool_]:
    """Whether each labeling's coefficients can be an optimum.

    In the dual that is :math:`A = C s (Y - P)`, so that no coefficient is larger than the weight of
    its row.
    """
    A = to_numpy(found.A)
    if not is_dual:
        return np.asarray(np.isfinite(A).all(axis=(0, 2)))
    return np.asarray((np.abs(A) <= _SLACK * weights).all(axis=(0, 2)))


def _describe(
    classes: NDArray[Any],
    decisions: NDArray[np.float64],
    found: Solution,
    column: int,
    is_possible: NDArray[np.bool_],
) -> LogisticFit:
    fit = LogisticFit(classes, decisions[0] if len(decisions) == 1 else decisions.T)
    fit.n_iter_ = int(found.n_steps[column])
    fit.converged_ = bool(found.converged[column] and is_possible[column])
    return fit
