"""Next-token training on rows of one length, for any causal model: what carries no state from row to row.

| packing | a row | targets |
|---|---|---|
| blocks | T tokens of the text as it runs on, over the ends of documents | T - 1; the next row begins with the last |
| documents | several whole documents, each from the end token before it | all but the first token of each |

A causal model of transformers shifts by itself: it scores position t against label t + 1, so **labels are the input
ids**, and a row of T tokens has T - 1 targets. Every token of the array but its first is a target exactly once: rows of
blocks overlap by one token, and so do the pieces of a document that is longer than a row. The first label of each row,
and of each document, is -100: it is nobody's target (in packed rows it would be that of the document before), and
Trainer counts right whether or not it knows that the model shifts.

Documents do not see each other where a model heeds position_ids (restarting) or cu_seq_lens (FlashAttention's
borders); not every architecture does, and those of transformers only with `use_cache=False`. Packing is that of masked
rows, best-fit decreasing (`rows.py`).

Each epoch has all rows once, in an order of its own; the last update of the run is filled up with rows that have no
label. What fills up is the array's end token, so that no padding id is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ...models.losses import IGNORE_INDEX
from ..ragged import copy_texts
from ..token_arrays import TokenArray
from .base import BatchPlan, Phase, check_whole, room_for_rows, rows_per_update
from .cuts import RowsInOrder, ShuffledRows
from .rows import pack, packed_borders, places_of, split_long, texts_of

PACKINGS = ("blocks", "documents")


@dataclass
class _Texts:
    """What rows hold: text i is tokens[begins[i] : begins[i] + lengths[i]], row r has texts row_starts[r] to
    row_starts[r + 1] - 1."""

    begins: np.ndarray = field(repr=False)
    lengths: np.ndarray = field(repr=False)
    row_starts: np.ndarray = field(repr=False)


class RowPlan(BatchPlan[Phase]):
    """All micro-batches of a run; see the module.

    Args:
        array: see `TokenArray`.
        row_length: T.
        tokens_per_update: of all processes and accumulation steps together, padding included; a multiple of
            row_length x micro_batches.
        epochs: passes over the array; need not be whole.
        micro_batches: processes x accumulation steps.
        packing: blocks or documents; see the module.
        seed: of the order.
        shuffled: False: the rows once, in order, as `evaluation` reads them.

    Attributes:
        n_targets: targets per epoch: all tokens but the first.
        rows_per_epoch: rows of an epoch.
        fullness: share of positions that are not padding.
        longest_row: T; a model needs as many positions.

    Raises:
        ValueError: sizes that do not fit each other, no text.
    """

    def __init__(
        self,
        array: TokenArray,
        *,
        row_length: int,
        tokens_per_update: int,
        epochs: float = 1,
        micro_batches: int = 1,
        packing: str = "blocks",
        seed: int = 0,
        shuffled: bool = True,
    ):
        super().__init__(epochs, micro_batches, seed)
        check_whole("row_length", row_length, 2, ": a token and the next one")
        if packing not in PACKINGS:
            raise ValueError(f"Unknown packing {packing!r} of rows: choose {' or '.join(PACKINGS)}.")
        per_update = rows_per_update(tokens_per_update, row_length, micro_batches)
        self.array, self.packing, self.tokens_per_update = array, packing, tokens_per_update
        self.longest_row, self.n_targets = row_length, len(array) - 1
        if self.n_targets < 1:
            raise ValueError(f"{array.path} has {len(array)} tokens: nothing to predict. Give text.")
        self._texts = _blocks(array, row_length) if packing == "blocks" else _documents(array, row_length)
        starts = self._texts.row_starts
        self.rows_per_epoch = len(starts) - 1
        filled = np.add.reduceat(self._texts.lengths, starts[:-1])
        self.fullness = float(filled.sum() / (self.rows_per_epoch * row_length))
        if shuffled:
            cut = ShuffledRows(self.rows_per_epoch, per_update, epochs=epochs, seed=(seed, row_length))
        else:
            cut = RowsInOrder(self.rows_per_epoch, per_update // micro_batches, micro_batches)
        self._most_texts = 0
        if packing == "documents":
            self._most_texts = cut.most(np.diff(starts) + (filled < row_length), 1, micro_batches)
        self._run([Phase(cut, filled)])

    @classmethod
    def evaluation(
        cls,
        array: TokenArray,
        *,
        row_length: int,
        tokens_per_batch: int,
        processes: int = 1,
        packing: str = "blocks",
    ) -> RowPlan:
        """The text once, in order. The number of batches is a multiple of the processes, and all have equally many rows
        up to one (which is padding).

        Args:
            tokens_per_batch: at most that many positions in a batch.
        """
        return cls(
            array,
            row_length=row_length,
            tokens_per_update=room_for_rows(tokens_per_batch, row_length) * row_length * processes,
            micro_batches=processes,
            packing=packing,
            shuffled=False,
        )

    def _batch(
        self, phase: Phase, update: int, epochs: np.ndarray, rows: np.ndarray
    ) -> dict[str, torch.Tensor | int]:
        """A micro-batch.

        Returns:
            input_ids, labels int64 [rows, T] (the same ids; -100 for the first of each text, and padding); for
            documents also position_ids int64 [rows, T] (restarting with each document; the padding at a row's end is a
            text of its own), cu_seq_lens_q, cu_seq_lens_k int32 [n + 1] (where texts begin in the flattened rows, the
            total repeated at the end), max_length_q, max_length_k.
        """
        texts, T = self._texts, self.longest_row
        row, text = texts_of(texts.row_starts, rows)
        lengths = texts.lengths[text]
        places = places_of(row, lengths, T)
        ids = np.full(len(rows) * T, self.array.end_id, np.int64)
        copy_texts(ids, places, self.array.tokens, texts.begins[text], lengths)
        labels = np.full(len(rows) * T, IGNORE_INDEX, np.int64)
        copy_texts(labels, places + 1, ids, places + 1, lengths - 1)
        batch: dict[str, torch.Tensor | int] = {
            "input_ids": torch.from_numpy(ids.reshape(-1, T)),
            "labels": torch.from_numpy(labels.reshape(-1, T)),
        }
        if self.packing == "documents":
            batch |= packed_borders(row, lengths, len(rows), T, self._most_texts)
        return batch


def _blocks(array: TokenArray, row_length: int) -> _Texts:
    begins = np.arange(0, len(array) - 1, row_length - 1, dtype=np.int64)
    return _Texts(begins, np.minimum(len(array) - begins, row_length), np.arange(len(begins) + 1))


def _documents(array: TokenArray, row_length: int) -> _Texts:
    # Pieces by their targets; each begins with the token before them.
    begins, targets = split_long(array.offsets[:-1], np.diff(array.offsets), row_length - 1)
    order, starts = pack(targets + 1, row_length)
    return _Texts(begins[order] - 1, targets[order] + 1, starts)
