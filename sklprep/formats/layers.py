"""Layer specifications: ``12``, ``[0, 12]``, ``"0-2,10,15-17"``, ``"all"``, ``"embeddings"``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

from sklprep.exceptions import LayerNotFoundError, LayerSpecError

ALL = "all"
EMBEDDINGS = "embeddings"
EACH = "each"
EACH_SAE = "each sae"
"""In a sweep: every single layer, including the embeddings, and every single SAE, as an input."""

_MAX_LAYERS = 10_000  # more than any model has; "0-99999999" is a typing error
_HINT = "write single layers, ranges and commas, such as 12, 0-5 or 0-2,10,15-17"


def parse_layers(spec: Any) -> list[int]:
    """Read a layer specification into ascending, distinct layer numbers.

    Parameters
    ----------
    spec : int, iterable of int, or str
        One layer, several layers, or a string of layers and inclusive ranges joined by commas.

    Returns
    -------
    list of int
        Ascending and distinct.

    Raises
    ------
    LayerSpecError
        If the specification cannot be read.

    Examples
    --------
    >>> parse_layers("0-2,10,15-17")
    [0, 1, 2, 10, 15, 16, 17]
    >>> parse_layers([12, 0])
    [0, 12]
    """
    if isinstance(spec, str):
        layers = _parse_string(spec)
    elif isinstance(spec, Integral) and not isinstance(spec, bool):
        layers = [int(spec)]
    elif (
        isinstance(spec, Iterable) and not isinstance(spec, bytes) and getattr(spec, "shape", True)
    ):
        items = list(spec)
        for item in items:
            if not isinstance(item, Integral) or isinstance(item, bool):
                raise LayerSpecError(
                    f"Layers must be whole numbers, got {item!r} in {items!r}; {_HINT}."
                )
        layers = [int(item) for item in items]
    else:
        raise LayerSpecError(
            f"Layers must be an int, a list of ints or a string, got {type(spec).__name__}"
            f" {spec!r}; {_HINT}."
        )
    if not layers:
        raise LayerSpecError(f"No layer given in {spec!r}; {_HINT}.")
    if min(layers) < 0:
        raise _negative(spec)
    return sorted(set(layers))


def format_layers(layers: Sequence[int]) -> str:
    """Write layer numbers as the shortest specification.

    Examples
    --------
    >>> format_layers([0, 1, 2, 10, 15, 16])
    '0-2,10,15-16'
    """
    runs: list[list[int]] = []
    for layer in sorted({int(layer) for layer in layers}):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def name_layers(layers: Sequence[int]) -> str:
    """Write layer numbers in words.

    Examples
    --------
    >>> name_layers([7]), name_layers([0, 1, 2])
    ('layer 7', 'layers 0-2')
    """
    return f"layer{'s' if len(layers) > 1 else ''} {format_layers(layers)}"


def require_layers(wanted: Sequence[int], available: Sequence[int]) -> None:
    """Raise `LayerNotFoundError` unless every wanted layer is available."""
    missing = [layer for layer in wanted if layer not in set(available)]
    if missing:
        more = f" (nor {format_layers(missing[1:])})" if missing[1:] else ""
        raise LayerNotFoundError(
            f"Layer {missing[0]} not found in data{more}: it has layers"
            f" {format_layers(available) or 'none'}. Choose one of these."
        )


def _parse_string(spec: str) -> list[int]:
    layers: list[int] = []
    for raw in spec.split(","):
        part = raw.strip()
        if not part:
            raise LayerSpecError(f"Layer specification {spec!r} has an empty part; {_HINT}.")
        match = re.fullmatch(r"([0-9]+)(?:\s*-\s*([0-9]+))?", part)
        if match is None:
            if re.fullmatch(r"-\s*[0-9]+", part):
                raise _negative(spec)
            raise LayerSpecError(
                f"Layer specification {spec!r} cannot be read at {part!r}; {_HINT}."
            )
        first, last = match[1], match[2] or match[1]
        if max(len(first), len(last)) > 9:
            raise LayerSpecError(f"Layer specification {spec!r} has too large a layer number.")
        start, stop = int(first), int(last)
        if stop < start:
            raise LayerSpecError(
                f"Layer range {part!r} runs backwards; did you mean {stop}-{start}?"
            )
        if stop - start >= _MAX_LAYERS:
            raise LayerSpecError(
                f"Layer range {part!r} spans {stop - start + 1:,} layers, more than the"
                f" {_MAX_LAYERS:,} allowed."
            )
        layers.extend(range(start, stop + 1))
    return layers


def _negative(spec: object) -> LayerSpecError:
    return LayerSpecError(
        f"Layers are numbered from 0, got {spec!r}; give the number of the layer"
        " (negative numbers do not count from the end)."
    )
