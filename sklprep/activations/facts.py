"""Facts about a set of rows, gathered here once for all places that show them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError
from sklprep.files.faults import brief
from sklprep.formats.rows import Rows
from sklprep.notebook.words import YSummary, count, summarize_y

_MOST_SENTENCES = 5  # shown on a card


@dataclass(frozen=True, slots=True)
class SetFacts:
    """Facts about a set of rows, for which no activations are read.

    Attributes
    ----------
    name, pooling : str
    n_rows, n_sentences, n_groups : int
    layers : list of int
        Layers of the hidden states.
    saes : list of (int, float)
        Layer and average_l0 of each SAE config.
    d_embed, d_model, n_features : int or None
        Widths; None for missing members.
    labels : YSummary or None
        Summary of the labels of rows; None if there are none, and `labels_fault` says why.
    sentence_labels : dict of str to int, or None
        Number of sentences with each label.
    labels_fault : str
    left_out : list of str
        Names of files that were left out.
    has_text : bool
    first_sentences : list of (str, str)
        Index and text of the first few distinct sentences.
    mapping : str
        Which arrays of another tool became which layers; empty for sklprep's own formats.
    """

    name: str
    pooling: str
    n_rows: int
    n_sentences: int
    n_groups: int
    layers: list[int]
    saes: list[tuple[int, float]]
    d_embed: int | None
    d_model: int | None
    n_features: int | None
    labels: YSummary | None
    sentence_labels: dict[str, int] | None
    labels_fault: str
    left_out: list[str]
    has_text: bool
    first_sentences: list[tuple[str, str]]
    mapping: str


def gather_facts(rows: Rows) -> SetFacts:
    """Gather the facts from headers and small members."""
    source, sentences = rows.source, sentence_rows(rows)
    labels = sentence_labels = None
    fault = ""
    try:
        labels, sentence_labels = summarize_y(rows.labels), count(rows.labels[sentences])
    except DataError as error:
        fault = brief(error)
    saes = zip(source.sae_layers.tolist(), source.average_l0s.tolist(), strict=True)
    return SetFacts(
        source.name,
        source.pooling,
        len(rows),
        len(sentences),
        len(np.unique(rows.split_groups)),
        [] if source.d_model is None else source.layers.tolist(),
        list(saes),
        source.d_embed,
        source.d_model,
        source.n_features,
        labels,
        sentence_labels,
        fault,
        list(source.left_out),
        rows.sentences is not None,
        _first_sentences(rows),
        source.mapping,
    )


def sentence_rows(rows: Rows) -> NDArray[np.int64]:
    """Return the position of one row per sentence: all rows, or the first token of each."""
    if rows.source.pooling != "none":
        return np.arange(len(rows))
    return np.sort(np.unique(rows.sentence_indices, return_index=True)[1])


def _first_sentences(rows: Rows) -> list[tuple[str, str]]:
    texts = rows.sentences
    found: dict[tuple[str, str], None] = {}
    if texts is not None:
        for number, text in zip(rows.sentence_indices, texts, strict=True):
            found[str(number), str(text)] = None
            if len(found) == _MOST_SENTENCES:
                break
    return list(found)
