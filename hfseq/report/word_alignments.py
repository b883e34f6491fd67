"""Which word of a translation belongs to which of its source: 20 captions of Multi30k, aligned by hand, and how to hold
attention against them.

`alignments.tsv` names lines of Multi30k's test set of 2016 (its texts may not be passed on) and links of source word
and target word, counted from 0: "3-5" is sure, "3~5" possible (an article, a particle or a relative pronoun that has
no word of its own on the other side), as Och and Ney (2003) tell them apart. Words and punctuation marks are
`words_of`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.files import lines_of
from ..data.packages import benchmark_folder
from ..data.tables import read_table
from .experiment import Context
from .sources import toy_pairs

WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class AlignedPair:
    """A sentence, its translation, and the links between their words."""

    source: str
    target: str
    sure: frozenset[tuple[int, int]]
    """(source word, target word)"""
    possible: frozenset[tuple[int, int]]
    """These and the sure ones."""


def words_of(text: str) -> list[tuple[str, int, int]]:
    """(word, begin, end) in characters; a punctuation mark is a word."""
    return [(match.group(), match.start(), match.end()) for match in WORD.finditer(text)]


def aligned_pairs(context: Context) -> list[AlignedPair]:
    """The hand-aligned pairs; at scale tiny some of the sentences made here, whose words are in one order.

    Raises:
        ValueError: a text of Multi30k does not have the words that were aligned.
        FileNotFoundError: there is no Multi30k.
    """
    if context.scale.toy_data:
        links = frozenset((i, i) for i in range(6))
        return [AlignedPair(source, target, links, links) for source, target in toy_pairs()[:4]]
    folder = benchmark_folder("multi30k")
    texts = {
        language: [line for _, line in lines_of(folder / f"test_2016_flickr.{language}.gz")]
        for language in ("en", "de")
    }
    pairs = []
    columns = ("line", "source_words", "target_words", "links")
    for place, row in read_table(Path(__file__).with_name("alignments.tsv"), columns):
        source, target = (texts[language][int(row["line"]) - 1] for language in ("en", "de"))
        for text, count in ((source, row["source_words"]), (target, row["target_words"])):
            if len(words_of(text)) != int(count):
                raise ValueError(
                    f"{place}: line {row['line']} of Multi30k's test set has {len(words_of(text))} words, not {count}: "
                    f"another edition of the data? {text!r:.80}"
                )
        found: dict[str, set[tuple[int, int]]] = {"-": set(), "~": set()}
        for link in row["links"].split():
            i, kind, j = re.split("([-~])", link)
            found[kind].add((int(i), int(j)))
        pairs.append(AlignedPair(source, target, frozenset(found["-"]), frozenset(found["-"] | found["~"])))
    return pairs


def words_of_tokens(tokenizer: Any, text: str) -> list[int | None]:
    """Of each token of the text, special ones too, which word it is of; None: of none."""
    spans = words_of(text)
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    owners: list[int | None] = []
    for begin, end in offsets:
        # A token may begin with the space before its word.
        inside = [i for i, (_, first, last) in enumerate(spans) if begin < last and end > first]
        owners.append(inside[-1] if inside and end > begin else None)
    return owners


def word_map(weights: np.ndarray, lines: Sequence[int | None], columns: Sequence[int | None]) -> np.ndarray:
    """From tokens to words: the attention of a target word is the mean of its tokens', that to a source word the sum.

    Args:
        weights: [target tokens, source tokens].
        lines, columns: of each token its word.

    Returns:
        [target words, source words]
    """
    height = max((w for w in lines if w is not None), default=-1) + 1
    width = max((w for w in columns if w is not None), default=-1) + 1
    out, counts = np.zeros((height, width)), np.zeros(height)
    for t, target in enumerate(lines):
        if target is None or t >= len(weights):
            continue
        counts[target] += 1
        for s, source in enumerate(columns):
            if source is not None and s < weights.shape[1]:
                out[target, source] += weights[t, s]
    return out / np.maximum(counts, 1)[:, None]


def links_of(words: np.ndarray) -> set[tuple[int, int]]:
    """Each target word is linked to the source word that it looks at most: {(source word, target word)}.

    Args:
        words: [target words, source words].
    """
    return {(int(source), target) for target, source in enumerate(words.argmax(1))}


def diagonal(pair: AlignedPair) -> set[tuple[int, int]]:
    """What one links who knows nothing but where a word stands."""
    sources, targets = len(words_of(pair.source)), len(words_of(pair.target))
    return {(round(j * (sources - 1) / max(targets - 1, 1)), j) for j in range(targets)}


def error_rate(pairs: Sequence[AlignedPair], links: Sequence[set[tuple[int, int]]]) -> float:
    """Alignment error rate (Och and Ney 2003), from 0 (right) to 1, over all links of all pairs:
    1 - (|A and S| + |A and P|) / (|A| + |S|)."""
    right = sum(len(found & p.sure) + len(found & p.possible) for p, found in zip(pairs, links, strict=True))
    return 1 - right / sum(len(found) + len(p.sure) for p, found in zip(pairs, links, strict=True))


__all__ = [
    "AlignedPair",
    "aligned_pairs",
    "diagonal",
    "error_rate",
    "links_of",
    "word_map",
    "words_of",
    "words_of_tokens",
]
