"""The table of formats: a new one is one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sklprep.formats.dumps import (
    delphi,
    hdf5,
    lmprobe,
    npy_dump,
    saelens,
    safetensors_dump,
    vllm,
    zarr_dump,
)
from sklprep.formats.dumps.dump import Dump, Request
from sklprep.formats.dumps.dump_source import DumpSource


@dataclass(frozen=True, slots=True)
class Format:
    """How dumps of one tool are known, and how they are opened."""

    recognize: Callable[[Path], bool]
    open: Callable[[Request], Dump]


FORMATS = {
    "lmprobe": Format(lmprobe.recognize, lmprobe.open_lmprobe),
    "delphi": Format(delphi.recognize, delphi.open_delphi),
    "vllm": Format(vllm.recognize, vllm.open_vllm),
    "saelens": Format(saelens.recognize, saelens.open_saelens),
    "safetensors": Format(safetensors_dump.recognize, safetensors_dump.open_safetensors),
    "hdf5": Format(hdf5.recognize, hdf5.open_hdf5),
    "zarr": Format(zarr_dump.recognize, zarr_dump.open_zarr),
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
