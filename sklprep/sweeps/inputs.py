"""`InputSpec`: one input of a sweep, read from what a user writes, and named in results."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np

from sklprep.activations.activation_set import ActivationSet
from sklprep.exceptions import DataError, UsageError
from sklprep.formats.layers import (
    ALL,
    EACH,
    EACH_SAE,
    EMBEDDINGS,
    format_layers,
    parse_layers,
    require_layers,
)
from sklprep.formats.members import Members
from sklprep.transformers.layer_selector import LayerSelector
from sklprep.transformers.sae_selector import SAEFeatureSelector

_SAE = re.compile(r"sae\s+(?P<layers>.+?)(\s+l0\s+(?P<average_l0>[0-9]+(\.[0-9]+)?))?")


@dataclass(frozen=True)
class InputSpec:
    """One entry of the layer curve: which layers, and hidden states or SAE features.

    Attributes
    ----------
    layers : tuple of int
        Ascending layer numbers; empty for the embeddings.
    is_sae : bool
        Whether it is the SAE features of these layers, not their hidden states.
    average_l0 : float or None
        Which SAE, where a layer has several.

    Examples
    --------
    >>> str(InputSpec((0, 1, 2))), InputSpec((12,)).name, str(InputSpec((12,), True, 82.0))
    ('0-2', 12, 'sae 12 l0 82')
    """

    layers: tuple[int, ...] = ()
    is_sae: bool = False
    average_l0: float | None = None

    @classmethod
    def read(cls, text: Any, acts: Any) -> Self:
        """Read an input as users write it: ``"embeddings"``, ``12``, ``"0-5"``, ``"sae 12 l0 82"``.

        The layers must be among those of `acts`, an ActivationSet or an array.
        """
        if isinstance(text, str) and text == EMBEDDINGS:
            _require_embeddings(acts)
            return cls()
        if isinstance(text, str) and (sae := _SAE.fullmatch(text)):
            average_l0 = None if sae["average_l0"] is None else float(sae["average_l0"])
            selector = SAEFeatureSelector(sae["layers"], average_l0=average_l0)
            return cls(tuple(selector.fit(require_set(acts)).layers_.tolist()), True, average_l0)
        available = layers_of(acts)
        layers = available if isinstance(text, str) and text == ALL else parse_layers(text)
        require_layers(layers, available)
        return cls(tuple(layers))

    @property
    def name(self) -> int | str:
        """What `LayerSweep.layers` calls it: the number of a single layer, otherwise text."""
        if not self.layers:
            return EMBEDDINGS
        layers = format_layers(self.layers)
        if self.is_sae:
            l0 = self.average_l0
            suffix = "" if l0 is None else f" l0 {np.format_float_positional(l0, trim='-')}"
            return f"sae {layers}{suffix}"
        return self.layers[0] if len(self.layers) == 1 else layers

    def __str__(self) -> str:
        return str(self.name)

    def make_selector(self) -> LayerSelector | SAEFeatureSelector:
        """Make the transformer that selects this input."""
        if self.is_sae:
            return SAEFeatureSelector(list(self.layers), average_l0=self.average_l0)
        return LayerSelector(list(self.layers) if self.layers else EMBEDDINGS)

    def select(self, acts: Any) -> Any:
        """Select it from an ActivationSet or an array, (n_samples, n_features)."""
        if isinstance(acts, ActivationSet):
            selector, X = self.make_selector(), acts
        else:  # the selector checks all of X, so it gets the needed layers only
            selector = LayerSelector(ALL)
            X = acts if acts.ndim == 2 else acts[:, list(self.layers)]
        return selector.set_output(transform="default").fit_transform(X)


def read_inputs(layers: Any, acts: Any) -> list[InputSpec]:
    """Read the parameter `layers` of a sweep into distinct inputs, in the order given."""
    if isinstance(layers, str) and layers in (EACH, EACH_SAE):
        layers = [layers]
    if isinstance(layers, str | Integral) or not layers:
        raise UsageError(
            f"layers must be 'each', 'each sae' or a list of inputs, got {layers!r}. Write ['0-5']"
            " for one input of six layers, range(6) for six inputs."
        )
    inputs: dict[InputSpec, None] = {}
    for item in layers:
        if isinstance(item, str) and item == EACH:
            inputs |= dict.fromkeys(_each_layer(acts))
        elif isinstance(item, str) and item == EACH_SAE:
            inputs |= dict.fromkeys(each_sae(acts))
        else:
            inputs[InputSpec.read(item, acts)] = None
    return list(inputs)


def each_sae(acts: Any, average_l0: float | None = None) -> list[InputSpec]:
    """Give every SAE of a set, or one of `average_l0` for each layer that has it, as an input."""
    layers, l0s = require_set(acts).sae_layers, acts.average_l0s
    if not len(layers) or average_l0 not in (None, *l0s.tolist()):
        _require_sae(acts, average_l0)
    return [
        InputSpec((layer,), True, float(l0) if np.sum(layers == layer) > 1 else None)
        for layer, l0 in sorted(zip(layers.tolist(), l0s.tolist(), strict=True))
        if average_l0 in (None, l0)
    ]


def members_of(inputs: Iterable[InputSpec], acts: ActivationSet) -> Members:
    """What these inputs read of a set."""
    members = Members()
    for one in inputs:
        members |= one.make_selector().fit(acts).find_members(acts)
    return members


def layers_of(acts: Any) -> list[int]:
    """Layer numbers of a set; of an array, its positions."""
    if isinstance(acts, ActivationSet):
        return acts.layers.tolist()
    return list(range(np.shape(acts)[1] if np.ndim(acts) == 3 else 1))


def require_set(acts: Any) -> ActivationSet:
    """Give `acts` back; raise `UsageError` unless it can hold SAE features."""
    if not isinstance(acts, ActivationSet):
        raise UsageError(
            "SAE features need an ActivationSet, got an array, which holds hidden states. Use"
            " ActivationSet.from_arrays(activations=...)."
        )
    return acts


def _each_layer(acts: Any) -> list[InputSpec]:
    embeddings = [InputSpec()] if _has_embeddings(acts) else []
    return embeddings + [InputSpec((layer,)) for layer in layers_of(acts)]


def _has_embeddings(acts: Any) -> bool:
    try:
        return isinstance(acts, ActivationSet) and acts.d_embed > 0
    except DataError:
        return False


def _require_embeddings(acts: Any) -> None:
    """Raise as `LayerSelector` does where there are no embeddings."""
    LayerSelector(EMBEDDINGS).fit(acts)


def _require_sae(acts: ActivationSet, average_l0: float | None) -> None:
    """Raise `DataError` where there is no SAE of this sparsity."""
    acts.rows.find_config(int(acts.sae_layers[0]) if len(acts.sae_layers) else 0, average_l0)
