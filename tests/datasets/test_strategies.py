"""The table of strategies: what each of them builds, and what it says of wrong options."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from sklprep import (
    STRATEGIES,
    ActivationNormalizer,
    ActivationSet,
    ConceptTargetExtractor,
    FeatureTargetExtractor,
    LayerSelector,
    make_strategy,
)
from sklprep.datasets.strategies import CONCEPT, FEATURE, Strategy, require_options
from sklprep.exceptions import UsageError

OPTIONS = ("target_layer", "target_feature", "average_l0", "input_layer", "layers")
TARGET = {"target_layer": 12, "target_feature": 3}
COMPLETE = {
    "embedding-to-feature": TARGET,
    "hidden-to-feature": TARGET,
    "hidden-to-concept": {"layers": "0,12"},
    "embedding-to-concept": {},
    "feature-to-concept": {"layers": 7},
}


def make_arrays():
    rng = np.random.default_rng(0)
    return {
        "hidden_states": rng.normal(size=(20, 3, 4)).astype(np.float32),
        "embeddings": rng.normal(size=(20, 5)).astype(np.float32),
        "activations": rng.gamma(1.0, size=(20, 4, 6)).astype(np.float32),
        "labels": np.arange(20) % 4,
        "layers": [0, 7, 12],
        "sae_layers": [0, 7, 12, 12],
        "average_l0s": [10, 20, 30, 60],
    }


def z_scores(X):
    X = X.astype(np.float64)
    return (X - X.mean(axis=0)) / X.std(axis=0)


def test_the_table_holds_these_strategies():
    assert set(STRATEGIES) == set(COMPLETE)


@pytest.mark.parametrize(
    ("name", "options", "layers", "target"),
    [
        ("embedding-to-feature", TARGET, "embeddings", FeatureTargetExtractor(12, 3)),
        (
            "embedding-to-feature",
            {**TARGET, "average_l0": 60},
            "embeddings",
            FeatureTargetExtractor(12, 3, 60),
        ),
        ("hidden-to-feature", TARGET, 12, FeatureTargetExtractor(12, 3)),
        ("hidden-to-feature", {**TARGET, "input_layer": 7}, 7, FeatureTargetExtractor(12, 3)),
        ("hidden-to-feature", {**TARGET, "input_layer": 0}, 0, FeatureTargetExtractor(12, 3)),
        (
            "hidden-to-feature",
            {"target_layer": 0, "target_feature": 0, "average_l0": 10},
            0,
            FeatureTargetExtractor(0, 0, 10),
        ),
        ("hidden-to-concept", {"layers": "0-5"}, "0-5", ConceptTargetExtractor()),
        ("hidden-to-concept", {"layers": 0}, 0, ConceptTargetExtractor()),
        ("hidden-to-concept", {"layers": [0, 12]}, [0, 12], ConceptTargetExtractor()),
        ("embedding-to-concept", {}, "embeddings", ConceptTargetExtractor()),
    ],
)
def test_strategy_builds_an_unfitted_pipeline_and_a_target(name, options, layers, target):
    pipeline, actual = make_strategy(name, **options)
    assert isinstance(pipeline, Pipeline)
    assert list(pipeline.named_steps) == ["layerselector", "activationnormalizer"]
    assert repr(LayerSelector(layers)) == repr(pipeline.named_steps["layerselector"])
    assert repr(ActivationNormalizer()) == repr(pipeline.named_steps["activationnormalizer"])
    assert (type(target), target.get_params()) == (type(actual), actual.get_params())
    with pytest.raises(NotFittedError):
        check_is_fitted(pipeline)


@pytest.mark.parametrize(
    ("name", "options", "raw_X", "raw_y"),
    [
        (
            "embedding-to-feature",
            {**TARGET, "average_l0": 60},
            lambda a: a["embeddings"],
            lambda a: a["activations"][:, 3, 3],
        ),
        (
            "hidden-to-feature",
            {"target_layer": 7, "target_feature": 5},
            lambda a: a["hidden_states"][:, 1],
            lambda a: a["activations"][:, 1, 5],
        ),
        (
            "hidden-to-feature",
            {**TARGET, "average_l0": 30, "input_layer": 0},
            lambda a: a["hidden_states"][:, 0],
            lambda a: a["activations"][:, 2, 3],
        ),
        (
            "hidden-to-concept",
            {"layers": "12,0"},
            lambda a: np.hstack([a["hidden_states"][:, 0], a["hidden_states"][:, 2]]),
            lambda a: a["labels"],
        ),
        ("embedding-to-concept", {}, lambda a: a["embeddings"], lambda a: a["labels"]),
    ],
)
def test_strategy_gives_the_values_of_independent_arithmetic(name, options, raw_X, raw_y):
    arrays = make_arrays()
    acts = ActivationSet.from_arrays(**arrays)
    pipeline, target = make_strategy(name, **options)
    X, y = pipeline.fit_transform(acts), target.fit_transform(acts)
    np.testing.assert_allclose(X, z_scores(raw_X(arrays)), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(raw_y(arrays), y)
    assert X.dtype == np.float32
    assert y.dtype == (np.float32 if "feature" in name else np.int64)
    assert STRATEGIES[name].output_type == (FEATURE if "feature" in name else CONCEPT)


@pytest.mark.parametrize("method", ["standardize", "minmax", "maxabs", "none"])
@pytest.mark.parametrize("name", [name for name in COMPLETE if name != "feature-to-concept"])
def test_normalize_sets_the_method_of_every_strategy(name, method):
    pipeline, _ = make_strategy(name, normalize=method, **COMPLETE[name])
    assert pipeline.named_steps["activationnormalizer"].method == method


def test_each_call_builds_new_objects():
    first, second = (make_strategy("hidden-to-feature", **TARGET) for _ in range(2))
    assert first[0] is not second[0]
    assert first[0][0] is not second[0][0]
    assert first[1] is not second[1]


@pytest.mark.parametrize(
    ("name", "missing"), [(name, option) for name in COMPLETE for option in COMPLETE[name]]
)
def test_missing_option_is_named_as_a_parameter(name, missing):
    options = {option: value for option, value in COMPLETE[name].items() if option != missing}
    with pytest.raises(UsageError) as caught:
        make_strategy(name, **options)
    message = str(caught.value)
    assert message.startswith(f"{name} needs {missing}=...")


@pytest.mark.parametrize("name", ["embedding-to-feature", "hidden-to-feature"])
def test_several_missing_options_are_named_at_once(name):
    with pytest.raises(UsageError, match=r"needs target_layer=\.\.\. and target_feature=\.\.\.\.$"):
        make_strategy(name)


USED = {
    "embedding-to-feature": ["target_layer", "target_feature", "average_l0"],
    "hidden-to-feature": ["target_layer", "target_feature", "average_l0", "input_layer"],
    "hidden-to-concept": ["layers"],
    "embedding-to-concept": [],
    "feature-to-concept": ["layers", "average_l0"],
}
UNUSED = [(name, option) for name in USED for option in OPTIONS if option not in USED[name]]


@pytest.mark.parametrize(("name", "unused"), UNUSED)
def test_option_that_a_strategy_does_not_use_is_named_as_a_parameter(name, unused):
    with pytest.raises(UsageError) as caught:
        make_strategy(name, **COMPLETE[name], **{unused: 0})
    message = str(caught.value)
    assert message.startswith(f"{name} does not use {unused}=...; it takes ")
    for option in USED[name]:
        assert f"{option}=..." in message
    assert ("no options" in message) == (name == "embedding-to-concept")


def test_unknown_strategy_lists_those_there_are():
    with pytest.raises(UsageError) as caught:
        make_strategy("hidden-to-embedding")
    assert all(text in str(caught.value) for text in ["'hidden-to-embedding'", *STRATEGIES])


def test_unknown_normalization_lists_those_there_are():
    with pytest.raises(UsageError, match="standardize, minmax, maxabs, none, got 'zscore'"):
        make_strategy("embedding-to-concept", normalize="zscore")


def test_options_of_every_entry_are_parameters_of_make_strategy():
    parameters = set(inspect.signature(make_strategy).parameters)
    for name, strategy in STRATEGIES.items():
        assert {*strategy.needs, *strategy.takes} <= parameters
        assert not {*strategy.needs} & {*strategy.takes}
        assert strategy.summary.endswith("?")
        require_options(name, COMPLETE[name])


def test_another_strategy_is_one_entry_of_the_table(monkeypatch):
    name = "neighbour-to-feature"
    monkeypatch.setitem(
        STRATEGIES,
        name,
        Strategy(
            "Does the layer below know the feature?",
            FEATURE,
            lambda options: options["target_layer"] - 1,
            needs=("target_layer", "target_feature"),
        ),
    )
    arrays = {**make_arrays(), "layers": [0, 11, 12]}
    acts = ActivationSet.from_arrays(**{**arrays, "sae_layers": [0, 7, 11, 12]})
    pipeline, target = make_strategy(name, normalize="none", **TARGET)
    np.testing.assert_array_equal(arrays["hidden_states"][:, 1], pipeline.fit_transform(acts))
    np.testing.assert_array_equal(arrays["activations"][:, 3, 3], target.fit_transform(acts))
    with pytest.raises(UsageError, match="needs target_feature="):
        make_strategy(name, target_layer=12)
    with pytest.raises(UsageError, match="does not use average_l0="):
        make_strategy(name, **TARGET, average_l0=3)
    with pytest.raises(UsageError, match=name):
        make_strategy("no such strategy")


def test_a_strategy_with_another_kind_of_y_is_refused():
    with pytest.raises(UsageError, match="output_type must be 'feature_activation' or 'concept_"):
        Strategy("How long is the text?", "length", lambda options: "embeddings")


def test_another_strategy_to_the_concept_is_one_entry_too(monkeypatch):
    entry = Strategy("Do all layers together know it?", CONCEPT, lambda options: "all")
    monkeypatch.setitem(STRATEGIES, "all-to-concept", entry)
    acts = ActivationSet.from_arrays(**make_arrays())
    pipeline, target = make_strategy("all-to-concept")
    assert pipeline.fit_transform(acts).shape == (20, 12)
    np.testing.assert_array_equal(acts.labels, target.fit_transform(acts))
