"""What a dataset is made of, as the JSON that its file holds."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sklprep._version import __version__
from sklprep.activations.activation_set import ActivationSet
from sklprep.formats.layers import EMBEDDINGS, format_layers

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,30}")
"""What a version may look like that a message repeats from a file."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a dataset is made of: datasets of equal provenance are equal.

    Attributes
    ----------
    input, fingerprint : str
        Name of the folder, and what its rows are known by.
    left_out : tuple of str
        Files of the folder whose sentences are not among the rows.
    pooling : str
    layers : str or dict
        What the selector selects.
    steps : list
        Parameters of the steps behind it.
    fit_rows : str or None
        SHA-256 of the row positions that they were fitted on; None is all rows.
    strategy : str
    target : dict
        Parameters of the target extractor.
    """

    input: str
    fingerprint: str
    left_out: tuple[str, ...]
    pooling: str
    layers: Any
    steps: list[Any]
    fit_rows: str | None
    strategy: str
    target: Any

    @classmethod
    def of(
        cls,
        acts: ActivationSet,
        pipeline: Pipeline,
        target: Any,
        *,
        strategy: str,
        fit_rows: NDArray[np.int64] | None,
    ) -> Self:
        """Gather it; the selector and the target must be fitted, the other steps need not be."""
        of_target = target.get_params(deep=False)
        if "average_l0" in of_target:
            of_target["average_l0"] = target.average_l0_
        return cls(
            acts.name,
            acts.fingerprint,
            tuple(acts.left_out),
            acts.pooling,
            _selected(pipeline.steps[0][1]),
            [_parameters(step) for _, step in pipeline.steps[1:]],
            None if fit_rows is None else hashlib.sha256(fit_rows.tobytes()).hexdigest(),
            strategy,
            {type(target).__name__: of_target},
        )

    @property
    def without_target(self) -> Provenance:
        """What X alone is made of."""
        return replace(self, strategy="", target=None)

    def to_json(self) -> str:
        """Write it as a dataset file holds it, with the versions of the libraries."""
        record = {
            "versions": versions(),
            "input": self.input,
            "fingerprint": self.fingerprint,
            "arguments": {
                "strategy": self.strategy,
                "pooling": self.pooling,
                "layers": self.layers,
                "pipeline": self.steps,
                "target": self.target,
                "fit_rows": self.fit_rows,
            },
        }
        if self.left_out:
            record["left_out"] = self.left_out
        return json.dumps(record, sort_keys=True, default=_as_text)


def _as_text(value: Any) -> str:
    """Name functions by where they are defined: their text has an address, of each process anew."""
    return f"{value.__module__}.{value.__qualname__}" if isfunction(value) else str(value)


def _parameters(step: Any) -> Any:
    return step if isinstance(step, str) else {type(step).__name__: step.get_params(deep=False)}


def _selected(selector: Any) -> Any:
    from sklprep.transformers.sae_selector import SAEFeatureSelector

    if not isinstance(selector, SAEFeatureSelector):
        return format_layers(selector.layers_.tolist()) or EMBEDDINGS
    saes = zip(selector.sae_layers_.tolist(), selector.average_l0s_.tolist(), strict=True)
    features = None if selector.features_ is None else selector.features_.tolist()
    return {"saes": list(saes), "features": features}


@functools.cache
def versions() -> dict[str, str]:
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("numpy", "scikit-learn", "skops")}
    return {"sklprep": __version__, **libraries}


def read_provenance(text: Any) -> list[tuple[str, str]]:
    """Names and values, where a file holds what `Provenance.to_json` wrote."""
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
