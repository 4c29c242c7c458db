"""How often intervals of a recall at a fixed rate of false positives hold what they should.

The detector that one would publish is fitted on all rows, with the threshold that rows held out of
five folds calibrate; its recall and its rate on new rows are known.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import cross_val_predict

from sklprep import layer_sweep, recall_at_fpr
from sklprep.exceptions import SklprepWarning

from .simulated import N_COLUMNS

HEAD = (
    "| data sets | recall | covers the recall | width | false positives | covers the rate |\n"
    "| --- | --- | --- | --- | --- | --- |"
)
N_REPEATS = 3


class Detector(NamedTuple):
    """One kind of data set: rows of two classes, the distance of their means, and the rate."""

    n_rows: int
    signal: float
    fpr: float
    share: float = 0.5

    @property
    def name(self) -> str:
        rows = f"{self.n_rows:,} rows, {self.share:.0%} positive"
        return f"{rows}, signal {self.signal:g}, at {self.fpr:.0%} false positives"


DETECTORS = [
    Detector(200, 2.0, 0.05),
    Detector(400, 2.0, 0.05),
    Detector(400, 3.0, 0.01),
    Detector(1_000, 3.0, 0.01),
    Detector(600, 2.0, 0.05, share=0.1),
]


def measure(cell: Detector, seed: int) -> dict[str, Any]:
    """One data set: what a sweep of one input says of it, and what is true."""
    rng = np.random.default_rng([seed, cell.n_rows, int(1 / cell.fpr)])
    y = (np.arange(cell.n_rows) < cell.share * cell.n_rows).astype(int)
    X = rng.standard_normal((cell.n_rows, N_COLUMNS))
    X[:, 0] += cell.signal * y
    model, scoring = RidgeClassifier(), f"recall_at_fpr={cell.fpr}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SklprepWarning)  # that neighbours in sequence are alike
        options = {"scoring": scoring, "n_repeats": N_REPEATS, "random_state": seed}
        found = layer_sweep(model, X[:, np.newaxis], y, baselines=False, **options)

    held_out = cross_val_predict(model, X, y, cv=5, method="decision_function")
    threshold = recall_at_fpr(y, held_out, calibration=(y, held_out), fpr=cell.fpr).threshold
    model.fit(X, y)
    weights, spread = model.coef_[0], np.linalg.norm(model.coef_)
    above = (model.intercept_[0] + np.array([0, cell.signal]) * weights[0] - threshold) / spread
    rate, recall = norm.cdf(above)
    bounds, of_rate = found.nested_interval, found.nested_fpr_interval
    return {
        "recall": recall,
        "covers": bounds[0] <= recall <= bounds[1],
        "width": bounds[1] - bounds[0],
        "rate": rate,
        "covers_rate": of_rate[0] <= rate <= of_rate[1],
    }


def to_line(cell: Detector, found: dict[str, Any]) -> str:
    """Write a row of the table."""
    numbers = [
        f"{found['recall']:.2f}",
        f"{found['covers']:.1%}",
        f"{found['width']:.2f}",
        f"{found['rate']:.1%}",
        f"{found['covers_rate']:.1%}",
    ]
    return f"| {cell.name} | {' | '.join(numbers)} |"
