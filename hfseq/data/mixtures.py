"""Corpora of several sources under one name, and corpora of the Hub that need more than a column.

`small-english`: 9 million words of English that install with `pip` (extra demo), in place of BabyLM's ten million where
there is no network: reviews (imdb), encyclopaedia (wiki) and dialogue (chitchat). Cleaned (`cleaned`), and without
documents that repeat an earlier one up to white space. `Corpus.composition` says how many words each part has.

`babylm`, `babylm-strict`: the training text of the BabyLM challenge of 2026, 10 and 100 million words. On the Hub its
rows are lines; a document here is a run of them, see `joined_lines`: lines of one text on both sides of a split would
give each other away.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Part of the fingerprints: raise it when a change here makes other documents of the same files.
CLEANING_VERSION = 1
# Words of a document that is made of lines: it ends at an empty line after so many, and with any line after so many.
LEAST_WORDS, MOST_WORDS = 100, 1000

_TAGS = re.compile(r"</?(?:a|b|br|div|em|font|hr|i|p|span|strong|u)\b[^<>]*>", re.IGNORECASE)
_BREAKS = re.compile(r"<(?:br|p|hr)\b[^<>]*>", re.IGNORECASE)
_ADDRESSES = re.compile(r"(?:https?://|www\.)\S+")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff\ufffd]")
_SPACES = re.compile(r"[^\S\n]+")


@dataclass(frozen=True)
class Mixture:
    """Packaged corpora that are read as one, cleaned and without repetitions."""

    parts: tuple[str, ...]
    """Names of `packages.PACKAGES`, in their order."""


@dataclass(frozen=True)
class HubCorpus:
    """A data set of the Hub under a name of ours."""

    identifier: str
    """Hub id."""


MIXTURES = {"small-english": Mixture(("imdb", "wiki", "chitchat"))}
HUB_CORPORA = {
    "babylm": HubCorpus("BabyLM-community/BabyLM-2026-Strict-Small"),
    "babylm-strict": HubCorpus("BabyLM-community/BabyLM-2026-Strict"),
}


def cleaned(text: str) -> str:
    """The text without HTML, web addresses and control characters, its white space single: a space between words, a
    line break between paragraphs."""
    if "<" in text:
        text = _TAGS.sub("", _BREAKS.sub("\n", text))
    if "&" in text:
        text = html.unescape(text)
    text = _CONTROLS.sub("", _ADDRESSES.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    lines = (_SPACES.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def joined_lines(lines: Iterable[str | None]) -> Iterator[str]:
    """Documents of a text that came line by line: they end at an empty line after `LEAST_WORDS` words, and after
    `MOST_WORDS` in any case."""
    block: list[str] = []
    words = 0
    for line in lines:
        line = (line or "").rstrip("\n")
        if line.strip():
            block.append(line)
            words += len(line.split())
        elif block and words < LEAST_WORDS and block[-1]:
            block.append("")
        if block and (words >= MOST_WORDS or (not line.strip() and words >= LEAST_WORDS)):
            yield "\n".join(block).rstrip("\n")
            block, words = [], 0
    if words:
        yield "\n".join(block).rstrip("\n")
