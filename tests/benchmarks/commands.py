"""What whole commands cost: start, imports, reading, writing."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .data import FEATURE, LAYER, N_LAYERS
from .measure import Measured, best_of, run_measured
from .table import Row, Run, at_least, at_most

IMPORTS = "import sklearn.pipeline, sklearn.preprocessing, skops.io"
TO_CONCEPT = ["--strategy", "hidden-to-concept", "--layer", str(LAYER)]
_TO_FEATURE = ["--strategy", "embedding-to-feature", "--target-layer", str(LAYER)]
_TO_FEATURE += ["--target-feature", str(FEATURE)]


def _generate(run: Run, options: list[str], folder: Path) -> Measured:
    """Run `generate` several times and give the fastest.

    Each run has an output of its own: a file that is there and unchanged is skipped, and that must
    not pass for speed.
    """

    def once() -> Measured:
        with tempfile.TemporaryDirectory() as place:
            output = Path(place, "dataset.npz")
            argv = [sys.executable, "-m", "sklprep", "generate", *options]
            argv += ["--input", str(folder), "--output", str(output), "--quiet"]
            measured = run_measured(argv)
            if not output.exists():
                raise RuntimeError(f"{' '.join(argv)} wrote no dataset.")
            return measured

    return best_of(run.repeats, once, lambda measured: measured.cpu)


def whole_command(run: Run) -> Iterator[Row]:
    """`sklprep generate` with its default jobs against the baseline's whole process."""
    base = run.baseline.process
    for name, options in (
        ("hidden-to-concept", TO_CONCEPT),
        ("embedding-to-feature", _TO_FEATURE),
    ):
        found = _generate(run, options, run.data.files())
        for what, ratio, goal, detail in (
            ("wall", base.wall / found.wall, 5, f"{found.wall:.2f} s against {base.wall:.2f} s"),
            ("CPU", base.cpu / found.cpu, 4, f"{found.cpu:.2f} s against {base.cpu:.2f} s"),
        ):
            yield at_least(f"generate {name} (layer {LAYER}), {what}", ratio, goal, detail)


def many_datasets(run: Run) -> Iterator[Row]:
    """26 single-layer datasets and 26 feature targets in one command, against 52 baselines."""
    layers = [str(layer) for layer in range(N_LAYERS)]
    argv = [sys.executable, "-m", "sklprep", "generate", "--input", str(run.data.files())]
    argv += ["--strategy", "hidden-to-concept", *_each("--layer", layers)]
    argv += ["--strategy", "embedding-to-feature", *_each("--target-layer", layers)]
    argv += ["--target-feature", str(FEATURE), "--quiet"]

    def once() -> Measured:
        with tempfile.TemporaryDirectory() as place:
            measured = run_measured([*argv, "--output", f"{place}/{{name}}_{{target_layer}}.npz"])
            n_made = len(list(Path(place).iterdir()))
            if n_made != 2 * N_LAYERS:
                raise RuntimeError(f"{' '.join(argv)} wrote {n_made} datasets.")
            return measured

    found = best_of(run.repeats, once, lambda measured: measured.wall)
    base = run.baseline.process
    yield at_least(
        f"{N_LAYERS} single-layer datasets and {N_LAYERS} feature targets in one command, wall",
        2 * N_LAYERS * base.wall / found.wall,
        150,
        f"{found.wall:.2f} s against {2 * N_LAYERS} x {base.wall:.2f} s",
    )


def _each(flag: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (flag, value)]


def imports_alone(run: Run) -> Iterator[Row]:
    """The floor of a whole command: a process that only imports scikit-learn and skops."""
    found = run.fastest([sys.executable, "-c", IMPORTS])
    yield Row(
        "importing scikit-learn and skops alone, CPU",
        f"{found.cpu:.2f} s",
        f"{found.wall:.2f} s wall, {found.hwm:.0f} MB",
    )


def help_text(run: Run) -> Iterator[Row]:
    """`sklprep --help` beside an import of numpy and the start of Python."""
    commands = {
        "sklprep --help": ["-m", "sklprep", "--help"],
        "numpy": ["-c", "import numpy"],
        "Python": ["-c", "pass"],
    }
    cpu = {
        name: best_of(
            3 * run.repeats,
            lambda command=command: run_measured([sys.executable, *command]),
            lambda measured: measured.cpu,
        ).cpu
        for name, command in commands.items()
    }
    yield at_most(
        "sklprep --help, CPU",
        cpu["sklprep --help"],
        0.1,
        "s",
        f"importing numpy alone {cpu['numpy']:.2f} s, starting Python {cpu['Python']:.2f} s",
    )


def memory(run: Run) -> Iterator[Row]:
    """Peak memory of `generate` for one layer, and its growth with ten times as many files."""
    shapes = run.data.shapes
    few = _generate(run, TO_CONCEPT, run.data.files()).hwm
    base = run.baseline.result["hwm"]
    yield at_most(
        f"peak memory, one layer of {shapes.n_files} files",
        few,
        300,
        "MB",
        f"baseline {base:,.0f} MB, {base / few:.0f} times as much",
    )
    many = _generate(run, TO_CONCEPT, run.data.many_files())
    yield at_most(
        f"peak memory, {shapes.n_many_files:,} files against {shapes.n_files}",
        many.hwm / few,
        1.15,
        "times",
        f"{many.hwm:.0f} MB; {many.wall:.1f} s wall, {many.cpu:.1f} s CPU",
    )
