"""Every fault one line on stderr, with its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from sklprep.exceptions import FaultyFilesError, SklprepError, UsageError


def explain(error: Exception) -> tuple[str, int]:
    """Give the message of an error, a line for each thing that is wrong, and the exit code."""
    message, code = _explain(error)
    return message if isinstance(error, FaultyFilesError) else one_line(message), code


def _explain(error: Exception) -> tuple[str, int]:
    match error:
        case UsageError():
            return str(error), 2
        case SklprepError():
            return str(error), 1
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror or error}.", 1
        case MemoryError():
            return "Out of memory; use a pack (sklprep pack), or fewer layers.", 1
        case _:
            kind = type(error).__name__
            return f"Unexpected {kind}: {error}. Please report it with the output of --debug.", 1


def show_each_once() -> Callable[..., None]:
    """Give a `warnings.showwarning` that says no line twice: many datasets may warn of the same."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = str(message)
        if text not in shown:
            shown.add(text)
            _print_lines("Warning", text)

    return show


def print_error(message: str) -> None:
    _print_lines("Error", message)


def _print_lines(kind: str, message: str) -> None:
    sys.stderr.write("".join(f"{kind}: {one_line(line)}\n" for line in message.splitlines()))


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Escape what would move the cursor or colour the terminal, but for line ends."""
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
