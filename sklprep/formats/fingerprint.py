"""Fingerprints: digests that identify the content of a folder, wherever it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sklprep.files.npz_reader import NpzReader


def fingerprint_of(files: Iterable[tuple[str, bytes]]) -> str:
    """Return the SHA-256 over the names of files, each with its digest."""
    whole = hashlib.sha256()
    for name, digest in files:
        whole.update(name.encode() + b"\0" + digest)
    return whole.hexdigest()


def directory_digest(reader: NpzReader) -> bytes:
    """Return the digest of name, size and CRC-32 of every member of a file."""
    digest = hashlib.blake2b(digest_size=16)
    for member in reader.members.values():
        digest.update(f"{member.name}\0{member.size}\0{member.crc}\0".encode())
    return digest.digest()
