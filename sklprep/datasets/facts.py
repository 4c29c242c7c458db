"""Facts about a dataset, gathered here once for all places that show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.formats.layers import name_layers
from sklprep.notebook.words import YSummary, summarize_y

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """Facts about a dataset; None for those that its file does not contain.

    Attributes
    ----------
    shape, dtype
        Those of X.
    y_shape, y_dtype, y
        Those of y, and its summary.
    strategy, source, pooling, norm : str or None
    layers : list or None
        Input layers; whole numbers, except in files of other tools.
    output_type, target_layer, target_feature, average_l0
        Properties of the target.
    n_groups : int
    n_train : int or None
        Number of rows on which the pipeline was fitted, if not all.
    steps : list of (str, str), or None
        Names of the steps of the pipeline, and the steps as text.
    provenance : str or None
        The JSON of `Provenance`, except in files of other tools.
    """

    shape: tuple[int, ...]
    dtype: str
    y_shape: tuple[int, ...]
    y_dtype: str
    y: YSummary
    strategy: Any
    source: Any
    layers: list[Any] | None
    pooling: Any
    output_type: Any
    target_layer: Any
    target_feature: Any
    average_l0: Any
    n_groups: int
    n_train: int | None
    norm: Any
    steps: list[tuple[str, str]] | None
    provenance: Any

    @property
    def input(self) -> str:
        """Description of the input from which X was made."""
        if self.source is None:
            return ""
        source = str(self.source).replace("_", " ")
        if not self.layers or not all(isinstance(layer, int) for layer in self.layers):
            return source
        return f"{source} of {name_layers(self.layers)}"


def gather_facts(
    shape: tuple[int, ...],
    dtype: Any,
    y: NDArray[Any],
    meta: Mapping[str, Any],
    norm: Mapping[str, Any],
    pipeline: Pipeline | None,
) -> DatasetFacts:
    """Gather the facts; of X only shape and dtype are needed."""

    def entry(name: str) -> Any:
        value = meta.get(f"meta_{name}")
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else value

    layers, train = meta.get("meta_input_layers"), meta.get("meta_train_indices")
    steps = None
    if pipeline is not None:
        steps = [(name, " ".join(str(step).split())) for name, step in pipeline.steps]
    return DatasetFacts(
        shape,
        np.dtype(dtype).name,
        y.shape,
        str(y.dtype),
        summarize_y(y),
        entry("strategy"),
        entry("input_source"),
        None if layers is None else np.ravel(layers).tolist(),
        entry("pooling"),
        entry("output_type"),
        entry("target_layer"),
        entry("target_feature"),
        entry("average_l0"),
        len(np.unique(meta["meta_groups"])) if "meta_groups" in meta else shape[0],
        None if train is None else np.size(train),
        norm.get("norm_method"),
        steps,
        entry("provenance"),
    )
