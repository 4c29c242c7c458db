"""Digests of the arrays of a pack by segment, so that arrays can grow without being read again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sklprep.files.npy_file import NpyFile

SEGMENT_BYTES = 4 << 20
"""Part of the format: another size gives other digests. At most one segment per array is hashed
again when a pack grows, and held in memory when it is verified."""


class SegmentDigests:
    """SHA-256 of each segment of the bytes of an array, which are given piece by piece.

    Parameters
    ----------
    whole : iterable of str
        Digests of the complete segments before.
    size : int
        Bytes of a segment.

    Examples
    --------
    >>> digests = SegmentDigests(size=4)
    >>> digests.update(b"0123")
    >>> digests.update(b"456789")
    >>> digests.all() == [hashlib.sha256(s).hexdigest() for s in (b"0123", b"4567", b"89")]
    True
    """

    def __init__(self, whole: Iterable[str] = (), *, size: int = SEGMENT_BYTES) -> None:
        self._whole = list(whole)
        self._size = size
        self._rest, self._rest_bytes = hashlib.sha256(), 0

    def update(self, data: bytes | bytearray) -> None:
        """Add bytes."""
        view = memoryview(data)
        while view:
            piece = view[: self._size - self._rest_bytes]
            view = view[len(piece) :]
            self._rest.update(piece)
            self._rest_bytes += len(piece)
            if self._rest_bytes == self._size:
                self._whole.append(self._rest.hexdigest())
                self._rest, self._rest_bytes = hashlib.sha256(), 0

    def all(self) -> list[str]:
        """Return the digests of the complete segments, and of the rest if there is one."""
        return [*self._whole, *([self._rest.hexdigest()] if self._rest_bytes else [])]


def segments_of(array: NpyFile, *, last: bool = False) -> list[str]:
    """Return the digests of the segments of a file; text is hashed as UTF-8."""
    if array.dtype.kind == "U":
        text = "\0".join(array.read().tolist())
        return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()]
    return [hashlib.sha256(piece).hexdigest() for piece in array.pieces(SEGMENT_BYTES, last=last)]


def digest_of(segments: Iterable[str]) -> str:
    """Return the digest of an array from those of its segments."""
    return hashlib.sha256("".join(segments).encode()).hexdigest()
