"""Recall at a rate of false positives against counts, scipy's intervals and a loop of fits."""

import re

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklprep import layer_sweep, recall_at_fpr
from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.intervals import clopper_pearson, corrected_t
from sklprep.sweeps.operating_point import find_threshold, negatives_needed, smallest_rate
from sklprep.sweeps.sweep import count_fits

RNG = np.random.default_rng(0)
Y = np.repeat([0, 1], [60, 20])
X = RNG.normal(size=(80, 2, 6))
X[:, 1, 0] += 1.5 * Y
MODEL = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, tol=1e-8, solver="newton-cg"))
OPTIONS = {"scoring": "recall_at_fpr=0.1", "n_repeats": 1}


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.29, 0.5])
@pytest.mark.parametrize("n", [19, 99, 100, 257])
@pytest.mark.parametrize("ties", [False, True])
def test_threshold_is_the_lowest_that_holds_the_rate_for_one_more_negative(fpr, n, ties):
    negatives = RNG.normal(size=n)
    negatives = np.round(negatives) if ties else negatives

    threshold = find_threshold(negatives, fpr)

    assert np.mean(negatives > threshold) <= fpr
    if n < negatives_needed(fpr):
        assert threshold == np.inf
        return
    # where the next one is at the threshold or above it with a chance of at most fpr
    assert (np.sum(negatives > threshold) + 1) / (n + 1) <= fpr + 1e-12
    lower = negatives[negatives < threshold].max()
    assert (np.sum(negatives > lower) + 1) / (n + 1) > fpr


@pytest.mark.parametrize("fpr", [0.3, 0.1, 0.05, 0.01, 0.001])
def test_one_negative_less_than_needed_is_too_few(fpr):
    needed = negatives_needed(fpr)

    assert find_threshold(np.arange(float(needed)), fpr) == needed - 1
    assert find_threshold(np.arange(needed - 1.0), fpr) == np.inf
    assert negatives_needed(float(smallest_rate(needed - 1))) <= needed - 1


@pytest.mark.parametrize(("k", "n"), [(0, 7), (3, 11), (40, 41), (9, 9)])
def test_interval_is_the_exact_one(k, n):
    low, high = binomtest(k, n).proportion_ci(0.95, "exact")

    assert clopper_pearson(k / n, n) == pytest.approx((low, high), abs=1e-9)


def test_point_counts_what_lies_above_the_threshold_of_other_rows():
    y, scores = np.array(["no", "yes"])[Y], X[:, 1, 0]
    known = np.arange(100.0)

    point = recall_at_fpr(y, 60 + 20 * scores, calibration=(["no"] * 99 + ["yes"], known), fpr=0.2)

    above = 60 + 20 * scores > point.threshold
    assert point.threshold == 79
    assert (point.recall, point.fpr) == (above[Y == 1].mean(), above[Y == 0].mean())
    assert (point.n_positives, point.n_negatives) == (20, 60)
    assert point.recall_interval == clopper_pearson(point.recall, 20)
    assert point.fpr_interval == clopper_pearson(point.fpr, 60)


def test_intervals_count_groups():
    calibration = Y, X[:, 1, 0]

    point = recall_at_fpr(
        Y, X[:, 1, 0], calibration=calibration, fpr=0.1, groups=np.arange(80) // 4
    )

    assert (point.n_positives, point.n_negatives) == (5, 15)
    assert point.recall_interval == clopper_pearson(point.recall, 5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"fpr": 0.01},
            InsufficientDataError,
            "needs 99 negatives to calibrate on, got 60. .*0.017",
        ),
        ({"fpr": 1}, UsageError, "fpr must be between 0 and 1"),
        ({"y_true": np.arange(80) % 3}, InsufficientDataError, "y_true has 3 classes"),
        ({"y_score": X[:40, 0, 0]}, UsageError, "of one shape"),
        ({"calibration": (Y + 1, X[:, 0, 0])}, UsageError, "different classes, of which 0 and 1"),
    ],
)
def test_what_has_no_operating_point_is_refused(change, error, message):
    arguments = {"y_true": Y, "y_score": X[:, 0, 0], "calibration": (Y, X[:, 0, 0]), "fpr": 0.1}

    with pytest.raises(error, match=message):
        recall_at_fpr(**arguments | change)


def loop(layer):
    """(recall, rate, inner recall) of each outer fold, whose inner folds are the others."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(X, Y, np.arange(80))
    tests = [test for _, test in folds]
    figures = []
    for k, test in enumerate(tests):
        train = np.setdiff1d(np.arange(80), test)
        rows, values = [], []
        for j, held_out in enumerate(tests):
            if j != k:
                fit = MODEL.fit(*(data[np.setdiff1d(train, held_out)] for data in (X[:, layer], Y)))
                rows.append(held_out)
                values.append(fit.decision_function(X[held_out, layer]))
        rows, values = np.concatenate(rows), np.concatenate(values)
        allowed = int(0.1 * ((Y[rows] == 0).sum() + 1)) - 1
        threshold = np.sort(values[Y[rows] == 0])[::-1][allowed]
        assert np.mean(values[Y[rows] == 0] > threshold) <= 0.1
        above = MODEL.fit(X[train, layer], Y[train]).decision_function(X[test, layer]) > threshold
        inner = np.mean(values[Y[rows] == 1] > threshold)
        figures.append((above[Y[test] == 1].mean(), above[Y[test] == 0].mean(), inner))
    return np.array(figures).T


@pytest.mark.parametrize("solver", ["auto", "scikit-learn"])
def test_thresholds_of_a_sweep_come_from_the_inner_folds_alone(solver):
    expected = np.stack([loop(layer) for layer in (0, 1)])

    sweep = layer_sweep(MODEL, X, Y, solver=solver, **OPTIONS)

    np.testing.assert_allclose(expected[:, 0], sweep.scores)
    np.testing.assert_allclose(expected[:, 1], sweep.false_positive_rates)
    picked = expected[:, 2].argmax(axis=0)
    assert picked.tolist() == sweep.best_layers
    assert sweep.nested_score == pytest.approx(expected[picked, 0, range(5)].mean())
    assert sweep.nested_fpr == pytest.approx(expected[picked, 1, range(5)].mean())
    exact, corrected = (
        clopper_pearson(sweep.nested_score, 20),
        corrected_t(sweep.nested_scores, sweep.size_ratio),
    )
    low, high = min(exact[0], corrected[0]), max(exact[1], corrected[1])
    assert sweep.nested_interval == (max(0, low), min(1, high))
    assert sweep.nested_fpr_interval == clopper_pearson(sweep.nested_fpr, 60)
    assert sweep.baselines == {}
    assert sweep.summary().startswith("Honest recall at 10 % false positives ")
    rate = (
        r": false positives on test rows 0\.\d{3} \[0\.\d+, 0\.\d+\], .* recall of chance; layer 1"
    )
    assert re.search(rate, sweep.summary())
    assert "calibrated on the rows that its inner folds held out" in sweep.methods_text()


def test_grids_permutations_and_repeats_calibrate_their_own_thresholds():
    grid = {"logisticregression__C": [1e-6, 0.1]}

    sweep = layer_sweep(
        MODEL, X, Y, param_grid=grid, n_permutations=9, **OPTIONS | {"n_repeats": 2}
    )
    one_by_one = layer_sweep(
        MODEL, X, Y, solver="scikit-learn", n_permutations=3, inner_cv=3, cv=3, **OPTIONS
    )

    assert sweep.scores.shape == sweep.false_positive_rates.shape == (2, 10)
    assert sweep.p_value == 0.1
    assert sweep.permutation_scores.max() < sweep.nested_score
    assert np.isfinite(one_by_one.permutation_scores).all()


def test_model_with_probabilities_alone_has_an_operating_point():
    sweep = layer_sweep(DecisionTreeClassifier(max_depth=2, random_state=0), X, Y, **OPTIONS)

    assert np.all((sweep.scores >= 0) & (sweep.scores <= 1))
    assert np.isfinite(sweep.false_positive_rates).all()


def test_function_itself_is_the_scorer_of_one_percent():
    with pytest.raises(InsufficientDataError, match=r"a rate of 0\.01 needs 99 negatives"):
        layer_sweep(MODEL, X, Y, scoring=recall_at_fpr)


@pytest.mark.parametrize(
    ("y", "options", "error", "message"),
    [
        (
            Y,
            {"scoring": "recall_at_fpr"},
            InsufficientDataError,
            r"needs 99 negatives there; the smallest has 48\. Add negatives \(about 124 in all"
            r" instead of 60\), or use scoring='recall_at_fpr=0\.021'",
        ),
        (Y, {"inner_cv": None}, UsageError, "calibrates its threshold on the inner folds"),
        (Y, {"scoring": "recall_at_fpr=5"}, UsageError, "is not a rate; write the share"),
        (np.arange(80) % 3, {}, UsageError, "it is for two classes, and y has 3"),
    ],
)
def test_sweep_that_cannot_calibrate_is_refused_before_any_fit(y, options, error, message):
    with pytest.raises(error, match=message):
        layer_sweep(MODEL, X, y, **OPTIONS | options)


def test_advised_rate_works():
    sweep = layer_sweep(MODEL, X, Y, scoring="recall_at_fpr=0.021", n_repeats=1)

    assert np.isfinite(sweep.scores).all()


def test_fits_are_counted_with_those_that_calibrate():
    options = {"n_permutations": 3, "n_repeats": 2}
    plain = count_fits(X, **options)

    assert plain == 2 * (5 * 5 + 10 * 2) + 2 * 5
    # permutations, and the majority class, have inner folds too
    assert count_fits(X, scoring="recall_at_fpr", **options) == plain + 2 * 10 * 3 + 2 * 10
