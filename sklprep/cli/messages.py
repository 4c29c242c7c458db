"""Every fault one line on stderr, with its exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from sklprep.exceptions import SklprepError, UsageError


def explain(error: Exception) -> tuple[str, int]:
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
        line = f"Warning: {one_line(str(message))}\n"
        if line not in shown:
            shown.add(line)
            sys.stderr.write(line)

    return show


def print_error(message: str) -> None:
    sys.stderr.write(f"Error: {one_line(message)}\n")


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Escape what would move the cursor or colour the terminal, but for line ends."""
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
