"""`RowSpaceProjector` against the plain pipeline: ``python -m tests.benchmarks.row_space``.

The real shapes take some minutes; ``--small`` only tests the harness. What is gained depends on
how often the plain model passes over X: much where training is hard, little for a linear model on
columns of pure noise, which the last row shows.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .data import REAL, SMALL, Data
from .measure import best_of, describe_machine, run_measured
from .table import HEAD, Row, Run, at_least, to_line

GOAL = 5
TASK = "--task"


def row_space(run: Run) -> Iterator[Row]:
    """Two SVMs on all layers, with and without `RowSpaceProjector`, CPU on one BLAS thread."""
    folder = str(run.data.sweep_arrays())
    for model in ("LinearSVC", "SVC"):
        ratio, detail = _compare(run, folder=folder, model=model, noise=False)
        name = {"LinearSVC": "LinearSVC", "SVC": "RBF SVC"}[model]
        figure = f"RowSpaceProjector + {name} against the plain pipeline, one BLAS thread, CPU"
        yield at_least(figure, ratio, GOAL, detail)
    ratio, detail = _compare(run, folder=folder, model="LinearSVC", noise=True)
    figure = "RowSpaceProjector + LinearSVC, the same on columns of pure noise"
    yield Row(figure, f"{ratio:.2f}x", detail)


def fit_and_score(folder: str, model: str, *, noise: bool, projected: bool) -> dict[str, Any]:
    """Fit on 4 of 5 rows, score the others: normalizing, the Gram matrix and all.

    Labels are two classes, the concept's strengths 0 and 1 against 2 and 3.
    """
    import numpy as np
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC, LinearSVC
    from threadpoolctl import threadpool_limits

    from sklprep.normalizers import ActivationNormalizer
    from sklprep.rowspace import RowSpaceProjector

    X, y = (np.load(Path(folder, f"{name}.npy")) for name in "Xy")
    X, y = X.reshape(len(X), -1), y >= 2
    if noise:
        X = np.random.default_rng(0).standard_normal(X.shape, dtype=np.float32)
    train = len(X) * 4 // 5
    steps: list[Any] = [ActivationNormalizer()]
    if projected:
        steps.append(RowSpaceProjector(residual=model == "SVC", copy_X=False))
    steps.append(SVC() if model == "SVC" else LinearSVC(dual=True))
    pipeline = make_pipeline(*steps)
    with threadpool_limits(1, user_api="blas"):
        wall, cpu = time.perf_counter(), time.process_time()
        values = pipeline.fit(X[:train], y[:train]).decision_function(X[train:])
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {**spent, "shape": X.shape, "train": train, "values": values.tolist()}


def _compare(run: Run, **arguments: Any) -> tuple[float, str]:
    plain, ours = (
        best_of(
            run.repeats,
            lambda projected=projected: _in_a_fresh_process(**arguments, projected=projected),
            lambda result: result["cpu"],
        )
        for projected in (False, True)
    )
    pairs = list(zip(plain["values"], ours["values"], strict=True))
    apart = max(abs(a - b) for a, b in pairs) / max(abs(a) for a, _ in pairs)
    rows, columns = plain["shape"]
    return plain["cpu"] / ours["cpu"], (
        f"{ours['cpu']:.2f} s against {plain['cpu']:.2f} s (wall {ours['wall']:.2f} s against"
        f" {plain['wall']:.2f} s); {columns:,} columns, {plain['train']} training and"
        f" {rows - plain['train']} test rows; decision values differ by {apart:.1g} of the largest"
    )


def _in_a_fresh_process(**arguments: Any) -> dict[str, Any]:
    argv = [sys.executable, "-m", "tests.benchmarks.row_space", TASK, json.dumps(arguments)]
    result: dict[str, Any] = json.loads(run_measured(argv).output)
    return result


def main() -> None:
    """Print the figures as a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.row_space")
    parser.add_argument("--small", action="store_true", help="tiny data: only tests the harness")
    parser.add_argument("--data", type=Path, metavar="DIR", help="keep the data there")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="best of N")
    parser.add_argument(TASK, type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task is not None:
        warnings.simplefilter("ignore")  # LinearSVC stops at max_iter, on both sides
        print(json.dumps(fit_and_score(**arguments.task)))
        return
    with tempfile.TemporaryDirectory(prefix="sklprep_row_space_") as temporary:
        root = (arguments.data or Path(temporary)).resolve()
        root.mkdir(parents=True, exist_ok=True)
        run = Run(Data(root, SMALL if arguments.small else REAL), arguments.repeats)
        print(f"{describe_machine()}; best of {run.repeats}.\n\n{HEAD}", flush=True)
        for row in row_space(run):
            print(to_line(row), flush=True)


if __name__ == "__main__":
    main()
