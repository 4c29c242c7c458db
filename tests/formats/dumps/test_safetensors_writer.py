"""Sets written as safetensors: what any reader finds there, and the same set again."""

import json

import numpy as np
import pytest
from sentence_files import write_folder

from sklprep import ActivationSet, load_activations, make_activations
from sklprep.exceptions import OutputError, UsageError
from sklprep.files.safetensors_file import read_safetensors_header

STATES = np.random.default_rng(0).normal(size=(6, 2, 5)).astype("<f4")
NAMES = (
    *("hidden_states", "embeddings", "labels", "sentence_indices", "sentences"),
    *("layers", "sae_layers", "average_l0s", "groups"),
)


def assert_same(acts, again):
    for name in NAMES:
        expected = getattr(acts, name)
        if name == "groups":
            expected = np.unique(expected, return_inverse=True)[1]
        np.testing.assert_array_equal(expected, getattr(again, name), name)
    for one, other in zip(acts.activations, again.activations, strict=True):
        np.testing.assert_array_equal(one.toarray(), other.toarray())
    np.testing.assert_array_equal(acts.rows.is_final_token, again.rows.is_final_token)
    assert acts.pooling == again.pooling


@pytest.mark.parametrize("pooling", ["final", "mean", "max", "none"])
@pytest.mark.parametrize("rows", [slice(None), slice(None, None, -2)])
def test_a_set_is_given_back(tmp_path, pooling, rows):
    make_activations(
        12, n_layers=3, d_model=7, n_features=33, random_state=0, output=tmp_path / "data"
    )
    acts = load_activations(tmp_path / "data", pooling=pooling)[rows]

    acts.to_safetensors(tmp_path / "a.safetensors")

    again = load_activations(tmp_path / "a.safetensors")
    assert_same(acts, again)
    again.to_pack(tmp_path / "pack")
    assert_same(again, load_activations(tmp_path / "pack"))


def test_text_labels_and_groups_are_given_back(tmp_path):
    labels = ["yes", "nö", "yes", "yes", "nö", "?"]
    groups = [4, 4, 2, 2, 9, 9]
    acts = ActivationSet.from_arrays(hidden_states=STATES, labels=labels, groups=groups)

    acts.to_safetensors(tmp_path / "a.safetensors")

    again = load_activations(tmp_path / "a.safetensors")
    assert labels == again.labels.tolist()
    assert [1, 1, 0, 0, 2, 2] == again.groups.tolist()


def test_float16_stays_so_without_sae_features(tmp_path):
    write_folder(tmp_path / "data", 3, dtype="float16", omit=("activations", "average_l0s"))
    acts = load_activations(tmp_path / "data")

    acts.to_safetensors(tmp_path / "a.safetensors")

    tensors = read_safetensors_header(tmp_path / "a.safetensors").tensors
    assert "<f2" == tensors["layer_0"].dtype == tensors["embeddings"].dtype
    np.testing.assert_array_equal(
        acts.layer(1), load_activations(tmp_path / "a.safetensors").layer(1)
    )


def test_numpy_finds_every_array_aligned_where_the_header_says(tmp_path):
    features = np.maximum(np.random.default_rng(1).normal(size=(6, 9)), 0)
    acts = ActivationSet.from_arrays(
        hidden_states=STATES, activations=[features], labels=[True, False] * 3, sae_layers=[1]
    )
    acts.to_safetensors(tmp_path / "a.safetensors")
    raw = (tmp_path / "a.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    kinds = {"F32": "<f4", "I64": "<i8", "I32": "<i4", "BOOL": "|b1"}

    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = (start + place for place in entry["data_offsets"])
            kind = np.dtype(kinds[entry["dtype"]])
            assert 0 == begin % kind.itemsize
            found[name] = np.frombuffer(raw[begin:end], kind).reshape(entry["shape"])

    np.testing.assert_array_equal(STATES[:, 1], found["layer_1"])
    np.testing.assert_array_equal([True, False] * 3, found["labels"])
    columns = found["activations.0.indices"]
    counts = np.diff(found["activations.0.indptr"])
    dense = np.zeros((6, 9), np.float32)
    dense[np.repeat(np.arange(6), counts), columns] = found["activations.0.data"]
    np.testing.assert_array_equal(features.astype("<f4"), dense)


def test_the_safetensors_library_reads_it(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    acts = ActivationSet.from_arrays(
        hidden_states=STATES, labels=range(6), sentences=list("abcdef")
    )

    acts.to_safetensors(tmp_path / "a.safetensors")

    np.testing.assert_array_equal(
        STATES[:, 0], library.load_file(tmp_path / "a.safetensors")["layer_0"]
    )


def test_more_sentences_than_a_header_holds_are_refused_and_leave_nothing(tmp_path):
    acts = ActivationSet.from_arrays(hidden_states=STATES, sentences=["x" * 10_000_000] * 6)

    with pytest.raises(UsageError, match=r"header of .* would need 60\.0 MB.* Use to_pack"):
        acts.to_safetensors(tmp_path / "a.safetensors")

    assert [] == list(tmp_path.iterdir())


def test_layers_that_have_no_name_are_refused(tmp_path):
    acts = ActivationSet.from_arrays(hidden_states=STATES, layers=[-2, 5])

    with pytest.raises(UsageError, match="Layer -2 cannot be written to safetensors"):
        acts.to_safetensors(tmp_path / "a.safetensors")


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(OutputError):
        ActivationSet.from_arrays(hidden_states=STATES).to_safetensors(tmp_path)
