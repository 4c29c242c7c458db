"""Near-duplicate texts that a split may separate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.duplicates import NEAR_TEXTS, ROUNDING, find_nearest, text_vectors

MOST_COMPARED = 2_000
"""Rows or texts that are compared with all others: 3 s for 20,000 rows of 2,304 columns."""

FLATTERED = (
    "a test row with a near-duplicate among the training rows is recognized from it, and scores too"
    " high, or too low if their labels differ"
)

_SHOWN = 60
"""Characters of a text in a message."""


class NearTexts(NamedTuple):
    """Result of `find_near_texts`.

    Attributes
    ----------
    n_near, n_compared : int
        Number of texts with a near-duplicate, and of texts that were compared.
    example : str
        The most similar pair, for a message.
    """

    n_near: int
    n_compared: int
    example: str


def find_near_texts(texts: NDArray[np.str_], apart: NDArray[np.int64]) -> NearTexts | None:
    """Find near-duplicate texts that may be separated; None if there are none.

    Parameters
    ----------
    texts : ndarray of shape (n_rows,)
        Empty for rows without a text. Of equal texts only one is compared.
    apart : ndarray of shape (n_rows,)
        Rows with different numbers may be separated.

    Examples
    --------
    >>> texts = np.array(["Anna helped the old man.", "Anna helped the old man!", "It rained."])
    >>> find_near_texts(texts, np.arange(3)).example
    "'Anna helped the old man.' and 'Anna helped the old man!' (cosine of words 1.00)"
    """
    first = np.sort(np.unique(texts, return_index=True)[1])
    first = first[texts[first] != ""]
    if len(first) < 2:
        return None
    near = find_nearest(text_vectors(texts[first]), apart[first], most=MOST_COMPARED)
    n_near = int((near.cosines >= NEAR_TEXTS - ROUNDING).sum())
    if not n_near:
        return None
    i = int(near.cosines.argmax())
    one, other = (_quote(texts[first[of[i]]]) for of in (near.rows, near.others))
    example = f"{one} and {other} (cosine of words {near.cosines[i]:.2f})"
    return NearTexts(n_near, len(near.rows), example)


def _quote(text: str) -> str:
    text = " ".join(str(text).split())
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
