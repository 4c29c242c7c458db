"""Scores of draws: closed forms against scikit-learn on every resample."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from sklprep.sweeps.bootstrap import draw_counts, middle_95, score_draws
from sklprep.sweeps.fitting import TrainingSet, Work, fit_training_sets
from sklprep.sweeps.scoring import Scoring

N = 48
TRAIN, TEST = np.arange(28), np.arange(28, N)


def fit_fold(model, scorer, scoring, X, y):
    """The score of one fold, and what its interval looks at."""
    work = Work(model, [{}], scorer, scoring, X)
    (fitted,) = fit_training_sets(work, y[np.newaxis], [TrainingSet(TRAIN, [TEST], 1, keep=True)])
    return fitted.scores.item(), fitted.models[0]


def make_problem(scoring):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 3))
    y = X[:, 0] + rng.standard_normal(N)
    if scoring in ("balanced_accuracy", "f1_macro", "roc_auc_ovr"):
        y = np.array(["low", "middle", "high"])[np.searchsorted([-0.9, 0.9], y)]
    elif scoring != "r2":
        y = np.where(y > 0, "yes", "no")
    return X, y


@pytest.mark.parametrize(
    ("scoring", "model"),
    [
        ("accuracy", LogisticRegression()),
        ("balanced_accuracy", KNeighborsClassifier(3)),
        ("f1_macro", KNeighborsClassifier(3)),
        ("roc_auc", LogisticRegression()),
        ("roc_auc", KNeighborsClassifier(3)),
        ("roc_auc", LinearSVC()),
        ("r2", LinearRegression()),
        ("neg_log_loss", LogisticRegression()),
    ],
)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_score_of_a_draw_is_that_of_its_rows(scoring, model):
    X, y = make_problem(scoring)
    scorer = get_scorer(scoring)
    score, answers = fit_fold(model, scorer, scoring, X, y)
    counts = draw_counts(np.random.default_rng(1), TEST // 2, 60)

    scored = Scoring(scoring, model, classify=scoring != "r2")
    found = score_draws(scored, answers, np.arange(len(TEST)), y[TEST], counts)

    fitted = model.fit(X[TRAIN], y[TRAIN])
    rows = [np.repeat(TEST, count) for count in counts]
    np.testing.assert_allclose([scorer(fitted, X[row], y[row]) for row in rows], found)
    assert scorer(fitted, X[TEST], y[TEST]) == score


def test_draws_take_whole_groups():
    groups = np.array([5, 5, 2, 9, 9, 9])
    counts = draw_counts(np.random.default_rng(0), groups, 2_000)

    np.testing.assert_array_equal(counts[:, 0], counts[:, 1])
    np.testing.assert_array_equal(counts[:, 3:5], counts[:, 4:])
    assert (counts[:, [0, 2, 3]].sum(axis=1) == 3).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_draws_without_a_score_are_left_out():
    X, y = make_problem("roc_auc_ovr")
    scoring = Scoring("roc_auc_ovr", LogisticRegression(), classify=True)
    score, answers = fit_fold(LogisticRegression(), scoring.scorer, scoring.name, X, y)
    one_class = np.where(y[TEST] == "high", 1, 0)
    everything = np.ones_like(one_class)
    counts = np.stack([everything, one_class, everything])

    scores = score_draws(scoring, answers, np.arange(len(TEST)), y[TEST], counts)

    assert [True, False, True] == np.isfinite(scores).tolist()
    assert (score, score) == pytest.approx(middle_95(scores))
    assert np.isnan(middle_95(scores[1:2])).all()
