"""The table of strategies: the input, the target and the options of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sklprep.exceptions import UsageError
from sklprep.formats.layers import EMBEDDINGS
from sklprep.transformers.normalization_methods import KEEP_ZEROS, METHODS, is_method

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

FEATURE = "feature_activation"
CONCEPT = "concept_label"

HIDDEN = "hidden_states"
SAE = "activations"


@dataclass(frozen=True, slots=True)
class Strategy:
    """One row of `STRATEGIES`.

    Attributes
    ----------
    summary : str
        The question that it answers.
    output_type : {"feature_activation", "concept_label"}
        Kind of y.
    input_layers : callable
        Returns the `layers` of the selector from the options.
    needs, takes : tuple of str
        Required and optional options.
    input_member : {"hidden_states", "activations"}
        Kind of X: hidden states or embeddings from a `LayerSelector`, or SAE features from an
        `SAEFeatureSelector`.
    """

    summary: str
    output_type: str
    input_layers: Callable[[Mapping[str, Any]], Any]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    input_member: str = HIDDEN

    def __post_init__(self) -> None:
        if self.output_type not in (FEATURE, CONCEPT):
            raise UsageError(
                f"output_type must be {FEATURE!r} or {CONCEPT!r}, got {self.output_type!r}. For"
                " another y give generate_dataset a target of your own."
            )

    @property
    def default_normalize(self) -> str:
        """Default method of the `ActivationNormalizer`."""
        return "maxabs" if self.input_member == SAE else "standardize"


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
    "feature-to-concept": Strategy(
        "Do SAE features know how strongly the concept is present?",
        CONCEPT,
        lambda options: options["layers"],
        needs=("layers",),
        takes=("average_l0",),
        input_member=SAE,
    ),
}


def make_strategy(
    name: str,
    *,
    normalize: str | None = None,
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
    normalize : {"standardize", "minmax", "maxabs", "none"}, default="standardize"
        Method of the `ActivationNormalizer`. For ``feature-to-concept``, whose X is sparse, the
        default is ``"maxabs"``, and ``"none"`` is the only other choice.
    layers : int, list of int or str
        Input layers of ``hidden-to-concept`` and ``feature-to-concept``.
    target_layer, target_feature : int
        The SAE feature that the ``*-to-feature`` strategies predict.
    average_l0 : float
        Which SAE, if the target layer, or an input layer of ``feature-to-concept``, has several.
    input_layer : int
        Input layer of ``hidden-to-feature``; by default the target layer.

    Returns
    -------
    pipeline : Pipeline
        Steps ``layerselector`` (or ``saefeatureselector``) and ``activationnormalizer``, not
        fitted.
    target : FeatureTargetExtractor or ConceptTargetExtractor

    Raises
    ------
    UsageError
        If the strategy is unknown, lacks a required option, does not use one that was given, or is
        not compatible with `normalize`.

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
    require_options(name, options)
    strategy = STRATEGIES[name]
    method = strategy.default_normalize if normalize is None else normalize
    require_method(name, method)

    from sklearn.pipeline import make_pipeline

    from sklprep.transformers.layer_selector import LayerSelector
    from sklprep.transformers.normalizers import ActivationNormalizer
    from sklprep.transformers.sae_selector import SAEFeatureSelector
    from sklprep.transformers.targets import ConceptTargetExtractor, FeatureTargetExtractor

    input_layers = strategy.input_layers(options)
    selector = (
        SAEFeatureSelector(input_layers, average_l0=average_l0)
        if strategy.input_member == SAE
        else LayerSelector(input_layers)
    )
    pipeline = make_pipeline(selector, ActivationNormalizer(method))
    if strategy.output_type == CONCEPT:
        return pipeline, ConceptTargetExtractor()
    return pipeline, FeatureTargetExtractor(
        options["target_layer"], options["target_feature"], average_l0
    )


def require_method(name: str, method: str) -> None:
    """Refuse a normalization that is not compatible with the strategy.

    Raises
    ------
    UsageError
        If the method is unknown, or would make a sparse X dense.
    """
    if not is_method(method):
        raise UsageError(f"normalize must be one of {', '.join(METHODS)}, got {method!r}.")
    if STRATEGIES[name].input_member == SAE and method not in KEEP_ZEROS:
        choices = " or ".join(f"normalize={other!r}" for other in KEEP_ZEROS)
        raise UsageError(f"{name} has sparse X, which {method} would make dense; choose {choices}.")


def require_options(name: str, options: Iterable[str]) -> None:
    """Refuse an unknown strategy, and missing or unused options.

    Raises
    ------
    UsageError
        The message lists the parameters of `make_strategy` that the strategy takes.
    """
    if name not in STRATEGIES:
        raise UsageError(f"Unknown strategy {name!r}; choose one of {', '.join(STRATEGIES)}.")
    strategy = STRATEGIES[name]
    missing = [option for option in strategy.needs if option not in options]
    if missing:
        examples = ", such as layers=12 or layers='0-5'" if "layers" in missing else ""
        needed = " and ".join(f"{option}=..." for option in missing)
        raise UsageError(f"{name} needs {needed}{examples}.")
    for option in options:
        if option not in strategy.needs + strategy.takes:
            used = ", ".join(f"{other}=..." for other in strategy.needs + strategy.takes)
            raise UsageError(f"{name} does not use {option}=...; it takes {used or 'no options'}.")
