"""Which tokens a masked language model must guess: a pure function of (seed, epoch, row).

Three ways to choose them, and two to hide them (`Masking`); all for a whole micro-batch at once in NumPy: 32 rows of
128 take 0.5 ms by token and 1.5 ms by word or span, where `DataCollatorForLanguageModeling` takes 7.5 and 45 ms (one
CPU core).

How many: round(rate x tokens that can be masked) in each row, at least 1, where any can be. Special tokens, unknown
tokens and padding cannot. By token the number is met exactly. By words it is filled greedily: words come in random
order (or span by span), and one that no longer fits is passed over; so every masked word is masked whole, and what is
left of a row's budget is less than the shortest word left. Only where no word of a row fits at all is the first one
masked in part.

What hides a token is drawn for each by itself, by spans once for each run of masked tokens (spans that touch are one),
as SpanBERT does with `--replacement-method span`; the random tokens of a run differ.

Counting per row, not per batch, keeps the shape of `masked_positions` static: K = round(rate x row length) columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...models.losses import IGNORE_INDEX
from ..hashing import draws, draws_at, uniform
from ..vocabulary import MaskingVocabulary

STRATEGIES = ("token", "whole_word", "span")
REPLACEMENTS = ("bert", "mask")

# Joshi et al. 2020: lengths in words, P(l) ~ p (1 - p)^(l - 1) for l = 1 .. 10; 3.8 on average.
SPAN_STOP_PROBABILITY = 0.2
LONGEST_SPAN = 10
_SPAN_WEIGHTS = SPAN_STOP_PROBABILITY * (1 - SPAN_STOP_PROBABILITY) ** np.arange(LONGEST_SPAN)
_SPAN_BORDERS = np.cumsum(_SPAN_WEIGHTS / _SPAN_WEIGHTS.sum())[:-1]

# Devlin et al. 2018: 80% [MASK], 10% a random token, 10% left as it was.
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1

# Streams of random numbers, see `hashing.draws`.
_ORDER, _ANCHOR, _REPLACE, _RANDOM_ID = range(4)
_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Masking:
    """What is masked, and how.

    Raises:
        ValueError: a rate outside (0, 1), an unknown strategy or replacement.
    """

    rate: float = 0.15
    """Share of a row's tokens to guess, at the beginning of the run."""
    strategy: str = "token"
    """token (Devlin et al. 2018), whole_word, or span (SpanBERT: runs of whole words, Joshi et al. 2020)."""
    replacement: str = "bert"
    """bert (80% [MASK], 10% random tokens, 10% unchanged; with the strategy span, of spans) or mask (always [MASK])."""
    rate_end: float | None = None
    """The rate at the end of the run, reached in a straight line; None: the same all along."""

    def __post_init__(self) -> None:
        for name in ("rate", "rate_end"):
            value = getattr(self, name)
            if value is None and name == "rate_end":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
                raise ValueError(
                    f"The mask {name} is {value!r}, but must be above 0 and below 1: 0.15 as BERT, or 0.3."
                )
        for name, known in (("strategy", STRATEGIES), ("replacement", REPLACEMENTS)):
            if getattr(self, name) not in known:
                raise ValueError(f"Unknown mask {name} {getattr(self, name)!r}: choose {' or '.join(known)}.")

    def rate_at(self, progress: float | np.ndarray) -> float | np.ndarray:
        """The rate when that share (0 to 1) of the run is done."""
        return self.rate if self.rate_end is None else self.rate + (self.rate_end - self.rate) * progress

    def slots(self, row_length: int) -> int:
        """K: the most positions of a row that are ever masked."""
        rate = self.rate if self.rate_end is None else max(self.rate, self.rate_end)
        return max(1, int(rate * row_length + 0.5))

    def apply(
        self, ids: np.ndarray, keys: np.ndarray, vocabulary: MaskingVocabulary, progress: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks rows.

        Args:
            ids: int64 [rows, T], special tokens and padding in place; not changed.
            keys: uint64 [rows], see `hashing.row_keys`.
            progress: share of the run that is done, for the rate's schedule.

        Returns:
            input_ids int64 [rows, T]; labels int64 [rows, T], -100 where nothing is to be guessed; masked_positions
            int64 [rows, K], ascending columns, -1 in slots that are not used.
        """
        slots = self.slots(ids.shape[1])
        can = ~vocabulary.special[ids]
        # [rows] how many to mask
        available = can.sum(axis=1)
        budget = np.floor(self.rate_at(progress) * available + 0.5).astype(np.int64)
        budget = np.minimum(np.clip(budget, 1, slots), available)
        if self.strategy == "token":
            positions = _lowest(np.where(can, draws(keys, ids.shape[1], _ORDER), _LAST), budget, slots)
        else:
            words = _Words(ids, can, vocabulary)
            scores = draws(keys, ids.shape[1], _ORDER)
            if self.strategy == "span":
                scores = _by_span(scores, keys, words, slots)
            positions = words.choose(scores, budget, slots)
        return self._replace(ids, keys, vocabulary, positions)

    def _replace(
        self, ids: np.ndarray, keys: np.ndarray, vocabulary: MaskingVocabulary, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        row, slot = np.nonzero(positions >= 0)
        column = positions[row, slot]
        labels = np.full(ids.shape, IGNORE_INDEX, np.int64)
        labels[row, column] = ids[row, column]
        masked = ids.astype(np.int64)  # a copy
        if self.replacement == "mask":
            masked[row, column] = vocabulary.mask_id
            return masked, labels, positions
        drawn_at = _run_starts(row, column) if self.strategy == "span" else column
        share = draws_at(keys[row], drawn_at, _REPLACE) / 2.0**64
        at_random = (share >= MASK_SHARE) & (share < MASK_SHARE + RANDOM_SHARE)
        masked[row[share < MASK_SHARE], column[share < MASK_SHARE]] = vocabulary.mask_id
        row, column = row[at_random], column[at_random]
        drawn = uniform(draws_at(keys[row], column, _RANDOM_ID), len(vocabulary.ordinary))
        masked[row, column] = vocabulary.ordinary[drawn]
        return masked, labels, positions


def _lowest(scores: np.ndarray, budget: np.ndarray, slots: int) -> np.ndarray:
    """Columns of the budget[r] lowest scores of each row, ascending, int64 [rows, slots], -1 where there are fewer."""
    T = scores.shape[1]
    if slots < T:
        columns = np.argpartition(scores, slots - 1, axis=1)[:, :slots]
        columns = np.take_along_axis(
            columns, np.argsort(np.take_along_axis(scores, columns, axis=1), axis=1), axis=1
        )
    else:
        columns = np.argsort(scores, axis=1)
    return _ascending(np.where(np.arange(slots) < budget[:, None], columns, T), T)


def _run_starts(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The first column of the run of neighbours that each of these positions (in ascending order) is in, int64 [n]."""
    begins = np.ones(len(row), bool)
    begins[1:] = (row[1:] != row[:-1]) | (column[1:] != column[:-1] + 1)
    return column[begins][np.cumsum(begins) - 1]


def _ascending(columns: np.ndarray, unused: int) -> np.ndarray:
    columns = np.sort(columns, axis=1)
    columns[columns == unused] = -1
    return columns


class _Words:
    """The words of rows: word w of row r has sizes[r, w] tokens (0: there is no such word) and lies in the run of
    text runs[r, w] (runs are parted by special tokens)."""

    def __init__(self, ids: np.ndarray, can: np.ndarray, vocabulary: MaskingVocabulary):
        rows, T = ids.shape
        starts = vocabulary.starts_word(ids)
        starts[:, 1:] |= ~can[:, :-1]
        starts &= can
        self.can = can
        # [rows, T] number of the word each token is in; of no meaning where nothing can be masked
        self.number = np.cumsum(starts, axis=1) - 1
        self.counts = self.number[:, -1] + 1
        row, column = np.nonzero(can)
        self.sizes = np.bincount(row * T + self.number[row, column], minlength=rows * T).reshape(rows, T)
        self.runs = np.full((rows, T), -1, np.int64)
        row, column = np.nonzero(starts)
        self.runs[row, self.number[row, column]] = np.cumsum(~can, axis=1)[row, column]

    def choose(self, scores: np.ndarray, budget: np.ndarray, slots: int) -> np.ndarray:
        """Whole words by ascending score [rows, T] while they fit the budget [rows]; see the module.

        Returns:
            positions, int64 [rows, slots].
        """
        rows, T = scores.shape
        scores = np.where(self.sizes > 0, scores, _LAST)
        order = np.argsort(scores, axis=1, kind="stable")
        sizes = np.take_along_axis(self.sizes, order, axis=1)
        taken = np.zeros((rows, T), bool)
        left = budget.copy()
        # Each pass takes what fits up to the first word that does not, then forgets all that cannot fit any more:
        # the same as going word by word. Two or three passes do.
        while True:
            fits = ~taken & (sizes > 0) & (sizes <= left[:, None])
            new = fits & (np.cumsum(np.where(fits, sizes, 0), axis=1) <= left[:, None])
            if not new.any():
                break
            taken |= new
            left -= np.where(new, sizes, 0).sum(axis=1)
        # No word fits: the beginning of the first.
        cut = (budget > 0) & ~taken.any(axis=1)
        taken[cut, 0] = True
        chosen = np.zeros((rows, T), bool)
        np.put_along_axis(chosen, order, taken, axis=1)
        tokens = np.take_along_axis(chosen, np.maximum(self.number, 0), axis=1) & self.can
        if cut.any():
            tokens[cut] &= np.cumsum(tokens[cut], axis=1) <= budget[cut, None]
        columns = np.where(tokens, np.arange(T), T)
        if slots < T:
            columns = np.partition(columns, slots - 1, axis=1)[:, :slots]
        return _ascending(columns, T)


def _by_span(scores: np.ndarray, keys: np.ndarray, words: _Words, slots: int) -> np.ndarray:
    """Scores that make `choose` take spans: words of the first span lowest, left to right, then the second's, ...

    Each row draws `slots` spans: a uniformly random word and a length; a span ends with its run of text, and where it
    meets an earlier one it adds what is new. As in SpanBERT, fewer spans reach the first words of a row or text, which
    are guessed less often than others. Words in no span keep their random score, after all the others.
    """
    rows, T = scores.shape
    numbers = draws(keys, slots, _ANCHOR)  # [rows, spans]
    anchors = uniform(numbers, np.maximum(words.counts, 1)[:, None])
    # The lower bits are independent of the upper ones that chose the anchor.
    shares = (numbers & np.uint64(0xFFFFFFFF)) / 2.0**32
    lengths = np.searchsorted(_SPAN_BORDERS, shares, side="right") + 1
    # [rows, spans, LONGEST_SPAN] words of each span
    steps = np.arange(LONGEST_SPAN)
    covered = anchors[..., None] + steps
    inside = (steps < lengths[..., None]) & (covered < words.counts[:, None, None])
    covered = np.minimum(covered, T - 1)
    row = np.arange(rows)[:, None, None]
    inside &= words.runs[row, covered] == words.runs[row, anchors[..., None]]
    # Number of the first span that covers a word; `slots` where none does.
    first = np.full(rows * T, slots, np.int64)
    span = np.broadcast_to(np.arange(slots)[None, :, None], inside.shape)
    np.minimum.at(first, (row * T + covered)[inside], span[inside])
    first = first.reshape(rows, T)
    return np.where(first < slots, (first * T + np.arange(T)).astype(np.uint64), scores | np.uint64(1 << 63))
