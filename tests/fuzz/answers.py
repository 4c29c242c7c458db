"""What sklprep is asked to do with a file, and what its answer may look like."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sklprep.cli.main import main
from sklprep.cli.messages import explain, one_line
from sklprep.exceptions import FaultyFilesError, SklprepError, SklprepWarning

from .workers import Fault

_MAX_MESSAGE = 1500


@dataclass
class Answer:
    """What was read, and every refusal and warning on the way."""

    values: dict[str, Any] = field(default_factory=dict)
    errors: list[SklprepError] = field(default_factory=list)
    warnings: list[warnings.WarningMessage] = field(default_factory=list)


def read_parts(open_it: Callable[[], Any], parts: Mapping[str, Callable[[Any], Any]]) -> Answer:
    """Open something and read each part of it; only errors of sklprep are caught."""
    answer = Answer()
    with warnings.catch_warnings(record=True) as answer.warnings:
        warnings.simplefilter("always")
        try:
            opened = open_it()
        except SklprepError as error:
            answer.errors.append(error.with_traceback(None))
            return answer
        for name, read in parts.items():
            try:
                answer.values[name] = read(opened)
            except SklprepError as error:
                answer.errors.append(error.with_traceback(None))
    return answer


@dataclass(frozen=True)
class Run:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


def run_command(argv: Sequence[str]) -> Run:
    """Run a command in this process, as a shell would see it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(argv)
    return Run(code, out.getvalue(), err.getvalue())


def run_function(function: Callable[[], object]) -> Run:
    """Call a function, and give what a command that does so would print."""
    try:
        function()
    except Exception as error:
        message, code = explain(error)
        return Run(code, "", f"Error: {one_line(message)}\n")
    return Run(0, "", "")


def check_messages(answer: Answer, path: Path) -> None:
    """Every warning is one printable line, so is every error, and that names the path."""
    for warning in answer.warnings:
        if not issubclass(warning.category, SklprepWarning):
            raise Fault(f"warned {warning.category.__name__}: {warning.message}")
        check_message(str(warning.message))
    for error in answer.errors:
        for line in lines_of(error):
            check_message(line)
        if str(path) not in str(error):
            raise Fault(f"an error does not name {path}: {error}")


def lines_of(error: SklprepError) -> list[str]:
    """The lines of an error: one, or of several faulty files one each below a head."""
    return str(error).split("\n") if isinstance(error, FaultyFilesError) else [str(error)]


def check_message(message: str) -> None:
    """One line, printable, of bounded length."""
    if not message.isprintable() or not 20 <= len(message) <= _MAX_MESSAGE:
        raise Fault(f"a message is not one printable line of bounded length: {message[:2000]!r}")


def check_run(run: Run, *, max_errors: int = 1) -> str:
    """Exit code 0 without an error, or 1 or 2 with one: a line, and nothing else on stderr."""
    lines = run.err.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    others = [line for line in lines if not line.startswith(("Error: ", "Warning: "))]
    if others or run.code not in (0, 1, 2) or bool(errors) != bool(run.code):
        raise Fault(f"the command ended with code {run.code} and on stderr:\n{run.err}")
    if len(errors) > max_errors and "files are at fault" not in errors[0]:
        raise Fault(f"the command gave {len(errors)} errors:\n{run.err}")
    for line in run.out.splitlines():
        if not line.isprintable():
            raise Fault(f"the command printed {line!r}")
    for line in lines:
        check_message(line)
        if "Please report it" in line:
            raise Fault(line)
    return "refused" if run.code else "clean"


def same(expected: Any, actual: Any) -> bool:
    """Equal to the bit, shapes and dtypes included."""
    if expected is None or actual is None:
        return expected is actual
    expected, actual = np.asarray(expected), np.asarray(actual)
    return (expected.shape, expected.dtype, expected.tobytes()) == (
        actual.shape,
        actual.dtype,
        actual.tobytes(),
    )
