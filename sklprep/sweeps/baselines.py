"""Baselines: models that see no activations, scored on the same folds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

from sklprep.activations.activation_set import ActivationSet
from sklprep.sweeps.confounds import measure_sentences
from sklprep.sweeps.folds import Fold
from sklprep.sweeps.problem import Problem, default_model

_OF_SECOND_CLASS = ("f1", "precision", "recall", "jaccard", "average_precision")

_MOST_WEIGHTS = 5_000_000
"""TF-IDF weights of a fold that may be written out for the solver, zeros included: 40 MB. More
words or sentences stay sparse, and scikit-learn fits them."""


class Rival(NamedTuple):
    """A model that sees no activations, and what it sees.

    Attributes
    ----------
    sees : callable or None
        Makes of X and the positions of training rows what is fitted and scored.
    solves : bool
        Whether the solver knows the model and the scores.
    """

    model: Any
    X: Any
    sees: Callable[[Any, NDArray[np.int64]], Any] | None = None
    solves: bool = False


def make_rivals(problem: Problem, confounds: NDArray[np.float64] | None = None) -> dict[str, Rival]:
    """Make the baselines: majority class or mean; confounds; length and words of sentences."""
    nothing = np.zeros((len(problem.y), 1))
    rivals = {name: Rival(model, nothing) for name, model in _make_constant(problem).items()}
    model = default_model(problem.classify)
    knows = problem.knows(model)
    if confounds is not None:
        rivals["confounds"] = Rival(model, confounds, solves=knows)
    sentences = sentences_of(problem.acts)
    if sentences is None:
        return rivals
    rivals["sentence length"] = Rival(model, measure_sentences(sentences), solves=knows)
    counts = _count_words(sentences)
    if counts is not None:
        small = counts.shape[0] * counts.shape[1] <= _MOST_WEIGHTS
        sees = partial(weigh_words, dense=small)
        rivals["TF-IDF"] = Rival(model[-1], counts, sees, small and knows)
    return rivals


def _make_constant(problem: Problem) -> dict[str, Any]:
    """Make models that ignore X, for each of the scores.

    They predict the largest class of all rows: that of the training rows would often be another
    one where folds are not stratified, and always the wrong one where one row of two equal classes
    is left out. Where its score is 0 by definition, as for precision and recall, they predict the
    second of two classes instead; for averages of such scores, random labels too.
    """
    if not problem.classify:
        return {"mean": DummyRegressor()}
    if problem.scoring.fpr is not None:
        return {}  # the recall of chance is the false-positive rate
    values = np.unique(problem.y)
    found: dict[str, Any] = {}
    for name in (one.name for one in (problem.scoring, *problem.other_scorings)):
        if name in _OF_SECOND_CLASS:
            found[f"always {values[1]}"] = _always(values[1])
            continue
        found["majority"] = _always(_commonest(problem.y))
        if name.rpartition("_")[0] in _OF_SECOND_CLASS:
            found["random labels"] = DummyClassifier(strategy="stratified", random_state=0)
    return found


def score_majority(problem: Problem, rows: NDArray[np.int64], folds: list[Fold]) -> float:
    """Give the mean score over folds of always predicting the commonest label of some rows."""
    y = problem.y[rows]
    nothing = np.zeros((len(problem.y), 1))
    model = _always(_commonest(y)).fit(nothing[: len(y)], y)
    tests = [np.intersect1d(test, rows, assume_unique=True) for _, test in folds]
    return float(np.mean([problem.scoring.scorer(model, nothing[t], problem.y[t]) for t in tests]))


def _commonest(y: NDArray[Any]) -> Any:
    values, counts = np.unique(y, return_counts=True)
    return values[counts.argmax()]


def _always(label: Any) -> DummyClassifier:
    return DummyClassifier(strategy="constant", constant=[label])


def _count_words(sentences: NDArray[np.str_]) -> Any:
    """Count the words of each sentence; None where there is not a word in any."""
    try:
        return CountVectorizer().fit_transform(sentences)
    except ValueError:
        return None


def weigh_words(counts: Any, train: NDArray[np.int64], *, dense: bool) -> Any:
    """Give the TF-IDF of word counts, with the words and the weights of the training rows.

    It is what `TfidfVectorizer` gives that was fitted on their sentences.

    Parameters
    ----------
    counts : CSR of shape (n_sentences, n_words)
    train : ndarray of int
    dense : bool
        Whether to give an ndarray.

    Returns
    -------
    CSR or ndarray of shape (n_sentences, n_known_words), float64
    """
    known = counts[:, np.flatnonzero(counts[train].sum(axis=0))]
    weights = TfidfTransformer().fit(known[train]).transform(known)
    return weights.toarray() if dense else weights


def sentences_of(acts: Any) -> NDArray[np.str_] | None:
    return acts.sentences if isinstance(acts, ActivationSet) else None
