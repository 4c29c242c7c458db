"""`ActivationSet.concatenate`: rows of several sets, read from where each of them lies."""

import numpy as np
import pytest
from sentence_files import damage, write_folder
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

from sklprep import ActivationSet, LayerSelector, load_activations
from sklprep.exceptions import DataError, FaultyFilesError, UsageError


@pytest.fixture
def sets(tmp_path):
    """A folder, a pack, and some rows of a folder, of one model."""
    write_folder(tmp_path / "a", 5)
    write_folder(tmp_path / "b", 4, seed=1)
    write_folder(tmp_path / "c", 6, seed=2)
    load_activations(tmp_path / "b").to_pack(tmp_path / "pack")
    return {
        "folder": load_activations(tmp_path / "a"),
        "pack": load_activations(tmp_path / "pack"),
        "rows": load_activations(tmp_path / "c")[[4, 1, 3]],
    }


def test_rows_come_one_set_after_the_other_with_their_source(sets):
    joined = ActivationSet.concatenate(sets)

    assert joined.sources.tolist() == ["folder"] * 5 + ["pack"] * 4 + ["rows"] * 3
    for name in ("embeddings", "hidden_states", "labels", "sentences", "sentence_indices"):
        expected = np.concatenate([getattr(acts, name) for acts in sets.values()])
        np.testing.assert_array_equal(expected, getattr(joined, name))
    for config, matrix in enumerate(joined.activations):
        expected = np.vstack([acts.activations[config].toarray() for acts in sets.values()])
        np.testing.assert_array_equal(expected, matrix.toarray())


def test_any_choice_of_rows_is_read_in_its_order(sets):
    joined = ActivationSet.concatenate(sets)
    rows = [11, 0, 6, 5, 0, 9]

    np.testing.assert_array_equal(joined.layer(1)[rows], joined[rows].layer(1))
    expected = joined.activations[2].toarray()[rows]
    np.testing.assert_array_equal(expected, joined[rows].activations[2].toarray())
    assert joined[rows].sources.tolist() == ["rows", "folder", "pack", "pack", "folder", "rows"]


def test_groups_of_different_sets_are_apart_but_for_equal_texts():
    def make(texts, groups=None):
        return ActivationSet.from_arrays(
            hidden_states=np.zeros((len(texts), 1, 2)), sentences=texts, groups=groups
        )

    joined = ActivationSet.concatenate(
        {"a": make(["x", "y", "z"]), "b": make(["q", "y", "r"], groups=[7, 7, 8])}
    )

    assert joined.groups.tolist() == [0, 1, 2, 1, 1, 3]


def test_nothing_is_read_before_it_is_needed(sets, tmp_path):
    joined = ActivationSet.concatenate(sets)
    damage(tmp_path / "a" / "sentence_000002.npz", "hidden_states")

    assert joined.embeddings.shape == (12, 5)
    with pytest.raises(FaultyFilesError, match="sentence_000002"):
        joined.layer(0)


def test_files_are_left_out_by_the_name_of_their_set(sets):
    joined = ActivationSet.concatenate(sets)
    name = "folder/sentence_000003.npz"

    rest = joined.without({name: ValueError("bad")})

    assert list(rest.left_out) == [name]
    assert rest.sources.tolist() == ["folder"] * 4 + ["pack"] * 4 + ["rows"] * 3
    np.testing.assert_array_equal(np.delete(joined.layer(2), 3, axis=0), rest.layer(2))


def test_a_joined_set_is_written_as_a_pack_of_the_same_rows(sets, tmp_path):
    joined = ActivationSet.concatenate(sets)

    joined.to_pack(tmp_path / "joined")

    read = load_activations(tmp_path / "joined")
    np.testing.assert_array_equal(joined.hidden_states, read.hidden_states)
    assert (joined.fingerprint, joined.groups.tolist()) == (read.fingerprint, read.groups.tolist())


def test_a_joined_set_goes_through_cross_validation(sets):
    joined = ActivationSet.concatenate(sets)
    y = np.arange(12) % 2
    model = make_pipeline(LayerSelector(1), DecisionTreeClassifier(random_state=0))
    folds = {"groups": joined.groups, "cv": GroupKFold(3)}

    expected = cross_val_score(model[1:], joined.layer(1), y, **folds)

    np.testing.assert_array_equal(expected, cross_val_score(model, joined, y, **folds))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layers": (0, 1, 3)},
            "differ in their layers: a has 0-2, b has 0-1,3; expected the same",
        ),
        ({"d_model": 8}, "differ in the width of hidden states: a has 7, b has 8"),
        ({"omit": ["activations"]}, "differ in"),
        ({"average_l0s": [1, 2, 3]}, "differ in average_l0s"),
    ],
)
def test_sets_of_different_models_are_refused(tmp_path, options, message):
    write_folder(tmp_path / "a", 2)
    write_folder(tmp_path / "b", 2, **options)
    sets = {name: load_activations(tmp_path / name) for name in "ab"}

    with pytest.raises(UsageError, match=message):
        ActivationSet.concatenate(sets)


def test_sets_of_different_poolings_and_no_sets_are_refused(tmp_path):
    write_folder(tmp_path, 2)
    sets = {pooling: load_activations(tmp_path, pooling=pooling) for pooling in ("final", "mean")}

    with pytest.raises(UsageError, match="differ in pooling: final has final, mean has mean"):
        ActivationSet.concatenate(sets)
    with pytest.raises(UsageError, match="no sets to join"):
        ActivationSet.concatenate({})
    with pytest.raises(UsageError, match="sets is a list; expected a mapping of names to sets"):
        ActivationSet.concatenate(list(sets.values()))
    with pytest.raises(UsageError, match=r"sets\['x'\] is a ndarray"):
        ActivationSet.concatenate({"x": np.zeros((2, 2))})


def test_sets_of_other_rows_of_one_folder_are_not_taken_for_each_other(tmp_path):
    write_folder(tmp_path, 8, n_tokens=3)
    acts = load_activations(tmp_path, pooling="none")
    first, second = (
        ActivationSet.concatenate({"a": acts[rows], "b": acts[21:]})
        for rows in (slice(0, 9), slice(9, 21))
    )

    selector = LayerSelector(1).fit(first[::2])  # one token of three of a sentence is not seen

    assert selector.transform(second).shape == (15, 7)  # no warning: none of its rows was torn


def test_numbers_and_text_are_not_joined_as_labels():
    def make(labels):
        return ActivationSet.from_arrays(hidden_states=np.zeros((2, 1, 2)), labels=labels)

    numbers = ActivationSet.concatenate({"a": make([0, 1]), "b": make([0.5, 1])})
    mixed = ActivationSet.concatenate({"a": make([0, 1]), "b": make(["no", "yes"])})

    assert numbers.labels.tolist() == [0, 1, 0.5, 1]
    with pytest.raises(
        DataError, match="labels of a are int64, but those of b <U3; expected one kind"
    ):
        _ = mixed.labels
