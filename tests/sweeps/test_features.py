"""`feature_sweep`: its ratios against sums by hand, one design for all, and what is left out."""

import csv

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklprep import ActivationSet, feature_sweep
from sklprep.exceptions import (
    FeatureNotFoundError,
    InsufficientDataError,
    LayerNotFoundError,
    UsageError,
)
from sklprep.sweeps.intervals import corrected_t

CV = 4
RIDGE = make_pipeline(StandardScaler(), Ridge())
N = 80


@pytest.fixture(scope="module")
def acts():
    """Feature 0 is linear in layer 1 where active, 1 in layer 0, 2 noise, 3 rare, 4 dead, 5 always.

    SAE of layer 1.
    """
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 2, 5)).astype(np.float32)
    features = np.zeros((N, 1, 6), np.float32)
    features[:, 0, 0] = np.maximum(X[:, 1, 0] - 0.5, 0)
    features[:, 0, 1] = np.maximum(X[:, 0, 1], 0)
    features[:, 0, 2] = np.maximum(rng.standard_normal(N), 0)
    features[:9, 0, 3] = 1
    features[:, 0, 5] = 5 + X[:, 1, 3]
    return ActivationSet.from_arrays(
        hidden_states=X, activations=features, sae_layers=[1], average_l0s=[3]
    )


@pytest.fixture(scope="module")
def sweep(acts):
    return feature_sweep(None, acts, [(1, i) for i in range(6)], cv=CV, n_repeats=1)


@pytest.fixture(scope="module")
def folds():
    splitter = StratifiedGroupKFold(CV, shuffle=True, random_state=0)
    return list(splitter.split(np.zeros(N), np.zeros(N), np.arange(N)))


def test_ratios_are_sums_over_folds(acts, sweep, folds):
    for i, (layer, feature, _) in enumerate(sweep.features):
        y = acts.feature(layer, feature).astype(float)
        for j in (0, 1):
            X = acts.layer(j)
            errors = spreads = wins = pairs = 0.0
            for train, test in folds:
                predicted = RIDGE.fit(X[train], y[train]).predict(X[test])
                errors += ((y[test] - predicted) ** 2).sum()
                spreads += ((y[test] - y[train].mean()) ** 2).sum()
                n = np.count_nonzero(y[test]) * np.sum(y[test] == 0)
                wins += n * roc_auc_score(y[test] != 0, predicted) if n else 0
                pairs += n
            assert sweep.layer_r2[i, j] == pytest.approx(1 - errors / spreads, abs=1e-5)
            expected = wins / pairs if pairs else np.nan
            assert sweep.layer_auroc[i, j] == pytest.approx(expected, abs=0.01, nan_ok=True)


def test_inner_folds_choose_the_layer_of_the_smallest_error(acts, sweep, folds):
    for i, (layer, feature, _) in enumerate(sweep.features):
        y = acts.feature(layer, feature).astype(float)
        for k, (train, _) in enumerate(folds):
            errors = np.zeros(2)
            for j, (_, score) in enumerate(folds):
                fit = np.setdiff1d(train, score)
                for of, X in enumerate((acts.layer(0), acts.layer(1)) if j != k else ()):
                    predicted = RIDGE.fit(X[fit], y[fit]).predict(X[score])
                    errors[of] += ((y[score] - predicted) ** 2).sum()
            assert sweep.chosen[i, k] == np.argmin(errors)


def test_dead_and_rare_features_are_listed_and_the_others_sorted(sweep, tmp_path):
    assert [(1, 0, 3), (1, 1, 3), (1, 2, 3), (1, 5, 3)] == sweep.features
    assert sweep.left_out == {
        (1, 3, 3): f"active in 9 of {N} groups, fewer than 10",
        (1, 4, 3): f"active in 0 of {N} groups, fewer than 10",
    }
    table = sweep.table
    assert table.r2[:4].tolist() == sorted(sweep.r2, reverse=True)
    assert table.r2[4:].isna().all()
    assert [3, 4] == table.feature[4:].tolist()
    by_feature = table.set_index("feature")
    assert (1, 0) == (by_feature.input[0], by_feature.input[1])
    assert by_feature.r2[0] > 0.3
    assert by_feature.r2[2] < 0.2
    assert by_feature.auroc[0] > 0.9
    assert np.isnan(by_feature.auroc[5])  # it has no inactive row
    sweep.to_csv(tmp_path / "features.csv")
    rows = list(csv.DictReader((tmp_path / "features.csv").read_text().splitlines()))
    assert [float(row["r2"]) for row in rows[:4]] == table.r2[:4].tolist()
    assert ["", ""] == [row["r2"] for row in rows[4:]]
    assert "2 left out" in sweep.summary()
    assert "fewer than 10" in sweep._repr_html_()


def test_intervals_are_the_corrected_t_over_folds(acts):
    found = feature_sweep(None, acts, [(1, 1)], cv=CV, n_repeats=3, layers=[0])
    errors, spreads = found.errors[0, 0], found.spreads[0]
    scores = (spreads - errors) / spreads.mean()

    assert scores.mean() == pytest.approx(found.r2[0])
    np.testing.assert_allclose(found.r2_intervals[0], corrected_t(scores, found.size_ratio))
    assert found.auroc_intervals[0, 0] < found.auroc[0] <= found.auroc_intervals[0, 1] <= 1


def test_rare_features_have_no_interval(acts, sweep):
    active = [len(np.unique(acts.groups[acts.feature(*one[:2]) != 0])) for one in sweep.features]
    groups = len(np.unique(acts.groups))
    common = [30 <= n <= groups - 30 for n in active]
    assert sweep.common.tolist() == common
    assert np.isnan(sweep.r2_intervals[:, 0]).tolist() == [not one for one in common]
    assert f"{common.count(False)} of them have none" in sweep.summary()


def test_a_feature_scores_the_same_alone(acts, sweep):
    alone = feature_sweep(None, acts, [(1, 1)], cv=CV, n_repeats=1)

    np.testing.assert_allclose(alone.layer_r2[0], sweep.layer_r2[1], rtol=1e-9)
    assert alone.chosen[0].tolist() == sweep.chosen[1].tolist()


@pytest.mark.parametrize("options", [{"solver": "scikit-learn"}, {"cv": 3}])
def test_other_ways_to_fit(acts, sweep, options):
    found = feature_sweep(RIDGE, acts, [(1, 0), (1, 1)], **{"cv": CV, "n_repeats": 1, **options})

    np.testing.assert_allclose(found.r2, sweep.r2[:2], atol=1e-5 if "solver" in options else 0.2)


def test_groups_stay_whole(acts):
    groups = np.arange(N) // 4
    found = feature_sweep(None, acts, [(1, 0)], cv=CV, n_repeats=1, groups=groups)

    splitter = StratifiedGroupKFold(CV, shuffle=True, random_state=0)
    y, X, errors = acts.feature(1, 0).astype(float), acts.layer(1), []
    for train, test in splitter.split(np.zeros(N), np.zeros(N), groups):
        predicted = RIDGE.fit(X[train], y[train]).predict(X[test])
        errors.append(((y[test] - predicted) ** 2).sum())
    np.testing.assert_allclose(found.errors[0, 1], errors, rtol=1e-4)
    assert (20, "there are 20 groups, fewer than 30") == (found.n_groups, found.no_interval)
    assert np.isnan(found.r2_intervals).all()


def test_features_come_from_a_table_by_rank(acts, tmp_path):
    table = tmp_path / "ranked.csv"
    lines = ["rank,layer,average_l0,feature_id", "2,1,3,1", "1,1,3,0", "3,1,3,2"]
    table.write_text("\n".join([*lines, ""]))

    found = feature_sweep(None, acts, table, top=2, cv=CV, n_repeats=1, layers=[1])

    assert [(1, 0, 3), (1, 1, 3)] == found.features


@pytest.mark.parametrize(
    ("features", "options", "kind", "message"),
    [
        ([(1, 3), (1, 4)], {}, InsufficientDataError, "None of 2 features .* active in 9 of 80"),
        ([(1, 9)], {}, FeatureNotFoundError, "Feature index must be 0-5"),
        ([(0, 1)], {}, LayerNotFoundError, "Layer 0"),
        ([], {}, UsageError, "features is empty"),
        ([7], {}, UsageError, "a path or a sequence of"),
        ([(1, 0)], {"top": 0}, UsageError, "top must be at least 1"),
        ([(1, 0)], {"cv": StratifiedGroupKFold(3)}, UsageError, "cv must be an int"),
        ([(1, 0)], {"cv": 90}, InsufficientDataError, "80 groups, fewer than the 90 folds"),
        ([(1, 0)], {"estimator": LogisticRegression()}, UsageError, "classifier needs labels"),
    ],
)
def test_what_does_not_fit_together_is_refused(acts, features, options, kind, message):
    with pytest.raises(kind, match=message):
        feature_sweep(acts=acts, features=features, **{"estimator": None, **options})


def test_arrays_have_no_features(acts):
    with pytest.raises(UsageError, match="SAE features need an ActivationSet"):
        feature_sweep(None, acts.hidden_states, [(1, 0)])
