"""Writing rows as a ``.safetensors`` file, which the importer of named arrays can read."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sklprep.exceptions import DataError, UsageError
from sklprep.files.atomic import atomic_write, require_space
from sklprep.files.safetensors_bytes import ALIGNMENT, DTYPE_NAMES
from sklprep.files.safetensors_file import MAX_HEADER_BYTES, METADATA
from sklprep.formats.dumps.stored_saes import SAES, name_of
from sklprep.formats.members import Block
from sklprep.formats.rows import Rows

_LARGEST = 10**18  # placeholder in a header for a number that is not known yet
_Entry = tuple[str, tuple[int, ...]]  # dtype and shape
_MAX_LAYER = 10**6  # exclusive: layer numbers in names have at most six digits


def write_safetensors(rows: Rows, output: str | os.PathLike[str]) -> None:
    """Write rows block by block, in bounded memory.

    Parameters
    ----------
    rows : Rows
    output : path-like
        The file to write.

    Raises
    ------
    OutputError
        If the path cannot be written, or the disk is too small.
    UsageError
        If the header cannot hold the sentences, or the number of a layer is out of range.
    """
    metadata, arrays = _describe(rows)
    source = rows.source
    layers = source.layers.tolist() if source.d_model is not None else []
    if layers and not 0 <= min(layers) <= max(layers) < _MAX_LAYER:
        raise UsageError(
            f"Layer {min(layers) if min(layers) < 0 else max(layers)} cannot be written to"
            f" safetensors; expected 0 to {_MAX_LAYER - 1:,}. Use to_pack."
        )
    n, n_configs = len(rows), len(source.sae_layers)
    dtype = "<f4" if n_configs else source.stored_dtype
    wide = {name: values for name, values in arrays.items() if values.itemsize >= 4}
    shapes = {name: (values.dtype.str, values.shape) for name, values in wide.items()}
    shapes |= {name_of(config, "indptr"): ("<i8", (n + 1,)) for config in range(n_configs)}
    if source.d_embed is not None:
        shapes["embeddings"] = dtype, (n, source.d_embed)
    shapes |= {f"layer_{layer}": (dtype, (n, source.d_model or 0)) for layer in layers}
    require_space(output, sum(map(_n_bytes, shapes.values())))
    with atomic_write(output) as file, contextlib.ExitStack() as stack:
        folder = Path(output).parent  # whose space was checked
        spools = {
            name_of(config, part): stack.enter_context(tempfile.TemporaryFile(dir=folder))
            for config in range(n_configs)
            for part in ("indices", "data")
        }
        narrow = {name: values for name, values in arrays.items() if name not in wide}
        writer = _Writer(file, Path(output), shapes, spools, narrow, metadata)
        for name, values in wide.items():
            writer.append(name, values)
        for block in rows.stream():
            writer.append_block(block)
        writer.finish()


def _describe(rows: Rows) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Return the metadata, and the small arrays, the widest numbers first."""
    source = rows.source
    metadata: dict[str, str] = {}
    arrays: dict[str, NDArray[Any]] = {
        "sentence_indices": rows.sentence_indices,
        "groups": rows.groups,
    }
    if source.is_pooled:
        metadata["pooling"] = source.pooling
    if source.pooling == "none":
        arrays["is_final_token"] = rows.is_final_token
    texts = rows.sentences
    if texts is not None:
        metadata["sentences"] = json.dumps(texts.tolist())
    with contextlib.suppress(DataError):
        labels = rows.labels
        if labels.dtype.kind == "U":
            metadata["labels"] = json.dumps(labels.tolist())
        elif labels.dtype.newbyteorder("<") in DTYPE_NAMES:
            arrays["labels"] = labels
        else:
            raise UsageError(
                f"Labels of dtype {labels.dtype} cannot be written; expected numbers or text."
                " Convert them, for example with labels.astype(str)."
            )
    if len(source.sae_layers):
        saes = zip(source.sae_layers.tolist(), source.average_l0s.tolist(), strict=True)
        metadata[SAES] = json.dumps(
            [
                {"layer": layer, "average_l0": average_l0, "n_features": source.n_features}
                for layer, average_l0 in saes
            ]
        )
    order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    return metadata, {name: _little_endian(arrays[name]) for name in order}


def _little_endian(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(values.dtype.newbyteorder("<"), copy=False)


def _n_bytes(entry: _Entry) -> int:
    dtype, shape = entry
    return np.dtype(dtype).itemsize * math.prod(shape)


class _Writer:
    """Writes blocks of rows at their positions; the widest numbers come first, for alignment.

    Parameters
    ----------
    file, output
        The open file, and its path for errors.
    shapes : dict of str to (str, tuple)
        Dtype and shape of the arrays whose size is known.
    spools : dict of str to file
        Temporary files for the indices and data of sparse rows, whose size is not known.
    narrow : dict of str to ndarray
        Small arrays of narrower numbers, which are written last.
    metadata : dict of str to str
    """

    def __init__(
        self,
        file: BinaryIO,
        output: Path,
        shapes: Mapping[str, _Entry],
        spools: Mapping[str, IO[bytes]],
        narrow: Mapping[str, NDArray[Any]],
        metadata: Mapping[str, str],
    ) -> None:
        self._file, self._spools, self._metadata, self._narrow = file, spools, metadata, narrow
        self._entries: dict[str, tuple[_Entry, int]] = {}
        self._end = 0
        for name in sorted(shapes, key=lambda name: -np.dtype(shapes[name][0]).itemsize):
            self._add(name, shapes[name])
        self._next = {name: place for name, (_, place) in self._entries.items()}
        unknown: _Entry = ("<i4", (_LARGEST,))
        later = dict.fromkeys((*spools, *narrow), (unknown, _LARGEST))
        size = len(self._header(self._entries | later))
        if size > MAX_HEADER_BYTES:
            raise UsageError(
                f"The header of {output} would need {size / 1e6:,.1f} MB, including the"
                f" sentences; expected at most {MAX_HEADER_BYTES / 1e6:,.1f} MB. Use to_pack."
            )
        self._start = -(-(8 + size) // ALIGNMENT) * ALIGNMENT
        self._n_values: dict[int, int] = {}

    def append(self, name: str, values: NDArray[Any]) -> None:
        """Append rows of an array."""
        raw = values.astype(self._entries[name][0][0], copy=False).tobytes()
        self._file.seek(self._start + self._next[name])
        self._file.write(raw)
        self._next[name] += len(raw)

    def append_block(self, block: Block) -> None:
        """Append rows of a member."""
        member, number, values = block
        if member != "activations":
            self.append("embeddings" if member == "embeddings" else f"layer_{number}", values)
            return
        indptr = name_of(number, "indptr")
        if number not in self._n_values:
            self.append(indptr, np.zeros(1, np.int64))
        before = self._n_values.get(number, 0)
        self._n_values[number] = before + len(values.data)
        self.append(indptr, values.indptr[1:] + np.int64(before))
        for part, dtype in (("indices", "<i4"), ("data", "<f4")):
            raw = getattr(values, part).astype(dtype, copy=False).tobytes()
            self._spools[name_of(number, part)].write(raw)

    def finish(self) -> None:
        """Append the temporary files and narrow arrays, and write the header."""
        for name, spool in self._spools.items():
            self._file.seek(self._start + self._end)
            dtype = "<i4" if name.endswith("indices") else "<f4"
            self._add(name, (dtype, (spool.tell() // 4,)))
            spool.seek(0)
            shutil.copyfileobj(spool, self._file)
        for name, values in self._narrow.items():
            self._file.seek(self._start + self._end)
            self._add(name, (values.dtype.str, values.shape))
            self._file.write(values.tobytes())
        header = self._header(self._entries)
        header += b" " * (self._start - 8 - len(header))
        self._file.seek(0)
        self._file.write(len(header).to_bytes(8, "little") + header)

    def _add(self, name: str, entry: _Entry) -> None:
        self._entries[name] = entry, self._end
        self._end += _n_bytes(entry)

    def _header(self, entries: Mapping[str, tuple[_Entry, int]]) -> bytes:
        fields: dict[str, Any] = {METADATA: self._metadata}
        for name, (entry, begin) in entries.items():
            fields[name] = {
                "dtype": DTYPE_NAMES[np.dtype(entry[0])],
                "shape": [*entry[1]],
                "data_offsets": [begin, begin + _n_bytes(entry)],
            }
        return json.dumps(fields).encode("utf-8")
