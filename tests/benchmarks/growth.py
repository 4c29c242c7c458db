"""How time and memory of `generate` grow with sentences, tokens and layers."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .commands import TO_CONCEPT
from .measure import best_of, run_task
from .table import Row, Run, at_most

_ALL_LAYERS = ["--strategy", "hidden-to-concept", "--layers", "all"]


@dataclass(frozen=True)
class Curve:
    """CPU seconds and peak memory in MB at each size, smallest first."""

    what: str
    axis: str
    sizes: list[int]
    cpu: list[float]
    hwm: list[float]


def growth(run: Run) -> Iterator[Row]:
    """Exponents of the time and memory of `generate`; `--plot` draws the curves."""
    curves = list(_measure_curves(run))
    if run.plot is not None:
        _draw(curves, run.plot)
    for curve in curves:
        over = f"{curve.axis} {curve.sizes[0]:,} to {curve.sizes[-1]:,}"
        times = ", ".join(f"{seconds:.2f}" for seconds in curve.cpu)
        yield at_most(
            f"growth of CPU time with {over} ({curve.what})",
            max(_exponent(curve.sizes, curve.cpu), _exponent(curve.sizes[-2:], curve.cpu[-2:])),
            1.05,
            "as exponent",
            f"the larger of all and the last two; {times} s at"
            f" {', '.join(f'{size:,}' for size in curve.sizes)}",
        )
        if curve.axis == "sentences":
            yield at_most(
                f"growth of peak memory with {over} ({curve.what})",
                _exponent(curve.sizes, curve.hwm),
                0.05,
                "as exponent",
                f"{', '.join(f'{hwm:.0f}' for hwm in curve.hwm)} MB",
            )


def _measure_curves(run: Run) -> Iterator[Curve]:
    """Make the data of every size and run `generate` on it, one job, imports excluded."""
    grown = run.data.grown_files
    small, real = run.data.shapes.grown, run.data.shapes
    yield _curve(
        run,
        f"all layers, d_model {small.d_model}",
        "sentences",
        {n: grown(n_sentences=n) for n in small.sentences},
        _ALL_LAYERS,
    )
    first, last = real.n_files, real.n_many_files
    steps = [first, *(round(first * (last / first) ** (k / 3)) for k in (1, 2)), last]
    with tempfile.TemporaryDirectory(dir=run.data.root) as place:
        yield _curve(
            run,
            f"one layer, d_model {real.d_model:,}, {real.n_features:,} features",
            "sentences",
            {n: _first_files(run.data.many_files(), n, Path(place, str(n))) for n in steps},
            TO_CONCEPT,
        )
    yield _curve(
        run,
        f"all layers, d_model {small.d_model}",
        "tokens",
        {n: grown(n_tokens=n) for n in small.tokens},
        _ALL_LAYERS,
    )
    yield _curve(
        run,
        f"all of them, d_model {small.d_model}",
        "layers",
        {n: grown(n_layers=n) for n in small.layers},
        _ALL_LAYERS,
    )


def _curve(
    run: Run, what: str, axis: str, folders: Mapping[int, Path], options: list[str]
) -> Curve:
    def once(folder: Path) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as place:
            argv = ["generate", *options, "--input", str(folder), "--jobs", "1", "--quiet"]
            return run_task("command", argv=[*argv, "--output", f"{place}/dataset.npz"]).result

    found = [
        best_of(run.repeats, lambda folder=folder: once(folder), lambda result: result["cpu"])
        for folder in folders.values()
    ]
    return Curve(
        what,
        axis,
        list(folders),
        [result["cpu"] for result in found],
        [result["hwm"] for result in found],
    )


def _first_files(folder: Path, n: int, place: Path) -> Path:
    """A folder of links to the first sentence files of another."""
    place.mkdir()
    for path in sorted(folder.glob("sentence_*.npz"))[:n]:
        os.link(path, place / path.name)
    return place


def _exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of the logarithms by least squares."""
    x, y = ([math.log(value) for value in side] for side in (sizes, values))
    return float(np.polyfit(x, y, 1)[0])


def _draw(curves: list[Curve], path: Path) -> None:
    """Draw time and memory at every size, each relative to the smallest size of its curve."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8, 3.9), layout="constrained")
        for axes, name, unit in zip(
            figure.subplots(1, 2), ("cpu", "hwm"), ("CPU time", "peak memory"), strict=True
        ):
            for curve in curves:
                values = getattr(curve, name)
                axes.loglog(
                    [size / curve.sizes[0] for size in curve.sizes],
                    [value / values[0] for value in values],
                    marker="o",
                    markersize=4,
                    label=f"{curve.axis}: {curve.what}",
                )
            end = max(curve.sizes[-1] / curve.sizes[0] for curve in curves)
            axes.loglog([1, end], [1, end], color="0.6", linestyle=":", label="proportional")
            axes.set(xlabel="size, relative to the smallest", ylabel=f"{unit}, relative")
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
        figure.savefig(path, dpi=110)
