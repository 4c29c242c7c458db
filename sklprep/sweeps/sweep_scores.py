"""The figures of a layer sweep: scores, and the statistics that follow from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sklprep.sweeps.intervals import (
    Comparison,
    clopper_pearson,
    compare,
    corrected_t,
    max_t_band,
)
from sklprep.sweeps.scorers import interval_of_scores


@dataclass(frozen=True, eq=False)
class Baseline:
    """Scores of a model that sees no activations.

    Attributes
    ----------
    scores : ndarray of shape (n_repeats * n_folds,)
    mean : float
    """

    scores: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.scores.mean())


@dataclass(frozen=True, eq=False, repr=False)
class SweepScores:
    """What was scored, and its statistics; `LayerSweep` describes each attribute."""

    layers: list[int | str]
    scores: NDArray[np.float64]
    fit_times: NDArray[np.float64]
    scoring: str
    n_samples: int
    n_groups: int
    n_repeats: int = 1
    size_ratio: float | None = None
    no_interval: str = ""
    best_layers: list[int | str] | None = None
    chosen: list[dict[str, Any]] | None = None
    permutation_scores: NDArray[np.float64] | None = None
    n_labelings: float = np.inf
    baselines: dict[str, Baseline] = field(default_factory=dict)
    residualized: Self | None = None
    solver: str = "scikit-learn"
    details: dict[str, str] = field(default_factory=dict)
    false_positive_rates: NDArray[np.float64] | None = None
    n_positives: int | None = None
    n_negatives: int | None = None
    score_reason: str = ""
    other_scores: dict[str, Self] = field(default_factory=dict)

    @property
    def n_folds(self) -> int:
        return self.scores.shape[1] // self.n_repeats

    @property
    def n_permutations(self) -> int:
        return 0 if self.permutation_scores is None else len(self.permutation_scores)

    @property
    def mean_scores(self) -> NDArray[np.float64]:
        return self.scores.mean(axis=1)

    @cached_property
    def band(self) -> NDArray[np.float64] | None:
        return None if self.size_ratio is None else max_t_band(self.scores, self.size_ratio)

    @property
    def nested_scores(self) -> NDArray[np.float64] | None:
        return self._of_best(self.scores)

    def _of_best(self, figures: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
        """Take the figure of the layer that was picked in each outer fold."""
        if self.best_layers is None or figures is None:
            return None
        picked = [self.layers.index(layer) for layer in self.best_layers]
        return figures[picked, range(figures.shape[1])]

    @property
    def nested_score(self) -> float | None:
        return None if self.nested_scores is None else float(self.nested_scores.mean())

    @property
    def nested_interval(self) -> tuple[float, float] | None:
        scores = self.nested_scores
        if scores is None or self.size_ratio is None:
            return None
        if self.n_positives is not None:  # a recall, whose thresholds vary too
            exact = clopper_pearson(float(scores.mean()), self.n_positives)
            low, high = corrected_t(scores, self.size_ratio)
            return max(0.0, min(low, exact[0])), min(1.0, max(high, exact[1]))
        if scores.min() == scores.max() and self.scoring != "accuracy":
            return None
        return interval_of_scores(scores, self.size_ratio, self.scoring, self.n_groups)

    @property
    def nested_fpr(self) -> float | None:
        rates = self._of_best(self.false_positive_rates)
        return None if rates is None else float(rates.mean())

    @property
    def nested_fpr_interval(self) -> tuple[float, float] | None:
        if self.nested_fpr is None or self.n_negatives is None or self.size_ratio is None:
            return None
        return clopper_pearson(self.nested_fpr, self.n_negatives)

    @property
    def repeat_spread(self) -> float | None:
        if self.nested_scores is None or self.n_repeats == 1:
            return None
        return float(self.nested_scores.reshape(self.n_repeats, -1).mean(axis=1).std(ddof=1))

    @property
    def comparisons(self) -> dict[str, Comparison]:
        scores = self.nested_scores
        if scores is None or self.size_ratio is None:
            return {}
        differences = [scores - baseline.scores for baseline in self.baselines.values()]
        found = compare(differences, self.size_ratio)
        return dict(zip(self.baselines, found, strict=True))

    @property
    def confounded(self) -> Comparison | None:
        if self.residualized is None or self.size_ratio is None:
            return None
        scores, others = self.nested_scores, self.residualized.nested_scores
        if scores is None or others is None:
            return None
        return compare([scores - others], self.size_ratio)[0]

    def compare_layers(self) -> dict[tuple[int | str, int | str], Comparison]:
        """Compare each pair of inputs on the same folds, all pairs together.

        Returns
        -------
        dict of (one, other) to Comparison
            The mean score of one minus that of the other. Empty where there is no interval.
        """
        if self.size_ratio is None:
            return {}
        pairs = list(combinations(range(len(self.layers)), 2))
        found = compare([self.scores[i] - self.scores[j] for i, j in pairs], self.size_ratio)
        names = [(self.layers[i], self.layers[j]) for i, j in pairs]
        return dict(zip(names, found, strict=True))

    @property
    def naive_best_score(self) -> float:
        return float(self.mean_scores[argmax(self.mean_scores)])

    @property
    def naive_best_layer(self) -> int | str:
        return self.layers[argmax(self.mean_scores)]

    @property
    def permutation_band(self) -> NDArray[np.float64] | None:
        if self.permutation_scores is None:
            return None
        return np.percentile(self.permutation_scores, [2.5, 97.5], axis=0)

    @property
    def adjusted_p_values(self) -> NDArray[np.float64] | None:
        if self.permutation_scores is None:
            return None
        observed = self.scores[:, : self.n_folds].mean(axis=1)
        largest = self.permutation_scores.max(axis=1)[:, np.newaxis]
        reached = ~(largest < observed - 1e-12)  # an undefined score counts as reached
        return (1 + reached.sum(axis=0)) / (1 + self.n_permutations)

    @property
    def p_value(self) -> float | None:
        p_values = self.adjusted_p_values
        return None if p_values is None else float(p_values.min())

    @property
    def p_value_min(self) -> float | None:
        if not self.n_permutations:
            return None
        return max(1 / (1 + self.n_permutations), 1 / self.n_labelings)


def argmax(scores: NDArray[np.float64]) -> int:
    """Give the position of the first of the largest; undefined scores lose."""
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))
