"""The manifest of a pack: its content, and the checks before it is used."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
"""Raise it if readers of the old version would misread a new pack, not for additional arrays."""

MANIFEST = "manifest.json"

_MAX_MANIFEST_BYTES = 64 << 20
"""The digest of a segment takes 70 bytes, so this suffices for 3.8 TB of arrays, and a hostile file
needs this memory only briefly."""
_MAX_INT = 1 << 63  # numpy counts rows in int64
_ARRAY_NAME = re.compile(r"[a-z_]+(/[\w.+-]+)?", re.ASCII)  # a path that stays within the pack
_KINDS = {  # labels may have any dtype
    "sentence_indices": "<i8",
    "groups": "<i8",
    "sentence_of_row": "<i8",
    "is_final_token": "|b1",
    "sentences": "<U",
    "source_names": "<U",
    "source_digests": "|u1",
}
SMALL = ("labels", *_KINDS)
"""Arrays with few bytes per row, which are rewritten when the others grow."""


@dataclass(frozen=True, slots=True)
class ArrayEntry:
    """Entry of one array: dtype, shape with the number of valid rows, and digests."""

    dtype: str
    shape: tuple[int, ...]
    segments: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, dtype: str, shape: Iterable[int], segments: Iterable[str] = ()) -> ArrayEntry:
        """Create the entry of an array with these segments."""
        segments = tuple(segments)
        return cls(dtype, tuple(shape), segments, digest_of(segments))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of ``manifest.json``.

    Attributes
    ----------
    source, fingerprint : str
        Base name and fingerprint of the source.
    pooling : str or None
        None where sklprep did not pool the tokens.
    n_rows, n_sentences : int
        Numbers of rows and sentences.
    layers : tuple of int
        Ascending.
    configs, sae_layers, average_l0s : tuple
        Position in the source, layer and average_l0 of each SAE config.
    d_embed, d_model, n_features : int or None
        Widths; None for members that the pack does not hold.
    labels_fault : str
        Why there are no labels; empty if there are labels.
    arrays : mapping of str to ArrayEntry
        By the name of the file without ``.npy``.
    left_out : tuple of str
        Names of files that were left out.
    is_intact : bool
        False if the file does not agree with its own digest.
    """

    source: str
    fingerprint: str
    pooling: str | None
    n_rows: int
    n_sentences: int
    layers: tuple[int, ...]
    configs: tuple[int, ...]
    sae_layers: tuple[int, ...]
    average_l0s: tuple[float, ...]
    d_embed: int | None
    d_model: int | None
    n_features: int | None
    labels_fault: str
    arrays: Mapping[str, ArrayEntry]
    left_out: tuple[str, ...] = ()
    is_intact: bool = True

    @classmethod
    def blank(
        cls,
        *,
        source: str,
        pooling: str | None,
        layers: Iterable[int],
        configs: Iterable[int],
        sae_layers: Iterable[int],
        average_l0s: Iterable[float],
        widths: tuple[int | None, int | None, int | None],
        dtype: str,
    ) -> Manifest:
        """Create the manifest of a pack without rows."""
        d_embed, d_model, n_features = widths
        manifest = cls(
            source=source,
            fingerprint=fingerprint_of([]),
            pooling=pooling,
            n_rows=0,
            n_sentences=0,
            layers=tuple(layers),
            configs=tuple(configs),
            sae_layers=tuple(sae_layers),
            average_l0s=tuple(average_l0s),
            d_embed=d_embed,
            d_model=d_model,
            n_features=n_features,
            labels_fault="",
            arrays={},
        )
        arrays = {}
        if d_embed is not None:
            arrays["embeddings"] = ArrayEntry.of(dtype, (0, d_embed))
        for layer in manifest.layers:
            arrays[layer_name(layer)] = ArrayEntry.of(dtype, (0, d_model or 0))
        for number in range(len(manifest.configs)):
            data, indices, indptr = manifest.config_names(number)
            arrays[data] = ArrayEntry.of(dtype, (0,))
            arrays[indices] = ArrayEntry.of("<i4", (0,))
            arrays[indptr] = ArrayEntry.of("<i8", (0,))
        return dataclasses.replace(manifest, arrays=arrays)

    def config_names(self, config: int) -> tuple[str, str, str]:
        """Return the names of the arrays data, indices and indptr of an SAE config."""
        layer, average_l0 = self.sae_layers[config], self.average_l0s[config]
        stem = f"activations/{config:03d}_L{layer}_l0_{average_l0:g}"
        return f"{stem}_data", f"{stem}_indices", f"{stem}_indptr"

    def without_segments(self) -> Manifest:
        """Leave out the digests of segments, which are many and needed only to grow the pack."""
        arrays = {n: dataclasses.replace(entry, segments=()) for n, entry in self.arrays.items()}
        return dataclasses.replace(self, arrays=arrays)

    def to_json(self) -> dict[str, Any]:
        """Return the content of the file, including its digest."""
        facts = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        del facts["is_intact"]
        if not self.left_out:
            del facts["left_out"]
        return facts | {"digest": _digest(facts)}


def layer_name(layer: int) -> str:
    """Return the name of the array with the hidden states of a layer."""
    return f"hidden_states/L{layer}"


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of a pack.

    Raises
    ------
    FileFormatError
        If it is damaged or inconsistent, or of a newer format version.
    """
    path = folder / MANIFEST
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise file_fault(path, None, "is oversized", f"at most {_MAX_MANIFEST_BYTES:,} bytes")
    try:
        facts = json.loads(path.read_bytes())
        version = facts["format_version"]
        if facts["format"] != FORMAT or type(version) is not int or version < 1:
            raise ValueError(f"format {facts['format']!r}, version {version!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise file_fault(
            path, None, f"is not a pack's manifest ({error})", "what sklprep pack writes"
        ) from None
    if version > FORMAT_VERSION:
        raise FileFormatError(
            f"{path}: pack format version {version}; this sklprep reads versions up to"
            f" {FORMAT_VERSION}. Upgrade sklprep."
        )
    manifest = _checked(path, facts)
    _require_fitting(path, manifest)
    _require_arrays(path, manifest)
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


def _checked(path: Path, facts: dict[str, Any]) -> Manifest:
    """Check the type of each value, and create the manifest."""
    for key, (expected, is_sound) in _VALUES.items():
        if key not in facts:
            raise file_fault(path, None, f"has no {key}", expected)
        if not is_sound(value := facts[key]):
            raise file_fault(path, None, f"has {key} {str(value)[:60]!r}", expected)
    left_out = facts.get("left_out", [])
    if not (isinstance(left_out, list) and all(isinstance(name, str) for name in left_out)):
        raise file_fault(path, None, f"has left_out {str(left_out)[:60]!r}", "names of files")
    values: dict[str, Any] = {
        key: tuple(facts[key]) if isinstance(facts[key], list) else facts[key] for key in _VALUES
    }
    values["arrays"] = {
        name: _checked_entry(path, name, entry) for name, entry in facts["arrays"].items()
    }
    rest = {key: value for key, value in facts.items() if key != "digest"}
    is_intact = facts.get("digest", digest := _digest(rest)) == digest
    return Manifest(**values, left_out=tuple(left_out), is_intact=is_intact)


def _checked_entry(path: Path, name: str, entry: Any) -> ArrayEntry:
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
        raise file_fault(path, name, f"is {str(entry)[:60]!r}", "dtype, shape and digests")
    shape, segments = tuple(entry["shape"]), tuple(entry["segments"])
    return ArrayEntry(entry["dtype"], shape, segments, entry["digest"])


def _require_fitting(path: Path, manifest: Manifest) -> None:
    """Refuse layers out of order, and widths or SAEs that contradict them."""
    layers = manifest.layers
    if layers != tuple(sorted(set(layers))):
        raise file_fault(path, None, f"has layers {str([*layers])[:60]}", "ascending layers")
    for key, other, fits in (
        ("layers", "d_model", bool(manifest.d_model) == bool(layers)),
        ("sae_layers", "n_features", bool(manifest.n_features) == bool(manifest.sae_layers)),
        ("sae_layers", "average_l0s", len(manifest.average_l0s) == len(manifest.sae_layers)),
    ):
        if not fits:
            found = f"has {other} {str(getattr(manifest, other))[:60]}"
            raise file_fault(path, None, found, f"a value that fits its {key}")


def _require_arrays(path: Path, manifest: Manifest) -> None:
    """Refuse a manifest without the arrays that it needs."""
    for name, shape in _shapes_of(manifest).items():
        entry = manifest.arrays.get(name)
        if entry is None or entry.shape[: len(shape)] != shape:
            found = "is missing" if entry is None else f"has shape {entry.shape}"
            raise file_fault(path, name, found, f"an array of {[*shape]}")
        kind = _kind_of(name)
        if not entry.dtype.startswith(kind):
            raise file_fault(path, name, f"has dtype {entry.dtype}", kind)


def _kind_of(name: str) -> str:
    """Return the start of the dtype of an array."""
    if name.startswith("activations/") and not name.endswith("_data"):
        return "<i8" if name.endswith("_indptr") else "<i4"
    return "" if name == "labels" else _KINDS.get(name, "<f")


def _shapes_of(manifest: Manifest) -> dict[str, tuple[int | None, ...]]:
    """Return the required arrays, and their shapes as far as they are known."""
    n_rows, n_sentences = manifest.n_rows, manifest.n_sentences
    shapes: dict[str, tuple[int | None, ...]] = {
        "sentence_indices": (n_rows,),
        "groups": (n_rows,),
        "source_names": (n_sentences,),
    }
    optional = {
        "source_digests": n_sentences,
        "sentences": n_sentences,
        "sentence_of_row": n_rows,
        "is_final_token": n_rows,
    }
    shapes |= {name: (n,) for name, n in optional.items() if name in manifest.arrays}
    if not manifest.labels_fault:
        shapes["labels"] = (n_rows,)
    if manifest.d_embed is not None:
        shapes["embeddings"] = (n_rows, manifest.d_embed)
    for layer in manifest.layers:
        shapes[layer_name(layer)] = (n_rows, manifest.d_model)
    for config in range(len(manifest.sae_layers)):
        data, indices, indptr = manifest.config_names(config)
        n_values = manifest.arrays[data].shape[:1] if data in manifest.arrays else (0,)
        shapes |= {data: n_values, indices: n_values, indptr: (n_rows + 1,)}
    return shapes
