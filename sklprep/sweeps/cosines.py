"""Directions of linear models on raw activations, and the cosines between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from sklprep.exceptions import UsageError
from sklprep.sweeps.fitting import Work, fit_one
from sklprep.sweeps.solver import Split, recognise_pipeline
from sklprep.transformers.directions import probe_directions
from sklprep.transformers.layer_selector import LayerSelector


def fit_direction(
    work: Work, y: NDArray[Any], rows: NDArray[np.int64]
) -> NDArray[np.float64] | str:
    """Fit a model on some rows; give its direction, or say why it has none."""
    X = work.X
    known = recognise_pipeline(work.model) if work.solve else None
    if known is not None:
        method, model = known
        options: dict[str, Any] = {"fit_intercept": model.fit_intercept, "device": work.device}
        split = Split(X, rows, rows[:1], method=method, **options)
        fit = model.fit(split, y, keep_coef=True)[0][0]
        if fit.converged_ and fit.coef_ is not None:
            return np.ravel(fit.coef_ / split.scale)
    fitted = fit_one(work.model, work, y, rows)
    try:
        pipeline = Pipeline([("selector", LayerSelector().fit(X)), ("model", fitted)])
        directions, _ = probe_directions(pipeline)
    except (TypeError, ValueError, UsageError) as error:
        return str(error)
    return np.concatenate([np.ravel(part) for part in directions.values()])


def compare_directions(
    directions: Sequence[Sequence[NDArray[np.float64] | str]], n_sets: int
) -> tuple[NDArray[np.float64], str]:
    """Give the cosines of directions that were fitted on different halves of the groups.

    Parameters
    ----------
    directions : list of list
        For each input, the direction of every set in the first half, then in the second; or the
        reason why there is none.
    n_sets : int

    Returns
    -------
    cosines : ndarray of shape (n_inputs, n_sets, n_sets)
        NaN where a direction is missing, or two sets have different classes.
    reason : str
        Why there are none at all; otherwise empty.
    """
    cosines = np.full((len(directions), n_sets, n_sets), np.nan)
    reason = ""
    for of_input, found in zip(cosines, directions, strict=True):
        for i, j in np.ndindex(n_sets, n_sets):
            pairs = (found[i], found[n_sets + j]), (found[j], found[n_sets + i])
            try:
                of_input[i, j] = np.mean([_cosine(one, other) for one, other in pairs])
            except UsageError as error:
                reason = reason or str(error)
    return cosines, reason if np.isnan(cosines).all() else ""


def _cosine(one: NDArray[np.float64] | str, other: NDArray[np.float64] | str) -> float:
    if isinstance(one, str):
        raise UsageError(one)
    if isinstance(other, str):
        raise UsageError(other)
    if one.shape != other.shape:
        raise UsageError("The sets have different classes, and so different directions.")
    lengths = np.linalg.norm(one) * np.linalg.norm(other)
    return float(one @ other / lengths) if lengths > 0 else np.nan
