"""Result of a sweep over several SAE features: how well each can be predicted."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklprep.files.atomic import atomic_write
from sklprep.notebook.cards import card, table
from sklprep.sweeps.intervals import corrected_t
from sklprep.sweeps.wording import format_score, name_input

_COLUMNS = (
    "layer",
    "feature",
    "average_l0",
    "n_active",
    "r2",
    "r2_low",
    "r2_high",
    "auroc",
    "auroc_low",
    "auroc_high",
    "input",
    "left_out",
)


class Feature(NamedTuple):
    """One SAE feature."""

    layer: int
    feature: int
    average_l0: float

    def __str__(self) -> str:
        return f"feature {self.feature} of layer {self.layer}"


@dataclass(frozen=True, eq=False, repr=False)
class FeatureSweep:
    """Result of `feature_sweep`.

    Attributes
    ----------
    features : list of (layer, feature, average_l0)
        Those that were scored, in the order given.
    left_out : dict of (layer, feature, average_l0) to str
        Those that were not scored, and why.
    n_active : dict of (layer, feature, average_l0) to int
        Number of rows in which each is not zero.
    layers : list of int and str
        The inputs, as in `LayerSweep`.
    r2, auroc : ndarray of shape (n_features,), float64
        For the input that the inner folds chose: the share of the variance that is predicted, and
        how well the predictions rank rows where the feature is active above the others; NaN where
        it is active in every row. `feature_sweep` has the formulas.
    r2_intervals, auroc_intervals : ndarray of shape (n_features, 2)
        Their 95 % intervals, NaN where they could not be trusted: where `no_interval` says why, and
        for features that are not `common`.
    layer_r2, layer_auroc : ndarray of shape (n_features, n_layers)
        The same for each input.
    table : DataFrame
        One row per feature, best R2 first, those left out last: ``layer``, ``feature``,
        ``average_l0``, ``n_active``, ``r2`` and ``auroc`` with their ``_low`` and ``_high``,
        ``input`` (chosen most often), ``left_out`` (why). Without pandas, a dict of these columns.
    chosen : ndarray of shape (n_features, n_repeats * n_folds), int
        The input chosen in each outer fold, as a position in `layers`.
    errors, wins : ndarray of shape (n_features, n_layers, n_repeats * n_folds)
        In each fold: the sum of squared errors, and the number of pairs of an active and an
        inactive row that the predictions rank correctly.
    spreads, pairs : ndarray of shape (n_features, n_repeats * n_folds)
        Their denominators: the squared errors of the training mean, and all such pairs.
    n_samples, n_groups, n_repeats, n_folds : int
    size_ratio : float or None
        Rows of a test set to rows of its training set. None where there is no interval.
    no_interval : str
        Why there is no interval; otherwise empty.
    common : ndarray of shape (n_features,), bool
        Whether the feature is active in at least 30 groups, and inactive in as many.
    solver : str
        What fitted the models, as in `LayerSweep`.
    details : dict
        Estimator, folds, seed, versions.

    Examples
    --------
    >>> from sklprep import feature_sweep, make_activations
    >>> acts = make_activations(60, n_layers=2, d_model=8, n_features=32, random_state=0)
    >>> sweep = feature_sweep(None, acts, [(0, 3), (1, 3)], cv=4, n_repeats=1)
    >>> sorted(sweep.r2, reverse=True) == list(sweep.table["r2"])
    True
    """

    features: list[Feature]
    left_out: dict[Feature, str]
    n_active: dict[Feature, int]
    layers: list[int | str]
    errors: NDArray[np.float64]
    wins: NDArray[np.float64]
    spreads: NDArray[np.float64]
    pairs: NDArray[np.float64]
    chosen: NDArray[np.intp]
    common: NDArray[np.bool_]
    n_samples: int
    n_groups: int
    n_repeats: int
    size_ratio: float | None = None
    no_interval: str = ""
    solver: str = "scikit-learn"
    details: dict[str, str] = field(default_factory=dict)

    __module__ = "sklprep"

    @property
    def n_folds(self) -> int:
        return self.chosen.shape[1] // self.n_repeats

    @property
    def r2(self) -> NDArray[np.float64]:
        return 1 - _ratio(self._nested(self.errors), self.spreads)

    @property
    def auroc(self) -> NDArray[np.float64]:
        return _ratio(self._nested(self.wins), self.pairs)

    @property
    def layer_r2(self) -> NDArray[np.float64]:
        return 1 - _ratio(self.errors, self.spreads[:, np.newaxis])

    @property
    def layer_auroc(self) -> NDArray[np.float64]:
        return _ratio(self.wins, self.pairs[:, np.newaxis])

    @property
    def r2_intervals(self) -> NDArray[np.float64]:
        reductions = self.spreads - self._nested(self.errors)
        return self._intervals(reductions / self.spreads.mean(axis=1, keepdims=True))

    @property
    def auroc_intervals(self) -> NDArray[np.float64]:
        wins, ratios = self._nested(self.wins), self.auroc[:, np.newaxis]
        with np.errstate(invalid="ignore", divide="ignore"):
            moved = (wins - ratios * self.pairs) / self.pairs.mean(axis=1, keepdims=True)
        return np.clip(self._intervals(ratios + moved), 0, 1)

    def chosen_most(self, position: int) -> int | str:
        """Give the input that was chosen most often for a feature, by its position."""
        return self.layers[Counter(self.chosen[position].tolist()).most_common(1)[0][0]]

    @property
    def table(self) -> Any:
        rows = self._rows()
        try:
            import pandas as pd
        except ImportError:
            return {name: [row[i] for row in rows] for i, name in enumerate(_COLUMNS)}
        return pd.DataFrame(rows, columns=list(_COLUMNS))

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `table` as CSV, atomically; pandas is not needed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for row in self._rows():
            missing = [isinstance(value, float) and np.isnan(value) for value in row]
            writer.writerow("" if m else value for m, value in zip(missing, row, strict=True))
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())

    def summary(self) -> str:
        """Say in one sentence how many features can be predicted, and which one best."""
        best = int(np.argmax(self.r2))
        n, low = len(self.features), self.r2_intervals[:, 0]
        parts = [
            f"{self.features[best]} is predicted best, R2 {self._describe(best)} from"
            f" {name_input(self.chosen_most(best))}"
        ]
        if self.no_interval:
            parts.append(f"no intervals: {self.no_interval}")
        else:
            parts.append(f"{int((low > 0).sum())} of {n} have an interval above zero")
            if n_rare := int((~self.common).sum()):
                parts.append(f"{n_rare} of them have none, active or inactive in under 30 groups")
        if self.left_out:
            parts.append(f"{len(self.left_out)} left out, as they are active too rarely")
        return "; ".join(parts)

    def lines(self) -> list[list[str]]:
        """Give the table as text: layer, feature, active rows, R2, AUROC, input or reason."""
        lines = []
        for layer, feature, _, n_active, *scores, chosen, reason in self._rows():
            r2, auroc = _write_cell(*scores[:3]), _write_cell(*scores[3:])
            lines.append(
                [str(layer), str(feature), str(n_active), *r2, *auroc, reason or str(chosen)]
            )
        return lines

    def _describe(self, position: int) -> str:
        return " ".join(_write_cell(self.r2[position], *self.r2_intervals[position])).rstrip()

    def _rows(self) -> list[tuple[Any, ...]]:
        r2, auroc = self.r2, self.auroc
        of_r2, of_auroc = self.r2_intervals.tolist(), self.auroc_intervals.tolist()
        rows = [
            (
                *self.features[i],
                self.n_active[self.features[i]],
                float(r2[i]),
                *of_r2[i],
                float(auroc[i]),
                *of_auroc[i],
                self.chosen_most(i),
                "",
            )
            for i in np.argsort(-r2, kind="stable").tolist()
        ]
        unknown = (np.nan,) * 6
        return rows + [
            (*one, self.n_active[one], *unknown, "", reason)
            for one, reason in self.left_out.items()
        ]

    def _nested(self, parts: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.take_along_axis(parts, self.chosen[:, np.newaxis], axis=1)[:, 0]

    def _intervals(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Give the interval of the mean over folds of each feature that is common enough."""
        intervals = np.full((len(scores), 2), np.nan)
        if self.size_ratio is not None:
            for i in np.flatnonzero(self.common):
                intervals[i] = corrected_t(scores[i], self.size_ratio)
        return intervals

    def _repr_html_(self) -> str:
        """Show the sorted table in a notebook."""
        rows = [
            [f"feature {feature} of layer {layer}", *cells]
            for layer, feature, *cells in self.lines()
        ]
        head = ["feature", "active rows", "R2", "95 %", "AUROC", "95 %", "predicted from"]
        subtitle = f"{self.n_samples:,} rows in {self.n_groups:,} groups"
        details = [("features", table(head, rows))]
        return card("FeatureSweep", subtitle, lead=f"{self.summary()}.", details=details)

    def __repr__(self) -> str:
        return (
            f"FeatureSweep({len(self.features)} features, {len(self.left_out)} left out,"
            f" {len(self.layers)} inputs, {self.n_folds} folds: best R2 {self.r2.max():.3f})"
        )


def _ratio(parts: NDArray[np.float64], wholes: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return parts.sum(axis=-1) / wholes.sum(axis=-1)


def _write_cell(score: float, low: float, high: float) -> tuple[str, str]:
    around = "" if np.isnan(low) else f"[{format_score(low)}, {format_score(high)}]"
    return "" if np.isnan(score) else format_score(score), around
