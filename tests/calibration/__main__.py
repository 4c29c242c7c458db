"""``python -m tests.calibration``: simulate, and print how often a sweep is right, as Markdown.

Coverage is that of the 95 % interval for the accuracy, on new rows, of the model that one would
publish: refitted on all rows of the layer that cross-validation chose. Rejections are those of
data sets without signal, at 0.05.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy import stats
from sklearn.base import clone

from sklprep import layer_sweep

from .simulated import CELLS, MODEL, Cell, draw

HEAD = (
    "| cell | covers | width | bias | s.d. over seeds | permutation test rejects | shown better"
    " than the majority |\n| --- | --- | --- | --- | --- | --- | --- |"
)
N_PERMUTATIONS = 39


def measure(cell: Cell, seed: int) -> dict[str, float]:
    """One data set: what the sweep says of it, and what is true."""
    X, y, groups, new = draw(cell, seed)
    sweep = layer_sweep(
        MODEL, X, y, groups=groups, random_state=seed, n_permutations=N_PERMUTATIONS, n_jobs=1
    )
    layer = int(sweep.naive_best_layer)
    new_X, new_y = new(layer)
    truth = float(clone(MODEL).fit(X[:, layer], y).score(new_X, new_y))
    low, high = sweep.nested_interval or (np.nan, np.nan)
    score = float(sweep.nested_score or 0)
    return {
        "covers": float(low <= truth <= high),
        "width": high - low,
        "bias": score - truth,
        "spread": float(sweep.repeat_spread or 0) / np.sqrt(sweep.n_repeats),
        "rejects": float((sweep.p_value or 1) <= 0.05),
        "better": float(sweep.comparisons["majority"].is_better),
    }


def bounds(n: int, probability: float) -> tuple[float, float]:
    """What 99 % of the shares among n draws lie between."""
    low, high = stats.binom.interval(0.99, n, probability)
    return float(low / n), float(high / n)


def run(cells: Sequence[Cell], n_datasets: int, n_jobs: int) -> Iterator[tuple[Cell, Any]]:
    """Measure each cell on so many data sets."""
    for cell in cells:
        found = Parallel(n_jobs=n_jobs)(delayed(measure)(cell, i) for i in range(n_datasets))
        yield cell, {name: np.mean([one[name] for one in found]) for name in found[0]}


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate the cells asked for and print a row for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    parser.add_argument("--datasets", type=int, default=1_000, metavar="N", help="of each cell")
    parser.add_argument("--only", metavar="TEXT", default="", help="cells with this in their name")
    parser.add_argument("--jobs", type=int, default=-1, metavar="N")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into a page")
    arguments = parser.parse_args(argv)
    cells = [cell for cell in CELLS if arguments.only in cell.name]
    low, high = bounds(arguments.datasets, 0.95)
    lines = [
        f"{arguments.datasets:,} data sets a cell; a coverage of 95 % lies between {low:.1%} and"
        f" {high:.1%} of them.\n\n{HEAD}"
    ]
    print(lines[0], flush=True)
    for cell, found in run(cells, arguments.datasets, arguments.jobs):
        null = cell.signal == 0
        rejects = f"{found['rejects']:.1%}" if null else f"power {found['rejects']:.0%}"
        better = f"{found['better']:.1%}" if null else f"power {found['better']:.0%}"
        lines.append(
            f"| {cell.name} | {found['covers']:.1%} | {found['width']:.3f} | {found['bias']:+.3f}"
            f" | {found['spread']:.3f} | {rejects} | {better} |"
        )
        print(lines[-1], flush=True)
    if arguments.page is not None:
        from tests.pages import write_between  # pytest knows this package by another name

        write_between(arguments.page, "calibration", "\n".join(lines))


if __name__ == "__main__":
    main()
