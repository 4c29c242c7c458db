"""Rows as one ``.safetensors`` file, which the importer of named arrays gives back."""

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

_LARGEST = 10**18  # stands in a header for a number that is not known yet
_Entry = tuple[str, tuple[int, ...]]  # dtype and shape
_MAX_LAYER = 10**6  # exclusive: six digits, as layers are read from names


def write_safetensors(rows: Rows, output: str | os.PathLike[str]) -> None:
    """Write rows block by block, in bounded memory.

    Parameters
    ----------
    rows : Rows
    output : path-like

    Raises
    ------
    OutputError
        If the path cannot be written, or the disk is too small.
    UsageError
        If the header cannot hold the sentences, or a layer has no number from 0 on.
    """
    metadata, arrays = _describe(rows)
    source = rows.source
    layers = source.layers.tolist() if source.d_model is not None else []
    if layers and not 0 <= min(layers) <= max(layers) < _MAX_LAYER:
        raise UsageError(
            f"Layer {min(layers) if min(layers) < 0 else max(layers)} has no name in safetensors;"
            f" expected 0 to {_MAX_LAYER - 1:,}. Use to_pack."
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
        folder = Path(output).parent  # which has the space
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
    """What is said in metadata, and the small arrays, the widest numbers first."""
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
    """Puts blocks of rows where they belong: the widest numbers first, so that all are aligned.

    Parameters
    ----------
    file, output
        What is written.
    shapes : dict of str to (str, tuple)
        Dtype and shape of the arrays that are known.
    spools : dict of str to file
        Where the indices and the data of sparse rows are kept until all have come.
    narrow : dict of str to ndarray
        Small arrays of numbers that are narrower than these.
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
                f"The header of {output} would take {size / 1e6:,.1f} MB, with the sentences in"
                f" it; expected at most {MAX_HEADER_BYTES / 1e6:,.1f} MB. Use to_pack."
            )
        self._start = -(-(8 + size) // ALIGNMENT) * ALIGNMENT
        self._n_values: dict[int, int] = {}

    def append(self, name: str, values: NDArray[Any]) -> None:
        """Write the next rows of an array."""
        raw = values.astype(self._entries[name][0][0], copy=False).tobytes()
        self._file.seek(self._start + self._next[name])
        self._file.write(raw)
        self._next[name] += len(raw)

    def append_block(self, block: Block) -> None:
        """Write the next rows of a member."""
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
        """Append what was kept aside, and write the header."""
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
