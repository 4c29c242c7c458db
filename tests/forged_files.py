"""Forged NPZ files: archives and arrays that claim what a test wants, and the table of bad ones."""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Entry:
    """One member of a zip archive that claims whatever a test wants it to claim."""

    name: bytes
    packed: bytes
    size: int
    crc: int
    method: int = 0
    flags: int = 0
    local_name: bytes | None = None
    packed_size: int | None = None
    header_offset: int | None = None


def npy(values):
    file = io.BytesIO()
    np.save(file, np.asarray(values), allow_pickle=True)
    return file.getvalue()


def forged_npy(header, data=b"", version=1, length=None):
    text = header.encode() if isinstance(header, str) else header
    length = len(text) if length is None else length
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + struct.pack("<H" if version == 1 else "<I", length)
        + text
        + data
    )


def header_text(descr="<f4", shape="(2,)", fortran="False"):
    return f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n"


def stored(raw, name=b"a.npy", **changes):
    return replace(Entry(name, raw, len(raw), zlib.crc32(raw)), **changes)


def deflate(raw, level=6):
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(raw) + packer.flush()


def deflated(raw, name=b"a.npy", **changes):
    return replace(Entry(name, deflate(raw), len(raw), zlib.crc32(raw), method=8), **changes)


def bomb(name, raw, megabytes):
    """A deflated member of `raw` and then so many MB of zeros, made without packing them all."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    mega = bytes(1 << 20)
    parts = [packer.compress(raw) + packer.flush(zlib.Z_FULL_FLUSH)]
    repeated = packer.compress(mega) + packer.flush(zlib.Z_FULL_FLUSH)
    parts += [repeated] * megabytes + [packer.flush()]
    crc = zlib.crc32(raw)
    for _ in range(megabytes):
        crc = zlib.crc32(mega, crc)
    return Entry(name, b"".join(parts), len(raw) + (megabytes << 20), crc, method=8)


def archive(*entries, comment=b"", extra=b""):
    body, directory = b"", b""
    for entry in entries:
        packed_size = len(entry.packed) if entry.packed_size is None else entry.packed_size
        offset = len(body) if entry.header_offset is None else entry.header_offset
        local_name = entry.name if entry.local_name is None else entry.local_name
        common = (20, entry.flags, entry.method, 0, 33, entry.crc, packed_size, entry.size)
        body += struct.pack("<4s5H3I2H", b"PK\3\4", *common, len(local_name), 0)
        body += local_name + entry.packed
        directory += (
            struct.pack("<4s6H3I", b"PK\1\2", 20, *common)
            + struct.pack("<5H2I", len(entry.name), len(extra), 0, 0, 0, 0, offset)
            + entry.name
            + extra
        )
    counts = (len(entries), len(entries), len(directory), len(body), len(comment))
    return body + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *counts) + comment


EIGHT = bytes(8)
BAD_MEMBERS = {
    "object dtype": (npy(np.array([None, {}])), "dtype '|O'"),
    "object in a struct": (npy(np.zeros(2, [("x", "O")])), "dtype \"[('x', '|O')]\""),
    "structured": (npy(np.zeros(2, "f4,i4")), "dtype"),
    "big-endian": (npy(np.zeros(2, ">f4")), "dtype '>f4'; expected little-endian"),
    "complex": (npy(np.zeros(2, "c8")), "dtype '<c8'"),
    "long double": (npy(np.zeros(2, np.longdouble)), "dtype '<f16'"),
    "dates": (npy(np.zeros(2, "M8[s]")), "dtype '<M8[s]'"),
    "bytes": (npy(np.zeros(2, "S5")), "dtype '|S5'"),
    "bfloat16": (forged_npy(header_text("|V2", "(4,)"), EIGHT), "Save it as float32 (bfloat16"),
    "void of no size": (forged_npy(header_text("|V0", "(1000000000,)")), "dtype '|V0'"),
    "bytes of no size": (forged_npy(header_text("|S0", "(1000000000,)")), "dtype '|S0'"),
    "text of no size": (forged_npy(header_text("<U0", "(1000000000,)")), "dtype '<U0'"),
    "text of vast size": (forged_npy(header_text("<U999999999", "()")), "dtype '<U999999999'"),
    "no such dtype": (forged_npy(header_text("<f5"), EIGHT), "dtype '<f5'"),
    "dtype in two lines": (forged_npy(header_text("<f4\n"), EIGHT), r"dtype '<f4\n'"),
    "Fortran order": (npy(np.asfortranarray(np.ones((2, 3)))), "Fortran order; expected C order"),
    "no order": (forged_npy(header_text(fortran="None"), EIGHT), "Fortran order"),
    "bool bytes of 7": (forged_npy(header_text("|b1"), b"\1\7"), "other than 0 and 1"),
    "bool bytes of 255": (forged_npy(header_text("|b1"), b"\1\xff"), "other than 0 and 1"),
    "beyond unicode": (forged_npy(header_text("<U1"), b"\xff" * 8), "characters beyond unicode"),
    "shape 1e12": (forged_npy(header_text(shape="(1000000000000,)"), EIGHT), "4,000,000,000,000"),
    "shape 2^64": (forged_npy(header_text(shape=f"({2**64},)"), EIGHT), f"shape ({2**64},)"),
    "shape 2^62x4": (forged_npy(header_text(shape=f"({2**62}, 4)"), EIGHT), f"shape ({2**62}, 4)"),
    "shape 0x2^62x4": (forged_npy(header_text(shape=f"(0, {2**62}, 4)")), f"shape (0, {2**62}, 4)"),
    "shape 0x2^70": (forged_npy(header_text(shape=f"(0, {2**70})")), f"shape (0, {2**70})"),
    "shape negative": (forged_npy(header_text(shape="(-2, -1)"), EIGHT), "shape (-2, -1)"),
    "shape in hex": (forged_npy(header_text(shape=f"(0x{'f' * 3900},)"), EIGHT), "cannot be read"),
    "bool in the shape": (forged_npy(header_text(shape="(True, 2)"), EIGHT), "shape (True, 2)"),
    "float in the shape": (forged_npy(header_text(shape="(2.0,)"), EIGHT), "shape (2.0,)"),
    "shape a list": (forged_npy(header_text(shape="[2]"), EIGHT), "shape [2]"),
    "shape a number": (forged_npy(header_text(shape="2"), EIGHT), "shape 2"),
    "shape in two lines": (forged_npy(header_text(shape=r"'a\nb'"), EIGHT), r"shape 'a\nb'"),
    "100 dimensions": (forged_npy(header_text(shape=f"({'1,' * 100})"), EIGHT[:4]), "at most 32"),
    "2 GB over 64 bytes": (
        forged_npy(header_text(shape="(500000000,)"), bytes(64)),
        "has 64 bytes of data; expected 2,000,000,000",
    ),
    "truncated data": (npy(np.ones(10))[:-1], "has 79 bytes of data; expected 80"),
    "data after the array": (npy(np.ones(10)) + b"x", "has 81 bytes of data; expected 80"),
    "empty member": (b"", "is not a numpy array"),
    "not npy": (b"something else than an array", "is not a numpy array"),
    "only the magic": (b"\x93NUMPY\1\0", "is not a numpy array"),
    "version 4": (forged_npy(header_text(), EIGHT, version=4), "npy header of version 1 to 3"),
    "version 0": (forged_npy(header_text(), EIGHT, version=0), "npy header of version 1 to 3"),
    "v1 header of 60 kB": (
        forged_npy(header_text() + " " * 60_000, EIGHT),
        "expected at most 4,096",
    ),
    "v2 header of 4 GB": (forged_npy(header_text(), EIGHT, 2, 2**32 - 1), "4,294,967,295 bytes"),
    "header past the end": (forged_npy(header_text(), length=4000), "has a header of 4,000 bytes"),
    **{
        f"header text {number}": (forged_npy(text, EIGHT), "has a header that cannot be read")
        for number, text in enumerate(
            [
                "",
                "{",
                "not python at all",
                "[1, 2]",
                "'text'",
                "7",
                "{'descr': '<f4', 'fortran_order': False}",
                "{[]: 1}",
                "(" * 4000,
                "[" * 2000 + "]" * 2000,
                "-" * 4000 + "1",
                "{'descr':" * 400,
                "1+" * 2000 + "1",
                "__import__('os').system('false')",
                b"\xff\xfe\xfd",
                b"{'descr'\0: 1}",
                "f'{1}'",
            ]
        )
    },
}


SOUND = npy(np.arange(40, dtype=np.int64))
PACKED = deflate(SOUND)
BAD_ENTRIES = {
    "CRC error": (stored(SOUND, crc=1), "with CRC-32"),
    "CRC error, deflated": (deflated(SOUND, crc=1), "with CRC-32"),
    "bad deflate": (deflated(SOUND, packed=b"\xff" * 200), "does not inflate"),
    "deflate cut short": (deflated(SOUND, packed=PACKED[:-3]), "inflates to a different size"),
    "junk after deflate": (
        deflated(SOUND, packed=PACKED + b"junk"),
        "inflates to a different size",
    ),
    "claims less": (deflated(SOUND, size=len(SOUND) - 8), "inflates to a different size"),
    "claims more": (deflated(SOUND, size=len(SOUND) + 8), "bytes of data"),
}


def zip_by(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as zipped:
        zipped.writestr("a.npy", SOUND)
    return file.getvalue()


TWICE = archive(stored(SOUND), stored(npy(7)))
TWO_IN_ONE = bytearray(archive(stored(SOUND), stored(SOUND, b"b.npy")))
TWO_IN_ONE[TWO_IN_ONE.index(b"PK\1\2") + 32] = 46 + len("b.npy")  # the comment of the first entry
BAD_ARCHIVES = {
    "duplicate members": (TWICE, "'a' is in the archive twice"),
    "a path upwards": (archive(stored(SOUND, b"../x.npy")), "'../x.npy' is not an array"),
    "a path downwards": (archive(stored(SOUND, b"x/y.npy")), "'x/y.npy' is not an array"),
    "a path of Windows": (archive(stored(SOUND, b"x\\y.npy")), "is not an array"),
    "an absolute path": (archive(stored(SOUND, b"/etc/x.npy")), "is not an array"),
    "a name in two lines": (archive(stored(SOUND, b"x\ny.npy")), r"'x\ny.npy' is not an array"),
    "a name of no length": (archive(stored(SOUND, b".npy")), "'.npy' is not an array"),
    "a name of 5 kB": (archive(stored(SOUND, b"x" * 5000 + b".npy")), "is not an array"),
    "a name of a control": (
        archive(stored(SOUND, b"x\xc2\x9bJ.npy", flags=0x800)),
        "not an",
    ),
    "another name inside": (archive(stored(SOUND, local_name=b"b.npy")), "no matching local"),
    "a name with NUL": (archive(stored(SOUND, name=b"a.npy\0.npy")), "no matching local header"),
    "a header elsewhere": (archive(stored(SOUND, header_offset=3)), "no matching local header"),
    "another file inside": (archive(stored(b"text", b"README")), "'README' is not an array"),
    "encrypted": (archive(stored(SOUND, flags=1)), "'a' is encrypted"),
    "bzip2": (zip_by(zipfile.ZIP_BZIP2), "'a' uses zip compression method 12"),
    "lzma": (zip_by(zipfile.ZIP_LZMA), "'a' uses zip compression method 14"),
    "deflate64": (archive(stored(SOUND, method=9)), "'a' uses zip compression method 9"),
    "zstandard": (archive(stored(SOUND, method=93)), "'a' uses zip compression method 93"),
    "stored in two sizes": (archive(stored(SOUND, size=7)), "'a' claims 7 bytes from 448"),
    "past the end": (archive(deflated(SOUND, packed_size=10**9)), "1,000,000,000 packed"),
    "too good a ratio": (archive(deflated(SOUND, size=10**9)), "'a' claims 1,000,000,000 bytes"),
    "a directory of 2 MB": (
        archive(*[stored(b"", b"%d.npy" % i) for i in range(60)], extra=bytes(40_000)),
        "has an oversized zip directory",
    ),
    "a member hidden in a comment": (
        TWO_IN_ONE,
        "has 1 members in its zip directory; expected 2, as its end record says",
    ),
    "leading junk": (b"junk" * 50 + archive(stored(SOUND)), "cannot be read as a zip archive"),
    "text": (b"No, I am a text file.\n" * 100, "cannot be read as a zip archive"),
    "a bare npy": (SOUND, "cannot be read as a zip archive"),
    "zero bytes": (b"", "cannot be read as a zip archive"),
    "four bytes": (b"PK\3\4", "cannot be read as a zip archive"),
    "cut in the middle": (zip_by(zipfile.ZIP_STORED)[:300], "The file may be cut short"),
    "cut by a byte": (zip_by(zipfile.ZIP_STORED)[:-1], "The file may be cut short"),
    "directory elsewhere": (archive(stored(SOUND))[:-6] + b"\xff\xff\xff\x7f\0\0", "claims"),
    "directory a byte later": (
        archive(stored(SOUND), stored(SOUND, b"b.npy"))[:-6]
        + struct.pack("<IH", 2 * (len(SOUND) + 35) + 1, 0),
        "claims",
    ),
}
