"""The rows that the parts yield, as Markdown, and what all parts of one run share."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .workers import Cases, Limits, Outcome, run_cases

HEAD = "| figure | must be | found | slowest | most memory |\n| --- | --- | --- | --- | --- |"


@dataclass(frozen=True)
class Row:
    """One figure: what was tried, what must be, what was found, and what went wrong."""

    figure: str
    goal: str
    found: str
    slowest: str = ""
    memory: str = ""
    faults: Sequence[str] = ()

    def __str__(self) -> str:
        found = self.found + (f"; **{len(self.faults):,} faults**" if self.faults else "")
        return f"| {self.figure} | {self.goal} | {found} | {self.slowest} | {self.memory} |"


@dataclass(frozen=True)
class Run:
    """What the parts of one run share."""

    seed: int
    is_short: bool
    scratch: Path
    n_workers: int
    report: Callable[[str], None]
    case: int | None = None

    def numbers(self, full: int, short: int) -> range:
        """The cases to run: all, those of a short run, or the one that was asked for."""
        if self.case is not None:
            return range(self.case, self.case + 1)
        return range(short if self.is_short else full)

    def measured(
        self,
        part: str,
        figure: str,
        goal: str,
        cases: Cases,
        numbers: Sequence[int],
        limits: Limits,
    ) -> Row:
        """Run cases in workers and count how they ended."""
        tally = Tally(self, part)
        for outcome in run_cases(cases, numbers, limits, self.scratch / part, self.n_workers):
            tally.add(outcome)
        return tally.row(f"{len(numbers):,} {figure}", goal, limits)


def rng_of(seed: int, part: str, number: int) -> np.random.Generator:
    """The random numbers of one case: they depend on nothing else."""
    return np.random.default_rng([seed, zlib.crc32(part.encode()), number])


@dataclass
class Tally:
    """Counts outcomes; reports each fault when it comes, with what repeats it."""

    run: Run
    part: str
    verdicts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    mebibytes: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.seconds = max(self.seconds, outcome.seconds)
        self.mebibytes = max(self.mebibytes, outcome.mebibytes)
        if not outcome.fault:
            self.verdicts[outcome.verdict] += 1
            return
        self.add_fault(outcome.number, outcome.fault)

    def add_fault(self, number: int | None, what: str) -> None:
        """Count a fault, and report what it was and what repeats it."""
        again = f"python -m tests.fuzz --only {self.part} --seed {self.run.seed}"
        again += " --short" if self.run.is_short else ""
        if number is not None:
            again += f" --case {number}"
        case = "" if number is None else f" case {number},"
        fault = f"{self.part},{case} seed {self.run.seed}: {what.strip()}\n  again: {again}"
        self.faults.append(fault)
        self.run.report(fault)

    def row(self, figure: str, goal: str, limits: Limits) -> Row:
        """Make the row; what had no limit is left out."""
        counts = ", ".join(f"{n:,} {verdict}" for verdict, n in sorted(self.verdicts.items()))
        return Row(
            figure,
            goal,
            counts or "none",
            f"{self.seconds:.3f} s" if math.isfinite(limits.seconds) else "",
            f"+{self.mebibytes:.1f} MiB" if math.isfinite(limits.mebibytes) else "",
            self.faults,
        )
