"""Run many cases in forked workers; each is timed, its memory measured, and a hang is killed.

A worker is a fork of this process, which has imported everything and run the sound cases, so that
what a case costs is the case. It says which one it begins before it begins: when it hangs or dies,
its parent knows the number, and another worker goes on behind it.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import re
import resource
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

_POLL = 0.2
_TRIES, _MAX_KILLS = 10, 3
_MAX_MEMORY = 8 << 30  # of one process, so that a case that takes all of it harms no other


class Fault(AssertionError):
    """A case did not end as it must."""


class Cases(Protocol):
    """Numbered cases of one kind; each number gives the same case in every process."""

    n_sound: int
    """The cases from -n_sound to -1 are sound ones: all must be clean."""

    def forge(self, number: int, scratch: Path) -> Any:
        """Make the input of one case below a folder of the worker's own."""

    def run(self, forged: Any) -> Any:
        """Let sklprep do its work; only this is timed and its memory measured."""

    def check(self, forged: Any, result: Any) -> str:
        """Name a good end in one word; raise `Fault` for any other."""


@dataclass(frozen=True)
class Outcome:
    """How one case ended, in how many seconds, and by how many MiB the process grew for it."""

    number: int
    verdict: str
    seconds: float = 0.0
    mebibytes: float = 0.0
    fault: str = ""


@dataclass(frozen=True)
class Limits:
    """What a case may cost."""

    seconds: float = math.inf
    mebibytes: float = math.inf
    hangs: float = 10.0
    """Seconds after which a case is killed; one that is killed each time it is tried hangs."""


def run_cases(
    cases: Cases, numbers: Sequence[int], limits: Limits, scratch: Path, n_workers: int
) -> Iterator[Outcome]:
    """Run cases in forked workers; outcomes come in any order."""
    run_sound(cases, scratch / "sound")
    shares = [list(numbers[k::n_workers]) for k in range(n_workers)]
    workers = [
        _Worker(cases, share, limits, scratch / f"worker{k}") for k, share in enumerate(shares)
    ]
    workers = [worker for worker in workers if worker.left]
    try:
        while workers:
            for worker in workers:
                worker.ensure_running()
            since = time.monotonic()
            wait([worker.outcomes for worker in workers], timeout=_POLL)
            waited = min(time.monotonic() - since, 2 * _POLL)  # more: all of this was suspended
            for worker in workers:
                yield from worker.collect(waited)
            workers = [worker for worker in workers if worker.left]
    finally:
        for worker in workers:
            worker.stop()


def run_sound(cases: Cases, scratch: Path) -> None:
    """Show that the harness takes sound input for sound, and import all that there is to import."""
    scratch.mkdir(parents=True, exist_ok=True)
    for number in range(-cases.n_sound, 0):
        forged = cases.forge(number, scratch)
        verdict = cases.check(forged, cases.run(forged))
        if verdict != "clean":
            raise Fault(f"sound case {number} ({forged}) was {verdict}")


class _Worker:
    """The parent's end of one forked process, and of those that take its place."""

    def __init__(self, cases: Cases, share: list[int], limits: Limits, scratch: Path) -> None:
        self._cases, self._limits, self._scratch = cases, limits, scratch
        self.left = share
        self._process: Any = None
        self.outcomes: Connection
        self._silent = 0.0
        self._n_kills = 0

    def ensure_running(self) -> None:
        if self._process is None:
            context = multiprocessing.get_context("fork")
            self.outcomes, theirs = context.Pipe(duplex=False)
            self._scratch.mkdir(parents=True, exist_ok=True)
            self._process = context.Process(
                target=_work,
                args=(self._cases, self.left, self._limits, self._scratch, theirs),
                daemon=True,
            )
            self._process.start()
            theirs.close()
            self._silent = 0.0

    def collect(self, waited: float) -> Iterator[Outcome]:
        """Take what the process has to say; end it where that is nothing for too long."""
        self._silent += waited
        try:
            while self.outcomes.poll():
                outcome = self.outcomes.recv()
                self._silent = 0.0
                if outcome is not None:  # None: the next case begins
                    self._n_kills = 0
                    self.left.remove(outcome.number)
                    yield outcome
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            self.stop()
            if self.left:
                yield self._lost(f"killed its process (exit code {code})")
            return
        if self._silent > self._limits.hangs:
            self.stop()
            self._n_kills += 1
            if self._n_kills == _MAX_KILLS:
                yield self._lost(f"was killed after {self._limits.hangs:g} s, {_MAX_KILLS} times")

    def _lost(self, what: str) -> Outcome:
        self._n_kills = 0
        return Outcome(self.left.pop(0), "fault", self._limits.hangs, fault=what)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self.outcomes.close()
            self._process = None


def _work(
    cases: Cases, numbers: list[int], limits: Limits, scratch: Path, outcomes: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    parent = os.getppid()
    for number in list(numbers):
        if os.getppid() != parent:
            os._exit(1)
        outcomes.send(None)
        outcomes.send(measure(cases, number, limits, scratch))
    outcomes.close()
    os._exit(0)


def measure(cases: Cases, number: int, limits: Limits, scratch: Path) -> Outcome:
    """Run one case; one that took too long is tried again, since the machine may have been busy.

    Seconds are those of the processor, which other processes add little to; a case that waits for
    ever is killed from outside.
    """
    seconds = mebibytes = float("inf")
    try:
        for _ in range(_TRIES):
            forged = cases.forge(number, scratch)
            before = _reset_peak()
            start = time.process_time()
            result = cases.run(forged)
            seconds = min(seconds, time.process_time() - start)
            mebibytes = min(mebibytes, peak_memory() - before)
            verdict = cases.check(forged, result)
            if seconds <= limits.seconds and mebibytes <= limits.mebibytes:
                return Outcome(number, verdict, seconds, mebibytes)
        what = f"took {seconds:.2f} s and {mebibytes:.0f} MiB"
    except Fault as fault:
        what = str(fault)
    except BaseException:
        what = traceback.format_exc()
    return Outcome(number, "fault", seconds, mebibytes, what)


def peak_memory() -> float:
    """VmHWM of this process in MiB."""
    return _status("VmHWM")


def _reset_peak() -> float:
    """Let VmHWM begin anew at what the process takes now, where that is allowed; give it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmHWM")


def _status(key: str) -> float:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {key}; the harness needs Linux.")
    return int(found[1]) / 1024
