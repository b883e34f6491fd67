"""Names of contents: the same in every process and on every machine, other wherever a byte is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Files up to this size are hashed whole; of larger ones so many blocks of that size.
WHOLE, SAMPLES, BLOCK = 1 << 26, 32, 1 << 20
# Characters of a text that are split into words at once.
PART = 1 << 20
_SPACE = re.compile(r"\s")


def fingerprint_of(value: Any) -> str:
    """32 hexadecimal digits of anything JSON can write."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode("utf-8"), digest_size=16).hexdigest()


def hash_of(data: bytes, key: int = 0) -> int:
    """64 bits, the same in every process (Python's own hash is not)."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=str(key).encode()).digest(), "little")


def words_hash(text: str, key: int = 0) -> int:
    """`hash_of` the words of a text, joined by single spaces: what white space stands between them does not matter."""
    digest = hashlib.blake2b(digest_size=8, key=str(key).encode())
    is_first = True
    for part in _parts(text):
        words = " ".join(part.split())
        if words:
            digest.update((words if is_first else f" {words}").encode("utf-8"))
            is_first = False
    return int.from_bytes(digest.digest(), "little")


def _parts(text: str) -> Iterator[str]:
    """A long text in parts that end between words: its words all at once would take many times its memory."""
    begin = 0
    while len(text) - begin > PART:
        space = _SPACE.search(text, begin + PART)
        if space is None:
            break
        yield text[begin : space.start()]
        begin = space.start()
    yield text[begin:] if begin else text


def file_digest(paths: list[Path]) -> str:
    """Of the content, file by file; names and folders do not matter.

    Of files up to `WHOLE` bytes all bytes are read. Of larger ones the size, the time of the last change and `SAMPLES`
    blocks all over the file, so that a start takes a second, not the minutes that a terabyte would.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        stat = path.stat()
        digest.update(stat.st_size.to_bytes(8, "little"))
        with open(path, "rb") as file:
            if stat.st_size <= WHOLE:
                while chunk := file.read(BLOCK):
                    digest.update(chunk)
                continue
            digest.update(b"sampled" + stat.st_mtime_ns.to_bytes(16, "little"))
            for number in range(SAMPLES):
                file.seek(number * (stat.st_size - BLOCK) // (SAMPLES - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
