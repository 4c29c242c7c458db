"""A dump of another tool as a lazy source of rows."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError, FileFormatError, UsageError
from sklprep.files.faults import faulty_files
from sklprep.files.raw_array import BFLOAT16
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at
from sklprep.formats.dumps.dump import Channel, Dump, Sae
from sklprep.formats.dumps.sparse_pooling import pool_sparse
from sklprep.formats.fingerprint import fingerprint_of
from sklprep.formats.pooling import is_last_of_each, require_pooling
from sklprep.formats.source import InPlace

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_POOLED_BYTES = 8 << 20
"""Bytes of tokens that are held to be pooled: hundreds of sentences a read, and little memory."""
_HASHED_BYTES = 4 << 20  # of one read: a digest of a file takes as long with more


class DumpSource(InPlace):
    """Rows of a dump, read where they lie.

    Parameters
    ----------
    dump : Dump
    pooling : str or None
        What becomes a row. Rows that were pooled before the dump was written stay as they are.

    Raises
    ------
    UsageError
        If the rows of the dump were pooled before, otherwise than this.
    """

    def __init__(self, dump: Dump, *, pooling: str | None) -> None:
        self.dump = dump
        self.place: Path = dump.path
        self.name = dump.path.resolve().name
        self.is_pooled = dump.has_tokens or dump.pooling is not None
        own = None if dump.has_tokens else dump.pooling or "final"
        self.pooling = own or pooling or "final"
        require_pooling(self.pooling)
        if pooling not in (None, self.pooling):
            raise UsageError(
                f"{dump.path} holds rows that were pooled before"
                f"{f' ({dump.pooling})' if dump.pooling else ''}, got pooling={pooling!r}. Leave"
                " pooling out, or dump the tokens of each sentence."
            )
        self.mapping = f"{dump.format}: {dump.mapping}"
        self.layers = np.array(sorted(dump.layers), np.int64)
        self.sae_layers = np.array([sae.layer for sae in dump.saes], np.int64)
        self.average_l0s = np.array([sae.average_l0 for sae in dump.saes])
        self.d_embed = dump.embeddings[0].array.shape[-1] if dump.embeddings else None
        first = next(iter(dump.layers.values()), None)
        self.d_model = None if first is None else first[0].array.shape[-1]
        self.n_features = dump.saes[0].n_features if dump.saes else None
        self.left_out: dict[str, FileFormatError] = dict(dump.left_out)
        self._set_sentences(np.arange(len(dump.tokens.offsets) - 1))

    def _set_sentences(self, kept: NDArray[np.int64]) -> None:
        self._kept = kept
        self._tokens = self.dump.tokens.take(kept)
        self._sentences = self.dump.sentences.take(kept)
        counts = np.diff(self._tokens.offsets) if self.pooling == "none" else np.ones_like(kept)
        self._sentence_of_row = np.repeat(np.arange(len(kept)), counts)

    def without(self, faults: Mapping[str, FileFormatError]) -> DumpSource:
        """Give the same dump without the sentences of these files."""
        left_out = dict(sorted({**self.left_out, **faults}.items()))
        names = self._sentences.file_names
        keep = np.arange(len(self._kept))
        if names is not None:
            keep = np.flatnonzero(~np.isin(names, list(faults)))
        if not len(keep):
            raise faulty_files(self.place, left_out, len(left_out))
        source = copy.copy(self)
        source.__dict__.pop("fingerprint", None)
        source.left_out = left_out
        source._set_sentences(self._kept[keep])
        return source

    @property
    def n_rows(self) -> int:
        """Number of rows after pooling."""
        return len(self._sentence_of_row)

    @property
    def n_tokens(self) -> NDArray[np.int64]:
        """Number of tokens of each sentence."""
        return np.diff(self._tokens.offsets)

    @property
    def dtypes(self) -> dict[str, list[str]]:
        """Names of the dtypes in the dump, by member."""
        dump = self.dump
        layers = {part.array.dtype for channels in dump.layers.values() for part in channels}
        found = {
            "embeddings": {channel.array.dtype for channel in dump.embeddings or ()},
            "hidden_states": layers,
            "activations": {sae.dtype for sae in dump.saes},
        }
        return {
            member: sorted(d if d == BFLOAT16 else np.dtype(d).name for d in dtypes)
            for member, dtypes in found.items()
        }

    @property
    def stored_dtype(self) -> str:
        """Dtype that holds each value of the rows; a mean of float16 values needs float32."""
        names = {name for names in self.dtypes.values() for name in names}
        return "<f2" if names == {"float16"} and self.pooling != "mean" else "<f4"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the name and SHA-256 of each file that is read, and over what was mapped.

        All bytes count, as these formats hold no checksums: a terabyte takes some minutes.
        """
        parent = self.place if self.place.is_dir() else self.place.parent
        files = [
            (path.relative_to(parent).as_posix(), _digest_of_file(path))
            for path in self.dump.files
            if path.name not in self.left_out
        ]
        return fingerprint_of([*files, (self.dump.mapping, b"")])

    @property
    def key(self) -> str:
        """What tells these rows from others without reading them: their shapes and places."""
        digest = hashlib.sha256(f"{self.place.resolve()} {self.mapping} {self.pooling}".encode())
        digest.update(self._kept.tobytes() + self._tokens.positions.tobytes())
        return digest.hexdigest()

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether a row stands for its sentence."""
        if self.pooling != "none":
            return np.ones(self.n_rows, bool)
        if self._sentences.is_final_token is not None:
            return self._sentences.is_final_token
        return is_last_of_each(self.sentence_indices)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Those of the dump; else a sentence is a group, and so are sentences of one text."""
        groups, texts = self._sentences.groups, self._sentences.texts
        if groups is None:
            numbers = np.arange(len(self._kept))
            if self._sentences.indices is not None and not self.dump.has_tokens:
                numbers = np.unique(self._sentences.indices, return_inverse=True)[1]
            if texts is not None:
                first, inverse = np.unique(texts, return_index=True, return_inverse=True)[1:]
                groups = np.where(texts == "", numbers, numbers[first][inverse.reshape(-1)])
            else:
                groups = numbers
        return np.unique(groups, return_inverse=True)[1].reshape(-1)[self._sentence_of_row]

    @property
    def labels(self) -> NDArray[Any]:
        """Those of the dump."""
        if self._sentences.labels is None:
            raise DataError(
                f"{self.place} has no labels: the {self.dump.format} dump holds none. Give"
                " labels=... for a CSV or Parquet file of them."
            )
        return self._sentences.labels[self._sentence_of_row]

    @property
    def sentence_indices(self) -> NDArray[np.int64]:
        """Those of the dump, or positions in it."""
        indices = self._sentences.indices
        return (self._kept if indices is None else indices)[self._sentence_of_row]

    @property
    def sentences(self) -> NDArray[np.str_] | None:
        """Texts, where the dump holds them."""
        texts = self._sentences.texts
        return None if texts is None else texts[self._sentence_of_row]

    @property
    def file_names(self) -> NDArray[np.str_]:
        """Name of the file of each row, where files hold one sentence."""
        names = self._sentences.file_names
        return np.zeros(self.n_rows, np.str_) if names is None else names[self._sentence_of_row]

    def describe_row(self, row: int) -> str:
        """Name the dump and the row, or the file of the sentence."""
        name = self.file_names[row]
        return str(self.place / name) if name else f"{self.place} (row {row})"

    def require(self, member: str) -> None:
        """Raise `DataError`: what there is needs no asking."""
        raise DataError(
            f"{self.place} holds no {member}: it was read as {self.mapping}. Ask for something"
            " else, or give key=... for other arrays in it."
        )

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(n_rows, d_embed)."""
        return self._pooled(self.dump.embeddings or (), rows, self.d_embed or 0)

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """(n_rows, d_model) of one layer."""
        return self._pooled(self.dump.layers[layer], rows, self.d_model or 0)

    def config(self, config: int, rows: NDArray[np.int64] | None = None) -> csr_array:
        """(n_rows, n_features) of one SAE config."""
        rows = np.arange(self.n_rows) if rows is None else rows
        sae = self.dump.saes[config]
        tokens, owners, parts = self._tokens_of(rows)
        return pool_sparse(_read_sparse(sae, tokens, parts), owners, len(rows), self.pooling)

    def _tokens_of(
        self, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the tokens that rows are made of, and the row and the part of each."""
        positions, offsets, part_of_sentence = self._tokens
        sentences = self._sentence_of_row[rows]
        if self.pooling in ("mean", "max"):
            starts, counts = offsets[sentences], np.diff(offsets)[sentences]
        elif self.pooling == "none" and self.dump.has_tokens:
            starts, counts = rows, np.ones_like(rows)
        else:
            starts, counts = offsets[sentences + 1] - 1, np.ones_like(rows)
        owners = np.repeat(np.arange(len(rows)), counts)
        ends = np.cumsum(counts)
        places = np.repeat(starts - (ends - counts), counts) + np.arange(len(owners))
        return positions[places], owners, part_of_sentence[sentences][owners]

    def _pooled(
        self, channels: Sequence[Channel], rows: NDArray[np.int64] | None, width: int
    ) -> NDArray[np.float32]:
        rows = np.arange(self.n_rows) if rows is None else rows
        tokens, owners, parts = self._tokens_of(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.pooling in ("final", "none"):
                return _gather(channels, tokens, parts, width).astype(np.float32, copy=False)
            pooled = np.empty((len(rows), width), np.float32)
            most = max(1, _POOLED_BYTES // (8 * max(1, width)))
            counts = np.bincount(owners, minlength=len(rows))
            ends = np.cumsum(counts)
            row = 0
            while row < len(rows):
                first = ends[row] - counts[row]
                stop = max(row + 1, int(np.searchsorted(ends, first + most, side="right")))
                pooled[row:stop] = self._reduce(
                    channels,
                    tokens[first : ends[stop - 1]],
                    parts[first : ends[stop - 1]],
                    counts[row:stop],
                    most,
                    width,
                )
                row = stop
            return pooled

    def _reduce(
        self,
        channels: Sequence[Channel],
        tokens: NDArray[np.int64],
        parts: NDArray[np.int64],
        counts: NDArray[np.int64],
        most: int,
        width: int,
    ) -> NDArray[Any]:
        """Pool the tokens of some sentences, or of one that is longer than is held at once."""
        mean = self.pooling == "mean"
        total: Any = None
        for start in range(0, len(tokens), most):
            piece = slice(start, start + most)
            values = _gather(channels, tokens[piece], parts[piece], width)
            starts = [0] if len(counts) == 1 else np.cumsum(counts) - counts
            part = (
                np.add.reduceat(values, starts, axis=0, dtype=np.float64)
                if mean
                else np.maximum.reduceat(values, starts, axis=0)
            )
            if total is not None:
                part = total + part if mean else np.maximum(total, part)
            total = part
        return total / counts[:, np.newaxis] if mean else total


def _gather(
    channels: Sequence[Channel],
    tokens: NDArray[np.int64],
    parts: NDArray[np.int64],
    width: int,
) -> NDArray[Any]:
    """Read vectors of tokens of several parts, in their order."""
    present = np.unique(parts).tolist()
    if len(present) == 1:
        return channels[present[0]].read(tokens)
    values = np.empty((len(tokens), width), np.float64 if _has_float64(channels) else np.float32)
    for part in present:
        where = np.flatnonzero(parts == part)
        values[where] = channels[part].read(tokens[where])
    return values


def _has_float64(channels: Sequence[Channel]) -> bool:
    return any(channel.array.dtype == "<f8" for channel in channels)


def _read_sparse(sae: Sae, tokens: NDArray[np.int64], parts: NDArray[np.int64]) -> csr_array:
    from scipy.sparse import csr_array, vstack

    present = np.unique(parts).tolist()
    if len(present) == 1:
        return sae.parts[present[0]].read_rows(tokens)
    order = np.argsort(parts, kind="stable")
    blocks = [sae.parts[part].read_rows(tokens[parts == part]) for part in present]
    if not blocks:
        return csr_array((0, sae.n_features), dtype=np.float32)
    return csr_array(vstack(blocks, format="csr"))[np.argsort(order, kind="stable")]


def _digest_of_file(path: Path) -> bytes:
    whole = hashlib.sha256()
    with RegularFile(path, "a file of a dump") as file:
        position = 0
        while piece := read_at(file.fd, _HASHED_BYTES, position):
            whole.update(piece)
            position += len(piece)
    return whole.digest()
