"""Confounds: a baseline by themselves, and activations without what they explain."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from sklprep import ActivationSet, layer_sweep, make_activations
from sklprep.exceptions import SklprepWarning, UsageError
from sklprep.sweeps.confounds import read_confounds, residualize
from sklprep.sweeps.sweep import count_fits

TIGHT = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=1_000))
N = 90


@pytest.fixture(scope="module")
def confounded():
    """Labels that a length and something else decide; layer 0 knows the length, layer 1 both."""
    rng = np.random.default_rng(0)
    length, other = rng.normal(size=(2, N))
    y = (length + other + 0.3 * rng.normal(size=N) > 0).astype(int)
    X = 0.3 * rng.normal(size=(N, 2, 12))
    X += length[:, None, None] * rng.normal(size=(2, 12))
    X[:, 1] += other[:, None] * rng.normal(size=12)
    return X, y, length


@pytest.fixture(scope="module")
def sweep(confounded):
    X, y, length = confounded
    return layer_sweep(TIGHT, X, y, confounds=length, cv=4, n_repeats=2)


@pytest.mark.parametrize("solver", ["auto", "scikit-learn"])
def test_each_fold_residualizes_by_its_own_training_rows(confounded, solver):
    X, y, length = confounded
    order = np.random.default_rng(1).permutation(N) % 3
    splits = [(np.flatnonzero(order != k), np.flatnonzero(order == k)) for k in range(3)]
    found = layer_sweep(TIGHT, X, y, cv=splits, inner_cv=None, confounds=length, solver=solver)
    for layer in range(2):
        for k, (train, test) in enumerate(splits):
            known = LinearRegression().fit(length[train, None], X[train, layer])
            left = X[:, layer] - known.predict(length[:, None])
            score = TIGHT.fit(left[train], y[train]).score(left[test], y[test])
            assert found.residualized.scores[layer, k] == pytest.approx(score)


def test_what_only_the_confound_knows_is_gone_and_what_else_is_known_stays(sweep):
    raw, left = sweep.mean_scores, sweep.residualized.mean_scores
    assert raw[0] > 0.65
    assert left[0] < 0.6
    assert left[1] > 0.65
    low, high = sweep.confounded.interval
    assert low < sweep.nested_score - sweep.residualized.nested_score < high


def test_a_baseline_sees_the_confounds_alone(confounded, sweep):
    _, y, length = confounded
    alone = layer_sweep(None, length[:, None], y, cv=4, n_repeats=2, baselines=False)
    np.testing.assert_allclose(sweep.baselines["confounds"].scores, alone.scores[0])
    assert "confounds" in sweep.comparisons


def test_texts_say_what_is_left(sweep):
    assert "without what is linear in the confounds (confounds), accuracy 0." in sweep.summary()
    assert "residualized on them by least squares on the training rows" in sweep.methods_text()


def test_rates_of_false_positives_of_the_residuals_are_their_own():
    rng = np.random.default_rng(0)
    length, y = rng.normal(size=160), np.arange(160) % 2
    X = rng.normal(size=(160, 2, 12)) + (length + y)[:, None, None]
    options = {"scoring": "recall_at_fpr=0.1", "cv": 4, "n_repeats": 1}
    found = layer_sweep(TIGHT, X, y, confounds=length, **options)
    rates, left = found.false_positive_rates, found.residualized.false_positive_rates
    assert rates.shape == left.shape == (2, 4)
    assert (rates != left).any()


def test_fits_are_counted_with_those_of_the_residuals(confounded):
    X, _, length = confounded
    options = {"cv": 4, "n_repeats": 2}
    plain, counted = (count_fits(X, confounds=c, **options) for c in (None, length))
    of_nested = 2 * (4 + 6)
    assert counted - plain == 2 * of_nested + 2 * 4


def test_sweep_without_confounds_is_the_same_beside_them(confounded, sweep):
    X, y, _ = confounded
    plain = layer_sweep(TIGHT, X, y, cv=4, n_repeats=2)
    np.testing.assert_array_equal(plain.scores, sweep.scores)
    assert plain.residualized is None
    assert plain.confounded is None


def test_sets_know_the_length_and_the_position_of_their_sentences():
    acts = ActivationSet.from_arrays(
        hidden_states=np.zeros((3, 1, 2)), sentences=["one", "one two", "three"]
    )
    names, values = read_confounds(["length", "position"], acts)
    assert names == "length, position"
    np.testing.assert_array_equal(values, [[3, 1, 0], [7, 2, 1], [5, 1, 2]])


def test_tables_have_categories_as_columns_of_zero_and_one():
    table = pd.DataFrame({"source": list("bab"), "year": [3.0, 1.0, 2.0]})
    names, values = read_confounds(table, np.zeros(3))
    assert names == "source, year"
    np.testing.assert_array_equal(values, [[0, 1, 3], [1, 0, 1], [0, 1, 2]])


def test_codes_of_a_category_are_asked_about():
    with pytest.warns(SklprepWarning, match="'source' has 3 values and is taken as a number"):
        read_confounds({"source": [3, 1, 2]}, np.zeros(3))


def test_models_that_are_not_linear_are_refused(confounded):
    """Residuals of columns with few values tell the confound to a tree."""
    X, y, length = confounded
    with pytest.raises(UsageError, match="need a linear model, and DecisionTreeClassifier may"):
        layer_sweep(DecisionTreeClassifier(), X, y, confounds=length)


def test_constant_and_equal_confounds_do_no_harm():
    rng = np.random.default_rng(0)
    X, length = rng.normal(size=(20, 3)), rng.normal(size=20)
    train = np.arange(15)
    many = np.column_stack([length, length, np.ones(20)])
    np.testing.assert_allclose(
        residualize(X, train, many), residualize(X, train, length[:, None]), atol=1e-10
    )


@pytest.mark.parametrize(
    ("confounds", "message"),
    [
        ("lenght", "'lenght' is not the name of a confound; expected 'length', 'position'"),
        ("length", "needs sentences, which acts does not have"),
        (np.zeros(4), r"must have shape \(5,\) or \(5, k\)"),
        ([1, 2, 3, 4, np.inf], "must be finite numbers or text"),
        ({}, "has no columns"),
        ([], "has no columns"),
        ([[1.0, 2.0], [3.0, 4.0]], r"must have shape \(5,\) or \(5, k\)"),
    ],
)
def test_what_is_not_a_confound_of_these_rows_is_refused(confounds, message):
    with pytest.raises(UsageError, match=message):
        read_confounds(confounds, np.zeros((5, 1, 2)))


def test_the_command_reads_names_and_tables(tmp_path, run_command):
    folder = tmp_path / "files"
    make_activations(60, n_layers=2, d_model=8, n_features=16, random_state=0, output=folder)
    table = tmp_path / "table.csv"
    lines = [f"{i},{'ab'[i % 2]},{i / 7}" for i in range(60)]
    table.write_text("\n".join(["sentence_index,source,year", *lines]))
    arguments = ["--confounds", "length", "--confounds", str(table), "--repeats", "1", "--quiet"]
    code, out, err = run_command("sweep", folder, "--layers", "1", *arguments)
    assert code == 0, err
    assert "linear in the confounds (length, source, year), " in out
