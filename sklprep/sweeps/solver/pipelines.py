"""Which whole pipelines the solver knows: a scaler, and a linear model after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from sklearn.pipeline import Pipeline

from sklprep.sweeps.solver.models import LinearModel, recognise, recognise_scaler
from sklprep.transformers.normalization_methods import is_method
from sklprep.transformers.normalizers import ActivationNormalizer
from sklprep.transformers.row_space import RowSpaceProjector


class Candidates(NamedTuple):
    """Estimators that differ in their penalty only, so that they share the rest of a split.

    Attributes
    ----------
    method : {"standardize", "minmax", "maxabs", "none"}
    model : LinearModel
    positions : list of int
        Their positions among the estimators.
    penalties : list of float
    """

    method: str
    model: LinearModel
    positions: list[int]
    penalties: list[float]


def recognise_all(estimators: Sequence[Any]) -> list[Candidates] | None:
    """Sort estimators by what they share.

    Parameters
    ----------
    estimators : sequence of estimator

    Returns
    -------
    list of Candidates or None
        None if there is one among them that the solver does not know.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> models = [make_pipeline(StandardScaler(), Ridge(alpha)) for alpha in (1, 10)]
    >>> (both,) = recognise_all(models)
    >>> both.method, both.penalties
    ('standardize', [1.0, 10.0])
    """
    by_shared: dict[Any, Candidates] = {}
    for position, estimator in enumerate(estimators):
        found = recognise_pipeline(estimator)
        if found is None:
            return None
        method, model = found
        shared = replace(model, penalty=1.0)
        candidates = by_shared.setdefault(
            (method, repr(shared)), Candidates(method, shared, [], [])
        )
        candidates.positions.append(position)
        candidates.penalties.append(model.penalty)
    return list(by_shared.values())


def recognise_pipeline(estimator: Any) -> tuple[str, LinearModel] | None:
    """Give the normalization and the model of an estimator, or None if the solver does not know it.

    Parameters
    ----------
    estimator : estimator
        A linear model, or a pipeline that ends with one, after at most one scaler. A
        `RowSpaceProjector` between them is skipped: with an L2 penalty it changes no prediction.

    Returns
    -------
    (str, LinearModel) or None
    """
    steps = _flatten(estimator)
    if len(steps) > 1 and _is_projector(steps[-2]):
        del steps[-2]
    if not 1 <= len(steps) <= 2:
        return None
    scaler = steps[0] if len(steps) == 2 else None
    method, model = _read_scaler(scaler), recognise(steps[-1])
    return None if method is None or model is None else (method, model)


def _flatten(estimator: Any) -> list[Any]:
    """List the steps of a pipeline, and of pipelines in it, without those that do nothing."""
    if type(estimator) is not Pipeline or estimator.transform_input is not None:
        return [estimator]
    steps = [step for _, step in estimator.steps if step not in (None, "passthrough")]
    return [one for step in steps for one in _flatten(step)]


def _is_projector(step: Any) -> bool:
    return type(step) is RowSpaceProjector and step.residual is False


def _read_scaler(scaler: Any) -> str | None:
    if type(scaler) is ActivationNormalizer:
        return scaler.method if is_method(scaler.method) else None
    return recognise_scaler(scaler)
