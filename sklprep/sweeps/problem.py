"""What is asked of a sweep, read and checked before anything is drawn or fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import ParameterGrid
from sklearn.pipeline import Pipeline, make_pipeline

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.arrays import require_numbers, require_rows_first, to_numpy
from sklprep.activations.values import read_values
from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.estimator import read_layers, wants_groups, without_selector
from sklprep.sweeps.fitting import is_made_scorer, make_models
from sklprep.sweeps.inputs import InputSpec, read_inputs
from sklprep.sweeps.probe_data import input_of, is_dataset, normalize_anew
from sklprep.sweeps.scoring import Scoring, read_scorings
from sklprep.sweeps.solver import recognise_all
from sklprep.transformers.normalizers import ActivationNormalizer


@dataclass(frozen=True)
class Problem:
    """Rows, target, groups, inputs and models of a sweep.

    Attributes
    ----------
    groups, own_groups : ndarray of shape (n_samples,)
        Groups that no split separates, numbered from 0; the groups that the rows have by default.
    origin : str
        Description of the rows, for `methods_text`.
    scoring, other_scorings
        The score that chooses the layer and is permuted, and other scores of the same fits.
    score_reason : str
        Why the default score is not the usual one; otherwise empty.
    """

    acts: Any
    origin: str
    y: NDArray[Any]
    groups: NDArray[np.int64]
    own_groups: NDArray[np.int64]
    inputs: list[InputSpec]
    model: Any
    sae_model: Any
    needs_groups: bool
    scoring: Scoring
    other_scorings: list[Scoring]
    score_reason: str
    classify: bool
    candidates: list[dict[str, Any]]

    @property
    def has_grid(self) -> bool:
        return len(self.candidates) > 1

    @property
    def nests_all(self) -> bool:
        """Whether the inner folds choose parameters or a threshold for each labeling."""
        return self.has_grid or self.scoring.fpr is not None

    def model_for(self, spec: InputSpec) -> Any:
        return self.sae_model if spec.is_sae else self.model

    def solves(self, spec: InputSpec) -> bool:
        """Whether the solver knows all models of an input. It takes dense rows only."""
        is_sparse = spec.is_sae and isinstance(self.acts, ActivationSet)
        return not is_sparse and self.knows(self.model_for(spec), self.candidates)

    def knows(self, model: Any, candidates: Sequence[dict[str, Any]] = ({},)) -> bool:
        """Whether the solver knows a model with all parameters that compete, and its scorers."""
        models = make_models(model, candidates)
        scorings = [self.scoring, *self.other_scorings]
        are_made = all(is_made_scorer(one.scorer) for one in scorings)
        return are_made and recognise_all(models) is not None


def read_problem(
    estimator: Any, acts: Any, y: Any, layers: Any, groups: Any, scoring: Any, param_grid: Any
) -> Problem:
    """Read the arguments of `layer_sweep` that say what is asked."""
    dataset = acts if is_dataset(acts) else None
    if dataset is not None:
        acts, y = dataset.X, dataset.y if y is None else y
    if y is None:
        raise UsageError("y is missing: give one value per row, such as acts.labels.")
    y = read_values(y, "y")
    acts = _read_acts(acts, len(y) if y.ndim else None)
    _require_target(y, len(acts))
    if estimator is not None:
        estimator, selector = without_selector(estimator)
        layers = read_layers(layers, selector)
    classify = _is_classification(estimator, y)
    if not classify and y.dtype.kind == "b":
        y = y.astype(np.int64)
    model = default_model(classify) if estimator is None else estimator
    sae_model = default_model(classify, "maxabs") if estimator is None else estimator
    if dataset is not None:
        model = sae_model = normalize_anew(dataset, model[-1] if estimator is None else model)
    own_groups = _read_groups(_own_groups(acts) if dataset is None else dataset.groups, acts)
    scorings = read_scorings(scoring, model, y, classify=classify)
    return Problem(
        acts=acts,
        origin=_describe_rows(acts) if dataset is None else f"A dataset, X of shape {acts.shape}",
        y=y,
        groups=own_groups if groups is None else _read_groups(groups, acts),
        own_groups=own_groups,
        inputs=read_inputs(layers, acts) if dataset is None else [input_of(dataset, layers)],
        model=model,
        sae_model=sae_model,
        needs_groups=wants_groups(model),
        scoring=scorings.lead,
        other_scorings=scorings.others,
        score_reason=scorings.reason,
        classify=classify,
        candidates=_read_grid(param_grid, model),
    )


def default_model(classify: bool, method: str = "standardize") -> Pipeline:
    # on correlated activations newton-cg converges in ten steps where lbfgs takes hundreds
    model = LogisticRegression(solver="newton-cg", max_iter=1_000) if classify else Ridge()
    return make_pipeline(ActivationNormalizer(method), model)


def _read_grid(param_grid: Any, model: Any) -> list[dict[str, Any]]:
    if param_grid is None:
        return [{}]
    try:
        candidates = list(ParameterGrid(param_grid))
    except (TypeError, ValueError) as error:
        raise UsageError(f"param_grid is not what GridSearchCV takes: {error}") from None
    known = model.get_params()
    for name in dict.fromkeys(name for candidate in candidates for name in candidate):
        if name not in known:
            near = get_close_matches(name, known) or [n for n in known if n.endswith(f"__{name}")]
            do = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            raise UsageError(
                f"param_grid names {name!r}, which is not a parameter of the estimator"
                f" {' '.join(repr(model).split())}.{do}"
            )
    return candidates


def _read_acts(acts: Any, n_rows: int | None) -> Any:
    if isinstance(acts, ActivationSet):
        return acts
    acts = to_numpy(acts, "acts")
    require_numbers(acts, "acts")
    if acts.ndim not in (2, 3) or acts.dtype.kind not in "fiu":
        raise UsageError(
            "acts must be an ActivationSet or a numeric array of shape (n_samples, n_layers,"
            f" d_model), got {acts.dtype} of shape {acts.shape}."
        )
    require_rows_first(acts.shape, "acts", n_rows)
    return acts


def _require_target(y: NDArray[Any], n: int) -> None:
    if y.shape != (n,):
        do = " Sweep one target at a time: y[:, 0]." if y.shape[:1] == (n,) and y.ndim == 2 else ""
        raise UsageError(f"y must have shape ({n},), one value per row of acts, got {y.shape}.{do}")
    if y.dtype.kind not in "biufU":
        raise UsageError(
            f"y holds {y.dtype} values; expected labels (whole numbers, booleans or text) or a"
            " quantity (floats)."
        )
    n_infinite = int(np.isinf(y).sum()) if y.dtype.kind == "f" else 0
    if n_infinite:
        raise InsufficientDataError(
            f"y has {n_infinite} infinite values among {n}. Leave these rows out: acts[rows],"
            " y[rows]."
        )


def _is_classification(estimator: Any, y: NDArray[Any]) -> bool:
    fractional = y.dtype.kind == "f" and bool(np.any(np.mod(y, 1)))
    if estimator is not None and is_classifier(estimator):
        if fractional:
            raise UsageError(
                f"y holds numbers such as {y[np.mod(y, 1) != 0][0]:g}, but a classifier needs"
                " labels. Give a regressor, or make labels of y, for example y > 0."
            )
        return True
    numeric = y.dtype.kind in "fiub"
    if estimator is not None and is_regressor(estimator):
        if not numeric:
            raise UsageError(f"y holds {y.dtype} values, but a regressor needs numbers.")
        return False
    return y.dtype.kind != "f"


def _describe_rows(acts: Any) -> str:
    if not isinstance(acts, ActivationSet):
        return f"An array of shape {acts.shape}"
    data = f"{acts.name} (pooling {acts.pooling}, fingerprint {acts.fingerprint[:16]})"
    return f"{data} without {len(acts.left_out)} faulty files" if acts.left_out else data


def _own_groups(acts: Any) -> NDArray[Any]:
    return acts.groups if isinstance(acts, ActivationSet) else np.arange(len(acts))


def _read_groups(groups: Any, acts: Any) -> NDArray[np.int64]:
    """Number the groups from 0."""
    groups = read_values(groups, "groups", instead=", or give each a group of its own")
    if groups.shape != (len(acts),):
        raise UsageError(f"groups must have shape ({len(acts)},), got {groups.shape}.")
    return np.unique(groups, return_inverse=True)[1].reshape(-1)
