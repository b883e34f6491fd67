"""Building token arrays: with all cores, within bounded memory, and going on where a killed build stopped.

One process reads: it parses the files (or takes rows of a Hub stream), drops repetitions, finds each document's side
and cuts the documents of a side into *batches* of about a million characters. Tokenising, which takes more than ten
times as long, is done by processes of their own, one for each core; each holds a tokenizer and the words that it met,
and nothing of torch (`encoding.py`). The reader writes what they return, in the order of the text: the arrays are the
same, bit for bit, however many there are. Small corpora are tokenised in this process.

Memory is that of the batches on their way (two for each process), of the workers' remembered words and of the longest
document; neither the corpus nor an array is ever held.

Every few seconds the files are brought to the disk and a journal says how many batches are in them. A build that was
killed leaves that in `<cache>/<fingerprint>.partial`; the next one reads the text again (which is fast), cuts the files
to what the journal knows, passes over so many batches and goes on: each batch is written exactly once. A checksum of
the text passed over tells whether it is still the same text; if not, the build begins anew.

Training may begin on the first *shards* of a text while the rest is being built: see `shards.py`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import encoding
from .cache import build_once, cache_folder, touch_builder
from .encoding import ArrayEncoder, encoder_settings, receive, send
from .fingerprints import fingerprint_of
from .shards import (
    JOURNAL,
    SHARD_CHARACTERS,
    TABLE,
    check_shards,
    copy_first,
    finished_shards,
    partial_folder,
)
from .splits import Sides
from .token_arrays import (
    FORMAT_VERSION,
    ArrayWriter,
    TokenArray,
    check_small,
    check_undamaged,
    load_token_arrays,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from .corpora import Corpus
    from .pair_corpora import HalfCorpus

logger = logging.getLogger(__name__)

# Characters tokenised at once: enough to keep a core busy, little enough (some 30 MB) to stay in memory.
BATCH_CHARACTERS = 1 << 20
# Text from so many characters on is worth processes of its own: they take half a second to start.
WORKERS_FROM = 1 << 23
# The reader feeds so many at most: it parses, hashes and cuts some 50 MB/s.
MOST_WORKERS = 16
# Seconds between two entries of the journal: what a kill costs, at most.
JOURNAL_SECONDS = 5.0
# Seconds without a finished batch after which waiting processes give up.
PATIENCE = 1800.0
_START = (
    "import sys, json, importlib.util as u; sys.path[:] = json.loads(sys.argv[1]);"
    "s = u.spec_from_file_location('hfseq_encoding', sys.argv[2]); m = u.module_from_spec(s); s.loader.exec_module(m);"
    "m.REMEMBERED_CHARACTERS = int(sys.argv[3]); m.serve(sys.stdin.buffer, sys.stdout.buffer)"
)


def build_token_arrays(
    corpus: Corpus | HalfCorpus,
    tokenizer: PreTrainedTokenizerFast,
    cache_dir: str | os.PathLike | None = None,
    *,
    processes: int | None = None,
    verify: bool = False,
    parse_special_tokens: bool = False,
    shards: int | None = None,
) -> dict[str, TokenArray]:
    """The token arrays of a corpus, built unless the cache has them. Safe when several processes call it at once: one
    builds, the others wait for it.

    Args:
        corpus: read in one pass and never held in memory.
        tokenizer: a fast tokenizer with an eos token (BERT's have a sep token in its place).
        cache_dir: default `default_cache_dir()`.
        processes: that tokenise; default: one for each core that this process may use, 16 at most.
        verify: where the cache has the arrays, read all the text and all the tokens and compare their checksums with
            those that were written. (Without it a large file counts as unchanged while its size, its time and samples
            of it are.)
        parse_special_tokens: special tokens that are spelled out in the text become special, see `encoding.py`.
        shards: only the arrays of the first so many shards (64 million characters each), as soon as they are finished;
            another process may be building the rest. None: of the whole text.

    Returns:
        train, and validation and test where the corpus (or these shards of it) have them.

    Raises:
        PermissionError: the cache directory cannot be written.
        ValueError: no fast tokenizer, no eos token, what reading the corpus raises, what `verify` found, or fewer
            shards than were asked for.
        TimeoutError: another process that builds them does not get on.
    """
    if processes is not None and (not isinstance(processes, int) or processes < 1):
        raise ValueError(f"processes must be at least 1, not {processes!r}.")
    check_shards(shards)
    if verify and shards is not None:
        raise ValueError(f"verify reads the whole text, but shards is {shards}: leave out one of the two.")
    fingerprint = array_fingerprint(corpus, tokenizer, parse_special_tokens)
    target = cache_folder(cache_dir) / fingerprint
    settings = encoder_settings(tokenizer, parse_special_tokens)

    def build() -> None:
        _Build(corpus, tokenizer, settings, fingerprint, whole, processes or worker_count()).run(shards)

    whole = target
    if shards is not None:
        target = whole.parent / fingerprint_of([fingerprint, "shards", shards, SHARD_CHARACTERS])
    was_there = target.is_dir()
    if shards is None:
        build_once(target, build, f"the token arrays of {corpus.name}", PATIENCE)
    else:
        _build_first(shards, whole, target, build, corpus.name)
    arrays = load_token_arrays(target)
    if was_there:
        for array in arrays.values():
            check_small(array.path)
    if verify and was_there:
        _verify(corpus, target)
    return Sides(arrays)


def _build_first(number: int, whole: Path, target: Path, build: Callable[[], None], name: str) -> None:
    """Makes `target`, the arrays of the first shards of `whole`, which `build` builds at least so far."""
    what = f"the first {number} shards of the token arrays of {name}"

    def are_finished() -> bool:
        found = finished_shards(whole)
        return found is not None and (found.complete or len(found.ends) >= number)

    copy = functools.partial(copy_first, whole, number, target, target.name, name)
    for attempt in range(1, 4):
        if target.is_dir():
            break
        build_once(whole, build, what, PATIENCE, are_finished)
        try:
            build_once(target, copy, what, PATIENCE)
        except FileNotFoundError:  # the arrays got their final name meanwhile, or are begun anew
            if attempt == 3:
                raise
    found = finished_shards(whole)
    logger.warning("%s: %s.", name, found.first(number) if found else f"the first {number} shards")


def worker_count() -> int:
    """Cores that this process may use, as far as they can be fed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def array_fingerprint(
    corpus: Corpus | HalfCorpus, tokenizer: PreTrainedTokenizerFast, parse_special_tokens: bool = False
) -> str:
    """The name of the arrays in the cache: of the text, the tokenizer and how it is used.

    Raises:
        ValueError: a tokenizer that cannot make token arrays.
    """
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
    option = ["parse_special_tokens"] if parse_special_tokens else []
    return fingerprint_of([FORMAT_VERSION, corpus.fingerprint, content, end_id_of(tokenizer), *option])


def end_id_of(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The id that ends documents: eos, or sep where there is no eos, as in published BERT tokenizers."""
    return tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id


class _Build:
    """One build, from the beginning or from where the last one stopped."""

    def __init__(
        self,
        corpus: Corpus | HalfCorpus,
        tokenizer: PreTrainedTokenizerFast,
        settings: dict[str, Any],
        fingerprint: str,
        target: Path,
        processes: int,
    ):
        from .tokenizers import id_count

        self.corpus, self.fingerprint, self.target, self.processes = corpus, fingerprint, target, processes
        self.arguments: dict[str, Any] = {
            "settings": settings, "end_id": end_id_of(tokenizer), "vocab_size": id_count(tokenizer),
        }  # fmt: skip
        self.partial = partial_folder(target)
        self.writers: dict[str, ArrayWriter] = {}
        self.batches = self.characters = 0
        self.checksums: dict[str, int] = {}
        self.shards: list[dict[str, dict[str, int]]] = []  # see `Shards.ends`
        self.batches_in_shards = 0

    def run(self, shards: int | None = None) -> None:
        """Builds the arrays, or so many shards of them at least; the next build goes on from there."""
        for leftover in self.target.parent.glob(f"{self.fingerprint}.partial-*"):  # of version 0.1
            shutil.rmtree(leftover)
        journal = self._journal()
        if journal is None:
            shutil.rmtree(self.partial, ignore_errors=True)
            self.partial.mkdir()
        try:
            is_whole = self._write(journal, shards)
        except _OtherTextError:
            logger.warning(
                "%s: the text is not what it was when its build stopped; it begins anew.", self.corpus.name
            )
            shutil.rmtree(self.partial)
            self.partial.mkdir()
            self.writers, self.batches, self.characters, self.checksums = {}, 0, 0, {}
            self.shards, self.batches_in_shards = [], 0
            is_whole = self._write(None, shards)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(
                    error.errno,
                    f"{error.strerror} while the token arrays of {self.corpus.name} were written to {self.partial}. "
                    "Make room, or name another directory with cache_dir or HFSEQ_CACHE; the build goes on where it "
                    "stopped",
                ) from error
            raise
        except (ValueError, ImportError):  # of the text: it must change, and then has another fingerprint
            shutil.rmtree(self.partial, ignore_errors=True)
            raise
        if not is_whole:
            for writer in self.writers.values():
                writer.leave()
            return
        for writer in self.writers.values():
            writer.close(self.fingerprint)
        (self.partial / TABLE).write_text(json.dumps(self.shards), encoding="utf-8")
        (self.partial / JOURNAL).unlink(missing_ok=True)
        os.replace(self.partial, self.target)

    def _journal(self) -> dict[str, Any] | None:
        """What an earlier build left, if it can be gone on with."""
        try:
            journal = json.loads((self.partial / JOURNAL).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = all(journal.get(name) == value for name, value in self._sizes().items())
        sizes = (ArrayWriter.can_continue(self.partial / s, state) for s, state in journal["sides"].items())
        return journal if same and all(sizes) else None

    @staticmethod
    def _sizes() -> dict[str, int]:
        """What two builds must have in common to make the same batches."""
        return {
            "format": FORMAT_VERSION, "batch_characters": BATCH_CHARACTERS, "shard_characters": SHARD_CHARACTERS,
        }  # fmt: skip

    def _write(self, journal: dict[str, Any] | None, shards: int | None) -> bool:
        """Writes all batches, or those of so many shards; returns whether these were all."""
        begin = time.monotonic()
        batches = self._batches()
        if journal is not None:
            self._pass_over(batches, journal)
        with _Progress(self.corpus, self) as progress, contextlib.closing(self._encoded(batches)) as encoded:
            last = time.monotonic()
            for side, result, ends_shard in encoded:
                if side not in self.writers:
                    self.writers[side] = ArrayWriter(self.partial / side, **self._format())
                self.writers[side].append(**result)
                self.batches += 1
                touch_builder(self.target)
                progress.show()
                if ends_shard:
                    self._end_shard()
                if ends_shard or time.monotonic() - last > JOURNAL_SECONDS:
                    self._note()
                    last = time.monotonic()
                if ends_shard and len(self.shards) == shards:
                    return False
        if self.batches > self.batches_in_shards:
            self._end_shard()
        seconds = time.monotonic() - begin
        if seconds > 60:
            n_bytes = sum(writer.n_bytes for writer in self.writers.values())
            logger.info("%s: %.0f MB of text in %.0f s.", self.corpus.name, n_bytes / 1e6, seconds)
        return True

    def _end_shard(self) -> None:
        ends = {side: {**writer.flush(), **self._format()} for side, writer in self.writers.items()}
        self.shards.append(ends)
        self.batches_in_shards = self.batches

    def _format(self) -> dict[str, Any]:
        return {"vocab_size": self.arguments["vocab_size"], "end_id": self.arguments["end_id"]}

    def _batches(self) -> Iterator[_Batch]:
        """Documents of some BATCH_CHARACTERS, and what is left of each side where a shard ends."""
        waiting: dict[str, list[str]] = {}
        sizes: dict[str, int] = {}
        in_shard = 0
        for side, text in self.corpus:
            waiting.setdefault(side, []).append(text)
            sizes[side] = sizes.get(side, 0) + len(text)
            in_shard += len(text)
            if in_shard >= SHARD_CHARACTERS:
                while waiting:
                    last, texts = waiting.popitem()
                    yield _Batch(last, texts, self._checksum(last, texts), ends_shard=not waiting)
                in_shard = 0
                sizes.clear()
            elif sizes[side] >= BATCH_CHARACTERS:
                texts = waiting.pop(side)
                yield _Batch(side, texts, self._checksum(side, texts))
                sizes[side] = 0
        for side, texts in waiting.items():
            yield _Batch(side, texts, self._checksum(side, texts))

    def _checksum(self, side: str, texts: list[str]) -> int:
        self.characters += sum(map(len, texts))
        self.checksums[side] = checksum_of(texts, self.checksums.get(side, 0))
        return self.checksums[side]

    def _pass_over(self, batches: Iterator[_Batch], journal: dict[str, Any]) -> None:
        """Leaves out the batches that are written; _OtherTextError where they are others now."""
        logger.info("%s: going on after %d batches.", self.corpus.name, journal["batches"])
        for _ in range(journal["batches"]):
            if next(batches, None) is None:
                raise _OtherTextError
            touch_builder(self.target)
        for side, state in journal["sides"].items():
            if self.checksums.get(side) != state["text_crc32"]:
                raise _OtherTextError
            self.writers[side] = ArrayWriter(self.partial / side, **self._format(), state=state)
        self.batches = journal["batches"]
        self.shards, self.batches_in_shards = journal["shards"], journal["batches_in_shards"]

    def _note(self) -> None:
        """Brings all that is written to the disk, and says so."""
        sides = {side: writer.flush() for side, writer in self.writers.items()}
        size = getattr(self.corpus, "size", None)
        read = getattr(self.corpus, "position", lambda: None)()
        journal = {
            **self._sizes(), "batches": self.batches, "sides": sides, "shards": self.shards,
            "batches_in_shards": self.batches_in_shards,
            "about_shards": round(self.characters / SHARD_CHARACTERS * size / read) if size and read else None,
        }  # fmt: skip
        part = self.partial / "journal.part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(journal, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self.partial / JOURNAL)

    def _encoded(self, batches: Iterator[_Batch]) -> Generator[tuple[str, dict[str, Any], bool]]:
        """(side, what its `ArrayWriter` appends, whether a shard ends there) in the order of the batches."""
        first, characters = [], 0
        for batch in batches:
            first.append(batch)
            characters += sum(map(len, batch.texts))
            if characters >= WORKERS_FROM:
                break
        else:
            encode = ArrayEncoder(**self.arguments)
            for batch in first:
                yield batch.side, {**encode(batch.texts), "text_crc32": batch.checksum}, batch.ends_shard
            return
        first.reverse()
        with _Workers(self.processes, self.arguments) as workers:
            running: deque[tuple[_Batch, Future]] = deque()
            while True:
                following = first.pop() if first else next(batches, None)
                if following is not None:
                    running.append((replace(following, texts=[]), workers.encode(following.texts)))
                if running and (following is None or len(running) > 2 * self.processes):
                    batch, future = running.popleft()
                    yield batch.side, {**future.result(), "text_crc32": batch.checksum}, batch.ends_shard
                elif following is None:
                    return


@dataclass(frozen=True)
class _Batch:
    """Documents that are tokenised together."""

    side: str
    texts: list[str]
    checksum: int
    """Of the side's text up to their end."""
    ends_shard: bool = False


class _OtherTextError(Exception):
    """The batches that were written before are not those that are read now."""


class _Workers:
    """Processes that encode, each with a thread here that talks to it."""

    def __init__(self, number: int, arguments: dict[str, Any]):
        self.number, self.arguments = number, arguments
        self.own = threading.local()
        self.children: list[subprocess.Popen] = []
        self.threads = ThreadPoolExecutor(number, "encode", initializer=self._start)

    def __enter__(self) -> _Workers:
        return self

    def encode(self, texts: list[str]) -> Future:
        """A batch's answer, as `ArrayEncoder` gives it."""
        return self.threads.submit(self._ask, texts)

    def _start(self) -> None:
        environment = os.environ | {name: "1" for name in ("RAYON_NUM_THREADS", "OMP_NUM_THREADS")}
        remembered = str(encoding.REMEMBERED_CHARACTERS // 4)
        child = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), encoding.__file__, remembered],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment | {"TOKENIZERS_PARALLELISM": "false"},
        )
        self.children.append(child)
        self.own.child = child
        with contextlib.suppress(BrokenPipeError):  # `_ask` will say it
            send(self.arguments, child.stdin)  # type: ignore[arg-type]  # a pipe, as asked for

    def _ask(self, texts: list[str]) -> dict[str, Any]:
        child = self.own.child
        try:
            send(texts, child.stdin)
            answer = receive(child.stdout)
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(
                f"A process that tokenises ended with exit code {child.wait()} (a negative one is a signal; -9: "
                "killed, perhaps for memory). Start again: the build goes on where it stopped. Fewer processes take "
                "less memory."
            ) from error
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer

    def __exit__(self, *error: object) -> None:
        self.threads.shutdown(wait=error[0] is None, cancel_futures=True)
        for child in self.children:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()  # type: ignore[union-attr]  # a pipe, as asked for
            if error[0] is not None:
                child.kill()
            child.wait()
            child.stdout.close()  # type: ignore[union-attr]  # likewise
        self.threads.shutdown()


class _Progress:
    """A bar on a terminal, over the bytes of the sources where they are known; nothing for small corpora."""

    def __init__(self, corpus: Corpus | HalfCorpus, build: _Build):
        self.size, self.position = getattr(corpus, "size", None), getattr(corpus, "position", lambda: None)
        self.name, self.build = corpus.name, build
        self.bar: Any = None  # of tqdm

    def __enter__(self) -> _Progress:
        return self

    def show(self) -> None:
        if self.bar is None:
            if self.build.characters < WORKERS_FROM:
                return
            from tqdm.auto import tqdm

            self.bar = tqdm(
                desc=f"tokens of {self.name[:40]}", total=self.size, unit="B", unit_scale=True, disable=None,
                initial=self._now(), smoothing=0.05, dynamic_ncols=True,
            )  # fmt: skip
        self.bar.update(self._now() - self.bar.n)

    def _now(self) -> int:
        position = self.position()
        return sum(writer.n_bytes for writer in self.build.writers.values()) if position is None else position

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()


def checksum_of(texts: Iterable[str], before: int = 0) -> int:
    """CRC-32 of texts, each with an end, going on from that of those before."""
    for text in texts:
        for part in encoding.parts_of(text):
            before = zlib.crc32(part.encode("utf-8"), before)
        before = zlib.crc32(b"\0", before)
    return before


def _verify(corpus: Corpus | HalfCorpus, target: Path) -> None:
    """ValueError where the text or the arrays are not what they were."""
    now: dict[str, int] = {}
    for side, text in corpus:
        now[side] = checksum_of([text], now.get(side, 0))
    for side, array in load_token_arrays(target).items():
        if now.pop(side, None) != check_undamaged(array.path):
            raise ValueError(
                f"{corpus.name}: its {side} text is not what {array.path} was made of, although size, time and samples "
                f"of the files are the same. Delete {target}; it will be built again."
            )


__all__ = ["array_fingerprint", "build_token_arrays", "end_id_of", "worker_count"]
