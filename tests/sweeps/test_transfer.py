"""`transfer_matrix`: each cell against arithmetic by hand, and what no cell may see."""

import csv

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklprep import ActivationSet, TransferMatrixDisplay, layer_sweep, transfer_matrix
from sklprep.exceptions import InsufficientDataError, LayerNotFoundError, UsageError
from sklprep.sweeps.intervals import corrected_t

CV = 4
LOGISTIC = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cg"))


def make_set(seed, direction, n=60, strength=1.5):
    """Rows whose layer 1 holds y along a direction, and layer 0 nothing."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = rng.standard_normal((n, 2, 6))
    X[:, 1] += strength * np.outer(2 * y - 1, direction)
    return X, y


@pytest.fixture(scope="module")
def sets():
    one, two = np.eye(6)[:2]
    return {"a": make_set(0, one), "b": make_set(1, one, n=48), "c": make_set(2, two)}


@pytest.fixture(scope="module")
def found(sets):
    return transfer_matrix(None, sets, cv=CV, n_repeats=2)


def folds_of(sets, seed=0):
    """The folds of all rows, by scikit-learn, and the rows of each set."""
    counts = [len(y) for _, y in sets.values()]
    members = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    strata = np.concatenate([2 * i + y for i, (_, y) in enumerate(sets.values())])
    splitter = StratifiedGroupKFold(CV, shuffle=True, random_state=seed)
    return list(splitter.split(strata, strata, np.arange(len(strata)))), members


def test_diagonal_is_what_layer_sweep_finds_on_the_same_folds(sets, found):
    folds, members = folds_of(sets)
    for i, (X, y) in enumerate(sets.values()):
        own = [[np.flatnonzero(np.isin(members[i], part)) for part in fold] for fold in folds]

        sweep = layer_sweep(None, X, y, cv=own, inner_cv="outer", n_repeats=1, baselines=False)

        assert sweep.scores.tolist() == found.scores[i, i, :, :CV].tolist()
        assert sweep.nested_scores.tolist() == found.nested_scores[i, i, :CV].tolist()


def test_other_cells_are_the_models_of_the_diagonal_on_the_folds_of_other_sets(sets, found):
    folds, members = folds_of(sets)
    X, y = (np.concatenate(parts) for parts in zip(*sets.values(), strict=True))

    for k, (train, test) in enumerate(folds):
        for layer in (0, 1):
            for i in range(3):
                own = np.intersect1d(train, members[i])
                model = LOGISTIC.fit(X[own, layer], y[own])
                for j in range(3):
                    rows = np.intersect1d(test, members[j])
                    score = model.score(X[rows, layer], y[rows])
                    assert score == pytest.approx(found.scores[i, j, layer, k])
                others = np.setdiff1d(train, members[i])
                rows = np.intersect1d(test, members[i])
                score = LOGISTIC.fit(X[others, layer], y[others]).score(X[rows, layer], y[rows])
                assert score == pytest.approx(found.scores[3, i, layer, k])


def test_a_direction_that_two_sets_share_transfers_and_another_does_not(found):
    assert ["a", "b", "c", "all others"] == found.rows
    assert found.matrix[:2, :2].min() > 0.8
    assert found.matrix[0, 2] < 0.75
    assert found.matrix[2, :2].max() < 0.75
    assert (found.layers, found.cosine_layer) == ([0, 1], 1)
    of_layer = found.cosines[1]
    assert of_layer[0, 1] > 0.7
    assert abs(of_layer[0, 2]) < 0.5
    assert np.diag(of_layer).min() > 0.5
    assert np.array_equal(of_layer, of_layer.T)


def test_the_set_that_is_scored_has_no_say_in_the_layer(sets, found):
    X, y = sets["c"]
    changed = transfer_matrix(None, sets | {"c": (X[:, ::-1], y)}, cv=CV, n_repeats=2)

    assert changed.chosen[:2].tolist() == found.chosen[:2].tolist()
    assert changed.chosen[3, 2].tolist() == found.chosen[3, 2].tolist()
    assert changed.chosen[2, 2].tolist() == (1 - found.chosen[2, 2]).tolist()
    assert changed.scores[:2, 2].tolist() != found.scores[:2, 2].tolist()


def test_intervals_are_the_corrected_t_and_few_groups_have_none(sets, found):
    ratio = np.mean([len(test) / len(train) for train, test in folds_of({"b": sets["b"]})[0]])
    low, high = corrected_t(found.nested_scores[0, 1], ratio)
    np.testing.assert_allclose(found.intervals[0, 1], [max(low, 0), min(high, 1)], rtol=0.02)
    ratio = found.size_ratios[0] * np.sqrt(60 / 48)  # trained on fewer groups
    low, high = corrected_t(found.nested_scores[1, 0], ratio)
    np.testing.assert_allclose(found.intervals[1, 0], [max(low, 0), min(high, 1)])

    few = transfer_matrix(
        None, {"a": sets["a"], "few": make_set(5, np.eye(6)[0], n=20)}, cv=CV, n_repeats=1
    )
    assert np.isnan(few.intervals[1]).all()
    assert np.isnan(few.intervals[:, 1]).all()
    assert np.isfinite(few.intervals[0, 0]).all()
    assert few.no_interval == {"few": "there are 20 groups, fewer than 30"}
    assert ["a", "few"] == few.rows


def test_scikit_learn_gives_the_same_scores_and_cosines(sets, found):
    theirs = transfer_matrix(LOGISTIC, sets, cv=CV, n_repeats=1, solver="scikit-learn")

    assert ("sklprep", "scikit-learn") == (found.solver, theirs.solver)
    np.testing.assert_allclose(theirs.scores, found.scores[..., :CV], atol=0.1)
    np.testing.assert_allclose(theirs.cosines, found.cosines, atol=0.02)


@pytest.mark.parametrize("by", ["text", "groups"])
def test_groups_that_sets_share_are_never_on_both_sides(by):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((80, 1, 4)), rng.permutation(np.arange(80) % 2)
    texts = [f"sentence {i}" for i in range(80)]
    groups = None
    acts = ActivationSet.from_arrays(hidden_states=X, sentences=texts)
    sets = {"one": (acts, y), "other": (acts[::-1], y[::-1])}
    if by == "groups":
        names = np.array(texts)
        sets = {"one": (X, y), "other": (X[::-1], y[::-1])}
        groups = {"one": names, "other": names[::-1]}

    found = transfer_matrix(
        KNeighborsClassifier(1), sets, cv=CV, layers=[0], groups=groups, n_repeats=1
    )

    assert found.matrix.max() < 0.7  # whoever has seen a row knows its label
    assert np.isnan(found.cosines).all()
    assert "KNeighborsClassifier has no coefficients" in found.no_cosines


def test_rows_of_arrays_share_no_group(sets):
    X, y = sets["a"]
    found = transfer_matrix(
        KNeighborsClassifier(1), {"one": (X, y), "again": (X, y)}, cv=CV, n_repeats=1
    )
    assert found.matrix[0, 1] > 0.85


def test_quantities_and_sparse_features_transfer_too():
    rng = np.random.default_rng(0)
    sets = {}
    for name in ("one", "other"):
        X = rng.standard_normal((60, 1, 5)).astype(np.float32)
        features = np.maximum(X, 0)
        acts = ActivationSet.from_arrays(
            hidden_states=X, activations=features, layers=[7], average_l0s=[2]
        )
        sets[name] = acts, X[:, 0, 0].astype(float)

    found = transfer_matrix(
        Ridge(), sets, layers=[7, "sae 7"], cv=GroupKFold(3), n_repeats=1, leave_one_out=False
    )

    assert found.scoring == "r2"
    assert found.layer_scores[:, :, 0].min() > 0.9
    assert 0.3 < found.layer_scores[:, :, 1].max() < 0.95
    assert np.isfinite(found.cosines[0]).all()
    assert np.isnan(found.cosines[1]).all()


def test_table_has_a_row_for_each_cell(found, tmp_path):
    table = found.table

    assert table.columns.tolist() == [
        "trained_on", "tested_on", "score", "low", "high", "layer", "cosine",
    ]  # fmt: skip
    assert len(table) == 12
    assert table.score.tolist() == found.matrix.reshape(-1).tolist()
    assert table.cosine.isna().tolist() == [False] * 9 + [True] * 3
    found.to_csv(tmp_path / "cells.csv")
    rows = list(csv.DictReader((tmp_path / "cells.csv").read_text().splitlines()))
    assert [float(row["score"]) for row in rows] == table.score.tolist()
    assert rows[-1]["cosine"] == ""


def test_majority_is_the_share_of_the_commonest_label_of_each_set(found, sets):
    shares = [np.unique(y, return_counts=True)[1].max() / len(y) for _, y in sets.values()]
    assert found.majority == pytest.approx(shares, abs=0.01)


def test_quantities_have_no_majority(sets):
    amounts = {name: (acts, y + 0.5) for name, (acts, y) in sets.items()}
    found = transfer_matrix(Ridge(), amounts, layers=[1], cv=CV, n_repeats=1)
    assert found.majority is None
    assert "majority" not in found.summary()


def test_summary_and_card_say_what_the_matrix_holds(found):
    lines = found.summary().splitlines()

    assert len(lines) == 5
    low, high = found.intervals[0, 0]
    start = f"Trained on a (layer 1), accuracy {found.matrix[0, 0]:.2f} [{low:.2f}, {high:.2f}]"
    assert lines[0].startswith(f"{start} on itself, ")
    assert lines[3].startswith("Trained on all others, accuracy ")
    shares = dict(zip("abc", found.majority, strict=True))
    of_sets = ", ".join(f"{share:.2f} on {name}" for name, share in shares.items())
    assert lines[4] == f"The majority class, always predicted, accuracy {of_sets}"
    assert "cosines at layer 1" in found._repr_html_()
    assert repr(found) == "TransferMatrix(a, b, c: 2 inputs, 4 folds, accuracy)"


def test_display_draws_scores_and_cosines(found, sets):
    mpl.use("agg")
    display = TransferMatrixDisplay.from_matrix(found)

    ax = display.axes_[0]
    shares = dict(zip("abc", found.majority, strict=True))
    below = [f"{name}\n(majority {share:.2f})" for name, share in shares.items()]
    assert below == [label.get_text() for label in ax.get_xticklabels()]
    assert found.rows == [label.get_text() for label in ax.get_yticklabels()]
    assert display.scores_.get_array().tolist() == found.matrix.tolist()
    assert display.cosines_.get_array().tolist() == found.cosines[1].tolist()
    assert ax.texts[1].get_text().startswith(f"{found.matrix[0, 1]:.2f}\n[")
    mpl.pyplot.close(display.figure_)

    both = {name: sets[name] for name in ("a", "c")}
    options = {"cv": CV, "n_repeats": 1, "layers": [1]}
    alone = TransferMatrixDisplay.from_estimator(DummyClassifier(), both, **options)
    assert (1, None) == (len(alone.axes_), alone.cosines_)
    mpl.pyplot.close(alone.figure_)


def one_class(sets):
    return {"sets": sets | {"a": (sets["a"][0], np.zeros(60, int))}}


BAD = {
    "one set": (lambda s: {"sets": {"a": s["a"]}}, UsageError, "at least two names to pairs"),
    "no pair": (lambda s: {"sets": s | {"b": s["b"][0]}}, UsageError, r"b'\] must be a pair"),
    "short y": (
        lambda s: {"sets": s | {"b": (s["b"][0], [0, 1])}},
        UsageError,
        r"sets\['b'\]: .*",
    ),
    "kinds": (
        lambda s: {"sets": s | {"b": (s["b"][0], s["b"][1] + 0.5)}},
        UsageError,
        "y of a is labels, that of b a quantity",
    ),
    "text": (
        lambda s: {"sets": s | {"b": (s["b"][0], s["b"][1].astype(str))}},
        UsageError,
        "that of b labels that are text",
    ),
    "layers": (
        lambda s: {"sets": s | {"b": (s["b"][0][:, :1], s["b"][1])}},
        UsageError,
        "a has the inputs 0, 1, b has 0; expected the same",
    ),
    "missing layer": (lambda s: {"sets": s, "layers": [5]}, LayerNotFoundError, "Layer 5"),
    "rate": (
        lambda s: {"sets": s, "scoring": "recall_at_fpr=0.1"},
        UsageError,
        "needs a threshold, which a transfer matrix does not calibrate",
    ),
    "width": (
        lambda s: {"sets": s | {"b": (s["b"][0][..., :4], s["b"][1])}},
        UsageError,
        "a has 6 columns at layer 0, b has 4",
    ),
    "one class": (one_class, InsufficientDataError, "All 60 values of y of a are 0"),
    "few": (
        lambda s: {"sets": s | {"b": (s["b"][0][:5], s["b"][1][:5])}},
        InsufficientDataError,
        "of 5 groups of b, fewer than the 4 folds",
    ),
    "splits": (lambda s: {"sets": s, "cv": [([0], [1])]}, UsageError, "an int or a splitter"),
    "groups": (lambda s: {"sets": s, "groups": {"a": [0]}}, UsageError, "names of the sets"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_together_is_refused(sets, name):
    make, kind, message = BAD[name]

    with pytest.raises(kind, match=message):
        transfer_matrix(None, **{"cv": CV, **make(sets)})
