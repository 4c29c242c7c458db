"""Small sound sentence files: what must be read from them, and what may be from damaged ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sklprep
from sklprep.formats.pack_reader import Pack

from .answers import Answer, check_messages, check_run, read_parts, run_command, same
from .mutations import Rng, pick
from .workers import Fault

POOLINGS = ("final", "mean", "max", "none")
SAMPLES: dict[str, dict[str, Any]] = {
    "stored": {"compress": False, "layers": (0, 1)},
    "deflated": {"dtype": "float16", "layers": (4, 2)},
    "several_SAEs": {"layers": (12, 3, 12, 0), "average_l0s": [70.5, 80, 141, 90]},
    "sparse": {"d_model": 64, "n_features": 5000, "n_tokens": 9},
    "dense": {"layers": (5,), "d_model": 9000, "n_tokens": 8, "n_features": 20},
}
"""Options of `write_sentence`; the last two are large enough for each way to inflate a member."""


@dataclass(frozen=True)
class Forged:
    """One input, what was done to it, and what is asked of it."""

    path: Path
    sample: str
    damage: str
    asked: str
    pooling: str = "final"


def choose(rng: Rng, number: int, samples: Sequence[str], asks: Sequence[str]) -> tuple[str, str]:
    """Draw a sample and what is asked of it; the sound cases go through all of both."""
    every = [(sample, asked) for sample in samples for asked in asks]
    return every[number] if number < 0 else pick(rng, every)


def pooled(values: NDArray[Any], is_final: NDArray[np.bool_], pooling: str) -> NDArray[np.float32]:
    """Rows of one sentence, by float64 arithmetic rounded once."""
    values = values.astype(np.float64)
    if pooling == "final":
        values = values[is_final]
    elif pooling == "mean":
        values = values.mean(axis=0, keepdims=True)
    elif pooling == "max":
        values = values.max(axis=0, keepdims=True)
    return values.astype(np.float32)


def expected_of(files: Sequence[Mapping[str, NDArray[Any]]], pooling: str) -> dict[str, Any]:
    """What must be read from sound sentence files."""
    numbers = files[0]["layers"].tolist()
    layers = sorted(set(numbers))
    n_rows = [len(f["embeddings"]) if pooling == "none" else 1 for f in files]

    def rows(member: str, place: Any = ...) -> NDArray[np.float32]:
        parts = [pooled(f[member][place], f["is_final_token"], pooling) for f in files]
        return np.concatenate(parts)

    def each(values: Any) -> NDArray[Any]:
        return np.repeat(np.array(values), n_rows)

    return {
        "embeddings": rows("embeddings"),
        "hidden_states": np.stack([rows("hidden_states", numbers.index(k)) for k in layers], 1),
        # a sparse matrix holds no -0.0
        "activations": 0.0 + np.stack([rows("activations", k) for k in range(len(numbers))]),
        "layers": np.array(layers),
        "sae_layers": np.array(numbers),
        "average_l0s": files[0]["average_l0s"],
        "labels": each([int(f["concept_strength_label"]) for f in files]),
        "sentence_indices": each([int(f["sentence_index"]) for f in files]),
        "groups": each(range(len(files))),
        "sentences": each([str(f["sentence"]) for f in files])
        if all("sentence" in f for f in files)
        else None,
    }


def clear(scratch: Path) -> None:
    """Remove what commands of the last case wrote."""
    (scratch / "out.npz").unlink(missing_ok=True)
    shutil.rmtree(scratch / "out", ignore_errors=True)


def run(forged: Forged) -> Any:
    """Read a folder or a pack through Python, or give it to a command."""
    path, pooling = forged.path, forged.pooling
    if forged.asked == "read":
        return read_parts(lambda: sklprep.load_activations(path, pooling=pooling), _READS)
    scratch = str(path.parent)
    options = ["--pooling", pooling]
    generate = [
        *("generate", "--strategy", "hidden-to-concept", "--layers", "all", *options),
        *("--normalize", "none", "--input", str(path), "--output", f"{scratch}/out.npz"),
    ]
    argv = {
        "inspect": ["inspect", str(path), "--json", *options],
        "audit": ["inspect", str(path), "--audit", *options],
        "generate": generate,
        "skip": [*generate, "--skip-bad"],
        "pack": ["pack", str(path), f"{scratch}/out", *options],
        "verify": ["pack", str(path), "--verify"],
    }
    return run_command([*argv[forged.asked], "--jobs", "1"])


def _dense(acts: Any) -> NDArray[np.float32]:
    for matrix in acts.activations:
        matrix.check_format(full_check=True)
    return np.stack([matrix.toarray() for matrix in acts.activations])


def _attribute(name: str) -> Callable[[Any], Any]:
    return lambda acts: getattr(acts, name)


_BY_ROW = ("embeddings", "hidden_states", "labels", "sentence_indices", "groups", "sentences")
_READS: dict[str, Callable[[Any], Any]] = {
    **{name: _attribute(name) for name in (*_BY_ROW, "layers", "sae_layers", "average_l0s")},
    "activations": _dense,
    "backwards": lambda acts: acts[::-1].layer(int(acts.layers[0])),
    "card": lambda acts: acts._repr_html_() + repr(acts),
}


def check(forged: Forged, result: Any, expected: Mapping[str, Any], *, exactly: bool) -> str:
    """Check what was read, or what a command printed and wrote.

    Values are those that were written: or, where not `exactly`, since a checksum was forged too,
    at least possible ones.
    """
    if isinstance(result, Answer):
        check_messages(result, forged.path)
        _check_values(result.values, expected, exactly=exactly)
        return "refused" if result.errors else "clean"
    verdict = check_run(result, max_errors=1000 if forged.asked == "verify" else 1)
    if verdict == "clean":
        _check_output(forged, result, expected, exactly=exactly)
    return verdict


def _check_values(found: Mapping[str, Any], expected: Mapping[str, Any], *, exactly: bool) -> None:
    values = {name: value for name, value in found.items() if name in expected}
    for name, value in values.items():
        if exactly and not same(expected[name], value):
            raise Fault(f"gave wrong {name}: {value!r:.300} instead of {expected[name]!r:.300}")
    n_rows = {name: len(values[name]) for name in _BY_ROW if values.get(name) is not None}
    if len({*n_rows.values()}) > 1 or 0 in n_rows.values():
        raise Fault(f"gave different numbers of rows: {n_rows}")
    for name in values.keys() & {"embeddings", "hidden_states", "activations"}:
        value = values[name]
        if value.dtype != np.float32 or value.ndim != expected[name].ndim:
            raise Fault(f"gave {name} of {value.dtype} and shape {value.shape}")
        if not np.isfinite(value).all():
            raise Fault(f"gave {name} that are not finite")
    if "layers" in values and (np.diff(values["layers"]) <= 0).any():
        raise Fault(f"gave layers {values['layers']}")
    if {"backwards", "hidden_states"} <= found.keys() and not same(
        found["hidden_states"][::-1, 0], found["backwards"]
    ):
        raise Fault("one layer of reversed rows is another than that of all of them")


def _check_output(
    forged: Forged, result: Any, expected: Mapping[str, Any], *, exactly: bool
) -> None:
    scratch = forged.path.parent
    if forged.asked == "inspect":
        json.loads(result.out)
    if forged.asked in ("generate", "skip"):
        with np.load(scratch / "out.npz") as written:
            X, y, indices = (written[name] for name in ("X", "y", "meta_sentence_indices"))
        rows = np.isin(expected["sentence_indices"], indices)  # all, but for files left out
        states = expected["hidden_states"].reshape(len(rows), -1)[rows]
        if exactly and not (same(states, X) and same(expected["labels"][rows], y)):
            raise Fault("generate wrote a wrong X or y")
        if exactly and forged.asked == "generate" and not rows.all():
            raise Fault("generate left out rows")
        if X.ndim != 2 or len(X) != len(y) or not np.isfinite(X).all():
            raise Fault(f"generate wrote X of {X.shape} and y of {y.shape}")
    if forged.asked == "pack":
        faults = Pack(scratch / "out", pooling=None).verify()
        if faults:
            raise Fault(f"the new pack does not verify: {faults}")
