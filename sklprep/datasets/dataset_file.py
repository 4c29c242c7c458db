"""`load_dataset`: load a dataset file, and check everything in it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep._version import __version__
from sklprep.datasets.probe_dataset import ProbeDataset, norm_of
from sklprep.datasets.provenance import next_step
from sklprep.exceptions import FileFormatError, PipelineError
from sklprep.files.faults import file_fault
from sklprep.files.npz_reader import NpzReader
from sklprep.transformers.normalization_methods import METHODS, is_method

FORMAT_VERSION = 1
"""Raise it if readers of the old version would misread a new file, not for additional keys."""

_MAX_ENTRY_BYTES = 4 << 20
_MAX_BYTES_EACH = 1 << 10
"""Most bytes of an entry per row and column of X. Entries of sklprep have 8 bytes for each, and the
provenance a few kilobytes; texts of other tools may be longer. Larger entries are refused."""

_ROW_KEYS = ("meta_sentence_indices", "meta_groups")
_TEXT_KEYS = ("strategy", "input_source", "pooling", "output_type", "provenance")
_NUMBER_KEYS = ("input_dims", "n_samples", "n_classes", "format_version", "target_layer")
_LIST_KEYS = ("input_layers", "train_indices", "test_indices")


def load_dataset(path: str | os.PathLike[str], *, pipeline: bool = True) -> ProbeDataset:
    """Load a dataset file, without executing, importing or unpickling anything in it.

    Parameters
    ----------
    path : path-like
        The NPZ file.
    pipeline : bool, default=True
        Whether to load the embedded pipeline, if there is one.

    Returns
    -------
    ProbeDataset

    Raises
    ------
    FileFormatError
        If the file is damaged or is not a dataset.
    PipelineError
        If the pipeline is refused or contradicts the ``norm_*`` entries; the arrays can still be
        loaded with ``pipeline=False``.

    Warns
    -----
    SklprepWarning
        If the pipeline was fitted by another version of scikit-learn, so that results may differ.

    Notes
    -----
    Only the version of the format matters, not that of sklprep: older formats are read, newer ones
    are refused.
    """
    return _load(path, lambda reader: reader.array("X"), pipeline=pipeline)


def peek_dataset(path: str | os.PathLike[str]) -> ProbeDataset:
    """Load a dataset without reading X, which is replaced by zeros that take no memory."""

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
            from sklprep.datasets.pipeline_gate import MAX_PIPELINE_BYTES

            data = reader.array("pipeline", max_bytes=MAX_PIPELINE_BYTES)
    values = {key: value.item() if value.ndim == 0 else value for key, value in entries.items()}
    meta = {key: value for key, value in values.items() if key.startswith("meta_")}
    norm = {key: value for key, value in values.items() if key.startswith("norm_")}
    _check_entries(path, X, meta, norm)
    if data is None:
        return ProbeDataset(X, y, meta, norm)
    from sklprep.datasets.pipeline_bytes import loads_pipeline

    where = f"{os.fspath(path)}: member 'pipeline'"
    fitted = loads_pipeline(data.tobytes(), where=where, do=next_step(meta))
    expected = norm_of(fitted)
    if norm.keys() != expected.keys() or any(
        not np.array_equal(norm[key], expected[key]) for key in norm
    ):
        raise PipelineError(
            f"{os.fspath(path)}: the norm_* entries differ from those of the embedded pipeline;"
            " expected equal values. The file was changed after it was written: generate it again,"
            " or load it with pipeline=False."
        )
    return ProbeDataset(X, y, meta, norm, fitted)


def _check_matrix(path: str | os.PathLike[str], reader: NpzReader) -> tuple[int, ...]:
    """Require X and y that fit together, before anything is read; return the shape of X."""
    missing = {"X", "y"} - reader.members.keys()
    if missing:
        raise file_fault(
            path,
            min(missing),
            "is missing",
            "X and y, as in a dataset",
            "It looks like a sentence file, which is input for sklprep generate."
            if "hidden_states" in reader.members
            else "",
        )
    X, y = reader.header("X"), reader.header("y")
    if len(X.shape) != 2 or X.dtype.kind not in "fiu" or 0 in X.shape:
        raise file_fault(path, "X", f"has shape {X.shape} of {X.dtype}", "a numeric matrix")
    if len(y.shape) not in (1, 2) or y.shape[0] != X.shape[0]:
        expected = f"{X.shape[0]} values, one for each row of X"
        raise file_fault(path, "y", f"has shape {y.shape}", expected)
    return X.shape


def _check_version(path: str | os.PathLike[str], reader: NpzReader) -> None:
    """Refuse a newer format before anything else is checked."""
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
    if not is_method(method):
        found = " ".join(repr(method)[:60].split())
        raise file_fault(path, "norm_method", f"is {found}", ", ".join(METHODS))
    for key in METHODS[method].parameters:
        if key not in norm or np.shape(norm[key]) != (X.shape[1],):
            raise file_fault(
                path,
                key,
                f"has shape {np.shape(norm[key])}" if key in norm else "is missing",
                f"({X.shape[1]},), one value for each column of X",
            )


def _expected_entry(name: str, value: Any) -> str:
    """Return what an entry should be, if it is invalid; otherwise an empty text."""
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
