"""`probe_directions`: the directions of a fitted linear probe, in the model's own units."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.utils.validation import check_is_fitted

from sklprep.exceptions import UsageError
from sklprep.formats.layers import EMBEDDINGS
from sklprep.transformers.layer_selector import LayerSelector
from sklprep.transformers.normalizers import ActivationNormalizer
from sklprep.transformers.row_space import RowSpaceProjector

_Affine = tuple[NDArray[np.float64], NDArray[np.float64]]


def probe_directions(pipeline: Pipeline) -> tuple[dict[int | str, NDArray[np.float64]], Any]:
    r"""Give the weights of a fitted linear probe on raw activations, one vector per layer.

    Parameters
    ----------
    pipeline : Pipeline
        Fitted: a `LayerSelector`, any normalizers, optionally a `RowSpaceProjector`, and a linear
        model. That is a model with coefficients, such as `LogisticRegression`, `Ridge`, `LinearSVC`
        or `LinearDiscriminantAnalysis`, or `NearestCentroid`, whose direction is the difference of
        means. Pipelines may be nested, as ``Pipeline([*ds.pipeline.steps, ("model", fitted)])``.

    Returns
    -------
    directions : dict of int or str to ndarray of shape (d_model,) or (n_outputs, d_model), float64
        For each layer, or for ``"embeddings"``, the weights in units of the residual stream. One
        row per class or target; two classes have one direction, towards the second.
    intercept : float or ndarray of shape (n_outputs,), float64

    Raises
    ------
    UsageError
        If a step or the model is not linear, or the pipeline does not start with a `LayerSelector`.

    Notes
    -----
    With :math:`h_l` the activations of layer l, the decision function (of a regressor, the
    prediction) is :math:`b + \sum_l w_l \cdot h_l`. A model of coefficients :math:`\beta` on
    :math:`z = (h - m) / s` has :math:`w = \beta / s` and :math:`b = \beta_0 - w \cdot m`. For
    `NearestCentroid`, it is what its predictions compare; its `decision_function` differs.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklprep import ActivationNormalizer, LayerSelector, make_activations, probe_directions
    >>> acts = make_activations(60, n_layers=4, d_model=8, n_features=32, random_state=0)
    >>> probe = make_pipeline(LayerSelector(2), ActivationNormalizer(), Ridge())
    >>> directions, intercept = probe_directions(probe.fit(acts, acts.labels))
    >>> directions[2].shape
    (8,)
    >>> scores = acts.layer(2) @ directions[2] + intercept
    >>> np.allclose(scores, probe.predict(acts), atol=1e-4)
    True
    """
    if not isinstance(pipeline, Pipeline):
        do = " Give its best_estimator_." if hasattr(pipeline, "best_estimator_") else ""
        raise UsageError(f"probe_directions needs a Pipeline, got {type(pipeline).__name__}.{do}")
    steps = list(_flatten(pipeline))
    selector, *between, model = steps if len(steps) > 1 else [None, None]
    if not isinstance(selector, LayerSelector):
        raise UsageError(
            f"The pipeline starts with {type(steps[0]).__name__}, so its columns are not the"
            " activations of a layer; expected a LayerSelector. Put a dataset's steps before its"
            " model: Pipeline([*ds.pipeline.steps, ('model', fitted)])."
        )
    coef, intercept = _read_model(model)
    for step in reversed(between):
        coef, intercept = _pull_back(step, coef, intercept)
    names: list[int | str] = [*selector.layers_.tolist()] or [EMBEDDINGS]
    parts = np.split(coef, len(names), axis=1)
    if len(coef) == 1:
        return dict(zip(names, (part[0] for part in parts), strict=True)), float(intercept[0])
    return dict(zip(names, parts, strict=True)), intercept


def _flatten(pipeline: Pipeline) -> Iterator[Any]:
    for _, step in pipeline.steps:
        if isinstance(step, Pipeline):
            yield from _flatten(step)
        elif step not in (None, "passthrough"):
            yield step


def _read_model(model: Any) -> _Affine:
    """Give coefficients (n_outputs, n_columns) and intercepts, checked by the model's answers."""
    name = type(model).__name__
    if isinstance(model, NearestCentroid) and model.metric == "euclidean":
        check_is_fitted(model)
        return read_centroids(model)
    if not hasattr(model, "coef_"):
        raise UsageError(
            f"The model {name} has no coefficients: directions need a fitted linear one, such as"
            " LogisticRegression or Ridge (of a search, its best_estimator_)."
        )
    check_is_fitted(model)
    is_sparse: bool = issparse(model.coef_)
    dense = model.coef_.toarray() if is_sparse else model.coef_
    coef = np.atleast_2d(np.asarray(dense, np.float64))
    intercept = np.broadcast_to(np.asarray(model.intercept_, np.float64), len(coef)).copy()
    Z = np.random.default_rng(0).normal(size=(4, coef.shape[1]))
    unnamed = copy.copy(model)  # fitted on a data frame, it would warn of columns without names
    vars(unnamed).pop("feature_names_in_", None)
    answer = getattr(unnamed, "decision_function", unnamed.predict)(Z)
    expected = Z @ coef.T + intercept
    if np.size(answer) != expected.size or not np.allclose(
        np.reshape(answer, expected.shape), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()
    ):
        raise UsageError(f"The model {name} is not linear in its input, so it has no direction.")
    return coef, intercept


def read_centroids(model: NearestCentroid) -> _Affine:
    """Give coefficients and intercepts of the scores by which a nearest centroid predicts.

    Squared distances to the means, without the part that all classes share, are linear. If priors
    differ, scikit-learn divides by the standard deviation within classes.
    """
    priors, means = model.class_prior_, model.centroids_
    scale = np.ones(means.shape[1])
    if not np.allclose(priors, 1 / len(priors)):
        spread = np.asarray(model.within_class_std_dev_).reshape(-1)
        scale = 1 / np.where(spread == 0, 1, spread) ** 2
    coef = means * scale
    intercept = np.log(priors) - (coef * means).sum(axis=1) / 2
    if len(priors) > 2:
        return coef, intercept
    return coef[1:] - coef[:1], intercept[1:] - intercept[:1]


def _pull_back(step: Any, coef: NDArray[Any], intercept: NDArray[Any]) -> _Affine:
    """Turn a linear function of a step's output into one of its input."""
    d = coef.shape[1]
    shift, scale = np.zeros(d), np.ones(d)
    clips = getattr(step, "clip", False)
    match step:
        case ActivationNormalizer():
            return (
                (coef, intercept)
                if step.scaler_ is None
                else _pull_back(step.scaler_, coef, intercept)
            )
        case RowSpaceProjector() if not step.residual or not coef[:, -1].any():
            return step.coef_on_input(coef), intercept
        case StandardScaler():
            shift = step.mean_ if step.with_mean else shift
            scale = step.scale_ if step.with_std else scale
        case RobustScaler():
            shift = step.center_ if step.with_centering else shift
            scale = step.scale_ if step.with_scaling else scale
        case MinMaxScaler() if not clips:
            shift, scale = -step.min_ / step.scale_, 1 / step.scale_
        case MaxAbsScaler() if not clips:
            scale = step.scale_
        case _:
            raise UsageError(
                f"The step {type(step).__name__} is not linear, or its directions are not"
                " implemented; expected normalizers and a RowSpaceProjector without residual"
                " between the selector and the model."
            )
    coef = coef / scale
    return coef, intercept - coef @ shift
