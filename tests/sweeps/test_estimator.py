"""A whole pipeline given to `layer_sweep`, and groups for a search within the estimator."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.feature_selection import RFECV
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    RandomizedSearchCV,
    StratifiedGroupKFold,
)
from sklearn.pipeline import Pipeline, make_pipeline

from sklprep import (
    ActivationNormalizer,
    LayerSelector,
    SAEFeatureSelector,
    layer_sweep,
    make_activations,
)
from sklprep.exceptions import InsufficientDataError, UsageError

ACTS = make_activations(60, n_layers=3, d_model=6, n_features=24, random_state=0)
OPTIONS = {"cv": 3, "inner_cv": 2, "baselines": False}
MODEL = make_pipeline(ActivationNormalizer(), LogisticRegression(solver="newton-cg"))
SPARSE = make_pipeline(ActivationNormalizer("maxabs"), LogisticRegression(solver="newton-cg"))
GRID = {"logisticregression__C": [0.01, 1.0]}


def sweep(estimator, y=ACTS.labels, **options):
    return layer_sweep(estimator, ACTS, y, **OPTIONS | options)


def behind(selector, model=MODEL):
    return make_pipeline(selector, *(step for _, step in model.steps))


@pytest.mark.parametrize(
    ("whole", "model", "layers"),
    [
        (behind(LayerSelector(2)), MODEL, "each"),
        (behind(LayerSelector("embeddings")), MODEL, ["embeddings", "0-1"]),
        (make_pipeline(LayerSelector(), MODEL), MODEL, "each"),
        (make_pipeline(make_pipeline(LayerSelector(0), *MODEL[:1]), MODEL[1]), MODEL, "each"),
        (behind(SAEFeatureSelector(1), SPARSE), SPARSE, "each sae"),
        (
            GridSearchCV(behind(LayerSelector()), GRID, cv=2),
            GridSearchCV(MODEL, GRID, cv=2),
            [0, 1],
        ),
        (
            RandomizedSearchCV(behind(LayerSelector()), GRID, n_iter=2, cv=2, random_state=0),
            RandomizedSearchCV(MODEL, GRID, n_iter=2, cv=2, random_state=0),
            [0, 1],
        ),
        (
            CalibratedClassifierCV(behind(LayerSelector()), cv=2),
            CalibratedClassifierCV(MODEL, cv=2),
            [0],
        ),
    ],
)
def test_selector_of_a_pipeline_gives_its_place_to_each_input(whole, model, layers):
    given = {} if isinstance(layers, str) else {"layers": layers}
    expected = sweep(model, layers=layers)
    found = sweep(whole, **given)

    assert expected.layers == found.layers
    np.testing.assert_array_equal(expected.scores, found.scores)
    assert expected.best_layers == found.best_layers
    assert "Selector" not in found.details["estimator"]


def test_given_pipeline_keeps_its_selector():
    pipe = behind(LayerSelector(2))
    sweep(pipe, layers=[0])
    assert ["layerselector", "activationnormalizer", "logisticregression"] == [*pipe.named_steps]
    assert 2 == pipe[0].layers


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (
            GridSearchCV(behind(LayerSelector()), {"layerselector__layers": [0, 1]}),
            "searches layerselector__layers, and so does the sweep.*score the search itself",
        ),
        (
            GridSearchCV(behind(LayerSelector()), [GRID, {"layerselector": [LayerSelector(1)]}]),
            "searches layerselector, and so does the sweep",
        ),
        (make_pipeline(LayerSelector(1)), "holds LayerSelector alone; expected a model after it"),
        (
            VotingClassifier([("a", behind(LayerSelector(1)))]),
            "VotingClassifier holds a selector where the sweep cannot take it out",
        ),
        (
            behind(SAEFeatureSelector(1, features=[3, 5]), SPARSE),
            "picks features or an average_l0, which the sweep",
        ),
        (behind(SAEFeatureSelector(1, average_l0=3), SPARSE), "picks features or an average_l0"),
    ],
)
def test_selector_that_the_sweep_cannot_replace_is_refused_in_words(estimator, message):
    with pytest.raises(UsageError, match=message):
        sweep(estimator)


def test_regressor_of_a_whole_pipeline_is_swept_for_numbers():
    y = ACTS.layer(1)[:, 0].astype(float)
    model = make_pipeline(ActivationNormalizer(), Ridge())
    whole = make_pipeline(LayerSelector(1), ActivationNormalizer(), Ridge())
    np.testing.assert_array_equal(sweep(model, y).scores, sweep(whole, y).scores)


# ---- groups for a search within


RNG = np.random.default_rng(0)
GROUPS = np.repeat(np.arange(20), 4)
Y = GROUPS % 2
X = RNG.normal(size=(80, 2, 4)) + 0.4 * Y[:, None, None]
SEARCH = GridSearchCV(LogisticRegression(), {"C": [1e-3, 1.0]}, cv=GroupKFold(3))


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize(
    ("model", "parameter"),
    [
        (SEARCH, "groups"),
        (Pipeline([("norm", ActivationNormalizer()), ("search", SEARCH)]), "search__groups"),
    ],
)
def test_search_within_gets_the_groups_of_its_training_rows(routing, model, parameter):
    with config_context(enable_metadata_routing=routing):
        found = layer_sweep(model, X, Y, groups=GROUPS, **OPTIONS)

    splitter = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    for layer in range(2):
        scores = []
        for train, test in splitter.split(X, Y, GROUPS):
            fitted = model.fit(X[train, layer], Y[train], **{parameter: GROUPS[train]})
            scores.append(fitted.score(X[test, layer], Y[test]))
        np.testing.assert_array_equal(scores, found.scores[layer])


class FirstRows(GroupKFold):
    """Asserts that the groups are those of the rows, which column 0 tells."""

    def split(self, X, y=None, groups=None):
        np.testing.assert_array_equal(X[:, 0].astype(int), groups)
        yield from super().split(X, y, groups)


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(RFECV(LogisticRegression(), cv=FirstRows(2)), LogisticRegression()),
        CalibratedClassifierCV(LogisticRegression(), cv=FirstRows(2)),
        GridSearchCV(
            make_pipeline(RFECV(LogisticRegression(), cv=FirstRows(2)), LogisticRegression()),
            GRID,
            cv=FirstRows(2),
        ),
    ],
)
def test_groups_reach_whatever_splits_by_them(model):
    mixed = np.tile([0, 1], 40)
    numbered = np.concatenate([GROUPS[:, None], X[:, 0]], axis=1)
    found = layer_sweep(model, numbered, mixed, groups=GROUPS, cv=2, inner_cv=None, baselines=False)
    assert np.isfinite(found.scores).all()


def test_search_that_needs_no_groups_is_not_given_any():
    model = GridSearchCV(LogisticRegression(), {"C": [1e-3, 1.0]}, cv=KFold(3))
    assert np.isfinite(layer_sweep(model, X, Y, groups=GROUPS, **OPTIONS).scores).all()


def test_search_where_groups_do_not_get_is_named():
    model = StackingClassifier([("a", LogisticRegression())], cv=GroupKFold(3))
    with pytest.raises(
        UsageError, match="within StackingClassifier splits by group, and groups do"
    ):
        layer_sweep(model, X, Y, groups=GROUPS, **OPTIONS)


def test_search_with_more_folds_than_groups_is_named():
    model = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=GroupKFold(19))
    with pytest.raises(InsufficientDataError, match=r"GridSearchCV cannot split 5. train"):
        layer_sweep(model, X, Y, groups=GROUPS, **OPTIONS)
