"""Ctrl-C and SIGTERM: one line, nothing half-written, and the process gone within a second.

The signal becomes a `KeyboardInterrupt` in the main thread, so that ``finally`` and ``with`` clean
up. Where that does not help (an interrupt is lost in a destructor, joblib waits for a thread), an
alarm ends the process.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SECONDS_TO_CLEAN_UP = 0.6


def exit_on_signals(run: Callable[[], int]) -> int:
    """Call a function; a signal meanwhile ends the process with exit code 128 + its number.

    The text of a `KeyboardInterrupt` that `run` raises in answer is what is said on stderr.
    """
    # joblib's tracker removes what a process left behind, which is not worth a warning then
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), quiet]))
    atexit.register(_ignore_signals)  # called last: only what Python itself takes down is left then
    stop = _Stop()
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
            signal.signal(number, stop)
    try:
        return run()
    except KeyboardInterrupt as interrupt:
        stop.message = str(interrupt) or stop.message
        raise
    finally:
        stop.finish()


class _Stop:
    """The handler of the signals; from the first one on nothing else is said on stderr."""

    def __init__(self) -> None:
        self.message = "Interrupted; nothing was left half-written."
        self._signal: int | None = None
        self._is_running = True
        self._stderr = -1
        with suppress(OSError):  # it may be closed
            self._stderr = os.dup(2)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        _ignore_signals()
        self._signal = number
        with open(os.devnull, "w") as silence:
            os.dup2(silence.fileno(), 2)
        if not self._is_running:
            self._leave()
        signal.signal(signal.SIGALRM, self._leave)
        signal.setitimer(signal.ITIMER_REAL, _SECONDS_TO_CLEAN_UP)
        raise KeyboardInterrupt

    def finish(self) -> None:
        """Leave the process if a signal came; one that comes now needs no cleaning up."""
        self._is_running = False
        if self._signal is not None:
            with suppress(Exception):
                sys.stdout.flush()
            self._leave()

    def _leave(self, *_: object) -> NoReturn:
        """End the process and those it started, whatever its threads are doing."""
        assert self._signal is not None
        stderr, self._stderr = self._stderr, -1  # the alarm may come now
        line = f"{self.message}\n"
        if os.isatty(stderr):  # there may be half a progress bar
            line = f"\n{line}"
        with suppress(OSError):
            os.write(stderr, line.encode())
        if "multiprocessing" in sys.modules:
            from multiprocessing import active_children

            for child in active_children():
                if child.pid is not None:
                    with suppress(OSError):
                        os.kill(child.pid, signal.SIGKILL)
        os._exit(128 + self._signal)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
