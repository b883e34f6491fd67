"""Text of made-up words, as many as a vocabulary has, to plan with where the real text is not at hand.

What an update takes depends on shapes alone: the vocabulary, how long texts are, how many tokens there are. Lengths are
log-normal. An objective says of what kind its data are (`Objective.made_up`), `hfseq/planning/made_up.py` writes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Lengths:
    """How many tokens texts have: log-normal, within bounds."""

    median: int
    spread: float
    """Of the logarithm."""
    most: int

    def __str__(self) -> str:
        return f"{self.median} tokens (median, log-normal with spread {self.spread:g}, at most {self.most:,})"


DOCUMENT, SENTENCE = Lengths(150, 1.0, 4000), Lengths(20, 0.5, 100)


@dataclass(frozen=True)
class MadeUpSide:
    """One side of made-up data."""

    content: str
    """Of its file."""
    suffix: str
    """Of its file, ".txt"."""
    fields: dict[str, Any]
    """Of the data section: how the file is read."""
    assumed: str
    """What was assumed of the data, for people."""


class MadeUpTexts:
    """Draws texts; the same seed, the same texts.

    Args:
        vocab_size: of the words w0, w1, ...
    """

    def __init__(self, vocab_size: int, seed: int = 0):
        self.vocab_size, self.draw = vocab_size, np.random.default_rng(seed)

    def words(self, count: int) -> list[str]:
        """Every word once, as far as the count goes; then any of them."""
        more = self.draw.integers(self.vocab_size, size=max(0, count - self.vocab_size))
        ids = np.concatenate([self.draw.permutation(self.vocab_size), more])
        return [f"w{i}" for i in ids[:count]]

    def lengths(self, count: int, shape: Lengths, most: int | None = None) -> list[int]:
        """Lengths of texts that have at least `count` tokens together; `most`, in place of the shape's."""
        mean = shape.median * math.exp(shape.spread**2 / 2)
        found: list[int] = []
        while (missing := count - sum(found)) > 0:
            drawn = self.draw.lognormal(math.log(shape.median), shape.spread, size=int(missing / mean) + 1)
            found += drawn.round().clip(1, most or shape.most).astype(int).tolist()
        return found

    def documents(self, count: int) -> list[str]:
        """Documents of sentences, with so many tokens together."""
        words = iter(self.words(count))
        texts = []
        for length in self.lengths(count, DOCUMENT):
            pieces, left = [], length
            for size in self.lengths(length, SENTENCE):
                sentence = [next(words, "w0") for _ in range(min(size, left) - 1)]
                left -= min(size, left)
                pieces.append(" ".join([*sentence, "."]))
            texts.append(" ".join(pieces))
        return texts


__all__ = ["DOCUMENT", "Lengths", "MadeUpSide", "MadeUpTexts"]
