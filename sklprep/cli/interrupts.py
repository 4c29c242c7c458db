"""Ctrl-C and SIGTERM: one line, nothing half-written, and the process gone within a second.

The signal becomes a `KeyboardInterrupt` in the main thread, so that ``finally`` and ``with`` clean
up. Where that does not help (an interrupt is lost in a destructor, joblib waits for a thread), a
thread ends the process.
"""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP
]
_SECONDS_TO_CLEAN_UP = 0.6
"""Removing temporary files takes milliseconds, and the process must be gone within a second."""
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class ExplainedInterrupt(KeyboardInterrupt):
    """An interrupt whose text is what the user is told.

    A plain `KeyboardInterrupt` may have a text, too: Python adds one if the signal arrives while it
    decodes.
    """


def exit_on_signals(run: Callable[[], int]) -> int:
    """Call a function; a signal meanwhile ends the process with exit code 128 + its number.

    If `run` answers the signal with an `ExplainedInterrupt`, its text is printed on stderr.
    """
    # joblib's resource tracker warns of what it removes after an interrupt, which is its job
    quiet = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, [os.getenv("PYTHONWARNINGS"), quiet]))
    atexit.register(_ignore_signals)  # runs last: only Python's own shutdown is left
    stop = _Stop()
    try:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as nohup leaves it
                signal.signal(number, stop)
        return run()
    except ExplainedInterrupt as interrupt:
        stop.message = str(interrupt)
        raise
    finally:
        stop.finish()


class _Stop:
    """Handler of the signals; after the first one nothing else is printed on stderr."""

    def __init__(self) -> None:
        self.message = "Interrupted; nothing was left half-written."
        self._signal = 0
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
        with suppress(RuntimeError):  # no more threads may be started
            _thread.start_new_thread(self._leave_late, ())  # takes no lock that is held here
        raise KeyboardInterrupt

    def _leave_late(self) -> None:
        time.sleep(_SECONDS_TO_CLEAN_UP)
        self._leave()

    def finish(self) -> None:
        """Leave the process if a signal came; one that comes now needs no cleaning up."""
        self._is_running = False
        if self._signal:
            with suppress(Exception):
                sys.stdout.flush()
            self._leave()

    def _leave(self) -> NoReturn:
        """End the process and those it started, whatever its threads are doing."""
        stderr, self._stderr = self._stderr, -1  # the other thread may come here now
        line = f"{self.message}\n"
        if os.isatty(stderr):  # there may be half a progress bar
            line = f"\n{line}"
        with suppress(OSError):
            os.write(stderr, line.encode())
        # not imported here: that could wait for an import that the main thread is in the middle of
        if processes := sys.modules.get("multiprocessing.process"):
            for child in processes.active_children():
                with suppress(OSError):
                    os.kill(child.pid, _KILL)
        os._exit(128 + self._signal)


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
