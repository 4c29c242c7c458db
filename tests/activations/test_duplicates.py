"""Duplicates and near-duplicates of arrays and texts, against all pairs at once."""

import numpy as np
import pytest
from scipy.sparse import csr_array, issparse
from scipy.sparse.csgraph import connected_components
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from sklprep.activations.duplicates import (
    Components,
    find_equal,
    find_near,
    row_vectors,
    text_vectors,
)

WORDS = "anna helped the old man cross a street it rained all day in the harbour".split()


def pairs_of(vectors, threshold):
    return {
        (int(i), int(j)): cosine
        for one, other, cosines in find_near(vectors, threshold)
        for i, j, cosine in zip(one, other, cosines, strict=True)
    }


def all_pairs(cosines, threshold):
    near = np.argwhere(np.triu(cosines >= threshold, 1))
    return {(int(i), int(j)): cosines[i, j] for i, j in near}


def test_near_rows_are_those_of_all_cosines_of_standardized_columns():
    rows = np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32)
    rows[:, 2] += 3000  # a massive dimension, next to which all rows look alike
    expected = all_pairs(
        cosine_similarity(StandardScaler().fit_transform(rows.astype(np.float64))), 0.99
    )
    found = pairs_of(row_vectors(rows), 0.99)

    assert expected.keys() == found.keys()
    assert {(0, 0), (0, 1), (1, 1)} <= {(i // 256, j // 256) for i, j in found}  # of the blocks
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()))


def test_near_texts_are_those_of_all_cosines():
    rng = np.random.default_rng(1)
    texts = np.array([" ".join(rng.choice(WORDS, 6)) for _ in range(300)])
    vectors = text_vectors(texts)
    expected = all_pairs(cosine_similarity(vectors), 0.8)

    assert issparse(vectors)
    assert expected.keys() == pairs_of(vectors, 0.8).keys()
    assert expected


def test_words_of_one_letter_count():
    assert not pairs_of(text_vectors(np.array(["a b", "a c d"])), 0.9)
    assert pairs_of(text_vectors(np.array(["a b", "b a"])), 0.9)


@pytest.mark.parametrize("texts", [["!", "?"], ["!", "?", "a word"]])
def test_texts_without_a_word_are_near_to_nothing(texts):
    assert not pairs_of(text_vectors(np.array(texts)), 0.1)


def test_values_that_are_not_finite_count_as_zero():
    rows = np.random.default_rng(2).normal(size=(20, 3))
    zeroed = rows.copy()
    rows[[3, 7], 1], zeroed[[3, 7], 1] = (np.nan, np.inf), 0

    np.testing.assert_array_equal(row_vectors(zeroed), row_vectors(rows))


def test_equal_rows_reach_a_threshold_of_one():
    rows = np.random.default_rng(3).normal(size=(300, 7))
    rows[299] = rows[4]

    assert [(4, 299)] == list(pairs_of(row_vectors(rows), 1))


def test_equal_items_are_given_with_all_their_positions():
    assert [[0, 2, 5], [1, 4]] == [x.tolist() for x in find_equal(["b", "a", "b", "c", "a", "b"])]


def test_joined_positions_are_connected_components():
    rng = np.random.default_rng(4)
    groups, one, other = rng.integers(0, 60, 100), *rng.integers(0, 100, (2, 30))
    components = Components(groups)
    for start in range(0, 30, 7):
        components.join(one[start : start + 7], other[start : start + 7])
    links = np.equal.outer(groups, groups)
    links[one, other] = True
    _, expected = connected_components(csr_array(links))
    first = components.first()

    assert all(first == [np.flatnonzero(expected == number)[0] for number in expected])
