"""On which side a model's rows are padded: on the one where padding changes nothing.

Tokenizers of language models pad on the left, where generation wants it; a model with absolute positions (GPT-2) then
counts the padding, one that reads the first column (BERT's classifier) reads it, and the output of a text depends on
its batch-mates. Others (XLNet reads the last column) are wrong on the right. So nobody's name is asked: a short row is
put through the model alone and beside a long one, padded as the tokenizer says, and if its output differs, the other
side is tried. The tokenizer is saved with the side that was found, so that a pipeline pads the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from .base import Row, Task

logger = logging.getLogger(__name__)

# Of the largest output; float32 differs by some 1e-6 between batches, wrong positions by more than 1e-2.
TOLERANCE = 1e-3
LONGEST = 256


def own_columns(task: Task, row: Row, output: torch.Tensor, side: str) -> torch.Tensor:
    """A row's part of what `Task.keep` left of it: per column without padding."""
    if not task.per_column:
        return output
    length = len(row["input_ids"])
    return output[len(output) - length :] if side == "left" else output[:length]


def settle_padding(model: PreTrainedModel, tokenizer: Any, task: Task, rows: Sequence[Row]) -> str:
    """Sets `tokenizer.padding_side` to a side on which padding changes nothing, and returns it.

    Args:
        rows: those of the training side, with the model's inputs alone.
    """
    rows = [row for row in rows if _length(row) <= LONGEST] or rows[:1]
    short, long = min(rows, key=_length), max(rows, key=_length)
    own = tokenizer.padding_side
    if _length(short) == _length(long):
        return own
    was_training = model.training
    model.eval()
    try:
        for side in (own, "left" if own == "right" else "right"):
            tokenizer.padding_side = side
            alone = _logits(model, tokenizer, task, [short])[0]
            beside = own_columns(task, short, _logits(model, tokenizer, task, [short, long])[0], side)
            if (alone - beside).abs().max() <= TOLERANCE * alone.abs().max():
                if side != own:
                    logger.warning(
                        "Padding on the %s changes what this model says: padding on the %s.", own, side
                    )
                return side
    finally:
        model.train(was_training)
    logger.warning(
        "What %s says of a text depends on the texts beside it, wherever they are padded: expect scores that change "
        "with the batch size.",
        type(model).__name__,
    )
    tokenizer.padding_side = own
    return own


def _length(row: Row) -> int:
    ids = row["input_ids"]
    return max(map(len, ids)) if isinstance(ids[0], list) else len(ids)


@torch.no_grad()
def _logits(model: PreTrainedModel, tokenizer: Any, task: Task, rows: list[Row]) -> torch.Tensor:
    """The first of the model's outputs: logits as they are, for a new head's probabilities hardly differ."""
    batch = task.collator(tokenizer)(rows)
    names = ("labels", "start_positions", "end_positions")
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name not in names}
    return model(**inputs).to_tuple()[0].float()


__all__ = ["own_columns", "settle_padding"]
