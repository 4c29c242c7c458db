"""Damaged datasets."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import sklprep
from sklprep.exceptions import DataError, SklprepWarning, UsageError

from ..forged_files import archive, npy, stored
from .answers import Answer, Run, check_messages, check_run, read_parts, run_command, same
from .mutations import Rng, flip, mutate_archive, mutate_array, mutate_bytes, mutate_dump, pick
from .samples import Forged, choose
from .table import rng_of
from .workers import Fault

_STRATEGIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "standardized": ("hidden-to-concept", "standardize", {"layers": "0-1"}),
    "deflated": ("embedding-to-concept", "minmax", {}),
    "of a feature": ("hidden-to-feature", "standardize", {"target_layer": 1, "target_feature": 3}),
    "sparse": ("feature-to-concept", "maxabs", {"layers": 2}),
}
SAMPLES = (*_STRATEGIES, "by a PCA", "custom")


def make_dataset(sample: str, acts: Any) -> Any:
    """A small sound dataset of one kind."""
    if sample == "custom":
        X = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
        return sklprep.ProbeDataset(X, np.arange(12) % 2, {"meta_groups": np.arange(12) // 2}, {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklprepWarning)
        if sample == "by a PCA":
            steps = sklprep.LayerSelector(1), PCA(3, random_state=0), sklprep.ActivationNormalizer()
            target = sklprep.ConceptTargetExtractor()
            return sklprep.generate_dataset(acts, make_pipeline(*steps), target)
        strategy, normalize, options = _STRATEGIES[sample]
        made = sklprep.make_strategy(strategy, normalize=normalize, **options)
        return sklprep.generate_dataset(acts, *made, strategy=strategy, fit_rows=np.arange(15))


def transform_with(dataset: Any, acts: Any) -> Any:
    """What the embedded pipeline, if there is one, makes of activations."""
    with np.errstate(all="ignore"), contextlib.suppress(DataError):  # it may want other layers
        return None if dataset.pipeline is None else dataset.pipeline.transform(acts)


class Datasets:
    """Cases: what sklprep makes of a damaged dataset."""

    asks = ("read", "read", "read", "inspect", "audit")
    damages: tuple[str, ...] = ("bytes", "members", "entries", "pipeline")
    n_sound = len(SAMPLES) * len(asks)

    def __init__(self, seed: int, part: str) -> None:
        self._seed, self._part = seed, part
        self._sound: dict[str, bytes] = {}
        self._arrays: dict[str, dict[str, Any]] = {}
        self._acts = sklprep.make_activations(
            20, n_layers=3, d_model=8, n_features=16, random_state=0
        )

    def forge(self, number: int, scratch: Path) -> Forged:
        rng = rng_of(self._seed, self._part, abs(number))
        sample, asked = choose(rng, number, SAMPLES, self.asks)
        path = scratch / "dataset.npz"
        if sample not in self._sound:
            make_dataset(sample, self._acts).save(path, compress=sample == "deflated")
            self._sound[sample] = path.read_bytes()
            with np.load(path) as content:
                self._arrays[sample] = {name: content[name] for name in content.files}
        damage = "none" if number < 0 else pick(rng, self.damages)
        path.write_bytes(self._damaged(rng, damage, sample))
        return Forged(path, sample, damage, asked)

    def _damaged(self, rng: Rng, damage: str, sample: str) -> bytes:
        content, arrays = self._sound[sample], dict(self._arrays[sample])
        if damage == "flip":
            return flip(rng, content)
        if damage == "bytes":
            return mutate_bytes(rng, content)
        if damage == "pipeline" and "pipeline" in arrays:
            dump = mutate_dump(rng, arrays["pipeline"].tobytes())
            arrays["pipeline"] = np.frombuffer(dump, np.uint8)
            return archive(*(stored(npy(v), f"{k}.npy".encode()) for k, v in arrays.items()))
        if damage == "entries":
            name = pick(rng, sorted(arrays.keys() - {"pipeline"}))
            arrays[name] = mutate_array(rng, arrays[name])
            return archive(*(stored(npy(v), f"{k}.npy".encode()) for k, v in arrays.items()))
        if damage == "none":
            return content
        return mutate_archive(rng, arrays, compress=sample == "deflated")

    def run(self, forged: Forged) -> Any:
        if forged.asked != "read":
            option = "--json" if forged.asked == "inspect" else "--audit"
            return run_command(["inspect", str(forged.path), option])
        with_pipeline = {**_WITH_PIPELINE, "transformed": lambda ds: transform_with(ds, self._acts)}
        answer = read_parts(lambda: sklprep.load_dataset(forged.path), with_pipeline)
        arrays = read_parts(lambda: sklprep.load_dataset(forged.path, pipeline=False), _ARRAYS)
        answer.errors += arrays.errors
        answer.warnings += arrays.warnings
        answer.values |= arrays.values
        return answer

    def check(self, forged: Forged, result: Any) -> str:
        if isinstance(result, Run):
            return check_run(result)
        check_messages(result, forged.path)
        if forged.damage in ("bytes", "flip", "none"):
            self._check_equal(self._arrays[forged.sample], result)
        values = result.values
        if "X" in values and (values["X"].ndim != 2 or len(values["X"]) != len(values["y"])):
            raise Fault(f"gave X of {values['X'].shape} and y of {values['y'].shape}")
        return "refused" if result.errors else "clean"

    def _check_equal(self, arrays: dict[str, Any], answer: Answer) -> None:
        transformed = arrays["X"] if "pipeline" in arrays else None
        groups = arrays.get("meta_groups", np.arange(len(arrays["X"])))
        expected = {**arrays, "groups": groups, "transformed": transformed}
        for name in answer.values.keys() & {"X", "y", "groups", "transformed"}:
            value = answer.values[name]
            if name == "transformed" and value is not None:
                value = np.asarray(value.toarray() if hasattr(value, "toarray") else value)
            if not same(expected[name], value):
                raise Fault(f"gave wrong {name}: {value!r:.300}")
        if "meta" not in answer.values:
            return
        entries = answer.values["meta"] | answer.values["norm"]
        if entries.keys() != {name for name in arrays if name.startswith(("meta_", "norm_"))}:
            raise Fault(f"lost entries, or has others: {sorted(entries)}")
        for name, value in entries.items():
            if not np.array_equal(arrays[name], value):
                raise Fault(f"gave wrong {name}: {value!r:.300}")


def _make_model(dataset: Any) -> Any:
    with contextlib.suppress(UsageError):  # a PCA cannot be undone
        return dataset.make_pipeline(LogisticRegression())


_ARRAYS: dict[str, Callable[[Any], Any]] = {
    "X": lambda ds: ds.X,
    "y": lambda ds: ds.y,
    "meta": lambda ds: ds.meta,
    "norm": lambda ds: ds.norm,
    "groups": lambda ds: ds.groups,
    "card": lambda ds: ds._repr_html_() + repr(ds),
}
_WITH_PIPELINE: dict[str, Callable[[Any], Any]] = {
    "card": lambda ds: ds._repr_html_() + repr(ds),
    "names": lambda ds: ds.pipeline is None or list(ds.pipeline.get_feature_names_out()),
    "model": _make_model,
}
