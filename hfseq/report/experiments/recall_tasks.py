"""Two tasks of pure memory, made of random symbols: what was said long ago, and what belongs to what.

copy: `WORD` symbols, then a delay of noise, then as many questions "what was the i-th?", answered in order. What has to
be kept does not depend on the delay, only for how long (after Hochreiter and Schmidhuber 1997).

associative recall: pairs of a key and its value, then every key once more in another order; after a key its value is to
be said. The number of things to be kept grows with the distance (Arora et al. 2023, multi-query associative recall).

A batch has one difficulty, drawn anew for each, so that a model learns the short ones first; rows are the same for
every contestant, a pure function of (seed, number of the batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from ...models.losses import IGNORE_INDEX

WORD = 2
"""Symbols that are to be copied."""
SYMBOLS = 8
"""Different ones; chance is one in so many."""
NOISE = 4
COPY_VOCABULARY = SYMBOLS + NOISE + WORD


class Batch(NamedTuple):
    """Rows of one difficulty."""

    input_ids: torch.Tensor
    """int64 [rows, time]"""
    labels: torch.Tensor
    """int64 [rows, time]: what is to be said one position later, as causal models of transformers shift them."""


def copy_batch(rows: int, delay: int, generator: torch.Generator) -> Batch:
    """Rows of the copy task; time is 2 * WORD + delay + 1.

    The answer to the question at position t is the label at t + 1, whose input is the next question.
    """
    word = torch.randint(SYMBOLS, (rows, WORD), generator=generator)
    noise = SYMBOLS + torch.randint(NOISE, (rows, delay), generator=generator)
    questions = (SYMBOLS + NOISE + torch.arange(WORD)).expand(rows, -1)
    filler = torch.full((rows, 1), SYMBOLS)  # read by nobody: the last answer needs a place
    ids = torch.cat([word, noise, questions, filler], 1)
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[:, -WORD:] = word
    return Batch(ids, labels)


def recall_batch(rows: int, pairs: int, generator: torch.Generator, *, keys: int) -> Batch:
    """Rows of associative recall; time is 4 * pairs.

    Args:
        keys: different keys; at least `pairs`. Values are the symbols after them, `SYMBOLS` different ones.
    """
    key = torch.rand((rows, keys), generator=generator).argsort(1)[:, :pairs]
    value = keys + torch.randint(SYMBOLS, (rows, pairs), generator=generator)
    order = torch.rand((rows, pairs), generator=generator).argsort(1)
    asked, answer = key.gather(1, order), value.gather(1, order)
    ids = torch.cat([torch.stack([key, value], 2).flatten(1), torch.stack([asked, answer], 2).flatten(1)], 1)
    labels = torch.full_like(ids, IGNORE_INDEX)
    labels[:, 2 * pairs + 1 :: 2] = answer
    return Batch(ids, labels)


def drawn(seed: int, number: int) -> torch.Generator:
    """Of a batch's rows; a negative number is of those that models are tested on."""
    return torch.Generator().manual_seed((seed + 1) * 1_000_003 + number)


@torch.inference_mode()
def accuracy(model: torch.nn.Module, batches: Sequence[Batch]) -> float:
    """Share of answers that are right."""
    right = total = 0
    device = next(model.parameters()).device
    for ids, labels in batches:
        guessed = model(input_ids=ids.to(device)).logits[:, :-1].argmax(-1).cpu()
        wanted = labels[:, 1:]
        asked = wanted != IGNORE_INDEX
        right += int(((guessed == wanted) & asked).sum())
        total += int(asked.sum())
    return right / total


__all__ = ["COPY_VOCABULARY", "SYMBOLS", "WORD", "Batch", "accuracy", "copy_batch", "drawn", "recall_batch"]
