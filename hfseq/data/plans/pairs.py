"""Batches of pairs by a token budget, as one dataset over a whole run, each item a whole micro-batch.

An epoch has every pair exactly once. Pairs are sorted by the length of their targets, then by that of their sources in
steps of four tokens, and in random order where both agree; the sorted row is cut into updates wherever the budget is
full, and the updates are shuffled. So an update has hardly any padding, and every epoch has other neighbours. As the
sorted lengths are those of every epoch, so are the places of the cuts: all epochs have equally many updates. For a
model whose memory grows with source x target there is a second budget, of cells.

With packing="packed" pairs are packed into rows of one length instead (`pair_rows.py`), for models that keep packed
texts apart; an update is a fixed number of rows, their order another one in each epoch, and the last update of an epoch
is filled up with rows of padding. All shapes are those of the first batch.

Order and neighbours depend on (seed, epoch) alone, and an update is cut before it is dealt out: one process, 4 steps of
accumulation or 2 processes see the same updates, any number of workers and any restart too. Items are read in order,
one at a time (per_device_train_batch_size=1, `WholeBatchCollator`); item i is part i % micro_batches of update
i // micro_batches.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.utils.data import Dataset

from ...models.losses import IGNORE_INDEX
from ..pair_arrays import PairArray
from .pair_rows import pack_pairs

PACKINGS = ("batches", "packed")

# Sources are told apart by length in steps of so many tokens: finer steps leave fewer pairs to choose neighbours from.
SOURCE_STEP = 4


class PairPlan(Dataset):
    """All micro-batches of a run; see the module.

    Args:
        pairs: see `PairArray`.
        tokens_per_update: at most so many positions, rows x the longer of the longest source and the longest target,
            in an update of all processes and accumulation steps together (fairseq's max-tokens). For packed rows,
            exactly rows x row_length: a multiple of row_length x micro_batches.
        epochs: passes over the pairs; need not be whole.
        micro_batches: processes x accumulation steps.
        packing: "batches" (pairs of similar length, padded) or "packed"; see the module.
        row_length: positions of a packed row, for sources and for targets; at least the longest text.
        cells_per_update: at most so many cells, rows x the longest source x the longest target, in an update: what the
            memory of a grid (`PervasiveModel`) grows with. Sources count as the next multiple of four. None: no limit.
        seed: of the order.

    Attributes:
        n_updates: optimiser steps.
        updates_per_epoch: of each epoch.
        fullness: share of positions, of sources and targets together, that are not padding, in the first epoch.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    def __init__(
        self,
        pairs: PairArray,
        *,
        tokens_per_update: int,
        epochs: float = 1,
        micro_batches: int = 1,
        packing: str = "batches",
        row_length: int | None = None,
        cells_per_update: int | None = None,
        seed: int = 0,
    ):
        if micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1, not {micro_batches}.")
        if epochs <= 0:
            raise ValueError(f"epochs must be above 0, not {epochs}.")
        self.pairs, self.tokens_per_update, self.epochs = pairs, tokens_per_update, epochs
        self.micro_batches, self.seed, self._shuffled = micro_batches, seed, True
        self.packing, self._rows, self.cells_per_update = packing, None, cells_per_update
        if packing not in PACKINGS:
            raise ValueError(f"Unknown packing {packing!r} of pairs: choose {' or '.join(PACKINGS)}.")
        if packing == "packed":
            if cells_per_update is not None:
                raise ValueError(
                    f"Packed rows have no grid of one source and one target: leave cells_per_update {cells_per_update} "
                    "out, or set packing to batches."
                )
            self._prepare_packed(row_length)
        else:
            self._prepare()
        self.n_updates = max(1, -(-round(epochs * self.updates_per_epoch * 1000) // 1000))
        if self._rows is not None:
            self._segments = self._most_segments()

    @classmethod
    def evaluation(
        cls,
        pairs: PairArray,
        *,
        tokens_per_batch: int = 4096,
        cells_per_batch: int | None = None,
        processes: int = 1,
    ) -> PairPlan:
        """All pairs once, sorted by length, always in the same batches; their number is a multiple of the processes."""
        plan = cls.__new__(cls)
        Dataset.__init__(plan)
        plan.pairs, plan.tokens_per_update, plan.epochs = pairs, tokens_per_batch * processes, 1
        plan.micro_batches, plan.seed, plan._shuffled = processes, 0, False
        plan.packing, plan._rows = "batches", None
        plan.cells_per_update = None if cells_per_batch is None else cells_per_batch * processes
        plan._prepare()
        plan.n_updates = plan.updates_per_epoch
        return plan

    def _prepare(self) -> None:
        sources, targets = self.pairs.source_lengths, self.pairs.target_lengths
        self._steps = -(-sources // SOURCE_STEP)
        in_order = np.lexsort((self._steps, targets))
        heights, widths = targets[in_order], self._steps[in_order] * SOURCE_STEP
        costs, cells = np.maximum(heights, widths), heights.astype(np.int64) * widths
        longest, largest = int(costs.max()), int(cells.max())
        if longest > self.tokens_per_update:
            worst = int(in_order[costs.argmax()])
            raise ValueError(
                f"Pair {worst} has {sources[worst]} source and {targets[worst]} target tokens: more than an update's "
                f"{self.tokens_per_update}. Raise tokens_per_update, or drop long pairs (max_source_length, "
                "max_target_length)."
            )
        if self.cells_per_update is not None and largest > self.cells_per_update:
            worst = int(in_order[cells.argmax()])
            raise ValueError(
                f"Pair {worst} has {sources[worst]} source and {targets[worst]} target tokens: a grid of {largest} "
                f"cells (sources count as multiples of {SOURCE_STEP}), more than an update's {self.cells_per_update}. "
                "Raise cells_per_update, or drop long pairs (max_source_length, max_target_length)."
            )
        self._cuts = _cuts(heights, widths, self.tokens_per_update, self.cells_per_update)
        self.updates_per_epoch = len(self._cuts) - 1
        self._orders: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        filled = positions = 0
        for update in range(self.updates_per_epoch):
            rows = in_order[self._cuts[update] : self._cuts[update + 1]]
            for lengths in (sources, targets):
                filled += int(lengths[rows].sum())
                positions += int(lengths[rows].max()) * len(rows)
        self.fullness = filled / positions

    def _prepare_packed(self, row_length: int | None) -> None:
        if row_length is None or isinstance(row_length, bool) or not isinstance(row_length, int):
            raise ValueError(f"Packed pairs need a row_length, one number of positions, not {row_length!r}.")
        step = row_length * self.micro_batches
        if self.tokens_per_update < step or self.tokens_per_update % step:
            nearest = max(1, round(self.tokens_per_update / step)) * step
            raise ValueError(
                f"tokens_per_update {self.tokens_per_update} is not a multiple of row_length {row_length} x "
                f"{self.micro_batches} micro-batches (processes x accumulation steps). Set it to {nearest}, or change "
                "the number of them."
            )
        self._rows = pack_pairs(self.pairs, row_length)
        self._rows_per_update = self.tokens_per_update // row_length
        self.updates_per_epoch = -(-len(self._rows) // self._rows_per_update)
        self.fullness = self._rows.fullness
        self._orders = {}

    def _most_segments(self) -> int:
        """Of any micro-batch of the run: pairs, and one of padding for each row."""
        counts = np.append(self._rows.counts, 0)  # the last: a row of padding, -1
        most = 0
        for epoch in range(-(-self.n_updates // self.updates_per_epoch)):
            # [updates, rows of a micro-batch, micro_batches]
            dealt = counts[self._order_of(epoch)[0]].reshape(self.updates_per_epoch, -1, self.micro_batches)
            most = max(most, int(dealt.sum(axis=1).max()))
        return most + self._rows_per_update // self.micro_batches

    def __len__(self) -> int:
        return self.n_updates * self.micro_batches

    def tokens_at(self, update: int) -> int:
        """Target tokens of that update (from 0), over all micro-batches."""
        return int(self.pairs.target_lengths[self._pairs_of(update)].sum())

    def epoch_at(self, update: int) -> float:
        """Passes over the pairs after that many updates, e.g. 1.5 in the middle of the second."""
        return min(update, self.n_updates) / self.updates_per_epoch

    def _order_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """An epoch's pairs, sorted, and its updates, shuffled; the last two asked for are kept. Of packed rows, the
        rows in their order, filled up with -1."""
        if epoch not in self._orders:
            if len(self._orders) > 1:
                del self._orders[next(iter(self._orders))]
            if self._rows is not None:
                rows = np.full(self.updates_per_epoch * self._rows_per_update, -1)
                rows[: len(self._rows)] = np.random.default_rng([self.seed, epoch]).permutation(
                    len(self._rows)
                )
                self._orders[epoch] = rows, np.arange(self.updates_per_epoch)
                return self._orders[epoch]
            count, updates = len(self.pairs), np.arange(self.updates_per_epoch)
            ties = np.arange(count)
            if self._shuffled:
                generator = np.random.default_rng([self.seed, epoch])
                ties, updates = generator.permutation(count), generator.permutation(updates)
            self._orders[epoch] = np.lexsort((ties, self._steps, self.pairs.target_lengths)), updates
        return self._orders[epoch]

    def _pairs_of(self, update: int) -> np.ndarray:
        if self._rows is not None:
            return self._rows.pairs_in(self._rows_of(update))
        epoch, place = divmod(update, self.updates_per_epoch)
        pairs, updates = self._order_of(epoch)
        cut = updates[place]
        return pairs[self._cuts[cut] : self._cuts[cut + 1]]

    def _rows_of(self, update: int) -> np.ndarray:
        epoch, place = divmod(update, self.updates_per_epoch)
        return self._order_of(epoch)[0][place * self._rows_per_update : (place + 1) * self._rows_per_update]

    def _batch(self, pairs: np.ndarray, update: int) -> dict[str, torch.Tensor]:
        """These pairs as a batch of that update."""
        return self.pairs.batch(pairs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        """A micro-batch.

        Returns:
            input_ids int64 [rows, S] and, where a row is padded, attention_mask [rows, S]; decoder_input_ids [rows, T]
            (the start token, then the target); labels [rows, T] (the target, then its end token, then -100). Packed
            rows, S and T the row_length, have no mask but position_ids and decoder_position_ids [rows, T] (restarting
            with each text), cu_seq_lens and decoder_cu_seq_lens int32 [n + 1] (borders in the rows laid one after the
            other; segment k of the sources belongs to segment k of the targets; the end of each row is a segment of
            padding on both sides, and the last border is repeated up to the run's largest n), max_length and
            decoder_max_length.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside this plan of {len(self)} micro-batches.")
        update, part = divmod(index, self.micro_batches)
        if self._rows is not None:
            return self._rows.batch(self._rows_of(update)[part :: self.micro_batches], self._segments)
        rows = self._pairs_of(update)
        # Every other row, as it were: all parts have the same lengths.
        mine = rows[part :: self.micro_batches]
        if len(mine):
            return self._batch(mine, update)
        # Fewer pairs than parts: a process may not stand still, so it computes one that does not count.
        batch = self._batch(rows[:1], update)
        batch["labels"] = torch.full_like(batch["labels"], IGNORE_INDEX)
        return batch

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_orders": {}}


def _cuts(targets: np.ndarray, sources: np.ndarray, tokens: int, cells: int | None) -> np.ndarray:
    """Where pairs sorted by their lengths [n] are cut, so that no update exceeds a budget: int64 [parts + 1]."""
    cuts, start, height, width = [0], 0, 0, 0
    for place, (target, source) in enumerate(zip(targets.tolist(), sources.tolist(), strict=True)):
        height, width, rows = max(height, target), max(width, source), place - start + 1
        if rows * max(height, width) > tokens or (cells is not None and rows * height * width > cells):
            cuts.append(place)
            start, height, width = place, target, source
    return np.array([*cuts, len(targets)])
