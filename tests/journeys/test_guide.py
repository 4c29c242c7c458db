"""The guide's "Python API Usage" and the functions it names."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping

import numpy as np
import pytest
from sklearn import config_context

from sklprep import (
    get_final_token_data,
    load_all_sentences,
    load_dataset,
    normalize_features,
    parse_layers_arg,
    save_dataset,
)
from sklprep.exceptions import FileFormatError, LayerSpecError, OutputError

FOLDER = "s1_compute_all_features/dishonesty_100_features"
N_SENTENCES, D_MODEL, D_EMBED, N_FEATURES = 4, 6, 5, 9

# The guide's code; only its two import lines are changed.
SNIPPET = """
from sklprep import load_all_sentences, get_final_token_data
from sklprep import normalize_features, save_dataset, parse_layers_arg

# Load data
sentences = load_all_sentences("../s1_compute_all_features/dishonesty_100_features")
data = get_final_token_data(sentences)

# Access components
embeddings = data['embeddings']  # [n_samples, 2048]
hidden_states = data['hidden_states']  # [n_samples, 26, 2048]
labels = data['labels']  # [n_samples]

# Custom layer selection
layers = parse_layers_arg("0-2,10,15-17")  # [0, 1, 2, 10, 15, 16, 17]
X = hidden_states[:, layers, :].reshape(len(hidden_states), -1)  # Concatenate

# Normalize
X_norm, norm_params = normalize_features(X, method='standardize')

# Save custom dataset
metadata = {
    'strategy': 'custom',
    'input_source': 'hidden_states',
    'input_layers': layers,
    'input_dims': X.shape[1],
    'n_samples': len(X)
}
metadata.update(norm_params)
save_dataset(X_norm, labels, metadata, "custom_dataset.npz")
"""


def write_sentence_files(folder, layers, average_l0s, seed=0):
    """Sentence files as the extraction stage writes them; returns their final-token rows."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = {"embeddings": [], "hidden_states": [], "activations": [], "labels": []}
    of_layer = {}
    for index in range(N_SENTENCES):
        n_tokens = 3 + index
        final = np.arange(n_tokens) == n_tokens - 1
        for layer in dict.fromkeys(layers):
            of_layer[layer] = rng.normal(100, 3, (n_tokens, D_MODEL)).astype(np.float32)
        activations = rng.gamma(1.0, size=(len(layers), n_tokens, N_FEATURES))
        activations[activations < 1] = 0
        members = {
            "embeddings": rng.normal(size=(n_tokens, D_EMBED)).astype(np.float32),
            "hidden_states": np.stack([of_layer[layer] for layer in layers]),
            "activations": activations.astype(np.float32),
            "is_final_token": final,
            "concept_strength_label": np.int64((3 * index) % 4),
            "sentence_index": np.int64(index),
            "sentence": np.array(f"Sentence number {index}."),
            "layers": np.array(layers),
            "average_l0s": np.array(average_l0s),
            "fragments": np.array([f"Sentence {t}" for t in range(n_tokens)]),
            "token_positions": np.arange(n_tokens),
            "fragment_lengths": np.arange(1, n_tokens + 1),
            "num_features": np.int64(N_FEATURES),
            "hidden_dim": np.int64(D_MODEL),
        }
        np.savez(folder / f"sentence_{index:06d}.npz", **members)
        rows["embeddings"].append(members["embeddings"][final][0])
        rows["hidden_states"].append(members["hidden_states"][:, final][:, 0])
        rows["activations"].append(members["activations"][:, final][:, 0])
        rows["labels"].append(int(members["concept_strength_label"]))
    return {name: np.stack(values) for name, values in rows.items()}


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """26 layers beside the working folder, as in the guide; the final-token rows."""
    work = tmp_path / "s4_classifier_data_prep"
    work.mkdir()
    monkeypatch.chdir(work)
    return write_sentence_files(tmp_path / FOLDER, list(range(26)), [82] * 26)


@pytest.fixture
def data(rows):
    return get_final_token_data(load_all_sentences(f"../{FOLDER}"))


def run_snippet():
    names = {}
    exec(SNIPPET, names)
    return names


# The snippet.


def test_snippet_reads_the_final_token_of_every_sentence(rows):
    names = run_snippet()
    for name in "embeddings", "hidden_states", "labels":
        np.testing.assert_array_equal(rows[name], names[name])
    assert names["hidden_states"].shape == (N_SENTENCES, 26, D_MODEL)
    assert names["layers"] == [0, 1, 2, 10, 15, 16, 17]


def test_snippet_writes_the_keys_of_the_guide(rows):
    run_snippet()
    with np.load("custom_dataset.npz", allow_pickle=False) as file:
        stored = dict(file)
    assert set(stored) == {
        "X",
        "y",
        "meta_strategy",
        "meta_input_source",
        "meta_input_layers",
        "meta_input_dims",
        "meta_n_samples",
        "norm_method",
        "norm_mean",
        "norm_std",
    }
    assert stored["meta_strategy"] == "custom"
    assert stored["meta_input_source"] == "hidden_states"
    assert stored["meta_input_layers"].tolist() == [0, 1, 2, 10, 15, 16, 17]
    assert stored["meta_input_dims"] == 7 * D_MODEL
    assert stored["meta_n_samples"] == N_SENTENCES
    assert stored["norm_method"] == "standardize"


def test_snippet_writes_the_values_of_independent_arithmetic(rows):
    run_snippet()
    raw = np.hstack([rows["hidden_states"][:, layer] for layer in (0, 1, 2, 10, 15, 16, 17)])
    raw = raw.astype(np.float64)
    with np.load("custom_dataset.npz", allow_pickle=False) as file:
        stored = dict(file)
    np.testing.assert_allclose(stored["norm_mean"], raw.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(stored["norm_std"], raw.std(axis=0), rtol=1e-10)
    expected = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    np.testing.assert_allclose(stored["X"], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(rows["labels"], stored["y"])
    assert stored["X"].dtype == np.float32
    assert stored["y"].dtype == np.int64


def test_the_custom_dataset_loads_without_a_pipeline(rows):
    names = run_snippet()
    ds = load_dataset("custom_dataset.npz")
    np.testing.assert_array_equal(names["X_norm"], ds.X)
    np.testing.assert_array_equal(rows["labels"], ds.y)
    assert ds.pipeline is None
    assert ds.meta["meta_strategy"] == "custom"
    assert ds.norm["norm_method"] == "standardize"
    np.testing.assert_array_equal(names["norm_params"]["norm_mean"], ds.norm["norm_mean"])


# The mapping.


def test_mapping_holds_the_arrays_of_the_guide(rows, data):
    assert isinstance(data, Mapping)
    assert set(data) == {
        "embeddings",
        "hidden_states",
        "activations",
        "labels",
        "layers",
        "average_l0s",
        "sentence_indices",
        "sentences",
    }
    assert len(data) == 8
    assert data["layers"].tolist() == list(range(26))
    assert data["average_l0s"].tolist() == [82] * 26
    assert data["sentence_indices"].tolist() == [0, 1, 2, 3]
    assert data["sentences"].tolist() == [f"Sentence number {i}." for i in range(N_SENTENCES)]
    assert len(data["activations"]) == 26
    for config, matrix in enumerate(data["activations"]):
        np.testing.assert_array_equal(rows["activations"][:, config], matrix.toarray())


def test_mapping_is_per_config_where_a_layer_has_several(tmp_path):
    layers, average_l0s = [12, 3, 12], [20, 30, 80]
    rows = write_sentence_files(tmp_path / "several", layers, average_l0s)
    data = get_final_token_data(load_all_sentences(tmp_path / "several"))
    assert data["layers"].tolist() == layers
    assert data["average_l0s"].tolist() == average_l0s
    np.testing.assert_array_equal(rows["hidden_states"], data["hidden_states"])
    np.testing.assert_array_equal(
        rows["activations"], np.stack([m.toarray() for m in data["activations"]], axis=1)
    )


def test_mapping_gives_the_same_object_at_every_look_up(data):
    for name in data:
        assert data[name] is data[name]


def test_mapping_refuses_an_unknown_key_and_lists_those_there_are(data):
    with pytest.raises(KeyError, match=r"'hidden'; expected one of embeddings, hidden_states"):
        data["hidden"]
    assert "hidden" not in data
    assert data.get("hidden") is None


def break_member(path, member):
    """Flip the last byte of a stored member, so that reading it fails its CRC."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{member}.npy")
    content = bytearray(path.read_bytes())
    name_and_extra = content[info.header_offset + 26 : info.header_offset + 30]
    start = info.header_offset + 30 + int.from_bytes(name_and_extra[:2], "little")
    start += int.from_bytes(name_and_extra[2:], "little")
    content[start + info.compress_size - 1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("member", ["embeddings", "hidden_states", "activations"])
def test_mapping_reads_a_member_only_when_it_is_looked_up(tmp_path, rows, member):
    """A broken member is noticed by reading it, and by nothing else."""
    break_member(tmp_path / FOLDER / "sentence_000002.npz", member)
    data = get_final_token_data(load_all_sentences(tmp_path / FOLDER))
    assert member in data
    assert member in list(data)
    for name in set(data) - {member, "activations"}:
        if name in rows:
            np.testing.assert_array_equal(rows[name], data[name])
        else:
            assert len(data[name])
    with pytest.raises(FileFormatError, match=f"sentence_000002.*{member}"):
        data[member]


# The functions.


@pytest.mark.parametrize(
    ("spec", "layers"),
    [
        ("0-5", [0, 1, 2, 3, 4, 5]),
        ("10-15", [10, 11, 12, 13, 14, 15]),
        ("2,5,10", [2, 5, 10]),
        ("0,12,25", [0, 12, 25]),
        ("0-2,10,15-17", [0, 1, 2, 10, 15, 16, 17]),
        ("5-7,12,20-22", [5, 6, 7, 12, 20, 21, 22]),
        ("12", [12]),
    ],
)
def test_parse_layers_arg_reads_the_examples_of_the_guide(spec, layers):
    assert parse_layers_arg(spec) == layers


@pytest.mark.parametrize("spec", ["5-2", "1,,3", "-1", "", "a"])
def test_parse_layers_arg_refuses_what_it_cannot_read(spec):
    with pytest.raises(LayerSpecError):
        parse_layers_arg(spec)


MATRIX = np.array([[3000.0, 1.0, 7.0], [3002.0, -1.0, 7.0], [3007.0, 5.0, 7.0]], np.float32)


@pytest.mark.parametrize(
    ("method", "expected", "arrays"),
    [
        (
            "standardize",
            (MATRIX - MATRIX.mean(axis=0)) / [8.6666666**0.5, 6.2222222**0.5, 1],
            {
                "norm_mean": [3003, 5 / 3, 7],
                "norm_std": [(26 / 3) ** 0.5, (56 / 9) ** 0.5, 1],
            },
        ),
        (
            "minmax",
            (MATRIX - [3000, -1, 7]) / [7, 6, 1],
            {"norm_min": [3000, -1, 7], "norm_max": [3007, 5, 7]},
        ),
        ("none", MATRIX, {}),
    ],
)
def test_normalize_features_returns_the_norm_entries(method, expected, arrays):
    before = MATRIX.copy()
    X_norm, norm_params = normalize_features(MATRIX, method=method)
    np.testing.assert_allclose(X_norm, expected, rtol=0, atol=1e-6)
    assert list(norm_params) == ["norm_method", *arrays]
    assert norm_params["norm_method"] == method
    for name, values in arrays.items():
        np.testing.assert_allclose(norm_params[name], values, rtol=1e-12)
        assert norm_params[name].dtype == np.float64
    assert X_norm.dtype == np.float32
    np.testing.assert_array_equal(before, MATRIX)


def test_normalize_features_returns_an_array_where_transformers_give_frames():
    with config_context(transform_output="pandas"):
        X_norm, _ = normalize_features(MATRIX)
    assert isinstance(X_norm, np.ndarray)


def test_normalize_features_standardizes_by_default_and_takes_lists():
    X_norm, norm_params = normalize_features([[0.0], [4.0]])
    assert X_norm.tolist() == [[-1], [1]]
    assert norm_params["norm_method"] == "standardize"


def test_normalize_features_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="'zscore'"):
        normalize_features(MATRIX, method="zscore")


def test_save_dataset_prefixes_every_key_but_those_of_the_normalization(tmp_path):
    path = tmp_path / "new folder" / "custom.npz"
    metadata = {
        "strategy": "custom",
        "meta_trait": "dishonesty",
        "norm_method": "none",
        "seed": 3,
        "cleaned": True,
        "layers": [1, 2],
    }
    save_dataset(MATRIX.astype(np.float64), [0.5, 1.5, 2.5], metadata, path)
    with np.load(path, allow_pickle=False) as file:
        stored = {name: file[name].tolist() for name in file.files}
        assert (file["X"].dtype, file["y"].dtype) == (np.float32, np.float64)
    assert stored == {
        "X": MATRIX.tolist(),
        "y": [0.5, 1.5, 2.5],
        "meta_strategy": "custom",
        "meta_trait": "dishonesty",
        "norm_method": "none",
        "meta_seed": 3,
        "meta_cleaned": True,
        "meta_layers": [1, 2],
    }


def test_save_dataset_writes_the_same_bytes_for_the_same_arrays(tmp_path):
    for name in "a.npz", "b.npz":
        save_dataset(MATRIX, [0, 1, 2], {"strategy": "custom"}, str(tmp_path / name))
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("value", [None, {"a": 1}, [1, None]], ids=repr)
def test_save_dataset_refuses_what_only_a_pickle_could_hold_and_keeps_the_old_file(tmp_path, value):
    path = tmp_path / "custom.npz"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="'meta_extra' is an object array"):
        save_dataset(MATRIX, [0, 1, 2], {"extra": value}, path)
    assert path.read_bytes() == b"old"
    assert [path] == list(tmp_path.iterdir())
