"""Scores of sentences from those of their tokens, against loops over sentences."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklprep import ActivationSet, layer_sweep
from sklprep.exceptions import UsageError
from sklprep.sweeps.aggregation import AGGREGATES, SentenceScores

OPTIONS = {"cv": 4, "inner_cv": None, "n_repeats": 1, "baselines": False}
LOGISTIC = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cg"))


def by_hand(values, method, n):
    """One sentence, one method, in plain words."""
    if method == "mean":
        return np.mean(values)
    if method == "max":
        return np.max(values)
    if method == "top_k_mean":
        return np.mean(sorted(values)[-n:])
    starts = range(max(1, len(values) - n + 1))
    return max(np.mean(values[start : start + n]) for start in starts)


PARAMETERS = {"mean": {}, "max": {}, "rolling_mean_max": {"window": 3}, "top_k_mean": {"k": 2}}


@pytest.fixture(scope="module")
def tokens():
    """40 sentences of 1 to 7 tokens, some of which know the label; and a quantity."""
    rng = np.random.default_rng(0)
    sentences = np.repeat(np.arange(40), rng.integers(1, 8, 40))
    labels = rng.permutation(np.arange(40) % 2)[sentences]
    X = rng.standard_normal((len(labels), 2, 5))
    X[:, 1, 0] += (2 * labels - 1) * rng.integers(0, 2, len(labels))
    return X, labels, sentences


@pytest.mark.parametrize("method", AGGREGATES)
@pytest.mark.parametrize("shape", [(), (3,)])
def test_tokens_are_combined_as_by_a_loop_over_sentences(method, shape):
    rng = np.random.default_rng(1)
    sentences = rng.permutation(np.repeat(np.arange(9), [1, 2, 3, 4, 5, 6, 7, 2, 1]))
    rows = rng.permutation(len(sentences))[:25]
    values = rng.standard_normal((25, *shape))
    parameters = PARAMETERS[method]

    found = SentenceScores(sentences, method, parameters).combine(values, rows)

    n = next(iter(parameters.values()), None)
    numbers = np.unique(sentences[rows])
    assert found.shape == (len(numbers), *shape)
    for number, row in zip(numbers, found.reshape(len(numbers), -1), strict=True):
        own = values.reshape(25, -1)[sentences[rows] == number]
        assert row == pytest.approx([by_hand(column, method, n) for column in own.T])


@pytest.mark.parametrize("solver", ["auto", "scikit-learn"])
@pytest.mark.parametrize("method", AGGREGATES)
def test_sentences_are_scored_by_what_held_out_tokens_come_to(tokens, method, solver):
    X, y, sentences = tokens
    options = {**OPTIONS, "aggregate": method, "aggregate_params": PARAMETERS[method]}

    def sweep(scoring):
        found = layer_sweep(
            LOGISTIC, X, y, groups=sentences, scoring=scoring, solver=solver, **options
        )
        return found.scores

    found = {name: sweep(name) for name in ("accuracy", "roc_auc", "neg_log_loss")}

    n = next(iter(PARAMETERS[method].values()), None)
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    for k, (train, test) in enumerate(splitter.split(X, y, sentences)):
        model = LOGISTIC.fit(X[train, 1], y[train])
        decisions = model.decision_function(X[test, 1])
        numbers, first = np.unique(sentences[test], return_index=True)
        own = [sentences[test] == number for number in numbers]
        combined = np.array([by_hand(decisions[rows], method, n) for rows in own])
        truth = y[test][first]
        assert found["accuracy"][1, k] == accuracy_score(truth, combined > 0)
        expected = roc_auc_score(truth, combined)
        assert found["roc_auc"][1, k] == pytest.approx(expected, abs=0.02)
        likely = [[by_hand(one[rows], method, n) for one in (expit(-decisions), expit(decisions))]
                  for rows in own]  # fmt: skip
        likely = np.array(likely) / np.sum(likely, axis=1, keepdims=True)
        assert found["neg_log_loss"][1, k] == pytest.approx(-log_loss(truth, likely), rel=0.01)


def test_models_without_decisions_regressors_and_more_classes(tokens):
    X, _, sentences = tokens
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(40) % 3)[sentences]
    X = X + labels[:, np.newaxis, np.newaxis]
    options = {**OPTIONS, "groups": sentences, "layers": [1], "aggregate": "mean"}
    folds = list(StratifiedGroupKFold(4, shuffle=True, random_state=0).split(X, labels, sentences))
    found = [
        layer_sweep(GaussianNB(), X, labels, **options),
        layer_sweep(LOGISTIC, X, labels, **options),
        layer_sweep(Ridge(), X, labels.astype(float), **{**options, "cv": folds}),
    ]

    for k, (train, test) in enumerate(folds):
        numbers, first = np.unique(sentences[test], return_index=True)
        own = [sentences[test] == number for number in numbers]
        truth = labels[test][first]
        for sweep, model, method in (
            (found[0], GaussianNB(), "predict_proba"),
            (found[1], LOGISTIC, "decision_function"),
        ):
            values = getattr(model.fit(X[train, 1], labels[train]), method)(X[test, 1])
            predicted = np.argmax([values[rows].mean(axis=0) for rows in own], axis=1)
            assert sweep.scores[0, k] == accuracy_score(truth, predicted)
        values = Ridge().fit(X[train, 1], labels[train]).predict(X[test, 1])
        expected = r2_score(truth, [values[rows].mean() for rows in own])
        assert found[2].scores[0, k] == pytest.approx(expected)


def test_every_control_scores_sentences_and_the_text_says_so(tokens):
    X, y, sentences = tokens
    texts = [f"{number} {'word ' * (number % 5)}" for number in sentences]
    acts = ActivationSet.from_arrays(hidden_states=X, sentences=texts)
    options = {"cv": 4, "n_repeats": 1, "n_permutations": 9, "aggregate": "rolling_mean_max"}

    found = layer_sweep(None, acts, y, **options)

    assert {"majority", "sentence length", "TF-IDF"} == set(found.baselines)
    counts = [len(np.unique(sentences[y == label])) for label in (0, 1)]
    assert found.baselines["majority"].mean == pytest.approx(max(counts) / 40, abs=0.15)
    assert found.permutation_scores.shape == (9, 2)
    assert "the largest rolling mean (window 5) of the decisions for their tokens" in (
        found.methods_text()
    )
    plain = layer_sweep(None, acts, y, **{**options, "aggregate": None})
    assert plain.scores.tolist() != found.scores.tolist()


def test_tokens_that_repeat_are_solved_where_they_outnumber_columns(tokens):
    X, y, sentences = tokens
    X = np.concatenate([X, X[:60]])
    y, sentences = np.concatenate([y, y[:60]]), np.concatenate([sentences, sentences[:60]])
    options = {**OPTIONS, "groups": sentences, "aggregate": "max", "scoring": "roc_auc"}

    ours = layer_sweep(LOGISTIC, X, y, **options)
    theirs = layer_sweep(LOGISTIC, X, y, solver="scikit-learn", **options)

    np.testing.assert_allclose(ours.scores, theirs.scores, atol=0.02)


BAD = {
    "name": ({"aggregate": "median"}, "must be one of mean, max, rolling_mean_max, top_k_mean"),
    "alone": ({"aggregate_params": {"k": 2}}, "needs aggregate"),
    "parameter": (
        {"aggregate": "top_k_mean", "aggregate_params": {"window": 2}},
        "has no parameter 'window'; it takes k",
    ),
    "value": (
        {"aggregate": "top_k_mean", "aggregate_params": {"k": 0}},
        "k must be a whole number from 1, got 0",
    ),
    "scorer": (
        {"aggregate": "max", "scoring": lambda model, X, y: 1.0},
        "looks at rows",
    ),
    "rows": ({"aggregate": "max", "groups": None}, "each of the .* rows is a sentence by itself"),
    "labels": ({"aggregate": "max", "y": "mixed"}, "needs one y for all tokens of a sentence"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_aggregated_is_refused(tokens, name):
    X, y, sentences = tokens
    options, message = BAD[name]
    options = {**OPTIONS, "groups": sentences, "y": y, **options}
    y = np.arange(len(X)) % 2 if isinstance(options["y"], str) else y

    with pytest.raises(UsageError, match=message):
        layer_sweep(None, X, **{**options, "y": y})


def test_a_model_that_only_predicts_is_refused(tokens):
    X, y, sentences = tokens

    voting = VotingClassifier([("one", LogisticRegression())], voting="hard")

    with pytest.raises(UsageError, match="VotingClassifier has neither decision_function nor"):
        layer_sweep(voting, X, y, groups=sentences, aggregate="mean", **OPTIONS)
