"""Descriptions of data: facts from headers, and from one pass over the values."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.facts import gather_facts as gather_set_facts
from sklprep.datasets.facts import gather_facts
from sklprep.datasets.probe_dataset import ProbeDataset
from sklprep.files.npz_reader import NpzReader
from sklprep.formats.dumps.dump_source import DumpSource
from sklprep.formats.members import MEMBERS
from sklprep.formats.pack_manifest import FORMAT_VERSION
from sklprep.formats.pack_reader import Pack
from sklprep.formats.sentence_folder import SentenceFolder
from sklprep.formats.source import Source
from sklprep.notebook.words import YSummary
from sklprep.probes.probe import Probe
from sklprep.transformers.targets import ENOUGH_ACTIVE

MASSIVE = 20
"""A dimension is massive if its peak, the largest magnitude over the rows, exceeds this many times
the median of the peaks of all dimensions. In a model without massive dimensions (MiniLM on movie
reviews) the largest ratio is 7; massive ones reach hundreds and thousands."""

_MOST_LISTED = 10  # massive dimensions of a layer, which usually has few


class DenseStats:
    """Smallest and largest value of each column, gathered block by block.

    Attributes
    ----------
    low, high : ndarray of shape (n_columns,)
        Those of the finite values; inf and -inf for columns without finite values.
    n_rows, n_bad_rows : int
        Number of rows, and of those with NaN or infinite values.
    """

    def __init__(self, width: int) -> None:
        self.low = np.full(width, np.inf)
        self.high = np.full(width, -np.inf)
        self.n_rows = self.n_bad_rows = 0

    def add(self, rows: NDArray[Any]) -> None:
        """Add rows."""
        rows = rows if rows.dtype.kind == "f" else rows.astype(np.float64)
        finite = np.isfinite(rows)
        if not finite.all():
            self.n_bad_rows += int((~finite).any(axis=1).sum())
            rows = np.where(finite, rows, np.nan)
        self.n_rows += len(rows)
        self.low = np.fmin(self.low, np.fmin.reduce(rows, axis=0, initial=np.inf))
        self.high = np.fmax(self.high, np.fmax.reduce(rows, axis=0, initial=-np.inf))

    @property
    def constant(self) -> NDArray[np.int64]:
        """Columns with one value in all rows."""
        return np.flatnonzero(self.low == self.high)

    def facts(self) -> dict[str, Any]:
        """Return range, massive dimensions and constant columns."""
        columns = np.flatnonzero(np.isfinite(self.low))
        low, high = self.low[columns], self.high[columns]
        peaks = np.maximum(np.abs(low), np.abs(high))
        median = float(np.median(peaks)) if len(peaks) else None
        massive = np.flatnonzero(peaks > MASSIVE * median) if median else columns[:0]
        massive = massive[np.argsort(-peaks[massive], kind="stable")]
        return {
            "min": float(low.min()) if len(low) else None,
            "max": float(high.max()) if len(high) else None,
            "median_peak": median,
            "n_massive": len(massive),
            "massive": [
                {"dimension": int(columns[i]), "peak": float(peaks[i])}
                for i in massive[:_MOST_LISTED]
            ],
            "n_constant": len(self.constant),
            "n_rows_not_finite": self.n_bad_rows,
        }


class SparseStats:
    """Number of rows in which each SAE feature is active, gathered block by block.

    Attributes
    ----------
    active : ndarray of shape (n_features,)
        Number of rows in which each feature is active.
    n_bad : int
        Number of NaN and infinite values.
    """

    def __init__(self, n_features: int) -> None:
        self.active = np.zeros(n_features, np.int64)
        self.high = 0.0
        self.n_bad = 0

    def add(self, columns: NDArray[Any], values: NDArray[Any]) -> None:
        """Add entries; each column may occur at most once per row."""
        self.active += np.bincount(columns[values != 0], minlength=len(self.active))
        finite = np.isfinite(values)
        self.n_bad += len(values) - int(finite.sum())
        self.high = max(self.high, float(values.max(initial=0.0, where=finite)))

    def facts(self, n_rows: int) -> dict[str, Any]:
        """Return a summary over the features."""
        live = self.active[self.active > 0]
        return {
            "mean_active": float(self.active.sum() / n_rows),
            "max": self.high,
            "n_dead": len(self.active) - len(live),
            "n_rare": int((live < ENOUGH_ACTIVE).sum()),
            "n_always_on": int((self.active == n_rows).sum()),
            "median_active_rows": float(np.median(live)) if len(live) else None,
            "n_values_not_finite": self.n_bad,
        }


class Scan:
    """Results of one pass over the values of an `ActivationSet`, in bounded memory.

    Parameters
    ----------
    acts : ActivationSet
    keep : int or None, default=None
        A layer whose hidden states are kept as `kept`.

    Attributes
    ----------
    embeddings : DenseStats or None
        Statistics of the embeddings.
    layers : dict of int to DenseStats
        Statistics of the hidden states of each layer.
    configs : list of SparseStats
        Statistics of each SAE.
    embedding_digests : list of bytes
        One per row, equal for equal embeddings; empty unless rows are final tokens.
    kept : ndarray of shape (n_rows, d_model), or None
        Hidden states of the layer `keep`.
    """

    def __init__(self, acts: ActivationSet, *, keep: int | None = None) -> None:
        self.embeddings: DenseStats | None = None
        self.layers: dict[int, DenseStats] = {}
        self.configs = [SparseStats(acts.n_sae_features) for _ in acts.sae_layers]
        self.embedding_digests: list[bytes] = []
        kept = []
        for member, number, block in acts.rows.stream():
            if member == "activations":
                self.configs[number].add(block.indices, block.data)
            elif member == "embeddings":
                self.embeddings = self.embeddings or DenseStats(block.shape[1])
                self.embeddings.add(block)
                if acts.pooling == "final":
                    self.embedding_digests += digests_of(block)
            else:
                self.layers.setdefault(number, DenseStats(block.shape[1])).add(block)
                if number == keep:
                    kept.append(np.array(block))
        self.kept = np.concatenate(kept) if kept else None


def digests_of(rows: NDArray[Any]) -> list[bytes]:
    """Return a digest of each row, equal for equal rows."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def describe_activations(acts: ActivationSet) -> dict[str, Any]:
    """Gather facts from headers and small members; ``values`` stays None.

    Parameters
    ----------
    acts : ActivationSet
        All rows of an input.

    Returns
    -------
    dict
        Documented in `sklprep.cli.inspect`.
    """
    source: Any = acts.rows.source
    facts = gather_set_facts(acts.rows)
    dtypes = _dtypes_of(source)
    widths = zip(MEMBERS, (facts.d_embed, facts.d_model, facts.n_features), strict=True)
    return {
        **_format_of(source),
        "mapping": facts.mapping,
        "path": os.fspath(source.place),
        "name": facts.name,
        "n_bytes": _n_bytes(source),
        "fingerprint": acts.fingerprint,
        "pooling": facts.pooling,
        "n_sentences": facts.n_sentences,
        "n_rows": facts.n_rows,
        "left_out": facts.left_out,
        "labels": facts.sentence_labels,
        "labels_fault": facts.labels_fault,
        "has_text": facts.has_text,
        "tokens": _lengths(source),
        **{
            member: None if width is None else {"width": width, "dtypes": dtypes[member]}
            for member, width in widths
        },
        "layers": facts.layers,
        "saes": [{"layer": layer, "average_l0": average_l0} for layer, average_l0 in facts.saes],
        "values": None,
    }


def describe_values(acts: ActivationSet, scan: Scan) -> dict[str, Any]:
    """Gather facts about the values; None or empty for missing members."""
    return {
        "embeddings": None if scan.embeddings is None else scan.embeddings.facts(),
        "hidden_states": [
            {"layer": layer, **stats.facts()} for layer, stats in sorted(scan.layers.items())
        ],
        "activations": [
            {"layer": layer, "average_l0": average_l0, **stats.facts(len(acts))}
            for layer, average_l0, stats in zip(
                acts.sae_layers.tolist(), acts.average_l0s.tolist(), scan.configs, strict=True
            )
        ],
    }


def describe_probe(probe: Probe, path: Path) -> dict[str, Any]:
    """Gather facts about a probe."""
    names = ("layer", "layer_numbering", "pooling", "classes", "threshold")
    facts = {name: getattr(probe, name) for name in (*names, "score", "stability", "provenance")}
    size = {"n_bytes": path.stat().st_size, "weight": [*probe.weight.shape]}
    return {"kind": "probe", "path": os.fspath(path)} | size | facts


def describe_dataset(dataset: ProbeDataset, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Gather facts about a dataset file; ``values`` stays None.

    Parameters
    ----------
    dataset : ProbeDataset
        Its X is not used.
    path : path-like
        The file.

    Returns
    -------
    dict
        Documented in `sklprep.cli.inspect`.
    """
    X = dataset.X
    facts = gather_facts(X.shape, X.dtype, dataset.y, dataset.meta, dataset.norm, dataset.pipeline)
    n_train = facts.n_train
    split = None if n_train is None else {"n_train": n_train, "n_test": len(X) - n_train}
    return {
        "kind": "dataset",
        "path": os.fspath(path),
        "n_bytes": Path(path).stat().st_size,
        "n_rows": len(X),
        "n_groups": facts.n_groups,
        "X": {"shape": list(facts.shape), "dtype": facts.dtype},
        "y": {"shape": list(facts.y_shape), "dtype": facts.y_dtype, **_describe_y(facts.y)},
        "strategy": facts.strategy,
        "input": {"source": facts.source, "layers": facts.layers, "pooling": facts.pooling},
        "target": {
            "type": facts.output_type,
            "layer": facts.target_layer,
            "feature": facts.target_feature,
            "average_l0": facts.average_l0,
        },
        "split": split,
        "norm": facts.norm,
        "pipeline": None
        if facts.steps is None
        else [{"name": name, "step": step} for name, step in facts.steps],
        "provenance": _json_or_text(facts.provenance),
        "values": None,
    }


def scan_dataset(path: str | os.PathLike[str]) -> tuple[DenseStats, list[bytes]]:
    """Read X of a dataset in blocks; return statistics of its columns, and a digest of each row."""
    with NpzReader(path) as reader:
        n_rows, width = reader.header("X").shape
        stats, digests = DenseStats(width), []
        for _, block in reader.blocks("X", [(0, n_rows)] if n_rows and width else []):
            stats.add(block)
            digests += digests_of(block)
    return stats, digests


def _describe_y(y: YSummary) -> dict[str, Any]:
    """Return the count of each label, or the range and the number of active rows."""
    if y.counts is not None:
        return {"labels": y.counts}
    low, high = _finite(y.low), _finite(y.high)
    return {"labels": None, "min": low, "max": high, "n_active": y.n_active}


def _format_of(source: Source) -> dict[str, Any]:
    if isinstance(source, DumpSource):
        kind, name, version = "dump", source.dump.format, source.dump.version
    elif isinstance(source, Pack):
        kind, name, version = "pack", "pack", str(FORMAT_VERSION)
    else:
        kind, name, version = "sentence folder", "sentences", ""
    return {"kind": kind, "format": {"name": name, "version": version}}


def _dtypes_of(source: Source) -> dict[str, list[str]]:
    """Return the names of the dtypes in which each member is stored."""
    names: dict[str, set[str]]
    if isinstance(source, DumpSource):
        return source.dtypes
    if isinstance(source, Pack):
        arrays = source.manifest.arrays
        names = {
            member: {
                np.dtype(entry.dtype).name
                for name, entry in arrays.items()
                if name == member or (name.startswith(f"{member}/") and entry.dtype[1] == "f")
            }
            for member in MEMBERS
        }
    elif isinstance(source, SentenceFolder):
        names = {
            member: {info.dtypes[i] or "" for info in source.files}
            for i, member in enumerate(MEMBERS)
        }
    else:
        names = {member: {source.stored_dtype} for member in MEMBERS}
    return {member: sorted(found - {""}) for member, found in names.items()}


def _lengths(source: Source) -> dict[str, Any] | None:
    """Summarize the numbers of tokens; for a pack they are known only if tokens are rows."""
    if isinstance(source, SentenceFolder):
        lengths = np.array([info.n_tokens for info in source.files])
    elif isinstance(source, DumpSource):
        if not source.dump.has_tokens:
            return None
        lengths = source.n_tokens
    elif isinstance(source, Pack) and source.pooling == "none" and source.n_rows:
        lengths = np.bincount(source.sentence_of_row)
    else:
        return None
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "max": int(lengths.max()),
        "sum": int(lengths.sum()),
    }


def _n_bytes(source: Source) -> int:
    if isinstance(source, SentenceFolder):
        paths = [source.path / info.name for info in source.files]
    elif isinstance(source, DumpSource):
        paths = list(source.dump.files)
    else:
        paths = [path for path in (source.place or Path()).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in paths)


def _json_or_text(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
