"""Masked-language training as one dataset over a whole run, each item a whole micro-batch.

Rows (`rows.py`) or pairs (`sentences.py`) are built once; each epoch has them all exactly once, in an order and with
masks of its own. Order, pairs and masks depend on (seed, row length, epoch, row) alone: 16 rows at once, 4 x 4 or 2
processes x 8 see the same updates, any number of workers and any restart too. Items are read in order, one at a time
(per_device_train_batch_size=1, `WholeBatchCollator`); item i is part i % micro_batches of update i // micro_batches.

The number of rows is not a multiple of an update's as a rule: the last update of the run is filled up with rows that
have no label. Shapes are the same in all items of one row length: labels are counted per row (`masking.py`), borders of
packed texts are padded to the largest number of any micro-batch of the run.

A curriculum of lengths (`row_length=[[0.9, 128], [0.1, 512]]`, as Devlin et al. 2018) is several such runs one after
the other over the same tokens: nothing is tokenised again. Each takes its share of the epochs, in whole updates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset

from ...models.losses import IGNORE_INDEX
from ..hashing import row_keys
from ..ragged import copy_texts
from ..token_arrays import TokenArray
from ..vocabulary import MaskingVocabulary
from .masking import Masking
from .rows import PACKINGS, Rows, make_rows
from .sentences import Pairs, chunks_of

PAIRS = ("nsp", "sop")

# Evaluation never depends on the seed of training: models trained with different seeds guess the same tokens.
EVALUATION_SEED = 20181011


@dataclass
class _Phase:
    """A part of the run with rows of one length."""

    row_length: int
    source: Rows | Pairs = field(repr=False)
    n_rows: int
    """Rows per epoch."""
    rows_per_update: int
    epochs: float
    updates: int
    labelled_rows: int
    """Rows of all its updates without those that fill up the last one."""
    first_update: int
    first_epoch: float
    filled: np.ndarray = field(repr=False)
    """int64 [n_rows]: positions of each row that are not padding."""
    most_texts: int = 0
    """Largest number of texts (padding too) in a micro-batch, for packed rows."""


class MaskedPlan(Dataset):
    """All micro-batches of a run; see the module.

    Args:
        array: see `TokenArray`.
        vocabulary: of the tokenizer that made it.
        row_length: T; or a curriculum [[share of the run, T], ...], shares adding up to 1.
        tokens_per_update: of all processes and accumulation steps together, padding included; a multiple of each T.
        epochs: passes over the array; need not be whole.
        micro_batches: processes x accumulation steps; divides the rows of an update.
        packing: blocks, documents, sentences (see `make_rows`), nsp, sop (see `sentences.py`).
        long_documents: see `make_rows`.
        masking: what is masked.
        seed: of order, pairs and masks.

    Attributes:
        n_updates: optimiser steps.
        rows_per_epoch: rows in the first epoch.
        fullness: share of positions that are not padding, in the first epoch's rows; for pairs at most that, as what
            replaces a text may be shorter.
        longest_row: the largest T; a model needs as many positions.
        n_targets: tokens guessed in the first epoch, about (words may not fill a row's share; unknown tokens and the
            ends of documents in blocks are not guessed).

    Raises:
        ValueError: sizes that do not fit each other, or what `make_rows` and `chunks_of` raise.
    """

    def __init__(
        self,
        array: TokenArray,
        vocabulary: MaskingVocabulary,
        *,
        row_length: int | list[list[float]],
        tokens_per_update: int,
        epochs: float = 1,
        micro_batches: int = 1,
        packing: str = "blocks",
        long_documents: str = "split",
        masking: Masking | None = None,
        seed: int = 0,
    ):
        if micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1, not {micro_batches}.")
        if epochs <= 0:
            raise ValueError(f"epochs must be above 0, not {epochs}.")
        if packing not in (*PACKINGS, *PAIRS):
            raise ValueError(f"Unknown packing {packing!r}: choose one of {', '.join((*PACKINGS, *PAIRS))}.")
        self.array, self.vocabulary = array, vocabulary
        self.masking = Masking() if masking is None else masking
        self.packing, self.micro_batches, self.seed, self.epochs = packing, micro_batches, seed, epochs
        self.tokens_per_update = tokens_per_update
        self._shuffled = True
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        curriculum = _curriculum(row_length)
        for _, length in curriculum:
            _check_update(tokens_per_update, length, micro_batches)
        self._phases: list[_Phase] = []
        for number, (share, length) in enumerate(curriculum):
            source = _source(array, vocabulary, length, packing, long_documents)
            filled = _filled(source)
            n_rows = len(filled)
            rows_per_update = tokens_per_update // length
            rows = max(1, round(share * epochs * n_rows))
            if number == len(curriculum) - 1:
                updates = -(-rows // rows_per_update)
            else:  # whole updates: the next rows in line fill up the last one
                updates = max(1, round(rows / rows_per_update))
                rows = updates * rows_per_update
            before = self._phases[-1] if self._phases else None
            self._phases.append(
                _Phase(
                    row_length=length,
                    source=source,
                    n_rows=n_rows,
                    rows_per_update=rows_per_update,
                    epochs=share * epochs,
                    updates=updates,
                    labelled_rows=rows,
                    first_update=before.first_update + before.updates if before else 0,
                    first_epoch=before.first_epoch + before.epochs if before else 0.0,
                    filled=filled,
                )
            )
        self._finish()

    @classmethod
    def evaluation(
        cls,
        array: TokenArray,
        vocabulary: MaskingVocabulary,
        *,
        row_length: int | list[list[float]],
        tokens_per_batch: int,
        processes: int = 1,
        packing: str = "blocks",
        long_documents: str = "split",
    ) -> MaskedPlan:
        """The text once, in order, 15% masked by token as BERT does it, whatever training does: comparable losses.

        The number of batches is a multiple of the processes, and all have equally many rows up to one (which is
        padding): Trainer takes the plain mean of the batches' losses.

        Args:
            row_length: of a curriculum the last one counts.
            tokens_per_batch: at most that many positions in a batch.
        """
        length = _curriculum(row_length)[-1][1]
        if tokens_per_batch < length:
            raise ValueError(
                f"tokens_per_batch {tokens_per_batch} has no room for a row of {length}. Raise it to at least that."
            )
        plan = cls.__new__(cls)
        Dataset.__init__(plan)
        plan.array, plan.vocabulary, plan.masking = array, vocabulary, Masking()
        plan.packing, plan.seed, plan.epochs = packing, EVALUATION_SEED, 1
        plan.micro_batches, plan._shuffled, plan._orders = processes, False, {}
        source = _source(array, vocabulary, length, packing, long_documents)
        filled = _filled(source)
        n_rows = len(filled)
        batches = -(-n_rows // (tokens_per_batch // length))
        updates = -(-batches // processes)
        rows = -(-n_rows // (updates * processes)) * processes
        plan.tokens_per_update = rows * length
        plan._phases = [_Phase(length, source, n_rows, rows, 1, updates, n_rows, 0, 0.0, filled)]
        plan._finish()
        return plan

    def _finish(self) -> None:
        last, first = self._phases[-1], self._phases[0]
        self.n_updates = last.first_update + last.updates
        self.rows_per_epoch = first.n_rows
        self.longest_row = max(phase.row_length for phase in self._phases)
        filled = first.filled
        self.fullness = float(filled.sum() / (first.n_rows * first.row_length))
        guessed = np.floor(self.masking.rate * (filled - _special_count(first.source)) + 0.5)
        self.n_targets = int(np.maximum(guessed, 1).sum())
        for phase in self._phases:
            if isinstance(phase.source, Rows) and phase.source.closed:
                phase.most_texts = self._most_texts(phase)

    def _most_texts(self, phase: _Phase) -> int:
        texts = np.diff(phase.source.row_starts) + (phase.filled < phase.row_length)
        if not self._shuffled:
            items = range(phase.updates * self.micro_batches)
            rows = [self._rows_of(phase, item)[1] for item in items]
            return max(int(np.where(r >= 0, texts[np.maximum(r, 0)], 1).sum()) for r in rows)
        size = phase.rows_per_update // self.micro_batches
        in_order = np.ones(phase.updates * phase.rows_per_update, np.int64)
        for epoch in range(-(-phase.labelled_rows // phase.n_rows)):
            part = in_order[epoch * phase.n_rows : min((epoch + 1) * phase.n_rows, phase.labelled_rows)]
            part[:] = texts[self._order_of(phase, epoch)[: len(part)]]
        return int(in_order.reshape(-1, size).sum(axis=1).max())

    def __len__(self) -> int:
        return self.n_updates * self.micro_batches

    def _phase_at(self, update: int) -> _Phase:
        return next(p for p in reversed(self._phases) if update >= p.first_update)

    def row_length_at(self, update: int) -> int:
        """T of that update (from 0)."""
        return self._phase_at(update).row_length

    def tokens_at(self, update: int) -> int:
        """Positions of that update (from 0), over all micro-batches, that are not padding; for pairs those of the
        texts before any is replaced."""
        phase = self._phase_at(update)
        first = (update - phase.first_update) * self.micro_batches
        rows = np.concatenate(
            [self._rows_of(phase, item)[1] for item in range(first, first + self.micro_batches)]
        )
        return int(phase.filled[rows[rows >= 0]].sum())

    def epoch_at(self, update: int) -> float:
        """Passes over the text after that many updates, e.g. 1.5 in the middle of the second."""
        if update >= self.n_updates:
            return float(self.epochs)
        phase = self._phase_at(max(update, 0))
        done = max(update - phase.first_update, 0) * phase.rows_per_update / phase.n_rows
        return phase.first_epoch + min(done, phase.epochs)

    def _order_of(self, phase: _Phase, epoch: int) -> np.ndarray:
        """The rows of an epoch in their order; the last two asked for are kept."""
        if not self._shuffled:
            return np.arange(phase.n_rows)
        name = (phase.row_length, epoch)
        if name not in self._orders:
            if len(self._orders) > 1:
                del self._orders[next(iter(self._orders))]
            generator = np.random.default_rng([self.seed, phase.row_length, epoch])
            self._orders[name] = generator.permutation(phase.n_rows)
        return self._orders[name]

    def _rows_of(self, phase: _Phase, item: int) -> tuple[np.ndarray, np.ndarray]:
        """Epochs and rows (-1: to fill up) of that item of the phase, int64 [rows] each."""
        if self._shuffled:
            size = phase.rows_per_update // self.micro_batches
            places = np.arange(item * size, (item + 1) * size)
            places[places >= phase.labelled_rows] = -1
        else:
            # Balanced: each batch has the same number of rows up to one.
            items = phase.updates * self.micro_batches
            first, until = item * phase.n_rows // items, (item + 1) * phase.n_rows // items
            places = np.full(phase.rows_per_update // self.micro_batches, -1)
            places[: until - first] = np.arange(first, until)
        epochs = places // phase.n_rows
        rows = np.full(len(places), -1)
        for epoch in np.unique(epochs[places >= 0]).tolist():
            here = epochs == epoch
            rows[here] = self._order_of(phase, epoch)[places[here] - epoch * phase.n_rows]
        return epochs, rows

    def __getitem__(self, index: int) -> dict[str, torch.Tensor | int]:
        """A micro-batch.

        Returns:
            input_ids, labels int64 [rows, T] (-100 where nothing is guessed), masked_positions int64 [rows, K]
            (columns of the labels, ascending, then -1); and

            - documents, sentences: position_ids int64 [rows, T] (restarting with each text; the padding at a row's end
              is a text of its own), cu_seq_lens_q, cu_seq_lens_k int32 [n + 1] (where texts begin in the flattened
              rows, the total repeated at the end), max_length_q, max_length_k;
            - nsp, sop: attention_mask, token_type_ids int64 [rows, T], next_sentence_label int64 [rows] (1: another
              text follows, or the two changed places; -100 in rows that fill up).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"Index {index} is outside this plan of {len(self)} micro-batches.")
        update = index // self.micro_batches
        phase = self._phase_at(update)
        epochs, rows = self._rows_of(phase, index - phase.first_update * self.micro_batches)
        keys = row_keys(self.seed, phase.row_length, epochs, rows)
        more: dict[str, torch.Tensor | int] = {}
        if isinstance(phase.source, Pairs):
            ids, more = self._pair_rows(phase, rows, keys)
        else:
            ids, row, lengths = phase.source.gather(self.array.tokens, rows, self.vocabulary)
            if phase.source.closed:
                more = _borders(row, lengths, len(rows), phase.row_length, phase.most_texts)
        progress = update / max(1, self.n_updates - 1)
        masked, labels, positions = self.masking.apply(ids, keys, self.vocabulary, progress)
        return {
            "input_ids": torch.from_numpy(masked),
            "labels": torch.from_numpy(labels),
            "masked_positions": torch.from_numpy(positions),
            **more,
        }

    def _pair_rows(
        self, phase: _Phase, rows: np.ndarray, keys: np.ndarray
    ) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        vocabulary, T = self.vocabulary, phase.row_length
        safe = np.maximum(rows, 0)
        a_begin, a_length, b_begin, b_length, label = phase.source.draw(safe, keys, T - 3)
        empty = rows < 0
        a_length[empty], b_length[empty], label[empty] = 0, 0, IGNORE_INDEX
        first = np.arange(len(rows)) * T
        ids = np.full(len(rows) * T, vocabulary.pad_id, np.int64)
        ids[first] = vocabulary.cls_id
        ids[first + 1 + a_length] = vocabulary.sep_id
        ids[(first + 2 + a_length + b_length)[~empty]] = vocabulary.sep_id
        copy_texts(ids, first + 1, self.array.tokens, a_begin, a_length)
        copy_texts(ids, first + 2 + a_length, self.array.tokens, b_begin, b_length)
        columns = np.arange(T)
        # A row that fills up is [CLS] [SEP]: something must be attended to.
        ends = np.where(empty, 2, 3 + a_length + b_length)[:, None]
        mask = (columns < ends).astype(np.int64)
        types = mask * (columns >= 2 + a_length[:, None])
        return ids.reshape(len(rows), T), {
            "attention_mask": torch.from_numpy(mask),
            "token_type_ids": torch.from_numpy(types),
            "next_sentence_label": torch.from_numpy(label),
        }

    def __getstate__(self) -> dict:
        # The token array pickles as its path; orders are drawn again.
        return {**self.__dict__, "_orders": {}}


def _curriculum(row_length: int | list[list[float]]) -> list[tuple[float, int]]:
    """[(share, T), ...] from what a recipe says."""
    if isinstance(row_length, int) and not isinstance(row_length, bool):
        return [(1.0, row_length)]
    problem = None
    if not isinstance(row_length, (list, tuple)) or not row_length:
        problem = "it must be a number"
    elif not all(isinstance(part, (list, tuple)) and len(part) == 2 for part in row_length):
        problem = "each part must be [share, length]"
    elif not all(share > 0 and int(length) == length for share, length in row_length):
        problem = "shares must be above 0 and lengths whole"
    elif abs(sum(share for share, _ in row_length) - 1) > 1e-6:
        problem = f"the shares add up to {sum(share for share, _ in row_length):g}, not 1"
    elif len({length for _, length in row_length}) < len(row_length):
        problem = "a length comes twice"
    if problem:
        raise ValueError(
            f"row_length {row_length!r}: {problem}. Give a number, or a curriculum such as [[0.9, 128], [0.1, 512]]."
        )
    return [(float(share), int(length)) for share, length in row_length]


def _check_update(tokens_per_update: int, row_length: int, micro_batches: int) -> None:
    if row_length < 3:
        raise ValueError(f"row_length {row_length} has no room for text between [CLS] and [SEP]: at least 3.")
    step = row_length * micro_batches
    if tokens_per_update < step or tokens_per_update % step:
        nearest = max(1, round(tokens_per_update / step)) * step
        raise ValueError(
            f"tokens_per_update {tokens_per_update} is not a multiple of row_length {row_length} x {micro_batches} "
            f"micro-batches (processes x accumulation steps). Set it to {nearest}, or change the number of them."
        )


def _source(
    array: TokenArray, vocabulary: MaskingVocabulary, row_length: int, packing: str, long_documents: str
) -> Rows | Pairs:
    if packing in PAIRS:
        vocabulary.check_array(array.vocab_size, array.end_id)
        return chunks_of(array.tokens, array.offsets, vocabulary, row_length, packing)
    return make_rows(array, vocabulary, row_length, packing, long_documents)


def _filled(source: Rows | Pairs) -> np.ndarray:
    return source.lengths + 3 if isinstance(source, Pairs) else source.filled


def _special_count(source: Rows | Pairs) -> np.ndarray:
    if isinstance(source, Pairs):
        return np.full(len(source.lengths), 3)
    return np.diff(source.row_starts) * (1 + source.closed)


def _borders(
    row: np.ndarray, lengths: np.ndarray, n_rows: int, row_length: int, most_texts: int
) -> dict[str, torch.Tensor | int]:
    """position_ids and borders of packed rows, from the row and length of each text."""
    missing = row_length - np.bincount(row, lengths, n_rows).astype(np.int64)
    padded = np.flatnonzero(missing)
    order = np.argsort(np.concatenate([row, padded]), kind="stable")
    lengths = np.concatenate([lengths, missing[padded]])[order]
    ends = np.cumsum(lengths)
    positions = np.arange(n_rows * row_length) - np.repeat(ends - lengths, lengths)
    borders = np.full(most_texts + 1, n_rows * row_length, np.int32)
    borders[0] = 0
    borders[1 : len(ends) + 1] = ends
    cu_seq_lens = torch.from_numpy(borders)
    return {
        "position_ids": torch.from_numpy(positions.reshape(n_rows, row_length)),
        "cu_seq_lens_q": cu_seq_lens,
        "cu_seq_lens_k": cu_seq_lens,
        "max_length_q": row_length,
        "max_length_k": row_length,
    }
