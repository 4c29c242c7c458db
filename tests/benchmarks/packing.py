"""Packing against the floor, and `generate` on a pack against the same work on arrays in memory."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from .commands import IMPORTS, TO_CONCEPT
from .data import LAYER, N_LAYERS
from .measure import Measured, Task, run_measured, run_task
from .table import Row, Run, at_least, at_most

_WIDE = ["embeddings", "hidden_states", "activations"]


def packing(run: Run) -> Iterator[Row]:
    """Packing everything, against inflating the members once, and with two jobs."""
    folder = str(run.data.files())
    floors, walls = [], {1: list[float](), 2: list[float]()}
    for _ in range(4 * run.repeats + 1):
        floors.append(run_task("inflate", folder=folder, members=_WIDE).result["wall"])
        for n_jobs, found in walls.items():
            pack = _to_new_file(["pack", folder], "--jobs", str(n_jobs))
            found.append(pack.result["wall"])
    floor, one, two = (median(found) for found in (floors, walls[1], walls[2]))
    yield at_most(
        "packing everything, one job, against inflating it once, wall",
        one / floor,
        1.3,
        "times",
        f"{one:.2f} s against {floor:.2f} s",
    )
    yield at_least(
        "packing with two jobs against one, wall",
        one / two,
        1.4,
        f"{two:.2f} s against {one:.2f} s",
    )


def whole_command_on_a_pack(run: Run) -> Iterator[Row]:
    """`sklprep generate` of one layer on a pack, against importing scikit-learn and skops alone."""
    pack = str(run.data.pack())
    imports, ours = list[float](), list[float]()
    for _ in range(4 * run.repeats + 1):
        imports.append(run_measured([sys.executable, "-c", IMPORTS]).wall)
        ours.append(_run_generate(pack).wall)
    alone, whole = median(imports), median(ours)
    yield at_most(
        f"generate hidden-to-concept (layer {LAYER}) on a pack, against the imports alone, wall",
        whole / alone,
        1.15,
        "times",
        f"{whole:.2f} s against {alone:.2f} s",
    )


def generate_on_a_pack(run: Run) -> Iterator[Row]:
    """The same in process on many rows, against `StandardScaler` and `numpy.savez` in memory."""
    pack = run.data.pack_of_many()
    X, y = str(pack / "hidden_states" / f"L{LAYER}.npy"), str(pack / "labels.npy")
    ours, plain = list[float](), list[float]()
    for _ in range(4 * run.repeats + 1):  # the plain scaler takes 30 ms or 60
        made = _to_new_file(["generate", *TO_CONCEPT, "--input", str(pack), "--output"])
        ours.append(made.result["wall"])

        saved = _with_new_file(lambda file: run_task("scale_and_save", X=X, y=y, output=file))
        plain.append(saved.result["wall"])
    yield at_most(
        f"generate on a pack of {run.data.shapes.n_many_files:,} rows, in process, against"
        " StandardScaler and numpy.savez in memory, wall",
        median(ours) / median(plain),
        2,
        "times",
        f"{1000 * median(ours):.0f} ms against {1000 * median(plain):.0f} ms",
    )


def larger_than_memory(run: Run) -> Iterator[Row]:
    """All layers of a long pack: peak memory of `generate`, and its time against arrays."""
    pack = run.data.long_pack()
    n_bytes = sum(path.stat().st_size for path in pack.glob("hidden_states/*.npy"))
    argv = ["--strategy", "hidden-to-concept", "--layers", "all", "--input", str(pack)]
    found = _with_new_file(lambda file: _sklprep("generate", *argv, "--output", file, "--quiet"))
    yield at_most(
        f"peak memory, all layers of {run.data.shapes.n_long_rows:,} rows from a pack",
        found.hwm,
        500,
        "MB",
        f"X has {n_bytes / 1e6:,.0f} MB",
    )
    ours = _to_new_file(["generate", *argv, "--output"]).result
    layers = [str(pack / "hidden_states" / f"L{layer}.npy") for layer in range(N_LAYERS)]
    y = str(pack / "labels.npy")
    plain = _with_new_file(
        lambda file: run_task("scale_and_save_all", layers=layers, y=y, output=file)
    ).result
    yield at_most(
        "the same in process, against StandardScaler and numpy.savez in memory, wall",
        ours["wall"] / plain["wall"],
        3,
        "times",
        f"{ours['wall']:.1f} s against {plain['wall']:.1f} s and {plain['hwm']:,.0f} MB",
    )


def packing_a_dump(run: Run) -> Iterator[Row]:
    """Packing safetensors of bfloat16, against `safetensors` and numpy in one go; its memory."""
    dump = str(run.data.bfloat16_dump())
    ours, plain = list[float](), list[float]()
    for _ in range(2 * run.repeats + 1):
        ours.append(_to_new_file(["pack", dump]).result["wall"])
        made = _with_new_file(lambda file: run_task("unpack_safetensors", path=dump, output=file))
        plain.append(made.result["wall"])
    shapes = run.data.shapes
    yield at_most(
        f"packing {shapes.n_dumped:,} rows of 26 layers from safetensors (bfloat16), in process,"
        " against safetensors and numpy in one go, wall",
        median(ours) / median(plain),
        1.5,
        "times",
        f"{median(ours):.2f} s against {median(plain):.2f} s and {made.result['hwm']:,.0f} MB",
    )
    found = _with_new_file(lambda file: _sklprep("pack", dump, file, "--quiet"))
    yield at_most("the same, peak memory of the command", found.hwm, 300, "MB", "")


def _run_generate(pack: str) -> Measured:
    return _with_new_file(
        lambda file: _sklprep("generate", *TO_CONCEPT, "--input", pack, "--output", file, "--quiet")
    )


def _sklprep(*arguments: str) -> Measured:
    return run_measured([sys.executable, "-m", "sklprep", *arguments])


def _to_new_file(start: list[str], *end: str) -> Task:
    """Run a command in process that writes to a name that nobody has yet."""
    return _with_new_file(lambda file: run_task("command", argv=[*start, file, *end, "--quiet"]))


def _with_new_file(function: Callable[[str], Any]) -> Any:
    with tempfile.TemporaryDirectory() as place:
        return function(str(Path(place, "output.npz")))
