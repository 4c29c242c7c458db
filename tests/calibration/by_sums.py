r"""A nested sweep of ridge classifiers from sums over folds: a hundred times faster, as arithmetic.

With few columns everything that a fit needs of a fold are its sums :math:`\sum x`,
:math:`\sum x x^T` and :math:`\sum x y`. Those of any training set are the sums of all rows less
those of the folds left out, so that the models of all repeats, folds, pairs of folds and labelings
are one stack of small linear systems. Nothing of it is shared with `layer_sweep`, whose scores it
has to equal; what it gives is a `LayerSweep`, so that intervals, comparisons and p-values are those
that users see.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import rankdata

from sklprep.sweeps.sweep_result import LayerSweep
from sklprep.sweeps.sweep_scores import Baseline

N_FOLDS = 5
PAIRS = list(combinations(range(N_FOLDS), 2))
LEFT_OUT = [(k,) for k in range(N_FOLDS)] + PAIRS
"""The folds that each model of a repeat does not see: 5 outer ones, and 10 pairs for the choice."""


def deal_folds(y_of_group: Any, n_repeats: int, rng: np.random.Generator) -> Any:
    """Draw stratified folds of groups: (n_repeats, n_groups)."""
    n = len(y_of_group)
    folds = np.empty((n_repeats, n), np.int64)
    for repeat in folds:
        order = np.lexsort((rng.random(n), y_of_group))
        repeat[order] = rng.permutation(N_FOLDS)[np.arange(n) % N_FOLDS]
    return folds


def permute_within(y_of_group: Any, folds: Any, n: int, rng: np.random.Generator) -> Any:
    """Draw labelings whose labels stay within their fold: (n, n_groups)."""
    home = np.argsort(folds, kind="stable")
    drawn = np.empty((n, len(folds)), y_of_group.dtype)
    for labeling in drawn:
        labeling[home] = y_of_group[np.lexsort((rng.random(len(folds)), folds))]
    return drawn


def sweep(
    X: Any,
    y: Any,
    folds: Any,
    *,
    permuted: Any = None,
    groups: Any = None,
    metric: str = "accuracy",
    alpha: float = 1.0,
) -> LayerSweep:
    """Standardize and fit ridge classifiers, as `layer_sweep` does with `inner_cv="outer"`.

    Parameters
    ----------
    X : ndarray of shape (n, n_layers, n_columns)
    y : ndarray of shape (n,)
        Classes from 0 on, int; or a quantity, float.
    folds : ndarray of shape (n_repeats, n), int
    permuted : ndarray of shape (n_permutations, n), optional
        Labelings that are scored on the folds of the first repeat.
    metric : {"accuracy", "roc_auc", "pooled_r2"}
    """
    n_repeats, n_layers = len(folds), X.shape[1]
    outer = np.empty((n_layers, n_repeats, N_FOLDS))
    inner = np.empty_like(outer)
    chance = None if permuted is None else np.empty((len(permuted), n_layers))
    for i in range(n_layers):
        decisions = fit(X[:, i], y, folds, LEFT_OUT, alpha).decide(X[:, i])
        outer[i], inner[i] = _score_nested(decisions, y, folds, metric)
        if chance is not None:
            T = _targets(permuted)
            models = _fit(X[:, i], T.reshape(len(y), -1), folds[:1], LEFT_OUT[:N_FOLDS], alpha)
            decisions = models.decide(X[:, i]).reshape(1, N_FOLDS, *T.shape).swapaxes(2, 3)
            chance[:, i] = _score_permuted(decisions[0], permuted, folds[0], metric)
    chosen = np.argmax(inner.round(12), axis=0).ravel()
    sizes = np.bincount(folds[0], minlength=N_FOLDS)
    groups = np.arange(len(y)) if groups is None else groups
    fewest = min(len(np.unique(groups[folds[0] == k])) for k in range(N_FOLDS))
    few = fewest < 5 or len(np.unique(groups)) < 30
    of_what = {"roc_auc": y, "pooled_r2": y != 0}.get(metric, groups * 0)
    few |= min(len(np.unique(groups[of_what == c])) for c in np.unique(of_what)) < 30
    return LayerSweep(
        layers=list(range(n_layers)),
        scores=outer.reshape(n_layers, -1),
        fit_times=np.zeros((n_layers, n_repeats * N_FOLDS)),
        scoring=metric,
        n_samples=len(y),
        n_groups=len(np.unique(groups)),
        n_repeats=n_repeats,
        size_ratio=None if few else float(np.mean(sizes / (len(y) - sizes))),
        no_interval="there are few groups" if few else "",
        best_layers=[int(layer) for layer in chosen],
        permutation_scores=chance,
        baselines=_score_baseline(y, folds, metric),
    )


def _targets(labelings: Any) -> Any:
    """What ridge regresses on, of classes 1 for one and -1 for the others: (n, labelings, k)."""
    if labelings.dtype.kind == "f":
        return labelings.T[:, :, np.newaxis]
    n_classes = int(labelings.max()) + 1
    shown = np.arange(1, 2) if n_classes == 2 else np.arange(n_classes)
    return np.where(labelings[:, :, np.newaxis] == shown, 1.0, -1.0).transpose(1, 0, 2)


class Models(NamedTuple):
    """Linear models of one layer: W of shape (n_repeats, n_models, d, k), b without the d."""

    W: Any
    b: Any

    def decide(self, X: Any) -> Any:
        """Decisions on rows: (n_repeats, n_models, n, k)."""
        return X @ self.W + self.b[:, :, np.newaxis]


def fit(X: Any, y: Any, folds: Any, left_out: Any, alpha: float = 1.0) -> Models:
    """Fit one layer without the folds that each model leaves out.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    y : ndarray of shape (n,)
    folds : ndarray of shape (n_repeats, n)
    left_out : list of tuple of int
    """
    return _fit(X, _targets(y[np.newaxis])[:, 0], folds, left_out, alpha)


def _fit(X: Any, T: Any, folds: Any, left_out: Any, alpha: float) -> Models:
    n, d = X.shape
    within = (folds[:, np.newaxis] == np.arange(N_FOLDS)[:, np.newaxis]).astype(float)
    kept = np.array([[fold not in out for fold in range(N_FOLDS)] for out in left_out], float)

    def sums(values: Any) -> Any:
        return kept @ (within @ values.reshape(n, -1))

    count = (kept @ within.sum(axis=-1)[:, :, np.newaxis])[..., 0]
    shape, rows = count.shape, count[..., np.newaxis]
    mean, mean_T = sums(X) / rows, sums(T) / rows
    squares = sums(X[:, :, np.newaxis] * X[:, np.newaxis]).reshape(*shape, d, d)
    products = sums(X[:, :, np.newaxis] * T[:, np.newaxis]).reshape(*shape, d, -1)
    squares -= rows[..., np.newaxis] * mean[..., np.newaxis] * mean[..., np.newaxis, :]
    products -= rows[..., np.newaxis] * mean[..., np.newaxis] * mean_T[..., np.newaxis, :]
    scale = np.sqrt(np.diagonal(squares, axis1=-2, axis2=-1) / rows)
    squares /= scale[..., np.newaxis] * scale[..., np.newaxis, :]
    products /= scale[..., np.newaxis]
    W = np.linalg.solve(squares + alpha * np.eye(d), products) / scale[..., np.newaxis]
    return Models(W, mean_T - (mean[..., np.newaxis, :] @ W)[..., 0, :])


def _score_nested(decisions: Any, y: Any, folds: Any, metric: str) -> tuple[Any, Any]:
    """Scores on the outer folds, and their means over the inner ones: each (n_repeats, n_folds)."""
    by_fold = np.array(
        [
            _score_folds(of_repeat, np.broadcast_to(y, (len(LEFT_OUT), len(y))), fold_of, metric)
            for of_repeat, fold_of in zip(decisions, folds, strict=True)
        ]
    )  # (n_repeats, n_models, n_folds)
    outer = by_fold[:, range(N_FOLDS), range(N_FOLDS)]
    if metric == "pooled_r2":
        outer = [_pool(one, y, fold_of) for one, fold_of in zip(outer, folds, strict=True)]
    inner = np.zeros_like(outer)
    for model, (one, other) in enumerate(PAIRS, start=N_FOLDS):
        inner[:, one] += by_fold[:, model, other] / (N_FOLDS - 1)
        inner[:, other] += by_fold[:, model, one] / (N_FOLDS - 1)
    return np.asarray(outer), inner


def _score_permuted(decisions: Any, labelings: Any, folds: Any, metric: str) -> Any:
    """Mean score of each labeling over the folds, each by the model that does not see it."""
    scores = [
        _score_folds(of_model, labelings, folds, metric)[:, fold]
        for fold, of_model in enumerate(decisions)
    ]
    if metric == "pooled_r2":
        of_labelings = zip(np.transpose(scores), labelings, strict=True)
        return np.array([_pool(one, y, folds).mean() for one, y in of_labelings])
    return np.mean(scores, axis=0)


def _pool(errors: Any, y: Any, folds: Any) -> Any:
    """Make minus the squared errors of folds scores whose mean is 1 - PRESS / SS."""
    spread = _spread(y, folds)
    return (spread + errors) / spread.mean()


def _spread(y: Any, folds: Any) -> Any:
    """Give the squared errors of the mean of each fold's training rows."""
    return np.array([np.square(y[folds == k] - y[folds != k].mean()).sum() for k in range(N_FOLDS)])


def _score_folds(decisions: Any, labels: Any, folds: Any, metric: str) -> Any:
    """Score each model, or labeling, on the rows of each fold: (n_models, n_folds).

    Of a quantity the scores are minus the squared errors, which `_pool` makes scores of.

    Parameters
    ----------
    decisions : ndarray of shape (n_models, n, k)
    labels : ndarray of shape (n_models, n)
    folds : ndarray of shape (n,)
    """
    tests = [folds == fold for fold in range(N_FOLDS)]
    if metric == "roc_auc":
        found = [_auroc(decisions[:, test, 0], labels[:, test]) for test in tests]
    elif metric == "pooled_r2":
        errors = np.square(decisions[..., 0] - labels)
        found = [-errors[:, test].sum(axis=1) for test in tests]
    else:
        binary = decisions.shape[-1] == 1
        predicted = decisions[..., 0] > 0 if binary else decisions.argmax(axis=-1)
        found = [np.mean((predicted == labels)[:, test], axis=1) for test in tests]
    return np.stack(found, axis=1)


def _auroc(decisions: Any, labels: Any) -> Any:
    """Mann and Whitney's U over the pairs, of each row."""
    positive = labels == 1
    n = positive.sum(axis=1)
    ranks = np.where(positive, rankdata(decisions, axis=1), 0).sum(axis=1)
    return (ranks - n * (n + 1) / 2) / (n * (labels.shape[1] - n))


def _score_baseline(y: Any, folds: Any, metric: str) -> dict[str, Baseline]:
    if metric == "pooled_r2":
        return {"mean": Baseline(np.ravel([_pool(-_spread(y, one), y, one) for one in folds]))}
    scores = np.full((len(folds), N_FOLDS), 0.5)
    if metric == "accuracy":
        largest = np.bincount(y).argmax()
        for r, fold in np.ndindex(scores.shape):
            scores[r, fold] = np.mean(y[folds[r] == fold] == largest)
    return {"majority": Baseline(scores.ravel())}
