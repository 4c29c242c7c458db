"""`generate_dataset`: apply an input pipeline and a target extractor to activations."""

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
from sklprep.datasets.recipe import Recipe, make_recipe
from sklprep.datasets.strategies import CONCEPT, FEATURE, HIDDEN, SAE
from sklprep.exceptions import FaultyFilesError, SklprepWarning, UsageError
from sklprep.files.atomic import require_space
from sklprep.files.npz_writer import Blocks
from sklprep.formats.layers import EMBEDDINGS
from sklprep.formats.outputs import require_safe_outputs

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator
    from sklearn.pipeline import Pipeline

EXPECTED_SAMPLES = 100
"""Fewer rows cause a warning, as the usage guide says."""

BLOCK_ROWS = 256
"""Rows computed and written at a time: 61 MB for 26 layers of width 2,304. It is a multiple of the
blocks in which the normalizer sums, so that its parameters equal those of all rows at once."""


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
    """Apply an input pipeline and a target extractor to activations.

    Parameters
    ----------
    acts : ActivationSet
        Rows of the dataset.
    pipeline : Pipeline
        Must start with a `LayerSelector` or an `SAEFeatureSelector`, whose sparse output is stored
        dense, with 4 bytes per value. Other steps must be of the types that `load_dataset` trusts.
        A clone is fitted.
    target : estimator
        `FeatureTargetExtractor` for one feature, `ConceptTargetExtractor`, or any transformer from
        `acts` to y of shape (n_samples,).
    output : path-like or None, default=None
        Path to which the dataset is written.
    strategy : str, default="custom"
        Name that is stored as ``meta_strategy``.
    fit_rows : array-like of int, or None, default=None
        Row positions on which the pipeline is fitted, stored as ``meta_train_indices``, with the
        others as ``meta_test_indices``; all rows are transformed. None fits on all rows.
    compress : bool, default=False
        Compress the file.

    Returns
    -------
    ProbeDataset

    Raises
    ------
    SklprepError
        As `LayerSelector` and the target extractors; `OutputError` if the file cannot be written.
    UsageError
        If the arguments do not fit together, or `fit_rows` split a group.

    Warns
    -----
    SklprepWarning
        For fewer than 100 rows, for a feature that is active in fewer than 10, for a constant y,
        for rows that share groups, which a cross-validation must keep whole, and for a step that
        learned from y of all rows.

    Examples
    --------
    >>> from sklprep import generate_dataset, make_activations, make_strategy
    >>> acts = make_activations(100, n_layers=4, d_model=16, n_features=32, random_state=0)
    >>> pipeline, target = make_strategy("hidden-to-concept", layers="0-1")
    >>> generate_dataset(acts, pipeline, target).norm["norm_mean"].shape
    (32,)
    """
    _require_start(acts, pipeline)
    if output is not None:
        require_safe_outputs([output], [acts.rows.source.place])
    recipe = make_recipe(acts, pipeline, target, strategy=strategy, fit_rows=fit_rows)
    if output is not None and recipe.is_by_rows and not compress:
        require_space(output, recipe.n_bytes)
    dataset = fit_dataset(acts, recipe).to_dataset()
    if output is not None:
        dataset.save(output, compress=compress)
    return dataset


def _require_start(acts: Any, pipeline: Pipeline) -> None:
    from sklprep.transformers.selection import Selector

    selector = pipeline.steps[0][1]
    if not isinstance(acts, ActivationSet) or not isinstance(selector, Selector):
        raise UsageError(
            "generate_dataset needs an ActivationSet and a pipeline that starts with a"
            f" LayerSelector or an SAEFeatureSelector, got {type(acts).__name__} and"
            f" {type(selector).__name__}."
        )


@dataclass(frozen=True, slots=True)
class FittedPipeline:
    """A fitted pipeline as `load_dataset` will load it, and its bytes.

    X must be computed with this pipeline, as BLAS rounds differently for another memory layout.
    """

    pipeline: Pipeline
    data: bytes


class FittedDataset:
    """A dataset whose X is computed block by block when it is needed.

    Attributes
    ----------
    y : ndarray of shape (n_samples,)
        Target.
    meta, norm : dict
        As in `ProbeDataset`.
    fitted : FittedPipeline
        Fitted pipeline, and its bytes.
    pipeline : Pipeline
        The pipeline of `fitted`.
    shape : tuple
        Shape of X.
    """

    def __init__(
        self, rows: ActivationSet, recipe: Recipe, fitted: FittedPipeline, y: NDArray[Any]
    ) -> None:
        self._rows = rows
        self.fitted = fitted
        self._X: NDArray[np.float32] | None = None
        self.pipeline = fitted.pipeline
        self.y = y
        self.norm = norm_of(self.pipeline)
        if recipe.is_by_rows:
            self.shape = recipe.shape
        else:
            self._X = _as_dense(self.pipeline.transform(rows))
            self.shape = self._X.shape
        self.meta = _describe(rows, recipe, self.shape[1], y)

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield the rows of X in blocks of a constant size."""
        if self._X is not None:
            yield self._X
            return
        for block_rows in _row_blocks(np.arange(len(self._rows))):
            try:
                block = self.pipeline.transform(self._rows[block_rows])
            except FaultyFilesError as error:
                members = self.pipeline[0].find_members(self._rows)
                raise self._rows.rows.name_all(error, members) from None
            yield _as_dense(block)

    def to_dataset(self) -> ProbeDataset:
        """Compute X in memory."""
        X = np.empty(self.shape, np.float32)
        start = 0
        for block in self.blocks():
            X[start : start + len(block)] = block
            start += len(block)
        return ProbeDataset(X, self.y, self.meta, self.norm, self.pipeline)

    def write(self, path: str | os.PathLike[str], *, compress: bool = False) -> None:
        """Write the dataset, computing X block by block in constant memory."""
        X = Blocks(self.shape, np.dtype(np.float32), self.blocks())
        write_arrays(path, X, self.y, self.meta, self.norm, self.fitted.data, compress=compress)


def fit_dataset(
    rows: ActivationSet, recipe: Recipe, *, fitted: FittedPipeline | None = None
) -> FittedDataset:
    """Do everything that `generate_dataset` does, except computing X.

    Parameters
    ----------
    rows : ActivationSet
        The rows for which the recipe was made; only the members of the recipe are needed.
    recipe : Recipe
        How the dataset is made.
    fitted : FittedPipeline or None
        That of a dataset with another target, made by the same pipeline from the same rows.
    """
    try:
        y = _extract(recipe.target, rows)
        if fitted is None or not recipe.is_by_rows:  # other steps may have learned from y
            fitted = _fit_pipeline(rows, recipe, y)
    except FaultyFilesError as error:
        raise rows.rows.name_all(error, recipe.find_members(rows)) from None
    dataset = FittedDataset(rows, recipe, fitted, y)
    _warn(dataset.meta, y, dataset.pipeline)
    return dataset


def _fit_pipeline(rows: ActivationSet, recipe: Recipe, y: NDArray[Any]) -> FittedPipeline:
    """Fit the steps after the selector, block by block if that gives the same bits."""
    from sklearn.base import clone

    from sklprep.datasets.pipeline_bytes import freeze_pipeline

    used = np.arange(len(rows)) if recipe.fit_rows is None else recipe.fit_rows
    fitted = clone(recipe.pipeline)
    fitted.steps[0] = (fitted.steps[0][0], recipe.selector)
    rest = fitted[1:]
    if not recipe.is_by_rows:
        rest.fit(recipe.selector.transform(rows[used]), y[used])
    elif len(rest):
        for block in _row_blocks(used):
            rest[0].partial_fit(recipe.selector.transform(rows[block]))
    fitted.steps[1:] = rest.steps
    data, loaded = freeze_pipeline(fitted)
    return FittedPipeline(loaded, data)


def _extract(extractor: Any, rows: ActivationSet) -> NDArray[Any]:
    from sklprep.transformers.targets import FeatureTargetExtractor

    if isinstance(extractor, FeatureTargetExtractor):
        blocks = _row_blocks(np.arange(len(rows)))
        y = np.concatenate([extractor.transform(rows[block]) for block in blocks])
    else:
        y = extractor.transform(rows)
    if np.ndim(y) != 1:
        raise UsageError(
            f"A dataset holds one target, but y has shape {np.shape(y)}. Make one dataset for each"
            " target, or use y with acts directly."
        )
    return y


def _as_dense(X: Any) -> NDArray[np.float32]:
    from scipy.sparse import issparse

    is_sparse: bool = issparse(X)
    return np.ascontiguousarray(X.toarray() if is_sparse else X, dtype=np.float32)


def _row_blocks(rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS]


def _describe(
    rows: ActivationSet, recipe: Recipe, n_columns: int, y: NDArray[Any]
) -> dict[str, Any]:
    from sklprep.transformers.sae_selector import SAEFeatureSelector
    from sklprep.transformers.targets import ConceptTargetExtractor, FeatureTargetExtractor

    selector, target, train = recipe.selector, recipe.target, recipe.fit_rows
    hidden_or_embeddings = HIDDEN if len(selector.layers_) else EMBEDDINGS
    meta: dict[str, Any] = {
        "meta_strategy": recipe.strategy,
        "meta_input_source": SAE
        if isinstance(selector, SAEFeatureSelector)
        else hidden_or_embeddings,
        "meta_input_layers": selector.layers_,
        "meta_input_dims": n_columns,
        "meta_n_samples": len(rows),
        "meta_sentence_indices": rows.sentence_indices,
        "meta_pooling": rows.pooling,
    }
    if isinstance(target, FeatureTargetExtractor):
        meta |= {
            "meta_output_type": FEATURE,
            "meta_target_layer": target.layer,
            "meta_target_feature": target.feature,
            "meta_average_l0": target.average_l0_,
        }
    elif isinstance(target, ConceptTargetExtractor):
        meta |= {"meta_output_type": CONCEPT, "meta_n_classes": len(np.unique(y))}
    groups = rows.rows.groups
    if len(np.unique(groups)) < len(rows):
        meta["meta_groups"] = groups
    if train is not None:
        meta["meta_train_indices"] = train
        meta["meta_test_indices"] = np.setdiff1d(np.arange(len(rows)), train)
    meta["meta_format_version"] = FORMAT_VERSION
    meta["meta_provenance"] = recipe.provenance.to_json()
    return meta


def _warn(meta: Mapping[str, Any], y: NDArray[Any], pipeline: Pipeline) -> None:
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
            " rows with siblings in training score too high. Split by meta_groups:"
            " cross_val_score(model, X, y, groups=meta_groups, cv=GroupKFold(5))."
        )
    if "meta_train_indices" not in meta:
        messages += [
            f"X went through {name!r} ({type(step).__name__}), which learned from y of all rows, so"
            " scores on X are too high, even for noise. Cross-validate the whole pipeline"
            " on the activations, or fit on some rows, fit_rows=..., and score on the others."
            for name, step in pipeline.steps
            if hasattr(step, "score_func")  # such as SelectKBest, which chooses columns by y
        ]
    for message in messages:
        warnings.warn(message, SklprepWarning, stacklevel=3)
