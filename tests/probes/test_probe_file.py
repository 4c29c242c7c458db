"""A probe's file gives the pipeline's decisions to whoever reads it, and believes nothing in it."""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC, LinearSVR

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    LayerSelector,
    Probe,
    RowSpaceProjector,
    layer_sweep,
    load_probe,
    save_probe,
)
from sklprep.exceptions import FileFormatError, UsageError
from sklprep.files.safetensors_bytes import encode_tensors
from sklprep.sweeps.difference_of_means import DifferenceOfMeans

RNG = np.random.default_rng(0)
TWO, THREE, NUMBERS = (
    np.arange(60) % 2,
    np.array(list("abc"))[np.arange(60) % 3],
    RNG.normal(size=60),
)
STATES = RNG.normal(size=(60, 3, 12)) * np.geomspace(0.1, 10, 12)
STATES[:, :, 0] += 500  # a dimension as massive as those of language models
STATES[:, :, 3] += 2 * TWO[:, np.newaxis]
ACTS = ActivationSet.from_arrays(hidden_states=STATES, embeddings=STATES[:, 0], labels=TWO)
MODELS = {
    "logistic": (LogisticRegression(C=0.1, solver="newton-cg"), TWO),
    "three classes": (LogisticRegression(C=0.1, solver="newton-cg"), THREE),
    "ridge classifier": (RidgeClassifier(), TWO),
    "svm": (LinearSVC(dual=True, max_iter=10_000, C=0.01), TWO),
    "lda": (LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), TWO),
    "lda of three": (LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), THREE),
    "difference of means": (DifferenceOfMeans(), TWO),
    "ridge": (Ridge(), NUMBERS),
    "svr": (LinearSVR(dual=True, max_iter=10_000, C=0.01), NUMBERS),
    "two targets": (Ridge(), np.stack([NUMBERS, NUMBERS**2], axis=1)),
}


def fitted(model, y, method="standardize", layer=2):
    return make_pipeline(LayerSelector(layer), ActivationNormalizer(method), model).fit(ACTS, y)


def decide(pipeline):
    return getattr(pipeline, "decision_function", pipeline.predict)(ACTS)


@pytest.fixture(scope="module")
def sweep():
    model = make_pipeline(ActivationNormalizer(), LogisticRegression(C=0.1))
    return layer_sweep(model, ACTS, TWO, layers=[1, 2], n_repeats=1, baselines=False)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "new" / "probe.safetensors"


@pytest.mark.parametrize("method", ["standardize", "minmax"])
@pytest.mark.parametrize("name", MODELS)
def test_file_decides_as_the_pipeline_does(path, name, method):
    model, y = MODELS[name]
    pipeline = fitted(model, y, method)

    save_probe(pipeline, path)
    probe = load_probe(path)

    expected = decide(pipeline)
    by_hand = ACTS.layer(2) @ probe.weight.T + probe.bias
    np.testing.assert_allclose(expected, by_hand.reshape(expected.shape), atol=1e-5)
    np.testing.assert_array_equal(by_hand.reshape(expected.shape), probe.decision_function(ACTS))
    if probe.classes is None:
        np.testing.assert_allclose(pipeline.predict(ACTS), probe.predict(ACTS), atol=1e-5)
    else:
        assert probe.classes == np.unique(y).tolist()
        np.testing.assert_array_equal(pipeline.predict(ACTS), probe.predict(ACTS))


def test_nearest_centroid_is_a_difference_of_means(path):
    save_probe(fitted(NearestCentroid(), TWO, "none"), path)

    probe = load_probe(path)

    means = [STATES[TWO == label, 2].mean(axis=0) for label in (0, 1)]
    np.testing.assert_allclose(means[1] - means[0], probe.weight[0], atol=1e-3)
    halfway = (means[0] + means[1])[np.newaxis] / 2
    assert probe.decision_function(halfway)[0] == pytest.approx(0, abs=1e-3)


def test_tensors_are_read_by_their_own_library_and_load_into_torch(path):
    numpy = pytest.importorskip("safetensors.numpy", reason="pip install safetensors")
    probe = Probe.from_pipeline(fitted(*MODELS["three classes"]))
    save_probe(probe, path)

    tensors = numpy.load_file(path)

    assert {"weight", "bias"} == tensors.keys()
    np.testing.assert_array_equal(probe.weight, tensors["weight"])
    torch = pytest.importorskip("torch", reason="pip install torch")
    linear = torch.nn.Linear(12, 3, dtype=torch.float64)
    linear.load_state_dict({name: torch.from_numpy(one) for name, one in tensors.items()})
    decisions = linear(torch.from_numpy(STATES[:, 2])).detach().numpy()
    np.testing.assert_allclose(probe.decision_function(STATES[:, 2]), decisions, atol=1e-9)


def test_metadata_are_json_with_layer_score_and_origin(path, sweep):
    pipeline = fitted(*MODELS["logistic"])

    save_probe(pipeline, path, acts=ACTS, sweep=sweep)

    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    record = json.loads(json.loads(data[8 : 8 + n])["__metadata__"]["probe"])
    assert (record["layer"], record["classes"], record["threshold"]) == (2, [0, 1], 0)
    assert record["pooling"] == "final"
    assert "blocks from 0" in record["layer_numbering"]
    assert record["score"] == {
        "scoring": "accuracy",
        "value": sweep.nested_score,
        "interval": [*sweep.nested_interval],
        "no_interval": "",
        "inputs": [1, 2],
        "summary": sweep.summary(),
    }
    assert record["provenance"]["fingerprint"] == ACTS.fingerprint
    assert record["provenance"]["layers"] == "0-2"
    assert "LogisticRegression" in record["provenance"]["pipeline"]


def test_loaded_probe_is_the_one_saved_and_has_the_same_bytes(path, sweep):
    save_probe(fitted(*MODELS["logistic"]), path, acts=ACTS, sweep=sweep)
    probe = load_probe(path)

    save_probe(probe, path.with_name("again"))

    assert path.read_bytes() == path.with_name("again").read_bytes()
    assert repr(probe) == (
        "Probe(layer 2, weight (1, 12), classes [0, 1], threshold 0,"
        f" accuracy {sweep.nested_score:.3f})"
    )


def test_threshold_moves_the_classes_and_not_the_decisions(path):
    pipeline = fitted(*MODELS["logistic"])
    save_probe(pipeline, path, threshold=0.75)
    probe = load_probe(path)

    np.testing.assert_allclose(decide(pipeline), probe.decision_function(ACTS), atol=1e-5)
    np.testing.assert_array_equal(decide(pipeline) > 0.75, probe.predict(ACTS) == 1)


def test_embeddings_have_probes_too(path):
    pipeline = fitted(LogisticRegression(C=0.1), TWO, layer="embeddings")
    save_probe(pipeline, path, acts=ACTS)
    probe = load_probe(path)

    assert probe.layer == "embeddings"
    np.testing.assert_allclose(decide(pipeline), probe.decision_function(ACTS), atol=1e-5)


def test_projected_pipelines_are_folded_in(path):
    wide = ActivationSet.from_arrays(hidden_states=RNG.normal(size=(60, 1, 90)), labels=TWO)
    steps = LayerSelector(0), ActivationNormalizer(), RowSpaceProjector(), LogisticRegression()
    pipeline = make_pipeline(*steps).fit(wide, TWO)

    save_probe(pipeline, path)

    decisions = load_probe(path).decision_function(wide)
    np.testing.assert_allclose(pipeline.decision_function(wide), decisions, atol=1e-5)


@pytest.mark.parametrize(
    ("probe", "options", "message"),
    [
        (fitted(Ridge(), NUMBERS, layer="0-2"), {}, "selects layers 0-2; expected one"),
        (fitted(RandomForestClassifier(3), TWO), {}, "RandomForestClassifier has no coefficients"),
        (fitted(Ridge(), NUMBERS), {"threshold": 1.0}, "threshold is for two classes"),
        (fitted(Ridge(), NUMBERS, layer=0), {"sweep": True}, "sweep does not have layer 0, so"),
        (Probe(np.ones((1, 2)), np.ones(1), 0), {"threshold": 1.0}, "a Probe has them"),
    ],
)
def test_what_is_not_one_linear_probe_is_refused(path, sweep, probe, options, message):
    options = {"sweep": sweep} if "sweep" in options else options

    with pytest.raises(UsageError, match=message):
        save_probe(probe, path, **options)
    assert not path.exists()


def test_sweep_without_an_honest_score_is_refused(path):
    model = make_pipeline(ActivationNormalizer(), LogisticRegression(C=0.1))
    naive = layer_sweep(model, ACTS, TWO, layers=[2], inner_cv=None, n_repeats=1, baselines=False)

    with pytest.raises(UsageError, match="The sweep is not nested, so it has no honest score"):
        save_probe(fitted(*MODELS["logistic"]), path, sweep=naive)


def test_rows_of_another_width_are_refused():
    probe = Probe(np.ones((1, 12)), np.ones(1), 2)

    with pytest.raises(UsageError, match=r"X has shape \(60, 3, 12\); expected \(n_samples, 12\)"):
        probe.predict(STATES)


# ---- files of others -------------------------------------------------------------------------

WEIGHT, BIAS = np.ones((1, 3)), np.zeros(1)
RECORD = {
    "format_version": 1,
    "layer": 3,
    "layer_numbering": "",
    "pooling": None,
    "classes": [0, 1],
    "threshold": 0.0,
    "score": None,
    "stability": None,
    "provenance": {},
}


def forge(path, weight=WEIGHT, bias=BIAS, **changes):
    path.parent.mkdir(exist_ok=True)
    tensors = {name: one for name, one in (("weight", weight), ("bias", bias)) if one is not None}
    path.write_bytes(encode_tensors(tensors, {"probe": json.dumps(RECORD | changes)}))
    return path


def test_forged_file_is_a_probe_but_for_its_changes(path):
    assert load_probe(forge(path)).threshold == 0
    assert load_probe(forge(path, WEIGHT.astype(np.float32))).weight.dtype == np.float64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "has format_version '2'; expected 1. Install the sklprep that"),
        ({"format_version": True}, "has format_version 'True'"),
        ({"layer": -1}, "'layer' is -1"),
        ({"layer": True}, "'layer' is True"),
        ({"layer": "head"}, "'layer' is 'head'"),
        ({"layer_numbering": 3}, "'layer_numbering' is 3"),
        ({"pooling": "first"}, "'pooling' is 'first'"),
        ({"pooling": []}, r"'pooling' is \[\]"),
        ({"threshold": float("nan")}, r"'probe' cannot be read \(NaN is not a number\)"),
        ({"threshold": "0"}, "'threshold' is '0'"),
        ({"threshold": None}, "'threshold' is None"),
        ({"threshold": 10**400}, "'threshold' is 1000"),
        ({"classes": [0, 10**30]}, "'classes' is"),
        ({"classes": None}, "'threshold' is 0.0"),
        ({"classes": [0, 1, 2]}, r"'classes' is \[0, 1, 2\]"),
        ({"classes": [0, 0]}, "'classes' is"),
        ({"classes": [0, "1"]}, "'classes' is"),
        ({"classes": [[0], [1]]}, "'classes' is"),
        ({"score": [1]}, "'score' is"),
        ({"provenance": None}, "'provenance' is None"),
        ({"weight": None}, "'weight' is missing"),
        ({"weight": np.ones((2, 3))}, r"'weight' has shape \(2, 3\), and bias \(1,\)"),
        ({"weight": np.ones(3)}, "'weight' has shape"),
        ({"weight": np.ones((1, 0))}, "'weight' has shape"),
        ({"weight": np.ones((1, 3), int)}, "'weight' has dtype <i8"),
        ({"bias": np.array([np.inf])}, "'bias' has 1 NaN or infinite values"),
    ],
)
def test_file_that_is_not_a_probe_says_why(path, changes, message):
    with pytest.raises(FileFormatError, match=message) as error:
        load_probe(forge(path, **changes))
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "has no 'probe' in its metadata; expected a probe"),
        ({"probe": "[" * 100_000}, "'probe' cannot be read"),
        ({"probe": "[1]"}, "'probe' cannot be read"),
        ({"probe": "1e999"}, "'probe' cannot be read"),
        ({"probe": "{}"}, "'probe' cannot be read"),
    ],
)
def test_tensors_without_the_record_of_a_probe_are_refused(path, metadata, message):
    path.parent.mkdir()
    path.write_bytes(encode_tensors({"weight": WEIGHT, "bias": BIAS}, metadata))

    with pytest.raises(FileFormatError, match=message):
        load_probe(path)


def test_damaged_files_are_a_probe_or_one_clear_error(path):
    data = forge(path).read_bytes()
    rng = np.random.default_rng(1)
    clean = 0
    for _ in range(400):
        mutant = bytearray(data)
        for position in rng.integers(len(data), size=rng.integers(1, 4)):
            mutant[position] = rng.integers(256)
        path.write_bytes(mutant[: rng.integers(len(data))] if rng.random() < 0.2 else mutant)
        with contextlib.suppress(FileFormatError):
            probe = load_probe(path)
            clean += 1
            assert np.isfinite(probe.weight).all()
            assert probe.predict(np.ones((2, probe.weight.shape[1]))).shape[0] == 2
    assert 0 < clean < 400


def test_probe_with_a_changed_threshold_is_saved_as_it_is(path):
    probe = dataclasses.replace(load_probe(forge(path)), threshold=2.5)

    save_probe(probe, path)

    assert load_probe(path).threshold == 2.5
    assert [path.name] == [one.name for one in Path(path.parent).iterdir()]
