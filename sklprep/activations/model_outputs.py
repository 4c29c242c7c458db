"""Recognizing embeddings and layers in what a model or its hooks returned for a batch."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sklprep.activations.arrays import is_array, to_numpy
from sklprep.exceptions import UsageError

_NUMBER = re.compile(r"[0-9]{1,6}")
_BLOCK = re.compile(r"blocks\.([0-9]{1,6})\.")
_EMBEDDINGS = ("embeddings", "hook_embed", "embed.hook_out")

_OUTPUTS = ("hook_resid_post", "hook_out")
"""Names of the output of a block in a cache of TransformerLens: of its HookedTransformer, and of
its TransformerBridge, which has both in compatibility mode."""
_RESIDUALS = (*_OUTPUTS, *(f"{output}.hook_sae_input" for output in _OUTPUTS))
"""The same, and the input of an SAE that SAELens spliced in; the first one that exists is used."""
_FEATURES = tuple(f"{output}.hook_sae_acts_post" for output in _OUTPUTS)
_ANY_FEATURES = ".hook_sae_acts_post"


@dataclass(frozen=True)
class ModelOutput:
    """The arrays of one batch, each as a list of pieces along the tokens, usually one.

    Attributes
    ----------
    embeddings : list of arrays, or None
    layers, sae_features : dict of int to list of arrays
        By the number of the layer, in ascending order.
    n_prompt : int or None
        Number of tokens of the prompt, for outputs of ``generate()``.
    unread : list of str
        Hooks of blocks, or features of SAEs, that are not read.
    """

    embeddings: Sequence[Any] | None
    layers: Mapping[int, Sequence[Any]]
    sae_features: Mapping[int, Sequence[Any]] = field(default_factory=dict)
    n_prompt: int | None = None
    unread: Sequence[str] = ()


def identify(batch: Any, what: str) -> ModelOutput:
    """Find the embeddings, the layers by number and the SAE features of a batch.

    Parameters
    ----------
    batch : tuple or mapping of arrays, or tuple of such tuples
        As `from_hidden_states` takes it.
    what : str
        Name of the batch for errors.

    Returns
    -------
    ModelOutput

    Raises
    ------
    UsageError
        If the batch is none of these, or ambiguous.

    Examples
    --------
    >>> import numpy as np
    >>> sorted(identify({12: np.zeros((2, 5, 4)), 5: np.zeros((2, 5, 4))}, "Batch 0").layers)
    [5, 12]
    """
    if hasattr(batch, "keys"):
        keys = {str(key): key for key in batch.keys()}  # noqa: SIM118  an ActivationCache is not a dict
        numbered = any(map(_NUMBER.fullmatch, keys))
        return (_from_numbers if numbered else _from_hooks)(batch, keys, what)
    if isinstance(batch, tuple | list) and len(batch):
        if all(map(is_array, batch)):
            return _from_layers(batch, what)
        if all(isinstance(step, tuple | list) and all(map(is_array, step)) for step in batch):
            return _from_steps(batch, what)
    raise _unknown(batch, what)


def _from_numbers(batch: Any, keys: Mapping[str, Any], what: str) -> ModelOutput:
    for key in keys:
        if not _NUMBER.fullmatch(key) and key not in _EMBEDDINGS:
            raise UsageError(
                f"{what} has layer numbers as keys, but also {key!r}; expected numbers from 0, and"
                " 'embeddings'."
            )
    numbers = sorted(int(key) for key in keys if key not in _EMBEDDINGS)
    if len(set(numbers)) + (len(keys) - len(numbers)) < len(batch.keys()):
        raise UsageError(f"{what} has two keys for one layer; expected one, its number.")
    by_number = {int(key): [batch[keys[key]]] for key in keys if key not in _EMBEDDINGS}
    embeddings = _first_of(_EMBEDDINGS, keys)
    return ModelOutput(
        None if embeddings is None else [batch[keys[embeddings]]],
        {number: by_number[number] for number in numbers},
    )


def _from_hooks(batch: Any, keys: Mapping[str, Any], what: str) -> ModelOutput:
    blocks: dict[int, str] = {}
    for key in keys:
        if match := _BLOCK.match(key):
            blocks.setdefault(int(match[1]), key)
    states, features, lost = {}, {}, []
    for number in sorted(blocks):
        residual, acts = (
            _first_of([f"blocks.{number}.{hook}" for hook in hooks], keys)
            for hooks in (_RESIDUALS, _FEATURES)
        )
        if residual is not None:
            states[number] = residual
        if acts is not None:
            features[number] = acts
        if residual is acts is None:
            lost.append(blocks[number])
    if not states and not features:
        raise _no_hooks(list(keys), what)
    lost += [key for key in keys if key.endswith(_ANY_FEATURES) and key not in features.values()]
    embeddings = _first_of(_EMBEDDINGS, keys)
    return ModelOutput(
        None if embeddings is None else [batch[embeddings]],
        {number: [batch[name]] for number, name in states.items()},
        {number: [batch[name]] for number, name in features.items()},
        unread=list(dict.fromkeys(lost)),
    )


def _first_of(names: Iterable[str], there: Container[str]) -> str | None:
    return next((name for name in names if name in there), None)


def _from_layers(batch: Sequence[Any], what: str) -> ModelOutput:
    if isinstance(batch, list):
        first, *others = (getattr(array, "shape", ())[-1:] for array in batch)
        if not others or {first} == set(others) or len(set(others)) > 1:
            raise UsageError(
                f"{what} is a list of {len(batch)} arrays, which may or may not start with the"
                " embeddings. Give dict(enumerate(arrays)) for blocks 0, 1, ... alone, or"
                " tuple(arrays) for embeddings first, as in output.hidden_states."
            )
    elif len(batch) < 2:
        raise _unknown(batch, what)
    return ModelOutput([batch[0]], {n: [array] for n, array in enumerate(batch[1:])})


def _from_steps(steps: Sequence[Sequence[Any]], what: str) -> ModelOutput:
    """Combine what `generate()` returned: the prompt, then one token per step.

    Without a cache each step has the whole text so far, so the last step suffices.
    """
    n_arrays = {len(step) for step in steps}
    shapes = [to_numpy(step[0], f"{what}: embeddings").shape if step else () for step in steps]
    lengths = [shape[1] if len(shape) == 3 else 0 for shape in shapes]
    grows = lengths == list(range(lengths[0], lengths[0] + len(steps)))
    if len(n_arrays) > 1 or n_arrays < {2} or not (grows or set(lengths[1:]) <= {1}):
        raise UsageError(
            f"{what} is a tuple of {len(steps)} tuples of {_brief(map(len, steps))} arrays, with"
            f" {_brief(lengths)} tokens each; expected the steps of generate(): the prompt, then"
            " one token per step. Give several batches as a list."
        )
    pieces = steps[-1:] if grows else steps
    embeddings, *layers = (list(arrays) for arrays in zip(*pieces, strict=True))
    return ModelOutput(embeddings, dict(enumerate(layers)), n_prompt=lengths[0])


def _brief(numbers: Iterable[int]) -> str:
    listed = [str(number) for number in numbers]
    return ", ".join(listed[:4] + ["..."] * (len(listed) > 4))


def _no_hooks(names: Sequence[str], what: str) -> UsageError:
    found = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return UsageError(
        f"{what} holds {found or 'nothing'}; expected blocks.N.hook_resid_post, and hook_embed for"
        " the embeddings, or layer numbers as keys, such as {12: array}. For the output of a model,"
        " give output.hidden_states; for rows that are already pooled, use"
        " ActivationSet.from_arrays."
    )


def _unknown(batch: Any, what: str) -> UsageError:
    found = f"of type {type(batch).__name__}"
    do = ""
    if is_array(batch):
        shape = tuple(getattr(batch, "shape", ()))
        found = f"one array of shape {shape}"
        do = " For one layer, give {layer: array}."
        if len(shape) == 4:
            do = (
                " Give dict(enumerate(array)) if its first axis is that of the blocks, tuple(array)"
                " if the embeddings come first."
            )
    elif isinstance(batch, tuple | list):
        kinds = ", ".join(dict.fromkeys(type(item).__name__ for item in batch)) or "nothing"
        found = f"a {type(batch).__name__} of {len(batch)} ({kinds})"
    return UsageError(
        f"{what} is {found}; expected the tuple of n_layers + 1 arrays of a model called with"
        " output_hidden_states=True (a list of such tuples for several batches), or a mapping with"
        f" layer numbers or blocks.N.hook_resid_post as keys.{do}"
    )
