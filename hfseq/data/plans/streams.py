"""Contiguous text streams for truncated back-propagation through time, as one dataset over a whole run.

The N tokens of a corpus give N - 1 (token, next token) pairs. They are cut into S equally long streams that are read
side by side, T tokens of each per update; the model carries each stream's state from one segment to the next. Against
random padded batches this trains an LSTM 3.4x faster per real token (two CPU cores): nothing is padded but fewer than
S positions at the end of the last stream.

Order is segment-major: item u * S + j is segment u of stream j, where u counts updates over *all* epochs. So the
plan is sampled sequentially, with S = rows x accumulation x processes, and item i is a pure function of (seed, i):
workers, processes and restarts cannot change what is seen, and resuming is skipping indices.

Segments are balanced: a stream of L positions makes n = ceil(L / T) segments whose lengths differ by at most one
(s * L // n is where segment s begins). A short last segment would count as much in the mean of batch losses, and move
the weights as far, as a full one.
"""

from __future__ import annotations

import mmap
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import Dataset

from ...models.losses import IGNORE_INDEX
from .collators import BatchRow

# Merity et al. 2017, section 5: one in twenty segments is half as long, and every length varies by N(0, 5).
HALF_LENGTH_PROBABILITY = 0.05
LENGTH_DEVIATION = 5
# Below, a segment costs more than it teaches; above T + 20 (4 deviations) it would cost memory for nothing.
SHORTEST_RANDOM_LENGTH = 5
LONGEST_OVERSHOOT = 20


class StreamPlan(Dataset):
    """All segments of all streams in all epochs; see the module.

    Args:
        tokens: integers [N], best memory-mapped (`TokenArray.tokens`).
        streams: S, the global batch: rows per device x accumulation steps x processes.
        segment_length: T, the longest segment (with `random_lengths`: the usual one).
        epochs: passes over the corpus.
        random_lengths: draw each update's length as AWD-LSTM does, anew in each epoch, from (seed, epoch).
        seed: of those lengths.

    Attributes:
        n_targets: targets per epoch, N - 1.
        n_updates: segments over all epochs = optimiser steps.
        updates_per_epoch: in the first epoch; with random lengths the others differ a little.
        stream_length: L.

    Raises:
        ValueError: fewer tokens than one segment of each stream needs, or sizes below 1.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        *,
        streams: int,
        segment_length: int,
        epochs: int = 1,
        random_lengths: bool = False,
        seed: int = 0,
    ):
        for name, value in (("streams", streams), ("segment_length", segment_length), ("epochs", epochs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        tokens = getattr(tokens, "tokens", tokens)  # a TokenArray will do
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens must be integers [N], not {tokens.dtype} {list(tokens.shape)}.")
        pairs = len(tokens) - 1
        if pairs < streams * segment_length:
            remedies = ["more text"]
            if pairs >= streams:
                remedies.insert(0, f"segments of at most {pairs // streams}")
            if pairs >= segment_length:
                remedies.insert(0, f"at most {pairs // segment_length} streams")
            raise ValueError(
                f"The text has {len(tokens)} tokens, but one batch of {streams} streams of segments of "
                f"{segment_length} needs {streams * segment_length + 1}. Use {', or '.join(remedies)}."
            )
        self.tokens = tokens
        self.streams = streams
        self.segment_length = segment_length
        self.epochs = epochs
        self.random_lengths = random_lengths
        self.seed = seed
        self.n_targets = len(tokens) - 1
        self.stream_length = -(-self.n_targets // streams)

        if random_lengths:
            borders = [self._random_borders(epoch) for epoch in range(epochs)]
        else:
            n = -(-self.stream_length // segment_length)
            borders = [np.arange(n + 1, dtype=np.int64) * self.stream_length // n] * epochs
        # For each update: where in its stream the segment begins, and how long it is.
        self._begins = np.concatenate([b[:-1] for b in borders])
        self._lengths = np.concatenate([np.diff(b) for b in borders])
        # [epochs + 1]: the first update of each epoch, and the end.
        self._epoch_starts = np.concatenate([[0], np.cumsum([len(b) - 1 for b in borders])])
        self.n_updates = int(self._epoch_starts[-1])
        self.updates_per_epoch = int(self._epoch_starts[1])

    def _random_borders(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, epoch])
        T, L = self.segment_length, self.stream_length
        shortest = min(SHORTEST_RANDOM_LENGTH, T)
        borders = [0]
        while borders[-1] < L:
            usual = T / 2 if generator.random() < HALF_LENGTH_PROBABILITY else T
            length = int(generator.normal(usual, LENGTH_DEVIATION))
            borders.append(borders[-1] + min(max(length, shortest), T + LONGEST_OVERSHOOT))
        borders[-1] = L
        # What is left at the end may be too short for a segment of its own.
        if len(borders) > 2 and L - borders[-2] < shortest:
            del borders[-2]
        return np.array(borders, dtype=np.int64)

    def __len__(self) -> int:
        return self.n_updates * self.streams

    def __getitem__(self, index: int) -> BatchRow:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[BatchRow]:
        """Rows of a batch, gathered at once.

        Returns:
            per index a mapping: input_ids int64 [T], shift_labels int64 [T] (the next tokens; -100 past the end of
            the text), labels (the same: Trainer counts them), stream_id int, starts_anew bool (the first segment of
            an epoch).
        """
        index = np.asarray(indices, dtype=np.int64)
        if index.size == 0:
            return []
        if index.min() < 0 or index.max() >= len(self):
            raise IndexError(f"Index {indices} is outside this plan of {len(self)} rows.")
        updates = index // self.streams
        streams = index - updates * self.streams
        # As a rule all rows are of one update; where a batch goes on into the next, the collator refuses it.
        borders = [0, *(np.flatnonzero(updates[1:] != updates[:-1]) + 1).tolist(), len(index)]
        rows: list[BatchRow] = []
        for start, end in pairwise(borders):
            batch = self._segment(int(updates[start]), streams[start:end])
            rows += [BatchRow(batch, position) for position in range(end - start)]
        return rows

    def _segment(self, update: int, streams: np.ndarray) -> dict[str, torch.Tensor]:
        begin, length = self._begins[update], self._lengths[update]
        # [rows, length + 1] positions in the text; one more than a segment has: the last one's target.
        positions = (streams * self.stream_length + begin)[:, None] + np.arange(length + 1)
        padded = positions[:, -1].max() > self.n_targets
        found = np.asarray(self.tokens)[np.minimum(positions, self.n_targets) if padded else positions]
        labels = found[:, 1:].astype(np.int64)
        if padded:
            labels[positions[:, 1:] > self.n_targets] = IGNORE_INDEX
        targets = torch.from_numpy(labels)
        return {
            "input_ids": torch.from_numpy(found[:, :-1].astype(np.int64)),
            "labels": targets,
            "shift_labels": targets,
            "stream_id": torch.from_numpy(streams),
            "starts_anew": torch.from_numpy(np.full(len(streams), begin == 0)),
        }

    def tokens_at(self, update: int) -> int:
        """Positions of that update (from 0), over all streams."""
        return self.segment_length_at(update) * self.streams

    def segment_length_at(self, update: int) -> int:
        """Tokens per stream in that update (from 0)."""
        return int(self._lengths[update])

    def epoch_at(self, update: int) -> float:
        """Epochs done after that many updates, e.g. 1.5 in the middle of the second."""
        update = min(max(update, 0), self.n_updates)
        epoch = min(int(np.searchsorted(self._epoch_starts, update, side="right")) - 1, self.epochs - 1)
        if update == self.n_updates:
            return float(self.epochs)
        return epoch + float(self._begins[update]) / self.stream_length

    def check_global_batch(self, rows: int, accumulation: int = 1, processes: int = 1) -> None:
        """Refuses a Trainer whose update would not be exactly one segment of every stream.

        Raises:
            ValueError: rows x accumulation x processes is not the number of streams.
        """
        if rows * accumulation * processes != self.streams:
            fitting = self.streams // (accumulation * processes)
            exact = fitting * accumulation * processes == self.streams and fitting > 0
            remedy = (
                f"Set per_device_train_batch_size to {fitting}."
                if exact
                else f"Choose streams as a multiple of {accumulation * processes}."
            )
            raise ValueError(
                f"{rows} rows x {accumulation} accumulation steps x {processes} processes = "
                f"{rows * accumulation * processes}, but the plan has {self.streams} streams. {remedy}"
            )

    # NumPy would pickle a memory map as a copy of its content: workers that are spawned map the file themselves.
    def __getstate__(self) -> dict:
        state = self.__dict__.copy()
        tokens = self.tokens
        if isinstance(tokens, np.memmap) and isinstance(tokens.base, mmap.mmap):
            state["tokens"] = (str(tokens.filename), tokens.dtype, tokens.offset, tokens.shape)
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if isinstance(self.tokens, tuple):
            filename, dtype, offset, shape = self.tokens
            self.tokens = np.memmap(filename, dtype=dtype, mode="r", offset=offset, shape=shape)
