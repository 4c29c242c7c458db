"""Recall at a fixed false-positive rate: a threshold, and its rates on other rows."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.activations.arrays import to_numpy
from sklprep.activations.values import read_values
from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.intervals import clopper_pearson

NAME = "recall_at_fpr"
"""Name of the scorer; ``"recall_at_fpr=0.05"`` asks for another rate than 1 %."""

USUAL_FPR = 0.01
_ROUNDING = 1e-9
"""Relative error of products such as 0.29 * 100, which is below 29."""


class OperatingPoint(NamedTuple):
    """Recall and false-positive rate of a threshold on rows that it was not calibrated on.

    Attributes
    ----------
    threshold : float
        A row is predicted positive if its score is above.
    recall, fpr : float
        Share of the positive and of the negative rows that are predicted positive.
    recall_interval, fpr_interval : (float, float)
        Their 95 % intervals by Clopper and Pearson (1934).
    n_positives, n_negatives : int
        Number of such rows or, with groups, of groups with such rows: the n of the intervals.
    """

    threshold: float
    recall: float
    recall_interval: tuple[float, float]
    fpr: float
    fpr_interval: tuple[float, float]
    n_positives: int
    n_negatives: int


def recall_at_fpr(
    y_true: ArrayLike,
    y_score: ArrayLike,
    *,
    calibration: tuple[ArrayLike, ArrayLike],
    fpr: float = USUAL_FPR,
    groups: ArrayLike | None = None,
) -> OperatingPoint:
    r"""Give the recall of a detector at a threshold that was calibrated on other rows.

    In sweeps it is a scorer by name: ``layer_sweep(..., scoring="recall_at_fpr")``, or
    ``"recall_at_fpr=0.05"`` for another rate than 1 %. The threshold of each outer fold is then
    calibrated on the rows that its inner folds held out.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        Labels of two classes; the larger one is positive.
    y_score : array-like of shape (n_samples,)
        Decisions of the detector, larger for the positive class.
    calibration : (array-like, array-like)
        Labels and scores of the rows that choose the threshold. The detector must not have been
        fitted on them: scores of training rows are farther apart than those of new rows.
    fpr : float, default=0.01
        False-positive rate to calibrate for, between 0 and 1.
    groups : array-like of shape (n_samples,), default=None
        Rows that belong together, such as tokens of a sentence. The intervals then count groups.

    Returns
    -------
    OperatingPoint

    Raises
    ------
    InsufficientDataError
        If there are fewer negatives to calibrate on than the rate needs, or there are not two
        classes.
    UsageError
        If `fpr` is not between 0 and 1, shapes do not match, or `calibration` has other classes.

    Notes
    -----
    With n negative calibration scores :math:`v_{(1)} \ge v_{(2)} \ge \dots`, the threshold is
    :math:`v_{(m)}` with :math:`m = \lfloor \mathtt{fpr} \, (n + 1) \rfloor`, and a row is predicted
    positive if its score is larger. So at most m - 1 of the n are false positives, always a share
    below `fpr`, and a new negative that is exchangeable with them is one with a probability of at
    most :math:`m / (n + 1) \le \mathtt{fpr}` [1]_, [2]_. That takes at least 1 / `fpr` - 1
    negatives, 99 for 1 %: with fewer, not even the largest score is high enough.

    References
    ----------
    .. [1] V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005.
    .. [2] X. Tong, Y. Feng, J. J. Li, "Neyman-Pearson classification algorithms and NP receiver
       operating characteristics", Science Advances 4, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep import recall_at_fpr
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], [400, 100])
    >>> held_out, test = rng.normal(2.0 * y), rng.normal(2.0 * y)
    >>> point = recall_at_fpr(y, test, calibration=(y, held_out), fpr=0.05)
    >>> point.recall, point.fpr
    (0.58, 0.0425)
    >>> [round(bound, 2) for bound in point.recall_interval]
    [0.48, 0.68]
    """
    require_rate(fpr)
    positive, scores, negative_class = _read(y_true, y_score, "y_true", "y_score")
    known, values, expected = _read(*calibration, "calibration[0]", "calibration[1]")
    if negative_class != expected:
        raise UsageError(
            f"y_true and calibration have different classes, of which {negative_class} and"
            f" {expected} are the negative ones; expected the same."
        )
    negatives = values[~known]
    if len(negatives) < negatives_needed(fpr):
        raise InsufficientDataError(
            f"A false-positive rate of {fpr:g} needs {negatives_needed(fpr):,} negatives to"
            f" calibrate on, got {len(negatives):,}. Add some, or use"
            f" fpr={smallest_rate(len(negatives))}."
        )
    threshold = find_threshold(negatives, fpr)
    found = scores > threshold
    numbers = np.arange(len(scores)) if groups is None else read_values(groups, "groups")
    n_positives, n_negatives = count_classes(positive, numbers)
    recall, rate = float(found[positive].mean()), float(found[~positive].mean())
    return OperatingPoint(
        threshold,
        recall,
        clopper_pearson(recall, n_positives),
        rate,
        clopper_pearson(rate, n_negatives),
        n_positives,
        n_negatives,
    )


def read_rate(scoring: Any) -> float | None:
    """Give the false-positive rate that a scorer asks for; None for other scorers.

    Examples
    --------
    >>> read_rate("recall_at_fpr"), read_rate("recall_at_fpr=0.05"), read_rate("recall")
    (0.01, 0.05, None)
    """
    if scoring in (NAME, recall_at_fpr):
        return USUAL_FPR
    if not isinstance(scoring, str) or not scoring.startswith(f"{NAME}="):
        return None
    try:
        fpr = float(scoring.removeprefix(f"{NAME}="))
    except ValueError:
        fpr = math.nan
    if not 0 < fpr < 1:
        raise UsageError(
            f"scoring={scoring!r} is not a rate; write the share of negatives that may be false"
            f" positives, as in scoring='{NAME}=0.05'."
        )
    return fpr


def require_rate(fpr: float) -> None:
    """Raise `UsageError` unless it is between 0 and 1."""
    if not 0 < fpr < 1:
        raise UsageError(f"fpr must be between 0 and 1, such as 0.01, got {fpr!r}.")


def negatives_needed(fpr: float) -> int:
    """Give the number of negatives needed to calibrate a threshold for a rate.

    Examples
    --------
    >>> negatives_needed(0.01), negatives_needed(0.05)
    (99, 19)
    """
    return math.ceil(1 / fpr * (1 - _ROUNDING)) - 1


def smallest_rate(n_negatives: int) -> str:
    """Write the smallest rate, to two digits, that this many negatives can calibrate.

    Examples
    --------
    >>> smallest_rate(80), smallest_rate(99)
    ('0.013', '0.01')
    """
    exact = 1 / (n_negatives + 1)
    unit = 10.0 ** (math.floor(math.log10(exact)) - 1)
    return f"{math.ceil(exact / unit * (1 - _ROUNDING)) * unit:.2g}"


def find_threshold(negatives: NDArray[np.float64], fpr: float) -> float:
    """Give the threshold for a rate; infinite if there are too few negatives for it.

    See the notes of `recall_at_fpr`.
    """
    m = math.floor(fpr * (len(negatives) + 1) * (1 + _ROUNDING))
    if m < 1:
        return math.inf
    return float(np.partition(negatives, len(negatives) - m)[len(negatives) - m])


def count_classes(positive: NDArray[np.bool_], groups: NDArray[Any]) -> tuple[int, int]:
    """Count the groups with positive rows, and those with negative rows."""
    return len(np.unique(groups[positive])), len(np.unique(groups[~positive]))


def _read(labels: Any, scores: Any, *names: str) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """Give which rows are positive, their scores, and the negative class."""
    y, values = read_values(labels, names[0]), to_numpy(scores, names[1])
    if y.ndim != 1 or y.shape != values.shape or values.dtype.kind not in "fiub":
        raise UsageError(
            f"{names[0]} and {names[1]} must be labels and numbers of one shape (n_samples,), got"
            f" {y.dtype} of shape {y.shape} and {values.dtype} of shape {values.shape}."
        )
    classes = np.unique(y)
    if len(classes) != 2:
        raise InsufficientDataError(
            f"{names[0]} has {len(classes)} classes; expected two. Make two of them, for example"
            f" with {names[0]} >= 2."
        )
    return y == classes[1], values.astype(np.float64), classes[0].item()
