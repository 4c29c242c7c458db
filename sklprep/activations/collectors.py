"""`from_hidden_states`: pool what models return for padded batches to an `ActivationSet`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sklprep.activations.activation_set import ActivationSet
from sklprep.activations.array_source import ArraySource
from sklprep.activations.arrays import is_array, require_numbers, to_numpy
from sklprep.activations.model_outputs import ModelOutput, identify
from sklprep.activations.token_masks import find_real, read_mask
from sklprep.exceptions import SklprepWarning, UsageError
from sklprep.formats.layers import format_layers
from sklprep.formats.pooling import require_pooling
from sklprep.formats.rows import Rows

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def from_hidden_states(
    hidden_states: Any,
    attention_mask: Any = None,
    *,
    pooling: str = "final",
    labels: ArrayLike | None = None,
    sentences: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> ActivationSet:
    """Pool what a model returned for one or several batches of sentences.

    Parameters
    ----------
    hidden_states : tuple or mapping of arrays, or list or iterator of these
        One batch is one of these, each array of shape (batch, n_tokens, d_model):

        - the tuple that Hugging Face models return with ``output_hidden_states=True``: the
          embeddings, then the output of each block;
        - the ``hidden_states`` that their ``generate(..., output_hidden_states=True,
          return_dict_in_generate=True)`` returns, a tuple with such a tuple for each step: a
          sequence becomes a sentence of its prompt and the generated tokens, except the last one,
          which the model never read;
        - a mapping of layer numbers to outputs of blocks, and ``"embeddings"`` if there are any;
        - a cache of TransformerLens: ``blocks.12.hook_resid_post`` (or ``hook_out``) is layer 12,
          ``hook_embed`` the embeddings. Where SAELens spliced in an SAE, its input is the layer,
          and ``hook_sae_acts_post`` gives the SAE features of the layer. Other hooks are not read.

        Layers may be missing from a mapping. Batches may differ in n_tokens. An iterator is read
        one batch at a time, so that only pooled rows stay in memory. Tensors are accepted as by
        `ActivationSet.from_arrays`; they must be in main memory.
    attention_mask : array-like of shape (batch, n_tokens), or list or iterator of these
        The mask of the tokenizer, one for each batch: 1 for a real token, 0 for padding on either
        side. None counts every position as real. For ``generate()``, the mask of the prompt (then
        every generated token counts as real), or that of ``output.sequences``.
    pooling : {"final", "mean", "max", "none"}, default="final"
        What becomes a row: the last real token, the mean or the maximum over the real tokens, or
        every real token (rows of one sentence then share a group).
    labels, sentences, groups : array-like of shape (n_sentences,)
        One value for each sentence, over all batches. By default each sentence is a group, and
        sentences with the same text share one.

    Returns
    -------
    ActivationSet
        ``hidden_states`` of shape (n_rows, n_layers, d_model) and ``embeddings`` of shape
        (n_rows, d_model), float32; sparse SAE features, if there are any. ``hidden_states[i + 1]``
        of a tuple is layer `i`: layers are numbered like the blocks of the model, from 0.
        ``sentence_indices`` count from 0.

    Raises
    ------
    UsageError
        If batches, masks, labels or layers do not fit together, if a sentence has no real token, if
        a tensor is on a GPU, or if the layers are ambiguous: a list of arrays may or may not start
        with the embeddings.

    Warns
    -----
    SklprepWarning
        If there is no mask for a batch of several sentences, so that padding counts as tokens; if
        the mask does not say where generated sequences end; if batches look like the steps of
        ``generate()``; or if a cache has other hooks of a block, or SAE features elsewhere, which
        are not read.

    Notes
    -----
    The last array that Hugging Face's Llama, Gemma, Mistral, Qwen and GPT-2 models return is taken
    *after* the model's final normalization, unlike all others: the last layer then has a different
    scale than the layers before, and differs from what TransformerLens calls ``hook_resid_post`` of
    that block. The tokenizer's mask counts special tokens as real (the first token may be a BOS,
    the last one of BERT is ``[SEP]``): set their mask to 0 to leave them out.

    Beam search reorders sequences between steps, so that the steps do not fit together: use greedy
    decoding or sampling. Layers after an SAE that SAELens spliced in without its error term are
    computed from the reconstruction of the SAE.

    Examples
    --------
    Two sentences through a model of three layers, as Hugging Face returns them:

    >>> import numpy as np
    >>> from sklprep import from_hidden_states
    >>> rng = np.random.default_rng(0)
    >>> returned = tuple(rng.normal(size=(2, 5, 8)) for _ in range(4))
    >>> mask = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    >>> acts = from_hidden_states(returned, mask, labels=[0, 1])
    >>> acts
    ActivationSet(2 rows, layers 0-2, d_model 8, embeddings 8)
    >>> bool(np.allclose(acts.layer(2)[1], returned[3][1, 2]))
    True

    Outputs of blocks by their number, as forward hooks collect them:

    >>> from_hidden_states({5: returned[1], 12: returned[2], "embeddings": returned[0]}, mask)
    ActivationSet(2 rows, layers 5,12, d_model 8, embeddings 8)

    What ``generate()`` returned, a prompt of five tokens and three more; each sequence stays one
    sentence, and one group:

    >>> steps = tuple(
    ...     tuple(rng.normal(size=(1, n_tokens, 8)) for _ in range(4)) for n_tokens in (5, 1, 1, 1)
    ... )
    >>> tokens = from_hidden_states(steps, pooling="none")
    >>> tokens
    ActivationSet(8 rows, layers 0-2, d_model 8, embeddings 8, pooling none)
    >>> tokens.groups
    array([0, 0, 0, 0, 0, 0, 0, 0])

    A cache of TransformerLens in which SAELens spliced an SAE of 32 features into layer 1:

    >>> cache = {
    ...     "blocks.0.hook_resid_post": returned[1],
    ...     "blocks.1.hook_resid_post.hook_sae_input": returned[2],
    ...     "blocks.1.hook_resid_post.hook_sae_acts_post": np.maximum(
    ...         rng.normal(size=(2, 5, 32)), 0
    ...     ),
    ... }
    >>> acts = from_hidden_states(cache, mask)
    >>> acts
    ActivationSet(2 rows, layers 0-1, d_model 8, 1 SAE configs of 32 features)
    >>> acts.sae_layers
    array([1])
    """
    require_pooling(pooling)
    batches = _pool_batches(hidden_states, attention_mask, pooling)
    for warning in _warnings_of(batches):
        warnings.warn(warning, SklprepWarning, stacklevel=2)
    counts = np.concatenate([batch.n_rows for batch in batches])
    sentence_of_row = np.repeat(np.arange(len(counts)), counts)
    if sentences is not None:
        sentences = np.asarray(sentences, np.str_)
    elif groups is None:
        groups = np.arange(len(counts))
    labels, sentences, groups = (
        None if values is None else _one_each(values, name, batches)[sentence_of_row]
        for name, values in {"labels": labels, "sentences": sentences, "groups": groups}.items()
    )
    first = batches[0]
    source = ArraySource(
        _concatenate([batch.hidden_states for batch in batches]),
        _concatenate([batch.embeddings for batch in batches]),
        _stack_features([batch.features for batch in batches]),
        labels=labels,
        layers=first.layers or None,
        sae_layers=list(first.features) or None,
        average_l0s=None,
        sentences=sentences,
        groups=groups,
        pooling=pooling,
        sentence_indices=sentence_of_row,
    )
    return ActivationSet(Rows(source))


@dataclass(frozen=True)
class _PooledBatch:
    """The rows of one batch, and the number of rows of each sentence."""

    layers: list[int]
    hidden_states: NDArray[np.float32] | None
    embeddings: NDArray[np.float32] | None
    features: dict[int, csr_array]
    n_rows: NDArray[np.int64]
    n_tokens: int
    doubts: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Description of what batches of one model must share."""
        states, embeddings = self.hidden_states, self.embeddings
        parts = []
        if states is not None:
            parts.append(f"layers {format_layers(self.layers)}, d_model {states.shape[2]}")
        parts.append("no embeddings" if embeddings is None else f"embeddings {embeddings.shape[1]}")
        if self.features:
            widths = sorted({matrix.shape[1] for matrix in self.features.values()})
            parts.append(
                f"{', '.join(map(str, widths))} SAE features of layers"
                f" {format_layers(list(self.features))}"
            )
        return ", ".join(parts)


def _concatenate(parts: Sequence[Any]) -> NDArray[np.float32] | None:
    return None if parts[0] is None else np.concatenate(parts)


def _stack_features(parts: Sequence[Mapping[int, csr_array]]) -> list[csr_array] | None:
    from scipy.sparse import vstack

    matrices = [vstack([part[layer] for part in parts], format="csr") for layer in parts[0]]
    return matrices or None


def _one_each(values: Any, name: str, batches: Sequence[_PooledBatch]) -> NDArray[Any]:
    array = to_numpy(values, name)
    n_sentences = sum(len(batch.n_rows) for batch in batches)
    if array.shape != (n_sentences,):
        as_tokens = len(batches) == 1 and array.shape == (batches[0].n_tokens,)
        raise UsageError(
            f"{name} must hold one value for each of the {n_sentences} sentences, got shape"
            f" {array.shape}."
            + (
                " That is one for each token: the first axis of each array must be the sentences,"
                " with shape (batch, n_tokens, d_model)."
                if as_tokens
                else ""
            )
        )
    return array


def _pool_batches(hidden_states: Any, masks: Any, pooling: str) -> list[_PooledBatch]:
    pooled: list[_PooledBatch] = []
    for number, (batch, mask) in enumerate(_batches(hidden_states, masks)):
        one = _pool_batch(batch, mask, pooling, f"Batch {number}")
        if pooled and one.kind != pooled[0].kind:
            raise UsageError(
                f"Batch {number} has {one.kind}, but batch 0 {pooled[0].kind}; expected batches of"
                " one model."
            )
        pooled.append(one)
    if not pooled:
        raise UsageError("hidden_states has no batches; expected at least one.")
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
            f" {type(masks).__name__}. For generate(), give the tuple itself, which is one batch."
        )
    nothing = object()
    for number, (batch, mask) in enumerate(zip_longest(hidden_states, masks, fillvalue=nothing)):
        if batch is nothing or mask is nothing:
            which = ("batch", "mask") if batch is nothing else ("mask", "batch")
            raise UsageError(f"There is no {which[0]} for {which[1]} {number}; expected one each.")
        yield batch, mask


def _pool_batch(batch: Any, mask: Any, pooling: str, what: str) -> _PooledBatch:
    from scipy.sparse import csr_array

    output = identify(batch, what)
    layers, features = output.layers, output.sae_features
    number, pieces = next(iter((layers or features).items()))
    first = f"layer {number}" if layers else f"SAE features of layer {number}"
    shape = _read(pieces, f"{what}: {first}").shape
    given = None if mask is None else read_mask(mask, what)
    real = find_real(given, shape[:2], output.n_prompt, what)

    def rows_of(pieces: Sequence[Any], name: str, width: int | None = None) -> NDArray[np.float32]:
        array = _read(pieces, f"{what}: {name}")
        if array.shape[:2] != shape[:2] or width not in (None, array.shape[2]):
            raise UsageError(
                f"{what}: {name} has shape {array.shape}, {first} {shape}; expected the same"
                " sentences and tokens in all, and one d_model."
            )
        return _pool(array, real, pooling)

    states = [rows_of(p, f"layer {n}", shape[2]) for n, p in layers.items()]
    return _PooledBatch(
        list(layers),
        np.stack(states, axis=1) if states else None,
        None if output.embeddings is None else rows_of(output.embeddings, "embeddings"),
        {n: csr_array(rows_of(p, f"SAE features of layer {n}")) for n, p in features.items()},
        n_rows=real.sum(axis=1) if pooling == "none" else np.ones(len(real), np.int64),
        n_tokens=shape[1],
        doubts=_find_doubts(output, given, real, what),
    )


def _read(pieces: Sequence[Any], name: str) -> NDArray[Any]:
    arrays = [_read_piece(piece, name) for piece in pieces]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)


def _read_piece(values: Any, name: str) -> NDArray[Any]:
    if isinstance(values, list | tuple) and any(map(is_array, values)):
        raise UsageError(
            f"{name} is a {type(values).__name__} of {len(values)}; expected one array. If a block"
            " returned it, give its first entry."
        )
    array = to_numpy(values, name)
    require_numbers(array, name)
    if array.ndim != 3 or array.dtype.kind != "f" or 0 in array.shape:
        pooled = array.ndim == 2 and array.dtype.kind == "f"
        raise UsageError(
            f"{name} is {array.dtype} of shape {array.shape}; expected floats of shape (batch,"
            " n_tokens, d_model)."
            + (" For rows that are already pooled, use from_arrays." if pooled else "")
        )
    return array


def _find_doubts(
    output: ModelOutput, mask: NDArray[Any] | None, real: NDArray[np.bool_], what: str
) -> dict[str, str]:
    """Return warnings about what may be misread, by kind."""
    doubts: dict[str, str] = {}
    n_sentences, n_tokens = real.shape
    if mask is None and min(real.shape) > 1:
        doubts["no mask"] = (
            f"{what} has {n_sentences} sentences of {n_tokens} tokens and no attention_mask: every"
            " position counts as a token, padding included. Give the tokenizer's mask."
        )
    elif mask is not None and n_sentences > 1 and mask.shape[1] == output.n_prompt != n_tokens:
        doubts["ends unknown"] = (
            f"{what}: attention_mask covers the {output.n_prompt} tokens of the prompt; the"
            f" {n_tokens - output.n_prompt} generated ones count in all {n_sentences} sequences,"
            " also after the end of shorter ones. Give the mask of output.sequences, with 0 after"
            " the end."
        )
    if output.unread:
        names = ", ".join(output.unread[:3])
        more = f" and {len(output.unread) - 3} more" if len(output.unread) > 3 else ""
        doubts["unread"] = (
            f"{what}: {names}{more} not read. Only the output of a block is,"
            " blocks.N.hook_resid_post, and the features of an SAE on it."
        )
    return doubts


def _warnings_of(batches: Sequence[_PooledBatch]) -> list[str]:
    """Return one warning of each kind, about the first batch that has it."""
    doubts = {kind: text for batch in reversed(batches) for kind, text in batch.doubts.items()}
    first, *others = ((batch.n_tokens, len(batch.n_rows)) for batch in batches)
    if first[0] > 1 and set(others) == {(1, first[1])}:
        doubts["steps"] = (
            f"Batches 1 to {len(others)} have one token per sentence, like the steps of generate();"
            " each counts as a separate sentence and group. If they are steps, give the tuple that"
            " generate() returned instead of a list of its steps."
        )
    return list(doubts.values())


def _pool(array: NDArray[Any], real: NDArray[np.bool_], pooling: str) -> NDArray[np.float32]:
    """Make rows of the real tokens; means are computed in float64, then rounded."""
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
