"""How fast sentence files are read, against reading every member with `numpy.load`."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from .data import LAYER
from .measure import run_task
from .table import Row, Run, at_least

_MEMBERS = {
    "embeddings": {"embeddings": True},
    "hidden_states": {"layers": [LAYER]},
    "activations": {"configs": [LAYER]},
}


def baseline(run: Run) -> Iterator[Row]:
    """`dict(np.load(file))` for each file, every member kept."""
    work = run.baseline.result
    yield Row(
        f"baseline: every member of {run.data.shapes.n_files} files with numpy.load",
        "1x",
        f"{work['cpu']:.2f} s CPU, {work['wall']:.2f} s wall, {work['hwm']:,.0f} MB",
    )


def cold_reads(run: Run) -> Iterator[Row]:
    """CPU of opening the folder and reading what a strategy needs, one job, imports excluded."""
    folder = str(run.data.files())
    for strategy, members, goal in (
        ("hidden-to-concept", ("hidden_states",), 10),
        ("embedding-to-feature", ("embeddings", "activations"), 15),
    ):
        wanted = {key: value for name in members for key, value in _MEMBERS[name].items()}
        work = run.fastest_task("read", folder=folder, **wanted).result
        yield at_least(
            f"reading for {strategy} (layer {LAYER}), CPU in process",
            run.baseline.result["cpu"] / work["cpu"],
            goal,
            f"{work['cpu']:.2f} s CPU, of it {work['opening']['cpu']:.2f} s opening the folder",
        )


def other_baselines(run: Run) -> Iterator[Row]:
    """The same reads done in other ways: `numpy.load` of the member alone, and the floor."""
    folder = str(run.data.files())
    for member, wanted in list(_MEMBERS.items())[1:]:
        ours = run.fastest_task("read", folder=folder, **wanted).result["cpu"]
        plain = run.fastest_task("load_member", folder=folder, member=member).result["cpu"]
        floor = run.fastest_task("inflate", folder=folder, members=[member]).result["cpu"]
        yield Row(
            f"reading {member} (layer {LAYER}) against numpy.load of that member, CPU",
            f"{plain / ours:.2f}x",
            f"{ours:.2f} s against {plain:.2f} s; inflating it and no more {floor:.2f} s",
        )


def two_jobs(run: Run) -> Iterator[Row]:
    """Wall time of reading one member, two jobs against one; medians of alternating runs."""
    folder = str(run.data.files())
    for member, wanted in _MEMBERS.items():
        walls: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(2 * run.repeats + 1):
            for n_jobs, found in walls.items():
                task = run_task("read", folder=folder, n_jobs=n_jobs, **wanted)
                found.append(task.result["reading"]["wall"])
        one, two = (median(found) for found in walls.values())
        yield at_least(
            f"two jobs against one, {member}, wall",
            one / two,
            1.6 if member == "hidden_states" else 1,
            f"{one:.2f} s with one, {two:.2f} s with two",
        )
