"""Arrays of numpy or torch: which namespace, which device, and the factorizations both need."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, get_lapack_funcs

from sklprep.exceptions import UsageError

Array = Any
"""A numpy array or a torch tensor."""

_FEW_ROWS = 4
"""Up to this many rows, products row by row are faster: OpenBLAS's gemm packs the whole matrix.

Against 816 x 816 in float64: 2 rows take 0.25 ms instead of 0.45, 4 rows 0.42 instead of 0.45.
"""


@dataclass(frozen=True)
class Device:
    """A namespace of the array API, and where its arrays lie."""

    xp: Any
    name: Any

    @property
    def is_numpy(self) -> bool:
        """Whether the arrays are numpy's."""
        return bool(is_numpy_namespace(self.xp))

    def array(self, values: Any, dtype: Any = None) -> Array:
        """Put values there."""
        return self.xp.asarray(values, dtype=dtype, device=self.name)

    def index(self, positions: NDArray[np.intp]) -> Array:
        """Put positions there."""
        return self.xp.asarray(positions, dtype=self.xp.int64, device=self.name)


def open_device(X: Any, name: Any = None) -> Device:
    """Find where X lies; or, if a device is named, go there with torch.

    Parameters
    ----------
    X : ndarray or tensor
    name : str, torch.device or None
        Such as ``"cuda"`` or ``"cpu"``; None leaves X where it is.

    Returns
    -------
    Device
    """
    if name is None:
        return Device(array_namespace(X), device(X))
    torch: Any = import_module("torch")
    here = torch.zeros(0, device=name)
    return Device(array_namespace(here), here.device)


def require_device(name: Any) -> None:
    """Raise `UsageError` if torch is not installed, or does not have the device."""
    try:
        torch: Any = import_module("torch")
    except ImportError:
        raise UsageError(
            f"device={name!r} needs torch, which is not installed: pip install 'sklprep[gpu]'."
        ) from None
    try:
        torch.zeros(0, dtype=torch.float64, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        found = str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"torch cannot compute on device={name!r}: {found}.") from None


def to_numpy(values: Array) -> NDArray[Any]:
    """Bring an array back to the CPU, as numpy's."""
    return np.asarray(values if isinstance(values, np.ndarray) else values.cpu())


def times(V: Array, B: Array, out: Array) -> None:
    """Multiply the last axis of V with the first of B, in one product.

    Parameters
    ----------
    V : array of shape (..., p)
    B : array of shape (p, q)
    out : array of shape (..., q), contiguous
        Where the product goes.
    """
    rows, results = V.reshape((-1, V.shape[-1])), out.reshape((-1, B.shape[1]))
    if not isinstance(V, np.ndarray):
        results[:, :] = rows @ B
    elif len(rows) <= _FEW_ROWS:
        for row, result in zip(rows, results, strict=True):
            np.matmul(row, B, out=result)
    else:
        np.matmul(rows, B, out=results)


def plus_identity(xp: Any, S: Array, factor: float) -> Array:
    """Compute I + factor S, in a new array."""
    result = S * factor
    diagonal = xp.arange(S.shape[0], device=device(S))
    result[diagonal, diagonal] += 1.0
    return result


def invert_positive(place: Device, S: Array) -> Array:
    """Invert a positive definite matrix, overwriting it.

    Parameters
    ----------
    place : Device
    S : array of shape (p, p), symmetric

    Returns
    -------
    array of shape (p, p), exactly symmetric

    Raises
    ------
    ArithmeticError
        If S is not positive definite within the precision of its dtype.
    """
    if not place.is_numpy:
        inverse = place.xp.linalg.inv(S)
        if not bool(place.xp.all(place.xp.isfinite(inverse))):
            raise ArithmeticError("The matrix is singular.")
        return (inverse + inverse.T) / 2
    potrf, potri = get_lapack_funcs(("potrf", "potri"), (S,))
    # S.T is what Fortran calls S: factored in place, where numpy's own routines copy twice
    factor, failed = potrf(S.T, lower=1, overwrite_a=1, clean=1)
    if failed:
        raise ArithmeticError("The matrix is not positive definite.")
    lower, _ = potri(factor, lower=1, overwrite_c=1)
    inverse = lower + lower.T  # what is above the diagonal is zero
    diagonal = np.arange(len(inverse))
    inverse[diagonal, diagonal] /= 2
    return np.ascontiguousarray(inverse)


class Cholesky:
    """Solve with a positive definite matrix from its Cholesky factor.

    Parameters
    ----------
    place : Device
    S : array of shape (p, p), symmetric
        Overwritten.

    Raises
    ------
    ArithmeticError
        If S is not positive definite within the precision of its dtype.
    """

    def __init__(self, place: Device, S: Array) -> None:
        self._place = place
        try:
            if place.is_numpy:
                self._factor = cho_factor(S.T, lower=True, overwrite_a=True, check_finite=False)
            else:
                self._factor = place.xp.linalg.cholesky(S)
        except (np.linalg.LinAlgError, RuntimeError) as error:
            raise ArithmeticError(str(error)) from None

    def solve(self, V: Array, out: Array) -> None:
        """Solve for the rows of V.

        Parameters
        ----------
        V, out : array of shape (..., p)
            `out` is where the solutions go.
        """
        rows = V.reshape((-1, V.shape[-1]))
        if self._place.is_numpy:
            # the transpose of C-ordered rows is the Fortran order that LAPACK wants: no copies
            solved = cho_solve(self._factor, rows.T, check_finite=False).T
        else:
            torch: Any = import_module("torch")
            solved = torch.cholesky_solve(rows.T, self._factor).T
        out.reshape(rows.shape)[:, :] = solved
