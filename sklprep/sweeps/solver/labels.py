"""Labels of many labelings as codes: the classes of each, and the weights of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.class_weight import compute_class_weight

from sklprep.exceptions import InsufficientDataError, UsageError
from sklprep.sweeps.solver.split import Split


@dataclass(frozen=True)
class Labelings:
    """Labelings of the training rows that have the same classes.

    Attributes
    ----------
    positions : ndarray of shape (n_labelings,)
        Which of all labelings they are.
    classes : ndarray of shape (n_classes,), sorted
    codes : ndarray of shape (n_labelings, n_train), int
        Positions in `classes`.
    """

    positions: NDArray[np.intp]
    classes: NDArray[Any]
    codes: NDArray[np.intp]

    def class_weights(
        self, class_weight: Any, sample_weight: NDArray[np.float64] | None
    ) -> NDArray[np.float64] | None:
        """Give the weight of each row by its class, (n_labelings, n_train), or None for equal ones.

        ``"balanced"`` is the sum of all weights divided by that of the class and by the number of
        classes, as in scikit-learn; a dict gives weights of classes, 1 for those it lacks.
        """
        if class_weight is None:
            return None
        if isinstance(class_weight, str):
            members = self.codes[:, np.newaxis] == np.arange(len(self.classes))[:, np.newaxis]
            counts = (members * (1.0 if sample_weight is None else sample_weight)).sum(axis=2)
            total = counts.sum(axis=1, keepdims=True)
            weights = total / (len(self.classes) * np.maximum(counts, np.finfo(float).tiny))
            return np.take_along_axis(weights, self.codes, axis=1)
        weights = compute_class_weight(class_weight, classes=self.classes, y=self.classes)
        return weights[self.codes]


def read_labels(split: Split, y: ArrayLike) -> tuple[int, Iterator[Labelings]]:
    """Read one labeling or many; give their number, and those with the same classes together.

    Parameters
    ----------
    split : Split
    y : array-like of shape (n_samples,) or (n_labelings, n_samples)
        Labels of all rows of X, of any type that sorts.

    Raises
    ------
    InsufficientDataError
        If the training rows of a labeling have one class only.
    UsageError
        If y has another shape.
    """
    labels = read_targets(split, y)
    values, codes = np.unique(labels, return_inverse=True)
    codes = codes.reshape(labels.shape)
    present = np.zeros((len(labels), len(values)), bool)
    np.put_along_axis(present, codes, values=True, axis=1)
    if (present.sum(axis=1) < 2).any():
        which = int(np.flatnonzero(present.sum(axis=1) < 2)[0])
        raise InsufficientDataError(
            f"All training labels are {labels[which, 0]}: there is nothing to tell apart."
        )

    def together() -> Iterator[Labelings]:
        patterns, of = np.unique(present, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            positions = np.flatnonzero(of.reshape(-1) == number)
            within = np.cumsum(pattern) - 1
            yield Labelings(positions, values[pattern], within[codes[positions]])

    return len(labels), together()


def read_targets(split: Split, y: ArrayLike) -> NDArray[Any]:
    """Give labels or numbers of the training rows, (n_labelings, n_train)."""
    values = np.atleast_2d(np.asarray(y))
    if values.ndim != 2 or values.shape[1] != split.n_samples or not len(values):
        raise UsageError(
            f"y must have shape ({split.n_samples},) or (n_labelings, {split.n_samples}), got"
            f" {np.shape(y)}."
        )
    return values[:, split.train]


def read_sample_weight(split: Split, sample_weight: ArrayLike | None) -> NDArray[np.float64] | None:
    """Give the weights of the training rows, checked."""
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (split.n_samples,):
        raise UsageError(
            f"sample_weight must have shape ({split.n_samples},), got {weights.shape}."
        )
    weights = weights[split.train]
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and np.any(weights > 0)):
        raise UsageError("sample_weight must be finite and not negative, and not all of it zero.")
    return weights
