"""`RowSpaceProjector`: the geometry, the estimators it serves and those it does not."""

from __future__ import annotations

import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import skops.io
from scipy import linalg
from sklearn.base import clone, is_classifier
from sklearn.discriminant_analysis import (
    LinearDiscriminantAnalysis,
    QuadraticDiscriminantAnalysis,
)
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest, f_regression
from sklearn.linear_model import (
    ElasticNet,
    Lasso,
    LinearRegression,
    LogisticRegression,
    Ridge,
    RidgeClassifier,
    RidgeCV,
)
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, LinearSVR, NuSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import estimator_checks
from threadpoolctl import threadpool_limits

from sklprep import ActivationNormalizer, RowSpaceProjector
from sklprep.transformers import row_space as rowspace

N, D = 60, 400
FLOATS = [np.float32, np.float64]
VARIANTS = [
    RowSpaceProjector(),
    RowSpaceProjector(residual=True),
    RowSpaceProjector(copy_X=False),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """These fits are so small that threads wait for each other most of the time."""
    with threadpool_limits(1):
        yield


def make_data():
    """Correlated columns, one of them massive, that know three classes; and a number."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 3
    X = rng.normal(size=(N, D)) @ rng.normal(size=(D, D)) / 20
    X[:, :20] += labels[:, None]
    X[:, 7] += 300
    numbers = X[:, :30].sum(axis=1) + rng.normal(size=N)
    return X, labels, (numbers - numbers.mean()) / numbers.std()


X, LABELS, NUMBERS = make_data()
TRAIN, TEST = slice(0, 45), slice(45, None)
SPLITS = list(StratifiedKFold(3, shuffle=True, random_state=0).split(X, LABELS))


def cross_validated(model, *steps, X=X):
    """Decision values, or else probabilities or predictions, of every row while it is held out."""
    methods = ("decision_function", "predict_proba", "predict")
    method = next(name for name in methods if hasattr(model, name))
    y = LABELS if is_classifier(model) else NUMBERS
    pipeline = make_pipeline(*map(clone, steps), clone(model))
    return cross_val_predict(pipeline, X, y, cv=SPLITS, method=method)


def apart(model, projector, *, scaler=None, X=X):
    """How far predictions from the projection are from the plain ones, relative to the largest."""
    scaler = ActivationNormalizer() if scaler is None else scaler
    plain = cross_validated(model, scaler, X=X)
    projected = cross_validated(model, scaler, projector, X=X)
    return np.abs(projected - plain).max() / np.abs(plain).max()


TIGHT = {"tol": 1e-10, "max_iter": 200_000}
LINEAR_OR_NEAREST = [
    LinearRegression(),
    Ridge(),
    Ridge(alpha=100.0, fit_intercept=False),
    RidgeCV(),
    RidgeClassifier(),
    LogisticRegression(tol=1e-9, max_iter=10_000),
    LogisticRegression(tol=1e-9, max_iter=10_000, fit_intercept=False),
    LinearSVC(dual=True, **TIGHT),
    LinearSVC(dual=True, intercept_scaling=10.0, **TIGHT),
    LinearSVC(dual=True, fit_intercept=False, **TIGHT),
    LinearSVC(dual=True, loss="hinge", **TIGHT),
    LinearSVR(dual=True, C=1e-3, **TIGHT),
    SVC(kernel="linear", tol=1e-8),
    SVC(kernel="poly", tol=1e-8),
    SVC(kernel="poly", gamma=1e-3, coef0=1.0, tol=1e-8),
    SVC(kernel="sigmoid", tol=1e-8),
    SVR(kernel="linear", tol=1e-8),
    NuSVC(kernel="linear", nu=0.2, tol=1e-8),
    KNeighborsClassifier(),
    KNeighborsRegressor(),
]
DISTANCES = [
    SVC(tol=1e-8),
    SVC(gamma=1e-3, tol=1e-8),
    SVR(gamma=1e-3, tol=1e-8),
    KNeighborsClassifier(weights="distance"),
    KNeighborsRegressor(weights="distance"),
]
OTHERS = [
    LogisticRegression(solver="saga", l1_ratio=1.0, tol=1e-3),
    LinearSVC(penalty="l1"),
    Lasso(0.1),
    ElasticNet(0.1),
    LinearDiscriminantAnalysis(),
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    QuadraticDiscriminantAnalysis(solver="eigen", shrinkage=0.1),
    GaussianNB(),
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(20, random_state=0),
    GradientBoostingClassifier(n_estimators=3, max_features=20, random_state=0),
    MLPClassifier(random_state=0, max_iter=50),
    KNeighborsRegressor(metric="manhattan"),
    SVC(gamma="auto"),
    make_pipeline(StandardScaler(), Ridge()),
    make_pipeline(SelectKBest(f_regression, k=10), Ridge()),
]


@pytest.mark.parametrize("model", LINEAR_OR_NEAREST, ids=repr)
def test_predictions_are_the_same_in_cross_validation(model):
    assert apart(model, RowSpaceProjector()) < 1e-8
    assert apart(model, RowSpaceProjector(residual=True), scaler=StandardScaler()) < 1e-8


@pytest.mark.parametrize("model", DISTANCES, ids=repr)
def test_models_of_distances_predict_the_same_only_with_the_residual(model):
    assert apart(model, RowSpaceProjector(residual=True)) < 1e-12
    assert apart(model, RowSpaceProjector()) > 1e-2


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("model", [*LINEAR_OR_NEAREST, *DISTANCES], ids=repr)
def test_predictions_are_the_same_on_float32(model):
    # these compute in float32 themselves
    linear = (LinearRegression, Ridge, RidgeClassifier)
    own_error = {LogisticRegression: 2e-3, **dict.fromkeys(linear, 1e-5)}
    tolerance = own_error.get(type(model), 1e-6)

    assert apart(model, RowSpaceProjector(residual=True), X=X.astype(np.float32)) < tolerance


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "model",
    OTHERS,
    ids=lambda model: type(model[-1] if hasattr(model, "steps") else model).__name__,
)
def test_other_models_do_not_predict_the_same(model):
    assert apart(model, RowSpaceProjector(residual=True)) > 1e-2


def test_ridge_keeps_its_precision_on_float32_columns():
    wide = np.random.default_rng(0).standard_normal((N, 20_000)) + LABELS[:, None]
    narrow = wide.astype(np.float32)
    for steps in (
        [ActivationNormalizer(), RowSpaceProjector(), Ridge()],
        [RowSpaceProjector(), Ridge(solver="svd")],  # Cholesky in float32 errs by 4e-3 here
    ):
        plain = make_pipeline(*steps[:-2], Ridge()).fit(wide[TRAIN], NUMBERS[TRAIN])
        ours = make_pipeline(*steps).fit(narrow[TRAIN], NUMBERS[TRAIN])
        expected = plain.predict(wide[TEST])
        np.testing.assert_allclose(ours.predict(narrow[TEST]), expected, rtol=0, atol=1e-5)


def test_logistic_regression_is_as_near_as_its_tol_lets_it_converge():
    assert 1e-4 < apart(LogisticRegression(), RowSpaceProjector()) < 1e-2
    assert apart(LogisticRegression(tol=1e-7, max_iter=1000), RowSpaceProjector()) < 3e-5


def test_projection_of_uncentred_columns_serves_models_with_an_intercept():
    for scaler in (ActivationNormalizer("none"), MinMaxScaler()):
        for model in (Ridge(), RidgeClassifier(), SVC(kernel="linear", tol=1e-8)):
            assert apart(model, RowSpaceProjector(), scaler=scaler) < 1e-8, (model, scaler)
    model = LinearSVC(dual=True, **TIGHT)
    assert apart(model, RowSpaceProjector(), scaler=MinMaxScaler()) < 1e-8


def test_gamma_scale_is_another_one_where_columns_are_not_centred():
    projector = RowSpaceProjector(residual=True)

    assert apart(SVC(), projector, scaler=MinMaxScaler()) > 1e-2
    assert apart(SVC(gamma=0.1), projector, scaler=MinMaxScaler()) < 1e-8


@pytest.mark.parametrize("model", [*LINEAR_OR_NEAREST, *DISTANCES, *OTHERS[2:7]], ids=repr)
def test_docstring_names_the_model(model):
    assert f"`{type(model).__name__}`" in RowSpaceProjector.__doc__


@pytest.mark.parametrize("dtype", FLOATS)
def test_inner_products_of_training_rows_are_kept(dtype):
    Z = RowSpaceProjector().fit_transform(X.astype(dtype))

    gram = X.astype(dtype).astype(np.float64) @ X.astype(dtype).astype(np.float64).T
    precision = 10 * np.finfo(dtype).eps * np.linalg.norm(gram)
    assert (Z.shape, Z.dtype) == ((N, N), dtype)
    np.testing.assert_allclose(Z.astype(np.float64) @ Z.astype(np.float64).T, gram, 0, precision)


def test_inner_products_with_other_rows_are_kept():
    projector = RowSpaceProjector().fit(X[TRAIN])
    Z, W = projector.transform(X[TRAIN]), projector.transform(X[TEST])

    np.testing.assert_allclose(W @ Z.T, X[TEST] @ X[TRAIN].T, rtol=1e-12)


def test_residual_is_the_distance_to_the_row_space():
    projector = RowSpaceProjector(residual=True).fit(X[TRAIN])
    Z, W = projector.transform(X[TRAIN]), projector.transform(X[TEST])

    basis = linalg.orth(X[TRAIN].T)
    outside = X[TEST] - X[TEST] @ basis @ basis.T
    np.testing.assert_allclose(W[:, -1], np.linalg.norm(outside, axis=1), rtol=1e-10)
    np.testing.assert_array_equal(Z[:, -1], 0)
    assert W[:, -1].min() > 1


def test_distances_to_training_rows_are_kept_with_the_residual():
    projector = RowSpaceProjector(residual=True)
    Z = projector.fit_transform(X[TRAIN])
    W = projector.transform(X[TEST])

    expected = np.linalg.norm(X[TEST, None] - X[None, TRAIN], axis=2)
    found = np.linalg.norm(W[:, None] - Z[None], axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("residual", [False, True])
def test_fit_transform_is_fit_and_transform(residual, dtype):
    projector = RowSpaceProjector(residual=residual)
    Z = projector.fit_transform(X.astype(dtype))
    again = projector.transform(X.astype(dtype))

    assert Z.dtype == again.dtype == dtype
    precision = 1e-6 if dtype is np.float32 else 1e-11
    np.testing.assert_allclose(again, Z, rtol=0, atol=precision * np.abs(Z).max())


def test_rows_are_projected_alike_in_any_batch():
    projector = RowSpaceProjector(residual=True).fit(X[TRAIN])

    one_by_one = np.vstack([projector.transform(row[None]) for row in X])
    np.testing.assert_allclose(projector.transform(X), one_by_one, rtol=1e-9, atol=1e-9)


def test_many_rows_more_than_training_rows_can_be_projected():
    projector = RowSpaceProjector().fit(X[:3])

    assert projector.transform(np.vstack([X] * 10)).shape == (600, 3)


def test_blocks_of_columns_cover_all_of_them(monkeypatch):
    whole = RowSpaceProjector(residual=True).fit(X[TRAIN])
    monkeypatch.setattr(rowspace, "_BLOCK_COLUMNS", 7)
    blocks = RowSpaceProjector(residual=True).fit(X[TRAIN])

    np.testing.assert_allclose(blocks.eigenvalues_, whole.eigenvalues_, rtol=1e-10)
    np.testing.assert_allclose(blocks.transform(X), whole.transform(X), rtol=1e-8, atol=1e-8)
    Z = whole.transform(X)
    np.testing.assert_allclose(blocks.inverse_transform(Z), whole.inverse_transform(Z), atol=1e-8)


def test_result_does_not_depend_on_the_memory_layout():
    one = RowSpaceProjector(residual=True).fit(X[TRAIN])
    other = RowSpaceProjector(residual=True).fit(np.asfortranarray(X[TRAIN]))

    assert one.eigenvectors_.tobytes() == other.eigenvectors_.tobytes()
    expected = one.transform(X[TEST]).tobytes()
    assert other.transform(np.asfortranarray(X[TEST])).tobytes() == expected


def test_each_eigenvector_has_its_largest_entry_positive():
    vectors = RowSpaceProjector().fit(X).eigenvectors_

    assert (vectors.max(axis=0) == np.abs(vectors).max(axis=0)).all()


def test_fitting_a_wide_matrix_makes_no_float64_copy_of_it():
    wide = np.random.default_rng(0).standard_normal((200, 40_000), dtype=np.float32)
    projector = RowSpaceProjector(residual=True, copy_X=False)
    tracemalloc.start()
    projector.fit_transform(wide)
    projector.transform(wide[:100])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < wide.nbytes / 2


def test_training_rows_are_copied_unless_asked_otherwise():
    mine = X[TRAIN].copy()
    copied = RowSpaceProjector().fit(mine)
    referred = RowSpaceProjector(copy_X=False).fit(mine)
    before = copied.transform(X[TEST])
    mine[:] = 0

    np.testing.assert_array_equal(copied.transform(X[TEST]), before)
    assert referred.X_fit_ is mine


def test_duplicate_rows_and_centred_columns_lower_the_rank():
    rows = np.vstack([X[:10], X[:5]])
    centred = rows - rows.mean(axis=0)

    for dtype in FLOATS:
        assert RowSpaceProjector().fit(rows.astype(dtype)).n_components_ == 10
        scaled = ActivationNormalizer().fit_transform(X.astype(dtype))
        assert RowSpaceProjector().fit(scaled).n_components_ == N - 1
    assert RowSpaceProjector().fit(centred).n_components_ == 9


def test_predictions_are_the_same_on_duplicate_rows_and_constant_columns():
    rows = np.vstack([X[:10], X[:10], X[20:40]])
    rows[:, 50:90] = 3
    y = np.arange(40.0)
    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-10)):
        train, test = rows.astype(dtype), X.astype(dtype)
        plain = make_pipeline(StandardScaler(), Ridge()).fit(train, y)
        ours = make_pipeline(StandardScaler(), RowSpaceProjector(), Ridge()).fit(train, y)
        expected = plain.predict(test)
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(ours.predict(test), expected, rtol=0, atol=atol)


def test_directions_are_dropped_below_the_documented_tolerance():
    rows = np.zeros((3, 10))
    rows[0, 0], rows[1, 1], rows[2, 2] = 1, 1e-5, 1e-7
    projector = RowSpaceProjector(residual=True).fit(rows)

    assert projector.n_components_ == 2
    np.testing.assert_allclose(projector.eigenvalues_, [1, 1e-10])
    np.testing.assert_array_equal(projector.transform(rows)[:, -1], 0)


@pytest.mark.parametrize("rows", [np.zeros((3, 10)), np.zeros((1, 10))])
def test_a_row_space_of_nothing_keeps_one_column_of_zeros(rows):
    projector = RowSpaceProjector(residual=True)

    np.testing.assert_array_equal(projector.fit_transform(rows), np.zeros((len(rows), 2)))
    np.testing.assert_allclose(projector.transform(np.ones((1, 10))), [[0, np.sqrt(10)]])
    np.testing.assert_array_equal(projector.inverse_transform([[5.0, 1.0]]), np.zeros((1, 10)))


def test_one_training_row_gives_its_length():
    np.testing.assert_allclose(RowSpaceProjector().fit_transform([[3.0, 0.0, 4.0]]), [[5.0]])


@pytest.mark.parametrize("n", [20, 30])
@pytest.mark.parametrize("dtype", FLOATS)
def test_as_many_rows_as_columns_pass_through(n, dtype):
    tall = X[:n, :20].astype(dtype)
    projector = RowSpaceProjector()

    for Z in (projector.fit_transform(tall), projector.transform(tall)):
        np.testing.assert_array_equal(Z, tall)
        assert Z.dtype == dtype
        assert not np.shares_memory(Z, tall)
    assert projector.n_components_ == 20
    assert projector.X_fit_ is projector.eigenvalues_ is projector.eigenvectors_ is None
    np.testing.assert_array_equal(projector.inverse_transform(tall), tall)
    np.testing.assert_array_equal(projector.coef_on_input(tall[0]), tall[0])
    assert RowSpaceProjector(copy_X=False).fit_transform(tall) is tall


def test_what_passes_through_has_no_residual():
    tall = X[:30, :20]
    projector = RowSpaceProjector(residual=True)

    expected = np.column_stack([tall, np.zeros(30)])
    np.testing.assert_array_equal(projector.fit_transform(tall), expected)
    np.testing.assert_array_equal(projector.transform(tall), expected)
    np.testing.assert_array_equal(projector.inverse_transform(expected), tall)


@pytest.mark.parametrize("residual", [False, True])
def test_inverse_transform_is_exact_in_the_row_space(residual):
    projector = RowSpaceProjector(residual=residual).fit(X[TRAIN])
    inside = np.random.default_rng(1).normal(size=(5, 45)) @ X[TRAIN]

    for rows in (X[TRAIN], inside):
        back = projector.inverse_transform(projector.transform(rows))
        np.testing.assert_allclose(back, rows, rtol=0, atol=1e-10 * np.abs(rows).max())


def test_inverse_transform_gives_the_part_in_the_row_space():
    projector = RowSpaceProjector(residual=True).fit(X[TRAIN])
    W = projector.transform(X[TEST])
    inside = projector.inverse_transform(W)

    np.testing.assert_allclose(np.linalg.norm(X[TEST] - inside, axis=1), W[:, -1], rtol=1e-8)
    np.testing.assert_allclose((X[TEST] - inside) @ X[TRAIN].T, 0, atol=1e-7)


def test_inverse_transform_refuses_another_number_of_columns():
    projector = RowSpaceProjector(residual=True).fit(X[TRAIN])

    with pytest.raises(ValueError, match="X has 45 columns, but this RowSpaceProjector gives 46"):
        projector.inverse_transform(np.zeros((2, 45)))


LINEAR_MODELS = [
    (Ridge(), NUMBERS),
    (Ridge(), np.column_stack([NUMBERS, -NUMBERS])),
    (LinearSVC(dual=True, **TIGHT), LABELS),
    (SVC(kernel="linear", tol=1e-8), LABELS),
    (LogisticRegression(tol=1e-9, max_iter=10_000), LABELS == 1),
]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("model", "y"), LINEAR_MODELS)
def test_coefficients_on_input_are_those_of_the_plain_model(model, y, residual):
    scaled = StandardScaler().fit_transform(X)
    projector = RowSpaceProjector(residual=residual)
    plain = clone(model).fit(scaled, y)
    projected = clone(model).fit(projector.fit_transform(scaled), y)

    coef = projector.coef_on_input(projected.coef_)
    assert coef.shape == plain.coef_.shape
    np.testing.assert_allclose(coef, plain.coef_, rtol=0, atol=1e-6 * np.abs(plain.coef_).max())
    np.testing.assert_allclose(projected.intercept_, plain.intercept_, rtol=1e-6, atol=1e-9)


def test_probe_direction_in_raw_units_is_the_gradient_of_the_decision_function():
    scaler, projector = ActivationNormalizer(), RowSpaceProjector()
    pipeline = make_pipeline(scaler, projector, LinearSVC(dual=True)).fit(X[TRAIN], LABELS[TRAIN])

    direction = projector.coef_on_input(pipeline[-1].coef_) / scaler.norm_params_["norm_std"]
    point = X[TEST][:1]
    steps = pipeline.decision_function(point + np.eye(D)) - pipeline.decision_function(point)
    np.testing.assert_allclose(steps, direction.T, rtol=0, atol=1e-9)


@estimator_checks.parametrize_with_checks(VARIANTS)
def test_projector_passes_every_scikit_learn_check(estimator, check):
    check(estimator)


# The checks fit on a data frame and transform an array, and the other way round.
@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.filterwarnings("ignore:X has feature names, but:UserWarning")
@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_transformer_get_feature_names_out,
        estimator_checks.check_transformer_get_feature_names_out_pandas,
        estimator_checks.check_set_output_transform,
        estimator_checks.check_set_output_transform_pandas,
        estimator_checks.check_global_output_transform_pandas,
        estimator_checks.check_set_output_transform_polars,
        estimator_checks.check_global_set_output_transform_polars,
    ],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("projector", VARIANTS, ids=repr)
def test_projector_passes_the_checks_of_names_and_output(projector, check):
    check(type(projector).__name__, projector)


def test_data_frames_give_named_columns():
    frame = pd.DataFrame(X[TRAIN], columns=[f"x{i}" for i in range(D)])
    projector = RowSpaceProjector(residual=True).set_output(transform="pandas")
    Z = projector.fit_transform(frame)

    assert Z.columns.tolist() == [f"rowspaceprojector{i}" for i in range(46)]
    assert Z.columns.tolist() == projector.get_feature_names_out().tolist()
    assert projector.transform(frame).columns.equals(Z.columns)
    assert projector.feature_names_in_.tolist() == frame.columns.tolist()
    assert isinstance(projector.inverse_transform(Z.to_numpy()), np.ndarray)


def load_skops(data):
    return skops.io.loads(data, trusted=["sklprep.RowSpaceProjector"])


@pytest.mark.parametrize("rows", [X[TRAIN], X[TRAIN, :20]], ids=["projected", "passed through"])
@pytest.mark.parametrize(
    ("dump", "load"), [(pickle.dumps, pickle.loads), (skops.io.dumps, load_skops)]
)
def test_projector_survives_storage(rows, dump, load):
    projector = RowSpaceProjector(residual=True).fit(rows)
    again = load(dump(projector))

    np.testing.assert_array_equal(again.transform(rows), projector.transform(rows))


def test_fitting_again_forgets_the_first_fit():
    fresh, tall = RowSpaceProjector().fit(X[TRAIN]), RowSpaceProjector().fit(X[TRAIN, :20])
    projector = RowSpaceProjector()

    for rows, expected in ((X[TRAIN], fresh), (X[TRAIN, :20], tall), (X[TRAIN], fresh)):
        projector.fit(rows)
        assert vars(projector).keys() == vars(expected).keys()
        assert projector.n_components_ == expected.n_components_
        np.testing.assert_array_equal(projector.transform(rows), expected.transform(rows))


def test_documented_attributes_are_the_fitted_ones():
    attributes = RowSpaceProjector.__doc__.split("Attributes\n")[1].split("Raises\n")[0]
    documented = {line.split(" :")[0].strip() for line in attributes.splitlines() if "_ :" in line}
    frame = pd.DataFrame(X[TRAIN]).add_prefix("x")

    fitted = {name for name in vars(RowSpaceProjector().fit(frame)) if name.endswith("_")}
    assert fitted == documented


def test_input_is_left_alone_and_may_be_read_only():
    rows = X[TRAIN].copy()
    rows.setflags(write=False)
    projector = RowSpaceProjector(residual=True, copy_X=False)

    projector.fit_transform(rows)
    projector.transform(rows)
    np.testing.assert_array_equal(rows, X[TRAIN])


@pytest.mark.parametrize("name", ["residual", "copy_X"])
def test_parameter_that_is_no_bool_is_refused(name):
    with pytest.raises(TypeError, match=f"The '{name}' parameter of RowSpaceProjector must be"):
        RowSpaceProjector(**{name: "yes"}).fit(X)


def test_wrong_input_is_refused():
    projector = RowSpaceProjector().fit(X[TRAIN])

    with pytest.raises(ValueError, match="X has 399 features, but RowSpaceProjector is expecting"):
        projector.transform(X[:, 1:])
    with pytest.raises(ValueError, match="NaN"):
        projector.transform(np.full((2, D), np.nan))
    with pytest.raises(NotFittedError):
        RowSpaceProjector().inverse_transform(X)
