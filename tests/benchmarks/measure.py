"""Measure a fresh process: wall time, CPU time and peak memory; name the machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[2]

_POLL_MS = 5
_LIBRARIES = ("sklprep", "numpy", "scipy", "scikit-learn", "skops", "joblib", "zlib-ng")


@dataclass(frozen=True)
class Measured:
    """One process from start to end: seconds of wall and CPU time, peak memory in MB (VmHWM)."""

    wall: float
    cpu: float
    hwm: float
    output: str


@dataclass(frozen=True)
class Task:
    """A function of `tasks` in a process of its own: what it returned, and the whole process."""

    result: dict[str, Any]
    process: Measured


def run_measured(argv: Sequence[str]) -> Measured:
    """Run a command from the repository's root and measure its process.

    CPU time is what `os.wait4` reports, user and system, of the process and the children it waited
    for. Memory is VmHWM, read every few milliseconds: the last value seen counts, because the
    first ones can still be those of this process. (`ru_maxrss` is inherited across fork.)
    """
    hwm = 0.0
    with tempfile.TemporaryFile("w+") as output:
        start = time.perf_counter()
        process = subprocess.Popen(argv, cwd=ROOT, stdout=output)
        handle = os.pidfd_open(process.pid)
        try:
            exited = select.poll()
            exited.register(handle, select.POLLIN)
            while not exited.poll(_POLL_MS):
                hwm = peak_memory(process.pid) or hwm
            wall = time.perf_counter() - start
        finally:
            os.close(handle)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with exit code {process.returncode}.\n{text}")
    return Measured(wall, usage.ru_utime + usage.ru_stime, hwm, text)


def run_task(name: str, **arguments: Any) -> Task:
    """Run a function of `tests.benchmarks.tasks` in a fresh process."""
    argv = [sys.executable, "-m", "tests.benchmarks.tasks", name, json.dumps(arguments)]
    measured = run_measured(argv)
    return Task(json.loads(measured.output), measured)


def peak_memory(pid: int | str = "self") -> float:
    """VmHWM of a process in MB; 0 if it has ended."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def best_of(repeats: int, run: Callable[[], T], key: Callable[[T], float]) -> T:
    """The run with the smallest key: what the machine can do when nothing else disturbs it."""
    return min((run() for _ in range(repeats)), key=key)


def describe_machine() -> str:
    """CPU, cores, versions and date, in one line."""
    return "; ".join(
        [
            f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores",
            f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
            ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
            f"{datetime.now(UTC):%Y-%m-%d}",
        ]
    )


def _cpu_model() -> str:
    lines: Iterable[str] = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
