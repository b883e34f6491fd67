"""Names of contents: the same in every process and on every machine, other wherever a byte is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def fingerprint_of(value) -> str:
    """32 hexadecimal digits of anything JSON can write."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode("utf-8"), digest_size=16).hexdigest()


def hash_of(data: bytes, key: int = 0) -> int:
    """64 bits, the same in every process (Python's own hash is not)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=str(key).encode()).digest(), "little")


def file_digest(paths: list[Path]) -> str:
    """Of the bytes, file by file; names and folders do not matter."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
