"""Where the rows of an `ActivationSet` come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.formats.members import Block

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class Source(Protocol):
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


def blocks_of(source: Source, rows: NDArray[np.int64]) -> Iterator[Block]:
    if source.d_embed is not None:
        yield "embeddings", 0, source.embeddings(rows)
    for layer in source.layers.tolist() if source.d_model is not None else ():
        yield "hidden_states", layer, source.layer(layer, rows)
    for config in range(len(source.sae_layers)):
        yield "activations", config, source.config(config, rows)
