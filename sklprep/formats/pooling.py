"""Pooling: how the tokens of a sentence become rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sklprep.exceptions import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

POOLINGS = ("final", "mean", "max", "none")
"""What becomes a row: the final token, the mean or the maximum over the tokens, or every token.
This module does not import numpy, because the command line reads the table for its help."""


def require_pooling(pooling: str) -> None:
    """Raise `UsageError` for an unknown pooling."""
    if pooling not in POOLINGS:
        raise UsageError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")


def is_last_of_each(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the last occurrence of each value."""
    import numpy as np

    last = np.zeros(len(values), bool)
    last[len(values) - 1 - np.unique(values[::-1], return_index=True)[1]] = True
    return last


def by_range(
    blocks: Iterator[tuple[int, NDArray[Any]]], ranges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """Turn row numbers within a member into (number of the range, row within the range)."""
    number = 0
    for row, block in blocks:
        while row >= ranges[number][1]:
            number += 1
        yield number, row - ranges[number][0], block


def pool(
    blocks: Iterator[tuple[int, int, NDArray[Any]]], pooling: str, n_tokens: int
) -> Iterator[NDArray[np.float32]]:
    """Reduce the blocks of each range to one row; means are computed in float64, then rounded."""
    import numpy as np

    total: Any = None
    for _, first, block in blocks:
        if pooling == "mean":
            part = block.sum(axis=0, dtype=np.float64)
            total = part if first == 0 else total + part
        else:
            part = block.max(axis=0)
            total = part if first == 0 else np.maximum(total, part)
        if first + len(block) == n_tokens:
            yield (total / n_tokens if pooling == "mean" else total).astype(np.float32)
