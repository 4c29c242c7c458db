"""Result of a layer sweep: its figures, in words, as a table, and in a notebook."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.files.atomic import atomic_write
from sklprep.formats.layers import EMBEDDINGS
from sklprep.notebook.cards import card, table
from sklprep.notebook.curve import draw_curve
from sklprep.sweeps.scorers import name_score
from sklprep.sweeps.sweep_scores import SweepScores
from sklprep.sweeps.sweep_text import describe_methods, summarize
from sklprep.sweeps.wording import format_score, name_input


@dataclass(frozen=True, eq=False, repr=False)
class LayerSweep(SweepScores):
    """Result of `layer_sweep`.

    Attributes
    ----------
    layers : list of int and str
        The inputs, in order: a layer number, a specification of several layers, ``"embeddings"``,
        SAE features as in ``"sae 12"``.
    scores, fit_times : ndarray of shape (n_layers, n_repeats * n_folds)
        Score, and fitting time in seconds, in each outer fold, repeat by repeat; with `param_grid`,
        for the parameters that the inner folds chose for the layer. Models that are fitted together
        share their time equally.
    mean_scores : ndarray of shape (n_layers,)
    band : ndarray of shape (2, n_layers), or None
        Lower and upper ends of the simultaneous 95 % band of the whole curve of mean scores, see
        `sklprep.sweeps.intervals.max_t_band`. None where there is no interval.
    nested_score : float or None
        Mean over the outer folds of the score of the layer that the inner folds picked. None
        without nesting, as are the next four.
    nested_scores : ndarray of shape (n_repeats * n_folds,), or None
        Its score in each outer fold.
    nested_interval : (float, float) or None
        Its 95 % interval by the corrected t; that of Clopper and Pearson if all rows were right, or
        all wrong; the wider of both for ``"recall_at_fpr"``. None where it could not be trusted;
        `no_interval` says why.
    best_layers : list of int and str, or None
        The layer picked in each outer fold.
    chosen : list of dict, or None
        What the inner folds chose in each outer fold: ``"layer"``, and the parameters of
        `param_grid`.
    false_positive_rates : ndarray of shape (n_layers, n_repeats * n_folds), or None
        For ``"recall_at_fpr"``, the share of the negative test rows above the threshold. None for
        other scores, as are the next three.
    nested_fpr : float or None
        Mean over the outer folds of that share for the layer that the inner folds picked.
    nested_fpr_interval : (float, float) or None
        Its 95 % interval by Clopper and Pearson.
    n_positives, n_negatives : int or None
        Number of groups with such rows: the n of these intervals.
    repeat_spread : float or None
        Standard deviation of the nested score over repeats. None for a single repeat.
    naive_best_score, naive_best_layer : float, int or str
        The largest of `mean_scores`, which its own selection inflates, and the layer that has it.
    permutation_scores : ndarray of shape (n_permutations, n_layers), or None
        Mean scores over folds with permuted labels, on the folds of the first repeat or on folds
        drawn in the same way.
    permutation_band : ndarray of shape (2, n_layers), or None
        Their 2.5th and 97.5th percentiles.
    p_value, p_value_min : float or None
        Permutation p-value of the maximum over layers in the first repeat, and the smallest it
        could be. A permutation without a defined score counts as one that reached it.
    adjusted_p_values : ndarray of shape (n_layers,), or None
        Permutation p-value of each layer against the maximum over layers, which accounts for the
        number of layers (Westfall and Young, 1993).
    baselines : dict of str to Baseline
        By name: ``"majority"`` or ``"mean"``, ``"confounds"``, ``"sentence length"``, ``"TF-IDF"``.
        Scores that are 0 for the majority by definition have ``"always ..."`` in its place, or
        ``"random labels"`` beside it; `recall_at_fpr` has neither.
    comparisons : dict of str to Comparison
        The nested score against each baseline, on the same folds. Empty where there is no interval.
    residualized : LayerSweep or None
        The sweep, on the same folds, of activations minus what `confounds` predict of them.
    confounded : Comparison or None
        The nested score minus that of `residualized`: how much the confounds may contribute.
    table : DataFrame
        One row for each layer and fold: ``layer``, ``repeat``, ``fold``, ``score``, ``fit_time``;
        ``band_low``, ``band_high`` and ``adjusted_p`` of the layer; and a column for each of
        `other_scores`. Without pandas, a dict of these columns.
    scoring : str
        Name of the score that chose layers and parameters.
    score_reason : str
        Why the default score is not accuracy or R2; otherwise empty.
    other_scores : dict of str to LayerSweep
        The same fits and choices, scored by each of the other scorers: ``nested_score``,
        ``nested_interval``, ``band``, ``baselines`` and ``comparisons`` are by that scorer.
    solver : str
        What fitted the models: ``"sklprep"``, ``"scikit-learn"``, or both, in the order of the
        inputs.
    n_samples, n_groups, n_repeats, n_permutations : int
    n_folds : int
        Outer folds of one repeat.
    size_ratio : float or None
        Rows of a test set to rows of its training set. None where there is no interval.
    no_interval : str
        Why there is no interval; otherwise empty.
    n_labelings : float
        How many labelings the permutations are drawn from.
    details : dict
        Further facts for `methods_text`: data, estimator, folds, seed, versions.

    Examples
    --------
    >>> from sklprep import layer_sweep, make_activations
    >>> acts = make_activations(60, n_layers=3, d_model=8, n_features=32, random_state=0)
    >>> sweep = layer_sweep(None, acts, acts.labels, cv=3, inner_cv=None, baselines=False)
    >>> sweep.mean_scores.shape, sweep.nested_score is None
    ((4,), True)
    """

    __module__ = "sklprep"

    @property
    def table(self) -> Any:
        columns = self._columns()
        try:
            import pandas as pd
        except ImportError:
            return columns
        return pd.DataFrame(columns)

    def _columns(self) -> dict[str, list[Any]]:
        n_layers, n = self.scores.shape

        def of_layers(values: NDArray[np.float64] | None) -> list[float]:
            values = np.full(n_layers, np.nan) if values is None else values
            return np.repeat(values, n).tolist()

        repeats, folds = np.divmod(np.arange(n), self.n_folds)
        low, high = (None, None) if self.band is None else self.band
        return {
            "layer": [layer for layer in self.layers for _ in range(n)],
            "repeat": repeats.tolist() * n_layers,
            "fold": folds.tolist() * n_layers,
            "score": self.scores.reshape(-1).tolist(),
            "fit_time": self.fit_times.reshape(-1).tolist(),
            "band_low": of_layers(low),
            "band_high": of_layers(high),
            "adjusted_p": of_layers(self.adjusted_p_values),
            **{name: one.scores.reshape(-1).tolist() for name, one in self.other_scores.items()},
        }

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `table` as CSV, atomically; pandas is not needed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = self._columns()
        writer.writerow(columns)
        for layer, repeat, fold, score, seconds, *others in zip(*columns.values(), strict=True):
            blank = ["" if np.isnan(value) else f"{value:.6g}" for value in others]
            writer.writerow([layer, repeat, fold, score, f"{seconds:.6f}", *blank])
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())

    def summary(self) -> str:
        """Give the answer in one sentence, with the baselines and controls to hold it against."""
        return summarize(self)

    def methods_text(self) -> str:
        """Describe data, folds, model, controls and versions in one paragraph for a paper."""
        return describe_methods(self)

    def _repr_html_(self) -> str:
        """Show the summary and the curve in a notebook."""
        means, spreads, of_bars = self.mean_scores, self.scores.std(axis=1), "s.d. over folds"
        if self.band is not None:
            spreads, of_bars = self.band[1] - means, "band to each side"
        single = [isinstance(layer, int) for layer in self.layers]
        chosen = None
        picked: Counter[Any] = Counter(self.best_layers or ())
        if self.nested_score is not None and self.nested_interval is not None:
            chosen = (self.nested_score, *self.nested_interval)
        picture = draw_curve(
            ["emb" if layer == EMBEDDINGS else str(layer) for layer in self.layers],
            means,
            spreads,
            joined=[one and other for one, other in pairwise(single)],
            ylabel=f"{name_score(self.scoring)}, {self.n_folds} folds",
            lines={name: baseline.mean for name, baseline in self.baselines.items()},
            band=self.permutation_band,
            chosen=chosen,
        )
        rows = [
            [
                name_input(layer),
                format_score(mean, 3),
                format_score(spread, 3),
                str(picked[layer]) if chosen else "",
            ]
            for layer, mean, spread in zip(self.layers, means, spreads, strict=True)
        ]
        head = ["input", "mean", of_bars, "picked in folds" if chosen else ""]
        details = [("scores", table(head, rows))]
        if self.details:
            details.append(("methods", f"<p>{escape(self.methods_text())}</p>"))
        subtitle = f"{self.n_samples:,} rows in {self.n_groups:,} groups"
        bars = "the simultaneous 95 % band" if self.band is not None else of_bars
        caption = [f"Dots and bars: mean and {bars}."]
        if chosen:
            caption.append("Diamond: layer chosen inside the folds, 95 % interval.")
        if self.permutation_scores is not None:
            caption.append("Grey: 95 % of the scores of permuted labels.")
        return card(
            "LayerSweep",
            subtitle,
            lead=f"{self.summary()}.",
            picture=picture,
            caption=" ".join(caption),
            details=details,
        )

    def __repr__(self) -> str:
        score = (
            f"naive best {self.naive_best_score:.3f}"
            if self.nested_score is None
            else f"nested {self.nested_score:.3f}"
        )
        return (
            f"LayerSweep({len(self.layers)} inputs, {self.n_folds} folds, {self.scoring}: {score})"
        )
