"""The training example: what it reports is true, and nothing of the test rows reaches the model."""

import hashlib
import itertools
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from scipy.stats import pearsonr
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR

from sklprep import (
    ActivationSet,
    generate_dataset,
    load_activations,
    load_dataset,
    make_activations,
    make_strategy,
    save_dataset,
)
from sklprep.cli.main import main
from sklprep.exceptions import InsufficientDataError, SklprepError

EXAMPLES = Path(__file__).parents[2] / "examples"
STRATEGIES = {
    "hidden-to-concept": {"layers": "1-2"},
    "embedding-to-concept": {},
    "hidden-to-feature": {"target_layer": 1, "target_feature": 4},
    "embedding-to-feature": {"target_layer": 1, "target_feature": 4},
}
CLASSIFY = {
    "n_classes",
    "test_accuracy",
    "test_f1",
    "confusion_matrix",
    "train_accuracy",
}
REGRESS = {
    "test_mae",
    "test_mse",
    "test_rmse",
    "test_r2",
    "pearson_r",
    "pearson_p",
    "train_mae",
    "train_r2",
}
COMMON = {
    "n_samples_total",
    "n_samples_train",
    "n_samples_test",
    "n_features",
    "model_type",
    "training_time_sec",
    "cv_scores",
    "cv_mean",
    "cv_std",
    "config",
    "metadata",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "demo_features"
    make_activations(
        100, n_layers=3, d_model=6, n_features=30, n_tokens=(2, 4), random_state=0, output=path
    )
    return path


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLES / "train_classifier.py"))


@pytest.fixture
def dataset(folder, tmp_path):
    """Make a dataset of a strategy, with a split or without; returns its path."""

    def dataset(strategy, *arguments, **options):
        path = tmp_path / f"{strategy}.npz"
        flags = []
        for name, value in (STRATEGIES[strategy] | options).items():
            flags += [f"--{name.replace('_', '-')}", str(value)]
        argv = ["generate", "--strategy", strategy, "--input", str(folder), "--output", str(path)]
        assert main([*argv, "--jobs", "1", "--quiet", *flags, *arguments]) == 0
        return path

    return dataset


@pytest.fixture
def script(tmp_path, monkeypatch, capsys):
    """Run the example as a script; returns the model, the results and what it printed."""

    def script(*arguments):
        output = tmp_path / "results"
        argv = ["train_classifier.py", *map(str, arguments), "--output", str(output)]
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(EXAMPLES / "train_classifier.py"), run_name="__main__")
        model = output / "model.skops"
        trusted = skops.io.get_untrusted_types(file=model)
        assert all(name.startswith(("sklprep.", "sklearn.tree._tree.")) for name in trusted)
        results = json.loads((output / "results.json").read_text())
        return skops.io.load(model, trusted=trusted), results, capsys.readouterr().out

    return script


def check(value):
    """Only numbers, and finite ones, in a list or alone."""
    assert np.isfinite(value).all()
    return value


@pytest.mark.parametrize(
    ("strategy", "model", "split"),
    [
        *itertools.product(
            STRATEGIES, ["default", "svm"], [(), ("--test-size", "0.25", "--random-state", "3")]
        ),
        ("hidden-to-concept", "random-forest", ()),
        ("hidden-to-feature", "random-forest", ()),
    ],
)
def test_results_are_those_of_the_saved_model(script, dataset, folder, strategy, model, split):
    classify = strategy.endswith("concept")
    path = dataset(strategy, *split)
    chosen = [] if model == "default" else ["--model", model]

    fitted, results, printed = script(path, "--cv", "3", *chosen)

    assert set(results) == COMMON | (CLASSIFY if classify else REGRESS)
    ds = load_dataset(path)
    if split:
        train, test = ds.meta["meta_train_indices"], ds.meta["meta_test_indices"]
        expected = train_test_split(np.arange(100), test_size=0.25, random_state=3)
        assert train.tolist() == expected[0].tolist()
        assert test.tolist() == sorted(expected[1])
    else:
        stratify = ds.y if classify else None
        train, test = train_test_split(
            np.arange(100), test_size=0.2, random_state=42, stratify=stratify
        )
    acts = load_activations(folder)
    predicted = fitted.predict(acts)
    np.testing.assert_allclose(fitted[-1].predict(ds.X), predicted)
    y, found = ds.y[test], predicted[test]
    y_train, found_train = ds.y[train], predicted[train]
    expected = {
        "n_samples_total": 100,
        "n_samples_train": len(train),
        "n_samples_test": len(test),
        "n_features": ds.X.shape[1],
        "cv_mean": np.mean(check(results["cv_scores"])),
        "cv_std": np.std(results["cv_scores"]),
    }
    if classify:
        expected |= {
            "test_accuracy": np.mean(y == found),
            "test_f1": f1_score(y, found, average="weighted", zero_division=0),
            "n_classes": 4,
            "train_accuracy": np.mean(y_train == found_train),
        }
        classes = sorted({*y.tolist(), *found.tolist()})
        assert results["confusion_matrix"] == [
            [int(np.sum((y == a) & (found == b))) for b in classes] for a in classes
        ]
    else:
        y, found, y_train, found_train = (
            part.astype(np.float64) for part in (y, found, y_train, found_train)
        )
        r, p = pearsonr(y, found)
        expected |= {
            "test_mae": np.abs(y - found).mean(),
            "test_mse": ((y - found) ** 2).mean(),
            "test_rmse": np.sqrt(((y - found) ** 2).mean()),
            "test_r2": 1 - ((y - found) ** 2).sum() / ((y - y.mean()) ** 2).sum(),
            "pearson_r": r,
            "pearson_p": p,
            "train_mae": np.abs(y_train - found_train).mean(),
            "train_r2": 1
            - ((y_train - found_train) ** 2).sum() / ((y_train - y_train.mean()) ** 2).sum(),
        }
    assert {key: results[key] for key in expected} == pytest.approx(expected, rel=1e-4, abs=1e-9)
    default = "logistic" if classify else "ridge"
    assert results["model_type"] == (default if model == "default" else model)
    assert len(results["cv_scores"]) == 3
    assert results["training_time_sec"] > 0
    assert results["config"] == {
        "model": results["model_type"],
        "test_size": results["n_samples_test"] / results["n_samples_total"],
        "cv": 3,
        "random_state": 42,
    }
    assert results["metadata"] == {
        "dataset_path": str(path),
        "dataset_hash": hashlib.sha256(path.read_bytes()).hexdigest(),
        "meta_strategy": strategy,
    }
    for key in results:
        assert key in printed


@pytest.mark.parametrize(
    ("strategy", "normalize"),
    [
        ("hidden-to-concept", "standardize"),
        ("hidden-to-concept", "minmax"),
        ("hidden-to-feature", "standardize"),
        ("hidden-to-feature", "minmax"),
        ("hidden-to-feature", "none"),
    ],
)
def test_model_is_the_one_that_plain_scikit_learn_fits_on_raw_training_rows(
    example, dataset, folder, strategy, normalize
):
    path = dataset(strategy, "--test-size", "0.2", normalize=normalize)
    ds = load_dataset(path)
    acts = load_activations(folder)
    layers = [1, 2] if strategy == "hidden-to-concept" else [1]
    raw = np.concatenate([acts.layer(layer) for layer in layers], axis=1).astype(np.float64)
    train, test = ds.meta["meta_train_indices"], ds.meta["meta_test_indices"]
    scaler = {"standardize": StandardScaler(), "minmax": MinMaxScaler(), "none": None}[normalize]
    X = raw if scaler is None else scaler.fit(raw[train]).transform(raw)
    model = LogisticRegression(max_iter=2000) if "concept" in strategy else Ridge(alpha=10.0)
    model.fit(X[train], ds.y[train])

    deployable, results = example["train"](path, cv=3)

    expected = model.predict(X[test])
    found = deployable.predict(acts)[test]
    if "concept" in strategy:
        assert np.mean(found == expected) > 0.9
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        assert results["test_mae"] == pytest.approx(np.abs(ds.y[test] - expected).mean(), rel=1e-3)


@pytest.mark.parametrize("split", [(), ("--test-size", "0.2", "--random-state", "42")])
@pytest.mark.parametrize("strategy", ["hidden-to-concept", "hidden-to-feature"])
def test_values_of_test_rows_never_change_the_fitted_model(
    example, tmp_path, folder, strategy, split
):
    """Make the dataset twice, the second time with other values in what will be test rows."""
    acts = load_activations(folder)
    n = len(acts)
    y = acts.labels if strategy == "hidden-to-concept" else None
    _, test = train_test_split(
        np.arange(n), test_size=0.2, random_state=42, stratify=None if split else y
    )
    fitted = []
    for shift in (0, 9):
        hidden = acts.hidden_states.copy()
        hidden[test] = hidden[test] * (1 + shift) + shift
        sae = [sparse.toarray() for sparse in acts.activations]
        changed = ActivationSet.from_arrays(
            hidden_states=hidden,
            activations=sae,
            labels=acts.labels,
            layers=acts.layers,
            sae_layers=acts.sae_layers,
            average_l0s=acts.average_l0s,
        )
        path = tmp_path / f"{shift}.npz"
        pipeline, target = make_strategy(strategy, **STRATEGIES[strategy])
        train = np.setdiff1d(np.arange(n), test)
        generate_dataset(changed, pipeline, target, output=path, fit_rows=train if split else None)
        model, results = example["train"](path, cv=3)
        coefficients = model[-1][-1].coef_
        if not split:
            # X was normalized on all rows, so say what the model does with raw activations
            coefficients = [model.predict(acts[train])]
        fitted.append((*coefficients, results["cv_scores"]))

    for one, other in zip(*fitted, strict=True):
        if split:
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:The [0-9,]+ rows belong to")
def test_no_group_is_on_both_sides(example, folder, tmp_path):
    acts = load_activations(folder, pooling="none")
    for name, options in (("hidden-to-concept", {"layers": 1}), ("hidden-to-feature", None)):
        path = tmp_path / f"{name}.npz"
        strategy = make_strategy(name, **(options or STRATEGIES[name]))
        generate_dataset(acts, *strategy, output=path)
        ds = load_dataset(path)
        assert len(np.unique(ds.groups)) < len(ds.y)

        train, test = example["split"](ds, name == "hidden-to-concept", 0.2, 42)
        _, results = example["train"](path, cv=3)

        assert not {*ds.groups[train]} & {*ds.groups[test]}
        assert sorted([*train, *test]) == list(range(len(ds.y)))
        assert results["n_samples_train"] == len(train)
        assert results["n_samples_test"] == len(test)


@pytest.mark.filterwarnings("ignore:The [0-9,]+ rows belong to")
def test_folds_keep_groups_together(example, folder, tmp_path, monkeypatch):
    acts = load_activations(folder, pooling="none")
    seen = []
    cross_val_score = example["cross_val_score"]

    def watched(model, X, y, *, groups, cv):
        seen.extend((groups, train, test) for train, test in cv.split(X, y, groups))
        return cross_val_score(model, X, y, groups=groups, cv=cv)

    monkeypatch.setitem(example["train"].__globals__, "cross_val_score", watched)
    for name in ("hidden-to-concept", "hidden-to-feature"):
        path = tmp_path / "d.npz"
        generate_dataset(acts, *make_strategy(name, **STRATEGIES[name]), output=path)
        example["train"](path, cv=4)

    assert len(seen) == 8
    for groups, train, test in seen:
        assert not {*groups[train]} & {*groups[test]}


def custom(path, X, y, **metadata):
    metadata = {"strategy": "custom", "norm_method": "none", **metadata}
    save_dataset(X, y, metadata, path)
    return path


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


def test_dead_feature_is_refused_and_not_taken_for_classes(example, dataset, folder, tmp_path, X):
    activation = np.zeros(60, np.float32)
    activation[:9] = [1, 2, 3, 1, 2, 3, 1, 2, 3]
    path = custom(tmp_path / "d.npz", X, activation, output_type="feature_activation")

    with pytest.raises(InsufficientDataError, match="active in 9 of 60 samples"):
        example["train"](path)
    with pytest.raises(InsufficientDataError, match="active in 60 of 60 samples"):
        example["train"](
            custom(tmp_path / "e.npz", X, np.full(60, 2.5), output_type="feature_activation")
        )


def test_integral_activations_of_a_feature_are_a_quantity(example, tmp_path, X):
    y = np.rint(np.abs(X[:, 0])).astype(np.float32) + 1
    path = custom(tmp_path / "d.npz", X, y, output_type="feature_activation")

    assert example["train"](path, cv=3)[1]["model_type"] == "ridge"


@pytest.mark.parametrize(
    ("y", "model"),
    [
        (np.arange(60) % 10, "logistic"),
        ((np.arange(60) % 3).astype(np.float32), "logistic"),
        (np.arange(60) % 11, "ridge"),
        ((np.arange(60) % 3) + 0.5, "ridge"),
        (np.linspace(-1, 1, 60), "ridge"),
    ],
)
def test_file_that_does_not_say_what_y_is_is_judged_by_its_values(example, tmp_path, X, y, model):
    path = custom(tmp_path / "d.npz", X, y)
    assert "meta_output_type" not in load_dataset(path).meta

    deployable, results = example["train"](path, cv=3)

    assert results["model_type"] == model
    assert results["metadata"]["meta_strategy"] == "custom"
    assert len(deployable.predict(X)) == 60


def test_many_integral_labels_are_classes_where_the_file_says_so(example, tmp_path, X):
    path = custom(tmp_path / "d.npz", X, np.arange(60) % 12, output_type="concept_label")

    assert example["train"](path, cv=3)[1]["n_classes"] == 12


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(60, int), r"Labels \[0\] have \[60\] samples, too few for 5 folds"),
        (np.arange(60) // 57, r"Labels \[0, 1\] have \[57, 3\] samples"),
    ],
)
def test_labels_that_cannot_be_scored_are_refused(example, tmp_path, X, y, message):
    with pytest.raises(InsufficientDataError, match=message):
        example["train"](custom(tmp_path / "d.npz", X, y))


def test_model_that_does_not_fit_the_target_is_refused(example, dataset):
    with pytest.raises(SklprepError, match="ridge does not fit classification; choose one of log"):
        example["train"](dataset("hidden-to-concept"), model="ridge")
    with pytest.raises(SklprepError, match="logistic does not fit regression; choose one of rid"):
        example["train"](dataset("hidden-to-feature"), model="logistic")


def test_fault_ends_the_script_in_one_line(script, tmp_path):
    with pytest.raises(SystemExit, match=r"^Error: .*none.npz"):
        script(tmp_path / "none.npz")


def test_script_runs_without_arguments(script):
    model, results, _ = script("--cv", "3")

    assert results["n_samples_total"] == 200
    assert results["test_accuracy"] > 0.5
    acts = make_activations(200, n_layers=8, best_layer=5, random_state=0)
    assert np.mean(model.predict(acts) == acts.labels) > 0.6


# ---- the next stage's own script, which knows numpy and scikit-learn only --------------------


def read_plainly(path):
    """Every entry as the next stage reads it: meta as Python values."""
    data = np.load(path)
    meta = {}
    for key in data.files:
        if key.startswith("meta_"):
            value = data[key]
            meta[key] = value.item() if value.ndim == 0 else value.tolist()
    return data["X"], data["y"], meta, data


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_plain_script_of_the_next_stage_is_clean_on_its_test_rows(dataset, folder, strategy):
    path = dataset(strategy, "--test-size", "0.2", "--random-state", "42")
    X, y, meta, data = read_plainly(path)
    rows = np.arange(len(X))
    X_train, X_test, y_train, y_test, train, test = train_test_split(
        X, y, rows, test_size=0.2, random_state=42
    )
    classify = meta["meta_output_type"] == "concept_label"
    models = (
        [LogisticRegression(max_iter=2000), SVC(), RandomForestClassifier(20)]
        if classify
        else [Ridge(), SVR(), RandomForestRegressor(20)]
    )

    for model in models:
        assert model.fit(X_train, y_train).predict(X_test).shape == y_test.shape
    json.dumps(meta)
    assert meta["meta_train_indices"] == train.tolist()
    assert meta["meta_test_indices"] == sorted(test.tolist())
    assert meta["meta_n_samples"] == len(X)
    assert meta["meta_input_dims"] == X.shape[1]
    acts = load_activations(folder)
    raw = np.concatenate(
        [acts.layer(layer) for layer in meta["meta_input_layers"]] or [acts.embeddings], axis=1
    ).astype(np.float64)
    np.testing.assert_allclose(data["norm_mean"], raw[train].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(data["norm_std"], raw[train].std(axis=0), rtol=1e-9)
    assert not np.allclose(data["norm_mean"], raw.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(X_train.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("normalize", ["maxabs", "none"])
def test_sae_features_train_as_other_inputs_do(example, folder, tmp_path, normalize):
    acts = load_activations(folder)
    strategy = make_strategy("feature-to-concept", layers=1, normalize=normalize)
    generate_dataset(acts, *strategy, output=tmp_path / "d.npz")

    model, results = example["train"](tmp_path / "d.npz", cv=3)

    assert (30, "logistic") == (results["n_features"], results["model_type"])
    on_rows = model[-1].predict(load_dataset(tmp_path / "d.npz").X)
    np.testing.assert_array_equal(on_rows, model.predict(acts))


def test_stratified_split_is_that_of_the_next_stage(dataset):
    path = dataset("hidden-to-concept", "--test-size", "0.2", "--stratify")
    X, y, meta, _ = read_plainly(path)

    X_train, _, y_train, _ = train_test_split(X, y, test_size=0.2, random_state=42, stratify=y)

    np.testing.assert_array_equal(X[meta["meta_train_indices"]], X_train)
    np.testing.assert_array_equal(y[meta["meta_train_indices"]], y_train)
