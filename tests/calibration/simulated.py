"""Data sets of known truth: a few correlated layers that know a label, a little or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from sklprep import load_activations

from .by_sums import Models

N_LAYERS, N_COLUMNS, N_NEW = 6, 12, 4_000
SHARED = 0.6
"""Share of the noise's variance that all layers have in common, as neighbouring layers do."""

_N_KNOWN = 4
"""Columns of the fourth layer that tell the class of a real row. Of digits, each layer has two new
components for two of the layer before, so that the first two layers lack some of them."""

_FEWEST_OF_CLASS = 6
"""Groups of each class that are always there: enough for any folds."""


@dataclass(frozen=True)
class Cell:
    """One kind of data set.

    Attributes
    ----------
    n_groups : int
    signal : float
        Distance of the classes' means in standard deviations, in the best layer.
    n_classes : int
    group_size : int
        Rows of a group, which share their label and half of their noise.
    copies : bool
        Whether the rows of a group are equal.
    share : float
        Of the first class among two; 0.5 is balanced.
    weakest : float
        Signal of the first layer, as a share of the last one's.
    metric : {"accuracy", "roc_auc", "pooled_r2"}
        The last one is of a quantity that is zero in a share of the groups, as an SAE feature is.
    zeros : float
        That share.
    rows : str
        ``"normal"`` deviates; ``"digits"``, the images of scikit-learn; or a folder of sentence
        files, whose labels are noise.
    """

    name: str
    n_groups: int
    signal: float
    n_classes: int = 2
    group_size: int = 1
    copies: bool = False
    share: float = 0.5
    weakest: float = 0.6
    metric: str = "accuracy"
    zeros: float = 0.0
    rows: str = "normal"


CELLS = [
    *(
        Cell(f"{n} rows, signal {signal:g}", n, signal)
        for n in (60, 100, 200, 400)
        for signal in (0.0, 0.5, 1.0, 2.0)
    ),
    Cell("100 rows, signal 1, equal layers", 100, 1.0, weakest=1.0),
    *(
        Cell(f"{n} rows, 4 classes, signal {signal:g}", n, signal, n_classes=4)
        for n, signal in ((100, 0.0), (100, 1.0), (200, 0.0), (200, 2.0))
    ),
    *(
        Cell(f"{n} sentences of 4 tokens, signal {signal:g}", n, signal, group_size=4)
        for n, signal in ((20, 0.0), (30, 0.0), (30, 1.0), (60, 0.0), (60, 1.0))
    ),
    Cell("60 texts, each twice, signal 0", 60, 0.0, group_size=2, copies=True),
    Cell("60 texts, each twice, signal 1", 60, 1.0, group_size=2, copies=True),
    *(
        Cell(
            f"{n} rows, 10 % positives, AUROC, signal {signal:g}",
            n,
            signal,
            share=0.9,
            metric="roc_auc",
        )
        for n, signal in ((200, 0.0), (200, 1.0), (400, 1.0))
    ),
    *(
        Cell(
            f"{n} rows, {zeros:.0%} zeros, pooled R2, signal {signal:g}",
            n,
            signal,
            metric="pooled_r2",
            zeros=zeros,
        )
        for n, zeros, signal in (
            *((200, 0.7, 0.0), (200, 0.7, 1.0), (400, 0.7, 2.0)),
            *((200, 0.9, 0.0), (200, 0.9, 1.0), (600, 0.9, 2.0)),
        )
    ),
    *(
        Cell(f"{n} images of digits, signal {signal:g}", n, signal, rows="digits")
        for n, signal in ((100, 0.0), (100, 1.0), (200, 1.0), (400, 2.0))
    ),
]


def make_world(cell: Cell, rng: np.random.Generator) -> Any:
    """Give what the data sets of a cell are drawn from."""
    if cell.rows != "normal":
        return RealRows(cell, rng)
    return Amounts(cell, rng) if cell.zeros else World(cell, rng)


class World:
    """Classes of normal deviates, whose means differ along a direction that a seed draws."""

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        self.cell, self._rng = cell, rng
        means = rng.standard_normal((cell.n_classes, N_COLUMNS))
        if cell.n_classes > 2:  # equidistant, so that the true curve is that of every data set
            means = np.linalg.qr(means.T)[0].T
        means -= means.mean(axis=0)
        means /= np.linalg.norm(means[0] - means[1])
        strength = cell.signal * np.linspace(cell.weakest, 1.0, N_LAYERS)
        self.means = strength[:, np.newaxis, np.newaxis] * means
        """(n_layers, n_classes, n_columns)"""

    def draw(self) -> tuple[Any, Any, Any]:
        """Draw X (n_rows, n_layers, n_columns), y of the groups, and groups."""
        cell, rng = self.cell, self._rng
        y = rng.choice(cell.n_classes, cell.n_groups, p=self._shares())
        n_sure = _FEWEST_OF_CLASS * cell.n_classes
        y[:n_sure] = np.arange(n_sure) % cell.n_classes
        groups = np.repeat(np.arange(cell.n_groups), cell.group_size)
        n = cell.n_groups if cell.copies else len(groups)
        noise = draw_noise(n, rng)
        if cell.copies:
            noise = noise[groups]
        elif cell.group_size > 1:
            noise = np.sqrt(0.5) * (noise + draw_noise(cell.n_groups, rng)[groups])
        return noise + self.means[:, y[groups]].swapaxes(0, 1), y, groups

    def truth(self, layer: int, models: Models) -> Any:
        """Expected score of models of a layer on new rows: (n_repeats, n_models)."""
        if self.cell.n_classes > 2:
            y = np.arange(N_NEW) % self.cell.n_classes
            X = self._rng.standard_normal((N_NEW, N_COLUMNS)) + self.means[layer, y]
            return np.mean(models.decide(X).argmax(axis=-1) == y, axis=-1)
        decisions = models.decide(self.means[layer])[..., 0]
        spread = np.linalg.norm(models.W[..., 0], axis=-1)
        if self.cell.metric == "roc_auc":
            return norm.cdf((decisions[..., 1] - decisions[..., 0]) / (np.sqrt(2) * spread))
        of_class = norm.cdf(decisions * [-1, 1] / spread[..., np.newaxis])
        return of_class @ self._shares()

    def _shares(self) -> Any:
        cell = self.cell
        if cell.n_classes == 2:
            return np.array([cell.share, 1 - cell.share])
        return np.full(cell.n_classes, 1 / cell.n_classes)


def draw_noise(n: int, rng: np.random.Generator) -> Any:
    """Draw what layers have beside their signal, in part in common: (n, N_LAYERS, N_COLUMNS)."""
    shared = np.sqrt(SHARED) * rng.standard_normal((n, 1, N_COLUMNS))
    return shared + np.sqrt(1 - SHARED) * rng.standard_normal((n, N_LAYERS, N_COLUMNS))


class Amounts:
    """A quantity that is zero up to a threshold of what rows know of it, and grows beyond."""

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        self.cell, self._rng = cell, rng
        self._threshold = norm.ppf(cell.zeros)
        direction = rng.standard_normal(N_COLUMNS)
        strength = cell.signal * np.linspace(cell.weakest, 1.0, N_LAYERS)
        self._means = strength[:, np.newaxis] * direction / np.linalg.norm(direction)

    def draw(self) -> tuple[Any, Any, Any]:
        """Draw X (n_rows, n_layers, n_columns), y of the groups, and groups."""
        n = self.cell.n_groups
        known = self._rng.standard_normal(n)
        X = draw_noise(n, self._rng) + known[:, np.newaxis, np.newaxis] * self._means
        return X, np.maximum(known - self._threshold, 0.0), np.arange(n)

    def truth(self, layer: int, models: Models) -> Any:
        """R2 of models of a layer on new rows: (n_repeats, n_models)."""
        known = self._rng.standard_normal(N_NEW)
        y = np.maximum(known - self._threshold, 0.0)
        X = (
            self._rng.standard_normal((N_NEW, N_COLUMNS))
            + known[:, np.newaxis] * self._means[layer]
        )
        errors = np.square(models.decide(X)[..., 0] - y).mean(axis=-1)
        return 1 - errors / y.var()


class RealRows:
    """Some of many real rows, two classes of which are drawn by what the rows know of them."""

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        self.cell, self._rng = cell, rng
        self._X = read_rows(cell.rows)
        known = self._X[:, N_LAYERS // 2, :_N_KNOWN].sum(axis=1)
        self._chance = expit(2 * cell.signal * known / known.std())
        order = rng.permutation(len(self._X))
        self._drawn, self._rest = order[: cell.n_groups], order[cell.n_groups :]

    def draw(self) -> tuple[Any, Any, Any]:
        """Draw X (n_rows, n_layers, n_columns), y, and groups."""
        n = self.cell.n_groups
        y = (self._rng.random(n) < self._chance[self._drawn]).astype(int)
        return self._X[self._drawn], y, np.arange(n)

    def truth(self, layer: int, models: Models) -> Any:
        """Expected accuracy of models of a layer on the rows that were not drawn."""
        chance = self._chance[self._rest]
        positive = models.decide(self._X[self._rest, layer])[..., 0] > 0
        return np.where(positive, chance, 1 - chance).mean(axis=-1)


@cache
def read_rows(name: str) -> Any:
    """Read real rows, as principal components: (n_rows, N_LAYERS, N_COLUMNS)."""
    if name == "digits":
        components = _find_components(load_digits().data, 2 * N_LAYERS + N_COLUMNS)
        windows = [components[:, 2 * i : 2 * i + N_COLUMNS] for i in range(N_LAYERS)]
        return np.stack(windows, axis=1)
    states = load_activations(name, pooling="mean").hidden_states
    layers = np.linspace(0, states.shape[1] - 1, N_LAYERS).astype(int)
    return np.stack([_find_components(states[:, i], N_COLUMNS) for i in layers], axis=1)


def _find_components(X: Any, n: int) -> Any:
    return PCA(n, svd_solver="full", whiten=True).fit_transform(X)
