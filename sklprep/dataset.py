"""The dataset NPZ: make it, write it, load it, and train on it without leakage."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep._version import __version__
from sklprep.activations.activation_set import ActivationSet, check_uses
from sklprep.exceptions import (
    FaultyFilesError,
    FileFormatError,
    PipelineError,
    SklprepWarning,
    UsageError,
)
from sklprep.files.atomic import check_space
from sklprep.files.faults import file_fault
from sklprep.files.npz_reader import NpzReader
from sklprep.files.npz_writer import Blocks, write_npz
from sklprep.formats.layers import EMBEDDINGS, format_layers
from sklprep.formats.outputs import check_outputs
from sklprep.notebook.cards import card, describe_y, table
from sklprep.strategies import CONCEPT, FEATURE, HIDDEN, SAE

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

FORMAT_VERSION = 1
"""Raise it when a reader of the old version would misread the new file, and not for new keys."""

EXPECTED_SAMPLES = 100
BLOCK_ROWS = 256

_MAX_ENTRY_BYTES = 4 << 20
_MAX_BYTES_EACH = 1 << 10  # of an entry for each row and column of X

_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!-]{0,30}")

_ROW_KEYS = ("meta_sentence_indices", "meta_groups")
_TEXT_KEYS = ("strategy", "input_source", "pooling", "output_type", "provenance")
_NUMBER_KEYS = ("input_dims", "n_samples", "n_classes", "format_version", "target_layer")
_LIST_KEYS = ("input_layers", "train_indices", "test_indices")
_NORM_KEYS = {
    "standardize": ("norm_mean", "norm_std"),
    "minmax": ("norm_min", "norm_max"),
    "maxabs": ("norm_max_abs",),
    "none": (),
}


class ProbeDataset:
    """X and y with the parameters that made them, ready for training.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features), float32
        Normalized.
    y : ndarray of shape (n_samples,)
        float32 feature activations or int64 labels.
    meta, norm : dict
        The ``meta_*`` and ``norm_*`` entries of the file under their full names; scalars as Python
        values, the others as arrays.
    pipeline : Pipeline or None
        The fitted pipeline that made X; None for a file without one.
    groups : ndarray of shape (n_samples,)
        Rows that must not straddle a split; each row by itself unless the file says otherwise.

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

    Where rows share groups, as tokens of a sentence do, split by group:

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

    def __repr__(self) -> str:
        return (
            f"ProbeDataset(X {self.X.shape} {self.X.dtype}, y {self.y.dtype},"
            f" {self.meta.get('meta_strategy', 'no strategy')},"
            f" {self.norm.get('norm_method', 'no norm')})"
        )

    def _repr_html_(self) -> str:
        """Show in a notebook what there is."""
        meta = self.meta
        facts = [
            ("X", f"{self.X.shape} {self.X.dtype}, normalized: {self.norm.get('norm_method')}"),
            ("y", f"{self.y.shape} {self.y.dtype}: {describe_y(self.y)}"),
        ]
        if "meta_input_source" in meta:
            source = str(meta["meta_input_source"]).replace("_", " ")
            layers = np.ravel(meta.get("meta_input_layers", ()))
            numbers = layers.tolist() if layers.dtype.kind in "iu" else []
            where = f" of layer{'s' if len(numbers) > 1 else ''} {format_layers(numbers)}"
            facts.append(("input", source + (where if numbers else "")))
        if {"meta_target_layer", "meta_target_feature"} <= meta.keys():
            facts.append(
                (
                    "target",
                    f"layer {meta['meta_target_layer']}, feature {meta['meta_target_feature']}",
                )
            )
        n_groups = len(np.unique(self.groups))
        if n_groups < len(self.X):
            facts.append(("groups", f"{n_groups:,}, which a split must keep whole: ds.groups"))
        if "meta_train_indices" in meta:
            n_train = np.size(meta["meta_train_indices"])
            facts.append(("fitted on", f"{n_train:,} training rows of {len(self.X):,}"))
        details = []
        if self.pipeline is not None:
            steps = [(name, " ".join(str(step).split())) for name, step in self.pipeline.steps]
            details.append((f"pipeline of {len(steps)} steps", table([], steps)))
        if "meta_provenance" in meta:
            details.append(("provenance", table([], _read_provenance(meta["meta_provenance"]))))
        return card("ProbeDataset", str(meta.get("meta_strategy", "")), facts, details=details)

    def to_frame(self) -> Any:
        """Give X and y as one data frame of pandas.

        Returns
        -------
        DataFrame of shape (n_samples, n_features + n_targets)
            The columns of X have the names that `pipeline` gives them, such as ``L12_h0345``, or
            ``x0``, ``x1``, ... without a pipeline. y is last: ``label``, or for a feature
            ``L12_f00345``, or ``y`` (``y0``, ``y1``, ... if it has several columns). The index is
            ``sentence_index``, or the number of the row where the file has none.

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
        """(n_samples,): what must not straddle a split."""
        return self.meta.get("meta_groups", np.arange(len(self.X)))

    def make_pipeline(self, estimator: BaseEstimator) -> Pipeline:
        """Put a fresh normalizer of the stored method before an estimator.

        Cross-validated on `X`, it gives what the same pipeline would give on raw activations:
        normalizing a column again undoes any earlier shift and scale of it. So nothing of the test
        rows leaks through the normalization stored in `X`. Rows that share a group must not be
        split: give the cross-validation ``groups=ds.groups`` and, say, ``cv=GroupKFold(5)``.

        Parameters
        ----------
        estimator : estimator
            A classifier or regressor, not fitted.

        Returns
        -------
        Pipeline

        Raises
        ------
        UsageError
            If `X` went through a step that learned more than a shift and a scale of each column (a
            PCA, say), so that normalizing again cannot undo it.
        """
        from sklearn.pipeline import make_pipeline

        from sklprep.transformers.normalizers import ActivationNormalizer

        for name, step in self._learned_steps():
            raise UsageError(
                f"X went through {name!r} ({type(step).__name__}), fitted on rows that would be"
                " test rows in a cross-validation, and that cannot be undone. Cross-validate the"
                " whole pipeline on the activations: Pipeline([*ds.pipeline.steps, ('model',"
                " estimator)]) on load_activations(...)."
            )
        return make_pipeline(ActivationNormalizer(self.norm.get("norm_method", "none")), estimator)

    def save(self, path: str | os.PathLike[str], *, compress: bool = False) -> None:
        """Write the dataset, atomically.

        Parameters
        ----------
        path : path-like
        compress : bool, default=False
            Deflate the members.

        Raises
        ------
        OutputError
            If the path cannot be written.
        """
        from sklprep.pipelines import dumps_pipeline

        data = None if self.pipeline is None else dumps_pipeline(self.pipeline)
        _write(path, self.X, self.y, self.meta, self.norm, data, compress=compress)

    def _learned_steps(self) -> list[tuple[str, Any]]:
        if self.pipeline is None:
            return []
        from sklprep.transformers.normalizers import ActivationNormalizer
        from sklprep.transformers.selectors import SELECTORS

        steps = list(self.pipeline.steps)
        if isinstance(steps[-1][1], ActivationNormalizer):
            steps.pop()
        return [
            (name, step)
            for name, step in steps
            if not isinstance(step, (str, *SELECTORS))
            and (not hasattr(step, "__sklearn_tags__") or step.__sklearn_tags__().requires_fit)
        ]


def generate_dataset(
    acts: ActivationSet,
    pipeline: Pipeline,
    target: BaseEstimator,
    *,
    output: str | os.PathLike[str] | None = None,
    strategy: str = "custom",
    fit_rows: ArrayLike | None = None,
    compress: bool = False,
) -> ProbeDataset:
    """Run an input pipeline and a target extractor over activations.

    Parameters
    ----------
    acts : ActivationSet
    pipeline : Pipeline
        Starts with a `LayerSelector` or an `SAEFeatureSelector`, whose sparse output is stored
        dense: `FittedDataset.shape` rows and columns of 4 bytes; any further steps that
        `load_dataset` trusts. A clone of it is fitted.
    target : estimator
        `FeatureTargetExtractor` of one feature, `ConceptTargetExtractor`, or a transformer from
        `acts` to y of shape (n_samples,).
    output : path-like or None, default=None
        Write the dataset there.
    strategy : str, default="custom"
        Name to store.
    fit_rows : array-like of int, or None, default=None
        Row positions to fit the pipeline on, stored as ``meta_train_indices`` with the rest as
        ``meta_test_indices``; all rows are transformed. None fits on all rows.
    compress : bool, default=False
        Deflate the file's members.

    Returns
    -------
    ProbeDataset

    Raises
    ------
    SklprepError
        See `LayerSelector`, the target extractors and `OutputError`.

    Warns
    -----
    SklprepWarning
        For fewer than 100 rows, a feature active in fewer than 10, a constant y, and rows that
        share groups, which a cross-validation must split by group.

    Examples
    --------
    >>> from sklprep import generate_dataset, make_activations, make_strategy
    >>> acts = make_activations(100, n_layers=4, d_model=16, n_features=32, random_state=0)
    >>> pipeline, target = make_strategy("hidden-to-concept", layers="0-1")
    >>> generate_dataset(acts, pipeline, target).norm["norm_mean"].shape
    (32,)
    """
    if output is not None:
        _check_place(output, acts, pipeline, compress=compress)
    dataset = fit_dataset(acts, pipeline, target, strategy=strategy, fit_rows=fit_rows).to_dataset()
    if output is not None:
        dataset.save(output, compress=compress)
    return dataset


@dataclass(frozen=True, slots=True)
class FittedPipeline:
    """A fitted pipeline as `load_dataset` will bring it back, and the bytes it comes from.

    BLAS rounds differently for another memory layout, so nothing else may make X.
    """

    pipeline: Pipeline
    data: bytes


class FittedDataset:
    """A dataset before its X is made: everything else, and X block by block.

    Attributes
    ----------
    y : ndarray of shape (n_samples,)
    meta, norm : dict
        As in `ProbeDataset`.
    fitted : FittedPipeline
    pipeline : Pipeline
        That of `fitted`.
    shape : tuple
        Of X.
    """

    def __init__(self, acts: ActivationSet, fitted: FittedPipeline, y: NDArray[Any]) -> None:
        self._acts = acts
        self.fitted = fitted
        self._X: NDArray[np.float32] | None = None
        self.pipeline = fitted.pipeline
        self.y = y
        self.norm = _norm_of(self.pipeline)
        if _is_by_rows(self.pipeline):
            self.shape = (len(acts), self.pipeline.steps[0][1].n_features_out_)
        else:
            self._X = _as_dense(self.pipeline.transform(acts))
            self.shape = self._X.shape
        self.meta: dict[str, Any] = {}

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rows of X in blocks of a constant size."""
        if self._X is not None:
            yield self._X
            return
        for rows in _row_blocks(np.arange(len(self._acts))):
            try:
                block = self.pipeline.transform(self._acts[rows])
            except FaultyFilesError:  # the rows of other blocks may be of faulty files, too
                check_uses(self._acts, [self.pipeline[0].transform])
                raise
            yield _as_dense(block)

    def to_dataset(self) -> ProbeDataset:
        """Make X, in memory."""
        X = np.empty(self.shape, np.float32)
        start = 0
        for block in self.blocks():
            X[start : start + len(block)] = block
            start += len(block)
        return ProbeDataset(X, self.y, self.meta, self.norm, self.pipeline)

    def write(self, path: str | os.PathLike[str], *, compress: bool = False) -> None:
        """Make X on the way into the file, in memory that does not depend on its rows."""
        X = Blocks(self.shape, np.dtype(np.float32), self.blocks())
        _write(path, X, self.y, self.meta, self.norm, self.fitted.data, compress=compress)


def fit_dataset(
    acts: ActivationSet,
    pipeline: Pipeline,
    target: BaseEstimator,
    *,
    strategy: str = "custom",
    fit_rows: ArrayLike | None = None,
    rows: ActivationSet | None = None,
    fitted: FittedPipeline | None = None,
) -> FittedDataset:
    """Do all that `generate_dataset` does, but for making X.

    `rows` are the rows of `acts` again, with no more than what is needed of them, close at hand.
    `fitted` comes from the dataset of another target, made by the same pipeline of the same rows.
    """
    from sklearn.base import clone

    _check_start(acts, pipeline)
    rows = acts if rows is None else rows
    train = None if fit_rows is None else check_fit_rows(fit_rows, acts.groups)
    extractor = clone(target).fit(acts)
    try:
        y = _extract(extractor, rows)
        if fitted is None or not _is_by_rows(pipeline):  # other pipelines may have learned from y
            used = np.arange(len(acts)) if train is None else train
            fitted = _fit_pipeline(acts, pipeline, rows=rows, y=y, used=used)
    except FaultyFilesError:  # found in one block of rows and one layer
        check_uses(rows, uses_of(clone(pipeline[0]).fit(rows), extractor))
        raise
    dataset = FittedDataset(rows, fitted, y)
    dataset.meta = _describe(acts, dataset, extractor, strategy, train)
    _warn(dataset.meta, y)
    return dataset


def _fit_pipeline(
    acts: ActivationSet,
    pipeline: Pipeline,
    *,
    rows: ActivationSet,
    y: NDArray[Any],
    used: NDArray[np.int64],
) -> FittedPipeline:
    """Fit a clone of the pipeline on the rows used, by blocks where that gives the same bits."""
    from sklearn.base import clone

    from sklprep.pipelines import freeze_pipeline

    fitted = clone(pipeline).set_output(transform="default")
    if _is_by_rows(fitted):
        fitted[0].fit(rows)
        for block in _row_blocks(used) if len(fitted) > 1 else ():
            fitted[1].partial_fit(fitted[0].transform(rows[block]))
    else:
        fitted.fit(rows[used], y[used])
    fitted[0].fit(acts)  # what else there is besides these rows is part of the fitted selector
    data, loaded = freeze_pipeline(fitted)
    return FittedPipeline(loaded, data)


def _check_start(acts: ActivationSet, pipeline: Pipeline) -> None:
    from sklprep.transformers.selectors import SELECTORS

    selector = pipeline.steps[0][1]
    if not isinstance(acts, ActivationSet) or not isinstance(selector, SELECTORS):
        raise UsageError(
            "generate_dataset needs an ActivationSet and a pipeline that starts with a"
            f" LayerSelector or an SAEFeatureSelector, got {type(acts).__name__} and"
            f" {type(selector).__name__}."
        )


def _check_place(
    output: str | os.PathLike[str], acts: ActivationSet, pipeline: Pipeline, *, compress: bool
) -> None:
    """Refuse an output that cannot be, as far as that is known before the work."""
    from sklearn.base import clone

    _check_start(acts, pipeline)
    check_outputs([output], [acts.path])
    if _is_by_rows(pipeline) and not compress:
        check_space(output, x_bytes(len(acts), clone(pipeline[0]).fit(acts).n_features_out_))


def x_bytes(n_rows: int, n_columns: int) -> int:
    """Bytes of X in a dataset, which are nearly all of it."""
    return n_rows * n_columns * np.dtype(np.float32).itemsize


def uses_of(selector: Any, extractor: Any) -> list[Callable[[ActivationSet], Any]]:
    """What a dataset reads of rows, by a fitted selector and target, as `check_uses` takes it."""
    from sklprep.transformers.targets import FeatureTargetExtractor

    is_by_rows = isinstance(extractor, FeatureTargetExtractor)
    return [selector.transform, *([extractor.transform] if is_by_rows else [])]


def _extract(extractor: Any, rows: ActivationSet) -> NDArray[Any]:
    from sklprep.transformers.targets import FeatureTargetExtractor

    if isinstance(extractor, FeatureTargetExtractor):
        blocks = _row_blocks(np.arange(len(rows)))
        y = np.concatenate([extractor.transform(rows[block]) for block in blocks])
    else:
        y = extractor.transform(rows)
    if np.ndim(y) != 1:
        raise UsageError(
            f"A dataset holds one target, but y has shape {np.shape(y)}. Make a dataset for each"
            " (several --target-feature on the command line), or use y with acts directly."
        )
    return y


def _is_by_rows(pipeline: Pipeline) -> bool:
    """Whether fitting and transforming block by block gives the same bits as all rows at once."""
    from sklprep.transformers.normalizers import ActivationNormalizer

    rest = [step for _, step in pipeline.steps[1:]]
    return not rest or (len(rest) == 1 and isinstance(rest[0], ActivationNormalizer))


def _as_dense(X: Any) -> NDArray[np.float32]:
    from scipy.sparse import issparse

    is_sparse: bool = issparse(X)
    return np.ascontiguousarray(X.toarray() if is_sparse else X, dtype=np.float32)


def _row_blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS]


def _write(
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


def split_rows(
    acts: ActivationSet, test_size: float, random_state: int, *, stratify: bool = False
) -> NDArray[np.int64]:
    """Row positions that `train_test_split` with the same arguments puts into training.

    Raises
    ------
    UsageError
        If the rows cannot be split so, or groups would straddle the split.
    """
    from sklearn.model_selection import train_test_split

    labels = acts.labels if stratify else None
    try:
        train, _ = train_test_split(
            np.arange(len(acts)), test_size=test_size, random_state=random_state, stratify=labels
        )
    except ValueError as error:
        raise UsageError(f"The rows cannot be split with test size {test_size}: {error}") from None
    return check_fit_rows(train, acts.groups)


def load_dataset(path: str | os.PathLike[str], *, pipeline: bool = True) -> ProbeDataset:
    """Load a dataset file. Nothing in it is executed, imported or unpickled.

    Parameters
    ----------
    path : path-like
    pipeline : bool, default=True
        Load the embedded pipeline too, if there is one.

    Returns
    -------
    ProbeDataset

    Raises
    ------
    FileFormatError
        If the file is broken or is not a dataset.
    PipelineError
        If the pipeline is refused or contradicts the ``norm_*`` entries; ``pipeline=False`` still
        gives the arrays.

    Warns
    -----
    SklprepWarning
        If another scikit-learn fitted the pipeline: it transforms, but may give other numbers.

    Notes
    -----
    The version of sklprep that wrote a file does not matter, only that of the format: an older one
    is read, a newer one is refused.
    """
    return _load(path, lambda reader: reader.array("X"), pipeline=pipeline)


def peek_dataset(path: str | os.PathLike[str]) -> ProbeDataset:
    """Do what `load_dataset` does, but for reading X: zeros stand for it and take no memory."""

    def zeros(reader: NpzReader) -> NDArray[Any]:
        header = reader.header("X")
        return np.broadcast_to(np.zeros((), header.dtype), header.shape)

    return _load(path, zeros, pipeline=True)


def _load(
    path: str | os.PathLike[str],
    read_X: Callable[[NpzReader], NDArray[Any]],
    *,
    pipeline: bool,
) -> ProbeDataset:
    with NpzReader(path) as reader:
        _check_version(path, reader)
        shape = _check_matrix(path, reader)
        most = _MAX_ENTRY_BYTES + _MAX_BYTES_EACH * sum(shape)
        entries = {
            name: reader.array(name, max_bytes=most)
            for name in reader.members
            if name.startswith(("meta_", "norm_"))
        }
        X, y = read_X(reader), reader.array("y")
        data = None
        if pipeline and "pipeline" in reader.members:
            from sklprep.pipelines import MAX_PIPELINE_BYTES

            data = reader.array("pipeline", max_bytes=MAX_PIPELINE_BYTES)
    values = {key: value.item() if value.ndim == 0 else value for key, value in entries.items()}
    meta = {key: value for key, value in values.items() if key.startswith("meta_")}
    norm = {key: value for key, value in values.items() if key.startswith("norm_")}
    _check_entries(path, X, meta, norm)
    if data is None:
        return ProbeDataset(X, y, meta, norm)
    from sklprep.pipelines import loads_pipeline

    where = f"{os.fspath(path)}: member 'pipeline'"
    fitted = loads_pipeline(data.tobytes(), where=where, do=_next_step(meta))
    expected = _norm_of(fitted)
    if norm.keys() != expected.keys() or any(
        not np.array_equal(norm[key], expected[key]) for key in norm
    ):
        raise PipelineError(
            f"{os.fspath(path)}: the norm_* entries are not those of the embedded pipeline;"
            " expected equal values. The file was changed after it was written: generate it again,"
            " or load it with pipeline=False."
        )
    return ProbeDataset(X, y, meta, norm, fitted)


def check_fit_rows(fit_rows: ArrayLike, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Refuse rows that are no positions, or that share a group with the rows left out."""
    rows = np.asarray(fit_rows)
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


def _describe(
    acts: ActivationSet,
    dataset: FittedDataset,
    target: Any,
    strategy: str,
    train: NDArray[np.int64] | None,
) -> dict[str, Any]:
    from sklprep.transformers.sae_selector import SAEFeatureSelector
    from sklprep.transformers.targets import ConceptTargetExtractor, FeatureTargetExtractor

    selector = dataset.pipeline.steps[0][1]
    hidden_or_embeddings = HIDDEN if len(selector.layers_) else EMBEDDINGS
    meta: dict[str, Any] = {
        "meta_strategy": strategy,
        "meta_input_source": SAE
        if isinstance(selector, SAEFeatureSelector)
        else hidden_or_embeddings,
        "meta_input_layers": selector.layers_,
        "meta_input_dims": dataset.shape[1],
        "meta_n_samples": len(acts),
        "meta_sentence_indices": acts.sentence_indices,
        "meta_pooling": acts.pooling,
    }
    if isinstance(target, FeatureTargetExtractor):
        meta |= {
            "meta_output_type": FEATURE,
            "meta_target_layer": target.layer,
            "meta_target_feature": target.feature,
            "meta_average_l0": target.average_l0_,
        }
    elif isinstance(target, ConceptTargetExtractor):
        meta |= {"meta_output_type": CONCEPT, "meta_n_classes": len(np.unique(dataset.y))}
    if len(np.unique(acts.groups)) < len(acts):
        meta["meta_groups"] = acts.groups
    if train is not None:
        meta["meta_train_indices"] = train
        meta["meta_test_indices"] = np.setdiff1d(np.arange(len(acts)), train)
    meta["meta_format_version"] = FORMAT_VERSION
    meta["meta_provenance"] = provenance(
        acts, dataset.pipeline, target, strategy=strategy, fit_rows=train
    )
    return meta


def provenance(
    acts: ActivationSet,
    pipeline: Pipeline,
    target: Any,
    *,
    strategy: str,
    fit_rows: NDArray[np.int64] | None,
) -> str:
    """Say in JSON what a dataset is made of: two datasets with equal provenance are equal.

    The selector and the target must be fitted; the other steps need not be.
    """
    from sklprep.transformers.sae_selector import SAEFeatureSelector

    def parameters(step: Any) -> Any:
        if isinstance(step, str):
            return step
        values = step.get_params(deep=False)
        if step is target and "average_l0" in values:
            values["average_l0"] = step.average_l0_
        return {type(step).__name__: values}

    selector = pipeline.steps[0][1]
    layers: Any = format_layers(selector.layers_.tolist()) or EMBEDDINGS
    if isinstance(selector, SAEFeatureSelector):
        saes = zip(selector.sae_layers_.tolist(), selector.average_l0s_.tolist(), strict=True)
        features = None if selector.features_ is None else selector.features_.tolist()
        layers = {"saes": list(saes), "features": features}
    record = {
        "versions": _versions(),
        "input": acts.name,
        "fingerprint": acts.fingerprint,
        "arguments": {
            "strategy": strategy,
            "pooling": acts.pooling,
            "layers": layers,
            "pipeline": [parameters(step) for _, step in pipeline.steps[1:]],
            "target": parameters(target),
            "fit_rows": None
            if fit_rows is None
            else hashlib.sha256(fit_rows.tobytes()).hexdigest(),
        },
    }
    if acts.left_out:
        record["left_out"] = list(acts.left_out)
    return json.dumps(record, sort_keys=True, default=str)


@functools.cache
def _versions() -> dict[str, str]:
    from importlib.metadata import version

    libraries = {name: version(name) for name in ("numpy", "scikit-learn", "skops")}
    return {"sklprep": __version__, **libraries}


def _read_provenance(text: Any) -> list[tuple[str, str]]:
    """Names and values, where a file holds what `provenance` wrote."""
    try:
        record = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return [("", str(text))]
    flat = [
        entry
        for name, value in record.items()
        for entry in (value.items() if isinstance(value, dict) else [(name, value)])
    ]
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in flat]


def _next_step(meta: Mapping[str, Any]) -> str:
    """Say what to do about a pipeline that does not load; other versions may be the reason."""
    do = "enerate the dataset again, or load it with pipeline=False."
    versions = dict(_read_provenance(meta.get("meta_provenance")))
    written = {name: versions.get(name, "") for name in _versions()}
    others = {
        name: version
        for name, version in written.items()
        if version != _versions()[name] and _VERSION.fullmatch(version)
    }
    if not others:
        return f"G{do}"
    there = ", ".join(f"{name} {version}" for name, version in others.items())
    here = ", ".join(_versions()[name] for name in others)
    return f"It was written with {there} (here {here}): install what wrote it, g{do}"


def _norm_of(pipeline: Pipeline) -> dict[str, Any]:
    from sklprep.transformers.normalizers import ActivationNormalizer

    last = pipeline.steps[-1][1]
    return last.norm_params_ if isinstance(last, ActivationNormalizer) else {"norm_method": "none"}


def _warn(meta: Mapping[str, Any], y: NDArray[Any]) -> None:
    messages = []
    n = len(y)
    if n < EXPECTED_SAMPLES:
        messages.append(
            f"Only {n} samples (expected ~{EXPECTED_SAMPLES}): scores will vary between splits."
        )
    if meta.get("meta_output_type") == FEATURE:
        from sklprep.transformers.targets import describe_rarity

        rarity = describe_rarity(meta["meta_target_layer"], meta["meta_target_feature"], y)
        if rarity:
            messages.append(rarity)
        elif np.ptp(y) == 0:
            messages.append(f"y is constant ({y[0]:g}): there is nothing to predict.")
    elif meta.get("meta_n_classes") == 1:
        messages.append(f"All {n} samples have the label {y[0]}: there is nothing to classify.")
    if "meta_groups" in meta:
        n_groups = len(np.unique(meta["meta_groups"]))
        messages.append(
            f"The {n:,} rows belong to {n_groups:,} groups, such as tokens of one sentence: test"
            " rows with siblings in training score too high. Split by meta_groups, as in"
            " cross_val_score(model, X, y, groups=meta_groups, cv=GroupKFold(5))."
        )
    for message in messages:
        warnings.warn(message, SklprepWarning, stacklevel=3)


def _check_matrix(path: str | os.PathLike[str], reader: NpzReader) -> tuple[int, ...]:
    """Require X and y that fit together, before anything is read; returns the shape of X."""
    missing = {"X", "y"} - reader.members.keys()
    if missing:
        raise file_fault(
            path,
            min(missing),
            "is missing",
            "X and y, as in a dataset",
            "Is it a sentence file? Those are the input of sklprep generate."
            if "hidden_states" in reader.members
            else "",
        )
    X, y = reader.header("X"), reader.header("y")
    if len(X.shape) != 2 or X.dtype.kind not in "fiu" or 0 in X.shape:
        raise file_fault(path, "X", f"has shape {X.shape} of {X.dtype}", "a numeric matrix")
    if len(y.shape) not in (1, 2) or y.shape[0] != X.shape[0]:
        raise file_fault(path, "y", f"has shape {y.shape}", f"{X.shape[0]} values, as X has rows")
    return X.shape


def _check_version(path: str | os.PathLike[str], reader: NpzReader) -> None:
    """Refuse a newer format before anything in it can look broken."""
    key = "meta_format_version"
    version = reader.array(key, max_bytes=64) if key in reader.members else np.array(FORMAT_VERSION)
    if version.ndim == 0 and version.dtype.kind in "iu" and version > FORMAT_VERSION:
        raise FileFormatError(
            f"{os.fspath(path)}: dataset format version {version}; this sklprep {__version__} reads"
            f" versions up to {FORMAT_VERSION}. Upgrade sklprep."
        )


def _check_entries(
    path: str | os.PathLike[str], X: NDArray[Any], meta: Mapping[str, Any], norm: Mapping[str, Any]
) -> None:
    for key, value in meta.items():
        expected = _expected_entry(key.removeprefix("meta_"), value)
        if expected:
            found = f"is {value!r:.60}" if np.ndim(value) == 0 else f"has shape {np.shape(value)}"
            raise file_fault(path, key, " ".join(found.split()), expected)
    for key in _ROW_KEYS:
        if key in meta and np.shape(meta[key]) != (len(X),):
            raise file_fault(path, key, f"has shape {np.shape(meta[key])}", f"({len(X)},)")
    method = norm.get("norm_method")
    if method is None:
        return
    if not isinstance(method, str) or method not in _NORM_KEYS:
        found = " ".join(repr(method)[:60].split())
        raise file_fault(path, "norm_method", f"is {found}", ", ".join(_NORM_KEYS))
    for key in _NORM_KEYS[method]:
        if key not in norm or np.shape(norm[key]) != (X.shape[1],):
            raise file_fault(
                path,
                key,
                f"has shape {np.shape(norm[key])}" if key in norm else "is missing",
                f"({X.shape[1]},), one value for each column of X",
            )


def _expected_entry(name: str, value: Any) -> str:
    """What an entry should be, if it is something else."""
    kind = np.asarray(value).dtype.kind
    if name in _TEXT_KEYS and not (type(value) is str and value.isprintable()):
        return "one line of text"
    if name in _NUMBER_KEYS and type(value) is not int:
        return "a whole number"
    if name in _LIST_KEYS and not (np.ndim(value) == 1 and (kind in "iu" or not len(value))):
        return "a list of whole numbers"
    if name == "target_feature" and not (np.ndim(value) <= 1 and kind in "iu"):
        return "a whole number, or a list of them"
    if name == "average_l0" and not (type(value) in (int, float) and math.isfinite(value)):
        return "a number"
    return ""
