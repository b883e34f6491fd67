"""Tokens on disk, memory-mapped: built once per corpus and tokenizer, shared by all processes and runs.

One directory per fingerprint under the cache directory, one folder in it per side:

    <cache>/<fingerprint>/train/tokens.bin      uint16 (vocabularies up to 65,536) or uint32, end token between texts
                                offsets.npy     int64 [documents + 1], where documents begin, and the end
                                meta.json       counts; its sizes are checked at every load

`tokens.bin` is `end, document, end, document, end, ...`: it begins with the end-of-text token, so that of N tokens
N - 1 are targets and they are *all* the text and all the ends; bits per byte can divide by the bytes of the text.

The directory is written under another name and renamed when it is complete, under a file lock: processes that start
together build once and the rest wait; a killed build leaves nothing that looks whole, and the next one clears it away.

Loading needs NumPy only.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..paths import user_path

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from .corpora import Corpus

# Part of every fingerprint: raise it when what is written changes.
FORMAT_VERSION = 1
# Characters tokenised at once: enough to keep all cores busy, little enough (some 30 MB) to stay in memory.
BATCH_CHARACTERS = 1 << 20


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


def default_cache_dir() -> Path:
    """$HFSEQ_CACHE, else ~/.cache/hfseq."""
    return user_path(os.environ.get("HFSEQ_CACHE") or "~/.cache/hfseq")


def cache_folder(cache_dir: str | os.PathLike | None) -> Path:
    """Where to keep things: `cache_dir`, or without one `default_cache_dir()`."""
    return default_cache_dir() if cache_dir is None else user_path(cache_dir)


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
    meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    if meta["format"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {meta['format']}, this version of hfseq reads {FORMAT_VERSION}. Delete {path.parent}; "
            "it will be built again."
        )
    dtype = np.dtype(meta["dtype"])
    size = (path / "tokens.bin").stat().st_size
    offsets = np.load(path / "offsets.npy", allow_pickle=False)
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


def build_token_arrays(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, cache_dir: str | os.PathLike | None = None
) -> dict[str, TokenArray]:
    """The token arrays of a corpus, built unless the cache has them. Safe when several processes call it at once.

    Args:
        corpus: read in one pass; with streaming, never held in memory.
        tokenizer: a fast tokenizer with an eos token (BERT's have a sep token in its place). Special tokens that are
            spelled out in the text are tokenised as ordinary text.
        cache_dir: default `default_cache_dir()`.

    Returns:
        train, and validation and test where the corpus has them.

    Raises:
        PermissionError: the cache directory cannot be written.
        ValueError: no fast tokenizer, no eos token, or what reading the corpus raises.
    """
    from filelock import FileLock

    fingerprint = _fingerprint(corpus, tokenizer)
    cache = cache_folder(cache_dir)
    target = cache / fingerprint
    if not target.is_dir():
        check_writable(cache)
        with FileLock(cache / f"{fingerprint}.lock"):
            if not target.is_dir():
                _build(corpus, tokenizer, fingerprint, target)
    return load_token_arrays(target)


def _fingerprint(corpus: Corpus, tokenizer: PreTrainedTokenizerFast) -> str:
    from .fingerprints import fingerprint_of

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"{type(tokenizer).__name__} is not a fast tokenizer. Load it with AutoTokenizer.from_pretrained from a "
            "directory that has a tokenizer.json."
        )
    if end_id_of(tokenizer) is None:
        raise ValueError(
            "The tokenizer has no eos_token to end documents with. Set one: tokenizer.eos_token = '...'."
        )
    content = json.loads(backend.to_str())
    # A call with padding or truncation leaves its traces in the tokenizer; they do not touch what is built here.
    content.pop("padding", None)
    content.pop("truncation", None)
    return fingerprint_of([FORMAT_VERSION, corpus.fingerprint, content, end_id_of(tokenizer)])


def end_id_of(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The id that ends documents: eos, or sep where there is no eos, as in published BERT tokenizers."""
    return tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id


def check_writable(cache: Path) -> None:
    """Makes the cache directory, or raises PermissionError with the remedy."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise PermissionError(
            f"Cannot write token arrays to {cache} ({error.strerror or error}). Name another directory with cache_dir "
            "or the environment variable HFSEQ_CACHE."
        ) from error


def _build(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, fingerprint: str, target: Path) -> None:
    from .encoding import CorpusEncoder
    from .tokenizers import id_count

    # We hold the lock, so whatever lies here under that name was left by a process that died.
    for leftover in target.parent.glob(f"{fingerprint}.partial-*"):
        shutil.rmtree(leftover)
    partial = Path(tempfile.mkdtemp(prefix=f"{fingerprint}.partial-", dir=target.parent))
    # A private temporary directory by default; a cache may be shared.
    partial.chmod(0o777 & ~_umask())
    try:
        encoder, writers = CorpusEncoder(tokenizer), {}
        vocab_size = id_count(tokenizer)
        for side, texts in _batches(corpus):
            if side not in writers:
                writers[side] = _Writer(partial / side, vocab_size, end_id_of(tokenizer))
            writers[side].write(texts, *encoder.encode(texts))
        for writer in writers.values():
            writer.close(fingerprint)
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _batches(corpus: Iterable[tuple[str, str]]):
    """(side, documents of some BATCH_CHARACTERS)."""
    waiting: dict[str, list[str]] = {}
    sizes: dict[str, int] = {}
    for side, text in corpus:
        waiting.setdefault(side, []).append(text)
        sizes[side] = sizes.get(side, 0) + len(text)
        if sizes[side] >= BATCH_CHARACTERS:
            yield side, waiting.pop(side)
            sizes[side] = 0
    yield from waiting.items()


class _Writer:
    """Appends documents to one side's files."""

    def __init__(self, folder: Path, vocab_size: int, end_id: int):
        folder.mkdir()
        self.folder, self.vocab_size, self.end_id = folder, vocab_size, end_id
        self.dtype = np.dtype(np.uint16 if vocab_size <= 65536 else np.uint32)
        self.file = open(folder / "tokens.bin", "wb")  # noqa: SIM115 - closed by close(), or its directory is removed
        self.file.write(np.array([end_id], self.dtype).tobytes())
        self.lengths: list[np.ndarray] = []
        self.n_bytes = self.n_words = 0

    def write(self, texts: list[str], ids: np.ndarray, lengths: np.ndarray) -> None:
        """ids [n] of all texts, one after the other; lengths [len(texts)]."""
        if ids.size and ids.max() >= self.vocab_size:
            raise ValueError(
                f"The tokenizer made id {ids.max()}, but its vocabulary ends at {self.vocab_size - 1}. Its files do "
                "not belong together; save it again from where it came."
            )
        # Opens a place after each document for its end token.
        tokens = np.insert(ids.astype(self.dtype), np.cumsum(lengths), self.end_id)
        self.file.write(tokens.tobytes())
        self.lengths.append(lengths + 1)
        self.n_bytes += sum(len(text.encode("utf-8")) for text in texts)
        self.n_words += sum(len(text.split()) for text in texts)

    def close(self, fingerprint: str) -> None:
        lengths = np.concatenate(self.lengths)
        offsets = np.concatenate([[1], 1 + np.cumsum(lengths)]).astype(np.int64)
        meta = {
            "format": FORMAT_VERSION,
            "fingerprint": fingerprint,
            "dtype": self.dtype.name,
            "n_tokens": int(offsets[-1]),
            "n_documents": len(lengths),
            "n_bytes": self.n_bytes,
            "n_words": self.n_words,
            "vocab_size": self.vocab_size,
            "end_id": self.end_id,
        }
        self._finish(self.file)
        with open(self.folder / "offsets.npy", "wb") as file:
            np.save(file, offsets)
            self._finish(file)
        with open(self.folder / "meta.json", "wb") as file:
            file.write(json.dumps(meta, indent=1).encode("utf-8") + b"\n")
            self._finish(file)

    @staticmethod
    def _finish(file: BinaryIO) -> None:
        """The content is on the disk before the directory gets its final name."""
        file.flush()
        os.fsync(file.fileno())
        file.close()
