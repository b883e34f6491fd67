"""Learning to repair text, as an encoder-decoder is pretrained: damaged text in, what is missing (or all of it) out.

| objective | source | target |
|---|---|---|
| spans (T5, Raffel et al. 2020) | `Thank <0> to your <1>`, a sentinel for each span | `<0> you for having <1> party` |
| infilling (BART, Lewis et al. 2020) | `Thank <mask> to your <mask>`, one mask for each span | the text |

Text is cut into pieces of at most row_length - 1 tokens, none across the end of a document; pieces of a single token
are left out. What is damaged is a pure function of (seed, epoch, piece): another in each epoch.

How much: round(rate x tokens) in each piece, exactly, at least 1 and never all. For spans these are cut into
round(that / mean_span) parts, lengths and places uniform among all ways to do so, two spans never touching (as in T5).
For infilling, lengths are drawn from a Poisson distribution until they come to that number (the last one is cut to it);
length 0 puts a mask where nothing is missing; masks stand anywhere, all orders of masks and kept tokens being equally
likely. With permute_sentences the sentences of a piece are shuffled before.

All for a whole micro-batch at once in NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...models.losses import IGNORE_INDEX
from ..hashing import draws, row_keys
from ..ragged import copy_texts
from ..token_arrays import TokenArray
from ..vocabulary import MaskingVocabulary
from .base import Phase, check_whole
from .pairs import PairPlan
from .rows import split_long
from .sentences import sentence_starts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OBJECTIVES = {"spans": 0.15, "infilling": 0.3}
"""The published rate of each."""

# Evaluation never depends on the seed of training: models trained with different seeds repair the same damage.
EVALUATION_SEED = 20191023

# Streams of random numbers, see `hashing.draws`.
_NOISE_CUTS, _PLAIN_CUTS, _LENGTHS, _PLACES, _SENTENCES = range(32, 37)
_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)


@dataclass(frozen=True)
class Denoising:
    """What is damaged, and how.

    Raises:
        ValueError: an unknown objective, or a number that makes no sense.
    """

    objective: str = "spans"
    """spans or infilling; see the module."""
    rate: float | None = None
    """Share of the tokens that are taken away; None: the published one, 0.15 for spans, 0.3 for infilling."""
    mean_span: float = 3.0
    """Mean length of a span in tokens."""
    permute_sentences: bool = False
    """Shuffle the sentences of the source; infilling only."""

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"Unknown objective {self.objective!r}: choose {' or '.join(OBJECTIVES)}.")
        rate = OBJECTIVES[self.objective] if self.rate is None else self.rate
        object.__setattr__(self, "rate", rate)
        if not 0 < rate < 1:
            raise ValueError(f"The noise rate is {rate!r}, but must be above 0 and below 1, such as 0.15.")
        if not self.mean_span >= 1:
            raise ValueError(f"mean_span is {self.mean_span!r}, but a span has at least 1 token.")
        if self.permute_sentences and self.objective != "infilling":
            raise ValueError(
                "permute_sentences belongs to the objective infilling, whose target is the whole text: the spans that "
                "are asked for would not say what their order was."
            )

    def taken(self, lengths: np.ndarray) -> np.ndarray:
        """Tokens taken away from pieces of that many, int64."""
        wanted = np.floor(self.rate * lengths + 0.5).astype(np.int64)
        return np.clip(wanted, 1, lengths - 1)

    def spans(self, lengths: np.ndarray) -> np.ndarray:
        """Spans of the objective spans, int64."""
        taken = self.taken(lengths)
        wanted = np.floor(taken / self.mean_span + 0.5).astype(np.int64)
        return np.clip(wanted, 1, np.minimum(taken, lengths - taken))


@dataclass(frozen=True)
class DenoisingVocabulary:
    """The special tokens of a tokenizer, as far as denoising needs them."""

    pad_id: int
    start_id: int
    """Stands before every target."""
    end_id: int
    sentinels: np.ndarray = field(repr=False)
    """int64: ids of the sentinels, the first one first; empty where there are none."""
    mask_id: int | None = None
    sentences: MaskingVocabulary | None = field(default=None, repr=False)
    """What tells sentences apart, for permute_sentences."""

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerFast) -> DenoisingVocabulary:
        """Reads a sequence-to-sequence tokenizer (`train_tokenizer(..., translation=True)`, T5's, BART's).

        Raises:
            ValueError: it lacks pad, eos, or bos token (for which pad may stand in, as in T5).
        """
        from ..tokenizers import sentinel_ids

        start = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        for name, value in (("pad", tokenizer.pad_token_id), ("eos", tokenizer.eos_token_id)):
            if value is None:
                raise ValueError(
                    f"The tokenizer has no {name}_token. Train one with train_tokenizer(..., translation=True)."
                )
        mask = tokenizer.mask_token_id
        return cls(
            pad_id=tokenizer.pad_token_id,
            start_id=start,
            end_id=tokenizer.eos_token_id,
            sentinels=np.array(sentinel_ids(tokenizer), np.int64),
            mask_id=mask,
            sentences=None if mask is None else MaskingVocabulary.from_tokenizer(tokenizer),
        )


class NoisyTexts:
    """Pieces of a token array, to be damaged; to `PairPlan` what a `PairArray` is.

    Attributes:
        begins, lengths: int64 [pieces], in the token array, without an end token.
        source_lengths, target_lengths: int64 [pieces], ends included; the source's are upper bounds for infilling.

    Raises:
        ValueError: no room, no text, a tokenizer without the sentinels or the mask that are needed.
    """

    def __init__(
        self,
        array: TokenArray,
        vocabulary: DenoisingVocabulary,
        denoising: Denoising,
        *,
        row_length: int,
        seed: int = 0,
    ):
        check_whole("seed", seed, 0)
        if row_length < 3:
            raise ValueError(
                f"row_length {row_length} has no room for two tokens and an end token: at least 3."
            )
        if array.end_id != vocabulary.end_id:
            raise ValueError(
                f"The documents of the token array end with id {array.end_id}, but the tokenizer's eos_token is "
                f"{vocabulary.end_id}. Build the token array again with the tokenizer of this model."
            )
        self.array, self.vocabulary, self.denoising, self.seed = array, vocabulary, denoising, seed
        begins, lengths = split_long(array.offsets[:-1], np.diff(array.offsets) - 1, row_length - 1)
        enough = lengths > 1
        if not enough.any():
            raise ValueError(f"{array.path}: no document has two tokens, so there is nothing to repair.")
        self.begins, self.lengths = begins[enough], lengths[enough]
        self._starts: np.ndarray | None = None
        if denoising.objective == "spans":
            spans = denoising.spans(self.lengths)
            if spans.max() > len(vocabulary.sentinels):
                raise ValueError(
                    f"A piece of {row_length - 1} tokens has up to {spans.max()} spans, but the tokenizer has "
                    f"{len(vocabulary.sentinels)} sentinels. Train it with sentinels={max(100, int(spans.max()))}, or "
                    "choose a lower row_length or rate, or a higher mean_span."
                )
            taken = denoising.taken(self.lengths)
            self.source_lengths = self.lengths - taken + spans + 1
            self.target_lengths = taken + spans + 1
        else:
            if vocabulary.mask_id is None:
                raise ValueError(
                    "Infilling needs a mask_token, which the tokenizer lacks. Train it with mask=True, or add one: "
                    "tokenizer.add_special_tokens({'mask_token': '<mask>'})."
                )
            self.source_lengths = self.target_lengths = self.lengths + 1
            if denoising.permute_sentences:
                # `sentences` is there where the mask is
                self._starts = sentence_starts(array.tokens, array.offsets, vocabulary.sentences)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.begins)

    def batch(self, pieces: np.ndarray, epochs: np.ndarray | int = 0) -> dict[str, torch.Tensor]:
        """The pieces with these numbers, damaged as in those epochs (of all, or one for each); see `PairPlan`."""
        vocabulary, lengths = self.vocabulary, self.lengths[pieces]
        keys = row_keys(self.seed, epochs, pieces)
        width = int(lengths.max())
        flat = np.zeros(len(pieces) * width, np.int64)
        copy_texts(flat, np.arange(len(pieces)) * width, self.array.tokens, self.begins[pieces], lengths)
        ids = flat.reshape(len(pieces), width)
        if self.denoising.objective == "spans":
            source, target = corrupt_spans(ids, lengths, keys, self.denoising, vocabulary.sentinels)
        else:
            target = ids, np.arange(width) < lengths[:, None]
            if self._starts is not None:
                ids = self._permuted(ids, pieces, keys)
            # the mask is there: `__init__` has looked
            source = infill(ids, lengths, keys, self.denoising, vocabulary.mask_id)  # type: ignore[arg-type]
        inputs, mask = _rows(*source, vocabulary.end_id, vocabulary.pad_id)
        labels, _ = _rows(*target, vocabulary.end_id, IGNORE_INDEX)
        shifted = np.where(labels == IGNORE_INDEX, vocabulary.pad_id, labels)
        shifted = np.concatenate([np.full((len(pieces), 1), vocabulary.start_id), shifted[:, :-1]], axis=1)
        batch = {"input_ids": inputs, "decoder_input_ids": shifted, "labels": labels}
        if not mask.all():
            batch["attention_mask"] = mask.astype(np.int64)
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    def _permuted(self, ids: np.ndarray, pieces: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """The sentences of each piece in a random order; what stands before the first start is one of them."""
        columns = np.arange(ids.shape[1])
        places = self.begins[pieces][:, None] + columns
        # [pieces, width] number of the sentence in the whole array, then in the piece
        number = np.searchsorted(self._starts, places, side="right")  # type: ignore[call-overload]  # not None here
        number -= number[:, :1]
        scores = np.take_along_axis(draws(keys, ids.shape[1], _SENTENCES), number, axis=1)
        scores[columns >= self.lengths[pieces][:, None]] = _LAST
        return np.take_along_axis(ids, np.argsort(scores, axis=1, kind="stable"), axis=1)


def corrupt_spans(
    ids: np.ndarray, lengths: np.ndarray, keys: np.ndarray, denoising: Denoising, sentinels: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """T5's span corruption.

    Args:
        ids: int64 [rows, T]; lengths: int64 [rows], how many of each row are text, at least 2.
        keys: uint64 [rows], see `hashing.row_keys`.
        sentinels: their ids; as many as any row has spans.

    Returns:
        source, target: (ids, which of them count), [rows, width] each. A text begins with a token that is kept and ends
        with one that is taken away.
    """
    rows, T = ids.shape
    taken, spans = denoising.taken(lengths), denoising.spans(lengths)
    runs = np.zeros((rows, 2 * int(spans.max())), np.int64)  # kept, taken, kept, taken, ...
    runs[:, 0::2] = _composition(keys, lengths - taken, spans, _PLAIN_CUTS)
    runs[:, 1::2] = _composition(keys, taken, spans, _NOISE_CUTS)
    begins = np.zeros((rows, T + 1), np.int64)
    np.put_along_axis(begins, np.cumsum(runs, axis=1), 1, axis=1)
    run = np.cumsum(begins[:, :T], axis=1)
    text = np.arange(T) < lengths[:, None]
    noise = (run % 2 == 1) & text
    first = noise.copy()
    first[:, 1:] &= ~noise[:, :-1]
    sentinel = sentinels[np.minimum(run // 2, len(sentinels) - 1)]
    source = np.where(first, sentinel, ids), text & (first | ~noise)
    # Each place twice: the sentinel before it, if it begins a span, and itself.
    target = np.stack([sentinel, ids], axis=2).reshape(rows, 2 * T)
    return source, (target, np.stack([first, noise], axis=2).reshape(rows, 2 * T))


def _composition(keys: np.ndarray, items: np.ndarray, parts: np.ndarray, stream: int) -> np.ndarray:
    """items[r] as an ordered sum of parts[r] positive numbers, all such sums equally likely: int64 [rows, most parts],
    0 beyond a row's own parts."""
    rows, width = len(items), int(items.max())
    gaps = np.zeros((rows, width), bool)  # gap c: a new part begins with item c
    if width > 1:
        scores = draws(keys, width - 1, stream)
        scores[np.arange(width - 1) >= (items - 1)[:, None]] = _LAST
        gaps[:, 1:] = _lowest(scores, parts - 1)
    part = np.cumsum(gaps, axis=1)
    row, item = np.nonzero(np.arange(width) < items[:, None])
    most = int(parts.max())
    return np.bincount(row * most + part[row, item], minlength=rows * most).reshape(rows, most)


def _lowest(scores: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Where the count[r] lowest scores of each row are, bool."""
    order = np.argsort(scores, axis=1)
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, order, np.arange(scores.shape[1]) < count[:, None], axis=1)
    return chosen


def infill(
    ids: np.ndarray, lengths: np.ndarray, keys: np.ndarray, denoising: Denoising, mask_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """BART's text infilling; arguments as in `corrupt_spans`.

    Returns:
        (ids, which of them count), [rows, width]: never longer than the text was.
    """
    taken = denoising.taken(lengths)
    # So many draws come to the number in all but one of 10^12 rows; in that one the last span is longer.
    most = int(taken.max())
    enough = math.ceil((most + 8 * math.sqrt(most) + 30) / denoising.mean_span)
    drawn = _poisson(draws(keys, enough, _LENGTHS), denoising.mean_span)
    drawn[:, -1] = most
    before = np.cumsum(drawn, axis=1) - drawn
    sizes = np.minimum(drawn, np.maximum(taken[:, None] - before, 0))
    wanted = before < taken[:, None]
    empty = wanted & (drawn == 0)
    room = taken - (sizes > 0).sum(axis=1)
    masks = wanted & (~empty | (np.cumsum(empty, axis=1) <= room[:, None]))
    kept, count = lengths - taken, masks.sum(axis=1)
    # [rows, most masks + 1] tokens taken away by the first masks of each row
    gone = np.zeros((len(ids), int(count.max()) + 1), np.int64)
    row, _ = np.nonzero(masks)
    place = np.cumsum(masks, axis=1)[masks]
    gone[row, place] = sizes[masks]
    gone = np.cumsum(gone, axis=1)

    width = int((kept + count).max())
    used = np.arange(width) < (kept + count)[:, None]
    scores = np.where(used, draws(keys, width, _PLACES), _LAST)
    is_mask = _lowest(scores, count)
    passed = np.cumsum(is_mask, axis=1)
    column = np.cumsum(~is_mask, axis=1) - 1 + np.take_along_axis(gone, passed, axis=1)
    column = np.clip(column, 0, ids.shape[1] - 1)
    return np.where(is_mask, mask_id, np.take_along_axis(ids, column, axis=1)), used


def _poisson(numbers: np.ndarray, mean: float) -> np.ndarray:
    """Draws as Poisson numbers, int64, by the inverse of the distribution."""
    longest = int(mean + 12 * math.sqrt(mean) + 12)
    k = np.arange(longest)
    logs = k * math.log(mean) - mean - np.array([math.lgamma(i + 1) for i in k])
    return np.searchsorted(np.cumsum(np.exp(logs)), numbers / 2.0**64, side="right").astype(np.int64)


def _rows(values: np.ndarray, counted: np.ndarray, end_id: int, filler: int) -> tuple[np.ndarray, np.ndarray]:
    """The values that count, closed up, with an end token: int64 [rows, longest + 1], and where they are."""
    counts = counted.sum(axis=1)
    columns = np.arange(int(counts.max()) + 1)
    rows = np.full((len(values), len(columns)), filler, np.int64)
    rows[columns < counts[:, None]] = values[counted]
    rows[np.arange(len(values)), counts] = end_id
    return rows, columns <= counts[:, None]


class DenoisingPlan(PairPlan):
    """All micro-batches of a denoising run: a `PairPlan` over pieces of text, damaged anew in each epoch.

    Args:
        array, vocabulary, denoising, row_length: see `NoisyTexts`.
        tokens_per_update, epochs, micro_batches, seed, shuffled: see `PairPlan`; the seed is that of the noise, too.
    """

    def __init__(
        self,
        array: TokenArray,
        vocabulary: DenoisingVocabulary,
        *,
        row_length: int,
        tokens_per_update: int,
        denoising: Denoising | None = None,
        epochs: float = 1,
        micro_batches: int = 1,
        seed: int = 0,
        shuffled: bool = True,
    ):
        denoising = Denoising() if denoising is None else denoising
        texts = NoisyTexts(array, vocabulary, denoising, row_length=row_length, seed=seed)
        super().__init__(
            texts,  # type: ignore[arg-type]  # has what a plan without packed rows asks of a `PairArray`
            tokens_per_update=tokens_per_update,
            epochs=epochs,
            micro_batches=micro_batches,
            seed=seed,
            shuffled=shuffled,
        )

    @classmethod
    def evaluation(  # type: ignore[override]  # of one array and its noise, not of pairs
        cls,
        array: TokenArray,
        vocabulary: DenoisingVocabulary,
        *,
        row_length: int,
        denoising: Denoising | None = None,
        tokens_per_batch: int = 4096,
        processes: int = 1,
    ) -> DenoisingPlan:
        """All pieces once, always damaged in the same way, in the same batches."""
        return cls(
            array,
            vocabulary,
            row_length=row_length,
            denoising=denoising,
            tokens_per_update=tokens_per_batch * processes,
            micro_batches=processes,
            seed=EVALUATION_SEED,
            shuffled=False,
        )

    def _batch(self, phase: Phase, update: int, epochs: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        return self.pairs.batch(rows, epochs)  # type: ignore[call-arg]  # of `NoisyTexts`
