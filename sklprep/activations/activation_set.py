"""`ActivationSet`: rows of activations that scikit-learn can index, split and pass along as X."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.activations.array_source import ArraySource
from sklprep.activations.source import Source, blocks_of
from sklprep.exceptions import DataError, FaultyFilesError, FeatureNotFoundError, FileFormatError
from sklprep.files.atomic import require_new_folder
from sklprep.files.faults import brief, faulty_files, not_finite
from sklprep.formats.layers import check_layers_exist, format_layers
from sklprep.formats.members import Block
from sklprep.formats.pack_writer import build_pack, write_pack
from sklprep.formats.sentence_folder import SentenceFolder
from sklprep.formats.sentence_writer import export_sentences
from sklprep.notebook.cards import card, describe_y, table

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BLOCK_ROWS = 256
_SHOWN_SENTENCES = 5


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
        source: Source,
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
                + (" was chosen. Give average_l0=..., one of these." if average_l0 is None else "")
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
            yield blocks_of(source, rows[start:stop])

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
            require_new_folder(path)
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

    def read_from(self, source: Source) -> ActivationSet:
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


def check_feature_exists(feature: int, n_features: int) -> None:
    """Raise `FeatureNotFoundError` unless the feature index lies within the SAE."""
    if not 0 <= feature < n_features:
        raise FeatureNotFoundError(
            f"Feature index must be 0-{n_features - 1}, got {feature}: the SAE has"
            f" {n_features:,} features."
        )
