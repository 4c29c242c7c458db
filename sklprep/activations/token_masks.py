"""Which tokens of a batch are real, according to the attention mask of a tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.activations.arrays import to_numpy
from sklprep.exceptions import UsageError


def read_mask(mask: Any, what: str) -> NDArray[Any]:
    """Read and validate an attention mask; `what` names the batch in errors."""
    if hasattr(mask, "keys"):
        raise UsageError(
            f"{what}: attention_mask is a {type(mask).__name__}; expected the array in it:"
            " tokens['attention_mask']."
        )
    array = to_numpy(mask, "attention_mask")
    if array.dtype.kind not in "biuf" or not ((array == 1) | (array == 0)).all():
        raise UsageError(
            f"{what}: attention_mask holds {array.dtype} values other than 0 and 1; expected 1 for"
            " a real token and 0 for padding, as a tokenizer returns it."
        )
    return array


def find_real(
    mask: NDArray[Any] | None, shape: tuple[int, ...], n_prompt: int | None, what: str
) -> NDArray[np.bool_]:
    """Return which tokens are real, of shape (batch, n_tokens)."""
    if mask is None:
        return np.ones(shape, bool)
    real = mask == 1
    if n_prompt is not None and real.ndim == 2:
        real = _fit_to_generated(real, n_prompt, shape[1])
    if real.shape != shape:
        expected = f"{shape}, one value for each token"
        if n_prompt is not None:
            prompt, sequences = (shape[0], n_prompt), (shape[0], shape[1] + 1)
            expected = f"{prompt} like the prompt, or {sequences} like output.sequences"
        do = " The arrays have their tokens first: give array.swapaxes(0, 1)."
        raise UsageError(
            f"{what}: attention_mask has shape {mask.shape}; expected {expected}."
            + (do if mask.shape == shape[::-1] else "")
        )
    empty = np.flatnonzero(~real.any(axis=1))
    if len(empty):
        raise UsageError(
            f"{what}: sentence {empty[0]} has no real token in its attention_mask ({len(empty)} of"
            f" {len(real)} sentences have none); expected at least 1. Leave it out."
        )
    return real


def _fit_to_generated(real: NDArray[np.bool_], n_prompt: int, n_tokens: int) -> NDArray[np.bool_]:
    """Turn a mask of the prompt, or of ``output.sequences``, into one of the tokens with states.

    The model never reads the last token that it generates, so that token has no states.
    """
    if real.shape[1] == n_prompt:
        generated = np.ones((len(real), n_tokens - n_prompt), bool)
        return np.concatenate([real, generated], axis=1)
    return real[:, :-1] if real.shape[1] == n_tokens + 1 else real
