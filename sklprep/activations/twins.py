"""Texts that nearly repeat each other although a split may separate them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.duplicates import NEAR_TEXTS, ROUNDING, find_nearest, text_vectors

MOST_COMPARED = 2_000
"""Rows or texts that are compared with all others: with 20,000 rows of 2,304 columns in 3 s."""

FLATTERED = (
    "a test row whose twin was trained on is recognized, not understood, and scores too high"
)

_SHOWN = 60
"""Characters of a text in a message."""


class NearTexts(NamedTuple):
    """What `find_near_texts` found.

    Attributes
    ----------
    n_near, n_compared : int
    example : str
        The nearest two, as a message names them.
    """

    n_near: int
    n_compared: int
    example: str


def find_near_texts(texts: NDArray[np.str_], apart: NDArray[np.int64]) -> NearTexts | None:
    """Find texts that nearly repeat one on another side; None where none does.

    Parameters
    ----------
    texts : ndarray of shape (n_rows,)
        Empty where there is none. Those that are equal are looked at once.
    apart : ndarray of shape (n_rows,)
        Rows of different numbers may be separated.

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
