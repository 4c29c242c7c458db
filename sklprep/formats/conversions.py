"""Pickles are never read: recognize them, and give the command that converts them."""

from __future__ import annotations

import shlex
from pathlib import Path

from sklprep.exceptions import FileFormatError
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at

TORCH_AND_PICKLE = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")

_BEGINNINGS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of pickles of protocol 2 to 5; torch writes a zip archive that contains one."""


def is_pickled(path: Path) -> bool:
    """Tell by its first bytes whether a file is a pickle, or was written by ``torch.save``."""
    try:
        with RegularFile(path, "a file") as file:
            start = read_at(file.fd, 128, 0)
    except (OSError, FileFormatError):
        return False
    return start[:2] in _BEGINNINGS or (start[:2] == b"PK" and b"/data.pkl" in start)


_TORCH = (
    "import sys, torch, safetensors.torch as s; x = torch.load(sys.argv[1], weights_only=True);"
    " s.save_file({k if isinstance(k, str) else f'layer_{k}': v.contiguous() for k, v in"
    " (x.items() if isinstance(x, dict) else enumerate(x))}, sys.argv[2])"
)
_PANDAS = (
    "import sys, numpy, pandas; numpy.save(sys.argv[2],"
    " numpy.asarray(pandas.read_pickle(sys.argv[1])))"
)


def say_conversion(path: Path) -> str:
    """Return a message with the command that converts a pickle to a format that is read.

    Examples
    --------
    >>> print(say_conversion(Path("acts.pkl")))
    Pickles are not read, as they can run code. If you trust this one, convert it: python -c \
"import sys, numpy, pandas; numpy.save(sys.argv[2], numpy.asarray(pandas.read_pickle(sys.argv[1])))\
" acts.pkl layer_0.npy
    """
    of_pandas = path.suffix in (".pkl", ".pickle")
    new = "layer_0.npy" if of_pandas else path.with_suffix(".safetensors").name
    return (
        "Pickles are not read, as they can run code. If you trust this one, convert it: python -c"
        f' "{_PANDAS if of_pandas else _TORCH}" {shlex.quote(path.name)} {shlex.quote(new)}'
    )
