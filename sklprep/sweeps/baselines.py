"""Baselines: models that see no activations, scored on the same folds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

from sklprep.activations.activation_set import ActivationSet
from sklprep.sweeps.confounds import measure_sentences
from sklprep.sweeps.problem import Problem, default_model

_OF_SECOND_CLASS = ("f1", "precision", "recall", "jaccard", "average_precision")


class Rival(NamedTuple):
    """A model that sees no activations, and what it sees."""

    model: Any
    X: NDArray[Any]
    solves: bool = False


def make_rivals(problem: Problem, confounds: NDArray[np.float64] | None = None) -> dict[str, Rival]:
    """Make the baselines: majority class or mean; confounds; length and words of sentences."""
    classify, nothing = problem.classify, np.zeros((len(problem.y), 1))
    rivals = (
        {name: Rival(model, nothing) for name, model in _make_constant(problem).items()}
        if classify
        else {"mean": Rival(DummyRegressor(), nothing)}
    )
    model = default_model(classify)
    knows = problem.knows(model)
    if confounds is not None:
        rivals["confounds"] = Rival(model, confounds, knows)
    sentences = sentences_of(problem.acts)
    if sentences is None:
        return rivals
    rivals["sentence length"] = Rival(model, measure_sentences(sentences), knows)
    tfidf = TfidfVectorizer()
    if any(map(tfidf.build_analyzer(), sentences.tolist())):
        last = default_model(classify).steps[-1][1]
        rivals["TF-IDF"] = Rival(make_pipeline(tfidf, last), sentences)
    return rivals


def _make_constant(problem: Problem) -> dict[str, Any]:
    """Make classifiers that ignore X.

    They predict the largest class. Where its score is 0 by definition, as for precision and recall,
    they predict the second of two classes instead; for averages of such scores, random labels too.
    """
    name = problem.scoring.name
    if problem.scoring.fpr is not None:
        return {}  # the recall of chance is the false-positive rate
    if name in _OF_SECOND_CLASS:
        second = np.unique(problem.y)[1]
        return {f"always {second}": DummyClassifier(strategy="constant", constant=second)}
    majority = {"majority": DummyClassifier(strategy="most_frequent")}
    if name.rpartition("_")[0] in _OF_SECOND_CLASS:
        majority["random labels"] = DummyClassifier(strategy="stratified", random_state=0)
    return majority


def sentences_of(acts: Any) -> NDArray[np.str_] | None:
    return acts.sentences if isinstance(acts, ActivationSet) else None
