"""`InputSpec`: read once, printed once, and what it selects."""

import numpy as np
import pytest

from sklprep import ActivationSet, LayerSelector, SAEFeatureSelector, make_activations
from sklprep.formats.members import Members
from sklprep.sweeps.inputs import InputSpec, each_sae, members_of, read_inputs

RNG = np.random.default_rng(0)
SAES = ActivationSet.from_arrays(
    embeddings=RNG.normal(size=(5, 3)),
    hidden_states=RNG.normal(size=(5, 4, 2)),
    activations=[RNG.poisson(1, size=(5, 6)).astype("f4") for _ in range(4)],
    sae_layers=[3, 1, 3, 0],
    average_l0s=[82.5, 20, 9, 20],
)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("embeddings", "embeddings"),
        (2, 2),
        (np.int64(2), 2),
        ("2", 2),
        ([2], 2),
        ("1,0, 3", "0-1,3"),
        (range(4), "0-3"),
        ("all", "0-3"),
        ("sae 1", "sae 1"),
        ("sae  0-1", "sae 0-1"),
        ("sae 3 l0 82.5", "sae 3 l0 82.5"),
        ("sae 3  l0 9.0", "sae 3 l0 9"),
        ("sae 1,0 l0 20", "sae 0-1 l0 20"),
    ],
)
def test_input_is_printed_in_one_way_and_read_back_as_itself(written, name):
    spec = InputSpec.read(written, SAES)

    assert name == spec.name
    assert type(name) is type(spec.name)
    assert spec == InputSpec.read(spec.name, SAES)


@pytest.mark.parametrize(
    ("written", "selector"),
    [
        ("embeddings", LayerSelector("embeddings")),
        (2, LayerSelector(2)),
        ("0,3", LayerSelector([0, 3])),
        ("sae 3 l0 82.5", SAEFeatureSelector(3, average_l0=82.5)),
        ("sae 0-1", SAEFeatureSelector([0, 1])),
    ],
)
def test_input_selects_what_its_selector_selects(written, selector):
    def dense(X):
        return X if isinstance(X, np.ndarray) else X.toarray()

    found = InputSpec.read(written, SAES).select(SAES)

    np.testing.assert_array_equal(dense(selector.fit_transform(SAES)), dense(found))


def test_input_of_an_array_is_some_of_its_layers():
    X = SAES.hidden_states

    np.testing.assert_array_equal(X[:, [1, 3]].reshape(5, 4), InputSpec((1, 3)).select(X))
    np.testing.assert_array_equal(X[:, 2], InputSpec((0,)).select(X[:, 2]))


def test_each_and_each_sae_stand_alone_or_among_others():
    each, saes = ["embeddings", 0, 1, 2, 3], ["sae 0", "sae 1", "sae 3 l0 9", "sae 3 l0 82.5"]

    for layers, expected in [
        ("each", each),
        ("each sae", saes),
        (["each"], each),
        (["0-1", "each sae"], ["0-1", *saes]),
        ([2, "each"], [2, "embeddings", 0, 1, 3]),
    ]:
        assert expected == [spec.name for spec in read_inputs(layers, SAES)]


def test_each_sae_may_be_narrowed_to_a_sparsity():
    assert ["sae 0", "sae 1"] == [spec.name for spec in each_sae(SAES, 20)]
    assert ["sae 3 l0 82.5"] == [spec.name for spec in each_sae(SAES, 82.5)]


def test_members_are_those_that_all_inputs_read():
    inputs = read_inputs([1, "0,1", "sae 3 l0 9", "sae 0-1"], SAES)

    assert Members(layers=(0, 1), configs=(1, 2, 3)) == members_of(inputs, SAES)
    assert Members(embeddings=True) == members_of([InputSpec()], SAES)


def test_sets_without_embeddings_have_none_among_each():
    acts = ActivationSet.from_arrays(hidden_states=SAES.hidden_states)

    assert [0, 1, 2, 3] == [spec.name for spec in read_inputs("each", acts)]
    made = make_activations(4, n_layers=2, d_model=4, n_features=8, random_state=0)
    assert ["embeddings", 0, 1] == [spec.name for spec in read_inputs("each", made)]
