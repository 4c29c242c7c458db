"""Pooling sparse features of tokens to rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def pool_sparse(
    tokens: csr_array, owners: NDArray[np.int64], n_rows: int, pooling: str
) -> csr_array:
    """Pool tokens to rows; values that are not stored count as 0.

    Parameters
    ----------
    tokens : csr_array of shape (n_tokens, n_features)
    owners : ndarray of shape (n_tokens,)
        Row of each token, ascending.
    n_rows : int
    pooling : str
        Means are computed in float64, then rounded.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> tokens = csr_array(np.array([[0, -2, 1], [3, -1, 0], [0, 0, 5]], np.float32))
    >>> pool_sparse(tokens, np.array([0, 0, 1]), 2, "max").toarray()
    array([[ 3., -1.,  1.],
           [ 0.,  0.,  5.]], dtype=float32)
    """
    from scipy.sparse import csr_array

    if pooling not in ("mean", "max"):
        return tokens
    counts = np.bincount(owners, minlength=n_rows)
    width = tokens.shape[1]
    row_of = np.repeat(owners, np.diff(tokens.indptr))
    cells = row_of * np.int64(width) + tokens.indices
    order = np.argsort(cells, kind="stable")
    cells, data = cells[order], tokens.data[order]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    cells = cells[starts]
    rows = cells // width
    if not len(starts):
        values = data
    elif pooling == "mean":
        values = np.add.reduceat(data, starts, dtype=np.float64) / counts[rows]
    else:
        values = np.maximum.reduceat(data, starts)
        n_stored = np.diff(starts, append=len(data))
        values = np.where(n_stored < counts[rows], np.maximum(values, 0), values)
    indptr = np.searchsorted(rows, np.arange(n_rows + 1))
    return csr_array(
        (values.astype(np.float32), (cells % width).astype(np.int32), indptr.astype(np.int32)),
        shape=(n_rows, width),
    )
