"""The members of a sentence file, and blocks of their rows while they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_array


MEMBERS = ("embeddings", "hidden_states", "activations")
Block = tuple[str, int, Any]
"""Some rows of one member: ``("embeddings", 0, rows)``, ``("hidden_states", layer, rows)`` or
``("activations", position of the SAE config, csr_array or SparseRows)``."""


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a source to read: selectors and targets make this, and readers take it.

    Parameters
    ----------
    embeddings : bool
        Whether embeddings are read.
    layers : tuple of int
        Numbers of the layers whose hidden states are read.
    configs : tuple of int
        Positions along the config axis of the SAE configs of which all features are used.
    features : tuple of (int, int)
        Config and feature, where only some features of a config are used. All tuples are sorted,
        without duplicates.

    Examples
    --------
    >>> members = Members(layers=(3, 1)) | Members(embeddings=True, features=((2, 29),))
    >>> members.layers, members.read_configs, members.names
    ((1, 3), (2,), ('embeddings', 'hidden_states', 'activations'))
    >>> bool(Members())
    False
    """

    embeddings: bool = False
    layers: tuple[int, ...] = ()
    configs: tuple[int, ...] = ()
    features: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("layers", "configs", "features"):
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))

    def __or__(self, other: Members) -> Members:
        return Members(
            self.embeddings or other.embeddings,
            self.layers + other.layers,
            self.configs + other.configs,
            self.features + other.features,
        )

    def __bool__(self) -> bool:
        return bool(self.names)

    @property
    def read_configs(self) -> tuple[int, ...]:
        """The configs that are read, for all or some of their features."""
        return tuple(sorted({*self.configs, *(config for config, _ in self.features)}))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the `MEMBERS` of which something is read."""
        wanted = (self.embeddings, self.layers, self.read_configs)
        return tuple(name for name, used in zip(MEMBERS, wanted, strict=True) if used)

    def name_config(self, config: int, layer: int) -> str:
        """Describe, for an error, what is used of the config of a layer."""
        features = self.used_features(config)
        only = f", feature {features[0]}" if features is not None and len(features) == 1 else ""
        return f"layer {layer}{only}"

    def used_features(self, config: int) -> NDArray[np.int64] | None:
        """Return the features of a config that are used; None for all of them."""
        if config in self.configs:
            return None
        return np.array([feature for c, feature in self.features if c == config], np.int64)


class SparseRows(NamedTuple):
    """The arrays of a ``csr_array``, which takes longer to create than a row to read."""

    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]

    def as_csr(self, width: int) -> csr_array:
        """Return the rows as a matrix of shape (n_rows, width)."""
        from scipy.sparse import csr_array

        return csr_array((self.data, self.indices, self.indptr), (len(self.indptr) - 1, width))
