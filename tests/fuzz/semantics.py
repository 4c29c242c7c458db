"""Semantic faults, drawn by Hypothesis: sound folders give what numpy reads, others name the fault.

A failing example is shrunk before it is reported; the same seed draws it again.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import sklprep
from sklprep.exceptions import DataError, SklprepWarning

from ..sentence_files import write_sentence
from .answers import check_message, same
from .folders import write_all
from .samples import POOLINGS, expected_of
from .table import Row, Run, Tally
from .workers import Fault, Limits

_FULL, _SHORT = 2_000, 50
_MEMBERS = ("embeddings", "hidden_states", "activations")
_LABEL = "concept_strength_label"

Files = list[dict[str, NDArray[Any]]]
Draw = st.DrawFn


@st.composite
def sound_files(draw: Draw) -> tuple[Files, str]:
    """The members of one to four sentence files, and a pooling."""
    layers = draw(st.lists(st.integers(0, 40), min_size=1, max_size=4))
    options = {name: draw(st.integers(1, 6)) for name in ("d_embed", "d_model", "n_features")}
    options |= {"dtype": draw(st.sampled_from(["float16", "float32", "float64"]))}
    options |= {"omit": draw(st.sets(st.sampled_from(["sentence", "fragments", "hidden_dim"])))}
    first, seed = draw(st.integers(0, 1)), draw(st.integers(0, 999))
    files = []
    for index, n in enumerate(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)), first):
        final = np.arange(n) == draw(st.integers(0, n - 1))
        content = {"index": index, "seed": seed, "layers": layers, "n_tokens": n}
        files.append(write_sentence(io.BytesIO(), **content, is_final_token=final, **options))
    return files, draw(st.sampled_from(POOLINGS))


def _set_value(draw: Draw, files: Files, pooling: str) -> tuple[int, str]:
    """A value that is no finite number, in a token that is used."""
    k, member = _one_of(draw, files), draw(st.sampled_from(_MEMBERS))
    values = files[k][member].copy()
    n_tokens, width = values.shape[-2:]
    final = int(np.flatnonzero(files[k]["is_final_token"])[0])
    token = final if pooling == "final" else draw(st.integers(0, n_tokens - 1))
    place = draw(st.integers(0, len(values) - 1)) if member == "activations" else 0
    bad = np.nan if pooling == "max" else draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    values.reshape(-1, n_tokens, width)[place, token, draw(st.integers(0, width - 1))] = bad
    files[k][member] = values
    return k, f"'{member}'"


def _set_label(draw: Draw, files: Files, _: str) -> tuple[int, str]:
    k = _one_of(draw, files)
    strange = st.floats(0.01, 0.99) | st.integers(4, 2**62) | st.integers(-(2**62), -1)
    label = draw(st.none() | st.just(np.nan) | strange)
    files[k][_LABEL] = np.array(label)
    if label is None:
        del files[k][_LABEL]
    return k, f"'{_LABEL}' is"


def _set_final_tokens(draw: Draw, files: Files, pooling: str) -> tuple[int, str]:
    hypothesis.assume(pooling == "final")
    k = _one_of(draw, files)
    n = len(files[k]["is_final_token"])
    marks = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    hypothesis.assume(sum(marks) != 1)
    files[k]["is_final_token"] = np.array(marks)
    return k, f"'is_final_token' marks {sum(marks)} final tokens; expected 1"


def _set_index(draw: Draw, files: Files, _: str) -> tuple[int, str]:
    """Another file's index, or a fraction."""
    k = _other_than_first(draw, files)
    index = draw(st.floats(0.01, 0.99) | st.just(int(files[0]["sentence_index"])))
    files[k]["sentence_index"] = np.array(index)
    return k, "'sentence_index' is"


def _set_layers(draw: Draw, files: Files, _: str) -> tuple[int, str]:
    k, name = _other_than_first(draw, files), draw(st.sampled_from(["layers", "average_l0s"]))
    files[k][name] = files[k][name] + draw(st.integers(1, 5))
    return k, f"'{name}' differs from"


def _set_width(draw: Draw, files: Files, _: str) -> tuple[int, str]:
    k, member = _other_than_first(draw, files), draw(st.sampled_from(_MEMBERS))
    files[k][member] = np.repeat(files[k][member], 2, axis=-1)
    return k, f"'{member}' differs from"


def _set_tokens(draw: Draw, files: Files, _: str) -> tuple[int, str]:
    k, member = _one_of(draw, files), draw(st.sampled_from(_MEMBERS[1:]))
    files[k][member] = np.concatenate([files[k][member]] * 2, axis=-2)
    return k, f"'{member}' has shape"


def _set_dtype(draw: Draw, files: Files, _: str) -> tuple[int, str]:
    k, member = _one_of(draw, files), draw(st.sampled_from(_MEMBERS))
    n_bytes = draw(st.sampled_from(["|V2", "<i8", "<c8", ">f4", "<U2", "|S4", "|b1", "<M8[s]"]))
    files[k][member] = np.zeros(files[k][member].shape, n_bytes)
    return k, f"'{member}' has dtype"


def _drop(draw: Draw, files: Files, _: str) -> tuple[int, str]:
    k, name = (
        _one_of(draw, files),
        draw(st.sampled_from(["layers", "average_l0s", "is_final_token"])),
    )
    del files[k][name]
    return k, f"'{name}' is missing"


def _one_of(draw: Draw, files: Files) -> int:
    return draw(st.integers(0, len(files) - 1))


def _other_than_first(draw: Draw, files: Files) -> int:
    hypothesis.assume(len(files) > 1)
    return draw(st.integers(1, len(files) - 1))


_FAULTS: tuple[Callable[[Draw, Files, str], tuple[int, str]], ...] = (
    _set_value,
    _set_label,
    _set_final_tokens,
    _set_index,
    _set_layers,
    _set_width,
    _set_tokens,
    _set_dtype,
    _drop,
)


def _read(files: Files, pooling: str, folder: Path, *, deflated: bool) -> dict[str, Any]:
    """Write the files; read everything, or what was wrong."""
    write_all(folder, {})
    for k, members in enumerate(files):
        save = np.savez_compressed if deflated else np.savez
        save(folder / f"sentence_{k:06d}.npz", **members)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", SklprepWarning)
        acts = sklprep.load_activations(folder, pooling=pooling)
        return {
            "labels": acts.labels,
            "embeddings": acts.embeddings,
            "hidden_states": acts.hidden_states,
            "activations": np.stack([matrix.toarray() for matrix in acts.activations]),
            "sentence_indices": acts.sentence_indices,
            "groups": acts.groups,
            "sentences": acts.sentences,
        }


def semantic_faults(run: Run) -> Iterator[Row]:
    """Folders drawn by Hypothesis, sound or with one semantic fault."""
    part, folder = "semantic_faults", run.scratch / "semantic"
    tally = Tally(run, part)

    @hypothesis.seed(run.seed)
    @hypothesis.settings(
        max_examples=_SHORT if run.is_short else _FULL,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(sound_files(), st.sampled_from((None, *_FAULTS)), st.data())
    def check_one(sound: tuple[Files, str], spoil: Any, data: st.DataObject) -> None:
        files, pooling = sound
        deflated = data.draw(st.booleans())
        if spoil is None:
            values = _read(files, pooling, folder, deflated=deflated)
            expected = expected_of(files, pooling)
            for name, value in values.items():
                if not same(expected[name], value):
                    raise Fault(f"gave wrong {name}: {value!r} instead of {expected[name]!r}")
            tally.verdicts["right"] += 1
            return
        number, says = spoil(data.draw, files, pooling)
        try:
            _read(files, pooling, folder, deflated=deflated)
        except DataError as error:
            check_message(str(error))
            if f"sentence_{number:06d}.npz" not in str(error) or says not in str(error):
                raise Fault(f"expected {says!r} of file {number}, got: {error}") from None
            tally.verdicts["named"] += 1
            return
        raise Fault(f"expected {says!r} of file {number}, got no error")

    try:
        check_one()
    except Exception as error:  # Hypothesis has shrunk the example and noted it
        notes = "\n".join(getattr(error, "__notes__", ()))
        tally.add_fault(None, f"{type(error).__name__}: {error}\n{notes}")
    n = sum(tally.verdicts.values())
    yield tally.row(f"{n:,} folders by Hypothesis", "right values, or the fault named", Limits())
