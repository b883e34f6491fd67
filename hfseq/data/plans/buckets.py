"""Padded batches of single documents, each with neighbours of its own length.

For what is not a stream: every row begins and ends with its document. Rows are sorted by length and cut into updates of
at most `tokens_per_update` padded positions (`cuts.ByLength`), so that little is padding and every update costs about
the same.
"""

from __future__ import annotations

import numpy as np
import torch

from ...models.losses import IGNORE_INDEX
from ..token_arrays import TokenArray
from .base import BatchPlan, Phase, check_whole
from .cuts import ByLength, deck
from .rows import split_long


class BucketPlan(BatchPlan[Phase]):
    """All micro-batches of a run; see the module.

    A row predicts a document and its end token from the end token before it, so that every token of the array but
    the first is a target exactly once per epoch. Documents longer than `max_length` go on in further rows.

    Args:
        array: see `TokenArray`.
        tokens_per_update: at most so many positions, rows x the longest row, in an update of all processes and
            accumulation steps together.
        max_length: longest row; None: the longest document.
        epochs: passes over the array; need not be whole.
        micro_batches: processes x accumulation steps.
        pad_id: input id of padding positions; these are masked.
        seed: of the order.
        shuffled: False: batches in order of length, always the same.

    Attributes:
        updates_per_epoch: the same in every epoch.
        n_targets: targets per epoch.
        longest_row: positions of the longest row.

    Raises:
        ValueError: numbers that make no sense, or tokens_per_update below the longest row.
    """

    def __init__(
        self,
        array: TokenArray,
        *,
        tokens_per_update: int,
        max_length: int | None = None,
        epochs: float = 1,
        micro_batches: int = 1,
        pad_id: int = 0,
        seed: int = 0,
        shuffled: bool = True,
    ):
        super().__init__(epochs, micro_batches, seed)
        check_whole("tokens_per_update", tokens_per_update, 1)
        documents = np.diff(array.offsets)
        if not len(documents):
            raise ValueError(f"{array.path} has no documents: give text.")
        if max_length is None:
            max_length = int(documents.max())
        check_whole("max_length", max_length, 1)
        self.array, self.pad_id, self.tokens_per_update = array, pad_id, tokens_per_update
        # Row r is tokens[begin - 1 : begin - 1 + length] with targets one further on.
        self._begins, self._lengths = split_long(array.offsets[:-1], documents, max_length)
        self.n_targets, self.longest_row = int(self._lengths.sum()), int(self._lengths.max())
        if self.longest_row > tokens_per_update:
            raise ValueError(
                f"The longest text has {self.longest_row} tokens, more than an update of tokens_per_update "
                f"{tokens_per_update} has room for. Raise it, or remove or cut long texts."
            )
        cut = ByLength(
            self._lengths,
            np.zeros_like(self._lengths),
            tokens=tokens_per_update,
            epochs=epochs,
            seed=seed if shuffled else None,
            ties=deck,
        )
        self.updates_per_epoch = cut.updates_per_epoch
        self._run([Phase(cut, self._lengths)])

    def _batch(
        self, phase: Phase, update: int, epochs: np.ndarray, rows: np.ndarray
    ) -> dict[str, torch.Tensor | int]:
        """A micro-batch: input_ids, attention_mask, labels, shift_labels (the same as labels), int64 [rows, longest
        row], padded on the right; labels are the next tokens, -100 on padding."""
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
