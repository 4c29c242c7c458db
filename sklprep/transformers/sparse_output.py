"""Sparse output even if scikit-learn is configured for data frames, which cannot hold it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from scipy.sparse import issparse
from sklearn import config_context

_T = TypeVar("_T", bound=type)


def keeps_sparse(gives_sparse: Callable[[Any], bool] = issparse) -> Callable[[_T], _T]:
    """Decorate a transformer so that ``set_config(transform_output=...)`` ignores sparse output.

    ``set_output`` on the transformer itself still applies, and raises scikit-learn's error.

    Parameters
    ----------
    gives_sparse : callable
        From X to whether the output is sparse; by default, whether X is.
    """

    def decorate(transformer: _T) -> _T:
        for name in ("transform", "fit_transform"):
            setattr(transformer, name, _spare(getattr(transformer, name), gives_sparse))
        return transformer

    return decorate


def _spare(method: Callable[..., Any], gives_sparse: Callable[[Any], bool]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, X: Any, *arguments: Any, **options: Any) -> Any:
        if "_sklearn_output_config" in vars(self) or not gives_sparse(X):
            return method(self, X, *arguments, **options)
        with config_context(transform_output="default"):
            return method(self, X, *arguments, **options)

    return call
