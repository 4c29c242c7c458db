"""SAE features as input: the sparse selector, its datasets and sweeps, several targets at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array, issparse
from sentence_files import write_folder
from sklearn import config_context
from sklearn.base import clone
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

import sklprep.datasets.batch
from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    FeatureTargetExtractor,
    LayerSelector,
    RowSpaceProjector,
    SAEFeatureSelector,
    generate_dataset,
    layer_sweep,
    load_activations,
    load_dataset,
    make_strategy,
)
from sklprep.cli.main import main
from sklprep.exceptions import (
    DataError,
    FeatureNotFoundError,
    LayerNotFoundError,
    LayerSpecError,
    PipelineError,
    SklprepWarning,
    UsageError,
)
from sklprep.formats.pack_writer import build_pack

SAE_LAYERS, L0S = [7, 12, 12, 0], [40, 80, 20, 33]
N, D = 40, 10


def make_dense(seed=0):
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, size=(N, 4, D)).astype(np.float32)
    values[rng.random(values.shape) < 0.7] = 0
    values[:, :, 9] = 0  # a dead feature
    return values


def make_set(values=None, **options):
    values = make_dense() if values is None else values
    given = {"sae_layers": SAE_LAYERS, "average_l0s": L0S, "labels": np.arange(len(values)) % 3}
    return ActivationSet.from_arrays(activations=values, **given | options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """104 sentence files of two SAEs in layer 2, one in layers 0 and 1."""
    path = tmp_path_factory.mktemp("sae") / "demo_features"
    write_folder(path, 104, layers=(0, 1, 2, 2), n_features=30, average_l0s=np.array([9, 9, 9, 20]))
    return path


# ---- the selector ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "configs"),
    [
        ({"layers": 7}, [0]),
        ({"layers": "0,7"}, [3, 0]),
        ({"layers": [7, 0]}, [3, 0]),
        ({"layers": 12, "average_l0": 80}, [1]),
        ({"layers": 12, "average_l0": [80, 20]}, [2, 1]),
        ({"average_l0": [33, 40, 20]}, [3, 0, 2]),
    ],
)
def test_columns_are_the_features_by_layer_and_sparsity(options, configs):
    values = make_dense()
    X = SAEFeatureSelector(**options).fit_transform(make_set(values))

    assert issparse(X)
    assert (X.format, X.dtype) == ("csr", np.float32)
    assert np.array_equal(X.toarray(), np.hstack([values[:, config] for config in configs]))


def test_chosen_features_come_in_their_order_from_every_sae():
    values = make_dense()
    selector = SAEFeatureSelector("0,7", features=[5, 2]).fit(make_set(values))

    expected = np.hstack([values[:, 3][:, [5, 2]], values[:, 0][:, [5, 2]]])
    assert np.array_equal(selector.transform(make_set(values)).toarray(), expected)
    names = ["L0_f00005", "L0_f00002", "L7_f00005", "L7_f00002"]
    assert selector.get_feature_names_out().tolist() == names
    assert selector.n_features_out_ == 4


def test_names_carry_the_sparsity_only_where_a_layer_has_several_saes():
    acts = make_set(average_l0s=[40, 80.5, 20, 33])
    selector = SAEFeatureSelector(features=3, average_l0=[20, 33, 40, 80.5]).fit(acts)

    names = ["L0_f00003", "L7_f00003", "L12_f00003_l0_20", "L12_f00003_l0_80.5"]
    assert selector.get_feature_names_out().tolist() == names


@pytest.mark.parametrize("X", [make_dense(), make_dense().astype(np.float64)], ids=["f4", "f8"])
def test_arrays_are_layers_from_0_and_keep_their_dtype(X):
    Z = SAEFeatureSelector("1,3").fit_transform(X)

    assert Z.dtype == X.dtype
    assert np.array_equal(Z.toarray(), X[:, [1, 3]].reshape(N, -1))
    one = SAEFeatureSelector(0, features=[1]).fit_transform(csr_array(X[:, 0]))
    assert np.array_equal(one.toarray(), X[:, 0, [1]])


def test_output_shares_no_memory_with_the_set():
    values = make_dense()
    acts = make_set(values)
    SAEFeatureSelector(7).fit_transform(acts).data[:] = -1

    assert np.array_equal(acts.sae_activations(7).toarray(), values[:, 0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": 31}, LayerNotFoundError, "^Layer 31 not found in data"),
        ({"layers": "5-"}, LayerSpecError, "cannot be read"),
        ({"layers": "embeddings"}, LayerSpecError, "embeddings"),
        ({"layers": 7, "features": 10}, FeatureNotFoundError, "^Feature index must be 0-9, got 10"),
        ({"layers": 7, "features": [-1]}, FeatureNotFoundError, "^Feature index must be 0-9"),
        ({"layers": 7, "features": 1.5}, TypeError, "features must be an instance of int, got 1.5"),
        ({"layers": 7, "features": [True]}, TypeError, "got True"),
        ({"layers": 7, "features": []}, ValueError, "at least one"),
        ({"layers": 7, "features": [1, 1]}, ValueError, "distinct"),
        ({"layers": 12}, FeatureNotFoundError, "^average_l0 mismatch: layer 12 has 2 SAE configs"),
        ({"layers": 12, "average_l0": 5}, FeatureNotFoundError, "^average_l0 mismatch.* 80, 20"),
        ({"layers": 7, "average_l0": [40, 5]}, FeatureNotFoundError, "^average_l0 mismatch.* 5"),
        ({"average_l0": [20, 40]}, FeatureNotFoundError, "^average_l0 mismatch: layer 0 "),
    ],
)
def test_what_the_data_does_not_have_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        SAEFeatureSelector(**options).fit(make_set())


def test_sets_and_arrays_that_do_not_fit_are_refused():
    fitted = SAEFeatureSelector(7).fit(make_set())
    with pytest.raises(ValueError, match=r"X has SAEs of 9 features, but .* was fitted on 10"):
        fitted.transform(make_set(make_dense()[:, :, :9]))
    with pytest.raises(FeatureNotFoundError, match=r"average_l0 mismatch: .* arrays carry none"):
        SAEFeatureSelector(0, average_l0=3).fit(make_dense())
    with pytest.raises(DataError, match="has no activations"):
        SAEFeatureSelector().fit(ActivationSet.from_arrays(embeddings=np.ones((3, 2))))


def test_another_sae_of_the_same_layer_is_refused_where_both_say_which_it_is(folder, tmp_path):
    write_folder(tmp_path, 3, layers=(0,), n_features=30, average_l0s=np.array([77]))
    fitted = SAEFeatureSelector(0).fit(load_activations(folder))

    with pytest.raises(FeatureNotFoundError, match="no SAE config with average_l0 9; it has 77"):
        fitted.transform(load_activations(tmp_path))
    assert fitted.transform(make_set(np.ones((2, 1, 30)), sae_layers=[0], average_l0s=[5])).sum()


def test_values_that_are_no_finite_numbers_are_refused_with_their_row():
    values = make_dense()
    values[[4, 6], 0, 2] = np.inf
    acts = make_set(values)

    for rows, row in ((slice(None), 4), ([5, 6], 6)):
        message = rf"Row {row} of the arrays: member 'activations' layer 7 has 1 NaN or infinite"
        with pytest.raises(DataError, match=message):
            SAEFeatureSelector(7).fit_transform(acts[rows])
    assert SAEFeatureSelector(0).fit_transform(acts).shape == (N, D)


# ---- max-abs scaling -------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
def test_maxabs_divides_by_the_largest_absolute_value_and_comes_back(sparse):
    X = np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32)
    X[:, 3] = 0
    given = csr_array(X) if sparse else X
    normalizer = ActivationNormalizer("maxabs").fit(given)

    largest = np.abs(X.astype(np.float64)).max(axis=0)
    Z, back = normalizer.transform(given), None
    back = normalizer.inverse_transform(Z)
    assert issparse(Z) == issparse(back) == sparse
    Z, back = (values.toarray() if sparse else values for values in (Z, back))
    assert Z.dtype == np.float32
    np.testing.assert_allclose(Z, X / np.where(largest > 0, largest, 1), rtol=1e-7)
    np.testing.assert_allclose(back, X, rtol=2e-7)
    assert list(normalizer.norm_params_) == ["norm_method", "norm_max_abs"]
    assert normalizer.norm_params_["norm_max_abs"].tolist() == largest.tolist()
    parts = ActivationNormalizer("maxabs").partial_fit(given[:7]).partial_fit(given[7:])
    assert parts.norm_params_["norm_max_abs"].tolist() == largest.tolist()


@pytest.mark.parametrize("method", ["standardize", "minmax"])
def test_methods_that_fill_zeros_refuse_sparse_columns_and_say_what_to_choose(method):
    with pytest.raises(ValueError, match=r"make sparse X dense, 1,600 bytes .* Choose 'maxabs' or"):
        ActivationNormalizer(method).fit(csr_array(make_dense()[:, 0]))


def test_none_leaves_sparse_columns_as_they_are():
    X = csr_array(make_dense()[:, 0])
    Z = ActivationNormalizer("none").fit_transform(X)

    assert np.array_equal(Z.toarray(), X.toarray())
    assert not np.shares_memory(Z.data, X.data)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_are_refused_for_sparse_columns_with_advice(kind):
    acts = make_set()
    pipe = make_pipeline(SAEFeatureSelector(7), ActivationNormalizer("maxabs"))

    with pytest.raises(ValueError, match=r"sparse matrix.*set_output\(transform='default'\)"):
        pipe.set_output(transform=kind).fit_transform(acts)
    assert issparse(pipe.set_output(transform="default").fit_transform(acts))


def test_k_sparse_probe_picks_its_features_in_every_fold():
    rng = np.random.default_rng(0)
    values = (rng.random((60, 1, 400)) < 0.4).astype(np.float32)
    noise = np.arange(60) % 2
    acts = ActivationSet.from_arrays(activations=values, labels=noise)
    probe = make_pipeline(
        SAEFeatureSelector(0),
        ActivationNormalizer("maxabs"),
        SelectKBest(k=5),
        LogisticRegression(),
    )
    plain = make_pipeline(MaxAbsScaler(), SelectKBest(k=5), LogisticRegression())
    X = csr_array(values[:, 0])

    scores = cross_val_score(probe, acts, noise)

    np.testing.assert_allclose(scores, cross_val_score(plain, X, noise))
    best = SelectKBest(k=5).fit_transform(X, noise)
    assert scores.mean() < cross_val_score(LogisticRegression(), best, noise).mean() - 0.1


# ---- strategy and dataset --------------------------------------------------------------------


def test_strategy_scales_by_maxabs_unless_told_otherwise():
    pipeline, _ = make_strategy("feature-to-concept", layers="0,7")
    assert repr(pipeline[0]) == "SAEFeatureSelector(layers='0,7')"
    assert pipeline[1].method == "maxabs"
    pipeline, _ = make_strategy("feature-to-concept", layers=12, average_l0=80, normalize="none")
    assert (pipeline[0].average_l0, pipeline[1].method) == (80, "none")
    with pytest.raises(
        UsageError, match=r"sparse X, .* choose normalize='maxabs' or normalize='none'"
    ):
        make_strategy("feature-to-concept", layers=12, normalize="standardize")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("method", ["maxabs", "none"])
def test_dataset_holds_the_features_dense_and_comes_back_bit_for_bit(tmp_path, method, compress):
    values = make_dense()[np.arange(400) % N]
    acts = make_set(values)
    strategy = make_strategy("feature-to-concept", layers="0,7", normalize=method)
    path = tmp_path / "d.npz"
    made = generate_dataset(acts, *strategy, output=path, compress=compress)

    with np.load(path) as file:
        data = dict(file)
    X = np.hstack([values[:, 3], values[:, 0]]).astype(np.float64)
    largest = np.abs(X).max(axis=0)
    expected = X / np.where(largest > 0, largest, 1) if method == "maxabs" else X
    np.testing.assert_allclose(data["X"], expected, rtol=1e-7)
    assert data["X"].dtype == np.float32
    assert data["meta_input_source"] == "activations"
    assert data["meta_input_layers"].tolist() == [0, 7]
    assert data["meta_input_dims"] == 20
    assert {k for k in data if k[:5] == "norm_"} - {"norm_method"} == (
        {"norm_max_abs"} if method == "maxabs" else set()
    )
    ds = load_dataset(path)
    assert np.array_equal(ds.pipeline.transform(acts).toarray(), ds.X)
    assert np.array_equal(ds.X, made.X)
    ds.save(tmp_path / "again.npz", compress=compress)
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_training_on_a_maxabs_dataset_equals_training_on_raw_features():
    values = make_dense()[np.arange(120) % N] + np.random.default_rng(2).random((120, 4, D))
    acts = make_set(values)
    ds = generate_dataset(acts, *make_strategy("feature-to-concept", layers="0,7"))
    X = np.hstack([acts.sae_activations(layer).toarray() for layer in (0, 7)]).astype(np.float64)
    folds = KFold(5, shuffle=True, random_state=0)

    on_dataset = cross_val_predict(ds.make_pipeline(Ridge()), ds.X, ds.y, cv=folds)
    on_raw = cross_val_predict(make_pipeline(MaxAbsScaler(), Ridge()), X, acts.labels, cv=folds)

    np.testing.assert_allclose(on_dataset, on_raw, atol=2e-5)


def test_dataset_whose_maxabs_was_changed_is_refused(tmp_path):
    path = tmp_path / "d.npz"
    acts = make_set(make_dense()[np.arange(120) % N])
    generate_dataset(acts, *make_strategy("feature-to-concept", layers=7), output=path)
    with np.load(path) as file:
        entries = dict(file)
    np.savez(path, **entries | {"norm_max_abs": entries["norm_max_abs"] * 2})

    with pytest.raises(PipelineError, match="norm_"):
        load_dataset(path)


def test_provenance_tells_saes_and_features_apart(folder):
    acts = load_activations(folder)
    target = make_strategy("embedding-to-concept")[1]
    selectors = [
        SAEFeatureSelector(2, average_l0=9),
        SAEFeatureSelector(2, average_l0=20),
        SAEFeatureSelector(2, features=[1, 2], average_l0=20),
        SAEFeatureSelector(2, features=[2, 1], average_l0=20),
        SAEFeatureSelector(0),
        LayerSelector(0),
    ]
    said = {
        generate_dataset(acts, make_pipeline(one), target).meta["meta_provenance"]
        for one in selectors
    }
    assert len(said) == len(selectors)


COMMAND = "generate --strategy feature-to-concept --quiet --force"


def run(command, *paths):
    return main([*command.split(), *map(str, paths)])


def test_command_gives_the_same_bytes_from_folder_pack_and_spooled_rows(
    folder, tmp_path, monkeypatch
):
    source = load_activations(folder)
    build_pack(source.rows.folder, tmp_path / "pack")
    commands = [
        f"{COMMAND} --layers 0-1",
        f"{COMMAND} --layer 2 --average-l0 20 --normalize none",
        "generate --strategy hidden-to-concept --quiet --layer 1",
    ]
    for i, command in enumerate(commands):
        outputs = [tmp_path / f"{i}_{place}.npz" for place in ("folder", "pack", "spooled")]
        for output, path in zip(outputs, (folder, tmp_path / "pack", folder), strict=True):
            monkeypatch.setattr(
                sklprep.datasets.batch, "SPOOL_BYTES", 0 if "spooled" in output.name else 1e9
            )
            assert run(command, "--input", path, "--output", output) == 0
        assert len({output.read_bytes() for output in outputs}) == 1
        assert load_dataset(outputs[0]).X.shape[0] == len(source)


def test_command_says_what_it_would_and_did_write(folder, tmp_path, capsys):
    command = "generate --strategy feature-to-concept --layers 0-1"
    output = ["--output", tmp_path / "{name}_{norm}.npz", "--input", folder]
    assert run(f"{command} --dry-run", *output) == 0
    assert f"{tmp_path}/sae0-1_to_concept_maxabs.npz  X (104, 60)  0.02 MB" in (
        capsys.readouterr().out
    )
    assert run(command, *output) == 0
    out = capsys.readouterr().out
    assert "X  (104, 60) float32: activations of layers 0-1, pooling final" in out
    assert "normalized: maxabs" in out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--layer 0 --normalize minmax", 2, "Error: feature-to-concept has sparse X, which minmax"),
        ("--layer 2", 1, "Error: average_l0 mismatch: layer 2 has 2 SAE configs"),
        ("--layer 9", 1, "Error: Layer 9 not found in data"),
        ("", 2, "Error: feature-to-concept needs --layers"),
    ],
)
def test_command_that_cannot_work_is_one_line(folder, tmp_path, capsys, options, code, message):
    output = tmp_path / "x.npz"
    assert run(f"{COMMAND} {options}", "--input", folder, "--output", output) == code
    err = capsys.readouterr().err
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert not output.exists()


# ---- sweep -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* rows repeat another one")
def test_sweep_scores_sae_features_beside_hidden_states_on_the_same_folds(folder):
    acts = load_activations(folder)
    specs = ["sae 1", 1, "sae 0-1", "sae 2 l0 20", "embeddings"]
    sweep = layer_sweep(None, acts, acts.labels, layers=specs, cv=4, inner_cv=2, random_state=3)

    assert sweep.layers == ["sae 1", 1, "sae 0-1", "sae 2 l0 20", "embeddings"]
    for spec, selector, scaler in [
        ("sae 1", SAEFeatureSelector(1), MaxAbsScaler()),
        ("sae 0-1", SAEFeatureSelector([0, 1]), MaxAbsScaler()),
        ("sae 2 l0 20", SAEFeatureSelector(2, average_l0=20), MaxAbsScaler()),
        (1, LayerSelector(1), StandardScaler()),
    ]:
        X = selector.fit_transform(acts).astype(np.float64)
        model = make_pipeline(scaler, LogisticRegression(solver="newton-cg", max_iter=1000))
        alone = layer_sweep(
            model,
            X.toarray() if issparse(X) else X,
            acts.labels,
            layers=[0],
            cv=4,
            inner_cv=None,
            random_state=3,
            n_repeats=1,
            baselines=False,
        )
        np.testing.assert_allclose(sweep.scores[specs.index(spec)], alone.scores[0], atol=0.04)
    text = sweep.methods_text()
    assert "SAE features of layer 1, SAE features of layers 0-1" in text
    assert "SAE features of layer 2 (average_l0 20)" in text
    assert "ActivationNormalizer(method='maxabs')" in text


def test_sweep_of_each_sae_names_the_sparsity_where_it_must(folder):
    acts = load_activations(folder)
    sweep = layer_sweep(
        None, acts, acts.labels, layers="each sae", cv=2, inner_cv=None, baselines=False
    )
    assert sweep.layers == ["sae 0", "sae 1", "sae 2 l0 9", "sae 2 l0 20"]
    assert "sae 2 l0 20" in set(sweep.table["layer"])


@pytest.mark.parametrize(
    ("acts", "layers", "error", "message"),
    [
        (np.ones((9, 2, 3)), ["sae 0"], UsageError, "SAE features need an ActivationSet"),
        (np.ones((9, 2, 3)), "each sae", UsageError, "SAE features need an ActivationSet"),
        (make_set(), ["sae 9"], LayerNotFoundError, "Layer 9 not found"),
        (make_set(), ["sae 12"], FeatureNotFoundError, "average_l0 mismatch"),
        (make_set(), ["sae x"], LayerSpecError, "'x'"),
        (make_set(), ["sae"], LayerSpecError, "'sae'"),
    ],
)
def test_sweep_of_features_that_are_not_there_is_refused(acts, layers, error, message):
    with pytest.raises(error, match=message):
        layer_sweep(None, acts, np.arange(len(acts)) % 2, layers=layers)


def test_sweep_command_sweeps_the_features_of_each_layer(folder, tmp_path, capsys):
    command = "sweep --strategy feature-to-concept --cv 2 --quiet"
    layers = {}
    for name, options in {
        "each": "",
        "l0": "--average-l0 9",
        "some": "--layers 0 --layers 0-1",
        "none": "--normalize none",
    }.items():
        output = tmp_path / f"{name}.csv"
        assert run(f"{command} {options}", folder, "--output", output) == 0
        rows = [line.split(",")[0] for line in output.read_text().splitlines()[1:]]
        layers[name] = list(dict.fromkeys(rows))
    each = ["sae 0", "sae 1", "sae 2 l0 9", "sae 2 l0 20"]
    assert layers == {
        "each": each,
        "l0": each[:3],
        "some": ["sae 0", "sae 0-1"],
        "none": each,
    }
    assert "SAE features of layer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--normalize standardize", 2, "Error: feature-to-concept has sparse X"),
        ("--row-space", 2, "Error: --row-space needs dense X"),
        ("--layers embeddings", 2, "Error: feature-to-concept sweeps SAE features"),
        ("--average-l0 5", 1, "Error: average_l0 mismatch"),
        ("--layers 2", 1, "Error: average_l0 mismatch"),
    ],
)
def test_sweep_command_that_cannot_work_is_one_line(folder, capsys, options, code, message):
    assert run(f"sweep --strategy feature-to-concept --quiet {options}", folder) == code
    assert capsys.readouterr().err.startswith(message)


# ---- several targets -------------------------------------------------------------------------


@pytest.mark.parametrize("features", [[3, 0, 5], (3, 0, 5), np.array([3, 0, 5])], ids=type)
def test_several_features_are_columns_of_y(features):
    values = make_dense() + 1
    extractor = FeatureTargetExtractor(12, features, average_l0=20)

    Y = extractor.fit_transform(make_set(values))

    assert (Y.shape, Y.dtype) == ((N, 3), np.float32)
    assert np.array_equal(Y, values[:, 2][:, [3, 0, 5]])
    assert FeatureTargetExtractor(7, [3]).fit_transform(make_set(values)).shape == (N, 1)
    assert FeatureTargetExtractor(7, 3).fit_transform(make_set(values)).shape == (N,)
    on_arrays = FeatureTargetExtractor(2, features).fit_transform(values)
    assert np.array_equal(on_arrays, Y)
    assert clone(extractor).feature is features or np.array_equal(
        clone(extractor).feature, features
    )


def test_each_rare_feature_of_several_is_warned_about():
    values = make_dense() + 1
    values[:, 0, 9] = 0
    values[3:, 0, 4] = 0
    values[:3, 0, 4] = 1

    with pytest.warns(SklprepWarning) as caught:
        FeatureTargetExtractor(7, [9, 1, 4]).fit_transform(make_set(values))
    assert [str(warning.message)[:55] for warning in caught] == [
        "Feature 9 of layer 7 is active in 0 of 40 samples: too ",
        "Feature 4 of layer 7 is active in 3 of 40 samples: too ",
    ]


@pytest.mark.parametrize(
    ("feature", "error", "message"),
    [
        ([1, 10], FeatureNotFoundError, "Feature index must be 0-9, got 10"),
        ([], ValueError, "at least one"),
        ([1, 1], ValueError, "distinct"),
        ([1, "2"], TypeError, "feature must be an instance of int, got '2'"),
        ("12", TypeError, "feature must be an instance of int, got '1'"),
    ],
)
def test_several_features_that_are_not_there_are_refused(feature, error, message):
    for X, layer in ((make_set(), 7), (make_dense(), 0)):
        with pytest.raises(error, match=message):
            FeatureTargetExtractor(layer, feature).fit_transform(X)


def test_dataset_of_several_targets_is_refused_with_advice():
    acts = make_set(embeddings=np.ones((N, 2)))
    with pytest.raises(
        UsageError, match=r"one target, but y has shape \(40, 2\). Make one dataset for"
    ):
        generate_dataset(
            acts, make_pipeline(LayerSelector("embeddings")), FeatureTargetExtractor(7, [0, 1])
        )


def test_row_space_refuses_sparse_features():
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        RowSpaceProjector().fit(csr_array(make_dense()[:, 0]))


@pytest.mark.parametrize("container", ["pandas", "polars"])
class TestDataFramesByDefault:
    def test_sparse_output_stays_sparse_in_pipelines(self, folder, container):
        acts = load_activations(folder)
        model = make_pipeline(
            SAEFeatureSelector("0-1"), ActivationNormalizer("maxabs"), LogisticRegression()
        )
        expected = cross_val_score(model, acts, acts.labels, cv=2)

        with config_context(transform_output=container):
            assert issparse(SAEFeatureSelector(0).fit(acts).transform(acts))
            assert issparse(model[:-1].fit_transform(acts))
            np.testing.assert_array_equal(expected, cross_val_score(model, acts, acts.labels, cv=2))

    def test_dense_output_becomes_a_frame(self, folder, container):
        acts = load_activations(folder)
        library = pytest.importorskip(container)

        with config_context(transform_output=container):
            X = make_pipeline(LayerSelector(0), ActivationNormalizer()).fit_transform(acts)

        assert isinstance(X, library.DataFrame)

    def test_a_frame_that_is_asked_for_is_still_refused(self, folder, container):
        acts = load_activations(folder)

        with pytest.raises(ValueError, match="sparse"):
            SAEFeatureSelector(0).set_output(transform=container).fit_transform(acts)
