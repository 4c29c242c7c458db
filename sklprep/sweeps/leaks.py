"""What would inflate the scores of a sweep: refused where it is certain, otherwise warned about.

Scores are valid if test rows are unseen. docs/leaks.md says what cannot be detected here, and why.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.duplicates import NEAR_ROWS, ROUNDING, Nearest, find_nearest, row_vectors
from sklprep.activations.twins import FLATTERED, MOST_COMPARED, find_near_texts
from sklprep.exceptions import SklprepWarning, UsageError
from sklprep.sweeps.inputs import InputSpec
from sklprep.sweeps.problem import Problem

_MOST_VALUES = 50_000_000
"""Values of a layer that are compared at most, 400 MB; some of the columns are enough for more."""

_FEWEST_COLUMNS = 16
"""Rows with fewer columns are not compared: of 1,000 independent rows of 8 columns, 40 pairs reach
the cosine of near-duplicates by chance; of 16 columns, none."""

_NO_CHANCE = 1e-6
"""Probability of so many nearest neighbours in sequence below which chance is ruled out."""


def require_unfitted(estimator: Any) -> None:
    """Refuse what stays fitted when it is cloned, as a frozen estimator does."""
    if not hasattr(estimator, "get_params"):
        return
    copy = clone(estimator)
    for part in [copy, *copy.get_params(deep=True).values()]:
        if hasattr(part, "fit") and not isinstance(part, type) and _is_fitted(part):
            raise UsageError(
                f"{' '.join(repr(part).split())} was fitted before and keeps what it learned, in"
                " part from what would be test rows, so that scores would be too high. Give the"
                " estimator unfitted: each fold fits it anew."
            )


def _is_fitted(part: Any) -> bool:
    if not hasattr(part, "__sklearn_tags__") or not part.__sklearn_tags__().requires_fit:
        return False
    try:
        check_is_fitted(part)
    except NotFittedError:
        return False
    return True


def warn_of_leaks(problem: Problem) -> None:
    """Warn of rows in different groups that seem to belong together."""
    acts, groups = problem.acts, problem.groups
    texts = acts.sentences if isinstance(acts, ActivationSet) else None
    messages = [*_find_torn(problem.own_groups, groups)]
    if texts is not None and np.any(texts != ""):
        messages += _find_near(texts, groups, acts.rows.source.place)
    else:
        messages += _find_alike(acts, problem.y, groups, problem.inputs)
    sources = acts.sources if isinstance(acts, ActivationSet) else None
    if sources is not None and problem.classify:
        messages += _find_told(sources, problem.y)
    for message in messages:
        warnings.warn(message, SklprepWarning, stacklevel=3)


def _find_torn(own: NDArray[np.int64], groups: NDArray[np.int64]) -> Iterator[str]:
    pairs = np.unique(np.stack([own, groups]), axis=1)
    n_torn = int((np.bincount(pairs[0]) > 1).sum())
    if n_torn:
        yield (
            f"groups puts rows of one sentence into several groups ({n_torn} of {own.max() + 1} in"
            " acts.groups): test rows have siblings in training, which raises scores. Leave groups"
            " out, or give every row of a sentence the same group."
        )


def _find_told(sources: NDArray[np.str_], y: NDArray[Any]) -> Iterator[str]:
    """Say whether the joined set that a row is from tells its label."""
    pairs = len(np.unique(np.stack([sources, y.astype(str)]), axis=1).T)
    if pairs == len(np.unique(sources)) > 1:
        yield (
            "each joined set has one label only, so the score may come from whatever else differs"
            " between the sets. Join sets that have both labels, or use transfer_matrix."
        )


def _find_near(texts: NDArray[np.str_], groups: NDArray[np.int64], place: Any) -> Iterator[str]:
    near = find_near_texts(texts, groups)
    if near is None:
        return
    command = f"sklprep inspect {shlex.quote(str(place))} --audit --groups-out groups.csv"
    yield (
        f"{near.n_near:,} of {near.n_compared:,} texts nearly repeat one of another group, such as"
        f" {near.example}: {FLATTERED}. Give groups=... that hold them together:"
        f" audit_activations(acts).groups{'' if place is None else f', or what {command} writes'}."
    )


def _find_alike(
    acts: Any, y: NDArray[Any], groups: NDArray[np.int64], inputs: list[InputSpec]
) -> Iterator[str]:
    """Compare rows, or the means of groups, in one input from the middle of the curve.

    Early layers encode little more than the token, so unrelated sentences have equal rows there.
    """
    inputs = [spec for spec in inputs if spec.layers]
    if not inputs:
        return
    spec = inputs[len(inputs) // 2]
    means, first = _average(spec.select(acts), groups)
    if means.shape[1] < _FEWEST_COLUMNS or len(means) < 2:
        return
    near = find_nearest(row_vectors(means), np.arange(len(means)), most=MOST_COMPARED)
    of = f"of {len(near.rows):,} {'rows' if len(means) == len(y) else 'groups of rows'}"
    where = spec if spec.is_sae else f"layer {spec}"
    # few SAE features are active, so unrelated rows are alike, and rows without any are equal
    least = 1 if spec.is_sae else NEAR_ROWS
    is_near = (near.cosines >= least - ROUNDING) & means[near.rows].any(axis=1)
    if n_near := int(is_near.sum()):
        i = int(np.where(is_near, near.cosines, -1).argmax())
        one, other = sorted(first[[near.rows[i], near.others[i]]].tolist())
        yield (
            f"{n_near:,} {of} repeat another one, or nearly (cosine of {where} at least"
            f" {least}), such as rows {one} and {other}: {FLATTERED}. Give groups=... that hold"
            " them together, or leave copies out."
        )
    n_beside, expected = _count_beside(near, y[first])
    # neighbours are mostly mutual, so pairs are counted instead of rows
    if stats.poisson.sf(n_beside / 2 - 1, expected / 2) < _NO_CHANCE:
        yield (
            f"{n_beside:,} {of} are nearest to the one before or after them (in {where}), where"
            f" chance gives {expected:.0f}: they seem to belong together, as tokens of one sentence"
            " or sentences of one text do, and a test row with siblings in training scores too"
            " high. Give groups=..., one for all rows that belong together."
        )


def _average(X: Any, groups: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give the mean row of each group, in the order of their first rows, and where these are."""
    step = -(-X.shape[0] * X.shape[1] // _MOST_VALUES)
    X = X[:, :: max(1, step)]
    X = X.toarray() if sparse.issparse(X) else X
    _, first, numbers, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.argsort(first)
    if len(first) < len(X):
        members = (np.ones(len(X)), (numbers.reshape(-1), np.arange(len(X))))
        X = (sparse.csr_array(members) @ X / sizes[:, np.newaxis])[order]
    return X, first[order]


def _count_beside(near: Nearest, y: NDArray[Any]) -> tuple[int, float]:
    """Count rows whose nearest is the one before or after; say how many chance would give.

    Rows of one label are nearer to each other, and may be sorted by it.
    """
    n_beside = int((np.abs(near.rows - near.others) == 1).sum())
    labels = y if y.dtype.kind != "f" else np.zeros(len(y))
    _, numbers, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    alike = np.pad(labels[1:] == labels[:-1], 1)
    of_label = (alike[1:].astype(int) + alike[:-1]) / np.maximum(1, sizes[numbers.reshape(-1)] - 1)
    chance = np.maximum(of_label, 2 / (len(y) - 1))
    return n_beside, float(chance[near.rows].sum())
