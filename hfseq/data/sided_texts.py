"""Texts on three sides, as tokenizers and token arrays ask for them: what corpora of documents and of pairs share."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class SidedTexts(abc.ABC):
    """A corpus whose iteration gives (side, text) in one pass over its source."""

    @abc.abstractmethod
    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(side, text), in one pass; the order within a side never changes."""

    @abc.abstractmethod
    def _side(self, side: str) -> Iterable[str]:
        """The texts of a side: a list, or what reads again at each iteration (`OneSide`)."""

    @property
    def train(self) -> Iterable[str]:
        """Texts of the training side: a list, or with streaming an iterable that reads again each time."""
        return self._side("train")

    @property
    def validation(self) -> Iterable[str]:
        """Texts of the validation side; see `train`."""
        return self._side("validation")

    @property
    def test(self) -> Iterable[str]:
        """Texts of the test side; see `train`."""
        return self._side("test")


@dataclass(frozen=True)
class OneSide:
    """One side of a corpus that is not kept; each iteration is a pass over the whole source."""

    corpus: SidedTexts
    side: str

    def __iter__(self) -> Iterator[str]:
        return (text for side, text in self.corpus if side == self.side)


__all__ = ["OneSide", "SidedTexts"]
