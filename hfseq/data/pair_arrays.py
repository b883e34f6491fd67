"""Tokens of text pairs: two token arrays, document i of the one belonging to document i of the other.

Training pairs that are too long or whose lengths do not go together (`PairFilter`) are passed over when the arrays are
opened, not when they are built: one cache serves all settings. Held-out pairs are never dropped, as a score would then
be another one; `PairArray.check_positions` refuses those that a model has no positions for.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..models.losses import IGNORE_INDEX
from .array_building import build_token_arrays
from .fingerprints import fingerprint_of, hash_of
from .ragged import copy_texts
from .splits import Sides
from .token_arrays import TokenArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from .pair_corpora import PairCorpus


@dataclass
class PairArray:
    """One side (train, validation, test) of a pair corpus."""

    source: TokenArray
    target: TokenArray
    start_id: int
    """Stands before every target."""
    pad_id: int
    chosen: np.ndarray | None = field(default=None, repr=False)
    """int64 [pairs]: the documents that pairs are made of, where a filter dropped some; None: all."""
    report: FilterReport | None = None
    """What the filter did, where there was one."""

    def __post_init__(self) -> None:
        if self.source.n_documents != self.target.n_documents:
            raise ValueError(
                f"{self.source.path} has {self.source.n_documents} documents, {self.target.path} has "
                f"{self.target.n_documents}: they are not of the same pairs. Build both with build_pair_arrays."
            )

    @property
    def fingerprint(self) -> str:
        """Of both texts and tokenizers, and of the pairs that were chosen."""
        chosen = None if self.chosen is None else [len(self.chosen), hash_of(self.chosen.tobytes())]
        return fingerprint_of([self.source.fingerprint, self.target.fingerprint, chosen])

    def __len__(self) -> int:
        return self.source.n_documents if self.chosen is None else len(self.chosen)

    @cached_property
    def source_lengths(self) -> np.ndarray:
        """int64 [pairs], end tokens included; target_lengths likewise."""
        lengths = np.diff(self.source.offsets)
        return lengths if self.chosen is None else lengths[self.chosen]

    @cached_property
    def target_lengths(self) -> np.ndarray:
        lengths = np.diff(self.target.offsets)
        return lengths if self.chosen is None else lengths[self.chosen]

    def documents(self, pairs: np.ndarray) -> np.ndarray:
        """Where these pairs are in both token arrays."""
        return pairs if self.chosen is None else self.chosen[pairs]

    def check_positions(self, positions: int, side: str) -> None:
        """Refuses pairs that are longer than a model's positions.

        Args:
            side: train, validation or test, for the message.

        Raises:
            ValueError: names the pair, its length and the remedy.
        """
        for name, lengths in (("source", self.source_lengths), ("target", self.target_lengths)):
            too_long = lengths > positions
            if too_long.any():
                pair = int(lengths.argmax())
                remedy = (
                    f"or drop such pairs: max_{name}_length {positions}"
                    if side == "train"
                    else "or split that text into sentences: held-out pairs are never dropped"
                )
                raise ValueError(
                    f"The {name} of {side} pair {int(self.documents(np.array([pair]))[0])} (from 0) has "
                    f"{lengths[pair]} tokens, the longest of {int(too_long.sum())} with more than "
                    f"max_position_embeddings {positions}. Raise that, {remedy}."
                )

    def batch(self, pairs: np.ndarray) -> dict[str, torch.Tensor]:
        """The pairs with these numbers as a batch, see `PairPlan.__getitem__`."""
        documents = self.documents(pairs)
        sources, mask = self._rows(self.source, documents, self.pad_id)
        labels, _ = self._rows(self.target, documents, IGNORE_INDEX)
        starts = np.full((len(pairs), 1), self.start_id)
        shifted = np.concatenate(
            [starts, np.where(labels == IGNORE_INDEX, self.pad_id, labels)[:, :-1]], axis=1
        )
        batch = {"input_ids": sources, "decoder_input_ids": shifted, "labels": labels}
        if not mask.all():
            batch["attention_mask"] = mask.astype(np.int64)
        return {name: torch.from_numpy(value) for name, value in batch.items()}

    @staticmethod
    def _rows(array: TokenArray, documents: np.ndarray, filler: int) -> tuple[np.ndarray, np.ndarray]:
        """Documents with their end tokens [rows, longest], and where they are."""
        begins = array.offsets[documents]
        lengths = array.offsets[documents + 1] - begins
        width = int(lengths.max())
        rows = np.full(len(documents) * width, filler, np.int64)
        copy_texts(rows, np.arange(len(documents)) * width, array.tokens, begins, lengths)
        return rows.reshape(len(documents), width), np.arange(width) < lengths[:, None]


@dataclass(frozen=True)
class PairFilter:
    """Which training pairs are dropped; None: no such limit.

    Raises:
        ValueError: limits that no pair meets.
    """

    max_source_length: int | None = None
    """Tokens, the end token included: positions of the model."""
    max_target_length: int | None = None
    """Likewise."""
    max_length_ratio: float | None = None
    """Tokens of the longer text by those of the shorter, end tokens aside: 1.5 for clean European text, 3 or more to be
    rid of misaligned lines only. A text of no token at all is dropped with any ratio."""

    def __post_init__(self) -> None:
        for name in ("max_source_length", "max_target_length"):
            value = getattr(self, name)
            if value is not None and value < 2:
                raise ValueError(f"{name} is {value}: at least 2, a token and its end token.")
        if self.max_length_ratio is not None and self.max_length_ratio < 1:
            raise ValueError(
                f"max_length_ratio is {self.max_length_ratio}, but the longer text by the shorter is never below 1."
            )

    def apply(self, pairs: PairArray) -> PairArray:
        """The pairs that meet all limits, in the order they had, with a report.

        Raises:
            ValueError: none is left.
        """
        sources, targets = pairs.source_lengths, pairs.target_lengths
        dropped = np.zeros(len(pairs), bool)
        counts = {}
        shorter = np.maximum(np.minimum(sources, targets) - 1, 0.5)
        for name, limit, values in (
            ("source_too_long", self.max_source_length, sources),
            ("target_too_long", self.max_target_length, targets),
            ("lengths_apart", self.max_length_ratio, (np.maximum(sources, targets) - 1) / shorter),
        ):
            beyond = np.zeros(len(pairs), bool) if limit is None else ~dropped & (values > limit)
            if limit is not None and name == "lengths_apart":
                beyond |= ~dropped & (np.minimum(sources, targets) < 2)
            counts[name] = int(beyond.sum())
            dropped |= beyond
        report = FilterReport(pairs=len(pairs), kept=int((~dropped).sum()), **counts)
        if not report.kept:
            raise ValueError(
                f"{report}: nothing is left to train on. Raise max_source_length, max_target_length or "
                "max_length_ratio."
            )
        kept = np.flatnonzero(~dropped)
        return replace(pairs, chosen=pairs.documents(kept), report=report)


@dataclass(frozen=True)
class FilterReport:
    """How many training pairs were dropped, each for the first reason that applies."""

    pairs: int
    """Before."""
    kept: int
    source_too_long: int
    target_too_long: int
    lengths_apart: int
    """Pairs beyond max_length_ratio."""

    def __str__(self) -> str:
        reasons = {
            "source too long": self.source_too_long,
            "target too long": self.target_too_long,
            "lengths too far apart": self.lengths_apart,
        }
        why = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        return f"Dropped {self.pairs - self.kept:,} of {self.pairs:,} training pairs" + (
            f": {why}" if why else ""
        )


def build_pair_arrays(
    corpus: PairCorpus,
    source_tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast | None = None,
    cache_dir: str | os.PathLike | None = None,
    *,
    filters: PairFilter | None = None,
    processes: int | None = None,
    verify: bool = False,
    parse_special_tokens: bool = False,
) -> dict[str, PairArray]:
    """The pair arrays of a corpus, built unless the cache has them; see `build_token_arrays`.

    Args:
        target_tokenizer: where it is not the source's.
        filters: for the training side; its `report` says what was dropped.
        processes, verify, parse_special_tokens: see `build_token_arrays`.

    Returns:
        train, and validation and test where the corpus has them.
    """
    target_tokenizer = source_tokenizer if target_tokenizer is None else target_tokenizer
    options: dict[str, Any] = {
        "processes": processes,
        "verify": verify,
        "parse_special_tokens": parse_special_tokens,
    }
    sources = build_token_arrays(corpus.sources, source_tokenizer, cache_dir, **options)
    targets = build_token_arrays(corpus.targets, target_tokenizer, cache_dir, **options)
    ids = target_tokenizer.bos_token_id, source_tokenizer.pad_token_id
    arrays = Sides({side: PairArray(sources[side], targets[side], *ids) for side in sources})
    if filters is not None:
        arrays["train"] = filters.apply(arrays["train"])
    return arrays
