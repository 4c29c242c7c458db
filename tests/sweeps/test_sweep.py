"""`layer_sweep`: honest scores, shared folds, controls, and refusals."""

from __future__ import annotations

import csv
import dataclasses
import pickle
import re
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
from benchmarks.null_calibration import LeastSquares, hit_rate, null_p_value
from joblib import parallel_config
from scipy import stats
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    LeaveOneGroupOut,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from sklprep import ActivationNormalizer, ActivationSet, LayerSelector, make_activations
from sklprep.exceptions import (
    DataError,
    InsufficientDataError,
    LayerNotFoundError,
    LayerSpecError,
    SklprepWarning,
    UsageError,
)
from sklprep.sweeps.intervals import max_t_band
from sklprep.sweeps.sweep import count_fits, layer_sweep
from sklprep.sweeps.sweep_result import LayerSweep
from sklprep.sweeps.sweep_scores import Baseline
from sklprep.sweeps.wording import format_score

SMALL = {"cv": 3, "inner_cv": 3, "n_repeats": 1, "baselines": False}
COLUMNS = "layer repeat fold score fit_time band_low band_high adjusted_p".split()
LOGISTIC = make_pipeline(
    ActivationNormalizer(), LogisticRegression(solver="newton-cg", max_iter=1_000)
)


def stratified(n_folds, y, groups=None, seed=0):
    groups = np.arange(len(y)) if groups is None else groups
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(y)), y, groups))


@pytest.fixture(scope="module")
def acts():
    return make_activations(
        80, n_layers=3, d_model=8, n_features=32, label_noise=0.3, random_state=0
    )


@pytest.fixture(scope="module")
def sweep(acts):
    options = {"cv": 4, "inner_cv": 3, "n_repeats": 1}
    return layer_sweep(None, acts, acts.labels, n_permutations=5, **options)


def noise(seed, n=60, n_layers=3, d=4):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, n_layers, d)), rng.permutation(np.arange(n) % 2)


# ---- agreement with scikit-learn and with arithmetic by hand


def test_each_means_embeddings_then_every_layer(acts, sweep):
    assert ["embeddings", 0, 1, 2] == sweep.layers
    assert (4, 4) == sweep.scores.shape == sweep.fit_times.shape
    assert (80, 80, 4, 5) == (sweep.n_samples, sweep.n_groups, sweep.n_folds, sweep.n_permutations)


def test_scores_equal_cross_val_score_on_the_same_splits(acts, sweep):
    splits = stratified(4, acts.labels)
    for layer, scores in zip(sweep.layers, sweep.scores, strict=True):
        pipeline = make_pipeline(LayerSelector(layer), *(clone(s) for _, s in LOGISTIC.steps))
        np.testing.assert_array_equal(
            cross_val_score(pipeline, acts, acts.labels, cv=splits), scores
        )


def test_nested_score_equals_a_nested_loop_written_by_hand(acts, sweep):
    y, expected, picked = acts.labels, [], []
    for train, test in stratified(4, y):
        inner = stratified(3, y[train])
        means = []
        for layer in sweep.layers:
            X = LayerSelector(layer).fit_transform(acts)
            means.append(cross_val_score(LOGISTIC, X[train], y[train], cv=inner).mean())
        picked.append(sweep.layers[int(np.argmax(means))])
        X = LayerSelector(picked[-1]).fit_transform(acts)
        expected.append(clone(LOGISTIC).fit(X[train], y[train]).score(X[test], y[test]))
    assert picked == sweep.best_layers
    assert np.mean(expected) == pytest.approx(sweep.nested_score)


def test_of_equal_inner_scores_the_first_layer_wins(acts):
    y = np.arange(80) % 2
    sweep = layer_sweep(DummyClassifier(), acts, y, layers=[2, "embeddings", 0], **SMALL)
    assert [2, 2, 2] == sweep.best_layers
    assert 2 == sweep.naive_best_layer


def test_naive_best_is_the_largest_mean(sweep):
    means = sweep.scores.mean(axis=1)
    assert means.max() == sweep.naive_best_score
    assert sweep.layers[int(means.argmax())] == sweep.naive_best_layer


def test_baselines_equal_scikit_learn_on_the_same_folds(acts, sweep):
    splits = stratified(4, acts.labels)
    lengths = np.array([[len(text), len(text.split())] for text in acts.sentences], dtype=float)
    tfidf = make_pipeline(TfidfVectorizer(), clone(LOGISTIC[-1]))
    expected = {
        "majority": (DummyClassifier(strategy="most_frequent"), np.zeros((80, 1))),
        "sentence length": (LOGISTIC, lengths),
        "TF-IDF": (tfidf, acts.sentences),
    }
    assert list(expected) == list(sweep.baselines)
    for name, (model, X) in expected.items():
        scores = cross_val_score(model, X, acts.labels, cv=splits)
        np.testing.assert_allclose(scores, sweep.baselines[name].scores)
        assert scores.mean() == pytest.approx(sweep.baselines[name].mean)


def test_arrays_have_a_majority_baseline_only():
    X, y = noise(0)
    assert ["majority"] == list(layer_sweep(LeastSquares(), X, y, cv=3, inner_cv=None).baselines)
    assert {} == layer_sweep(LeastSquares(), X, y, **SMALL).baselines


def test_sentences_without_words_have_no_tfidf_baseline():
    X, y = noise(0)
    texts = [f"{'.' * i}" for i in range(60)]
    acts = ActivationSet.from_arrays(hidden_states=X, sentences=texts)
    sweep = layer_sweep(LeastSquares(), acts, y, cv=3, inner_cv=None)
    assert ["majority", "sentence length"] == list(sweep.baselines)


# ---- the interval


def test_interval_is_the_corrected_t_over_repeats_and_folds(acts):
    sweep = layer_sweep(None, acts, acts.labels, n_repeats=3, baselines=False)
    scores = np.array(
        [sweep.scores[sweep.layers.index(layer), j] for j, layer in enumerate(sweep.best_layers)]
    )
    assert (15,) == scores.shape
    error = np.sqrt((1 / 15 + 16 / 64) * np.var(scores, ddof=1))
    expected = scores.mean() + np.array([-1, 1]) * 2.1447866879 * error  # t of 14 degrees
    np.testing.assert_allclose(expected, sweep.nested_interval)
    of_repeats = scores.reshape(3, 5).mean(axis=1)
    assert sweep.repeat_spread == pytest.approx(np.std(of_repeats, ddof=1))


def test_each_repeat_draws_folds_anew_and_the_first_is_the_sweep_without_repeats(acts, sweep):
    repeated = layer_sweep(None, acts, acts.labels, cv=4, inner_cv=3, n_repeats=2)
    np.testing.assert_array_equal(sweep.scores, repeated.scores[:, :4])
    assert not np.array_equal(repeated.scores[:, :4], repeated.scores[:, 4:])
    X, y = noise(0)
    folds = KFold(4, shuffle=True, random_state=3)
    one, two = (layer_sweep(None, X, y, cv=folds, n_repeats=n, inner_cv=None) for n in (1, 2))
    np.testing.assert_array_equal(one.scores, two.scores[:, :4])


def test_models_that_scikit_learn_fits_and_fixed_folds_are_not_repeated_by_themselves(acts):
    X, y = noise(0)
    for model, cv in ((LeastSquares(), 3), (None, KFold(3)), (None, stratified(3, y))):
        options = {"inner_cv": None, "baselines": False}
        assert 1 == layer_sweep(model, X, y, cv=cv, **options).n_repeats
    with pytest.raises(UsageError, match="needs folds that can be redrawn"):
        layer_sweep(None, X, y, cv=KFold(3), n_repeats=2)
    with pytest.raises(UsageError, match="n_repeats must be 'auto' or at least 1"):
        layer_sweep(None, X, y, n_repeats=0)


def test_where_all_rows_are_right_the_interval_is_exact():
    y = np.arange(60) % 2
    X = y[:, None, None] + np.zeros((60, 1, 2))
    sweep = layer_sweep(None, X, y, n_repeats=2)
    assert (1.0, (pytest.approx(0.025 ** (1 / 60)), 1.0)) == (
        sweep.nested_score,
        sweep.nested_interval,
    )


@pytest.mark.parametrize(
    ("n", "cv", "reason"),
    [
        (28, 4, "there are 28 groups, fewer than 30"),
        (60, 15, "a test fold has 4 of the groups, fewer than 5"),
        (60, ShuffleSplit(4, test_size=15, random_state=0), "do not test each row once"),
    ],
)
def test_without_enough_groups_or_a_partition_there_is_no_interval(n, cv, reason):
    X, y = noise(0, n=n)
    sweep = layer_sweep(LeastSquares(), X, y, cv=cv, inner_cv=2)
    assert (None, None, {}) == (sweep.nested_interval, sweep.band, sweep.comparisons)
    assert reason in sweep.summary()
    assert reason in sweep.methods_text()


def test_score_is_compared_with_baselines_in_pairs_by_the_corrected_t(acts):
    sweep = layer_sweep(None, acts, acts.labels, n_repeats=2)
    found = sweep.comparisons
    p_values = {}
    for name, baseline in sweep.baselines.items():
        differences = sweep.nested_scores - baseline.scores
        t = differences.mean() / (np.std(differences, ddof=1) * np.sqrt(1 / 10 + 1 / 4))
        p_values[name] = 2 * stats.t.sf(abs(t), 9)
        assert found[name].difference == pytest.approx(differences.mean())
        half = stats.t.ppf(0.975, 9) * abs(differences.mean() / t)
        np.testing.assert_allclose(found[name].interval[1] - differences.mean(), half)
    least = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.get)):
        least = max(least, (3 - rank) * p_values[name])
        assert found[name].p_value == pytest.approx(min(1, least))


def test_of_layers_that_are_alike_none_is_shown_to_be_better():
    X, y = noise(0)
    sweep = layer_sweep(None, X, y, n_repeats=5)
    compared = sweep.compare_layers()
    assert {(0, 1), (0, 2), (1, 2)} == set(compared)
    assert not any(one.is_better for one in compared.values())


def test_band_holds_each_layers_interval_and_widens_with_their_number():
    rng = np.random.default_rng(0)
    scores = rng.normal(0.7, 0.1, (20, 400))
    for n_layers in (1, 20):
        low, high = max_t_band(scores[:n_layers], 0.25)
        errors = scores[:n_layers].std(axis=1, ddof=1) * np.sqrt(1 / 400 + 0.25)
        # the largest of independent normals
        expected = stats.norm.ppf((1 + 0.95 ** (1 / n_layers)) / 2)
        np.testing.assert_allclose((high - low) / 2 / errors, expected, rtol=0.02)


def test_one_input_alone_is_not_called_honest():
    X, y = noise(0)
    alone = layer_sweep(None, X[:, :1], y, n_repeats=1)
    assert alone.summary().startswith("Accuracy 0.")
    assert "any earlier choice of it is not accounted for" in alone.summary()
    assert "Any earlier choice of this input is not accounted for" in alone.methods_text()


def test_p_values_of_layers_are_adjusted_by_the_maximum_over_layers(sweep):
    largest = sweep.permutation_scores.max(axis=1)
    for layer, p in enumerate(sweep.adjusted_p_values):
        assert p == (1 + sum(largest >= sweep.mean_scores[layer] - 1e-12)) / 6
    undefined = dataclasses.replace(sweep, permutation_scores=np.full((3, 4), np.nan))
    assert 1 == undefined.p_value


def test_smallest_possible_p_counts_the_labelings_that_there_are():
    y = np.repeat([0, 1], 15)
    groups = np.arange(30) // 5  # 6 groups of one label each: 20 labelings
    X = np.random.default_rng(0).standard_normal((30, 1, 2))
    options = {"groups": groups, "cv": 3, "inner_cv": None, "baselines": False}
    sweep = layer_sweep(LeastSquares(), X, y, n_permutations=200, **options)
    assert sweep.p_value_min >= 1 / 20


# ---- no leakage


class RecordingNormalizer(ActivationNormalizer):
    """Keeps what every clone was fitted on."""

    log: ClassVar[list] = []

    def fit(self, X, y=None):
        super().fit(X, y)
        self.log.append((self.norm_params_["norm_mean"], self.norm_params_["norm_std"]))
        return self


class RecordingLogistic(LogisticRegression):
    log: ClassVar[list] = []

    def fit(self, X, y):
        super().fit(X, y)
        self.log.append((self.coef_, self.intercept_))
        return self


def test_values_of_test_rows_never_change_what_was_fitted_on_training_rows():
    X, y = noise(0, n=40, n_layers=2)
    _, test = stratified(4, y)[1]
    changed = X.copy()
    changed[test] = 1e3 * changed[test] + 7
    runs = []
    for values in (X, changed):
        RecordingNormalizer.log, RecordingLogistic.log = [], []
        model = make_pipeline(RecordingNormalizer(), RecordingLogistic(max_iter=1_000))
        sweep = layer_sweep(model, values, y, cv=4, inner_cv=3, baselines=False)
        runs.append((RecordingNormalizer.log, RecordingLogistic.log, sweep.best_layers))
    # a layer's fits: for each of 4 outer folds the outer fit and its 3 inner ones
    assert 2 * 4 * 4 == len(runs[0][0]) == len(runs[1][1])
    same = [
        all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        for k in range(2)
        for one, other in zip(runs[0][k], runs[1][k], strict=True)
    ]
    in_fold_1 = [i // 4 % 4 == 1 for i in range(2 * 4 * 4)] * 2
    assert in_fold_1 == same
    assert runs[0][2][1] == runs[1][2][1]


def test_given_estimator_is_left_unfitted(acts):
    model = clone(LOGISTIC)
    layer_sweep(model, acts, acts.labels, layers=[0], **SMALL)
    assert not hasattr(model[0], "scaler_")


def test_pure_noise_scores_at_chance_by_sentence_and_far_above_it_by_row():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 12)
    labels = rng.permutation(np.arange(100) % 2)[groups]
    sentences = rng.standard_normal((100, 2, 100))
    X = sentences[groups] + 0.3 * rng.standard_normal((1_200, 2, 100))
    options = {"cv": 5, "inner_cv": 2, "baselines": False, "n_repeats": 1}
    grouped = layer_sweep(None, X, labels, groups=groups, **options)
    with pytest.warns(
        SklprepWarning,
        match="nearest to the one before or after them|repeat another one, or nearly",
    ):
        by_row = layer_sweep(None, X, labels, **options)
    assert abs(grouped.nested_score - 0.5) < 0.12
    assert abs(grouped.mean_scores - 0.5).max() < 0.12
    assert by_row.nested_score > 0.85


def test_groups_come_from_the_activation_set():
    X, y = noise(0, n=40)
    groups = np.repeat(np.arange(20), 2)
    acts = ActivationSet.from_arrays(hidden_states=X, groups=groups)
    mine = layer_sweep(LeastSquares(), acts, y, **SMALL)
    given = layer_sweep(LeastSquares(), X.astype(np.float32), y, groups=groups, **SMALL)
    np.testing.assert_array_equal(given.scores, mine.scores)
    assert 20 == mine.n_groups


def test_best_of_26_noise_layers_flatters_the_naive_maximum_but_not_the_nested_score():
    sweeps = [
        layer_sweep(LeastSquares(), *noise(seed, 60, 26), scoring=hit_rate, baselines=False)
        for seed in range(12)
    ]
    assert abs(np.mean([sweep.nested_score for sweep in sweeps]) - 0.5) < 0.05
    assert np.mean([sweep.naive_best_score for sweep in sweeps]) > 0.6


# ---- the permutation control


class Recorder(ClassifierMixin, RegressorMixin, BaseEstimator):
    """Records rows and labels it is fitted on; column 0 of X is the row."""

    log: ClassVar[list] = []

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.log.append((X[:, 0].astype(int).tolist(), y.tolist()))
        return self

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


def record_sweep(y, *, n_layers=1, **options):
    """Rows and labels of every fit, in order."""
    Recorder.log = []
    X = np.repeat(np.arange(len(y), dtype=float)[:, None, None], n_layers, axis=1)
    layer_sweep(Recorder(), X, y, **{"inner_cv": None, "baselines": False} | options)
    return Recorder.log


def test_every_layer_has_the_same_outer_and_inner_folds():
    log = record_sweep(np.arange(40) % 2, n_layers=3, cv=4, inner_cv=3)
    assert 3 * 4 * 4 == len(log)
    assert log[:16] == log[16:32] == log[32:]


def read_permutations(log, n_rows, n_folds):
    """Labels of all rows, and the training rows of each fold, of each permutation."""
    for start in range(n_folds, len(log), n_folds):
        permuted = np.full(n_rows, -1)
        for rows, labels in log[start : start + n_folds]:
            permuted[rows] = labels
        yield permuted, [sorted(rows) for rows, _ in log[start : start + n_folds]]


def test_labels_are_permuted_within_test_folds_and_shared_by_all_layers():
    y = np.random.default_rng(0).integers(0, 3, 120)
    log = record_sweep(y, n_layers=2, cv=5, n_permutations=4)
    assert log[:25] == log[25:]
    folds = stratified(5, y)
    for permuted, trained in read_permutations(log[:25], 120, 5):
        assert [sorted(train) for train, _ in folds] == trained
        assert np.mean(permuted != y) > 0.3
        for _, test in folds:
            assert sorted(y[test]) == sorted(permuted[test])


def test_folds_are_redrawn_from_the_permuted_labels_where_they_look_at_their_order():
    y = np.random.default_rng(0).integers(0, 3, 120)
    cv = StratifiedKFold(5, shuffle=True, random_state=0)
    log = record_sweep(y, n_layers=2, cv=cv, n_permutations=4)
    assert log[:25] == log[25:]
    for permuted, trained in read_permutations(log[:25], 120, 5):
        assert [sorted(train) for train, _ in cv.split(permuted, permuted)] == trained
        assert [sorted(rows) for rows, _ in log[:5]] != trained


def test_labels_constant_within_groups_are_permuted_as_labels_of_groups():
    groups = np.repeat(np.arange(20), np.arange(1, 21))
    labels = np.arange(20) % 2
    log = record_sweep(labels[groups], groups=groups, cv=3, n_permutations=3)
    for start in range(3, 12, 3):
        of_group = {}
        for rows, values in log[start : start + 3]:
            for row, value in zip(rows, values, strict=True):
                assert value == of_group.setdefault(groups[row], value)
        assert sorted(labels) == sorted(of_group.values())


def test_labels_that_vary_within_groups_are_swapped_in_blocks_of_equal_size():
    groups = np.concatenate([np.repeat(np.arange(12), 3), np.repeat(np.arange(12, 24), 2), [24]])
    y = np.where(groups < 12, np.arange(61) % 3 == 0, np.arange(61) % 2).astype(int)
    y[0:3] = [1, 1, 0]
    log = record_sweep(y, groups=groups, cv=3, n_permutations=2)
    blocks = sorted(tuple(y[groups == group]) for group in range(25))
    for start in (3, 6):
        permuted = dict(
            pair
            for rows, labels in log[start : start + 3]
            for pair in zip(rows, labels, strict=True)
        )
        permuted = np.array([permuted[row] for row in range(61)])
        assert blocks == sorted(tuple(permuted[groups == group]) for group in range(25))
        assert y[60] == permuted[60]


def test_too_few_groups_that_can_move_is_an_error():
    groups = np.repeat(np.arange(12), [2, 2, 2, 2, *range(3, 11)])
    y = np.arange(len(groups)) % 2
    X = np.zeros((len(groups), 1, 2))
    with pytest.raises(InsufficientDataError, match="Only 4 of 12 groups"):
        layer_sweep(LeastSquares(), X, y, groups=groups, n_permutations=1, **SMALL)


def test_p_value_counts_permutations_whose_maximum_reaches_the_best_layer(sweep):
    assert (5, 4) == sweep.permutation_scores.shape
    reached = sum(max(scores) >= sweep.naive_best_score for scores in sweep.permutation_scores)
    assert (1 + reached) / 6 == sweep.p_value
    assert 1 / 6 == sweep.p_value_min
    low, high = sweep.permutation_band
    np.testing.assert_allclose(np.percentile(sweep.permutation_scores, 2.5, axis=0), low)
    np.testing.assert_allclose(np.percentile(sweep.permutation_scores, 97.5, axis=0), high)


def test_p_value_is_smallest_where_the_labels_are_known():
    X, y = noise(0, n=80)
    X[:, 1, 0] += 5 * y
    sweep = layer_sweep(LeastSquares(), X, y, n_permutations=19, scoring=hit_rate, **SMALL)
    assert 0.05 == sweep.p_value == sweep.p_value_min
    assert [1, 1, 1] == sweep.best_layers


def test_p_values_of_noise_are_small_no_more_often_than_they_say():
    # nominally 5 % of them; 8 or more of 40 have probability 0.0006
    p_values = [null_p_value(seed, n_permutations=19) for seed in range(40)]
    assert sum(p <= 0.05 for p in p_values) < 8
    assert abs(np.mean(p_values) - 0.525) < 0.15


# ---- what may vary without changing the result, and what may not


def assert_same(expected, actual):
    np.testing.assert_array_equal(expected.scores, actual.scores)
    np.testing.assert_array_equal(expected.permutation_scores, actual.permutation_scores)
    assert expected.best_layers == actual.best_layers
    assert expected.nested_interval == actual.nested_interval
    for name, baseline in expected.baselines.items():
        np.testing.assert_array_equal(baseline.scores, actual.baselines[name].scores)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_result_does_not_depend_on_jobs_or_backend(acts, sweep, backend):
    options = {"cv": 4, "inner_cv": 3, "n_repeats": 1, "n_permutations": 5}
    with parallel_config(backend, n_jobs=2):
        assert_same(sweep, layer_sweep(None, acts, acts.labels, **options))


def test_random_state_seeds_everything(acts):
    X, y = noise(0)
    options = {**SMALL, "n_permutations": 2}
    first = layer_sweep(LeastSquares(), X, y, random_state=1, **options)
    assert_same(first, layer_sweep(LeastSquares(), X, y, random_state=1, **options))
    other = layer_sweep(LeastSquares(), X, y, random_state=2, **options)
    assert not np.array_equal(first.scores, other.scores)
    drawn = [
        layer_sweep(LeastSquares(), X, y, random_state=np.random.RandomState(5), **options)
        for _ in range(2)
    ]
    assert_same(*drawn)


@pytest.mark.parametrize(
    "config", [{"enable_metadata_routing": True}, {"transform_output": "pandas"}]
)
def test_global_configuration_of_scikit_learn_does_not_matter(acts, config):
    options = {"layers": ["embeddings", 1], "cv": 3, "inner_cv": 2, "n_permutations": 1}
    expected = layer_sweep(None, acts, acts.labels, **options)
    with config_context(**config):
        assert_same(expected, layer_sweep(None, acts, acts.labels, n_jobs=2, **options))


def test_arrays_number_layers_from_0_and_keep_float32(acts):
    states = acts.hidden_states
    assert np.float32 == states.dtype
    by_array = layer_sweep(None, states, acts.labels, **SMALL)
    by_set = layer_sweep(None, acts, acts.labels, layers=[0, 1, 2], **SMALL)
    assert [0, 1, 2] == by_array.layers
    np.testing.assert_array_equal(by_set.scores, by_array.scores)
    two_d = layer_sweep(None, states[:, 1], acts.labels, **SMALL)
    assert [0] == two_d.layers
    np.testing.assert_array_equal(by_set.scores[1], two_d.scores[0])


def test_a_list_of_specs_has_one_input_each_under_its_canonical_name(acts):
    specs = ["embeddings", 0, "1-2", "2,0", [1], "all", "0"]
    sweep = layer_sweep(LOGISTIC, acts, acts.labels, layers=specs, **SMALL)
    assert ["embeddings", 0, "1-2", "0,2", 1, "0-2"] == sweep.layers
    X = LayerSelector("0,2").fit_transform(acts)
    expected = cross_val_score(LOGISTIC, X, acts.labels, cv=stratified(3, acts.labels))
    np.testing.assert_array_equal(expected, sweep.scores[3])


def test_labels_may_be_strings_or_booleans(acts):
    numbers = layer_sweep(None, acts, acts.labels > 1, layers=[1], **SMALL)
    words = np.array(["low", "no"])[(acts.labels <= 1).astype(int)]
    for y in (words, words.astype(object), list(words)):
        np.testing.assert_array_equal(
            numbers.scores, layer_sweep(None, acts, y, layers=[1], **SMALL).scores
        )


def test_floats_are_regressed_and_stratified_in_bins():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((90, 2, 5))
    y = np.maximum(X[:, 1, 0], 0)
    sweep = layer_sweep(None, X, y, cv=5, inner_cv=3, n_repeats=1)
    assert "r2" == sweep.scoring
    assert [1] * 5 == sweep.best_layers
    edges = np.quantile(y[y > 0], [0.25, 0.5, 0.75])
    bins = np.where(y == 0, 0, 1 + np.searchsorted(edges, y, side="right"))
    expected = cross_val_score(
        make_pipeline(ActivationNormalizer(), Ridge()), X[:, 1], y, cv=stratified(5, bins)
    )
    np.testing.assert_allclose(expected, sweep.scores[1])
    assert ["mean"] == list(sweep.baselines)
    assert sweep.baselines["mean"].mean <= 0


def test_a_dense_y_is_stratified_by_quantiles():
    y = np.random.default_rng(0).standard_normal(60)
    bins = np.searchsorted(np.quantile(y, [0.25, 0.5, 0.75]), y, side="right")
    X = np.arange(60.0)[:, None, None]
    sweep = layer_sweep(LinearRegression(), X, y, cv=5, inner_cv=None, baselines=False)
    expected = cross_val_score(LinearRegression(), X[:, 0], y, cv=stratified(5, bins))
    np.testing.assert_allclose(expected, sweep.scores[0])


def test_few_distinct_numbers_are_stratified_without_a_warning():
    y = np.repeat([0.0, 1.0, 2.0], [30, 12, 3])
    X = np.random.default_rng(0).standard_normal((45, 1, 3))
    sweep = layer_sweep(Ridge(), X, y, inner_cv=5, n_repeats=1, n_permutations=2, baselines=False)
    assert np.isfinite(sweep.scores).all()


@pytest.mark.parametrize("scoring", ["f1_macro", "roc_auc_ovr", "neg_log_loss"])
def test_scorers_by_name_score_as_cross_val_score_does(acts, scoring):
    options = SMALL | {"inner_cv": None}
    sweep = layer_sweep(None, acts, acts.labels, layers=[1], scoring=scoring, **options)
    X = acts.layer(1).astype(np.float64)
    converged = clone(LOGISTIC).set_params(logisticregression__tol=1e-9)
    # our default tolerance is that of labels, and leaves 3e-5 of a log loss
    expected = cross_val_score(
        converged, X, acts.labels, cv=stratified(3, acts.labels), scoring=scoring
    )
    np.testing.assert_allclose(expected, sweep.scores[0], rtol=1e-4)
    assert scoring == sweep.scoring


def test_a_model_with_decision_function_only_has_its_roc_auc(acts):
    y = acts.labels > 1
    sweep = layer_sweep(LinearSVC(), acts.hidden_states, y, scoring="roc_auc", **SMALL)
    expected = cross_val_score(
        LinearSVC(), acts.layer(0), y, cv=stratified(3, y), scoring="roc_auc"
    )
    np.testing.assert_allclose(expected, sweep.scores[0])


def test_a_callable_scorer_may_look_at_the_model_and_at_X():
    X, y = noise(0)

    def scorer(model, X, y):
        assert X.shape[1] == len(model.mean_)
        return float(np.mean(model.predict(X) == y))

    plain = layer_sweep(LeastSquares(), X, y, **SMALL)
    scored = layer_sweep(LeastSquares(), X, y, scoring=scorer, **SMALL)
    assert "scorer" == scored.scoring
    np.testing.assert_allclose(plain.scores, scored.scores)
    np.testing.assert_allclose(plain.nested_interval, scored.nested_interval)


def test_splitters_and_lists_of_splits_are_used_as_they_are():
    X, y = noise(0)
    groups = np.repeat(np.arange(20), 3)
    for cv in (GroupKFold(4), LeaveOneGroupOut(), KFold(4)):
        splits = list(cv.split(X, y, None if isinstance(cv, KFold) else groups))
        expected = cross_val_score(LeastSquares(), X[:, 0], y, cv=splits)
        alone = np.arange(60) if isinstance(cv, KFold) else groups
        for given in (cv, splits, iter(splits)):
            sweep = layer_sweep(
                LeastSquares(), X, y, groups=alone, cv=given, inner_cv=3, baselines=False
            )
            np.testing.assert_array_equal(expected, sweep.scores[0])
    sweep = layer_sweep(
        LeastSquares(), X, y, cv=KFold(3), inner_cv=KFold(2), n_permutations=2, baselines=False
    )
    assert (2, 3) == sweep.permutation_scores.shape


# ---- refusals


def small_problem(**changes):
    X, y = noise(0, n=30)
    return {"estimator": None, "acts": X, "y": y, **SMALL} | changes


SPLITS = stratified(3, np.arange(30) % 2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"y": np.zeros(30, int)}, InsufficientDataError, "All 30 values of y are 0"),
        ({"y": np.ones(30)}, InsufficientDataError, "All 30 values of y are 1.0"),
        ({"y": np.arange(30) // 28}, InsufficientDataError, "Class 1 is in 2 of 30 groups.* 3 fo"),
        (
            {"y": np.arange(30) // 27, "inner_cv": 3},
            InsufficientDataError,
            "Class 1 is in 2 of 20 groups in the training set of outer fold 0",
        ),
        (
            {"y": np.where(np.arange(30) < 9, 0.5 + np.arange(30), 0.0)},
            InsufficientDataError,
            "active .* in 9 of 30 groups, fewer than the 10",
        ),
        (
            {"y": np.arange(30) % 2, "groups": np.arange(30) % 2},
            InsufficientDataError,
            "There are 2 groups, fewer than the 3 folds",
        ),
        ({"y": [np.nan, *np.arange(29.0)]}, InsufficientDataError, "y has 1 missing values among"),
        ({"y": [None, *"ab" * 14, "a"]}, InsufficientDataError, "y has 1 missing values among 30"),
        ({"y": np.zeros(29)}, UsageError, r"y must have shape \(30,\)"),
        (
            {"y": np.zeros((30, 2))},
            UsageError,
            r"y must have shape \(30,\).*Sweep one target at a time: y\[:, 0\]",
        ),
        ({"groups": np.zeros(3)}, UsageError, r"groups must have shape \(30,\)"),
        ({"acts": np.zeros(30)}, UsageError, "acts must be an ActivationSet or a numeric array"),
        (
            {"estimator": LogisticRegression(), "y": np.arange(30) / 7},
            UsageError,
            "a classifier needs labels",
        ),
        (
            {"estimator": Ridge(), "y": list("ab" * 15)},
            UsageError,
            "a regressor needs numbers",
        ),
        ({"layers": "0-2"}, UsageError, r"Write \['0-5'\] for one input"),
        ({"layers": 2}, UsageError, "'each sae' or a list"),
        ({"layers": []}, UsageError, "'each sae' or a list"),
        ({"layers": ["0-"]}, LayerSpecError, "cannot be read"),
        ({"layers": [0, "2-3"]}, LayerNotFoundError, "Layer 3 not found in data"),
        ({"layers": ["embeddings"]}, TypeError, "needs an ActivationSet"),
        ({"scoring": "acuracy"}, UsageError, "acuracy"),
        ({"scoring": {"accuracy"}}, UsageError, "scoring must be a scorer"),
        ({"cv": 1}, UsageError, "cv must be at least 2 folds"),
        ({"cv": "five"}, UsageError, "cv must be an int, a splitter"),
        ({"inner_cv": True}, UsageError, "inner_cv must be an int, a splitter"),
        ({"inner_cv": SPLITS}, UsageError, "inner_cv must be an int, a splitter, 'outer', 'auto'"),
        ({"cv": SPLITS, "n_permutations": 1}, UsageError, "redraws the folds"),
        (
            {"cv": KFold(3), "groups": np.arange(30) % 10},
            UsageError,
            "Fold 0 of cv has rows of 10 groups in training and test",
        ),
        (
            {"cv": [(np.arange(20), np.append(np.arange(20, 30), 20))]},
            UsageError,
            "Fold 0 of cv repeats 1 test rows",
        ),
        (
            {"cv": [(np.arange(20), np.arange(-10, 0))]},
            UsageError,
            "Fold 0 of cv must have test rows among the 30 rows, got position -10",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(changes, error, message):
    problem = small_problem(**changes)
    with pytest.raises(error, match=message):
        layer_sweep(problem.pop("estimator"), problem.pop("acts"), problem.pop("y"), **problem)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_fault_in_the_data_of_a_later_layer_is_raised(n_jobs):
    X, y = noise(0)
    X[3, 2, 0] = np.nan
    acts = ActivationSet.from_arrays(hidden_states=X)
    with pytest.raises(DataError, match="layer 2 has 1 NaN"):
        layer_sweep(LeastSquares(), acts, y, n_jobs=n_jobs, **SMALL)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_parameters_of_the_estimator_are_checked(n_jobs):
    X, y = noise(0)
    with pytest.raises(ValueError, match="The 'C' parameter of LogisticRegression must be"):
        layer_sweep(LogisticRegression(C=-1), X, y, n_jobs=n_jobs, **SMALL)


# ---- the result


def test_without_inner_folds_there_is_no_nested_answer(acts):
    sweep = layer_sweep(None, acts, acts.labels, cv=3, inner_cv=None, baselines=False)
    assert (None, None, None) == (sweep.nested_score, sweep.nested_interval, sweep.best_layers)
    assert (None, None, None) == (sweep.permutation_scores, sweep.p_value, sweep.permutation_band)
    assert sweep.summary().startswith(
        "Not nested, so the best accuracy is inflated by its selection: naive best"
    )
    assert "naive best" in repr(sweep)


def test_summary_is_the_honest_answer_in_one_sentence(sweep):
    low, high = sweep.nested_interval
    layer = max(sweep.best_layers, key=sweep.best_layers.count)
    times = sweep.best_layers.count(layer)
    assert sweep.summary().startswith(
        f"Honest accuracy {sweep.nested_score:.2f} [{low:.2f}, {high:.2f}]: layer"
    )
    alike = sum(
        found.p_value > 0.05 for pair, found in sweep.compare_layers().items() if layer in pair
    )
    verb = "is" if alike == 1 else "are"
    told = f" was picked in {times} of 4 folds ({alike} of the 3 other inputs {verb} not shown"
    assert told in sweep.summary()
    assert f"majority {sweep.baselines['majority'].mean:.2f}, TF-IDF" in sweep.summary()
    assert f"permutation p = {sweep.p_value:.3g} (smallest possible 0.167)" in sweep.summary()


def test_summary_names_the_baselines_that_the_score_does_not_beat():
    scores = np.array([[0.3, 0.5], [0.4, 0.2]])
    rivals = {name: Baseline(np.full(2, mean)) for name, mean in [("mean", 0.4), ("TF-IDF", 0.41)]}
    nested = LayerSweep(
        layers=[0, 1],
        scores=scores,
        fit_times=scores,
        scoring="r2",
        n_samples=9,
        n_groups=9,
        best_layers=[1, 0],
        no_interval="there are 9 groups, fewer than 30",
        baselines=rivals,
    )
    assert nested.summary().startswith(
        "Honest R2 0.45 (no interval: there are 9 groups, fewer than 30): "
    )
    assert "not better" not in nested.summary()
    naive = dataclasses.replace(nested, best_layers=None)  # 0.40 against 0.40 and 0.41
    assert naive.summary().endswith("; not better than mean and TF-IDF")


def test_summary_says_which_baseline_is_worse_than_the_majority():
    rng = np.random.default_rng(0)
    rivals = {"majority": 0.5, "TF-IDF": 0.15, "sentence length": 0.47}
    scores = np.tile(0.6 + 0.1 * rng.standard_normal(5), (2, 1))
    found = LayerSweep(
        layers=[0, 1],
        scores=scores,
        fit_times=scores,
        scoring="accuracy",
        n_samples=60,
        n_groups=60,
        best_layers=[1] * 5,
        size_ratio=0.25,
        baselines={
            name: Baseline(mean + 0.1 * rng.standard_normal(5)) for name, mean in rivals.items()
        },
    )
    assert re.search(r"TF-IDF 0\.\d\d \(worse than the majority\), sentence", found.summary())
    assert 1 == found.summary().count("worse than")


def test_the_naive_best_is_named_where_there_was_a_choice(acts, sweep):
    assert f"naive best {sweep.naive_best_score:.2f} at layer" in sweep.summary()
    alone = layer_sweep(None, acts, acts.labels, layers=[0], cv=4)
    assert "naive best" not in alone.summary()


def test_methods_text_says_how_often_the_layer_was_picked(sweep):
    layer = max(sweep.best_layers, key=sweep.best_layers.count)
    told = f"Layer {layer} was picked in {sweep.best_layers.count(layer)} of 4 folds"
    assert told in sweep.methods_text()


def test_methods_text_names_data_folds_model_controls_and_versions(acts, sweep):
    text = sweep.methods_text()
    assert "\n" not in text
    for part in (
        "80 rows in 80 groups",
        f"fingerprint {acts.fingerprint[:16]}",
        "4 stratified folds",
        "LogisticRegression(max_iter=1000,",
        "refitted from scratch",
        "permutation control",
        "by the corrected t over folds and repeats",
        "p-values by Holm's method",
        "Seed 0",
        "scikit-learn 1.",
        f"Python {sys.version.split()[0]}",
    ):
        assert part in text
    assert "control task" not in text


def test_table_has_a_row_for_each_layer_and_fold(sweep):
    table = sweep.table
    assert COLUMNS == list(table.columns)
    np.testing.assert_array_equal(sweep.scores[2], table[table.layer == 1].score)
    assert (table.fit_time > 0).all()


def test_table_without_pandas_is_a_dict_of_columns(sweep, monkeypatch):
    expected = sweep.table.to_dict("list")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert expected == sweep.table


def test_csv_holds_the_table_without_pandas(sweep, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    sweep.to_csv(tmp_path / "new" / "sweep.csv")
    with (tmp_path / "new" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert COLUMNS == list(rows[0])
    assert ["embeddings"] * 4 == [row["layer"] for row in rows[:4]]
    assert sweep.scores.reshape(-1).tolist() == [float(row["score"]) for row in rows]


def test_result_can_be_pickled(sweep):
    assert_same(sweep, pickle.loads(pickle.dumps(sweep)))


@pytest.mark.parametrize("options", [{}, {"inner_cv": None, "baselines": False}])
def test_count_fits_tells_how_many_fits_are_made(options):
    options = {"cv": 4, "inner_cv": 3, "n_permutations": 2, "baselines": False} | options
    log = record_sweep(np.arange(40) % 2, n_layers=3, **options)
    assert len(log) == count_fits(np.zeros((40, 3, 1)), **options)


def test_count_fits_counts_the_baselines(acts):
    assert 4 * (5 + 10) + 3 * 5 == count_fits(acts)
    assert 4 * 5 * 6 + 3 * 5 == count_fits(acts, inner_cv=5)
    assert 10 * (4 * (5 + 10) + 3 * 5) == count_fits(acts, n_repeats=10)
    assert 3 * 5 + 3 * 5 == count_fits(acts, layers=range(3), inner_cv=None)


class Slow(LeastSquares):
    def fit(self, X, y):
        time.sleep(0.1)
        return super().fit(X, y)


@pytest.mark.parametrize("show", [None, True])
def test_progress_bar_is_shown_only_when_asked_for_or_on_a_terminal(capsys, show):
    X, y = noise(0, n_layers=2)
    layer_sweep(Slow(), X, y, cv=4, inner_cv=None, baselines=False, show_progress=show)
    assert bool(show) == ("Fitting" in capsys.readouterr().err)


def test_scores_are_never_written_as_minus_zero():
    assert ["0.50", "0.00", "-0.01"] == [format_score(score) for score in (0.5, -0.001, -0.006)]
