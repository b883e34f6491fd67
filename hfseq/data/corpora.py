r"""Raw text in, documents with a side (train, validation, test) out.

A *document* is the unit that the split is made of and that an end-of-text token follows: a chapter, an article, a
review, a row of a table. The side is a pure function of the document's words (a hash of the text up to white space,
and a seed): the same document is on the same side whatever stands around it, in every process and after the corpus
has grown, and exact duplicates are always together. A split by line would not do: in the King James Bible 389 verses
have an exact twin, and neighbouring lines of one chapter give each other away.

Where a document begins and ends:

- `kjv`: a chapter, its verses joined by line breaks. `wiki`: title, line break, summary. `imdb`: a review. `chitchat`:
  a conversation, a line for each turn. `small-english`, `babylm`, `babylm-strict`: see `mixtures.py`.
- `.jsonl`, `.csv`, `.tsv`, `.parquet`, Hub data sets: the text column of a row.
- `.txt`: a block of lines between blank lines (`txt_document="paragraph"`, the default), each line ("line"), or the
  whole file ("file", for folders with one text per file). Lines end with `\n` or `\r\n`; both are read as `\n`.

Empty documents and null values are skipped. The packaged corpora are read from the files of installed packages,
which are neither imported nor executed.

A corpus is read when it is first looked at. With `streaming` nothing of it is kept: every look is another pass, so
training a tokenizer and building token arrays makes two.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..hints import nearest_hint
from .documents import TXT_DOCUMENTS, read_documents
from .files import Meter, find_files, format_of, half_a_pair
from .fingerprints import file_digest, fingerprint_of, hash_of, words_hash
from .hub_datasets import open_hub_dataset
from .mixtures import CLEANING_VERSION, HUB_CORPORA, MIXTURES, cleaned, joined_lines
from .packages import PACKAGES, packaged_file
from .sided_texts import OneSide, SidedTexts
from .splits import HELD_OUT_LIMIT, SPLITS, Split, deduplication
from .tables import missing_column, text_of

logger = logging.getLogger(__name__)

# Part of every fingerprint: raise it when a change here or in packages.py makes other documents of the same sources.
READER_VERSION = 1
# Likewise, of the fingerprints of files: for documents.py, tables.py and files.py.
LINE_RULE = 2

NAMES = (*PACKAGES, *MIXTURES, *HUB_CORPORA)
"""The corpora that hfseq knows by name."""


@dataclass(frozen=True)
class Source:
    """Documents that can be read again and again."""

    name: str
    """For messages."""
    fingerprint: str
    """Another one where the documents differ."""
    read: Callable[[], Iterable[str]]
    """A new pass over the documents."""
    size: int | None = None
    """Bytes that it takes on disk, about; None: nobody knows."""
    position: Callable[[], int] | None = None
    """How many of them the last pass has read so far; None: nobody knows."""


class Corpus(SidedTexts):
    """Documents on three sides. `load_corpus` makes one from names and files, `from_documents` from Python strings.

    Attributes:
        name: for messages and cards.
        fingerprint: changes with the documents, the split and deduplication.
        streaming: nothing is kept; `train`, `validation` and `test` read the source again at each iteration.
    """

    def __init__(
        self,
        sources: list[tuple[str | None, Source]],
        *,
        validation_share: float = 0.05,
        test_share: float = 0.05,
        split_seed: int = 0,
        deduplicate: bool | str = False,
        streaming: bool = False,
        held_out_limit: int | None = HELD_OUT_LIMIT,
    ):
        """
        Args:
            sources: (side, source); side None means that each document's hash decides. Held-out sides come first, so
                that deduplication drops the copy in the training text.
            validation_share, test_share: for the sources that are split; see `split_of`.
            deduplicate: "whitespace" (or True) drops documents that repeat an earlier one up to white space, "exact"
                only those that repeat it letter by letter. Costs some 100 bytes of memory per document.
            held_out_limit: bytes on a held-out side of a huge corpus, see `splits.py`; None: no limit.
        """
        self.name = ", ".join(dict.fromkeys(source.name for _, source in sources))
        self.streaming = streaming
        self._sources = sources
        self._deduplicate = deduplication(deduplicate)
        given = {side for side, _ in sources}
        split = Split(validation_share, test_share, split_seed).without(given)
        sizes = [source.size for side, source in sources if side is None]
        size = None if None in sizes else sum(n or 0 for n in sizes)
        self._split = split.capped(size, held_out_limit, self.name)
        self._told = False
        self._sides: dict[str, list[str]] | None = None
        self.fingerprint = fingerprint_of(
            {
                "reader": READER_VERSION,
                "sources": [(side, source.fingerprint) for side, source in sources],
                "shares": self._split.as_fingerprint() if None in given else None,
                "seed": split_seed if None in given else None,
                "deduplicate": self._deduplicate,
            }
        )

    @classmethod
    def from_documents(
        cls,
        documents: Iterable[str] | None = None,
        *,
        train: Iterable[str] | None = None,
        validation: Iterable[str] | None = None,
        test: Iterable[str] | None = None,
        name: str = "documents",
        **options: Any,
    ) -> Corpus:
        """A corpus of strings: `documents` are split by their hash, the others are sides as they are.

        Args:
            name: for messages and cards.
            options: validation_share, test_share, split_seed, deduplicate.
        """
        sources = []
        for side, texts in (("test", test), ("validation", validation), ("train", train), (None, documents)):
            if texts is None:
                continue
            texts = [texts] if isinstance(texts, str) else list(texts)
            digest = hashlib.blake2b(digest_size=16)
            for number, text in enumerate(texts):
                if not isinstance(text, str):
                    raise ValueError(f"Document {number} is {text!r:.60}, a {type(text).__name__}, not text.")
                data = text.encode("utf-8", "surrogatepass")
                digest.update(len(data).to_bytes(8, "little") + data)
            # mypy infers no lambda that has a default
            sources.append((side, Source(name, digest.hexdigest(), lambda texts=texts: texts)))  # type: ignore[misc]
        return cls(sources, **options)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(side, document), in one pass over the sources; the order within a side never changes. Nothing is kept."""
        if self._sides is None:
            yield from self._read()
        else:
            for side, documents in self._sides.items():
                for document in documents:
                    yield side, document

    def reading(self, side: str) -> Iterable[str]:
        """The documents of a side, read again at each iteration unless they are held in memory anyway."""
        return OneSide(self, side) if self._sides is None else self._sides[side]

    @property
    def size(self) -> int | None:
        """Bytes of the sources, about; None: nobody knows."""
        sizes = [source.size for _, source in self._sources]
        return None if None in sizes else sum(n or 0 for n in sizes)

    def position(self) -> int | None:
        """How many of them the last pass has read so far; None: nobody knows."""
        positions = [source.position for _, source in self._sources]
        return None if None in positions else sum(position() for position in positions if position)

    def _side(self, side: str) -> Iterable[str]:
        return OneSide(self, side) if self.streaming else self._load()[side]

    def _load(self) -> dict[str, list[str]]:
        if self._sides is None:
            sides: dict[str, list[str]] = {side: [] for side in SPLITS}
            for side, document in self._read():
                sides[side].append(document)
            self._sides = sides
        return self._sides

    def composition(self) -> dict[str, dict[str, int]]:
        """{source: {"documents": ..., "words": ...}} of what is left of each after deduplication, over all sides."""
        parts: dict[str, dict[str, int]] = {}
        for source, _, document in self._read_sources():
            part = parts.setdefault(source, {"documents": 0, "words": 0})
            part["documents"] += 1
            part["words"] += len(document.split())
        return parts

    def _read(self) -> Iterator[tuple[str, str]]:
        return ((side, document) for _, side, document in self._read_sources())

    def _read_sources(self) -> Iterator[tuple[str, str, str]]:
        """(name of the source, side, document)"""
        counts = dict.fromkeys(SPLITS, 0)
        seen: set[int] = set()
        held_out: set[int] = set()
        leaked = dropped = 0
        for given_side, source in self._sources:
            number = 0
            for number, document in enumerate(source.read(), 1):
                if not document or document.isspace():
                    continue
                try:
                    if self._deduplicate:
                        key = self._key(document)
                        if key in seen:
                            dropped += 1
                            continue
                        seen.add(key)
                    side = given_side or self._split.side_of(document)
                    if given_side in ("validation", "test"):
                        held_out.add(hash_of(document.encode("utf-8")))
                    elif held_out and hash_of(document.encode("utf-8")) in held_out:
                        leaked += 1
                except UnicodeEncodeError:
                    raise ValueError(half_a_pair(f"{source.name}, document {number}", document)) from None
                counts[side] += 1
                yield source.name, side, document
            if number == 0:
                raise ValueError(
                    f"{source.name}: no documents. The corpus is empty; check the path or the data set."
                )
        self._check_sides(counts)
        if self._told:  # there may be many passes, and what they find is the same
            return
        self._told = True
        if dropped:
            logger.info("%s: dropped %d repeated documents.", self.name, dropped)
        if leaked:
            logger.warning(
                "%s: %d training documents stand in the validation or test text as well. Their perplexity will look "
                "better than it is; deduplicate=true drops them from the training text.",
                self.name,
                leaked,
            )

    def _key(self, document: str) -> int:
        """Equal for documents that repeat each other."""
        return hash_of(document.encode("utf-8")) if self._deduplicate == "exact" else words_hash(document)

    def _check_sides(self, counts: dict[str, int]) -> None:
        total = sum(counts.values())
        if total == 0:
            raise ValueError(f"{self.name}: every document is empty. Check the file and the text column.")
        given = {side for side, _ in self._sources}
        for side in SPLITS:
            wanted = side in given or (None in given and (side == "train" or getattr(self._split, side) > 0))
            if wanted and counts[side] == 0:
                raise ValueError(
                    f"{self.name}: none of its {total} documents fell on the {side} side (shares: validation "
                    f"{self._split.validation}, test {self._split.test}). Give more or smaller documents "
                    f"(txt_document='paragraph' or 'line' for .txt files), a file of its own ({side}_file), or "
                    "another share or split_seed."
                )


def load_corpus(
    corpus: str | list[str] | None = None,
    *,
    train_file: str | list[str] | None = None,
    validation_file: str | list[str] | None = None,
    test_file: str | list[str] | None = None,
    text_column: str = "text",
    txt_document: str = "paragraph",
    validation_share: float = 0.05,
    test_share: float = 0.05,
    split_seed: int = 0,
    deduplicate: bool | str = False,
    streaming: bool = False,
    held_out_limit: int | None = HELD_OUT_LIMIT,
) -> Corpus:
    """A corpus from a name or from files.

    Args:
        corpus: "kjv", "wiki", "imdb", or a Hub data set id "org/name" or "org/name:configuration", or a list of such,
            one after the other. A Hub data set's own validation and test sides are used where it has them; what it
            lacks is split off its train side (of several corpora either all have such a side or none has).
        train_file: instead of `corpus`: files, folders or globs of .txt, .jsonl, .csv, .parquet, each also .gz.
        validation_file, test_file: sides of their own; then nothing is split off for them. With neither corpus nor
            train_file there is nothing to train on, only these.
        text_column: column or JSON key that holds the text.
        txt_document: what is a document in a .txt file: "paragraph", "line" or "file".
        validation_share, test_share, split_seed: see `split_of`.
        deduplicate: see `Corpus`.
        streaming: keep nothing in memory and, for Hub data sets, download nothing ahead.

    Raises:
        ValueError: neither or both of corpus and train_file, an unknown name, a missing column, an empty corpus,
            an empty side (these when the corpus is first looked at).
        FileNotFoundError: a path or glob that matches nothing.
        ModuleNotFoundError: a demo corpus whose package is not installed.
    """
    held_out_alone = corpus is None and not (validation_file is None and test_file is None)
    if (corpus is None) == (train_file is None) and not held_out_alone:
        raise ValueError(
            f"Give either a corpus ({', '.join(NAMES)} or a Hub data set id) or train_file, not "
            f"{'both' if corpus else 'neither'}."
        )
    if not isinstance(text_column, str):
        raise ValueError(f"text_column must be one name, not {text_column!r:.60}.")
    names = [corpus] if isinstance(corpus, str) else corpus
    if corpus is not None and not (
        isinstance(names, list) and names and all(isinstance(n, str) for n in names)
    ):
        raise ValueError(f"corpus must be a name or a list of names, not {corpus!r:.60}.")
    if names and not set(MIXTURES).isdisjoint(names):
        deduplicate = deduplicate or "whitespace"
    sources: list[tuple[str | None, Source]] = []
    for side, files in (("test", test_file), ("validation", validation_file)):
        if files is not None:
            sources.append((side, file_source(files, text_column, txt_document)))
    given = {side for side, _ in sources}
    if train_file is not None:
        sources.append((None, file_source(train_file, text_column, txt_document)))
    elif names is not None:
        sources += _named_sources(names, given, text_column, streaming)
    return Corpus(
        sources,
        validation_share=validation_share,
        test_share=test_share,
        split_seed=split_seed,
        deduplicate=deduplicate,
        streaming=streaming,
        held_out_limit=held_out_limit,
    )


def _named_sources(
    names: list[str], given: set[str | None], text_column: str, streaming: bool
) -> list[tuple[str | None, Source]]:
    """(side, source) of packaged and Hub corpora, held-out sides first; sides in `given` come from elsewhere."""
    found = [_sides_of(name, text_column, streaming) for name in names]
    held_out = []
    for side in ("test", "validation"):
        with_side = [name for name, sides in zip(names, found, strict=True) if side in sides]
        if side in given or not with_side:
            continue
        if len(with_side) < len(names):
            raise ValueError(
                f"Of the corpora {', '.join(names)} only {', '.join(with_side)} has a {side} side of its own, so the "
                f"others would have none. Give {side}_file, or train on them one at a time."
            )
        held_out += [(side, source) for sides in found for source in sides[side]]
    return held_out + [(None, source) for sides in found for source in sides["train"]]


def _sides_of(name: str, text_column: str, streaming: bool) -> dict[str, list[Source]]:
    """The sources of a named corpus: "train", and validation and test where it has them."""
    if name in PACKAGES:
        return {"train": [packaged_source(name)]}
    if name in MIXTURES:
        return {"train": [_cleaned_source(packaged_source(part)) for part in MIXTURES[name].parts]}
    is_ours = name in HUB_CORPORA
    identifier = HUB_CORPORA[name].identifier if is_ours else name
    sides = hub_sources(identifier, text_column, streaming)
    return {side: [_joined_source(name, source) if is_ours else source] for side, source in sides.items()}


def _cleaned_source(source: Source) -> Source:
    fingerprint = fingerprint_of(["cleaned", CLEANING_VERSION, source.fingerprint])
    return replace(source, fingerprint=fingerprint, read=lambda: map(cleaned, source.read()))


def _joined_source(name: str, source: Source) -> Source:
    fingerprint = fingerprint_of(["joined lines", CLEANING_VERSION, source.fingerprint])
    return replace(source, name=name, fingerprint=fingerprint, read=lambda: joined_lines(source.read()))


def packaged_source(name: str) -> Source:
    """A demo corpus, read from the files of an installed package."""
    path = packaged_file(name, PACKAGES[name])
    return Source(name, file_digest([path]), lambda: PACKAGES[name].read(path), path.stat().st_size)


def file_source(patterns: str | os.PathLike | list, text_column: str, txt_document: str) -> Source:
    """Files, folders (searched to the bottom) and globs, in sorted order; fingerprinted by their bytes."""
    if txt_document not in TXT_DOCUMENTS:
        raise ValueError(
            f"txt_document must be one of {', '.join(TXT_DOCUMENTS)}, not {txt_document!r}."
            f"{nearest_hint(txt_document, TXT_DOCUMENTS)}"
        )
    patterns = [patterns] if isinstance(patterns, (str, os.PathLike)) else list(patterns)
    if not patterns:
        raise ValueError("An empty list of files: give at least one file, folder or glob.")
    paths = [path for pattern in patterns for path in find_files(pattern)]
    paths = list(dict.fromkeys(paths))

    meter = Meter()

    def read() -> Iterator[str]:
        meter.restart()
        for path in paths:
            yield from read_documents(path, text_column, txt_document, meter)

    return Source(
        ", ".join(str(p) for p in patterns),
        fingerprint_of(
            [file_digest(paths), [format_of(p) for p in paths], text_column, txt_document, LINE_RULE]
        ),
        read,
        sum(path.stat().st_size for path in paths),
        meter.position,
    )


def hub_sources(identifier: str, text_column: str, streaming: bool) -> dict[str, Source]:
    """The sides of a Hub data set: train, and validation and test where it has them."""
    dataset = open_hub_dataset(identifier, streaming, known=NAMES)
    sides = dataset.sides

    def source(side: str) -> Source:
        columns = sides[side].column_names
        if columns is not None and text_column not in columns:
            raise ValueError(missing_column(f"{identifier} ({side})", text_column, columns))
        return Source(
            identifier,
            dataset.fingerprint("text", side, text_column),
            lambda: _hub_documents(sides[side], f"{identifier} ({side})", text_column),
            dataset.size(side),
        )

    return {side: source(side) for side in SPLITS if side in sides}


def _hub_documents(rows: Any, place: str, column: str) -> Iterator[str]:
    if rows.column_names is not None:
        rows = rows.select_columns(column)  # images and the like beside the text are not decoded
    for number, row in enumerate(rows, 1):
        if column not in row:
            raise ValueError(missing_column(f"{place}, row {number}", column, row))
        yield text_of(row[column], f"{place}, row {number}", column) or ""
