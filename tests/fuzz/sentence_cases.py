"""Folders of two sentence files, one of them damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..sentence_files import write_sentence
from . import samples
from .answers import Answer
from .mutations import flip, mutate_archive, mutate_bytes, pick
from .samples import POOLINGS, SAMPLES, Forged, choose, clear, expected_of
from .table import rng_of
from .workers import Fault


class SentenceFiles:
    """Cases: what sklprep makes of a folder with a damaged sentence file."""

    asks = ("read", "read", "read", "inspect", "audit", "generate", "skip", "pack")
    damages: tuple[str, ...] = ("bytes", "members")
    n_sound = len(SAMPLES) * len(asks)

    def __init__(self, seed: int, part: str) -> None:
        self._seed, self._part = seed, part
        self._files: dict[str, list[dict[str, Any]]] = {}
        self._expected: dict[tuple[str, str], dict[str, Any]] = {}

    def forge(self, number: int, scratch: Path) -> Forged:
        rng = rng_of(self._seed, self._part, abs(number))
        sample, asked = choose(rng, number, list(SAMPLES), self.asks)
        folder = scratch / sample
        files = self._write(sample, folder)
        at = int(rng.integers(2))
        victim = folder / f"sentence_00000{at}.npz"
        damage = "none" if number < 0 else pick(rng, self.damages)
        content = victim.read_bytes()
        if damage == "bytes":
            victim.write_bytes(mutate_bytes(rng, content))
        elif damage == "members":
            compress = SAMPLES[sample].get("compress", True)
            victim.write_bytes(mutate_archive(rng, files[at], compress=compress))
        elif damage == "flip":
            victim.write_bytes(flip(rng, content))
        return Forged(folder, sample, damage, asked, pick(rng, POOLINGS))

    def _write(self, sample: str, folder: Path) -> list[dict[str, Any]]:
        clear(folder.parent)
        sound = folder.parent / "sound" / sample
        if not sound.exists():
            sound.mkdir(parents=True)
            for k in (0, 1):
                options = {"n_tokens": 4 + k, **SAMPLES[sample]}
                write_sentence(sound / f"sentence_00000{k}.npz", index=k + 2, **options)
        if sample not in self._files:
            self._files[sample] = []
            for path in sorted(sound.iterdir()):
                with np.load(path) as content:
                    self._files[sample].append({name: content[name] for name in content.files})
        shutil.copytree(sound, folder, dirs_exist_ok=True)
        return self._files[sample]

    def run(self, forged: Forged) -> Any:
        return samples.run(forged)

    def check(self, forged: Forged, result: Any) -> str:
        key = forged.sample, forged.pooling
        if key not in self._expected:
            self._expected[key] = expected_of(self._files[forged.sample], forged.pooling)
        labels = result.values.get("labels", ()) if isinstance(result, Answer) else ()
        if not np.isin(labels, range(4)).all():
            raise Fault(f"gave labels {labels}")
        exactly = forged.damage != "members"
        return samples.check(forged, result, self._expected[key], exactly=exactly)
