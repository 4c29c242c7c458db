"""Ridge regression and the ridge classifier, for all targets and penalties of one split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_sample_weight

from sklprep.exceptions import UsageError
from sklprep.sweeps.solver.arrays import Array, Cholesky, to_numpy
from sklprep.sweeps.solver.fits import ClassifierFit, RegressorFit
from sklprep.sweeps.solver.labels import (
    Labelings,
    read_labels,
    read_sample_weight,
    read_targets,
)
from sklprep.sweeps.solver.split import Split


def fit_ridge(
    split: Split,
    y: ArrayLike,
    penalties: Sequence[float] = (1.0,),
    *,
    sample_weight: ArrayLike | None = None,
    keep_coef: bool = False,
) -> list[list[RegressorFit]]:
    r"""Fit ridge regressions: every target with every penalty.

    Parameters
    ----------
    split : Split
        Its `fit_intercept` says whether there is an intercept.
    y : array-like of shape (n_samples,) or (n_targets, n_samples)
        Numbers of all rows of X. Those of test rows are not used.
    penalties : sequence of float, default=(1.0,)
        Values of alpha.
    sample_weight : array-like of shape (n_samples,), default=None
    keep_coef : bool, default=False
        Compute ``coef_`` and ``intercept_`` too.

    Returns
    -------
    list of list of RegressorFit
        A list for each penalty, with a fit for each target.

    Raises
    ------
    UsageError
        If shapes do not fit, y is not finite, or a penalty is not positive.

    Notes
    -----
    The objective is that of `sklearn.linear_model.Ridge`,

    .. math:: \min_{w, b} \; \sum_i s_i (y_i - w^T \tilde x_i - b)^2 + \alpha \|w\|^2 .

    With :math:`S = \mathrm{diag}(s)` its solution is :math:`w = \tilde X^T S^{1/2} a` with

    .. math:: (S^{1/2} K S^{1/2} + \alpha I) \, a + S^{1/2} 1 \, b = S^{1/2} y,
              \qquad 1^T S^{1/2} a = 0

    [1]_ in the dual, and in the primal that of the normal equations. A Cholesky factor in float64
    serves all targets of a penalty: a third of :math:`n^3` multiplications, of which the
    eigenvectors of K would take fifteen times as many.

    References
    ----------
    .. [1] C. Saunders, A. Gammerman and V. Vovk (1998). Ridge regression learning algorithm in dual
       variables. ICML, 515-521.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep.sweeps.solver import Split, fit_ridge
    >>> X = np.random.default_rng(0).normal(size=(40, 100))
    >>> split = Split(X, train=range(30), test=range(30, 40))
    >>> (weak,), (strong,) = fit_ridge(split, X[:, 0], penalties=[1.0, 1e6])
    >>> bool(np.var(strong.predict(range(10))) < np.var(weak.predict(range(10))))
    True
    """
    targets = read_targets(split, y).astype(np.float64)
    if not np.all(np.isfinite(targets)):
        raise UsageError("y contains NaN or infinite values in its training rows.")
    weights = read_sample_weight(split, sample_weight)
    return [
        [
            _regression(*one)
            for one in zip(*_solve(split, targets, a, weights, keep_coef), strict=True)
        ]
        for a in _check_penalties(penalties)
    ]


def fit_ridge_classifier(
    split: Split,
    y: ArrayLike,
    penalties: Sequence[float] = (1.0,),
    *,
    class_weight: Any = None,
    sample_weight: ArrayLike | None = None,
    keep_coef: bool = False,
) -> list[list[ClassifierFit]]:
    """Fit ridge classifiers: every labeling with every penalty.

    Parameters
    ----------
    split : Split
        Its `fit_intercept` says whether there is an intercept.
    y : array-like of shape (n_samples,) or (n_labelings, n_samples)
        Labels of all rows of X, of any type that sorts. Those of test rows are not used.
    penalties : sequence of float, default=(1.0,)
        Values of alpha.
    class_weight : dict, "balanced" or None, default=None
    sample_weight : array-like of shape (n_samples,), default=None
    keep_coef : bool, default=False
        Compute ``coef_`` and ``intercept_`` too.

    Returns
    -------
    list of list of ClassifierFit
        A list for each penalty, with a fit for each labeling.

    Raises
    ------
    InsufficientDataError
        If the training rows of a labeling have one class only.
    UsageError
        If shapes do not fit, or a penalty is not positive.

    Notes
    -----
    As `sklearn.linear_model.RidgeClassifier`: a ridge regression (see `fit_ridge`) on 1 for the
    rows of a class and -1 for the others, one column per class, or one column for two classes.
    Labelings with class weights share the Gram matrix but not its factor.
    """
    alphas = _check_penalties(penalties)
    weights = read_sample_weight(split, sample_weight)
    n_labelings, groups = read_labels(split, y)
    fits: list[list[Any]] = [[None] * n_labelings for _ in alphas]
    for labelings in groups:
        n_columns = 1 if len(labelings.classes) == 2 else len(labelings.classes)
        for rows, chosen in _by_weights(labelings, class_weight, weights):
            codes = labelings.codes[chosen]
            shown = np.arange(len(labelings.classes))[-n_columns:, np.newaxis]
            targets = np.where(codes[:, np.newaxis] == shown, 1.0, -1.0)
            for alpha, of_alpha in zip(alphas, fits, strict=True):
                flat = targets.reshape(-1, targets.shape[-1])
                found = _solve(split, flat, alpha, rows, keep_coef)
                parts = [
                    [one[i : i + n_columns] for one in found]
                    for i in range(0, len(flat), n_columns)
                ]
                for position, part in zip(labelings.positions[chosen], parts, strict=True):
                    of_alpha[position] = _classifier(labelings.classes, *part)
    return fits


def _check_penalties(penalties: Sequence[float]) -> list[float]:
    alphas = [float(alpha) for alpha in penalties]
    if not all(0 < alpha < np.inf for alpha in alphas):
        raise UsageError(f"Penalties alpha must be positive and finite, got {alphas}.")
    return alphas


def _by_weights(
    labelings: Labelings, class_weight: Any, sample_weight: NDArray[np.float64] | None
) -> list[tuple[NDArray[np.float64] | None, NDArray[np.intp]]]:
    """Give the labelings that share the weights of their rows together, and these weights."""
    if class_weight is None:
        return [(sample_weight, np.arange(len(labelings.codes)))]
    # unlike the logistic regression, "balanced" does not look at the weights of the samples
    labels = labelings.classes[labelings.codes]
    by_class = np.array([compute_sample_weight(class_weight, one) for one in labels])
    rows = by_class if sample_weight is None else by_class * sample_weight
    return [(row, np.array([i])) for i, row in enumerate(rows)]


def _solve(
    split: Split,
    targets: NDArray[np.float64],
    alpha: float,
    weights: NDArray[np.float64] | None,
    keep_coef: bool,
) -> tuple[NDArray[np.float64], Any, Any]:
    """Give decisions of the test rows, coefficients and intercepts, a row for each target."""
    array = split.place.array
    roots = array(np.ones(split.n_train) if weights is None else np.sqrt(weights))
    solve = _solve_dual if split.is_dual else _solve_primal
    Y = array(targets)
    A, intercept = solve(split, Y * roots, roots, alpha)
    decisions = to_numpy(split.decide(A) + intercept[:, None])
    if not keep_coef:
        return decisions, [None] * len(targets), [None] * len(targets)
    return decisions, *split.coefficients(A, intercept)


def _solve_dual(split: Split, Y: Array, roots: Array, alpha: float) -> tuple[Array, Array]:
    """Solve in the space of training rows; Y has the roots of weights as a factor."""
    gram = split.gram() * roots
    gram *= roots[:, None]
    right = split.place.xp.concat([Y, roots[None, :]], axis=0)
    solved = _solve_positive(split, gram, alpha, right)
    A, u = solved[:-1, :], solved[-1, :]
    intercept = split.place.xp.zeros_like(A[:, 0])
    if split.fit_intercept:
        intercept = (A @ roots) / (u @ roots)
        A = A - intercept[:, None] * u
    return A * roots, intercept


def _solve_primal(split: Split, Y: Array, roots: Array, alpha: float) -> tuple[Array, Array]:
    """Solve the normal equations; Y has the roots of weights as a factor."""
    xp, train = split.place.xp, split.train_rows()
    if bool(xp.all(roots == 1)):
        rows, moments = train, split.moments() * 1
    else:
        rows = train * roots[:, None]
        moments = rows.T @ rows
    right = xp.concat([Y, roots[None, :]], axis=0)
    sums = right @ rows
    solved = _solve_positive(split, moments, alpha, sums)
    W, u = solved[:-1, :], solved[-1, :]
    intercept = xp.zeros_like(W[:, 0])
    if split.fit_intercept:
        left = roots @ roots - sums[-1, :] @ u
        intercept = (Y @ roots - W @ sums[-1, :]) / left
        W = W - intercept[:, None] * u
    return W, intercept


def _solve_positive(split: Split, S: Array, alpha: float, right: Array) -> Array:
    """Solve (S + alpha I) for the rows of `right`; S may be overwritten."""
    place, xp = split.place, split.place.xp
    diagonal = place.index(np.arange(S.shape[0]))
    plain = S * 1
    S[diagonal, diagonal] += alpha
    solved = xp.empty_like(right)
    try:
        Cholesky(place, S).solve(right, solved)
    except ArithmeticError:  # alpha is lost to rounding beside the largest eigenvalue
        values, vectors = xp.linalg.eigh(plain)
        values = xp.where(values > 0, values, values * 0) + alpha
        solved = ((right @ vectors) / values) @ vectors.T
    return solved


def _regression(decisions: NDArray[np.float64], coef: Any, intercept: Any) -> RegressorFit:
    fit = RegressorFit(decisions)
    fit.coef_, fit.intercept_ = coef, intercept
    return fit


def _classifier(
    classes: NDArray[Any], decisions: NDArray[np.float64], coef: Any, intercept: Any
) -> ClassifierFit:
    fit = ClassifierFit(classes, decisions[0] if len(decisions) == 1 else decisions.T)
    if coef[0] is not None:
        fit.coef_, fit.intercept_ = coef, intercept
    return fit
