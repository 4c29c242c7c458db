"""The manifest of a pack: what it says, and what must hold before it is believed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sklprep.exceptions import FileFormatError
from sklprep.files.faults import file_fault
from sklprep.files.npy_file import is_plain_dtype
from sklprep.formats.fingerprint import fingerprint_of
from sklprep.formats.segments import digest_of
from sklprep.formats.sentence_file import MAX_WIDTH

FORMAT = "sklprep pack"
FORMAT_VERSION = 1
"""Raise it when a reader of the old version would misread the new folder, not for new arrays."""

MANIFEST = "manifest.json"

_MAX_MANIFEST_BYTES = 64 << 20
_MAX_INT = 1 << 63
_ARRAY_NAME = re.compile(r"[a-z_]+(/[\w.+-]+)?", re.ASCII)
_KINDS = {  # of labels any
    "sentence_indices": "<i8",
    "groups": "<i8",
    "sentence_of_row": "<i8",
    "is_final_token": "|b1",
    "sentences": "<U",
    "source_names": "<U",
    "source_digests": "|u1",
}
SMALL = ("labels", *_KINDS)


def blank_manifest(
    *,
    source: str,
    pooling: str | None,
    layers: list[int],
    configs: list[int],
    sae_layers: list[int],
    average_l0s: list[Any],
    widths: tuple[int | None, int | None, int | None],
    dtype: str,
) -> dict[str, Any]:
    """Make the manifest of a pack that has no rows yet."""
    d_embed, d_model, n_features = widths
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "source": source,
        "fingerprint": fingerprint_of([]),
        "pooling": pooling,
        "n_rows": 0,
        "n_sentences": 0,
        "layers": layers,
        "sae_layers": sae_layers,
        "average_l0s": average_l0s,
        "configs": configs,
        "d_embed": d_embed,
        "d_model": d_model,
        "n_features": n_features,
        "labels_fault": "",
        "arrays": {},
    }
    if d_embed is not None:
        add_array(manifest, "embeddings", dtype, [0, d_embed])
    for layer in layers:
        add_array(manifest, layer_name(layer), dtype, [0, d_model])
    for number in range(len(configs)):
        data, indices, indptr = config_names(manifest, number)
        add_array(manifest, data, dtype, [0])
        add_array(manifest, indices, "<i4", [0])
        add_array(manifest, indptr, "<i8", [0])
    return manifest


def add_array(manifest: dict[str, Any], name: str, dtype: str, shape: list[Any]) -> None:
    manifest["arrays"][name] = {
        "dtype": dtype,
        "shape": shape,
        "segments": [],
        "digest": digest_of([]),
    }


def layer_name(layer: int) -> str:
    return f"hidden_states/L{layer}"


def config_names(manifest: dict[str, Any], config: int) -> list[str]:
    layer, average_l0 = manifest["sae_layers"][config], manifest["average_l0s"][config]
    stem = f"activations/{config:03d}_L{layer}_l0_{average_l0:g}"
    return [f"{stem}_{part}" for part in ("data", "indices", "indptr")]


def manifest_digest(manifest: dict[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise file_fault(path, None, "is oversized", f"at most {_MAX_MANIFEST_BYTES:,} bytes")
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["format_version"]
        if manifest["format"] != FORMAT or type(version) is not int:
            raise ValueError(f"format {manifest['format']!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise file_fault(
            path, None, f"is no pack's manifest ({error})", "what sklprep pack writes"
        ) from None
    if version > FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: pack format version {version}; this sklprep reads versions up to"
            f" {FORMAT_VERSION}. Upgrade sklprep."
        )
    _check_manifest(path, manifest)
    return manifest


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_INT


def _is_width(value: Any) -> bool:
    return value is None or (_is_count(value) and 1 <= value <= MAX_WIDTH)


def _is_list_of(*kinds: type, least: int = -_MAX_INT) -> Callable[[Any], bool]:
    def is_sound(value: Any) -> bool:
        return isinstance(value, list) and all(
            type(number) in kinds and least <= number < _MAX_INT for number in value
        )

    return is_sound


_TEXT = ("one line of text", _is_text)
_COUNT = ("a count", _is_count)
_WIDTH = (f"null or 1 to {MAX_WIDTH:,}", _is_width)
_INTEGERS = ("a list of whole numbers", _is_list_of(int))
_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "source": _TEXT,
    "fingerprint": _TEXT,
    "pooling": ("one line of text, or null", lambda value: value is None or _is_text(value)),
    "labels_fault": _TEXT,
    "n_rows": _COUNT,
    "n_sentences": _COUNT,
    "layers": _INTEGERS,
    "sae_layers": _INTEGERS,
    "configs": ("a list of counts", _is_list_of(int, least=0)),
    "average_l0s": ("a list of numbers", _is_list_of(int, float)),
    "d_embed": _WIDTH,
    "d_model": _WIDTH,
    "n_features": _WIDTH,
    "arrays": ("a table of arrays", lambda value: isinstance(value, dict)),
}


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    for key, (expected, is_sound) in _VALUES.items():
        if key not in manifest:
            raise file_fault(path, None, f"has no {key}", expected)
        if not is_sound(value := manifest[key]):
            raise file_fault(path, None, f"has {key} {str(value)[:60]!r}", expected)
    layers = manifest["layers"]
    if layers != sorted(set(layers)):
        raise file_fault(path, None, f"has layers {str(layers)[:60]}", "ascending layers")
    left_out = manifest.get("left_out", [])
    if not (isinstance(left_out, list) and all(isinstance(name, str) for name in left_out)):
        raise file_fault(path, None, f"has left_out {str(left_out)[:60]!r}", "names of files")
    for key, others in (("layers", ["d_model"]), ("sae_layers", ["n_features", "average_l0s"])):
        for other in others:
            value = manifest[other]
            fits = (
                len(value) == len(manifest[key])
                if isinstance(value, list)
                else (bool(value) == bool(manifest[key]))
            )
            if not fits:
                raise file_fault(
                    path, None, f"has {other} {str(value)[:60]}", f"what fits its {key}"
                )
    _check_arrays(path, manifest)


def _check_arrays(path: Path, manifest: dict[str, Any]) -> None:
    for name, entry in manifest["arrays"].items():
        if not (
            _ARRAY_NAME.fullmatch(name)
            and isinstance(entry, dict)
            and isinstance(entry.get("dtype"), str)
            and isinstance(entry.get("digest"), str)
            and isinstance(entry.get("segments"), list)
            and all(isinstance(segment, str) for segment in entry["segments"])
            and isinstance(entry.get("shape"), list)
            and entry["shape"]
            and all(type(n) is int and 0 <= n < _MAX_INT for n in entry["shape"])
            and is_plain_dtype(entry["dtype"])
        ):
            found = f"is {str(entry)[:60]!r}"
            raise file_fault(path, name, found, "dtype, shape and digests")
    for name, shape in _shapes_of(manifest).items():
        entry = manifest["arrays"].get(name)
        if entry is None or entry["shape"][: len(shape)] != shape:
            found = f"is {str(entry)[:60]!r}"
            raise file_fault(path, name, found, f"an array of {shape}")
        kind = _kind_of(name)
        if not entry["dtype"].startswith(kind):
            raise file_fault(path, name, f"has dtype {entry['dtype']}", kind)


def _kind_of(name: str) -> str:
    """How the dtype of an array begins."""
    if name.startswith("activations/") and not name.endswith("_data"):
        return "<i8" if name.endswith("_indptr") else "<i4"
    return "" if name == "labels" else _KINDS.get(name, "<f")


def _shapes_of(manifest: dict[str, Any]) -> dict[str, list[Any]]:
    """The arrays there must be, and their shapes as far as they are known."""
    n_rows, n_sentences = manifest["n_rows"], manifest["n_sentences"]
    shapes: dict[str, list[Any]] = {
        "sentence_indices": [n_rows],
        "groups": [n_rows],
        "source_names": [n_sentences],
    }
    optional = {"source_digests": n_sentences, "sentence_of_row": n_rows, "is_final_token": n_rows}
    for name, n in optional.items():
        if name in manifest["arrays"]:
            shapes[name] = [n]
    if not manifest["labels_fault"]:
        shapes["labels"] = [n_rows]
    if "sentences" in manifest["arrays"]:
        shapes["sentences"] = [n_sentences]
    if manifest["d_embed"] is not None:
        shapes["embeddings"] = [n_rows, manifest["d_embed"]]
    for layer in manifest["layers"]:
        shapes[layer_name(layer)] = [n_rows, manifest["d_model"]]
    for config in range(len(manifest["sae_layers"])):
        data, indices, indptr = config_names(manifest, config)
        n_values = manifest["arrays"].get(data, {}).get("shape", [0])[:1]
        shapes |= {data: n_values, indices: n_values, indptr: [n_rows + 1]}
    return shapes
