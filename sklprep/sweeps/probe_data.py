"""A `ProbeDataset` as the input of a sweep, with its groups, normalized anew in each fold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sklprep.exceptions import UsageError
from sklprep.formats.layers import EACH, EMBEDDINGS
from sklprep.sweeps.inputs import InputSpec
from sklprep.transformers.normalizers import ActivationNormalizer

_HIDDEN, _SAE = "hidden_states", "activations"
"""What ``meta_input_source`` of a dataset may be besides embeddings."""

_UNDO = ("standardize", "minmax")
"""Normalizations after which it does not matter how columns were shifted and scaled before."""


class ProbeData(Protocol):
    """What a sweep uses of a `ProbeDataset`."""

    X: NDArray[Any]
    y: NDArray[Any]
    meta: dict[str, Any]

    @property
    def groups(self) -> NDArray[Any]: ...
    def make_pipeline(self, estimator: Any) -> Pipeline: ...


def is_dataset(acts: Any) -> TypeGuard[ProbeData]:
    return all(hasattr(acts, name) for name in ("X", "y", "groups", "meta", "make_pipeline"))


def input_of(dataset: ProbeData, layers: Any) -> InputSpec:
    """Name the one input that a dataset is; layer 0 if its file does not say."""
    if layers != EACH:
        raise UsageError(
            f"layers={layers!r} was given, but a dataset holds one input: its X. Leave layers out,"
            " or sweep the activations that it was made from."
        )
    meta: Mapping[str, Any] = dataset.meta
    numbers, source = np.ravel(meta.get("meta_input_layers", ())), meta.get("meta_input_source")
    if source == EMBEDDINGS:
        return InputSpec()
    if source in (_HIDDEN, _SAE) and len(numbers) and numbers.dtype.kind in "iu":
        return InputSpec(tuple(numbers.tolist()), source == _SAE)
    return InputSpec((0,))


def normalize_anew(dataset: ProbeData, estimator: Any) -> Any:
    """Put a fresh normalizer before an estimator, unless it starts with one.

    Raises
    ------
    UsageError
        If X went through a step that learned from the rows and cannot be undone.
    """
    pipeline = dataset.make_pipeline(estimator)
    if not isinstance(estimator, Pipeline):
        return pipeline
    first = estimator.steps[0][1]
    method = first.method if type(first) is ActivationNormalizer else ""
    if method in _UNDO or type(first) in (StandardScaler, MinMaxScaler):
        return estimator
    return Pipeline([("normalizer", pipeline.steps[0][1]), *estimator.steps])
