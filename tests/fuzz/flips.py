"""Single flipped bits: refused, or harmless; no wrong value is ever accepted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .dataset_cases import Datasets
from .pack_cases import Packs
from .sentence_cases import SentenceFiles
from .table import Row, Run
from .workers import Cases, Limits

_FULL, _SHORT = 10_000, 100
_LIMITS = Limits(seconds=0.5, mebibytes=64)


class _FlippedSentences(SentenceFiles):
    asks = ("read",)
    damages = ("flip",)
    n_sound = SentenceFiles.n_sound // len(SentenceFiles.asks)


class _FlippedPacks(Packs):
    asks = ("read",)
    damages = ("flip",)
    n_sound = Packs.n_sound // len(Packs.asks)


class _FlippedDatasets(Datasets):
    asks = ("read",)
    damages = ("flip",)
    n_sound = Datasets.n_sound // len(Datasets.asks)


def _flips(run: Run, part: str, figure: str, cases: Callable[[int, str], Cases]) -> Iterator[Row]:
    numbers = run.numbers(_FULL, _SHORT)
    goal = "0 wrong values accepted"
    yield run.measured(part, figure, goal, cases(run.seed, part), numbers, _LIMITS)


def flipped_sentences(run: Run) -> Iterator[Row]:
    """One flipped bit in a sentence file, all of which is read."""
    yield from _flips(run, "flipped_sentences", "bit flips in sentence files", _FlippedSentences)


def flipped_packs(run: Run) -> Iterator[Row]:
    """One flipped bit in a pack, which is verified and read."""
    yield from _flips(run, "flipped_packs", "bit flips in verified packs", _FlippedPacks)


def flipped_datasets(run: Run) -> Iterator[Row]:
    """One flipped bit in a dataset, which is loaded and used."""
    yield from _flips(run, "flipped_datasets", "bit flips in datasets", _FlippedDatasets)
