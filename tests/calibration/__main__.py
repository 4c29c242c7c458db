"""``python -m tests.calibration``: simulate, and print how often a sweep is right, as Markdown.

The sweeps are nested, of 10 repeats of 5 folds, over 6 layers of 12 columns, with ridge
classifiers. "Covers the refit" is how often the 95 % interval holds the score, on new rows, of the
model that one would publish: refitted on all rows of the layer with the best curve; "the models" is
the mean score of those that were cross-validated. "Band" is how often the band holds the whole
curve of expected scores. What a test rejects at 0.05 where it should not stands in per cent,
otherwise its power.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from scipy import stats

from sklprep.sweeps.folds import make_strata

from . import detectors
from .by_sums import LEFT_OUT, N_FOLDS, deal_folds, fit, permute_within, sweep
from .simulated import CELLS, N_LAYERS, Cell, make_world

HEAD = (
    "| data sets | covers the refit | the models | band | width | bias | s.d. over seeds |"
    " permutation test | better than the majority or mean | any two layers differ |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
N_REPEATS, N_PERMUTATIONS = 10, 99


def measure(cell: Cell, seed: int) -> dict[str, Any]:
    """One data set: what the sweep says of it, and what is true."""
    rng = np.random.default_rng([seed, cell.n_groups, cell.n_classes, cell.group_size])
    world = make_world(cell, rng)
    X, y_of_group, groups = world.draw()
    is_amount = cell.metric == "pooled_r2"
    strata = make_strata(y_of_group, N_FOLDS) if is_amount else y_of_group
    of_groups = deal_folds(strata, N_REPEATS, rng)
    permuted = permute_within(y_of_group, of_groups[0], N_PERMUTATIONS, rng)[:, groups]
    y, folds = y_of_group[groups], of_groups[:, groups]
    found = sweep(X, y, folds, permuted=permuted, groups=groups, metric=cell.metric)

    best, outer = int(found.naive_best_layer), LEFT_OUT[:N_FOLDS]
    refit = float(world.truth(best, fit(X[:, best], y, folds[:1], [()]))[0, 0])
    of_layers = np.array(
        [world.truth(i, fit(X[:, i], y, folds, outer)).ravel() for i in range(N_LAYERS)]
    )
    models = float(of_layers[found.best_layers, range(of_layers.shape[1])].mean())
    low, high = found.nested_interval or (np.nan, np.nan)
    score = float(found.nested_score)
    return {
        "refit": low <= refit <= high,
        "models": low <= models <= high,
        "width": high - low,
        "bias": score - refit,
        "spread": found.repeat_spread**2 / N_REPEATS,
        "rejects": found.p_value <= 0.05,
        "better": any(one.is_better for one in found.comparisons.values()),
        "differ": any(one.p_value <= 0.05 for one in found.compare_layers().values()),
        "curve": found.mean_scores,
        "band": np.full((2, N_LAYERS), np.nan) if found.band is None else found.band,
    }


def bounds(n: int, probability: float) -> tuple[float, float]:
    """What 99 % of the shares among n draws lie between."""
    low, high = stats.binom.interval(0.99, n, probability)
    return float(low / n), float(high / n)


def run_each(measure: Any, cell: Any, n_datasets: int, n_jobs: int) -> dict[str, Any]:
    """Measure so many data sets; give each figure of all of them."""
    found = Parallel(n_jobs=n_jobs)(delayed(measure)(cell, i) for i in range(n_datasets))
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def run(cells: Sequence[Cell], n_datasets: int, n_jobs: int) -> Iterator[tuple[Cell, Any]]:
    """Measure each cell on so many data sets; give means over them."""
    for cell in cells:
        stacked = run_each(measure, cell, n_datasets, n_jobs)
        expected = stacked["curve"].mean(axis=0)
        low, high = stacked["band"].swapaxes(0, 1)
        stacked["band"] = ((low <= expected) & (expected <= high)).all(axis=1)
        means = {name: values.mean(axis=0) for name, values in stacked.items()}
        yield cell, means | {"spread": np.sqrt(means["spread"])}


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate the cells asked for and print a row for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration", description=__doc__)
    parser.add_argument("--datasets", type=int, default=1_000, metavar="N", help="of each cell")
    parser.add_argument("--only", metavar="TEXT", default="", help="cells with this in their name")
    parser.add_argument("--jobs", type=int, default=-1, metavar="N")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into a page")
    parser.add_argument("--rows", metavar="FOLDER", help="100 rows of it with random labels, too")
    arguments = parser.parse_args(argv)
    cells = list(CELLS)
    if arguments.rows is not None:
        name = f"100 rows of {Path(arguments.rows).name}, signal 0"
        cells.append(Cell(name, 100, 0.0, rows=arguments.rows))
    cells = [cell for cell in cells if arguments.only in cell.name]
    n = arguments.datasets
    low, high = bounds(n, 0.95)
    lead = (
        f"{n:,} data sets a row. What is 95 % lies between {low:.1%} and {high:.1%} of them, what"
        f" is 5 % below {bounds(n, 0.05)[1]:.1%}, each with a probability of 99 %.\n\n{HEAD}"
    )
    print(lead, flush=True)
    lines = [lead]
    for cell, found in run(cells, n, arguments.jobs):
        lines.append(to_line(cell, found))
        print(lines[-1], flush=True)
    chosen = [one for one in detectors.DETECTORS if arguments.only in one.name]
    if chosen:
        lines.append(f"\n{detectors.HEAD}")
        print(lines[-1], flush=True)
    for one in chosen:
        found = run_each(detectors.measure, one, n, arguments.jobs)
        lines.append(detectors.to_line(one, {name: np.mean(v) for name, v in found.items()}))
        print(lines[-1], flush=True)
    if arguments.page is not None:
        from tests.pages import write_between  # pytest knows this package by another name

        write_between(arguments.page, "calibration", "\n".join(lines))


def to_line(cell: Cell, found: dict[str, Any]) -> str:
    """Write a row of the table."""

    def share(value: float, *, is_error: bool) -> str:
        return f"{value:.1%}" if is_error else f"power {value:.0%}"

    null = cell.signal == 0
    tests = [share(found["rejects"], is_error=null)]
    intervals = ["no interval"] * 4
    if not np.isnan(found["width"]):
        intervals = [f"{found[name]:.1%}" for name in ("refit", "models", "band")]
        intervals.append(f"{found['width']:.2f}")
        tests.append(share(found["better"], is_error=null))
        tests.append(share(found["differ"], is_error=null or cell.weakest == 1))
    else:
        tests += ["no test"] * 2
    numbers = [*intervals, f"{found['bias']:+.3f}", f"{found['spread']:.3f}", *tests]
    return f"| {cell.name} | {' | '.join(numbers)} |"


if __name__ == "__main__":
    main()
