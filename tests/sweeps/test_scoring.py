"""What cannot be scored is refused before any fit, and advice has been tried."""

import re
import time

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    LeaveOneOut,
    ShuffleSplit,
)
from sklearn.svm import LinearSVC

from sklprep import layer_sweep
from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.scoring import Scoring

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 2, 4))
FOUR = np.arange(60) % 4
GROUPS = np.repeat(np.arange(6), 10)
OPTIONS = {"cv": 3, "inner_cv": 3, "n_repeats": 1, "baselines": False}


class Unfit(ClassifierMixin, BaseEstimator):
    """Has what scorers ask for, and must not be fitted."""

    def fit(self, X, y):
        raise AssertionError("it was fitted")

    def predict(self, X): ...
    def predict_proba(self, X): ...
    def decision_function(self, X): ...


class UnfitRegressor(RegressorMixin, BaseEstimator):
    def fit(self, X, y):
        raise AssertionError("it was fitted")

    def predict(self, X): ...


def sweep(y, model=None, **options):
    return layer_sweep(model or Unfit(), X[: len(y)], y, **OPTIONS | options)


@pytest.mark.parametrize(
    ("scoring", "names"),
    [
        ("roc_auc", "roc_auc_ovo or roc_auc_ovo_weighted or roc_auc_ovr or roc_auc_ovr_weighted"),
        ("f1", "f1_macro or f1_micro or f1_weighted"),
        ("precision", "precision_macro or precision_micro or precision_weighted"),
        ("recall", "recall_macro or recall_micro or recall_weighted"),
        ("jaccard", "jaccard_macro or jaccard_micro or jaccard_weighted"),
        ("positive_likelihood_ratio", "accuracy or balanced_accuracy or f1_macro or roc_auc_ovr"),
    ],
)
@pytest.mark.parametrize("y", [FOUR, np.array(list("abcd"))[FOUR]])
def test_score_of_two_classes_is_refused_for_several_with_names_that_work(scoring, names, y):
    message = (
        f"scoring='{scoring}' does not fit y: it is for two classes, and y has 4. Use {names}."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        sweep(y, scoring=scoring)

    model = LogisticRegression()
    for name in names.split(" or ")[:2]:
        found = layer_sweep(model, X, y, scoring=name, layers=[0], **OPTIONS | {"inner_cv": None})
        assert np.isfinite(found.scores).all()


@pytest.mark.parametrize(
    ("y", "model", "scoring", "message"),
    [
        (np.array(["no", "yes"])[FOUR % 2], Unfit(), "f1", "pos_label=1 is not a valid label"),
        (FOUR, LinearSVC(), "neg_log_loss", "LinearSVC has no predict_proba"),
        (FOUR, Unfit(), "neg_mean_gamma_deviance", "neg_mean_gamma_deviance' does not fit y"),
        (FOUR / 7, UnfitRegressor(), "accuracy", "continuous is not supported. Use r2"),
        (-1.5 - FOUR, UnfitRegressor(), "neg_mean_squared_log_error", "Use r2 or pooled_r2 or neg"),
    ],
)
def test_score_that_does_not_fit_y_or_the_model_says_why(y, model, scoring, message):
    with pytest.raises(UsageError, match=message):
        sweep(y, model, scoring=scoring)


@pytest.mark.parametrize("scoring", ["roc_auc", "average_precision", "f1", "recall", "precision"])
def test_fold_of_one_class_is_refused_where_the_score_needs_two(scoring):
    y = (GROUPS < 3).astype(int)
    message = f"{scoring} cannot score fold [03]: all 10 test rows have the class [01]. Use cv=3"
    with pytest.raises(InsufficientDataError, match=message):
        sweep(y, scoring=scoring, groups=GROUPS, cv=LeaveOneGroupOut(), inner_cv=2)
    groups = np.arange(60) // 5
    with pytest.raises(InsufficientDataError, match=f"{scoring} cannot score inner fold . in the"):
        sweep(y, scoring=scoring, groups=groups, cv=2, inner_cv=LeaveOneGroupOut())


def test_fold_of_one_class_has_an_accuracy():
    y = (GROUPS < 3).astype(int)
    found = sweep(y, DummyClassifier(), groups=GROUPS, cv=LeaveOneGroupOut(), inner_cv=2)
    assert np.isfinite(found.nested_score)


def test_fold_of_permuted_labels_is_looked_at_too():
    y = np.tile([0, 1], 30)
    cv = GroupKFold(6)
    with pytest.raises(InsufficientDataError, match=r"fold . of permutation .*n_permutations=0"):
        sweep(
            y[:6],
            groups=np.arange(6),
            cv=ShuffleSplit(2, test_size=2, random_state=2),
            inner_cv=None,
            scoring="roc_auc",
            n_permutations=50,
        )
    model = DummyClassifier()
    found = sweep(
        y, model, groups=GROUPS, cv=cv, inner_cv=None, scoring="roc_auc", n_permutations=2
    )
    assert np.isfinite(found.permutation_scores).all()


@pytest.mark.parametrize(
    ("y", "cv", "reason"),
    [
        (1 + GROUPS / 7, LeaveOneGroupOut(), "all 10 test rows have the value 1"),
        (RNG.normal(size=60), LeaveOneOut(), "its one test row has the value"),
    ],
)
def test_fold_of_equal_values_has_no_r2(y, cv, reason):
    message = f"r2 cannot score fold 0: {reason}.*scoring='pooled_r2'"
    with pytest.raises(InsufficientDataError, match=message):
        sweep(y, UnfitRegressor(), groups=GROUPS if y[0] == y[1] else None, cv=cv)
    found = sweep(y, Ridge(), cv=KFold(3), inner_cv=KFold(2))
    assert np.isfinite(found.nested_score)


def test_scorer_that_gives_nan_never_picks_a_layer():
    def nothing(model, X, y):
        return np.nan

    with pytest.raises(InsufficientDataError, match="The scorer gives nan for 20 test rows"):
        sweep(FOUR, DummyClassifier(), scoring=nothing)


def test_scorers_of_scikit_learn_are_tried_in_no_time():
    scoring = Scoring("roc_auc_ovr", LogisticRegression(), FOUR, classify=True)
    folds = [(np.arange(k, 60), np.arange(k)) for k in range(20, 40)]
    started = time.process_time()
    for _ in range(20):
        for fold in folds:
            scoring.require_scorable(FOUR, fold, "fold")
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "scoring",
    [
        "accuracy",
        "balanced_accuracy",
        "f1_macro",
        "roc_auc_ovr",
        "neg_log_loss",
        "r2",
        "roc_auc",
        "average_precision",
        "matthews_corrcoef",
        "neg_brier_score",
        "explained_variance",
        "neg_mean_absolute_error",
        make_scorer(lambda y, said: float(len(y))),
    ],
)
def test_what_can_be_scored_is_not_refused(scoring):
    numbers = (
        isinstance(scoring, str)
        and get_scorer(scoring)._response_method == "predict"
        and ("r2" in scoring or "variance" in scoring or "mean" in scoring)
    )
    y = X[:, 0, 0] if numbers else (FOUR if scoring in ("f1_macro", "roc_auc_ovr") else FOUR % 2)
    fold = np.arange(20, 60), np.arange(20)
    model = Ridge() if numbers else LogisticRegression()
    chosen = Scoring(scoring, model, y, classify=not numbers)

    chosen.require_fit(y)
    chosen.require_scorable(y, fold, "fold 0")


# ---- advice


def counts(*sizes):
    return np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize(
    ("y", "options", "advice"),
    [
        (counts(54, 6), {"cv": 5, "inner_cv": 5}, "inner_cv=4"),
        (counts(56, 4), {"cv": 5, "inner_cv": 5}, "cv=4 with inner_cv=3"),
        (counts(57, 3), {"cv": 5, "inner_cv": 5}, "cv=3 with inner_cv=2"),
        (counts(50, 10), {"cv": 40, "inner_cv": 5}, "cv=10"),
        (counts(57, 3), {"cv": 5, "inner_cv": None}, "cv=3"),
        (counts(30, 30), {"cv": 9, "groups": np.arange(60) // 10}, "cv=6"),
    ],
)
def test_advised_numbers_of_folds_work(y, options, advice):
    y = np.random.default_rng(1).permutation(y) if "groups" not in options else np.arange(60) % 2
    with pytest.raises(InsufficientDataError, match=rf" Use {advice}(, | or |\.$)"):
        sweep(y, **options)

    tried = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", advice)}
    found = sweep(y, DummyClassifier(), **options | tried)
    assert np.isfinite(found.scores).all()


def test_no_number_of_folds_is_advised_where_none_works():
    with pytest.raises(InsufficientDataError, match=r"Class 1 is in 1 of .* Merge") as error:
        sweep(counts(58, 2), cv=2, inner_cv=2)
    assert "cv=" not in str(error.value)
