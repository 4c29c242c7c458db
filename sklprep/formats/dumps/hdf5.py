"""Arrays in an HDF5 file, read by h5py."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import FileFormatError, SklprepError, SklprepWarning, UsageError
from sklprep.files.faults import file_fault
from sklprep.files.npy_file import is_plain_dtype
from sklprep.files.raw_array import digest_of_start
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at
from sklprep.formats.dumps.chunked_array import MAX_CHUNK_BYTES, read_chunked
from sklprep.formats.dumps.dump import Dump, Request
from sklprep.formats.dumps.named_arrays import TEXTS_AND_LABELS, Store, open_stores

_MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_SMALL = 1 << 30  # bytes of labels and masks, as in other formats
_MAX_ARRAYS = 100_000  # names need memory; dumps have one array per layer


def recognize(path: Path) -> bool:
    """Tell by its first bytes whether a path is an HDF5 file."""
    try:
        with RegularFile(path, "an HDF5 file") as file:
            return read_at(file.fd, len(_MAGIC), 0) == _MAGIC
    except (OSError, FileFormatError):
        return False


def open_hdf5(request: Request) -> Dump:
    """Open the arrays of a file by their paths, such as ``acts/layer_12``.

    Layers keep the numbers in their paths. Data in other files (external links or storage) are not
    read. Neither is text of variable length, which HDF5 stores as objects on a heap: if the heap is
    damaged, reading may never end or need all memory.
    """
    path = request.path
    arrays = _list_arrays(path)
    store = Store(path, arrays, {})
    return open_stores([store], request, format="hdf5", version="", files=[path])


@dataclass(frozen=True, slots=True)
class Hdf5Array:
    """A dataset of an HDF5 file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...] | None
    seen: bytes

    @property
    def width(self) -> int:
        """Length of a vector along the last axis."""
        return self.shape[-1]

    @property
    def n_vectors(self) -> int:
        """Number of vectors along the last axis."""
        return math.prod(self.shape[:-1])

    def read(self, positions: NDArray[np.int64], /) -> NDArray[Any]:
        """Read vectors by their positions."""
        dtype = np.dtype(self.dtype)
        with _opened(self.path, self.seen) as file:
            dataset = file[self.name]
            values = read_chunked(
                lambda key: dataset[key], self.shape, self.chunks, dtype.itemsize, positions
            )
        return values.astype(dtype, copy=False)

    def read_all(self) -> NDArray[Any]:
        """Read a small array completely."""
        if math.prod(self.shape) * np.dtype(self.dtype).itemsize > _MAX_SMALL:
            raise file_fault(
                self.path, self.name, f"has shape {self.shape}", f"at most {_MAX_SMALL:,} bytes"
            )
        with _opened(self.path, self.seen) as file:
            values = np.asarray(file[self.name][()])
            if values.dtype.kind == "S":
                return np.char.decode(values, "utf-8")
        return values.astype(self.dtype, copy=False)


@contextmanager
def _opened(path: Path, seen: bytes | None = None) -> Iterator[Any]:
    """Open a file; all errors of h5py become one that names it."""
    try:
        import h5py
    except ImportError:
        raise UsageError(
            f'{path} is an HDF5 file, which h5py reads: pip install "sklprep[hdf5]".'
        ) from None
    if seen is not None:
        with RegularFile(path, "an HDF5 file") as file:
            if digest_of_start(file) != seen:
                found, do = "has changed since it was opened", "Load it again."
                raise file_fault(path, None, found, "the same content", do)
    try:
        with h5py.File(path, "r", locking=False) as opened:
            yield opened
    except (SklprepError, MemoryError):
        raise
    except Exception as error:  # h5py raises many kinds for damaged files
        what = "".join(c if c.isprintable() else " " for c in str(error))[:100]
        raise file_fault(path, None, f"cannot be read ({what})", "an HDF5 file") from None


def _list_arrays(path: Path) -> dict[str, Hdf5Array]:
    with RegularFile(path, "an HDF5 file") as raw:
        seen, file_size = digest_of_start(raw), raw.file_size
    with _opened(path) as file:
        import h5py

        found: dict[str, Hdf5Array] = {}

        def visit(name: str, item: Any) -> None:
            if len(found) > _MAX_ARRAYS:
                raise file_fault(path, None, f"has over {_MAX_ARRAYS:,} arrays", "fewer")
            if not isinstance(item, h5py.Dataset) or item.shape is None:
                return
            array = _describe(path, name, item, seen, file_size)
            if array is not None:
                found[name] = array

        file.visititems(visit)
        return found


def _describe(path: Path, name: str, dataset: Any, seen: bytes, file_size: int) -> Hdf5Array | None:
    """Read the metadata of a dataset; None if it holds neither numbers nor text."""
    import h5py

    shape = tuple(int(n) for n in dataset.shape)
    chunks = None if dataset.chunks is None else tuple(int(n) for n in dataset.chunks)
    shown = name if name.isprintable() else ascii(name)
    if dataset.external or dataset.is_virtual:
        raise file_fault(path, shown[:80], "is in another file", "an array in this one")
    text = h5py.check_string_dtype(dataset.dtype)
    if text is not None and text.length is None:
        if name in TEXTS_AND_LABELS:
            warnings.warn(
                f"{path}: {name} is text of variable length, which HDF5 stores as objects: it is"
                " not read. Save it as bytes of fixed length, np.char.encode(texts, 'utf-8').",
                SklprepWarning,
                stacklevel=2,
            )
        return None
    dtype = np.dtype(dataset.dtype).newbyteorder("<")
    if dtype.hasobject or not (is_plain_dtype(dtype.str) or (dtype.kind == "S" and dtype.itemsize)):
        return None
    _require_stored(path, shown[:80], dataset, dtype.itemsize, file_size)
    return Hdf5Array(path, name, dtype.str, shape, chunks, seen)


def _require_stored(path: Path, name: str, dataset: Any, itemsize: int, file_size: int) -> None:
    """Require that values were written and chunks are small: a header can claim any shape."""
    shape, chunks = dataset.shape, dataset.chunks
    stored, expected = dataset.id.get_storage_size(), math.prod(shape) * itemsize
    if stored > file_size or (chunks is None and stored != expected):
        raise file_fault(path, name, f"stores {stored:,} bytes", f"{expected:,}", _UNFINISHED)
    if chunks is None:
        return
    if math.prod(chunks) * itemsize > MAX_CHUNK_BYTES:
        raise file_fault(
            path, name, f"has chunks of shape {chunks}", f"at most {MAX_CHUNK_BYTES:,} bytes"
        )
    n_chunks = math.prod(-(-n // size) for n, size in zip(shape, chunks, strict=True))
    if (there := dataset.id.get_num_chunks()) != n_chunks:
        raise file_fault(path, name, f"has {there:,} chunks", f"{n_chunks:,}", _UNFINISHED)


_UNFINISHED = "The dump may be unfinished."
