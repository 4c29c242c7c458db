"""The named corpus: every row of the tables of bad files and of semantic faults, by command.

The bad arrays, entries and archives are those that the tests of the reader are made of. Each goes
through a command, as a user would meet it, and must give the message written beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import bad_data, bad_files
from .answers import Run as Answer
from .answers import check_run, run_command, run_function
from .folders import write_all
from .named import Named
from .table import Row, Run
from .workers import Fault, Limits

_LIMITS = Limits(seconds=0.1, mebibytes=16)
_GOAL = "the expected message, < 0.1 s, + 16 MiB"
_PATHS = ("data", "pack", "data.npz", "out.npz")


def corpus(run: Run) -> Iterator[Row]:
    """Every named fault of sentence files, packs and datasets, by command."""
    cases = Corpus()
    numbers = run.numbers(len(cases.named), len(cases.named))
    yield run.measured("corpus", "named faults", _GOAL, cases, numbers, _LIMITS)


class Corpus:
    """Cases: the named ones, by their position."""

    def __init__(self) -> None:
        self.named = [*bad_files.every(), *bad_data.every()]
        self._sound = [case for case in self.named if case.code == 0]
        self.n_sound = len(self._sound)

    def forge(self, number: int, scratch: Path) -> tuple[Named, Path]:
        case = self._sound[number] if number < 0 else self.named[number]
        here = scratch / "here"
        write_all(here, {})
        case.make(here)
        return case, here

    def run(self, forged: tuple[Named, Path]) -> Answer:
        case, here = forged
        if callable(case.command):
            return run_function(lambda: case.command(here))
        words = case.command.split()
        argv = [str(here / word) if word in _PATHS else word for word in words]
        return run_command([*argv, "--quiet", "--jobs", "1"])

    def check(self, forged: tuple[Named, Path], result: Answer) -> str:
        case, _ = forged
        first_line = next(iter(result.err.splitlines()), "")
        try:
            verdict = check_run(result)
            if result.code != case.code or not (
                case.says in first_line if case.says else not first_line
            ):
                raise Fault(f"gave code {result.code} and said {first_line!r}")
        except Fault as fault:
            expected = f"expected code {case.code} and {case.says!r} of {case.command}"
            raise Fault(f"{case.name}: {fault}\n  {expected}") from None
        return verdict
