"""Fixtures that several test files share."""

import os
import subprocess
import sys

import pytest

from sklprep.cli.main import main

if "PYTEST_XDIST_WORKER" in os.environ:  # which has one core, and shares the others
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


@pytest.fixture
def run_command(capsys):
    """Run a command line in this process; returns exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def run_python():
    """Run code in a new interpreter; return its stdout. A hang is killed and fails the test.

    The code may call `peak()` for the most memory the process ever took, in MB.
    """

    def run(code, *args, timeout=30):
        peak = (
            "import re, sys\n"
            "def peak():\n"
            "    with open('/proc/self/status') as status:\n"
            "        return int(re.search(r'VmHWM:\\s*([0-9]+)', status.read())[1]) / 1024\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", peak + code, *map(str, args)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run
