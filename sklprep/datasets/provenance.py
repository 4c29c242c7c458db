"""What a dataset is made of, as the JSON that its file holds."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep._version import __version__
from sklprep.activations.activation_set import ActivationSet
from sklprep.formats.layers import EMBEDDINGS, format_layers

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,30}")


def provenance(
    acts: ActivationSet,
    pipeline: Pipeline,
    target: Any,
    *,
    strategy: str,
    fit_rows: NDArray[np.int64] | None,
) -> str:
    """Say in JSON what a dataset is made of: two datasets with equal provenance are equal.

    The selector and the target must be fitted; the other steps need not be.
    """
    from sklprep.transformers.sae_selector import SAEFeatureSelector

    def parameters(step: Any) -> Any:
        if isinstance(step, str):
            return step
        values = step.get_params(deep=False)
        if step is target and "average_l0" in values:
            values["average_l0"] = step.average_l0_
        return {type(step).__name__: values}

    selector = pipeline.steps[0][1]
    layers: Any = format_layers(selector.layers_.tolist()) or EMBEDDINGS
    if isinstance(selector, SAEFeatureSelector):
        saes = zip(selector.sae_layers_.tolist(), selector.average_l0s_.tolist(), strict=True)
        features = None if selector.features_ is None else selector.features_.tolist()
        layers = {"saes": list(saes), "features": features}
    record = {
        "versions": versions(),
        "input": acts.name,
        "fingerprint": acts.fingerprint,
        "arguments": {
            "strategy": strategy,
            "pooling": acts.pooling,
            "layers": layers,
            "pipeline": [parameters(step) for _, step in pipeline.steps[1:]],
            "target": parameters(target),
            "fit_rows": None
            if fit_rows is None
            else hashlib.sha256(fit_rows.tobytes()).hexdigest(),
        },
    }
    if acts.left_out:
        record["left_out"] = list(acts.left_out)
    return json.dumps(record, sort_keys=True, default=str)


@functools.cache
def versions() -> dict[str, str]:
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("numpy", "scikit-learn", "skops")}
    return {"sklprep": __version__, **libraries}


def read_provenance(text: Any) -> list[tuple[str, str]]:
    """Names and values, where a file holds what `provenance` wrote."""
    try:
        record = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return [("", str(text))]
    flat = [
        entry
        for name, value in record.items()
        for entry in (value.items() if isinstance(value, dict) else [(name, value)])
    ]
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in flat]


def next_step(meta: Mapping[str, Any]) -> str:
    """Say what to do about a pipeline that does not load; other versions may be the reason."""
    do = "enerate the dataset again, or load it with pipeline=False."
    recorded = dict(read_provenance(meta.get("meta_provenance")))
    written = {name: recorded.get(name, "") for name in versions()}
    others = {
        name: version
        for name, version in written.items()
        if version != versions()[name] and _VERSION.fullmatch(version)
    }
    if not others:
        return f"G{do}"
    there = ", ".join(f"{name} {version}" for name, version in others.items())
    here = ", ".join(versions()[name] for name in others)
    return f"It was written with {there} (here {here}): install what wrote it, g{do}"
