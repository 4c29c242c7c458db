"""Malicious pipelines: refused before anything foreign is imported or called.

An audit hook of the interpreter hears every import, system call, write, pickle and piece of code
that runs while a dataset is loaded; a planted module would show that it was imported.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skops.io

import sklprep
from sklprep.datasets.pipeline_bytes import dumps_pipeline

from ..forged_files import archive, npy, stored
from ..forged_pipelines import EVIL, FOREIGN, edited, members_of, planted_everywhere, zipped
from .answers import Answer, check_messages, read_parts
from .dataset_cases import SAMPLES, make_dataset, transform_with
from .mutations import mutate_dump
from .table import Row, Run, rng_of
from .workers import Fault, Limits

_FULL, _SHORT = 10_000, 150
_LIMITS = Limits(seconds=0.5, mebibytes=64)
_HARMLESS = {"compile", "builtins.id", "object.__getattr__", "sys._getframe"}
"""Events of every load: headers are parsed as literals, which compiles and runs nothing."""


class _AuditLog:
    """Keeps the audit events of this process while it listens, but for those of any load."""

    def __init__(self) -> None:
        self._is_on = False
        self.events: list[str] = []
        sys.addaudithook(self._note)
        with self:
            pickle.loads(b"cos\ngetcwd\n.")
        if not self.events:
            raise Fault("the audit hook reports nothing")

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_on and event not in _HARMLESS and (event != "open" or _writes(*arguments)):
            self._is_on = False
            self.events.append(f"{event} {arguments!r:.200}")
            self._is_on = True

    def __enter__(self) -> None:
        self.events.clear()
        self._is_on = True

    def __exit__(self, *_: object) -> None:
        self._is_on = False


def _writes(_: Any, mode: Any, flags: int) -> bool:
    return bool(flags & 3) or any(letter in str(mode or "") for letter in "wax+")


@dataclass(frozen=True)
class _Forged:
    path: Path
    may_load: bool


class _Pipelines:
    """Cases: datasets with other bytes in the place of their pipeline.

    `dump_of` gives them from a number and the dumps of the sound samples; whether they `may_load`
    is known of those that are forged for a purpose.
    """

    samples = SAMPLES[:-1]  # the custom dataset has no pipeline
    n_sound = len(samples)

    def __init__(self, dump_of: Callable[[int, list[bytes]], bytes], *, may_load: bool) -> None:
        self._dump_of, self._may_load = dump_of, may_load
        self._acts = sklprep.make_activations(
            20, n_layers=3, d_model=8, n_features=16, random_state=0
        )
        self._arrays: list[dict[str, Any]] = []
        self._log = _AuditLog()

    def forge(self, number: int, scratch: Path) -> _Forged:
        path = scratch / "dataset.npz"
        for sample in self.samples[len(self._arrays) :]:
            make_dataset(sample, self._acts).save(path)
            with np.load(path) as content:
                self._arrays.append({name: content[name] for name in content.files})
        dumps = [arrays["pipeline"].tobytes() for arrays in self._arrays]
        dump = dumps[number] if number < 0 else self._dump_of(number, dumps)
        arrays = self._arrays[number % len(dumps)] | {"pipeline": np.frombuffer(dump, np.uint8)}
        entries = (stored(npy(values), f"{name}.npy".encode()) for name, values in arrays.items())
        path.write_bytes(archive(*entries))
        _plant(scratch)
        if number < 0:  # whose imports are all that there is to import
            dataset = sklprep.load_dataset(path)
            repr(dataset.pipeline), transform_with(dataset, self._acts)
        return _Forged(path, number < 0 or self._may_load)

    def run(self, forged: _Forged) -> Answer:
        with self._log:
            return read_parts(
                lambda: sklprep.load_dataset(forged.path),
                {"transformed": lambda dataset: transform_with(dataset, self._acts)},
            )

    def check(self, forged: _Forged, result: Answer) -> str:
        check_messages(result, forged.path)
        if self._log.events:
            raise Fault(f"while it was loaded: {self._log.events}")
        if "planted" in sys.modules or (forged.path.parent / "imported").exists():
            raise Fault("the planted module was imported")
        if not (result.errors or forged.may_load):
            raise Fault("was loaded")
        return "refused" if result.errors else "clean"


def _plant(folder: Path) -> None:
    """Put a module on the path that shows that it was imported."""
    marker = str(folder / "imported")
    code = f"open({marker!r}, 'w').close()\nclass Evil: pass\ndef evil(*args): pass\n"
    (folder / "planted.py").write_text(code)
    if sys.path[0] != str(folder):
        sys.path.insert(0, str(folder))


class _Pickled:
    def __reduce__(self) -> Any:
        return subprocess.run, (["false"],)


def _named_dumps(good: bytes) -> Iterator[bytes]:
    """One for each way that skops, or a fallback to pickle, once let a file run what it names."""
    for evil in EVIL:
        yield from planted_everywhere(good, evil)
    for build, _ in FOREIGN:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield skops.io.dumps(build())
    for protocol in (0, 1, None, "1", True):
        yield edited(good, lambda schema, protocol=protocol: schema.update(protocol=protocol))
    pickled = pickle.dumps(_Pickled())
    members = members_of(good)
    yield pickled
    yield zipped({"schema.json": pickled})
    for name in members:
        yield zipped({**members, name: pickled})
    yield zipped({**members, "evil.pkl": pickled})
    yield zipped(members, zipfile.ZIP_DEFLATED)
    yield zipped({**members, "schema.json": b" " * (64 << 20)}, zipfile.ZIP_DEFLATED)
    yield zipped({**members, "schema.json": b"[" * (1 << 20)})


def malicious_pipelines(run: Run) -> Iterator[Row]:
    """Pipelines of every known hole in skops, foreign objects, pickles, bombs: all refused."""
    acts = sklprep.make_activations(20, n_layers=3, d_model=8, n_features=16, random_state=0)
    dumps = [*_named_dumps(dumps_pipeline(make_dataset("standardized", acts).pipeline))]
    cases = _Pipelines(lambda number, _: dumps[number], may_load=False)
    goal = "refused, nothing foreign imported or called"
    part, numbers = "malicious_pipelines", run.numbers(len(dumps), len(dumps))
    yield run.measured(part, "malicious pipelines", goal, cases, numbers, _LIMITS)


def mutated_pipelines(run: Run) -> Iterator[Row]:
    """Mutated embedded pipelines: refused, or usable, while the audit hook listens."""
    part = "mutated_pipelines"

    def dump_of(number: int, good: list[bytes]) -> bytes:
        return mutate_dump(rng_of(run.seed, part, number), good[number % len(good)])

    cases = _Pipelines(dump_of, may_load=True)
    goal = "refused or usable, nothing foreign imported or called"
    yield run.measured(part, "mutated pipelines", goal, cases, run.numbers(_FULL, _SHORT), _LIMITS)
