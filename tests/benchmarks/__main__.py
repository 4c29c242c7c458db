"""``python -m tests.benchmarks``: run the benchmarks, print a Markdown table."""

from __future__ import annotations

import argparse
import compileall
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..pages import write_between
from . import commands, growth, packing, reading, row_space, solving, sweeping, ways
from .data import REAL, SMALL, Data
from .measure import ROOT, describe_machine
from .table import HEAD, Row, Run, to_line

BENCHMARKS: dict[str, Callable[[Run], Iterator[Row]]] = {
    function.__name__: function
    for function in (
        reading.baseline,
        reading.cold_reads,
        reading.other_baselines,
        commands.whole_command,
        commands.imports_alone,
        reading.two_jobs,
        commands.memory,
        commands.help_text,
        commands.many_datasets,
        packing.whole_command_on_a_pack,
        packing.generate_on_a_pack,
        packing.larger_than_memory,
        packing.packing,
        packing.packing_a_dump,
        sweeping.layer_sweep,
        solving.sweep,
        ways.ways,
        row_space.row_space,
        growth.growth,
    )
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmarks asked for and print the table row by row."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure speed and memory, each figure a ratio against a baseline in this run.",
        epilog="benchmarks:\n"
        + "\n".join(f"  {name:<15}{run.__doc__}" for name, run in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", action="store_true", help="tiny data: only tests the harness")
    parser.add_argument(
        "--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help="run just these"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="keep the data there, use it again"
    )
    parser.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="runs a figure; default: %(default)s"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the curves of growth there (.png)"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into a page")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    compileall.compile_dir(ROOT / "sklprep", quiet=1)  # as pip does when it installs
    shapes = SMALL if arguments.small else REAL
    with tempfile.TemporaryDirectory(prefix="sklprep_benchmarks_") as temporary:
        root = (arguments.data or Path(temporary)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        run = Run(Data(root, shapes), arguments.repeats, arguments.plot)
        lines = [
            f"Measured on {describe_machine()}.\n\n26 layers, d_model {shapes.d_model:,},"
            f" {shapes.n_features:,} features, {shapes.n_files} files of 8 to 30 tokens. Every run"
            f" is a fresh process with the files in the page cache; best of {run.repeats}, for"
            f" two jobs the median of {2 * run.repeats + 1}.\n\n{HEAD}"
        ]
        print(lines[0], flush=True)
        for name in arguments.only or BENCHMARKS:
            for row in BENCHMARKS[name](run):
                lines.append(to_line(row))
                print(lines[-1], flush=True)
    if arguments.page is not None:
        write_between(arguments.page, "benchmarks", "\n".join(lines))


if __name__ == "__main__":
    main()
