"""Every fault one line on stderr, with its exit code."""

from __future__ import annotations

import sys
from typing import Any

from sklprep.exceptions import FaultyFilesError, SklprepError, UsageError


def explain(error: BaseException) -> tuple[str, int]:
    """Give the message of an error, a line for each thing that is wrong, and the exit code."""
    message, code = _explain(error)
    return message if isinstance(error, FaultyFilesError) else one_line(message), code


def _explain(error: BaseException) -> tuple[str, int]:
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
        case KeyboardInterrupt():
            return "Interrupted; nothing was left half-written.", 130
        case _:
            kind = type(error).__name__
            return f"Unexpected {kind}: {error}. Please report it with the output of --debug.", 1


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _print_lines("Warning", str(message))


def print_error(message: str) -> None:
    _print_lines("Error", message)


def _print_lines(kind: str, message: str) -> None:
    sys.stderr.write("".join(f"{kind}: {one_line(line)}\n" for line in message.splitlines()))


def one_line(text: str) -> str:
    return " ".join(text.split())
