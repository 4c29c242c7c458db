"""Resampling test rows with fixed models, for the interval of a score."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from threadpoolctl import threadpool_limits

from sklprep.sweeps.closed_forms import CLOSED_FORMS
from sklprep.sweeps.fitting import Answers
from sklprep.sweeps.scoring import Scoring

N_DRAWS = 1_000
"""Draws of an interval: the 25 beyond each bound place it to within a tenth of its width."""


def draw_counts(
    rng: np.random.Generator, groups: NDArray[np.int64], n_draws: int
) -> NDArray[np.int64]:
    """How often each row is drawn, (n_draws, n_rows), where whole groups are drawn."""
    codes = np.unique(groups, return_inverse=True)[1].reshape(-1)
    n_groups = codes.max() + 1
    counts = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws)
    return counts[:, codes]


def score_draws(
    scoring: Scoring, model: Any, X: Any, y: NDArray[Any], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Score each draw, a count for every row, of a fixed model; NaN where it has no score."""
    if scoring.name in CLOSED_FORMS and isinstance(model, Answers):
        return CLOSED_FORMS[scoring.name](model, X, y, counts)
    scores = np.full(len(counts), np.nan)
    with (
        warnings.catch_warnings(),
        config_context(assume_finite=True, skip_parameter_validation=True),
        threadpool_limits(1, user_api="blas"),
    ):
        warnings.simplefilter("ignore")
        for i, count in enumerate(counts):
            rows = np.repeat(np.arange(len(y)), count)
            with suppress(ValueError):  # a class that was not drawn, for some scorers
                scores[i] = scoring.scorer(model, X[rows], y[rows])
    return scores


def middle_95(scores: NDArray[np.float64]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the scores that are defined."""
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return np.nan, np.nan
    low, high = np.percentile(scores, [2.5, 97.5])
    return float(low), float(high)
