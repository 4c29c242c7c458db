"""Folds of whole groups."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from sklprep.sweeps.folds import draw_folds


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_those_of_stratified_group_k_fold(seed, grouped):
    rng = np.random.default_rng(seed)
    n, n_folds = int(rng.integers(60, 120)), int(rng.integers(2, 6))
    y = rng.integers(0, rng.integers(2, 5), n)
    y = y if seed % 2 else np.array(list("dbca"))[y]
    groups = 7 * rng.integers(0, 40, n) if grouped else np.arange(n)

    found = draw_folds(n_folds, y, groups, classify=True, seed=seed)

    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    expected = splitter.split(np.zeros(n), y, groups)
    for (train, test), (expected_train, expected_test) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(expected_train, train)
        np.testing.assert_array_equal(expected_test, test)
