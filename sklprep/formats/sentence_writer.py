"""Writing folders of sentence files, with one sentence in memory at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError
from sklprep.files.atomic import atomic_folder, require_new_folder
from sklprep.files.npz_writer import write_npz
from sklprep.formats.members import Block
from sklprep.formats.rows import Rows

Arrays = dict[str, Any]
"""The arrays of one sentence file."""

_INSTEAD = "to_pack writes any rows."


def write_sentence_files(folder: Path, sentences: Iterable[Arrays], n: int) -> None:
    """Write `n` sentences, in order, as the files ``sentence_000000.npz`` and so on."""
    width = max(6, len(str(n - 1)))
    for number, members in enumerate(sentences):
        write_npz(folder / f"sentence_{number:0{width}d}.npz", members, compress=True, sync=False)
        del members  # or it would stay in memory while the next one is created


def export_sentences(rows: Rows, output: str | os.PathLike[str]) -> None:
    """Write rows as a folder of sentence files, from which they can be read again.

    Parameters
    ----------
    rows : Rows
    output : path-like
        A folder that does not exist yet, or is empty.

    Raises
    ------
    OutputError
        If the path cannot be written.
    DataError
        If sentence files cannot represent the rows.
    """
    require_new_folder(output)
    layers, average_l0s = _config_axis(rows)
    bounds = _bounds_of(rows)
    firsts = bounds[:-1]
    final, labels, texts = rows.is_final_token, rows.labels[firsts], rows.sentences
    sentences = (
        {
            **_wide_members(blocks, layers, rows.source.stored_dtype),
            "is_final_token": final[start:stop],
            "concept_strength_label": label.astype(np.int64),
            "sentence_index": index,
            **({} if texts is None else {"sentence": texts[start]}),
            "layers": layers,
            "average_l0s": average_l0s,
        }
        for blocks, (start, stop), label, index in zip(
            rows.blocks(bounds),
            pairwise(bounds),
            labels,
            rows.sentence_indices[firsts],
            strict=True,
        )
    )
    with atomic_folder(output) as work:
        write_sentence_files(work, sentences, len(firsts))


def _wide_members(blocks: Iterable[Block], layers: NDArray[np.int64], dtype: str) -> Arrays:
    members: Arrays = {}
    states, features = {}, []
    for member, number, values in blocks:
        if member == "embeddings":
            members[member] = values.astype(dtype)
        elif member == "hidden_states":
            states[number] = values.astype(dtype)
        else:
            features.append(values.toarray().astype(dtype))
    members["hidden_states"] = np.stack([states[layer] for layer in layers.tolist()])
    if features:
        members["activations"] = np.stack(features)
    return members


def _config_axis(rows: Rows) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return layer and average_l0 of each position along the config axis of the files."""
    source = rows.source
    if source.d_model is None:
        raise DataError(
            f"The set has no hidden states; expected some, as in all sentence files. {_INSTEAD}"
        )
    if source.n_features is None:
        return source.layers, np.zeros(len(source.layers), np.int64)
    odd = np.setxor1d(source.layers, source.sae_layers)
    if len(odd):
        there, missing = "hidden states", "SAE features"
        if odd[0] in source.sae_layers:
            there, missing = missing, there
        raise DataError(
            f"Layer {odd[0]} has {there} but no {missing}; expected both, because sentence files"
            f" hold both for each layer. {_INSTEAD}"
        )
    return source.sae_layers, source.average_l0s


def _bounds_of(rows: Rows) -> list[int]:
    """Return the first row of each sentence, and the number of rows; check that files suffice."""
    n = len(rows)
    if not n:
        raise DataError("The set has no rows; expected at least 1.")
    indices, groups, labels = rows.sentence_indices, rows.groups, rows.labels
    begins = np.ones(n, bool)
    if rows.source.pooling == "none":
        begins[1:] = indices[1:] != indices[:-1]
    firsts = np.flatnonzero(begins)
    sentence = np.cumsum(begins) - 1
    one_each: Mapping[str, NDArray[Any] | None] = {
        "group": groups,
        "label": labels,
        "text": rows.sentences,
    }
    for name, values in one_each.items():
        if values is not None and (differs := values != values[firsts][sentence]).any():
            row = int(np.argmax(differs))
            raise DataError(
                f"Sentence {indices[row]} has rows with the {name}s"
                f" {values[firsts[sentence[row]]]} and {values[row]}; expected one {name}, because"
                f" a sentence file holds only one. {_INSTEAD}"
            )
    apart = "sentence, whose rows must be adjacent" if rows.source.pooling == "none" else "row"
    for name, values in (("sentence_index", indices), ("group", groups)):
        _, distinct = np.unique(values[firsts], return_index=True)
        if len(distinct) < len(firsts):
            row = firsts[np.setdiff1d(np.arange(len(firsts)), distinct)[0]]
            other = firsts[values[firsts] == values[row]][0]
            raise DataError(
                f"Rows {other} and {row} share the {name} {values[row]}; expected a different one"
                f" in each {apart}, because sentence files do not hold groups. {_INSTEAD}"
            )
    good = np.isin(labels, [0, 1, 2, 3])
    if not good.all():
        row = int(np.argmin(good))
        raise DataError(
            f"Row {row} has the label {labels[row : row + 1].tolist()[0]!r}; expected 0, 1, 2 or 3,"
            f" the labels of sentence files. {_INSTEAD}"
        )
    n_final = np.add.reduceat(rows.is_final_token.astype(np.int64), firsts)
    if (n_final != 1).any():
        one = int(np.argmax(n_final != 1))
        raise DataError(
            f"Sentence {indices[firsts[one]]} has {n_final[one]} final tokens among its rows;"
            f" expected 1. Keep whole sentences, by groups. {_INSTEAD}"
        )
    return [*firsts.tolist(), n]
