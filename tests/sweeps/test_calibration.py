"""Intervals cover and tests reject as they say, on a few simulated data sets.

``python -m tests.calibration`` does it on thousands.
"""

import numpy as np
import pytest
from calibration.__main__ import bounds, run
from calibration.simulated import CELLS

from sklprep import layer_sweep


@pytest.mark.parametrize("name", ["n 60, signal 1"])
def test_intervals_cover_the_accuracy_of_what_one_would_publish(name):
    cell = next(cell for cell in CELLS if cell.name == name)
    ((_, found),) = run([cell], 20, 1)
    # an interval that covers 95 % does so in fewer with probability 0.01; one of 70 % in most
    assert found["covers"] >= bounds(20, 0.95)[0]


def test_score_moves_little_with_the_seed():
    X = np.random.default_rng(0).standard_normal((100, 6, 12))
    y = np.arange(100) % 2
    X += 0.3 * y[:, None, None]
    scores = {
        n: [
            layer_sweep(None, X, y, n_repeats=n, random_state=seed, baselines=False).nested_score
            for seed in range(5)
        ]
        for n in (1, 10)
    }
    assert np.std(scores[10]) < np.std(scores[1])
    assert np.std(scores[10]) <= 0.025
