"""The estimator of a sweep: freed of its selector, and given groups where it splits by them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object

from sklprep.exceptions import UsageError
from sklprep.formats.layers import EACH, EACH_SAE
from sklprep.transformers.sae_selector import SAEFeatureSelector
from sklprep.transformers.selection import Selector

GRIDS = ("param_grid", "param_distributions")
"""Parameters of scikit-learn's searches that hold what they search."""

_INNER = ("estimator", "regressor", "classifier", "base_estimator")


def without_selector(estimator: Any) -> tuple[Any, Any]:
    """Take the selector out of a whole pipeline: the sweep puts each input in its place.

    Returns
    -------
    estimator : estimator
        The one given if there is no selector in it, else a copy.
    selector : Selector or None

    Raises
    ------
    UsageError
        If the selector is not the first step of a Pipeline, or is alone in it, or a search within
        varies it.
    """
    if not any(isinstance(part, Selector) for part in _parts(estimator)):
        return estimator, None
    stripped, selector, _ = _strip(clone(estimator))
    if selector is None or any(isinstance(part, Selector) for part in _parts(stripped)):
        raise UsageError(
            f"{type(estimator).__name__} holds a selector where the sweep cannot take it out;"
            " expected it as the first step of a Pipeline. Give the steps after the selector, and"
            " name the inputs with layers=...."
        )
    return stripped, selector


def read_layers(layers: Any, selector: Selector | None) -> Any:
    """Say which inputs take the selector's place: of SAE features, "each" means each SAE."""
    if not isinstance(selector, SAEFeatureSelector):
        return layers
    each = isinstance(layers, str) and layers == EACH
    if selector.features is not None or (each and selector.average_l0 is not None):
        raise UsageError(
            "The pipeline's SAEFeatureSelector picks features or an average_l0, which the sweep,"
            " putting each SAE in its place, would drop. Give the steps after the selector, and"
            " name the inputs with layers=..., such as layers=['sae 12 l0 82']."
        )
    return EACH_SAE if each else layers


def wants_groups(estimator: Any) -> bool:
    """Whether something in it splits by group, so that `fit` must be given groups."""
    with config_context(enable_metadata_routing=True):
        if any(_requests(part, "split") for part in _parts(estimator) if hasattr(part, "split")):
            return True
        return _requests(estimator, "fit")


def _requests(part: Any, method: str) -> bool:
    try:
        return bool(get_routing_for_object(part).consumes(method, {"groups"}))
    except (AttributeError, NotImplementedError):  # it does not route metadata
        return False


def _parts(estimator: Any) -> Iterator[Any]:
    yield estimator
    if hasattr(estimator, "get_params") and not isinstance(estimator, type):
        yield from estimator.get_params(deep=True).values()


def _strip(estimator: Any) -> tuple[Any, Selector | None, str]:
    """Give the estimator without its selector, the selector, and its name among parameters."""
    if isinstance(estimator, Pipeline):
        name, first = estimator.steps[0]
        if isinstance(first, Selector):
            if len(estimator.steps) == 1:
                raise UsageError(
                    f"The pipeline holds {type(first).__name__} alone; expected a model after it."
                )
            return estimator[1:], first, name
        inner, selector, path = _strip(first)
        estimator.steps[0] = (name, inner)
        return estimator, selector, f"{name}__{path}"
    for name in _INNER:
        inner = getattr(estimator, name, None)
        if not hasattr(inner, "fit"):
            continue
        inner, selector, path = _strip(inner)
        if selector is not None:
            _require_unsearched(estimator, selector, path)
            return estimator.set_params(**{name: inner}), selector, f"{name}__{path}"
    return estimator, None, ""


def _require_unsearched(search: Any, selector: Selector, path: str) -> None:
    for grids in GRIDS:
        value = getattr(search, grids, None) or []
        for grid in [value] if isinstance(value, dict) else value:
            for name in grid:
                if name == path or name.startswith(f"{path}__"):
                    raise UsageError(
                        f"{type(search).__name__} searches {name}, and so does the sweep, which"
                        f" puts each input in the place of {type(selector).__name__}. Leave {name}"
                        f" out of {grids}, or score the search itself: cross_val_score(search,"
                        " acts, y, groups=acts.groups, cv=GroupKFold(5))."
                    )
