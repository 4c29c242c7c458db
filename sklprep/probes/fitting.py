"""`fit_probe`: a probe of one layer, its cross-validated score, and the stability of directions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone, is_classifier
from sklearn.pipeline import Pipeline, make_pipeline

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.values import read_values
from sklprep.probes.probe import Probe
from sklprep.sweeps.folds import Fold, draw_folds, read_cv
from sklprep.sweeps.operating_point import find_threshold, read_rate
from sklprep.sweeps.sweep import layer_sweep
from sklprep.sweeps.sweep_result import LayerSweep
from sklprep.transformers.directions import probe_directions
from sklprep.transformers.layer_selector import LayerSelector


class FittedProbe(NamedTuple):
    """A probe, the fitted pipeline that it comes from, and the sweep that scored it."""

    probe: Probe
    pipeline: Pipeline
    sweep: LayerSweep


def fit_probe(
    estimator: Any,
    acts: ActivationSet,
    y: ArrayLike,
    layer: int | str,
    *,
    cv: int = 5,
    scoring: Any = None,
    random_state: int = 0,
    **options: Any,
) -> FittedProbe:
    """Score a linear model on one layer as `layer_sweep` does, and fit it on all rows.

    Parameters
    ----------
    estimator : Pipeline or estimator
        What follows the selector: any normalizers, and a linear model.
    acts : ActivationSet of shape (n_samples,)
    y : array-like of shape (n_samples,)
        Labels for a classifier, numbers for a regressor.
    layer : int or "embeddings"
    cv : int, default=5
        Number of outer folds.
    scoring : str or callable, default=None
        With ``"recall_at_fpr"``, the threshold of the probe is calibrated on decisions about rows
        that the outer folds held out; otherwise it is 0.
    random_state : int, default=0
    **options
        Other parameters of `layer_sweep`.

    Returns
    -------
    FittedProbe

    Raises
    ------
    InsufficientDataError, UsageError
        As `layer_sweep` and `Probe.from_pipeline`.
    """
    y = read_values(y, "y")
    sweep = layer_sweep(
        estimator,
        acts,
        y,
        layers=[layer],
        cv=cv,
        scoring=scoring,
        random_state=random_state,
        **options,
    )
    pipeline = make_pipeline(LayerSelector(layer), estimator)
    fits = fit_in_folds(pipeline, acts, y, cv=cv, random_state=random_state)
    threshold = None
    if (fpr := read_rate(scoring)) is not None:
        held_out = np.concatenate(
            [fit.decision_function(acts[test])[y[test] == fit.classes_[0]] for fit, test in fits]
        )
        threshold = find_threshold(held_out, fpr)
    pipeline = clone(pipeline).fit(acts, y)
    probe = Probe.from_pipeline(pipeline, acts=acts, sweep=sweep, threshold=threshold)
    cosines = _cosines([fit for fit, _ in fits])
    between = cosines[np.triu_indices(len(cosines), 1)]
    stability = {
        "mean": float(between.mean()),
        "lowest": float(between.min()),
        "n_folds": len(cosines),
    }
    return FittedProbe(replace(probe, stability=stability), pipeline, sweep)


def direction_stability(
    pipeline: Pipeline,
    acts: Any,
    y: ArrayLike,
    *,
    cv: Any = 5,
    groups: ArrayLike | None = None,
    random_state: int = 0,
) -> NDArray[np.float64]:
    """Compare the directions of a linear probe between the training sets of a cross-validation.

    Parameters
    ----------
    pipeline : Pipeline
        Linear, as `probe_directions` takes it; cloned and fitted in each fold.
    acts : ActivationSet of shape (n_samples,), or array-like of shape \
(n_samples, n_layers, d_model)
    y : array-like of shape (n_samples,)
        Labels for a classifier, numbers for a regressor.
    cv : int, splitter or iterable of splits, default=5
        As in `layer_sweep`.
    groups : array-like of shape (n_samples,), default=None
        Rows of one group are never on both sides of a split. By default ``acts.groups``; for an
        array, each row is a group.
    random_state : int, default=0
        Seed of the folds.

    Returns
    -------
    ndarray of shape (n_folds, n_folds), float64
        Cosines between the weights on raw activations; those of several layers are concatenated.
        With more than two classes, the mean over classes, after subtracting the mean weight of all
        classes from each; with several targets, the mean over targets.

    Raises
    ------
    InsufficientDataError
        If a class is in fewer groups than there are folds.
    UsageError
        If the pipeline is not linear, or `cv` breaks up groups.

    Notes
    -----
    Two of five training sets share three quarters of their rows. So a cosine far below 1 says that
    the direction is not stable, but one near 1 does not say that new data would give it again. An
    unstable direction may still score well: correlated activations carry the same information in
    many directions.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklprep import LayerSelector, direction_stability, make_activations
    >>> acts = make_activations(60, n_layers=4, d_model=8, n_features=32, random_state=0)
    >>> probe = make_pipeline(LayerSelector(2), LogisticRegression())
    >>> cosines = direction_stability(probe, acts, acts.labels >= 2, cv=3)
    >>> cosines.shape, bool(cosines.min() > 0.5)
    ((3, 3), True)
    """
    fits = fit_in_folds(pipeline, acts, y, cv=cv, groups=groups, random_state=random_state)
    return _cosines([fit for fit, _ in fits])


def fit_in_folds(
    pipeline: Pipeline,
    acts: Any,
    y: ArrayLike,
    *,
    cv: Any,
    groups: ArrayLike | None = None,
    random_state: int = 0,
) -> list[tuple[Pipeline, NDArray[np.int64]]]:
    """Fit a pipeline on each training set of a cross-validation; give each with its test rows."""
    y = read_values(y, "y")
    if groups is None:
        groups = acts.groups if isinstance(acts, ActivationSet) else np.arange(len(y))
    names = np.unique(read_values(groups, "groups"), return_inverse=True)[1].reshape(-1)
    folds: list[Fold] = draw_folds(
        read_cv(cv, "cv"), y, names, classify=is_classifier(pipeline), seed=random_state
    )
    return [(clone(pipeline).fit(acts[train], y[train]), test) for train, test in folds]


def _cosines(fits: list[Pipeline]) -> NDArray[np.float64]:
    directions = []
    for fit in fits:
        layers = probe_directions(fit)[0].values()
        weight = np.concatenate([np.atleast_2d(one) for one in layers], axis=1)
        if len(weight) > 1 and is_classifier(fit):
            weight = weight - weight.mean(axis=0)  # what all classes share decides nothing
        lengths = np.linalg.norm(weight, axis=1, keepdims=True)
        directions.append(weight / np.where(lengths > 0, lengths, 1))
    stacked = np.stack(directions)
    return np.einsum("iod,jod->ij", stacked, stacked) / stacked.shape[1]
