"""A selection of rows of a source, in any order: their values, and the files that are faulty."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError, FaultyFilesError, FeatureNotFoundError, FileFormatError
from sklprep.files.faults import faulty_files, not_finite
from sklprep.formats.layers import require_layers
from sklprep.formats.members import Block, Members
from sklprep.formats.sentence_folder import SentenceFolder
from sklprep.formats.source import Source, all_members
from sklprep.formats.texts import merge_by_text

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class Siblings(NamedTuple):
    """Rows of a source, one bit per row, that share a group with the selected rows."""

    key: str
    bits: NDArray[np.uint8]


class Rows:
    """A selection of rows of a source, with labels and groups that replace those of the source.

    Writers, selectors and commands work on this class; `ActivationSet` is its public interface.
    Values are checked here: NaN and infinite values are faults of their files.

    Parameters
    ----------
    source : Source
        Where the rows are read from.
    positions : ndarray of int, or None
        Positions of the rows in the source; None for all rows in their order.
    joined : mapping of str to ndarray
        ``"labels"`` and ``"groups"`` for all rows of the source.
    """

    def __init__(
        self,
        source: Source,
        positions: NDArray[np.int64] | None = None,
        joined: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self.source = source
        self.positions = positions
        self.joined = dict(joined or {})

    def __len__(self) -> int:
        return self.source.n_rows if self.positions is None else len(self.positions)

    def take(self, key: Any) -> Rows:
        """Select some of these rows by a slice, a boolean mask or positions."""
        positions = np.arange(len(self)) if self.positions is None else self.positions
        return Rows(self.source, positions[key], self.joined)

    def read_from(self, source: Source) -> Rows:
        """Return the same rows, read from another source with the same rows."""
        return Rows(source, self.positions, self.joined)

    @property
    def labels(self) -> NDArray[Any]:
        """Labels, of shape (n_rows,)."""
        return self._of_rows(self._joined_or_own("labels"))

    @property
    def groups(self) -> NDArray[np.int64]:
        """Groups, of shape (n_rows,), as the source, datasets and packs hold them."""
        return self._of_rows(self._joined_or_own("groups"))

    @property
    def split_groups(self) -> NDArray[np.int64]:
        """Groups for splits, of shape (n_rows,): sentences with the same text share one."""
        return self._of_rows(self._split_groups())

    @property
    def sentence_indices(self) -> NDArray[np.int64]:
        """Index of the sentence of each row, of shape (n_rows,)."""
        return self._of_rows(self.source.sentence_indices)

    @property
    def sentences(self) -> NDArray[np.str_] | None:
        """Text of the sentence of each row, of shape (n_rows,); None if the source has no texts."""
        sentences = self.source.sentences
        return None if sentences is None else self._of_rows(sentences)

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether each row stands for its sentence, of shape (n_rows,)."""
        return self._of_rows(self.source.is_final_token)

    @property
    def file_names(self) -> NDArray[np.str_]:
        """Name of the file of each row, of shape (n_rows,); empty for rows without a file."""
        return self._of_rows(self.source.file_names)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the content, including the selection of rows and joined labels and groups."""
        parts = dict(self.joined)
        if self.positions is not None and not np.array_equal(
            self.positions, np.arange(self.source.n_rows)
        ):
            parts["rows"] = self.positions
        if not parts:
            return self.source.fingerprint
        digest = hashlib.sha256(self.source.fingerprint.encode())
        for name, values in sorted(parts.items()):
            digest.update(f"{name}{values.dtype.str}{values.shape}".encode() + values.tobytes())
        return digest.hexdigest()

    @property
    def folder(self) -> SentenceFolder | None:
        """The folder of sentence files, if these are all of its rows; otherwise None."""
        is_whole = self.positions is None and isinstance(self.source, SentenceFolder)
        return self.source if is_whole else None  # type: ignore[return-value]

    def embeddings(self) -> NDArray[np.float32]:
        """Read the embeddings, of shape (n_rows, d_embed)."""
        if self.source.d_embed is None:
            self.source.require("embeddings")
        return self._finite(self.source.embeddings(self.positions), "embeddings")

    def layer(self, layer: int) -> NDArray[np.float32]:
        """Read the hidden states of a layer, of shape (n_rows, d_model)."""
        if self.source.d_model is None:
            self.source.require("hidden_states")
        require_layers([layer], self.source.layers.tolist())
        values = self.source.layer(layer, self.positions)
        return self._finite(values, "hidden_states", f"layer {layer}")

    def config(self, config: int, features: NDArray[np.int64] | None = None) -> csr_array:
        """Read SAE features of a config, all or some, of shape (n_rows, n_features)."""
        matrix = self.source.config(config, self.positions)
        if features is not None:
            matrix = matrix[:, features]
        if not np.isfinite(matrix.data).all():
            raise self._not_finite(
                _bad_counts(matrix), "activations", f"layer {self.source.sae_layers[config]}"
            )
        return matrix

    def feature(self, config: int, feature: int | Sequence[int]) -> NDArray[np.float32]:
        """Read one feature of a config, of shape (n_rows,), or several, of shape (n_rows, n)."""
        matrix = self.source.config(config, self.positions)
        columns = matrix[:, np.atleast_1d(feature)].toarray()
        values = columns if np.ndim(feature) else columns[:, 0]
        what = f"layer {self.source.sae_layers[config]}, feature {feature}"
        return self._finite(values, "activations", what)

    def find_config(self, layer: int, average_l0: float | None = None) -> int:
        """Return the position of the SAE config of a layer in `sae_layers` of the source."""
        source = self.source
        if source.n_features is None:
            source.require("activations")
        require_layers([layer], np.unique(source.sae_layers).tolist())
        configs = np.flatnonzero(source.sae_layers == layer)
        there = ", ".join(f"{value:g}" for value in source.average_l0s[configs])
        if average_l0 is not None:
            configs = configs[source.average_l0s[configs] == average_l0]
            if not len(configs):
                raise FeatureNotFoundError(
                    f"average_l0 mismatch: layer {layer} has no SAE config with average_l0"
                    f" {average_l0:g}; it has {there}. Choose one of these."
                )
        if len(configs) > 1:
            raise FeatureNotFoundError(
                f"average_l0 mismatch: layer {layer} has {len(configs)} SAE configs, with"
                f" average_l0 {there}, and "
                + ("this value does not tell them apart." if average_l0 is not None else "none")
                + (" was chosen. Give average_l0=..., one of these." if average_l0 is None else "")
            )
        return int(configs[0])

    def blocks(self, bounds: Sequence[int] | None = None) -> Iterator[Iterable[Block]]:
        """Read all members once, in bounded memory; see `Source.blocks`."""
        return self.source.blocks(self.positions, all_members(self.source), bounds)

    def stream(self) -> Iterator[Block]:
        """Yield the same blocks as `blocks`, one at a time."""
        for blocks in self.blocks():
            yield from blocks

    @property
    def n_files(self) -> int:
        """Number of files of the source, including those left out."""
        return len({*self.source.file_names.tolist(), *self.source.left_out})

    def faulty(self, faults: Mapping[str, FileFormatError]) -> FaultyFilesError:
        """Build the error that names faulty files of the source."""
        return faulty_files(self.source.place or self.source.name, faults, self.n_files)

    def name_all(self, error: FaultyFilesError, members: Members) -> FaultyFilesError:
        """Build the error that names all faulty files, after one of them was found."""
        return self.faulty({**self.find_faults(members), **error.faults})

    def find_label_faults(self) -> dict[str, FileFormatError]:
        """Return the fault of the label of each file of a folder, by its name.

        Empty if no file has a label, because then labels are not expected, or if labels were
        joined.
        """
        if self.folder is None or "labels" in self.joined:
            return {}
        faults = self.folder.label_faults
        return {} if len(faults) == len(self.folder.files) else faults

    def find_faults(self, members: Members, *, keep: bool = False) -> dict[str, FileFormatError]:
        """Read members once; return the fault of each faulty file, by its name.

        Damage, NaN and infinite values are faults. Memory is bounded, unless `keep` is given: then
        the values of a folder without faults stay in memory.
        """
        if self.folder is not None:
            return self.folder.find_faults(members, keep=keep)
        faults: dict[str, FileFormatError] = {}
        first = 0
        for blocks in self.source.blocks(self.positions, members):
            n = 0
            for member, number, values in blocks:
                n = values.shape[0]
                where = self.take(slice(first, first + n))
                faults = {**where._faults_of(member, number, values, members), **faults}
            first += n
        return faults

    def _faults_of(
        self, member: str, number: int, values: Any, members: Members
    ) -> dict[str, FileFormatError]:
        """Find NaN and infinite values among one block of one member."""
        what = f"layer {number}" if member == "hidden_states" else ""
        if member == "activations":
            config = members.read_configs[number]
            features = members.used_features(config)
            values = values if features is None else values[:, features]
            what = members.name_config(config, self.source.sae_layers[config])
        counts = _bad_counts(values)
        if not counts.any():
            return {}
        error = self._not_finite(counts, member, what)
        if not isinstance(error, FaultyFilesError):
            raise error
        return error.faults

    def without(self, faults: Mapping[str, FileFormatError]) -> Rows:
        """Leave out the rows of these files."""
        keep = ~np.isin(self.source.file_names, list(faults))
        source = self.source.without(faults)
        joined = {name: values[keep] for name, values in self.joined.items()}
        if self.positions is None:
            return Rows(source, None, joined)
        new_position = np.cumsum(keep) - 1
        return Rows(source, new_position[self.positions[keep[self.positions]]], joined)

    def find_siblings(self) -> Siblings | None:
        """Return the rows of the source that are not selected but share a group with these."""
        if self.positions is None:
            return None
        groups = self._split_groups()
        here = np.zeros(self.source.n_rows, bool)
        here[self.positions] = True
        torn = np.isin(groups, groups[here]) & ~here
        return Siblings(self.source.key, np.packbits(torn)) if torn.any() else None

    def holds_any(self, siblings: Siblings) -> bool:
        """Tell whether any of those rows is among these."""
        if self.source.key != siblings.key:
            return False
        rows = np.arange(len(self)) if self.positions is None else self.positions
        return bool((siblings.bits[rows >> 3] >> (7 - rows % 8) & 1).any())

    def _joined_or_own(self, name: str) -> NDArray[Any]:
        own: NDArray[Any]
        own = self.joined[name] if name in self.joined else getattr(self.source, name)
        return own

    def _split_groups(self) -> NDArray[np.int64]:
        groups, texts = self._joined_or_own("groups"), self.source.sentences
        if "groups" in self.joined or texts is None or not self.source.groups_are_sentences:
            return groups
        return merge_by_text(groups, texts)

    def _of_rows(self, values: Any) -> Any:
        return values if self.positions is None else values[self.positions]

    def _finite(self, values: Any, member: str, what: str = "") -> Any:
        if np.isfinite(values).all():
            return values
        raise self._not_finite(_bad_counts(values), member, what)

    def _not_finite(self, counts: NDArray[Any], member: str, what: str) -> DataError:
        """Build the error that names the files with values that are not finite numbers."""
        source = self.source
        bad = np.flatnonzero(counts)
        rows = (bad if self.positions is None else self.positions[bad]).tolist()
        values = counts[bad].tolist()
        affected = f" ({len(bad)} of {len(counts)} rows are affected)"
        first = not_finite(source.describe_row(rows[0]), member, what, values[0], affected)
        names = source.file_names[rows].tolist()
        if not all(names):  # rows that are not from files
            return DataError(str(first))
        faults: dict[str, FileFormatError] = {}
        for row, name, n_values in zip(rows, names, values, strict=True):
            where = source.describe_row(row)
            faults.setdefault(name, not_finite(where, member, what, n_values))
        if len(faults) == 1:
            faults = dict.fromkeys(faults, first)
        return self.faulty(faults)


def _bad_counts(values: Any) -> NDArray[np.int64]:
    """Count NaN and infinite values in each row of an array or a sparse matrix."""
    if hasattr(values, "indptr"):
        row_of = np.repeat(np.arange(values.shape[0]), np.diff(values.indptr))
        bad = ~np.isfinite(values.data)
        return np.bincount(row_of, bad, values.shape[0]).astype(np.int64)
    return (~np.isfinite(values)).reshape(len(values), -1).sum(axis=1)
