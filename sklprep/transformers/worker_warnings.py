"""Warnings of worker processes, shown by the process that started them.

What a worker prints goes to the stderr that it was started with: a notebook does not show it, and
`warnings.catch_warnings` does not record it. So a process that sends a selector to workers listens
for their warnings, and a worker waits until its warning has been shown. Only text is sent, and both
sides prove that they know the key that Python gives a process and its children.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import warnings
from contextlib import suppress
from functools import cache
from multiprocessing import AuthenticationError, current_process, parent_process
from multiprocessing.connection import Client, Listener

from sklprep.exceptions import SklprepWarning

_MOST_BYTES = 4_096  # of a text; ours have 400
_SHOWN, _NOT_SHOWN = b"shown", b"not shown"


class OnceWarnings:
    """Shows each warning once, whichever process of a parallel run raises it.

    Otherwise every fold of a search would repeat it.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def has_shown(self, key: str) -> bool:
        return key in self._seen

    def forget(self) -> None:
        """Show all of them again from now on."""
        self._seen.clear()

    def warn(self, key: str, message: str, *, stacklevel: int) -> None:
        """Warn, in the process that started this one if this is a worker."""
        if key in self._seen:
            return
        if parent_process() is None or not self._tell_parent(key, message):
            warnings.warn(message, SklprepWarning, stacklevel=stacklevel + 1)
        self._seen.add(key)

    def _tell_parent(self, key: str, message: str) -> bool:
        with warnings.catch_warnings(record=True) as shown:  # raises if warnings are errors
            warnings.warn(message, SklprepWarning, stacklevel=2)
        if not shown:
            return True  # they are ignored, here as there
        try:
            with Client(_address(os.getppid()), authkey=current_process().authkey) as parent:
                parent.send_bytes(f"{key}\n{message}".encode())
                return parent.recv_bytes(_MOST_BYTES) == _SHOWN
        except (OSError, EOFError, AuthenticationError):  # the parent does not listen
            return False

    def listen(self) -> None:
        """Show the warnings of this process's workers from now on."""
        with suppress(OSError):
            _start_listening(os.getpid(), self)

    def serve(self, listener: Listener) -> None:
        while True:
            try:
                with listener.accept() as worker:
                    key, _, message = worker.recv_bytes(_MOST_BYTES).decode().partition("\n")
                    worker.send_bytes(_SHOWN if self._show(key, message) else _NOT_SHOWN)
            except (EOFError, ConnectionError, AuthenticationError):
                continue  # that worker has died, or is not ours
            except OSError:
                return

    def _show(self, key: str, message: str) -> bool:
        try:
            self.warn(key, message, stacklevel=1)
        except (
            SklprepWarning
        ):  # warnings are errors here, and nothing would catch one in this thread
            return False
        return True


@cache
def _start_listening(pid: int, warner: OnceWarnings) -> None:
    """Start the one thread of a process, which a fork does not inherit."""
    listener = Listener(_address(pid), backlog=16, authkey=current_process().authkey)
    threading.Thread(target=warner.serve, args=(listener,), daemon=True).start()


def _address(pid: int) -> str:
    """Give the address at which a process listens, from its id, which its children know."""
    if sys.platform == "win32":
        return rf"\\.\pipe\sklprep-{pid}"
    name = f"sklprep-{os.getuid()}-{pid}"
    if sys.platform == "linux":
        return f"\0{name}"  # no file that would be left behind
    return os.path.join(tempfile.gettempdir(), name)
