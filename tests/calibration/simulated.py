"""Data sets of known truth: a few correlated layers that know a label, a little or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline

from sklprep import ActivationNormalizer

N_LAYERS, N_COLUMNS, N_NEW = 6, 12, 4_000
SHARED = 0.6
"""Share of the noise's variance that all layers have in common, as neighbouring layers do."""

MODEL = make_pipeline(ActivationNormalizer(), RidgeClassifier())


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
    share : float
        Of the first class among two; 0.5 is balanced.
    """

    name: str
    n_groups: int
    signal: float
    n_classes: int = 2
    group_size: int = 1
    share: float = 0.5


CELLS = [
    *(
        Cell(f"n {n}, signal {signal:g}", n, signal)
        for n in (60, 100, 200, 400)
        for signal in (0.0, 0.5, 1.0, 2.0)
    ),
    Cell("n 100, 4 classes, no signal", 100, 0.0, n_classes=4),
    Cell("n 100, 4 classes, signal 1", 100, 1.0, n_classes=4),
    Cell("n 200, 4 classes, signal 2", 200, 2.0, n_classes=4),
    Cell("30 groups of 4 tokens, no signal", 30, 0.0, group_size=4),
    Cell("30 groups of 4 tokens, signal 1", 30, 1.0, group_size=4),
    Cell("60 groups of 4 tokens, signal 1", 60, 1.0, group_size=4),
    Cell("n 200, 10 % positives, no signal", 200, 0.0, share=0.9),
    Cell("n 200, 10 % positives, signal 1", 200, 1.0, share=0.9),
]


def draw(cell: Cell, seed: int) -> tuple[Any, Any, Any, Callable[[int], tuple[Any, Any]]]:
    """Give X (n_rows, n_layers, n_columns), y, groups, and what gives new rows of a layer."""
    rng = np.random.default_rng([seed, cell.n_groups, cell.n_classes, cell.group_size])
    means = rng.standard_normal((cell.n_classes, N_COLUMNS))
    means -= means.mean(axis=0)
    means /= np.linalg.norm(means[0] - means[1])
    strength = cell.signal * np.linspace(0.6, 1.0, N_LAYERS)

    def rows(n_groups: int, size: int) -> tuple[Any, Any]:
        shares = [cell.share, 1 - cell.share] if cell.n_classes == 2 else None
        of_group = rng.choice(cell.n_classes, n_groups, p=shares)
        n_each = 6  # enough of every class for any folds
        of_group[: n_each * cell.n_classes] = np.arange(n_each * cell.n_classes) % cell.n_classes
        y = np.repeat(of_group, size)
        noise = np.sqrt(SHARED) * rng.standard_normal((len(y), 1, N_COLUMNS))
        noise = noise + np.sqrt(1 - SHARED) * rng.standard_normal((len(y), N_LAYERS, N_COLUMNS))
        if size > 1:
            common = rng.standard_normal((n_groups, N_LAYERS, N_COLUMNS))
            noise = np.sqrt(0.5) * (noise + np.repeat(common, size, axis=0))
        return noise + strength[:, np.newaxis] * means[y][:, np.newaxis], y

    X, y = rows(cell.n_groups, cell.group_size)
    new_X, new_y = rows(N_NEW // cell.group_size, cell.group_size)
    groups = np.repeat(np.arange(cell.n_groups), cell.group_size)
    return X, y, groups, lambda layer: (new_X[:, layer], new_y)
