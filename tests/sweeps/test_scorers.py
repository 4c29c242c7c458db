"""Scorers of ordered labels and of sparse targets, and which score is the default."""

import pickle
import re

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score
from sklearn.model_selection import KFold, LeaveOneOut, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from sklprep import layer_sweep
from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.folds import draw_folds
from sklprep.sweeps.scorers import find_scorer, pool, quadratic_kappa, scorer_names
from sklprep.sweeps.scoring import read_scorings

RNG = np.random.default_rng(0)
LABELS = np.arange(80) % 4
X = RNG.normal(size=(80, 6)) + LABELS[:, None] * [1.5, 0, 0, 0.5, 0, 0]
AMOUNTS = np.maximum(X[:, 0] - np.sort(X[:, 0])[-32], 0)  # 31 are not zero
FOLDS = list(KFold(4, shuffle=True, random_state=0).split(X))
ONCE = {"cv": FOLDS, "inner_cv": None, "baselines": False}
SMALL = {"cv": 4, "inner_cv": 3, "n_repeats": 1}
OURS = ["quadratic_kappa", "roc_auc_active", "spearman"]


def scores_by_hand(model, y, measure):
    return [measure(model.fit(X[train], y[train]), X[test], y[test]) for train, test in FOLDS]


def test_kappa_is_that_of_scikit_learn_over_all_labels():
    y, predicted = RNG.integers(0, 4, 50), RNG.integers(0, 4, 50)

    expected = cohen_kappa_score(y, predicted, labels=range(4), weights="quadratic")
    assert quadratic_kappa(y, predicted, low=0, high=3) == pytest.approx(expected)

    without_two = np.where(y == 2, 0, y), np.where(predicted == 2, 3, predicted)
    expected = cohen_kappa_score(*without_two, labels=range(4), weights="quadratic")
    assert quadratic_kappa(*without_two, low=0, high=3) == pytest.approx(expected)


def test_kappa_of_a_regressor_is_that_of_its_rounded_and_clipped_predictions():
    model = Ridge().fit(X, LABELS)
    model.coef_ *= 2
    predicted = model.predict(X)
    assert predicted.min() < -0.5
    assert predicted.max() > 3.5

    scorer = find_scorer("quadratic_kappa", LABELS, classify=False)

    rounded = np.clip(np.round(predicted), 0, 3).astype(int)
    expected = cohen_kappa_score(LABELS, rounded, weights="quadratic")
    assert scorer(model, X, LABELS) == pytest.approx(expected)


def test_kappa_clips_to_the_labels_of_all_rows_and_not_of_the_test_fold():
    model = Ridge().fit(X, LABELS)
    low = LABELS < 3
    scorer = find_scorer("quadratic_kappa", LABELS, classify=False)

    rounded = np.clip(np.round(model.predict(X[low])), 0, 3).astype(int)
    assert rounded.max() == 3
    expected = cohen_kappa_score(LABELS[low], rounded, labels=range(4), weights="quadratic")
    assert scorer(model, X[low], LABELS[low]) == pytest.approx(expected)


def test_spearman_of_a_regressor_is_that_of_scipy():
    model = Ridge().fit(X[:40], LABELS[:40])
    scorer = find_scorer("spearman", LABELS, classify=False)

    expected = spearmanr(LABELS[40:], model.predict(X[40:])).statistic
    assert scorer(model, X[40:], LABELS[40:]) == pytest.approx(expected)


@pytest.mark.parametrize("labels", [LABELS, LABELS**2 + 1, LABELS % 2, LABELS % 2 == 1])
def test_spearman_of_a_classifier_ranks_by_the_expected_label(labels):
    model = GaussianNB().fit(X[:40], labels[:40])
    scorer = find_scorer("spearman", labels, classify=True)

    expected = model.predict_proba(X[40:]) @ np.unique(labels).astype(float)
    statistic = spearmanr(labels[40:], expected).statistic
    assert scorer(model, X[40:], labels[40:]) == pytest.approx(statistic)


def test_spearman_of_a_classifier_without_probabilities_ranks_by_its_labels():
    model = LinearSVC().fit(X[:40], LABELS[:40])

    found = find_scorer("spearman", LABELS, classify=True)(model, X[40:], LABELS[40:])

    assert found == pytest.approx(spearmanr(LABELS[40:], model.predict(X[40:])).statistic)


def test_active_is_ranked_by_what_is_predicted():
    model = Ridge().fit(X[:40], AMOUNTS[:40])
    scorer = find_scorer("roc_auc_active", AMOUNTS, classify=False)

    expected = roc_auc_score(AMOUNTS[40:] != 0, model.predict(X[40:]))
    assert scorer(model, X[40:], AMOUNTS[40:]) == pytest.approx(expected)


def test_answers_that_order_nothing_have_no_rank_correlation():
    model = Ridge(alpha=1e30).fit(np.zeros((40, 1)), LABELS[:40])

    assert find_scorer("spearman", LABELS, classify=False)(model, X[:, :1] * 0, LABELS) == 0


@pytest.mark.parametrize("name", OURS)
def test_score_of_rows_that_are_all_alike_is_undefined(name):
    model, rows = Ridge().fit(X, LABELS), LABELS == 2
    scorer = find_scorer(name, LABELS, classify=False)

    with pytest.warns(UndefinedMetricWarning, match="all rows"):
        assert np.isnan(scorer(model, X[rows], LABELS[rows]))


@pytest.mark.parametrize("name", OURS)
def test_scorer_travels_to_workers(name):
    model = Ridge().fit(X, LABELS)
    scorer = find_scorer(name, LABELS, classify=False)

    assert pickle.loads(pickle.dumps(scorer))(model, X, LABELS) == scorer(model, X, LABELS)


# ---- in a sweep


@pytest.mark.parametrize("scoring", ["quadratic_kappa", "spearman"])
@pytest.mark.parametrize("model", [Ridge(), LogisticRegression()])
@pytest.mark.parametrize("solver", ["auto", "scikit-learn"])
def test_ordered_labels_are_scored_by_name(scoring, model, solver):
    classify = isinstance(model, LogisticRegression)
    sweep = layer_sweep(model, X, LABELS, scoring=scoring, solver=solver, **ONCE)

    assert sweep.scoring == scoring
    scorer = find_scorer(scoring, LABELS, classify=classify)
    by_hand = scores_by_hand(model, LABELS, scorer)
    np.testing.assert_allclose(sweep.scores[0], by_hand, atol=0.02)


def test_regressor_of_labels_has_the_folds_of_a_classifier():
    groups = np.arange(80) // 2
    as_labels = draw_folds(5, LABELS, groups, classify=True, seed=3)
    as_numbers = draw_folds(5, LABELS, groups, classify=False, seed=3)

    for one, other in zip(as_labels, as_numbers, strict=True):
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("y", [LABELS % 2 == 1, LABELS % 2])
def test_ridge_takes_two_labels(y):
    sweep = layer_sweep(Ridge(), X, y, scoring="spearman", n_permutations=5, **ONCE | {"cv": 4})

    assert 0 < sweep.naive_best_score < 1


def test_baselines_have_these_scores_too():
    sweep = layer_sweep(None, X, LABELS, scoring="quadratic_kappa", **SMALL)
    assert sweep.baselines["majority"].mean == 0
    sweep = layer_sweep(Ridge(), X, LABELS, scoring="spearman", **SMALL)
    assert sweep.baselines["mean"].mean == 0


@pytest.mark.parametrize("scoring", ["roc_auc_active", "spearman"])
def test_sparse_target_is_scored_by_name(scoring):
    sweep = layer_sweep(None, X, AMOUNTS, scoring=scoring, n_permutations=3, **ONCE | {"cv": 4})

    assert np.isfinite(sweep.scores).all()
    assert sweep.naive_best_score > 0.3


@pytest.mark.parametrize("name", OURS)
def test_text_has_no_order(name):
    message = rf"^scoring='{name}' needs labels that are numbers, and y holds text such as 'a'\."
    with pytest.raises(UsageError, match=message):
        layer_sweep(None, X, np.array(list("abcd"))[LABELS], scoring=name, **ONCE)


def test_kappa_of_fractions_is_refused():
    with pytest.raises(UsageError, match=r"whole numbers, and y holds 0\.5\. Use spearman or r2\."):
        layer_sweep(None, X, LABELS + 0.5, scoring="quadratic_kappa", **ONCE)


def test_active_needs_rows_that_are_not():
    with pytest.raises(UsageError, match="does not fit y: y is active"):
        layer_sweep(None, X, AMOUNTS + 1, scoring="roc_auc_active", **ONCE)


def test_fold_that_lacks_a_class_is_refused_before_it_is_fitted():
    cv = [(np.flatnonzero(LABELS < 3), np.flatnonzero(LABELS == 3))]
    cv += [(np.arange(40), np.arange(40, 80))]
    with pytest.raises(InsufficientDataError, match=r"spearman cannot score"):
        layer_sweep(GaussianNB(), X, LABELS, scoring="spearman", **ONCE | {"cv": cv})


def test_names_are_those_of_scikit_learn_and_ours():
    assert {"accuracy", "r2", *OURS} <= set(scorer_names())
    assert find_scorer("accuracy", LABELS, classify=True) is None


# ---- the default


@pytest.mark.parametrize(
    ("n_largest", "n_classes", "model", "name"),
    [
        (60, 2, LogisticRegression(), "accuracy"),
        (61, 2, LogisticRegression(), "roc_auc"),
        (61, 2, LinearSVC(), "roc_auc"),
        (61, 3, LogisticRegression(), "balanced_accuracy"),
        (40, 3, LogisticRegression(), "accuracy"),
    ],
)
def test_accuracy_is_not_the_default_where_one_class_is_most_of_the_rows(
    n_largest, n_classes, model, name
):
    y = np.r_[np.full(n_largest, 7), np.arange(100 - n_largest) % (n_classes - 1)]

    scorings = read_scorings(None, model, y, classify=True)

    assert (name, []) == (scorings.lead.name, scorings.others)
    reason = "" if name == "accuracy" else "61% of the rows are of class 7, and always predicting"
    assert scorings.reason.startswith(reason)
    assert bool(scorings.reason) == (name != "accuracy")


def test_what_only_predicts_labels_has_balanced_accuracy():
    class Labels(LinearSVC):
        decision_function = property()

    y = np.arange(100) < 20
    scorings = read_scorings(None, Labels(), y, classify=True)
    assert "balanced_accuracy" == scorings.lead.name


def test_each_score_has_baselines_that_suit_it():
    y = np.where(LABELS > 2, "yes", "no")
    sweep = layer_sweep(None, X, y, scoring=["accuracy", "f1_macro", "roc_auc"], **SMALL)
    assert {"majority", "random labels"} == set(sweep.baselines)
    assert sweep.other_scores["roc_auc"].baselines["majority"].mean == 0.5

    sweep = layer_sweep(None, X, y == "yes", scoring=["accuracy", "f1"], **SMALL)
    share = np.mean(y == "yes")
    always = sweep.other_scores["f1"].baselines["always True"]
    assert always.mean == pytest.approx(2 * share / (1 + share), abs=0.02)


def test_majority_of_rows_left_out_one_by_one_is_the_share_of_the_largest_class():
    y = np.arange(24) % 2
    sweep = layer_sweep(None, X[:24], y, cv=LeaveOneOut(), inner_cv=3)
    assert sweep.baselines["majority"].mean == 0.5


def test_summary_says_which_score_was_chosen_and_why():
    y = (np.arange(80) % 4 == 0).astype(int)
    sweep = layer_sweep(None, X, y, **SMALL)
    assert "roc_auc" == sweep.scoring
    assert sweep.summary().startswith("ROC AUC 0.")
    why = "ROC AUC as 75% of the rows are of class 0, and always predicting it has an accuracy of"
    assert sweep.summary().endswith(f"scored by {why} 0.75")
    assert "The score is ROC AUC, as 75% of the rows are of class 0" in sweep.methods_text()
    assert 0.5 == sweep.baselines["majority"].mean
    asked = layer_sweep(None, X, y, scoring="roc_auc", **SMALL)
    np.testing.assert_array_equal(sweep.scores, asked.scores)
    assert "scored by" not in asked.summary()
    # of 10 % positives the interval covered 90 % of simulated data sets
    assert sweep.nested_interval is None
    assert "class 1 is in 20 groups, fewer than 30" == sweep.no_interval


def test_balanced_accuracy_is_computed_where_it_is_chosen():
    y = np.where(np.arange(80) % 4 == 0, np.arange(80) // 40, 2)
    folds = list(StratifiedKFold(4).split(X, y))
    sweep = layer_sweep(GaussianNB(), X, y, **ONCE | {"cv": folds})
    assert "balanced_accuracy" == sweep.scoring
    models = [GaussianNB().fit(X[train], y[train]) for train, _ in folds]
    by_hand = [
        balanced_accuracy_score(y[test], model.predict(X[test]))
        for model, (_, test) in zip(models, folds, strict=True)
    ]
    np.testing.assert_allclose(sweep.scores[0], by_hand)


# ---- targets that are mostly zero


def test_pooled_r2_is_one_less_press_by_squares_around_training_means():
    sweep = layer_sweep(Ridge(), X, AMOUNTS, scoring="pooled_r2", **ONCE | {"baselines": True})

    press = squares = 0
    for train, test in FOLDS:
        model = Ridge().fit(X[train], AMOUNTS[train])
        press += ((AMOUNTS[test] - model.predict(X[test])) ** 2).sum()
        squares += ((AMOUNTS[test] - AMOUNTS[train].mean()) ** 2).sum()
    assert sweep.naive_best_score == pytest.approx(1 - press / squares)
    assert sweep.baselines["mean"].mean == pytest.approx(0)


def test_pooled_r2_has_no_interval_where_few_values_are_not_zero():
    y = np.where(np.arange(80) < 20, 1.0 + np.arange(80), 0)
    sweep = layer_sweep(Ridge(), X, y, scoring=["r2", "pooled_r2"], **SMALL | {"cv": 5})
    assert sweep.nested_interval is not None
    few = sweep.other_scores["pooled_r2"]
    assert (few.nested_interval, few.comparisons) == (None, {})
    assert few.no_interval == "class active is in 20 groups, fewer than 30"


def test_pooled_r2_of_each_labeling_has_its_own_squares():
    rng = np.random.default_rng(0)
    labels, errors = rng.normal(size=(3, 80)), -rng.uniform(size=(4, 2, 3))
    found = pool(errors, labels, FOLDS)
    for i in range(3):
        np.testing.assert_allclose(
            found[..., i : i + 1], pool(errors[..., i : i + 1], labels[i : i + 1], FOLDS)
        )
    shuffled = np.random.default_rng(1).permutation(AMOUNTS)
    options = ONCE | {"cv": KFold(4, shuffle=True, random_state=0), "scoring": "pooled_r2"}
    sweep = layer_sweep(None, X, AMOUNTS, n_permutations=5, n_repeats=1, **options)
    assert sweep.permutation_scores.max() < 0.5 < sweep.naive_best_score
    assert layer_sweep(None, X, shuffled, **options).naive_best_score < 0.5


def test_a_target_that_is_mostly_zero_has_scores_that_do_not_explode():
    sweep = layer_sweep(None, X[:, :3], AMOUNTS, **SMALL)
    assert np.mean(AMOUNTS == 0) > 0.6
    assert "pooled_r2" == sweep.scoring
    assert ["spearman", "roc_auc_active"] == list(sweep.other_scores)
    assert re.match(r"Pooled R2 0\.\d\d \[", sweep.summary())
    assert re.search(
        r"; Spearman correlation 0\.\d\d \[.*\]; ROC AUC of active [01]\.\d\d \[.*\]; scored by"
        r" pooled R2 as \d\d% of the values of y are 0",
        sweep.summary(),
    )
    active = sweep.other_scores["roc_auc_active"]
    assert 0.5 == active.baselines["mean"].mean
    assert active.comparisons["mean"].difference == pytest.approx(active.nested_score - 0.5)
    dense = layer_sweep(None, X, AMOUNTS + 1, **ONCE)
    assert ("r2", {}) == (dense.scoring, dense.other_scores)


def test_a_score_that_a_fold_does_not_have_is_left_out_unless_it_was_asked_for():
    cv = [(np.flatnonzero(AMOUNTS > 0)[:10], np.flatnonzero(AMOUNTS == 0))]
    cv += [(np.arange(40), np.arange(40, 80))]
    sweep = layer_sweep(None, X, AMOUNTS, **ONCE | {"cv": cv})
    assert ("pooled_r2", {}) == (sweep.scoring, sweep.other_scores)
    scoring = ["pooled_r2", "spearman"]
    with pytest.raises(InsufficientDataError, match=r"spearman cannot score .* Leave spearman out"):
        layer_sweep(None, X, AMOUNTS, scoring=scoring, **ONCE | {"cv": cv})


# ---- several scores at once


@pytest.mark.parametrize("solver", ["auto", "scikit-learn"])
def test_the_first_of_several_scores_leads_and_the_others_are_of_the_same_fits(solver, tmp_path):
    layers = np.stack([X[:, 3:], X[:, :3]], axis=1)
    names = ["accuracy", "quadratic_kappa", "spearman"]
    options = {"n_permutations": 3, "solver": solver, **SMALL}
    several = layer_sweep(None, layers, LABELS, scoring=names, **options)

    alone = layer_sweep(None, layers, LABELS, scoring="accuracy", **options)
    np.testing.assert_array_equal(alone.scores, several.scores)
    np.testing.assert_array_equal(alone.permutation_scores, several.permutation_scores)
    assert alone.chosen == several.chosen
    assert names[1:] == list(several.other_scores)
    for name, found in several.other_scores.items():
        of_it = layer_sweep(None, layers, LABELS, scoring=name, **options)
        assert name == found.scoring
        np.testing.assert_allclose(of_it.scores, found.scores)
        assert several.best_layers == found.best_layers
        assert found.baselines["majority"].mean == 0
    several.to_csv(tmp_path / "s.csv")
    head = (tmp_path / "s.csv").read_text().splitlines()[0]
    assert head.endswith(",quadratic_kappa,spearman")
    kappa = several.other_scores["quadratic_kappa"]
    assert f"quadratic kappa {kappa.nested_score:.2f} [" in several.summary()
    assert "that were not used to choose: quadratic kappa" in several.methods_text()


def test_a_callable_beside_a_name_sees_the_model():
    def n_features(model, X, y):
        return model.n_features_in_ * 1.0

    sweep = layer_sweep(GaussianNB(), X, LABELS, scoring=["accuracy", n_features], **ONCE)
    assert (6 == sweep.other_scores["n_features"].scores).all()
    plain = layer_sweep(GaussianNB(), X, LABELS, **ONCE)
    np.testing.assert_array_equal(plain.scores, sweep.scores)


def test_an_empty_list_is_refused():
    with pytest.raises(UsageError, match="scoring is an empty list"):
        layer_sweep(None, X, LABELS, scoring=[], **ONCE)
