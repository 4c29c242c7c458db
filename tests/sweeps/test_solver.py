"""The solver of L2-penalised linear models, against converged scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import get_scorer, r2_score
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, StandardScaler

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.solver import (
    Split,
    fit_logistic,
    fit_logistic_each,
    fit_ridge,
    fit_ridge_classifier,
    recognise,
    recognise_scaler,
)
from sklprep.sweeps.solver import logistic as logistic_module
from sklprep.sweeps.solver.scaling import measure

TIGHT = 1e-8
SCALERS = {"standardize": StandardScaler, "minmax": MinMaxScaler, "maxabs": MaxAbsScaler}


def make_rows(n=60, d=100, *, classes=3, strength=1.0, seed=0):
    """Correlated columns, labels that follow a few of their directions."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 10)) * np.linspace(2, 0.3, 10)
    X = latent @ rng.normal(size=(10, d)) + 0.5 * rng.normal(size=(n, d)) + rng.normal(size=d)
    score = strength * latent[:, 1] + rng.normal(size=n)
    y = np.searchsorted(np.quantile(score, np.arange(1, classes) / classes), score)
    return X, y


def halves(n, share=0.75, seed=1):
    order = np.random.default_rng(seed).permutation(n)
    cut = int(n * share)
    return np.sort(order[:cut]), np.sort(order[cut:])


def scaled(X, train, test, method):
    X = np.asarray(X, dtype=np.float64)
    if method == "none":
        return X[train], X[test]
    scaler = SCALERS[method]().fit(X[train])
    return scaler.transform(X[train]), scaler.transform(X[test])


def optimum(X, y, train, test, method="standardize", sample_weight=None, **parameters):
    """Converged scikit-learn: lbfgs comes close to the optimum, newton-cg finishes."""
    parameters = {"tol": 1e-10, "max_iter": 20_000, "solver": "newton-cg"} | parameters
    fit, answer = scaled(X, train, test, method)
    weights = None if sample_weight is None else sample_weight[train]
    model = LogisticRegression(**parameters).fit(fit, y[train], sample_weight=weights)
    return model, model.decision_function(answer)


def assert_close(decisions, expected, tolerance=1e-6):
    assert decisions.shape == expected.shape
    assert np.abs(decisions - expected).max() <= tolerance * max(np.abs(expected).max(), 1)


def compare(X, y, method="standardize", tolerance=1e-6, share=0.75, **parameters):
    """Fit both, and compare decisions on the test rows and predictions."""
    train, test = halves(len(y), share)
    own = {k: v for k, v in parameters.items() if k in ("class_weight", "sample_weight")}
    C, intercept = parameters.get("C", 1.0), parameters.get("fit_intercept", True)
    split = Split(X, train, test, method=method, fit_intercept=intercept)
    ((fit,),) = fit_logistic(split, y, [C], tol=TIGHT, **own)
    model, expected = optimum(X, y, train, test, method, **parameters)

    assert fit.converged_
    assert_close(fit.decisions, expected, tolerance)
    assert np.array_equal(fit.classes_, model.classes_)
    return split, fit


@pytest.mark.parametrize("classes", [2, 3, 5, 10])
@pytest.mark.parametrize("shape", [(60, 100), (200, 100), (300, 30)])
def test_decisions_are_scikit_learns_for_any_number_of_classes_and_shape(classes, shape):
    split, _ = compare(*make_rows(*shape, classes=classes))

    assert split.is_dual == (split.n_train < shape[1])


@pytest.mark.parametrize("method", ["standardize", "minmax", "maxabs", "none"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("shape", [(60, 100), (200, 40)])
def test_decisions_are_scikit_learns_for_every_method_with_and_without_intercept(
    method, fit_intercept, shape
):
    compare(*make_rows(*shape), method=method, fit_intercept=fit_intercept)


@pytest.mark.parametrize("C", [1e-6, 1e-3, 10.0, 1e3])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shape", [(60, 100), (200, 20)])
def test_decisions_are_scikit_learns_for_any_penalty(C, classes, shape):
    # at C = 1,000 newton-cg's line search ends at rounding errors
    compare(*make_rows(*shape, classes=classes), C=C, tolerance=3e-5)


def largest_gradient(fit, X, y, C):
    """The measure of scikit-learn's `tol`: the gradient of the mean loss."""
    decisions = X @ fit.coef_.T + fit.intercept_
    if len(fit.coef_) == 1:
        residual = 1 / (1 + np.exp(-decisions)) - (y == fit.classes_[1])[:, np.newaxis]
    else:
        P = np.exp(decisions - decisions.max(axis=1, keepdims=True))
        residual = P / P.sum(axis=1, keepdims=True) - (y[:, np.newaxis] == fit.classes_)
    gradient = residual.T @ X + fit.coef_ / C
    return max(np.abs(gradient).max(), np.abs(residual.sum(axis=0)).max()) / len(y)


@pytest.mark.parametrize("C", [1.0, 1e6])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("strength", [0.0, 100.0])
@pytest.mark.parametrize("shape", [(60, 100), (200, 20)])
def test_penalties_that_scikit_learn_cannot_converge_for_are_converged_too(
    C, classes, strength, shape
):
    """At C = 1e6 it stops early, so ours is held against its measure, the gradient.

    With a strength of 100 the labels are separable, and so are all of 45 rows in 100 columns.
    """
    X, y = make_rows(*shape, classes=classes, strength=strength)
    train, test = halves(len(y))
    ((fit,),) = fit_logistic(Split(X, train, test), y, [C], tol=TIGHT, keep_coef=True)
    rows, _ = scaled(X, train, test, "standardize")

    assert fit.converged_
    assert largest_gradient(fit, rows, y[train], C) < 1e-9


def test_constant_columns_become_zero():
    X, y = make_rows()
    X[:, :50] = 0.1
    X[:, 50] = 1e9

    compare(X, y)


def test_duplicated_rows_are_no_trouble():
    X, y = make_rows(30, 100)

    compare(np.concatenate([X, X, X]), np.concatenate([y, y[::-1], y]))


def test_a_column_alone_and_one_row_a_class():
    X, y = make_rows(40, 1, classes=2)
    compare(X, y)
    X, y = make_rows(40, 60, classes=2)
    train, _ = halves(40)
    y[train[0]], y[train[1]] = 7, 8

    compare(X, y)


def test_thirty_classes_with_few_rows_each():
    compare(*make_rows(150, 200, classes=30))


def test_massive_dimensions_without_normalization_keep_float64s_precision():
    X, y = make_rows(60, 100)
    X[:, 3] = 3000 + 200 * X[:, 3]

    compare(X, y, method="none", tolerance=1e-5)


def test_float32_rows_are_computed_in_float64():
    X, y = make_rows()
    X[:, 0] = 4000 + X[:, 0]

    compare(X.astype(np.float32), y)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shape", [(60, 100), (200, 40)])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 0.5}])
def test_weights_of_classes_and_samples_are_scikit_learns(classes, shape, class_weight):
    X, y = make_rows(*shape, classes=classes)
    y = np.where(np.arange(len(y)) % 3 == 0, 0, y)
    weights = np.random.default_rng(2).uniform(0, 3, len(y))

    compare(X, y, class_weight=class_weight)
    compare(X, y, class_weight=class_weight, sample_weight=weights)


def test_sample_weight_of_zero_is_a_row_left_out():
    X, y = make_rows(60, 100)
    train, test = halves(60)
    weights = np.ones(60)
    weights[train[:10]] = 0
    split = Split(X, train, test, method="none")
    ((fit,),) = fit_logistic(split, y, sample_weight=weights, tol=TIGHT)
    ((other,),) = fit_logistic(Split(X, train[10:], test, method="none"), y, tol=TIGHT)

    assert_close(fit.decisions, other.decisions)


def test_text_labels_are_predicted_as_given():
    X, y = make_rows(classes=3)
    names = np.array(["low", "middle", "high"])[y]
    train, test = halves(len(y))
    ((fit,),) = fit_logistic(Split(X, train, test), names, tol=TIGHT)
    model, expected = optimum(X, names, train, test)

    assert fit.classes_.tolist() == ["high", "low", "middle"]
    assert_close(fit.decisions, expected)
    assert np.array_equal(fit.predict(np.arange(len(test))), model.classes_[expected.argmax(1)])


@pytest.mark.parametrize("shape", [(60, 100), (200, 40)])
@pytest.mark.parametrize("classes", [2, 3])
def test_many_labelings_and_penalties_equal_each_by_itself(shape, classes):
    X, y = make_rows(*shape, classes=classes)
    train, test = halves(len(y))
    rng = np.random.default_rng(3)
    labelings = np.stack([y] + [rng.permutation(y) for _ in range(24)])
    split = Split(X, train, test)
    together = fit_logistic(split, labelings, [0.01, 1.0], tol=TIGHT)

    for C, fits in zip([0.01, 1.0], together, strict=True):
        for labels, fit in zip(labelings[::8], fits[::8], strict=True):
            ((alone,),) = fit_logistic(Split(X, train, test), labels, [C], tol=TIGHT)
            assert_close(fit.decisions, alone.decisions)


def test_labelings_may_have_different_classes():
    X, y = make_rows(classes=3)
    train, test = halves(len(y))
    two = np.where(y == 1, 2, y)
    (fits,) = fit_logistic(Split(X, train, test), np.stack([y, two, y]), tol=TIGHT)
    _, expected = optimum(X, two, train, test)

    assert [len(fit.classes_) for fit in fits] == [3, 2, 3]
    assert_close(fits[1].decisions, expected)
    assert_close(fits[0].decisions, fits[2].decisions)


def test_equal_inputs_give_equal_results_whatever_the_batch():
    X, y = make_rows()
    train, test = halves(len(y))
    labelings = np.stack([np.roll(y, shift) for shift in range(40)])
    first, again = (fit_logistic(Split(X, train, test), labelings)[0] for _ in range(2))

    assert all(np.array_equal(a.decisions, b.decisions) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", [(40, 90), (90, 12)])
def test_training_sets_in_lockstep_equal_each_by_itself(
    shape, classes, fit_intercept, class_weight
):
    X, y = make_rows(*shape, classes=classes)
    n, options = len(X), {"class_weight": class_weight, "tol": 1e-8}
    folds = [np.arange(n) % 5 == k for k in range(5)] + [np.arange(n) % 7 < 2]
    splits = [Split(X, ~fold, fold, fit_intercept=fit_intercept) for fold in folds]
    together = fit_logistic_each(splits, y, 3.0, **options)
    for fit, fold in zip(together, folds, strict=True):
        split = Split(X, ~fold, fold, fit_intercept=fit_intercept)
        ((alone,),) = fit_logistic(split, y, [3.0], **options)
        assert fit.converged_
        np.testing.assert_allclose(fit.decisions, alone.decisions, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 6])
def test_correlated_training_sets_in_lockstep_equal_each_by_itself(classes):
    """Large eigenvalues beside small ones: there a preconditioner has to be precise."""
    rng = np.random.default_rng(0)
    X = 3 * rng.standard_normal((143, 5)) @ rng.standard_normal((5, 128))
    X += 0.3 * rng.standard_normal(X.shape)
    y, folds = rng.permutation(np.arange(143) % classes), [np.arange(143) % 4 == k for k in (0, 1)]
    for C, method in ((500.0, "minmax"), (0.04, "none")):
        splits = [Split(X, ~fold, fold, method=method) for fold in folds]
        for fit, fold in zip(fit_logistic_each(splits, y, C, tol=1e-8), folds, strict=True):
            ((alone,),) = fit_logistic(Split(X, ~fold, fold, method=method), y, [C], tol=1e-8)
            assert fit.converged_
            largest = np.abs(alone.decisions).max()
            np.testing.assert_allclose(fit.decisions, alone.decisions, atol=1e-6 * largest)


def test_training_sets_of_other_classes_or_repeated_rows_are_not_stacked_with_others():
    X, y = make_rows(40, 90)
    X[:20] = X[np.arange(20) % 4]
    folds = [np.arange(40) < 20, y == 2, np.arange(40) >= 20, np.arange(40) % 2 == 0]
    splits = [Split(X, ~fold, fold) for fold in folds]
    assert len({split.is_dual for split in splits}) == 2
    for fit, fold in zip(fit_logistic_each(splits, y, tol=1e-8), folds, strict=True):
        ((alone,),) = fit_logistic(Split(X, ~fold, fold), y, tol=1e-8)
        np.testing.assert_array_equal(fit.classes_, alone.classes_)
        np.testing.assert_allclose(fit.decisions, alone.decisions, rtol=1e-6, atol=1e-6)


def test_batches_do_not_change_results(monkeypatch):
    X, y = make_rows()
    train, test = halves(len(y))
    labelings = np.stack([np.roll(y, shift) for shift in range(20)])
    (whole,) = fit_logistic(Split(X, train, test), labelings, tol=TIGHT)
    monkeypatch.setattr(logistic_module, "BATCH_ELEMENTS", 3 * len(train) * 3)
    (parts,) = fit_logistic(Split(X, train, test), labelings, tol=TIGHT)

    for one, other in zip(whole, parts, strict=True):
        assert_close(one.decisions, other.decisions)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("shape", [(80, 300), (400, 60)])
def test_default_tolerance_agrees_with_the_optimum_where_newton_cg_does(classes, shape):
    X, y = make_rows(*shape, classes=classes)
    train, test = halves(len(y))
    rng = np.random.default_rng(4)
    labelings = np.stack([y] + [rng.permutation(y) for _ in range(19)])
    split, rows = Split(X, train, test), np.arange(len(test))
    (exact,) = fit_logistic(split, labelings, tol=TIGHT)
    (default,) = fit_logistic(split, labelings)
    wrong = other = 0
    for labels, fit, best in zip(labelings, default, exact, strict=True):
        model, _ = optimum(X, labels, train, test, tol=1e-4)
        predictions = model.predict(scaled(X, train, test, "standardize")[1])
        wrong += np.sum(fit.predict(rows) != best.predict(rows))
        other += np.sum(predictions != best.predict(rows))

    assert wrong <= max(other, 2)


@pytest.mark.parametrize("method", ["standardize", "minmax", "maxabs", "none"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shape", [(60, 100), (200, 40)])
def test_coefficients_are_those_on_scikit_learns_columns(method, classes, shape):
    X, y = make_rows(*shape, classes=classes)
    train, test = halves(len(y))
    split = Split(X, train, test, method=method)
    ((fit,),) = fit_logistic(split, y, tol=TIGHT, keep_coef=True)
    ((classifier,),) = fit_ridge_classifier(split, y, keep_coef=True)
    ((ridge,),) = fit_ridge(split, X[:, 0] + y, keep_coef=True)
    _, answer = scaled(X, train, test, method)
    model, _ = optimum(X, y, train, test, method)

    assert fit.coef_.shape == model.coef_.shape
    assert fit.intercept_.shape == model.intercept_.shape
    assert_close(fit.coef_, model.coef_)
    assert_close(fit.intercept_, model.intercept_, 1e-5)
    for one in (classifier, ridge):
        expected = one.decisions if one is classifier else one.predictions
        found = answer @ one.coef_.T + one.intercept_
        assert_close(found.reshape(expected.shape), expected, 1e-9)


def test_coefficients_are_not_computed_unless_asked_for():
    X, y = make_rows()
    ((fit,),) = fit_logistic(Split(X, *halves(len(y))), y)

    assert fit.coef_ is None
    assert fit.intercept_ is None


def test_wide_splits_of_a_stack_decide_without_their_rows():
    X, y = make_rows(180, 1_600)
    y = y % 2
    folds = [np.arange(180) % 3 == k for k in range(3)]  # 120 x 60 x 1,600 are not few products
    splits = [Split(X, ~fold, fold) for fold in folds]
    for fold, fit in zip(folds, fit_logistic_each(splits, y, tol=TIGHT), strict=True):
        assert_close(fit.decisions, optimum(X, y, ~fold, fold)[1])


@pytest.mark.parametrize("method", ["standardize", "minmax", "maxabs"])
def test_statistics_are_those_of_scikit_learns_scalers(method):
    X, _ = make_rows(300, 7)
    X = np.concatenate([X, 1e5 + X, np.full((300, 2), 0.1), np.zeros((300, 1))], axis=1)
    train, test = halves(300)
    split = Split(X, train, test, method=method, fit_intercept=False)
    found = split.train_rows(), split.test_rows()

    for rows, expected in zip(found, scaled(X, train, test, method), strict=True):
        assert np.abs(rows - expected).max() < 1e-9


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("shape", [(60, 100), (200, 40)])
def test_ridge_is_scikit_learns(alpha, fit_intercept, weighted, shape):
    X, y = make_rows(*shape)
    rng = np.random.default_rng(5)
    targets = np.stack([y + rng.normal(size=len(y)), 100 + 3 * X[:, 1], rng.normal(size=len(y))])
    weights = rng.uniform(0, 2, len(y)) if weighted else None
    train, test = halves(len(y))
    split = Split(X, train, test, fit_intercept=fit_intercept)
    (fits,) = fit_ridge(split, targets, [alpha], sample_weight=weights)
    fit, answer = scaled(X, train, test, "standardize")
    model = Ridge(alpha=alpha, fit_intercept=fit_intercept, solver="svd")
    model.fit(fit, targets.T[train], sample_weight=None if weights is None else weights[train])

    for target, one, expected in zip(targets, fits, model.predict(answer).T, strict=True):
        assert_close(one.predictions, expected, 1e-8)
        scores = [r2_score(target[test], some) for some in (one.predictions, expected)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", [(60, 100), (200, 40)])
def test_ridge_of_massive_dimensions_without_normalization(shape):
    X, y = make_rows(*shape)
    X[:, 0] *= 1e4
    train, test = halves(len(y))
    ((fit,), (weak,)) = fit_ridge(Split(X, train, test, method="none"), 1.0 * y, [1.0, 1e-12])
    model = Ridge(solver="svd").fit(X[train], 1.0 * y[train])

    assert_close(fit.predictions, model.predict(X[test]))
    assert np.all(np.isfinite(weak.predictions))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 2.0}])
@pytest.mark.parametrize("shape", [(60, 100), (200, 40)])
def test_ridge_classifier_is_scikit_learns(classes, class_weight, shape):
    X, y = make_rows(*shape, classes=classes)
    train, test = halves(len(y))
    labelings = np.stack([y, np.random.default_rng(6).permutation(y)])
    fits = fit_ridge_classifier(
        Split(X, train, test), labelings, [0.1, 10.0], class_weight=class_weight
    )
    fit, answer = scaled(X, train, test, "standardize")

    for alpha, of_alpha in zip([0.1, 10.0], fits, strict=True):
        for labels, one in zip(labelings, of_alpha, strict=True):
            model = RidgeClassifier(alpha=alpha, class_weight=class_weight)
            model.fit(fit, labels[train])
            assert_close(one.decisions, model.decision_function(answer), 1e-9)
            assert np.array_equal(one.predict(np.arange(len(test))), model.predict(answer))


@pytest.mark.parametrize("scoring", ["accuracy", "f1_macro", "neg_log_loss", "roc_auc_ovr"])
@pytest.mark.parametrize("classes", [2, 3])
def test_scorers_of_scikit_learn_score_fits_as_the_model(scoring, classes):
    X, y = make_rows(classes=classes)
    train, test = halves(len(y))
    ((fit,),) = fit_logistic(Split(X, train, test), y, tol=TIGHT)
    model, _ = optimum(X, y, train, test)
    scorer = get_scorer(scoring)
    expected = scorer(model, scaled(X, train, test, "standardize")[1], y[test])

    assert scorer(fit, np.arange(len(test)), y[test]) == pytest.approx(expected, abs=1e-6)


def test_scorers_of_scikit_learn_score_regressions_too():
    X, y = make_rows()
    train, test = halves(len(y))
    ((fit,),) = fit_ridge(Split(X, train, test), 1.0 * y)
    scorer = get_scorer("r2")
    rows = scaled(X, train, test, "standardize")
    expected = Ridge(solver="svd").fit(rows[0], y[train]).score(rows[1], y[test])

    assert scorer(fit, np.arange(len(test)), y[test]) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shape", [(400, 600), (900, 300)])
def test_a_single_fit_of_noise_builds_a_matrix_only_where_that_is_cheap(shape):
    rng = np.random.default_rng(7)
    X, y = rng.normal(size=shape), rng.integers(0, 2, shape[0])
    train, test = halves(len(y))
    split = Split(X, train, test)
    fit_logistic(split, y)
    assert split.spaces[False].built != split.is_dual
    ((fit,),) = fit_logistic(split, y, tol=TIGHT)
    (many,) = fit_logistic(split, np.stack([y] * 60), tol=TIGHT)

    assert split.spaces.keys() == {True}
    assert_close(fit.decisions, many[0].decisions)


def test_a_single_fit_of_correlated_rows_builds_its_preconditioner_at_once():
    X, y = make_rows(200, 300, classes=2)
    split = Split(X, *halves(len(y)))
    fit_logistic(split, y)

    assert split.spaces[False].built


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shape", [(60, 100), (200, 40)])
def test_torch_on_the_cpu_equals_numpy(classes, shape):
    torch = pytest.importorskip("torch")
    X, y = make_rows(*shape, classes=classes)
    train, test = halves(len(y))
    labelings = np.stack([np.roll(y, shift) for shift in range(30)])
    plain = Split(X, train, test)
    for split in (Split(X, train, test, device="cpu"), Split(torch.asarray(X), train, test)):
        for fits, others in zip(
            fit_logistic(split, labelings, [0.1, 1e5], tol=TIGHT, keep_coef=True),
            fit_logistic(plain, labelings, [0.1, 1e5], tol=TIGHT, keep_coef=True),
            strict=True,
        ):
            for fit, other in zip(fits, others, strict=True):
                assert isinstance(fit.decisions, np.ndarray)
                assert_close(fit.decisions, other.decisions, 1e-5)
                assert_close(fit.coef_, other.coef_, 1e-5)
        for function, target in ((fit_ridge, 1.0 * y), (fit_ridge_classifier, y)):
            ((fit,),), ((other,),) = function(split, target), function(plain, target)
            rows = np.arange(len(test))
            assert_close(1.0 * fit.predict(rows), 1.0 * other.predict(rows), 1e-9)


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(C=0.5, class_weight="balanced", fit_intercept=False, tol=1e-9),
        LogisticRegression(solver="newton-cholesky"),
        Ridge(alpha=3.0),
        RidgeClassifier(alpha=2.0, class_weight={0: 2.0}),
    ],
)
def test_estimators_that_the_solver_knows_are_fitted_alike(estimator):
    X, y = make_rows()
    train, test = halves(len(y))
    model = recognise(estimator)
    split = Split(X, train, test, fit_intercept=model.fit_intercept)
    ((fit,),) = model.fit(split, y)
    rows = scaled(X, train, test, "standardize")
    estimator.fit(rows[0], y[train])
    found, expected = fit.predict(np.arange(len(test))), estimator.predict(rows[1])

    assert np.mean(np.abs(found - expected) < 1e-6) >= 0.9
    assert model.penalty == getattr(estimator, model.penalty_name)


class _Subclass(LogisticRegression):
    pass


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(l1_ratio=0.5, solver="saga"),
        LogisticRegression(solver="liblinear"),
        LogisticRegression(C=np.inf),
        _Subclass(),
        Ridge(alpha=0),
        Ridge(alpha=[1.0, 2.0]),
        Ridge(positive=True),
        StandardScaler(),
        None,
    ],
)
def test_estimators_that_the_solver_does_not_know_are_none(estimator):
    assert recognise(estimator) is None


def test_a_tighter_tol_of_the_estimator_tightens_the_solvers():
    default, tight, loose = (
        recognise(LogisticRegression(tol=tol)).tol for tol in (1e-4, 1e-6, 1.0)
    )

    assert tight == pytest.approx(default / 100)
    assert loose == default


def test_scalers_of_scikit_learn_are_known_with_their_defaults():
    known = [StandardScaler(copy=False), MinMaxScaler(), MaxAbsScaler(), "passthrough", None]
    others = [StandardScaler(with_mean=False), MinMaxScaler(clip=True), Ridge()]

    assert [recognise_scaler(one) for one in known] == [
        "standardize",
        "minmax",
        "maxabs",
        "none",
        "none",
    ]
    assert [recognise_scaler(one) for one in others] == [None] * 3


def test_a_split_for_another_intercept_is_refused():
    X, y = make_rows()
    split = Split(X, *halves(len(y)), fit_intercept=False)

    with pytest.raises(ValueError, match="fit_intercept=False"):
        recognise(Ridge()).fit(split, y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"X": np.zeros(5)}, "two dimensions"),
        ({"X": np.full((60, 100), np.nan)}, "training rows"),
        ({"train": []}, "no training rows"),
        ({"train": [60]}, "outside the 60 rows"),
        ({"train": [[0]]}, "positions of rows"),
        ({"test": [0.5]}, "positions of rows"),
        ({"method": "robust"}, "method must be one of standardize"),
    ],
)
def test_splits_that_make_no_sense_are_refused(change, message):
    X, y = make_rows()
    train, test = halves(len(y))
    arguments = {"X": X, "train": train, "test": test, "method": "standardize"} | change

    with pytest.raises(UsageError, match=message):
        Split(**arguments)


def test_nan_in_test_rows_is_refused():
    X, y = make_rows()
    train, test = halves(len(y))
    X[test[0], 0] = np.nan

    with pytest.raises(UsageError, match="test rows"):
        fit_logistic(Split(X, train, test), y)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": np.zeros(3)}, "y must have shape"),
        ({"penalties": [0.0]}, "positive and finite"),
        ({"tol": 0.0}, "between 0 and 1"),
        ({"sample_weight": np.ones(3)}, "sample_weight must have shape"),
        ({"sample_weight": np.full(60, -1.0)}, "not negative"),
    ],
)
def test_fits_that_make_no_sense_are_refused(arguments, message):
    X, y = make_rows()
    split = Split(X, *halves(len(y)))

    with pytest.raises(UsageError, match=message):
        fit_logistic(split, **({"y": y} | arguments))
    if "tol" not in arguments:
        with pytest.raises(UsageError, match=message):
            fit_ridge(split, **({"y": y} | arguments))
        with pytest.raises(UsageError, match=message):
            fit_ridge_classifier(split, **({"y": y} | arguments))


def test_one_class_is_refused():
    X, y = make_rows()
    split = Split(X, *halves(len(y)))

    for function in (fit_logistic, fit_ridge_classifier):
        with pytest.raises(InsufficientDataError, match="All training labels are 1"):
            function(split, np.stack([y, np.ones(len(y), int)]))


def test_masks_are_rows_too():
    X, y = make_rows()
    train, test = halves(len(y))
    mask = np.isin(np.arange(len(y)), train)
    ((fit,),) = fit_logistic(Split(X, mask, ~mask), y)
    ((other,),) = fit_logistic(Split(X, train, test), y)

    assert np.array_equal(fit.decisions, other.decisions)


def test_statistics_do_not_depend_on_the_order_of_memory():
    X, _ = make_rows(200, 30)
    split = Split(X, *halves(200))
    place = split.place
    rows = np.arange(150)
    for method in SCALERS:
        for one, other in zip(
            measure(X, rows, method, place, centered=True),
            measure(np.asfortranarray(X), rows, method, place, centered=True),
            strict=True,
        ):
            assert np.array_equal(one, other)
