"""The members of a sentence file, and blocks of their rows on the way."""

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
    """Which members of a source are read: what selectors and targets need, and readers take.

    Parameters
    ----------
    embeddings : bool
    layers : tuple of int
        Layers whose hidden states are read, by their numbers.
    configs : tuple of int
        SAE configs of which all features are used, by their positions along the config axis.
    features : tuple of (int, int)
        Config and feature, where a few features of a config are used. All of these are kept
        ascending and distinct.

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
        """The configs that are read, for all of their features or for some."""
        return tuple(sorted({*self.configs, *(config for config, _ in self.features)}))

    @property
    def names(self) -> tuple[str, ...]:
        """Those of `MEMBERS` that anything is read of."""
        wanted = (self.embeddings, self.layers, self.read_configs)
        return tuple(name for name, used in zip(MEMBERS, wanted, strict=True) if used)

    def name_config(self, config: int, layer: int) -> str:
        """Say, for an error, what of a layer's config is used."""
        features = self.used_features(config)
        only = f", feature {features[0]}" if features is not None and len(features) == 1 else ""
        return f"layer {layer}{only}"

    def used_features(self, config: int) -> NDArray[np.int64] | None:
        """Features of a config that are used; None for all of them."""
        if config in self.configs:
            return None
        return np.array([feature for c, feature in self.features if c == config], np.int64)


class SparseRows(NamedTuple):
    """The arrays of a ``csr_array``, which itself takes longer to make than a row to read."""

    indptr: NDArray[np.int32]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]

    def as_csr(self, width: int) -> csr_array:
        """(rows, width)."""
        from scipy.sparse import csr_array

        return csr_array((self.data, self.indices, self.indptr), (len(self.indptr) - 1, width))
