"""Dumps of named arrays in any container: layers are recognized by their names.

``layer_12`` of shape (rows, width) holds pooled rows; of shape (rows, tokens, width) it holds
padded sentences, whose real tokens are given by ``attention_mask`` (rows, tokens) or ``lengths``
(rows,); of shape (tokens, width) with ``offsets`` (rows + 1,) or ``lengths`` it holds concatenated
sentences. An array of all layers has one more axis, before the last. ``labels``, ``groups``,
``sentence_indices`` and ``sentences`` have one entry per sentence; metadata may hold them as JSON
lists.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError, SklprepWarning
from sklprep.files.faults import file_fault
from sklprep.files.npy_file import FLOATS
from sklprep.files.raw_array import BFLOAT16
from sklprep.formats.dumps.dump import (
    Chain,
    Channel,
    Dump,
    Request,
    Sentences,
    StoredArray,
    Tokens,
    Vectors,
)
from sklprep.formats.dumps.keys import (
    EMBEDDINGS,
    WHOLE,
    find_layers,
    no_layers,
    read_axis,
    say_mapping,
    shift,
)
from sklprep.formats.dumps.stored_saes import SAES, count_rows, find_saes
from sklprep.formats.pooling import POOLINGS
from sklprep.formats.sentence_file import MAX_WIDTH

_LABELS = ("labels", "label")
_GROUPS = ("groups", "group")
_INDICES = ("sentence_indices", "sentence_index")
_TEXTS = ("sentences", "sentence", "texts", "text")
TEXTS_AND_LABELS = (*_LABELS, *_GROUPS, *_TEXTS)
_MASKS = ("attention_mask", "mask")


@dataclass(frozen=True, slots=True)
class Store:
    """Named arrays of some rows, and metadata; `all_real` says that no token is padding."""

    path: Path
    arrays: Mapping[str, StoredArray]
    metadata: Mapping[str, str]
    all_real: bool = False


class _Axes(NamedTuple):
    """Meaning of the axes before the last; `n_tokens` is None if there is no axis of tokens."""

    n_rows: int
    n_tokens: int | None
    n_layers: int
    inner: int
    names: str


def open_stores(
    stores: Sequence[Store],
    request: Request,
    *,
    format: str,  # noqa: A002
    version: str,
    files: Sequence[Path],
) -> Dump:
    """Open stores with the same arrays for different rows as one dump.

    Raises
    ------
    FileFormatError
        If the arrays do not fit together.
    UsageError
        If `key` or `layer_offset` do not fit them.
    """
    parts = [_Part(store, request) for store in stores]
    first = parts[0]
    for part in parts[1:]:
        if part.kind != first.kind:
            raise file_fault(
                part.store.path,
                None,
                f"holds {part.kind}",
                f"{first.kind}, as in {first.store.path.name}",
                "Give each dump separately.",
            )
    if any(part.unmasked for part in parts):
        warnings.warn(
            f"{request.path} has sentences of {first.axes.n_tokens} tokens and no attention_mask or"
            " lengths: every position counts as a token, padding included.",
            SklprepWarning,
            stacklevel=2,
        )
    lengths = [part.axes.n_rows * (part.axes.n_tokens or 1) for part in parts]
    return Dump(
        format=format,
        version=version,
        path=request.path,
        mapping=first.mapping,
        files=files,
        tokens=_join_tokens([part.tokens for part in parts], lengths),
        has_tokens=first.has_tokens,
        layers={n: _chain([part.layers[n] for part in parts], lengths) for n in first.layers},
        embeddings=None
        if first.embeddings is None
        else _chain([part.embeddings for part in parts], lengths),
        saes=find_saes(
            [(part.store.path, part.arrays, part.store.metadata) for part in parts], lengths
        ),
        sentences=_join_sentences(parts),
        pooling=first.pooling,
    )


def _chain(parts: Sequence[Any], lengths: Sequence[int]) -> Any:
    return parts[0] if len(parts) == 1 else Chain(parts, lengths)


class _Part:
    """The layers and sentences of one store."""

    def __init__(self, store: Store, request: Request) -> None:
        self.store, self.arrays = store, store.arrays
        self.offset = request.reading.layer_offset
        self.unmasked = False
        self.pooling = self._read_pooling()
        self.layers: dict[int, Vectors] = {}
        self.embeddings: Vectors | None = None
        self.mapping = ""
        pattern, named = self._find_layers(request.reading.key)
        if pattern:
            shapes = {array.shape for _, array in named.values()}
            if len(shapes) > 1:
                one, other = sorted(shapes)[:2]
                raise self._fault(
                    pattern, f"has shapes {one} and {other}", "the same shape for each layer"
                )
            self.axes = self._axes_of_layer(shapes.pop())
            self._number({n: Channel(array) for n, (_, array) in named.items()}, pattern)
        elif named:
            self._split_whole(*named[-1], request.reading.key)
        else:
            self.axes, self.mapping = self._axes_without_layers(), "no layers"
        self.has_tokens, self.tokens = self._find_tokens()
        self.n_rows = len(self.tokens.offsets) - 1
        self._add_embeddings()
        self.sentences = self._read_sentences()

    @property
    def kind(self) -> str:
        """Description of what all parts of a dump must share."""
        channels = [*self.layers.values(), *([self.embeddings] if self.embeddings else [])]
        widths = ", ".join(str(width) for width in sorted({one.width for one in channels}))
        return f"{self.mapping}, {widths} wide, {'tokens' if self.has_tokens else 'rows'}"

    def _fault(self, name: str | None, found: str, expected: str, do: str = "") -> FileFormatError:
        return file_fault(self.store.path, name, found, expected, do)

    def _read_pooling(self) -> str | None:
        pooling = self.store.metadata.get("pooling")
        if pooling is not None and pooling not in POOLINGS:
            raise self._fault("pooling", f"is {pooling[:40]!r}", f"one of {', '.join(POOLINGS)}")
        return pooling

    def _find_layers(self, key: str | None) -> tuple[str, dict[int, tuple[str, StoredArray]]]:
        """Find layers by number, and the pattern of their names; or one array of all, at -1."""
        wide = {
            name: array
            for name, array in self.arrays.items()
            if len(array.shape) > 1 and array.dtype in (*FLOATS, BFLOAT16)
        }
        names = [name for name in wide if name not in EMBEDDINGS]
        if key is not None and "{layer}" not in key:
            name, _ = read_axis(key)
            if name not in wide or len(wide[name].shape) < 3:
                raise no_layers(self.store.path, names, f"is {name} of three or four dimensions")
            return "", {-1: (name, wide[name])}
        pattern, named = find_layers(self.store.path, names, key)
        if not pattern and len(getattr(wide.get(WHOLE), "shape", ())) > 2:
            return "", {-1: (WHOLE, wide[WHOLE])}
        has_others = any(name in wide for name in EMBEDDINGS) or SAES in self.store.metadata
        if not pattern and not has_others:
            raise no_layers(self.store.path, self.arrays, "is recognized as a layer")
        for name in named.values():
            self._require_dims(name, wide[name].shape, (2, 3))
        return pattern, {number: (name, wide[name]) for number, name in named.items()}

    def _require_dims(self, name: str, shape: tuple[int, ...], dims: Sequence[int]) -> None:
        if len(shape) not in dims or 0 in shape or shape[-1] > MAX_WIDTH:
            expected = f"{' or '.join(map(str, dims))} dimensions, none empty, at most"
            raise self._fault(name, f"has shape {shape}", f"{expected} {MAX_WIDTH:,} wide")

    def _axes_of_layer(self, shape: tuple[int, ...]) -> _Axes:
        if len(shape) == 2:
            return _Axes(shape[0], None, 1, 1, "")
        return _Axes(shape[0], shape[1], 1, 1, "")

    def _number(self, channels: Mapping[int, Vectors], name: str) -> None:
        """Number the layers; -1 becomes the embeddings."""
        shift(channels, self.offset, self.store.path)
        for number, channel in channels.items():
            if number + self.offset < 0:
                self.embeddings = channel
            else:
                self.layers[number + self.offset] = channel
        self.mapping = say_mapping(name, list(channels), self.offset)

    def _split_whole(self, name: str, array: StoredArray, key: str | None) -> None:
        """Number the layers along an axis of one array."""
        self._require_dims(name, array.shape, (3, 4))
        given = read_axis(key)[1] if key is not None else None
        numbers = given if given is not None else self._listed_layers()
        self.axes = axes = self._axes_of_whole(name, array.shape, numbers)
        if numbers is None:
            numbers = list(range(axes.n_layers))
        channels = {
            number: Channel(array, axes.n_layers, position, axes.inner)
            for position, number in enumerate(numbers)
        }
        self._number(channels, f"{name} ({axes.names}, width)")

    def _listed_layers(self) -> list[int] | None:
        """Return the numbers of the layers, if the store lists them."""
        values = self._read_small(("layers",), None)
        if values is None:
            return None
        if (
            values.ndim != 1
            or values.dtype.kind not in "iu"
            or len(np.unique(values)) < len(values)
        ):
            raise self._fault("layers", "is not a list of distinct numbers", "one per layer")
        return [int(number) for number in values]

    def _axes_of_whole(
        self, name: str, shape: tuple[int, ...], numbers: Sequence[int] | None
    ) -> _Axes:
        """Determine the meaning of the axes of an array of all layers."""
        a, b = shape[0], shape[1]
        if len(shape) == 3:
            ways = [_Axes(a, None, b, 1, "rows, layers"), _Axes(b, None, a, b, "layers, rows")]
        else:
            c = shape[2]
            ways = [
                _Axes(a, b, c, 1, "rows, tokens, layers"),
                _Axes(a, c, b, c, "rows, layers, tokens"),
                _Axes(b, c, a, b * c, "layers, rows, tokens"),
            ]
        mask = next((self.arrays[n].shape for n in _MASKS if n in self.arrays), None)
        n_rows = self._known_rows()
        fitting = [
            way
            for way in ways
            if (numbers is None or way.n_layers == len(numbers))
            and (n_rows is None or way.n_rows in n_rows)
            and (way.n_tokens is None or mask in (None, (way.n_rows, way.n_tokens)))
        ]
        if not fitting or (len(fitting) > 1 and len(shape) == 4):
            how = "rows and layers" if len(shape) == 3 else "rows, tokens and layers"
            why = "whose axes are ambiguous" if fitting else "which does not fit the other arrays"
            raise self._fault(
                name,
                f"has shape {shape}, {why}",
                f"{how} that fit labels, attention_mask and layers",
                f"Name its layers, for example key='{name}[0-{shape[1] - 1}]', or save one array"
                " per layer.",
            )
        return fitting[0]

    def _known_rows(self) -> set[int] | None:
        """Return the possible numbers of rows, or of all tokens, if other arrays tell them."""
        lengths = self._read_small(("lengths",), None)
        offsets = self._read_small(("offsets",), None)
        if offsets is not None and offsets.size:
            return {int(offsets.reshape(-1)[-1])}
        if lengths is not None:
            return {lengths.size, int(lengths.sum())}
        for name in (*_LABELS, *_GROUPS, *_INDICES):
            if name in self.arrays:
                return {self.arrays[name].shape[0] if self.arrays[name].shape else 0}
        return None

    def _axes_without_layers(self) -> _Axes:
        """Count the rows of a store with only embeddings or SAE features."""
        for name in EMBEDDINGS:
            if name in self.arrays:
                self._require_dims(name, self.arrays[name].shape, (2, 3))
                return self._axes_of_layer(self.arrays[name].shape)
        return _Axes(count_rows(self.store.path, self.arrays), None, 1, 1, "")

    def _add_embeddings(self) -> None:
        """Use an array named as embeddings, unless an offset turned a layer into embeddings."""
        name = next((name for name in EMBEDDINGS if name in self.arrays), None)
        if name is None or self.embeddings is not None:
            return
        array = self.arrays[name]
        expected = (self.axes.n_rows, *([self.axes.n_tokens] if self.axes.n_tokens else []))
        self._require_dims(name, array.shape, (2, 3))
        if array.shape[:-1] != expected or array.dtype not in (*FLOATS, BFLOAT16):
            found = f"is {array.dtype} of shape {array.shape}"
            raise self._fault(name, found, f"floats of shape ({expected}, width) like the layers")
        self.embeddings = Channel(array)
        if name != EMBEDDINGS[0]:
            self.mapping += f", {name} as embeddings"

    def _find_tokens(self) -> tuple[bool, Tokens]:
        """Determine which vectors are real tokens of which sentence."""
        n, n_tokens = self.axes.n_rows, self.axes.n_tokens
        if n_tokens is not None:
            return True, self._masked_tokens(n, n_tokens)
        offsets = self._read_small(("offsets",), None)
        lengths = self._read_small(("lengths",), None)
        if offsets is None and lengths is not None:
            _require_whole(self, "lengths", lengths)
            if lengths.sum() != n and lengths.shape == (n,):
                return False, Tokens.of_rows(n)  # pooled rows, with their numbers of tokens
            offsets = np.concatenate([[0], np.cumsum(lengths)])
        if offsets is None:
            return False, Tokens.of_rows(n)
        _require_whole(self, "offsets", offsets)
        if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != n or (np.diff(offsets) < 1).any():
            raise self._fault(
                "offsets",
                f"runs from {offsets[:1]} to {offsets[-1:]}",
                f"0 to {n:,}, ascending: the start of each sentence, and the end of the last",
            )
        return True, Tokens(np.arange(n), offsets.astype(np.int64))

    def _masked_tokens(self, n: int, n_tokens: int) -> Tokens:
        mask = self._read_small(_MASKS, None)
        lengths = self._read_small(("lengths",), None)
        if mask is None and lengths is not None:
            _require_whole(self, "lengths", lengths)
            mask = np.arange(n_tokens) < lengths.reshape(-1, 1)
        if mask is None:
            self.unmasked = n > 1 and n_tokens > 1 and not self.store.all_real
            mask = np.ones((n, n_tokens), bool)
        if mask.shape != (n, n_tokens):
            found = f"has shape {mask.shape}"
            raise self._fault("attention_mask", found, f"{(n, n_tokens)}, one value per token")
        if not ((mask == 0) | (mask == 1)).all():
            raise self._fault("attention_mask", "has values other than 0 and 1", "1 for a token")
        real = mask.astype(bool)
        counts = real.sum(axis=1)
        if not counts.all():
            row = int(np.argmin(counts))
            raise self._fault("attention_mask", f"has no token in row {row}", "at least 1")
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Tokens(np.flatnonzero(real).astype(np.int64), offsets)

    def _read_sentences(self) -> Sentences:
        n = self.n_rows
        indices = self._read_small(_INDICES, n)
        if indices is not None and indices.dtype.kind not in "iu":
            raise self._fault("sentence_indices", f"is {indices.dtype}", "whole numbers")
        texts = self._read_small(_TEXTS, n)
        if texts is not None and texts.dtype.kind != "U":
            raise self._fault("sentences", f"is {texts.dtype}", "texts")
        final = self._read_small(("is_final_token",), n)
        if final is not None and final.dtype.kind != "b":
            raise self._fault("is_final_token", f"is {final.dtype}", "booleans")
        return Sentences(
            labels=self._read_small(_LABELS, n),
            groups=self._read_small(_GROUPS, n),
            texts=texts,
            indices=None if indices is None else indices.astype(np.int64),
            is_final_token=final,
        )

    def _read_small(self, names: Iterable[str], n: int | None) -> NDArray[Any] | None:
        """Read an array, or a list in the metadata, with `n` entries; None if there is neither."""
        for name in names:
            if name in self.arrays:
                values = self.arrays[name].read_all()
            elif name in self.store.metadata:
                values = self._read_json(name)
            else:
                continue
            if n is not None and values.shape != (n,):
                found = f"has shape {values.shape}"
                raise self._fault(name, found, f"({n},), one for each sentence")
            return values
        return None

    def _read_json(self, name: str) -> NDArray[Any]:
        try:
            values = json.loads(self.store.metadata[name])
            array = np.array(values)
            if not isinstance(values, list) or array.dtype.kind not in "biufU":
                raise ValueError("not a list of numbers or of texts")
            if array.dtype.kind == "U" and not all(isinstance(value, str) for value in values):
                raise ValueError("numbers and texts mixed")
        except (ValueError, OverflowError, RecursionError) as error:
            what = " ".join(str(error).split())[:80]
            raise self._fault(name, f"in the metadata cannot be read ({what})", "JSON") from None
        return array


def _require_whole(part: _Part, name: str, values: NDArray[Any]) -> None:
    if values.ndim != 1 or values.dtype.kind not in "iu" or (values < 0).any():
        found = f"is {values.dtype} of shape {values.shape}"
        raise part._fault(name, found, "whole numbers from 0, one per sentence")


def _join_tokens(parts: Sequence[Tokens], lengths: Sequence[int]) -> Tokens:
    starts = np.cumsum([0, *lengths[:-1]])
    positions = [tokens.positions + start for tokens, start in zip(parts, starts, strict=True)]
    counts = np.concatenate([np.diff(tokens.offsets) for tokens in parts])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Tokens(np.concatenate(positions).astype(np.int64), offsets)


def _join_sentences(parts: Sequence[_Part]) -> Sentences:
    joined: dict[str, Any] = {}
    for name in ("labels", "groups", "texts", "indices", "is_final_token"):
        values = [getattr(part.sentences, name) for part in parts]
        if all(value is None for value in values):
            continue
        for part, value in zip(parts, values, strict=True):
            if value is None:
                raise part._fault(name, "is missing", "this array in each file, as in the others")
        if len({value.dtype.kind in "biuf" for value in values}) > 1:
            raise parts[0]._fault(name, "is text here and numbers in other files", "one kind")
        joined[name] = np.concatenate(values)
    return Sentences(**joined)
