"""The members of a sentence file, and blocks of their rows on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError

if TYPE_CHECKING:
    from scipy.sparse import csr_array


MEMBERS = ("embeddings", "hidden_states", "activations")
Block = tuple[str, int, Any]
"""Some rows of one member: ``("embeddings", 0, rows)``, ``("hidden_states", layer, rows)`` or
``("activations", position of the SAE config, csr_array or SparseRows)``."""


class SparseRows(NamedTuple):
    """The arrays of a ``csr_array``, which itself takes longer to make than a row to read."""

    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]

    def as_csr(self, width: int) -> csr_array:
        """(rows, width)."""
        from scipy.sparse import csr_array

        return csr_array((self.data, self.indices, self.indptr), (len(self.indptr) - 1, width))


class RowSet(Protocol):
    """Rows to be written to disk: an `ActivationSet`."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Path | None: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def pooling(self) -> str: ...
    @property
    def is_pooled(self) -> bool: ...
    @property
    def widths(self) -> tuple[int | None, int | None, int | None]: ...
    @property
    def stored_dtype(self) -> str: ...
    @property
    def layers(self) -> NDArray[np.int64]: ...
    @property
    def sae_layers(self) -> NDArray[np.int64]: ...
    @property
    def average_l0s(self) -> NDArray[Any]: ...
    @property
    def labels(self) -> NDArray[Any]: ...
    @property
    def groups(self) -> NDArray[np.int64]: ...
    @property
    def sentence_indices(self) -> NDArray[np.int64]: ...
    @property
    def sentences(self) -> NDArray[np.str_] | None: ...
    @property
    def is_final_token(self) -> NDArray[np.bool_]: ...
    @property
    def file_names(self) -> NDArray[np.str_]: ...
    @property
    def left_out(self) -> Mapping[str, FileFormatError]: ...
    def __len__(self) -> int: ...
    def blocks(self, bounds: Sequence[int] | None = ...) -> Iterator[Iterable[Block]]: ...
