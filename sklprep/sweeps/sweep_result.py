"""What a layer sweep found: scores, the honest answer, and the words for a paper."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.files.atomic import atomic_write
from sklprep.formats.layers import EMBEDDINGS, format_layers
from sklprep.notebook.cards import card, table
from sklprep.notebook.curve import draw_curve
from sklprep.sweeps.bootstrap import N_DRAWS

_SOLVERS = {
    "sklprep": "a solver that reaches scikit-learn's optimum for all folds and labelings at once",
    "scikit-learn": "scikit-learn",
}


@dataclass(frozen=True, eq=False)
class Baseline:
    """Scores of a model that sees no activations.

    Attributes
    ----------
    scores : ndarray of shape (n_folds,)
    mean : float
    """

    scores: NDArray[np.float64]

    @property
    def mean(self) -> float:
        return float(self.scores.mean())


@dataclass(frozen=True, eq=False, repr=False)
class LayerSweep:
    """What `layer_sweep` found.

    Attributes
    ----------
    layers : list of int and str
        The inputs, in order: a layer number, a specification of several layers, ``"embeddings"``,
        SAE features as in ``"sae 12"``.
    scores, fit_times : ndarray of shape (n_layers, n_folds)
        Score and seconds of fitting in each outer fold; of `param_grid` with the parameters that
        the inner folds chose for the layer. Models that are fitted together share their time
        equally.
    mean_scores : ndarray of shape (n_layers,)
    nested_score : float or None
        Mean over the outer folds of the score of the layer that the inner folds picked. None
        without nesting, as are the next two.
    nested_interval : (float, float) or None
        Its 95 % interval, without the variance of training.
    best_layers : list of int and str, or None
        The layer picked in each outer fold.
    chosen : list of dict, or None
        What the inner folds chose in each outer fold: ``"layer"``, and the parameters of
        `param_grid`.
    naive_best_score, naive_best_layer : float, int or str
        The largest of `mean_scores`, flattered by its own selection, and where it is.
    permutation_scores : ndarray of shape (n_permutations, n_layers), or None
        Mean over folds with permuted labels.
    permutation_band : ndarray of shape (2, n_layers), or None
        Their 2.5th and 97.5th percentiles.
    p_value, p_value_min : float or None
        Permutation p-value of the maximum over layers, and the smallest it could be.
    baselines : dict of str to Baseline
        Of ``"majority"`` or ``"mean"``, ``"sentence length"``, ``"TF-IDF"``.
    table : DataFrame
        One row for each layer and fold: ``layer``, ``fold``, ``score``, ``fit_time``. Without
        pandas, a dict of these columns.
    scoring : str
    solver : str
        What fitted: ``"sklprep"``, ``"scikit-learn"``, or both, in the order of the inputs.
    n_samples, n_groups, n_folds, n_permutations : int
    details : dict
        What `methods_text` says besides: data, estimator, folds, seed, versions.

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
    nested_interval: tuple[float, float] | None = None
    best_layers: list[int | str] | None = None
    chosen: list[dict[str, Any]] | None = None
    permutation_scores: NDArray[np.float64] | None = None
    baselines: dict[str, Baseline] = field(default_factory=dict)
    solver: str = "scikit-learn"
    details: dict[str, str] = field(default_factory=dict)

    __module__ = "sklprep"

    @property
    def n_folds(self) -> int:
        return self.scores.shape[1]

    @property
    def n_permutations(self) -> int:
        return 0 if self.permutation_scores is None else len(self.permutation_scores)

    @property
    def mean_scores(self) -> NDArray[np.float64]:
        return self.scores.mean(axis=1)

    @property
    def nested_score(self) -> float | None:
        if self.best_layers is None:
            return None
        picked = [self.layers.index(layer) for layer in self.best_layers]
        return float(self.scores[picked, range(self.n_folds)].mean())

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
    def p_value(self) -> float | None:
        if self.permutation_scores is None:
            return None
        reached = self.permutation_scores.max(axis=1) >= self.naive_best_score - 1e-12
        return float(1 + reached.sum()) / (1 + self.n_permutations)

    @property
    def p_value_min(self) -> float | None:
        return 1 / (1 + self.n_permutations) if self.n_permutations else None

    @property
    def table(self) -> Any:
        columns = {
            "layer": [layer for layer in self.layers for _ in range(self.n_folds)],
            "fold": list(range(self.n_folds)) * len(self.layers),
            "score": self.scores.reshape(-1).tolist(),
            "fit_time": self.fit_times.reshape(-1).tolist(),
        }
        try:
            import pandas as pd
        except ImportError:
            return columns
        return pd.DataFrame(columns)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `table` as CSV, atomically; pandas is not needed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["layer", "fold", "score", "fit_time"])
        for layer, scores, times in zip(self.layers, self.scores, self.fit_times, strict=True):
            for fold, (score, seconds) in enumerate(zip(scores, times, strict=True)):
                writer.writerow([layer, fold, float(score), f"{seconds:.6f}"])
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())

    def summary(self) -> str:
        """Give the honest answer in one sentence, and what stands against it."""
        score = self.naive_best_score if self.nested_score is None else self.nested_score
        naive = f"naive best {format_score(self.naive_best_score)}"
        if self.best_layers is None or self.nested_interval is None:
            head = f"Not nested, so the best {self._score_name} is flattered by its selection"
            parts = [f"{naive} at {name_input(self.naive_best_layer)}"]
        else:
            low, high = map(format_score, self.nested_interval)
            head = f"Honest {self._score_name} {format_score(self.nested_score)} [{low}, {high}]"
            layer, times = Counter(self.best_layers).most_common(1)[0]
            verb = "was" if isinstance(layer, int) else "were"
            parts = [f"{name_input(layer)} {verb} picked in {times} of {self.n_folds} folds", naive]
        if self.baselines:
            order = sorted(self.baselines, key=lambda name: name == "sentence length")
            parts.append(
                ", ".join(f"{name} {format_score(self.baselines[name].mean)}" for name in order)
            )
        if self.p_value is not None:
            parts.append(
                f"permutation p = {self.p_value:.3g} (smallest possible {self.p_value_min:.3g})"
            )
        unbeaten = [name for name, rival in self.baselines.items() if not score > rival.mean]
        if unbeaten:
            parts.append(f"not better than {' and '.join(unbeaten)}, so it shows nothing")
        return f"{head}: {'; '.join(parts)}"

    def methods_text(self) -> str:
        """Describe data, folds, model, controls and versions in one paragraph for a paper."""
        details = self.details
        sentences = [
            f"{details['data']}: {self.n_samples:,} rows in {self.n_groups:,} groups,"
            f" {details['target']}.",
            f"Each of {len(self.layers)} inputs ({_name_inputs(self.layers)}) was scored by"
            f" {self._score_name} in {self.n_folds}-fold cross-validation ({details['folds']}), on"
            " the same folds for every input and with no group on both sides of a split; the model"
            f" {details['estimator']} was refitted from scratch, its normalization included, on the"
            f" training rows of each fold, by"
            f" {', or by '.join(_SOLVERS[name] for name in self.solver.split(' and '))}.",
        ]
        if self.best_layers is not None and self.nested_interval is not None:
            low, high = (format_score(bound, 3) for bound in self.nested_interval)
            score = format_score(self.nested_score, 3)
            sentences.append(
                f"The best input{self._name_parameters()} was chosen by inner cross-validation"
                f" ({details['inner_folds']}) within each outer training set and scored on the"
                f" outer test set: {self._score_name} {score}, 95 % interval [{low}, {high}] by"
                f" resampling groups within each test fold {N_DRAWS:,} times with fixed models, so"
                " without the variance of training."
            )
        if self.permutation_scores is not None:
            sentences.append(
                f"In a permutation control labels were permuted between groups"
                f" {self.n_permutations:,} times, {details['permutations']} and shared by all"
                f" inputs; the maximum over inputs has p = {self.p_value:.3g} (smallest possible"
                f" {self.p_value_min:.3g})."
            )
        if self.baselines:
            means = ", ".join(
                f"{name} {format_score(b.mean, 3)}" for name, b in self.baselines.items()
            )
            sentences.append(f"Baselines on the same folds: {means}.")
        return " ".join([*sentences, f"Seed {details['seed']}; {details['versions']}."])

    def _name_parameters(self) -> str:
        competed = self.details.get("parameters")
        return f" and the best of the parameters {competed}" if competed else ""

    @property
    def _score_name(self) -> str:
        return "R2" if self.scoring == "r2" else self.scoring.replace("_", " ")

    def _repr_html_(self) -> str:
        """Show in a notebook the honest answer and the curve."""
        means, spreads = self.mean_scores, self.scores.std(axis=1)
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
        head = ["input", "mean", "s.d. over folds", "picked in folds" if chosen else ""]
        details = [("scores", table(head, rows))]
        if self.details:
            details.append(("methods", f"<p>{escape(self.methods_text())}</p>"))
        subtitle = f"{self.n_samples:,} rows in {self.n_groups:,} groups"
        caption = ["Dots and bars: mean and standard deviation over folds."]
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


def argmax(scores: NDArray[np.float64]) -> int:
    """The first of the largest; undefined scores lose."""
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
