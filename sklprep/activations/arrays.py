"""Converting arrays of any library to numpy arrays, including torch tensors and bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import UsageError

_IN_MAIN_MEMORY = (1, 3, 11, 13)  # DLPack: CPU, and memory that CUDA or ROCm pinned or manages


def to_numpy(values: Any, name: str) -> NDArray[Any]:
    """Convert any kind of array to numpy, without a copy where possible.

    Parameters
    ----------
    values : array-like, object with ``__dlpack__`` or ``__array__``, or list of these
        Tensors that require gradients are detached. bfloat16 becomes float32, which is exact.
    name : str
        Name for errors.

    Returns
    -------
    ndarray

    Raises
    ------
    UsageError
        If the array is on a GPU, is ragged, or has a dtype that numpy does not support.

    Examples
    --------
    >>> to_numpy([[1, 2], [3, 4]], "layers").shape
    (2, 2)
    """
    if isinstance(values, np.ndarray):
        return _as_plain(values, name)
    if is_array(values):
        _check_device(values, name)
    elif _holds_arrays(values):
        values = [to_numpy(value, name) for value in values]
        if len({value.shape for value in values}) > 1:
            raise _ragged(name)
    try:
        if getattr(values, "requires_grad", False):
            values = values.detach()
        if str(getattr(values, "dtype", "")) == "torch.bfloat16":
            values = values.float()
        if hasattr(values, "__array__") or not hasattr(values, "__dlpack__"):
            array = np.asarray(values)
        else:
            array = np.from_dlpack(values)
    except Exception as error:  # each library raises its own exceptions
        if "inhomogeneous" in str(error):  # numpy, of nested lists
            raise _ragged(name) from None
        kind = f"{type(values).__name__} {getattr(values, 'dtype', '')}".rstrip()
        reason = " ".join(str(error).split()).rstrip(".")
        raise UsageError(
            f"{name} ({kind}) cannot be read as an array: {reason}."
            " Convert it to a numpy array of float32."
        ) from None
    return _as_plain(array, name)


def read_tensor(values: Any, name: str) -> Any:
    """Convert tensors as `to_numpy` does; return other objects, such as data frames, unchanged.

    Examples
    --------
    >>> read_tensor([[1, 2], [3, 4]], "X")
    [[1, 2], [3, 4]]
    """
    is_tensor = hasattr(values, "__dlpack__") or hasattr(values, "requires_grad")
    return to_numpy(values, name) if is_tensor or _holds_arrays(values) else values


def is_array(values: Any) -> bool:
    """Tell whether an object is an array or a tensor, not a list or a number."""
    return isinstance(values, np.ndarray) or any(
        hasattr(values, method) for method in ("__dlpack__", "__array__")
    )


def require_rows_first(
    shape: Sequence[int], name: str, n_rows: int | None, n_layers: int | None = None
) -> None:
    """Refuse an array whose first axis is that of the layers, as in ``np.stack(layers)``.

    Parameters
    ----------
    shape : tuple of int
        Only three-dimensional shapes are checked.
    name : str
        Name of the array for errors.
    n_rows, n_layers : int or None
        Known numbers, for example from labels; None if unknown.

    Raises
    ------
    UsageError
        If the first two axes fit only when they are swapped.

    Examples
    --------
    >>> require_rows_first((40, 3, 8), "acts", 40)
    >>> require_rows_first((3, 40, 8), "acts", 40)
    Traceback (most recent call last):
    sklprep.exceptions.UsageError: acts has shape (3, 40, 8), layers first; expected \
(n_rows, n_layers, width), which is (40, 3, 8). Swap the axes: acts.swapaxes(0, 1).
    """
    if len(shape) != 3:
        return
    first, second, width = shape
    fits = n_rows in (None, first) and n_layers in (None, second)
    if not fits and n_rows in (None, second) and n_layers in (None, first):
        raise UsageError(
            f"{name} has shape {tuple(shape)}, layers first; expected (n_rows, n_layers,"
            f" width), which is {(second, first, width)}. Swap the axes: {name}.swapaxes(0, 1)."
        )


def require_numbers(array: NDArray[Any], name: str) -> None:
    """Refuse an array of Python objects; the error says what they are and what to do.

    Examples
    --------
    >>> require_numbers(np.array([1.5, 2.0], dtype=object), "embeddings")
    Traceback (most recent call last):
    sklprep.exceptions.UsageError: embeddings is an object array of numbers. Give \
embeddings.astype(np.float32).
    """
    if array.dtype != object:
        return
    entries = array.reshape(-1).tolist()
    n_missing = sum(entry is None for entry in entries)
    shapes = {np.shape(entry) for entry in entries}
    if n_missing:
        found = f"with None in {n_missing} of {len(entries)} entries"
        do = "Leave those rows out, of every array, and give the others as float32"
    elif len(shapes) > 1:
        raise _ragged(name)
    elif () not in shapes:
        found, do = f"of arrays of shape {shapes.pop()}", f"Give np.stack({name})"
    elif all(isinstance(entry, Real) for entry in entries):
        found, do = "of numbers", f"Give {name}.astype(np.float32)"
    else:
        kinds = ", ".join(sorted({type(entry).__name__ for entry in entries}))
        found, do = f"of {kinds}", "Expected numbers, float32 or float16"
    raise UsageError(f"{name} is an object array {found}. {do}.")


def _ragged(name: str) -> UsageError:
    return UsageError(
        f"{name} is ragged: its entries have different shapes, as sentences have different lengths."
        " Pool each sentence to one row (its final token, or the mean over its tokens), then give"
        " np.stack(rows); from_hidden_states does this for padded batches."
    )


def _holds_arrays(values: Any) -> bool:
    """Tell whether an object is a list, perhaps nested, of arrays and not of numbers."""
    first = values
    while isinstance(first, list | tuple) and first:
        first = first[0]
    return first is not values and is_array(first) and not isinstance(first, np.generic)


def _check_device(values: Any, name: str) -> None:
    try:
        kind, _ = values.__dlpack_device__()
    except Exception:  # no such method, or no memory: reading it raises a better error
        return
    if kind not in _IN_MAIN_MEMORY:
        where = getattr(values, "device", f"DLPack device {int(kind)}")
        raise UsageError(
            f"{name} is on a GPU ({where}); expected main memory. Move it to the CPU: .cpu()."
        )


def _as_plain(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype.kind != "V":
        return array
    if array.dtype.name == "bfloat16":
        return array.astype(np.float32)
    raise UsageError(
        f"{name} has dtype {array.dtype.name} ({array.dtype.str}), which numpy does not treat as"
        " numbers; expected float16 or float32. If it is bfloat16, convert it to float32 before"
        " saving."
    )
