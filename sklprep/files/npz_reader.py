"""Reading NPZ files that may be broken or hostile.

The reader does not trust anything that a file says about itself: it opens only regular files,
limits the number of members and the size of every header, compares all sizes with each other, and
returns values only after their member was read to its end and its CRC-32 was correct. It never maps
a file into memory, and the memory that it needs does not depend on what a header claims.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
import zipfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import deflate
import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from sklprep.exceptions import FileFormatError
from sklprep.files.npy_file import COPY_AGAIN, ArrayHeader, find_bad_bytes, parse_npy_header
from sklprep.files.regular_file import RegularFile
from sklprep.files.system import read_at

# A sentence file has 14 members and a dataset about 25. zipfile needs a few kilobytes for each
# entry of the directory, so the directory itself is bounded too.
_MAX_MEMBERS = 64
_MAX_DIRECTORY_BYTES = 1 << 20
_MEMBER_NAME = re.compile(r"[^/\\]{1,100}")  # numpy would take ../x.npy

_MAX_DEFLATE_RATIO = 1040
"""Deflate compresses at most 1032 bytes into one (measured: 1029), so a larger claim is false."""

# Measured on 26 layers of 20 tokens (hidden states 4.8 MB, activations 34 MB, 0.5 % not zero).
_SLICE_IN = 64 << 10
"""Compressed bytes read at once: from 16 to 256 KiB, CPU time differs by at most 5 %."""
_SLICE_OUT = 512 << 10
"""Inflated bytes at once, held by every thread: smaller pieces need more CPU time (64 KiB a third
more on activations); from 256 KiB on it stays the same."""
_HEADER_SLICE = 8 << 10  # holds the longest npy header that is read
_MIN_AT_ONCE, _MAX_AT_ONCE = 256 << 10, 16 << 20
"""Bytes of members that libdeflate inflates at once, in 0.80 to 0.90 of the time of zlib-ng. For
smaller ones the gain is negligible; for larger ones a thread would need too much memory."""
_DENSE_RATIO = 4
"""Members with a higher compression ratio are mostly zeros, and large: with 0.5 % of other values
both are equally fast, and streaming needs only half a megabyte."""
_BLOCK_BYTES = 1 << 20  # of rows yielded at once: two slices, which fit in the cache of a CPU

_INFLATE_ERROR: type[Exception] = zlib_ng.error  # type: ignore[assignment]
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END_RECORD = struct.Struct("<4s4H2IH")
_MAX_COMMENT = 0xFFFF  # its length is stored in two bytes
_ZIP64_BYTES = 56 + 20  # its end record and locator, before the plain end record


@dataclass(frozen=True, slots=True)
class Member:
    """One array of an NPZ file, as its zip entry and its npy header describe it."""

    name: str
    method: int
    crc: int
    packed_size: int
    size: int
    start: int


class NpzReader(RegularFile):
    """The arrays of one NPZ file, stored or deflated, of which only those needed are read.

    Parameters
    ----------
    path : path-like
        A regular file. Pipes, devices and folders are refused without being read.

    Attributes
    ----------
    path : Path
    members : dict of str to Member
        By array name, in the order of the archive.

    Raises
    ------
    FileFormatError
        If the file is not an NPZ archive that numpy could have written.
    FileNotFoundError, PermissionError
        If the operating system refuses to open the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, "an NPZ file")
        try:
            self.members: dict[str, Member] = {}
            for entry in self._read_directory():
                member = self._member_of(entry)
                if member.name in self.members:
                    raise self.fault(
                        member.name, "is in the archive twice", "one member of each name"
                    )
                self.members[member.name] = member
        except BaseException:
            self.close()
            raise

    def header(self, name: str) -> ArrayHeader:
        """Read the shape and dtype of a member without reading its data."""
        member = self._member(name)
        with contextlib.closing(self._inflate(member, _HEADER_SLICE)) as pieces:
            return self._header_of(member, next(pieces, b""))

    def array(self, name: str, *, max_bytes: int | None = None) -> NDArray[Any]:
        """Read a whole member; an array of more than `max_bytes` is a fault."""
        member = self._member(name)
        pieces = self._inflate(member)
        first = next(pieces, b"")
        header = self._header_of(member, first)
        n_bytes = header.n_bytes
        if max_bytes is not None and n_bytes > max_bytes:
            pieces.close()
            raise self.fault(name, f"has {n_bytes:,} bytes", f"at most {max_bytes:,}")
        values = np.empty(header.shape, header.dtype)
        buffer = values.reshape(-1).view(np.uint8).data if n_bytes else memoryview(bytearray())
        position = 0
        piece = memoryview(first)[header.data_offset :]
        while True:
            buffer[position : position + len(piece)] = piece
            position += len(piece)
            try:
                piece = memoryview(next(pieces))
            except StopIteration:
                break
        if bad := find_bad_bytes(values):
            raise self.fault(name, *bad)
        return values

    def check(self) -> None:
        """Verify the checksums of all members."""
        for member in self.members.values():
            for _ in self._inflate(member):
                pass

    def blocks(
        self, name: str, ranges: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Stream the rows (vectors along the last axis) in ascending, disjoint ranges.

        Yields ``(number of the first row, rows)``, at most about 1 MiB at a time and never across
        the end of a range; the array is valid until the next step. The rest of the member is read
        too, and its CRC checked, so rows can be trusted only after the iteration has ended.
        """
        member = self._member(name)
        pieces = self._inflate(member)
        first = next(pieces, b"")
        header = self._header_of(member, first)
        width, row_bytes = header.shape[-1], header.row_bytes
        per_block = max(1, _BLOCK_BYTES // row_bytes)
        piece, start = memoryview(first), -header.data_offset
        for range_start, range_stop in ranges:
            for row in range(range_start, range_stop, per_block):
                n_rows = min(per_block, range_stop - row)
                begin, end = row * row_bytes, (row + n_rows) * row_bytes
                while start + len(piece) <= begin:
                    start += len(piece)
                    piece = memoryview(next(pieces))
                if end <= start + len(piece):
                    raw: Any = piece[begin - start : end - start]
                else:
                    raw = bytearray(end - begin)
                    filled = 0
                    while filled < len(raw):
                        at = begin + filled - start
                        part = piece[at : at + len(raw) - filled]
                        raw[filled : filled + len(part)] = part
                        filled += len(part)
                        if filled < len(raw):
                            start += len(piece)
                            piece = memoryview(next(pieces))
                yield row, np.frombuffer(raw, header.dtype).reshape(n_rows, width)
        for _ in pieces:
            pass

    def _header_of(self, member: Member, first: bytes) -> ArrayHeader:
        def fault(found: str, expected: str, do: str = "") -> FileFormatError:
            return self.fault(member.name, found, expected, do)

        header = parse_npy_header(first, fault)
        n_bytes = member.size - header.data_offset
        if n_bytes != header.n_bytes:
            raise fault(
                f"has {n_bytes:,} bytes of data",
                f"{header.n_bytes:,} for shape {header.shape} of {header.dtype}",
            )
        return header

    def _member(self, name: str) -> Member:
        try:
            return self.members[name]
        except KeyError:
            others = ", ".join(self.members)
            others = others if len(others) <= 300 else f"{others[:297]}..."
            expected = f"an array of that name next to {others}"
            raise self.fault(name, "is missing", expected) from None

    def _read_directory(self) -> list[zipfile.ZipInfo]:
        try:
            if read_at(self._fd, 2, 0) != b"PK":
                raise zipfile.BadZipFile("it does not start as one")
            with zipfile.ZipFile(_CappedFile(self._fd, self.file_size)) as archive:
                entries = archive.infolist()
            claimed = self._count_claimed()
        except _DirectoryTooLargeError:
            raise self.fault(
                None, "has an oversized zip directory", f"at most {_MAX_MEMBERS} members"
            ) from None
        except Exception as error:  # zipfile raises many kinds for malformed directories
            raise self.fault(
                None,
                f"cannot be read as a zip archive ({error})",
                "an NPZ file written by numpy.savez or numpy.savez_compressed",
                "The file may be cut short or foreign; extract it again.",
            ) from error
        if len(entries) > _MAX_MEMBERS:
            raise self.fault(None, f"has {len(entries)} members", f"at most {_MAX_MEMBERS}")
        if len(entries) != claimed:
            raise self.fault(
                None,
                f"has {len(entries)} members in its zip directory",
                f"{claimed}, as its end record says",
                COPY_AGAIN,
            )
        return entries

    def _member_of(self, entry: zipfile.ZipInfo) -> Member:
        name = entry.filename.removesuffix(".npy")
        if name == entry.filename or not _MEMBER_NAME.fullmatch(name) or not name.isprintable():
            raise self.fault(entry.filename[:100], "is not an array", "members named NAME.npy")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # numpy writes only these two; a bzip2 bomb took 1.9 GB to read 16 bytes
            raise self.fault(
                name, f"uses zip compression method {entry.compress_type}", "stored or deflated"
            )
        if entry.flag_bits & 1:
            raise self.fault(name, "is encrypted", "a plain member")
        stored = entry.compress_type == zipfile.ZIP_STORED
        if (
            entry.header_offset < 0
            or entry.header_offset + entry.compress_size > self.file_size
            or (stored and entry.compress_size != entry.file_size)
            or entry.file_size > entry.compress_size * _MAX_DEFLATE_RATIO
        ):
            raise self.fault(
                name,
                f"claims {entry.file_size:,} bytes from {entry.compress_size:,} packed ones in"
                f" a file of {self.file_size:,}",
                "sizes that fit together",
            )
        return Member(
            name,
            entry.compress_type,
            entry.CRC,
            entry.compress_size,
            entry.file_size,
            self._packed_start(name, entry),
        )

    def _count_claimed(self) -> int:
        """Return the number of members in the end record, which `zipfile` does not compare."""
        position = self.file_size - _END_RECORD.size
        record = read_at(self._fd, _END_RECORD.size, position)
        if record[:4] != b"PK\x05\x06" or record[-2:] != b"\0\0":  # a comment follows it
            start = max(0, position - _MAX_COMMENT)
            tail = read_at(self._fd, self.file_size - start, start)
            at = tail.rfind(b"PK\x05\x06")
            position, record = start + at, tail[at : at + _END_RECORD.size]
        claimed: int = _END_RECORD.unpack(record)[4]
        if claimed == 0xFFFF and position >= _ZIP64_BYTES:
            record = read_at(self._fd, _ZIP64_BYTES, position - _ZIP64_BYTES)
            if record[:4] == b"PK\x06\x06":
                claimed = int.from_bytes(record[32:40], "little")
        return claimed

    def _packed_start(self, name: str, entry: zipfile.ZipInfo) -> int:
        """Find where the data begin, and check the copy of the name in the local header."""
        start: int
        expected = f"{name}.npy".encode()
        n_bytes = _LOCAL_HEADER.size + len(expected)
        raw = read_at(self._fd, n_bytes, entry.header_offset)
        if len(raw) == n_bytes:
            fields: tuple[Any, ...] = _LOCAL_HEADER.unpack_from(raw)
            name_length, extra_length = fields[-2:]
            start = entry.header_offset + n_bytes + extra_length
            if (
                fields[0] == b"PK\x03\x04"
                and fields[3] == entry.compress_type
                and name_length == len(expected)
                and raw.endswith(expected)
                and start + entry.compress_size <= self.file_size
            ):
                return start
        raise self.fault(name, "has no matching local header", "a whole zip archive")

    def _inflate(self, member: Member, max_piece: int = _SLICE_OUT) -> Generator[bytes, None, None]:
        """Yield the bytes of a member in pieces, then check its size and CRC-32."""
        if member.method == zipfile.ZIP_STORED:
            pieces = self._stored_pieces(member, max_piece)
        elif (
            max_piece == _SLICE_OUT
            and _MIN_AT_ONCE <= member.size <= _MAX_AT_ONCE
            and member.size <= member.packed_size * _DENSE_RATIO
        ):
            pieces = self._inflate_at_once(member)
        else:
            pieces = self._inflate_streaming(member, max_piece)
        size = crc = 0
        for piece in pieces:
            size += len(piece)
            if size > member.size:
                raise self._wrong_size(member)
            crc = zlib_ng.crc32(piece, crc)
            yield piece
        if size != member.size or crc != member.crc:
            raise self.fault(
                member.name,
                f"has {size:,} bytes with CRC-32 {crc:08x}",
                f"{member.size:,} with {member.crc:08x}",
                COPY_AGAIN,
            )

    def _stored_pieces(self, member: Member, max_piece: int) -> Iterator[bytes]:
        position = member.start
        end = position + member.packed_size
        while position < end and (
            piece := read_at(self._fd, min(max_piece, end - position), position)
        ):
            position += len(piece)
            yield piece

    def _inflate_at_once(self, member: Member) -> Iterator[bytes]:
        """Use libdeflate: a fifth faster than streaming on dense numbers, but not in pieces."""
        packed = b"".join(self._stored_pieces(member, member.packed_size))
        try:
            yield deflate.deflate_decompress(packed, member.size)  # type: ignore[misc]
        except deflate.DeflateError as error:
            raise self._damaged(member, error) from error

    def _inflate_streaming(self, member: Member, max_piece: int) -> Iterator[bytes]:
        """Use zlib-ng: constant memory, and several times faster than libdeflate on zeros."""
        position = member.start
        end = position + member.packed_size
        inflater = zlib_ng.decompressobj(-zlib_ng.MAX_WBITS)
        packed = b""
        while not inflater.eof:
            if not packed:
                n_bytes = min(_SLICE_IN, max_piece, end - position)
                packed = read_at(self._fd, n_bytes, position)
                position += len(packed)
            try:
                piece = inflater.decompress(packed, max_piece)
            except _INFLATE_ERROR as error:
                raise self._damaged(member, error) from error
            if not (packed or piece):  # nothing left to read or to inflate
                break
            packed = inflater.unconsumed_tail
            if piece:
                yield piece
        if not inflater.eof or inflater.unused_data or packed or position < end:
            raise self._wrong_size(member)

    def _wrong_size(self, member: Member) -> FileFormatError:
        return self.fault(
            member.name,
            "inflates to a different size than its entry claims",
            f"{member.size:,} bytes",
            COPY_AGAIN,
        )

    def _damaged(self, member: Member, what: object) -> FileFormatError:
        return self.fault(
            member.name,
            f"does not inflate ({what})",
            f"deflate data of {member.size:,} bytes",
            COPY_AGAIN,
        )


class _DirectoryTooLargeError(Exception):
    pass


class _CappedFile:
    """The part of a file object that `zipfile` needs to read a directory, with bounded reads."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._size, self._position = fd, size, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def read(self, n: int = -1) -> bytes:
        left = max(0, self._size - self._position)
        n = left if n < 0 else min(n, left)
        if n > _MAX_DIRECTORY_BYTES:
            raise _DirectoryTooLargeError
        raw = read_at(self._fd, n, self._position)
        self._position += len(raw)
        return raw

    def close(self) -> None:
        pass
