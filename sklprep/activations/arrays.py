"""Arrays of any collector as numpy arrays: torch tensors and their like, bfloat16 included."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import UsageError

_IN_MAIN_MEMORY = (1, 3, 11, 13)  # DLPack: CPU, and memory that CUDA or ROCm pinned or manages


def to_numpy(values: Any, name: str) -> NDArray[Any]:
    """Read anything that is an array, without a copy where that is possible.

    Parameters
    ----------
    values : array-like, or object with ``__dlpack__`` or ``__array__``
        A tensor that requires a gradient is detached: its values count, its history does not.
        bfloat16 becomes float32, which holds each of its values.
    name : str
        What an error calls it.

    Returns
    -------
    ndarray

    Raises
    ------
    UsageError
        If it lies on a GPU, or is of a type that numpy cannot hold.

    Examples
    --------
    >>> to_numpy([[1, 2], [3, 4]], "layers").shape
    (2, 2)
    """
    if isinstance(values, np.ndarray):
        return _as_plain(values, name)
    if is_array(values):
        _check_device(values, name)
    try:
        if getattr(values, "requires_grad", False):
            values = values.detach()
        if str(getattr(values, "dtype", "")) == "torch.bfloat16":
            values = values.float()
        if hasattr(values, "__array__") or not hasattr(values, "__dlpack__"):
            array = np.asarray(values)
        else:
            array = np.from_dlpack(values)
    except Exception as error:  # each library raises its own kinds
        kind = f"{type(values).__name__} {getattr(values, 'dtype', '')}".rstrip()
        reason = " ".join(str(error).split()).rstrip(".")
        raise UsageError(
            f"{name} ({kind}) cannot be read as an array: {reason}."
            " Convert it to a numpy array of float32."
        ) from None
    return _as_plain(array, name)


def is_array(values: Any) -> bool:
    """Tell an array or a tensor from lists of them and from plain numbers."""
    return isinstance(values, np.ndarray) or any(
        hasattr(values, method) for method in ("__dlpack__", "__array__")
    )


def _check_device(values: Any, name: str) -> None:
    try:
        kind, _ = values.__dlpack_device__()
    except Exception:  # no such method, or a tensor without memory: reading it says what is wrong
        return
    if kind not in _IN_MAIN_MEMORY:
        where = getattr(values, "device", f"DLPack device {int(kind)}")
        raise UsageError(
            f"{name} lies on a GPU ({where}); expected main memory. Move it to the CPU: .cpu()."
        )


def _as_plain(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype.kind != "V":
        return array
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    raise UsageError(
        f"{name} has dtype {array.dtype.name} ({array.dtype.str}), which holds no numbers to numpy;"
        " expected float16 or float32. bfloat16 is saved so: convert it to float32 before saving."
    )
