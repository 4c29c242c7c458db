"""What data holds: facts from headers, and from one pass over the values in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.datasets.probe_dataset import ProbeDataset
from sklprep.exceptions import DataError
from sklprep.files.faults import brief
from sklprep.files.npz_reader import NpzReader
from sklprep.formats.pack_reader import Pack
from sklprep.formats.sentence_folder import SentenceFolder
from sklprep.notebook.cards import count
from sklprep.transformers.targets import ENOUGH_ACTIVE

MASSIVE = 20
"""A dimension is massive where its peak, the largest magnitude over the rows, exceeds this many
times the median over the peaks of all dimensions."""

_MEMBERS = ("embeddings", "hidden_states", "activations")
_MOST_LISTED = 10


class DenseStats:
    """Smallest and largest value of each column, gathered block by block.

    Attributes
    ----------
    low, high : ndarray of shape (n_columns,)
        Of the finite values; inf and -inf in a column that has none.
    n_rows, n_bad_rows : int
        Rows seen, and how many of them hold NaN or infinite values.
    """

    def __init__(self, width: int) -> None:
        self.low = np.full(width, np.inf)
        self.high = np.full(width, -np.inf)
        self.n_rows = self.n_bad_rows = 0

    def add(self, rows: NDArray[Any]) -> None:
        """Count rows in."""
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
        """Range, massive dimensions, constant columns."""
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
    """In how many rows each SAE feature is active, gathered block by block.

    Attributes
    ----------
    active : ndarray of shape (n_features,)
    n_bad : int
        NaN and infinite values.
    """

    def __init__(self, n_features: int) -> None:
        self.active = np.zeros(n_features, np.int64)
        self.high = 0.0
        self.n_bad = 0

    def add(self, columns: NDArray[Any], values: NDArray[Any]) -> None:
        """Count entries in; a column at most once a row."""
        self.active += np.bincount(columns[values != 0], minlength=len(self.active))
        finite = np.isfinite(values)
        self.n_bad += len(values) - int(finite.sum())
        self.high = max(self.high, float(values.max(initial=0.0, where=finite)))

    def facts(self, n_rows: int) -> dict[str, Any]:
        """Summary over the features."""
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
    """One pass over the values of an `ActivationSet`, in memory that does not grow with its rows.

    Parameters
    ----------
    acts : ActivationSet
    keep : int or None, default=None
        A layer whose hidden states are kept as well, as `kept`.

    Attributes
    ----------
    embeddings : DenseStats or None
    layers : dict of int to DenseStats
    configs : list of SparseStats
    embedding_digests : list of bytes
        Of each row, equal for equal embeddings; none unless rows are final tokens.
    kept : ndarray of shape (n_rows, d_model), or None
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
    """A digest of each row, equal for equal rows."""
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def units_of(acts: ActivationSet) -> NDArray[np.int64]:
    """Positions of the rows that stand for a sentence: all of them, or its first token."""
    if acts.pooling != "none":
        return np.arange(len(acts))
    return np.sort(np.unique(acts.sentence_indices, return_index=True)[1])


def describe_activations(acts: ActivationSet, source: SentenceFolder | Pack) -> dict[str, Any]:
    """Facts that headers and small members tell; ``values`` is left None.

    Parameters
    ----------
    acts : ActivationSet
        All of `source`.
    source : SentenceFolder or Pack

    Returns
    -------
    dict
        Documented in `sklprep.cli.inspect`.
    """
    units = units_of(acts)
    fault = ""
    try:
        labels: Any = count(acts.labels[units])
    except DataError as error:
        labels, fault = None, brief(error)
    dtypes = _dtypes_of(source)
    widths = dict(zip(_MEMBERS, (source.d_embed, source.d_model, source.n_features), strict=True))
    layers = acts.layers.tolist()
    return {
        "kind": "pack" if isinstance(source, Pack) else "sentence folder",
        "path": os.fspath(source.path),
        "name": acts.name,
        "n_bytes": _n_bytes(source),
        "fingerprint": acts.fingerprint,
        "pooling": acts.pooling,
        "n_sentences": len(units),
        "n_rows": len(acts),
        "left_out": list(acts.left_out),
        "labels": labels,
        "labels_fault": fault,
        "has_text": acts.sentences is not None,
        "tokens": _lengths(source),
        **{
            name: None if widths[name] is None else {"width": widths[name], "dtypes": dtypes[name]}
            for name in _MEMBERS
        },
        "layers": layers if source.d_model is not None else [],
        "saes": [
            {"layer": layer, "average_l0": average_l0}
            for layer, average_l0 in zip(
                acts.sae_layers.tolist(), acts.average_l0s.tolist(), strict=True
            )
        ],
        "values": None,
    }


def describe_values(acts: ActivationSet, scan: Scan) -> dict[str, Any]:
    """Facts of the values; ``None`` or empty for members that are not there."""
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


def describe_dataset(dataset: ProbeDataset, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Facts of a dataset file; ``values`` is left None.

    Parameters
    ----------
    dataset : ProbeDataset
        Its X is not looked at.
    path : path-like

    Returns
    -------
    dict
        Documented in `sklprep.cli.inspect`.
    """
    meta, pipeline = dataset.meta, dataset.pipeline
    layers = meta.get("meta_input_layers")
    provenance = meta.get("meta_provenance")
    return {
        "kind": "dataset",
        "path": os.fspath(path),
        "n_bytes": Path(path).stat().st_size,
        "n_rows": len(dataset.X),
        "n_groups": len(np.unique(dataset.groups)),
        "X": {"shape": list(dataset.X.shape), "dtype": dataset.X.dtype.name},
        "y": {"shape": list(dataset.y.shape), "dtype": str(dataset.y.dtype), **target(dataset.y)},
        "strategy": meta.get("meta_strategy"),
        "input": {
            "source": meta.get("meta_input_source"),
            "layers": None if layers is None else np.asarray(layers).tolist(),
            "pooling": meta.get("meta_pooling"),
        },
        "target": {
            name: _plain(meta.get(f"meta_{key}"))
            for name, key in (
                ("type", "output_type"),
                ("layer", "target_layer"),
                ("feature", "target_feature"),
                ("average_l0", "average_l0"),
            )
        },
        "split": {
            "n_train": np.size(meta["meta_train_indices"]),
            "n_test": len(dataset.X) - np.size(meta["meta_train_indices"]),
        }
        if "meta_train_indices" in meta
        else None,
        "norm": dataset.norm.get("norm_method"),
        "pipeline": None
        if pipeline is None
        else [{"name": name, "step": " ".join(str(step).split())} for name, step in pipeline.steps],
        "provenance": _json_or_text(provenance),
        "values": None,
    }


def scan_dataset(path: str | os.PathLike[str]) -> tuple[DenseStats, list[bytes]]:
    """Read the X of a dataset in blocks; returns its columns' ranges, and a digest of each row."""
    with NpzReader(path) as reader:
        n_rows, width = reader.header("X").shape
        stats, digests = DenseStats(width), []
        for _, block in reader.blocks("X", [(0, n_rows)] if n_rows and width else []):
            stats.add(block)
            digests += digests_of(block)
    return stats, digests


def target(y: NDArray[Any]) -> dict[str, Any]:
    """What y holds: how often each label occurs, or the range and the number of active rows."""
    if y.dtype.kind != "f":
        return {"labels": count(y.reshape(-1))}
    return {
        "labels": None,
        "min": _finite(y.min(initial=np.inf)),
        "max": _finite(y.max(initial=-np.inf)),
        "n_active": np.count_nonzero(y, axis=0).tolist(),
    }


def _dtypes_of(source: SentenceFolder | Pack) -> dict[str, list[str]]:
    """Names of the dtypes that each member is stored in."""
    if isinstance(source, Pack):
        arrays = source.manifest.arrays
        names = {
            member: {
                np.dtype(entry.dtype).name
                for name, entry in arrays.items()
                if name == member or (name.startswith(f"{member}/") and entry.dtype[1] == "f")
            }
            for member in _MEMBERS
        }
    else:
        names = {
            member: {info.dtypes[i] or "" for info in source.files}
            for i, member in enumerate(_MEMBERS)
        }
    return {member: sorted(found - {""}) for member, found in names.items()}


def _lengths(source: SentenceFolder | Pack) -> dict[str, Any] | None:
    """Number of tokens of a sentence; a pack knows it only where every token is a row."""
    if isinstance(source, SentenceFolder):
        lengths = np.array([info.n_tokens for info in source.files])
    elif source.pooling == "none" and source.n_rows:
        lengths = np.bincount(source.sentence_of_row)
    else:
        return None
    return {
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "max": int(lengths.max()),
        "sum": int(lengths.sum()),
    }


def _n_bytes(source: SentenceFolder | Pack) -> int:
    if isinstance(source, SentenceFolder):
        paths = [source.path / info.name for info in source.files]
    else:
        paths = [path for path in source.path.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in paths)


def _json_or_text(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return _plain(text)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
