"""A tag for each word: CoNLL files, words as the pieces of a tokenizer, and entities as the pipeline finds them.

A file has `token TAB tag` lines and a blank line between sentences; `-DOCSTART-` lines only part documents.

A tokenizer of bytes or pieces makes other pieces of "word" than of " word", and has seen nearly only the second kind.
So a sentence is tokenised as running text, its words joined by spaces, exactly as in pretraining; the character
offsets say which word a piece belongs to. (`is_split_into_words` would tokenise every word as if it began a text.)

The test of a tagger is what its user calls, `pipeline("token-classification", aggregation_strategy=...)`. A word's tag
is read as the pipeline reads it: "first", from the first piece, which alone is taught it (as is usual for BERT); "all",
from the mean of its pieces' probabilities (the strategy "average"), all of which are taught it, for models that read
one way and know a word only when they have read all of it. Two things are arranged for its sake:

- The tokenizer is saved so that a piece's offsets leave out the space before its word (`trim_offsets`), else every
  span would begin with one.
- A piece of white space alone (byte-level tokenizers have them before rare words, tokenizers of characters everywhere)
  is a word of its own to the pipeline. It is taught the inside tag between two words of one entity and "O" elsewhere,
  and where it is found otherwise, it ends an entity in `decode`, too.

A word of which the tokenizer keeps nothing counts as tagged "O".
"""

from __future__ import annotations

import bisect
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForTokenClassification

from .. import metrics
from ..data.files import lines_of
from ..hints import nearest_hint
from ..models.losses import IGNORE_INDEX
from ..plots import plot_class_scores
from .base import BaselineAnswers, Prediction, Row, Task, TaskData, TaskOptions, label_fields

logger = logging.getLogger(__name__)

LABELLED_PIECES = ("first", "all")
DOCUMENT_START = "-DOCSTART-"


@dataclass(frozen=True)
class TaggedSentence:
    """Words and a tag for each."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    """None where nobody knows them (test side only)."""
    place: str
    """File and line of the first word."""
    line: int = 0
    """Number of that line."""


@dataclass
class TaggingOptions(TaskOptions):
    """Fields of the task token-classification."""

    labelled_pieces: str | None = None
    """The pieces of a word that have its tag, first or all; by default first, for recurrent models that read one way
    all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labelled_pieces not in (None, *LABELLED_PIECES):
            raise ValueError(
                f"labelled_pieces must be one of {', '.join(LABELLED_PIECES)}, not {self.labelled_pieces!r}."
            )


class TokenClassification(Task):
    """A tag for each word; chosen by F1 of whole entities."""

    name = "token-classification"
    auto_class = "AutoModelForTokenClassification"
    pipeline = "token-classification"
    metric = "f1"
    options: TaggingOptions
    options_class = TaggingOptions
    has_labels = True
    per_column = True
    can_smooth = True

    pieces = "first"
    """The labelled pieces of a word, once `prepare` has settled it."""

    # ---- data

    @classmethod
    def read(cls, path: Path, options: Any, labelled: bool) -> list[TaggedSentence]:
        return read_conll(path, labelled)

    @classmethod
    def check(cls, data: TaskData, options: Any) -> None:
        data.labels = check_tags(data, options.labels)

    @classmethod
    def identity(cls, example: TaggedSentence) -> str:
        return " ".join(example.words)

    @classmethod
    def is_labelled(cls, examples: Sequence) -> bool:
        return examples[0].tags is not None

    def record(self, example: TaggedSentence) -> dict[str, Any]:
        return {"words": list(example.words), "tags": None if example.tags is None else list(example.tags)}

    # ---- rows

    def prepare(self, tokenizer: Any, config: Any) -> None:
        super().prepare(tokenizer, config)
        metrics.entity_scores(
            [["O"]], [["O"]]
        )  # raises where its library is missing: now, not after an epoch
        if not tokenizer.is_fast:
            raise ValueError(
                f"{type(tokenizer).__name__} is a slow tokenizer and gives no offsets; token classification needs a "
                "fast one."
            )
        trim_offsets(tokenizer)
        reads_one_way = not getattr(config, "bidirectional", True)
        self.pieces = self.options.labelled_pieces or ("all" if reads_one_way else "first")

    def config_fields(self) -> dict[str, Any]:
        return label_fields(self.data.labels)

    def encode(
        self, examples: Sequence, tokenizer: Any, max_length: int | None
    ) -> tuple[list[Row], dict[str, int]]:
        return encode_tagged(examples, tokenizer, self.data.labels, max_length, self.pieces)

    def collator(self, tokenizer: Any) -> Callable[[list[Row]], dict[str, Any]]:
        return DataCollatorForTokenClassification(tokenizer)

    @classmethod
    def count(cls, batch: dict[str, torch.Tensor]) -> int:
        return int((batch["labels"] != IGNORE_INDEX).sum())

    # ---- answers

    def keep(self, output: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return output[0].float().softmax(-1)

    def decode(self, rows: list[Row], examples: Sequence, output: list[np.ndarray]) -> list[Prediction]:
        found = tags_of_rows(rows, output, examples, self.data.labels)
        return [{"prediction": tags} for tags in found]

    def score(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, float]:
        scores = self._scores(examples, predictions)
        return {name: value for name, value in scores.items() if name != "by_type"}

    def classes(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, dict[str, float]]:
        return self._scores(examples, predictions)["by_type"]

    def _scores(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, Any]:
        return metrics.entity_scores([e.tags for e in examples], [p["prediction"] for p in predictions])

    def picture(
        self, examples: Sequence, predictions: list[Prediction], path: Path, title: str
    ) -> Path | None:
        scores = self.classes(examples, predictions)
        return plot_class_scores(scores, path, title) if scores else None

    def usage(self) -> dict[str, str]:
        return {"aggregation_strategy": "average" if self.pieces == "all" else "first"}

    def baseline(self) -> BaselineAnswers:
        from ..metrics.baselines.linear import fit_tags

        train, validation = self.data.sides["train"], self.data.sides["validation"]
        found = fit_tags(
            [sentence.words for sentence in train],
            [sentence.tags for sentence in train],
            {
                side: [e.words for e in examples]
                for side, examples in self.data.sides.items()
                if side != "train"
            },
            lambda tags: self.score(validation, [{"prediction": t} for t in tags])[self.metric],
        )
        answers = {side: [{"prediction": p} for p in values] for side, values in found.predictions.items()}
        return BaselineAnswers(found.description, found.parameters, found.trials, answers, found.seconds)


# ---- files


def read_conll(path: str | os.PathLike, labelled: bool = True) -> list[TaggedSentence]:
    """Reads `token TAB tag` lines with blank lines between sentences.

    An I- tag that continues no entity is warned of, not refused: published files have them (WNUT17's dev side twice),
    and conlleval's rule, that it begins an entity, is what scores go by.

    Args:
        labelled: False: a file of tokens without any tags is fine, too.

    Raises:
        ValueError: a line with another number of columns, an empty token, a malformed tag; names the line.
    """
    path = Path(path)
    sentences: list[TaggedSentence] = []
    words: list[str] = []
    tags: list[str] = []
    stray: list[str] = []
    first = columns = 0

    def close() -> None:
        if words:
            own = tuple(tags) if columns == 2 else None
            sentences.append(TaggedSentence(tuple(words), own, f"{path}, line {first}", first))
            words.clear()
            tags.clear()

    for number, line in lines_of(path):
        place = f"{path}, line {number}"
        # WNUT17 ends most sentences with a lone tab, and has a byte-order mark where files were joined.
        if not line.strip("\ufeff \t\r").strip() or line.split()[0] == DOCUMENT_START:
            close()
            continue
        cells = line.split("\t")
        if not columns:
            columns = 1 if len(cells) == 1 and not labelled else 2
        if len(cells) != columns:
            hint = " They are separated by a tab, not by spaces." if len(cells) == 1 and " " in line else ""
            expected = "token TAB tag" if columns == 2 else "a token alone, as in the lines before"
            raise ValueError(f"{place}: {len(cells)} columns ({line!r:.60}), expected {expected}.{hint}")
        word, tag = cells[0].strip(), cells[1].strip() if columns == 2 else "O"
        if not word:
            raise ValueError(f"{place}: tag {tag!r} without a token: words and tags are misaligned here.")
        if not tag:
            raise ValueError(f"{place}: token {word!r} without a tag: words and tags are misaligned here.")
        if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) == 2):
            raise ValueError(
                f"{place}: tag {tag!r} is malformed. Tags are O, B-TYPE for an entity's first word and I-TYPE for "
                "its others."
            )
        if tag.startswith("I-") and (tags[-1][2:] if tags else "") != tag[2:]:
            stray.append(place)
        if not words:
            first = number
        words.append(word)
        tags.append(tag)
    close()
    if stray:
        logger.warning(
            "%s: an I- tag continues no entity of its type (%d in the file). As in conlleval it begins one.",
            stray[0],
            len(stray),
        )
    return sentences


def check_tags(data: TaskData, given: Sequence[str] | None = None) -> list[str]:
    """The list of tags, into which every tag of every side fits.

    A type without an entity is an error on the training side and a warning (in `data.warnings`) on the others.

    Args:
        given: the tags in order; default "O", then B- and I- of each type of the training side in sorted order.

    Raises:
        ValueError: a tag outside the list, an incomplete list, a type without an entity to learn from.
    """
    sides = data.sides
    if given:
        known = list(given)
        if "O" not in known:
            raise ValueError(f"The tags {', '.join(known)} lack O, the tag of words outside entities.")
        for tag in known:
            if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) == 2):
                raise ValueError(f"Tag {tag!r} of the given list is malformed: O, B-TYPE or I-TYPE.")
            if tag.startswith("I-") and f"B-{tag[2:]}" not in known:
                raise ValueError(f"The given tags have {tag} but no B-{tag[2:]}: no entity could begin.")
    else:
        kinds = sorted({tag[2:] for s in sides["train"] for tag in s.tags or () if tag != "O"})
        if not kinds:
            raise ValueError(
                f"{sides['train'][0].place}: no entity on the whole training side, all tags are O."
            )
        known = ["O", *(f"{prefix}-{kind}" for kind in kinds for prefix in "BI")]
    types = {tag[2:]: None for tag in known if tag != "O"}
    for side, sentences in sides.items():
        found: Counter[str] = Counter()
        for sentence in sentences:
            for number, tag in enumerate(sentence.tags or ()):
                if tag not in known:
                    path = sentence.place.rsplit(", line ", 1)[0]
                    source = "the given list" if given else "the types of the training side"
                    raise ValueError(
                        f"{path}, line {sentence.line + number}: tag {tag!r} does not fit {source}: "
                        f"{', '.join(known)}.{nearest_hint(tag, known)}"
                    )
                found[tag[2:]] += tag != "O"
        empty = [kind for kind in types if not found[kind]]
        if empty and sentences[0].tags is not None:
            path = sentences[0].place.rsplit(", line ", 1)[0]
            what = f"{path}: type {', '.join(map(repr, empty))} has no entity on the {side} side"
            if side == "train":
                raise ValueError(
                    f"{what}, so nothing can be learnt of it. Give examples, or drop it from the data and the labels."
                )
            data.warnings.append(f"{what}: the scores say nothing of it.")
    return known


# ---- pieces


@dataclass(frozen=True)
class WordPieces:
    """A tokenised sentence."""

    ids: list[int]
    """The pieces, without special tokens."""
    words: list[int | None]
    """For each piece the number of its word; None for a piece of white space alone."""
    before: list[int]
    """Special tokens that the tokenizer puts before a text."""
    after: list[int]
    """Special tokens that it puts after it."""


def trim_offsets(tokenizer: Any) -> None:
    """Makes a byte-level tokenizer's offsets leave out white space at either end of a piece, when saved as well.

    What it encodes stays the same. Other tokenizers are left alone: theirs do so anyhow, or (unigram) cannot.
    """
    from tokenizers import pre_tokenizers, processors

    backend = tokenizer.backend_tokenizer
    text = "a b"
    offsets = backend.encode(text, add_special_tokens=False).offsets
    if all(text[start:end] == text[start:end].strip() for start, end in offsets):
        return
    own = backend.pre_tokenizer
    # the stub does not say that it iterates
    parts = list(own) if isinstance(own, pre_tokenizers.Sequence) else [own]  # type: ignore[call-overload]
    byte_level = next((part for part in parts if isinstance(part, pre_tokenizers.ByteLevel)), None)
    if byte_level is None:
        return
    # The space that the pre-tokenizer puts before a text has no character in it, and takes none away.
    trim = processors.ByteLevel(
        trim_offsets=True, add_prefix_space=byte_level.add_prefix_space, use_regex=False
    )
    before = backend.post_processor
    kept = [] if before is None or isinstance(before, processors.ByteLevel) else [before]
    backend.post_processor = processors.Sequence([trim, *kept])


def word_pieces(words: Sequence[str], tokenizer: Any) -> WordPieces:
    """Tokenises words as running text and finds the word of each piece."""
    encoded = tokenizer(
        " ".join(words), return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    first = next((column for column, mark in enumerate(special) if not mark), len(ids))
    last = len(ids) - next((column for column, mark in enumerate(reversed(special)) if not mark), 0)
    ends, position = [], -1
    for text in words:
        position += 1 + len(text)
        ends.append(position)
    owners: list[int | None] = []
    for start, end in encoded["offset_mapping"][first:last]:
        # A piece may bring the space before its word along: from there on, the next word is meant.
        word = bisect.bisect_right(ends, start)
        begins = ends[word] - len(words[word]) if word < len(words) else end
        owners.append(word if max(start, begins) < end else None)
    return WordPieces(ids[first:last], owners, ids[:first], ids[last:])


def encode_tagged(
    sentences: Sequence[TaggedSentence],
    tokenizer: Any,
    labels: Sequence[str],
    max_length: int | None = None,
    labelled_pieces: str = "first",
) -> tuple[list[Row], dict[str, int]]:
    """Rows for a token classifier.

    A sentence with more pieces than fit is cut between words into several rows; a word that alone is longer than a row
    loses its last pieces.

    Args:
        tokenizer: a fast one (offsets are needed).
        labels: the tags in order.
        max_length: of a row, special tokens included; None: no limit.
        labelled_pieces: "first" or "all" of each word.

    Returns:
        rows {input_ids, attention_mask, token_type_ids, labels, sentence, word_of, space_before}: `sentence` is the
        number of the sentence, `word_of` [time] the word whose tag is read from a column, `space_before` [time] the
        word before which a piece of white space alone stands, each -1 elsewhere;
        counts {sentences_cut, words_cut, words_without_pieces}.

    Raises:
        ValueError: rows without room, a sentence without any piece; names the line.
    """
    number_of = {tag: number for number, tag in enumerate(labels)}
    rows, counts = [], {"sentences_cut": 0, "words_cut": 0, "words_without_pieces": 0}
    for number, sentence in enumerate(sentences):
        pieces = word_pieces(sentence.words, tokenizer)
        tags = sentence.tags or ("O",) * len(sentence.words)
        labelled: set[int] = set()
        spans, words_cut = _cut(pieces, max_length, sentence)
        for start, end in spans:
            ids = [*pieces.before, *pieces.ids[start:end], *pieces.after]
            front, back = [-1] * len(pieces.before), [-1] * len(pieces.after)
            words = [*front, *(-1 if w is None else w for w in pieces.words[start:end]), *back]
            spaces = [*front, *_spaces(pieces.words, start, end), *back]
            word_of = words
            if labelled_pieces == "first":
                word_of = [w if w not in words[:c] else -1 for c, w in enumerate(words)]
            labelled |= {word for word in words if word >= 0}
            targets = [IGNORE_INDEX if word < 0 else number_of[tags[word]] for word in word_of]
            for column, word in enumerate(spaces):
                if word >= 0:
                    inside = tags[word].startswith("I-") and tags[word - 1][2:] == tags[word][2:]
                    targets[column] = number_of[tags[word] if inside else "O"]
            rows.append(
                {
                    "input_ids": ids,
                    "attention_mask": [1] * len(ids),
                    "token_type_ids": [0] * len(ids),
                    "labels": targets,
                    "sentence": number,
                    "word_of": word_of,
                    "space_before": spaces,
                }
            )
        if not labelled:
            raise ValueError(
                f"{sentence.place}: the tokenizer makes nothing of {' '.join(sentence.words)!r:.60}. Drop the sentence."
            )
        counts["words_cut"] += words_cut
        counts["sentences_cut"] += len(spans) > 1
        counts["words_without_pieces"] += len(sentence.words) - len(labelled)
    return rows, counts


def _spaces(words: list[int | None], start: int, end: int) -> list[int]:
    """For pieces start to end the word before which a piece of white space stands, but not the first word; or -1."""
    found, upcoming = [], -1
    for column in reversed(range(start, end)):
        word = words[column]
        found.append(upcoming if word is None and upcoming > 0 else -1)
        upcoming = upcoming if word is None else word
    return found[::-1]


def _cut(
    pieces: WordPieces, max_length: int | None, sentence: TaggedSentence
) -> tuple[list[tuple[int, int]], int]:
    """(start, end) of runs of pieces that fit into a row and begin at the first piece of a word; words cut off."""
    total = len(pieces.ids)
    room = total if max_length is None else max_length - len(pieces.before) - len(pieces.after)
    if room < 1 and total:
        raise ValueError(f"{sentence.place}: rows of {max_length} leave no room beside the special tokens.")
    spans, start, words_cut = [], 0, 0
    while total - start > room:
        # `end` is the last column up to which a row may reach and before which a new word begins.
        end = start + room
        while end > start and pieces.words[end] in (None, pieces.words[end - 1]):
            end -= 1
        if end <= start:
            # A word longer than a row (an address, say): its first pieces stay, the rest is left out.
            spans.append((start, start + room))
            word = next(w for w in pieces.words[start:] if w is not None)
            start += room
            while start < total and pieces.words[start] in (None, word):
                start += 1
            words_cut += 1
            continue
        spans.append((start, end))
        start = end
    return [*spans, *([(start, total)] if start < total else [])], words_cut


def tags_of_rows(
    rows: Sequence[Row],
    probabilities: Sequence[np.ndarray],
    sentences: Sequence[TaggedSentence],
    labels: Sequence[str],
) -> list[list[str]]:
    """A tag for every word of every sentence.

    Args:
        probabilities: of each row [its time, labels].
    """
    tags = [["O"] * len(sentence.words) for sentence in sentences]
    for row, shares in zip(rows, probabilities, strict=True):
        found = tags[row["sentence"]]
        columns: dict[int, list[int]] = {}
        for column, word in enumerate(row["word_of"]):
            if word >= 0:
                columns.setdefault(word, []).append(column)
        for word, own in columns.items():
            found[word] = labels[int(shares[own].mean(0).argmax())]
        for column, word in enumerate(row["space_before"]):
            continues = word > 0 and found[word].startswith("I-") and found[word - 1][2:] == found[word][2:]
            if continues and labels[int(shares[column].argmax())] != found[word]:
                # To the pipeline the space ended the entity. What comes after it is another.
                found[word] = f"B-{found[word][2:]}"
    return tags


__all__ = [
    "TaggedSentence",
    "TaggingOptions",
    "TokenClassification",
    "WordPieces",
    "check_tags",
    "encode_tagged",
    "read_conll",
    "tags_of_rows",
    "trim_offsets",
    "word_pieces",
]
