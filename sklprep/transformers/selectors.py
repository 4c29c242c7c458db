"""Both selectors, and what they read of a set."""

from __future__ import annotations

from typing import Any

from sklprep.activations.activation_set import ActivationSet
from sklprep.transformers.layer_selector import LayerSelector
from sklprep.transformers.sae_selector import SAEFeatureSelector

SELECTORS = (LayerSelector, SAEFeatureSelector)


def find_members(
    selector: LayerSelector | SAEFeatureSelector, acts: ActivationSet
) -> dict[str, Any]:
    """What a fitted selector will read of a set, as `ActivationSet.prefetch` takes it."""
    if isinstance(selector, SAEFeatureSelector):
        return {"embeddings": False, "layers": [], "configs": selector.find_configs(acts)}
    layers = selector.layers_.tolist()
    return {"embeddings": not layers, "layers": layers, "configs": []}
