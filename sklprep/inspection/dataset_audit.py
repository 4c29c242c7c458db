"""The audit of a dataset file: what in X and y would inflate or spoil a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.duplicates import find_equal
from sklprep.datasets.probe_dataset import ProbeDataset
from sklprep.datasets.strategies import CONCEPT
from sklprep.formats.layers import EMBEDDINGS
from sklprep.inspection.describe import DenseStats
from sklprep.inspection.findings import (
    SCORED_TWICE,
    Finding,
    constant_columns,
    find_imbalance,
    first_sets,
    n_of,
    not_finite,
    verb,
)
from sklprep.transformers.targets import ENOUGH_ACTIVE

_ONE_TOKEN = ("final", "none")  # poolings whose rows are single tokens


def audit_dataset(
    dataset: ProbeDataset, stats: DenseStats, digests: Sequence[bytes]
) -> list[Finding]:
    """Audit a dataset, given the results of `scan_dataset` for its X."""
    bad = [f"{stats.n_bad_rows} of {stats.n_rows} rows of X"] if stats.n_bad_rows else []
    n_constant = len(stats.constant)
    constant = [f"{n_constant} of {len(stats.low)} columns of X"] if n_constant else []
    return [
        *not_finite(bad),
        *_find_copies(find_equal(digests), dataset.y, dataset.meta),
        *_find_poor_target(dataset.y, dataset.meta),
        *constant_columns(constant),
    ]


def _find_copies(
    copies: Sequence[NDArray[np.int64]], y: NDArray[Any], meta: Mapping[str, Any]
) -> list[Finding]:
    """Report equal rows of X, and those with different y."""
    if not copies:
        return []
    embeddings = meta.get("meta_input_source") == EMBEDDINGS
    is_token = embeddings and meta.get("meta_pooling") in _ONE_TOKEN
    same_token = "A token has the same embedding in every sentence. " if is_token else ""
    n_repeats = sum(len(same) - 1 for same in copies)
    findings = [
        Finding(
            "duplicates",
            f"{n_of(n_repeats, 'row')} of X {verb(n_repeats, 'repeat')} another one, value by"
            f" value, in {n_of(len(copies), 'set')} (rows {first_sets(copies)}).",
            f"{same_token}Where copies fall on both sides of a split, the model {SCORED_TWICE}.",
            "Pool with mean, or interpret the score as that of single words."
            if is_token
            else "Give copies one group: audit the folder from which this was made, and split by"
            " the groups that the audit proposes.",
        )
    ]
    different = [c for c in copies if len(np.unique(y[c], axis=0)) > 1]
    if different:
        findings.append(
            Finding(
                "label-conflicts",
                f"{n_of(len(different), 'set')} of equal rows of X with different y (rows"
                f" {first_sets(different)}).",
                "No model can predict all of them, which limits the score.",
                "Pool with mean." if is_token else "Correct the labels, or leave these rows out.",
            )
        )
    return findings


def _find_poor_target(y: NDArray[Any], meta: Mapping[str, Any]) -> list[Finding]:
    if meta.get("meta_output_type") == CONCEPT or y.dtype.kind != "f":
        return find_imbalance(y, "rows") if y.ndim == 1 else []
    n_active = int(np.count_nonzero(y, axis=0).min())
    if n_active >= ENOUGH_ACTIVE:
        return []
    return [
        Finding(
            "rare-target",
            f"y is not zero in only {n_active} of {len(y)} rows.",
            "Some test folds may have only zeros, for which R2 is meaningless.",
            "Choose a feature that is active more often, or pool with mean or max.",
        )
    ]
