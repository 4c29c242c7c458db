"""Recall at a fixed false-positive rate in a sweep: thresholds from the inner folds alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import InsufficientDataError
from sklprep.sweeps.design import Design, InputScores, SharedFolds
from sklprep.sweeps.fitting import Fitted
from sklprep.sweeps.operating_point import NAME, find_threshold, negatives_needed, smallest_rate
from sklprep.sweeps.problem import Problem

_RECALL, _RATE, _INNER = range(3)


def require_negatives(design: Design, problem: Problem, fpr: float) -> None:
    """Raise `InsufficientDataError` unless the inner folds hold out enough negatives."""
    negatives = problem.y == np.unique(problem.y)[0]
    held_out = [
        negatives[rows] for repeat in design.repeats for rows in repeat.inner_rows() if len(rows)
    ]
    fewest, needed = min(int(mask.sum()) for mask in held_out), negatives_needed(fpr)
    if fewest < needed:
        total = math.ceil(needed * negatives.sum() / max(fewest, 1))
        raise InsufficientDataError(
            f"{NAME} calibrates its threshold within each outer training set, and a rate of {fpr:g}"
            f" needs {needed:,} negatives there; the smallest has {fewest:,}. Add negatives (about"
            f" {total:,} in all instead of {int(negatives.sum()):,}), or use"
            f" scoring='{NAME}={smallest_rate(fewest)}'."
        )


def read_detections(shared: SharedFolds, fitted: list[list[Fitted]], fpr: float) -> InputScores:
    """Read the results of `training_sets`: recall at the threshold that the inner folds calibrate.

    In each outer fold, for each candidate and labeling, the threshold is calibrated on the rows
    that the inner folds held out. The candidate with the largest recall on these rows is chosen.
    """
    positive = shared.labels == np.unique(shared.labels[0])[1]
    folds = [
        _read_fold(positive, fold[1], of_fold[0], held_out, fpr)
        for fold, of_fold, held_out in zip(
            shared.folds, fitted, shared.held_out(fitted), strict=True
        )
    ]
    figures = np.array(folds)  # (n_folds, 3, n_candidates, n_labelings)
    chosen = np.argmax(figures[:, _INNER], axis=1)
    taken = np.take_along_axis(figures, chosen[:, np.newaxis, np.newaxis], axis=2)[:, :, 0]
    return InputScores(
        scores=taken[:, _RECALL, 0],
        inner=taken[:, _INNER, 0],
        candidates=chosen[:, 0],
        seconds=np.array([of_fold[0].seconds for of_fold in fitted]),
        permuted=taken[:, _RECALL, 1:].mean(axis=0),
        others=np.empty((0, len(fitted))),
        false_positive_rates=taken[:, _RATE, 0],
    )


def _read_fold(
    positive: NDArray[np.bool_],
    test: NDArray[np.int64],
    outer: Fitted,
    held_out: list[tuple[NDArray[np.int64], Fitted, int]],
    fpr: float,
) -> NDArray[np.float64]:
    """Give recall and rate on the test rows, and recall on the rows that inner folds held out."""
    rows = np.concatenate([rows for rows, _, _ in held_out])
    values = np.concatenate([fit.decisions[t] for _, fit, t in held_out], axis=-1)
    figures = np.empty((3, *values.shape[:2]))
    for c, labeling in np.ndindex(*values.shape[:2]):
        known, decided = positive[labeling, rows], values[c, labeling]
        threshold = find_threshold(decided[~known], fpr)
        found, true = outer.decisions[0][c, labeling] > threshold, positive[labeling, test]
        figures[:, c, labeling] = (
            found[true].mean(),
            found[~true].mean(),
            (decided[known] > threshold).mean(),
        )
    return figures
