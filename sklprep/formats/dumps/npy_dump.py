"""A folder of ``.npy`` files, one per layer."""

from __future__ import annotations

from pathlib import Path

from sklprep.files.faults import file_fault
from sklprep.files.listing import list_files
from sklprep.files.npy_file import COPY_AGAIN, MAX_HEADER_BYTES, parse_npy_header
from sklprep.files.raw_array import RawArray, digest_of_start
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at
from sklprep.formats.dumps.dump import Dump, Request
from sklprep.formats.dumps.named_arrays import Store, open_stores

_SUFFIX = ".npy"


def recognize(path: Path) -> bool:
    """Tell whether a path is a folder with such files."""
    return bool(list_files(path, _SUFFIX))


def open_npy(request: Request) -> Dump:
    """Open a folder of arrays, which are named like their files without ``.npy``.

    Layers keep the numbers in their names.
    """
    files = list_files(request.path, _SUFFIX)
    if not files:
        raise file_fault(request.path, None, "holds no .npy files", "a folder with one per layer")
    arrays = {file.name.removesuffix(_SUFFIX): read_npy_header(file) for file in files}
    store = Store(request.path, arrays, {})
    return open_stores([store], request, format="npy", version="1", files=files)


def read_npy_header(path: Path) -> RawArray:
    """Read the header of an npy file: where its numbers are stored."""
    with RegularFile(path, "an npy file") as file:

        def fault(found: str, expected: str, do: str = "") -> Exception:
            return file.fault(None, found, expected, do)

        header = parse_npy_header(read_at(file.fd, MAX_HEADER_BYTES, 0), fault)
        array = RawArray(
            path,
            None,
            header.dtype.str,
            header.shape,
            header.data_offset,
            digest_of_start(file),
        )
        end = array.offset + array.n_bytes
        if file.file_size < end:
            raise fault(f"has {file.file_size:,} bytes", f"{end:,} or more", COPY_AGAIN)
    return array
