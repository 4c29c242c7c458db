"""A probe is scored as a sweep scores it, and its direction compared between training sets."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline

from sklprep import (
    ActivationNormalizer,
    ActivationSet,
    LayerSelector,
    direction_stability,
    layer_sweep,
)
from sklprep.probes.fitting import fit_probe
from sklprep.sweeps.difference_of_means import DifferenceOfMeans

RNG = np.random.default_rng(0)
Y = np.repeat([0, 1], [60, 20])
STATES = RNG.normal(size=(80, 2, 6)).astype(np.float32)
STATES[:, 1, 0] += 1.5 * Y
ACTS = ActivationSet.from_arrays(hidden_states=STATES, labels=Y)
MODEL = make_pipeline(ActivationNormalizer(), LogisticRegression(solver="newton-cg"))


def test_probe_has_the_score_of_a_sweep_of_its_layer_and_is_fitted_on_all_rows():
    probe, pipeline, sweep = fit_probe(MODEL, ACTS, Y, 1, n_repeats=1)

    expected = layer_sweep(MODEL, ACTS, Y, layers=[1], n_repeats=1)
    assert sweep.summary() == expected.summary() == probe.score["summary"]
    decisions = make_pipeline(LayerSelector(1), MODEL).fit(ACTS, Y).decision_function(ACTS)
    np.testing.assert_allclose(decisions, probe.decision_function(ACTS), atol=1e-5)
    np.testing.assert_array_equal(pipeline.predict(ACTS), probe.predict(ACTS))
    assert probe.threshold == 0


def test_threshold_for_a_rate_is_that_of_rows_the_folds_held_out():
    probe, pipeline, sweep = fit_probe(MODEL, ACTS, Y, 1, scoring="recall_at_fpr=0.1", n_repeats=1)

    held_out = np.empty(80)
    for train, test in ((f[0], f[1]) for f in stratified()):
        fit = make_pipeline(LayerSelector(1), MODEL).fit(ACTS[train], Y[train])
        held_out[test] = fit.decision_function(ACTS[test])
    assert probe.threshold == np.sort(held_out[Y == 0])[::-1][int(0.1 * 61) - 1]
    assert np.mean(held_out[Y == 0] > probe.threshold) <= 0.1
    above = pipeline.decision_function(ACTS) > probe.threshold
    np.testing.assert_array_equal(above, probe.predict(ACTS) == 1)
    assert probe.score["false_positive_rate"] == sweep.nested_fpr
    assert probe.score["false_positive_interval"] == [*sweep.nested_fpr_interval]


def stratified():
    from sklearn.model_selection import StratifiedGroupKFold

    return list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(Y, Y, np.arange(80)))


@pytest.mark.parametrize("layers", [1, "0-1"])
def test_stability_is_the_cosine_of_directions_of_the_folds(layers):
    groups = np.arange(80) // 2
    pipeline = make_pipeline(LayerSelector(layers), Ridge())

    cosines = direction_stability(pipeline, ACTS, STATES[:, 0, 2], cv=GroupKFold(4), groups=groups)

    X = STATES[:, 1] if layers == 1 else STATES.reshape(80, -1)
    weights = [
        Ridge().fit(X[train], STATES[train, 0, 2]).coef_
        for train, _ in GroupKFold(4).split(X, groups=groups)
    ]
    expected = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in weights] for b in weights]
    np.testing.assert_allclose(expected, cosines, rtol=1e-5)


def test_what_classes_share_does_not_make_directions_stable():
    y = np.arange(80) % 4  # of which nothing is known
    shifted = STATES + 100

    cosines = direction_stability(make_pipeline(LayerSelector(0), DifferenceOfMeans()), shifted, y)

    assert cosines[np.triu_indices(5, 1)].max() < 0.95
    np.testing.assert_allclose(np.diag(cosines), 1)


def test_planted_direction_is_more_stable_than_none():
    def lowest(layer):
        return direction_stability(make_pipeline(LayerSelector(layer), *MODEL), ACTS, Y).min()

    assert lowest(1) > lowest(0)
