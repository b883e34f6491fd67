"""Padded batches of single documents, each with neighbours of its own length, as one dataset over a whole run.

For what is not a stream: every row begins and ends with its document. Rows are sorted by length and cut into batches
of at most `batch_tokens` padded positions, so that little is padding and every batch costs about the same; the order
of batches, and which of equally long rows meet, is drawn anew in each epoch from (seed, epoch).

An item of the dataset is a whole batch (`WholeBatchCollator`, per_device_train_batch_size=1, sequential sampling).
The plan's length is padded to a multiple of processes x accumulation with batches that have no label at all: no batch
is repeated or dropped, and no process waits for another. Item i is a pure function of (seed, i).
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from ...models.losses import IGNORE_INDEX
from ..token_arrays import TokenArray


class BucketPlan(Dataset):
    """All batches of all epochs; see the module.

    A row predicts a document and its end token from the end token before it, so that every token of the array but
    the first is a target exactly once per epoch. Documents longer than `max_length` go on in further rows.

    Args:
        array: see `TokenArray`.
        batch_tokens: padded positions per batch, rows x longest row.
        max_length: longest row.
        epochs: passes over the array.
        multiple_of: processes x accumulation steps.
        pad_id: input id of padding positions; these are masked.
        seed: of the order.

    Attributes:
        batches_per_epoch: the same in every epoch.
        n_targets: targets per epoch.

    Raises:
        ValueError: sizes below 1, or batch_tokens below max_length.
    """

    def __init__(
        self,
        array: TokenArray,
        *,
        batch_tokens: int,
        max_length: int,
        epochs: int = 1,
        multiple_of: int = 1,
        pad_id: int = 0,
        seed: int = 0,
    ):
        for name, value in (("max_length", max_length), ("epochs", epochs), ("multiple_of", multiple_of)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        if batch_tokens < max_length:
            raise ValueError(
                f"batch_tokens {batch_tokens} has no room for a row of max_length {max_length}. Raise the one or lower "
                "the other."
            )
        self.array, self.pad_id, self.seed = array, pad_id, seed
        # Row r is tokens[begin - 1 : begin - 1 + length] with targets one further on.
        lengths = np.diff(array.offsets)
        pieces = -(-lengths // max_length)
        first = np.repeat(np.cumsum(pieces) - pieces, pieces)
        shift = (np.arange(pieces.sum()) - first) * max_length
        self._begins = np.repeat(array.offsets[:-1], pieces) + shift
        self._lengths = np.minimum(np.repeat(lengths, pieces) - shift, max_length)
        self.n_targets = int(self._lengths.sum())

        # Batches take rows by ascending length, so their sizes are the same whatever the order of equal lengths.
        ascending = np.sort(self._lengths)
        borders, begin = [0], 0
        for row, length in enumerate(ascending.tolist()):
            if length * (row + 1 - begin) > batch_tokens:
                borders.append(row)
                begin = row
        borders.append(len(ascending))
        self._borders = np.array(borders)
        self.batches_per_epoch = len(borders) - 1
        self._n_batches = self.batches_per_epoch * epochs
        self._length = -(-self._n_batches // multiple_of) * multiple_of
        self._order: tuple[int, np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return self._length

    def epoch_at(self, batch: int) -> float:
        """Epochs done after that many batches."""
        return min(batch, self._n_batches) / self.batches_per_epoch

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A batch: input_ids, attention_mask, labels, shift_labels (the same as labels), int64 [rows, longest row],
        padded on the right; labels are the next tokens, -100 on padding."""
        if not 0 <= index < self._length:
            raise IndexError(f"Index {index} is outside this plan of {self._length} batches.")
        if index >= self._n_batches:
            empty = torch.full((1, 1), IGNORE_INDEX)
            ids = torch.full((1, 1), self.array.end_id)
            return {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "labels": empty,
                "shift_labels": empty,
            }
        rows = self._rows_of(index)
        lengths = self._lengths[rows]
        columns = np.arange(lengths.max() + 1)
        positions = np.minimum(self._begins[rows, None] - 1 + columns, len(self.array) - 1)
        window = torch.from_numpy(self.array.tokens[positions].astype(np.int64))
        mask = torch.from_numpy(columns[:-1] < lengths[:, None])
        labels = window[:, 1:].masked_fill(~mask, IGNORE_INDEX)
        return {
            "input_ids": window[:, :-1].masked_fill(~mask, self.pad_id),
            "attention_mask": mask.long(),
            "labels": labels,
            "shift_labels": labels,
        }

    def _rows_of(self, index: int) -> np.ndarray:
        """Rows of a batch."""
        rows, batches = self._order_of(index // self.batches_per_epoch)
        batch = batches[index % self.batches_per_epoch]
        return rows[self._borders[batch] : self._borders[batch + 1]]

    def _order_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(rows by ascending length, order of batches) of an epoch; the last one asked for is kept."""
        if self._order is None or self._order[0] != epoch:
            generator = np.random.default_rng([self.seed, epoch])
            shuffled = generator.permutation(len(self._lengths))
            rows = shuffled[np.argsort(self._lengths[shuffled], kind="stable")]
            self._order = (epoch, rows, generator.permutation(self.batches_per_epoch))
        return self._order[1:]
