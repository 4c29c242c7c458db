"""The datasets that `generate` makes: all combinations of its options, each with its file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklprep.datasets.strategies import FEATURE, SAE, STRATEGIES, require_method, require_options
from sklprep.exceptions import UsageError
from sklprep.formats.layers import format_layers, parse_layers


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """One dataset to make."""

    source: Path
    strategy: str
    options: dict[str, Any]
    normalize: str
    output: Path


def plan_datasets(
    sources: Sequence[Path],
    strategies: Sequence[str],
    normalize: Sequence[str],
    options: dict[str, Sequence[Any]],
    output: str,
) -> list[DatasetPlan]:
    """Combine all values, and each strategy with the options that it uses.

    Parameters
    ----------
    sources, strategies, normalize : sequence
        Values to combine; an empty `normalize` means the default of each strategy.
    options : dict
        Values of the options of strategies by name; ``features`` holds (layer, feature, average_l0)
        triples instead of ``target_layer``, ``target_feature`` and ``average_l0``.
    output : str
        Pattern for the path of a dataset, with the fields ``{trait}``, ``{input}``, ``{strategy}``,
        ``{name}``, ``{layers}``, ``{norm}``, ``{target_layer}``, ``{feature}``, ``{l0}`` and
        ``{input_layer}``.

    Returns
    -------
    list of DatasetPlan

    Raises
    ------
    UsageError
        If an option is missing or not used by any strategy, or if two datasets would share a file.
    """
    given = {name for name, values in options.items() if values}
    if "features" in given:
        given = given - {"features"} | {"target_layer", "target_feature", "average_l0"}
    if len(strategies) == 1:
        require_options(strategies[0], sorted(given - _implied(options)))
    for name in sorted(given - _implied(options)):
        if not any(name in STRATEGIES[s].needs + STRATEGIES[s].takes for s in strategies):
            require_options(strategies[0], (*STRATEGIES[strategies[0]].needs, name))
    for strategy, method in itertools.product(strategies, normalize):
        require_method(strategy, method)
    plans = [
        DatasetPlan(
            source,
            strategy,
            combined,
            method,
            Path(_fill(output, source, strategy, combined, method)),
        )
        for source, strategy in itertools.product(sources, strategies)
        for combined in _combine(strategy, options)
        for method in normalize or (STRATEGIES[strategy].default_normalize,)
    ]
    _require_distinct(plans, output)
    return plans


def _implied(options: dict[str, Sequence[Any]]) -> set[str]:
    """Return options that a table of features always names, needed or not."""
    return {"average_l0"} if options.get("features") else set()


def _combine(strategy: str, options: dict[str, Sequence[Any]]) -> list[dict[str, Any]]:
    row = STRATEGIES[strategy]
    used = row.needs + row.takes
    axes: list[list[dict[str, Any]]] = []
    if row.output_type == FEATURE and options.get("features"):
        names = ("target_layer", "target_feature", "average_l0")
        axes.append([dict(zip(names, feature, strict=True)) for feature in options["features"]])
    axes += [[{name: value} for value in options[name]] for name in used if options.get(name)]
    combined = []
    for choice in itertools.product(*axes):
        merged = {key: value for part in choice for key, value in part.items() if value is not None}
        require_options(strategy, merged)
        combined.append(merged)
    return combined


def _fill(
    pattern: str, source: Path, strategy: str, options: dict[str, Any], normalize: str
) -> str:
    layers = STRATEGIES[strategy].input_layers(options)
    spec = (
        layers
        if isinstance(layers, str) and not re.match(r"\d", layers)
        else format_layers(parse_layers(layers)).replace(",", "_")
    )
    base = source.resolve().name
    fields = {
        "trait": _trait(source),
        "input": base,
        "strategy": strategy,
        "name": _short_name(strategy, spec, options),
        "layers": spec,
        "norm": normalize,
        "target_layer": options.get("target_layer", ""),
        "feature": options.get("target_feature", ""),
        "l0": f"{options['average_l0']:g}" if options.get("average_l0") is not None else "",
        "input_layer": options.get("input_layer", ""),
    }
    try:
        return pattern.format(**fields)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        why = "a field has no name" if isinstance(error, IndexError) else error
        raise UsageError(
            f"The output pattern {pattern!r} cannot be filled ({why}); its fields are"
            f" {', '.join(f'{{{name}}}' for name in fields)}. Write {{{{ for a brace."
        ) from None


def _trait(source: Path) -> str:
    return re.sub(r"(_\d+)?_features$", "", source.resolve().name)


def _short_name(strategy: str, spec: str, options: dict[str, Any]) -> str:
    """Return a name as in the usage guide: ``h0-5_to_concept``, ``emb_to_f1234``."""
    letter = "sae" if STRATEGIES[strategy].input_member == SAE else "h"
    left = "emb" if spec == "embeddings" else f"{letter}{spec}"
    if STRATEGIES[strategy].output_type != FEATURE:
        return f"{left}_to_concept"
    layer, feature = options["target_layer"], options["target_feature"]
    return (
        f"{left}_to_f{feature}"
        if spec in ("embeddings", str(layer))
        else (f"{left}_to_l{layer}_f{feature}")
    )


def _require_distinct(plans: Sequence[DatasetPlan], pattern: str) -> None:
    seen: dict[Path, DatasetPlan] = {}
    for plan in plans:
        other = seen.setdefault(plan.output, plan)
        if other is not plan:
            one, two = other.source.resolve(), plan.source.resolve()
            if one != two and one.name == two.name:
                raise UsageError(
                    f"{other.source} and {plan.source} have the same name, so both datasets would"
                    f" be written to {plan.output}. Rename a folder, or run the command for each."
                )
            raise UsageError(
                f"Two datasets would be written to {plan.output}: {_difference(other, plan)}. Add"
                f" all fields that vary to the output pattern, got {pattern!r}."
            )


def _difference(one: DatasetPlan, other: DatasetPlan) -> str:
    pairs: list[tuple[str, Any, Any]] = [
        (
            "{input}" if _trait(one.source) == _trait(other.source) else "{trait}",
            one.source,
            other.source,
        ),
        ("{strategy}", one.strategy, other.strategy),
        ("{norm}", one.normalize, other.normalize),
    ]
    fields = {"target_feature": "feature", "average_l0": "l0"}
    pairs += [
        (f"{{{fields.get(name, name)}}}", one.options[name], other.options[name])
        for name in one.options
        if name in other.options
    ]
    return (
        ", ".join(f"{name} is {a} and {b}" for name, a, b in pairs if a != b)
        or "it was requested twice"
    )
