"""`RowSpaceProjector` against the plain pipeline.

What is gained depends on how often the plain model passes over X: much where training is hard,
little for a linear model on columns of pure noise, which the last row shows.
"""

from __future__ import annotations

from collections.abc import Iterator

from .table import Row, Run, at_least


def row_space(run: Run) -> Iterator[Row]:
    """Two SVMs on all layers, with and without the projector, CPU on one BLAS thread."""
    for model, name in (("LinearSVC", "LinearSVC"), ("SVC", "RBF SVC")):
        ratio, detail = _compare(run, model, noise=False)
        figure = f"RowSpaceProjector + {name} against the plain pipeline, one BLAS thread, CPU"
        yield at_least(figure, ratio, 5, detail)
    ratio, detail = _compare(run, "LinearSVC", noise=True)
    yield Row(
        "RowSpaceProjector + LinearSVC, the same on columns of pure noise",
        f"{ratio:.2f}x",
        detail,
    )


def _compare(run: Run, model: str, *, noise: bool) -> tuple[float, str]:
    folder = str(run.data.sweep_arrays())
    plain, ours = (
        run.fastest_task(
            "fit_svm", folder=folder, model=model, noise=noise, projected=projected
        ).result
        for projected in (False, True)
    )
    pairs = list(zip(plain["values"], ours["values"], strict=True))
    apart = max(abs(a - b) for a, b in pairs) / max(abs(a) for a, _ in pairs)
    n_others = sum((a > 0) != (b > 0) for a, b in pairs)
    rows, columns = plain["shape"]
    return plain["cpu"] / ours["cpu"], (
        f"{ours['cpu']:.2f} s against {plain['cpu']:.2f} s (wall {ours['wall']:.2f} s against"
        f" {plain['wall']:.2f} s); {columns:,} columns, {plain['train']} training and"
        f" {rows - plain['train']} test rows; {n_others} predictions differ, decision values by"
        f" at most {apart:.1g} of the largest"
    )
