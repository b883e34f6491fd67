"""Masked-language training.

Rows (`rows.py`) or pairs (`sentences.py`) are built once; each epoch has them all exactly once, in an order and with
masks of its own. Order, pairs and masks depend on (seed, row length, epoch, row) alone.

The number of rows is not a multiple of an update's as a rule: the last update of the run is filled up with rows that
have no label. Shapes are the same in all items of one row length: labels are counted per row (`masking.py`), borders of
packed texts are padded to the largest number of any micro-batch of the run.

A curriculum of lengths (`row_length=[[0.9, 128], [0.1, 512]]`, as Devlin et al. 2018) is several such runs one after
the other over the same tokens: nothing is tokenised again. Each takes its share of the epochs, in whole updates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ...models.losses import IGNORE_INDEX
from ..hashing import row_keys
from ..ragged import copy_texts
from ..token_arrays import TokenArray
from ..vocabulary import MaskingVocabulary
from .base import BatchPlan, Phase, room_for_rows, rows_per_update
from .cuts import RowsInOrder, ShuffledRows
from .masking import Masking
from .rows import PACKINGS, Rows, make_rows, packed_borders
from .sentences import Pairs, chunks_of

PAIRS = ("nsp", "sop")

# Evaluation never depends on the seed of training: models trained with different seeds guess the same tokens.
EVALUATION_SEED = 20181011


@dataclass
class _Phase(Phase):
    """Rows of one length; `tokens` are their positions that are not padding."""

    row_length: int
    source: Rows | Pairs = field(repr=False)
    most_texts: int
    """Largest number of texts (padding too) in a micro-batch, for packed rows."""


class MaskedPlan(BatchPlan[_Phase]):
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
        shuffled: False: the rows once, in order, as `evaluation` reads them.

    Attributes:
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
        shuffled: bool = True,
    ):
        super().__init__(epochs, micro_batches, seed)
        if packing not in (*PACKINGS, *PAIRS):
            raise ValueError(f"Unknown packing {packing!r}: choose one of {', '.join((*PACKINGS, *PAIRS))}.")
        self.array, self.vocabulary, self.packing = array, vocabulary, packing
        self.masking = Masking() if masking is None else masking
        self.tokens_per_update = tokens_per_update
        curriculum = _curriculum(row_length)
        for _, length in curriculum:
            if length < 3:
                raise ValueError(
                    f"row_length {length} has no room for text between [CLS] and [SEP]: at least 3."
                )
            rows_per_update(tokens_per_update, length, micro_batches)
        phases: list[_Phase] = []
        for number, (share, length) in enumerate(curriculum):
            source = _source(array, vocabulary, length, packing, long_documents)
            filled = _filled(source)
            n_rows, per_update = len(filled), tokens_per_update // length
            cut: ShuffledRows | RowsInOrder
            if shuffled:
                rows = None
                if number < len(curriculum) - 1:  # whole updates: the next rows in line fill up the last one
                    rows = max(1, round(share * epochs * n_rows))
                    rows = max(1, round(rows / per_update)) * per_update
                cut = ShuffledRows(n_rows, per_update, epochs=share * epochs, seed=(seed, length), rows=rows)
            else:
                cut = RowsInOrder(n_rows, per_update // micro_batches, micro_batches)
            most_texts = 0
            if isinstance(source, Rows) and source.closed:
                most_texts = cut.most(np.diff(source.row_starts) + (filled < length), 1, micro_batches)
            phases.append(_Phase(cut, filled, length, source, most_texts))
        self._run(phases)
        first = phases[0]
        self.rows_per_epoch = len(first.tokens)
        self.longest_row = max(length for _, length in curriculum)
        self.fullness = float(first.tokens.sum() / (len(first.tokens) * first.row_length))
        guessed = np.floor(self.masking.rate * (first.tokens - _special_count(first.source)) + 0.5)
        self.n_targets = int(np.maximum(guessed, 1).sum())

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
        padding).

        Args:
            row_length: of a curriculum the last one counts.
            tokens_per_batch: at most that many positions in a batch.
        """
        length = _curriculum(row_length)[-1][1]
        return cls(
            array,
            vocabulary,
            row_length=length,
            tokens_per_update=room_for_rows(tokens_per_batch, length) * length * processes,
            micro_batches=processes,
            packing=packing,
            long_documents=long_documents,
            seed=EVALUATION_SEED,
            shuffled=False,
        )

    def _batch(self, phase: _Phase, update: int, epochs: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
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
        keys = row_keys(self.seed, phase.row_length, epochs, rows)
        more: dict[str, Any] = {}
        if isinstance(phase.source, Pairs):
            ids, more = self._pair_rows(phase, phase.source, rows, keys)
        else:
            ids, row, lengths = phase.source.gather(self.array.tokens, rows, self.vocabulary)
            if phase.source.closed:
                more = packed_borders(row, lengths, len(rows), phase.row_length, phase.most_texts)
        progress = update / max(1, self.n_updates - 1)
        masked, labels, positions = self.masking.apply(ids, keys, self.vocabulary, progress)
        return {
            "input_ids": torch.from_numpy(masked),
            "labels": torch.from_numpy(labels),
            "masked_positions": torch.from_numpy(positions),
            **more,
        }

    def _pair_rows(
        self, phase: _Phase, source: Pairs, rows: np.ndarray, keys: np.ndarray
    ) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        vocabulary, T = self.vocabulary, phase.row_length
        safe = np.maximum(rows, 0)
        a_begin, a_length, b_begin, b_length, label = source.draw(safe, keys, T - 3)
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
    # a list, else there was a problem
    return [(float(share), int(length)) for share, length in row_length]  # type: ignore[union-attr]


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
