"""Result of a layer sweep: scores, the answer in one sentence, a paragraph for a paper."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.files.atomic import atomic_write
from sklprep.formats.layers import EMBEDDINGS, format_layers
from sklprep.notebook.cards import card, table
from sklprep.notebook.curve import draw_curve
from sklprep.sweeps.intervals import (
    LEVEL,
    Comparison,
    clopper_pearson,
    compare,
    corrected_t,
    max_t_band,
)
from sklprep.sweeps.scorers import interval_of_scores, name_score

_SOLVERS = {
    "sklprep": "a solver that reaches scikit-learn's optimum for all folds and labelings at once",
    "scikit-learn": "scikit-learn",
}


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
class LayerSweep:
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
    residualized: LayerSweep | None = None
    solver: str = "scikit-learn"
    details: dict[str, str] = field(default_factory=dict)
    false_positive_rates: NDArray[np.float64] | None = None
    n_positives: int | None = None
    n_negatives: int | None = None
    score_reason: str = ""
    other_scores: dict[str, LayerSweep] = field(default_factory=dict)

    __module__ = "sklprep"

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
        naive = format_score(self.naive_best_score)
        naive = f"naive best {naive} at {name_input(self.naive_best_layer)}"
        if self.best_layers is None:
            head = f"Not nested, so the best {self._score_name} is inflated by its selection"
            parts = [naive]
        else:
            head = self._head()
            parts = [*self._describe_rate(), self._picked()]
            if self._had_a_choice and (left_out := self.details.get("left_out")):
                parts.append(left_out)
            if len(self.layers) > 1:
                parts.append(naive)
        if self.baselines:
            order = sorted(self.baselines, key=lambda name: name == "sentence length")
            parts.append(", ".join(map(self._name_baseline, order)))
        parts += self._compared() if self.comparisons else self._unbeaten()
        parts += self._describe_residualized()
        if self.p_value is not None:
            parts.append(
                f"permutation p = {self.p_value:.3g} (smallest possible {self.p_value_min:.3g})"
            )
        best = argmax(self.mean_scores)
        parts += [one._say(best) for one in self.other_scores.values()]
        if self.score_reason:
            parts.append(f"scored by {self._score_name} as {self.score_reason}")
        return f"{head}: {'; '.join(parts)}"

    def _name_baseline(self, name: str) -> str:
        """Give a baseline with its score, and say if it is clearly worse than the majority.

        It then learned what is wrong in test rows, as from near-duplicates of the other label, and
        exceeding it means little.
        """
        said = f"{name} {format_score(self.baselines[name].mean)}"
        majority = self.baselines.get("majority")
        if majority is None or self.size_ratio is None:
            return said
        differences = self.baselines[name].scores - majority.scores
        is_worse = compare([differences], self.size_ratio)[0].interval[1] < 0
        return f"{said} (worse than the majority)" if is_worse else said

    def _say(self, best: int) -> str:
        """Say the nested score and its interval; without nesting, those of the layer at `best`."""
        score = self.mean_scores[best] if self.nested_score is None else self.nested_score
        if self.nested_interval is None:
            return f"{self._score_name} {format_score(score)}"
        low, high = map(format_score, self.nested_interval)
        return f"{self._score_name} {format_score(score)} [{low}, {high}]"

    @property
    def _had_a_choice(self) -> bool:
        return len(self.layers) > 1 or any(len(one) > 1 for one in self.chosen or ())

    def _head(self) -> str:
        said = self._say(0)
        is_whole = self._had_a_choice and not self.details.get("left_out")
        head = f"Honest {said}" if is_whole else f"{said[0].upper()}{said[1:]}"
        if self.nested_interval is None:
            head += f" (no interval: {self._why_no_interval})"
        if self.repeat_spread is None:
            return head
        return f"{head} over {self.n_repeats} repeats (s.d. {format_score(self.repeat_spread, 3)})"

    def _describe_rate(self) -> list[str]:
        """Say which share of negatives the calibrated thresholds let through."""
        if self.nested_fpr is None:
            return []
        interval = ""
        if self.nested_fpr_interval is not None:
            low, high = (format_score(bound, 3) for bound in self.nested_fpr_interval)
            interval = f" [{low}, {high}]"
        return [
            f"false positives on test rows {format_score(self.nested_fpr, 3)}{interval}, which is"
            " also the recall of chance"
        ]

    def _picked(self) -> str:
        if not self._had_a_choice:
            name = name_input(self.layers[0])
            return f"of {name} alone; any earlier choice of it is not accounted for"
        layer, times = Counter(self.best_layers).most_common(1)[0]
        verb = "was" if isinstance(layer, int) else "were"
        picked = f"{name_input(layer)} {verb} picked in {times} of {self.scores.shape[1]} folds"
        alike = self._not_shown_to_differ_from(layer)
        if alike:
            verb = "is" if alike == 1 else "are"
            others = f"the {len(self.layers) - 1} other inputs"
            picked += f" ({alike} of {others} {verb} not shown to differ from it)"
        return picked

    def _not_shown_to_differ_from(self, layer: int | str) -> int:
        """Count the other inputs that the corrected t does not distinguish from one."""
        pairs = self.compare_layers().items()
        return sum(layer in pair and found.p_value > 1 - LEVEL for pair, found in pairs)

    def _unbeaten(self) -> list[str]:
        """Without comparisons, name the baselines that the score does not exceed."""
        score = self.naive_best_score if self.nested_score is None else self.nested_score
        names = [name for name, rival in self.baselines.items() if not score > rival.mean]
        return [f"not better than {' and '.join(names)}"] if names else []

    def _compared(self) -> list[str]:
        """Say which baselines the score is shown to be better than, and which not."""
        better, others = [], []
        for name, found in self.comparisons.items():
            low, high = map(format_score, found.interval)
            by = f"{format_score(found.difference)} [{low}, {high}]"
            if found.is_better:
                better.append(f"than {name} by {by}")
            else:
                others.append(f"than {name} ({by})")
        return [
            *([f"better {', '.join(better)}"] if better else []),
            *([f"not shown to be better {', '.join(others)}"] if others else []),
        ]

    def _describe_residualized(self) -> list[str]:
        """Say what is left of the score without what confounds explain."""
        if self.residualized is None:
            return []
        head = self.residualized._head().removeprefix("Honest ")
        head = f"{head[0].lower()}{head[1:]}"
        found = f"without what is linear in the confounds ({self.details['confounds']}), {head}"
        if self.confounded is not None:
            by = format_score(abs(self.confounded.difference))
            ends = sorted(self.confounded.interval)
            if ends[0] > 0:
                low, high = map(format_score, ends)
                found += f", lower by {by} [{low}, {high}]"
            elif ends[1] < 0:
                found += (
                    f", higher by {by}: removing the confounds has encoded them in the columns, so"
                    " do not report it"
                )
            else:
                low, high = map(format_score, ends)
                by = format_score(self.confounded.difference)
                found += f", not shown to be lower ({by} [{low}, {high}])"
        return [found]

    def methods_text(self) -> str:
        """Describe data, folds, model, controls and versions in one paragraph for a paper."""
        details = self.details
        sentences = [
            f"{details['data']}: {self.n_samples:,} rows in {self.n_groups:,} groups,"
            f" {details['target']}.",
            f"Each of {len(self.layers)} inputs ({_name_inputs(self.layers)}) was scored by"
            f" {self._score_name} in {self._times}{self.n_folds}-fold cross-validation"
            f" ({details['folds']}), on"
            " the same folds for every input and with no group on both sides of a split; the model"
            f" {details['estimator']} was refitted from scratch, its normalization included, on the"
            f" training rows of each fold, by"
            f" {', or by '.join(_SOLVERS[name] for name in self.solver.split(' and '))}.",
        ]
        if aggregate := details.get("aggregate"):
            sentences.append(f"Sentences were scored by {aggregate}.")
        if self.best_layers is not None:
            sentences.append(
                f"The best input{self._name_parameters()} was chosen by inner cross-validation"
                f" ({details['inner_folds']}) within each outer training set and scored on the"
                f" outer test set: {self._score_name} {format_score(self.nested_score, 3)},"
                f" {self._describe_interval()}."
            )
        if self.nested_fpr is not None:
            sentences.append(
                "The threshold of each outer fold was calibrated on the rows that its inner folds"
                f" held out; {self._describe_rate()[0]}. Intervals of that rate are Clopper and"
                " Pearson's, and do not include how thresholds vary."
            )
        sentences += self._describe_choice()
        if left_out := details.get("left_out"):
            sentences.append(f"{left_out[0].upper()}{left_out[1:]}.")
        if self.score_reason:
            sentences.append(f"The score is {self._score_name}, as {self.score_reason}.")
        if self.other_scores:
            best = argmax(self.mean_scores)
            said = ", ".join(one._say(best) for one in self.other_scores.values())
            sentences.append(f"Scores of the same models that were not used to choose: {said}.")
        if self.permutation_scores is not None:
            sentences.append(
                f"In a permutation control labels were permuted between groups"
                f" {self.n_permutations:,} times, {details['permutations']}, the same for all"
                f" inputs; the maximum over inputs has p = {self.p_value:.3g} (smallest possible"
                f" {self.p_value_min:.3g}), compared with that of the first repeat; p-values of"
                " single inputs are adjusted by the same maximum (Westfall and Young 1993)."
            )
        if self.baselines:
            means = ", ".join(
                f"{name} {format_score(b.mean, 3)}" for name, b in self.baselines.items()
            )
            sentences.append(f"Baselines on the same folds: {means}.")
        if self.comparisons:
            compared = "; ".join(
                f"{name} {format_score(c.difference, 3)}"
                f" [{format_score(c.interval[0], 3)}, {format_score(c.interval[1], 3)}],"
                f" {_format_p(c.p_value)}"
                for name, c in self.comparisons.items()
            )
            sentences.append(
                "Paired differences from them, by the corrected t with p-values by Holm's method:"
                f" {compared}."
            )
        if self.residualized is not None:
            sentences.append(
                "The confounds were a baseline by themselves, and each column was residualized on"
                " them by least squares on the training rows of each fold:"
                f" {self._describe_residualized()[0]}."
            )
        if "TF-IDF" in self.baselines:
            sentences.append(
                "TF-IDF sees words of two letters or more, not punctuation, case or order."
            )
        sentences.append(
            "Other seeds, scores, folds, inputs and selections of rows that were tried are not"
            " accounted for."
        )
        return " ".join([*sentences, f"Seed {details['seed']}; {details['versions']}."])

    def _describe_choice(self) -> list[str]:
        if not self._had_a_choice:
            return ["Any earlier choice of this input is not accounted for."]
        if self.best_layers is None:
            return []
        picked = self._picked()
        return [f"{picked[0].upper()}{picked[1:]}."]

    @property
    def _why_no_interval(self) -> str:
        return self.no_interval or "all folds have the same score"

    def _describe_interval(self) -> str:
        if self.nested_interval is None:
            return f"without an interval, as {self._why_no_interval}"
        low, high = (format_score(bound, 3) for bound in self.nested_interval)
        if self.n_positives is not None:
            return (
                f"95 % interval [{low}, {high}] of {self.n_positives:,} positives (the wider of"
                " Clopper and Pearson 1934 and the corrected t)"
            )
        return (
            f"95 % interval [{low}, {high}] by the corrected t over folds and repeats (Nadeau and"
            " Bengio 2003; Bouckaert and Frank 2004)"
        )

    def _name_parameters(self) -> str:
        competed = self.details.get("parameters")
        return f" and the best of the parameters {competed}" if competed else ""

    @property
    def _times(self) -> str:
        return f"{self.n_repeats} repeats of " if self.n_repeats > 1 else ""

    @property
    def _score_name(self) -> str:
        return name_score(self.scoring)

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
            ylabel=f"{self._score_name}, {self.n_folds} folds",
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


def _format_p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.3g}"


def argmax(scores: NDArray[np.float64]) -> int:
    """Give the position of the first of the largest; undefined scores lose."""
    return int(np.argmax(np.where(np.isnan(scores), -np.inf, scores)))


def format_score(score: float | None, digits: int = 2) -> str:
    """Write a score for people; never as -0.00."""
    return "none" if score is None else f"{round(score, digits) + 0.0:.{digits}f}"


def name_input(layer: int | str) -> str:
    if layer == EMBEDDINGS:
        return EMBEDDINGS
    if str(layer).startswith("sae "):
        layers, _, l0 = str(layer)[4:].partition(" l0 ")
        plural = "" if layers.isdigit() else "s"
        return f"SAE features of layer{plural} {layers}" + (f" (average_l0 {l0})" if l0 else "")
    return f"layer {layer}" if isinstance(layer, int) else f"layers {layer}"


def _name_inputs(layers: Sequence[int | str]) -> str:
    single = [layer for layer in layers if isinstance(layer, int)]
    parts = [name_input(layer) for layer in layers if not isinstance(layer, int)]
    if single:
        parts.append(f"{'layer' if len(single) == 1 else 'each of layers'} {format_layers(single)}")
    return ", ".join(parts)
