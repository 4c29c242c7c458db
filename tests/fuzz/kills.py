"""``kill -9`` at random moments: the old output or the new one, which the next run completes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .answers import check_run
from .folders import sizes_of, write_all
from .outputs import KINDS, Output, make_files, make_output
from .processes import start
from .table import Row, Run, rng_of
from .workers import Fault, Limits

_FULL, _SHORT = 200, 4
_LIMITS = Limits(hangs=120)


@dataclass(frozen=True)
class _Forged:
    output: Output
    waits_for_write: bool
    delay: float


class _Kills:
    """Cases: a command is killed at a random moment; then it runs again to its end.

    Half of the moments are drawn from the whole run, half from the time that it writes.
    """

    n_sound = 0

    def __init__(self, run: Run, part: str, kinds: Sequence[str]) -> None:
        self._seed, self._part, self._kinds = run.seed, part, kinds
        self._files = make_files(run.scratch)
        self._outputs: dict[str, tuple[Output, float, float]] = {}

    def forge(self, number: int, scratch: Path) -> _Forged:
        rng = rng_of(self._seed, self._part, number)
        kind = self._kinds[number % len(self._kinds)]
        if kind not in self._outputs:
            made = make_output(kind, self._files, scratch / "here")
            self._outputs[kind] = (
                made,
                *map(min, zip(*[self._time(made) for _ in range(3)], strict=True)),
            )
        output, until_write, until_end = self._outputs[kind]
        write_all(output.here, output.files_before)
        waits = bool(rng.random() < 0.5)
        return _Forged(output, waits, rng.random() * (until_end - until_write * waits))

    def _time(self, output: Output) -> tuple[float, float]:
        """Seconds until a run writes the first byte, and until it ends."""
        write_all(output.here, output.files_before)
        begin = time.perf_counter()
        command = start(output.argv, output.here.parent / "log")
        _wait_for_write(output, command.is_running)
        until_write = time.perf_counter() - begin
        check_run(command.wait())
        return until_write, time.perf_counter() - begin

    def run(self, forged: _Forged) -> bool:
        output = forged.output
        command = start(output.argv, output.here.parent / "log")
        if forged.waits_for_write:
            _wait_for_write(output, command.is_running)
        time.sleep(forged.delay)
        if is_running := command.is_running():
            command.kill()
        code = command.wait().code
        if code not in (0, -9):
            raise Fault(f"the command ended with code {code}")
        return is_running

    def check(self, forged: _Forged, result: bool) -> str:
        output = forged.output
        was_writing = sizes_of(output.here) not in (
            _sizes(output.files_before),
            _sizes(output.files_after),
        )
        verdict = output.check_cut()
        run = start(output.argv, output.here.parent / "log").wait()
        if check_run(run) != "clean":
            raise Fault(f"the next run gave {run.err}")
        output.check_next()
        if not result:
            return "too late"
        return f"{verdict} (mid-write)" if was_writing else verdict


def _wait_for_write(output: Output, is_running: Callable[[], bool]) -> None:
    before = _sizes(output.files_before)
    while is_running() and sizes_of(output.here) == before:
        time.sleep(0.0005)


def _sizes(files: Mapping[str, bytes]) -> dict[str, int]:
    return {name: len(content) for name, content in files.items()}


def _killed(run: Run, part: str, figure: str, kinds: Sequence[str]) -> Iterator[Row]:
    goal = "old or new, bit-exact; 0 leftovers after the next run"
    numbers = run.numbers(_FULL, _SHORT)
    yield run.measured(part, figure, goal, _Kills(run, part, kinds), numbers, _LIMITS)


def killed_generate(run: Run) -> Iterator[Row]:
    """`generate` over an old dataset, killed at a random moment."""
    yield from _killed(run, "killed_generate", "x kill -9 of generate", KINDS[:1])


def killed_pack(run: Run) -> Iterator[Row]:
    """`pack` into an old pack or into nothing, killed at a random moment."""
    yield from _killed(run, "killed_pack", "x kill -9 of pack", KINDS[1:])
