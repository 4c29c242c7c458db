"""The rows that benchmarks yield, as Markdown, and what all benchmarks of one run share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .data import Data
from .measure import Measured, Task, best_of, run_measured, run_task


@dataclass(frozen=True)
class Row:
    """One figure: what was measured, its goal and whether it was reached, and the raw numbers."""

    figure: str
    value: str
    detail: str
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True, eq=False)
class Run:
    """What the benchmarks of one run share: data, number of repeats, a picture, the baseline."""

    data: Data
    repeats: int
    plot: Path | None = None

    def fastest(self, argv: list[str]) -> Measured:
        """The run of a command that took the least CPU."""
        return best_of(self.repeats, lambda: run_measured(argv), lambda m: m.cpu)

    def fastest_task(self, name: str, key: str = "cpu", **arguments: object) -> Task:
        """The run of a task with the smallest of one of its results."""
        return best_of(
            self.repeats, lambda: run_task(name, **arguments), lambda task: task.result[key]
        )

    @cached_property
    def baseline(self) -> Task:
        """Every member of every file through `numpy.load`, in a fresh process."""
        return self.fastest_task("load_everything", folder=str(self.data.files()))


def at_least(figure: str, ratio: float, goal: float, detail: str) -> Row:
    """Make the row of a ratio that should be large."""
    return Row(figure, f"{ratio:.2f}x", detail, f">= {goal:g}x", ratio >= goal)


def at_most(figure: str, value: float, goal: float, unit: str, detail: str) -> Row:
    """Make the row of a value that should be small."""
    return Row(figure, f"{value:.3g} {unit}", detail, f"<= {goal:g} {unit}", value <= goal)


def to_line(row: Row) -> str:
    """Format a row as a line of the table; a goal that was missed says so."""
    goal = row.goal + (" (missed)" if row.met is False else "")
    return f"| {row.figure} | {row.value} | {goal} | {row.detail} |"


HEAD = "| figure | measured | goal | in detail |\n| --- | --- | --- | --- |"
