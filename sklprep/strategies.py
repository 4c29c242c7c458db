"""The table of strategies: which input, which target, and which options each of them needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sklprep.exceptions import UsageError
from sklprep.layers import EMBEDDINGS

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

FEATURE = "feature_activation"
CONCEPT = "concept_label"


@dataclass(frozen=True, slots=True)
class Strategy:
    """One row of `STRATEGIES`.

    Attributes
    ----------
    summary : str
        The question it asks.
    output_type : {"feature_activation", "concept_label"}
        What y is.
    input_layers : callable
        From the options to the `layers` of the `LayerSelector`.
    needs, takes : tuple of str
        Options that must, and that may, be given.
    """

    summary: str
    output_type: str
    input_layers: Callable[[Mapping[str, Any]], Any]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()


STRATEGIES: dict[str, Strategy] = {
    "embedding-to-feature": Strategy(
        "Can token embeddings predict an SAE feature?",
        FEATURE,
        lambda options: EMBEDDINGS,
        needs=("target_layer", "target_feature"),
        takes=("average_l0",),
    ),
    "hidden-to-feature": Strategy(
        "Can hidden states predict an SAE feature, by default of their own layer?",
        FEATURE,
        lambda options: options.get("input_layer", options["target_layer"]),
        needs=("target_layer", "target_feature"),
        takes=("average_l0", "input_layer"),
    ),
    "hidden-to-concept": Strategy(
        "Do hidden states know how strongly the concept is present?",
        CONCEPT,
        lambda options: options["layers"],
        needs=("layers",),
    ),
    "embedding-to-concept": Strategy(
        "Do token embeddings know how strongly the concept is present?",
        CONCEPT,
        lambda options: EMBEDDINGS,
    ),
}

_FLAGS = {
    "layers": "layers (--layer N for one layer, --layers SPEC for several)",
    "input_layer": "input_layer (--input-layer)",
    "target_layer": "target_layer (--target-layer)",
    "target_feature": "target_feature (--target-feature)",
    "average_l0": "average_l0 (--average-l0)",
}


def make_strategy(
    name: str,
    *,
    normalize: str = "standardize",
    layers: Any = None,
    target_layer: int | None = None,
    target_feature: int | None = None,
    average_l0: float | None = None,
    input_layer: int | None = None,
) -> tuple[Pipeline, BaseEstimator]:
    """Build the two scikit-learn objects of a strategy: input pipeline and target extractor.

    Parameters
    ----------
    name : str
        One of `STRATEGIES`.
    normalize : {"standardize", "minmax", "none"}, default="standardize"
        Method of the `ActivationNormalizer`.
    layers : int, list of int or str
        Input layers of ``hidden-to-concept``.
    target_layer, target_feature : int
        The SAE feature that the ``*-to-feature`` strategies predict.
    average_l0 : float
        Which SAE, where the target layer has several.
    input_layer : int
        Input layer of ``hidden-to-feature``; by default the target layer.

    Returns
    -------
    pipeline : Pipeline
        Steps ``layerselector`` and ``activationnormalizer``, not fitted.
    target : FeatureTargetExtractor or ConceptTargetExtractor

    Raises
    ------
    UsageError
        If the strategy is unknown, lacks an option, or does not use one that was given.

    Examples
    --------
    >>> from sklprep import make_strategy
    >>> pipeline, target = make_strategy("hidden-to-feature", target_layer=12, target_feature=1234)
    >>> pipeline.named_steps["layerselector"], target
    (LayerSelector(layers=12), FeatureTargetExtractor(feature=1234, layer=12))
    """
    given = {
        "layers": layers,
        "input_layer": input_layer,
        "target_layer": target_layer,
        "target_feature": target_feature,
        "average_l0": average_l0,
    }
    options = {option: value for option, value in given.items() if value is not None}
    strategy = check_options(name, options)

    from sklearn.pipeline import make_pipeline

    from sklprep.normalizers import METHODS, ActivationNormalizer
    from sklprep.selectors import LayerSelector
    from sklprep.targets import ConceptTargetExtractor, FeatureTargetExtractor

    if normalize not in METHODS:
        raise UsageError(f"normalize must be one of {', '.join(METHODS)}, got {normalize!r}.")
    pipeline = make_pipeline(
        LayerSelector(strategy.input_layers(options)), ActivationNormalizer(normalize)
    )
    if strategy.output_type == CONCEPT:
        return pipeline, ConceptTargetExtractor()
    return pipeline, FeatureTargetExtractor(
        options["target_layer"], options["target_feature"], average_l0
    )


def check_options(name: str, options: Mapping[str, Any]) -> Strategy:
    """Look a strategy up and check that it gets the options it needs and no others.

    Raises
    ------
    UsageError
        With the option's Python name and its flag.
    """
    if name not in STRATEGIES:
        raise UsageError(f"Unknown strategy {name!r}; choose one of {', '.join(STRATEGIES)}.")
    strategy = STRATEGIES[name]
    missing = [option for option in strategy.needs if option not in options]
    if missing:
        raise UsageError(f"{name} needs {' and '.join(_FLAGS[option] for option in missing)}.")
    for option in options:
        if option not in strategy.needs + strategy.takes:
            used = [_FLAGS[other] for other in strategy.needs + strategy.takes]
            raise UsageError(
                f"{name} does not use {_FLAGS[option]}; it takes {', '.join(used) or 'no options'}."
            )
    return strategy
