"""The table of formats: a new one is one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sklprep.formats.dumps import npy_dump, safetensors_dump, vllm
from sklprep.formats.dumps.dump import Dump, Request
from sklprep.formats.dumps.dump_source import DumpSource


@dataclass(frozen=True, slots=True)
class Format:
    """How dumps of one tool are known, and how they are opened."""

    recognize: Callable[[Path], bool]
    open: Callable[[Request], Dump]


FORMATS = {
    "vllm": Format(vllm.recognize, vllm.open_vllm),
    "safetensors": Format(safetensors_dump.recognize, safetensors_dump.open_safetensors),
    "npy": Format(npy_dump.recognize, npy_dump.open_npy),
}
"""In this order, the first that recognizes a dump opens it: those that know what the arrays of a
tool are come before those that go by names alone."""


def find_format(path: Path) -> str | None:
    """Name the format of a dump, by its content; None for what is not one."""
    return next((name for name, entry in FORMATS.items() if entry.recognize(path)), None)


def open_dump(request: Request, name: str) -> DumpSource:
    """Open a dump with the importer of a format."""
    return DumpSource(FORMATS[name].open(request), pooling=request.pooling)
