"""`ActivationSet`: rows of activations that scikit-learn can index, split and pass along as X."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.activations.array_source import ArraySource
from sklprep.activations.facts import SetFacts, gather_facts
from sklprep.activations.joined_source import JoinedSource
from sklprep.exceptions import FeatureNotFoundError, FileFormatError, UsageError
from sklprep.files.atomic import require_new_folder
from sklprep.formats.dumps.safetensors_writer import write_safetensors
from sklprep.formats.layers import format_layers
from sklprep.formats.members import Members
from sklprep.formats.pack_writer import build_pack, write_pack
from sklprep.formats.rows import Rows
from sklprep.formats.sentence_writer import export_sentences
from sklprep.formats.source import all_members
from sklprep.notebook.cards import card, table
from sklprep.notebook.words import format_y

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_SHOWN_SENTENCES = 5  # enough to recognize a dataset on a short card


class ActivationSet:
    """Rows of embeddings, hidden states and SAE features, read when they are first needed.

    A set is passed to scikit-learn as ``X``: it has a length, a ``shape`` of ``(n_rows,)``, and
    indexing by integer array, boolean mask or slice returns a view (same source, fewer rows). A
    pipeline starts with `LayerSelector` or `SAEFeatureSelector`, which turns it into a matrix.

    Create one with `load_activations`, `from_hidden_states`, `ActivationSet.from_arrays` or
    `make_activations`.

    Attributes
    ----------
    shape : tuple
        ``(n_rows,)``.
    embeddings : ndarray of shape (n_rows, d_embed), float32
    hidden_states : ndarray of shape (n_rows, n_layers, d_model), float32
        Second axis in the order of `layers`.
    activations : tuple of csr_array of shape (n_rows, n_features), float32
        One per SAE config, in the order of `sae_layers`.
    labels : ndarray of shape (n_rows,)
        Concept labels; from sentence files they are int64, 0 to 3.
    sentences : ndarray of str of shape (n_rows,), or None
        Text of the sentence of each row.
    sentence_indices : ndarray of shape (n_rows,), int64
        Index of the sentence of each row.
    sources : ndarray of str of shape (n_rows,), or None
        Name of the set of each row, for sets that `concatenate` joined.
    groups : ndarray of shape (n_rows,), int64
        Rows that must stay on one side of every split: by default those of one sentence, or of
        sentences with the same text.
    layers : ndarray of shape (n_layers,), int64
        Distinct layer numbers, ascending.
    sae_layers, average_l0s : ndarray of shape (n_configs,)
        Layer, and mean number of active features, of each SAE config, in file order.
    pooling : str
        How tokens became rows: ``"final"``, ``"mean"``, ``"max"`` or ``"none"``.
    name : str
        Base name of the folder, or ``"arrays"``.
    left_out : dict of str to FileFormatError
        Files of the folder that were left out, by name, and why.
    fingerprint : str
        SHA-256 of the content, including joined labels and groups and the selection of rows. It
        does not depend on location or time.

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

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

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
        n_features: int | None = None,
    ) -> Self:
        """Create a set from arrays of any tool.

        Each array may be any object with ``__array__`` or ``__dlpack__``, such as a torch tensor on
        the CPU. Gradients are dropped; bfloat16 and float16 become float32, which is exact.

        Parameters
        ----------
        hidden_states : array-like of shape (n_rows, n_layers, d_model), or a list of n_layers \
arrays of shape (n_rows, d_model)
            Rounded to float32; a float32 array is not copied. A list could also hold one array per
            row, so `labels`, `layers` or other arrays must determine which it is.
        embeddings : array-like of shape (n_rows, d_embed)
        activations : array-like of shape (n_rows, n_configs, n_features), or a sequence of \
n_configs sparse or dense matrices of shape (n_rows, n_features)
            With `n_features`, the pair (values, indices) of a top-k SAE, each of shape (n_rows, k),
            or a list of such pairs.
        labels : array-like of shape (n_rows,)
            Any labels.
        layers : array-like of shape (n_layers,), default=0..n_layers-1
            Layer numbers of `hidden_states`; of repeated numbers, the first position is used.
        sae_layers : array-like of shape (n_configs,), default=`layers`
        average_l0s : array-like of shape (n_configs,), default=mean number of active features
        sentences : sequence of str of length n_rows
        groups : array-like of shape (n_rows,)
            Rows that belong together. By default those with the same text if `sentences` are given,
            otherwise each row is a separate group.
        n_features : int, default=None
            Width of a top-k SAE, for which `activations` hold only the largest values.

        Returns
        -------
        ActivationSet

        Raises
        ------
        UsageError
            If the arrays do not fit together, are on a GPU, or do not hold numbers.
        """
        source = ArraySource(
            hidden_states,
            embeddings,
            activations,
            labels=labels,
            layers=layers,
            sae_layers=sae_layers,
            average_l0s=average_l0s,
            sentences=sentences,
            groups=groups,
            n_features=n_features,
        )
        return cls(Rows(source))

    @classmethod
    def concatenate(cls, sets: Mapping[str, ActivationSet]) -> Self:
        """Concatenate the rows of several sets, each of which is still read in place.

        Parameters
        ----------
        sets : mapping of str to ActivationSet
            Sets of one model with the same pooling. The names become `sources`.

        Returns
        -------
        ActivationSet
            `groups` of different sets are distinct, unless they share a text. Labels, sentences and
            sentence indices are those of each set.

        Raises
        ------
        UsageError
            If there are no sets, or they differ in layers, widths, SAEs or pooling.

        Examples
        --------
        >>> import numpy as np
        >>> from sklprep import ActivationSet
        >>> both = ActivationSet.concatenate(
        ...     {
        ...         name: ActivationSet.from_arrays(
        ...             hidden_states=np.ones((2, 1, 3)), labels=[0, 1], sentences=["same", name]
        ...         )
        ...         for name in ("honest", "devious")
        ...     }
        ... )
        >>> both.sources
        array(['honest', 'honest', 'devious', 'devious'], dtype='<U7')
        >>> both.groups
        array([0, 1, 0, 2])
        """
        if not isinstance(sets, Mapping):
            raise UsageError(
                f"sets is a {type(sets).__name__}; expected a mapping of names to sets, such as"
                " {'honest': acts, 'devious': others}."
            )
        for name, acts in sets.items():
            if not isinstance(acts, ActivationSet):
                raise UsageError(
                    f"sets[{name!r}] is a {type(acts).__name__}; expected an ActivationSet."
                )
        return cls(Rows(JoinedSource({str(name): acts.rows for name, acts in sets.items()})))

    def __len__(self) -> int:
        return len(self.rows)

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
        return ActivationSet(self.rows.take(key))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        raise TypeError(
            "An ActivationSet is not a matrix: start the pipeline with sklprep.LayerSelector(), for"
            " example make_pipeline(LayerSelector(12), ActivationNormalizer(),"
            " LogisticRegression()). Meta-estimators that need the matrix itself"
            " (BaggingClassifier, AdaBoostClassifier, OneVsOneClassifier, ClassifierChain, RFE,"
            " stacking with passthrough) go after the selector: make_pipeline(LayerSelector(12),"
            " BaggingClassifier(LogisticRegression())); permutation_importance takes pipe[1:] and"
            " pipe[:1].transform(acts)."
        )

    def __repr__(self) -> str:
        facts = gather_facts(self.rows)
        parts = [f"{facts.n_rows:,} rows"]
        if facts.d_model is not None:
            parts.append(f"layers {format_layers(facts.layers)}, d_model {facts.d_model}")
        if facts.d_embed is not None:
            parts.append(f"embeddings {facts.d_embed}")
        if facts.n_features is not None:
            parts.append(f"{len(facts.saes)} SAE configs of {facts.n_features} features")
        if facts.pooling != "final":
            parts.append(f"pooling {facts.pooling}")
        origin = f"; {facts.mapping}" if facts.mapping else ""
        return f"ActivationSet({', '.join(parts)}{origin})"

    def _repr_html_(self) -> str:
        """Return a summary for notebooks; activations are not read for it."""
        return _card_of(gather_facts(self.rows))

    @property
    def name(self) -> str:
        return self.rows.source.name

    @property
    def pooling(self) -> str:
        return self.rows.source.pooling

    @property
    def fingerprint(self) -> str:
        return self.rows.fingerprint

    @property
    def layers(self) -> NDArray[np.int64]:
        return self.rows.source.layers.copy()

    @property
    def sae_layers(self) -> NDArray[np.int64]:
        return self.rows.source.sae_layers.copy()

    @property
    def average_l0s(self) -> NDArray[Any]:
        return self.rows.source.average_l0s.copy()

    @property
    def d_embed(self) -> int:
        """Width of the embeddings; raises `DataError` if there are none."""
        return self._require("embeddings", self.rows.source.d_embed)

    @property
    def d_model(self) -> int:
        """Width of the hidden states of a layer; raises `DataError` if there are none."""
        return self._require("hidden_states", self.rows.source.d_model)

    @property
    def n_sae_features(self) -> int:
        """Number of features of each SAE; 0 if there are none."""
        return self.rows.source.n_features or 0

    @property
    def labels(self) -> NDArray[Any]:
        return self.rows.labels.copy()

    @property
    def groups(self) -> NDArray[np.int64]:
        return self.rows.split_groups.copy()

    @property
    def sentence_indices(self) -> NDArray[np.int64]:
        return self.rows.sentence_indices.copy()

    @property
    def sentences(self) -> NDArray[np.str_] | None:
        sentences = self.rows.sentences
        return None if sentences is None else sentences.copy()

    @property
    def left_out(self) -> dict[str, FileFormatError]:
        return dict(self.rows.source.left_out)

    @property
    def sources(self) -> NDArray[np.str_] | None:
        """Name of the set of each row, of shape (n_rows,); None unless sets were concatenated."""
        source = self.rows.source
        if not isinstance(source, JoinedSource):
            return None
        positions = slice(None) if self.rows.positions is None else self.rows.positions
        return source.sources[positions]

    @property
    def embeddings(self) -> NDArray[np.float32]:
        return _read_only(self.rows.embeddings())

    @property
    def hidden_states(self) -> NDArray[np.float32]:
        self._require("hidden_states", self.rows.source.d_model)
        layers = self.rows.source.layers.tolist()
        return np.stack([self.rows.layer(layer) for layer in layers], axis=1)

    @property
    def activations(self) -> tuple[csr_array, ...]:
        configs = range(len(self.rows.source.sae_layers))
        return tuple(self.rows.config(config).copy() for config in configs)

    def layer(self, layer: int) -> NDArray[np.float32]:
        """Return the hidden states of one layer, (n_rows, d_model) float32, read-only.

        Raises
        ------
        LayerNotFoundError
            If the data do not have this layer.
        DataError
            If a value is NaN or infinite; the message names the files.
        """
        return _read_only(self.rows.layer(layer))

    def sae_activations(self, layer: int, average_l0: float | None = None) -> csr_array:
        """Return the SAE features of one config, (n_rows, n_features) float32 in CSR format.

        Parameters
        ----------
        layer : int
            Layer of the SAE.
        average_l0 : float or None, default=None
            Needed only if the layer has several SAE configs.

        Raises
        ------
        LayerNotFoundError, FeatureNotFoundError
            If the data do not have this config, or have several and none was chosen.
        DataError
            If a value is NaN or infinite; the message names the file.
        """
        return self.rows.config(self.rows.find_config(layer, average_l0)).copy()

    def feature(
        self, layer: int, feature: int | Sequence[int], average_l0: float | None = None
    ) -> NDArray[np.float32]:
        """Return one SAE feature, (n_rows,), or several, (n_rows, n), as float32.

        Raises
        ------
        LayerNotFoundError, FeatureNotFoundError
            If the data do not have this feature.
        DataError
            If a value is NaN or infinite; the message names the file.
        """
        config = self.rows.find_config(layer, average_l0)
        for one in np.atleast_1d(feature).tolist():
            check_feature_exists(one, self.n_sae_features)
        return self.rows.feature(config, feature)

    def prefetch(
        self,
        *,
        embeddings: bool = False,
        layers: Iterable[int] = (),
        configs: Iterable[int] = (),
    ) -> Self:
        """Read only these members now, in one pass over the files, and keep them in memory.

        Otherwise the first use of one layer of sentence files reads all layers. `configs` are
        positions in `sae_layers`. Returns the set itself.
        """
        self.rows.source.read(Members(embeddings, tuple(layers), tuple(configs)))
        return self

    def unread(self) -> ActivationSet:
        """Return the same rows without values that were read from files."""
        return ActivationSet(self.rows.read_from(self.rows.source.unread()))

    def to_pack(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as a pack: plain arrays that `load_activations` reads in place.

        The pack has the same rows, `groups` and `fingerprint`, so datasets made from it are equal.
        For all rows of a folder of sentence files, it equals the result of ``sklprep pack``.

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
        folder = self.rows.folder
        if folder is None or self.rows.joined:
            write_pack(self.rows, path)
        else:
            require_new_folder(path)
            build_pack(folder, path)

    def to_safetensors(self, path: str | os.PathLike[str]) -> None:
        """Write the rows as one safetensors file, which `load_activations` reads.

        It holds ``layer_12`` of shape (n_rows, d_model) for each layer, ``embeddings``, ``labels``,
        ``groups``, ``sentence_indices``, and for each SAE config the arrays of a sparse matrix,
        ``activations.0.data``, ``.indices`` and ``.indptr``. The metadata hold ``sentences`` as
        JSON, labels that are text, `pooling`, and a description of the SAEs. Groups are renumbered
        from 0. float16 is kept if there are no SAE features.

        Parameters
        ----------
        path : path-like
            The file, which appears when it is complete.

        Raises
        ------
        OutputError
            If the file cannot be written.
        UsageError
            If the sentences are too long for a header, or labels are neither numbers nor text.
        FileFormatError
            If a file that the rows are read from is damaged.

        Examples
        --------
        >>> import tempfile, sklprep
        >>> acts = sklprep.make_activations(12, n_layers=3, n_features=32, random_state=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     acts.to_safetensors(f"{folder}/acts.safetensors")
        ...     read = sklprep.load_activations(f"{folder}/acts.safetensors")
        ...     bool((read.hidden_states == acts.hidden_states).all()), len(read.sae_layers)
        (True, 3)
        """
        write_safetensors(self.rows, path)

    def to_sentence_files(self, path: str | os.PathLike[str]) -> None:
        """Write a folder of sentence files, which `load_activations` reads.

        Each row becomes a file with one token, its final one; with pooling ``"none"`` the rows of a
        sentence become one file, in which the final token is marked. Groups are renumbered from 0,
        and the pooling of pooled rows is not stored.

        Parameters
        ----------
        path : path-like
            A folder that does not exist yet, or is empty. It appears when it is complete.

        Raises
        ------
        OutputError
            If there is something at `path`, or it cannot be written.
        DataError
            If sentence files cannot represent the rows: labels that are missing or not 0, 1, 2 or
            3, groups of several sentences, a sentence whose rows are not adjacent or without its
            final token, a layer with hidden states but no SAE features. `to_pack` writes any rows.
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
        export_sentences(self.rows, path)

    def without(self, faults: Mapping[str, FileFormatError]) -> ActivationSet:
        """Leave out the sentences of some files, for example those that an error names.

        Parameters
        ----------
        faults : mapping of str to FileFormatError
            By the name of the file, such as `FaultyFilesError.faults`.

        Returns
        -------
        ActivationSet
            The other rows. `left_out`, and the provenance of datasets, list these files too.

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
        return ActivationSet(self.rows.without(faults))

    def check(self) -> None:
        """Read all values once, in bounded memory, and raise an error if any cannot be used.

        Raises
        ------
        FaultyFilesError
            If files are damaged, have NaN or infinite values, or lack a label that others have; the
            error names all of them.
        """
        rows = self.rows
        faults = rows.find_label_faults() | rows.find_faults(all_members(rows.source))
        if faults:
            raise rows.faulty(faults)

    def _require(self, member: str, width: int | None) -> int:
        if width is None:
            self.rows.source.require(member)
        return width or 0


def _read_only(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a read-only view, so that callers cannot change the values of the set."""
    view = values.view()
    view.flags.writeable = False
    return view


def check_feature_exists(feature: int, n_features: int) -> None:
    """Raise `FeatureNotFoundError` unless the SAE has this feature."""
    if not 0 <= feature < n_features:
        raise FeatureNotFoundError(
            f"Feature index must be 0-{n_features - 1}, got {feature}: the SAE has"
            f" {n_features:,} features."
        )


def _card_of(facts: SetFacts) -> str:
    rows = [("rows", f"{facts.n_rows:,}, pooling {facts.pooling}")]
    if facts.d_model is not None:
        layers = format_layers(facts.layers)
        rows.append(("hidden states", f"layers {layers}, {facts.d_model:,} wide"))
    if facts.mapping:
        rows.append(("read from", facts.mapping))
    if facts.d_embed is not None:
        rows.append(("embeddings", f"{facts.d_embed:,} wide"))
    if facts.n_features is not None:
        n, average_l0s = len(facts.saes), [average_l0 for _, average_l0 in facts.saes]
        low, high = min(average_l0s), max(average_l0s)
        sparsity = f"average_l0 {low:g}" + (f" to {high:g}" if high > low else "")
        rows.append(
            ("SAE features", f"{n} SAE{'s' if n > 1 else ''} of {facts.n_features:,}, {sparsity}")
        )
    labels = f"none: {facts.labels_fault}" if facts.labels is None else format_y(facts.labels)
    rows.append(("labels", labels))
    if facts.n_groups < facts.n_rows:
        rows.append(("groups", f"{facts.n_groups:,}, to be kept whole in splits: acts.groups"))
    if facts.left_out:
        rows.append(("left out", f"{len(facts.left_out):,} files (first: {min(facts.left_out)})"))
    details = []
    if facts.first_sentences:
        details.append(("first sentences", table([], facts.first_sentences)))
    return card("ActivationSet", facts.name, rows, details=details)
