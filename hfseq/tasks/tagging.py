"""Tagged sentences: the CoNLL files they come in, and their words as the pieces of a tokenizer.

A tokenizer of bytes or pieces makes other pieces of "word" than of " word", and has seen nearly only the second kind.
So a sentence is tokenised as running text, its words joined by spaces, exactly as in pretraining; the character
offsets say which word a piece belongs to. (`is_split_into_words` would tokenise every word as if it began a text.)
The label stands on the first piece of its word, as is usual for BERT, and the others are -100; or on all pieces, and
the last one's prediction counts, for models that read one way and know a word only when they have read all of it. A
word of which the tokenizer keeps nothing counts as tagged "O".
"""

from __future__ import annotations

import bisect
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import lines_of
from .hints import nearest_hint

logger = logging.getLogger(__name__)

IGNORED = -100
LABELLED_PIECES = ("first", "all")


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
        line = line.rstrip("\r\n")
        # WNUT17 ends most sentences with a lone tab, and has a byte-order mark where files were joined.
        if not line.strip("\ufeff \t"):
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


def check_tags(
    sides: Mapping[str, Sequence[TaggedSentence]], labels: Sequence[str] | None = None
) -> list[str]:
    """The list of tags, into which every tag of every side fits.

    Args:
        labels: the tags in order; default "O", then B- and I- of each type of the training side in sorted order.

    Raises:
        ValueError: a tag outside the list, an incomplete list, a type without an entity on one side.
    """
    if labels:
        known = list(labels)
        if "O" not in known:
            raise ValueError(f"The tags {', '.join(known)} lack O, the tag of words outside entities.")
        for tag in known:
            if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) == 2):
                raise ValueError(f"Tag {tag!r} of the given list is malformed: O, B-TYPE or I-TYPE.")
            if tag.startswith("I-") and f"B-{tag[2:]}" not in known:
                raise ValueError(f"The given tags have {tag} but no B-{tag[2:]}: no entity could begin.")
        if len(set(known)) != len(known):
            raise ValueError(f"The tags {', '.join(known)} name one twice.")
    else:
        types = sorted({tag[2:] for s in sides["train"] for tag in s.tags or () if tag != "O"})
        if not types:
            raise ValueError(
                f"{sides['train'][0].place}: no entity on the whole training side, all tags are O."
            )
        known = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")]
    types = {tag[2:]: None for tag in known if tag != "O"}
    for side, sentences in sides.items():
        found: Counter[str] = Counter()
        for sentence in sentences:
            for number, tag in enumerate(sentence.tags or ()):
                if tag not in known:
                    path = sentence.place.rsplit(", line ", 1)[0]
                    source = "the given list" if labels else "the types of the training side"
                    raise ValueError(
                        f"{path}, line {sentence.line + number}: tag {tag!r} does not fit {source}: "
                        f"{', '.join(known)}.{nearest_hint(tag, known)}"
                    )
                found[tag[2:]] += tag != "O"
        empty = [kind for kind in types if not found[kind]]
        if empty and sentences[0].tags is not None:
            path = sentences[0].place.rsplit(", line ", 1)[0]
            raise ValueError(
                f"{path}: type {', '.join(map(repr, empty))} has no entity on the {side} side, so nothing can be said "
                "of it. Give examples, or drop it from the data and the labels."
            )
    return known


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


def word_pieces(words: Sequence[str], tokenizer) -> WordPieces:
    """Tokenises words as running text and finds the word of each piece.

    Raises:
        ValueError: a slow tokenizer.
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} is a slow tokenizer and gives no offsets; token classification needs a fast "
            "one."
        )
    encoded = tokenizer(
        " ".join(words), return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
    )
    ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
    first = next((column for column, mark in enumerate(special) if not mark), len(ids))
    last = len(ids) - next((column for column, mark in enumerate(reversed(special)) if not mark), 0)
    ends, position = [], -1
    for word in words:
        position += 1 + len(word)
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
    tokenizer,
    labels: Sequence[str],
    max_length: int | None = None,
    labelled_pieces: str = "first",
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows for a token classifier.

    A sentence with more pieces than fit is cut between words into several rows; a word that alone is longer than a row
    loses its last pieces.

    Args:
        tokenizer: a fast one (offsets are needed).
        labels: the tags in order.
        max_length: of a row, special tokens included; None: no limit.
        labelled_pieces: "first" or "all" of each word.

    Returns:
        rows {input_ids, attention_mask, token_type_ids, labels, sentence, word_of}: `sentence` is the number of the
        sentence, `word_of` [time] the word whose tag is read from a column, -1 elsewhere;
        counts {sentences_cut, words_cut, words_without_pieces}.

    Raises:
        ValueError: a slow tokenizer, rows without room, a sentence without any piece; names the line.
    """
    if labelled_pieces not in LABELLED_PIECES:
        raise ValueError(
            f"labelled_pieces must be one of {', '.join(LABELLED_PIECES)}, not {labelled_pieces!r}."
        )
    number_of = {tag: number for number, tag in enumerate(labels)}
    rows, counts = [], {"sentences_cut": 0, "words_cut": 0, "words_without_pieces": 0}
    for number, sentence in enumerate(sentences):
        pieces = word_pieces(sentence.words, tokenizer)
        labelled: set[int] = set()
        spans, words_cut = _cut(pieces, max_length, sentence)
        for start, end in spans:
            ids = [*pieces.before, *pieces.ids[start:end], *pieces.after]
            words = [-1] * len(pieces.before) + [-1 if w is None else w for w in pieces.words[start:end]]
            words += [-1] * len(pieces.after)
            columns = list(enumerate(words))
            # The column that each word is read from: of several, the one that comes last here.
            read = {word: column for column, word in (columns if labelled_pieces == "all" else columns[::-1])}
            word_of = [word if read[word] == column else -1 for column, word in columns]
            labelled |= {word for word in words if word >= 0}
            tags = sentence.tags or ("O",) * len(sentence.words)
            rows.append(
                {
                    "input_ids": ids,
                    "attention_mask": [1] * len(ids),
                    "token_type_ids": [0] * len(ids),
                    "labels": [
                        number_of[tags[word]] if word >= 0 else IGNORED
                        for word in (words if labelled_pieces == "all" else word_of)
                    ],
                    "sentence": number,
                    "word_of": word_of,
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
    rows: Sequence[Mapping[str, Any]],
    predicted: Sequence[Sequence[int]],
    sentences: Sequence[TaggedSentence],
    labels: Sequence[str],
) -> list[list[str]]:
    """A tag for every word of every sentence from the predictions [row][time]."""
    tags = [["O"] * len(sentence.words) for sentence in sentences]
    for row, numbers in zip(rows, predicted, strict=True):
        for column, word in enumerate(row["word_of"]):
            if word >= 0:
                tags[row["sentence"]][word] = labels[int(numbers[column])]
    return tags


__all__ = [
    "TaggedSentence",
    "WordPieces",
    "check_tags",
    "encode_tagged",
    "read_conll",
    "tags_of_rows",
    "word_pieces",
]
