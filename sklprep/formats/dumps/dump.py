"""What an importer makes of a dump: where the vectors of each layer lie, and what the rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, slots=True)
class Reading:
    """How a dump of another tool is to be read.

    Parameters
    ----------
    format : str or None
        Name of the importer; None to find it by content.
    key : str or None
        Name of the arrays, with ``{layer}`` for the number of the layer; or of one array of all
        layers, perhaps with their numbers in brackets. None for the names that tools use.
    layer_offset : int
        What is added to the numbers in the dump.
    """

    format: str | None = None
    key: str | None = None
    layer_offset: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be opened, and how.

    Parameters
    ----------
    path : Path
        A file or a folder.
    reading : Reading
    pooling : str or None
    skip_bad : bool
    """

    path: Path
    reading: Reading = Reading()
    pooling: str | None = None
    skip_bad: bool = False


class StoredArray(Protocol):
    """An array in a file; nothing of it is in memory."""

    @property
    def path(self) -> Path: ...
    @property
    def name(self) -> str | None: ...
    @property
    def dtype(self) -> str:
        """As numpy writes it, or ``"bfloat16"``."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    def read_vectors(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Read vectors along the last axis, by their positions in C order: (n, width)."""

    def read_all(self) -> NDArray[Any]:
        """Read all of a small array."""


class StoredMatrix(Protocol):
    """SAE features of the tokens of one part, sparse."""

    def read_rows(self, tokens: NDArray[np.int64]) -> csr_array:
        """Features of some tokens: (n, n_features) float32."""


class Channel(NamedTuple):
    """The vectors of one layer within an array that may hold several.

    The vector of token `t` is at ``t // inner * inner * n + position * inner + t % inner``: of
    (tokens, layers, width) `inner` is 1, of (layers, tokens, width) the number of tokens.
    """

    array: StoredArray
    n: int = 1
    position: int = 0
    inner: int = 1

    def read(self, tokens: NDArray[np.int64]) -> NDArray[Any]:
        """Read the vectors of some tokens."""
        outer = tokens // self.inner * (self.inner * self.n)
        return self.array.read_vectors(outer + self.position * self.inner + tokens % self.inner)


@dataclass(frozen=True, slots=True)
class Sae:
    """SAE features of one config, a matrix a part."""

    layer: int
    average_l0: float
    n_features: int
    dtype: str
    parts: Sequence[StoredMatrix]


@dataclass(frozen=True, slots=True)
class Sentences:
    """What is known of the sentences of a dump, one entry each; None for what is not.

    Attributes
    ----------
    labels, groups : ndarray or None
    texts : ndarray of str, or None
    indices : ndarray of int64, or None
    file_names : ndarray of str, or None
        Where a file holds one sentence.
    is_final_token : ndarray of bool, or None
        Where the rows of a dump are tokens, which they were made before it was written.
    """

    labels: NDArray[Any] | None = None
    groups: NDArray[Any] | None = None
    texts: NDArray[np.str_] | None = None
    indices: NDArray[np.int64] | None = None
    file_names: NDArray[np.str_] | None = None
    is_final_token: NDArray[np.bool_] | None = None

    def take(self, keep: NDArray[np.int64]) -> Sentences:
        """Keep some of them."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return Sentences(**{n: None if v is None else v[keep] for n, v in values.items()})


class Tokens(NamedTuple):
    """Where the real tokens of each sentence stand among the vectors of its part.

    Attributes
    ----------
    positions : ndarray of shape (n_tokens,)
        Sentence by sentence.
    offsets : ndarray of shape (n_sentences + 1,)
        Where the tokens of each sentence begin and end.
    part_of_sentence : ndarray of shape (n_sentences,)
    """

    positions: NDArray[np.int64]
    offsets: NDArray[np.int64]
    part_of_sentence: NDArray[np.int64]

    @classmethod
    def of_rows(cls, counts: Sequence[int]) -> Tokens:
        """One token a sentence, so many sentences a part."""
        parts = np.repeat(np.arange(len(counts)), counts)
        positions = np.concatenate([np.arange(n) for n in counts]).astype(np.int64)
        return cls(positions, np.arange(len(parts) + 1), parts)

    def take(self, keep: NDArray[np.int64]) -> Tokens:
        """Keep some sentences."""
        starts, counts = self.offsets[keep], np.diff(self.offsets)[keep]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        places = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
        return Tokens(self.positions[places], offsets, self.part_of_sentence[keep])


@dataclass(frozen=True, slots=True)
class Dump:
    """A dump that was opened: nothing but headers and small arrays were read.

    Attributes
    ----------
    format, version : str
    path : Path
    mapping : str
        Which of its arrays became which layers, in words.
    files : list of Path
        What the fingerprint is of.
    tokens : Tokens
    has_tokens : bool
        Whether the dump holds the tokens of sentences; otherwise its rows were pooled before.
    pooling : str or None
        How they were pooled, where the dump says so.
    layers : dict of int to list of Channel
        One a part.
    embeddings : list of Channel, or None
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
    layers: Mapping[int, Sequence[Channel]] = field(default_factory=dict)
    embeddings: Sequence[Channel] | None = None
    saes: Sequence[Sae] = ()
    sentences: Sentences = Sentences()
    pooling: str | None = None
    left_out: Mapping[str, FileFormatError] = field(default_factory=dict)
