"""The dataset NPZ: its keys, its bytes, its way back, and training on it without leakage."""

import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from forged_files import archive, bomb, forged_npy, header_text, npy, stored
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    ConceptTargetExtractor,
    FeatureTargetExtractor,
    LayerSelector,
    generate_dataset,
    load_activations,
    load_dataset,
    make_activations,
    make_strategy,
)
from sklprep.exceptions import (
    FileFormatError,
    OutputError,
    PipelineError,
    SklprepWarning,
    UsageError,
)

METHODS = ("standardize", "minmax", "none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demo_features"
    make_activations(
        110, n_layers=4, d_model=12, n_features=40, n_tokens=(3, 6), random_state=1, output=path
    )
    return path


@pytest.fixture(scope="module")
def raw(folder):
    """Final-token rows by plain numpy: embeddings, hidden states, activations, labels."""
    files = [np.load(path) for path in sorted(folder.glob("*.npz"))]
    final = [int(np.flatnonzero(f["is_final_token"])[0]) for f in files]
    return {
        "embeddings": np.array([f["embeddings"][t] for f, t in zip(files, final, strict=True)]),
        "hidden": np.array([f["hidden_states"][:, t] for f, t in zip(files, final, strict=True)]),
        "sae": np.array([f["activations"][:, t] for f, t in zip(files, final, strict=True)]),
        "labels": np.array([int(f["concept_strength_label"]) for f in files]),
        "indices": np.array([int(f["sentence_index"]) for f in files]),
    }


@pytest.fixture
def acts(folder):
    return load_activations(folder)


def normalized(raw_X, method):
    X = raw_X.astype(np.float64)
    if method == "standardize":
        return (X - X.mean(axis=0)) / X.std(axis=0)
    if method == "minmax":
        return (X - X.min(axis=0)) / np.ptp(X, axis=0)
    return X


def rewrite(path, **changes):
    with np.load(path) as data:
        entries = {**data, **changes}
    np.savez(path, **{key: value for key, value in entries.items() if value is not None})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("hidden-to-concept", {"layers": "0-1,3"}),
        ("hidden-to-concept", {"layers": 2}),
        ("embedding-to-concept", {}),
        ("hidden-to-feature", {"target_layer": 3, "target_feature": 1}),
        ("hidden-to-feature", {"target_layer": 3, "target_feature": 1, "input_layer": 0}),
        ("embedding-to-feature", {"target_layer": 1, "target_feature": 0}),
    ],
)
def test_file_holds_what_float64_arithmetic_gives(acts, raw, tmp_path, method, strategy, options):
    path = tmp_path / "d.npz"
    generate_dataset(
        acts,
        *make_strategy(strategy, normalize=method, **options),
        output=path,
        strategy=strategy,
    )

    with np.load(path, allow_pickle=False) as file:
        data = dict(file)
    layers = {"0-1,3": [0, 1, 3]}.get(options.get("layers"), [options.get("layers")])
    if strategy == "hidden-to-feature":
        layers = [options.get("input_layer", 3)]
    if strategy.startswith("embedding"):
        X, layers = raw["embeddings"], []
    else:
        X = np.concatenate([raw["hidden"][:, layer] for layer in layers], axis=1)
    np.testing.assert_allclose(data["X"], normalized(X, method), rtol=1e-5, atol=1e-5)
    assert data["X"].dtype == np.float32
    if strategy.endswith("concept"):
        assert np.array_equal(data["y"], raw["labels"])
        assert data["y"].dtype == np.int64
        assert data["meta_output_type"] == "concept_label"
        assert data["meta_n_classes"] == 4
    else:
        target = raw["sae"][:, options["target_layer"], options["target_feature"]]
        assert np.array_equal(data["y"], target)
        assert data["y"].dtype == np.float32
        assert data["meta_output_type"] == "feature_activation"
        assert data["meta_target_layer"] == options["target_layer"]
        assert data["meta_target_feature"] == options["target_feature"]
        assert data["meta_average_l0"] == acts.average_l0s[options["target_layer"]]
    assert data["meta_strategy"] == strategy
    assert data["meta_input_source"] == ("hidden_states" if layers else "embeddings")
    assert data["meta_input_layers"].tolist() == layers
    assert data["meta_input_layers"].dtype == np.int64
    assert data["meta_input_dims"] == X.shape[1]
    assert data["meta_n_samples"] == 110
    assert np.array_equal(data["meta_sentence_indices"], raw["indices"])
    assert data["meta_pooling"] == "final"
    assert data["meta_format_version"] == 1
    assert data["norm_method"] == method
    X = X.astype(np.float64)
    expected = {
        "standardize": {"norm_mean": X.mean(axis=0), "norm_std": X.std(axis=0)},
        "minmax": {"norm_min": X.min(axis=0), "norm_max": X.max(axis=0)},
        "none": {},
    }[method]
    assert {key for key in data if key.startswith("norm_")} == {"norm_method", *expected}
    for key, values in expected.items():
        np.testing.assert_allclose(data[key], values, rtol=1e-9)
        assert data[key].dtype == np.float64


def test_constant_column_becomes_zero_with_scale_one(tmp_path):
    states = np.random.default_rng(0).normal(size=(100, 1, 3)).astype(np.float32)
    states[:, :, 1] = 0.1
    acts = ActivationSet.from_arrays(hidden_states=states, labels=np.arange(100) % 4)

    ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=0))

    assert np.all(ds.X[:, 1] == 0)
    assert ds.norm["norm_std"][1] == 1


def test_bytes_depend_on_content_and_folder_name_only(folder, tmp_path):
    copy = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, copy)
    for path in copy.iterdir():
        os.utime(path, (1, 1))
    script = (
        "import sys, sklprep\n"
        "from sklearn.feature_selection import SelectKBest\n"
        "acts = sklprep.load_activations(sys.argv[1], n_jobs=int(sys.argv[3]))\n"
        "pipeline, target = sklprep.make_strategy('hidden-to-concept', layers='1-2')\n"
        "sklprep.generate_dataset(acts, pipeline, target, output=sys.argv[2])\n"
        "pipeline.steps.append(('best', SelectKBest(k=4)))\n"
        "sklprep.generate_dataset(acts, pipeline, target, output=sys.argv[2] + '.best')"
    )
    outputs = [tmp_path / f"{i}.npz" for i in range(2)]
    for output, source, jobs, seed in zip(outputs, (folder, copy), "12", "07", strict=True):
        subprocess.run(
            [sys.executable, "-c", script, source, output, jobs],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )

    for suffix in ("", ".best"):
        made = {Path(f"{output}{suffix}").read_bytes() for output in outputs}
        assert 1 == len(made)


def test_provenance_tells_versions_source_and_arguments(acts, folder):
    ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers="0-1"), strategy="s")

    record = json.loads(ds.meta["meta_provenance"])

    assert record["input"] == folder.name
    assert record["fingerprint"] == acts.fingerprint
    assert record["arguments"]["layers"] == "0-1"
    assert record["arguments"]["pipeline"] == [{"ActivationNormalizer": {"method": "standardize"}}]
    assert set(record["versions"]) == {"sklprep", "numpy", "scikit-learn", "skops"}
    assert str(folder.parent) not in ds.meta["meta_provenance"]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_loaded_dataset_equals_the_generated_one(acts, tmp_path, method, compress):
    path = tmp_path / "d.npz"
    made = generate_dataset(
        acts,
        *make_strategy("hidden-to-concept", layers="0,2", normalize=method),
        output=path,
        compress=compress,
    )

    ds = load_dataset(path)

    assert np.array_equal(ds.X, made.X)
    assert np.array_equal(ds.y, made.y)
    assert ds.meta.keys() == made.meta.keys()
    assert ds.norm.keys() == made.norm.keys()
    assert isinstance(ds.meta["meta_n_samples"], int)
    assert isinstance(ds.norm["norm_method"], str)
    assert np.array_equal(ds.pipeline.transform(acts), ds.X)
    assert ds.groups.tolist() == list(range(110))
    copy = tmp_path / "copy.npz"
    ds.save(copy, compress=compress)
    assert copy.read_bytes() == path.read_bytes()


def test_compressed_file_is_smaller(acts, tmp_path):
    strategy = make_strategy("embedding-to-concept", normalize="none")
    for name, compress in (("plain", False), ("small", True)):
        generate_dataset(acts, *strategy, output=tmp_path / name, compress=compress)

    with zipfile.ZipFile(tmp_path / "small") as file:
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_DEFLATED}
    with zipfile.ZipFile(tmp_path / "plain") as file:
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("method", METHODS)
def test_training_on_the_dataset_equals_training_on_raw_activations(acts, raw, tmp_path, method):
    path = tmp_path / "d.npz"
    generate_dataset(
        acts, *make_strategy("hidden-to-concept", layers=2, normalize=method), output=path
    )
    ds = load_dataset(path)
    folds = KFold(5, shuffle=True, random_state=0)
    scaler = {"standardize": StandardScaler(), "minmax": MinMaxScaler(), "none": "passthrough"}
    plain = make_pipeline(scaler[method], Ridge())
    X = raw["hidden"][:, 2].astype(np.float64)

    on_dataset = cross_val_predict(ds.make_pipeline(Ridge()), ds.X, ds.y, cv=folds)
    on_raw = cross_val_predict(plain, X, raw["labels"], cv=folds)

    np.testing.assert_allclose(on_dataset, on_raw, atol=2e-4)


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize(
    ("strategy", "options"),
    [
        ("hidden-to-concept", {"layers": "0-1"}),
        ("hidden-to-concept", {"layers": "0-1", "normalize": "minmax"}),
        ("feature-to-concept", {"layers": [1]}),
        ("embedding-to-concept", {"normalize": "none"}),
    ],
)
def test_data_frames_by_default_change_no_dataset_and_no_score(
    acts, tmp_path, container, strategy, options
):
    pytest.importorskip(container)

    def write(path):
        return generate_dataset(acts, *make_strategy(strategy, **options), output=path)

    def score(ds):
        model = ds.make_pipeline(LogisticRegression(solver="newton-cg"))
        return cross_val_score(model, ds.X, ds.y, cv=3)

    expected = score(write(tmp_path / "plain.npz"))
    with config_context(transform_output=container):
        write(tmp_path / "frames.npz")
        ds = load_dataset(tmp_path / "frames.npz")
        np.testing.assert_array_equal(expected, score(ds))
        X = ds.pipeline.transform(acts)

    assert (tmp_path / "plain.npz").read_bytes() == (tmp_path / "frames.npz").read_bytes()
    np.testing.assert_array_equal(ds.X, X.toarray() if issparse(X) else X)


@pytest.mark.parametrize("method", METHODS)
def test_inverse_transform_gives_the_raw_values(acts, raw, method):
    ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=1, normalize=method))
    X = raw["hidden"][:, 1]

    back = ds.pipeline.named_steps["activationnormalizer"].inverse_transform(ds.X)

    assert np.all(np.abs(back - X) <= 1e-6 * np.abs(X).max(axis=0))


def test_deployed_pipeline_predicts_from_activations(acts):
    ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=2))
    fitted = LogisticRegression(max_iter=1000).fit(ds.X, ds.y)

    deployed = Pipeline([*ds.pipeline.steps, ("model", fitted)])

    assert np.array_equal(deployed.predict(acts), fitted.predict(ds.X))


def test_fit_rows_alone_decide_the_normalizer(acts, raw):
    rows = np.arange(0, 110, 2)
    X = raw["hidden"][:, 2].astype(np.float64)

    ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=2), fit_rows=rows)

    np.testing.assert_allclose(ds.norm["norm_mean"], X[rows].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(ds.norm["norm_std"], X[rows].std(axis=0), rtol=1e-9)
    assert len(ds.X) == 110
    assert ds.meta["meta_train_indices"].tolist() == rows.tolist()
    assert ds.meta["meta_test_indices"].tolist() == list(range(1, 110, 2))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "non-empty"),
        ([0.5], "row positions"),
        ([0, 0], "distinct"),
        ([110], "0 to 109"),
        ([-1], "0 to 109"),
    ],
)
def test_bad_fit_rows_are_refused(acts, rows, message):
    with pytest.raises(UsageError, match=message):
        generate_dataset(acts, *make_strategy("hidden-to-concept", layers=2), fit_rows=rows)


def test_fit_rows_that_split_a_group_are_refused():
    acts = ActivationSet.from_arrays(
        hidden_states=np.random.default_rng(0).normal(size=(100, 1, 2)),
        labels=np.arange(100) % 2,
        groups=np.arange(100) // 2,
    )
    strategy = make_strategy("hidden-to-concept", layers=0)

    with pytest.raises(UsageError, match="1 groups, such as tokens of one sentence, straddle"):
        generate_dataset(acts, *strategy, fit_rows=np.arange(51))
    with pytest.warns(SklprepWarning, match="^The 100 rows belong to 50 groups"):
        ds = generate_dataset(acts, *strategy, fit_rows=np.arange(50))

    assert np.array_equal(ds.meta["meta_groups"], np.arange(100) // 2)
    assert np.array_equal(ds.groups, np.arange(100) // 2)


@pytest.mark.parametrize("solver", ["full", "randomized", "covariance_eigh"])
def test_any_pipeline_of_trusted_steps_is_stored(acts, tmp_path, solver):
    path = tmp_path / "pca.npz"
    pca = PCA(5, svd_solver=solver, random_state=0)
    pipeline = make_pipeline(LayerSelector("all"), ActivationNormalizer(), pca)
    generate_dataset(acts, pipeline, ConceptTargetExtractor(), output=path)

    ds = load_dataset(path)

    assert ds.X.shape == (110, 5)
    assert ds.norm == {"norm_method": "none"}
    assert np.array_equal(ds.pipeline.transform(acts).astype(np.float32), ds.X)
    with pytest.raises(UsageError, match=r"'activationnormalizer'.*cannot be undone"):
        ds.make_pipeline(Ridge())


def test_row_wise_step_before_the_normalizer_can_be_trained_on(acts):
    pipeline = make_pipeline(LayerSelector(1), Normalizer(), ActivationNormalizer("minmax"))

    ds = generate_dataset(acts, pipeline, ConceptTargetExtractor())

    assert ds.make_pipeline(Ridge()).steps[0][1].method == "minmax"


def test_given_pipeline_and_target_stay_unfitted(acts):
    pipeline, target = make_strategy("hidden-to-feature", target_layer=2, target_feature=1)
    before = repr(clone(pipeline))

    generate_dataset(acts, pipeline, target)

    assert repr(pipeline) == before
    assert not hasattr(pipeline[0], "layers_")
    assert not hasattr(target, "average_l0_")


def test_array_instead_of_a_set_is_refused():
    with pytest.raises(UsageError, match="needs an ActivationSet"):
        generate_dataset(np.zeros((3, 2, 2)), *make_strategy("hidden-to-concept", layers=0))


def test_few_rows_warn(acts):
    with pytest.warns(SklprepWarning, match=r"^Only 87 samples \(expected ~100\)"):
        generate_dataset(acts[:87], *make_strategy("hidden-to-concept", layers=0))


def test_rarely_active_feature_warns():
    sae = np.zeros((100, 13, 1300), np.float32)
    sae[:3, 12, 1234] = 1
    acts = ActivationSet.from_arrays(hidden_states=np.ones((100, 13, 2)), activations=sae)

    with pytest.warns(
        SklprepWarning, match="^Feature 1234 of layer 12 is active in 3 of 100 samples"
    ):
        generate_dataset(
            acts, *make_strategy("hidden-to-feature", target_layer=12, target_feature=1234)
        )


def test_constant_y_warns():
    acts = ActivationSet.from_arrays(
        hidden_states=np.ones((100, 1, 2)), activations=np.ones((100, 1, 2)), labels=[1] * 100
    )

    with pytest.warns(SklprepWarning, match="y is constant"):
        generate_dataset(acts, make_pipeline(LayerSelector(0)), FeatureTargetExtractor(0, 0))
    with pytest.warns(SklprepWarning, match="All 100 samples have the label 1"):
        generate_dataset(acts, make_pipeline(LayerSelector(0)), ConceptTargetExtractor())


def test_impossible_output_is_refused_before_the_work(acts, tmp_path):
    class Exploding(ConceptTargetExtractor):
        def transform(self, X):
            raise AssertionError("work was done")

    with pytest.raises(OutputError, match="is a folder"):
        generate_dataset(
            acts, make_strategy("hidden-to-concept", layers=0)[0], Exploding(), output=tmp_path
        )


def test_custom_dataset_without_pipeline_and_norm_loads(tmp_path):
    path = tmp_path / "custom.npz"
    np.savez(path, X=np.ones((4, 2)), y=np.arange(4), meta_strategy="custom")

    ds = load_dataset(path)

    assert ds.pipeline is None
    assert ds.norm == {}
    assert ds.meta == {"meta_strategy": "custom"}
    assert len(ds.make_pipeline(Ridge())) == 2


@pytest.fixture(scope="module")
def original(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "d.npz"
    strategy = make_strategy("hidden-to-concept", layers=2)
    generate_dataset(load_activations(folder), *strategy, output=path)
    return path


@pytest.fixture
def written(original, tmp_path):
    return shutil.copy(original, tmp_path / "d.npz")


def test_changed_norm_is_refused_unless_the_pipeline_is_left_out(written):
    rewrite(written, norm_mean=np.zeros(12))

    with pytest.raises(PipelineError, match=r"norm_\* entries differ from those"):
        load_dataset(written)
    assert load_dataset(written, pipeline=False).pipeline is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": None}, "'X' is missing"),
        ({"y": None}, "'y' is missing"),
        ({"X": np.zeros(3)}, "expected a numeric matrix"),
        ({"X": np.zeros((110, 0))}, "has shape .110, 0. of float64; expected a numeric matrix"),
        ({"y": np.zeros(3)}, "expected 110 values"),
        ({"meta_format_version": np.int64(2)}, "format version 2.*Upgrade sklprep"),
        (
            {"meta_format_version": np.str_("\x1b[31m1")},
            r"is .*x1b.*; expected a whole number",
        ),
        (
            {"meta_strategy": np.zeros(3)},
            "'meta_strategy' has shape .3,.; expected one line",
        ),
        (
            {"meta_pooling": np.str_("a\nb")},
            r"'meta_pooling' is 'a\\nb'; expected one line",
        ),
        ({"meta_n_classes": np.float64(4)}, "'meta_n_classes' is 4.0; expected a whole number"),
        ({"meta_input_layers": np.int64(3)}, "'meta_input_layers' is 3; expected a list of whole"),
        ({"meta_input_layers": np.array(["0-5"])}, "has shape .1,.; expected a list of whole"),
        ({"meta_target_feature": np.nan}, "'meta_target_feature' is nan; expected a whole number"),
        ({"meta_average_l0": np.inf}, "'meta_average_l0' is inf; expected a number"),
        ({"meta_sentence_indices": np.zeros(3)}, "'meta_sentence_indices' has shape"),
        ({"norm_method": np.str_("zscore")}, "'norm_method' is 'zscore'"),
        ({"norm_method": np.zeros(3)}, "'norm_method' is array"),
        ({"norm_std": None}, "'norm_std' is missing"),
        ({"norm_mean": np.zeros(3)}, "'norm_mean' has shape"),
        ({"pipeline": np.zeros(9, np.uint8)}, "pipeline"),
        ({"pipeline": np.zeros(9, np.float32)}, "pipeline"),
    ],
)
def test_faulty_dataset_is_refused_with_its_name(written, changes, message):
    rewrite(written, **changes)

    with pytest.raises(FileFormatError, match=message) as caught:
        load_dataset(written)
    assert str(written) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sentence_file_given_as_dataset_says_what_it_is(folder):
    with pytest.raises(FileFormatError, match="input for sklprep generate"):
        load_dataset(folder / "sentence_000000.npz")


def test_truncated_dataset_is_refused(written):
    data = written.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        written.write_bytes(data[:size])
        with pytest.raises(FileFormatError):
            load_dataset(written)


def test_next_stage_reads_every_entry_into_python_values(written):
    with np.load(written) as data:
        meta = {
            key: data[key].item() if data[key].ndim == 0 else data[key].tolist()
            for key in data.files
            if key.startswith("meta_")
        }

    assert json.loads(json.dumps(meta))["meta_input_layers"] == [2]


def test_cross_validation_scores_on_the_dataset_are_those_of_the_whole_pipeline(acts):
    pipeline, target = make_strategy("hidden-to-concept", layers=2)
    ds = generate_dataset(acts, pipeline, target)
    folds = KFold(5, shuffle=True, random_state=3)
    model = LogisticRegression(max_iter=1000)

    on_dataset = cross_val_score(ds.make_pipeline(model), ds.X, ds.y, cv=folds)
    on_raw = cross_val_score(make_pipeline(*pipeline, model), acts, acts.labels, cv=folds)

    np.testing.assert_allclose(on_dataset, on_raw)


def test_dataset_written_to_memory_reads_with_plain_numpy(written):
    with np.load(io.BytesIO(written.read_bytes()), allow_pickle=False) as data:
        assert data["pipeline"].dtype == np.uint8
        assert {"X", "y", "pipeline"} < set(data.files)


def test_a_bomb_takes_no_memory_where_it_is_not_x_or_y_or_does_not_fit(tmp_path):
    raw = forged_npy(header_text("|u1", f"({300 << 20}, 1)"))
    path = tmp_path / "d.npz"
    X, y = stored(npy(np.eye(3)), b"X.npy"), stored(npy(np.arange(3)), b"y.npy")
    tracemalloc.start()
    path.write_bytes(archive(X, y, bomb(b"other.npy", raw, 300)))
    assert (3, 3) == load_dataset(path).X.shape
    for name, message in (
        ("meta_x", "314,572,800 bytes; expected at most"),
        ("X", "values, one for each row of X"),
    ):
        path.write_bytes(archive(*[X] * (name != "X"), y, bomb(f"{name}.npy".encode(), raw, 300)))
        with pytest.raises(FileFormatError, match=message):
            load_dataset(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 16 << 20
