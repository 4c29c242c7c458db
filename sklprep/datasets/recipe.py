"""A dataset settled before anything large is read: what it is made of, by what, of which rows."""

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
    """How a dataset is made, checked against a set of which nothing large has been read.

    Attributes
    ----------
    selector : LayerSelector or SAEFeatureSelector
        Fitted on the whole set.
    pipeline : Pipeline
        Starts with `selector`; its other steps are not fitted.
    target : estimator
        Fitted on the whole set.
    strategy : str
    fit_rows : ndarray of int64, or None
        Row positions to fit on; None is all rows.
    provenance : Provenance
    n_rows : int
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
        """Of what the selector gives; of X, too, where it `is_by_rows`."""
        return self.n_rows, self.selector.n_features_out_

    @property
    def n_bytes(self) -> int:
        """Bytes of that X, which are nearly all of a dataset."""
        return math.prod(self.shape) * np.dtype(np.float32).itemsize

    @property
    def is_by_rows(self) -> bool:
        """Whether fitting and transforming block by block gives the bits of all rows at once."""
        from sklprep.transformers.normalizers import ActivationNormalizer

        rest = [step for _, step in self.pipeline.steps[1:]]
        return not rest or (len(rest) == 1 and isinstance(rest[0], ActivationNormalizer))

    def find_members(self, rows: ActivationSet) -> Members:
        """What is read of a set, which may hold the rows of `make_recipe`'s, but other configs."""
        read: Members = self.selector.find_members(rows)
        if not hasattr(self.target, "find_members"):  # a target of other makers
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
        See `LayerSelector`, the target extractors and `read_fit_rows`.
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
    """Row positions that `train_test_split` with the same arguments puts into training.

    A group that it would tear apart, such as sentences of one text, goes where its first row is.

    Warns
    -----
    SklprepWarning
        If texts on both sides are near-duplicates.

    Raises
    ------
    UsageError
        If the rows cannot be split so.
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
            f"The rows cannot be split with test size {test_size}: {len(first)} groups, such as"
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
        If they are not positions, or share a group with the rows that are left out.
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
            f" training and test rows (group {straddling[0]} first), so the test rows would not be"
            " unseen. Split by group, for example with GroupShuffleSplit on acts.groups, and give"
            " generate_dataset the training rows as fit_rows."
        )
    return rows.astype(np.int64)
