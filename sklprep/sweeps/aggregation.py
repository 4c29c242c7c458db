"""Scores of sentences, combined from the decisions of a model that sees one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import UsageError
from sklprep.sweeps.fitting import Answers, is_made_scorer
from sklprep.sweeps.problem import Problem

Combine = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From shape (n_sentences, n_tokens, ...), NaN after the last token of a sentence, to
(n_sentences, ...)."""


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nanmean(values, axis=1)


def _max(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.nanmax(values, axis=1)


def _rolling_mean_max(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Largest mean of `window` consecutive tokens; of a shorter sentence, the mean of all."""
    n_tokens = (~np.isnan(values)).sum(axis=1)
    window = min(window, values.shape[1])
    sums = np.cumsum(np.nan_to_num(values), axis=1)
    sums = np.concatenate([np.zeros_like(sums[:, :1]), sums], axis=1)
    means = (sums[:, window:] - sums[:, :-window]) / window
    ends = window + np.arange(means.shape[1])
    within = np.moveaxis(n_tokens[..., np.newaxis] >= ends, -1, 1)
    largest = np.where(within, means, -np.inf).max(axis=1)
    return np.where(n_tokens < window, _mean(values), largest)


def _top_k_mean(values: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Mean of the k largest values; of a shorter sentence, the mean of all."""
    return _mean(-np.sort(-values, axis=1)[:, :k])


class _Method(NamedTuple):
    """A way to combine values, its parameters with their defaults, and its description."""

    combine: Callable[..., NDArray[np.float64]]
    parameters: dict[str, int]
    words: str


_METHODS = {
    "mean": _Method(_mean, {}, "mean"),
    "max": _Method(_max, {}, "maximum"),
    "rolling_mean_max": _Method(
        _rolling_mean_max, {"window": 5}, "largest rolling mean (window {window})"
    ),
    "top_k_mean": _Method(_top_k_mean, {"k": 5}, "mean of the {k} largest"),
}
AGGREGATES = tuple(_METHODS)


class SentenceScores:
    """Turns a model's answers about tokens into answers about sentences.

    Parameters
    ----------
    sentences : ndarray of shape (n_samples,), int
        Sentence of each row.
    method : str
        One of `AGGREGATES`.
    parameters : dict of str to int

    Examples
    --------
    >>> import numpy as np
    >>> scores = SentenceScores(np.array([7, 7, 9]), "max", {})
    >>> scores.combine(np.array([0.1, 0.5, -1.0]), rows=np.arange(3))
    array([ 0.5, -1. ])
    """

    def __init__(
        self, sentences: NDArray[np.int64], method: str, parameters: Mapping[str, int]
    ) -> None:
        self.sentences, self.method, self.parameters = sentences, method, dict(parameters)
        self._combine: Combine = partial(_METHODS[method].combine, **parameters)

    def __call__(
        self, answers: Answers, rows: NDArray[np.int64], y: NDArray[Any]
    ) -> tuple[Answers, NDArray[Any]]:
        """Give the answers about the sentences of some rows, and their y."""
        first = np.unique(self.sentences[rows], return_index=True)[1]
        return _SentenceAnswers(answers, partial(self.combine, rows=rows)), y[first]

    def __str__(self) -> str:
        words = _METHODS[self.method].words.format(**self.parameters)
        return f"the {words} of the decisions for their tokens"

    def combine(self, values: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Combine values of tokens, one per row or one per row and class, by sentence."""
        _, numbers, counts = np.unique(
            self.sentences[rows], return_inverse=True, return_counts=True
        )
        order = np.argsort(numbers.reshape(-1), kind="stable")
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        shape = len(counts), int(counts.max()), *values.shape[1:]
        table = np.full(shape, np.nan)
        table[numbers.reshape(-1)[order], within] = values[order]
        return self._combine(table)


class _SentenceAnswers(Answers):
    """Answers about sentences: the decisions or probabilities for their tokens, combined.

    With two classes, the second is predicted where the combined decision is positive; with more,
    the one with the largest. Probabilities are divided by their sum.
    """

    def __init__(self, tokens: Answers, combine: Combine) -> None:
        super().__init__(tokens.model, None)
        self._tokens, self._combine = tokens, combine

    def _answer(self, method: str, rows: NDArray[np.int64]) -> Any:
        return self._values(method)[rows]

    def _values(self, method: str) -> NDArray[Any]:
        if method not in self.given:
            is_decided = method == "predict" and hasattr(self, "classes_")
            self.given[method] = self._decide() if is_decided else self._combined(method)
        return self.given[method]

    def _decide(self) -> NDArray[Any]:
        has_decisions = hasattr(self, "decision_function")
        values = self._values("decision_function" if has_decisions else "predict_proba")
        codes = values > 0 if values.ndim == 1 else values.argmax(axis=1)
        return np.asarray(self.classes_)[codes.astype(np.intp)]

    def _combined(self, method: str) -> NDArray[np.float64]:
        tokens = self._tokens
        if not hasattr(tokens, method):
            raise UsageError(
                f"aggregate combines the decisions of tokens, and {type(self.model).__name__} has"
                " neither decision_function nor predict_proba. Choose another model."
            )
        values = self._combine(getattr(tokens.model, method)(tokens.X))
        return values / values.sum(axis=1, keepdims=True) if method == "predict_proba" else values


def read_aggregate(
    problem: Problem, method: Any, parameters: Any, *, permutes: bool
) -> SentenceScores | None:
    """Read the parameters `aggregate` and `aggregate_params` of `layer_sweep`."""
    if method is None:
        if parameters is not None:
            raise UsageError("aggregate_params needs aggregate; give that too.")
        return None
    if method not in AGGREGATES:
        raise UsageError(f"aggregate must be one of {', '.join(AGGREGATES)}, got {method!r}.")
    usual = _METHODS[method].parameters
    given = dict(parameters or {})
    for name, value in given.items():
        if name not in usual:
            takes = f"it takes {', '.join(usual)}" if usual else "it takes none"
            raise UsageError(f"aggregate={method!r} has no parameter {name!r}; {takes}.")
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise UsageError(
                f"aggregate_params: {name} must be a whole number from 1, got {value}."
            )
    if not is_made_scorer(problem.scoring.scorer):
        raise UsageError(
            f"aggregate scores sentences, and scoring={problem.scoring.name} looks at rows. Use a"
            " scorer of scikit-learn, by its name or from make_scorer."
        )
    sentences = _number_sentences(problem)
    _require_constant(problem.y, sentences, "sentence", "score tokens, without aggregate")
    if permutes:
        _require_constant(problem.y, problem.groups, "group", "use n_permutations=0")
    return SentenceScores(sentences, method, usual | given)


def _number_sentences(problem: Problem) -> NDArray[np.int64]:
    """Number the sentence of each row; of an array, its group."""
    acts, numbers = problem.acts, problem.groups
    if isinstance(acts, ActivationSet):
        parts = [acts.sentence_indices]
        if acts.sources is not None:  # several sets number from 0
            parts.append(np.unique(acts.sources, return_inverse=True)[1].reshape(-1))
        numbers = np.unique(np.stack(parts), axis=1, return_inverse=True)[1].reshape(-1)
    if len(np.unique(numbers)) == len(numbers):
        raise UsageError(
            f"aggregate scores sentences from their tokens, and each of the {len(numbers)} rows is"
            " a sentence by itself. Load tokens as rows with pooling='none', or give an array's"
            " sentences as groups."
        )
    return numbers


def _require_constant(y: NDArray[Any], units: NDArray[np.int64], name: str, do: str) -> None:
    _, first, numbers = np.unique(units, return_index=True, return_inverse=True)
    varied = np.unique(units[y != y[first][numbers.reshape(-1)]])
    if len(varied):
        raise UsageError(
            f"aggregate needs one y for all tokens of a {name}, and {len(varied)} of {len(first)}"
            f" {name}s have several. Give each {name} one, or {do}."
        )
