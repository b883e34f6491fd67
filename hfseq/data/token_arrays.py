"""Tokens on disk, memory-mapped: built once per corpus and tokenizer, shared by all processes and runs.

One directory per fingerprint under the cache directory, one folder in it per side:

    <cache>/<fingerprint>/train/tokens.bin      uint16 (vocabularies up to 65,536) or uint32, end token between texts
                                offsets.npy     int64 [documents + 1], where documents begin, and the end
                                meta.json       counts and checksums; sizes are checked at every load, contents of
                                                arrays up to 256 MiB too (of larger ones where `verify` asks for it)

`tokens.bin` is `end, document, end, document, end, ...`: it begins with the end-of-text token, so that of N tokens
N - 1 are targets and they are *all* the text and all the ends; bits per byte can divide by the bytes of the text.

The directory is written under another name and renamed when it is complete, under a file lock: processes that start
together build once and the rest wait; a killed build leaves nothing that looks whole, and the next one goes on with it
(`array_building.py`).

Loading needs NumPy only.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..paths import user_path
from .encoding import dtype_of, with_ends

# Part of every fingerprint: raise it when what is written changes.
FORMAT_VERSION = 1
# Tokens up to this size are compared with their checksum whenever they are loaded from the cache.
CHECKED_BYTES = 1 << 28
_META = {
    "format",
    "fingerprint",
    "dtype",
    "n_tokens",
    "n_documents",
    "n_bytes",
    "n_words",
    "vocab_size",
    "end_id",
}


@dataclass
class TokenArray:
    """The tokens of one side of a corpus."""

    tokens: np.ndarray = field(repr=False)
    """uint16 or uint32 [N], memory-mapped: end, document, end, document, end, ..."""
    offsets: np.ndarray = field(repr=False)
    """int64 [n_documents + 1]: document i is tokens[offsets[i]:offsets[i + 1]], its end token included."""
    n_documents: int
    n_bytes: int
    """UTF-8 bytes of the text: what bits per byte divides by."""
    n_words: int
    """Words between white space: what perplexity per word divides by."""
    vocab_size: int
    """One more than the tokenizer's largest id."""
    end_id: int
    """Id of the end-of-text token."""
    fingerprint: str
    """Of corpus and tokenizer."""
    path: Path
    """The folder these were loaded from."""

    def __len__(self) -> int:
        return len(self.tokens)

    def document(self, index: int) -> np.ndarray:
        """Tokens of one document, without its end token."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1] - 1]

    # NumPy would pickle a memory map as a copy of its content; workers map the file themselves.
    def __reduce__(self):
        return load_token_array, (self.path,)


def load_token_array(path: str | os.PathLike) -> TokenArray:
    """One side, e.g. `<cache>/<fingerprint>/train`.

    Raises:
        FileNotFoundError: no token array there.
        ValueError: written by another version of the format, or its files do not have the sizes they were written
            with.
    """
    path = user_path(path)
    if not (path / "meta.json").is_file():
        raise FileNotFoundError(f"No token array at {path}. build_token_arrays makes one.")
    meta = _read_meta(path)
    if meta["format"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {meta['format']}, this version of hfseq reads {FORMAT_VERSION}. Delete {path.parent}; "
            "it will be built again."
        )
    dtype = np.dtype(meta["dtype"])
    size = (path / "tokens.bin").stat().st_size
    try:
        offsets = np.load(path / "offsets.npy", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError) as error:
        raise _damaged(path, f"offsets.npy cannot be read ({error})") from error
    if size != meta["n_tokens"] * dtype.itemsize or len(offsets) != meta["n_documents"] + 1:
        raise ValueError(
            f"{path}: tokens.bin has {size} bytes and offsets.npy {len(offsets)} entries, but {meta['n_tokens']} "
            f"tokens of {dtype.itemsize} bytes and {meta['n_documents'] + 1} entries were written. "
            f"Delete {path.parent}; it will be built again."
        )
    return TokenArray(
        tokens=np.memmap(path / "tokens.bin", dtype=dtype, mode="r", shape=(meta["n_tokens"],)),
        offsets=offsets,
        n_documents=meta["n_documents"],
        n_bytes=meta["n_bytes"],
        n_words=meta["n_words"],
        vocab_size=meta["vocab_size"],
        end_id=meta["end_id"],
        fingerprint=meta["fingerprint"],
        path=path,
    )


def load_token_arrays(directory: str | os.PathLike) -> dict[str, TokenArray]:
    """All sides under `<cache>/<fingerprint>`."""
    directory = user_path(directory)
    sides = [side for side in ("train", "validation", "test") if (directory / side).is_dir()]
    if not sides:
        raise FileNotFoundError(f"No token arrays in {directory}. build_token_arrays makes them.")
    return {side: load_token_array(directory / side) for side in sides}


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
        checksum = meta.pop("meta_crc32", None)
        if meta["format"] == FORMAT_VERSION and checksum is not None and checksum != _meta_checksum(meta):
            raise ValueError("its checksum is not the one that was written")
        if meta["format"] == FORMAT_VERSION and (lacking := _META - meta.keys()):
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    except (ValueError, AttributeError, KeyError) as error:
        raise _damaged(path, f"meta.json is not what was written ({error})") from error
    return meta


def _meta_checksum(meta: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode("utf-8"))


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is damaged: {what}. Delete {path.parent}; it will be built again.")


def check_undamaged(path: Path) -> int:
    """Compares tokens and offsets with their checksums, as they were written.

    Returns:
        the checksum of the text that they were made of.

    Raises:
        ValueError: damaged tokens, or arrays of version 0.1, which have no checksums.
    """
    meta = _read_meta(path)
    if "tokens_crc32" not in meta:
        raise ValueError(f"{path} has no checksums. Delete {path.parent}; it will be built again.")
    for name in ("tokens.bin", "offsets.npy"):
        written = meta.get(f"{name.partition('.')[0]}_crc32")
        if written is not None and _crc32(path / name) != written:
            raise _damaged(path, f"{name} has another checksum than was written")
    return meta["text_crc32"]


def check_small(path: Path) -> None:
    """`check_undamaged`, where that takes no more than a quarter of a second and there are checksums."""
    if (path / "tokens.bin").stat().st_size <= CHECKED_BYTES and "tokens_crc32" in _read_meta(path):
        check_undamaged(path)


def _crc32(file: Path) -> int:
    checksum = 0
    with open(file, "rb") as stream:
        while block := stream.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


class ArrayWriter:
    """Appends documents to one side's files.

    Args:
        vocab_size: one more than the largest id.
        end_id: stands before the first document and after each.
        state: what an earlier writer's `flush` returned, to go on from there; whatever it wrote afterwards is cut off.
    """

    def __init__(self, folder: Path, vocab_size: int, end_id: int, state: dict[str, int] | None = None):
        self.folder, self.vocab_size, self.end_id = folder, vocab_size, end_id
        self.dtype = dtype_of(vocab_size)
        begin = np.array([end_id], self.dtype).tobytes()
        state = state or {
            "n_tokens": 1, "n_documents": 0, "n_bytes": 0, "n_words": 0, "tokens_crc32": zlib.crc32(begin),
            "text_crc32": 0,
        }  # fmt: skip
        self.n_tokens, self.n_documents = state["n_tokens"], state["n_documents"]
        self.n_bytes, self.n_words = state["n_bytes"], state["n_words"]
        self.tokens_crc32, self.text_crc32 = state["tokens_crc32"], state["text_crc32"]
        is_new = self.n_documents == 0
        if is_new:
            folder.mkdir(exist_ok=True)
        # Closed by close(), or left behind by a build that fails.
        self.file = open(folder / "tokens.bin", "wb" if is_new else "r+b")  # noqa: SIM115
        self.lengths = open(folder / "lengths.bin", "wb" if is_new else "r+b")  # noqa: SIM115
        if is_new:
            self.file.write(begin)
            return
        self.file.truncate(self.n_tokens * self.dtype.itemsize)
        self.lengths.truncate(self.n_documents * 8)
        self.file.seek(0, os.SEEK_END)
        self.lengths.seek(0, os.SEEK_END)

    @staticmethod
    def can_continue(folder: Path, state: dict[str, int]) -> bool:
        """Whether the files hold at least what the state knows of."""
        files = folder / "tokens.bin", folder / "lengths.bin"
        if not all(file.is_file() for file in files):
            return False
        # Whatever the type of the ids: at least two bytes each.
        least = 2 * state["n_tokens"], 8 * state["n_documents"]
        return all(file.stat().st_size >= size for file, size in zip(files, least, strict=True))

    def write(self, texts: list[str], ids: np.ndarray, lengths: np.ndarray) -> None:
        """ids [n] of all texts, one after the other; lengths [len(texts)]."""
        self.append(
            tokens=with_ends(ids, lengths, self.end_id, self.vocab_size).tobytes(),
            lengths=lengths + 1,
            n_bytes=sum(len(text.encode("utf-8")) for text in texts),
            n_words=sum(len(text.split()) for text in texts),
        )

    def append(
        self, tokens: bytes, lengths: np.ndarray, n_bytes: int, n_words: int, text_crc32: int = 0
    ) -> None:
        """Documents as `encoding.ArrayEncoder` gives them; the checksum is that of all the side's text so far."""
        self.file.write(tokens)
        self.lengths.write(lengths.astype(np.int64).tobytes())
        self.tokens_crc32 = zlib.crc32(tokens, self.tokens_crc32)
        self.n_tokens += len(tokens) // self.dtype.itemsize
        self.n_documents += len(lengths)
        self.n_bytes += n_bytes
        self.n_words += n_words
        self.text_crc32 = text_crc32

    def copy(self, tokens: BinaryIO, lengths: np.ndarray, state: dict[str, int]) -> None:
        """Takes over the documents of another writer, up to where it was in that state; this one has none yet.

        Args:
            tokens: its tokens.bin, open at the beginning.
            lengths: of the documents, int64 [n_documents], end tokens included.

        Raises:
            ValueError: the tokens are not those that were written.
        """
        tokens.seek(self.dtype.itemsize)  # the end token before the first document is there
        left = (state["n_tokens"] - 1) * self.dtype.itemsize
        while block := tokens.read(min(left, 1 << 20)):
            self.file.write(block)
            self.tokens_crc32 = zlib.crc32(block, self.tokens_crc32)
            left -= len(block)
        self.lengths.write(lengths.astype(np.int64).tobytes())
        if left or self.tokens_crc32 != state["tokens_crc32"] or len(lengths) != state["n_documents"]:
            raise _damaged(Path(tokens.name).parent, "its tokens are not those that were written")
        self.n_tokens, self.n_documents = state["n_tokens"], state["n_documents"]
        self.n_bytes, self.n_words, self.text_crc32 = (state[n] for n in ("n_bytes", "n_words", "text_crc32"))

    def flush(self) -> dict[str, int]:
        """Brings all to the disk; returns the state to go on from."""
        for file in (self.file, self.lengths):
            file.flush()
            os.fsync(file.fileno())
        return self._state()

    def _state(self) -> dict[str, int]:
        names = ("n_tokens", "n_documents", "n_bytes", "n_words", "tokens_crc32", "text_crc32")
        return {name: getattr(self, name) for name in names}

    def leave(self) -> None:
        """Closes the files, unfinished; whoever has the state that `flush` returned can go on."""
        self.file.close()
        self.lengths.close()

    def close(self, fingerprint: str) -> None:
        """Finishes the side; the content is on the disk before the directory gets its final name."""
        self.flush()
        self.leave()
        self._write_offsets()
        meta = {
            "format": FORMAT_VERSION,
            "fingerprint": fingerprint,
            "dtype": self.dtype.name,
            **self._state(),
            "vocab_size": self.vocab_size,
            "end_id": self.end_id,
            "offsets_crc32": _crc32(self.folder / "offsets.npy"),
        }
        meta["meta_crc32"] = _meta_checksum(meta)
        with open(self.folder / "meta.json", "wb") as file:
            file.write(json.dumps(meta, indent=1).encode("utf-8") + b"\n")
            _to_disk(file)
        (self.folder / "lengths.bin").unlink()

    def _write_offsets(self) -> None:
        """Where documents begin, from their lengths, a million at a time."""
        with (
            open(self.folder / "offsets.npy", "wb") as file,
            open(self.folder / "lengths.bin", "rb") as lengths,
        ):
            header = {"descr": "<i8", "fortran_order": False, "shape": (self.n_documents + 1,)}
            np.lib.format.write_array_header_1_0(file, header)
            file.write(np.array([1], "<i8").tobytes())
            begin = 1
            while block := lengths.read(8 << 20):
                ends = begin + np.cumsum(np.frombuffer(block, np.int64))
                file.write(ends.astype("<i8").tobytes())
                begin = int(ends[-1])
            _to_disk(file)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def check_ids(tokens: np.ndarray, vocab_size: int) -> None:
    """Refuses ids that a model of that vocabulary does not have.

    Raises:
        ValueError: names the id, its place and the remedy.
    """
    for start in range(0, len(tokens), 1 << 24):
        part = tokens[start : start + (1 << 24)]
        if part.size and (part.max() >= vocab_size or part.min() < 0):
            at = int(np.argmax((part >= vocab_size) | (part < 0)))
            raise ValueError(
                f"Token {int(part[at])} at position {start + at} is outside the model's vocabulary of {vocab_size}. "
                "The token array was built with another tokenizer than the model's: build it again with that one."
            )
