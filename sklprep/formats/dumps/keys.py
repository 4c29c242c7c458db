"""Recognizing layers by the names of arrays."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sklprep.exceptions import DataError, UsageError
from sklprep.files.faults import file_fault
from sklprep.formats.layers import format_layers

PATTERNS = (
    *("layer_{layer}", "layer{layer}", "layer.{layer}", "layers.{layer}", "layers_{layer}"),
    *("L{layer}", "hidden_states/L{layer}", "hidden_states/layer_{layer}"),
    *("hidden_states_{layer}", "hidden_states.{layer}", "hidden_states/{layer}"),
    *("hidden.layer_{layer}", "blocks.{layer}.hook_resid_post", "model.layers.{layer}"),
)
"""Names that are recognized without a key: each is that of the output of a block, or generic. In
the tuple ``hidden_states`` of Hugging Face, 0 are the embeddings: only an offset can tell."""
WHOLE = "hidden_states"
"""Name of an array of all layers that is recognized without a key."""
EMBEDDINGS = ("embeddings", "hook_embed", "embed")

_LAYER = "{layer}"
_SHOWN = 6  # names listed in an error: enough to see their pattern
_AXIS = re.compile(r"(?P<name>[^\[\]]+)(\[(?P<layers>[0-9,\s-]+)\])?")


def match_layers(names: Iterable[str], pattern: str) -> dict[int, list[str]]:
    """Find the names that match a pattern, by the number in them.

    Examples
    --------
    >>> match_layers(["layer_0", "layer_12", "labels"], "layer_{layer}")
    {0: ['layer_0'], 12: ['layer_12']}
    """
    number = "([0-9]{1,6})"
    expression = re.compile(re.escape(pattern).replace(re.escape(_LAYER), number))
    found: dict[int, list[str]] = {}
    for name in names:
        if match := expression.fullmatch(name):
            found.setdefault(int(match[1]), []).append(name)
    return found


def find_layers(path: Path, names: Sequence[str], key: str | None) -> tuple[str, dict[int, str]]:
    """Find the pattern that the names match, and the name of each number.

    Parameters
    ----------
    path : Path
        Path for errors.
    names : list of str
        Names of arrays that may be layers.
    key : str or None
        A pattern; None for one of `PATTERNS`.

    Returns
    -------
    pattern : str
        Empty if none matches; with a `key` this is an error.
    by_number : dict of int to str

    Raises
    ------
    FileFormatError
        If no name matches `key`, or two names have the same number.
    UsageError
        If names match several patterns.
    """
    patterns = [key] if key is not None else PATTERNS
    fitting = {pattern: found for pattern in patterns if (found := match_layers(names, pattern))}
    if len(fitting) > 1:
        one, other = list(fitting)[:2]
        raise UsageError(
            f"{path} holds arrays named {one} and {other}; expected one pattern for all layers."
            f" Give key={one!r} or key={other!r}."
        )
    if not fitting:
        if key is not None:
            raise no_layers(path, names, f"matches key={key!r}")
        return "", {}
    ((pattern, found),) = fitting.items()
    for number, same in found.items():
        if len(same) > 1:
            what = f"has two arrays for layer {number}, {same[0]} and {same[1]}"
            raise file_fault(path, None, what, "one", f"Remove one, or give key={same[0]!r}.")
    return pattern, {number: found[number][0] for number in sorted(found)}


def no_layers(path: Path, names: Iterable[str], why: str) -> DataError:
    """Build the error for a dump whose arrays are not recognized as layers."""
    shown = [name if name.isprintable() else ascii(name) for name in names]
    found = ", ".join(shown[:_SHOWN])[:200] or "none"
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return file_fault(
        path,
        None,
        f"has no array of numbers that {why} (its arrays: {found}{more})",
        "one per layer, such as layer_12, or hidden_states of (rows, layers, width)",
        "Give key=..., their name with {layer} for the number of the layer, such as"
        " key='layer_{layer}'.",
    )


def read_axis(key: str) -> tuple[str, list[int] | None]:
    """Parse the name of an array of all layers, and the numbers of its layers if given.

    Examples
    --------
    >>> read_axis("hidden_states"), read_axis("acts[0-2,10]")
    (('hidden_states', None), ('acts', [0, 1, 2, 10]))
    """
    match = _AXIS.fullmatch(key)
    if match is None:
        raise UsageError(
            f"key={key!r} cannot be read; expected a name with {{layer}} for the number of the"
            " layer, or the name of one array of all layers, optionally with their numbers, such as"
            " key='hidden_states[0-2,10]'."
        )
    if match["layers"] is None:
        return key, None
    numbers: list[int] = []
    for part in match["layers"].split(","):
        ends = re.fullmatch(r"\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?\s*", part)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if first > last:
            raise UsageError(
                f"key={key!r} cannot be read at {part.strip()!r}; write single layers and ranges,"
                " such as key='hidden_states[0-2,10]'."
            )
        numbers += range(first, last + 1)
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"key={key!r} names a layer twice; expected each number once.")
    return match["name"], numbers


def require_numbers(path: Path, name: str, numbers: Sequence[int], n_layers: int) -> None:
    """Raise `UsageError` unless there is one number for each layer of an array."""
    if len(numbers) != n_layers:
        raise UsageError(
            f"{path}: {name} holds {n_layers} layers, got {len(numbers)} numbers"
            f" ({format_layers(numbers)}); expected one each, such as"
            f" key='{name}[0-{n_layers - 1}]'."
        )


def shift(numbers: Collection[int], offset: int, path: Path) -> None:
    """Raise `UsageError` if adding `offset` makes a number less than -1 (the embeddings)."""
    if numbers and min(numbers) + offset < -1:
        raise UsageError(
            f"{path}: layer_offset={offset} turns layer {min(numbers)} into"
            f" {min(numbers) + offset}; expected -1, which stands for the embeddings, or more."
        )


def say_mapping(name: str, numbers: Sequence[int], offset: int) -> str:
    """Describe which numbers of a dump became which layers.

    Examples
    --------
    >>> say_mapping("layer_{layer}", [0, 1, 2], 0)
    'layer_{layer} as layers 0-2'
    >>> say_mapping("hidden_states.{layer}", [0, 1, 2], -1)
    'hidden_states.{layer} 0-2 as embeddings and layers 0-1'
    """
    mapped = [number + offset for number in numbers]
    layers = [number for number in mapped if number >= 0]
    parts = ["embeddings"] if -1 in mapped else []
    if layers:
        parts.append(f"layer{'s' if len(layers) > 1 else ''} {format_layers(layers)}")
    given = f" {format_layers(numbers)}" if offset else ""
    return f"{name}{given} as {' and '.join(parts)}"
