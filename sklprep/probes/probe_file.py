"""`save_probe` and `load_probe`: a probe as a safetensors file, which holds no code."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError, UsageError
from sklprep.files.atomic import atomic_write
from sklprep.files.faults import file_fault
from sklprep.files.npy_file import COPY_AGAIN
from sklprep.files.safetensors_bytes import encode_tensors
from sklprep.files.safetensors_file import (
    SafetensorsHeader,
    is_safetensors,
    read_safetensors_header,
)
from sklprep.formats.layers import EMBEDDINGS
from sklprep.formats.pooling import POOLINGS
from sklprep.probes.probe import Probe

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from sklprep.activations.activation_set import ActivationSet
    from sklprep.sweeps.sweep_result import LayerSweep

FORMAT_VERSION = 1
"""Raise it if readers of the old version would misread new files, but not for new keys."""

METADATA_KEY = "probe"
"""Key of the JSON text in the metadata of the file."""

_FACTS = ("layer", "layer_numbering", "pooling", "classes", "threshold")
_RECORDS = ("score", "stability", "provenance")
_LARGEST = 2**63
"""Bound of labels and thresholds: JSON text may hold numbers beyond those of numpy."""

_NOT_A_PROBE = "Save it again with save_probe."


def save_probe(
    probe: Pipeline | Probe,
    path: str | os.PathLike[str],
    *,
    acts: ActivationSet | None = None,
    sweep: LayerSweep | None = None,
    threshold: float | None = None,
) -> None:
    r"""Write a linear probe as a safetensors file, atomically.

    Parameters
    ----------
    probe : Pipeline or Probe
        A fitted pipeline of one layer, as `probe_directions` takes it; or a `Probe`, which already
        has what the other parameters give.
    path : path-like
    acts : ActivationSet, default=None
        What the pipeline was fitted on, which gives pooling, layer numbering and provenance.
    sweep : LayerSweep, default=None
        A nested sweep that has the layer among its inputs, which gives the score and its interval.
    threshold : float, default=None
        For two classes only. By default 0, where the pipeline's own predictions change.

    Raises
    ------
    UsageError
        As `Probe.from_pipeline`, or if `acts`, `sweep` or `threshold` is given with a `Probe`.

    Notes
    -----
    The file has two tensors, ``weight`` (n_outputs, width) and ``bias`` (n_outputs,), in float64,
    since weights in raw units span many orders of magnitude. With h the raw activations of the
    layer, W the weight and b the bias, the decisions are

    .. math:: h \, W^T + b .

    The metadata have one entry, ``probe``, in JSON: ``format_version`` (1) and the other attributes
    of `Probe`. The same probe and library versions give the same bytes.

    Examples
    --------
    >>> import tempfile
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklprep import ActivationNormalizer, LayerSelector, layer_sweep, make_activations
    >>> from sklprep import load_probe, save_probe
    >>> acts = make_activations(60, n_layers=4, d_model=8, n_features=32, random_state=0)
    >>> model = make_pipeline(ActivationNormalizer(), LogisticRegression())
    >>> sweep = layer_sweep(model, acts, acts.labels, layers=[2], n_repeats=1)
    >>> pipeline = make_pipeline(LayerSelector(2), model).fit(acts, acts.labels)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_probe(pipeline, f"{folder}/probe.safetensors", acts=acts, sweep=sweep)
    ...     probe = load_probe(f"{folder}/probe.safetensors")
    >>> probe.layer, probe.pooling, probe.weight.shape
    (2, 'final', (4, 8))
    >>> probe.score["value"] == sweep.nested_score
    True
    """
    if not isinstance(probe, Probe):
        probe = Probe.from_pipeline(probe, acts=acts, sweep=sweep, threshold=threshold)
    elif any(given is not None for given in (acts, sweep, threshold)):
        raise UsageError(
            "acts, sweep and threshold are for a pipeline; a Probe has them. Change it with"
            " dataclasses.replace(probe, threshold=...)."
        )
    record = {"format_version": FORMAT_VERSION}
    record |= {name: getattr(probe, name) for name in (*_FACTS, *_RECORDS)}
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    tensors = {"weight": probe.weight, "bias": probe.bias}
    with atomic_write(path) as file:
        file.write(encode_tensors(tensors, {METADATA_KEY: text}))


def load_probe(path: str | os.PathLike[str]) -> Probe:
    """Read a probe that `save_probe` wrote. Nothing in the file is executed.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Probe

    Raises
    ------
    FileFormatError
        If the file is broken, is not a probe, or has a later version of the format.

    See Also
    --------
    save_probe : Write a probe; its example reads it again.
    """
    header = read_safetensors_header(path)
    record = _read_record(path, header)
    weight, bias = (_read_tensor(path, header, name) for name in ("weight", "bias"))
    if weight.ndim != 2 or not weight.size or bias.shape != weight.shape[:1]:
        raise file_fault(
            path,
            "weight",
            f"has shape {weight.shape}, and bias {bias.shape}",
            "(n_outputs, width) and (n_outputs,)",
            _NOT_A_PROBE,
        )
    for name, value in record.items():
        if not _is_sound(name, value, len(weight)):
            raise _bad_entry(path, name, value)
    two = record["classes"] is not None and len(record["classes"]) == 2
    if two != (record["threshold"] is not None):
        raise _bad_entry(path, "threshold", record["threshold"])
    return Probe(weight, bias, **record)


def is_probe(path: str | os.PathLike[str]) -> bool:
    """Tell by its metadata whether a file is meant to be a probe."""
    if not is_safetensors(path):
        return False
    try:
        return METADATA_KEY in read_safetensors_header(path).metadata
    except FileFormatError:
        return False


def _read_record(path: str | os.PathLike[str], header: SafetensorsHeader) -> dict[str, Any]:
    text = header.metadata.get(METADATA_KEY)
    if text is None:
        raise file_fault(
            path, None, f"has no {METADATA_KEY!r} in its metadata", "a probe", _NOT_A_PROBE
        )
    try:
        record = json.loads(text, parse_constant=_refuse)
        version = record["format_version"]
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
        what = " ".join(str(error).split())[:80]
        raise file_fault(
            path, METADATA_KEY, f"cannot be read ({what})", "JSON of a probe", COPY_AGAIN
        ) from None
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise file_fault(
            path,
            METADATA_KEY,
            f"has format_version {str(version)[:20]!r}",
            str(FORMAT_VERSION),
            "Install the sklprep that wrote it.",
        )
    return {name: record.get(name) for name in (*_FACTS, *_RECORDS)}


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _read_tensor(
    path: str | os.PathLike[str], header: SafetensorsHeader, name: str
) -> NDArray[np.float64]:
    stored = header.tensors.get(name)
    if stored is None or stored.dtype not in ("<f8", "<f4"):
        found = "is missing" if stored is None else f"has dtype {stored.dtype}"
        raise file_fault(path, name, found, "float64 or float32", _NOT_A_PROBE)
    values = stored.read_all().astype(np.float64)
    if n_bad := int(np.size(values) - np.isfinite(values).sum()):
        raise file_fault(path, name, f"has {n_bad} NaN or infinite values", "numbers", COPY_AGAIN)
    return values


def _is_sound(name: str, value: Any, n_outputs: int) -> bool:
    """Whether an entry of the record is one that a probe with this many outputs may have."""
    match name:
        case "layer":
            return value == EMBEDDINGS or (type(value) is int and value >= 0)
        case "layer_numbering":
            return isinstance(value, str)
        case "provenance":
            return isinstance(value, dict)
        case _:
            return value is None or _is_known(name, value, n_outputs)


def _is_known(name: str, value: Any, n_outputs: int) -> bool:
    """Check an entry that may be None but is not."""
    match name:
        case "pooling":
            return value in POOLINGS
        case "threshold":
            return type(value) in (int, float) and abs(value) < _LARGEST
        case "classes":
            if not isinstance(value, list) or len(value) != max(n_outputs, 2):
                return False
            kinds = {type(one) for one in value}
            if len(kinds) != 1 or not kinds <= {int, float, bool, str}:
                return False
            fits = str in kinds or all(abs(one) < _LARGEST for one in value)
            return fits and len(set(value)) == len(value)
        case _:
            return isinstance(value, dict)


def _bad_entry(path: str | os.PathLike[str], name: str, value: Any) -> FileFormatError:
    shown = ascii(value)[:60]
    return file_fault(path, name, f"is {shown}", "what save_probe writes", _NOT_A_PROBE)
