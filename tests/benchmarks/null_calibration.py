"""How often the permutation p-value of a sweep over pure noise is below 0.05.

``python -m tests.benchmarks.null_calibration`` takes about half a minute.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from sklprep.sweeps.sweep import layer_sweep


class LeastSquares(ClassifierMixin, BaseEstimator):
    """Two-class regularized least squares: a real linear model that fits in microseconds."""

    def fit(self, X, y):
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.mean_ = X.mean(axis=0)
        centred = X - self.mean_
        target = codes - codes.mean()
        gram = centred.T @ centred + np.eye(X.shape[1])
        self.coef_ = np.linalg.solve(gram, centred.T @ target)
        self.threshold_ = 0.5 - codes.mean()
        return self

    def predict(self, X):
        above = (X - self.mean_) @ self.coef_ > self.threshold_
        return self.classes_[above.astype(int)]


def hit_rate(model, X, y):
    """Accuracy, without the cost of scikit-learn's checks."""
    return float(np.mean(model.predict(X) == y))


def null_p_value(seed, *, n_permutations=39, n=40, n_layers=3, d=4):
    """p-value of a sweep over noise with balanced labels that mean nothing."""
    rng = np.random.default_rng([seed, 99])
    X = rng.standard_normal((n, n_layers, d))
    y = rng.permutation(np.arange(n) % 2)
    sweep = layer_sweep(
        LeastSquares(),
        X,
        y,
        inner_cv=None,
        scoring=hit_rate,
        n_permutations=n_permutations,
        baselines=False,
        random_state=seed,
    )
    return sweep.p_value


def main(n_datasets=200):
    started = time.perf_counter()
    p_values = np.array([null_p_value(seed) for seed in range(n_datasets)])
    rejected = np.mean(p_values < 0.05)
    print(
        f"{n_datasets} noise datasets, 39 permutations each: p < 0.05 in {rejected:.1%}"
        f" (nominal 2.5 %, at most 8 % allowed), p <= 0.05 in {np.mean(p_values <= 0.05):.1%}"
        f" (nominal 5 %), mean p {p_values.mean():.3f} (nominal 0.513);"
        f" {time.perf_counter() - started:.0f} s"
    )
    return rejected


if __name__ == "__main__":
    sys.exit(int(main() > 0.08))
