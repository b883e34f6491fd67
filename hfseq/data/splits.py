"""Which side (train, validation, test) a text is on: a pure function of its words, two shares and a seed.

So the same text is on the same side whatever stands around it, in every process and after the corpus has grown, and
exact duplicates are always together.

**Held-out sides are capped.** A twentieth of a corpus of 100 GB would take days to score. Where it would be larger than
`held_out_limit` bytes, the shares are lowered so that about so many fall on each held-out side; the rest of what would
have been held out is trained on. A capped side is a subset of the uncapped one, and still a function of the words
alone. How large a corpus is, is what its files take on disk (packed files: packed), or what the Hub says; where nobody
knows it, nothing is capped, and small shares must be given.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NoReturn

from .fingerprints import words_hash

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
DEDUPLICATION = (False, True, "whitespace", "exact")
# Bytes of text on a held-out side, about: 4 million words, which a small model scores in minutes.
HELD_OUT_LIMIT = 20_000_000


def split_of(document: str, *, validation: float = 0.05, test: float = 0.05, seed: int = 0) -> str:
    """The side of a document: "train", "validation" or "test".

    Args:
        document: its text; only its words count, not the white space between them.
        validation: share of documents on the validation side, in expectation; test: likewise.
        seed: another number is another split.
    """
    return Split(validation, test, seed).side_of(document)


@dataclass(frozen=True)
class Split:
    """How documents are dealt to sides.

    Raises:
        ValueError: shares or a seed that are none.
    """

    validation: float = 0.05
    """Share of the documents, in expectation."""
    test: float = 0.05
    """Likewise."""
    seed: int = 0
    """Another number is another split."""
    kept: float = 1.0
    """The part of both shares that is held out where they are capped."""

    def __post_init__(self) -> None:
        for name, share in (("validation_share", self.validation), ("test_share", self.test)):
            if isinstance(share, bool) or not isinstance(share, (int, float)) or not math.isfinite(share):
                raise ValueError(f"{name} must be a number, at least 0 and below 1, not {share!r}.")
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {share}.")
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation_share {self.validation} and test_share {self.test} leave nothing to train on; together "
                "they must stay below 1."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63:
            raise ValueError(f"split_seed must be a whole number, at least 0, not {self.seed!r}.")

    def side_of(self, document: str) -> str:
        """The side of a document; UnicodeEncodeError where it holds half a surrogate pair."""
        position = words_hash(document, self.seed) / 2**64
        # Test takes the beginning of the line from 0 to 1, validation what follows; a capped side the beginning of it.
        if position < self.test * self.kept:
            return "test"
        if self.test <= position < self.test + self.validation * self.kept:
            return "validation"
        return "train"

    def without(self, given: Iterable[str | None]) -> Split:
        """The split where these sides have sources of their own and take nothing from the others."""
        given = set(given)
        return replace(
            self,
            validation=0.0 if "validation" in given else self.validation,
            test=0.0 if "test" in given else self.test,
        )

    def capped(self, size: int | None, limit: int | None, name: str) -> Split:
        """The split of so many bytes with about `limit` bytes at most on each held-out side; None: nobody knows, or no
        limit. What is capped is said, with the `name` of the corpus."""
        check_limit(limit)
        share = max(self.validation, self.test)
        if size is None or limit is None or size * share <= limit:
            return self
        kept = limit / (size * share)
        logger.warning(
            "%s: %.1f GB; of the held-out sides (validation_share %g, test_share %g) only %.2g%% are held out, about "
            "%.0f MB each at most, and the rest is trained on. held_out_limit is another number of bytes, or null.",
            name, size / 1e9, self.validation, self.test, 100 * kept, limit / 1e6,
        )  # fmt: skip
        return replace(self, kept=kept)

    def as_fingerprint(self) -> dict[str, float]:
        """What a fingerprint has of the shares."""
        shares = {"validation": self.validation, "test": self.test}
        return shares if self.kept == 1 else {**shares, "kept": self.kept}


def check_limit(limit: int | None) -> None:
    """Refuses what is no number of bytes."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ValueError(f"held_out_limit must be a number of bytes, at least 1, or null, not {limit!r}.")


def deduplication(value: bool | str) -> bool | str:
    """False, "whitespace" or "exact"; ValueError for all else."""
    if not isinstance(value, (bool, str)) or value not in DEDUPLICATION:
        raise ValueError(f"deduplicate must be false, true, 'whitespace' or 'exact', not {value!r}.")
    return "whitespace" if value is True else value


def missing_side(side: str, held_out: Iterable[str] = ()) -> str:
    """What to say where a side is needed and not there."""
    there = ", ".join(held_out) or "none"
    share = f" Set {side}_share above 0, or give {side}_file." if side != "train" else ""
    return f"There is no {side} side (there are: {there}).{share}"


class Sides(dict):
    """What there is of each side; to ask for one that is not there is an error that says how to get it."""

    def __missing__(self, side: str) -> NoReturn:
        raise ValueError(missing_side(side, self))
