"""The models that ``--estimator`` names, and which targets each of them fits."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sklprep.exceptions import UsageError

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

LINEAR = ("logistic", "ridge", "ridge-classifier", "difference-of-means", "lda", "svm")
ESTIMATORS = (*LINEAR, "random-forest")

_OF_QUANTITIES = ("ridge", "svm", "random-forest")


def add_estimator(parser: argparse.ArgumentParser, choices: tuple[str, ...]) -> None:
    parser.add_argument(
        "--estimator",
        choices=choices,
        help="model to fit; ridge takes labels as numbers; default: logistic for labels, or ridge"
        " for quantities",
    )


def choose_estimator(name: str | None, *, classify: bool) -> str:
    """Give the name, or the default for the target; refuse a model that does not fit it."""
    if name is not None and not classify and name not in _OF_QUANTITIES:
        *most, last = _OF_QUANTITIES
        raise UsageError(
            f"--estimator {name} does not fit this target; use {', '.join(most)} or {last}."
        )
    return name or ("logistic" if classify else "ridge")


def make_estimator(
    name: str | None, *, classify: bool, normalize: str, seed: int, row_space: bool = False
) -> Pipeline:
    """Make the steps after the selector: normalizer, projector if asked for, and model."""
    from sklearn.pipeline import make_pipeline

    from sklprep.transformers.normalizers import ActivationNormalizer
    from sklprep.transformers.row_space import RowSpaceProjector

    name = choose_estimator(name, classify=classify)
    if row_space and name in ("lda", "random-forest"):
        what = "shrinks" if name == "lda" else "sees"
        of = "lda" if name == "lda" else "a random forest"
        raise UsageError(f"--row-space changes what {of} {what}; leave it out.")
    projector = [RowSpaceProjector()] if row_space else []
    model = _make_model(name, classify=classify, seed=seed)
    return make_pipeline(ActivationNormalizer(normalize), *projector, model)


def _make_model(name: str, *, classify: bool, seed: int) -> Any:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
    from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
    from sklearn.svm import LinearSVC, LinearSVR

    from sklprep.sweeps.difference_of_means import DifferenceOfMeans

    models: dict[str, Callable[[], Any]] = {
        "logistic": lambda: LogisticRegression(solver="newton-cg", max_iter=1000),
        "ridge": Ridge,
        "ridge-classifier": RidgeClassifier,
        "difference-of-means": DifferenceOfMeans,
        "lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        "svm": lambda: (LinearSVC if classify else LinearSVR)(
            dual=True, max_iter=10_000, random_state=seed
        ),
        "random-forest": lambda: (RandomForestClassifier if classify else RandomForestRegressor)(
            random_state=seed
        ),
    }
    return models[name]()
