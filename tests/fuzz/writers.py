"""Several processes that write one output at the same time: it is whole, and one of theirs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklprep.transformers.normalization_methods import METHODS

from .answers import check_run, run_command
from .folders import content_of, write_all
from .outputs import make_files
from .processes import start
from .table import Row, Run, rng_of
from .workers import Fault, Limits

_ROUNDS, _SHORT, _N = 20, 2, 4
_LIMITS = Limits(hangs=120)


@dataclass(frozen=True)
class _Forged:
    here: Path
    output: Path
    argvs: list[list[str]]
    delays: list[float]


class _Together:
    """Cases: rounds of four commands with one output, started at almost the same time."""

    n_sound = 0

    def __init__(self, run: Run, part: str) -> None:
        self._seed, self._part = run.seed, part
        self._files = make_files(run.scratch)
        self._solo: list[Any] = []

    def argvs(self, files: Path, output: Path) -> list[list[str]]:
        """The commands."""
        raise NotImplementedError

    def output(self, here: Path) -> Path:
        raise NotImplementedError

    def read(self, output: Path) -> Any:
        """All of what was written, to be compared."""
        raise NotImplementedError

    def forge(self, number: int, scratch: Path) -> _Forged:
        rng = rng_of(self._seed, self._part, number)
        here = scratch / "here"
        argvs = self.argvs(self._files, self.output(here))
        if not self._solo:
            for argv in argvs:
                write_all(here, {})
                check_run(run_command([*argv, "--quiet"]))  # and import all that there is
                self._solo.append(self.read(self.output(here)))
        write_all(here, {})
        return _Forged(here, self.output(here), argvs, (rng.random(_N) * 0.05).tolist())

    def run(self, forged: _Forged) -> list[str]:
        logs = [forged.here.parent / f"log{k}" for k in range(_N)]
        running = []
        for argv, log, delay in zip(forged.argvs, logs, forged.delays, strict=True):
            running.append(start(argv, log))
            time.sleep(delay)
        while any(command.is_running() for command in running):
            if forged.output.exists() and self.read(forged.output) not in self._solo:
                raise Fault("the output was none of those of a single writer, while they wrote")
        return [check_run(command.wait()) for command in running]

    def check(self, forged: _Forged, result: list[str]) -> str:
        if result != ["clean"] * _N:
            raise Fault(f"the commands ended {result}")
        if os.listdir(forged.here) != [forged.output.name]:
            raise Fault(f"left {sorted(os.listdir(forged.here))}")
        if self.read(forged.output) not in self._solo:
            raise Fault("the output is none of those of a single writer")
        return "whole"


class _Datasets(_Together):
    def argvs(self, files: Path, output: Path) -> list[list[str]]:
        command = "generate --strategy hidden-to-concept --layers all --force --jobs 1".split()
        paths = ["--input", str(files), "--output", str(output)]
        return [[*command, *paths, "--normalize", method] for method in METHODS]

    def output(self, here: Path) -> Path:
        return here / "out.npz"

    def read(self, output: Path) -> Any:
        return output.read_bytes()


class _Packers(_Together):
    def argvs(self, files: Path, output: Path) -> list[list[str]]:
        return [["pack", str(files), str(output), "--jobs", "1"]] * _N

    def output(self, here: Path) -> Path:
        return here / "out"

    def read(self, output: Path) -> Any:
        return content_of(output)


def concurrent_writers(run: Run) -> Iterator[Row]:
    """Four commands write different datasets to one output, many times."""
    part = "concurrent_writers"
    numbers = run.numbers(_ROUNDS, _SHORT)
    goal = "the output is one of the four, bit-exact"
    figure = f"x {_N} concurrent writers of a dataset"
    yield run.measured(part, figure, goal, _Datasets(run, part), numbers, _LIMITS)


def concurrent_packers(run: Run) -> Iterator[Row]:
    """Four commands pack the same files into one output, many times."""
    part = "concurrent_packers"
    numbers = run.numbers(_ROUNDS, _SHORT)
    goal = "the pack is that of a single one, bit-exact"
    figure = f"x {_N} concurrent packers"
    yield run.measured(part, figure, goal, _Packers(run, part), numbers, _LIMITS)
