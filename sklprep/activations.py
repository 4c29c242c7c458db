"""`ActivationSet`: rows of activations that scikit-learn can index, split and pass along as X."""

from __future__ import annotations

import hashlib
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.arrays import is_array, to_numpy
from sklprep.exceptions import (
    DataError,
    FaultyFilesError,
    FeatureNotFoundError,
    FileFormatError,
    SklprepWarning,
    UsageError,
)
from sklprep.files.atomic import check_new_folder
from sklprep.files.csv_tables import read_groups, read_labels
from sklprep.files.faults import brief, faulty_files, not_finite, warn_left_out
from sklprep.formats.layers import check_layers_exist, format_layers
from sklprep.formats.members import Block
from sklprep.formats.pack_reader import Pack, is_pack
from sklprep.formats.pack_writer import build_pack, write_pack
from sklprep.formats.pooling import is_last_of_each
from sklprep.formats.sentence_folder import SentenceFolder
from sklprep.formats.sentence_writer import export_sentences
from sklprep.notebook.cards import card, describe_y, table

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BLOCK_ROWS = 256
_SHOWN_SENTENCES = 5
_T = TypeVar("_T")


class _Source(Protocol):
    """Where the rows of an `ActivationSet` come from."""

    name: str
    pooling: str
    is_pooled: bool
    layers: NDArray[np.int64]
    average_l0s: NDArray[Any]
    d_embed: int | None
    d_model: int | None
    n_features: int | None

    @property
    def place(self) -> Path | None: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def sae_layers(self) -> NDArray[np.int64]: ...
    @property
    def stored_dtype(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def is_final_token(self) -> NDArray[np.bool_]: ...
    @property
    def groups(self) -> NDArray[np.int64]: ...
    @property
    def labels(self) -> NDArray[Any]: ...
    @property
    def sentence_indices(self) -> NDArray[np.int64]: ...
    @property
    def sentences(self) -> NDArray[np.str_] | None: ...
    @property
    def left_out(self) -> Mapping[str, FileFormatError]: ...
    def embeddings(self, rows: NDArray[np.int64] | None = ...) -> NDArray[np.float32]: ...
    def layer(self, layer: int, rows: NDArray[np.int64] | None = ...) -> NDArray[np.float32]: ...
    def config(self, config: int, rows: NDArray[np.int64] | None = ...) -> csr_array: ...
    def require(self, member: str) -> None: ...
    def names_of_rows(self) -> list[str]: ...
    def describe_row(self, row: int) -> str: ...
    def without(self, faults: Mapping[str, FileFormatError]) -> Self: ...
    def read(
        self, *, embeddings: bool = ..., layers: Iterable[int] = ..., configs: Iterable[int] = ...
    ) -> None: ...


class Siblings(NamedTuple):
    """Rows of a source, one bit a row, that share a group with other rows of it."""

    key: str
    bits: NDArray[np.uint8]


class ActivationSet:
    """Rows of embeddings, hidden states and SAE features, read when they are first needed.

    A set goes into scikit-learn as ``X``: it has a length, a ``shape`` of ``(n_rows,)``, and
    indexing by integer array, boolean mask or slice gives a view (same source, fewer rows). A
    pipeline over it starts with `LayerSelector`, which turns it into a matrix.

    Make one with `load_activations`, `ActivationSet.from_arrays` or `make_activations`.

    Attributes
    ----------
    shape : tuple
        ``(n_rows,)``.
    embeddings : ndarray of shape (n_rows, d_embed), float32
    hidden_states : ndarray of shape (n_rows, n_layers, d_model), float32
        In the order of `layers`.
    activations : tuple of csr_array of shape (n_rows, n_features), float32
        One a SAE config, in the order of `sae_layers`.
    labels : ndarray of shape (n_rows,)
        Concept labels; int64, 0 to 3, where they come from sentence files.
    sentences : ndarray of str of shape (n_rows,), or None
    sentence_indices : ndarray of shape (n_rows,), int64
    groups : ndarray of shape (n_rows,), int64
        The sentence of each row unless given: what must not straddle a split.
    layers : ndarray of shape (n_layers,), int64
        Distinct layer numbers, ascending.
    sae_layers, average_l0s : ndarray of shape (n_configs,)
        Layer and sparsity of each SAE config, in file order.
    pooling : str
        How tokens became rows: ``"final"``, ``"mean"``, ``"max"`` or ``"none"``.
    name : str
        Base name of the folder, or ``"arrays"``.
    left_out : dict of str to FileFormatError
        Files of the folder whose sentences are not among the rows, by name, and why.
    fingerprint : str
        SHA-256 of the content (labels and groups of a CSV and the rows of a view included), without
        its location or time.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep import ActivationSet
    >>> states = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    >>> acts = ActivationSet.from_arrays(hidden_states=states, labels=[0, 1, 0, 1])
    >>> acts
    ActivationSet(4 rows, layers 0-1, d_model 3)
    >>> acts[[3, 0]].labels
    array([1, 0])
    >>> acts[acts.labels == 1].hidden_states.shape
    (2, 2, 3)
    """

    __module__ = "sklprep"
    __iter__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        source: _Source,
        rows: NDArray[np.int64] | None = None,
        joined: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        self._source = source
        self._rows = rows
        self._joined = dict(joined or {})  # labels and groups in place of the source's own

    @classmethod
    def from_arrays(
        cls,
        *,
        hidden_states: ArrayLike | None = None,
        embeddings: ArrayLike | None = None,
        activations: ArrayLike | Sequence[Any] | None = None,
        labels: ArrayLike | None = None,
        layers: ArrayLike | None = None,
        sae_layers: ArrayLike | None = None,
        average_l0s: ArrayLike | None = None,
        sentences: Sequence[str] | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Make a set from arrays of any collector.

        Each array may be anything that has ``__array__`` or ``__dlpack__``, a torch tensor on the
        CPU for instance. Gradients are dropped, bfloat16 and float16 become float32 exactly.

        Parameters
        ----------
        hidden_states : array-like of shape (n_rows, n_layers, d_model), or a list of n_layers \
arrays of shape (n_rows, d_model)
            Rounded to float32; not copied if it is one float32 array already. A list could also
            hold one array a row, so `labels`, `layers` or others must tell which it is.
        embeddings : array-like of shape (n_rows, d_embed)
        activations : array-like of shape (n_rows, n_configs, n_features), or a sequence of \
n_configs sparse or dense matrices of shape (n_rows, n_features)
        labels : array-like of shape (n_rows,)
            Any labels.
        layers : array-like of shape (n_layers,), default=0..n_layers-1
            The layer numbers of `hidden_states`; where one repeats, its first position counts.
        sae_layers : array-like of shape (n_configs,), default=`layers`
        average_l0s : array-like of shape (n_configs,), default=the mean count of active features
        sentences : sequence of str of length n_rows
        groups : array-like of shape (n_rows,)
            Rows that belong together. By default rows of one sentence where `sentences` are given,
            otherwise each row by itself.

        Returns
        -------
        ActivationSet

        Raises
        ------
        UsageError
            If the arrays do not fit together, lie on a GPU, or hold no numbers.
        """
        return cls(
            ArraySource(
                hidden_states,
                embeddings,
                activations,
                labels=labels,
                layers=layers,
                sae_layers=sae_layers,
                average_l0s=average_l0s,
                sentences=sentences,
                groups=groups,
            )
        )

    def __len__(self) -> int:
        return self._source.n_rows if self._rows is None else len(self._rows)

    @property
    def shape(self) -> tuple[int]:
        """``(n_rows,)``."""
        return (len(self),)

    def __getitem__(self, key: Any) -> ActivationSet:
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:
            key = key[0]
        if not isinstance(key, slice):
            key = np.asarray(key)
            if key.ndim != 1 or (key.dtype.kind not in "iub" and key.size):
                raise TypeError(
                    "An ActivationSet is indexed by a slice, a boolean mask or an array of row"
                    f" positions, got {key.dtype} of shape {key.shape}."
                )
            key = key if key.size else key.astype(np.int64)
        rows = np.arange(len(self)) if self._rows is None else self._rows
        return ActivationSet(self._source, rows[key], self._joined)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        raise TypeError(
            "An ActivationSet is not one matrix: start the pipeline with sklprep.LayerSelector(),"
            " as in make_pipeline(LayerSelector(12), ActivationNormalizer(), LogisticRegression())."
        )

    def __repr__(self) -> str:
        source = self._source
        parts = [f"{len(self):,} rows"]
        if source.d_model is not None:
            parts.append(
                f"layers {format_layers(source.layers.tolist())}, d_model {source.d_model}"
            )
        if source.d_embed is not None:
            parts.append(f"embeddings {source.d_embed}")
        if source.n_features is not None:
            parts.append(f"{len(source.sae_layers)} SAE configs of {source.n_features} features")
        if source.pooling != "final":
            parts.append(f"pooling {source.pooling}")
        return f"ActivationSet({', '.join(parts)})"

    def _repr_html_(self) -> str:
        """Show in a notebook what there is; activations are not read for it."""
        source = self._source
        layers = format_layers(source.layers.tolist())
        facts = [("rows", f"{len(self):,}, pooling {source.pooling}")]
        if source.d_model is not None:
            facts.append(("hidden states", f"layers {layers}, {source.d_model:,} wide"))
        if source.d_embed is not None:
            facts.append(("embeddings", f"{source.d_embed:,} wide"))
        if source.n_features is not None:
            n = len(source.sae_layers)
            low, high = source.average_l0s.min(), source.average_l0s.max()
            facts.append(
                (
                    "SAE features",
                    f"{n} SAE{'s' if n > 1 else ''} of {source.n_features:,}, average_l0 {low:g}"
                    + (f" to {high:g}" if high > low else ""),
                )
            )
        try:
            facts.append(("labels", describe_y(self.labels)))
        except DataError as error:
            facts.append(("labels", f"none: {brief(error)}"))
        n_groups = len(np.unique(self.groups))
        if n_groups < len(self):
            facts.append(("groups", f"{n_groups:,}, which a split must keep whole: acts.groups"))
        if self.left_out:
            facts.append(("left out", f"{len(self.left_out):,} files, {min(self.left_out)} first"))
        details = []
        if first := self._first_sentences():
            details.append(("first sentences", table([], first)))
        return card("ActivationSet", self.name, facts, details=details)

    def _first_sentences(self) -> list[tuple[str, str]]:
        """Index and text of the first few that differ."""
        texts = self.sentences
        if texts is None:
            return []
        found: dict[tuple[str, str], None] = {}
        for number, text in zip(self.sentence_indices, texts, strict=True):
            found[str(number), str(text)] = None
            if len(found) == _SHOWN_SENTENCES:
                break
        return list(found)

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def pooling(self) -> str:
        return self._source.pooling

    @property
    def fingerprint(self) -> str:
        parts = dict(self._joined)
        if self._rows is not None and not np.array_equal(
            self._rows, np.arange(self._source.n_rows)
        ):
            parts["rows"] = self._rows
        if not parts:
            return self._source.fingerprint
        digest = hashlib.sha256(self._source.fingerprint.encode())
        for name, values in sorted(parts.items()):
            digest.update(f"{name}{values.dtype.str}{values.shape}".encode() + values.tobytes())
        return digest.hexdigest()

    @property
    def layers(self) -> NDArray[np.int64]:
        return self._source.layers

    @property
    def sae_layers(self) -> NDArray[np.int64]:
        return self._source.sae_layers

    @property
    def average_l0s(self) -> NDArray[Any]:
        return self._source.average_l0s

    @property
    def d_embed(self) -> int:
        """Width of the embeddings; `DataError` without them."""
        return self._require("embeddings", self._source.d_embed)

    @property
    def d_model(self) -> int:
        """Width of a layer's hidden states; `DataError` without them."""
        return self._require("hidden_states", self._source.d_model)

    @property
    def n_sae_features(self) -> int:
        """Number of features of an SAE; 0 without activations."""
        return self._source.n_features or 0

    @property
    def labels(self) -> NDArray[Any]:
        if "labels" in self._joined:
            return self._of_rows(self._joined["labels"])
        return self._of_rows(self._source.labels)

    @property
    def groups(self) -> NDArray[np.int64]:
        if "groups" in self._joined:
            return self._of_rows(self._joined["groups"])
        return self._of_rows(self._source.groups)

    @property
    def sentence_indices(self) -> NDArray[np.int64]:
        return self._of_rows(self._source.sentence_indices)

    @property
    def sentences(self) -> NDArray[np.str_] | None:
        sentences = self._source.sentences
        return None if sentences is None else self._of_rows(sentences)

    @property
    def embeddings(self) -> NDArray[np.float32]:
        assert self.d_embed
        return self._finite(self._source.embeddings(self._rows), "embeddings")

    @property
    def hidden_states(self) -> NDArray[np.float32]:
        assert self.d_model
        return np.stack([self.layer(int(layer)) for layer in self.layers], axis=1)

    @property
    def activations(self) -> tuple[csr_array, ...]:
        return tuple(self.config(config) for config in range(len(self.sae_layers)))

    def layer(self, layer: int) -> NDArray[np.float32]:
        """Hidden states of one layer, (n_rows, d_model) float32.

        Raises
        ------
        LayerNotFoundError
            If the data has no such layer.
        DataError
            If a value is NaN or infinite; the message names the files.
        """
        assert self.d_model
        check_layers_exist([layer], self.layers.tolist())
        return self._finite(
            self._source.layer(layer, self._rows), "hidden_states", f"layer {layer}"
        )

    def sae_activations(self, layer: int, average_l0: float | None = None) -> csr_array:
        """SAE features of one config, (n_rows, n_features) float32 in CSR.

        Parameters
        ----------
        layer : int
        average_l0 : float or None
            Needed only where the layer has several configs.

        Raises
        ------
        LayerNotFoundError, FeatureNotFoundError
            If the data has no such config, or several and none was chosen.
        DataError
            If a value is NaN or infinite; the message names the file.
        """
        return self.config(self.find_config(layer, average_l0))

    def config(self, config: int, features: NDArray[np.int64] | None = None) -> csr_array:
        """SAE features, or some of them, of the config at a position among `sae_layers`."""
        matrix = self._source.config(config, self._rows)
        if features is not None:
            matrix = matrix[:, features]
        finite = np.isfinite(matrix.data)
        if not finite.all():
            row_of = np.repeat(np.arange(len(self)), np.diff(matrix.indptr))
            counts = np.bincount(row_of, ~finite, len(self)).astype(np.int64)
            raise self._not_finite(counts, "activations", f"layer {self.sae_layers[config]}")
        return matrix

    def feature(
        self, layer: int, feature: int | Sequence[int], average_l0: float | None = None
    ) -> NDArray[np.float32]:
        """Activation of one SAE feature, (n_rows,), or of several, (n_rows, n), float32.

        Raises
        ------
        LayerNotFoundError, FeatureNotFoundError
            If the data has no such feature.
        DataError
            If a value is NaN or infinite; the message names the file.
        """
        config = self.find_config(layer, average_l0)
        features = np.atleast_1d(feature)
        for one in features.tolist():
            check_feature_exists(one, self.n_sae_features)
        columns = self._source.config(config, self._rows)[:, features].toarray()
        values = columns if np.ndim(feature) else columns[:, 0]
        return self._finite(values, "activations", f"layer {layer}, feature {feature}")

    def find_config(self, layer: int, average_l0: float | None = None) -> int:
        """Position of the SAE config of a layer among `sae_layers`."""
        self._require("activations", self._source.n_features)
        check_layers_exist([layer], np.unique(self.sae_layers).tolist())
        configs = np.flatnonzero(self.sae_layers == layer)
        there = ", ".join(f"{value:g}" for value in self.average_l0s[configs])
        if average_l0 is not None:
            configs = configs[self.average_l0s[configs] == average_l0]
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
                + (" was chosen. Give average_l0 (--average-l0)." if average_l0 is None else "")
            )
        return int(configs[0])

    def prefetch(
        self,
        *,
        embeddings: bool = False,
        layers: Iterable[int] = (),
        configs: Iterable[int] = (),
    ) -> Self:
        """Read just these members now, in one pass over the files, and keep them in memory.

        Without it the first use of one layer reads all layers. `configs` are positions among
        `sae_layers`. Returns the set itself.
        """
        self._source.read(embeddings=embeddings, layers=layers, configs=configs)
        return self

    def unread(self) -> ActivationSet:
        """Give the same rows as they were before a member was read; arrays stay as they are."""
        if isinstance(self._source, SentenceFolder):
            return ActivationSet(self._source.unread(), self._rows)
        return self

    def stream(self) -> Iterator[Block]:
        """Read everything once, in blocks of rows and in bounded memory; nothing is kept.

        Yields ``("embeddings", 0, rows)``, ``("hidden_states", layer, rows)`` and ``("activations",
        config, csr_array)``; the blocks of a member come in the order of its rows. Nothing is
        checked: there may be NaN and infinite values.
        """
        for blocks in self.blocks():
            yield from blocks

    def blocks(self, bounds: Sequence[int] | None = None) -> Iterator[Iterable[Block]]:
        """Do what `stream` does, all members of some rows at a time.

        Parameters
        ----------
        bounds : sequence of int, or None
            Rows before which to begin anew, from 0 to ``len(self)``; None leaves it to the source.
        """
        source = self._source
        rows = np.arange(source.n_rows) if self._rows is None else self._rows
        if isinstance(source, SentenceFolder) and len(rows):
            sentences = source.sentence_of_row[rows]
            files = [0, *(np.flatnonzero(np.diff(sentences)) + 1).tolist(), len(rows)]
            numbers = sentences[files[:-1]].tolist()
            once = len(set(numbers)) == len(numbers)  # else whole rows are read into memory
            if once and bounds in (None, files):
                yield from self._blocks_of_files(source, numbers, pairwise(files))
                return
        if bounds is None:
            bounds = [*range(0, len(rows), _BLOCK_ROWS), len(rows)]
        for start, stop in pairwise(bounds):
            yield _blocks_of(source, rows[start:stop])

    def _blocks_of_files(
        self, folder: SentenceFolder, numbers: list[int], bounds: Iterable[tuple[int, int]]
    ) -> Iterator[list[Block]]:
        files = folder.stream(
            numbers,
            embeddings=folder.d_embed is not None,
            layers=folder.layers.tolist() if folder.d_model is not None else [],
            configs=range(len(folder.sae_layers)),
        )
        width = folder.n_features or 0
        for number, (start, stop), blocks in zip(numbers, bounds, files, strict=True):
            matrices = [
                (member, which, rows.as_csr(width) if member == "activations" else rows)
                for member, which, rows in blocks
            ]
            if self._rows is None:
                yield matrices
            else:
                places = self._rows[start:stop] - folder.n_rows_of(number)
                yield [(member, which, values[places]) for member, which, values in matrices]

    def to_pack(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as a pack: plain arrays that `load_activations` reads in place.

        The pack gives the same rows, `groups` and `fingerprint`, so a dataset of it is the same.
        Of a whole folder of sentence files it is what ``sklprep pack`` makes of it.

        Parameters
        ----------
        path : path-like
            A folder that does not exist yet, or is empty. It appears when it is complete.

        Raises
        ------
        OutputError
            If there is something at `path`, or it cannot be written.
        UsageError
            If the labels are neither numbers nor text.
        FileFormatError
            If a file that the rows are read from is damaged.

        Examples
        --------
        >>> import tempfile, sklprep
        >>> acts = sklprep.make_activations(12, n_layers=3, n_features=32, random_state=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     acts[acts.labels > 1].to_pack(f"{folder}/strong")
        ...     sklprep.load_activations(f"{folder}/strong")
        ActivationSet(5 rows, layers 0-2, d_model 64, embeddings 64, 3 SAE configs of 32 features)
        """
        if self.folder is None or self._joined:
            write_pack(self, path)
        else:
            check_new_folder(path)
            build_pack(self.folder, path)

    def to_sentence_files(self, path: str | os.PathLike[str]) -> None:
        """Write a folder of sentence files, which `load_activations` reads.

        A row becomes a file of one token, its final one; with pooling ``"none"`` the rows of a
        sentence become a file, with its final token marked. Groups come back numbered from 0, and
        of pooled rows it is not written how they were pooled.

        Parameters
        ----------
        path : path-like
            A folder that does not exist yet, or is empty. It appears when it is complete.

        Raises
        ------
        OutputError
            If there is something at `path`, or it cannot be written.
        DataError
            If sentence files cannot say all of it: labels that are missing or not 0, 1, 2 or 3,
            groups of several sentences, a sentence in several places or without its final token, a
            layer with hidden states but no SAE features. `to_pack` writes any rows.
        FileFormatError
            If a file that the rows are read from is damaged.

        Examples
        --------
        >>> import numpy as np
        >>> import pathlib, tempfile, sklprep
        >>> states = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
        >>> acts = sklprep.ActivationSet.from_arrays(hidden_states=states, labels=[0, 3, 1, 2])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     acts.to_sentence_files(f"{folder}/demo")
        ...     names = sorted(path.name for path in pathlib.Path(folder, "demo").iterdir())
        ...     read = sklprep.load_activations(f"{folder}/demo")
        ...     bool((read.hidden_states == states).all()), read.labels, names[0]
        (True, array([0, 3, 1, 2]), 'sentence_000000.npz')
        """
        export_sentences(self, path)

    def find_siblings(self) -> Siblings | None:
        """Rows of the source that are not among these but share a group with some of them."""
        if self._rows is None:
            return None
        source = self._source
        groups = self._joined.get("groups", source.groups)
        here = np.zeros(source.n_rows, bool)
        here[self._rows] = True
        torn = np.isin(groups, groups[here]) & ~here
        return Siblings(source.key, np.packbits(torn)) if torn.any() else None

    def holds_any(self, siblings: Siblings) -> bool:
        """Whether any of those rows is among these."""
        if self._source.key != siblings.key:
            return False
        rows = np.arange(len(self)) if self._rows is None else self._rows
        return bool((siblings.bits[rows >> 3] >> (7 - rows % 8) & 1).any())

    @property
    def is_pooled(self) -> bool:
        """Whether sklprep pooled the tokens itself, so that `pooling` is known and not assumed."""
        return self._source.is_pooled

    @property
    def is_from_files(self) -> bool:
        """Whether the rows can be read again, from sentence files or a pack."""
        return not isinstance(self._source, ArraySource)

    @property
    def folder(self) -> SentenceFolder | None:
        """The folder of sentence files that the whole set is read from, if that is its source."""
        whole = self._rows is None and isinstance(self._source, SentenceFolder)
        return self._source if whole else None  # type: ignore[return-value]

    @property
    def widths(self) -> tuple[int | None, int | None, int | None]:
        """Width of embeddings, hidden states and SAE features; None for what there is not."""
        return self._source.d_embed, self._source.d_model, self._source.n_features

    @property
    def stored_dtype(self) -> str:
        """Dtype that holds each value of the rows: that of the dump."""
        return self._source.stored_dtype

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether a row stands for its sentence; all but one of the tokens of a sentence do not."""
        return self._of_rows(self._source.is_final_token)

    @property
    def file_names(self) -> NDArray[np.str_]:
        """Name of the sentence file of each row; empty for arrays."""
        return self._of_rows(np.array(self._source.names_of_rows(), np.str_))

    def read_from(self, source: _Source) -> ActivationSet:
        """The same rows, read from another source that holds all of them."""
        return ActivationSet(source, self._rows, self._joined)

    @property
    def left_out(self) -> dict[str, FileFormatError]:
        return dict(self._source.left_out)

    @property
    def path(self) -> Path | None:
        """The folder of sentence files, or the pack, that the rows come from."""
        return self._source.place

    @property
    def n_files(self) -> int:
        """Number of sentence files in that folder, or pack, those left out included."""
        return len({*self._source.names_of_rows(), *self.left_out})

    def faulty(self, faults: Mapping[str, FileFormatError]) -> FaultyFilesError:
        """Build the error that names files of the folder or the pack."""
        return faulty_files(self.path or self.name, faults, self.n_files)

    def without(self, faults: Mapping[str, FileFormatError]) -> ActivationSet:
        """Leave out the sentences of some files, for example those that an error names.

        Parameters
        ----------
        faults : mapping of str to FileFormatError
            By the name of the file, as `FaultyFilesError.faults`.

        Returns
        -------
        ActivationSet
            The other rows. `left_out` has these files too, and so has the provenance of a dataset.

        Raises
        ------
        FaultyFilesError
            If no file is left.

        Examples
        --------
        >>> import pathlib, tempfile, sklprep
        >>> from sklprep.exceptions import FaultyFilesError
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = sklprep.make_activations(12, random_state=0, output=f"{folder}/demo")
        ...     acts = sklprep.load_activations(f"{folder}/demo")
        ...     _ = pathlib.Path(folder, "demo", "sentence_000003.npz").write_bytes(b"")
        ...     try:
        ...         states = acts.layer(2)
        ...     except FaultyFilesError as error:
        ...         acts = acts.without(error.faults)
        ...         states = acts.layer(2)
        >>> states.shape, list(acts.left_out)
        ((11, 64), ['sentence_000003.npz'])
        """
        keep = np.array([name not in faults for name in self._source.names_of_rows()])
        source = self._source.without(faults)
        joined = {name: values[keep] for name, values in self._joined.items()}
        if self._rows is None:
            return ActivationSet(source, None, joined)
        new_position = np.cumsum(keep) - 1
        return ActivationSet(source, new_position[self._rows[keep[self._rows]]], joined)

    def check(self) -> None:
        """Read everything once, in bounded memory; raise if a value cannot be used.

        Raises
        ------
        FaultyFilesError
            If files are damaged, have values that are NaN or infinite, or no label where others
            have one; it names all of them.
        """
        if self.folder is not None:
            if "labels" not in self._joined:
                self.folder.check_labels()
            self.folder.check()
        else:
            self.check_members(
                embeddings=self._source.d_embed is not None,
                layers=self.layers.tolist() if self._source.d_model is not None else (),
                configs=range(len(self.sae_layers)),
            )

    def check_members(
        self,
        *,
        embeddings: bool = False,
        layers: Iterable[int] = (),
        configs: Iterable[int] = (),
    ) -> None:
        """Do what `check` does for some members, which are kept in memory as by `prefetch`."""
        self.prefetch(embeddings=embeddings, layers=layers, configs=configs)
        uses: list[Callable[[ActivationSet], Any]] = [lambda acts: acts.embeddings] * embeddings
        uses += [methodcaller("layer", layer) for layer in layers]
        uses += [methodcaller("config", config) for config in configs]
        check_uses(self, uses)

    def _of_rows(self, values: Any) -> Any:
        return values if self._rows is None else values[self._rows]

    def _require(self, member: str, width: int | None) -> int:
        if width is not None:
            return width
        self._source.require(member)
        raise AssertionError(f"{member} has no width")

    def _finite(self, values: Any, member: str, what: str = "") -> Any:
        finite = np.isfinite(values)
        if finite.all():
            return values
        raise self._not_finite((~finite).reshape(len(values), -1).sum(axis=1), member, what)

    def _not_finite(self, counts: NDArray[Any], member: str, what: str) -> DataError:
        """Name the files of those rows that have values that are no finite numbers."""
        source = self._source
        bad = np.flatnonzero(counts)
        rows = (bad if self._rows is None else self._rows[bad]).tolist()
        values = counts[bad].tolist()
        affected = f" ({len(bad)} of {len(counts)} rows are affected)"
        first = not_finite(source.describe_row(rows[0]), member, what, values[0], affected)
        names = source.names_of_rows()
        if not all(names[row] for row in rows):  # they come from no files
            return DataError(str(first))
        faults: dict[str, FileFormatError] = {}
        for row, n_values in zip(rows, values, strict=True):
            where = source.describe_row(row)
            faults.setdefault(names[row], not_finite(where, member, what, n_values))
        if len(faults) == 1:
            faults = dict.fromkeys(faults, first)
        return self.faulty(faults)


def check_uses(acts: ActivationSet, uses: Iterable[Callable[[ActivationSet], Any]]) -> None:
    """Call functions on all rows, block by block; the one error names all files they find faulty.

    Raises
    ------
    FaultyFilesError
        Where a function does.
    """
    faults: dict[str, FileFormatError] = {}
    names = acts.file_names
    for use, start in itertools.product(uses, range(0, len(acts), _BLOCK_ROWS)):
        rows = np.arange(start, min(start + _BLOCK_ROWS, len(acts)))
        n_before = -1
        while len(rows) not in (0, n_before):
            n_before = len(rows)
            try:
                use(acts[rows])
            except FaultyFilesError as error:
                faults = {**error.faults, **faults}
                rows = rows[~np.isin(names[rows], list(faults))]
    if faults:
        raise acts.faulty(faults)


def leave_out_faulty(
    acts: ActivationSet, use: Callable[[ActivationSet], _T]
) -> tuple[ActivationSet, _T]:
    """Call a function on a set, without the files that it finds faulty, until it finds none."""
    while True:
        try:
            return acts, use(acts)
        except FaultyFilesError as error:
            acts = acts.without(error.faults)


def _blocks_of(source: _Source, rows: NDArray[np.int64]) -> Iterator[Block]:
    if source.d_embed is not None:
        yield "embeddings", 0, source.embeddings(rows)
    for layer in source.layers.tolist() if source.d_model is not None else ():
        yield "hidden_states", layer, source.layer(layer, rows)
    for config in range(len(source.sae_layers)):
        yield "activations", config, source.config(config, rows)


def load_activations(
    path: str | os.PathLike[str],
    *,
    pooling: str | None = None,
    n_jobs: int | None = None,
    progress: bool = True,
    labels: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
    skip_bad: bool | Mapping[str, Any] = False,
) -> ActivationSet:
    """Open a folder of sentence files as an `ActivationSet`.

    Parameters
    ----------
    path : path-like
        Folder of ``sentence_*.npz`` files, whose rows come in the order of the sorted names, or a
        pack made from one.
    pooling : {"final", "mean", "max", "none"} or None, default=None
        What becomes a row: the final token, the mean or the maximum over a sentence's tokens, or
        every token (rows of one sentence then share a group). None is ``"final"``, and of a pack
        what it was made with.
    n_jobs : int or None, default=None
        Files read at once in threads, as `joblib.Parallel` takes it.
    progress : bool, default=True
        Show a progress bar on stderr where that is a terminal and reading takes long.
    labels, groups : path-like or None, default=None
        A CSV with the columns ``sentence_index`` and ``label``, or ``group``, whose values take the
        place of those in the files. Labels are int64 where all are whole numbers, else float64 or
        text; groups may be any text.
    skip_bad : bool or mapping, default=False
        Go on without faulty files. So that the rows are settled before the first is used, True
        reads every file whole now, in bounded memory, and leaves out a file whose label, or any of
        whose values, is damaged, missing or no finite number. A mapping says what will be used, as
        `ActivationSet.prefetch` takes it; that is read now and kept, and only faults there count:
        ``skip_bad={"layers": [12], "labels": True}``.

    Returns
    -------
    ActivationSet
        Labels and shapes are read now, activations when they are first used. `left_out` names the
        files that `skip_bad` left out, and so does the provenance of a dataset made of the set.

    Raises
    ------
    FaultyFilesError
        If files are broken or disagree with most others; it names them. With `skip_bad`, if no
        file is sound. Damage to activations, and values that are no finite numbers, are errors on
        first use.
    FileFormatError
        If a CSV lacks a sentence; the message names it.
    DataError
        If the folder holds no sentence files; on first use, if the rows do not fit in memory.

    Warns
    -----
    SklprepWarning
        If the hidden states of all layers would not fit in memory; if files are left out, with what
        is wrong with each.

    Examples
    --------
    >>> import tempfile, sklprep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = sklprep.make_activations(
    ...         12, n_layers=3, d_model=8, n_features=32, random_state=0, output=f"{folder}/demo"
    ...     )
    ...     acts = sklprep.load_activations(f"{folder}/demo")
    ...     acts.hidden_states.shape
    (12, 3, 8)
    """
    acts = open_activations(
        path,
        pooling=pooling,
        n_jobs=n_jobs,
        progress=progress,
        labels=labels,
        groups=groups,
        skip_bad=skip_bad is not False,
    )
    if acts.folder is not None:
        needed = acts.folder.bytes_of(embeddings=False, layers=len(acts.layers))
        if message := acts.folder.shortage(needed):
            warnings.warn(message, SklprepWarning, stacklevel=2)
    if skip_bad is False:
        return acts
    packed = acts.left_out if acts.folder is None else {}

    def use(acts: ActivationSet) -> None:
        if isinstance(skip_bad, Mapping):
            members = dict(skip_bad)
            if members.pop("labels", False):
                acts.labels  # noqa: B018
            acts.check_members(**members)
        else:
            acts.check()

    acts, _ = leave_out_faulty(acts, use)
    faults = {name: fault for name, fault in acts.left_out.items() if name not in packed}
    warn_left_out(acts.path, faults, acts.n_files)
    return acts


def open_activations(
    path: str | os.PathLike[str],
    *,
    pooling: str | None,
    n_jobs: int | None,
    progress: bool,
    labels: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
) -> ActivationSet:
    """Do what `load_activations` does, but for reading activations or asking for memory or warning.

    So `skip_bad` leaves out only files that are faulty before that.
    """
    source: Pack | SentenceFolder = (
        Pack(path, pooling=pooling)
        if is_pack(path)
        else SentenceFolder(
            path,
            pooling=pooling or "final",
            n_jobs=n_jobs,
            progress=progress,
            skip_bad=skip_bad,
        )
    )
    joined: dict[str, NDArray[Any]] = {}
    if labels is not None:
        joined["labels"] = read_labels(labels, source.sentence_indices)
    if groups is not None:
        joined["groups"] = read_groups(groups, source.sentence_indices)
    return ActivationSet(source, joined=joined)


def check_feature_exists(feature: int, n_features: int) -> None:
    """Raise `FeatureNotFoundError` unless the feature index lies within the SAE."""
    if not 0 <= feature < n_features:
        raise FeatureNotFoundError(
            f"Feature index must be 0-{n_features - 1}, got {feature}: the SAE has"
            f" {n_features:,} features."
        )


class ArraySource:
    """Rows that are in memory already."""

    name = "arrays"
    place = None
    stored_dtype = "<f4"
    left_out: Mapping[str, FileFormatError] = {}

    def __init__(
        self,
        hidden_states: Any,
        embeddings: Any,
        activations: Any,
        *,
        labels: Any,
        layers: Any,
        sae_layers: Any,
        average_l0s: Any,
        sentences: Any,
        groups: Any,
        pooling: str | None = None,
        sentence_indices: NDArray[np.int64] | None = None,
    ) -> None:
        self.is_pooled = pooling is not None
        self.pooling = pooling or "final"
        self._sentence_indices = sentence_indices
        self._embeddings = _as_float32(embeddings, "embeddings", 2)
        self._configs = _as_configs(activations)
        self._labels = None if labels is None else to_numpy(labels, "labels")
        self._sentences = None if sentences is None else np.asarray(sentences, dtype=np.str_)
        given_groups = None if groups is None else to_numpy(groups, "groups")
        layers = None if layers is None else to_numpy(layers, "layers")
        rows = [self._embeddings, *self._configs, self._labels, self._sentences, given_groups]
        hidden_states = _stack_layers(hidden_states, layers, [v for v in rows if v is not None])
        self._hidden_states = _as_float32(hidden_states, "hidden_states", 3)
        given = {
            "hidden_states": self._hidden_states,
            "embeddings": self._embeddings,
            "activations": self._configs[0] if self._configs else None,
            "labels": self._labels,
            "sentences": self._sentences,
            "groups": given_groups,
        }
        for name in ("labels", "sentences", "groups"):
            values = given[name]
            if values is not None and values.ndim != 1:
                raise UsageError(f"{name} must be one-dimensional, got shape {values.shape}.")
        lengths = {name: v.shape[0] for name, v in given.items() if v is not None}
        if not set(lengths) & {"hidden_states", "embeddings", "activations"}:
            raise UsageError("Give hidden_states, embeddings or activations.")
        if len(set(lengths.values())) > 1:
            raise UsageError(
                "The arrays must have equally many rows, got "
                + ", ".join(f"{n} of {name}" for name, n in lengths.items())
            )
        self.n_rows = next(iter(lengths.values()))
        n_layers = 0 if self._hidden_states is None else self._hidden_states.shape[1]
        numbers = _numbers(layers, "layers", n_layers, np.arange(n_layers))
        self.layers, self._positions = np.unique(numbers, return_index=True)
        n_configs = len(self._configs)
        self.sae_layers = _numbers(
            sae_layers,
            "sae_layers",
            n_configs,
            numbers if n_configs == n_layers else np.arange(n_configs),
        )
        self.average_l0s = (
            np.array(
                [round(config.nnz / max(1, self.n_rows)) for config in self._configs], np.int64
            )
            if average_l0s is None
            else to_numpy(average_l0s, "average_l0s")
        )
        if self.average_l0s.shape != (n_configs,):
            raise UsageError(
                f"average_l0s must have shape ({n_configs},), got {self.average_l0s.shape}."
            )
        if self.average_l0s.dtype.kind not in "iuf" or not np.isfinite(self.average_l0s).all():
            raise UsageError(f"average_l0s must be finite numbers, got {self.average_l0s}.")
        self.d_embed = None if self._embeddings is None else self._embeddings.shape[1]
        self.d_model = None if self._hidden_states is None else self._hidden_states.shape[2]
        self.n_features = self._configs[0].shape[1] if self._configs else None
        if given["groups"] is not None:
            self.groups = np.unique(given["groups"], return_inverse=True)[1].reshape(-1)
        elif self._sentences is not None:
            _, first, inverse = np.unique(self._sentences, return_index=True, return_inverse=True)
            self.groups = np.argsort(np.argsort(first))[inverse.reshape(-1)]
        else:
            self.groups = np.arange(self.n_rows)

    @property
    def labels(self) -> NDArray[Any]:
        if self._labels is None:
            raise DataError("This set has no labels; give them to ActivationSet.from_arrays.")
        return self._labels

    @property
    def sentences(self) -> NDArray[np.str_] | None:
        return self._sentences

    @property
    def sentence_indices(self) -> NDArray[np.int64]:
        return self.groups if self._sentence_indices is None else self._sentence_indices

    @property
    def fingerprint(self) -> str:
        return self._digest()

    @property
    def key(self) -> str:
        """What tells these arrays from others, without reading all of them."""
        return self._digest(sampled=64)

    def _digest(self, sampled: int | None = None) -> str:
        digest = hashlib.sha256()
        arrays = [self._hidden_states, self._embeddings, self._labels, self._sentences]
        arrays += [] if self._sentence_indices is None else [self._sentence_indices]
        for config in self._configs:
            arrays += [config.indptr, config.indices, config.data]
        for values in [*arrays, self.layers, self.sae_layers, self.average_l0s, self.groups]:
            if values is None or values.dtype.hasobject:
                digest.update(repr(values).encode())
            else:
                digest.update(f"{values.dtype.str}{values.shape}".encode())
                for row in values[:: 1 if sampled is None else len(values) // sampled + 1]:
                    digest.update(row.tobytes())
        return digest.hexdigest()

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        pooled = self.pooling != "none"
        return np.ones(self.n_rows, bool) if pooled else is_last_of_each(self.sentence_indices)

    def names_of_rows(self) -> list[str]:
        return [""] * self.n_rows

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        assert self._embeddings is not None
        return self._embeddings if rows is None else self._embeddings[rows]

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        assert self._hidden_states is not None
        position = self._positions[np.searchsorted(self.layers, layer)]
        return self._hidden_states[slice(None) if rows is None else rows, position]

    def config(self, config: int, rows: NDArray[np.int64] | None = None) -> csr_array:
        return self._configs[config] if rows is None else self._configs[config][rows]

    def require(self, member: str) -> None:
        raise DataError(f"This set has no {member}; give them to ActivationSet.from_arrays.")

    def describe_row(self, row: int) -> str:
        return f"Row {row} of the arrays"

    def without(self, faults: Mapping[str, FileFormatError]) -> Self:
        if faults:
            raise UsageError("Rows of arrays come from no files; leave them out by index.")
        return self

    def read(self, **_: Any) -> None:
        """Nothing to do: everything is in memory."""


def _stack_layers(values: Any, layers: NDArray[Any] | None, others: Sequence[Any]) -> Any:
    """Stack a list of one array a layer; a list that could be read otherwise is refused."""
    if not isinstance(values, list | tuple) or not values or not all(map(is_array, values)):
        return values
    arrays = [to_numpy(value, "hidden_states") for value in values]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1 or len(shapes[0]) != 2:
        raise UsageError(
            "A list of hidden_states must hold arrays of one shape (n_rows, d_model), one a layer,"
            f" got {len(arrays)} of {', '.join(map(str, shapes))}."
        )

    def fits(n_rows: int, n_layers: int) -> bool:
        return (layers is None or layers.shape == (n_layers,)) and all(
            other.shape[:1] == (n_rows,) for other in others
        )

    by_layer, by_row = fits(shapes[0][0], len(arrays)), fits(len(arrays), shapes[0][0])
    if by_layer and by_row:
        raise UsageError(
            f"hidden_states is a list of {len(arrays)} arrays of shape {shapes[0]}, which may be"
            " one a layer or one a row. Give np.stack(arrays, axis=1) for layers, np.stack(arrays)"
            " for rows, or also labels or layers of another length."
        )
    return np.stack(arrays, axis=0 if by_row else 1)


def _as_float32(values: Any, name: str, ndim: int) -> NDArray[np.float32] | None:
    if values is None:
        return None
    array = to_numpy(values, name)
    if array.ndim != ndim or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise UsageError(
            f"{name} must be a non-empty numeric array of {ndim} dimensions, got {array.dtype} of"
            f" shape {array.shape}."
        )
    return array.astype(np.float32, copy=False)


def _as_configs(activations: Any) -> list[Any]:
    if activations is None:
        return []
    from scipy.sparse import csr_array, issparse

    if issparse(activations):
        raise UsageError("activations must be a sequence of sparse matrices, one a SAE config.")
    if not isinstance(activations, list | tuple):
        dense = to_numpy(activations, "activations")
        if dense.ndim != 3:
            raise UsageError(
                "activations must have shape (n_rows, n_configs, n_features), got"
                f" {dense.shape}; or give a list of matrices, one a SAE config."
            )
        activations = [dense[:, config] for config in range(dense.shape[1])]
    matrices: list[Any] = [m if issparse(m) else to_numpy(m, "activations") for m in activations]
    for matrix in matrices:
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or 0 in matrix.shape:
            raise UsageError(
                "activations must be non-empty numeric matrices, got one of shape"
                f" {matrix.shape} of {matrix.dtype}."
            )
    configs = [_canonical(csr_array(matrix, dtype=np.float32)) for matrix in matrices]
    if len({config.shape for config in configs}) > 1:
        raise UsageError(
            f"activations must have one shape, got {sorted({c.shape for c in configs})}."
        )
    return configs


def _canonical(matrix: csr_array) -> csr_array:
    """One form of equal values, whatever collector stored them; the caller's arrays stay."""
    if not matrix.has_canonical_format or not matrix.data.all():
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    if matrix.nnz <= np.iinfo(np.int32).max:
        matrix.indices = matrix.indices.astype(np.int32, copy=False)
        matrix.indptr = matrix.indptr.astype(np.int32, copy=False)
    return matrix


def _numbers(values: Any, name: str, n: int, default: NDArray[np.int64]) -> NDArray[np.int64]:
    if values is None:
        return default
    array = to_numpy(values, name)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        raise UsageError(
            f"{name} must be {n} integers, one for each position of its array, got {array.dtype}"
            f" of shape {array.shape}."
        )
    return array.astype(np.int64)
