"""What an audit finds, and the findings that any data may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.notebook.words import count
from sklprep.transformers.targets import ENOUGH_ACTIVE

SCORED_TWICE = "is scored on what it was trained on, and its score is too high"

MOST_SHOWN = 5
"""Of many sentences, rows or pairs, so many are named."""

_IMBALANCE = 3
"""Times the rarest label that the commonest may have: at 3 to 1 among two labels the majority
baseline has accuracy 0.75."""


@dataclass(frozen=True)
class Finding:
    """Something a reader of the published number should know.

    Attributes
    ----------
    code : str
        Its kind, such as ``"near-duplicates"``.
    what : str
        What there is, how many, which first.
    why : str
        What it does to a score.
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
    """Look at the number of rows of each label; `rows` is what messages call them."""
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
            f"Labels are unbalanced or rare ({rows} a label: {shown}).",
            f"Always answering with the commonest label has accuracy {largest / len(labels):.2f},"
            f" and {smallest} {rows} of the rarest are {smallest / 5:.1f} a test fold of five.",
            "Report it beside the majority baseline, or score with scoring='balanced_accuracy'.",
        )
    ]


def not_finite(where: Sequence[str]) -> list[Finding]:
    """The finding of values that are not finite, unless there are none."""
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
    """The finding of columns with one value in all rows, unless there are none."""
    if not where:
        return []
    return [
        Finding(
            "constant-columns",
            f"Columns with one value in all rows: {'; '.join(where)}.",
            "They tell nothing, and a model fitted here cannot use them elsewhere; many of them"
            " mean that the extraction went wrong, or that all rows are one token.",
            "If they are few, nothing. Otherwise look at the extraction, or pool with mean.",
        )
    ]


def first_sets(sets: Sequence[NDArray[Any]]) -> str:
    """The first few sets of numbers, and the first few numbers of each."""
    return "; ".join(first_few(same) for same in sets[:MOST_SHOWN]) + and_more(sets)


def first_few(values: Any) -> str:
    """The first few of many numbers or words."""
    items = np.asarray(values).tolist()
    return ", ".join(map(str, items[:MOST_SHOWN])) + (", ..." if len(items) > MOST_SHOWN else "")


def and_more(items: Sequence[Any], shown: int = MOST_SHOWN) -> str:
    """How many more there are than are shown."""
    return f"; and {len(items) - shown} more" if len(items) > shown else ""


def n_of(number: int, what: str) -> str:
    """A number of things: ``1 row``, ``2 rows``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def verb(number: int, word: str) -> str:
    """The verb of so many things: ``1 row repeats``, ``2 rows repeat``."""
    return word if number > 1 else f"{word}s"


def quote(text: str) -> str:
    """The beginning of a text, on one line."""
    text = " ".join(str(text).split())
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
