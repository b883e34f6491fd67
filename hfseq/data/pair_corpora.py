"""Pairs of texts out of files and data sets: a sentence and its translation, on three sides.

| source | where the two texts stand |
|---|---|
| `[train.en, train.de]`, two parallel text files | line i of the one belongs to line i of the other |
| .tsv | two cells without a heading, source first; or, with `source_column` or a heading "en TAB de", named columns |
| .csv, .jsonl | two columns (JSON keys), by default named as the languages; or one, `translation`, that holds both |
| Hub data set | as .jsonl |
| `multi30k` | parallel files under $HFSEQ_DATA |

Every file may end in .gz. A .tsv has no quoting: a quotation mark is text.

Texts are taken as they are, white space at their ends too; only the end of a line is not text. A pair of which one side
is empty (or white space, or null) is skipped on whatever side it stands, counted in `PairCorpus.skipped` and reported:
there is nothing to be learned from it, and one side alone cannot be dropped. All else that does not fit is an error
that names file and line.

Sides that are missing are set aside from the training pairs by a hash of the source text: pairs with the same source
are always on the same side, whatever the order, the process and the growth of the corpus.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from ..hints import nearest_hint
from ..paths import user_path
from .files import encoded, format_of, lines_of, missing_file
from .fingerprints import file_digest, fingerprint_of, hash_of
from .hub_datasets import open_hub_dataset
from .packages import benchmark_folder
from .sided_texts import OneSide, SidedTexts
from .splits import HELD_OUT_LIMIT, SPLITS, Split, deduplication
from .tables import missing_column, read_table, text_of

logger = logging.getLogger(__name__)

PAIR_FORMATS = (".tsv", ".csv", ".jsonl")
MULTI30K = {"train": "train", "validation": "val", "test": "test_2016_flickr"}
NAME_COLUMNS = "Name them with source_column and target_column, or with source_language and target_language."
# Part of every fingerprint: raise it when a change here makes other pairs of the same files.
READER_VERSION = 1


@dataclass(frozen=True)
class PairSource:
    """Pairs that can be read again and again."""

    name: str
    """For messages."""
    fingerprint: str
    """Another one where the pairs differ."""
    read: Callable[[], Iterable[tuple[str, str | None, str | None]]]
    """A new pass over (place, source, target); a text that is missing is None."""
    size: int | None = None
    """Bytes that it takes on disk, about; None: nobody knows."""


class PairCorpus:
    """Pairs on three sides. `load_pairs` makes one from names and files, `from_pairs` from Python strings.

    Attributes:
        name: for messages and cards.
        fingerprint: changes with the pairs, the split and deduplication.
        terms: where the pairs come from and what may be done with them, as far as hfseq knows.
        sources, targets: the one half of each pair as a corpus: a tokenizer or a token array can be made of it.
        both: all sources, then all targets: what a joint tokenizer is trained on.
        streaming: training pairs are not kept but read again at each look; held-out ones are kept, they are few.
    """

    def __init__(
        self,
        given: list[tuple[str | None, PairSource]],
        *,
        validation_share: float = 0.05,
        test_share: float = 0.05,
        split_seed: int = 0,
        deduplicate: bool | str = False,
        streaming: bool = False,
        terms: str = "",
        held_out_limit: int | None = HELD_OUT_LIMIT,
    ):
        """
        Args:
            given: (side, source); side None means that each pair's hash decides. Held-out sides come first, so that
                deduplication drops the copy in the training pairs.
            validation_share, test_share: for the sources that are split, where a side is not given.
            deduplicate: "whitespace" (or True) drops pairs that repeat an earlier one up to white space, "exact" only
                those that repeat it letter by letter.
            held_out_limit: bytes on a held-out side of a huge corpus, see `splits.py`; None: no limit.
        """
        self.name = ", ".join(dict.fromkeys(source.name for _, source in given))
        self.terms, self.streaming = terms, streaming
        self._given = given
        self._deduplicate = deduplication(deduplicate)
        sides = {side for side, _ in given}
        sizes = [source.size for side, source in given if side is None]
        size = None if None in sizes else sum(n or 0 for n in sizes)
        split = Split(validation_share, test_share, split_seed).without(sides)
        self._split = split.capped(size, held_out_limit, self.name)
        self._counted = False
        self._skipped: dict[str, int] = {}
        self._texts: dict[str, tuple[list[str], list[str]]] | None = None
        self.fingerprint = fingerprint_of(
            {
                "pairs": READER_VERSION,
                "sources": [(side, source.fingerprint) for side, source in given],
                "shares": self._split.as_fingerprint() if None in sides else None,
                "seed": split_seed if None in sides else None,
                "deduplicate": self._deduplicate,
            }
        )
        self.sources, self.targets = HalfCorpus(self, (0,)), HalfCorpus(self, (1,))
        self.both = HalfCorpus(self, (0, 1))

    @classmethod
    def from_pairs(
        cls,
        pairs: Iterable[tuple[str, str]] | None = None,
        *,
        train: Iterable[tuple[str, str]] | None = None,
        validation: Iterable[tuple[str, str]] | None = None,
        test: Iterable[tuple[str, str]] | None = None,
        name: str = "pairs",
        **options: Any,
    ) -> PairCorpus:
        """A corpus of (source, target) strings: `pairs` are split by their hash, the others are sides as they are.

        Args:
            options: validation_share, test_share, split_seed, deduplicate, terms.
        """
        given = []
        for side, both in (("test", test), ("validation", validation), ("train", train), (None, pairs)):
            if both is None:
                continue
            both = list(both)
            rows = [(f"{name}, pair {i}", *_two_texts(pair, i)) for i, pair in enumerate(both)]
            digest = fingerprint_of([list(row[1:]) for row in rows])
            # mypy infers no lambda that has a default
            given.append((side, PairSource(name, digest, lambda rows=rows: rows)))  # type: ignore[misc]
        return cls(given, **options)

    @property
    def texts(self) -> dict[str, tuple[list[str], list[str]]]:
        """{side: (sources, targets)}; with streaming without the training side."""
        if self._texts is None:
            texts: dict[str, tuple[list[str], list[str]]] = {}
            for side, source, target in self._read():
                if self.streaming and side == "train":
                    continue
                sources, targets = texts.setdefault(side, ([], []))
                sources.append(source)
                targets.append(target)
            self._texts = {side: texts[side] for side in SPLITS if side in texts}
        return self._texts

    @property
    def skipped(self) -> dict[str, int]:
        """{side: pairs that were skipped because one of their texts is empty}."""
        if not self._counted:
            _ = self.texts
        return self._skipped

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        """(side, source, target); the order within a side never changes."""
        if self.streaming:
            yield from self._read()
        else:
            for side, (sources, targets) in self.texts.items():
                for source, target in zip(sources, targets, strict=True):
                    yield side, source, target

    def _read(self) -> Iterator[tuple[str, str, str]]:
        counts, skipped = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        seen: set[int] = set()
        held_out: set[int] = set()
        leaked = dropped = 0
        first_skipped = ""
        for given_side, reader in self._given:
            is_empty = True
            for place, source, target in reader.read():
                is_empty = False
                if not (source and target and not source.isspace() and not target.isspace()):
                    first_skipped = first_skipped or place
                    skipped[given_side or "train"] += 1
                    continue
                raw = encoded(source, place) + b"\0" + encoded(target, place)
                if self._deduplicate:
                    spaced = raw if self._deduplicate == "exact" else _words(source) + b"\0" + _words(target)
                    key = hash_of(spaced)
                    if key in seen:
                        dropped += 1
                        continue
                    seen.add(key)
                side = given_side or self._split.side_of(source)
                if given_side in ("validation", "test"):
                    held_out.add(hash_of(raw))
                elif held_out and hash_of(raw) in held_out:
                    leaked += 1
                counts[side] += 1
                yield side, source, target
            if is_empty:
                raise ValueError(
                    f"{reader.name}: no pairs. The corpus is empty; check the path or the data set."
                )
        self._check_sides(counts)
        if not self._counted:  # with streaming there are many passes, and what they find is the same
            self._skipped, self._counted = {side: n for side, n in skipped.items() if n}, True
            self._report(leaked, dropped, first_skipped)

    def _report(self, leaked: int, dropped: int, first_skipped: str) -> None:
        if self._skipped:
            logger.warning(
                "%s: skipped pairs with an empty side: %s; the first is %s.",
                self.name,
                ", ".join(f"{number} ({side})" for side, number in self._skipped.items()),
                first_skipped,
            )
        if dropped:
            logger.info("%s: dropped %d repeated pairs.", self.name, dropped)
        if leaked:
            logger.warning(
                "%s: %d training pairs stand in the validation or test pairs as well. Scores there will look better "
                "than they are; deduplicate=true drops them from the training pairs.",
                self.name,
                leaked,
            )

    def _check_sides(self, counts: dict[str, int]) -> None:
        total = sum(counts.values())
        if total == 0:
            raise ValueError(
                f"{self.name}: every pair has an empty side. Check the files and the columns (source_column, "
                "target_column)."
            )
        given = {side for side, _ in self._given}
        for side in SPLITS:
            wanted = side in given or (None in given and (side == "train" or getattr(self._split, side) > 0))
            if wanted and counts[side] == 0:
                raise ValueError(
                    f"{self.name}: none of its {total} pairs fell on the {side} side (shares: validation "
                    f"{self._split.validation}, test {self._split.test}). Give more pairs, a file of its own "
                    f"({side}_file), or another share or split_seed."
                )


class HalfCorpus(SidedTexts):
    """The sources, the targets, or both one after the other, as far as tokenizers and token arrays ask for a corpus."""

    def __init__(self, pairs: PairCorpus, parts: tuple[int, ...]):
        self._pairs, self._parts = pairs, parts
        self.name, self.streaming = pairs.name, pairs.streaming
        self.fingerprint = fingerprint_of(["half", pairs.fingerprint, list(parts)])

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(side, text)"""
        for part in self._parts:
            for side, *both in self._pairs:
                yield side, both[part]

    def _side(self, side: str) -> Iterable[str]:
        if self.streaming and side == "train":
            return OneSide(self, side)
        texts = self._pairs.texts.get(side, ([], []))
        return texts[self._parts[0]] if len(self._parts) == 1 else [text for part in texts for text in part]

    def reading(self, side: str) -> Iterable[str]:
        """The texts of a side; the training side of a streamed corpus is read again at each iteration."""
        return self._side(side)


@dataclass(frozen=True)
class PairColumns:
    """Where the two texts of a pair stand in a row of a table."""

    source_language: str = "en"
    target_language: str = "de"
    source_column: str | None = None
    """None: the column named as the language, or that key of a column `translation`."""
    target_column: str | None = None
    named: bool = field(init=False)
    """Whether columns were named, so that a .tsv must have a heading."""

    def __post_init__(self) -> None:
        if (self.source_column is None) != (self.target_column is None):
            missing = "source_column" if self.source_column is None else "target_column"
            raise ValueError(f"Name both columns or neither: {missing} is missing.")
        object.__setattr__(self, "named", self.source_column is not None)
        if self.names[0] == self.names[1]:
            what = "columns" if self.named else "languages"
            raise ValueError(f"Source and target are both {self.names[0]!r}: name two different {what}.")

    @property
    def names(self) -> tuple[str, str]:
        if self.source_column is not None and self.target_column is not None:
            return self.source_column, self.target_column
        return self.source_language, self.target_language

    def of(self, row: dict[str, Any], place: str) -> tuple[str | None, str | None]:
        """The two texts of a row.

        Raises:
            ValueError: a column is missing, or holds what is no text.
        """
        both = row
        if not self.named and isinstance(row.get("translation"), dict):
            both = row["translation"]
        texts = []
        for name in self.names:
            if name not in both:
                place = f"{place}, in translation" if both is not row else place
                raise ValueError(missing_column(place, name, both, NAME_COLUMNS))
            texts.append(text_of(both[name], place, name, NAME_COLUMNS))
        return texts[0], texts[1]

    def required(self, path: Path) -> tuple[str, ...]:
        """The columns that a file must have: a .jsonl may have `translation` instead."""
        return self.names if self.named or format_of(path) != ".jsonl" else ()


def load_pairs(
    corpus: str | None = None,
    *,
    source_language: str = "en",
    target_language: str = "de",
    train_file: str | os.PathLike | list | None = None,
    validation_file: str | os.PathLike | list | None = None,
    test_file: str | os.PathLike | list | None = None,
    source_column: str | None = None,
    target_column: str | None = None,
    validation_share: float = 0.05,
    test_share: float = 0.05,
    split_seed: int = 0,
    deduplicate: bool | str = False,
    streaming: bool = False,
    held_out_limit: int | None = HELD_OUT_LIMIT,
) -> PairCorpus:
    """A corpus of pairs from a name or from files.

    Args:
        corpus: "multi30k", or a Hub data set id "org/name" or "org/name:configuration". Its own validation and test
            sides are used where it has them; what it lacks is split off its train side.
        source_language, target_language: names of the columns (or of the keys in `translation`) where no columns are
            named, and of Multi30k's files.
        train_file: instead of `corpus`: a .tsv, .csv or .jsonl, a list of such, or a list of two parallel text files,
            source first; each also .gz.
        validation_file, test_file: sides of their own, likewise; then nothing is split off for them. With neither
            corpus nor train_file there is nothing to train on, only these.
        source_column, target_column: columns (or JSON keys) with the texts.
        validation_share, test_share, split_seed: see `PairCorpus`.
        deduplicate, held_out_limit: see `PairCorpus`.
        streaming: keep no training pairs in memory and, for Hub data sets, download nothing ahead.

    Raises:
        ValueError: neither or both of corpus and train_file, an unknown name, a missing column, parallel files with
            unequally many lines, an empty side (most of these when the corpus is first looked at).
        FileNotFoundError: a file that is not there.
    """
    held_out_alone = corpus is None and not (validation_file is None and test_file is None)
    if (corpus is None) == (train_file is None) and not held_out_alone:
        raise ValueError(
            "Give either a corpus (multi30k or a Hub data set id) or train_file, not "
            f"{'both' if corpus else 'neither'}."
        )
    if corpus is not None and not isinstance(corpus, str):
        raise ValueError(f"Pairs come from one corpus, not from a list: {corpus!r:.80}. Give one name.")
    columns = PairColumns(source_language, target_language, source_column, target_column)
    given: list[tuple[str | None, PairSource]] = []
    for side, files in (("test", test_file), ("validation", validation_file)):
        if files is not None:
            given.append((side, pair_files(files, columns)))
    terms = ""
    if train_file is not None:
        given.append((None, pair_files(train_file, columns)))
    elif corpus == "multi30k":
        sides = _multi30k_sources(columns)
        taken = {side for side, _ in given}
        given += [(side, sides[side]) for side in ("test", "validation", "train") if side not in taken]
        terms = "Multi30k (Elliott et al. 2016, 2017), for research: its texts describe images of Flickr30k."
    elif corpus is not None:
        sides, taken = _hub_sources(corpus, columns, streaming), {side for side, _ in given}
        given += [(s, sides[s]) for s in ("test", "validation") if s in sides and s not in taken]
        given.append((None, sides["train"]))
    return PairCorpus(
        given,
        validation_share=validation_share,
        test_share=test_share,
        split_seed=split_seed,
        deduplicate=deduplicate,
        streaming=streaming,
        terms=terms,
        held_out_limit=held_out_limit,
    )


def load_multi30k(source_language: str = "en", target_language: str = "de") -> PairCorpus:
    """Multi30k's three sides: 29,000, 1,014 and (test 2016, Flickr) 1,000 pairs of captions.

    Raises:
        FileNotFoundError: HFSEQ_DATA has no multi30k, or not these languages.
    """
    return load_pairs("multi30k", source_language=source_language, target_language=target_language)


# ---- files


def pair_files(files: str | os.PathLike | list, columns: PairColumns | None = None) -> PairSource:
    """Pairs of local files; see `load_pairs`. Fingerprinted by their bytes.

    Raises:
        FileNotFoundError: a file that is not there.
        ValueError: files that are neither tables nor two parallel texts.
    """
    columns = PairColumns() if columns is None else columns
    paths = [user_path(f) for f in ([files] if isinstance(files, (str, os.PathLike)) else files)]
    if not paths:
        raise ValueError("An empty list of files: give a table of pairs, or two parallel text files.")
    for path in paths:
        if not path.is_file():
            hint = " It is a folder: name its files." if path.is_dir() else ""
            raise FileNotFoundError(f"{missing_file(path)}{hint}")
    size = sum(path.stat().st_size for path in paths)
    tables = [format_of(path) in PAIR_FORMATS for path in paths]
    name = ", ".join(map(str, paths))
    if all(tables):

        def read() -> Iterator[tuple[str, str | None, str | None]]:
            for path in paths:
                yield from _table_pairs(path, columns)

        content = [columns.names, columns.named, [format_of(path) for path in paths]]
        return PairSource(name, fingerprint_of(["tables", file_digest(paths), content]), read, size)
    if any(tables) or len(paths) != 2:
        known = f"{', '.join(PAIR_FORMATS)}, each also with .gz"
        if len(paths) == 1:
            raise ValueError(
                f"{name}: one text file holds no pairs. Give two parallel files, [SOURCE, TARGET], or a table "
                f"({known})."
            )
        raise ValueError(
            f"{name}: {len(paths)} files that are neither all tables ({known}) nor two parallel text files, [SOURCE, "
            "TARGET]."
        )
    if paths[0].resolve() == paths[1].resolve():
        raise ValueError(f"{paths[0]} is given as source and as target. Give two files.")
    digest = fingerprint_of(["parallel", file_digest(paths[:1]), file_digest(paths[1:])])
    return PairSource(name, digest, lambda: _parallel_pairs(*paths), size)


def _parallel_pairs(source: Path, target: Path) -> Iterator[tuple[str, str, str]]:
    for left, right in zip_longest(lines_of(source), lines_of(target)):
        if left is None or right is None:
            raise ValueError(_unequal(source, target))
        yield f"{source}, line {left[0]}", left[1], right[1]


def _unequal(source: Path, target: Path) -> str:
    """What to say of parallel files with unequally many lines."""
    left, right = ([line for _, line in lines_of(path)] for path in (source, target))
    message = (
        f"{source} has {len(left)} lines, {target} has {len(right)}: line i of the one must be the translation of line "
        "i of the other."
    )
    line, why = first_suspicious_line(left, right)
    if line is None:
        return f"{message} {why}"
    shown = [repr(lines[line - 1][:60]) if line <= len(lines) else "nothing" for lines in (left, right)]
    return f"{message} The first suspicious line is {line} ({why}): {shown[0]} faces {shown[1]}. Repair it there."


def first_suspicious_line(left: list[str], right: list[str]) -> tuple[int | None, str]:
    """Where two parallel texts with unequally many lines probably part.

    Beyond that line the longer text is taken to have all its surplus lines: the place is the one at which the lengths
    of facing lines fit best, those before it as they stand, those after it moved by the surplus.

    Returns:
        the line's number from 1 (None where there is no line at all), and what is suspicious about it. A line with text
        that faces an empty one comes first, if it stands before the place that was found.
    """
    if not left or not right:
        return None, f"The {'first' if not left else 'second'} file is empty."
    lengths = [np.array([len(line.strip()) for line in lines]) for lines in (left, right)]
    longer, shorter = lengths if len(left) > len(right) else lengths[::-1]
    n, surplus = len(shorter), len(longer) - len(shorter)
    logs = [np.log(x + 1.0) for x in (longer, shorter)]
    as_is, moved = logs[0][:n] - logs[1], logs[0][surplus:] - logs[1]
    line = 1
    for _ in range(3):  # the usual ratio and the place depend on one another
        usual = np.median(np.concatenate([as_is[: line - 1], moved[line - 1 :]]))
        before, after = np.abs(as_is - usual), np.abs(moved - usual)
        # Costs of parting before line k, k = 0 .. n.
        costs = (
            np.concatenate([[0], np.cumsum(before)]) + after.sum() - np.concatenate([[0], np.cumsum(after)])
        )
        line = int(costs.argmin()) + 1
    one_empty = np.flatnonzero((lengths[0][:n] == 0) != (lengths[1][:n] == 0))
    if len(one_empty) and one_empty[0] + 1 <= line:
        return int(one_empty[0]) + 1, "an empty line faces text"
    which = "first" if len(left) > len(right) else "second"
    plural = "line seems" if surplus == 1 else "lines seem"
    return (
        line,
        f"judging by the lengths, {surplus} {plural} to be too many in the {which} file from there on",
    )


def _table_pairs(path: Path, columns: PairColumns) -> Iterator[tuple[str, str | None, str | None]]:
    heading = None
    if format_of(path) == ".tsv" and not columns.named:
        _, first = next(lines_of(path), (1, ""))
        if sorted(cell.strip() for cell in first.split("\t")) != sorted(columns.names):
            heading = columns.names
            if first.count("\t") > 1:
                raise ValueError(
                    f"{path}, line 1: {first.count(chr(9)) + 1} cells, but a pair has two, SOURCE TAB TARGET. With "
                    "more columns give a heading, and source_column and target_column."
                )
    for place, row in read_table(path, columns.required(path), heading=heading, remedy=NAME_COLUMNS):
        yield place, *columns.of(row, place)


# ---- named corpora


def _multi30k_sources(columns: PairColumns) -> dict[str, PairSource]:
    folder = benchmark_folder("multi30k")
    languages = columns.source_language, columns.target_language
    known = sorted(p.name.split(".")[1] for p in folder.glob("train.*.gz"))
    for language in languages:
        if language not in known:
            raise FileNotFoundError(
                f"multi30k: no language {language!r} in {folder}; there are {', '.join(known) or 'none'}."
                f"{nearest_hint(language, known)} Choose source_language and target_language among them."
            )
    sides = {}
    for side, name in MULTI30K.items():
        source = pair_files([folder / f"{name}.{language}.gz" for language in languages], columns)
        sides[side] = PairSource("multi30k", source.fingerprint, source.read, source.size)
    return sides


def _hub_sources(identifier: str, columns: PairColumns, streaming: bool) -> dict[str, PairSource]:
    """The sides of a Hub data set: train, and validation and test where it has them."""
    dataset = open_hub_dataset(identifier, streaming, known=["multi30k"], kind="corpus of pairs")
    sides = dataset.sides

    def source(side: str) -> PairSource:
        def read() -> Iterator[tuple[str, str | None, str | None]]:
            rows, wanted = sides[side], list(columns.names)
            if rows.column_names is not None:
                if not columns.named and "translation" in rows.column_names:
                    wanted = ["translation"]
                if set(wanted) <= set(
                    rows.column_names
                ):  # images and the like beside the texts are not decoded
                    rows = rows.select_columns(wanted)
            for number, row in enumerate(rows, 1):
                place = f"{identifier} ({side}), row {number}"
                yield place, *columns.of(row, place)

        fingerprint = dataset.fingerprint("pairs", side, columns.names, columns.named)
        return PairSource(identifier, fingerprint, read, dataset.size(side))

    return {side: source(side) for side in SPLITS if side in sides}


# ---- texts


def _two_texts(pair: Any, number: int) -> tuple[str, str]:
    if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise ValueError(f"Pair {number} is {pair!r:.80}, not (source text, target text).")
    return pair[0], pair[1]


def _words(text: str) -> bytes:
    return " ".join(text.split()).encode("utf-8")
