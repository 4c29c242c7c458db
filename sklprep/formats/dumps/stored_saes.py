"""SAE features among named arrays: data, indices and indptr of a sparse matrix for each config.

``activations.0.data``, ``activations.0.indices`` and ``activations.0.indptr`` belong to the first
config; the metadata list layer, average_l0 and number of features of each config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError
from sklprep.files.faults import file_fault
from sklprep.files.raw_array import RawArray
from sklprep.formats.dumps.dump import Chain, Sae, StoredArray
from sklprep.formats.sentence_file import MAX_WIDTH

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SAES = "saes"
"""Key of the metadata that lists the configs."""
_PARTS = {"data": ("<f2", "<f4"), "indices": ("<i4",), "indptr": ("<i8",)}
_MAX_INT = 1 << 63

_Store = tuple[Path, Mapping[str, StoredArray], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class StoredCsr:
    """A sparse matrix in a file, with one row per token."""

    data: RawArray
    indices: RawArray
    indptr: RawArray
    width: int

    @property
    def dtype(self) -> str:
        """Dtype of the values."""
        return self.data.dtype

    def read(self, tokens: NDArray[np.int64], /) -> csr_array:
        """Read the features of some tokens."""
        from scipy.sparse import csr_array

        starts = _take(self.indptr, tokens)
        counts = _take(self.indptr, tokens + 1) - starts
        n_values = self.data.shape[0]
        if ((starts < 0) | (counts < 0) | (starts + counts > n_values)).any():
            raise _fault(self.indptr, "points outside its data", "ascending positions")
        ends = np.concatenate([[0], np.cumsum(counts)])
        places = np.repeat(starts - ends[:-1], counts) + np.arange(ends[-1])
        values, columns = _take(self.data, places), _take(self.indices, places)
        try:
            matrix = csr_array(
                (values.astype(np.float32, copy=False), columns, ends.astype(np.int32)),
                shape=(len(tokens), self.width),
            )
            matrix.check_format()
        except ValueError as error:
            found = f"does not belong to a sparse matrix ({error})"
            raise _fault(self.indices, found, "indices of features") from None
        return matrix


def _take(array: RawArray, places: NDArray[np.int64]) -> NDArray[Any]:
    return replace(array, shape=(*array.shape, 1)).read(places)[:, 0]


def _fault(array: RawArray, found: str, expected: str) -> FileFormatError:
    return file_fault(array.path, array.name, found, expected)


def name_of(config: int, part: str) -> str:
    """Return the name of an array of a config."""
    return f"activations.{config}.{part}"


def count_rows(path: Path, arrays: Mapping[str, StoredArray]) -> int:
    """Return the number of rows of the first config."""
    indptr = arrays.get(name_of(0, "indptr"))
    if indptr is None or len(indptr.shape) != 1 or indptr.shape[0] < 2:
        raise file_fault(path, name_of(0, "indptr"), "is missing", "the indptr of a sparse matrix")
    return indptr.shape[0] - 1


def find_saes(stores: Sequence[_Store], lengths: Sequence[int]) -> list[Sae]:
    """Find the configs of all stores, which have `lengths` rows."""
    listed = [_read_list(path, metadata) for path, _, metadata in stores]
    for (path, *_), configs in zip(stores, listed, strict=True):
        if configs != listed[0]:
            raise file_fault(path, SAES, "differ from those of the first file", "the same")
    saes = []
    for number, (layer, average_l0, width) in enumerate(listed[0]):
        matrices = [
            _matrix(path, arrays, number, width, n_rows)
            for (path, arrays, _), n_rows in zip(stores, lengths, strict=True)
        ]
        chain = Chain(matrices, lengths)
        saes.append(Sae(layer, average_l0, width, chain.dtype, chain))
    return saes


def _read_list(path: Path, metadata: Mapping[str, str]) -> list[tuple[int, float, int]]:
    if SAES not in metadata:
        return []
    try:
        configs = json.loads(metadata[SAES])
        found = [(c["layer"], c["average_l0"], c["n_features"]) for c in configs]
        if not found or not all(
            type(layer) is int
            and 0 <= layer < _MAX_INT
            and type(average_l0) in (int, float)
            and type(width) is int
            and 1 <= width <= MAX_WIDTH
            for layer, average_l0, width in found
        ):
            raise ValueError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise file_fault(
            path, SAES, "in the metadata cannot be read", "layer, average_l0, n_features of each"
        ) from None
    if len({width for *_, width in found}) > 1:
        raise file_fault(path, SAES, "differ in n_features", "SAEs of one width")
    return found


def _matrix(
    path: Path, arrays: Mapping[str, StoredArray], number: int, width: int, n_rows: int
) -> StoredCsr:
    found = {}
    for part, dtypes in _PARTS.items():
        name = name_of(number, part)
        array = arrays.get(name)
        if not isinstance(array, RawArray) or len(array.shape) != 1 or array.dtype not in dtypes:
            raise file_fault(path, name, "is missing", f"one axis of {' or '.join(dtypes)}")
        found[part] = array
    if found["data"].shape != found["indices"].shape or found["indptr"].shape != (n_rows + 1,):
        shapes = ", ".join(str(array.shape) for array in found.values())
        expected = f"as many data as indices, and ({n_rows + 1},)"
        what = f"does not fit (shapes of data, indices, indptr: {shapes})"
        raise file_fault(path, name_of(number, "indptr"), what, expected)
    return StoredCsr(**found, width=width)
