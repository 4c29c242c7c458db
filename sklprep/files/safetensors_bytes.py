"""Small tensors and metadata as the bytes of a ``.safetensors`` file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.files.raw_array import BFLOAT16
from sklprep.files.safetensors_file import DTYPES, METADATA

DTYPE_NAMES = {np.dtype(stored): name for name, stored in DTYPES.items() if stored != BFLOAT16}
"""Name of each numpy dtype in the format."""

ALIGNMENT = 8
"""Data begin at a multiple of this number of bytes, as torch needs for its widest numbers."""


def encode_tensors(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Encode tensors one after the other, in the given order: the widest numbers should come first.

    Examples
    --------
    >>> data = encode_tensors({"weight": np.ones((1, 2))}, {"made by": "hand"})
    >>> int.from_bytes(data[:8], "little") + 8 + 16 == len(data)
    True
    """
    fields: dict[str, Any] = {METADATA: dict(metadata)}
    parts, end = [], 0
    for name, values in tensors.items():
        stored = np.dtype(values.dtype.newbyteorder("<"))
        parts.append(values.astype(stored, copy=False).tobytes())
        fields[name] = {
            "dtype": DTYPE_NAMES[stored],
            "shape": [*values.shape],
            "data_offsets": [end, end + len(parts[-1])],
        }
        end += len(parts[-1])
    header = json.dumps(fields).encode("utf-8")
    header += b" " * (-len(header) % ALIGNMENT)
    return b"".join([len(header).to_bytes(8, "little"), header, *parts])
