"""A dump of another tool as a lazy source of rows."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError, FileFormatError, UsageError
from sklprep.files.faults import faulty_files
from sklprep.files.raw_array import BFLOAT16
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at
from sklprep.formats.dumps.dump import Dump, Vectors
from sklprep.formats.dumps.sparse_pooling import pool_sparse
from sklprep.formats.fingerprint import fingerprint_of
from sklprep.formats.pooling import is_last_of_each, require_pooling
from sklprep.formats.source import InPlace

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_POOLED_BYTES = 8 << 20
"""Bytes of tokens that are read at once for pooling: hundreds of sentences, but little memory."""
_HASHED_BYTES = 4 << 20  # of one read; larger reads are not faster


class DumpSource(InPlace):
    """Rows of a dump, read in place.

    Parameters
    ----------
    dump : Dump
    pooling : str or None
        What becomes a row. Rows that are already pooled in the dump stay as they are.

    Raises
    ------
    UsageError
        If the rows of the dump are already pooled in another way.
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
                f"{dump.path} holds rows that are already pooled"
                f"{f' ({dump.pooling})' if dump.pooling else ''}, got pooling={pooling!r}. Leave"
                " pooling out, or dump the tokens of each sentence."
            )
        self.mapping = f"{dump.format}: {dump.mapping}"
        self.layers = np.array(sorted(dump.layers), np.int64)
        self.sae_layers = np.array([sae.layer for sae in dump.saes], np.int64)
        self.average_l0s = np.array([sae.average_l0 for sae in dump.saes])
        self.d_embed = None if dump.embeddings is None else dump.embeddings.width
        first = next(iter(dump.layers.values()), None)
        self.d_model = None if first is None else first.width
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
        """Return the same dump without the sentences of these files."""
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
        found = {
            "embeddings": set() if dump.embeddings is None else {dump.embeddings.dtype},
            "hidden_states": {vectors.dtype for vectors in dump.layers.values()},
            "activations": {sae.dtype for sae in dump.saes},
        }
        return {
            member: sorted(d if d == BFLOAT16 else np.dtype(d).name for d in dtypes)
            for member, dtypes in found.items()
        }

    @property
    def stored_dtype(self) -> str:
        """Dtype that can hold each value of the rows; a mean of float16 values needs float32."""
        names = {name for names in self.dtypes.values() for name in names}
        return "<f2" if names == {"float16"} and self.pooling != "mean" else "<f4"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the name and SHA-256 of each file that is read, and over the mapping.

        All bytes are hashed, because these formats do not have checksums: a terabyte takes some
        minutes.
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
        """Identifies the rows without reading them, by the path, the mapping and the tokens."""
        digest = hashlib.sha256(f"{self.place.resolve()} {self.mapping} {self.pooling}".encode())
        digest.update(self._kept.tobytes() + self._tokens.positions.tobytes())
        return digest.hexdigest()

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether a row is the final token, or the pooled row, of its sentence."""
        if self.pooling != "none":
            return np.ones(self.n_rows, bool)
        if self._sentences.is_final_token is not None:
            return self._sentences.is_final_token
        return is_last_of_each(self.sentence_indices)

    @property
    def groups(self) -> NDArray[np.int64]:
        """Groups of the dump; by default a sentence, or all sentences with the same text."""
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
        """Labels of the dump."""
        if self._sentences.labels is None:
            raise DataError(
                f"{self.place} has no labels: the {self.dump.format} dump holds none. Give"
                " labels=..., a CSV or Parquet file."
            )
        return self._sentences.labels[self._sentence_of_row]

    @property
    def sentence_indices(self) -> NDArray[np.int64]:
        """Indices of sentences in the dump, or their positions."""
        indices = self._sentences.indices
        return (self._kept if indices is None else indices)[self._sentence_of_row]

    @property
    def sentences(self) -> NDArray[np.str_] | None:
        """Text of the sentence of each row, or None if the dump has no texts."""
        texts = self._sentences.texts
        return None if texts is None else texts[self._sentence_of_row]

    @property
    def file_names(self) -> NDArray[np.str_]:
        """Name of the file of each row; empty unless each file holds one sentence."""
        names = self._sentences.file_names
        return np.zeros(self.n_rows, np.str_) if names is None else names[self._sentence_of_row]

    def describe_row(self, row: int) -> str:
        """Describe a row by its file, or by the dump and its position."""
        name = self.file_names[row]
        return str(self.place / name) if name else f"{self.place} (row {row})"

    def require(self, member: str) -> NoReturn:
        """Raise the `DataError` for a missing member."""
        raise DataError(
            f"{self.place} has no {member}: it was read as {self.mapping}. Choose another input, or"
            " give key=... for other arrays in it."
        )

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return embeddings of shape (n_rows, d_embed)."""
        if self.dump.embeddings is None:
            self.require("embeddings")
        return self._pooled(self.dump.embeddings, rows)

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return hidden states of a layer, of shape (n_rows, d_model)."""
        return self._pooled(self.dump.layers[layer], rows)

    def config(self, config: int, rows: NDArray[np.int64] | None = None) -> csr_array:
        """Return SAE features of a config, of shape (n_rows, n_features)."""
        rows = np.arange(self.n_rows) if rows is None else rows
        tokens, owners = self._tokens_of(rows)
        features = self.dump.saes[config].features.read(tokens)
        return pool_sparse(features, owners, len(rows), self.pooling)

    def _tokens_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of the tokens from which rows are made, and the row of each."""
        positions, offsets = self._tokens
        sentences = self._sentence_of_row[rows]
        if self.pooling in ("mean", "max") and self.dump.has_tokens:
            starts, counts = offsets[sentences], np.diff(offsets)[sentences]
        elif self.pooling == "none" and self.dump.has_tokens:
            starts, counts = rows, np.ones_like(rows)
        else:
            starts, counts = offsets[sentences + 1] - 1, np.ones_like(rows)
        owners = np.repeat(np.arange(len(rows)), counts)
        ends = np.cumsum(counts)
        places = np.repeat(starts - (ends - counts), counts) + np.arange(len(owners))
        return positions[places], owners

    def _pooled(self, vectors: Vectors, rows: NDArray[np.int64] | None) -> NDArray[np.float32]:
        rows = np.arange(self.n_rows) if rows is None else rows
        tokens, owners = self._tokens_of(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            if len(tokens) == len(rows):
                return vectors.read(tokens).astype(np.float32, copy=False)
            pooled = np.empty((len(rows), vectors.width), np.float32)
            most = max(1, _POOLED_BYTES // (8 * vectors.width))
            counts = np.bincount(owners, minlength=len(rows))
            ends = np.cumsum(counts)
            row = 0
            while row < len(rows):
                first = ends[row] - counts[row]
                stop = max(row + 1, int(np.searchsorted(ends, first + most, side="right")))
                some = tokens[first : ends[stop - 1]]
                pooled[row:stop] = self._reduce(vectors, some, counts[row:stop], most)
                row = stop
            return pooled

    def _reduce(
        self,
        vectors: Vectors,
        tokens: NDArray[np.int64],
        counts: NDArray[np.int64],
        most: int,
    ) -> NDArray[Any]:
        """Pool the tokens of some sentences, or of one that is too long to be read at once."""
        mean = self.pooling == "mean"
        starts = np.cumsum(counts) - counts
        total: Any = None
        for start in range(0, len(tokens), most):
            values = vectors.read(tokens[start : start + most])
            if mean:
                part = np.add.reduceat(values, starts, axis=0, dtype=np.float64)
                total = part if total is None else total + part
            else:
                part = np.maximum.reduceat(values, starts, axis=0)
                total = part if total is None else np.maximum(total, part)
        return total / counts[:, np.newaxis] if mean else total


def _digest_of_file(path: Path) -> bytes:
    whole = hashlib.sha256()
    with RegularFile(path, "a file of a dump") as file:
        position = 0
        while piece := read_at(file.fd, _HASHED_BYTES, position):
            whole.update(piece)
            position += len(piece)
    return whole.digest()
