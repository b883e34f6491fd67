"""Pairs packed into rows: several sources side by side in one row, their targets in another of the same length.

For models that keep packed texts apart (positions restart, attention stays within a segment). Every row has the same
shape, so nothing is compiled anew and no position is spent on evening out lengths; what stays empty is the end of a row
that no pair fits into.

Packing is best-fit decreasing in two dimensions: the longest pair first, each into the row with the least target room
that has room for both its texts (of several such, the least source room). Rows are kept by both rooms, the kinds that
exist in the bits of integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from ...models.losses import IGNORE_INDEX
from ..pair_arrays import PairArray
from ..ragged import copy_texts
from .rows import texts_of


@dataclass
class PairRows:
    """Which pairs each row holds; `pack_pairs` makes it. Row r holds order[row_starts[r] : row_starts[r + 1]]."""

    pairs: PairArray
    row_length: int
    """Positions of sources, and of targets."""
    order: np.ndarray = field(repr=False)
    """int64 [pairs]: pairs, row by row."""
    row_starts: np.ndarray = field(repr=False)
    """int64 [rows + 1]."""

    def __len__(self) -> int:
        return len(self.row_starts) - 1

    @property
    def counts(self) -> np.ndarray:
        """int64 [rows]: pairs of each row."""
        return np.diff(self.row_starts)

    @property
    def fullness(self) -> float:
        """Share of positions, of sources and targets together, that are not padding."""
        filled = int(self.pairs.source_lengths.sum() + self.pairs.target_lengths.sum())
        return filled / (2 * len(self) * self.row_length)

    def pairs_in(self, rows: np.ndarray) -> np.ndarray:
        """The pairs of some rows (-1: a row of padding), int64."""
        return self.order[texts_of(self.row_starts, rows)[1]]

    def batch(self, rows: np.ndarray, segments: int) -> dict[str, torch.Tensor | int]:
        """Some rows as a batch.

        Args:
            rows: int64 [n]; -1 is a row of padding.
            segments: borders are padded to so many segments; at least pairs + rows.

        Returns:
            See `PairPlan`'s batches.
        """
        row, place = texts_of(self.row_starts, rows)
        pair = self.order[place]
        documents, n, R = self.pairs.documents(pair), len(rows), self.row_length
        source, target = self.pairs.source, self.pairs.target
        lengths = self.pairs.source_lengths[pair], self.pairs.target_lengths[pair]
        borders, positions, places = zip(*(_layout(row, own, n, R, segments) for own in lengths), strict=True)
        input_ids = np.full(n * R, self.pairs.pad_id, np.int64)
        copy_texts(input_ids, places[0], source.tokens, source.offsets[documents], lengths[0])
        labels = np.full(n * R, IGNORE_INDEX, np.int64)
        copy_texts(labels, places[1], target.tokens, target.offsets[documents], lengths[1])
        shifted = np.full(n * R, self.pairs.pad_id, np.int64)
        shifted[places[1]] = self.pairs.start_id
        copy_texts(shifted, places[1] + 1, target.tokens, target.offsets[documents], lengths[1] - 1)
        arrays = {
            "input_ids": input_ids,
            "position_ids": positions[0],
            "decoder_input_ids": shifted,
            "decoder_position_ids": positions[1],
            "labels": labels,
        }
        return {
            **{name: torch.from_numpy(value.reshape(n, R)) for name, value in arrays.items()},
            "cu_seq_lens": torch.from_numpy(borders[0]),
            "decoder_cu_seq_lens": torch.from_numpy(borders[1]),
            "max_length": R,
            "decoder_max_length": R,
        }


def _layout(
    row: np.ndarray, lengths: np.ndarray, n_rows: int, row_length: int, segments: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Borders int32 [segments + 1], position_ids int64 [n_rows * row_length], place of each text in the flat rows.

    Each row ends with a segment of padding, of length 0 where it is full: sources and targets have equally many.
    """
    missing = row_length - np.bincount(row, lengths, n_rows).astype(np.int64)
    order = np.argsort(np.concatenate([row, np.arange(n_rows)]), kind="stable")
    sizes = np.concatenate([lengths, missing])[order]
    ends = np.cumsum(sizes)
    positions = np.arange(n_rows * row_length) - np.repeat(ends - sizes, sizes)
    borders = np.full(segments + 1, n_rows * row_length, np.int32)
    borders[0] = 0
    borders[1 : len(ends) + 1] = ends
    places = (ends - sizes)[np.argsort(order, kind="stable")[: len(lengths)]]
    return borders, positions, places


def pack_pairs(pairs: PairArray, row_length: int) -> PairRows:
    """Packs all pairs; see the module.

    Raises:
        ValueError: a pair that is longer than a row.
    """
    sources, targets = pairs.source_lengths, pairs.target_lengths
    longest = np.maximum(sources, targets)
    too_long = longest > row_length
    if too_long.any():
        pair = int(longest.argmax())
        raise ValueError(
            f"Pair {int(pairs.documents(np.array([pair]))[0])} (from 0) has {sources[pair]} source and {targets[pair]} "
            f"target tokens, the longest of {int(too_long.sum())} pairs that do not fit into a row of {row_length}. "
            "Raise row_length, or drop long pairs (max_source_length, max_target_length)."
        )
    order = np.lexsort((-(sources + targets), -longest))
    row_of = np.empty(len(pairs), np.int64)
    # rows_by[t, s]: rows with target room t and source room s. Bit s of sources_by[t]: there are some.
    rows_by: dict[tuple[int, int], list[int]] = {}
    sources_by = [0] * (row_length + 1)
    kinds = n_rows = 0  # bit t of kinds: sources_by[t] is not 0
    for pair, s, t in zip(order.tolist(), sources[order].tolist(), targets[order].tolist(), strict=True):
        rest = kinds >> t
        room = None
        while rest:
            step = rest & -rest
            target_room = t + step.bit_length() - 1
            fitting = sources_by[target_room] >> s
            if fitting:
                room = target_room, s + (fitting & -fitting).bit_length() - 1
                break
            rest ^= step
        if room is None:
            room, row = (row_length, row_length), n_rows
            n_rows += 1
        else:
            same = rows_by[room]
            row = same.pop()
            if not same:
                sources_by[room[0]] ^= 1 << room[1]
                if not sources_by[room[0]]:
                    kinds ^= 1 << room[0]
        row_of[pair] = row
        left = room[0] - t, room[1] - s
        if left[0] and left[1]:
            rows_by.setdefault(left, []).append(row)
            sources_by[left[0]] |= 1 << left[1]
            kinds |= 1 << left[0]
    by_row = np.argsort(row_of, kind="stable")
    return PairRows(pairs, row_length, by_row, np.searchsorted(row_of[by_row], np.arange(n_rows + 1)))
