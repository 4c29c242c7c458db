"""Contracts of the transformers on matrices, 3-D arrays and sets, and the values they compute."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import re
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    ConceptTargetExtractor,
    FeatureTargetExtractor,
    LayerSelector,
    load_activations,
    make_activations,
)
from sklprep.exceptions import (
    DataError,
    FeatureNotFoundError,
    LayerNotFoundError,
    LayerSpecError,
)
from sklprep.transformers import normalizers

N_ROWS, D_MODEL, D_EMBED, N_FEATURES = 30, 6, 5, 10
LAYERS = [7, 0, 12]  # as the data has them: not sorted, with gaps
SAE_LAYERS = [7, 12, 12, 0]
AVERAGE_L0S = [40, 20, 80, 33]


def make_arrays(seed=0):
    rng = np.random.default_rng(seed)
    activations = rng.gamma(2.0, size=(N_ROWS, len(SAE_LAYERS), N_FEATURES))
    activations[rng.random(activations.shape) < 0.7] = 0
    return {
        "hidden_states": rng.normal(size=(N_ROWS, len(LAYERS), D_MODEL)).astype(np.float32),
        "embeddings": rng.normal(size=(N_ROWS, D_EMBED)).astype(np.float32),
        "activations": activations.astype(np.float32),
        "labels": rng.integers(0, 4, N_ROWS),
        "layers": LAYERS,
        "sae_layers": SAE_LAYERS,
        "average_l0s": AVERAGE_L0S,
    }


def make_set(seed=0, **changes):
    return ActivationSet.from_arrays(**{**make_arrays(seed), **changes})


def make_3d(seed=0):
    return make_arrays(seed)["hidden_states"]


def make_matrix(seed=0, columns=7):
    return np.random.default_rng(seed).normal(3, 2, size=(N_ROWS, columns)).astype(np.float32)


def make_frame(seed=0, columns=7):
    X = make_matrix(seed, columns)
    return pd.DataFrame(X, columns=[f"column {i}" for i in range(columns)])


@dataclass
class Case:
    """A transformer, without its fit, and the kind of input it is for."""

    transformer: Any
    make_X: Any


CASES = {
    "selector, set": Case(LayerSelector([12, 0]), make_set),
    "selector, embeddings": Case(LayerSelector("embeddings"), make_set),
    "selector, 3-D array": Case(LayerSelector("0,2"), make_3d),
    "selector, matrix": Case(LayerSelector(), make_matrix),
    "selector, data frame": Case(LayerSelector(), make_frame),
    "feature, set": Case(FeatureTargetExtractor(12, 3, average_l0=80), make_set),
    "feature, 3-D array": Case(FeatureTargetExtractor(1, 3), make_3d),
    "feature, matrix": Case(FeatureTargetExtractor(0, 3), make_matrix),
    "feature, data frame": Case(FeatureTargetExtractor(0, 3), make_frame),
    "concept, set": Case(ConceptTargetExtractor(), make_set),
    "standardize, matrix": Case(ActivationNormalizer("standardize"), make_matrix),
    "minmax, matrix": Case(ActivationNormalizer("minmax"), make_matrix),
    "none, matrix": Case(ActivationNormalizer("none"), make_matrix),
    "standardize, data frame": Case(ActivationNormalizer("standardize"), make_frame),
}
LEARNING = [name for name in CASES if not name.startswith("concept")]
each_case = pytest.mark.parametrize("name", CASES)
each_learning_case = pytest.mark.parametrize("name", LEARNING)


def state(value):
    """Parameters and fitted attributes, arrays with their dtype, as values that compare."""
    if isinstance(value, BaseEstimator):
        return type(value), {name: state(item) for name, item in vars(value).items()}
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tolist()
    if isinstance(value, dict):
        return {name: state(item) for name, item in value.items()}
    return type(value), value


def snapshot(X):
    if isinstance(X, ActivationSet):
        return X.fingerprint, X.sentence_indices.tolist()
    return np.asarray(X).dtype.str, np.asarray(X).tobytes()


# Contracts of every transformer.


@each_case
def test_clone_of_a_fitted_transformer_has_its_parameters_and_no_fit(name):
    fresh, X = clone(CASES[name].transformer), CASES[name].make_X()
    fitted = clone(fresh).fit(X)
    assert state(fresh) == state(clone(fitted))


@each_case
def test_init_and_fit_store_the_parameters_untouched(name):
    original = CASES[name].transformer
    before = copy.deepcopy(original.get_params())
    transformer = type(original)(**original.get_params()).fit(CASES[name].make_X())
    for parameter, value in original.get_params().items():
        assert getattr(transformer, parameter) is value
    assert before == transformer.get_params()


@each_learning_case
def test_transform_before_fit_raises_not_fitted_error(name):
    with pytest.raises(NotFittedError):
        clone(CASES[name].transformer).transform(CASES[name].make_X())


@pytest.mark.parametrize("transformer", [LayerSelector(), ActivationNormalizer()], ids=repr)
def test_names_before_fit_raise_not_fitted_error(transformer):
    with pytest.raises(NotFittedError):
        clone(transformer).get_feature_names_out()


def test_inverse_transform_and_norm_params_before_fit_raise_not_fitted_error():
    with pytest.raises(NotFittedError):
        ActivationNormalizer().inverse_transform(make_matrix())
    with pytest.raises(NotFittedError):
        ActivationNormalizer().norm_params_  # noqa: B018


def test_concept_target_extractor_needs_no_fit():
    acts = make_set()
    np.testing.assert_array_equal(acts.labels, ConceptTargetExtractor().transform(acts))
    check_is_fitted(ConceptTargetExtractor())


@each_case
def test_fit_returns_self_and_fit_transform_is_fit_then_transform(name):
    X, transformer = CASES[name].make_X(), clone(CASES[name].transformer)
    assert transformer is transformer.fit(X)
    expected = transformer.transform(X)
    actual = clone(transformer).fit_transform(X)
    assert state(expected) == state(actual)


@each_case
def test_fit_ignores_y(name):
    X, transformer = CASES[name].make_X(), CASES[name].transformer
    fitted = clone(transformer).fit(X, np.arange(N_ROWS))
    assert state(clone(transformer).fit(X)) == state(fitted)


@pytest.mark.parametrize(
    ("transformer", "first", "second"),
    [
        (LayerSelector(), make_frame, make_set),
        (LayerSelector(), make_set, make_frame),
        (LayerSelector(), make_frame, make_3d),
        (LayerSelector(), make_3d, make_set),
        (LayerSelector(), make_set, make_matrix),
        (FeatureTargetExtractor(0, 3), make_frame, make_set),
        (FeatureTargetExtractor(0, 3), make_set, make_frame),
        (FeatureTargetExtractor(0, 3), make_frame, make_3d),
        (FeatureTargetExtractor(0, 3), make_3d, make_set),
        (ConceptTargetExtractor(), make_set, lambda: make_set(1)),
        (ActivationNormalizer(), make_frame, lambda: make_matrix(1, columns=4)),
        (ActivationNormalizer("minmax"), make_frame, lambda: make_matrix(1, columns=4)),
        (ActivationNormalizer("none"), make_matrix, lambda: make_frame(1, columns=4)),
    ],
)
def test_refit_on_other_input_overwrites_all_state(transformer, first, second):
    fresh = clone(transformer).fit(second())
    refitted = clone(transformer).fit(first()).fit(second())
    assert state(fresh) == state(refitted)


def test_refit_with_other_layers_overwrites_all_state():
    acts = make_set()
    refitted = LayerSelector("embeddings").fit(acts).set_params(layers=7).fit(acts)
    assert state(LayerSelector(7).fit(acts)) == state(refitted)
    refitted.set_params(layers="embeddings").fit(acts)
    assert state(LayerSelector("embeddings").fit(acts)) == state(refitted)


@pytest.mark.parametrize("first", ["standardize", "minmax", "none"])
@pytest.mark.parametrize("second", ["standardize", "minmax", "none"])
def test_refit_with_another_method_overwrites_all_state(first, second):
    X = make_matrix()
    refitted = ActivationNormalizer(first).fit(X).partial_fit(X + 1).set_params(method=second)
    assert state(ActivationNormalizer(second).fit(X)) == state(refitted.fit(X))


@each_case
def test_fit_and_transform_leave_the_input_as_it_was(name):
    X = CASES[name].make_X()
    before = snapshot(X)
    clone(CASES[name].transformer).fit(X).transform(X)
    assert before == snapshot(X)


@each_case
def test_changing_the_output_changes_neither_input_nor_fitted_state(name):
    X, transformer = CASES[name].make_X(), clone(CASES[name].transformer)
    before = snapshot(X)
    output = transformer.fit_transform(X)
    expected = state(transformer)
    output[:] = 77
    assert before == snapshot(X)
    assert expected == state(transformer)


@pytest.mark.parametrize("name", [name for name in CASES if not name.endswith(("set", "frame"))])
def test_read_only_input_is_accepted(name):
    X = CASES[name].make_X()
    if isinstance(X, np.ndarray):
        X.setflags(write=False)
    clone(CASES[name].transformer).fit(X).transform(X)


def through_joblib(estimator):
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


def through_skops(estimator):
    dump = skops.io.dumps(estimator)
    return skops.io.loads(dump, trusted=skops.io.get_untrusted_types(data=dump))


@pytest.mark.parametrize(
    "round_trip",
    [lambda est: pickle.loads(pickle.dumps(est)), through_joblib, through_skops],
    ids=["pickle", "joblib", "skops"],
)
@each_case
def test_a_fitted_transformer_survives_storage(name, round_trip):
    X = CASES[name].make_X()
    fitted = clone(CASES[name].transformer).fit(X)
    loaded = round_trip(fitted)
    assert state(fitted) == state(loaded)
    assert state(fitted.transform(X)) == state(loaded.transform(X))


def test_public_classes_present_themselves_under_the_package_name():
    for case in CASES.values():
        assert type(case.transformer).__module__ == "sklprep"


def documented_attributes(cls):
    section = re.search(r"Attributes\n-+\n(.*?)\n\n", inspect.getdoc(cls) + "\n\n", re.DOTALL)
    if section is None:
        return set()
    names = re.findall(r"^(\S.*?) :", section[1], re.MULTILINE)
    return {name for line in names for name in line.split(", ")}


def fitted_attributes(transformer):
    properties = {n for n, v in inspect.getmembers(type(transformer)) if isinstance(v, property)}
    names = {*vars(transformer), *properties}
    return {name for name in names if name.endswith("_") and not name.startswith("_")}


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith("frame")])
def test_documented_attributes_are_the_fitted_ones(name):
    fitted = clone(CASES[name].transformer).fit(CASES[name].make_X())
    assert documented_attributes(type(fitted)) == fitted_attributes(fitted)


@each_learning_case
def test_fitted_attributes_without_named_columns_are_the_documented_ones_but_the_names(name):
    X = CASES[name].make_X()
    fitted = clone(CASES[name].transformer).fit(X.to_numpy() if hasattr(X, "to_numpy") else X)
    expected = documented_attributes(type(fitted)) - {"feature_names_in_"}
    assert expected == fitted_attributes(fitted)


def test_concept_target_extractor_documents_and_sets_no_attributes():
    assert documented_attributes(ConceptTargetExtractor) == set()
    assert fitted_attributes(ConceptTargetExtractor().fit(make_set())) == set()


# Inputs that do not fit.


@pytest.mark.parametrize(
    "transformer", [LayerSelector([0]), FeatureTargetExtractor(0, 1)], ids=repr
)
def test_array_with_another_number_of_layers_is_refused(transformer):
    fitted = clone(transformer).fit(make_3d())
    with pytest.raises(ValueError, match=r"X has 2 features, but .* is expecting 3 features"):
        fitted.transform(make_3d()[:, :2])


def test_set_without_a_selected_layer_is_refused():
    fitted = LayerSelector("0,12").fit(make_set())
    with pytest.raises(LayerNotFoundError, match=r"^Layer 12 not found in data: .* 0-1,7"):
        fitted.transform(make_set(layers=[7, 0, 1]))
    with pytest.raises(LayerNotFoundError, match=r"^Layer 12 not found in data"):
        FeatureTargetExtractor(12, 3, 20).fit(make_set()).transform(
            make_set(sae_layers=[7, 1, 2, 0])
        )


def test_set_with_more_layers_gives_the_layers_of_the_same_numbers():
    arrays = make_arrays()
    fitted = LayerSelector("0,12").fit(make_set())
    more = np.concatenate([arrays["hidden_states"] * 0, arrays["hidden_states"]], axis=1)
    expected = fitted.transform(make_set())
    actual = fitted.transform(make_set(hidden_states=more, layers=[1, 2, 3, *LAYERS]))
    np.testing.assert_array_equal(expected, actual)


def test_rows_of_another_pooling_are_refused(tmp_path):
    make_activations(6, n_layers=2, d_model=4, n_features=8, random_state=0, output=tmp_path / "f")
    final, mean = (load_activations(tmp_path / "f", pooling=p) for p in ("final", "mean"))
    selector = LayerSelector(1).fit(final)

    with pytest.raises(ValueError, match=r"pooling 'mean', but .* fitted on 'final'"):
        selector.transform(mean)
    arrays = ActivationSet.from_arrays(hidden_states=final.hidden_states)
    assert np.array_equal(selector.transform(arrays), selector.transform(final))


def test_vectors_of_another_hidden_size_are_refused():
    narrow = make_3d()[:, :, :-1]
    message = "X has vectors of width 5, but LayerSelector was fitted on width 6"
    with pytest.raises(ValueError, match=message):
        LayerSelector([0]).fit(make_3d()).transform(narrow)
    with pytest.raises(ValueError, match=message):
        LayerSelector(7).fit(make_set()).transform(make_set(hidden_states=narrow))
    embeddings = make_arrays()["embeddings"][:, :3]
    with pytest.raises(ValueError, match=r"width 3, .* width 5"):
        LayerSelector("embeddings").fit(make_set()).transform(make_set(embeddings=embeddings))


def test_saes_of_another_size_are_refused():
    message = "X has SAEs of {} features, but FeatureTargetExtractor was fitted on {}"
    with pytest.raises(ValueError, match=message.format(5, 6)):
        FeatureTargetExtractor(0, 3).fit(make_3d()).transform(make_3d()[:, :, :-1])
    narrow = make_arrays()["activations"][:, :, :-1]
    with pytest.raises(ValueError, match=message.format(9, 10)):
        FeatureTargetExtractor(0, 3).fit(make_set()).transform(make_set(activations=narrow))


def test_matrix_of_another_width_is_refused():
    for transformer in LayerSelector(), FeatureTargetExtractor(0, 3), ActivationNormalizer():
        with pytest.raises(ValueError, match=r"X has 6 features, but .* is expecting 7 features"):
            transformer.fit(make_matrix()).transform(make_matrix(columns=6))


@pytest.mark.parametrize("transformer", [LayerSelector(), FeatureTargetExtractor(0, 0)], ids=repr)
def test_array_of_four_dimensions_is_refused(transformer):
    with pytest.raises(ValueError, match=r"Found array with dim 4, while dim <= 3 is required"):
        clone(transformer).fit(np.ones((3, 2, 2, 2)))


def test_normalizer_refuses_a_3d_array_and_a_set():
    with pytest.raises(ValueError, match="Found array with dim 3"):
        ActivationNormalizer().fit(make_3d())
    with pytest.raises(TypeError, match=r"start the pipeline with sklprep\.LayerSelector\(\)"):
        ActivationNormalizer().fit(make_set())


def test_embeddings_of_an_array_raise_type_error():
    for X in make_3d(), make_matrix():
        with pytest.raises(TypeError, match="layers='embeddings' needs an ActivationSet"):
            LayerSelector("embeddings").fit(X)
    same_layer_count = LayerSelector("embeddings").fit(make_set())
    with pytest.raises(TypeError, match="layers='embeddings' needs an ActivationSet"):
        same_layer_count.transform(make_3d())


@pytest.mark.parametrize("X", [make_3d(), make_matrix(), make_frame(), [[0, 1]]], ids=lambda X: "")
def test_concepts_of_an_array_raise_type_error(X):
    with pytest.raises(TypeError, match="ConceptTargetExtractor needs an ActivationSet"):
        ConceptTargetExtractor().fit(X)
    with pytest.raises(TypeError, match="ConceptTargetExtractor needs an ActivationSet"):
        ConceptTargetExtractor().transform(X)


def test_set_without_what_is_asked_of_it_is_refused():
    hidden_only = ActivationSet.from_arrays(hidden_states=make_3d())
    for transformer, member in [
        (LayerSelector("embeddings"), "embeddings"),
        (FeatureTargetExtractor(0, 0), "activations"),
        (ConceptTargetExtractor(), "labels"),
    ]:
        with pytest.raises(DataError, match=f"no {member}"):
            transformer.fit(hidden_only)
    with pytest.raises(DataError, match="no hidden_states"):
        LayerSelector("all").fit(ActivationSet.from_arrays(embeddings=make_matrix()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinite_values_are_refused(value):
    matrix, states = make_matrix(), make_3d()
    matrix[3, 2] = states[3, 1, 2] = value
    for method in "standardize", "minmax", "none":
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            ActivationNormalizer(method).fit(matrix)
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            ActivationNormalizer(method).fit(make_matrix()).transform(matrix)
    for transformer in LayerSelector(), FeatureTargetExtractor(1, 2):
        with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
            transformer.fit(states)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinite_values_of_a_set_are_refused_only_in_the_layer_that_has_them(value):
    states, activations = make_3d(), make_arrays()["activations"]
    states[3, LAYERS.index(0), 2] = activations[5, 0, 1] = value
    acts = make_set(hidden_states=states, activations=activations)
    with pytest.raises(DataError, match="Row 3 of the arrays: member 'hidden_states' layer 0"):
        LayerSelector(0).fit(acts).transform(acts)
    with pytest.raises(DataError, match=r"Row 5 .* member 'activations' layer 7, feature 1"):
        FeatureTargetExtractor(7, 1).fit(acts).transform(acts)
    assert np.isfinite(LayerSelector("7,12").fit_transform(acts)).all()
    assert np.isfinite(FeatureTargetExtractor(7, 2).fit_transform(acts)).all()


@pytest.mark.parametrize("spec", ["5-2", "1,,3", "-1", "", "x", [], [1.5], -1, None, True, 1.0])
def test_layers_that_cannot_be_read_raise_in_fit_and_not_before(spec):
    selector = LayerSelector(spec)
    with pytest.raises(LayerSpecError):
        selector.fit(make_set())


@pytest.mark.parametrize("layers", [3, [0, 3], "0-4"])
def test_layers_that_the_data_has_not_raise_layer_not_found(layers):
    with pytest.raises(LayerNotFoundError, match=r"^Layer \d not found in data"):
        LayerSelector(layers).fit(make_3d())
    with pytest.raises(LayerNotFoundError, match=r"^Layer \d not found in data.* 0,7,12"):
        LayerSelector(layers).fit(make_set())


def test_unknown_method_raises_in_fit_and_not_before():
    normalizer = ActivationNormalizer("zscore")
    with pytest.raises(ValueError, match=r"'method' parameter .* must be a str .* Got 'zscore'"):
        normalizer.fit(make_matrix())


@pytest.mark.parametrize("feature", [-1, 10])
def test_feature_outside_the_sae_names_the_limits_of_the_data(feature):
    with pytest.raises(FeatureNotFoundError, match=f"^Feature index must be 0-9, got {feature}"):
        FeatureTargetExtractor(7, feature).fit(make_set())


@pytest.mark.parametrize(("layer", "feature"), [("7", 0), (7, 1.0), (None, 0), (True, 0)])
def test_layer_and_feature_that_are_no_ints_raise_type_error(layer, feature):
    with pytest.raises(TypeError, match=r"(layer|feature) must be an instance of int, got"):
        FeatureTargetExtractor(layer, feature).fit(make_set())


def test_average_l0_that_is_unknown_missing_or_asked_of_an_array_is_a_mismatch():
    with pytest.raises(FeatureNotFoundError, match=r"^average_l0 mismatch: .* 30; it has 20, 80"):
        FeatureTargetExtractor(12, 0, average_l0=30).fit(make_set())
    with pytest.raises(FeatureNotFoundError, match=r"^average_l0 mismatch: .* none was chosen"):
        FeatureTargetExtractor(12, 0).fit(make_set())
    with pytest.raises(FeatureNotFoundError, match=r"^average_l0 mismatch: .* arrays carry none"):
        FeatureTargetExtractor(0, 0, average_l0=30).fit(make_3d())


# Values and dtypes of the selector and the targets.


SPECS = {
    "all": [0, 7, 12],
    "0,7-7": [0, 7],
    "0,12": [0, 12],
    "12,0": [0, 12],
    " 7 , 12 ": [7, 12],
    "12,12,0": [0, 12],
    12: [12],
    0: [0],
    (12, 7): [7, 12],
    np.int64(7): [7],
}


@pytest.mark.parametrize(("spec", "numbers"), SPECS.items(), ids=str)
def test_selector_concatenates_layers_of_a_set_in_ascending_order(spec, numbers):
    states = make_arrays()["hidden_states"]
    selector = LayerSelector(list(spec) if isinstance(spec, tuple) else spec)
    expected = np.hstack([states[:, LAYERS.index(number)] for number in numbers])
    actual = selector.fit_transform(make_set())
    np.testing.assert_array_equal(expected, actual)
    assert (actual.dtype, selector.layers_.dtype) == (np.float32, np.int64)
    assert selector.layers_.tolist() == numbers
    assert (selector.hidden_size_, selector.n_features_in_) == (D_MODEL, len(LAYERS))


@pytest.mark.parametrize(
    ("spec", "positions"),
    [("all", [0, 1, 2]), ("0-1", [0, 1]), ([2, 0], [0, 2]), (1, [1]), (np.array([2, 1]), [1, 2])],
    ids=str,
)
def test_selector_numbers_layers_of_a_3d_array_from_0(spec, positions):
    states = make_3d()
    selector = LayerSelector(spec)
    expected = np.hstack([states[:, position] for position in positions])
    np.testing.assert_array_equal(expected, selector.fit_transform(states))
    assert selector.layers_.tolist() == positions


def test_selector_takes_a_matrix_as_layer_0():
    X = make_matrix()
    for spec in "all", 0, [0], "0":
        np.testing.assert_array_equal(X, LayerSelector(spec).fit_transform(X))
    with pytest.raises(LayerNotFoundError):
        LayerSelector(1).fit(X)


def test_selector_gives_the_embeddings_of_a_set():
    selector = LayerSelector("embeddings")
    expected = make_arrays()["embeddings"]
    np.testing.assert_array_equal(expected, selector.fit_transform(make_set()))
    assert selector.layers_.dtype == np.int64
    assert selector.layers_.shape == (0,)
    assert selector.hidden_size_ == D_EMBED


def test_selector_gives_the_rows_of_a_view_in_its_order():
    rows = np.array([20, 3, 3, 11])
    expected = make_arrays()["hidden_states"][rows][:, LAYERS.index(12)]
    np.testing.assert_array_equal(expected, LayerSelector(12).fit_transform(make_set()[rows]))


def test_selector_names_columns_by_layer_and_position():
    selector = LayerSelector("0,12").fit(np.zeros((2, 13, 400)))
    names = selector.get_feature_names_out()
    expected = [f"L{layer}_h{i:04d}" for layer in (0, 12) for i in range(400)]
    assert expected == names.tolist()
    assert names[400 + 345] == "L12_h0345"
    assert names.dtype == object


def test_selector_names_embeddings_by_position():
    acts = ActivationSet.from_arrays(embeddings=np.zeros((2, 400)))
    names = LayerSelector("embeddings").fit(acts).get_feature_names_out()
    assert [f"emb_{i:04d}" for i in range(400)] == names.tolist()
    assert names[345] == "emb_0345"


def test_selector_names_of_wide_layers_have_as_many_digits_as_they_need():
    names = LayerSelector().fit(np.zeros((2, 12_000))).get_feature_names_out()
    assert (names[0], names[-1]) == ("L0_h00000", "L0_h11999")
    assert len(set(names)) == 12_000


def test_selector_output_becomes_a_data_frame_on_a_set():
    acts = make_set()[5:9]
    frame = LayerSelector("7,12").set_output(transform="pandas").fit_transform(acts)
    assert [f"L{layer}_h{i:04d}" for layer in (7, 12) for i in range(6)] == list(frame.columns)
    np.testing.assert_array_equal(LayerSelector("7,12").fit_transform(acts), frame.to_numpy())


def test_feature_target_is_that_column_of_that_sae():
    activations = make_arrays()["activations"]
    acts = make_set()
    for config, (layer, average_l0) in enumerate(zip(SAE_LAYERS, AVERAGE_L0S, strict=True)):
        extractor = FeatureTargetExtractor(layer, 4, average_l0)
        y = extractor.fit_transform(acts)
        np.testing.assert_array_equal(activations[:, config, 4], y)
        assert (y.dtype, y.shape) == (np.float32, (N_ROWS,))
        assert extractor.average_l0_ == average_l0
        assert extractor.n_features_in_ == len(SAE_LAYERS)
        assert extractor.n_sae_features_ == N_FEATURES


def test_feature_target_needs_no_average_l0_where_the_layer_has_one_sae():
    extractor = FeatureTargetExtractor(7, 4)
    y = extractor.fit_transform(make_set())
    np.testing.assert_array_equal(make_arrays()["activations"][:, 0, 4], y)
    assert extractor.average_l0_ == 40


def test_feature_target_reads_sparse_configs_and_views():
    dense = make_arrays()["activations"]
    acts = make_set(activations=[csr_array(dense[:, config]) for config in range(4)])
    rows = np.array([9, 2, 2, 25])
    y = FeatureTargetExtractor(0, 6).fit(acts).transform(acts[rows])
    np.testing.assert_array_equal(dense[rows, 3, 6], y)


def test_feature_target_of_an_array_is_that_column():
    X = make_3d()
    extractor = FeatureTargetExtractor(np.int64(2), 5)
    np.testing.assert_array_equal(X[:, 2, 5], extractor.fit_transform(X))
    assert extractor.average_l0_ is None
    assert extractor.n_sae_features_ == D_MODEL
    np.testing.assert_array_equal(
        make_matrix()[:, 5], FeatureTargetExtractor(0, 5).fit_transform(make_matrix())
    )


@pytest.mark.parametrize("dtype", ["int32", "uint8", "uint64", "float32", "float64", "bool"])
def test_concept_target_gives_whole_labels_of_any_dtype_as_int64(dtype):
    labels = np.arange(N_ROWS) % (2 if dtype == "bool" else 4)
    y = ConceptTargetExtractor().fit_transform(make_set(labels=labels.astype(dtype)))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize("label", [0.5, np.inf, 1e300])
def test_concept_target_refuses_labels_that_are_not_whole_numbers(label):
    labels = np.zeros(N_ROWS)
    labels[4] = label
    for method in "fit", "transform":
        with pytest.raises(DataError, match=re.escape(f"must be whole numbers, got {label}. ")):
            getattr(ConceptTargetExtractor(), method)(make_set(labels=labels))


def test_concept_target_refuses_labels_that_are_text():
    with pytest.raises(DataError, match=r"must be whole numbers, got 'no'\. Number them"):
        ConceptTargetExtractor().fit(make_set(labels=["no"] * N_ROWS))


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_concept_target_counts_labels_that_are_missing(missing):
    labels = [0, 1, missing] + [2] * (N_ROWS - 3)
    with pytest.raises(DataError, match=f"labels has 1 missing values among {N_ROWS}. Leave these"):
        ConceptTargetExtractor().fit(make_set(labels=labels))


def test_concept_target_takes_whole_numbers_of_any_dtype():
    numbers = np.arange(N_ROWS) % 3
    for labels in (
        numbers.astype(object),
        numbers.astype(float),
        pd.Series(numbers, dtype="Int64"),
        pd.Series(numbers).astype("category"),
        numbers.astype("u1"),
    ):
        y = ConceptTargetExtractor().fit_transform(make_set(labels=labels))
        assert np.int64 == y.dtype
        assert numbers.tolist() == y.tolist()


DTYPES = {
    "float16": "float32",
    "float32": "float32",
    ">f4": "float32",
    "float64": "float64",
    "int64": "float32",
}


@pytest.mark.parametrize(("given", "expected"), DTYPES.items())
def test_float64_arrays_stay_float64_and_all_others_become_float32(given, expected):
    states = (make_3d() * 10).astype(given)
    y = FeatureTargetExtractor(1, 3).fit_transform(states)
    X = LayerSelector(1).fit_transform(states)
    assert (X.dtype, y.dtype) == (expected, expected)
    np.testing.assert_array_equal(states[:, 1].astype(expected), X)
    np.testing.assert_array_equal(states[:, 1, 3].astype(expected), y)
    for method in "standardize", "minmax", "none":
        normalizer = ActivationNormalizer(method).fit(states[:, 1])
        assert normalizer.transform(states[:, 1]).dtype == expected
        assert normalizer.inverse_transform(states[:, 1]).dtype == expected


@pytest.mark.parametrize("given", ["float16", "float32", "float64", "int64"])
def test_a_set_gives_float32_whatever_it_was_made_from(given):
    states = (make_3d() * 10).astype(given)
    acts = make_set(hidden_states=states)
    X = LayerSelector(7).fit_transform(acts)
    assert X.dtype == np.float32
    np.testing.assert_array_equal(states[:, 0].astype(np.float32), X)


# Values of the normalizer.


def make_massive(n=1000):
    """Columns as in Gemma: mean 3000 with std 1, two constants, and ordinary ones."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, 6))
    X[:, 0] += 3000
    X[:, 1] = -3000.1
    X[:, 2] = 0
    X[:, 3] *= 1e-6
    X[:, 4] += 1e5
    return X.astype(np.float32)


def standardized(X, train):
    """z-scores by numpy alone, in float64; constant columns have the scale 1."""
    X, train = np.asarray(X, np.float64), np.asarray(train, np.float64)
    std = train.std(axis=0)
    std[np.ptp(train, axis=0) == 0] = 1
    return (X - train.mean(axis=0)) / std


def minmaxed(X, train):
    X, train = np.asarray(X, np.float64), np.asarray(train, np.float64)
    width = np.ptp(train, axis=0)
    width[width == 0] = 1
    return (X - train.min(axis=0)) / width


ARITHMETIC = {"standardize": standardized, "minmax": minmaxed, "none": lambda X, train: X}
each_method = pytest.mark.parametrize("method", ARITHMETIC)


@each_method
def test_normalized_float32_lies_within_1e_6_of_float64_arithmetic(method):
    X = make_massive()
    expected = ARITHMETIC[method](X, X)
    actual = ActivationNormalizer(method).fit_transform(X)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


@each_method
def test_rows_are_normalized_by_the_rows_of_fit_and_not_by_their_own(method):
    X = make_massive()
    train, test = X[:700], X[700:]
    expected = ARITHMETIC[method](test, train)
    actual = ActivationNormalizer(method).fit(train).transform(test)
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def test_normalizer_does_not_carry_the_error_of_float32_arithmetic():
    X = make_massive()
    exact = standardized(X, X)
    in_float32 = StandardScaler().fit_transform(X)
    assert np.abs(in_float32[:, 0] - exact[:, 0]).max() > 1e-5
    assert np.abs(ActivationNormalizer().fit_transform(X) - exact)[:, 0].max() < 1e-6


@pytest.mark.parametrize("constant", [0.0, 0.1, -3000.1, 1e-8, 123456.789])
@pytest.mark.parametrize("n", [2, 60, 1000])
def test_constant_columns_become_0_with_scale_1(constant, n):
    X = np.full((n, 2), constant, np.float32)
    X[:, 1] += np.arange(n)
    normalizer = ActivationNormalizer().fit(X)
    assert normalizer.transform(X)[:, 0].tolist() == [0] * n
    assert normalizer.norm_params_["norm_mean"][0] == np.float32(constant)
    assert normalizer.norm_params_["norm_std"][0] == 1
    assert ActivationNormalizer("minmax").fit_transform(X)[:, 0].tolist() == [0] * n
    in_float64 = ActivationNormalizer().fit_transform(np.full((n, 1), constant))
    assert np.abs(in_float64).max() <= 4 * np.finfo(np.float64).eps * abs(constant)


@pytest.mark.parametrize(
    ("method", "scaler"), [("standardize", StandardScaler()), ("minmax", MinMaxScaler())]
)
def test_normalizer_equals_the_scaler_of_scikit_learn_on_float64(method, scaler):
    X = make_massive().astype(np.float64)
    expected = scaler.fit_transform(X[:, [0, 2, 3, 5]])
    actual = ActivationNormalizer(method).fit_transform(X[:, [0, 2, 3, 5]])
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-12)


@each_method
def test_a_normalizer_without_scaler_or_with_one_leaves_none_untouched(method):
    X = make_massive()
    result = ActivationNormalizer(method).fit_transform(X)
    assert np.array_equal(X, result) == (method == "none")


@pytest.mark.parametrize(("method", "tolerance"), [("standardize", 1e-6), ("minmax", 1e-6)])
def test_inverse_transform_undoes_to_the_precision_of_the_largest_value(method, tolerance):
    X = make_massive()
    normalizer = ActivationNormalizer(method).fit(X)
    back = normalizer.inverse_transform(normalizer.transform(X))
    assert (np.abs(back - X).max(axis=0) <= tolerance * np.abs(X).max(axis=0)).all()
    np.testing.assert_allclose(
        normalizer.inverse_transform(normalizer.transform(X.astype(np.float64))),
        X,
        rtol=1e-10,
        atol=1e-12,
    )


def test_inverse_transform_of_none_is_the_matrix_itself():
    X = make_massive()
    back = ActivationNormalizer("none").fit(X).inverse_transform(X)
    np.testing.assert_array_equal(X, back)
    assert not np.shares_memory(X, back)


def test_inverse_transform_refuses_another_width():
    with pytest.raises(ValueError, match="is expecting 7 features"):
        ActivationNormalizer().fit(make_matrix()).inverse_transform(make_matrix(columns=3))


@each_method
def test_partial_fit_of_parts_equals_fit_of_the_whole(method):
    X = make_massive()
    parts = ActivationNormalizer(method)
    for part in np.split(X, [1, 300, 301, 777]):
        assert parts is parts.partial_fit(part)
    whole = ActivationNormalizer(method).fit(X)
    for name, expected in whole.norm_params_.items():
        if name == "norm_method":
            assert expected == parts.norm_params_[name]
        else:
            np.testing.assert_allclose(parts.norm_params_[name], expected, rtol=1e-10, atol=1e-15)


@each_method
def test_partial_fit_of_whole_blocks_equals_fit_to_the_bit(method):
    X = make_massive()
    parts = ActivationNormalizer(method)
    for part in np.split(X, [normalizers._BLOCK_ROWS * k for k in (1, 3, 7)]):
        parts.partial_fit(part)
    assert state(ActivationNormalizer(method).fit(X)) == state(parts)


def test_partial_fit_adds_to_an_earlier_fit_and_checks_the_width():
    X = make_massive()
    both = ActivationNormalizer().fit(X[:400]).partial_fit(X[400:])
    mean = X.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(both.norm_params_["norm_mean"], mean, rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="is expecting 6 features"):
        both.partial_fit(X[:, :4])


def test_partial_fit_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="'method' parameter"):
        ActivationNormalizer("zscore").partial_fit(make_matrix())


@each_method
def test_transforming_parts_equals_transforming_the_whole_to_the_bit(method):
    X = make_massive()
    normalizer = ActivationNormalizer(method).fit(X)
    parts = [normalizer.transform(part) for part in np.split(X, [1, 129, 500, 990])]
    assert normalizer.transform(X).tobytes() == np.concatenate(parts).tobytes()


@each_method
@pytest.mark.parametrize("block_rows", [1, 64, 10_000])
def test_results_depend_on_the_block_size_only_by_rounding(monkeypatch, method, block_rows):
    X = make_massive()
    expected = ActivationNormalizer(method).fit_transform(X)
    monkeypatch.setattr(normalizers, "_BLOCK_ROWS", block_rows)
    actual = ActivationNormalizer(method).fit_transform(X)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)


@each_method
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_are_equal_whatever_the_memory_layout_of_X(method, dtype):
    X = make_massive().astype(dtype)
    wide = np.zeros((len(X), 2 * X.shape[1]), dtype)
    wide[:, ::2] = X
    layouts = [np.ascontiguousarray(X), np.asfortranarray(X), wide[:, ::2]]
    fitted = [ActivationNormalizer(method).fit(layout) for layout in layouts]
    outputs = [est.transform(layout) for est, layout in zip(fitted, layouts, strict=True)]
    undone = [est.inverse_transform(layout) for est, layout in zip(fitted, layouts, strict=True)]
    for i in 1, 2:
        assert state(fitted[0]) == state(fitted[i])
        assert outputs[0].tobytes() == outputs[i].tobytes()
        assert undone[0].tobytes() == undone[i].tobytes()


def test_norm_params_are_the_norm_entries_of_a_dataset():
    X = make_massive()
    exact = X.astype(np.float64)
    std = exact.std(axis=0)
    std[[1, 2]] = 1
    expected = {
        "standardize": {"norm_mean": exact.mean(axis=0), "norm_std": std},
        "minmax": {"norm_min": exact.min(axis=0), "norm_max": exact.max(axis=0)},
        "none": {},
    }
    for method, arrays in expected.items():
        params = ActivationNormalizer(method).fit(X).norm_params_
        assert params.pop("norm_method") == method
        assert list(arrays) == list(params)
        for name, values in arrays.items():
            assert params[name].dtype == np.float64
            np.testing.assert_allclose(params[name], values, rtol=1e-10, atol=1e-15)


def test_norm_params_tell_of_the_fit_even_after_set_params():
    normalizer = ActivationNormalizer("standardize").fit(make_matrix())
    normalizer.set_params(method="minmax")
    assert normalizer.norm_params_["norm_method"] == "standardize"


@each_method
def test_global_data_frame_output_does_not_disturb_the_arithmetic(method):
    import sklearn

    X = make_massive()
    expected = ActivationNormalizer(method).fit_transform(X)
    with sklearn.config_context(transform_output="pandas"):
        frame = ActivationNormalizer(method).fit_transform(X)
    assert list(frame.columns) == [f"x{i}" for i in range(X.shape[1])]
    assert expected.tobytes() == frame.to_numpy().tobytes()


def test_normalizing_a_normalized_matrix_again_gives_what_the_raw_one_gives():
    X = make_massive().astype(np.float64)[:, [0, 3, 5]]
    train = np.arange(1000) % 3 > 0
    for method in "standardize", "minmax":
        stored = ActivationNormalizer(method).fit_transform(X)
        again = ActivationNormalizer(method).fit(stored[train]).transform(stored)
        expected = ARITHMETIC[method](X, X[train])
        np.testing.assert_allclose(again, expected, rtol=1e-9, atol=1e-9)


def test_a_pipeline_of_selector_and_normalizer_keeps_the_column_names():
    pipeline = make_pipeline(LayerSelector("0,12"), ActivationNormalizer()).fit(make_set())
    expected = [f"L{layer}_h{i:04d}" for layer in (0, 12) for i in range(D_MODEL)]
    assert expected == pipeline.get_feature_names_out().tolist()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_tensors_with_gradients_go_through_the_transformers(dtype):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'sklprep[hf]'")
    tensor = torch.arange(24.0).reshape(4, 2, 3).to(getattr(torch, dtype)).requires_grad_()
    expected = np.arange(24, dtype=np.float32).reshape(4, 2, 3)

    np.testing.assert_array_equal(expected[:, 1], LayerSelector(1).fit_transform(tensor))
    scaled = ActivationNormalizer("minmax").fit_transform(tensor[:, 0])
    np.testing.assert_allclose(
        ActivationNormalizer("minmax").fit_transform(expected[:, 0]), scaled, rtol=1e-6
    )
