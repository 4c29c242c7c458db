"""`feature_sweep`: which SAE features can be predicted, and from which layer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.files.csv_tables import read_features
from sklprep.formats.layers import EACH
from sklprep.sweeps.design import (
    INNER_IS_OUTER,
    SharedFolds,
    read_inner_cv,
    read_seed,
    reseed,
)
from sklprep.sweeps.feature_result import Feature, FeatureSweep
from sklprep.sweeps.fitting import Fitted, Work, fit_training_sets
from sklprep.sweeps.folds import Fold, read_cv, stratify
from sklprep.sweeps.inputs import require_set
from sklprep.sweeps.intervals import FEWEST_GROUPS, size_ratio, why_no_interval
from sklprep.sweeps.problem import Problem, read_problem
from sklprep.sweeps.running import describe_run, make_works, read_means, read_repeats, run_all
from sklprep.sweeps.sweep_scores import argmax
from sklprep.sweeps.workers import Task
from sklprep.transformers.targets import ENOUGH_ACTIVE


def feature_sweep(
    estimator: Any,
    acts: ActivationSet,
    features: str | os.PathLike[str] | Sequence[Sequence[Any]],
    *,
    top: int | None = None,
    layers: Any = EACH,
    cv: int = 5,
    n_repeats: int | str = "auto",
    groups: Any = None,
    solver: str = "auto",
    device: str | None = None,
    n_jobs: int | None = None,
    random_state: Any = 0,
    show_progress: bool | None = None,
) -> FeatureSweep:
    r"""Predict several SAE features from every layer, all on the same folds.

    Parameters
    ----------
    estimator : regressor or None
        As in `layer_sweep`; None stands for `ActivationNormalizer` with `Ridge`.
    acts : ActivationSet of shape (n_samples,)
        With SAE features.
    features : path-like, or sequence of (layer, feature) or (layer, feature, average_l0)
        A CSV or Parquet table with the columns ``layer`` and ``feature_id``, and optionally
        ``average_l0`` and ``rank``; or the features themselves.
    top : int, default=None
        Take only this many features: those of the best rank, or the first ones given.
    layers : "each", "each sae" or list of layer specifications, default="each"
        The inputs, as in `layer_sweep`.
    cv : int, default=5
        Number of outer folds, of whole groups. They do not depend on the features, so that all
        features share them and the matrices of the fits: twenty take little longer than one.
    n_repeats : int or "auto", default="auto"
        As in `layer_sweep`.
    groups : array-like of shape (n_samples,), default=None
        As in `layer_sweep`.
    solver, device, n_jobs, random_state, show_progress
        As in `layer_sweep`.

    Returns
    -------
    FeatureSweep
        A feature that is active in fewer than 10 groups is not scored, but listed in `left_out`.

    Raises
    ------
    InsufficientDataError
        If no feature is active often enough, or there are fewer groups than folds.
    LayerNotFoundError, FeatureNotFoundError
        If the data has no such feature.
    UsageError
        If the arguments do not fit together.

    Notes
    -----
    A feature that is mostly zero poses two questions: is it active, and how strongly. With
    :math:`\hat y_i` the predictions for test rows from the layer that the inner folds chose,

    .. math::

        R^2 = 1 - \frac{\sum_k \sum_{i \in V_k} (y_i - \hat y_i)^2}
                       {\sum_k \sum_{i \in V_k} (y_i - \bar y_{T_k})^2}, \qquad
        \mathrm{AUROC} = \frac{\sum_k \#\{(i, j) \in V_k : y_i \ne 0 = y_j,
                               \hat y_i > \hat y_j\}}
                              {\sum_k \#\{(i, j) \in V_k : y_i \ne 0 = y_j\}} ,

    where :math:`\bar y_{T_k}` is the mean of the training rows, and ties count one half. These are
    ratios of sums over folds, not means of ratios, because the variance within a fold with few
    active rows says little. Intervals are the corrected t, see `sklprep.sweeps.intervals`: for R2,
    of what the squared errors of each fold fall short of those of the mean; for AUROC, of the
    deviations of its wins from the ratio. Features that are active, or
    inactive, in fewer than 30 groups have none.

    Examples
    --------
    >>> from sklprep import feature_sweep, make_activations
    >>> acts = make_activations(60, n_layers=2, d_model=8, n_features=32, random_state=0)
    >>> sweep = feature_sweep(None, acts, [(0, 3), (1, 3)], cv=4, n_repeats=1)
    >>> sweep.r2.shape, sweep.layer_r2.shape
    ((2,), (2, 3))
    """
    wanted = _read_wanted(require_set(acts), features, top)
    if not isinstance(cv := read_cv(cv, "cv"), int):
        raise UsageError("cv must be an int: all features share folds that depend on groups alone.")
    values = {one: _values_of(acts, one) for one in wanted}
    problem = _read_problem(estimator, acts, next(iter(values.values())), layers, groups)
    scored, left_out = _choose_scored(values, problem.groups)
    means = read_means(problem, solver, device)
    repeats, seed = read_repeats(n_repeats, cv, means), read_seed(random_state)
    labels = np.stack([values[one] for one in scored])
    rounds = _draw_rounds(labels, problem.groups, cv, repeats, seed)
    tasks = _make_tasks(make_works(problem, means), rounds)
    results = iter(run_all(tasks, len(problem.inputs) * repeats * cv, means, n_jobs, show_progress))
    found = [_read(results, rounds) for _ in problem.inputs]
    wholes = np.concatenate([_measure_wholes(one) for one in rounds], axis=1)
    reason = why_no_interval(rounds[0].folds, problem.groups)
    return FeatureSweep(
        features=scored,
        left_out=left_out,
        n_active={one: int(np.count_nonzero(y)) for one, y in values.items()},
        layers=[spec.name for spec in problem.inputs],
        errors=np.array([one.parts[..., 0] for one in found]).swapaxes(0, 1),
        wins=np.array([one.parts[..., 1] for one in found]).swapaxes(0, 1),
        spreads=wholes[..., 0],
        pairs=wholes[..., 1],
        chosen=np.apply_along_axis(argmax, 0, np.array([one.inner for one in found])),
        common=np.array([_is_common(values[one] != 0, problem.groups) for one in scored]),
        n_samples=len(acts),
        n_groups=len(np.unique(problem.groups)),
        n_repeats=repeats,
        size_ratio=None if reason else size_ratio(rounds[0].folds),
        no_interval=reason,
        solver=means.name,
        details=describe_run(problem, cv, seed),
    )


def _is_common(active: NDArray[np.bool_], groups: NDArray[np.int64]) -> bool:
    return min(len(np.unique(groups[active])), len(np.unique(groups[~active]))) >= FEWEST_GROUPS


def _read_wanted(acts: ActivationSet, features: Any, top: int | None) -> list[Feature]:
    """Read the features, each once, and find the SAE of each."""
    if top is not None and (isinstance(top, bool) or top < 1):
        raise UsageError(f"top must be at least 1, got {top}.")
    if isinstance(features, str | os.PathLike):
        rows: list[Any] = list(read_features(Path(features), top))
    else:
        rows = list(features)[:top]
    wanted: dict[Feature, None] = {}
    for row in rows:
        try:
            layer, feature, average_l0 = (*row, None)[:3]
            layer, feature = int(layer), int(feature)
        except (TypeError, ValueError):
            raise UsageError(
                "features must be a path or a sequence of (layer, feature) or (layer, feature,"
                f" average_l0), got {row!r} in it."
            ) from None
        config = acts.rows.find_config(layer, average_l0)
        wanted[Feature(layer, feature, float(acts.average_l0s[config]))] = None
    if not wanted:
        raise UsageError("features is empty; expected at least one.")
    return list(wanted)


def _values_of(acts: ActivationSet, one: Feature) -> NDArray[np.float64]:
    return acts.feature(one.layer, one.feature, one.average_l0).astype(np.float64)


def _read_problem(
    estimator: Any, acts: ActivationSet, y: NDArray[np.float64], layers: Any, groups: Any
) -> Problem:
    problem = read_problem(estimator, acts, y, layers, groups, "r2", None)
    if problem.classify:
        raise UsageError(
            f"feature_sweep predicts quantities, which {type(estimator).__name__} does not. Give a"
            " regressor, or None."
        )
    return problem


def _choose_scored(
    values: dict[Feature, NDArray[np.float64]], groups: NDArray[np.int64]
) -> tuple[list[Feature], dict[Feature, str]]:
    """Give the features that are active in enough groups, and why the others are not scored."""
    scored, left_out = [], {}
    for one, y in values.items():
        active = len(np.unique(groups[y != 0]))
        if active >= ENOUGH_ACTIVE:
            scored.append(one)
        else:
            n_groups = len(np.unique(groups))
            left_out[one] = f"active in {active} of {n_groups} groups, fewer than {ENOUGH_ACTIVE}"
    if not scored:
        raise InsufficientDataError(
            f"None of {len(values)} features is active often enough to score; the first is"
            f" {next(iter(left_out.values()))}. Choose others, or pool with mean or max."
        )
    return scored, left_out


def _draw_rounds(
    labels: NDArray[np.float64], groups: NDArray[np.int64], cv: int, repeats: int, seed: int
) -> list[SharedFolds]:
    n_groups = len(np.unique(groups))
    if n_groups < cv:
        raise InsufficientDataError(
            f"There are {n_groups} groups, fewer than the {cv} folds. Use cv={n_groups} or less."
        )
    return [_draw_round(labels, groups, cv, reseed(seed, i)) for i in range(repeats)]


def _draw_round(
    labels: NDArray[np.float64], groups: NDArray[np.int64], cv: int, seed: int
) -> SharedFolds:
    """Draw folds by groups alone, with every feature as a labeling of its own."""
    nothing = np.zeros(len(groups))
    folds = stratify(nothing, groups, cv, seed)
    inner_cv, inner = read_inner_cv("auto", cv), None
    if inner_cv != INNER_IS_OUTER:
        inner = []
        for train, _ in folds:
            n_inner = min(inner_cv, len(np.unique(groups[train])))
            within = stratify(nothing[train], groups[train], n_inner, seed)
            inner.append([(train[fit], train[score]) for fit, score in within])
    return SharedFolds(labels, folds, inner, len(labels))


def _make_tasks(works: Iterator[Work], rounds: list[SharedFolds]) -> Iterator[Task]:
    for work in works:
        measured = work._replace(scorer=_measure_parts, scoring="", shape=(2,))
        for one in rounds:
            for training_sets in one.training_sets():
                yield fit_training_sets, measured, one.labels, [training_sets]


def _measure_parts(model: Any, X: Any, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the numerators of both ratios: squared errors, and pairs in the right order."""
    predicted = np.reshape(model.predict(X), -1)
    active = y != 0
    n = int(active.sum())
    wins = rankdata(predicted)[active].sum() - n * (n + 1) / 2
    return np.array([((y - predicted) ** 2).sum(), wins])


def _measure_wholes(one: SharedFolds) -> NDArray[np.float64]:
    """Give the denominators of both ratios, (n_features, n_folds, 2)."""

    def of_fold(fold: Fold) -> NDArray[np.float64]:
        y, train = one.labels[:, fold[1]], one.labels[:, fold[0]]
        spread = ((y - train.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        n_active = np.count_nonzero(y, axis=1)
        return np.stack([spread, n_active * (y.shape[1] - n_active)], axis=1)

    return np.stack([of_fold(fold) for fold in one.folds], axis=1)


class _Found(NamedTuple):
    """Of one input: numerators (n_features, n_repeats * n_folds, 2), and inner scores."""

    parts: NDArray[np.float64]
    inner: NDArray[np.float64]


def _read(results: Iterator[Any], rounds: list[SharedFolds]) -> _Found:
    parts, inner = [], []
    for one in rounds:
        fitted: list[list[Fitted]] = [of_fold for (of_fold,) in islice(results, len(one.folds))]
        parts.append(np.array([of_fold[0].scores[0, 0] for of_fold in fitted]))
        inner.append(-one.inner_means(fitted)[:, 0, :, 0])  # the smallest error wins
    return _Found(np.concatenate(parts).swapaxes(0, 1), np.concatenate(inner).T)
