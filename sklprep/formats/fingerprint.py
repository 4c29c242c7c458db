"""Fingerprints: what tells the content of a folder from any other, wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sklprep.files.npz_reader import NpzReader


def fingerprint_of(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over names of files, and digests of every member's name, size and CRC-32."""
    whole = hashlib.sha256()
    for name, digest in files:
        whole.update(name.encode() + b"\0" + digest)
    return whole.hexdigest()


def directory_digest(reader: NpzReader) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for member in reader.members.values():
        digest.update(f"{member.name}\0{member.size}\0{member.crc}\0".encode())
    return digest.digest()
