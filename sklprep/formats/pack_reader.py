"""The pack: a folder of plain ``.npy`` arrays, read in place."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError, FileFormatError, UsageError
from sklprep.files.faults import faulty_files, file_fault
from sklprep.files.npy_file import NpyFile
from sklprep.formats.fingerprint import fingerprint_of
from sklprep.formats.pack_manifest import (
    MANIFEST,
    SMALL,
    layer_name,
    read_manifest,
)
from sklprep.formats.pooling import is_last_of_each
from sklprep.formats.segments import digest_of, segments_of
from sklprep.formats.source import InPlace

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_OF_SOURCE = ("source_names", "source_digests")
_CACHED = ("labels", "sentence_indices", "groups", "sentence_of_row", "sentences")


class Pack(InPlace):
    """A pack as a source of rows; only the manifest is read at once.

    Parameters
    ----------
    path : path-like
        The folder.
    pooling : str or None
        Must be the pooling of the pack; None accepts any.

    Attributes
    ----------
    place : Path
        The folder that errors name: that of the sentence files if the pack is a temporary one.

    Raises
    ------
    FileFormatError
        If the manifest is damaged, or of a newer format version.
    UsageError
        If the pack has another pooling.
    """

    mapping = ""

    def __init__(self, path: str | os.PathLike[str], *, pooling: str | None) -> None:
        self.path = self.place = Path(path)
        manifest = self.manifest = read_manifest(self.path)
        self.is_pooled = manifest.pooling is not None
        self.pooling: str = manifest.pooling or "final"
        if pooling not in (None, self.pooling):
            raise UsageError(
                f"{self.path} was packed with pooling {self.pooling!r}, got {pooling!r}. Use that"
                " pooling, or pack the sentence files again."
            )
        self.name, self.fingerprint = manifest.source, manifest.fingerprint
        self.n_rows = manifest.n_rows
        self.layers = np.array(manifest.layers, np.int64)
        self.sae_layers = np.array(manifest.sae_layers, np.int64)
        self.average_l0s = np.array(manifest.average_l0s)
        self.d_embed, self.d_model = manifest.d_embed, manifest.d_model
        self.n_features = manifest.n_features
        self.left_out: dict[str, FileFormatError] = {
            name: FileFormatError(f"{self.path}: {name} was left out when it was packed.")
            for name in manifest.left_out
        }
        self._kept: NDArray[np.int64] | None = None

    def without(self, faults: Mapping[str, FileFormatError]) -> Pack:
        """Return the same pack without the rows of these sentence files."""
        if not faults:
            return self
        left_out = dict(sorted({**self.left_out, **faults}.items()))
        keep = np.flatnonzero(~np.isin(self.file_names, list(faults)))
        if not len(keep):
            raise faulty_files(self.place, left_out, len(left_out))
        pack = copy.copy(self)
        for name in _CACHED:
            pack.__dict__.pop(name, None)
        pack.left_out = left_out
        pack._kept = keep if self._kept is None else self._kept[keep]
        pack.n_rows = len(keep)
        if files := self.source_files():
            kept = [(name, digest) for name, digest in files.items() if name not in left_out]
        else:
            kept = [(self.manifest.fingerprint, b""), *((name, b"") for name in left_out)]
        pack.fingerprint = fingerprint_of(kept)
        return pack

    @property
    def key(self) -> str:
        """Identifies the rows; equal to the key of the folder from which the pack was made."""
        return f"{self.fingerprint} {self.pooling}"

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without cached arrays, which can be read again, and without segments."""
        state = {key: value for key, value in self.__dict__.items() if key not in _CACHED}
        return state | {"manifest": self.manifest.without_segments()}

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Concept label of each row."""
        if fault := self.manifest.labels_fault:
            raise DataError(f"{self.path} has no labels: {fault}")
        return self._of_rows(self._small("labels"))

    @cached_property
    def sentence_indices(self) -> NDArray[np.int64]:
        """Index of the sentence of each row."""
        return self._of_rows(self._small("sentence_indices"))

    @cached_property
    def groups(self) -> NDArray[np.int64]:
        """Group of each row: its sentence, unless other groups were given."""
        if self._has("sentence_of_row"):
            return self._of_rows(self._small("groups"))
        sentences = self.sentence_of_row
        return sentences if self._kept is None else np.unique(sentences, return_inverse=True)[1]

    @property
    def groups_are_sentences(self) -> bool:
        """Whether no other groups were given."""
        return not self._has("sentence_of_row")

    @cached_property
    def sentence_of_row(self) -> NDArray[np.int64]:
        """Position of the sentence of each row among those packed."""
        name = "sentence_of_row" if self._has("sentence_of_row") else "groups"
        positions = self._small(name)
        n_sentences = self.manifest.n_sentences
        if len(positions) and not 0 <= positions.min() <= positions.max() < n_sentences:
            raise self._fault(name, "names sentences", f"0 to {n_sentences - 1}")
        return self._of_rows(positions)

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether a row is the final token, or the pooled row, of its sentence."""
        if self._has("is_final_token"):
            return self._of_rows(self._small("is_final_token"))
        return usual_final(self.pooling, self.sentence_of_row)

    @property
    def stored_dtype(self) -> str:
        """Dtype that can hold each value of the rows."""
        arrays = self.manifest.arrays.items()
        wide = {entry.dtype for name, entry in arrays if name not in SMALL}
        return "<f2" if {dtype for dtype in wide if "f" in dtype} == {"<f2"} else "<f4"

    @cached_property
    def sentences(self) -> NDArray[np.str_] | None:
        """Text of the sentence of each row, or None if the source had no texts."""
        return self._small("sentences")[self.sentence_of_row] if self._has("sentences") else None

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return embeddings of shape (n_rows, d_embed)."""
        return self._rows("embeddings", self._positions(rows))

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return hidden states of a layer, of shape (n_rows, d_model)."""
        return self._rows(layer_name(layer), self._positions(rows))

    def config(self, config: int, rows: NDArray[np.int64] | None = None) -> csr_array:
        """Return SAE features of a config, of shape (n_rows, n_features)."""
        from scipy.sparse import csr_array

        rows = self._positions(rows)
        names = self.manifest.config_names(config)
        data, indices, indptr = (self._open(name) for name in names)
        with data, indices, indptr:
            if rows is None:
                ends = indptr.read()
                starts, counts = ends[:-1], np.diff(ends)
            else:
                starts = indptr.take(rows)
                counts = indptr.take(rows + 1) - starts
                ends = np.concatenate([[0], np.cumsum(counts)])
            if ((starts < 0) | (counts < 0) | (starts + counts > data.shape[0])).any():
                raise self._fault(names[2], "points outside its data", "ascending positions")
            if rows is None:
                values, columns = data.read(), indices.read()
            else:
                places = np.repeat(starts - ends[:-1], counts) + np.arange(ends[-1])
                values, columns = data.take(places), indices.take(places)
        try:
            matrix = csr_array(
                (values.astype(np.float32, copy=False), columns, ends.astype(np.int32)),
                shape=(len(ends) - 1, self.n_features or 0),
            )
            matrix.check_format()
        except ValueError as error:
            found = f"is not a sparse matrix ({error})"
            raise self._fault(names[1], found, "row indices") from None
        return matrix

    def source_files(self) -> dict[str, bytes]:
        """Return the digest of each packed sentence file, by name; empty if there were none."""
        if not self._has("source_digests"):
            return {}
        names, digests = self._small("source_names").tolist(), self._small("source_digests")
        return dict(zip(names, map(bytes, digests), strict=True))

    @property
    def file_names(self) -> NDArray[np.str_]:
        """Name of the file of each row; empty for rows that are not from a file."""
        return self._small("source_names")[self.sentence_of_row]

    def describe_row(self, row: int) -> str:
        """Describe a row by the pack, its position, and its file or sentence."""
        name = self._small("source_names")[self.sentence_of_row[row]]
        if self.place != self.path:
            return str(self.place / name)
        position = row if self._kept is None else int(self._kept[row])
        origin = f"from {name}" if name else f"sentence_index {self.sentence_indices[row]}"
        return f"{self.path} (row {position}, {origin})"

    def require(self, member: str) -> None:
        """Raise `DataError` unless the pack has this member."""
        if {
            "embeddings": self.d_embed,
            "hidden_states": self.d_model,
            "activations": self.n_features,
        }[member] is None:
            raise DataError(f"{self.path} has no {member}, because its source did not have them.")

    def verify(self) -> list[str]:
        """Compare every digest; return one line for each array that differs."""
        faults = []
        if not self.manifest.is_intact:
            faults.append(f"{self.path / MANIFEST} differs from its digest")
        for name, entry in self.manifest.arrays.items():
            try:
                with self._open(name) as array:
                    segments = segments_of(array)
                if digest_of(segments) != entry.digest:
                    faults.append(f"{self.path / name}.npy differs from its digest")
            except (FileFormatError, OSError) as error:
                faults.append(str(error))
        return faults

    def check_ends(self) -> None:
        """Compare the digests of last segments, which are replaced when rows are added.

        Arrays that are rewritten, such as the labels, are not checked.

        Raises
        ------
        FileFormatError
            If an array is missing, cut short, or differs from its last digest.
        """
        for name, entry in self.manifest.arrays.items():
            if name in SMALL and name not in _OF_SOURCE:
                continue
            with self._open(name) as array:
                if segments_of(array, last=True) != [*entry.segments[-1:]]:
                    raise file_fault(
                        self.path / f"{name}.npy",
                        None,
                        "differs from its digest",
                        "the rows that were packed",
                        "Pack the sentence files into a new folder.",
                    )

    def _fault(self, name: str, found: str, expected: str) -> FileFormatError:
        do = "Pack the sentence files again."
        return file_fault(self.path / f"{name}.npy", None, found, expected, do)

    def _of_rows(self, values: NDArray[Any]) -> NDArray[Any]:
        return values if self._kept is None else values[self._kept]

    def _positions(self, rows: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        """Return the positions of rows in the arrays."""
        if self._kept is None or rows is None:
            return rows if self._kept is None else self._kept
        return self._kept[rows]

    def _has(self, name: str) -> bool:
        return name in self.manifest.arrays

    def _open(self, name: str) -> NpyFile:
        entry = self.manifest.arrays[name]
        try:
            array = NpyFile(self.path / f"{name}.npy", entry.shape[0])
        except FileNotFoundError:
            raise self._fault(name, "is missing", f"an array, as in {MANIFEST}") from None
        text = np.dtype(entry.dtype).kind == array.dtype.kind == "U"
        if array.shape != entry.shape or not (text or array.dtype.str == entry.dtype):
            array.close()
            raise self._fault(
                name,
                f"holds {array.dtype.str} of shape {array.shape}",
                f"{entry.dtype} of {entry.shape} as in {MANIFEST}",
            )
        return array

    def _small(self, name: str) -> NDArray[Any]:
        with self._open(name) as array:
            return array.read()

    def _rows(self, name: str, rows: NDArray[np.int64] | None) -> NDArray[np.float32]:
        with self._open(name) as array:
            values = array.read() if rows is None else array.take(rows)
        return values.astype(np.float32, copy=False)


def is_pack(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a pack."""
    return (Path(path) / MANIFEST).is_file()


def usual_final(pooling: str, sentence_of_row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows stand for their sentences by default: the last token of each."""
    if pooling != "none":
        return np.ones(len(sentence_of_row), bool)
    return is_last_of_each(sentence_of_row)
