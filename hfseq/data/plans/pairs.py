"""Batches of pairs by a token budget.

An epoch has every pair exactly once. Pairs are sorted by the length of their targets, then by that of their sources in
steps of four tokens, and cut into updates wherever the budget is full (`cuts.ByLength`): hardly any padding, and other
neighbours in every epoch. For a model whose memory grows with source x target there is a second budget, of cells.

With packing="packed" pairs are packed into rows of one length instead (`pair_rows.py`), for models that keep packed
texts apart; an update is a fixed number of rows, their order another one in each epoch, and the last update of an epoch
is filled up with rows of padding. All shapes are those of the first batch.
"""

from __future__ import annotations

import numpy as np
import torch

from ..pair_arrays import PairArray
from .base import BatchPlan, Phase, check_whole, rows_per_update
from .cuts import ByLength, ShuffledRows
from .pair_rows import pack_pairs

PACKINGS = ("batches", "packed")

# Sources are told apart by length in steps of so many tokens: finer steps leave fewer pairs to choose neighbours from.
SOURCE_STEP = 4


class PairPlan(BatchPlan[Phase]):
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
        shuffled: False: batches in order of length, always the same, as `evaluation` reads them.

    Attributes:
        updates_per_epoch: of each epoch.
        fullness: share of positions, of sources and targets together, that are not padding, in the first epoch.
        longest_row: of any text, or of a packed row.

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
        shuffled: bool = True,
    ):
        super().__init__(epochs, micro_batches, seed)
        self.pairs, self.tokens_per_update, self.cells_per_update = pairs, tokens_per_update, cells_per_update
        self.packing, self._rows, self._segments = packing, None, 0
        if packing not in PACKINGS:
            raise ValueError(f"Unknown packing {packing!r} of pairs: choose {' or '.join(PACKINGS)}.")
        if packing == "packed":
            phase = self._packed(row_length)
        else:
            phase = self._batches(shuffled)
        self._run([phase])

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
        return cls(
            pairs,
            tokens_per_update=tokens_per_batch * processes,
            cells_per_update=None if cells_per_batch is None else cells_per_batch * processes,
            micro_batches=processes,
            shuffled=False,
        )

    def _batches(self, shuffled: bool) -> Phase:
        check_whole("tokens_per_update", self.tokens_per_update, 1)
        sources, targets = self.pairs.source_lengths, self.pairs.target_lengths
        widths = -(-sources // SOURCE_STEP) * SOURCE_STEP
        costs, cells = np.maximum(targets, widths), targets.astype(np.int64) * widths
        self.longest_row = int(max(sources.max(), targets.max()))
        if costs.max() > self.tokens_per_update:
            worst = int(costs.argmax())
            raise ValueError(
                f"Pair {worst} has {sources[worst]} source and {targets[worst]} target tokens: more than an update's "
                f"{self.tokens_per_update}. Raise tokens_per_update, or drop long pairs (max_source_length, "
                "max_target_length)."
            )
        if self.cells_per_update is not None and cells.max() > self.cells_per_update:
            worst = int(cells.argmax())
            raise ValueError(
                f"Pair {worst} has {sources[worst]} source and {targets[worst]} target tokens: a grid of "
                f"{cells[worst]} cells (sources count as multiples of {SOURCE_STEP}), more than an update's "
                f"{self.cells_per_update}. Raise cells_per_update, or drop long pairs (max_source_length, "
                "max_target_length)."
            )
        cut = ByLength(
            targets,
            widths,
            tokens=self.tokens_per_update,
            cells=self.cells_per_update,
            epochs=self.epochs,
            seed=self.seed if shuffled else None,
        )
        self.updates_per_epoch, self.fullness = cut.updates_per_epoch, cut.fullness(sources, targets)
        return Phase(cut, targets)

    def _packed(self, row_length: int | None) -> Phase:
        if self.cells_per_update is not None:
            raise ValueError(
                f"Packed rows have no grid of one source and one target: leave cells_per_update "
                f"{self.cells_per_update} out, or set packing to batches."
            )
        if row_length is None or isinstance(row_length, bool) or not isinstance(row_length, int):
            raise ValueError(f"Packed pairs need a row_length, one number of positions, not {row_length!r}.")
        per_update = rows_per_update(self.tokens_per_update, row_length, self.micro_batches)
        self._rows = rows = pack_pairs(self.pairs, row_length)
        cut = ShuffledRows(len(rows), per_update, epochs=self.epochs, seed=(self.seed,), whole_epochs=True)
        # Of any micro-batch of the run: pairs, and one of padding for each row.
        self._segments = cut.most(rows.counts + 1, 1, self.micro_batches)
        self.updates_per_epoch = -(-len(rows) // per_update)
        self.longest_row, self.fullness = row_length, rows.fullness
        return Phase(cut, np.add.reduceat(self.pairs.target_lengths[rows.order], rows.row_starts[:-1]))

    def _batch(
        self, phase: Phase, update: int, epochs: np.ndarray, rows: np.ndarray
    ) -> dict[str, torch.Tensor | int]:
        """A micro-batch of pairs (of packed rows, if packed).

        Returns:
            input_ids int64 [rows, S] and, where a row is padded, attention_mask [rows, S]; decoder_input_ids [rows, T]
            (the start token, then the target); labels [rows, T] (the target, then its end token, then -100). Packed
            rows, S and T the row_length, have no mask but position_ids and decoder_position_ids [rows, T] (restarting
            with each text), cu_seq_lens and decoder_cu_seq_lens int32 [n + 1] (borders in the rows laid one after the
            other; segment k of the sources belongs to segment k of the targets; the end of each row is a segment of
            padding on both sides, and the last border is repeated up to the run's largest n), max_length and
            decoder_max_length.
        """
        if self._rows is not None:
            return self._rows.batch(rows, self._segments)
        return self.pairs.batch(rows)
