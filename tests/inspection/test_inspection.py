"""The facts of `inspect`: compared with numpy arithmetic on files written by hand."""

import numpy as np
import pytest
from sentence_files import write_folder

from sklprep import ActivationSet, generate_dataset, load_activations, make_strategy
from sklprep.formats.pack_reader import Pack
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.rows import Rows
from sklprep.formats.sentence_folder import SentenceFolder
from sklprep.inspection.describe import (
    MASSIVE,
    DenseStats,
    Scan,
    SparseStats,
    describe_activations,
    describe_dataset,
    describe_values,
    scan_dataset,
)

N, LAYERS, L0S = 7, (4, 2, 2), (70, 80, 90)


def write(tmp_path, **options):
    return write_folder(tmp_path / "data", N, layers=LAYERS, **options)


def open_folder(tmp_path, pooling="final"):
    folder = SentenceFolder(tmp_path / "data", pooling=pooling)
    return ActivationSet(Rows(folder)), folder


def rows_of(files, member, pooling):
    """Pooled rows with the configs in front: (n_configs, n_rows, width)."""
    parts = []
    for file in files:
        tokens = np.atleast_3d(file[member].T).T  # (configs, tokens, width)
        if pooling == "final":
            tokens = tokens[:, file["is_final_token"]]
        elif pooling == "mean":
            tokens = tokens.mean(axis=1, dtype=np.float64, keepdims=True).astype(np.float32)
        parts.append(tokens)
    return np.concatenate(parts, axis=1).astype(np.float64)


def expect_dense(rows):
    peaks = np.abs(rows).max(axis=0)
    large = [int(i) for i in np.argsort(-peaks) if peaks[i] > MASSIVE * np.median(peaks)]
    return {
        "min": rows.min(),
        "max": rows.max(),
        "median_peak": np.median(peaks),
        "n_massive": len(large),
        "massive": [{"dimension": i, "peak": peaks[i]} for i in large],
        "n_constant": int((rows == rows[0]).all(axis=0).sum()),
        "n_rows_not_finite": 0,
    }


def expect_sparse(rows):
    active = (rows != 0).sum(axis=0)
    return {
        "mean_active": (rows != 0).sum(axis=1).mean(),
        "max": rows.max(),
        "n_dead": int((active == 0).sum()),
        "n_rare": int(((active > 0) & (active < 10)).sum()),
        "n_always_on": int((active == len(rows)).sum()),
        "median_active_rows": np.median(active[active > 0]),
        "n_values_not_finite": 0,
    }


def expect_values(files, pooling):
    states = rows_of(files, "hidden_states", pooling)
    features = rows_of(files, "activations", pooling)
    return {
        "embeddings": expect_dense(rows_of(files, "embeddings", pooling)[0]),
        "hidden_states": [
            {"layer": layer, **expect_dense(states[LAYERS.index(layer)])} for layer in (2, 4)
        ],
        "activations": [
            {"layer": layer, "average_l0": l0, **expect_sparse(rows)}
            for layer, l0, rows in zip(LAYERS, L0S, features, strict=True)
        ],
    }


@pytest.mark.parametrize("pooling", ["final", "mean", "none"])
def test_values_are_those_of_the_pooled_rows(tmp_path, pooling):
    files = write(tmp_path)
    acts, _ = open_folder(tmp_path, pooling)

    values = describe_values(acts, Scan(acts))

    assert expect_values(files, pooling) == values


@pytest.mark.parametrize("pooling", ["final", "none"])
def test_pack_and_view_have_the_values_of_their_folder(tmp_path, pooling):
    files = write(tmp_path, dtype="float16")
    acts, folder = open_folder(tmp_path, pooling)
    build_pack(folder, tmp_path / "pack")
    pack = ActivationSet(Rows(Pack(tmp_path / "pack", pooling=None)))
    view = acts[np.arange(len(acts))]
    expected = expect_values(files, pooling)

    assert expected == describe_values(pack, Scan(pack))
    assert expected == describe_values(view, Scan(view))


def test_streaming_keeps_nothing_in_memory(tmp_path):
    write(tmp_path)
    acts, folder = open_folder(tmp_path)
    before = set(vars(folder))

    Scan(acts)

    assert folder._kept == {}
    assert before == set(vars(folder))


def test_kept_layer_is_that_of_the_set(tmp_path):
    write(tmp_path)
    acts, _ = open_folder(tmp_path)

    np.testing.assert_array_equal(acts.layer(4), Scan(acts, keep=4).kept)


@pytest.mark.parametrize("pooling", ["final", "none"])
def test_facts_of_headers_are_those_of_the_files(tmp_path, pooling):
    files = write(tmp_path)
    acts, _ = open_folder(tmp_path, pooling)
    facts = describe_activations(acts)
    lengths = [len(file["embeddings"]) for file in files]
    labels = [int(file["concept_strength_label"]) for file in files]

    assert {
        "kind": "sentence folder",
        "format": {"name": "sentences", "version": ""},
        "mapping": "",
        "path": str(tmp_path / "data"),
        "name": "data",
        "n_bytes": sum(path.stat().st_size for path in (tmp_path / "data").iterdir()),
        "fingerprint": load_activations(tmp_path / "data").fingerprint,
        "pooling": pooling,
        "n_sentences": N,
        "n_rows": N if pooling == "final" else sum(lengths),
        "left_out": [],
        "labels": {str(label): labels.count(label) for label in sorted(set(labels))},
        "labels_fault": "",
        "has_text": True,
        "tokens": {
            "min": min(lengths),
            "median": np.median(lengths),
            "max": max(lengths),
            "sum": sum(lengths),
        },
        "embeddings": {"width": 5, "dtypes": ["float32"]},
        "hidden_states": {"width": 7, "dtypes": ["float32"]},
        "activations": {"width": 40, "dtypes": ["float32"]},
        "layers": [2, 4],
        "saes": [{"layer": layer, "average_l0": l0} for layer, l0 in zip(LAYERS, L0S, strict=True)],
        "values": None,
    } == facts


def test_every_dtype_of_a_member_is_named(tmp_path):
    write(tmp_path, changes={3: {"dtype": "float16"}})

    facts = describe_activations(open_folder(tmp_path)[0])

    assert ["float16", "float32"] == facts["hidden_states"]["dtypes"]


def test_missing_members_labels_and_text_are_none(tmp_path):
    write(tmp_path, omit=("activations", "embeddings", "sentence", "concept_strength_label"))
    acts, _ = open_folder(tmp_path)
    facts = describe_activations(acts)
    values = describe_values(acts, Scan(acts))

    assert (None, None, []) == (facts["embeddings"], facts["activations"], facts["saes"])
    assert (None, False) == (facts["labels"], facts["has_text"])
    assert "concept_strength_label" in facts["labels_fault"]
    assert (None, []) == (values["embeddings"], values["activations"])


def test_folder_of_features_alone_has_no_layers(tmp_path):
    write(tmp_path, omit=("hidden_states", "embeddings"))
    acts, _ = open_folder(tmp_path)

    assert [] == describe_activations(acts)["layers"]
    assert [] == describe_values(acts, Scan(acts))["hidden_states"]


@pytest.mark.parametrize("pooling", ["final", "none"])
def test_pack_knows_token_lengths_only_where_tokens_are_rows(tmp_path, pooling):
    files = write(tmp_path)
    _, folder = open_folder(tmp_path, pooling)
    pack = build_pack(folder, tmp_path / "pack")
    facts = describe_activations(ActivationSet(Rows(pack)))
    expected = None if pooling == "final" else sum(len(file["embeddings"]) for file in files)

    assert expected == (facts["tokens"] and facts["tokens"]["sum"])
    assert ("pack", N) == (facts["kind"], facts["n_sentences"])
    assert ["float32"] == facts["activations"]["dtypes"]


def test_massive_dimensions_are_the_largest_first():
    rows = np.ones((3, 9))
    rows[1, [2, 6]] = [-30, 25]
    stats = DenseStats(9)
    stats.add(rows[:1])
    stats.add(rows[1:])

    facts = stats.facts()

    assert [{"dimension": 2, "peak": 30.0}, {"dimension": 6, "peak": 25.0}] == facts["massive"]
    assert [0, 1, 3, 4, 5, 7, 8] == stats.constant.tolist()


def test_values_that_are_not_finite_are_counted_and_left_out():
    stats = DenseStats(3)
    stats.add(np.array([[1, np.nan, np.inf], [2, np.nan, 5], [3, np.nan, -5]], np.float32))
    facts = stats.facts()

    assert (-5.0, 5.0, 3) == (facts["min"], facts["max"], facts["n_rows_not_finite"])
    assert [] == stats.constant.tolist()


def test_columns_without_a_finite_value_have_no_range():
    stats = DenseStats(2)
    stats.add(np.full((2, 2), np.nan))
    facts = stats.facts()

    assert (None, None, None, 2) == (
        facts["min"],
        facts["max"],
        facts["median_peak"],
        facts["n_rows_not_finite"],
    )


def test_stored_zeros_are_not_active():
    stats = SparseStats(4)
    stats.add(np.array([0, 1, 3]), np.array([0.0, 2.0, np.nan], np.float32))

    assert [0, 1, 0, 1] == stats.active.tolist()
    assert (2.0, 1) == (stats.facts(1)["max"], stats.facts(1)["n_values_not_finite"])


@pytest.fixture
def dataset(tmp_path):
    write_folder(tmp_path / "data", 12, layers=LAYERS)
    acts = load_activations(tmp_path / "data")
    path = tmp_path / "d.npz"
    with pytest.warns(UserWarning, match="Only 12 samples"):
        ds = generate_dataset(
            acts,
            *make_strategy("hidden-to-concept", layers="2,4"),
            strategy="hidden-to-concept",
            fit_rows=np.arange(9),
            output=path,
        )
    return ds, path


def test_facts_of_a_dataset_are_those_of_its_file(dataset):
    ds, path = dataset
    facts = describe_dataset(ds, path)

    assert {"shape": [12, 14], "dtype": "float32"} == facts["X"]
    labels = {str(k): int((ds.y == k).sum()) for k in range(4)}
    assert {"shape": [12], "dtype": "int64", "labels": labels} == facts["y"]
    assert {"source": "hidden_states", "layers": [2, 4], "pooling": "final"} == facts["input"]
    assert {"n_train": 9, "n_test": 3} == facts["split"]
    assert [
        {"name": "layerselector", "step": "LayerSelector(layers='2,4')"},
        {"name": "activationnormalizer", "step": "ActivationNormalizer()"},
    ] == facts["pipeline"]
    assert "data" == facts["provenance"]["input"]
    assert (12, 12, "standardize") == (facts["n_rows"], facts["n_groups"], facts["norm"])


def test_scan_of_a_dataset_is_that_of_its_X(dataset):
    ds, path = dataset
    stats, digests = scan_dataset(path)

    assert expect_dense(ds.X.astype(float)) == stats.facts()
    assert 12 == len(set(digests))


def test_foreign_dataset_has_facts_too(tmp_path):
    np.savez(tmp_path / "d.npz", X=np.arange(6).reshape(3, 2), y=np.array([0.5, 0, np.nan]))
    from sklprep.datasets.dataset_file import peek_dataset

    facts = describe_dataset(peek_dataset(tmp_path / "d.npz"), tmp_path / "d.npz")
    stats, _ = scan_dataset(tmp_path / "d.npz")

    assert (None, None, None) == (facts["strategy"], facts["pipeline"], facts["provenance"])
    assert 2 == facts["y"]["n_active"]
    assert (0.0, 5.0) == (stats.facts()["min"], stats.facts()["max"])


def test_peeking_takes_no_memory_for_X(tmp_path, run_python):
    X = np.zeros((1, 1 << 25), np.float32)
    np.savez(tmp_path / "d.npz", X=X, y=np.zeros(1))
    code = (
        "import sys; from sklprep.datasets.dataset_file import peek_dataset\n"
        "from sklprep.inspection.describe import scan_dataset\n"
        "before = peak(); X = peek_dataset(sys.argv[1]).X; print(X.shape, peak() - before < 32)"
    )

    assert "(1, 33554432) True\n" == run_python(code, tmp_path / "d.npz")
