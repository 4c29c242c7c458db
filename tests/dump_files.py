"""Dumps of other tools, written by hand after their specifications, to test importers on."""

import json
import struct

import numpy as np

DTYPES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "<i8": "I64", "<i4": "I32", "|u1": "U8"}
DTYPES |= {"|b1": "BOOL", "<u4": "U32", "<u2": "U16"}


class BFloat16:
    """An array that is written as bfloat16: `rounded` holds the values that it stands for."""

    def __init__(self, values):
        self.bits = (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2")
        self.rounded = (self.bits.astype("<u4") << 16).view("<f4")
        self.shape = self.bits.shape

    def tobytes(self):
        return self.bits.tobytes()


def safetensors(tensors, metadata=None, *, padding=0):
    """The bytes of a safetensors file."""
    header, data = {"__metadata__": metadata} if metadata is not None else {}, b""
    for name, values in tensors.items():
        raw = values.tobytes()
        dtype = "BF16" if isinstance(values, BFloat16) else DTYPES[values.dtype.str]
        ends = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": ends}
        data += raw
    text = json.dumps(header).encode() + b" " * padding
    return struct.pack("<Q", len(text)) + text + data


def write_safetensors(path, tensors, metadata=None):
    """Write a safetensors file; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(safetensors(tensors, metadata))
    return path


def write_datasets(folder, columns, *, batch_rows=4, files=2, wide=False):
    """Write columns as `datasets` does: Arrow streams of lists in lists, and a list of files."""
    import pytest

    pa = pytest.importorskip("pyarrow")
    folder.mkdir()
    n = len(next(iter(columns.values())))
    names = []
    for number, rows in enumerate(np.array_split(np.arange(n), files)):
        arrays = {}
        for name, values in columns.items():
            kind = None
            if values.ndim > 1:
                kind = pa.from_numpy_dtype(values.dtype)
                for _ in values.shape[1:]:
                    kind = pa.large_list(kind) if wide else pa.list_(kind)
            arrays[name] = pa.array(values[rows].tolist(), kind)
        table = pa.table(arrays)
        names.append(f"data-{number:05d}-of-{files:05d}.arrow")
        with (
            pa.OSFile(str(folder / names[-1]), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table, max_chunksize=batch_rows)
    state = {"_data_files": [{"filename": name} for name in names]}
    (folder / "state.json").write_text(json.dumps(state))
    return folder
