"""`ActivationSet`: a container that scikit-learn can index, split and send to other processes."""

import contextlib
import operator
import pickle
import shutil

import numpy as np
import pytest
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from scipy.sparse import coo_array, csc_array, csc_matrix, csr_array
from sentence_files import write_folder
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from sklprep import ActivationSet, load_activations
from sklprep.activations.activation_set import check_feature_exists
from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FeatureNotFoundError,
    LayerNotFoundError,
    SklprepWarning,
    UsageError,
)


@pytest.fixture
def folder(tmp_path):
    write_folder(tmp_path / "dump", 12, layers=(4, 2, 4), average_l0s=[70, 80, 90.5])
    return tmp_path / "dump"


@pytest.fixture
def acts(folder):
    return load_activations(folder)


def arrays(n=6):
    rng = np.random.default_rng(0)
    return {
        "hidden_states": rng.normal(size=(n, 3, 4)),
        "embeddings": rng.normal(size=(n, 2)),
        "activations": rng.normal(size=(n, 2, 5)) * (rng.random((n, 2, 5)) < 0.5),
        "labels": np.arange(n) % 3,
        "layers": [5, 1, 9],
        "sae_layers": [9, 9],
        "average_l0s": [2.5, 30],
        "sentences": [f"Sentence {i % 4}." for i in range(n)],
        "groups": np.arange(n) // 2 * 10,
    }


def assert_rows_of(view, whole, rows):
    rows = np.asarray(rows, int)
    assert len(view) == len(rows)
    assert view.shape == (len(rows),)
    for name in ("labels", "groups", "sentences", "sentence_indices"):
        np.testing.assert_array_equal(getattr(whole, name)[rows], getattr(view, name))
    np.testing.assert_array_equal(whole.embeddings[rows], view.embeddings)
    np.testing.assert_array_equal(whole.hidden_states[rows], view.hidden_states)
    for layer in whole.layers:
        np.testing.assert_array_equal(whole.layer(layer)[rows], view.layer(layer))
    for left, right in zip(whole.activations, view.activations, strict=True):
        np.testing.assert_array_equal(left.toarray()[rows], right.toarray())
    layer, average_l0 = int(whole.sae_layers[0]), whole.average_l0s[0]
    np.testing.assert_array_equal(
        whole.feature(layer, 3, average_l0)[rows], view.feature(layer, 3, average_l0)
    )


# --- the protocol -------------------------------------------------------------------------------

KEYS = {
    "int array": (np.array([5, 0, 7]), [5, 0, 7]),
    "repeated rows": ([3, 3, 1], [3, 3, 1]),
    "negative positions": ([-1, 0], [11, 0]),
    "unsigned": (np.array([2, 1], np.uint8), [2, 1]),
    "mask": (np.arange(12) % 5 == 1, [1, 6, 11]),
    "mask as a list": ([True] + [False] * 11, [0]),
    "slice": (slice(2, 9, 3), [2, 5, 8]),
    "slice backwards": (slice(None, None, -4), [11, 7, 3]),
    "slice beyond": (slice(10, 99), [10, 11]),
    "all": (slice(None), range(12)),
    "with Ellipsis": ((np.array([4, 2]), Ellipsis), [4, 2]),
    "slice with Ellipsis": ((slice(0, 2), Ellipsis), [0, 1]),
    "empty list": ([], []),
    "empty array": (np.zeros(0, np.int64), []),
    "empty mask": (np.zeros(12, bool), []),
    "empty slice": (slice(5, 5), []),
}


@pytest.mark.parametrize(("key", "rows"), KEYS.values(), ids=KEYS)
def test_an_index_gives_a_view_of_those_rows(acts, key, rows):
    assert (len(acts), acts.shape) == (12, (12,))
    view = acts[key]
    assert type(view) is ActivationSet
    assert_rows_of(view, acts, list(rows))


@pytest.mark.parametrize("source", ["folder", "arrays"])
def test_views_of_views_count_rows_from_the_view(acts, source):
    whole = acts if source == "folder" else ActivationSet.from_arrays(**arrays(12))
    view = whole[1::2][[5, 0, 3]]
    assert_rows_of(view, whole, [11, 1, 7])
    assert_rows_of(view[np.array([False, True, True])], whole, [1, 7])
    assert_rows_of(view[[]][[]], whole, [])
    with pytest.raises(IndexError):
        view[[3]]


@pytest.mark.parametrize("key", [3, np.int64(3), "labels", ["a"], [1.0], [[0, 1]], None, ...])
def test_other_indices_are_refused(acts, key):
    with pytest.raises(TypeError, match="indexed by a slice, a boolean mask or an array of row"):
        acts[key]


@pytest.mark.parametrize("key", [[12], [-13], [True], np.ones(13, bool)])
def test_rows_that_are_not_there_are_index_errors(acts, key):
    with pytest.raises(IndexError):
        acts[key]


def test_a_set_is_no_matrix_and_no_sequence(acts):
    with pytest.raises(TypeError, match=r"start the pipeline with sklprep\.LayerSelector\(\)"):
        np.asarray(acts)
    with pytest.raises(TypeError, match="LayerSelector"):
        np.array(acts, dtype=np.float32)
    with pytest.raises(TypeError, match="not iterable"):
        list(acts)
    with pytest.raises(TypeError):
        3 in acts  # noqa: B015
    with pytest.raises(TypeError, match="unhashable"):
        hash(acts)


def test_the_repr_says_what_is_inside(acts, folder):
    inside = "layers 2,4, d_model 7, embeddings 5, 3 SAE configs of 40 features"
    assert repr(acts) == f"ActivationSet(12 rows, {inside})"
    assert repr(acts[[1, 2]]) == f"ActivationSet(2 rows, {inside})"
    mean = load_activations(folder, pooling="mean")
    assert repr(mean) == f"ActivationSet(12 rows, {inside}, pooling mean)"
    few = ActivationSet.from_arrays(embeddings=np.ones((1234, 3)))
    assert repr(few) == "ActivationSet(1,234 rows, embeddings 3)"


def test_making_a_view_or_looking_at_it_reads_no_activations(folder):
    acts = load_activations(folder)
    shutil.rmtree(folder)
    view = acts[::2]
    repr(view), view.labels, view.groups, view.sentences, view.sentence_indices
    assert view.layers.tolist() == [2, 4]
    assert view.sae_layers.tolist() == [4, 2, 4]
    assert view.average_l0s.tolist() == [70, 80, 90.5]
    assert (view.d_model, view.d_embed, view.n_sae_features) == (7, 5, 40)
    assert acts[:].fingerprint == acts.fingerprint != view.fingerprint
    assert (view.name, view.pooling) == ("dump", "final")
    with pytest.raises(FaultyFilesError, match="No such file"):
        view.layer(2)


def test_the_name_is_the_base_name_of_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_activations(".").name == load_activations(f"{folder}/").name == "dump"


# --- other processes ----------------------------------------------------------------------------


def test_an_unread_folder_pickles_small_and_reads_itself_where_it_arrives(tmp_path):
    text = "A sentence of one hundred characters or so, as long as they come in such a folder. " * 2
    write_folder(
        tmp_path, 100, layers=range(26), d_model=3, n_features=2, compress=False, sentence=text
    )
    acts = load_activations(tmp_path, pooling="none")
    content = pickle.dumps(acts)
    assert len(content) < 40_000
    assert len(pickle.dumps(acts[::2])) < 45_000
    copy = pickle.loads(content)
    np.testing.assert_array_equal(acts.hidden_states, copy.hidden_states)
    assert copy.fingerprint == acts.fingerprint


def test_a_view_keeps_its_rows_through_pickle(acts):
    view = acts[[7, 2, 9]]
    for copy in (pickle.loads(pickle.dumps(view)), pickle.loads(pickle.dumps(view[1:]))[[0, 1]]):
        assert_rows_of(copy, acts, [7, 2, 9] if len(copy) == 3 else [2, 9])
    read = pickle.loads(pickle.dumps(view))
    assert_rows_of(read[[2]], acts, [9])


def test_what_was_read_travels_and_is_not_read_again(folder, acts):
    acts.layer(2), acts.embeddings, acts.sae_activations(2)
    content = pickle.dumps(acts[[1, 0]])
    expected = acts.layer(2)[[1, 0]], acts.feature(2, 0)[[1, 0]]
    shutil.rmtree(folder)
    copy = pickle.loads(content)
    np.testing.assert_array_equal(expected[0], copy.layer(2))
    np.testing.assert_array_equal(expected[1], copy.feature(2, 0))


@pytest.mark.parametrize("read_before", [False, True])
def test_worker_processes_see_the_same_rows(tmp_path, read_before):
    write_folder(tmp_path, 4, n_tokens=2, layers=(1, 0), d_model=70_000, compress=False)
    acts = load_activations(tmp_path)
    if read_before:
        acts.prefetch(layers=[0, 1])
    folds = [acts[[3, 1]], acts[::2]]
    jobs = [delayed(operator.attrgetter("hidden_states"))(fold) for fold in folds]
    try:
        states = Parallel(n_jobs=2, backend="loky")(jobs)
    finally:
        get_reusable_executor().shutdown(wait=True)
    for fold, actual in zip(folds, states, strict=True):
        np.testing.assert_array_equal(fold.hidden_states, actual)


# --- SAE configs and features -------------------------------------------------------------------


def test_the_config_of_a_layer_is_found_or_the_message_lists_those_there_are(acts):
    assert [
        acts.rows.find_config(2),
        acts.rows.find_config(2, 80),
        acts.rows.find_config(4, 90.5),
    ] == [1, 1, 2]
    assert acts.rows.find_config(np.int64(4), np.int64(70)) == 0
    for ask, message in (
        (
            lambda: acts.rows.find_config(4),
            "layer 4 has 2 SAE configs, with average_l0 70, 90.5, and",
        ),
        (
            lambda: acts.rows.find_config(4, 80),
            "layer 4 has no SAE config with average_l0 80; it has 70",
        ),
        (lambda: acts.feature(2, 0, 81), "layer 2 has no SAE config with average_l0 81; it has 80"),
        (lambda: acts.sae_activations(4), "Give average_l0=..., one of these."),
    ):
        with pytest.raises(FeatureNotFoundError) as error:
            ask()
        assert str(error.value).startswith("average_l0 mismatch: ")
        assert message in str(error.value)
    with pytest.raises(
        LayerNotFoundError, match=r"^Layer 3 not found in data: it has layers 2,4\."
    ):
        acts.rows.find_config(3)


def test_two_configs_of_equal_average_l0_cannot_be_told_apart():
    acts = ActivationSet.from_arrays(
        activations=np.ones((2, 2, 3)), sae_layers=[1, 1], average_l0s=[7, 7]
    )
    with pytest.raises(
        FeatureNotFoundError, match=r"^average_l0 mismatch: .* does not tell them apart"
    ):
        acts.rows.find_config(1, 7)


def test_a_feature_is_a_float32_column_of_its_config(acts):
    for config, (layer, average_l0) in enumerate([(4, 70), (2, 80), (4, 90.5)]):
        matrix = acts.activations[config].toarray()
        np.testing.assert_array_equal(matrix, acts.sae_activations(layer, average_l0).toarray())
        assert matrix.any()
        for feature in (0, 17, 39):
            column = acts.feature(layer, feature, average_l0)
            assert (column.dtype, column.shape) == (np.float32, (12,))
            np.testing.assert_array_equal(matrix[:, feature], column)


@pytest.mark.parametrize("feature", [-1, 40, 16_384])
def test_a_feature_index_out_of_range_is_told_the_limit_of_the_data(acts, feature):
    with pytest.raises(FeatureNotFoundError) as error:
        acts.feature(2, feature)
    assert str(error.value).startswith(f"Feature index must be 0-39, got {feature}")


def test_the_limit_of_a_real_sae_is_written_as_the_guide_writes_it():
    check_feature_exists(16_383, 16_384)
    with pytest.raises(FeatureNotFoundError) as error:
        check_feature_exists(16_384, 16_384)
    assert str(error.value).startswith("Feature index must be 0-16383")


# --- from arrays --------------------------------------------------------------------------------


def test_arrays_of_every_kind_make_a_set():
    given = arrays()
    acts = ActivationSet.from_arrays(**given)
    assert len(acts) == 6
    assert (acts.name, acts.pooling) == ("arrays", "final")
    assert acts.layers.tolist() == [1, 5, 9]
    assert (acts.d_model, acts.d_embed, acts.n_sae_features) == (4, 2, 5)
    expected = given["hidden_states"].astype(np.float32)
    np.testing.assert_array_equal(expected[:, [1, 0, 2]], acts.hidden_states)
    np.testing.assert_array_equal(expected[:, 0], acts.layer(5))
    np.testing.assert_array_equal(given["embeddings"].astype(np.float32), acts.embeddings)
    assert acts.hidden_states.dtype == acts.embeddings.dtype == np.float32
    for config, average_l0 in enumerate([2.5, 30]):
        dense = given["activations"][:, config].astype(np.float32)
        np.testing.assert_array_equal(dense, acts.sae_activations(9, average_l0).toarray())
        np.testing.assert_array_equal(dense[:, 2], acts.feature(9, 2, average_l0))
    assert acts.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert acts.sentences.tolist() == given["sentences"]
    assert acts.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert (acts.sae_layers.tolist(), acts.average_l0s.tolist()) == ([9, 9], [2.5, 30])


def test_what_is_left_out_has_defaults():
    acts = ActivationSet.from_arrays(
        hidden_states=np.ones((4, 2, 3), np.float16), activations=np.eye(8).reshape(4, 2, 8)
    )
    assert acts.layers.tolist() == acts.sae_layers.tolist() == [0, 1]
    assert acts.average_l0s.tolist() == [1, 1]
    assert acts.groups.tolist() == acts.sentence_indices.tolist() == [0, 1, 2, 3]
    assert acts.sentences is None
    with pytest.raises(DataError, match=r"This set has no labels\. Give labels="):
        acts.labels  # noqa: B018
    with pytest.raises(DataError, match="This set has no embeddings; give them to ActivationSet"):
        acts.embeddings  # noqa: B018
    tokens = ActivationSet.from_arrays(embeddings=np.ones((4, 3)))
    assert tokens.layers.tolist() == tokens.sae_layers.tolist() == tokens.average_l0s.tolist() == []
    assert tokens.n_sae_features == 0
    assert tokens.activations == ()
    for ask, missing in (
        (lambda: tokens.layer(0), "hidden_states"),
        (lambda: tokens.feature(0, 0), "activations"),
    ):
        with pytest.raises(DataError, match=f"This set has no {missing}; give them to Activation"):
            ask()


def test_sae_layers_default_to_the_layers_where_there_are_as_many():
    given = {"hidden_states": np.ones((4, 2, 3)), "layers": [8, 3]}
    acts = ActivationSet.from_arrays(**given, activations=np.ones((4, 2, 5)))
    assert acts.sae_layers.tolist() == [8, 3]
    acts = ActivationSet.from_arrays(**given, activations=np.ones((4, 3, 5)))
    assert acts.sae_layers.tolist() == [0, 1, 2]


def test_the_first_position_of_a_repeated_layer_counts():
    states = np.arange(24.0).reshape(2, 4, 3)
    acts = ActivationSet.from_arrays(hidden_states=states, layers=[7, 2, 7, 2])
    assert acts.layers.tolist() == [2, 7]
    np.testing.assert_array_equal(states[:, [1, 0]], acts.hidden_states)


def test_rows_of_one_sentence_are_a_group_unless_groups_are_given():
    states = np.ones((5, 1, 2))
    texts = ["b", "a", "b", "c", "a"]
    acts = ActivationSet.from_arrays(hidden_states=states, sentences=texts)
    assert acts.groups.tolist() == acts.sentence_indices.tolist() == [0, 1, 0, 2, 1]
    acts = ActivationSet.from_arrays(hidden_states=states, sentences=texts, groups=list("xyyxx"))
    assert acts.groups.tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("labels", [["yes", "no"], [0.5, -7.0], [True, False], [10**6, -3]])
def test_arrays_may_carry_any_labels(labels):
    acts = ActivationSet.from_arrays(embeddings=np.ones((2, 3)), labels=labels)
    assert acts.labels.tolist() == labels
    assert acts[[1]].labels.tolist() == labels[1:]


@pytest.mark.parametrize("kind", [np.asarray, csr_array, csc_array, coo_array, csc_matrix])
def test_activations_may_be_matrices_of_any_kind(kind):
    dense = arrays()["activations"]
    matrices = [kind(dense[:, config]) for config in range(2)]
    acts = ActivationSet.from_arrays(activations=matrices, sae_layers=[1, 2])
    for config in range(2):
        assert acts.activations[config].format == "csr"
        assert acts.activations[config].dtype == np.float32
        np.testing.assert_array_equal(
            dense[:, config].astype(np.float32), acts.sae_activations(config + 1).toarray()
        )
    assert acts[[5, 0]].feature(2, 4).tolist() == dense[[5, 0], 1, 4].astype(np.float32).tolist()


def test_one_set_of_sparse_values_is_one_however_it_is_stored():
    dense = np.array([[1, 5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 4]], np.float32)
    values, columns = np.array([2, 1, 3, 0, 4], np.float32), np.array([1, 0, 1, 2, 3])
    stored = csr_array((values, columns, np.array([0, 3, 4, 5])), shape=dense.shape)
    acts = ActivationSet.from_arrays(activations=[stored])
    (config,) = acts.activations
    assert (config.nnz, config.indices.dtype, acts.average_l0s.tolist()) == (3, np.int32, [1])
    np.testing.assert_array_equal(config.toarray(), dense)
    plain = ActivationSet.from_arrays(activations=dense[:, np.newaxis])
    assert acts.fingerprint == plain.fingerprint
    assert stored.data.tolist() == [2, 1, 3, 0, 4]
    assert stored.indices.tolist() == [1, 0, 1, 2, 3]


def test_float32_arrays_are_not_copied():
    states = np.ones((4, 2, 3), np.float32)
    acts = ActivationSet.from_arrays(hidden_states=states)
    assert np.shares_memory(states, acts.layer(1))


def test_integers_and_lists_become_float32():
    integers = np.array([[[0, 1]], [[2, 0]]])
    acts = ActivationSet.from_arrays(hidden_states=[[[1, 2]], [[3, 4]]], activations=integers)
    assert acts.layer(0).tolist() == [[1, 2], [3, 4]]
    assert acts.layer(0).dtype == np.float32
    assert acts.feature(0, 0).tolist() == [0, 2]


BAD_ARRAYS = {
    "nothing": ({}, "Give hidden_states, embeddings or activations."),
    "only labels": ({"labels": [1]}, "Give hidden_states, embeddings or activations."),
    "no configs": ({"activations": []}, "Give hidden_states, embeddings or activations."),
    "states in two dimensions": (
        {"hidden_states": np.ones((4, 3))},
        "must be a non-empty numeric array of 3 dimensions, got float64 of shape (4, 3)",
    ),
    "embeddings in three": (
        {"embeddings": np.ones((4, 3, 2))},
        "must be a non-empty numeric array of 2 dimensions, got float64 of shape (4, 3, 2)",
    ),
    "no rows": ({"embeddings": np.ones((0, 3))}, "embeddings must be a non-empty numeric array"),
    "no width": ({"hidden_states": np.ones((2, 3, 0))}, "hidden_states must be a non-empty"),
    "texts": ({"embeddings": [["a", "b"]]}, "numeric array of 2 dimensions, got <U1"),
    "complex": ({"embeddings": np.ones((2, 2), complex)}, "numeric array of 2 dimensions"),
    "objects": ({"embeddings": np.array([[None, 1]])}, "is an object array with None in 1 of 2 e"),
    "one matrix": (
        {"activations": np.ones((4, 5))},
        "activations must have shape (n_rows, n_configs, n_features), got (4, 5); or give a list",
    ),
    "one sparse matrix": ({"activations": csr_array(np.ones((4, 5)))}, "must be a sequence of"),
    "matrices of two shapes": (
        {"activations": [np.ones((4, 5)), np.ones((4, 6))]},
        "activations must have one shape, got [(4, 5), (4, 6)]",
    ),
    "fewer labels": (
        {"embeddings": np.ones((4, 2)), "labels": [1, 2, 3]},
        "The arrays must have the same number of rows, got 4 of embeddings, 3 of labels",
    ),
    "fewer sentences": ({"embeddings": np.ones((4, 2)), "sentences": ["a"]}, "1 of sentences"),
    "fewer groups": ({"embeddings": np.ones((4, 2)), "groups": [1, 2]}, "2 of groups"),
    "fewer embeddings": (
        {"embeddings": np.ones((4, 2)), "hidden_states": np.ones((5, 2, 2))},
        "got 5 of hidden_states, 4 of embeddings",
    ),
    "fewer activations": (
        {"embeddings": np.ones((4, 2)), "activations": np.ones((3, 2, 2))},
        "got 4 of embeddings, 3 of activations",
    ),
    "fewer layers": (
        {"hidden_states": np.ones((4, 3, 2)), "layers": [1, 2]},
        "layers must be 3 integers, one for each position of its array, got int64 of shape (2,)",
    ),
    "half layers": (
        {"hidden_states": np.ones((4, 1, 2)), "layers": [0.5]},
        "layers must be 1 integers, one for each position of its array, got float64 of shape (1,)",
    ),
    "a layer of nothing": ({"embeddings": np.ones((4, 2)), "layers": [1]}, "layers must be 0"),
    "more sae_layers": (
        {"activations": np.ones((4, 1, 2)), "sae_layers": [1, 2]},
        "sae_layers must be 1 integers",
    ),
    "more average_l0s": (
        {"activations": np.ones((4, 1, 2)), "average_l0s": [1, 2]},
        "average_l0s must have shape (1,), got (2,)",
    ),
}


@pytest.mark.parametrize(("given", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_arrays_that_do_not_fit_together_are_refused(given, message):
    with pytest.raises(UsageError) as error:
        ActivationSet.from_arrays(**given)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"labels": 3},
        {"labels": np.ones((4, 2))},
        {"sentences": "text"},
        {"groups": np.ones((4, 2))},
        {"activations": [np.ones(4)]},
        {"activations": [["a"] * 4]},
        {"activations": np.ones((4, 2, 0))},
    ],
)
def test_arrays_of_a_wrong_shape_are_refused(given):
    with pytest.raises(UsageError):
        ActivationSet.from_arrays(embeddings=np.ones((4, 3)), **given)


def test_hidden_states_that_are_not_there_are_named():
    with pytest.raises(DataError, match="This set has no hidden_states"):
        ActivationSet.from_arrays(embeddings=np.ones((4, 3))).hidden_states  # noqa: B018


def test_arguments_are_given_by_name():
    with pytest.raises(TypeError, match="positional"):
        ActivationSet.from_arrays(np.ones((2, 2, 2)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_in_arrays_are_errors_that_name_the_row(value):
    given = arrays()
    given["hidden_states"][4, 0, 2:] = value
    given["embeddings"][3, 1] = value
    given["activations"][2, 1, 3] = value
    acts = ActivationSet.from_arrays(**given)
    assert acts.layer(1).shape == (6, 4)
    assert acts[[0, 1, 2]].layer(5).shape == (3, 4)
    assert acts.feature(9, 2, 30).shape == (6,)
    for ask, message in (
        (
            lambda: acts[[1, 4]].layer(5),
            "Row 4 of the arrays: member 'hidden_states' layer 5 has 2",
        ),
        (lambda: acts.embeddings, "Row 3 of the arrays: member 'embeddings' has 1 NaN or infinite"),
        (
            lambda: acts.feature(9, 3, 30),
            "Row 2 of the arrays: member 'activations' layer 9, feature 3",
        ),
    ):
        with pytest.raises(DataError) as error:
            ask()
        assert str(error.value).startswith(message)


def test_the_fingerprint_of_arrays_is_of_their_content():
    def fingerprint(**changes):
        return ActivationSet.from_arrays(**{**arrays(), **changes}).fingerprint

    expected = fingerprint()
    assert len(expected) == 64
    assert fingerprint(hidden_states=arrays()["hidden_states"].astype(np.float32)) == expected
    assert (
        fingerprint(activations=[csc_array(arrays()["activations"][:, i]) for i in (0, 1)])
        == expected
    )
    others = {expected}
    for name in ("hidden_states", "embeddings", "activations", "labels", "groups"):
        values = arrays()[name].copy()
        values[(0,) * values.ndim] += 1
        others.add(fingerprint(**{name: values}))
    others.add(fingerprint(layers=[5, 1, 8]))
    others.add(fingerprint(average_l0s=[2.5, 31]))
    others.add(fingerprint(sae_layers=[9, 8]))
    others.add(fingerprint(sentences=["other"] * 6))
    others.add(fingerprint(labels=None))
    assert len(others) == 11
    bare = ActivationSet.from_arrays(embeddings=np.ones((2, 3)))
    assert len(bare.fingerprint) == 64


def test_arrays_travel_through_pickle_with_their_view():
    acts = ActivationSet.from_arrays(**arrays())
    assert_rows_of(pickle.loads(pickle.dumps(acts[[4, 1]])), acts, [4, 1])


def test_rows_that_do_not_fit_in_memory_say_what_they_need_and_name_pack(tmp_path, monkeypatch):
    write_folder(tmp_path / "dump", 3)
    monkeypatch.setattr("sklprep.formats.sentence_folder.available_memory", lambda: 100)

    with pytest.warns(SklprepWarning, match=r"need .* GB of memory, .* sklprep pack"):
        acts = load_activations(tmp_path / "dump")
    with pytest.raises(DataError, match=r"need .* GB of memory, .* sklprep pack"):
        acts.layer(int(acts.layers[0]))


def _accessors(acts):
    yield from (
        getattr(acts, name)
        for name in ("labels", "groups", "sentence_indices", "layers", "sae_layers")
    )
    yield from (acts.average_l0s, acts.layer(1), acts.embeddings, acts.hidden_states)
    for matrix in (*acts.activations, acts.sae_activations(1)):
        yield from (matrix.data, matrix.indices, matrix.indptr)
    yield acts.feature(1, [3, 4])


@pytest.mark.parametrize("kind", ["files", "pack", "arrays", "view"])
def test_nothing_that_is_done_to_what_a_set_returns_changes_the_set(tmp_path, kind):
    write_folder(tmp_path / "files", 6)
    acts = load_activations(tmp_path / "files")
    if kind == "pack":
        acts.to_pack(tmp_path / "pack")
        acts = load_activations(tmp_path / "pack")
    elif kind == "arrays":
        acts = ActivationSet.from_arrays(
            hidden_states=acts.hidden_states,
            embeddings=acts.embeddings,
            activations=acts.activations,
            labels=acts.labels,
            groups=acts.groups,
        )
    elif kind == "view":
        acts = acts[[5, 1, 2]]
    before = [values.copy() for values in _accessors(acts)]
    fingerprint = acts.fingerprint

    for values in _accessors(acts):
        with contextlib.suppress(ValueError):  # read-only
            values += values.dtype.type(1)
        with contextlib.suppress(ValueError):
            values[:1] = 0

    for expected, actual in zip(before, _accessors(acts), strict=True):
        np.testing.assert_array_equal(expected, actual)
    assert fingerprint == acts.fingerprint


def test_what_a_set_returns_fits_models_and_makes_frames(tmp_path):
    pandas = pytest.importorskip("pandas")
    write_folder(tmp_path, 12)
    acts = load_activations(tmp_path)

    for model in (
        LogisticRegression(),
        Ridge(),
        SVC(),
        DecisionTreeClassifier(),
        KNeighborsClassifier(),
    ):
        model.fit(acts.layer(1), acts.labels).predict(acts.layer(1))
        model.fit(acts.activations[1], acts.labels).predict(acts.activations[1])
    frame = pandas.DataFrame(acts.layer(1)).assign(label=acts.labels)
    frame[0] += 1
    np.testing.assert_array_equal(frame[0].to_numpy() - 1, acts.layer(1)[:, 0] + 1 - 1)
