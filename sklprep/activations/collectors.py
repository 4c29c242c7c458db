"""What models return, as an `ActivationSet`: hidden states of padded batches, pooled."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.array_source import ArraySource
from sklprep.activations.arrays import is_array, to_numpy
from sklprep.exceptions import SklprepWarning, UsageError
from sklprep.formats.layers import format_layers
from sklprep.formats.pooling import require_pooling
from sklprep.formats.rows import Rows

_HOOK = re.compile(r"blocks\.([0-9]{1,6})\.hook_resid_post")
_EMBED = "hook_embed"


def from_hidden_states(
    hidden_states: Any,
    attention_mask: Any = None,
    *,
    pooling: str = "final",
    labels: ArrayLike | None = None,
    sentences: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> ActivationSet:
    """Pool what a model returned for a batch of sentences, or for several batches.

    Parameters
    ----------
    hidden_states : tuple of arrays, mapping, or list or iterator of these
        One batch is either the tuple that Hugging Face models return with
        ``output_hidden_states=True``, of n_layers + 1 arrays of shape (batch, n_tokens, d_model):
        the embeddings, then the output of each block. Or a mapping as TransformerLens caches it:
        ``blocks.12.hook_resid_post`` is layer 12, ``hook_embed`` the embeddings; layers may be
        missing, other hooks are not read. Batches may differ in n_tokens. An iterator is read one
        batch at a time, so that only pooled rows stay in memory. Torch tensors and their like are
        taken as by `ActivationSet.from_arrays`.
    attention_mask : array-like of shape (batch, n_tokens), or list or iterator of these
        The tokenizer's: 1 for a real token, 0 for padding on whichever side; one for each batch.
        None counts every position as real.
    pooling : {"final", "mean", "max", "none"}, default="final"
        What becomes a row: the last real token, the mean or the maximum over the real tokens, or
        every real token (rows of one sentence then share a group).
    labels, sentences, groups : array-like of shape (n_sentences,)
        One for each sentence, over all batches. By default a sentence is a group, and so are
        sentences of the same text.

    Returns
    -------
    ActivationSet
        ``hidden_states`` of shape (n_rows, n_layers, d_model), ``embeddings`` of shape
        (n_rows, d_model), float32. ``hidden_states[i + 1]`` of the tuple is layer `i`: layers are
        numbered as the model's blocks, from 0. ``sentence_indices`` count from 0.

    Raises
    ------
    UsageError
        If batches, masks, labels or layers do not fit together, a sentence has no real token, or
        there are none of these hooks.

    Warns
    -----
    SklprepWarning
        If there is no mask for a batch of several sentences, whose padding would count as tokens.

    Notes
    -----
    The last array that Hugging Face's Llama, Gemma, Mistral, Qwen and GPT-2 models return comes
    *after* the model's final normalization, all others before: the last layer then has another
    scale than the ones before, and is not what TransformerLens calls ``hook_resid_post`` of that
    block. Special tokens are real tokens to the tokenizer's mask (the first one may be a BOS, the
    last one of BERT is ``[SEP]``): set theirs to 0 to leave them out.

    Examples
    --------
    >>> import numpy as np
    >>> from sklprep import from_hidden_states
    >>> rng = np.random.default_rng(0)
    >>> returned = tuple(rng.normal(size=(2, 5, 8)) for _ in range(4))  # 2 sentences, 3 layers
    >>> mask = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    >>> acts = from_hidden_states(returned, mask, labels=[0, 1])
    >>> acts
    ActivationSet(2 rows, layers 0-2, d_model 8, embeddings 8)
    >>> bool(np.allclose(acts.layer(2)[1], returned[3][1, 2]))
    True
    """
    require_pooling(pooling)
    batches = _pool_batches(hidden_states, attention_mask, pooling)
    counts = np.concatenate([batch.n_rows for batch in batches])
    n_sentences = len(counts)
    sentence_of_row = np.repeat(np.arange(n_sentences), counts)
    if sentences is not None:
        sentences = np.asarray(sentences, np.str_)
    elif groups is None:
        groups = np.arange(n_sentences)
    labels, sentences, groups = (
        None if values is None else _one_each(values, name, n_sentences)[sentence_of_row]
        for name, values in {"labels": labels, "sentences": sentences, "groups": groups}.items()
    )
    embeddings = [batch.embeddings for batch in batches if batch.embeddings is not None]
    return ActivationSet(
        Rows(
            ArraySource(
                np.concatenate([batch.hidden_states for batch in batches]),
                np.concatenate(embeddings) if embeddings else None,
                None,
                labels=labels,
                layers=batches[0].layers,
                sae_layers=None,
                average_l0s=None,
                sentences=sentences,
                groups=groups,
                pooling=pooling,
                sentence_indices=sentence_of_row,
            )
        )
    )


@dataclass(frozen=True)
class _PooledBatch:
    """The rows of one batch, and how many of them each sentence has."""

    layers: list[int]
    hidden_states: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    n_rows: NDArray[np.int64]

    @property
    def kind(self) -> str:
        """What batches of one model have in common."""
        embeddings = self.embeddings
        width = "no embeddings" if embeddings is None else f"embeddings {embeddings.shape[1]}"
        layers = format_layers(self.layers)
        return f"layers {layers}, d_model {self.hidden_states.shape[2]}, {width}"


def _one_each(values: Any, name: str, n_sentences: int) -> NDArray[Any]:
    array = to_numpy(values, name)
    if array.shape != (n_sentences,):
        raise UsageError(
            f"{name} must hold one for each of the {n_sentences} sentences, got shape"
            f" {array.shape}."
        )
    return array


def _pool_batches(hidden_states: Any, masks: Any, pooling: str) -> list[_PooledBatch]:
    pooled: list[_PooledBatch] = []
    for number, (batch, mask) in enumerate(_batches(hidden_states, masks)):
        one = _pool_batch(batch, mask, pooling, f"Batch {number}")
        if pooled and one.kind != pooled[0].kind:
            raise UsageError(
                f"Batch {number} has {one.kind}, batch 0 {pooled[0].kind}; expected batches of one"
                " model."
            )
        pooled.append(one)
    if not pooled:
        raise UsageError("hidden_states holds no batch; expected at least one.")
    return pooled


def _batches(hidden_states: Any, masks: Any) -> Iterator[tuple[Any, Any]]:
    """Pair each batch with its mask."""
    listed = isinstance(hidden_states, list) and not any(map(is_array, hidden_states))
    if not (listed or isinstance(hidden_states, Iterator)):
        yield hidden_states, masks
        return
    if masks is None:
        yield from ((batch, None) for batch in hidden_states)
        return
    if is_array(masks) or not isinstance(masks, list | tuple | Iterator):
        raise UsageError(
            "attention_mask must be a list of masks where hidden_states is a list of batches, got"
            f" {type(masks).__name__}."
        )
    nothing = object()
    for number, (batch, mask) in enumerate(zip_longest(hidden_states, masks, fillvalue=nothing)):
        if batch is nothing or mask is nothing:
            which = ("batch", "mask") if batch is nothing else ("mask", "batch")
            raise UsageError(f"There is no {which[0]} for {which[1]} {number}; expected one each.")
        yield batch, mask


def _pool_batch(batch: Any, mask: Any, pooling: str, what: str) -> _PooledBatch:
    embeddings, layers = _find_layers(batch, what)
    first = next(iter(layers))
    shape = _read(layers[first], f"{what}: layer {first}").shape
    real = _read_mask(mask, shape[:2], what)

    def rows_of(values: Any, name: str, width: int | None) -> NDArray[np.float32]:
        array = _read(values, f"{what}: {name}")
        if array.shape[:2] != shape[:2] or width not in (None, array.shape[2]):
            raise UsageError(
                f"{what}: {name} has shape {array.shape}, layer {first} {shape}; expected the same"
                " sentences and tokens in all, and one d_model."
            )
        return _pool(array, real, pooling)

    return _PooledBatch(
        list(layers),
        np.stack([rows_of(v, f"layer {n}", shape[2]) for n, v in layers.items()], axis=1),
        None if embeddings is None else rows_of(embeddings, "embeddings", None),
        real.sum(axis=1) if pooling == "none" else np.ones(len(real), np.int64),
    )


def _find_layers(batch: Any, what: str) -> tuple[Any, dict[int, Any]]:
    """The embeddings, and the layers by number, ascending."""
    if hasattr(batch, "keys"):
        names = [str(name) for name in batch.keys()]  # noqa: SIM118  an ActivationCache is no dict
        layers = {int(match[1]): name for name in names if (match := _HOOK.fullmatch(name))}
        if layers:
            embeddings = batch[_EMBED] if _EMBED in names else None
            return embeddings, {layer: batch[layers[layer]] for layer in sorted(layers)}
        found = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise UsageError(
            f"{what} holds {found or 'nothing'}; expected blocks.N.hook_resid_post, and hook_embed"
            " for the embeddings. Of a model's output give output.hidden_states; other arrays go"
            " through ActivationSet.from_arrays."
        )
    if isinstance(batch, tuple | list) and len(batch) > 1 and all(map(is_array, batch)):
        return batch[0], dict(enumerate(batch[1:]))
    got = f"{type(batch).__name__}" + (
        f" of {len(batch)} {type(batch[0]).__name__}"
        if isinstance(batch, tuple | list) and batch
        else ""
    )
    raise UsageError(
        f"{what} is a {got}; expected the tuple of n_layers + 1 arrays of a model called with"
        " output_hidden_states=True (a list of such tuples for several batches), or a mapping with"
        " blocks.N.hook_resid_post."
    )


def _read(values: Any, name: str) -> NDArray[Any]:
    array = to_numpy(values, name)
    if array.ndim != 3 or array.dtype.kind != "f" or 0 in array.shape:
        raise UsageError(
            f"{name} is {array.dtype} of shape {array.shape}; expected floats of shape (batch,"
            " n_tokens, d_model)."
        )
    return array


def _read_mask(mask: Any, shape: tuple[int, ...], what: str) -> NDArray[np.bool_]:
    if mask is None:
        if min(shape) > 1:
            warnings.warn(
                f"{what} has {shape[0]} sentences of {shape[1]} tokens and no attention_mask: every"
                " position counts as a token, padding included. Give the tokenizer's mask.",
                SklprepWarning,
                stacklevel=5,
            )
        return np.ones(shape, bool)
    if hasattr(mask, "keys"):
        raise UsageError(
            f"{what}: attention_mask is a {type(mask).__name__}; expected the array in it, as in"
            " tokens['attention_mask']."
        )
    array = to_numpy(mask, "attention_mask")
    if array.shape != shape:
        raise UsageError(
            f"{what}: attention_mask has shape {array.shape}; expected {shape}, one value for each"
            " token."
        )
    real = array == 1
    if array.dtype.kind not in "biuf" or not (real | (array == 0)).all():
        raise UsageError(
            f"{what}: attention_mask holds {array.dtype} values other than 0 and 1; expected 1 for"
            " a real token and 0 for padding, as a tokenizer returns it."
        )
    empty = np.flatnonzero(~real.any(axis=1))
    if len(empty):
        raise UsageError(
            f"{what}: sentence {empty[0]} has no real token by its attention_mask ({len(empty)} of"
            f" {len(real)} sentences have none); expected at least 1. Leave it out."
        )
    return real


def _pool(array: NDArray[Any], real: NDArray[np.bool_], pooling: str) -> NDArray[np.float32]:
    """Rows of the real tokens; means are taken in float64 and rounded once."""
    with np.errstate(over="ignore", invalid="ignore"):
        if pooling == "final":
            last = real.shape[1] - 1 - real[:, ::-1].argmax(axis=1)
            rows = array[np.arange(len(real)), last]
        elif pooling == "none":
            rows = array[real]
        else:
            sentences = [tokens[keep] for tokens, keep in zip(array, real, strict=True)]
            rows = np.stack(
                [
                    tokens.mean(axis=0, dtype=np.float64)
                    if pooling == "mean"
                    else tokens.max(axis=0)
                    for tokens in sentences
                ]
            )
        return rows.astype(np.float32, copy=False)
