"""What there is to say of a set of rows: gathered here once, and worded by who shows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError
from sklprep.files.faults import brief
from sklprep.formats.rows import Rows
from sklprep.notebook.words import YSummary, count, summarize_y

_MOST_SENTENCES = 5  # that a card folds out


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What there is to say of a set of rows; no activations are read for it.

    Attributes
    ----------
    name, pooling : str
    n_rows, n_sentences, n_groups : int
    layers : list of int
        Those of the hidden states.
    saes : list of (int, float)
        Layer and average_l0 of each SAE config.
    d_embed, d_model, n_features : int or None
        Widths; None for what there is not.
    labels : YSummary or None
        Of the rows; None where there are none, of which `labels_fault` says why.
    sentence_labels : dict of str to int, or None
        How many sentences have each label.
    labels_fault : str
    left_out : list of str
        Names of files.
    has_text : bool
    first_sentences : list of (str, str)
        Index and text of the first few that differ.
    mapping : str
        How the numbers of another tool became layers; empty where they are ours.
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
    """Gather them from headers and small members."""
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
    """Positions of the rows that stand for a sentence: all of them, or its first token."""
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
