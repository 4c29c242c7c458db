"""An `ActivationSet` as X in scikit-learn: the results are those on plain matrices, without leaks.

The reference never uses this package: numpy picks the columns, and scikit-learn's own scalers
normalize them in float64.
"""

from __future__ import annotations

from itertools import product

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.feature_selection import RFE
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import get_scorer
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    train_test_split,
    validation_curve,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from threadpoolctl import threadpool_limits

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    FeatureTargetExtractor,
    LayerSelector,
    RowSpaceProjector,
)

N_ROWS, D_MODEL, D_EMBED = 60, 8, 5
LAYERS = [4, 0, 9]
CV = StratifiedKFold(3, shuffle=True, random_state=0)


def make_arrays(seed=0):
    """Labels that layer 4 knows well, layer 9 a little and the others not; a shifted column."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(N_ROWS) % 3)
    states = rng.normal(size=(N_ROWS, len(LAYERS), D_MODEL)).astype(np.float32)
    states[:, 0, :2] += 1.2 * labels[:, None]
    states[:, 2, 3] += 0.5 * labels
    states[:, :, 7] += 4
    return {
        "hidden_states": states,
        "embeddings": rng.normal(size=(N_ROWS, D_EMBED)).astype(np.float32),
        "activations": np.maximum(states[:, :, :4] - 0.5, 0),
        "labels": labels,
        "layers": LAYERS,
    }


ARRAYS = make_arrays()
ACTS = ActivationSet.from_arrays(**ARRAYS)
Y = ARRAYS["labels"]
GROUPS = np.arange(N_ROWS) // 3
GROUPED = ActivationSet.from_arrays(**ARRAYS, groups=GROUPS)
SPECS = {"embeddings": None, "0,9": [0, 9], 0: [0], 4: [4], "all": [0, 4, 9]}


def plain_X(spec="all"):
    """The matrix of a layer specification, by numpy."""
    if spec == "embeddings":
        return ARRAYS["embeddings"]
    return np.hstack([ARRAYS["hidden_states"][:, LAYERS.index(layer)] for layer in SPECS[spec]])


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other cost more than these small fits."""
    with threadpool_limits(1):
        yield


def model():
    return LogisticRegression(C=0.1, max_iter=1000)


def pipe_on_set(spec="all", method="standardize", final=None):
    return make_pipeline(
        LayerSelector(spec), ActivationNormalizer(method), model() if final is None else final
    )


def as_float64(X):
    return np.asarray(X, dtype=np.float64)


def as_float32(X):
    return np.asarray(X, dtype=np.float32)


def pipe_on_matrix(method="standardize", final=None):
    """scikit-learn's own scaler in float64, rounded once."""
    scaler = {"standardize": StandardScaler(), "minmax": MinMaxScaler(), "none": "passthrough"}
    return make_pipeline(
        FunctionTransformer(as_float64),
        scaler[method],
        FunctionTransformer(as_float32),
        model() if final is None else final,
    )


# Scores and predictions.


@pytest.mark.parametrize("method", ["standardize", "minmax", "none"])
@pytest.mark.parametrize("spec", SPECS)
def test_cross_val_score_equals_the_plain_matrix(spec, method):
    expected = cross_val_score(pipe_on_matrix(method), plain_X(spec), Y, cv=CV)
    actual = cross_val_score(pipe_on_set(spec, method), ACTS, Y, cv=CV)
    np.testing.assert_array_equal(actual, expected)


def test_the_planted_layer_scores_best():
    """So that the equalities of this file compare numbers that differ between layers."""
    means = {s: cross_val_score(pipe_on_set(s), ACTS, Y, cv=CV).mean() for s in [0, 4, 9]}
    assert means[4] > 0.6 > means[0]


def test_cross_val_predict_of_probabilities_equals_the_plain_matrix():
    expected = cross_val_predict(pipe_on_matrix(), plain_X(), Y, cv=CV, method="predict_proba")
    actual = cross_val_predict(pipe_on_set(), ACTS, Y, cv=CV, method="predict_proba")
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-5)


def test_cross_validate_equals_the_plain_matrix_in_every_metric():
    options = {"cv": CV, "scoring": ["accuracy", "neg_log_loss"], "return_train_score": True}
    expected = cross_validate(pipe_on_matrix(), plain_X(), Y, **options)
    actual = cross_validate(pipe_on_set(), ACTS, Y, **options, return_indices=True)
    for name in "test_accuracy", "train_accuracy":
        np.testing.assert_array_equal(actual[name], expected[name])
    for name in "test_neg_log_loss", "train_neg_log_loss":
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-4)
    for (_, test), indices in zip(CV.split(ACTS, Y), actual["indices"]["test"], strict=True):
        np.testing.assert_array_equal(test, indices)


def test_regression_on_a_feature_target_equals_the_plain_matrix():
    y = FeatureTargetExtractor(9, 3).fit_transform(ACTS)
    np.testing.assert_array_equal(ARRAYS["activations"][:, 2, 3], y)
    cv = KFold(4)
    expected = cross_val_score(pipe_on_matrix(final=Ridge()), plain_X("all"), y, cv=cv)
    actual = cross_val_score(pipe_on_set(final=Ridge()), ACTS, y, cv=cv)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cv", [GroupKFold(4), StratifiedGroupKFold(3)])
def test_splitters_with_groups_equal_the_plain_matrix_and_keep_groups_whole(cv):
    options = {"groups": GROUPS, "cv": cv}
    np.testing.assert_array_equal(GROUPED.groups, GROUPS)
    expected = cross_val_score(pipe_on_matrix(), plain_X(), Y, **options)
    actual = cross_val_score(pipe_on_set(), GROUPED, Y, **options)
    np.testing.assert_array_equal(actual, expected)
    for train, test in cv.split(GROUPED, GROUPED.labels, GROUPED.groups):
        assert not set(GROUPED[train].groups) & set(GROUPED[test].groups)


def test_train_test_split_gives_sets_of_the_rows_that_a_matrix_would_have():
    options = {"test_size": 0.25, "stratify": Y, "random_state": 3}
    expected = train_test_split(plain_X(), Y, **options)
    train, test, y_train, y_test = train_test_split(ACTS, Y, **options)
    assert isinstance(train, ActivationSet)
    for acts, y, X in (train, y_train, expected[0]), (test, y_test, expected[1]):
        np.testing.assert_array_equal(X, LayerSelector().fit_transform(acts))
        np.testing.assert_array_equal(y, acts.labels)
    score = pipe_on_set().fit(train, y_train).score(test, y_test)
    assert pipe_on_matrix().fit(expected[0], y_train).score(expected[1], y_test) == score


def test_learning_curve_equals_the_plain_matrix():
    options = {"cv": CV, "train_sizes": [0.5, 1.0], "shuffle": True, "random_state": 0}
    expected = learning_curve(pipe_on_matrix(), plain_X(), Y, **options)
    actual = learning_curve(pipe_on_set(), ACTS, Y, **options)
    for plain, of_set in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(of_set, plain)


def test_validation_curve_over_layers_equals_one_plain_matrix_each():
    train_scores, test_scores = validation_curve(
        pipe_on_set(), ACTS, Y, param_name="layerselector__layers", param_range=[4, "all"], cv=CV
    )
    for i, spec in enumerate([4, "all"]):
        expected = cross_validate(
            pipe_on_matrix(), plain_X(spec), Y, cv=CV, return_train_score=True
        )
        np.testing.assert_array_equal(train_scores[i], expected["train_score"])
        np.testing.assert_array_equal(test_scores[i], expected["test_score"])


def test_permutation_test_score_equals_the_plain_matrix():
    options = {"cv": CV, "n_permutations": 5, "random_state": 0}
    expected = permutation_test_score(pipe_on_matrix(), plain_X(4), Y, **options)
    actual = permutation_test_score(pipe_on_set(4), ACTS, Y, **options)
    for plain, of_set in zip(expected, actual, strict=True):
        np.testing.assert_array_equal(of_set, plain)


# Searches.

GRID = {
    "layerselector__layers": ["embeddings", "0,9", 4, [0, 4, 9]],
    "activationnormalizer__method": ["standardize", "minmax", "none"],
}


def independent_mean_score(layers, method):
    """Mean accuracy by a loop over the splits, on a plain matrix."""
    X = plain_X("all" if isinstance(layers, list) else layers)
    scores = []
    for train, test in CV.split(X, Y):
        fitted = clone(pipe_on_matrix(method)).fit(X[train], Y[train])
        scores.append(np.mean(fitted.predict(X[test]) == Y[test]))
    return np.mean(scores)


def test_grid_search_over_layers_and_methods_equals_an_independent_loop():
    search = GridSearchCV(pipe_on_set(), GRID, cv=CV).fit(ACTS, Y)
    results = search.cv_results_
    # ParameterGrid sorts the names: methods vary slowest.
    grid = [(layers, method) for method, layers in product(*map(GRID.get, sorted(GRID)))]
    expected = [independent_mean_score(layers, method) for layers, method in grid]
    assert [{"layerselector__layers": a, "activationnormalizer__method": b} for a, b in grid] == (
        results["params"]
    )
    np.testing.assert_allclose(results["mean_test_score"], expected, rtol=1e-12)
    assert len(set(expected)) > 3
    best = grid[int(np.argmax(expected))]
    assert search.best_params_ == dict(
        zip(["layerselector__layers", "activationnormalizer__method"], best, strict=True)
    )
    plain = plain_X("all" if isinstance(best[0], list) else best[0])
    refitted = pipe_on_matrix(best[1]).fit(plain, Y)
    np.testing.assert_array_equal(search.predict(ACTS), refitted.predict(plain))


def test_randomized_search_over_layers_and_methods_equals_an_independent_loop():
    random = RandomizedSearchCV(pipe_on_set(), GRID, n_iter=3, cv=CV, random_state=0).fit(ACTS, Y)
    for params, score in zip(
        random.cv_results_["params"], random.cv_results_["mean_test_score"], strict=True
    ):
        expected = independent_mean_score(
            params["layerselector__layers"], params["activationnormalizer__method"]
        )
        assert score == pytest.approx(expected, rel=1e-12)


def test_halving_grid_search_equals_the_same_search_over_a_plain_matrix():
    options = {"cv": CV, "min_resources": 30, "random_state": 0}
    methods = ["standardize", "minmax", "none"]
    search = HalvingGridSearchCV(
        pipe_on_set(4), {"activationnormalizer__method": methods}, **options
    ).fit(ACTS, Y)
    scalers = [StandardScaler(), MinMaxScaler(), "passthrough"]
    pipe = Pipeline([(f"step {i}", step) for i, (_, step) in enumerate(pipe_on_matrix().steps)])
    expected = HalvingGridSearchCV(pipe, {"step 1": scalers}, **options).fit(plain_X(4), Y)
    assert expected.n_resources_ == search.n_resources_
    for name in "iter", "n_resources", "mean_test_score":
        np.testing.assert_allclose(search.cv_results_[name], expected.cv_results_[name])


# Ensembles.


def test_calibrated_classifier_equals_the_plain_matrix():
    expected = CalibratedClassifierCV(pipe_on_matrix(), cv=CV).fit(plain_X(), Y)
    actual = CalibratedClassifierCV(pipe_on_set(), cv=CV).fit(ACTS, Y)
    np.testing.assert_allclose(
        actual.predict_proba(ACTS), expected.predict_proba(plain_X()), rtol=1e-3, atol=1e-5
    )


def test_stacking_of_layers_equals_out_of_fold_predictions_stacked_by_hand():
    specs = [0, 4, "embeddings"]
    stack = StackingClassifier(
        [(str(spec), pipe_on_set(spec)) for spec in specs], model(), cv=CV
    ).fit(ACTS, Y)
    parts, refitted = [], []
    for spec in specs:
        X = plain_X(spec)
        parts.append(cross_val_predict(pipe_on_matrix(), X, Y, cv=CV, method="predict_proba"))
        refitted.append(pipe_on_matrix().fit(X, Y).predict_proba(X))
    final = model().fit(np.hstack(parts), Y)
    np.testing.assert_allclose(
        stack.predict_proba(ACTS), final.predict_proba(np.hstack(refitted)), rtol=1e-3, atol=1e-4
    )


WANT_A_MATRIX = [
    lambda estimator: BaggingClassifier(estimator, n_estimators=3, random_state=0),
    lambda estimator: AdaBoostClassifier(estimator, n_estimators=3, random_state=0),
    lambda estimator: OneVsOneClassifier(estimator),
    lambda estimator: RFE(estimator, n_features_to_select=3),
    lambda estimator: StackingClassifier([("only", estimator)], cv=CV, passthrough=True),
]


@pytest.mark.parametrize("wrap", WANT_A_MATRIX)
def test_what_wants_a_matrix_goes_behind_the_selector(wrap):
    wrapper = wrap(model())
    scores = cross_val_score(pipe_on_set(4, final=wrapper), ACTS, Y, cv=CV)
    expected = cross_val_score(pipe_on_matrix(final=wrapper), plain_X(4), Y, cv=CV)
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("wrap", [*WANT_A_MATRIX, lambda pipe: ClassifierChain(pipe)])
def test_what_wants_a_matrix_says_so_around_the_pipeline(wrap):
    wrapper = wrap(pipe_on_set(4))
    y = np.stack([Y, Y], axis=1) if isinstance(wrapper, ClassifierChain) else Y
    with pytest.raises(TypeError, match=r"go after the selector") as error:
        wrapper.fit(ACTS, y)
    name = type(wrapper).__name__
    assert ("stacking with passthrough" if name == "StackingClassifier" else name) in str(
        error.value
    )


def test_permutation_importance_takes_the_steps_behind_the_selector():
    pipe = pipe_on_set(4).fit(ACTS, Y)
    with pytest.raises(TypeError, match=r"takes pipe\[1:\] and pipe\[:1\]\.transform\(acts\)"):
        permutation_importance(pipe, ACTS, Y)

    options = {"n_repeats": 2, "random_state": 0}
    found = permutation_importance(pipe[1:], pipe[:1].transform(ACTS), Y, **options)
    matrix = pipe_on_matrix().fit(plain_X(4), Y)
    expected = permutation_importance(matrix, plain_X(4), Y, **options)
    np.testing.assert_array_equal(expected.importances, found.importances)


@pytest.mark.parametrize(
    ("wrap", "y"),
    [
        (lambda pipe: OneVsRestClassifier(pipe), Y),
        (lambda pipe: VotingClassifier([("only", pipe)]), Y),
        (lambda pipe: FixedThresholdClassifier(pipe), Y > 0),
        (lambda pipe: MultiOutputClassifier(pipe), np.stack([Y, Y], axis=1)),
    ],
)
def test_what_hands_rows_on_goes_around_the_pipeline(wrap, y):
    found = wrap(pipe_on_set(4)).fit(ACTS, y)
    expected = wrap(pipe_on_matrix()).fit(plain_X(4), y)
    np.testing.assert_array_equal(expected.predict(plain_X(4)), found.predict(ACTS))


# Workers, memory, routing, display.


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_two_jobs_give_the_results_of_one(backend):
    grid = {"layerselector__layers": ["embeddings", 4]}
    expected = GridSearchCV(pipe_on_set(), grid, cv=CV).fit(ACTS, Y).cv_results_
    with joblib.parallel_config(backend=backend):
        actual = GridSearchCV(pipe_on_set(), grid, cv=CV, n_jobs=2).fit(ACTS, Y).cv_results_
    np.testing.assert_array_equal(expected["mean_test_score"], actual["mean_test_score"])
    assert expected["params"] == actual["params"]


def test_pipeline_memory_gives_the_same_scores_and_never_serves_other_data(tmp_path):
    cached = make_pipeline(
        LayerSelector(4), ActivationNormalizer(), model(), memory=joblib.Memory(tmp_path, verbose=0)
    )
    expected = cross_val_score(pipe_on_set(4), ACTS, Y, cv=CV)
    for _ in range(2):
        np.testing.assert_array_equal(expected, cross_val_score(cached, ACTS, Y, cv=CV))
    assert any(tmp_path.rglob("output.pkl"))
    other_data = ActivationSet.from_arrays(**make_arrays(1))
    cached.fit(ACTS, Y)
    for acts in other_data, ACTS[::-1], ACTS[:30]:
        fresh = pipe_on_set(4).fit(acts, acts.labels)
        np.testing.assert_array_equal(
            fresh.predict_proba(ACTS), cached.fit(acts, acts.labels).predict_proba(ACTS)
        )


def test_pipeline_memory_serves_the_second_fit_from_the_cache(tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    cached = make_pipeline(LayerSelector(4), ActivationNormalizer(), model(), memory=memory)
    cached.fit(ACTS, Y)
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("output.pkl")}
    cached.fit(ACTS, Y)
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("output.pkl")}
    assert stored == again
    assert len(stored) == 2


def test_metadata_routing_routes_groups_and_weights():
    weights = np.linspace(0.1, 2, N_ROWS)
    plain = [
        pipe_on_matrix()
        .fit(plain_X(4)[train], Y[train], logisticregression__sample_weight=weights[train])
        .score(plain_X(4)[test], Y[test])
        for train, test in StratifiedGroupKFold(3).split(plain_X(4), Y, GROUPS)
    ]
    with sklearn.config_context(enable_metadata_routing=True):
        weighted = model().set_fit_request(sample_weight=True)
        unweighted = get_scorer("accuracy").set_score_request(sample_weight=False)
        scores = cross_val_score(
            pipe_on_set(4, final=weighted),
            GROUPED,
            Y,
            cv=StratifiedGroupKFold(3),
            scoring=unweighted,
            params={"groups": GROUPED.groups, "sample_weight": weights},
        )
        search = GridSearchCV(
            pipe_on_set(final=weighted),
            {"layerselector__layers": ["all", 4]},
            cv=StratifiedGroupKFold(3),
            scoring=unweighted,
        ).fit(GROUPED, Y, groups=GROUPED.groups, sample_weight=weights)
    np.testing.assert_array_equal(scores, plain)
    np.testing.assert_allclose(search.cv_results_["mean_test_score"][1], np.mean(plain))


def test_clone_of_a_fitted_pipeline_is_unfitted_with_the_same_parameters():
    pipe = pipe_on_set([0, 4], "minmax").fit(ACTS, Y)
    copy = clone(pipe)
    assert copy.get_params()["layerselector__layers"] == [0, 4]
    assert copy.get_params()["activationnormalizer__method"] == "minmax"
    for step in copy[:2]:
        assert not [name for name in vars(step) if name.endswith("_") and name[0] != "_"]


@pytest.mark.parametrize("fitted", [False, True])
def test_html_repr_shows_the_steps(fitted):
    pipe = pipe_on_set("0,9")
    html = (pipe.fit(ACTS, Y) if fitted else pipe)._repr_html_()
    for text in "LayerSelector", "ActivationNormalizer", "LogisticRegression", "0,9":
        assert text in html


def test_repr_shows_the_parameters_that_were_changed():
    assert repr(LayerSelector("0-5")) == "LayerSelector(layers='0-5')"
    assert repr(ActivationNormalizer()) == "ActivationNormalizer()"


def test_pandas_output_names_columns_through_the_whole_pipeline():
    pipe = pipe_on_set("0,9").set_output(transform="pandas").fit(ACTS, Y)
    names = [f"L{layer}_h{i:04d}" for layer in (0, 9) for i in range(D_MODEL)]
    frame = pipe[:-1].transform(ACTS)
    assert isinstance(frame, pd.DataFrame)
    assert names == list(frame.columns)
    assert names == pipe[-1].feature_names_in_.tolist()
    expected = pipe_on_set("0,9").fit(ACTS, Y)
    np.testing.assert_array_equal(expected[:-1].transform(ACTS), frame.to_numpy())
    np.testing.assert_array_equal(expected.predict(ACTS), pipe.predict(ACTS))


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_go_through_selector_normalizer_and_pca(kind):
    steps = LayerSelector("0,9"), ActivationNormalizer(), PCA(3)
    pipe = make_pipeline(*steps).set_output(transform=kind)
    frame = pipe.fit_transform(ACTS)

    assert kind == type(frame).__module__.split(".")[0]
    assert ["pca0", "pca1", "pca2"] == list(frame.columns) == pipe.get_feature_names_out().tolist()
    names = [f"L{layer}_h{i:04d}" for layer in (0, 9) for i in range(D_MODEL)]
    assert names == pipe[1].feature_names_in_.tolist() == pipe[2].feature_names_in_.tolist()
    plain = make_pipeline(*steps).set_output(transform="default").fit_transform(ACTS)
    np.testing.assert_allclose(plain, frame.to_numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_search_over_layers_scores_alike_with_frames_between_all_steps(kind):
    steps = LayerSelector(), ActivationNormalizer(), RowSpaceProjector(), Ridge()
    grid = {"layerselector__layers": ["embeddings", 4, "0,9"]}
    y = FeatureTargetExtractor(9, 3).fit_transform(ACTS)
    plain = GridSearchCV(make_pipeline(*steps), grid, cv=KFold(3)).fit(ACTS, y)
    framed = make_pipeline(*map(clone, steps)).set_output(transform=kind)
    search = GridSearchCV(framed, grid, cv=KFold(3)).fit(ACTS, y)

    for results in (search.cv_results_, plain.cv_results_):
        assert np.isfinite(results["mean_test_score"]).all()
    np.testing.assert_allclose(
        search.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"], rtol=1e-4
    )
    assert kind == type(search.best_estimator_[:-1].transform(ACTS)).__module__.split(".")[0]


def test_pandas_output_does_not_change_scores():
    pipe = pipe_on_set("0,9").set_output(transform="pandas")
    expected = cross_val_score(pipe_on_set("0,9"), ACTS, Y, cv=CV)
    np.testing.assert_array_equal(expected, cross_val_score(pipe, ACTS, Y, cv=CV))


def test_a_set_that_is_a_view_scores_as_its_rows_do():
    rows = np.flatnonzero(Y != 2)
    cv = StratifiedKFold(3)
    expected = cross_val_score(pipe_on_matrix(), plain_X(4)[rows], Y[rows], cv=cv)
    for view in ACTS[rows], ACTS[Y != 2]:
        actual = cross_val_score(pipe_on_set(4), view, view.labels, cv=cv)
        np.testing.assert_array_equal(actual, expected)


# No leakage, by construction.


@pytest.mark.parametrize("method", ["standardize", "minmax"])
def test_the_normalizer_is_fitted_on_the_training_rows_of_every_fold(method):
    result = cross_validate(
        pipe_on_set("0,9", method), ACTS, Y, cv=CV, return_estimator=True, return_indices=True
    )
    for pipe, train in zip(result["estimator"], result["indices"]["train"], strict=True):
        params = pipe.named_steps["activationnormalizer"].norm_params_
        rows = plain_X("0,9")[train].astype(np.float64)
        expected = (
            {"norm_mean": rows.mean(axis=0), "norm_std": rows.std(axis=0)}
            if method == "standardize"
            else {"norm_min": rows.min(axis=0), "norm_max": rows.max(axis=0)}
        )
        for name, values in expected.items():
            np.testing.assert_allclose(params[name], values, rtol=1e-10, atol=1e-12)


def fitted_numbers(pipe):
    """Everything that was learned, as bytes."""
    params = pipe.named_steps["activationnormalizer"].norm_params_
    learned = [value for name, value in sorted(params.items()) if name != "norm_method"]
    learned += [pipe[-1].coef_, pipe[-1].intercept_]
    return b"".join(value.tobytes() for value in learned)


@pytest.mark.parametrize("method", ["standardize", "minmax", "none"])
def test_values_of_test_rows_never_change_what_is_fitted(method):
    expected = cross_validate(
        pipe_on_set("all", method), ACTS, Y, cv=CV, return_estimator=True, return_indices=True
    )
    for fold, (train, test) in enumerate(CV.split(ACTS, Y)):
        arrays = make_arrays()
        arrays["hidden_states"][test] = arrays["hidden_states"][test] * -50 + 1e4
        changed = ActivationSet.from_arrays(**arrays)
        actual = cross_validate(
            pipe_on_set("all", method), changed, Y, cv=[(train, test)], return_estimator=True
        )
        fitted, refitted = expected["estimator"][fold], actual["estimator"][0]
        assert fitted_numbers(fitted) == fitted_numbers(refitted)
        assert not np.array_equal(fitted.predict_proba(ACTS), refitted.predict_proba(changed))


def test_values_of_training_rows_do_change_what_is_fitted():
    """The control of the test above: it would notice a difference."""
    train, test = next(CV.split(ACTS, Y))
    arrays = make_arrays()
    arrays["hidden_states"][train[0]] += 1
    changed = ActivationSet.from_arrays(**arrays)
    first, second = (
        cross_validate(pipe_on_set(), acts, Y, cv=[(train, test)], return_estimator=True)
        for acts in (ACTS, changed)
    )
    assert fitted_numbers(first["estimator"][0]) != fitted_numbers(second["estimator"][0])


def test_scikit_learn_functions_leave_the_set_as_it_was():
    acts = ActivationSet.from_arrays(**make_arrays())
    before = acts.fingerprint
    GridSearchCV(pipe_on_set(), {"layerselector__layers": [0, 4]}, cv=CV).fit(acts, Y)
    assert before == acts.fingerprint
