"""Finding duplicates and near-duplicates among texts and rows, and the groups they form.

All functions take plain arrays of texts, rows and groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NEAR_TEXTS = 0.7
"""Cosine of TF-IDF vectors from which texts are near-duplicates: short template sentences that
differ in one word reach it, and unrelated reviews stay below 0.5."""

NEAR_ROWS = 0.95
"""Cosine of standardized columns from which rows of hidden states are near-duplicates."""

_BLOCK_ROWS = 256
"""Rows that are compared with all others at once: 205 MB of cosines for 100,000 rows."""

ROUNDING = 1e-9
"""Tolerance of the thresholds, because the cosine of equal rows is not always exactly 1."""


class Components:
    """Connected components of positions, joined step by step in memory linear in their number.

    Parameters
    ----------
    groups : ndarray of shape (n,)
        Initial components.

    Examples
    --------
    >>> components = Components(np.array([0, 1, 2, 2]))
    >>> components.join(np.array([0]), np.array([3]))
    >>> components.first()
    array([0, 1, 0, 0])
    """

    def __init__(self, groups: NDArray[Any]) -> None:
        self._number = np.unique(groups, return_inverse=True)[1].reshape(-1)

    def join(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Join each position of `one` with that of `other`."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        n = len(self._number)
        edges = (np.ones(len(one), np.int8), (self._number[one], self._number[other]))
        _, joined = connected_components(coo_array(edges, shape=(n, n)))
        self._number = joined.astype(np.int64)[self._number]

    def first(self) -> NDArray[np.int64]:
        """Return, for each position, the first position of its component."""
        _, first, inverse = np.unique(self._number, return_index=True, return_inverse=True)
        return first[inverse.reshape(-1)]


class Nearest(NamedTuple):
    """The nearest neighbours of some rows in other groups.

    Attributes
    ----------
    rows, others : ndarray of shape (n_compared,), int
        Positions of each row and of its nearest neighbour.
    cosines : ndarray of shape (n_compared,)
        Their cosines; minus infinity if there are no other groups.
    """

    rows: NDArray[np.int64]
    others: NDArray[np.int64]
    cosines: NDArray[np.float64]


def find_nearest(vectors: Any, groups: NDArray[Any], *, most: int) -> Nearest:
    """Find the nearest neighbours, in other groups, of up to `most` evenly spaced rows.

    Parameters
    ----------
    vectors : ndarray or CSR of shape (n, d)
        Unit vectors, as returned by `text_vectors` and `row_vectors`.
    groups : ndarray of shape (n,)
        Rows of the same group are not compared.
    most : int
        Largest number of rows whose neighbours are searched.

    Examples
    --------
    >>> texts = np.array(["a cat sat here", "it rained", "a cat sat there"])
    >>> find_nearest(text_vectors(texts), np.arange(3), most=10).others
    array([2, 0, 0])
    """
    n = vectors.shape[0]
    rows = np.arange(0, n, -(-n // most))
    others, cosines = np.zeros(len(rows), np.int64), np.zeros(len(rows))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = rows[start : start + _BLOCK_ROWS]
        found = vectors[block] @ vectors.T
        found = found if isinstance(found, np.ndarray) else found.toarray()
        found[groups[block, np.newaxis] == groups] = -np.inf
        here = slice(start, start + len(block))
        others[here] = found.argmax(axis=1)
        cosines[here] = found.max(axis=1)
    return Nearest(rows, others, cosines)


def find_equal(items: Iterable[Hashable]) -> list[NDArray[np.int64]]:
    """Return the positions of each item that occurs more than once.

    Examples
    --------
    >>> find_equal(["a", "b", "a"])
    [array([0, 2])]
    """
    places: dict[Hashable, list[int]] = {}
    for position, item in enumerate(items):
        places.setdefault(item, []).append(position)
    return [np.array(same) for same in places.values() if len(same) > 1]


def text_vectors(texts: NDArray[np.str_]) -> Any:
    """Return unit TF-IDF vectors, fitted on the texts; words may have a single letter.

    Returns
    -------
    CSR of shape (n_texts, n_words)
        Zeros for a text without words.
    """
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        return TfidfVectorizer(token_pattern=r"(?u)\b\w+\b").fit_transform(texts)
    except ValueError:  # none of them has a word
        return csr_array((len(texts), 1))


def row_vectors(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return rows as unit vectors, after standardizing each column.

    Otherwise a few massive dimensions would make all cosines nearly equal. NaN and infinite values
    count as zero.
    """
    values = np.nan_to_num(rows.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    values -= values.mean(axis=0)
    scale = values.std(axis=0)
    values /= np.where(scale > 0, scale, 1)
    length = np.sqrt(np.square(values).sum(axis=1, keepdims=True))
    return values / np.where(length > 0, length, 1)


def find_near(
    vectors: Any, threshold: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Yield the pairs of vectors whose cosine reaches a threshold, block by block.

    Parameters
    ----------
    vectors : ndarray or CSR of shape (n, d)
        Unit vectors, as returned by `text_vectors` and `row_vectors`.
    threshold : float
        Smallest cosine.

    Yields
    ------
    one, other : ndarray of shape (n_pairs,)
        Positions; those in `one` are smaller.
    cosines : ndarray of shape (n_pairs,)
        Their cosines.

    Examples
    --------
    >>> texts = np.array(["a cat sat here", "it rained", "a cat sat there"])
    >>> [(one.tolist(), other.tolist()) for one, other, _ in find_near(text_vectors(texts), 0.5)]
    [([0], [2])]
    """
    for start in range(0, vectors.shape[0], _BLOCK_ROWS):
        cosines = vectors[start : start + _BLOCK_ROWS] @ vectors[start:].T
        cosines = np.triu(cosines if isinstance(cosines, np.ndarray) else cosines.toarray(), 1)
        one, other = np.nonzero(cosines >= threshold - ROUNDING)
        if len(one):
            yield start + one, start + other, cosines[one, other]
