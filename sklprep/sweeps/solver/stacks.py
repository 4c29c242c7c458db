r"""One labeling on many splits in lockstep: a stack of small problems with matrices of their own.

A nested cross-validation fits the same small model on hundreds of training sets. With 160 rows,
numpy's calls take ten times as long as their arithmetic; so splits are stacked, and each call does
the arithmetic of all of them. Their products are those of `spaces`, with one matrix per split:

========================  ==============================================
matrices of a stack        shape
========================  ==============================================
dual: K                    (splits, rows, rows)
primal: :math:`\tilde X`   (splits, rows, columns)
:math:`(I + w H)^{-1}`     (splits, width, width), w of each split its own
========================  ==============================================

Training sets that are some rows shorter than others are padded with rows of zeros that have no
weight; spans of repeated rows, some of which have fewer dimensions, with columns of zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.sweeps.solver.spaces import FLOAT32_LIMIT
from sklprep.sweeps.solver.split import Split

STACK_BYTES = 1 << 25
"""Most memory of the matrices of a stack: 50 splits of 160 training rows, 2 of 800. Larger splits
keep the processor busy by themselves. Twice as much memory took the same time, half 7 % more."""

_INVERTED_TOGETHER = 8
"""Matrices that are inverted at once: more took as long, and memory."""

_FEW_CLASSES = 3
"""Up to this many, products class by class are faster, as the last class follows from the others:
of 14 splits of 160 rows 0.11 ms instead of 0.19; of four classes 0.13 instead of 0.11."""

_BYTES_OF_MATRIX = 8 + 4  # float64 and float32
_BYTES_OF_INVERSE = 4 + 8  # the same, where float32 is not precise enough


def count_stacked(split: Split, *, share_rows: bool = True) -> int:
    """Give the number of splits like this one to stack; 1 if stacking gains nothing.

    Parameters
    ----------
    split : Split
    share_rows : bool, default=True
        Whether they are splits of one X. Otherwise each X of a stack takes memory, too.
    """
    if not split.place.is_numpy:
        return 1
    width = split.n_train if split.is_dual else split.n_features
    a_column = _BYTES_OF_MATRIX * split.n_train + _BYTES_OF_INVERSE * width + 8 * split.n_test
    taken = a_column * width
    if not share_rows:
        taken = max(taken, 8 * split.n_samples * split.n_features)
    return max(1, STACK_BYTES // taken)


class Stack:
    """The space of the coefficients of a labeling on each of some splits.

    It has the methods of the spaces in `spaces`, for arrays of shape (classes, splits, width).

    Parameters
    ----------
    matrix : ndarray of shape (splits, rows, rows or columns), float64
        Inner products of the training rows (dual), or the training rows (primal).
    is_dual : bool
    """

    crowded = 0.0
    """Splits stay in a step until all are solved: removing some would copy their matrices."""

    def __init__(self, matrix: NDArray[np.float64], split: Split, *, is_dual: bool) -> None:
        self.place, self.xp = split.place, split.place.xp
        self.width, self.is_dual = matrix.shape[2], is_dual
        self._matrices: dict[Any, NDArray[Any]] = {np.dtype(np.float64): matrix}
        squares = np.einsum("sij,sij->s", matrix, matrix)
        # of K its norm, of X'X its trace: each at least the largest eigenvalue
        self._norms = np.sqrt(squares) if is_dual else squares
        self._levels = np.full(len(matrix), np.nan)
        self._inverses = np.empty((len(matrix), 0, 0))

    def take(self, columns: NDArray[np.intp]) -> Stack:
        """Give the space of some of the splits."""
        taken = object.__new__(Stack)
        taken.__dict__ |= self.__dict__
        taken._matrices = {dtype: values[columns] for dtype, values in self._matrices.items()}
        for name in ("_norms", "_levels", "_inverses"):
            setattr(taken, name, getattr(self, name)[columns])
        return taken

    def precision(self, largest_w: float) -> Any:
        """Choose the dtype of products, as the other spaces do."""
        small = largest_w * self._norms.max() * float(np.finfo(np.float32).eps) <= FLOAT32_LIMIT
        return self.xp.float32 if small else self.xp.float64

    def image(self, A: NDArray[Any]) -> NDArray[Any]:
        """Decisions on the training rows, without the intercept."""
        matrix = self._matrix(A.dtype)
        return _times(A, matrix if self.is_dual else matrix.swapaxes(1, 2))

    def adjoint(self, residual: NDArray[Any]) -> NDArray[Any]:
        """What a residual on the training rows is in this space."""
        return residual if self.is_dual else _times(residual, self._matrix(residual.dtype))

    def pair(self, u: NDArray[Any], v: NDArray[Any], image_of_v: NDArray[Any]) -> NDArray[Any]:
        """Inner products of coefficients, (classes, splits)."""
        return self.xp.vecdot(u, image_of_v if self.is_dual else v, axis=-1)

    def precondition(
        self, levels: NDArray[np.float64], r: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Give :math:`(I + w H)^{-1} r` and its image, with w of each split."""
        if self._inverses.dtype != r.dtype or not self._inverses.size:
            self._inverses = np.empty((len(levels), self.width, self.width), r.dtype)
            self._levels = np.full(len(levels), np.nan)
        new = np.flatnonzero(self._levels != levels)
        if len(new):
            for some in np.array_split(new, math.ceil(len(new) / _INVERTED_TOGETHER)):
                self._inverses[some] = self._invert(some, levels[some], r.dtype)
            self._levels = levels.copy()
        z = _times(r, self._inverses)
        if not self.is_dual:
            return z, self.image(z)
        w = levels[np.newaxis, :, np.newaxis].astype(r.dtype)
        image = (r - z) / w
        # that difference cancels if w is small
        small = np.flatnonzero(levels * self._norms <= 1)
        if len(small):
            z[:, small] = r[:, small]
            image[:, small] = _times(r[:, small], self._matrix(r.dtype)[small])
        return z, image

    def _invert(
        self, splits: NDArray[np.intp], levels: NDArray[np.float64], dtype: Any
    ) -> NDArray[np.float64]:
        H = self._matrix(np.dtype(np.float64))[splits]
        H = H if self.is_dual else H.swapaxes(1, 2) @ H
        H *= levels[:, np.newaxis, np.newaxis]
        H[:, range(self.width), range(self.width)] += 1
        return _invert_by_halves(H) if dtype == np.float32 else np.linalg.inv(H)

    def _matrix(self, dtype: Any) -> NDArray[Any]:
        if dtype not in self._matrices:
            self._matrices[dtype] = self._matrices[np.dtype(np.float64)].astype(dtype)
        return self._matrices[dtype]


def stack_splits(splits: Sequence[Split]) -> Stack:
    """Stack the matrices of splits, all of them dual or all primal."""
    first, n = splits[0], max(split.n_train for split in splits)
    width = n if first.is_dual else max(split.n_features for split in splits)
    matrix = np.zeros((len(splits), n, width))
    for of_split, split in zip(matrix, splits, strict=True):
        if split.is_dual:
            split.move_gram(of_split[: split.n_train, : split.n_train])
            split.forget_rows()
        else:
            of_split[: split.n_train, : split.n_features] = split.train_rows()
    return Stack(matrix, first, is_dual=first.is_dual)


def _times(V: NDArray[Any], B: NDArray[Any]) -> NDArray[Any]:
    """Multiply (classes, splits, p) with (splits, p, q); classes add up to zero."""
    result = np.empty((*V.shape[:2], B.shape[2]), V.dtype)
    if len(V) > _FEW_CLASSES:
        np.matmul(V.swapaxes(0, 1), B, out=result.swapaxes(0, 1))
        return result
    for of_class, product in zip(V[:2], result, strict=False):
        np.matmul(of_class[:, np.newaxis], B, out=product[:, np.newaxis])
    if len(V) == _FEW_CLASSES:
        np.add(result[0], result[1], out=result[2])
        np.negative(result[2], out=result[2])
    return result


def _invert_by_halves(H: NDArray[Any]) -> NDArray[Any]:
    """Invert a stack of positive definite matrices from the inverses of two blocks of each.

    Of 160 rows in float64 that takes 0.5 ms, where LAPACK takes 0.9, and 1.3 in float32. Rounding
    errors grow with the condition: in float64 they stay below what float32 holds. In float32 they
    would not, and the image of z, :math:`(r - z) / w`, would be wrong where eigenvalues are small.
    """
    half, inverse = H.shape[1] // 2, np.empty_like(H)
    first = np.linalg.inv(H[:, :half, :half])
    along = first @ H[:, :half, half:]
    second = np.linalg.inv(H[:, half:, half:] - along.swapaxes(1, 2) @ H[:, :half, half:])
    across = along @ second
    inverse[:, half:, half:] = second
    inverse[:, :half, half:] = -across
    inverse[:, half:, :half] = -across.swapaxes(1, 2)
    inverse[:, :half, :half] = first + across @ along.swapaxes(1, 2)
    return inverse
