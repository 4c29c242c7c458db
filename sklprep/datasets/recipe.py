"""The recipe of a dataset, checked before any activations are read."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.arrays import to_numpy
from sklprep.activations.twins import FLATTERED, find_near_texts
from sklprep.datasets.provenance import Provenance
from sklprep.exceptions import SklprepWarning, UsageError
from sklprep.formats.members import Members

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a dataset is made, checked against a set whose activations have not been read.

    Attributes
    ----------
    selector : LayerSelector or SAEFeatureSelector
        Fitted on the whole set.
    pipeline : Pipeline
        Starts with `selector`; the other steps are not fitted.
    target : estimator
        Fitted on the whole set.
    strategy : str
        Name of the strategy.
    fit_rows : ndarray of int64, or None
        Row positions to fit on; None means all rows.
    provenance : Provenance
        What the dataset is made of.
    n_rows : int
        Number of rows.
    """

    selector: Any
    pipeline: Pipeline
    target: Any
    strategy: str
    fit_rows: NDArray[np.int64] | None
    provenance: Provenance
    n_rows: int

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the output of the selector, which is that of X if `is_by_rows`."""
        return self.n_rows, self.selector.n_features_out_

    @property
    def n_bytes(self) -> int:
        """Bytes of an X of this shape, nearly all of a dataset."""
        return math.prod(self.shape) * np.dtype(np.float32).itemsize

    @property
    def is_by_rows(self) -> bool:
        """Whether fitting and transforming block by block gives the same bits as all at once."""
        from sklprep.transformers.normalizers import ActivationNormalizer

        rest = [step for _, step in self.pipeline.steps[1:]]
        return not rest or (len(rest) == 1 and isinstance(rest[0], ActivationNormalizer))

    def find_members(self, rows: ActivationSet) -> Members:
        """Return the members to read of a set with the rows of `make_recipe`."""
        read: Members = self.selector.find_members(rows)
        if not hasattr(self.target, "find_members"):  # a custom target
            return read
        return read | self.target.find_members(rows)


def make_recipe(
    acts: ActivationSet,
    pipeline: Pipeline,
    target: BaseEstimator,
    *,
    strategy: str,
    fit_rows: ArrayLike | None,
) -> Recipe:
    """Check pipeline, target and rows against a set, and fit selector and target on it.

    Raises
    ------
    SklprepError
        As `LayerSelector`, the target extractors and `read_fit_rows`.
    """
    from sklearn.base import clone

    pipeline = clone(pipeline).set_output(transform="default")
    selector = pipeline[0].fit(acts)
    target = clone(target).fit(acts)
    train = None if fit_rows is None else read_fit_rows(fit_rows, acts.groups)
    made_of = Provenance.of(acts, pipeline, target, strategy=strategy, fit_rows=train)
    return Recipe(selector, pipeline, target, strategy, train, made_of, len(acts))


def split_rows(
    acts: ActivationSet, test_size: float, random_state: int, *, stratify: bool = False
) -> NDArray[np.int64]:
    """Return the row positions that `train_test_split` with these arguments puts into training.

    A group that would be split, such as sentences with the same text, goes to the side of its first
    row.

    Warns
    -----
    SklprepWarning
        If texts on different sides are near-duplicates.

    Raises
    ------
    UsageError
        If the rows cannot be split in this way.
    """
    from sklearn.model_selection import train_test_split

    labels = acts.labels if stratify else None
    try:
        train, _ = train_test_split(
            np.arange(len(acts)), test_size=test_size, random_state=random_state, stratify=labels
        )
    except ValueError as error:
        raise UsageError(f"The rows cannot be split with test size {test_size}: {error}") from None
    groups = acts.groups
    first, numbers = np.unique(groups, return_index=True, return_inverse=True)[1:]
    if len(first) < len(groups):
        is_train = np.zeros(len(groups), bool)
        is_train[train] = True
        train = np.flatnonzero(is_train[first][numbers.reshape(-1)])
    if not 0 < len(train) < len(groups):
        raise UsageError(
            f"The rows cannot be split with test size {test_size}: the {len(first)} groups, such as"
            " sentences of one text, stay together, and all of them fell on one side."
        )
    _warn_of_near_texts(acts, train)
    return train


def _warn_of_near_texts(acts: ActivationSet, train: NDArray[np.int64]) -> None:
    if acts.sentences is None:
        return
    side = np.ones(len(acts), np.int64)
    side[train] = 0
    near = find_near_texts(acts.sentences, side)
    if near is not None:
        warnings.warn(
            f"{near.n_near:,} of {near.n_compared:,} texts nearly repeat one on the other side of"
            f" the split, such as {near.example}: {FLATTERED}. Give groups=..., or leave them out.",
            SklprepWarning,
            stacklevel=3,
        )


def read_fit_rows(fit_rows: ArrayLike, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Read row positions to fit on.

    Raises
    ------
    UsageError
        If they are not row positions, or share a group with the other rows.
    """
    rows = to_numpy(fit_rows, "fit_rows")
    n = len(groups)
    if rows.dtype.kind not in "iu" or rows.ndim != 1 or not len(rows):
        raise UsageError(
            f"fit_rows must be a non-empty array of row positions, got {rows.dtype} of shape"
            f" {rows.shape}."
        )
    if rows.min() < 0 or rows.max() >= n or len(np.unique(rows)) != len(rows):
        raise UsageError(f"fit_rows must be distinct row positions from 0 to {n - 1}.")
    straddling = np.intersect1d(groups[rows], np.delete(groups, rows))
    if len(straddling):
        raise UsageError(
            f"{len(straddling)} groups, such as tokens of one sentence, straddle the split between"
            f" training and test rows (first: group {straddling[0]}), so the test rows would not be"
            " unseen. Split by group, for example with GroupShuffleSplit on acts.groups, and give"
            " generate_dataset the training rows as fit_rows."
        )
    return rows.astype(np.int64)
