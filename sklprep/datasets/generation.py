"""`generate_dataset`: run an input pipeline and a target extractor over activations."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.datasets.dataset_file import FORMAT_VERSION
from sklprep.datasets.probe_dataset import ProbeDataset, norm_of, write_arrays
from sklprep.datasets.provenance import provenance
from sklprep.datasets.strategies import CONCEPT, FEATURE, HIDDEN, SAE
from sklprep.exceptions import FaultyFilesError, SklprepWarning, UsageError
from sklprep.files.atomic import require_space
from sklprep.files.npz_writer import Blocks
from sklprep.formats.layers import EMBEDDINGS
from sklprep.formats.members import Members
from sklprep.formats.outputs import require_safe_outputs

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

EXPECTED_SAMPLES = 100
BLOCK_ROWS = 256


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
        self.norm = norm_of(self.pipeline)
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
            except FaultyFilesError as error:
                members = self.pipeline[0].find_members(self._acts)
                raise self._acts.rows.name_all(error, members) from None
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
        write_arrays(path, X, self.y, self.meta, self.norm, self.fitted.data, compress=compress)


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
    except FaultyFilesError as error:
        members = find_members(clone(pipeline[0]).fit(rows), extractor, rows)
        raise rows.rows.name_all(error, members) from None
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

    from sklprep.datasets.pipeline_bytes import freeze_pipeline

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
    from sklprep.transformers.selection import Selector

    selector = pipeline.steps[0][1]
    if not isinstance(acts, ActivationSet) or not isinstance(selector, Selector):
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
    require_safe_outputs([output], [acts.rows.source.place])
    if _is_by_rows(pipeline) and not compress:
        require_space(output, x_bytes(len(acts), clone(pipeline[0]).fit(acts).n_features_out_))


def x_bytes(n_rows: int, n_columns: int) -> int:
    """Bytes of X in a dataset, which are nearly all of it."""
    return n_rows * n_columns * np.dtype(np.float32).itemsize


def find_members(selector: Any, target: Any, acts: ActivationSet) -> Members:
    """What a dataset reads of a set, by its fitted selector and target."""
    read: Members = selector.find_members(acts)
    return read | target.find_members(acts) if hasattr(target, "find_members") else read


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
