"""Groups of rows that share a text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def merge_by_text(groups: NDArray[np.int64], texts: NDArray[np.str_]) -> NDArray[np.int64]:
    """Merge groups that share a text; rows without a text keep their groups.

    If no groups share a text, they are returned unchanged, without importing scipy.

    Examples
    --------
    >>> merge_by_text(np.array([0, 1, 2, 3]), np.array(["a", "b", "a", ""]))
    array([0, 1, 0, 2])
    """
    first, numbers = np.unique(texts, return_index=True, return_inverse=True)[1:]
    numbers, has_text = numbers.reshape(-1), texts != ""
    if np.array_equal(groups[first][numbers][has_text], groups[has_text]):
        return groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n_groups, n_texts = groups.max() + 1, len(first)
    edges = (groups[has_text], numbers[has_text] + n_groups)
    graph = coo_array((np.ones(len(edges[0])), edges), (n_groups + n_texts,) * 2)
    component = connected_components(graph, directed=False)[1]
    return np.unique(component[groups], return_inverse=True)[1].reshape(-1)
