"""Commands in forked processes, which have everything imported already: to be killed or starved."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sklprep.cli.main import main

from .answers import Run


@dataclass
class Command:
    """A command that runs in a fork of this process, its output kept in files."""

    pid: int
    log: Path
    _status: int | None = None

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        os.kill(self.pid, signal.SIGKILL)

    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = status if pid else None
        return self._status is None

    def wait(self) -> Run:
        """Wait for its end; the code of a killed one is negative."""
        if self._status is None:
            _, self._status = os.waitpid(self.pid, 0)
        out, err = (self.log.with_suffix(f".{end}").read_text() for end in ("out", "err"))
        return Run(os.waitstatus_to_exitcode(self._status), out, err)


def start(argv: Sequence[str], log: Path, prepare: Callable[[], object] = lambda: None) -> Command:
    """Start a command; `prepare` is called in its process first."""
    pid = os.fork()
    if pid:
        return Command(pid, log)
    code = 70
    try:
        for stream, end in ((1, "out"), (2, "err")):
            fd = os.open(log.with_suffix(f".{end}"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(fd, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        prepare()
        code = main([*argv, "--quiet"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
