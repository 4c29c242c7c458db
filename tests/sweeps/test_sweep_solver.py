"""Sweeps that the solver fits: against scikit-learn, one model at a time."""

import numpy as np
import pytest
from joblib import parallel_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedGroupKFold,
    StratifiedKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from sklprep import ActivationNormalizer, RowSpaceProjector, layer_sweep, make_activations
from sklprep.exceptions import UsageError
from sklprep.sweeps.folds import draw_folds
from sklprep.sweeps.permutations import find_exact_permuter
from sklprep.sweeps.solver import Split, fit_logistic
from sklprep.sweeps.sweep import count_fits

ALONE = {"baselines": False, "cv": 4, "inner_cv": 3, "n_repeats": 1}
GRID = {"logisticregression__C": [1e-3, 1e-1, 10.0]}
TIGHT = make_pipeline(
    StandardScaler(), LogisticRegression(tol=1e-9, solver="newton-cg", max_iter=1_000)
)


@pytest.fixture(scope="module")
def data():
    """Rows in float64, so that scikit-learn computes as precisely."""
    acts = make_activations(
        90, n_layers=2, d_model=12, n_features=8, label_noise=0.4, random_state=0
    )
    return acts.hidden_states.astype(np.float64), acts.labels


def stratified(n_folds, y):
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=0)
    return list(splitter.split(np.zeros(len(y)), y, np.arange(len(y))))


@pytest.mark.parametrize(
    ("model", "scoring"),
    [
        (TIGHT, "accuracy"),
        (clone(TIGHT).set_params(logisticregression__class_weight="balanced"), "neg_log_loss"),
        (make_pipeline(MinMaxScaler(), RidgeClassifier(alpha=3.0)), "balanced_accuracy"),
        (make_pipeline(StandardScaler(), RowSpaceProjector(), RidgeClassifier()), "f1_macro"),
        (make_pipeline("passthrough", Ridge(alpha=0.1)), "r2"),
        (make_pipeline(ActivationNormalizer("maxabs"), Ridge()), "neg_mean_squared_error"),
    ],
)
def test_known_estimators_score_as_scikit_learn_scores_them(data, model, scoring):
    X, y = data
    y = y if "accuracy" in scoring or scoring in ("neg_log_loss", "f1_macro") else y.astype(float)
    nested = scoring in ("accuracy", "r2")  # the interval of others takes seconds
    options = {"scoring": scoring, "n_permutations": 3, "inner_cv": 3 if nested else None}
    options = ALONE | options
    solved = layer_sweep(model, X, y, **options)
    fitted = layer_sweep(model, X, y, solver="scikit-learn", **options)

    assert ("sklprep", "scikit-learn") == (solved.solver, fitted.solver)
    np.testing.assert_allclose(fitted.scores, solved.scores, atol=1e-7)
    np.testing.assert_allclose(fitted.permutation_scores, solved.permutation_scores, atol=1e-7)
    if nested:
        np.testing.assert_allclose(fitted.nested_interval, solved.nested_interval, atol=1e-7)
    assert fitted.best_layers == solved.best_layers


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(with_std=False), LogisticRegression()),
        make_pipeline(StandardScaler(), MinMaxScaler(), LogisticRegression()),
        make_pipeline(RowSpaceProjector(residual=True), Ridge()),
        LogisticRegression(solver="liblinear", C=0.1),
        LogisticRegression(l1_ratio=1, solver="saga", max_iter=10_000),
    ],
    ids=lambda model: " ".join(repr(model).split()),
)
def test_other_estimators_are_fitted_by_scikit_learn(data, model):
    X, y = data
    y = y > 1 if "Logistic" in repr(model) else y.astype(float)
    assert "scikit-learn" == layer_sweep(model, X[:, :1, :4], y, **ALONE).solver


def test_a_scorer_that_looks_at_X_is_asked_with_scikit_learns_models(data):
    X, y = data

    def scorer(model, X, y):
        assert X.shape[1] == model[0].n_features_in_
        return model.score(X, y)

    options = ALONE | {"inner_cv": None}
    assert "scikit-learn" == layer_sweep(TIGHT, X, y, scoring=scorer, **options).solver


def test_methods_text_says_what_fitted_and_what_competed(data):
    X, y = data
    text = layer_sweep(None, X, y, param_grid=GRID, n_permutations=1, **ALONE).methods_text()
    assert "reaches scikit-learn's optimum" in text
    assert "best of the parameters [{'logisticregression__C': 0.001}" in text
    text = layer_sweep(None, X, y, solver="scikit-learn", n_permutations=1, **ALONE).methods_text()
    assert "within the test folds, which stay as they are" in text
    assert "by scikit-learn." in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "liblinear"}, "solver must be one of auto, scikit-learn"),
        (
            {"param_grid": {"C": [1]}},
            "names 'C', which is not .* Did you mean 'logisticregression__C'",
        ),
        ({"param_grid": {"logisticregression__C": 1}}, "not what GridSearchCV takes"),
        ({"param_grid": GRID, "inner_cv": None}, "3 candidates, which the inner folds choose"),
        ({"inner_cv": "outer", "cv": 3}, "at least 4 outer folds, got 3"),
        ({"inner_cv": "outer", "cv": ShuffleSplit(5)}, "test each row once"),
        ({"device": "cpu", "solver": "scikit-learn"}, "torch|scikit-learn fits 0"),
        ({"device": "nowhere"}, "torch"),
    ],
)
def test_what_does_not_fit_together_is_refused(data, options, message):
    with pytest.raises(UsageError, match=message):
        layer_sweep(None, *data, **ALONE | options)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_equal_inputs_give_equal_results_for_any_number_of_jobs(data, backend, jobs):
    options = ALONE | {"n_permutations": 8, "param_grid": GRID, "inner_cv": "outer"}
    expected = layer_sweep(None, *data, **options)
    with parallel_config(backend, n_jobs=jobs):
        found = layer_sweep(None, *data, **options)
    np.testing.assert_array_equal(expected.scores, found.scores)
    np.testing.assert_array_equal(expected.permutation_scores, found.permutation_scores)
    assert expected.chosen == found.chosen


# ---- a grid


@pytest.mark.parametrize("solver", ["auto", "scikit-learn"])
def test_inner_folds_choose_layer_and_parameters_as_a_grid_search_by_hand(data, solver):
    X, y = data
    sweep = layer_sweep(TIGHT, X, y, param_grid=GRID, solver=solver, **ALONE)
    for k, (train, test) in enumerate(stratified(4, y)):
        searches = []
        for layer in range(2):
            search = GridSearchCV(TIGHT, GRID, cv=stratified(3, y[train]))
            searches.append(search.fit(X[train, layer], y[train]))
            assert searches[-1].score(X[test, layer], y[test]) == pytest.approx(
                sweep.scores[layer, k]
            )
        best = int(np.argmax([search.best_score_ for search in searches]))
        assert {"layer": best, **searches[best].best_params_} == sweep.chosen[k]
        assert best == sweep.best_layers[k]


def test_permutations_repeat_the_choice_of_parameters(data):
    X, y = data
    options = {**ALONE, "param_grid": GRID, "inner_cv": "outer"}
    sweep = layer_sweep(TIGHT, X[:, :1], y, n_permutations=2, **options)
    folds = stratified(4, y)
    permuter = find_exact_permuter(4, y, np.arange(90), folds)
    rng = np.random.default_rng([0, 0])
    for expected in sweep.permutation_scores[:, 0]:
        permuted = permuter.draw(rng)
        fixed = (X[:, :1], permuted)
        again = layer_sweep(TIGHT, *fixed, **options | {"cv": folds})
        assert again.mean_scores[0] == pytest.approx(expected)


def test_without_a_grid_the_chosen_are_layers(data):
    sweep = layer_sweep(None, *data, **ALONE)
    assert [{"layer": layer} for layer in sweep.best_layers] == sweep.chosen


# ---- inner folds that are the other outer folds


@pytest.mark.parametrize("solver", ["auto", "scikit-learn"])
def test_other_outer_folds_choose_the_layer_as_a_loop_by_hand(data, solver):
    X, y = data
    sweep = layer_sweep(TIGHT, X, y, solver=solver, **ALONE | {"inner_cv": "outer"})
    folds = stratified(4, y)
    for k, (train, _) in enumerate(folds):
        inner = [(np.setdiff1d(train, test), test) for j, (_, test) in enumerate(folds) if j != k]
        means = [cross_val_score(TIGHT, X[:, layer], y, cv=inner).mean() for layer in range(2)]
        assert sweep.best_layers[k] == int(np.argmax(means))


def test_shared_inner_folds_are_counted_once(data):
    assert 2 * (5 + 10) == count_fits(data[0], inner_cv="outer", baselines=False)
    options = {"inner_cv": "outer", "param_grid": GRID, "n_permutations": 4}
    assert 2 * 3 * 5 * 15 == count_fits(data[0], baselines=False, **options)


# ---- labels permuted within test folds


def draw(cv, y, groups):
    """Folds of the sweep, from the same splitter."""
    return draw_folds(cv, y, groups, classify=y.dtype.kind != "f", seed=0)


SINGLE = np.arange(60)
SIZED = np.repeat(np.arange(20), np.r_[np.full(10, 2), np.full(10, 4)])


@pytest.mark.parametrize(
    ("cv", "y", "groups"),
    [
        (5, SINGLE % 3, SINGLE),
        (5, SINGLE / 7, SINGLE),
        (KFold(5), SINGLE % 3, SINGLE),
        (StratifiedKFold(5, shuffle=True, random_state=0), SINGLE % 2, SINGLE),
        (StratifiedGroupKFold(3, shuffle=True, random_state=0), SIZED % 2, SIZED),
        (StratifiedGroupKFold(3, shuffle=True, random_state=0), SINGLE % 3 % 2, SIZED),
        (GroupKFold(3), SIZED % 2, SIZED),
    ],
)
def test_labels_move_within_folds_in_units_that_the_folds_treat_alike(cv, y, groups):
    folds = draw(cv, y, groups)
    permuter = find_exact_permuter(cv, y, groups, folds)
    rng = np.random.default_rng(0)
    drawn = [permuter.draw(rng) for _ in range(20)]

    assert any(not np.array_equal(y, one) for one in drawn)
    for permuted in drawn:
        for _, test in folds:
            assert sorted(_blocks(y, groups, test)) == sorted(_blocks(permuted, groups, test))


def _blocks(y, groups, rows):
    """Of each group its labels in order; where all groups have one label, of each row."""
    if all(len(np.unique(y[groups == group])) == 1 for group in np.unique(groups)):
        return [(y[rows][groups[rows] == group][0],) for group in np.unique(groups[rows])]
    return [tuple(y[rows][groups[rows] == group]) for group in np.unique(groups[rows])]


@pytest.mark.parametrize(
    ("cv", "y", "groups"),
    [
        (StratifiedKFold(5, shuffle=True), SINGLE % 3, SINGLE),
        (StratifiedKFold(5), SINGLE % 2, SINGLE),
        (StratifiedGroupKFold(5), SINGLE % 2, SINGLE),
        (ShuffleSplit(5), SINGLE % 2, SINGLE),
        (KFold(60), SINGLE % 2, SINGLE),
        (3, np.repeat(np.arange(10), np.arange(1, 11)) % 2, np.repeat(SINGLE[:10], SINGLE[1:11])),
    ],
)
def test_where_moves_within_folds_are_not_exact_or_too_few_there_are_none(cv, y, groups):
    folds = draw(cv, y, groups)
    assert find_exact_permuter(cv, y, groups, folds) is None


def test_p_values_within_folds_are_no_smaller_than_they_say():
    """Of 60 noise data sets 9 or more at 0.05 have probability 0.003."""
    rng = np.random.default_rng(0)
    options = {"inner_cv": None, "baselines": False, "n_permutations": 19, "n_repeats": 1}
    p_values = []
    for seed in range(60):
        X, y = rng.standard_normal((30, 1, 3)), rng.permutation(np.arange(30) % 3)
        p_values.append(layer_sweep(RidgeClassifier(), X, y, random_state=seed, **options).p_value)
    assert sum(p <= 0.05 for p in p_values) < 9


def test_torch_computes_the_same_on_the_device_that_is_named(data):
    pytest.importorskip("torch", reason="torch is not installed: pip install 'sklprep[gpu]'")
    options = ALONE | {"n_permutations": 5, "param_grid": GRID, "inner_cv": "outer"}
    here, there = (layer_sweep(TIGHT, *data, device=name, **options) for name in (None, "cpu"))
    np.testing.assert_allclose(here.scores, there.scores)
    np.testing.assert_allclose(here.permutation_scores, there.permutation_scores)
    assert here.chosen == there.chosen


@pytest.mark.filterwarnings("ignore:.* rows repeat another one")
@pytest.mark.parametrize("scale", [1, 3_000])
@pytest.mark.parametrize("n_distinct", [10, 195])
def test_rows_that_repeat_are_scored_as_scikit_learn_scores_them(scale, n_distinct):
    """Final tokens repeat: most sentences end with a full stop."""
    rng = np.random.default_rng(1)
    distinct = rng.standard_normal((n_distinct, 384))
    distinct[:, :3] = scale + scale / 15 * distinct[:, :3]
    X = distinct[np.arange(200) % n_distinct][:, np.newaxis]
    y = np.arange(200) % 4
    options = ALONE | {"n_permutations": 8}
    solved = layer_sweep(TIGHT, X, y, **options)
    fitted = layer_sweep(TIGHT, X, y, solver="scikit-learn", **options)

    np.testing.assert_allclose(fitted.scores, solved.scores)
    np.testing.assert_allclose(fitted.permutation_scores, solved.permutation_scores)


def test_rows_that_repeat_converge_for_every_labeling():
    rng = np.random.default_rng(1)
    distinct = rng.standard_normal((10, 384))
    distinct[:, :3] = 3_000 + 200 * distinct[:, :3]
    X = distinct[rng.choice(10, 200, p=rng.dirichlet(np.full(10, 0.3)))].astype(np.float32)
    labelings = np.stack([rng.permutation(np.arange(200) % 4) for _ in range(300)])
    train, test = np.arange(160), np.arange(160, 200)
    (fits,) = fit_logistic(Split(X, train, test), labelings, tol=1e-8, keep_coef=True)
    assert all(fit.converged_ for fit in fits)
    scaler = StandardScaler().fit(X[train].astype(float))
    rows = scaler.transform(X[train].astype(float))
    for fit, labels in zip(fits[:5], labelings, strict=False):
        model = LogisticRegression(solver="newton-cg", tol=1e-9, max_iter=1_000)
        model.fit(rows, labels[train])
        np.testing.assert_allclose(fit.coef_, model.coef_, atol=1e-6)
        np.testing.assert_allclose(fit.intercept_, model.intercept_, atol=1e-6)
