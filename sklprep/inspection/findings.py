"""Findings of an audit, and those that any data may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.notebook.words import count
from sklprep.transformers.targets import ENOUGH_ACTIVE

SCORED_TWICE = "is scored on rows that it was trained on, and its score is too high"

MOST_SHOWN = 5
"""Number of sentences, rows or pairs that are listed."""

_IMBALANCE = 3
"""Largest ratio of the most common label to the rarest: with two labels at 3 to 1, the majority
baseline has an accuracy of 0.75."""


@dataclass(frozen=True)
class Finding:
    """A property of the data that readers of a published score should know.

    Attributes
    ----------
    code : str
        Kind of finding, such as ``"near-duplicates"``.
    what : str
        What was found, with numbers and examples.
    why : str
        How it affects a score.
    do : str
        What to do about it.
    """

    code: str
    what: str
    why: str
    do: str

    def __str__(self) -> str:
        return f"{self.what}\n  Why: {self.why}\n  Do:  {self.do}"


def find_imbalance(labels: NDArray[Any], rows: str) -> list[Finding]:
    """Check the number of rows of each label; `rows` is their name in messages."""
    counts = count(labels)
    shown = ", ".join(f"{label}: {n}" for label, n in counts.items())
    smallest, largest = min(counts.values()), max(counts.values())
    if len(counts) == 1:
        what = f"All {len(labels)} {rows} have the label {next(iter(counts))}."
        do = "Add data of other labels."
        return [Finding("class-imbalance", what, "There is nothing to classify.", do)]
    if largest < _IMBALANCE * smallest and smallest >= ENOUGH_ACTIVE:
        return []
    return [
        Finding(
            "class-imbalance",
            f"Labels are unbalanced or rare ({rows} per label: {shown}).",
            "Always predicting the most common label has an accuracy of"
            f" {largest / len(labels):.2f}, and the rarest label has {smallest} {rows}, or"
            f" {smallest / 5:.1f} per test fold of five.",
            "Report the score with the majority baseline, or use scoring='balanced_accuracy'.",
        )
    ]


def not_finite(where: Sequence[str]) -> list[Finding]:
    """Return the finding about values that are not finite, if there are any."""
    if not where:
        return []
    return [
        Finding(
            "not-finite",
            f"NaN or infinite values in {', '.join(where)}.",
            "Every pipeline refuses them. float16 overflows above 65,504, which massive dimensions"
            " reach.",
            "Extract these sentences again in float32.",
        )
    ]


def constant_columns(where: Sequence[str]) -> list[Finding]:
    """Return the finding about columns with one value in all rows, if there are any."""
    if not where:
        return []
    return [
        Finding(
            "constant-columns",
            f"Columns with one value in all rows: {'; '.join(where)}.",
            "They carry no information; many of them mean that the extraction failed, or that all"
            " rows are the same token.",
            "Nothing, if they are few. Otherwise check the extraction, or pool with mean.",
        )
    ]


def first_sets(sets: Sequence[NDArray[Any]]) -> str:
    """Return the first few sets of numbers, and the first few numbers of each, as text."""
    return "; ".join(first_few(same) for same in sets[:MOST_SHOWN]) + and_more(sets)


def first_few(values: Any) -> str:
    """Return the first few of many numbers or words as text."""
    items = np.asarray(values).tolist()
    return ", ".join(map(str, items[:MOST_SHOWN])) + (", ..." if len(items) > MOST_SHOWN else "")


def and_more(items: Sequence[Any], shown: int = MOST_SHOWN) -> str:
    """Say how many more items there are than are shown."""
    return f"; and {len(items) - shown} more" if len(items) > shown else ""


def n_of(number: int, what: str) -> str:
    """Return a number with its noun: ``1 row``, ``2 rows``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def verb(number: int, word: str) -> str:
    """Return the form of a verb for a number: ``1 row repeats``, ``2 rows repeat``."""
    return word if number > 1 else f"{word}s"


def quote(text: str) -> str:
    """Return the beginning of a text on one line."""
    text = " ".join(str(text).split())
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
