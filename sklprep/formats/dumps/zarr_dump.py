"""Arrays in a Zarr folder of version 2 or 3, read by zarr.

The metadata of each array (JSON) are checked first, so that codecs that would unpickle are never
called.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import SklprepError, UsageError
from sklprep.files.faults import file_fault
from sklprep.files.npy_file import is_plain_dtype
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at
from sklprep.formats.dumps.chunked_array import MAX_CHUNK_BYTES, read_chunked
from sklprep.formats.dumps.dump import Dump, Request
from sklprep.formats.dumps.named_arrays import Store, open_stores

_V2, _V3 = ".zarray", "zarr.json"
_GROUPS = (".zgroup", _V3)
_MAX_METADATA_BYTES = 1 << 20  # of an array, which needs a few kilobytes
_MAX_ARRAYS = 10_000
_MAX_SMALL = 1 << 30  # bytes of labels and masks, as in other formats

_MOST_EMPTY = 64
"""Most missing chunks per existing chunk: zarr does not write chunks of zeros, such as padding."""

_CODECS = {
    *("bytes", "transpose", "crc32c", "sharding_indexed"),
    *("blosc", "zstd", "gzip", "zlib", "lz4", "bz2", "lzma", "shuffle"),
}
"""Codecs for plain numbers. pickle, json2 and vlen-* create Python objects."""

_BLOSC_HEADER = 16
"""Bytes of the header of a blosc chunk; the last four are the length of the chunk. The decoder
trusts it: for a shorter chunk it would read the memory after the chunk."""

_DTYPES = {
    **{f"float{8 * n}": f"<f{n}" for n in (2, 4, 8)},
    **{f"int{8 * n}": f"<i{n}" for n in (2, 4, 8)},
    **{f"uint{8 * n}": f"<u{n}" for n in (2, 4, 8)},
    "bool": "|b1",
    "int8": "|i1",
    "uint8": "|u1",
}
"""Dtypes of version 3."""


def recognize(path: Path) -> bool:
    """Tell whether a path is a folder with the metadata of a group or an array."""
    return any((path / name).is_file() for name in (*_GROUPS, _V2))


def open_zarr(request: Request) -> Dump:
    """Open the arrays of a group by their paths, such as ``acts/layer_12``.

    Layers keep the numbers in their paths.
    """
    path = request.path
    folders, files = _walk(path)
    arrays = {}
    for folder in folders:
        array = _describe(path, folder)
        if array is not None:
            arrays[array.name] = array
    versions = {2 if (folder / _V2).is_file() else 3 for folder in folders}
    version = " and ".join(map(str, sorted(versions)))
    store = Store(path, arrays, {})
    return open_stores([store], request, format="zarr", version=version, files=files)


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """An array of a Zarr folder."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]

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
        with self._opened() as array:
            values = read_chunked(
                lambda key: np.asarray(array[key]),
                self.shape,
                self.chunks,
                dtype.itemsize,
                positions,
            )
        return values.astype(dtype, copy=False)

    def read_all(self) -> NDArray[Any]:
        """Read a small array completely."""
        if math.prod(self.shape) * np.dtype(self.dtype).itemsize > _MAX_SMALL:
            found = f"has shape {self.shape}"
            raise file_fault(self.path, self.name, found, f"at most {_MAX_SMALL:,} bytes")
        with self._opened() as array:
            return np.asarray(array[...]).astype(self.dtype, copy=False)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the array; all errors of zarr become one that names it."""
        try:
            import zarr
        except ImportError:
            raise UsageError(
                f'{self.path} is a Zarr folder, which zarr reads: pip install "sklprep[zarr]".'
            ) from None
        folder = self.path / self.name if self.name else self.path
        try:
            array = zarr.open_array(os.fspath(folder), mode="r")
            if tuple(array.shape) != self.shape:
                raise file_fault(folder, None, "has changed since it was opened", "the same shape")
            yield array
        except (SklprepError, MemoryError):
            raise
        except Exception as error:  # zarr and its codecs raise many kinds
            what = "".join(c if c.isprintable() else " " for c in str(error))[:100]
            raise file_fault(folder, None, f"cannot be read ({what})", "a Zarr array") from None


def _walk(path: Path) -> tuple[list[Path], list[Path]]:
    """List the folders of arrays, and all files; links are not followed."""
    folders, files = [], []
    for here, subfolders, names in os.walk(path):
        subfolders.sort()
        folder = Path(here)
        files += [folder / name for name in sorted(names)]
        if _V2 in names or (_V3 in names and _read_json(folder / _V3).get("node_type") == "array"):
            folders.append(folder)
            if len(folders) > _MAX_ARRAYS:
                raise file_fault(path, None, f"has over {_MAX_ARRAYS:,} arrays", "fewer")
    return folders, files


def _read_json(path: Path) -> dict[str, Any]:
    with RegularFile(path, "JSON") as file:
        text = read_at(file.fd, _MAX_METADATA_BYTES, 0)
    try:
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError):
        raise file_fault(path, None, "cannot be read as JSON", "what zarr writes") from None
    return fields


def _describe(path: Path, folder: Path) -> ZarrArray | None:
    """Read the metadata of an array; None if it does not hold plain numbers."""
    is_v2 = (folder / _V2).is_file()
    file = folder / (_V2 if is_v2 else _V3)
    fields = _read_json(file)
    inner: tuple[int, ...] = ()
    try:
        shape = tuple(fields["shape"])
        if is_v2:
            chunks = tuple(fields["chunks"])
            dtype, codecs = fields["dtype"], _codecs_of_v2(fields)
        else:
            chunks = tuple(fields["chunk_grid"]["configuration"]["chunk_shape"])
            dtype = _DTYPES.get(fields["data_type"], "")
            codecs, inner = _codecs_of_v3(fields["codecs"])
        checks_blosc = _ends_with_blosc(fields, is_v2)
        sizes = (*shape, *chunks, *inner)
        if len(chunks) != len(shape) or not all(type(n) is int and 0 < n < 1 << 48 for n in sizes):
            raise ValueError
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise file_fault(
            file, None, "is not the metadata of an array", "shape, chunks, dtype and codecs"
        ) from None
    if unsafe := sorted(codecs - _CODECS):
        raise file_fault(
            file,
            None,
            f"has the codec {ascii(unsafe[0])[:40]}",
            "one for plain numbers; Python objects and pickles are not read",
            "Save arrays of numbers.",
        )
    if isinstance(dtype, str) and len(dtype) == 3 and dtype[0] == ">":
        dtype = f"<{dtype[1:]}"
    if not isinstance(dtype, str) or not is_plain_dtype(dtype):
        if isinstance(dtype, str) and "O" in dtype:
            do = "Save arrays of numbers."
            raise file_fault(file, None, f"has dtype {dtype[:20]!r}", "no Python objects", do)
        return None
    name = folder.relative_to(path).as_posix()
    array = ZarrArray(path, "" if name == "." else name, dtype, shape, chunks)
    _require_stored(file, folder, array, inner, checks_blosc=checks_blosc)
    return array


def _codecs_of_v2(fields: Mapping[str, Any]) -> set[str]:
    listed = [fields["compressor"], *(fields["filters"] or [])]
    return {str(codec["id"]) for codec in listed if codec is not None}


def _codecs_of_v3(listed: Any) -> tuple[set[str], tuple[int, ...]]:
    """Return the names of all codecs, also within shards, and the shape of chunks in a shard."""
    names: set[str] = set()
    inner: tuple[int, ...] = ()
    for codec in listed:
        name = codec if isinstance(codec, str) else codec["name"]
        names.add(str(name))
        if name == "sharding_indexed":
            configuration = codec["configuration"]
            inner = tuple(configuration["chunk_shape"])
            for key in ("codecs", "index_codecs"):
                names |= _codecs_of_v3(configuration[key])[0]
    return names, inner


def _ends_with_blosc(fields: Mapping[str, Any], is_v2: bool) -> bool:
    """Tell whether the files of this array are plain blosc chunks."""
    codec, name = (fields["compressor"], "id") if is_v2 else (fields["codecs"][-1], "name")
    return isinstance(codec, dict) and codec[name] == "blosc"


def _require_stored(
    file: Path, folder: Path, array: ZarrArray, inner: tuple[int, ...], *, checks_blosc: bool
) -> None:
    """Require that chunks were written and are small: metadata can claim any shape."""
    itemsize = np.dtype(array.dtype).itemsize
    if math.prod(inner or array.chunks) * itemsize > MAX_CHUNK_BYTES:
        found = f"has chunks of shape {inner or array.chunks}"
        raise file_fault(file, None, found, f"at most {MAX_CHUNK_BYTES:,} bytes")
    n_chunks = math.prod(-(-n // size) for n, size in zip(array.shape, array.chunks, strict=True))
    stored = [
        Path(here) / name
        for here, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and name != _V3
    ]
    if not n_chunks / _MOST_EMPTY <= len(stored) <= n_chunks:
        raise file_fault(
            file,
            None,
            f"has {len(stored):,} chunks",
            f"{n_chunks:,}",
            "The dump may be unfinished.",
        )
    for chunk in stored if checks_blosc else ():
        _require_whole(chunk)


def _require_whole(chunk: Path) -> None:
    """Require that a blosc chunk has the length in its header."""
    with RegularFile(chunk, "a Zarr chunk") as opened:
        header, size = read_at(opened.fd, _BLOSC_HEADER, 0), opened.file_size
    length = int.from_bytes(header[-4:], "little")
    if len(header) < _BLOSC_HEADER or length != size:
        found, expected = f"has {size:,} bytes", f"{length:,} according to its header"
        raise file_fault(chunk, None, found, expected, "The dump may be damaged.")
