"""Which of scikit-learn's estimators the solver knows, with parameters that it fits exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

from sklprep.sweeps.solver.fits import ClassifierFit, RegressorFit
from sklprep.sweeps.solver.logistic import TOL, fit_logistic, fit_logistic_each
from sklprep.sweeps.solver.ridge import fit_ridge, fit_ridge_classifier
from sklprep.sweeps.solver.split import Split

Kind = Literal["logistic", "ridge", "ridge classifier"]

_SKLEARN_TOL = 1e-4
"""The default of scikit-learn's logistic regression, which is taken to ask for our default."""

_TIGHTEST = 1e-9
"""The tightest tolerance that float64 can reach."""


@dataclass(frozen=True)
class LinearModel:
    """A linear model that the solver knows.

    Attributes
    ----------
    kind : {"logistic", "ridge", "ridge classifier"}
    penalty : float
        C or alpha.
    fit_intercept : bool
        `Split` needs the same value.
    class_weight : dict, "balanced" or None
    tol : float
        For logistic regression, see `fit_logistic`.
    """

    kind: Kind
    penalty: float
    fit_intercept: bool = True
    class_weight: Any = None
    tol: float = TOL

    @property
    def penalty_name(self) -> str:
        """The parameter of scikit-learn's estimator that is the penalty: C or alpha."""
        return "C" if self.kind == "logistic" else "alpha"

    def fit(
        self,
        split: Split,
        y: ArrayLike,
        penalties: Sequence[float] | None = None,
        *,
        sample_weight: ArrayLike | None = None,
        keep_coef: bool = False,
    ) -> list[list[ClassifierFit]] | list[list[RegressorFit]]:
        """Fit every labeling with every penalty.

        Parameters
        ----------
        split : Split
            With this model's `fit_intercept`.
        y : array-like of shape (n_samples,) or (n_labelings, n_samples)
        penalties : sequence of float, default=None
            None is the model's own.
        sample_weight : array-like of shape (n_samples,), default=None
        keep_coef : bool, default=False

        Returns
        -------
        list of list of ClassifierFit or RegressorFit
            A list for each penalty, with a fit for each labeling.

        Raises
        ------
        ValueError
            As `fit_logistic`, `fit_ridge` and `fit_ridge_classifier`, or if the split was made for
            models with another `fit_intercept`.
        """
        if split.fit_intercept != self.fit_intercept:
            raise ValueError(
                f"The split has fit_intercept={split.fit_intercept}, the model"
                f" {self.fit_intercept}: make the split with the model's."
            )
        penalties = (self.penalty,) if penalties is None else penalties
        options: dict[str, Any] = {"sample_weight": sample_weight, "keep_coef": keep_coef}
        if self.kind == "ridge":
            return fit_ridge(split, y, penalties, **options)
        options["class_weight"] = self.class_weight
        if self.kind == "ridge classifier":
            return fit_ridge_classifier(split, y, penalties, **options)
        return fit_logistic(split, y, penalties, tol=self.tol, **options)

    def fit_each(self, splits: Sequence[Split], y: ArrayLike) -> list[Any]:
        """Fit one labeling on each of some splits of the same X, with this model's penalty.

        Parameters
        ----------
        splits : sequence of Split
        y : array-like of shape (n_samples,)

        Returns
        -------
        list of ClassifierFit or RegressorFit
        """
        if self.kind == "logistic":
            options: dict[str, Any] = {"class_weight": self.class_weight, "tol": self.tol}
            return list(fit_logistic_each(splits, y, self.penalty, **options))
        return [self.fit(split, y)[0][0] for split in splits]


def recognise(estimator: Any) -> LinearModel | None:
    """Tell whether the solver fits an estimator as it asks, and how.

    Parameters
    ----------
    estimator : estimator

    Returns
    -------
    LinearModel or None
        None for other classes, subclasses included, and for what the solver does not do: penalties
        other than L2, no penalty, liblinear (which penalises the intercept), positive coefficients,
        one penalty per target.

    Notes
    -----
    Parameters that say how to find the optimum, such as `solver`, `max_iter` and `random_state`, do
    not matter: the optimum is the same. A `tol` of `LogisticRegression` below scikit-learn's
    default tightens ours by as much.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklprep.sweeps.solver import recognise
    >>> recognise(LogisticRegression(C=0.1)).penalty
    0.1
    >>> recognise(LogisticRegression(solver="liblinear")) is None
    True
    """
    if type(estimator) is LogisticRegression:
        return _logistic(estimator.get_params())
    if type(estimator) in (Ridge, RidgeClassifier):
        parameters = estimator.get_params()
        if parameters["positive"] or not _is_positive(parameters["alpha"]):
            return None
        return LinearModel(
            kind="ridge" if type(estimator) is Ridge else "ridge classifier",
            penalty=float(parameters["alpha"]),
            fit_intercept=bool(parameters["fit_intercept"]),
            class_weight=parameters.get("class_weight"),
        )
    return None


def recognise_scaler(scaler: Any) -> str | None:
    """Give the method of `Split` that is one of scikit-learn's scalers, or None.

    Parameters
    ----------
    scaler : transformer, "passthrough" or None

    Returns
    -------
    {"standardize", "minmax", "maxabs", "none"} or None
    """
    if scaler is None or scaler == "passthrough":
        return "none"
    default = next(
        (
            (method, known)
            for known, method in (
                (StandardScaler, "standardize"),
                (MinMaxScaler, "minmax"),
                (MaxAbsScaler, "maxabs"),
            )
            if type(scaler) is known
        ),
        None,
    )
    if default is None:
        return None
    given, usual = scaler.get_params(), default[1]().get_params()
    return default[0] if {**given, "copy": True} == {**usual, "copy": True} else None


def _logistic(parameters: dict[str, Any]) -> LinearModel | None:
    penalty = parameters.get("penalty", "l2")
    if penalty == "deprecated":  # from scikit-learn 1.8 on, l1_ratio says it
        penalty = "l2" if parameters["l1_ratio"] == 0 else "other"
    if (
        penalty != "l2"
        or parameters["solver"] == "liblinear"
        or parameters["dual"]
        or parameters.get("multi_class", "deprecated") not in ("deprecated", "auto", "multinomial")
        or not _is_positive(parameters["C"])
    ):
        return None
    return LinearModel(
        kind="logistic",
        penalty=float(parameters["C"]),
        fit_intercept=bool(parameters["fit_intercept"]),
        class_weight=parameters["class_weight"],
        tol=max(_TIGHTEST, TOL * min(1.0, parameters["tol"] / _SKLEARN_TOL)),
    )


def _is_positive(value: Any) -> bool:
    return isinstance(value, Real) and 0 < float(value) < np.inf
