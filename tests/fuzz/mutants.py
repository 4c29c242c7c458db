"""Mutated files of each format: a clean result, or one clear error, in little time and memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .dataset_cases import Datasets
from .dump_cases import WRITERS, Dumps, is_written
from .pack_cases import Packs
from .sentence_cases import SentenceFiles
from .table import Row, Run
from .workers import Cases, Limits

_FULL, _SHORT = 10_000, 200
_FULL_DUMPS, _SHORT_DUMPS = 2_000, 50  # of each format
_LIMITS = Limits(seconds=0.5, mebibytes=64)
_LIMITS_DUMPS = Limits(seconds=2, mebibytes=64)  # some are read in a child, by large libraries
_GOAL_DUMPS = "clean or one clear error, < 2 s, + 64 MiB"
_GOAL = "clean or one clear error, < 0.5 s, + 64 MiB"


def _mutants(run: Run, part: str, figure: str, cases: Callable[[int, str], Cases]) -> Iterator[Row]:
    numbers = run.numbers(_FULL, _SHORT)
    yield run.measured(part, figure, _GOAL, cases(run.seed, part), numbers, _LIMITS)


def mutated_sentences(run: Run) -> Iterator[Row]:
    """Mutated sentence files beside a sound one: read, inspected, made a dataset or a pack."""
    yield from _mutants(run, "mutated_sentences", "mutated sentence files", SentenceFiles)


def mutated_packs(run: Run) -> Iterator[Row]:
    """Mutated packs: read, verified, inspected, made a dataset."""
    yield from _mutants(run, "mutated_packs", "mutated packs", Packs)


def mutated_datasets(run: Run) -> Iterator[Row]:
    """Mutated datasets, their embedded pipelines among them: loaded and used, or inspected."""
    yield from _mutants(run, "mutated_datasets", "mutated datasets", Datasets)


def mutated_dumps(run: Run) -> Iterator[Row]:
    """Mutated dumps of other tools, a row a format: read, inspected, made a pack or a dataset."""
    for kind in filter(is_written, WRITERS):
        numbers = run.numbers(_FULL_DUMPS, _SHORT_DUMPS)
        cases = Dumps(run.seed, "mutated_dumps", kind)
        figure = f"mutated {kind} dumps"
        yield run.measured("mutated_dumps", figure, _GOAL_DUMPS, cases, numbers, _LIMITS_DUMPS)
