"""`sklprep demo`: everything, on synthetic data."""

from __future__ import annotations

import argparse
from pathlib import Path

from sklprep.cli.arguments import add_common


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Write synthetic sentence files, run every strategy, compare the layers."
    parser.set_defaults(run=_run)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("sklprep_demo"),
        metavar="DIR",
        help="default: %(default)s",
    )
    add_common(parser)


def _run(arguments: argparse.Namespace) -> None:
    from sklprep.cli import main
    from sklprep.demo import run_demo

    run_demo(arguments.folder, run_command=main, n_jobs=arguments.jobs)
