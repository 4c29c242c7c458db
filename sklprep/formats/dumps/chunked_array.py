"""Reading chunked arrays of other libraries in pieces of bounded size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CHUNK_BYTES = 64 << 20
"""A chunk is always inflated completely. By default those of HDF5 have 1 MB, those of Zarr up to
some tens of MB."""
_BLOCK_BYTES = 8 << 20  # read at once, unless a chunk is larger

Fetch = Callable[[tuple[Any, ...]], NDArray[Any]]
"""Reads ``array[key]``, where all entries of the key but the last are integers."""


def read_chunked(
    fetch: Fetch,
    shape: Sequence[int],
    chunks: Sequence[int] | None,
    itemsize: int,
    positions: NDArray[np.int64],
) -> NDArray[Any]:
    """Read vectors along the last axis by their positions in C order.

    Parameters
    ----------
    fetch : callable
        Reads a part of the array.
    shape : tuple of int
        Shape of the array, with at least two axes.
    chunks : tuple of int, or None
        Shape of the chunks; None for an array without chunks.
    itemsize : int
        Bytes of one value.
    positions : ndarray of shape (n,)

    Returns
    -------
    ndarray of shape (n, width)

    Examples
    --------
    >>> array = np.arange(24).reshape(4, 3, 2)
    >>> read_chunked(lambda key: array[key], array.shape, None, 8, np.array([11, 0, 1]))
    array([[22, 23],
           [ 0,  1],
           [ 2,  3]])
    """
    places, back = np.unique(positions, return_inverse=True)
    if not len(places):
        return np.empty((0, shape[-1]), np.float32)
    found = _read(fetch, (), shape, chunks or (1,) * len(shape), itemsize, places)
    values = np.concatenate(found)
    return values if np.array_equal(places, positions) else values[back.reshape(-1)]


def _read(
    fetch: Fetch,
    outer: tuple[int, ...],
    shape: Sequence[int],
    chunks: Sequence[int],
    itemsize: int,
    positions: NDArray[np.int64],
) -> list[NDArray[Any]]:
    """Read ascending positions within the part that `outer` selects, block by block."""
    axis = len(outer)
    inner = math.prod(shape[axis + 1 : -1])
    entry_bytes = inner * shape[-1] * itemsize
    depth = chunks[axis]
    if depth * entry_bytes > MAX_CHUNK_BYTES and axis < len(shape) - 2:
        found = []
        entries = positions // inner
        for entry in np.unique(entries).tolist():
            own = positions[entries == entry] - entry * inner
            found += _read(fetch, (*outer, entry), shape, chunks, itemsize, own)
        return found
    block = depth * max(1, _BLOCK_BYTES // max(1, depth * entry_bytes))
    numbers = positions // (inner * block)
    found = []
    for number in np.unique(numbers).tolist():
        own = positions[numbers == number] - number * block * inner
        first, last = int(own[0]) // inner, int(own[-1]) // inner + 1
        start = number * block
        values = fetch((*outer, slice(start + first, start + last)))
        found.append(values.reshape(-1, shape[-1])[own - first * inner])
    return found
