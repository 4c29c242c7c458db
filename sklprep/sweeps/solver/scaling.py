"""What normalizing subtracts and divides by: scikit-learn's rules, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import UsageError
from sklprep.sweeps.solver.arrays import Array, Device

METHODS = ("standardize", "minmax", "maxabs", "none")

_BLOCK_NUMBERS = 1 << 17
"""Numbers converted to float64 at once, 1 MB: of rows with 2,304 columns a quarter to twice of it
took the same time. The last bits of the sums depend on it, so it is constant."""


class Scaling(NamedTuple):
    """Normalized columns are ``(X - center) / scale``, float64, each of shape (n_features,).

    `shift` is what scikit-learn subtracts; `center` is that, or where the model has an intercept
    the mean of the training rows: then the columns have the mean 0 whatever the method.
    """

    shift: Array
    center: Array
    scale: Array


def blocks(X: Array, rows: NDArray[np.intp], place: Device) -> Iterator[tuple[slice, Array]]:
    """Walk over rows of X in blocks of a constant size, copies in the dtype of X."""
    is_numpy = isinstance(X, np.ndarray)
    n_rows = max(1, _BLOCK_NUMBERS // max(1, X.shape[1]))
    for start in range(0, len(rows), n_rows):
        where = slice(start, min(start + n_rows, len(rows)))
        chosen = rows[where]
        block = X[chosen] if is_numpy else X[place.index(chosen)]
        yield where, block if is_numpy and place.is_numpy else place.array(block)


def measure(
    X: Array, rows: NDArray[np.intp], method: str, place: Device, *, centered: bool
) -> Scaling:
    r"""Compute the statistics of some rows.

    Parameters
    ----------
    X : array of shape (n_samples, n_features), float32 or float64
    rows : ndarray of shape (n_train,), int
    method : {"standardize", "minmax", "maxabs", "none"}
    place : Device
    centered : bool
        Whether normalized columns get the mean 0 whatever the method.

    Returns
    -------
    Scaling

    Raises
    ------
    UsageError
        If the method is unknown, or there are NaN or infinite values.

    Notes
    -----
    The definitions are those of `sklearn.preprocessing`: the population standard deviation, in two
    passes; a column is constant, and has the scale 1, if its variance v and mean m have
    :math:`v \le n \epsilon v + (n m \epsilon)^2`, which is what rounding leaves; ranges and largest
    absolute values below :math:`10 \epsilon` become 1.
    """
    if method not in METHODS:
        raise UsageError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    xp, n = place.xp, len(rows)
    zeros = place.array(np.zeros(X.shape[1]))
    total = zeros + 0.0
    low, high = zeros + np.inf, zeros - np.inf
    for _, block in blocks(X, rows, place):
        total += xp.sum(block, axis=0, dtype=xp.float64)
        if method in ("minmax", "maxabs"):
            low = xp.minimum(low, xp.astype(xp.min(block, axis=0), xp.float64))
            high = xp.maximum(high, xp.astype(xp.max(block, axis=0), xp.float64))
    if not bool(xp.all(xp.isfinite(total))):
        raise UsageError("X contains NaN or infinite values in its training rows.")
    mean = total / n
    shift, scale = zeros, zeros + 1.0
    if method == "standardize":
        shift, scale = mean, _deviation(X, rows, mean, place)
    elif method == "minmax":
        shift, scale = low, _without_zeros(high - low, xp)
    elif method == "maxabs":
        scale = _without_zeros(xp.maximum(xp.abs(low), xp.abs(high)), xp)
    return Scaling(shift, mean if centered else shift, scale)


def normalize(X: Array, rows: NDArray[np.intp], scaling: Scaling, place: Device) -> Array:
    """Give the normalized rows, float64 of shape (n_rows, n_features)."""
    xp = place.xp
    result = xp.empty((len(rows), X.shape[1]), dtype=xp.float64, device=place.name)
    for where, block in blocks(X, rows, place):
        part = result[where, :]
        part[...] = block
        part -= scaling.center
        part /= scaling.scale
    return result


def combine(X: Array, rows: NDArray[np.intp], A: Array, scaling: Scaling, place: Device) -> Array:
    """Multiply A, (..., n_rows), with the normalized rows, without holding them all."""
    xp = place.xp
    result = xp.zeros((*A.shape[:-1], X.shape[1]), dtype=xp.float64, device=place.name)
    for where, block in blocks(X, rows, place):
        result += A[..., where] @ (block - scaling.center)
    return result / scaling.scale


def project(X: Array, rows: NDArray[np.intp], W: Array, scaling: Scaling, place: Device) -> Array:
    """Multiply W, (..., n_features), with each of the normalized rows, without holding them all."""
    xp = place.xp
    result = xp.empty((*W.shape[:-1], len(rows)), dtype=xp.float64, device=place.name)
    raw = W / scaling.scale
    for where, block in blocks(X, rows, place):
        result[..., where] = raw @ (block - scaling.center).T
    return result


def _deviation(X: Array, rows: NDArray[np.intp], mean: Array, place: Device) -> Array:
    xp, n = place.xp, len(rows)
    eps = float(np.finfo(np.float64).eps)
    squares, rest = mean * 0.0, mean * 0.0
    for _, block in blocks(X, rows, place):
        away = block - mean
        rest += xp.sum(away, axis=0)
        away *= away
        squares += xp.sum(away, axis=0)
    variance = (squares - rest * rest / n) / n  # rest is the rounding error of the mean
    constant = variance <= n * eps * variance + (n * mean * eps) ** 2
    deviation = xp.sqrt(xp.where(constant, variance * 0.0 + 1.0, variance))
    return xp.where(constant, mean * 0.0 + 1.0, deviation)


def _without_zeros(scale: Array, xp: Any) -> Array:
    tiny = 10 * float(np.finfo(np.float64).eps)
    return xp.where(scale < tiny, scale * 0.0 + 1.0, scale)
