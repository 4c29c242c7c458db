"""Writing NPZ files: the same arrays give the same bytes."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import OutputError
from sklprep.files.atomic import atomic_write, require_space, require_writable

_WRITE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Blocks:
    """An array that does not fit in memory: its shape and dtype, and its rows block by block."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Iterable[NDArray[Any]]

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_npz(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Any],
    *,
    compress: bool = False,
    sync: bool = True,
) -> None:
    """Write arrays as an NPZ file, atomically; the same arrays give the same bytes.

    Parameters
    ----------
    path : path-like
        Used as it is: no ``.npz`` is appended.
    arrays : mapping of str to array-like or Blocks
        No object arrays.
    compress : bool, default=False
        Deflate the members instead of storing them.
    sync : bool, default=True
        As `atomic_write` takes it.

    Raises
    ------
    OutputError
        If the path cannot be written, the disk is too small, or an array holds Python objects.
    """
    wholes = {
        name: values if isinstance(values, Blocks) else _whole(path, name, values)
        for name, values in arrays.items()
    }
    if not compress:
        require_writable(path)
        require_space(path, sum(whole.n_bytes for whole in wholes.values()))
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with atomic_write(path, sync=sync) as file, zipfile.ZipFile(file, "w", method) as archive:
        for name, whole in wholes.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member,
                    {
                        "descr": np.lib.format.dtype_to_descr(whole.dtype),
                        "fortran_order": False,
                        "shape": whole.shape,
                    },
                )
                for block in whole.blocks:
                    flat = np.ascontiguousarray(block, whole.dtype).reshape(-1).view(np.uint8)
                    for start in range(0, len(flat), _WRITE_BYTES):
                        member.write(flat[start : start + _WRITE_BYTES].data)


def _whole(path: str | os.PathLike[str], name: str, values: Any) -> Blocks:
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(values, object)
    if array.dtype.hasobject:
        raise OutputError(
            f"{os.fspath(path)}: {name!r} is an object array, which only a pickle can store;"
            " expected numbers, booleans or strings of one shape."
        )
    return Blocks(array.shape, array.dtype, [array])
