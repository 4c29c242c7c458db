"""The protocol of sources of rows, whether rows are in files, in a pack or in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.formats.members import Block, Members

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BLOCK_ROWS = 256
"""Rows of a block, 2 MB of a layer of width 2,304: little memory, and few iterations."""


class Source(Protocol):
    """Where the rows of an `ActivationSet` come from.

    Attributes
    ----------
    place : Path or None
        The path that errors name; None for arrays.
    d_embed, d_model, n_features : int or None
        Widths of embeddings, hidden states and SAE features; None for missing ones.
    mapping : str
        Which arrays of another tool became which layers; empty for sklprep's own formats.
    is_pooled : bool
        Whether `pooling` is known, not assumed.
    groups_are_sentences : bool
        Whether `groups` are single sentences, also where several have the same text.
    left_out : mapping of str to FileFormatError
        Files that were left out, by name, and why.
    """

    name: str
    mapping: str
    pooling: str
    is_pooled: bool
    layers: NDArray[np.int64]
    average_l0s: NDArray[Any]
    d_embed: int | None
    d_model: int | None
    n_features: int | None

    @property
    def groups_are_sentences(self) -> bool: ...
    @property
    def place(self) -> Path | None: ...
    @property
    def n_rows(self) -> int: ...
    @property
    def sae_layers(self) -> NDArray[np.int64]: ...
    @property
    def stored_dtype(self) -> str:
        """Dtype that can hold each value of the rows exactly."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def key(self) -> str:
        """Identifies the rows among those of other sources, without reading all of them."""

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether a row is the final token, or the pooled row, of its sentence."""

    @property
    def groups(self) -> NDArray[np.int64]: ...
    @property
    def labels(self) -> NDArray[Any]: ...
    @property
    def sentence_indices(self) -> NDArray[np.int64]: ...
    @property
    def sentences(self) -> NDArray[np.str_] | None: ...
    @property
    def file_names(self) -> NDArray[np.str_]:
        """Name of the file of each row; empty for rows that are not from a file of a sentence."""

    @property
    def left_out(self) -> Mapping[str, FileFormatError]: ...
    def describe_row(self, row: int) -> str:
        """Describe, for an error, where a row comes from."""

    def require(self, member: str) -> None:
        """Raise `DataError` unless the source has this member."""

    def embeddings(self, rows: NDArray[np.int64] | None = ...) -> NDArray[np.float32]: ...
    def layer(self, layer: int, rows: NDArray[np.int64] | None = ...) -> NDArray[np.float32]: ...
    def config(self, config: int, rows: NDArray[np.int64] | None = ...) -> csr_array: ...
    def read(self, members: Members) -> None:
        """Read members of all rows now and keep them, where reading them again would be slow."""

    def unread(self) -> Self:
        """Return the same source without values that were read."""

    def without(self, faults: Mapping[str, FileFormatError]) -> Self:
        """Return the same source without the rows of these files."""

    def blocks(
        self,
        rows: NDArray[np.int64] | None,
        members: Members,
        bounds: Sequence[int] | None = ...,
    ) -> Iterator[Iterable[Block]]:
        """Read members of some rows once, in bounded memory, some rows at a time.

        Each item has the blocks of all members for these rows. Values are not checked: they may be
        NaN or infinite. `bounds` are the positions in `rows` at which items begin, from 0 to the
        number of rows; None leaves them to the source.
        """


def all_members(source: Source) -> Members:
    """Return all members that a source has."""
    return Members(
        source.d_embed is not None,
        tuple(source.layers.tolist()) if source.d_model is not None else (),
        tuple(range(len(source.sae_layers))),
    )


class InPlace:
    """A source whose rows are read in place: nothing is read before or kept after."""

    @property
    def groups_are_sentences(self) -> bool:
        """False: groups were given, or sentences with the same text already share one."""
        return False

    def read(self, members: Members) -> None:
        """Do nothing."""

    def unread(self) -> Self:
        """Return the source itself."""
        return self

    def blocks(
        self: Source,
        rows: NDArray[np.int64] | None,
        members: Members,
        bounds: Sequence[int] | None = None,
    ) -> Iterator[Iterable[Block]]:
        """Read members of some rows once, in bounded memory; see `Source.blocks`."""
        return blocks_in_place(self, rows, members, bounds)


def blocks_in_place(
    source: Source,
    rows: NDArray[np.int64] | None,
    members: Members,
    bounds: Sequence[int] | None = None,
) -> Iterator[Iterable[Block]]:
    """Implement `Source.blocks` for sources whose rows can be read in any order."""
    rows = np.arange(source.n_rows) if rows is None else rows
    if bounds is None:
        bounds = [*range(0, len(rows), _BLOCK_ROWS), len(rows)]
    for start, stop in pairwise(bounds):
        yield _read_block(source, rows[start:stop], members)


def _read_block(source: Source, rows: NDArray[np.int64], members: Members) -> Iterator[Block]:
    if members.embeddings:
        yield "embeddings", 0, source.embeddings(rows)
    for layer in members.layers:
        yield "hidden_states", layer, source.layer(layer, rows)
    for number, config in enumerate(members.read_configs):
        yield "activations", number, source.config(config, rows)
