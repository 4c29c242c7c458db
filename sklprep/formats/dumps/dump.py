"""The result of an importer: where the vectors of each layer are stored, and what rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.files.raw_array import BFLOAT16

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, slots=True)
class Reading:
    """Options for reading a dump of another tool.

    Parameters
    ----------
    format : str or None
        Name of the importer; None to recognize it by content.
    key : str or None
        Name of the arrays, with ``{layer}`` for the number of the layer; or of one array of all
        layers, optionally with their numbers in brackets. None for the names that tools use.
    layer_offset : int
        Number to add to the layer numbers in the dump.
    """

    format: str | None = None
    key: str | None = None
    layer_offset: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A path to open, and how to read it.

    Parameters
    ----------
    path : Path
        A file or a folder.
    reading : Reading
    pooling : str or None
        What becomes a row; None for the default.
    skip_bad : bool
        Whether faulty files are left out.
    """

    path: Path
    reading: Reading = Reading()
    pooling: str | None = None
    skip_bad: bool = False


class Vectors(Protocol):
    """Vectors of one width, read from disk by position."""

    @property
    def width(self) -> int: ...
    @property
    def dtype(self) -> str:
        """Name of the dtype as numpy writes it, or ``"bfloat16"``."""

    def read(self, positions: NDArray[np.int64], /) -> NDArray[Any]:
        """Read vectors by their positions; the result has shape (n, width)."""


class StoredArray(Vectors, Protocol):
    """An array in a file, whose vectors along the last axis are numbered in C order."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def n_vectors(self) -> int: ...
    def read_all(self) -> NDArray[Any]:
        """Read a small array completely."""


class Features(Protocol):
    """Sparse SAE features of tokens, read from disk by position."""

    def read(self, positions: NDArray[np.int64], /) -> csr_array:
        """Read the features of some tokens: (n, n_features) float32."""


@dataclass(frozen=True, slots=True)
class Channel:
    """The vectors of one layer within those of several.

    The vector of token `t` is at ``t // inner * inner * n + position * inner + t % inner``: `inner`
    is 1 for (tokens, layers, width), and the number of tokens for (layers, tokens, width).
    """

    vectors: Vectors
    n: int = 1
    position: int = 0
    inner: int = 1

    @property
    def width(self) -> int:
        """Length of a vector."""
        return self.vectors.width

    @property
    def dtype(self) -> str:
        """Dtype of the values."""
        return self.vectors.dtype

    def read(self, tokens: NDArray[np.int64], /) -> NDArray[Any]:
        """Read the vectors of some tokens."""
        outer = tokens // self.inner * (self.inner * self.n)
        return self.vectors.read(outer + self.position * self.inner + tokens % self.inner)


class Chain:
    """Vectors, or features, of several files, concatenated.

    Parameters
    ----------
    parts : list of Vectors, or of Features
    lengths : list of int
        Number of vectors in each part.
    """

    def __init__(self, parts: Sequence[Any], lengths: Sequence[int]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *lengths[:-1]])
        widest = max((getattr(part, "dtype", "") for part in parts), key=_WIDER.index)
        self.dtype: str = widest
        self.width: int = parts[0].width

    def read(self, positions: NDArray[np.int64], /) -> Any:
        """Read by positions; each part is read once."""
        part_of = np.searchsorted(self._starts, positions, side="right") - 1
        order = np.argsort(part_of, kind="stable")
        cuts = np.flatnonzero(np.diff(part_of[order])) + 1
        found = [
            self._parts[part].read(positions[where] - self._starts[part])
            for where in np.split(order, cuts)
            for part in part_of[where[:1]].tolist()
        ]
        if len(found) == 1:
            return found[0]
        back = np.argsort(order, kind="stable")
        if found and hasattr(found[0], "indptr"):
            from scipy.sparse import csr_array, vstack

            return csr_array(vstack(found, format="csr"))[back]
        return np.concatenate(found)[back]


_WIDER = ("", "<f2", BFLOAT16, "<f4", "<f8")
"""Dtypes, each of which (except bfloat16) can hold the values of those before it."""


@dataclass(frozen=True, slots=True)
class Sae:
    """SAE features of one config."""

    layer: int
    average_l0: float
    n_features: int
    dtype: str
    features: Features


@dataclass(frozen=True, slots=True)
class Sentences:
    """What is known about the sentences of a dump, one entry for each; None for what is unknown.

    Attributes
    ----------
    labels, groups : ndarray or None
    texts : ndarray of str, or None
    indices : ndarray of int64, or None
    file_names : ndarray of str, or None
        Where each file holds one sentence.
    is_final_token : ndarray of bool, or None
        Where the rows of the dump are single tokens.
    """

    labels: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None
    texts: NDArray[np.str_] | None = None
    indices: NDArray[np.int64] | None = None
    file_names: NDArray[np.str_] | None = None
    is_final_token: NDArray[np.bool_] | None = None

    def take(self, keep: NDArray[np.int64]) -> Sentences:
        """Keep some of the sentences."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return Sentences(**{n: None if v is None else v[keep] for n, v in values.items()})


class Tokens(NamedTuple):
    """Positions of the real tokens of each sentence among the vectors of a layer.

    Attributes
    ----------
    positions : ndarray of shape (n_tokens,)
        Positions of tokens, sentence by sentence.
    offsets : ndarray of shape (n_sentences + 1,)
        Where the tokens of each sentence begin and end in `positions`.
    """

    positions: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of_lengths(cls, lengths: Sequence[int] | NDArray[np.int64]) -> Tokens:
        """Describe sentences that follow each other."""
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(np.arange(offsets[-1]), offsets)

    @classmethod
    def of_rows(cls, n: int) -> Tokens:
        """Describe sentences of one token each."""
        return cls(np.arange(n), np.arange(n + 1))

    def take(self, keep: NDArray[np.int64]) -> Tokens:
        """Keep some sentences."""
        starts, counts = self.offsets[keep], np.diff(self.offsets)[keep]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        places = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
        return Tokens(self.positions[places], offsets)


@dataclass(frozen=True, slots=True)
class Dump:
    """An open dump, of which only headers and small arrays were read.

    Attributes
    ----------
    format, version : str
    path : Path
    mapping : str
        Which of its arrays became which layers, in words.
    files : list of Path
        Files that the fingerprint covers.
    tokens : Tokens
    has_tokens : bool
        Whether the dump holds the tokens of sentences; otherwise its rows are already pooled.
    pooling : str or None
        How rows were pooled, if the dump says so.
    layers : dict of int to Vectors
    embeddings : Vectors or None
    saes : list of Sae
    sentences : Sentences
    left_out : dict of str to FileFormatError
    """

    format: str
    version: str
    path: Path
    mapping: str
    files: Sequence[Path]
    tokens: Tokens
    has_tokens: bool
    layers: Mapping[int, Vectors] = field(default_factory=dict)
    embeddings: Vectors | None = None
    saes: Sequence[Sae] = ()
    sentences: Sentences = Sentences()
    pooling: str | None = None
    left_out: Mapping[str, FileFormatError] = field(default_factory=dict)
