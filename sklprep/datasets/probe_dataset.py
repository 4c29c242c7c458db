"""`ProbeDataset`: X and y with the parameters from which they were made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.datasets.facts import DatasetFacts, gather_facts
from sklprep.datasets.provenance import read_provenance
from sklprep.datasets.strategies import CONCEPT
from sklprep.exceptions import UsageError
from sklprep.files.npz_writer import write_npz
from sklprep.notebook.cards import card, table
from sklprep.notebook.words import format_y

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline


class ProbeDataset:
    """X and y with the parameters from which they were made, ready for training.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Normalized input.
    y : ndarray of shape (n_samples,)
        float32 feature activations or int64 labels.
    meta, norm : dict
        The ``meta_*`` and ``norm_*`` entries of the file by their full names; scalars are Python
        values, the others arrays.
    pipeline : Pipeline or None
        The fitted pipeline that made X; None for a file without one.
    groups : ndarray of shape (n_samples,)
        Rows that must stay on one side of every split; by default each row is a separate group.

    Examples
    --------
    >>> from sklprep import generate_dataset, make_activations, make_strategy
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> acts = make_activations(120, n_layers=4, d_model=16, n_features=32, random_state=0)
    >>> ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers=2))
    >>> ds.X.shape, ds.meta["meta_n_classes"]
    ((120, 16), 4)
    >>> cross_val_score(ds.make_pipeline(LogisticRegression()), ds.X, ds.y, cv=5).shape
    (5,)

    If rows share groups, such as the tokens of a sentence, split by group:

    >>> from sklearn.model_selection import GroupKFold
    >>> model = ds.make_pipeline(LogisticRegression())
    >>> cross_val_score(model, ds.X, ds.y, groups=ds.groups, cv=GroupKFold(5)).shape
    (5,)
    """

    __module__ = "sklprep"

    def __init__(
        self,
        X: NDArray[Any],
        y: NDArray[Any],
        meta: Mapping[str, Any],
        norm: Mapping[str, Any],
        pipeline: Pipeline | None = None,
    ) -> None:
        self.X = X
        self.y = y
        self.meta = dict(meta)
        self.norm = dict(norm)
        self.pipeline = pipeline

    def _facts(self) -> DatasetFacts:
        X = self.X
        return gather_facts(X.shape, X.dtype, self.y, self.meta, self.norm, self.pipeline)

    def __repr__(self) -> str:
        facts = self._facts()
        strategy = "no strategy" if facts.strategy is None else facts.strategy
        norm = "no norm" if facts.norm is None else facts.norm
        return f"ProbeDataset(X {facts.shape} {facts.dtype}, y {facts.y_dtype}, {strategy}, {norm})"

    def _repr_html_(self) -> str:
        """Return a summary for notebooks."""
        facts = self._facts()
        rows = [
            ("X", f"{facts.shape} {facts.dtype}, normalized: {facts.norm}"),
            ("y", f"{facts.y_shape} {facts.y_dtype}: {format_y(facts.y)}"),
        ]
        if facts.input:
            rows.append(("input", facts.input))
        if facts.target_layer is not None and facts.target_feature is not None:
            target = f"layer {facts.target_layer}, feature {facts.target_feature}"
            rows.append(("target", target))
        if facts.n_groups < len(self.X):
            kept = f"{facts.n_groups:,}, to be kept whole in splits: ds.groups"
            rows.append(("groups", kept))
        if facts.n_train is not None:
            fitted = f"{facts.n_train:,} training rows of {len(self.X):,}"
            rows.append(("fitted on", fitted))
        details = []
        if facts.steps is not None:
            details.append((f"pipeline of {len(facts.steps)} steps", table([], facts.steps)))
        if facts.provenance is not None:
            details.append(("provenance", table([], read_provenance(facts.provenance))))
        return card("ProbeDataset", str(facts.strategy or ""), rows, details=details)

    def to_frame(self) -> Any:
        """Return X and y as one pandas DataFrame.

        Returns
        -------
        DataFrame of shape (n_samples, n_features + n_targets)
            Columns of X have the feature names of `pipeline`, such as ``L12_h0345``, or ``x0``,
            ``x1``, ... without a pipeline. y comes last: ``label``, or ``L12_f00345`` for a
            feature, or ``y`` (``y0``, ``y1``, ... for several columns). The index is
            ``sentence_index``, or the row number if the file has none.

        Raises
        ------
        ImportError
            If pandas is not installed.

        Examples
        --------
        >>> from sklprep import generate_dataset, make_activations, make_strategy
        >>> acts = make_activations(100, n_layers=4, d_model=2, n_features=32, random_state=0)
        >>> ds = generate_dataset(acts, *make_strategy("hidden-to-concept", layers="1,3"))
        >>> ds.to_frame().columns.tolist()
        ['L1_h0000', 'L1_h0001', 'L3_h0000', 'L3_h0001', 'label']
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "ProbeDataset.to_frame needs pandas, which is not installed: pip install pandas."
            ) from error
        if self.pipeline is None:
            names = [f"x{i}" for i in range(self.X.shape[1])]
        else:
            names = self.pipeline.get_feature_names_out()
        index = None
        if "meta_sentence_indices" in self.meta:
            index = pd.Index(self.meta["meta_sentence_indices"], name="sentence_index")
        frame = pd.DataFrame(self.X, columns=names, index=index)
        targets = pd.DataFrame(self.y, columns=self._target_names(), index=index)
        return pd.concat([frame, targets], axis=1)

    def _target_names(self) -> list[str]:
        n = 1 if self.y.ndim == 1 else self.y.shape[1]
        layer = self.meta.get("meta_target_layer")
        features = np.atleast_1d(self.meta.get("meta_target_feature", ()))
        if len(features) == n:
            return [f"L{layer}_f{feature:05d}" for feature in features]
        if n > 1:
            return [f"y{i}" for i in range(n)]
        return ["label" if self.meta.get("meta_output_type") == CONCEPT else "y"]

    @property
    def groups(self) -> NDArray[Any]:
        """Rows that must stay on one side of every split, of shape (n_samples,)."""
        return np.array(self.meta.get("meta_groups", range(len(self.X))))

    def make_pipeline(self, estimator: BaseEstimator) -> Pipeline:
        """Put a new normalizer with the stored method before an estimator.

        A cross-validation of this pipeline on `X` gives the same scores as one on raw activations,
        because normalizing a column again undoes any earlier shift and scale. So the normalization
        stored in `X` does not leak information about test rows. Rows that share a group must not be
        split: give the cross-validation ``groups=ds.groups`` and, say, ``cv=GroupKFold(5)``.

        Parameters
        ----------
        estimator : estimator
            An unfitted classifier or regressor.

        Returns
        -------
        Pipeline

        Raises
        ------
        UsageError
            If a step learned more than a shift and a scale of each column, such as a PCA, because
            normalizing again cannot undo it.
        """
        from sklearn.pipeline import make_pipeline

        from sklprep.transformers.normalizers import ActivationNormalizer

        for name, step in self._learned_steps():
            raise UsageError(
                f"X went through {name!r} ({type(step).__name__}), which was fitted on rows that"
                " would be test rows in a cross-validation, and this cannot be undone."
                " Cross-validate the whole pipeline on the activations:"
                " Pipeline([*ds.pipeline.steps, ('model', estimator)]) on load_activations(...)."
            )
        return make_pipeline(ActivationNormalizer(self.norm.get("norm_method", "none")), estimator)

    def save(self, path: str | os.PathLike[str], *, compress: bool = False) -> None:
        """Write the dataset, atomically.

        Parameters
        ----------
        path : path-like
            The NPZ file to write.
        compress : bool, default=False
            Compress the file.

        Raises
        ------
        OutputError
            If the path cannot be written.
        """
        from sklprep.datasets.pipeline_bytes import dumps_pipeline

        data = None if self.pipeline is None else dumps_pipeline(self.pipeline)
        write_arrays(path, self.X, self.y, self.meta, self.norm, data, compress=compress)

    def _learned_steps(self) -> list[tuple[str, Any]]:
        if self.pipeline is None:
            return []
        from sklprep.transformers.normalizers import ActivationNormalizer
        from sklprep.transformers.selection import Selector

        steps = list(self.pipeline.steps)
        if isinstance(steps[-1][1], ActivationNormalizer):
            steps.pop()
        return [
            (name, step)
            for name, step in steps
            if not isinstance(step, (str, Selector))
            and (not hasattr(step, "__sklearn_tags__") or step.__sklearn_tags__().requires_fit)
        ]


def write_arrays(
    path: str | os.PathLike[str],
    X: Any,
    y: NDArray[Any],
    meta: Mapping[str, Any],
    norm: Mapping[str, Any],
    pipeline: bytes | None,
    *,
    compress: bool,
) -> None:
    arrays: dict[str, Any] = {"X": X, "y": y, **meta, **norm}
    if pipeline is not None:
        arrays["pipeline"] = np.frombuffer(pipeline, np.uint8)
    write_npz(path, arrays, compress=compress)


def norm_of(pipeline: Pipeline) -> dict[str, Any]:
    from sklprep.transformers.normalizers import ActivationNormalizer

    last = pipeline.steps[-1][1]
    return last.norm_params_ if isinstance(last, ActivationNormalizer) else {"norm_method": "none"}
