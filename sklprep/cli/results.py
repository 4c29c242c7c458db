"""What a command does with its result: writes it, draws it, and says it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sklprep.cli.pictures import save_picture


def give_result(
    arguments: argparse.Namespace,
    found: Any,
    print_details: Callable[[Any], None],
    draw: Callable[[Any], Any] | None = None,
) -> int:
    """Write the CSV and the picture that were asked for, then print details and the answer.

    Parameters
    ----------
    found : LayerSweep, FeatureSweep or TransferMatrix
    print_details : callable
        Prints what ``--quiet`` leaves out.
    draw : callable, default=None
        Gives the figure for ``--plot``.

    Returns
    -------
    int
        The exit status, 0.
    """
    if arguments.output is not None:
        found.to_csv(arguments.output)
    if draw is not None and arguments.plot is not None:
        save_picture(arguments.plot, lambda: draw(found))
    if not arguments.quiet:
        print_details(found)
    print(found.summary())
    return 0
