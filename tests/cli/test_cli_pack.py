"""`sklprep pack --labels --groups`: what is joined travels into the pack."""

import numpy as np
import pytest
from dump_files import write_safetensors

from sklprep import load_activations, make_activations

N = 12
LABELS = np.arange(N) % 2
GROUPS = np.arange(N) // 3


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The same rows as sentence files, as a dump and as a pack, and the two CSV files."""
    root = tmp_path_factory.mktemp("joined")
    make_activations(N, n_layers=2, d_model=4, n_features=8, output=root / "sentences")
    acts = load_activations(root / "sentences")
    acts.to_pack(root / "pack")
    tensors = {f"layer_{layer}": acts.layer(layer) for layer in (0, 1)}
    write_safetensors(root / "dump/acts.safetensors", tensors)
    for name, values in (("label", LABELS), ("group", GROUPS)):
        lines = [f"{index},{value}" for index, value in enumerate(values)]
        (root / f"{name}s.csv").write_text("\n".join([f"sentence_index,{name}", *lines, ""]))
    return root


@pytest.mark.parametrize("kind", ["sentences", "dump", "pack"])
def test_joined_labels_and_groups_travel_into_the_pack(inputs, kind, tmp_path, run_command):
    joined = {name: inputs / f"{name}.csv" for name in ("labels", "groups")}
    options = [part for name, path in joined.items() for part in (f"--{name}", path)]

    result = run_command("pack", inputs / kind, tmp_path / "out", *options, "--verify")

    pack, expected = load_activations(tmp_path / "out"), load_activations(inputs / kind, **joined)
    said = f"{tmp_path / 'out'}: {N} sentences, {N} rows, pooling final, all digests match\n"
    assert (0, said, "") == result
    np.testing.assert_array_equal(LABELS, pack.labels)
    np.testing.assert_array_equal(GROUPS, pack.groups)
    np.testing.assert_array_equal(expected.hidden_states, pack.hidden_states)
    assert expected.fingerprint == pack.fingerprint


def test_a_pack_with_joined_labels_does_not_grow(inputs, tmp_path, run_command):
    argv = ["pack", inputs / "sentences", tmp_path / "out"]
    assert 0 == run_command(*argv, "--labels", inputs / "labels.csv")[0]

    again = run_command(*argv, "--labels", inputs / "labels.csv")
    without = run_command(*argv)

    assert (2, "") == again[:2]
    assert "is not empty; name a folder that does not exist yet" in again[2]
    assert (2, "") == without[:2]
    assert "so it cannot grow" in without[2]


def test_labels_are_not_ignored_where_nothing_is_written(inputs, run_command):
    argv = ["pack", inputs / "pack", "--verify", "--labels", inputs / "labels.csv"]

    assert (2, "", "Error: Give INPUT and OUT") == (
        *(result := run_command(*argv))[:2],
        result[2][:25],
    )


def test_faulty_files_are_left_out_with_their_labels(inputs, tmp_path, run_command):
    make_activations(N, n_layers=2, d_model=4, n_features=8, output=tmp_path / "data")
    (tmp_path / "data/sentence_000004.npz").write_bytes(b"")
    argv = ["pack", tmp_path / "data", tmp_path / "out", "--labels", inputs / "labels.csv"]

    code, _, err = run_command(*argv, "--skip-bad")

    assert (0, True) == (code, "sentence_000004.npz" in err)
    pack = load_activations(tmp_path / "out")
    np.testing.assert_array_equal(np.delete(LABELS, 4), pack.labels)
