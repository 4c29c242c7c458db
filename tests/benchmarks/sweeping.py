"""`layer_sweep` against the plain loop over layers."""

from __future__ import annotations

from collections.abc import Iterator

from .table import Row, Run, at_least


def layer_sweep(run: Run) -> Iterator[Row]:
    """26 layers x 5 folds of logistic regression, two jobs, wall; imports and loading excluded."""
    folder = str(run.data.sweep_arrays())
    ours = run.fastest_task("sweep", "wall", folder=folder, n_jobs=2).result
    plain = run.fastest_task("plain_sweep", "wall", folder=folder, blas_threads=1).result
    free = run.fastest_task("plain_sweep", "wall", folder=folder, blas_threads=None).result
    pairs = zip(ours["scores"], plain["scores"], strict=True)
    apart = max(abs(a - b) for x, y in pairs for a, b in zip(x, y, strict=True))
    yield at_least(
        "layer sweep, two jobs, against the plain loop on one BLAS thread, wall",
        plain["wall"] / ours["wall"],
        1.5,
        f"{ours['wall']:.1f} s against {plain['wall']:.1f} s; scores differ by at most {apart:.2g}",
    )
    yield Row(
        "layer sweep, two jobs, against the plain loop with threads as they come, wall",
        f"{free['wall'] / ours['wall']:.2f}x",
        f"{free['wall']:.1f} s",
    )
