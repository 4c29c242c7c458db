"""One ``sentence_*.npz``: validate its small members, and read pooled rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.files.faults import not_finite
from sklprep.files.npy_file import FLOATS
from sklprep.files.npz_reader import NpzReader
from sklprep.formats.fingerprint import directory_digest
from sklprep.formats.members import MEMBERS, Members, SparseRows
from sklprep.formats.pooling import by_range, pool

_SMALL = 1 << 20
"""Most bytes of a member that is read when a folder is opened: a megabyte suffices for the tokens
and text of the longest context, and a thousand hostile files need at most a gigabyte."""
_MAX_INT = (1 << 63) - 1  # of int64, which layers and sentence indices become
LABELS = (0, 1, 2, 3)
"""Valid labels of a sentence file: how strongly the concept is present."""
MAX_WIDTH = 1 << 20
"""Most numbers in one vector: the largest published SAEs have a million features."""


@dataclass(frozen=True, slots=True)
class SentenceInfo:
    """The small members and array headers of one sentence file."""

    name: str
    digest: bytes
    n_tokens: int
    final_tokens: tuple[int, ...]
    label: int | None
    label_fault: str | None
    sentence_index: int | None
    sentence: str | None
    layers: tuple[int, ...]
    average_l0s: tuple[float, ...]
    widths: tuple[int | None, ...]
    dtypes: tuple[str | None, ...]

    @property
    def is_float16(self) -> bool:
        """Whether all values were dumped as float16."""
        return set(self.dtypes) <= {"float16", None}

    @property
    def n_after_final(self) -> int:
        """Number of tokens after the last one that is marked as final."""
        return self.n_tokens - 1 - max(self.final_tokens, default=self.n_tokens - 1)

    def positions_of(self, layers: Iterable[int]) -> list[int]:
        """Return the first position of each layer along the config axis, ascending."""
        first = {layer: i for i, layer in reversed(list(enumerate(self.layers)))}
        return sorted(first[layer] for layer in set(layers))


@dataclass(frozen=True, slots=True)
class SentenceRows:
    """The pooled rows of one file.

    Attributes
    ----------
    embeddings : ndarray of shape (n_rows, d_embed), or None
    hidden_states : ndarray of shape (n_layers, n_rows, d_model), or None
        In the order of the config axis of the file.
    activations : list of SparseRows
        One per config.
    """

    embeddings: NDArray[np.float32] | None
    hidden_states: NDArray[np.float32] | None
    activations: list[SparseRows]


def index_sentence(path: Path) -> SentenceInfo:
    """Read and validate the small members and array headers of a file.

    Raises
    ------
    FileFormatError
        If the file is not a valid sentence file.
    """
    with NpzReader(path) as reader:
        digest = directory_digest(reader)
        headers = [reader.header(name) if name in reader.members else None for name in MEMBERS]
        if all(header is None for header in headers):
            raise reader.fault(None, "holds no activations", " or ".join(MEMBERS))
        has_layers, has_saes = any(headers[1:]), headers[2] is not None
        layers = _small(reader, "layers", 1, "iu") if has_layers else np.empty(0, np.int64)
        if layers.dtype.kind == "u" and (layers > _MAX_INT).any():
            raise reader.fault("layers", f"has layer {layers.max()}", f"at most {_MAX_INT}")
        n_configs = len(layers)
        average_l0s = (
            _small(reader, "average_l0s", 1, "iuf", shape=(n_configs,)) if has_saes else layers[:0]
        )
        n_tokens = next((*header.shape[-2:], 0)[0] for header in headers if header is not None)
        for name, header in zip(MEMBERS, headers, strict=True):
            if header is None:
                continue
            expected = (n_tokens,) if name == "embeddings" else (n_configs, n_tokens)
            if header.dtype.str not in FLOATS:
                raise reader.fault(name, f"has dtype {header.dtype}", "float32 or float16")
            if header.shape[:-1] != expected or not header.shape:
                raise reader.fault(
                    name, f"has shape {header.shape}", f"({', '.join(map(str, expected))}, width)"
                )
            if not 1 <= header.shape[-1] <= MAX_WIDTH:
                raise reader.fault(
                    name, f"has vectors of width {header.shape[-1]:,}", f"1 to {MAX_WIDTH:,}"
                )
        if n_tokens == 0:
            raise reader.fault(None, "has no tokens", "at least 1")
        if n_configs == 0 and has_layers:
            raise reader.fault("layers", "is empty", "at least 1 layer")
        final = _small(reader, "is_final_token", 1, "b", shape=(n_tokens,))
        label, label_fault = _label(reader)
        return SentenceInfo(
            name=path.name,
            digest=digest,
            n_tokens=n_tokens,
            final_tokens=tuple(np.flatnonzero(final).tolist()),
            label=label,
            label_fault=label_fault,
            sentence_index=_sentence_index(reader),
            sentence=_sentence(reader),
            layers=tuple(layers.tolist()),
            average_l0s=tuple(average_l0s.tolist()),
            widths=tuple(header.shape[-1] if header else None for header in headers),
            dtypes=tuple(header.dtype.name if header else None for header in headers),
        )


def _small(
    reader: NpzReader, name: str, ndim: int, kinds: str, shape: tuple[int, ...] | None = None
) -> NDArray[Any]:
    values = reader.array(name, max_bytes=_SMALL)
    if values.ndim != ndim or values.dtype.kind not in kinds or shape not in (None, values.shape):
        wanted = {"iu": "integers", "iuf": "numbers", "b": "booleans", "U": "text"}[kinds]
        raise reader.fault(
            name,
            f"has shape {values.shape} of {values.dtype}",
            f"{wanted} of shape {shape}" if shape else f"{wanted} in {ndim} dimensions",
        )
    return values


def _label(reader: NpzReader) -> tuple[int | None, str | None]:
    """Return the label, or its fault, which matters only where labels are used."""
    name = "concept_strength_label"
    if name not in reader.members:
        return None, "is missing"
    if reader.header(name).shape != ():
        return None, f"has shape {reader.header(name).shape}"
    value = reader.array(name, max_bytes=_SMALL).item()
    if isinstance(value, bool | str):
        return None, f"is {value!r:.60}"
    return (int(value), None) if value in LABELS else (None, f"is {value:g}")


def _scalar(reader: NpzReader, name: str) -> int | float | None:
    if name not in reader.members:
        return None
    values = _small(reader, name, 0, "iuf") if reader.header(name).shape == () else None
    if values is None:
        raise reader.fault(name, f"has shape {reader.header(name).shape}", "one number, shape ()")
    return values.item()


def _sentence_index(reader: NpzReader) -> int | None:
    value = _scalar(reader, "sentence_index")
    if value is None:
        return None
    if value % 1 != 0 or abs(value) > _MAX_INT:  # NaN and infinities fail the first test
        raise reader.fault("sentence_index", f"is {value:g}", "a whole number")
    return int(value)


def _sentence(reader: NpzReader) -> str | None:
    return str(_small(reader, "sentence", 0, "U")) if "sentence" in reader.members else None


def read_rows(
    path: Path,
    info: SentenceInfo,
    pooling: str,
    members: Members,
    *,
    finite: bool = False,
) -> SentenceRows:
    """Read the pooled rows of some members; with `finite`, NaN and infinite values are faults."""
    positions, configs = info.positions_of(members.layers), members.read_configs
    with NpzReader(path) as reader, np.errstate(over="ignore", invalid="ignore"):
        if directory_digest(reader) != info.digest:
            raise reader.fault(
                None,
                "has changed since its folder was opened",
                "the same content",
                "Load it again.",
            )
        rows = SentenceRows(
            _read_dense(reader, "embeddings", info, pooling, [0])[0]
            if members.embeddings
            else None,
            _read_dense(reader, "hidden_states", info, pooling, positions) if positions else None,
            _read_sparse(reader, info, pooling, configs) if configs else [],
        )
    if finite:
        _require_finite(path, info, rows, members)
    return rows


def _require_finite(path: Path, info: SentenceInfo, rows: SentenceRows, members: Members) -> None:
    checked: list[tuple[str, str, NDArray[np.float32]]] = []
    if rows.embeddings is not None:
        checked.append(("embeddings", "", rows.embeddings))
    if rows.hidden_states is not None and not np.isfinite(rows.hidden_states).all():
        positions = info.positions_of(members.layers)
        for position, states in zip(positions, rows.hidden_states, strict=True):
            checked.append(("hidden_states", f"layer {info.layers[position]}", states))
    for config, sparse in zip(members.read_configs, rows.activations, strict=True):
        features = members.used_features(config)
        used = sparse.data if features is None else sparse.data[np.isin(sparse.indices, features)]
        what = members.name_config(config, info.layers[config])
        checked.append(("activations", what, used))
    for member, layer, values in checked:
        n_bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if n_bad:
            raise not_finite(str(path), member, layer, n_bad)


def _token_ranges(
    info: SentenceInfo, pooling: str, positions: Sequence[int]
) -> list[tuple[int, int]]:
    starts = [position * info.n_tokens for position in positions]
    if pooling == "final":
        return [
            (start + info.final_tokens[0], start + info.final_tokens[0] + 1) for start in starts
        ]
    return [(start, start + info.n_tokens) for start in starts]


def _read_dense(
    reader: NpzReader, member: str, info: SentenceInfo, pooling: str, positions: Sequence[int]
) -> NDArray[np.float32]:
    width = info.widths[MEMBERS.index(member)] or 0
    ranges = _token_ranges(info, pooling, positions)
    blocks = by_range(reader.blocks(member, ranges), ranges)
    if pooling in ("mean", "max"):
        return np.stack(list(pool(blocks, pooling, info.n_tokens)))[:, np.newaxis]
    rows = np.empty((len(ranges), ranges[0][1] - ranges[0][0], width), np.float32)
    for number, first, block in blocks:
        rows[number, first : first + len(block)] = block
    return rows


def _read_sparse(
    reader: NpzReader, info: SentenceInfo, pooling: str, configs: Sequence[int]
) -> list[SparseRows]:
    width = info.widths[MEMBERS.index("activations")] or 0
    ranges = _token_ranges(info, pooling, configs)
    blocks = by_range(reader.blocks("activations", ranges), ranges)
    if pooling in ("mean", "max"):
        pooled = pool(blocks, pooling, info.n_tokens)
        blocks = ((number, 0, row[np.newaxis]) for number, row in enumerate(pooled))
    found: list[list[SparseRows]] = [[] for _ in ranges]
    for number, _, block in blocks:
        flat = block.reshape(-1)
        places = (flat != 0).nonzero()[0]  # three times as fast as flat.nonzero()
        if len(block) == 1:  # a shortcut, used thousands of times when a folder is packed
            ends, columns = np.array([0, len(places)], np.int32), places
        else:
            ends = places.searchsorted(np.arange(len(block) + 1) * width).astype(np.int32)
            columns = places % width
        values = flat[places].astype(np.float32, copy=False)
        found[number].append(SparseRows(ends, columns.astype(np.int32), values))
    return [stack_rows(parts) for parts in found]


def stack_rows(parts: Sequence[SparseRows]) -> SparseRows:
    """Stack sparse rows vertically."""
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([np.diff(part.indptr) for part in parts])
    return SparseRows(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.data for part in parts]),
    )
