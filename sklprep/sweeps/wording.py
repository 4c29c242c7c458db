"""How scores and inputs are written for people."""

from __future__ import annotations

from collections.abc import Sequence

from sklprep.formats.layers import EMBEDDINGS, format_layers


def format_score(score: float | None, digits: int = 2) -> str:
    """Write a score for people; never as -0.00."""
    return "none" if score is None else f"{round(score, digits) + 0.0:.{digits}f}"


def name_input(layer: int | str) -> str:
    if layer == EMBEDDINGS:
        return EMBEDDINGS
    if str(layer).startswith("sae "):
        layers, _, l0 = str(layer)[4:].partition(" l0 ")
        plural = "" if layers.isdigit() else "s"
        return f"SAE features of layer{plural} {layers}" + (f" (average_l0 {l0})" if l0 else "")
    return f"layer {layer}" if isinstance(layer, int) else f"layers {layer}"


def name_inputs(layers: Sequence[int | str]) -> str:
    single = [layer for layer in layers if isinstance(layer, int)]
    parts = [name_input(layer) for layer in layers if not isinstance(layer, int)]
    if single:
        parts.append(f"{'layer' if len(single) == 1 else 'each of layers'} {format_layers(single)}")
    return ", ".join(parts)


def format_p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.3g}"
