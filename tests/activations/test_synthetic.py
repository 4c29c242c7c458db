"""`make_activations`: the files it writes, the rows it returns, and what is planted in them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, RidgeClassifier, RidgeCV
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklprep import make_activations
from sklprep.exceptions import OutputError, UsageError

SMALL = {"n_layers": 3, "d_model": 12, "n_features": 40, "n_tokens": (2, 9), "random_state": 0}


def read_files(folder):
    """Every sentence file as a dict, read with numpy alone."""
    files = []
    for path in sorted(folder.glob("*")):
        with np.load(path, allow_pickle=False) as members:
            files.append(dict(members))
    return files


def assert_same_rows(expected, actual):
    np.testing.assert_array_equal(expected.hidden_states, actual.hidden_states)
    np.testing.assert_array_equal(expected.embeddings, actual.embeddings)
    for left, right in zip(expected.activations, actual.activations, strict=True):
        np.testing.assert_array_equal(left.toarray(), right.toarray())
    np.testing.assert_array_equal(expected.labels, actual.labels)
    np.testing.assert_array_equal(expected.sentences, actual.sentences)
    np.testing.assert_array_equal(expected.groups, actual.groups)
    np.testing.assert_array_equal(expected.layers, actual.layers)
    np.testing.assert_array_equal(expected.sae_layers, actual.sae_layers)
    np.testing.assert_array_equal(expected.average_l0s, actual.average_l0s)


@pytest.fixture(scope="module")
def acts():
    return make_activations(random_state=0)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    make_activations(100, n_layers=4, random_state=1, output=folder)
    return read_files(folder)


def test_returns_final_token_rows_of_the_sizes_asked_for():
    acts = make_activations(7, **SMALL)
    assert len(acts) == 7
    assert acts.hidden_states.shape == (7, 3, 12)
    assert acts.embeddings.shape == (7, 12)
    assert [config.shape for config in acts.activations] == [(7, 40)] * 3
    assert acts.labels.dtype == np.int64
    assert acts.layers.tolist() == acts.sae_layers.tolist() == [0, 1, 2]
    assert acts.average_l0s.shape == (3,)


def test_defaults_are_those_of_the_signature(acts):
    assert acts.hidden_states.shape == (100, 26, 64)
    assert acts.embeddings.shape == (100, 64)
    assert acts.n_sae_features == 256


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_writes_exactly_the_members_of_a_sentence_file(tmp_path, dtype):
    make_activations(5, **SMALL, dtype=dtype, output=tmp_path)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [f"sentence_{i:06d}.npz" for i in range(5)]
    for index, members in enumerate(read_files(tmp_path)):
        n = len(members["is_final_token"])
        assert 2 <= n <= 9
        shapes = {name: (array.shape, array.dtype.kind) for name, array in members.items()}
        assert shapes == {
            "embeddings": ((n, 12), "f"),
            "hidden_states": ((3, n, 12), "f"),
            "activations": ((3, n, 40), "f"),
            "is_final_token": ((n,), "b"),
            "concept_strength_label": ((), "i"),
            "sentence_index": ((), "i"),
            "sentence": ((), "U"),
            "layers": ((3,), "i"),
            "average_l0s": ((3,), "i"),
            "fragments": ((n,), "U"),
            "token_positions": ((n,), "i"),
            "fragment_lengths": ((n,), "i"),
            "num_features": ((), "i"),
            "hidden_dim": ((), "i"),
        }
        for name, array in members.items():
            assert array.dtype.kind != "f" or array.dtype == dtype, name
            assert array.dtype.kind != "i" or array.dtype == np.int64, name
        assert members["is_final_token"].tolist() == [False] * (n - 1) + [True]
        assert members["sentence_index"] == index
        assert members["layers"].tolist() == [0, 1, 2]
        assert (members["num_features"], members["hidden_dim"]) == (40, 12)
        assert members["token_positions"].tolist() == list(range(n))


def test_a_token_is_a_word_and_fragments_grow_to_the_sentence(written):
    for members in written:
        words = str(members["sentence"]).split(" ")
        assert len(words) == len(members["is_final_token"])
        assert members["fragments"].tolist() == [
            " ".join(words[:n]) for n in range(1, len(words) + 1)
        ]
        assert members["fragment_lengths"].tolist() == list(range(1, len(words) + 1))
        assert str(members["sentence"]).endswith(".")


def test_token_counts_span_the_range_asked_for(written):
    counts = {len(members["is_final_token"]) for members in written}
    assert (min(counts), max(counts)) == (8, 30)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_folder_holds_the_same_values_as_the_set_in_memory(tmp_path, dtype):
    in_memory = make_activations(6, **SMALL, dtype=dtype)
    loaded = make_activations(6, **SMALL, dtype=dtype, output=tmp_path / "deep" / "folder")
    assert_same_rows(in_memory, loaded)
    final = [members["hidden_states"][:, -1] for members in read_files(tmp_path / "deep/folder")]
    np.testing.assert_array_equal(np.stack(final), in_memory.hidden_states)


def test_float16_is_the_float32_set_cast_once():
    single = make_activations(6, **SMALL)
    half = make_activations(6, **SMALL, dtype=np.float16)
    np.testing.assert_array_equal(single.hidden_states.astype(np.float16), half.hidden_states)


def test_a_seed_gives_the_same_bytes_again(tmp_path):
    for name in ("a", "b"):
        make_activations(3, **SMALL, output=tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_seeds_give_different_sets():
    first, second = (make_activations(4, **{**SMALL, "random_state": seed}) for seed in (0, 1))
    assert not np.array_equal(first.hidden_states, second.hidden_states)


def test_a_random_state_instance_is_used_and_moves_on():
    def twice():
        state = np.random.RandomState(3)
        return [make_activations(4, **{**SMALL, "random_state": state}) for _ in range(2)]

    first, second = twice()
    assert_same_rows(first, twice()[0])
    assert_same_rows(second, twice()[1])
    assert not np.array_equal(first.hidden_states, second.hidden_states)


def test_without_a_seed_every_call_differs():
    first, second = (make_activations(4, **{**SMALL, "random_state": None}) for _ in range(2))
    assert not np.array_equal(first.hidden_states, second.hidden_states)


def test_a_sentence_does_not_depend_on_how_many_there_are():
    assert_same_rows(make_activations(5, **SMALL), make_activations(9, **SMALL)[:5])


def test_sentences_are_distinct_however_short():
    acts = make_activations(
        300, n_layers=1, d_model=1, n_features=1, n_tokens=(1, 2), random_state=0
    )
    assert len(set(acts.sentences.tolist())) == 300
    assert acts.groups.tolist() == list(range(300))


def test_the_smallest_set_can_be_made_and_written(tmp_path):
    sizes = {"n_layers": 1, "d_model": 1, "n_features": 1, "n_tokens": (1, 1), "random_state": 0}
    assert_same_rows(make_activations(1, **sizes), make_activations(1, **sizes, output=tmp_path))


def test_labels_are_balanced_without_noise():
    labels = make_activations(20, **SMALL, label_noise=0).labels
    assert [sorted(block) for block in labels.reshape(5, 4).tolist()] == [[0, 1, 2, 3]] * 5
    assert len({tuple(block) for block in labels.reshape(5, 4).tolist()}) > 1


def test_label_noise_replaces_that_share_of_the_labels_and_nothing_else():
    clean = make_activations(2000, **SMALL, label_noise=0)
    noisy = make_activations(2000, **SMALL, label_noise=0.4)
    np.testing.assert_array_equal(clean.hidden_states, noisy.hidden_states)
    changed = np.mean(clean.labels != noisy.labels)
    assert changed == pytest.approx(0.4 * 3 / 4, abs=0.04)


def test_a_few_massive_columns_have_huge_means_and_small_deviations(acts):
    for layer, states in enumerate(np.moveaxis(acts.hidden_states.astype(np.float64), 1, 0)):
        means, stds = np.abs(states.mean(axis=0)), states.std(axis=0)
        massive = means > 20 * stds
        assert massive.sum() == 3
        relative_depth = (layer + 1) / 26
        assert np.all(means[massive] > 900 * relative_depth)
        assert np.all(means[massive] < 4100 * relative_depth)
        assert np.all(stds[massive] < 3)


def test_the_residual_stream_grows_layer_by_layer(acts):
    stds = np.median(acts.hidden_states.std(axis=0), axis=1)
    assert np.all(np.diff(stds) > 0)
    assert stds[25] / stds[0] > 10


def test_features_are_zero_or_above_a_jump(acts):
    for layer, config in enumerate(acts.activations):
        assert config.data.min() > 0.5 * (layer + 1)
        assert 0 < config.nnz < 0.03 * 100 * 256


def test_an_active_feature_is_an_affine_function_of_the_hidden_state():
    acts = make_activations(400, n_layers=2, d_model=16, n_features=4, random_state=0)
    states, values = acts.hidden_states[:, 1].astype(np.float64), acts.feature(1, 2)
    active = values > 0
    fit = LinearRegression().fit(states[active], values[active])
    assert fit.score(states[active], values[active]) == pytest.approx(1, abs=1e-6)
    assert np.all(fit.predict(states[~active]) < values[active].min() + 1e-3)


def test_average_l0s_count_the_active_features_of_a_token(written):
    counts = np.concatenate([(members["activations"] > 0).sum(axis=2) for members in written], 1)
    expected = written[0]["average_l0s"]
    np.testing.assert_allclose(counts.mean(axis=1), expected, atol=0.5)
    assert all(np.array_equal(members["average_l0s"], expected) for members in written)


def test_at_16384_features_99_5_percent_are_zeros(tmp_path):
    make_activations(4, n_layers=2, n_features=16_384, random_state=0, output=tmp_path)
    activations = np.concatenate([m["activations"] for m in read_files(tmp_path)], axis=1)
    assert np.mean(activations == 0) == pytest.approx(0.995, abs=0.002)


def test_the_first_features_are_common_and_the_others_rare(acts):
    rates = np.array([(config > 0).mean(axis=0) for config in acts.activations])
    assert rates[:, :8].min() > 0.3
    assert rates[:, :8].max() < 0.7
    assert rates[:, 8:].mean() < 0.01


def accuracy(X, y):
    model = make_pipeline(StandardScaler(), RidgeClassifier(alpha=X.shape[1]))
    return cross_val_score(model, X, y, cv=StratifiedKFold(5)).mean()


@pytest.mark.parametrize(("seed", "best_layer"), [(0, None), (1, 5), (2, 20)])
def test_the_concept_is_decoded_best_around_best_layer(seed, best_layer):
    acts = make_activations(best_layer=best_layer, random_state=seed)
    best = 15 if best_layer is None else best_layer
    layers = np.array([i for i in range(26) if abs(i - best) <= 2 or i % 4 == 0])
    scores = np.array([accuracy(acts.layer(layer), acts.labels) for layer in layers])
    distance = np.abs(layers - best)
    assert distance[scores.argmax()] <= 2
    assert scores[distance <= 1].mean() > scores[distance >= 5].max() + 0.05
    assert scores[distance >= 6].mean() == pytest.approx(0.25, abs=0.08)
    assert accuracy(acts.embeddings, acts.labels) < 0.4


@pytest.mark.parametrize(("n_layers", "best"), [(1, 0), (2, 1), (6, 3), (11, 6)])
def test_the_best_layer_is_at_60_percent_of_the_depth_by_default(n_layers, best):
    sizes = {"n_sentences": 8, "n_layers": n_layers, "random_state": 0}
    assert_same_rows(make_activations(**sizes), make_activations(**sizes, best_layer=best))


def test_labels_are_ordered_along_the_planted_direction():
    acts = make_activations(400, best_layer=10, label_noise=0, random_state=0)
    values = acts.feature(10, 0)
    means = [values[acts.labels == label].mean() for label in range(4)]
    assert np.all(np.diff(means) > 0)


def test_hidden_states_predict_a_feature_well_and_embeddings_badly(acts):
    def r2(X, layer, feature):
        model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 7)))
        return cross_val_score(model, X, acts.feature(layer, feature), cv=5).mean()

    pairs = [(layer, feature) for layer in (3, 12, 25) for feature in (1, 4)]
    assert min(r2(acts.layer(layer), layer, feature) for layer, feature in pairs) > 0.5
    assert max(r2(acts.embeddings, layer, feature) for layer, feature in pairs) < 0.2


def test_the_embedding_belongs_to_the_word(acts):
    words = np.array([sentence.split()[-1] for sentence in acts.sentences])
    for word in np.unique(words):
        assert len(np.unique(acts.embeddings[words == word], axis=0)) == 1
    assert len(np.unique(acts.embeddings, axis=0)) == len(np.unique(words))


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        ("n_sentences", 0, "n_sentences must be an int of at least 1, got 0"),
        ("n_layers", 2.0, "n_layers must be an int of at least 1, got 2.0"),
        ("d_model", True, "d_model must be an int of at least 1, got True"),
        ("n_features", "8", "n_features must be an int of at least 1, got '8'"),
        ("n_tokens", (0, 3), r"n_tokens must be .* got \(0, 3\)"),
        ("n_tokens", (5, 3), r"n_tokens must be .* got \(5, 3\)"),
        ("n_tokens", (1.0, 3), r"n_tokens must be .* got \(1.0, 3\)"),
        ("n_tokens", 8, "n_tokens must be .* got 8"),
        ("n_tokens", "ab", "n_tokens must be .* got 'ab'"),
        ("best_layer", 3, "best_layer must be None or a layer from 0 to 2, got 3"),
        ("best_layer", -1, "best_layer must be None or a layer from 0 to 2, got -1"),
        ("best_layer", 1.5, "best_layer must be None or a layer from 0 to 2, got 1.5"),
        ("label_noise", 1.1, "label_noise must be a number from 0 to 1, got 1.1"),
        ("label_noise", float("nan"), "label_noise must be a number from 0 to 1, got nan"),
        ("label_noise", "high", "label_noise must be a number from 0 to 1, got 'high'"),
        ("dtype", "float64", "dtype must be float32 or float16, got 'float64'"),
        ("dtype", "bfloat16", "dtype must be float32 or float16, got 'bfloat16'"),
        ("random_state", -1, "random_state must be an int from 0"),
        ("random_state", "seed", "random_state must be an int from 0"),
    ],
)
def test_a_parameter_out_of_range_is_refused_before_anything_is_written(
    tmp_path, parameter, value, expected
):
    arguments = {"n_sentences": 3, **SMALL, parameter: value}
    with pytest.raises(UsageError, match=expected):
        make_activations(**arguments, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_holds_sentence_files_is_left_alone(tmp_path):
    old = tmp_path / "sentence_000001.npz"
    old.write_bytes(b"precious")
    with pytest.raises(OutputError, match="already contains sentence files"):
        make_activations(3, **SMALL, output=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [old.name]
    assert old.read_bytes() == b"precious"


def test_other_files_in_the_folder_do_not_matter(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert len(make_activations(3, **SMALL, output=str(tmp_path))) == 3


def test_an_output_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        make_activations(3, **SMALL, output=path)
    with pytest.raises(OutputError, match="is a file, not a folder"):
        make_activations(3, **SMALL, output=path / "below")


def test_importing_the_module_imports_neither_scikit_learn_nor_scipy():
    code = (
        "import sys, sklprep.activations.synthetic;"
        " print(sorted({name.split('.')[0] for name in sys.modules} & {'sklearn', 'scipy'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
