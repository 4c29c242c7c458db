"""Small tensors and texts as the bytes of a ``.safetensors`` file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.files.raw_array import BFLOAT16
from sklprep.files.safetensors_file import DTYPES, METADATA

DTYPE_NAMES = {np.dtype(stored): name for name, stored in DTYPES.items() if stored != BFLOAT16}
"""What the format calls a dtype of numpy."""

ALIGNMENT = 8
"""Bytes: the widest numbers begin at multiples of it, as torch needs them."""


def encode_tensors(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """Write tensors one behind the other, in the order given, the widest numbers first.

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
