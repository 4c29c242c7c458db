"""Packs with one of their files damaged."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import sklprep
from sklprep.exceptions import SklprepError
from sklprep.formats.pack_reader import Pack
from sklprep.formats.pack_writer import build_pack
from sklprep.formats.sentence_folder import SentenceFolder

from ..sentence_files import write_sentence
from . import samples
from .answers import Answer, check_message
from .folders import content_of, write_all
from .mutations import Rng, flip, mutate_bytes, mutate_json, mutate_npy, pick
from .samples import SAMPLES, Forged, choose, clear, expected_of
from .table import rng_of

_POOLINGS = {"stored": "none", "deflated": "mean", "several_SAEs": "final", "arrays": "final"}
_MANIFEST = "manifest.json"


class Packs:
    """Cases: what sklprep makes of a damaged pack."""

    asks = ("read", "read", "read", "inspect", "audit", "generate", "skip", "verify")
    damages: tuple[str, ...] = ("bytes", "members")
    n_sound = len(_POOLINGS) * len(asks)

    def __init__(self, seed: int, part: str) -> None:
        self._seed, self._part = seed, part
        self._sound: dict[str, dict[str, bytes]] = {}
        self._expected: dict[str, dict[str, Any]] = {}

    def forge(self, number: int, scratch: Path) -> Forged:
        rng = rng_of(self._seed, self._part, abs(number))
        sample, asked = choose(rng, number, list(_POOLINGS), self.asks)
        if sample not in self._sound:
            self._make(sample, scratch / "packing")
        damage = "none" if number < 0 else pick(rng, self.damages)
        clear(scratch)
        write_all(scratch / sample, self._damaged(rng, damage, self._sound[sample]))
        return Forged(scratch / sample, sample, damage, asked, _POOLINGS[sample])

    def _make(self, sample: str, scratch: Path) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        if sample == "arrays":
            scratch.mkdir(parents=True)
            arrays = _arrays()
            sklprep.ActivationSet.from_arrays(**arrays).to_pack(scratch / "pack")
            self._sound[sample] = content_of(scratch / "pack")
            self._expected[sample] = {
                **arrays,
                "sae_layers": np.array([1, 3]),
                "activations": np.stack(arrays["activations"]),
                "sentence_indices": arrays["groups"],
            }
            return
        (scratch / "files").mkdir(parents=True)
        files = []
        for k in range(3):
            options = {"index": k + 2, "n_tokens": 4 + k, **SAMPLES[sample]}
            files.append(write_sentence(scratch / f"files/sentence_00000{k}.npz", **options))
        pooling = _POOLINGS[sample]
        build_pack(SentenceFolder(scratch / "files", pooling=pooling), scratch / "pack")
        self._sound[sample] = content_of(scratch / "pack")
        self._expected[sample] = expected_of(files, pooling)

    def _damaged(
        self, rng: Rng, damage: str, sound: Mapping[str, bytes]
    ) -> dict[str, bytes | None]:
        content: dict[str, bytes | None] = dict(sound)
        name = _MANIFEST if rng.random() < 0.3 else pick(rng, sorted(content))
        if damage == "flip":
            content[name] = flip(rng, sound[name])
        elif damage == "bytes":
            content[name] = mutate_bytes(rng, sound[name])
        elif damage == "members" and name == _MANIFEST:
            manifest = mutate_json(rng, json.loads(sound[name]))
            content[name] = json.dumps(manifest).encode()
        elif damage == "members":
            other = pick(rng, sorted(sound))
            match int(rng.integers(6)):
                case 0:
                    content[name], content[other] = sound[other], sound[name]
                case 1:
                    content[name] = sound[other]
                case 2:
                    del content[name]
                case 3:
                    content[name] = None
                case _:
                    content[name] = mutate_npy(rng, np.load(io.BytesIO(sound[name])))
        return content

    def run(self, forged: Forged) -> Any:
        result = samples.run(forged)
        if isinstance(result, Answer):
            result.values["faults"] = _verify(forged.path)
        return result

    def check(self, forged: Forged, result: Any) -> str:
        """What `verify` has nothing to say of must be read as it was written."""
        expected = self._expected[forged.sample]
        if not isinstance(result, Answer):
            return samples.check(forged, result, expected, exactly=False)
        faults = result.values.pop("faults")
        for fault in faults:
            check_message(fault)
        verdict = samples.check(forged, result, expected, exactly=not faults)
        return "refused by verify" if faults and verdict == "clean" else verdict


def _arrays() -> dict[str, Any]:
    """Rows of another collector, with labels and groups of their own."""
    rng = np.random.default_rng(0)
    return {
        "hidden_states": rng.normal(size=(6, 2, 7)).astype(np.float32),
        "embeddings": rng.normal(size=(6, 5)).astype(np.float32),
        "activations": list(np.maximum(rng.normal(size=(2, 6, 9)), 0).astype(np.float32)),
        "labels": np.array([7, -1, 7, 20, -1, 7]),
        "layers": np.array([1, 3]),
        "average_l0s": np.array([4.5, 60]),
        "groups": np.array([0, 0, 1, 2, 2, 2]),
    }


def _verify(path: Path) -> list[str]:
    """What ``sklprep pack --verify`` would print."""
    try:
        return Pack(path, pooling=None).verify()
    except SklprepError as error:
        return [str(error)]
