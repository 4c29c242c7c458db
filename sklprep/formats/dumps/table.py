"""The table of formats: a new format needs one entry."""

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
    """How dumps in one format are recognized, and how they are opened."""

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
"""The first format that recognizes a dump opens it, so formats of specific tools come before those
that go only by the names of arrays."""


def find_format(path: Path) -> str | None:
    """Return the format of a dump, recognized by content; None if there is none."""
    return next((name for name, entry in FORMATS.items() if entry.recognize(path)), None)


def open_dump(request: Request, name: str) -> DumpSource:
    """Open a dump with the importer of a format."""
    return DumpSource(FORMATS[name].open(request), pooling=request.pooling)
