"""Directions of a linear probe against finite differences of its own decision function."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, RobustScaler
from sklearn.svm import SVC, LinearSVC

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    LayerSelector,
    RowSpaceProjector,
    SAEFeatureSelector,
    generate_dataset,
    make_strategy,
    probe_directions,
)
from sklprep.exceptions import UsageError
from sklprep.sweeps.difference_of_means import DifferenceOfMeans

RNG = np.random.default_rng(0)
H = RNG.normal(2, 3, size=(24, 3, 11)) * np.logspace(0, 2, 11)
TWO, THREE, NUMBERS = np.arange(24) % 2, np.arange(24) % 3, RNG.normal(size=24)
MODELS = {
    "binary": (LogisticRegression(C=0.1, max_iter=5000), TWO),
    "multiclass": (LogisticRegression(C=0.1, max_iter=5000), THREE),
    "svc": (LinearSVC(dual=True, max_iter=100_000, C=0.01), TWO),
    "linear kernel": (SVC(kernel="linear"), TWO),
    "lda": (LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), TWO),
    "lda of three": (LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5), THREE),
    "means": (DifferenceOfMeans(), TWO),
    "means of three": (DifferenceOfMeans(), THREE),
    "regressor": (Ridge(), NUMBERS),
    "two targets": (Ridge(), np.stack([NUMBERS, NUMBERS**2], axis=1)),
}


def decide(pipeline, X):
    answer = (
        pipeline.predict(X)
        if not hasattr(pipeline, "classes_")
        else (pipeline.decision_function(X))
    )
    return answer.reshape(len(X), -1)


def slopes(pipeline, X, layer):
    """(n_outputs, d_model) by central differences around the first row."""
    columns = []
    for i in range(X.shape[2]):
        step = 1e-3 * np.abs(X[:, layer, i]).max()
        up, down = X[:1].copy(), X[:1].copy()
        up[0, layer, i] += step
        down[0, layer, i] -= step
        columns.append((decide(pipeline, up) - decide(pipeline, down))[0] / (2 * step))
    return np.array(columns).T


@pytest.mark.parametrize("projector", [[], [RowSpaceProjector()]], ids=["plain", "projected"])
@pytest.mark.parametrize("method", ["standardize", "minmax", "maxabs", "none"])
@pytest.mark.parametrize("name", MODELS)
def test_directions_are_the_slopes_of_the_decision_function(name, method, projector):
    model, y = MODELS[name]
    X = H if method != "none" else H / 100
    probe = make_pipeline(LayerSelector("0,2"), ActivationNormalizer(method), *projector, model)
    probe.fit(X, y)

    directions, intercept = probe_directions(probe)

    assert list(directions) == [0, 2]
    for layer, direction in directions.items():
        expected = slopes(probe, X, layer)
        assert direction.shape == ((11,) if len(expected) == 1 else expected.shape)
        assert direction.dtype == np.float64
        atol = 1e-6 * np.abs(expected).max()
        np.testing.assert_allclose(np.atleast_2d(direction), expected, rtol=1e-6, atol=atol)
    scores = sum(X[:, layer] @ np.atleast_2d(w).T for layer, w in directions.items()) + intercept
    np.testing.assert_allclose(scores, decide(probe, X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("y", [TWO, THREE])
@pytest.mark.parametrize("priors", ["uniform", "empirical", None])
def test_directions_of_a_nearest_centroid_are_what_it_predicts_by(y, priors):
    if priors is None:
        priors = 1 + np.arange(y.max() + 1)
        priors = (priors / priors.sum()).tolist()
    probe = make_pipeline(LayerSelector(1), NearestCentroid(priors=priors)).fit(H, y)

    directions, intercept = probe_directions(probe)

    decisions = H[:, 1] @ directions[1].T + intercept
    codes = decisions > 0 if decisions.ndim == 1 else decisions.argmax(axis=1)
    np.testing.assert_array_equal(probe.predict(H), codes)
    if isinstance(priors, str) and decisions.ndim == 1:
        means = [H[y == label, 1].mean(axis=0) for label in (0, 1)]
        np.testing.assert_allclose(means[1] - means[0], directions[1])
    own = DifferenceOfMeans(priors=priors).fit(H[:, 1], y)
    np.testing.assert_allclose(decisions, own.decision_function(H[:, 1]))
    np.testing.assert_array_equal(own.predict(H[:, 1]), codes)


@pytest.mark.parametrize("method", ["standardize", "minmax", "maxabs", "none"])
def test_deployed_pipeline_of_a_dataset_undoes_both_normalizations(method):
    acts = ActivationSet.from_arrays(
        hidden_states=np.tile(H, (5, 1, 1)) + RNG.normal(size=(120, 3, 11)), labels=np.tile(TWO, 5)
    )
    ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers="0-1", normalize=method))
    fitted = ds.make_pipeline(Ridge()).fit(ds.X, ds.y)
    deployed = Pipeline([*ds.pipeline.steps, ("model", fitted)])

    directions, intercept = probe_directions(deployed)

    scores = sum(acts.layer(layer).astype(float) @ w for layer, w in directions.items())
    np.testing.assert_allclose(scores + intercept, deployed.predict(acts), atol=2e-3)


def test_embeddings_and_other_scalers_have_directions_too():
    acts = ActivationSet.from_arrays(embeddings=H[:, 0])
    probe = make_pipeline(
        LayerSelector("embeddings"), RobustScaler(), "passthrough", MinMaxScaler(), Ridge()
    ).fit(acts, NUMBERS)

    directions, intercept = probe_directions(probe)

    assert list(directions) == ["embeddings"]
    scores = acts.embeddings @ directions["embeddings"] + intercept
    np.testing.assert_allclose(scores, probe.predict(acts), atol=1e-4)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([LayerSelector(0), Normalizer(), Ridge()], "step Normalizer is not linear"),
        ([LayerSelector(0), MinMaxScaler(clip=True), Ridge()], "step MinMaxScaler is not linear"),
        ([LayerSelector(0), PCA(2), Ridge()], "step PCA"),
        ([LayerSelector(0), SVC()], "model SVC has no coefficients"),
        ([LayerSelector(0), NearestCentroid("manhattan")], "model NearestCentroid has no coef"),
        ([LayerSelector(0), RandomForestClassifier(5)], "model RandomForestClassifier has no"),
        ([SAEFeatureSelector(0), Ridge()], "starts with SAEFeatureSelector"),
    ],
)
def test_what_is_not_linear_in_activations_is_refused_by_name(steps, message):
    with pytest.raises(UsageError, match=message):
        probe_directions(make_pipeline(*steps).fit(H, TWO))


def test_models_whose_answers_are_not_linear_are_refused():
    count = make_pipeline(LayerSelector(0), ActivationNormalizer(), PoissonRegressor()).fit(
        H, THREE
    )
    one_against_one = make_pipeline(LayerSelector(0), SVC(kernel="linear")).fit(H, THREE)
    for probe, name in ((count, "PoissonRegressor"), (one_against_one, "SVC")):
        with pytest.raises(UsageError, match=f"model {name} is not linear"):
            probe_directions(probe)
    with pytest.raises(UsageError, match="starts with Ridge"):
        probe_directions(make_pipeline(Ridge()).fit(H[:, 0], NUMBERS))
    with pytest.raises(UsageError, match="needs a Pipeline, got Ridge"):
        probe_directions(Ridge())


def test_of_a_search_the_best_estimator_has_directions():
    steps = LayerSelector(), ActivationNormalizer(), Ridge()
    search = GridSearchCV(make_pipeline(*steps), {"layerselector__layers": [0, 2]}, cv=2)
    search.fit(H, NUMBERS)

    with pytest.raises(UsageError, match=r"got GridSearchCV\. Give its best_estimator_"):
        probe_directions(search)
    assert [search.best_params_["layerselector__layers"]] == list(
        probe_directions(search.best_estimator_)[0]
    )


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_directions_do_not_depend_on_frames_between_the_steps(kind):
    steps = LayerSelector("0,2"), ActivationNormalizer(), RowSpaceProjector()
    plain = make_pipeline(*steps, Ridge()).fit(H, NUMBERS)
    framed = make_pipeline(*steps, Ridge()).set_output(transform=kind).fit(H, NUMBERS)

    expected, intercept = probe_directions(plain)
    actual, offset = probe_directions(framed)

    assert list(expected) == list(actual) == [0, 2]
    for layer, direction in expected.items():
        np.testing.assert_allclose(direction, actual[layer], rtol=1e-4, atol=1e-6)
    assert intercept == pytest.approx(offset, rel=1e-4)
