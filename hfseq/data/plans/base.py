"""What all batch plans are: the updates of a whole run, all its epochs, as one map-style dataset.

The stock Trainer reads it sequentially, once. Item i is part i % micro_batches of update i // micro_batches, and a pure
function of (seed, i): workers, processes and restarts cannot change what is seen, and resuming is skipping indices.

**Cut first, dealt out second.** An epoch is cut into updates (`cuts.py`) without a look at how many processes or steps
of accumulation will share them; then each update's rows are dealt out to its micro-batches. So one process, 4 steps of
accumulation and 2 processes see the same updates.

A run has one phase or several after one another (a curriculum of row lengths). A subclass says how the rows of a phase
are cut, and what a batch of given rows holds:

    class NewPlan(BatchPlan):
        def __init__(self, ..., epochs=1, micro_batches=1, seed=0):
            super().__init__(epochs, micro_batches, seed)
            self._run([Phase(cut, tokens_of_each_row)])

        def _batch(self, phase, update, epochs, rows):
            return {"input_ids": ..., "labels": ...}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from ...models.losses import IGNORE_INDEX
from .cuts import Cut


@dataclass
class Phase:
    """A part of a run."""

    cut: Cut = field(repr=False)
    tokens: np.ndarray = field(repr=False)
    """int64 [rows]: tokens of each row, for `BatchPlan.tokens_at`."""
    first_update: int = field(default=0, init=False)
    first_epoch: float = field(default=0.0, init=False)


PhaseKind = TypeVar("PhaseKind", bound=Phase)


class BatchPlan(Dataset, Generic[PhaseKind]):
    """All micro-batches of a run; see the module. Read with per_device_train_batch_size=1 and `WholeBatchCollator`.

    Args:
        epochs: passes over the rows; need not be whole.
        micro_batches: processes x accumulation steps.
        seed: of the order, and of whatever else is drawn.

    Attributes:
        epochs, micro_batches, seed: as given.
        n_updates: optimiser steps.
        longest_row: positions that a model needs; None: any model will do.

    Raises:
        ValueError: a number that makes no sense.
    """

    n_updates: int
    longest_row: int | None = None

    def __init__(self, epochs: float, micro_batches: int, seed: int):
        number = isinstance(epochs, (int, float)) and not isinstance(epochs, bool)
        if not (number and 0 < epochs < math.inf):
            raise ValueError(
                f"epochs must be above 0, not {epochs!r}: passes over the data, such as 3 or 2.5."
            )
        check_whole("micro_batches", micro_batches, 1, " (processes x gradient_accumulation_steps)")
        check_whole("seed", seed, 0)
        self.epochs, self.micro_batches, self.seed = epochs, micro_batches, seed

    def _run(self, phases: Sequence[PhaseKind]) -> None:
        """Lays the phases one after the other; the last thing that a subclass's constructor does before it looks at
        updates."""
        updates, epochs = 0, 0.0
        for phase in phases:
            phase.first_update, phase.first_epoch = updates, epochs
            updates, epochs = updates + phase.cut.n_updates, epochs + phase.cut.epochs
        self._phases, self.n_updates = list(phases), updates

    def _batch(
        self, phase: PhaseKind, update: int, epochs: np.ndarray, rows: np.ndarray
    ) -> dict[str, torch.Tensor | int]:
        """What a model takes of some rows.

        Args:
            update: counted from the beginning of the run.
            epochs, rows: int64 [n]; a row of -1 (cuts of equal rows have them) fills up and has no label.
        """
        raise NotImplementedError

    def _phase_at(self, update: int) -> PhaseKind:
        return next(phase for phase in reversed(self._phases) if update >= phase.first_update)

    def __len__(self) -> int:
        return self.n_updates * self.micro_batches

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside this plan of {len(self)} micro-batches.")
        update, part = divmod(index, self.micro_batches)
        phase = self._phase_at(update)
        epochs, rows = phase.cut.part(update - phase.first_update, part, self.micro_batches)
        if len(rows):
            return self._batch(phase, update, epochs, rows)
        # Fewer rows than parts: a process may not stand still, so it computes one that does not count.
        epochs, rows = (numbers[:1] for numbers in phase.cut.rows(update - phase.first_update))
        batch = self._batch(phase, update, epochs, rows)
        idle = torch.full_like(batch["labels"], IGNORE_INDEX)
        return {**batch, **{name: idle for name in ("labels", "shift_labels") if name in batch}}

    def tokens_at(self, update: int) -> int:
        """Tokens of that update (from 0), over all micro-batches, padding aside."""
        phase = self._phase_at(update)
        _, rows = phase.cut.rows(update - phase.first_update)
        return int(phase.tokens[rows[rows >= 0]].sum())

    def epoch_at(self, update: int) -> float:
        """Passes over the data after that many updates, e.g. 1.5 in the middle of the second."""
        if update >= self.n_updates:
            return float(self.epochs)
        phase = self._phase_at(max(update, 0))
        return phase.first_epoch + phase.cut.epochs_after(max(update - phase.first_update, 0))


def check_whole(name: str, value: object, least: int, what: str = "") -> None:
    """Raises ValueError unless value is an integer, at least `least`."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}{what}.")


def rows_per_update(tokens_per_update: int, row_length: int, micro_batches: int) -> int:
    """Rows of one length in an update.

    Raises:
        ValueError: an update is not a whole number of rows for each micro-batch.
    """
    check_whole("tokens_per_update", tokens_per_update, 1)
    step = row_length * micro_batches
    if tokens_per_update % step:
        nearest = max(1, round(tokens_per_update / step)) * step
        raise ValueError(
            f"tokens_per_update {tokens_per_update} is not a multiple of row_length {row_length} x {micro_batches} "
            f"micro-batches (processes x accumulation steps). Set it to {nearest}, or change the number of them."
        )
    return tokens_per_update // row_length


def room_for_rows(tokens_per_batch: int, row_length: int) -> int:
    """Rows of one length that an evaluation batch has room for.

    Raises:
        ValueError: none.
    """
    check_whole("tokens_per_batch", tokens_per_batch, 1)
    if tokens_per_batch < row_length:
        raise ValueError(
            f"tokens_per_batch {tokens_per_batch} has no room for a row of {row_length}. Raise it to at least that."
        )
    return tokens_per_batch // row_length
