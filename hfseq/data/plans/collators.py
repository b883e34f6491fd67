"""From rows to batches; what can be wrong with a batch is said here, on the CPU, where it costs no GPU its pace.

The rows of a `StreamPlan` are gathered as one matrix, and its collator hands that matrix on: making row tensors and
stacking them again takes three times as long (32 rows of 64, data loader included), `DataCollatorForLanguageModeling`
(Python lists and `tokenizer.pad`) fifteen times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch


class BatchRow(Mapping):
    """A row of a batch, to be read like a dictionary; its tensors are cut out of the batch's when asked for.

    Not a `dict`, because Trainer rebuilds those (to drop what `forward` does not take).
    """

    __slots__ = ("batch", "position")

    def __init__(self, batch: dict[str, torch.Tensor], position: int):
        self.batch, self.position = batch, position

    def __getitem__(self, key: str) -> torch.Tensor | float:
        value = self.batch[key][self.position]
        return value if value.ndim else value.item()

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch)

    def __len__(self) -> int:
        return len(self.batch)


class StreamCollator:
    """Rows of one segment as a batch: input_ids, labels, shift_labels int64 [batch, time], stream_id int64 [batch],
    starts_anew bool [batch].

    Raises:
        ValueError: rows of different segments, which a batch size that does not divide the number of streams gives.
    """

    def __call__(self, rows: list[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        batch: Any = getattr(rows[0], "batch", None)
        whole = batch is not None and len(rows) == len(batch["stream_id"])
        whole = whole and all(
            isinstance(row, BatchRow) and row.batch is batch and row.position == i
            for i, row in enumerate(rows)
        )
        streams = batch["stream_id"].tolist() if whole else [row["stream_id"] for row in rows]
        if len(set(streams)) < len(streams) or (
            not whole and len({len(row["input_ids"]) for row in rows}) > 1
        ):
            raise ValueError(
                f"A batch of {len(rows)} rows mixes segments (stream ids {streams}). Choose streams = "
                "per_device_train_batch_size x gradient_accumulation_steps x processes, and sample sequentially."
            )
        if whole:
            return dict(batch)
        labels = torch.stack([row["shift_labels"] for row in rows])
        return {
            "input_ids": torch.stack([row["input_ids"] for row in rows]),
            "labels": labels,
            "shift_labels": labels,
            "stream_id": torch.tensor(streams),
            "starts_anew": torch.tensor([row["starts_anew"] for row in rows]),
        }


class WholeBatchCollator:
    """Unwraps items that are whole batches (`BucketPlan`, `MaskedPlan`), read one at a time (per_device_*_batch_size
    = 1)."""

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        if len(items) != 1:
            raise ValueError(
                f"{len(items)} batches at once: the items of this plan are whole batches, so set the batch size per "
                "device to 1. How many rows they have is the plan's business."
            )
        return items[0]
