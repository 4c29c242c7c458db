"""Scores of permuted labels, against scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import get_scorer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from sklprep.sweeps.closed_forms import CLOSED_FORMS


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
    ],
)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_closed_form_is_the_scorers_score(scoring, model):
    rng = np.random.default_rng(0)
    for n_test in (3, 20):
        X = rng.standard_normal((40 + n_test, 3))
        y = X[:, 0] + rng.standard_normal(len(X))
        if scoring in ("balanced_accuracy", "f1_macro"):
            y = np.array(["low", "middle", "high"])[np.searchsorted([-0.9, 0.9], y)]
        elif scoring != "r2":
            y = np.where(y > 0, "yes", "no")
            y[-2:] = "yes", "no"
        model.fit(X[:40], y[:40])
        expected = get_scorer(scoring)(model, X[40:], y[40:])
        assert CLOSED_FORMS[scoring](model, X[40:], y[40:]) == pytest.approx(expected)
