"""From rows to batches; what can be wrong with a batch is said here, on the CPU, where it costs no GPU its pace.

Rows arrive as views of one gathered matrix (`StreamPlan.__getitems__`), so a batch is a few tensor operations:
`DataCollatorForLanguageModeling` goes through Python lists and `tokenizer.pad`.
"""

from __future__ import annotations

from typing import Any

import torch

IGNORE_INDEX = -100


class StreamCollator:
    """Stacks rows of one segment: input_ids, labels, shift_labels int64 [batch, time], stream_id int64 [batch],
    starts_anew bool [batch].

    Raises:
        ValueError: rows of different segments, which a batch size that does not divide the number of streams gives.
    """

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        streams = [row["stream_id"] for row in rows]
        if len(set(streams)) < len(streams) or len({len(row["input_ids"]) for row in rows}) > 1:
            raise ValueError(
                f"A batch of {len(rows)} rows mixes segments (stream ids {streams}). Choose streams = "
                "per_device_train_batch_size x gradient_accumulation_steps x processes, and sample sequentially."
            )
        labels = torch.stack([row["shift_labels"] for row in rows])
        return {
            "input_ids": torch.stack([row["input_ids"] for row in rows]),
            "labels": labels,
            "shift_labels": labels,
            "stream_id": torch.tensor(streams),
            "starts_anew": torch.tensor([row["starts_anew"] for row in rows]),
        }


class WholeBatchCollator:
    """Unwraps items that are whole batches (`BucketPlan`), read one at a time (per_device_train_batch_size=1)."""

    def __call__(self, items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        if len(items) != 1:
            raise ValueError(
                f"{len(items)} batches at once: the items of this plan are whole batches, so set the batch size per "
                "device to 1. How many rows they have is the plan's business."
            )
        return items[0]
