"""Reading SAE features from any tool as sparse matrices, one per config."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.arrays import is_array, require_numbers, to_numpy
from sklprep.exceptions import UsageError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_NAME = "activations"


def read_sae_matrices(activations: Any, n_features: int | None = None) -> list[csr_array]:
    """Read one sparse matrix for each SAE config, all of one shape and in canonical form.

    Parameters
    ----------
    activations : array of shape (n_rows, n_configs, n_features), sequence of matrices, or None
        With `n_features`, the pair (values, indices) of a top-k SAE, or a sequence of such pairs.
    n_features : int or None
        Width of a top-k SAE.

    Returns
    -------
    list of csr_array of shape (n_rows, n_features), float32

    Raises
    ------
    UsageError
        If the activations have another form, or do not fit together.

    Examples
    --------
    >>> values, indices = np.array([[0.5, 2.0], [1.0, 0.0]]), np.array([[4, 1], [0, 3]])
    >>> read_sae_matrices((values, indices), 5)[0].toarray()
    array([[0. , 2. , 0. , 0. , 0.5],
           [1. , 0. , 0. , 0. , 0. ]], dtype=float32)
    """
    if activations is None:
        return []
    from scipy.sparse import csr_array

    matrices = _split_configs(activations)
    if n_features is not None:
        if not isinstance(n_features, Integral) or n_features < 1:
            raise UsageError(f"n_features must be an integer of at least 1, got {n_features!r}.")
        pairs = [matrices] if any(map(is_array, matrices)) else matrices
        matrices = [_fill_in(pair, n_features) for pair in pairs]
    else:
        _refuse_top_k(matrices)
        matrices = [_read_matrix(matrix) for matrix in matrices]
    configs = [_canonical(csr_array(matrix, dtype=np.float32)) for matrix in matrices]
    if len({config.shape for config in configs}) > 1:
        raise UsageError(
            f"activations must have one shape, got {sorted({c.shape for c in configs})}."
        )
    return configs


def _split_configs(activations: Any) -> Sequence[Any]:
    from scipy.sparse import issparse

    if issparse(activations):
        raise UsageError("activations must be a sequence of sparse matrices, one per SAE config.")
    if isinstance(activations, list | tuple):
        return activations
    dense = to_numpy(activations, _NAME)
    require_numbers(dense, _NAME)
    if dense.ndim != 3:
        raise UsageError(
            "activations must have shape (n_rows, n_configs, n_features), got"
            f" {dense.shape}; or give a list of matrices, one per SAE config."
        )
    return [dense[:, config] for config in range(dense.shape[1])]


def _read_matrix(matrix: Any) -> Any:
    from scipy.sparse import issparse

    if not issparse(matrix):
        matrix = to_numpy(matrix, _NAME)
        require_numbers(matrix, _NAME)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or 0 in matrix.shape:
        raise UsageError(
            "activations must be non-empty numeric matrices, got one of shape"
            f" {matrix.shape} of {matrix.dtype}."
        )
    return matrix


def _refuse_top_k(matrices: Sequence[Any]) -> None:
    """Refuse pairs of values and indices, which look like two SAE configs of k features."""
    if any(map(_is_top_k, [matrices, *matrices])):
        raise UsageError(
            "activations look like the values and indices of a top-k SAE, but its width is missing."
            " Give it: from_arrays(activations=(values, indices), n_features=16384, ...)."
        )


def _is_top_k(pair: Any) -> bool:
    """Tell whether one array holds indices of features, and the other their values.

    Indices are whole numbers that differ within a row, except 0 or -1 as padding. If whole numbers
    were values of an SAE, most of them would be zero.
    """
    if not isinstance(pair, list | tuple) or not all(map(is_array, pair[:2])) or len(pair) < 2:
        return False
    values, indices = sorted((to_numpy(one, _NAME) for one in pair[:2]), key=_is_whole)
    if values.shape != indices.shape or _is_whole(values) or not _is_whole(indices):
        return False
    if indices.dtype.kind == "f" and indices.shape[-1:] == (1,):
        return False  # more likely two SAEs of one feature
    in_order = np.sort(indices, axis=-1)
    repeats = (in_order[..., 1:] == in_order[..., :-1]) & (in_order[..., 1:] > 0)
    return bool(np.mean(indices > 0) >= 0.5 and not repeats.any())


def _is_whole(array: NDArray[Any]) -> bool:
    """Tell whether an array has only whole numbers."""
    return array.dtype.kind in "iu" or (
        array.dtype.kind == "f" and array.size > 0 and bool((array == np.trunc(array)).all())
    )


def _fill_in(pair: Any, n_features: int) -> csr_array:
    """Put the values of a top-k SAE into the columns given by the indices."""
    from scipy.sparse import csr_array

    if not isinstance(pair, list | tuple) or len(pair) < 2:
        raise UsageError(
            "With n_features, activations must be (values, indices) of a top-k SAE, or a list of"
            f" such pairs, got {type(pair).__name__}. Leave n_features out for whole matrices."
        )
    values, indices = (to_numpy(array, _NAME) for array in pair[:2])
    shape = values.shape
    if len(shape) != 2 or indices.shape != shape or values.dtype.kind not in "fiub" or 0 in shape:
        raise UsageError(
            "The values and the indices of a top-k SAE must have one shape (n_rows, k), got"
            f" {values.dtype} of shape {shape} and {indices.dtype} of shape {indices.shape}."
        )
    if indices.dtype.kind not in "iu" or indices.min() < 0 or indices.max() >= n_features:
        raise UsageError(
            f"The indices of a top-k SAE must be integers from 0 to {n_features - 1:,}, because"
            f" of n_features; got {indices.dtype} from {indices.min():,} to {indices.max():,}."
        )
    ends = np.arange(0, indices.size + 1, shape[1])
    parts = (
        values.astype(np.float32).ravel(),
        indices.flatten(),
    )  # copies, which are sorted in place
    matrix = csr_array((*parts, ends), (len(values), n_features))
    matrix.eliminate_zeros()  # padding, which may repeat an index
    n_active = matrix.nnz
    matrix.sum_duplicates()
    if matrix.nnz < n_active:
        raise UsageError(
            "The indices of a top-k SAE have a feature twice in one row, with values other than 0;"
            " expected k different features."
        )
    return matrix


def _canonical(matrix: csr_array) -> csr_array:
    """Return the canonical form of a matrix, without changing the arrays of the caller."""
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    if matrix.nnz <= np.iinfo(np.int32).max:
        matrix.indices = matrix.indices.astype(np.int32, copy=False)
        matrix.indptr = matrix.indptr.astype(np.int32, copy=False)
    return matrix
