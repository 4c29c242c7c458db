"""Dumps of other tools with one of their files damaged."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import signal
import struct
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import sklprep
from sklprep.formats.pack_reader import Pack

from ..dump_files import safetensors
from .answers import Answer, Run, check_messages, check_run, read_parts, run_command
from .folders import content_of, write_all
from .mutations import Rng, mutate_bytes, mutate_json, mutate_npy, pick
from .samples import choose, clear
from .table import rng_of
from .workers import Fault, peak_memory

_RNG = np.random.default_rng(0)
_STATES = _RNG.normal(size=(2, 6, 5)).astype("<f4")  # layers, rows, width
_TOKENS = _RNG.normal(size=(2, 6, 3, 5)).astype("<f4")  # layers, sentences, tokens, width
_MASK = np.arange(3) < _RNG.integers(1, 4, 6)[:, None]
_LABELS = np.arange(6) % 2
_METADATA = {"labels": json.dumps(_LABELS.tolist()), "sentences": json.dumps(list("abcdef"))}
_NEEDS = {"saelens": "pyarrow", "lmprobe": "pyarrow", "hdf5": "h5py", "zarr": "zarr"}
_WITHOUT_LABELS = ("vllm", "delphi")
NATIVE = ("lmprobe", "hdf5", "zarr")
"""Formats that libraries in C read: in a child, which may die of a mutant."""
_CHILD_SECONDS = 20  # twice as long as a case may hang


def is_written(kind: str) -> bool:
    """Whether what writes dumps of a format is installed."""
    try:
        __import__(_NEEDS.get(kind, "numpy"))
    except ImportError:
        return False
    return True


def _write_safetensors(here: Path) -> None:
    tensors = {f"layer_{n}": layer for n, layer in enumerate(_STATES)} | {"labels": _LABELS}
    (here / "dump").write_bytes(safetensors(tensors, _METADATA))


def _write_shards(here: Path) -> None:
    for number in range(2):
        rows = slice(3 * number, 3 * number + 3)
        tensors = {f"layer_{n}": layer[rows] for n, layer in enumerate(_TOKENS)}
        tensors |= {"attention_mask": _MASK[rows], "labels": _LABELS[rows]}
        (here / f"dump/{number}.safetensors").write_bytes(safetensors(tensors))


def _write_features(here: Path) -> None:
    features = np.maximum(_RNG.normal(size=(6, 9)), 0)
    acts = sklprep.ActivationSet.from_arrays(
        hidden_states=_STATES.swapaxes(0, 1), activations=[features], labels=_LABELS, sae_layers=[1]
    )
    acts.to_safetensors(here / "dump")


def _write_npy(here: Path) -> None:
    for number, layer in enumerate(_TOKENS):
        np.save(here / f"dump/layer_{number}.npy", layer)
    np.save(here / "dump/attention_mask.npy", _MASK)
    np.save(here / "dump/labels.npy", _LABELS)


def _write_vllm(here: Path) -> None:
    for number in range(6):
        states = _TOKENS[:, number].swapaxes(0, 1).copy()
        tensors = {"hidden_states": states, "token_ids": np.arange(3)}
        (here / f"dump/{number}.safetensors").write_bytes(safetensors(tensors))


def _write_saelens(here: Path) -> None:
    import pyarrow as pa

    columns = {f"blocks.{n}.hook_resid_post": layer.tolist() for n, layer in enumerate(_TOKENS)}
    table = pa.table(columns | {"label": _LABELS.tolist(), "text": list("abcdef")})
    with (
        pa.OSFile(str(here / "dump/data.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table, max_chunksize=4)
    state = {"_data_files": [{"filename": "data.arrow"}]}
    (here / "dump/state.json").write_text(json.dumps(state))


def _write_delphi(here: Path) -> None:
    features = np.maximum(_RNG.normal(size=(6, 3, 9)), 0).astype("<f2")
    (here / "dump/layers.1").mkdir()
    for start, end in ((0, 4), (5, 8)):
        part = features[..., start : end + 1]
        places = np.argwhere(part)
        tensors = {
            "locations": places.astype("<u2"),
            "activations": part[tuple(places.T)],
            "tokens": np.zeros((6, 3), "<i8"),
        }
        (here / f"dump/layers.1/{start}_{end}.safetensors").write_bytes(safetensors(tensors))


def _write_lmprobe(here: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    hidden = {
        "layers": [0, 1],
        "storage": "pooled",
        "file_pattern": "tensors/{layer}_{shard}.safetensors",
        "key_pattern": "hidden.layer_{layer}",
        "shards": [{}],
    }
    metadata = {
        "lmprobe:format_version": '"2.0"',
        "lmprobe:tensors": json.dumps({"hidden_layers": hidden}),
    }
    columns = {"text": list("abcdef"), "label": _LABELS.tolist(), "shard_index": [0] * 6}
    table = pa.table(columns | {"row_offset": list(range(6))})
    (here / "dump/index").mkdir()
    (here / "dump/tensors").mkdir()
    write_table(table.replace_schema_metadata(metadata), here / "dump/index/train.parquet")
    for number, layer in enumerate(_STATES):
        tensors = {f"hidden.layer_{number}": layer}
        (here / f"dump/tensors/{number}_0.safetensors").write_bytes(safetensors(tensors))


def _write_hdf5(here: Path) -> None:
    import h5py

    with h5py.File(here / "dump", "w") as file:
        file.create_dataset("layer_0", data=_TOKENS[0], chunks=(4, 2, 3), compression="gzip")
        file["layer_1"], file["attention_mask"], file["labels"] = _TOKENS[1], _MASK, _LABELS
        file["sentences"] = np.array(list("abcdef"), "S")


def _write_zarr(here: Path) -> None:
    import zarr

    for version in (2, 3):
        group = zarr.open_group(str(here / "dump"), mode="a", zarr_format=version)
        if version == 3:
            continue
        for name, values in (("layer_0", _STATES[0]), ("layer_1", _STATES[1])):
            array = group.create_array(name, shape=(6, 5), dtype="<f4", chunks=(4, 3))
            array[...] = values
        group.create_array("labels", shape=(6,), dtype="<i8", chunks=(6,))[...] = _LABELS + 1


WRITERS: dict[str, dict[str, Callable[[Path], None]]] = {
    "safetensors": {
        "one": _write_safetensors,
        "shards/": _write_shards,
        "features": _write_features,
    },
    "npy": {"npy/": _write_npy},
    "vllm": {"vllm/": _write_vllm},
    "saelens": {"saelens/": _write_saelens},
    "delphi": {"delphi/": _write_delphi},
    "lmprobe": {"lmprobe/": _write_lmprobe},
    "hdf5": {"hdf5": _write_hdf5},
    "zarr": {"zarr/": _write_zarr},
}
"""What writes the samples of each format; those whose names end so are folders."""


@dataclass(frozen=True)
class Forged:
    """A dump, what was done to it, and what is asked of it."""

    path: Path
    sample: str
    damage: str
    asked: str


@dataclass(frozen=True)
class Died:
    """How a child ended that gave no answer."""

    exitcode: int


class Dumps:
    """Cases: what sklprep makes of a damaged dump of one format."""

    asks = ("read", "read", "inspect", "pack", "generate")

    def __init__(self, seed: int, part: str, kind: str) -> None:
        self._seed, self._part, self._kind = seed, f"{part}_{kind}", kind
        self._samples = list(WRITERS[kind])
        self.n_sound = len(self._samples) * len(self.asks)
        self._sound: dict[str, dict[str, bytes]] = {}

    def forge(self, number: int, scratch: Path) -> Forged:
        rng = rng_of(self._seed, self._part, abs(number))
        sample, asked = choose(rng, number, self._samples, self.asks)
        if sample not in self._sound:
            self._sound[sample] = self._make(sample, scratch / "making")
        content: dict[str, bytes | None] = dict(self._sound[sample])
        damage = "none"
        if number >= 0:
            name = pick(rng, sorted(content))
            damage = f"{name}: {_damage(rng, content, name)}"
        clear(scratch)
        write_all(scratch / "sample", content)
        return Forged(scratch / "sample" / "dump", sample, damage, asked)

    def _make(self, sample: str, here: Path) -> dict[str, bytes]:
        shutil.rmtree(here, ignore_errors=True)
        (here / "dump" if sample.endswith("/") else here).mkdir(parents=True)
        WRITERS[self._kind][sample](here)
        return content_of(here)

    def run(self, forged: Forged) -> Any:
        if self._kind not in NATIVE or forged.damage == "none":  # which imports the library
            return self._run(forged)
        return _in_child(lambda: self._run(forged))

    def _run(self, forged: Forged) -> Any:
        options: dict[str, Any] = {"format": self._kind}
        if self._kind == "vllm":
            options["key"] = "hidden_states[0-1]"
        reads = {**(_READS_FEATURES if self._kind == "delphi" else _READS)}
        if self._kind in _WITHOUT_LABELS:
            del reads["labels"]
        if forged.asked == "read":
            return read_parts(lambda: sklprep.load_activations(forged.path, **options), reads)
        out = forged.path.parent.parent
        flags = [f for name, value in options.items() for f in (f"--{name}", value)]
        strategy = ["feature-to-concept", "--layers", "1"]
        if self._kind != "delphi":
            strategy = ["hidden-to-concept", "--layers", "all"]
        argv = {
            "inspect": ["inspect", str(forged.path), "--json"],
            "pack": ["pack", str(forged.path), str(out / "out")],
            "generate": [
                *("generate", "--strategy", *strategy, "--input", str(forged.path)),
                *("--output", str(out / "out.npz"), "--normalize", "none"),
            ],
        }
        return run_command([*argv[forged.asked], *flags, "--jobs", "1"])

    def check(self, forged: Forged, result: Any) -> str:
        if isinstance(result, Died):
            if forged.damage == "none":
                raise Fault(f"the child died of a sound dump (exit code {result.exitcode})")
            return "died in a library"
        if isinstance(result, str):
            raise Fault(result)
        if isinstance(result, Answer):
            check_messages(result, forged.path)
            _check_values(result.values)
            return "refused" if result.errors else "clean"
        verdict = check_run(result)
        _check_output(forged, result, verdict)
        if self._kind in _WITHOUT_LABELS and "has no labels" in result.err:
            return "clean"
        return verdict


def _damage(rng: Rng, content: dict[str, bytes | None], name: str) -> str:
    """Damage one file; give what was done."""
    raw = content[name] or b""
    other = pick(rng, sorted(content))
    kind = pick(rng, ("bytes", "bytes", "header", "header", "header", "files"))
    if kind == "header":
        mutant = _mutate_header(rng, name, raw)
        kind = "bytes" if mutant is None else kind
        content[name] = mutant
    if kind == "bytes":
        content[name] = mutate_bytes(rng, raw)
    if kind == "files":
        match int(rng.integers(4)):
            case 0:
                content[name], content[other] = content[other], raw
            case 1:
                content[name] = content[other]
            case 2 if len(content) > 1:
                del content[name]
            case _:
                content[name] = b""
    return kind


def _mutate_header(rng: Rng, name: str, raw: bytes) -> bytes | None:
    """Change what a file says of its numbers, if that can be read."""
    if name.endswith((".json", ".zarray", ".zgroup", ".zattrs")):
        return json.dumps(mutate_json(rng, json.loads(raw))).encode()
    if name.endswith(".npy"):
        with io.BytesIO(raw) as file:
            return mutate_npy(rng, np.load(file))
    length = int.from_bytes(raw[:8], "little")
    if raw[8:9] != b"{" or length > len(raw):
        return None
    header = mutate_json(rng, json.loads(raw[8 : 8 + length]))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + length :]


def _in_child(run: Callable[[], Any]) -> Any:
    """Run a case in a child, which takes no more than its own memory and time along."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(_CHILD_SECONDS)  # a parent that is killed leaves none behind
        before = peak_memory()
        try:
            result = run()
        except BaseException:
            result = traceback.format_exc()
        grown = peak_memory() - before
        if isinstance(result, Answer):
            result.warnings = [
                warnings.WarningMessage(str(one.message), one.category, "", 0)
                for one in result.warnings
            ]
        sent = pickle.dumps(f"took {grown:.0f} MiB in a child" if grown > 64 else result)
        with os.fdopen(theirs, "wb") as pipe:
            pipe.write(sent)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        received = pipe.read()
    _, status = os.waitpid(pid, 0)
    return pickle.loads(received) if received else Died(os.waitstatus_to_exitcode(status))


def _features(acts: Any) -> Any:
    return np.stack([matrix.toarray() for matrix in acts.activations])


_READS: Mapping[str, Callable[[Any], Any]] = {
    "hidden_states": lambda acts: acts.hidden_states,
    "backwards": lambda acts: acts[::-1].layer(int(acts.layers[0])),
    "labels": lambda acts: acts.labels,
    "groups": lambda acts: acts.groups,
    "sentence_indices": lambda acts: acts.sentence_indices,
    "sentences": lambda acts: acts.sentences,
    "card": lambda acts: acts._repr_html_() + repr(acts),
    "fingerprint": lambda acts: acts.fingerprint,
}
_READS_FEATURES = {
    **{name: read for name, read in _READS.items() if name not in ("hidden_states", "backwards")},
    "activations": _features,
}


def _check_values(values: Mapping[str, Any]) -> None:
    """Whatever was read has one number of rows, and is finite."""
    names = ("hidden_states", "backwards", "labels", "groups", "sentence_indices", "sentences")
    n_rows = {name: len(values[name]) for name in names if values.get(name) is not None}
    if len({*n_rows.values()}) > 1 or 0 in n_rows.values():
        raise Fault(f"gave different numbers of rows: {n_rows}")
    for name in values.keys() & {"hidden_states", "backwards", "activations"}:
        if values[name].dtype != np.float32 or not np.isfinite(values[name]).all():
            raise Fault(f"gave {name} of {values[name].dtype} that are not all finite")
    if {"backwards", "hidden_states"} <= values.keys() and not np.array_equal(
        values["hidden_states"][::-1, 0], values["backwards"]
    ):
        raise Fault("one layer of reversed rows is another than that of all of them")


def _check_output(forged: Forged, result: Run, verdict: str) -> None:
    out = forged.path.parent.parent
    if verdict != "clean":
        return
    if forged.asked == "inspect":
        json.loads(result.out)
    if forged.asked == "pack" and (faults := Pack(out / "out", pooling=None).verify()):
        raise Fault(f"the new pack does not verify: {faults}")
    if forged.asked == "generate":
        with np.load(out / "out.npz") as written:
            if len(written["X"]) != len(written["y"]) or not np.isfinite(written["X"]).all():
                raise Fault("generate wrote X and y that do not fit")
