"""The scores of a sweep in one table: their titles, their bounds and how they are made.

Scorers that scikit-learn does not have, for ordered labels and for targets that are mostly zero,
are made here by `make_scorer`, so that they look at nothing but a model's answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer_names, make_scorer, roc_auc_score

from sklprep.exceptions import UsageError
from sklprep.sweeps.intervals import corrected_t, exact_interval
from sklprep.sweeps.operating_point import read_rate

_NO_BOUNDS = (-np.inf, np.inf)


class Score(NamedTuple):
    """Properties of a score.

    Attributes
    ----------
    title : str
        How it is written for people; empty if that is its name.
    bounds : (float, float)
        Its smallest and its largest value.
    is_of_spread : bool
        Whether it is relative to the spread of y in the test rows, and so undefined if they are all
        equal; scikit-learn gives 0 or 1 then.
    is_pooled : bool
        Whether its scorer gives minus a fold's squared errors, which `pool` turns into a score.
    make : callable or None
        Makes the scorer from the target and whether it is classified; None if scikit-learn has it.
    """

    title: str = ""
    bounds: tuple[float, float] = _NO_BOUNDS
    is_of_spread: bool = False
    is_pooled: bool = False
    make: Callable[[NDArray[Any], bool], Any] | None = None


def scorer_names() -> list[str]:
    """List the names that `scoring` takes: those of scikit-learn and of this module."""
    return sorted({*get_scorer_names(), *(name for name, one in SCORES.items() if one.make)})


def score_of(name: str) -> Score:
    return SCORES.get(name, Score())


_BY_CLASS = ("roc_auc", "average_precision", "balanced_accuracy", "f1", "precision", "recall")


def weighs_classes(name: str) -> bool:
    """Whether a score weighs classes, however few rows they have, rather than rows.

    Examples
    --------
    >>> weighs_classes("roc_auc_ovr"), weighs_classes("accuracy"), weighs_classes("spearman")
    (True, False, False)
    """
    return name.startswith(_BY_CLASS) and not name.startswith("recall_at_fpr")


def weighs_active(name: str) -> bool:
    """Whether a score of quantities depends on how many of them are not zero."""
    return name in ("pooled_r2", "roc_auc_active")


def name_score(name: str) -> str:
    """Write a scorer's name for people.

    Examples
    --------
    >>> name_score("r2"), name_score("f1_macro"), name_score("recall_at_fpr=0.05")
    ('R2', 'f1 macro', 'recall at 5 % false positives')
    """
    if (fpr := read_rate(name)) is not None:
        return f"recall at {100 * fpr:g} % false positives"
    return score_of(name).title or name.replace("_", " ")


def interval_of_scores(
    scores: NDArray[np.float64], ratio: float, scoring: str, n_groups: int
) -> tuple[float, float]:
    """Give the 95 % interval of a mean score: the corrected t, or exact if accuracy is 0 or 1.

    Parameters
    ----------
    scores : ndarray of shape (n_repeats * n_folds,)
    ratio : float
        As `size_ratio`.
    scoring : str
    n_groups : int
        Of the rows that are scored.
    """
    if scoring == "accuracy" and scores.min() == scores.max() and scores[0] in (0, 1):
        return exact_interval(bool(scores[0]), n_groups)
    low, high = corrected_t(scores, ratio)
    least, largest = score_of(scoring).bounds
    return max(low, least), min(high, largest)


def find_scorer(name: str, y: NDArray[Any], *, classify: bool) -> Any:
    """Make one of this module's scorers for a target; None if it has no scorer of that name.

    Parameters
    ----------
    name : str
        ``"quadratic_kappa"``: Cohen's kappa with quadratic weights. What a regressor predicts is
        rounded and clipped to the labels of `y`.
        ``"spearman"``: rank correlation of y with the predictions of a regressor, or with the
        expected label (the sum of probability times label) of a classifier; with its predicted
        label where it has no probabilities.
        ``"roc_auc_active"``: area under the ROC curve where "active", y other than 0, is ranked
        by the same numbers as for ``"spearman"``.
        ``"pooled_r2"``: 1 - PRESS / SS over all test rows, with SS around the means of the training
        rows.
    y : ndarray of shape (n_samples,)
        The whole target, which determines what labels there are.
    classify : bool

    Raises
    ------
    UsageError
        If the score does not apply to `y`.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> X, y = np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([0, 1, 2, 3])
    >>> scorer = find_scorer("spearman", y, classify=False)
    >>> scorer(Ridge().fit(X, y), X, y)
    1.0
    """
    make = score_of(name).make
    if make is None:
        return None
    if y.dtype.kind not in "biuf":
        raise UsageError(
            f"scoring={name!r} needs labels that are numbers, and y holds text such as"
            f" {str(y[0])!r}. Give the labels as numbers in their order, or choose another scoring."
        )
    return make(y, classify)


def pool(
    errors: NDArray[np.float64],
    labels: NDArray[Any],
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> NDArray[np.float64]:
    r"""Turn the squared errors of folds into scores whose mean is 1 - PRESS / SS.

    Parameters
    ----------
    errors : ndarray of shape (n_folds, ..., n_labelings)
        Minus the sum of squared errors of each test fold.
    labels : ndarray of shape (n_labelings, n_samples)
    folds : list of (ndarray, ndarray)
        Positions of training and of test rows.

    Returns
    -------
    ndarray of the shape of `errors`

    Notes
    -----
    With :math:`E_k` the squared errors of fold k and :math:`S_k` those of the mean of its training
    rows, the score of a fold is :math:`K (S_k - E_k) / \sum_j S_j`: what its squared errors fall
    short of those of the mean. It stays moderate in a fold with few rows that are not zero, where
    :math:`1 - E_k / S_k` has no lower bound. :math:`1 - K E_k / \sum_j S_j`, which has the same
    mean, would vary with the rows that a fold happens to have, and make intervals three times as
    wide.

    Examples
    --------
    >>> y, folds = np.array([[0.0, 1.0, 2.0, 3.0]]), [(np.arange(2), np.arange(2, 4))]
    >>> pool(np.array([[-8.5]]), y, folds)  # of the training mean, 0.5
    array([[0.]])
    """
    spreads = [
        np.square(labels[:, test] - labels[:, train].mean(axis=1, keepdims=True)).sum(axis=1)
        for train, test in folds
    ]
    spread = np.array(spreads).reshape(len(folds), *(1,) * (errors.ndim - 2), -1)
    return (spread + errors) / spread.mean(axis=0)


def _make_kappa(y: NDArray[Any], classify: bool) -> Any:
    fractions = y[np.mod(y, 1) != 0] if y.dtype.kind == "f" else y[:0]
    if len(fractions):
        raise UsageError(
            f"scoring='quadratic_kappa' needs labels that are whole numbers, and y holds"
            f" {fractions[0]:g}. Use spearman or r2."
        )
    return make_scorer(quadratic_kappa, low=int(y.min()), high=int(y.max()))


def _make_press(y: NDArray[Any], classify: bool) -> Any:
    if classify:
        raise UsageError(
            "scoring='pooled_r2' is for quantities, which a classifier does not predict."
        )
    return make_scorer(_minus_squared_errors)


def _make_ranking(score: Callable[..., float]) -> Callable[[NDArray[Any], bool], Any]:
    def make(y: NDArray[Any], classify: bool) -> Any:
        if not classify:
            return make_scorer(score)
        asked = ("predict_proba", "predict")
        return make_scorer(score, response_method=asked, labels=np.unique(y).astype(float))

    return make


def quadratic_kappa(y: Any, predicted: Any, *, low: int, high: int) -> float:
    """Cohen's kappa with quadratic weights, over all labels from `low` to `high`.

    It needs no table of the labels: it is 1 - mean((y - p)^2) / mean over all pairs of rows.
    """
    y = np.asarray(y, np.float64)
    predicted = np.clip(np.rint(np.asarray(predicted, np.float64)), low, high)
    if np.ptp(y) == 0:
        return _undefined(f"y is {y[0]:g} in all rows")
    by_chance = y.var() + predicted.var() + (y.mean() - predicted.mean()) ** 2
    return float(1 - np.mean((y - predicted) ** 2) / by_chance)


def spearman(y: Any, answers: Any, *, labels: NDArray[np.float64] | None = None) -> float:
    """Rank correlation; 0 where all answers are equal, as they order nothing."""
    ranks, of_answers = rankdata(y), rankdata(_rank_by(answers, labels))
    if np.ptp(ranks) == 0:
        return _undefined("y is equal in all rows")
    if np.ptp(of_answers) == 0:
        return 0.0
    ranks, of_answers = ranks - ranks.mean(), of_answers - of_answers.mean()
    return float(ranks @ of_answers / np.sqrt((ranks @ ranks) * (of_answers @ of_answers)))


def roc_auc_active(y: Any, answers: Any, *, labels: NDArray[np.float64] | None = None) -> float:
    """Area under the ROC curve of "y is not 0"."""
    active = np.asarray(y) != 0
    if active.all() or not active.any():
        return _undefined(f"y is active (not zero) in {'all' if active.all() else 'no'} rows")
    return float(roc_auc_score(active, _rank_by(answers, labels)))


def _minus_squared_errors(y: Any, predicted: Any) -> float:
    return -float(np.square(np.asarray(y, np.float64) - predicted).sum())


def _rank_by(answers: Any, labels: NDArray[np.float64] | None) -> Any:
    """Give what ranks rows: the answers, or the expected label from several probabilities."""
    answers = np.asarray(answers)
    if answers.ndim == 1 or labels is None:  # of two classes there is one probability
        return answers
    if answers.shape[1] != len(labels):
        raise ValueError(
            f"the training rows have {answers.shape[1]} of the {len(labels)} classes of y"
        )
    return answers @ labels


def _undefined(why: str) -> float:
    warnings.warn(why, UndefinedMetricWarning, stacklevel=3)
    return float("nan")


_SHARE, _CORRELATION, _UP_TO_ONE = (0.0, 1.0), (-1.0, 1.0), (-np.inf, 1.0)

SCORES: dict[str, Score] = {
    "accuracy": Score(bounds=_SHARE),
    "balanced_accuracy": Score(bounds=_SHARE),
    "f1_macro": Score(bounds=_SHARE),
    "roc_auc": Score("ROC AUC", _SHARE),
    "roc_auc_ovr": Score("ROC AUC (one class against the others)", _SHARE),
    "quadratic_kappa": Score("quadratic kappa", _CORRELATION, is_of_spread=True, make=_make_kappa),
    "spearman": Score(
        "Spearman correlation", _CORRELATION, is_of_spread=True, make=_make_ranking(spearman)
    ),
    "roc_auc_active": Score("ROC AUC of active", _SHARE, make=_make_ranking(roc_auc_active)),
    "r2": Score("R2", _UP_TO_ONE, is_of_spread=True),
    "pooled_r2": Score("pooled R2", _UP_TO_ONE, is_pooled=True, make=_make_press),
    "explained_variance": Score(bounds=_UP_TO_ONE, is_of_spread=True),
    "d2_absolute_error_score": Score(bounds=_UP_TO_ONE, is_of_spread=True),
}
