"""Values that rows carry: what each kind of collection becomes, and what is refused."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from sklprep import ActivationSet
from sklprep.activations.values import read_values
from sklprep.exceptions import InsufficientDataError, UsageError


def column(values):
    return np.array(values, dtype=object)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 1], np.array([0, 1, 1])),
        (column([0, 1, 1]), np.array([0, 1, 1])),
        (column([np.int8(0), 1, True]), np.array([0, 1, 1])),
        (column([False, np.True_]), np.array([False, True])),
        (column([0, 0.5, np.float32(2)]), np.array([0, 0.5, 2])),
        (column([1.0, 0.0]), np.array([1.0, 0.0])),
        (column([Decimal("0.5"), 1]), np.array([0.5, 1])),
        (column(["no", np.str_("yes")]), np.array(["no", "yes"])),
        (np.array([b"no", "Köln".encode()]), np.array(["no", "Köln"])),
        (column([b"no", "yes"]), np.array(["no", "yes"])),
        (np.array([1.5, 2], np.float16), np.array([1.5, 2], np.float16)),
        (pd.Series([1, 0], dtype="Int64"), np.array([1, 0])),
        (pd.Series([True, False], dtype="boolean"), np.array([True, False])),
        (pd.Series(["a", "b"], dtype="string"), np.array(["a", "b"])),
        (pd.Series(["b", "a"], dtype="category"), np.array(["b", "a"])),
        (column([]), np.array([], np.float64)),
        (column([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]])),
    ],
)
def test_values_become_a_plain_array(values, expected):
    found = read_values(values, "y")

    np.testing.assert_array_equal(expected, found, strict=True)


@pytest.mark.parametrize(
    "values",
    [
        [None, 1, 2],
        [np.nan, 1.0, 2.0],
        ["a", None, "b"],
        column(["a", float("nan"), "b"]),
        column([1, pd.NA, 2]),
        pd.Series([1, None, 2], dtype="Int64"),
        pd.Series(["a", None, "b"], dtype="string"),
        pd.Series(["a", None, "b"], dtype="category"),
        pd.to_datetime(pd.Series(["2020-01-01", None, "2021-01-01"])),
        column([Decimal("nan"), 1, 2]),
    ],
)
def test_missing_values_are_counted_in_one_line(values):
    with pytest.raises(InsufficientDataError, match=r"^y has 1 missing values among 3\. ") as error:
        read_values(values, "y")

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (column(["a", 1]), "y mixes text and numbers, such as 'a' and"),
        (column([1, object()]), "y holds object objects such as <object"),
        (column([1, [2, 3]]), r"y holds list objects such as \[2, 3\]"),
        (column([1j, 2]), "y holds complex objects"),
    ],
)
def test_what_is_not_one_kind_of_value_is_refused(values, message):
    with pytest.raises(UsageError, match=message):
        read_values(values, "y")


def test_rows_without_a_sentence_are_groups_of_their_own():
    texts = [None, "a", None, "b", float("nan"), "a", ""]

    acts = ActivationSet.from_arrays(hidden_states=np.zeros((7, 1, 2)), sentences=texts)

    assert acts.sentences.tolist() == ["", "a", "", "b", "", "a", ""]
    assert acts.groups.tolist() == [0, 1, 2, 3, 4, 1, 5]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_missing_groups_are_refused_in_one_line(missing):
    groups = np.array([missing, "a"] * 3, dtype=object)

    with pytest.raises(InsufficientDataError, match="groups has 3 missing values among 6"):
        ActivationSet.from_arrays(hidden_states=np.zeros((6, 1, 2)), groups=groups)


def test_whole_numbers_in_an_object_array_are_labels_of_int64():
    labels = np.array([0, 1, 1], dtype=object)

    acts = ActivationSet.from_arrays(hidden_states=np.zeros((3, 1, 2)), labels=labels)

    assert (acts.labels.dtype, acts.labels.tolist()) == (np.dtype(np.int64), [0, 1, 1])
