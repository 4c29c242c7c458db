"""Sound files that contradict themselves, their neighbours, or the question asked of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..sentence_files import rewrite
from .named import (
    CONCEPT,
    EMBEDDING,
    FEATURE,
    SAE,
    SWEEP,
    SWEEP_FEATURE,
    VICTIM,
    Named,
    write_files,
)

_FEW = "Warning: Only 3 samples (expected ~100)"
_TWICE = (0, 0, 1)


def _ones(*shape: int, **values: float) -> NDArray[np.float32]:
    """Ones, but for values at places of the flat array, given as ``at21=nan``."""
    array = np.ones(shape, np.float32)
    for place, value in values.items():
        array.reshape(-1)[int(place[2:])] = value
    return array


_LAST = np.arange(4) == 3
_NONE, _ALL = np.zeros(4, bool), np.ones(4, bool)
_LABEL = "concept_strength_label"
_NO_TOKENS = {
    "embeddings": _ones(0, 5),
    "hidden_states": _ones(2, 0, 7),
    "activations": _ones(2, 0, 40),
    "is_final_token": _LAST[:0],
}
_WIDE = ("embeddings", "hidden_states", "activations")
_ONE_FILE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("is_final_token' marks 0 final tokens; expected 1", {"is_final_token": _NONE}),
    ("is_final_token' marks 4 final tokens; expected 1", {"is_final_token": _ALL}),
    ("is_final_token' has shape (5,) of bool", {"is_final_token": np.arange(5) == 2}),
    ("layers' differs from sentence_000000.npz: layers (0, 2)", {"layers": [0, 2]}),
    ("average_l0s' differs from sentence_000000.npz", {"average_l0s": [1, 2]}),
    ("embeddings width 6; expected 5 as there", {"embeddings": _ones(4, 6)}),
    ("hidden_states width 6; expected 7 as there", {"hidden_states": _ones(2, 4, 6)}),
    ("activations width 6; expected 40 as there", {"activations": _ones(2, 4, 6)}),
    (
        "hidden_states' has shape (2, 3, 7); expected (2, 4, width)",
        {"hidden_states": _ones(2, 3, 7)},
    ),
    ("hidden_states' has shape (7,); expected (2, 4, width)", {"hidden_states": _ones(7)}),
    ("has no tokens; expected at least 1", _NO_TOKENS),
    ("concept_strength_label' is 4; expected a label", {_LABEL: 4}),
    ("concept_strength_label' is -1; expected a label", {_LABEL: -1}),
    ("concept_strength_label' is 1.5; expected a label", {_LABEL: 1.5}),
    ("concept_strength_label' is nan; expected a label", {_LABEL: np.nan}),
    ("concept_strength_label' is missing; expected a label", {_LABEL: None}),
    ("concept_strength_label' has shape (2,); expected a label", {_LABEL: [1, 2]}),
    ("sentence_index' is 0, the same as in sentence_000000.npz", {"sentence_index": 0}),
    ("sentence_index' is 1.5; expected a whole number", {"sentence_index": 1.5}),
    ("sentence_index' differs from sentence_000000.npz", {"sentence_index": None}),
    ("holds no activations; expected embeddings or hidden_states", dict.fromkeys(_WIDE)),
    ("hidden_states' differs from sentence_000000.npz", {"hidden_states": None}),
    ("layers' is missing; expected an array of that name", {"layers": None}),
)


def every() -> Iterator[Named]:
    """All of them."""
    for says, members in _ONE_FILE:
        yield Named(says, partial(_with_members, members), says)
    for bad in (np.nan, np.inf, -np.inf):
        yield from _not_finite(bad)
    for name, options, command in (
        ("float16", {"dtype": "float16"}, CONCEPT),
        ("constant columns", {"embeddings": _ones(4, 5)}, EMBEDDING),
        ("layers not sorted", {"layers": (1, 0)}, CONCEPT),
        ("a layer twice", {"layers": _TWICE}, CONCEPT),
        ("no labels, none asked for", {"omit": (_LABEL,)}, FEATURE),
        ("labels of 7, none asked for", {_LABEL: 7}, FEATURE),
    ):
        yield Named(name, partial(write_files, **options), _FEW, command, 0)
    yield from _of_the_question()


def _not_finite(bad: float) -> Iterator[Named]:
    """A value in the final token of the first layer, and one in another token."""
    for member, shape, command, where in (
        ("hidden_states", (2, 4, 7), CONCEPT, " layer 0"),
        ("embeddings", (4, 5), EMBEDDING, ""),
        ("activations", (2, 4, 40), SAE, " layer 0"),
    ):
        used = {member: _ones(*shape, **{f"at{3 * shape[-1]}": bad}), "is_final_token": _LAST}
        says = f"'{member}'{where} has 1 NaN or infinite values; expected finite numbers"
        yield Named(f"{bad} in {member}", partial(_with_members, used), says, command)
        unused = {member: _ones(*shape, at0=bad), "is_final_token": _LAST}
        made = partial(_with_members, unused)
        yield Named(f"{bad} where nobody looks", made, _FEW, command, 0)


def _of_the_question() -> Iterator[Named]:
    dead = {"activations": np.zeros((2, 4, 40), np.float32)}
    for name, made, says, command in (
        ("two SAEs, none chosen", partial(write_files, layers=_TWICE),
         "average_l0 mismatch: layer 0 has 2 SAE configs, with average_l0", FEATURE),
        ("no such layer", write_files, "Layer 31 not found in data", CONCEPT.replace("0-1", "31")),
        ("no such feature", write_files, "Feature index must be 0-39, got 40",
         FEATURE.replace("-feature 3", "-feature 40")),
        ("no such average_l0", write_files, "average_l0 mismatch: layer 0 has no SAE config with",
         f"{FEATURE} --average-l0 3"),
        ("dead feature, scored", partial(write_files, n=12, **dead),
         "All 12 values of y are 0.0: there is nothing to predict", SWEEP_FEATURE),
        ("one class, scored", partial(write_files, n=12, concept_strength_label=1),
         "All 12 values of y are 1: there is nothing to predict", SWEEP),
        ("fewer rows than folds", write_files, "fold", SWEEP),
        ("class smaller than folds", _with_rare_class, "fold", SWEEP),
    ):  # fmt: skip
        yield Named(name, made, says, command)
    yield Named("dead feature", partial(write_files, **dead), _FEW, FEATURE, 0)
    yield Named("gap in the numbering", _with_gap, "Warning: 1 gaps in the numbering of", code=0)


def _with_members(members: dict[str, Any], here: Path) -> None:
    """Sentence files, one of them with these members, and without those that are None."""
    write_files(here)
    omit = [name for name, value in members.items() if value is None]
    there = {name: value for name, value in members.items() if value is not None}
    rewrite(here / VICTIM, omit=omit, **there)


def _with_gap(here: Path) -> None:
    write_files(here, 4)
    (here / VICTIM).unlink()


def _with_rare_class(here: Path) -> None:
    write_files(here, 12, changes={0: {_LABEL: 3}}, concept_strength_label=1)
