"""No space at many points of a run: the old output stays, there is one clear error, and once there
is space the same command goes through.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .answers import Run as Answer
from .answers import check_run
from .folders import write_all, write_below
from .outputs import KINDS, Output, make_files, make_output
from .processes import start
from .table import Row, Run
from .workers import Fault, Limits

_POINTS, _SHORT = 20, 2
_LIMITS = Limits(hangs=120)
_PAGE = 4096


@dataclass(frozen=True)
class _Forged:
    output: Output
    kind: str
    fraction: float


class _NoSpace:
    """Cases: each kind of output, at each of some points along what the run would write."""

    n_sound = 0

    def __init__(
        self, files: Path, n_points: int, without_space: Callable[[Output, float], Any]
    ) -> None:
        self._files, self._n_points, self._without_space = files, n_points, without_space
        self._outputs: dict[str, Output] = {}

    def forge(self, number: int, scratch: Path) -> _Forged:
        kind = KINDS[number // self._n_points]
        if kind not in self._outputs:
            self._outputs[kind] = make_output(kind, self._files, scratch / "here")
        fraction = (number % self._n_points + 0.5) / self._n_points
        return _Forged(self._outputs[kind], kind, fraction)

    def run(self, forged: _Forged) -> None:
        """Run and check at once: a file system in memory is gone when it is unmounted."""
        output = forged.output
        log = output.here.parent / "log"
        with self._without_space(output, forged.fraction) as (starve, feed):
            run = start(output.argv, log, starve).wait()
            if check_run(run) != "refused":
                raise Fault(f"gave code {run.code} where there was no space")
            if output.check_cut() != "old":
                raise Fault("what lies there is not the old output")
            feed()
            self._check_next(output, start(output.argv, log).wait())

    def _check_next(self, output: Output, run: Answer) -> None:
        if check_run(run) != "clean":
            raise Fault(f"with space again it gave {run.err}")
        output.check_next()

    def check(self, forged: _Forged, result: None) -> str:
        return f"{forged.kind}s intact"


@contextlib.contextmanager
def _small_file_system(output: Output, fraction: float) -> Iterator[Any]:
    """Hold the old output in a tmpfs that has room for this fraction of what is written."""
    old, new = _pages(output.files_before), _pages(output.files_after)
    room = new if output.output.suffix else new - old  # a dataset is written beside the old one
    size = (old + int(room * fraction)) * _PAGE
    write_below(output.here, {})
    _mount(f"size={size}", output.here)
    try:
        write_below(output.here, output.files_before)
        yield lambda: None, partial(_mount, f"remount,size={size + 4 * new * _PAGE}", output.here)
    finally:
        subprocess.run(["umount", str(output.here)], check=True)


@contextlib.contextmanager
def _short_files(output: Output, fraction: float) -> Iterator[Any]:
    """Let no file grow beyond this fraction of the longest that is written."""
    write_all(output.here, output.files_before)
    limit = int(max(map(len, output.files_after.values())) * fraction)
    yield partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)), lambda: None


def _pages(files: Mapping[str, bytes]) -> int:
    return sum(-(-len(content) // _PAGE) for content in files.values())


def _mount(options: str, folder: Path) -> None:
    argv = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(argv, check=True, capture_output=True)


def _can_mount(scratch: Path) -> bool:
    folder = scratch / "mount"
    folder.mkdir(exist_ok=True)
    try:
        _mount("size=64k", folder)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    subprocess.run(["umount", str(folder)], check=True)
    return True


def full_disk(run: Run) -> Iterator[Row]:
    """A file system that fills up at many points of a run (a small tmpfs; only as root)."""
    if os.geteuid() or not _can_mount(run.scratch):
        yield Row("full disks", "old intact, one clear error", "not tried: cannot mount a tmpfs")
        return
    try:
        yield from _no_space(run, "full_disk", "full disks", _small_file_system)
    finally:
        for line in Path("/proc/mounts").read_text().splitlines():
            if str(run.scratch) in line:  # of a worker that was killed
                subprocess.run(["umount", "-l", line.split()[1]], check=True)


def full_quota(run: Run) -> Iterator[Row]:
    """A limit on the size of files (RLIMIT_FSIZE) that is met at many points of a run."""
    yield from _no_space(run, "full_quota", "files that may not grow", _short_files)


def _no_space(run: Run, part: str, figure: str, without: Callable[..., Any]) -> Iterator[Row]:
    n_points = _SHORT if run.is_short else _POINTS
    numbers = run.numbers(len(KINDS) * n_points, len(KINDS) * n_points)
    goal = "old intact, one clear error; complete with space again"
    cases = _NoSpace(make_files(run.scratch), n_points, without)
    yield run.measured(part, figure, goal, cases, numbers, _LIMITS)
