"""SAE features of collectors: dense, sparse, and the (values, indices) of top-k SAEs."""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklprep import ActivationSet
from sklprep.exceptions import UsageError

N_ROWS, K, N_FEATURES = 12, 3, 50


class EncoderOutput(NamedTuple):
    """As sparsify's encoders return."""

    top_acts: np.ndarray
    top_indices: np.ndarray
    pre_acts: np.ndarray


def make_top_k(seed=0, values_dtype="f4", indices_dtype="i8"):
    """Values and indices of a top-k SAE, and the matrix of all its features."""
    rng = np.random.default_rng(seed)
    indices = np.argsort(rng.random((N_ROWS, N_FEATURES)))[:, :K].astype(indices_dtype)
    values = (rng.random((N_ROWS, K)) + 0.5).astype(values_dtype)
    whole = np.zeros((N_ROWS, N_FEATURES), values_dtype)
    for row in range(N_ROWS):
        for place in range(K):
            whole[row, indices[row, place]] = values[row, place]
    return values, indices, whole


@pytest.mark.parametrize("indices_dtype", ["i4", "i8", "u2"])
@pytest.mark.parametrize("values_dtype", ["f2", "f4", "f8"])
def test_values_and_indices_fill_the_matrix_of_the_whole_sae(values_dtype, indices_dtype):
    values, indices, whole = make_top_k(0, values_dtype, indices_dtype)
    expected = ActivationSet.from_arrays(activations=[whole], sae_layers=[4])

    acts = ActivationSet.from_arrays(
        activations=(values, indices), sae_layers=[4], n_features=N_FEATURES
    )

    np.testing.assert_array_equal(whole.astype("f4"), acts.sae_activations(4).toarray())
    assert expected.fingerprint == acts.fingerprint
    assert [K] == acts.average_l0s.tolist()
    untouched = make_top_k(0, values_dtype, indices_dtype)
    np.testing.assert_array_equal(untouched[0], values)
    np.testing.assert_array_equal(untouched[1], indices)


def test_each_sae_may_have_a_pair_of_its_own_in_any_kind_of_tuple():
    first, second = make_top_k(0), make_top_k(1)
    pairs = [list(first[:2]), EncoderOutput(*second)]

    acts = ActivationSet.from_arrays(activations=pairs, sae_layers=[3, 9], n_features=N_FEATURES)
    one = ActivationSet.from_arrays(activations=EncoderOutput(*second), n_features=N_FEATURES)

    np.testing.assert_array_equal(first[2], acts.sae_activations(3).toarray())
    np.testing.assert_array_equal(second[2], acts.sae_activations(9).toarray())
    np.testing.assert_array_equal(second[2], one.sae_activations(0).toarray())


def test_indices_of_values_that_are_zero_may_repeat():
    values, indices = np.array([[2.0, 0, 0], [0, 0, 0]]), np.array([[4, 4, 0], [0, 0, 0]])

    acts = ActivationSet.from_arrays(activations=(values, indices), n_features=6)

    assert [[0, 0, 0, 0, 2, 0], [0] * 6] == acts.sae_activations(0).toarray().tolist()
    assert 1 == acts.sae_activations(0).nnz


VALUES, INDICES, WHOLE = make_top_k()
WITHOUT_WIDTH = "values and indices of a top-k SAE, but its width is missing. Give it: from_arrays("
BAD = {
    "no width": ((VALUES, INDICES), None, WITHOUT_WIDTH),
    "no width of a list": ([VALUES, INDICES], None, WITHOUT_WIDTH),
    "no width of pairs": ([(VALUES, INDICES)] * 2, None, WITHOUT_WIDTH),
    "no width of three": (EncoderOutput(VALUES, INDICES, WHOLE), None, WITHOUT_WIDTH),
    "no width, indices first": ((INDICES, VALUES), None, WITHOUT_WIDTH),
    "no width, float indices": ((VALUES, INDICES.astype("f4")), None, WITHOUT_WIDTH),
    "no width, padded": ((VALUES, np.where(INDICES > 40, -1, INDICES)), None, WITHOUT_WIDTH),
    "no width of tokens": ((VALUES[:, None], INDICES[:, None]), None, WITHOUT_WIDTH),
    "no number": ((VALUES, INDICES), "50", "n_features must be an integer of at least 1, got '50'"),
    "too narrow": (
        (VALUES, INDICES),
        20,
        "must be integers from 0 to 19, because of n_features; got",
    ),
    "negative": ((VALUES, INDICES - 1), N_FEATURES, "must be integers from 0 to 49"),
    "indices first": ((INDICES, VALUES), N_FEATURES, "must be integers from 0 to 49"),
    "other shapes": ((VALUES, INDICES[:, 1:]), N_FEATURES, "one shape (n_rows, k), got float32 of"),
    "tokens": ((VALUES[:, None], INDICES[:, None]), N_FEATURES, "must have one shape (n_rows, k)"),
    "twice": ((VALUES, INDICES * 0), N_FEATURES, "have a feature twice in one row"),
    "whole matrices": ([WHOLE, WHOLE], N_FEATURES, "must be integers from 0 to 49"),
    "one array": (WHOLE[:, None], N_FEATURES, "must be (values, indices) of a top-k SAE"),
    "a list of matrices": ([csr_array(WHOLE)], N_FEATURES, "of such pairs, got csr_array. Leave n"),
}


@pytest.mark.parametrize(("activations", "n_features", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_built_is_refused_in_one_line(activations, n_features, message):
    with pytest.raises(UsageError) as error:
        ActivationSet.from_arrays(activations=activations, n_features=n_features)

    assert message in str(error.value)
    assert 1 == len(str(error.value).splitlines())


def test_two_saes_that_happen_to_hold_integers_and_floats_stay_two():
    counts = np.minimum(WHOLE, 1).astype(int)

    acts = ActivationSet.from_arrays(activations=[WHOLE, counts], sae_layers=[0, 1])

    np.testing.assert_array_equal(counts, acts.sae_activations(1).toarray())
