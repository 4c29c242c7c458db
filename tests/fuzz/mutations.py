"""Random damage: to any bytes, to JSON, to arrays, and to archives with their checksums right."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..forged_files import Entry, archive, deflated, forged_npy, header_text, npy, stored
from ..forged_pipelines import EVIL, STRANGE, members_of, places, zipped

Rng = np.random.Generator

_EDGES = [0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0xFFFF, 0x10000, 0x10FFFF, 2**31 - 1, 2**31, 2**32 - 1]
_EDGES += [2**32, 2**48, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
_MARKS = re.compile(rb"PK\x01\x02|PK\x03\x04|PK\x05\x06|\x93NUMPY|descr|shape|\": ")
_DTYPES = ["<f2", "<f4", "<f8", ">f4", "<i8", "<i4", "<u1", "|b1", "<U1", "<U5", "|S3", "|O", "|V2"]
_DTYPES += ["<f16", "<c8", "<M8[s]", "|V0", "<U0", "|S0", "f4,i4", "<f5", "", "<f4\n", "<U99999999"]
_TEXTS = ["", "\x1b[31mred", "a\nb\r\nc", "\0", "x" * 5000, "Ω≈ç🎉", "\x9b2J", "../../x", "'\"{}%s"]
_NAMES = [b"X.npy", b"y.npy", b"layers.npy", b"sentence.npy", b"x.npy", b"../x.npy", b"\xff.npy"]
_NAMES += [b"a\x1b[2J.npy", b"a\xc2\x9b2J.npy", b"pipeline.npy", b"meta_groups.npy", b"norm_x.npy"]
_NAMES += [b""]


def pick(rng: Rng, values: Any) -> Any:
    """One of a sequence, as it is."""
    return values[int(rng.integers(len(values)))]


def mutate_bytes(rng: Rng, content: bytes) -> bytes:
    """Make one to three edits that know nothing of the format but where it has numbers."""
    data = bytearray(content)
    for _ in range(pick(rng, (1, 1, 1, 2, 3))):
        pick(rng, _EDITS)(rng, data)
    return bytes(data)


def _flip(rng: Rng, data: bytearray) -> None:
    for _ in range(pick(rng, (1, 1, 2, 8))):
        if data:
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))


def _truncate(rng: Rng, data: bytearray) -> None:
    del data[rng.integers(len(data) + 1) :]


def _cut_out(rng: Rng, data: bytearray) -> None:
    start, stop = _span(rng, data)
    del data[start:stop]


def _duplicate(rng: Rng, data: bytearray) -> None:
    start, stop = _span(rng, data)
    data[stop:stop] = data[start:stop]


def _splice(rng: Rng, data: bytearray) -> None:
    start, stop = _span(rng, data)
    at = int(rng.integers(len(data) + 1))
    data[at : at + stop - start] = data[start:stop]


def _run_of_one_value(rng: Rng, data: bytearray) -> None:
    start, stop = _span(rng, data)
    data[start:stop] = bytes([pick(rng, (0, 0, 0, 255, 32))]) * (stop - start)


def _noise(rng: Rng, data: bytearray) -> None:
    start, stop = _span(rng, data)
    data[start:stop] = rng.bytes(stop - start)


def _edge_number(rng: Rng, data: bytearray) -> None:
    marks = [match.start() for match in _MARKS.finditer(data)]
    at = pick(rng, marks) + int(rng.integers(64)) if marks else int(rng.integers(len(data) + 1))
    size = pick(rng, (1, 2, 4, 8))
    number = pick(rng, (*_EDGES, len(data), len(data) + 1)) & (1 << 8 * size) - 1
    data[at : at + size] = number.to_bytes(size, "little")


def _junk_outside(rng: Rng, data: bytearray) -> None:
    junk = rng.bytes(int(rng.integers(1, 200)))
    if rng.random() < 0.5:
        data += junk
    else:
        data[:0] = junk


_EDITS: list[Callable[[Rng, bytearray], None]] = [
    _flip,
    _flip,
    _truncate,
    _cut_out,
    _duplicate,
    _splice,
    _run_of_one_value,
    _noise,
    _edge_number,
    _edge_number,
    _edge_number,
    _junk_outside,
]


def _span(rng: Rng, data: bytearray) -> tuple[int, int]:
    start = int(rng.integers(len(data) + 1))
    longest = pick(rng, (4, 64, 1024, len(data)))
    return start, min(len(data), start + 1 + int(rng.integers(longest + 1)))


def mutate_json(rng: Rng, value: Any) -> Any:
    """Delete, exchange or replace one to three places of a JSON value."""
    mutant = copy.deepcopy(value)
    for _ in range(pick(rng, (1, 1, 2, 3))):
        spots = list(places(mutant))
        if not spots:
            break
        container, key = pick(rng, spots)
        match int(rng.integers(6)):
            case 0:
                del container[key]
            case 1:
                other, other_key = pick(rng, spots)
                container[key] = copy.deepcopy(other[other_key])
            case 2 | 3 if type(container[key]) in (int, float):
                container[key] += pick(rng, (1, -1, 1000, 0.5, 2**31, 2**63))
            case 4 if type(container[key]) is list:
                container[key] = pick(rng, (container[key][::-1], container[key] * 2, []))
            case _:
                container[key] = pick(rng, (*STRANGE, *_TEXTS, *_EDGES))
    return mutant


def mutate_array(rng: Rng, values: NDArray[Any]) -> NDArray[Any]:
    """Give another array that numpy would write: of another shape, dtype, order or content."""
    match int(rng.integers(12)):
        case 0:
            return values.T
        case 1:
            return values.reshape(-1)
        case 2:
            return values[np.newaxis]
        case 3:
            return values[..., : int(rng.integers(3))] if values.ndim else values.reshape(1)
        case 4:
            return values[:-1] if values.ndim else np.zeros(0, values.dtype)
        case 5:
            return np.concatenate([values, values]) if values.ndim else np.array([values, values])
        case 6:
            return np.asarray(pick(rng, (*_TEXTS, True, 5, -1, 2.5, float("nan"), 2**63, 1j)))
        case 7:
            numbers = ("f2", "f4", "f8", ">f4", "i8", "u1", "?", "U4", "c8", "O", "u8")
            dtype = pick(rng, ("U1", "U40", ">U8") if values.dtype.kind == "U" else numbers)
            with np.errstate(all="ignore"):
                return values.astype(dtype)
        case 8:
            return np.asfortranarray(values)
        case 9:
            return np.array([pick(rng, (*_TEXTS, None, 1)) for _ in range(max(1, values.size))])
    changed = np.array(values)
    flat = changed.reshape(-1)
    for place in rng.integers(flat.size, size=pick(rng, (1, 1, 5))) if flat.size else ():
        flat[place] = _strange_value(rng, changed.dtype)
    return changed


def _strange_value(rng: Rng, dtype: np.dtype[Any]) -> Any:
    match dtype.kind:
        case "f":
            return pick(rng, [np.nan, np.inf, -np.inf, -0.0, float(np.finfo(dtype).max), 1e-45])
        case "i" | "u":
            limits = np.iinfo(dtype)
            return pick(rng, (limits.min, limits.max, 0, 1, 3, 4, limits.max // 2))
        case "b":
            return rng.random() < 0.5
    return pick(rng, _TEXTS)


def mutate_npy(rng: Rng, values: NDArray[Any]) -> bytes:
    """Give the bytes of an ``.npy`` file with something wrong, or just strange."""
    raw = npy(values)
    match int(rng.integers(8)):
        case 0:
            return npy(mutate_array(rng, values))
        case 1:
            return mutate_bytes(rng, raw)
        case 2:
            return raw[: int(rng.integers(len(raw)))]
        case 3:
            return raw + rng.bytes(int(rng.integers(1, 64)))
        case 4:
            return pick(rng, (b"", b"\x93NUMPY", b"text", b"\x80\x04N.", b"PK\3\4", bytes(200)))
    descr, shape, fortran = values.dtype.str, str(values.shape), "False"
    data, version, length = values.tobytes(), 1, None
    match int(rng.integers(6)):
        case 0:
            descr = pick(rng, _DTYPES)
        case 1 | 2:
            dims = [*values.shape, 1]
            dims[int(rng.integers(len(dims)))] = pick(rng, (-1, True, 2.0, None, *_EDGES))
            shape = str(tuple(dims[: len(values.shape) + int(rng.integers(2))]))
        case 3:
            fortran = pick(rng, ("True", "None", "1", "[]", "'x'"))
        case 4:
            version, length = pick(rng, (1, 2, 3)), pick(rng, (None, 0, 4096, 4097, 65535))
        case 5:
            version = pick(rng, (0, 4, 255))
    text = header_text(descr, shape, fortran) + " " * pick(rng, (0, 0, 0, 100, 4000, 60_000))
    return forged_npy(text[:65_535], data, version, length)


def mutate_archive(rng: Rng, arrays: Mapping[str, NDArray[Any]], *, compress: bool) -> bytes:
    """Give an NPZ file with wrong members, or wrong numbers about them, and right checksums."""
    payloads = {f"{name}.npy".encode(): npy(values) for name, values in arrays.items()}
    names = list(payloads)
    for _ in range(pick(rng, (0, 1, 1, 1, 2))):
        name = pick(rng, names)
        match int(rng.integers(8)):
            case 0:
                payloads.pop(name, None)
            case 1:
                payloads[name] = payloads.get(pick(rng, names), b"")
            case 2:
                payloads[pick(rng, _NAMES)] = payloads.pop(name, b"")
            case 3:
                payloads[pick(rng, _NAMES)] = pick(rng, (b"", npy(np.zeros(3)), b"text"))
            case _:
                payloads[name] = mutate_npy(rng, arrays[name[:-4].decode()])
    entries = [_entry(rng, raw, name, compress) for name, raw in payloads.items()]
    for _ in range(pick(rng, (0, 0, 1, 1, 2)) if entries else 0):
        at = int(rng.integers(len(entries)))
        entries[at] = _mutate_entry(rng, entries[at])
    match int(rng.integers(12)) if entries else 0:
        case 1:
            entries.insert(0, pick(rng, entries))
        case 2:
            entries.reverse()
        case 3:
            entries *= 3
    comment = rng.bytes(pick(rng, (0, 0, 0, 30, 60_000)))
    content = archive(*entries, comment=comment)
    return mutate_bytes(rng, content) if rng.random() < 0.1 else content


def _entry(rng: Rng, raw: bytes, name: bytes, compress: bool) -> Entry:
    return (deflated if compress != (rng.random() < 0.1) else stored)(raw, name)


def _mutate_entry(rng: Rng, entry: Entry) -> Entry:
    number = pick(rng, (*_EDGES, entry.size, entry.size + 1, len(entry.packed) * 1000)) % 2**32
    match int(rng.integers(9)):
        case 0:
            return replace(entry, size=number)
        case 1:
            return replace(entry, packed_size=number)
        case 2:
            return replace(entry, size=number, packed_size=number)
        case 3:
            return replace(entry, crc=number)
        case 4:
            return replace(entry, method=pick(rng, (0, 8, 9, 12, 14, 93, 95, 98, 99, 65535)))
        case 5:
            return replace(entry, flags=pick(rng, (1, 8, 32, 64, 2048, 65535)))
        case 6:
            return replace(entry, local_name=pick(rng, _NAMES))
        case 7:
            return replace(entry, header_offset=number)
    return replace(entry, packed=mutate_bytes(rng, entry.packed))


def mutate_dump(rng: Rng, dump: bytes) -> bytes:
    """Damage a skops dump: its bytes, its schema, or its arrays."""
    match int(rng.integers(4)):
        case 0:
            return mutate_bytes(rng, dump)
        case 1:
            members = members_of(dump)
            name = pick(rng, sorted(members.keys() - {"schema.json"}))
            with io.BytesIO(members[name]) as file:
                return zipped({**members, name: mutate_npy(rng, np.load(file))})
    members = members_of(dump)
    schema = mutate_schema(rng, json.loads(members["schema.json"]))
    return zipped({**members, "schema.json": json.dumps(schema).encode()})


def mutate_schema(rng: Rng, schema: Any) -> Any:
    """Change a skops schema like any JSON, or put a node of a bad kind somewhere into it."""
    if rng.random() < 0.7:
        return mutate_json(rng, schema)
    mutant = copy.deepcopy(schema)
    spots = [
        (container, key) for container, key in places(mutant) if isinstance(container[key], dict)
    ]
    container, key = pick(rng, spots)
    container[key] = copy.deepcopy(pick(rng, EVIL))
    return mutant


def flip(rng: Rng, content: bytes) -> bytes:
    """Flip one bit."""
    data = bytearray(content)
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(data)
