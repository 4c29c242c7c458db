"""Result of a transfer matrix: scores of every set on every other, and cosines beside them."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.files.atomic import atomic_write
from sklprep.notebook.cards import card, table
from sklprep.sweeps.scorers import interval_of_scores, name_score
from sklprep.sweeps.wording import format_score, name_input

ALL_OTHERS = "all others"
"""Name of the row of models that were trained on all sets but the one they are scored on."""


@dataclass(frozen=True, eq=False, repr=False)
class TransferMatrix:
    """Result of `transfer_matrix`.

    Attributes
    ----------
    sets : list of str
        The columns, which are scored on, and the first rows, which are trained on.
    rows : list of str
        `sets` and, with three or more, ``"all others"``: all sets but the one scored on.
    layers : list of int and str
        The inputs, as in `LayerSweep`.
    matrix : ndarray of shape (n_rows, n_sets)
        Mean score of the layer that the training rows chose.
    intervals : ndarray of shape (n_rows, n_sets, 2)
        Their 95 % intervals by the corrected t, or Clopper and Pearson's where all rows were right
        or all wrong; NaN where they could not be trusted, and `no_interval` says why.
    scores : ndarray of shape (n_rows, n_sets, n_layers, n_repeats * n_folds)
        Score of each layer in each outer fold.
    layer_scores : ndarray of shape (n_rows, n_sets, n_layers)
        Their means: a matrix for each layer.
    chosen : ndarray of shape (n_rows, n_sets, n_repeats * n_folds), int
        The layer that was chosen in each fold, as a position in `layers`.
    cosines : ndarray of shape (n_layers, n_sets, n_sets)
        Cosine of the directions of two sets, on raw activations, each from a different half of the
        groups; on the diagonal, of a set with itself. NaN where there are no directions;
        `no_cosines` says why.
    cosine_layer : int or str
        The layer chosen most often on the diagonal, among those with directions.
    table : DataFrame
        One row for each cell: ``trained_on``, ``tested_on``, ``score``, ``low``, ``high``,
        ``layer`` (chosen most often) and ``cosine`` (there). Without pandas, a dict of these
        columns.
    scoring, solver : str
    n_samples, n_groups : list of int
        Of each set.
    n_repeats, n_folds : int
    size_ratios : list of float
        Rows of a test set to rows of a training set, in each set.
    majority : list of float, or None
        Score on each set of always predicting its commonest label. None for quantities and for
        scorers that are functions.
    no_interval : dict of str to str
        Why there are no intervals of scores on a set, or trained on it.
    no_cosines : str
        Why there are no cosines at all; otherwise empty.
    details : dict
        Estimator, folds, seed, versions.

    Examples
    --------
    >>> from sklprep import make_activations, transfer_matrix
    >>> acts = make_activations(120, n_layers=2, d_model=8, n_features=32, random_state=0)
    >>> sets = {name: (acts[i::2], acts[i::2].labels) for i, name in enumerate(["odd", "even"])}
    >>> found = transfer_matrix(None, sets, layers=[0, 1], cv=4, n_repeats=1)
    >>> found.rows, bool((found.matrix[0] == found.nested_scores[0].mean(axis=1)).all())
    (['odd', 'even'], True)
    """

    sets: list[str]
    layers: list[int | str]
    scores: NDArray[np.float64]
    chosen: NDArray[np.intp]
    scoring: str
    n_samples: list[int]
    n_groups: list[int]
    n_repeats: int
    size_ratios: list[float]
    majority: list[float] | None
    no_interval: dict[str, str]
    cosines: NDArray[np.float64]
    no_cosines: str = ""
    solver: str = "scikit-learn"
    details: dict[str, str] = field(default_factory=dict)

    __module__ = "sklprep"

    @property
    def rows(self) -> list[str]:
        return [*self.sets, ALL_OTHERS][: len(self.scores)]

    @property
    def n_folds(self) -> int:
        return self.scores.shape[-1] // self.n_repeats

    @property
    def nested_scores(self) -> NDArray[np.float64]:
        """Score of the chosen layer in each outer fold, (n_rows, n_sets, n_repeats * n_folds)."""
        return np.take_along_axis(self.scores, self.chosen[:, :, np.newaxis], axis=2)[:, :, 0]

    @property
    def matrix(self) -> NDArray[np.float64]:
        return self.nested_scores.mean(axis=-1)

    @property
    def layer_scores(self) -> NDArray[np.float64]:
        return self.scores.mean(axis=-1)

    @property
    def intervals(self) -> NDArray[np.float64]:
        intervals = np.full((*self.matrix.shape, 2), np.nan)
        for (i, j), _ in np.ndenumerate(self.matrix):
            if self.no_interval.keys().isdisjoint((self.rows[i], self.sets[j])):
                scores, n = self.nested_scores[i, j], self.n_groups[j]
                ratio = self.size_ratios[j] * np.sqrt(max(1.0, n / self._n_trained(i, j)))
                intervals[i, j] = interval_of_scores(scores, ratio, self.scoring, n)
        return intervals

    def _n_trained(self, row: int, column: int) -> int:
        """Groups of the sets that a cell is trained on."""
        if row < len(self.sets):
            return self.n_groups[row]
        return sum(self.n_groups) - self.n_groups[column]

    @property
    def cosine_layer(self) -> int | str:
        n = len(self.sets)
        counts = np.bincount(self.chosen[range(n), range(n)].ravel(), minlength=len(self.layers))
        has_none = np.isnan(self.cosines).all(axis=(1, 2))
        return self.layers[int(np.argmax(np.where(has_none, -1, counts)))]

    def chosen_most(self, row: int, column: int) -> int | str:
        """Give the layer that was chosen most often for a cell, by its row and column."""
        return self.layers[Counter(self.chosen[row, column].tolist()).most_common(1)[0][0]]

    @property
    def table(self) -> Any:
        columns = self._columns()
        try:
            import pandas as pd
        except ImportError:
            return columns
        return pd.DataFrame(columns)

    def _columns(self) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {
            name: []
            for name in ("trained_on", "tested_on", "score", "low", "high", "layer", "cosine")
        }
        intervals, matrix = self.intervals, self.matrix
        for (i, j), score in np.ndenumerate(matrix):
            layer = self.chosen_most(i, j)
            of_layer = self.cosines[self.layers.index(layer)]
            cosine = float(of_layer[i, j]) if i < len(self.sets) else np.nan
            low, high = intervals[i, j].tolist()
            cell = self.rows[i], self.sets[j], float(score), low, high, layer, cosine
            for column, value in zip(columns.values(), cell, strict=True):
                column.append(value)
        return columns

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `table` as CSV, atomically; pandas is not needed."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = self._columns()
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            missing = [isinstance(value, float) and np.isnan(value) for value in row]
            writer.writerow("" if m else value for m, value in zip(missing, row, strict=True))
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())

    def summary(self) -> str:
        """Give one line per row: the scores of its models on their own set and on the others.

        The last line is what needs no model: always predicting the commonest label of a set.
        """
        lines = [self._describe_row(i) for i in range(len(self.rows))]
        if self.majority is not None:
            parts = [
                f"{format_score(score)} on {name}"
                for score, name in zip(self.majority, self.sets, strict=True)
            ]
            score = name_score(self.scoring)
            lines.append(f"The majority class, always predicted, {score} {', '.join(parts)}")
        return "\n".join(lines)

    def _describe_row(self, row: int) -> str:
        columns = range(len(self.sets))
        own = [row] if row < len(self.sets) else []
        parts = [f"{self.write_cell(row, j)} on itself" for j in own]
        parts += [f"{self.write_cell(row, j)} on {self.sets[j]}" for j in columns if j not in own]
        score = name_score(self.scoring)
        layer = f" ({name_input(self.chosen_most(row, row))})" if own else ""
        return f"Trained on {self.rows[row]}{layer}, {score} {', '.join(parts)}"

    def write_cell(self, row: int, column: int) -> str:
        """Write a score with its interval, for people."""
        score = format_score(self.matrix[row, column])
        low, high = self.intervals[row, column]
        return score if np.isnan(low) else f"{score} [{format_score(low)}, {format_score(high)}]"

    def _repr_html_(self) -> str:
        """Show the matrix and the cosines in a notebook."""
        cells = [
            [name, *(self.write_cell(i, j) for j in range(len(self.sets)))]
            for i, name in enumerate(self.rows)
        ]
        if self.majority is not None:
            cells.append(["majority class", *map(format_score, self.majority)])
        head = ["trained on, tested on", *self.sets]
        details = [(f"{name_score(self.scoring)} by the layer chosen", table(head, cells))]
        layer = self.cosine_layer
        cosines = self.cosines[self.layers.index(layer)]
        if not self.no_cosines:
            rows = [
                [name, *(format_score(value) for value in row)]
                for name, row in zip(self.sets, cosines, strict=True)
            ]
            details.append((f"cosines at {name_input(layer)}", table(["", *self.sets], rows)))
        folds = f"{self.n_repeats} x {self.n_folds} folds, {len(self.layers)} inputs"
        return card(
            "TransferMatrix", folds, lead=self.summary().replace("\n", ". ") + ".", details=details
        )

    def __repr__(self) -> str:
        return (
            f"TransferMatrix({', '.join(self.sets)}: {len(self.layers)} inputs,"
            f" {self.n_folds} folds, {self.scoring})"
        )
