"""A source of rows in memory: arrays from any tool."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.arrays import is_array, require_numbers, require_rows_first, to_numpy
from sklprep.activations.sae_matrices import read_sae_matrices
from sklprep.activations.values import read_texts, read_values
from sklprep.exceptions import DataError, FileFormatError, InsufficientDataError, UsageError
from sklprep.formats.pooling import is_last_of_each
from sklprep.formats.source import InPlace

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_BY_DIMENSIONS = {
    2: " For one layer, give hidden_states[:, None].",
    4: " For hidden states of tokens, use from_hidden_states, which pools them to rows.",
}


class ArraySource(InPlace):
    """Rows in memory; the parameters are those of `ActivationSet.from_arrays`."""

    name = "arrays"
    mapping = ""
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
        n_features: int | None = None,
        pooling: str | None = None,
        sentence_indices: NDArray[np.int64] | None = None,
    ) -> None:
        self.is_pooled = pooling is not None
        self.pooling = pooling or "final"
        self._sentence_indices = sentence_indices
        self._embeddings: Any = _as_float32(embeddings, "embeddings", 2)
        self._labels = None if labels is None else _read_labels(labels)
        self._sentences = None if sentences is None else read_texts(sentences, "sentences")
        groups = None if groups is None else read_values(groups, "groups")
        layers = None if layers is None else to_numpy(layers, "layers")
        sae_layers = None if sae_layers is None else to_numpy(sae_layers, "sae_layers")
        given = {
            "embeddings": self._embeddings,
            "labels": self._labels,
            "sentences": self._sentences,
            "groups": groups,
        }
        by_row = {name: values for name, values in given.items() if values is not None}
        if is_array(activations):
            activations = to_numpy(activations, "activations")
            _require_rows_first(activations, "activations", sae_layers, by_row)
        self._configs = read_sae_matrices(activations, n_features)
        if self._configs:
            by_row["activations"] = self._configs[0]
        hidden_states = _stack_layers(hidden_states, layers, list(by_row.values()))
        self._hidden_states: Any = _as_float32(hidden_states, "hidden_states", 3)
        if self._hidden_states is not None:
            _require_rows_first(self._hidden_states, "hidden_states", layers, by_row)
            by_row = {"hidden_states": self._hidden_states, **by_row}
        self.n_rows = _count_rows(by_row)
        self.groups = _number_groups(groups, self._sentences, self.n_rows)
        self._number_axes(layers, sae_layers, average_l0s)
        self.d_embed = None if self._embeddings is None else self._embeddings.shape[1]
        self.d_model = None if self._hidden_states is None else self._hidden_states.shape[2]
        self.n_features = self._configs[0].shape[1] if self._configs else None

    def _number_axes(self, layers: Any, sae_layers: Any, average_l0s: Any) -> None:
        """Number the layers, and assign layers and average_l0s to the SAE configs."""
        n_layers = 0 if self._hidden_states is None else self._hidden_states.shape[1]
        n_configs = len(self._configs)
        numbers = _numbers(layers, "layers", n_layers, np.arange(n_layers))
        self.layers, self._positions = np.unique(numbers, return_index=True)
        in_order = numbers if n_configs == n_layers else np.arange(n_configs)
        self.sae_layers = _numbers(sae_layers, "sae_layers", n_configs, in_order)
        if average_l0s is None:
            counts = [round(config.nnz / max(1, self.n_rows)) for config in self._configs]
            self.average_l0s = np.array(counts, np.int64)
            return
        self.average_l0s = to_numpy(average_l0s, "average_l0s")
        if self.average_l0s.shape != (n_configs,):
            raise UsageError(
                f"average_l0s must have shape ({n_configs},), got {self.average_l0s.shape}."
            )
        if self.average_l0s.dtype.kind not in "iuf" or not np.isfinite(self.average_l0s).all():
            raise UsageError(f"average_l0s must be finite numbers, got {self.average_l0s}.")

    @property
    def labels(self) -> NDArray[Any]:
        if self._labels is None:
            raise DataError(
                "This set has no labels. Give labels=... to the function that made it, or pass your"
                " own y."
            )
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
        """Identifies these arrays by a sample of their rows."""
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

    @property
    def file_names(self) -> NDArray[np.str_]:
        return np.zeros(self.n_rows, np.str_)

    def embeddings(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        return self._embeddings if rows is None else self._embeddings[rows]

    def layer(self, layer: int, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
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
            raise UsageError("Rows of arrays are not from files; leave them out by index.")
        return self


def _count_rows(by_row: Mapping[str, Any]) -> int:
    """Return the number of rows, which must be equal for all arrays."""
    if not by_row.keys() & {"hidden_states", "embeddings", "activations"}:
        raise UsageError("Give hidden_states, embeddings or activations.")
    for name, values in by_row.items():
        if name in ("labels", "sentences", "groups") and values.ndim != 1:
            raise UsageError(f"{name} must be one-dimensional, got shape {values.shape}.")
    lengths = {name: values.shape[0] for name, values in by_row.items()}
    if len(set(lengths.values())) > 1:
        raise UsageError(
            "The arrays must have the same number of rows, got "
            + ", ".join(f"{n} of {name}" for name, n in lengths.items())
        )
    return next(iter(lengths.values()))


def _number_groups(
    groups: NDArray[Any] | None, sentences: NDArray[np.str_] | None, n_rows: int
) -> NDArray[np.int64]:
    """Number groups from 0: those given, else sentences by first occurrence, else single rows.

    A row without a text is a separate group.
    """
    if groups is not None:
        return np.unique(groups, return_inverse=True)[1].reshape(-1)
    if sentences is None:
        return np.arange(n_rows)
    _, first, inverse = np.unique(sentences, return_index=True, return_inverse=True)
    first_of_row = np.where(sentences == "", np.arange(n_rows), first[inverse.reshape(-1)])
    return np.unique(first_of_row, return_inverse=True)[1].reshape(-1)


def _read_labels(labels: Any) -> NDArray[Any]:
    """Read any labels; mixed or missing ones stay Python objects."""
    try:
        return read_values(labels, "labels")
    except (InsufficientDataError, UsageError):
        return to_numpy(labels, "labels")


def _require_rows_first(
    array: NDArray[Any], name: str, layers: NDArray[Any] | None, by_row: Mapping[str, Any]
) -> None:
    lengths = {values.shape[:1] for values in by_row.values()}
    n_rows = next(iter(lengths.pop()), None) if len(lengths) == 1 else None
    n_layers = None if layers is None else layers.size
    require_rows_first(array.shape, name, n_rows, n_layers)


def _stack_layers(values: Any, layers: NDArray[Any] | None, others: Sequence[Any]) -> Any:
    """Stack a list with one array per layer; an ambiguous list is refused."""
    if hasattr(values, "keys"):
        raise UsageError(
            "hidden_states is a mapping; expected an array. For {layer: array of shape (n_rows,"
            " d_model)}, give np.stack(list(mapping.values()), axis=1) and layers=list(mapping);"
            " from_hidden_states takes mappings to arrays of tokens."
        )
    if not isinstance(values, list | tuple) or not values or not all(map(is_array, values)):
        return values
    arrays = [to_numpy(value, "hidden_states") for value in values]
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1 or len(shapes[0]) != 2:
        raise UsageError(
            "A list of hidden_states must hold one array per layer, all of shape (n_rows, d_model),"
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
            " one per layer or one per row. Give np.stack(arrays, axis=1) for layers,"
            " np.stack(arrays) for rows, or add labels or layers of a different length."
        )
    return np.stack(arrays, axis=0 if by_row else 1)


def _as_float32(values: Any, name: str, ndim: int) -> NDArray[np.float32] | None:
    if values is None:
        return None
    array = to_numpy(values, name)
    require_numbers(array, name)
    if array.ndim != ndim or array.dtype.kind not in "fiu" or 0 in array.shape:
        do = _BY_DIMENSIONS.get(array.ndim, "") if name == "hidden_states" else ""
        raise UsageError(
            f"{name} must be a non-empty numeric array of {ndim} dimensions, got {array.dtype} of"
            f" shape {array.shape}.{do}"
        )
    with np.errstate(over="ignore"):  # infinite values are an error only where they are used
        return array.astype(np.float32, copy=False)


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
