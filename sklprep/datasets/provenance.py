"""What a dataset is made of, stored as JSON in its file."""

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
"""Versions in a file that messages may repeat."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a dataset is made of: datasets with equal provenance are equal.

    Attributes
    ----------
    input, fingerprint : str
        Name of the input, and fingerprint of its rows.
    left_out : tuple of str
        Files of the folder that were left out.
    pooling : str
        How tokens became rows.
    layers : str or dict
        Selected layers or SAEs.
    steps : list
        Parameters of the steps after the selector.
    fit_rows : str or None
        SHA-256 of the row positions on which they were fitted; None means all rows.
    strategy : str
        Name of the strategy.
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
        """Gather the provenance; of the steps, only selector and target must be fitted."""
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
        """Provenance of X alone."""
        return replace(self, strategy="", target=None)

    def to_json(self) -> str:
        """Return the JSON for a dataset file, with the versions of the libraries."""
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
    """Name functions by where they are defined, because their repr has a varying address."""
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
    """Return names and values of the JSON of `Provenance.to_json`, or any other text unnamed."""
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
    """Say what to do about a pipeline that cannot be loaded, perhaps because of other versions."""
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
    return f"It was written with {there} (here {here}): install these versions, g{do}"
