"""Print every fault as one line on stderr, and give its exit code.

The rest of the package speaks to callers in Python: its messages name a parameter with a value, as
in ``skip_bad=True``, or with ``...`` where the value is up to the caller. `name_flags` turns that
into the command's own flag, as in ``--skip-bad``, where the message is printed.
"""

from __future__ import annotations

import ast
import io
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

from sklprep.exceptions import FaultyFilesError, SklprepError, UsageError

_PARAMETER = re.compile(
    r"\w\([^()]*\)"  # arguments in a call of a Python function stay Python
    r"|(?<![^\s(])(?P<name>[a-z]\w*)="  # a name within a path or a quoted value is not one
    r"""(?P<value>'[^']*'|"[^"]*"|\[[^][]*\]|\.\.\.|-?\w+(?:[.+-]\w+)*)(?=\)|[.,;]*(?:\s|$))"""
)


def name_flags(text: str, flags: Mapping[str, str]) -> str:
    """Write the parameters in a message as flags of a command.

    Parameters
    ----------
    text : str
        Parameters for which the command has no flag stay as they are.
    flags : mapping of str to str
        Flag of each parameter, by its Python name.

    Examples
    --------
    >>> flags = {"skip_bad": "--skip-bad", "layers": "--layers"}
    >>> name_flags("Correct them, or go on without them (skip_bad=True).", flags)
    'Correct them, or go on without them (--skip-bad).'
    >>> name_flags("Give layers=..., such as layers='0-5' or layers=[0, 5].", flags)
    'Give --layers, such as --layers 0-5 or --layers 0,5.'
    """

    def write_flag(found: re.Match[str]) -> str:
        if found["name"] not in flags:
            return found[0]
        flag = flags[found["name"]]
        written = found["value"]
        if written in ("True", "..."):
            return flag
        if written[0] in "'\"":
            written = ast.literal_eval(written)
        elif written[0] == "[":
            written = written[1:-1].replace(" ", "")
        return f"{flag} {shlex.quote(written)}"

    return _PARAMETER.sub(write_flag, text)


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
            do = " Check the path." if where and isinstance(error, FileNotFoundError) else ""
            return f"{where}{error.strerror or error}.{do}", 1
        case MemoryError():
            return "Out of memory; use a pack (sklprep pack), or fewer layers.", 1
        case _:
            kind = type(error).__name__
            return f"Unexpected {kind}: {error}. Please report it with the output of --debug.", 1


def show_each_once(flags: Mapping[str, str]) -> Callable[..., None]:
    """Give a `warnings.showwarning` that prints a text once, as many datasets may warn alike."""
    shown: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        text = str(message)
        if text not in shown:
            shown.add(text)
            _print_lines("Warning", text, flags)

    return show


def print_error(message: str, flags: Mapping[str, str]) -> None:
    _print_lines("Error", message, flags)


def _print_lines(kind: str, message: str, flags: Mapping[str, str]) -> None:
    lines = name_flags(message, flags).splitlines()
    sys.stderr.write("".join(f"{kind}: {one_line(line)}\n" for line in lines))


def escape_what_streams_cannot_hold() -> None:
    """Escape characters that a stream's encoding lacks, instead of ending the command.

    A batch job's stdout may be ASCII, a redirected one on Windows cp1252; a file name may hold
    bytes that are not UTF-8.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # else it is closed, or not the process's own
            stream.reconfigure(errors="backslashreplace")


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def printable(text: str) -> str:
    """Escape what would move the cursor or colour the terminal, except line ends."""
    return "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
