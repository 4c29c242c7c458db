"""How often intervals of a recall at a fixed rate of false positives hold what they should.

The detector that one would publish, "the refit", is fitted on all rows, with the threshold that
rows held out of five folds calibrate; its recall and its rate on new rows are known. "The models"
are the mean of those of four fifths of the rows, which were cross-validated.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from sklprep import layer_sweep, recall_at_fpr
from sklprep.exceptions import SklprepWarning

from .simulated import N_COLUMNS

HEAD = (
    "| detectors | recall | covers the refit's | the models' | width |"
    " false positives | covers the refit's | the models' |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
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

    def deploy(rows: Any) -> Any:
        """Give the rate and the recall, on new rows, of a detector of some rows."""
        known, X_known = y[rows], X[rows]
        held_out = cross_val_predict(model, X_known, known, cv=5, method="decision_function")
        calibration = known, held_out
        point = recall_at_fpr(known, held_out, calibration=calibration, fpr=cell.fpr)
        model.fit(X_known, known)
        weights = model.coef_.ravel()
        above = np.ravel(model.intercept_)[0] + np.array([0, cell.signal]) * weights[0]
        return norm.cdf((above - point.threshold) / np.linalg.norm(weights))

    rate, recall = deploy(np.arange(cell.n_rows))
    folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(X, y)
    rate_of_models, of_models = np.mean([deploy(train) for train, _ in folds], axis=0)
    bounds, of_rate = found.nested_interval, found.nested_fpr_interval
    return {
        "recall": recall,
        "refit": bounds[0] <= recall <= bounds[1],
        "models": bounds[0] <= of_models <= bounds[1],
        "width": bounds[1] - bounds[0],
        "rate": rate,
        "refit_rate": of_rate[0] <= rate <= of_rate[1],
        "models_rate": of_rate[0] <= rate_of_models <= of_rate[1],
    }


def to_line(cell: Detector, found: dict[str, Any]) -> str:
    """Write a row of the table."""
    shares = {name: f"{value:.1%}" for name, value in found.items()}
    numbers = [
        f"{found['recall']:.2f}",
        *(shares["refit"], shares["models"], f"{found['width']:.2f}"),
        *(shares["rate"], shares["refit_rate"], shares["models_rate"]),
    ]
    return f"| {cell.name} | {' | '.join(numbers)} |"
