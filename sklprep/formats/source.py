"""What every source of rows can do, whether its rows lie in files, in a pack or in memory."""

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
"""Rows of a block: 2 MB of a layer 2,304 wide, so that memory stays small and loops stay few."""


class Source(Protocol):
    """Where the rows of an `ActivationSet` come from.

    Attributes
    ----------
    place : Path or None
        The folder of sentence files, or the pack, that errors name; None for arrays.
    d_embed, d_model, n_features : int or None
        Widths of embeddings, hidden states and SAE features; None for what there is not.
    mapping : str
        How the numbers of another tool became layers; empty where they are ours.
    is_pooled : bool
        Whether sklprep pooled the tokens itself, so that `pooling` is known and not assumed.
    groups_are_sentences : bool
        Whether `groups` tells sentences apart that have one text.
    left_out : mapping of str to FileFormatError
        Files whose sentences are not among the rows, by name, and why.
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
        """Dtype that holds each value of the rows: that of the dump."""

    @property
    def fingerprint(self) -> str: ...
    @property
    def key(self) -> str:
        """What tells the rows from those of other sources, without reading all of them."""

    @property
    def is_final_token(self) -> NDArray[np.bool_]:
        """Whether a row stands for its sentence; all but one of the tokens of a sentence do not."""

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
        """Name of the sentence file of each row; empty for rows that come from none."""

    @property
    def left_out(self) -> Mapping[str, FileFormatError]: ...
    def describe_row(self, row: int) -> str:
        """Name, for an error, what a row comes from."""

    def require(self, member: str) -> None:
        """Raise `DataError` unless there is this member."""

    def embeddings(self, rows: NDArray[np.int64] | None = ...) -> NDArray[np.float32]: ...
    def layer(self, layer: int, rows: NDArray[np.int64] | None = ...) -> NDArray[np.float32]: ...
    def config(self, config: int, rows: NDArray[np.int64] | None = ...) -> csr_array: ...
    def read(self, members: Members) -> None:
        """Read members of all rows now and keep them, where reading them again would take long."""

    def unread(self) -> Self:
        """Give the same source as it was before anything was read."""

    def without(self, faults: Mapping[str, FileFormatError]) -> Self:
        """Give the same source without the rows of these sentence files."""

    def blocks(
        self,
        rows: NDArray[np.int64] | None,
        members: Members,
        bounds: Sequence[int] | None = ...,
    ) -> Iterator[Iterable[Block]]:
        """Read members of some rows once, in bounded memory: all blocks of some rows at a time.

        Nothing is checked: there may be NaN and infinite values. `bounds` are positions among
        `rows` before which to begin anew, from 0 to their number; None leaves it to the source.
        """


def all_members(source: Source) -> Members:
    """All that there is to read of a source."""
    return Members(
        source.d_embed is not None,
        tuple(source.layers.tolist()) if source.d_model is not None else (),
        tuple(range(len(source.sae_layers))),
    )


class InPlace:
    """A source whose rows are read where they lie: nothing to read before, nothing kept after."""

    @property
    def groups_are_sentences(self) -> bool:
        """Groups were given, or hold the rows of one text together already."""
        return False

    def read(self, members: Members) -> None:
        """Nothing to do."""

    def unread(self) -> Self:
        """Give the source itself."""
        return self

    def blocks(
        self: Source,
        rows: NDArray[np.int64] | None,
        members: Members,
        bounds: Sequence[int] | None = None,
    ) -> Iterator[Iterable[Block]]:
        """Read members of some rows once, in bounded memory, as `Source.blocks` says."""
        return blocks_in_place(self, rows, members, bounds)


def blocks_in_place(
    source: Source,
    rows: NDArray[np.int64] | None,
    members: Members,
    bounds: Sequence[int] | None = None,
) -> Iterator[Iterable[Block]]:
    """Do what `Source.blocks` does where rows can be read in any order."""
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
