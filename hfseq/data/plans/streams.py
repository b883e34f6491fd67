"""Contiguous text streams for truncated back-propagation through time.

The N tokens of a corpus give N - 1 (token, next token) pairs. They are cut into S equally long streams that are read
side by side, T tokens of each per update; the model carries each stream's state from one segment to the next. Against
random padded batches this trains an LSTM 3.4x faster per real token (two CPU cores): nothing is padded but fewer than
S positions at the end of the last stream.

Order is segment-major: item u * S + j is segment u of stream j, where u counts updates over *all* epochs. The items of
this plan are rows, not micro-batches: S = rows x accumulation x processes, and Trainer's sequential sampler puts rows
together. accelerate then gives a stream to the same process in every update, which holds its state, and a run resumes
under another number of processes.

Segments are balanced: a stream of L positions makes n = ceil(L / T) segments whose lengths differ by at most one
(s * L // n is where segment s begins). A short last segment would count as much in the mean of batch losses, and move
the weights as far, as a full one.
"""

from __future__ import annotations

import math
import mmap
from itertools import pairwise

import numpy as np
import torch

from ...models.losses import IGNORE_INDEX
from ..token_arrays import TokenArray
from .base import BatchPlan, Phase, check_whole
from .collators import BatchRow

# Merity et al. 2017, section 5: one in twenty segments is half as long, and every length varies by N(0, 5).
HALF_LENGTH_PROBABILITY = 0.05
LENGTH_DEVIATION = 5
# Below, a segment costs more than it teaches; above T + 20 (4 deviations) it would cost memory for nothing.
SHORTEST_RANDOM_LENGTH = 5
LONGEST_OVERSHOOT = 20


class _Segments:
    """All segments of a run, as a `Cut`: whose rows are the streams, of which an update has them all.

    Args:
        borders: for each epoch where its segments begin in a stream, and where the last one ends, int64 [n + 1].
        stream_length: L.
        streams: S.
    """

    def __init__(self, borders: list[np.ndarray], stream_length: int, streams: int):
        # For each update: where in its stream the segment begins, and how long it is.
        self.begins = np.concatenate([b[:-1] for b in borders])
        self.lengths = np.concatenate([np.diff(b) for b in borders])
        # [epochs + 1]: the first update of each epoch, and the end.
        self.epoch_starts = np.concatenate([[0], np.cumsum([len(b) - 1 for b in borders])])
        self.n_updates = int(self.epoch_starts[-1])
        self.epochs = len(borders) - 1 + borders[-1][-1] / stream_length
        self._stream_length, self._streams = stream_length, streams

    def rows(self, update: int) -> tuple[np.ndarray, np.ndarray]:
        return self.part(update, 0, 1)

    def part(self, update: int, part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        streams = np.arange(part * self._streams // parts, (part + 1) * self._streams // parts)
        return np.full(len(streams), self._epoch_of(update)), streams

    def _epoch_of(self, update: int) -> int:
        return int(np.searchsorted(self.epoch_starts, update, side="right")) - 1

    def epochs_after(self, update: int) -> float:
        return self._epoch_of(update) + float(self.begins[update]) / self._stream_length


class StreamPlan(BatchPlan[Phase]):
    """All segments of all streams in all epochs; see the module.

    Args:
        tokens: integers [N], best memory-mapped (`TokenArray.tokens`).
        streams: S, the global batch: rows per device x accumulation steps x processes.
        segment_length: T, the longest segment (with `random_lengths`: the usual one).
        epochs: passes over the corpus; of a last one that is not whole, each stream's first segments.
        random_lengths: draw each update's length as AWD-LSTM does, anew in each epoch, from (seed, epoch).
        seed: of those lengths.
        idle_streams: of the streams so many, the last, hold no text, so that all processes have equally many.

    Attributes:
        micro_batches: S, as the items are rows.
        n_targets: targets per epoch, N - 1.
        n_updates: segments over all epochs = optimiser steps.
        updates_per_epoch: in the first epoch; with random lengths the others differ a little.
        stream_length: L.

    Raises:
        ValueError: fewer tokens than one segment of each stream needs, or sizes below 1.
    """

    def __init__(
        self,
        tokens: np.ndarray | TokenArray,
        *,
        streams: int,
        segment_length: int,
        epochs: float = 1,
        random_lengths: bool = False,
        seed: int = 0,
        idle_streams: int = 0,
    ):
        for name, value in (("streams", streams), ("segment_length", segment_length)):
            check_whole(name, value, 1)
        check_whole("idle_streams", idle_streams, 0)
        check_whole("streams with text", streams - idle_streams, 1)
        super().__init__(epochs, streams, seed)
        tokens = tokens.tokens if isinstance(tokens, TokenArray) else tokens
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu":
            raise ValueError(f"tokens must be integers [N], not {tokens.dtype} {list(tokens.shape)}.")
        pairs, filled = len(tokens) - 1, streams - idle_streams
        if pairs < filled * segment_length:
            remedies = ["more text"]
            if pairs >= filled:
                remedies.insert(0, f"segments of at most {pairs // filled}")
            if pairs >= segment_length:
                remedies.insert(0, f"at most {pairs // segment_length} streams")
            raise ValueError(
                f"The text has {len(tokens)} tokens, but one batch of {filled} streams of segments of "
                f"{segment_length} needs {filled * segment_length + 1}. Use {', or '.join(remedies)}."
            )
        self.tokens = tokens
        self.streams = streams
        self.segment_length = segment_length
        self.random_lengths = random_lengths
        self.n_targets = pairs
        self.stream_length = -(-pairs // filled)

        if random_lengths:
            borders = [self._random_borders(epoch) for epoch in range(math.ceil(epochs))]
        else:
            n = -(-self.stream_length // segment_length)
            borders = [np.arange(n + 1, dtype=np.int64) * self.stream_length // n] * math.ceil(epochs)
        self.updates_per_epoch = len(borders[0]) - 1
        # As many whole segments as bring the last epoch to its share of a stream.
        share = round((epochs - math.floor(epochs)) * self.stream_length)
        if epochs < len(borders):
            borders[-1] = borders[-1][: max(1, int(np.searchsorted(borders[-1], share))) + 1]
        self._segments = _Segments(borders, self.stream_length, streams)
        begins = np.arange(streams) * self.stream_length
        self._run([Phase(self._segments, np.clip(self.n_targets - begins, 0, self.stream_length))])

    @classmethod
    def evaluation(
        cls, tokens: np.ndarray | TokenArray, *, streams: int, segment_length: int, processes: int = 1
    ) -> StreamPlan:
        """The text once. It is cut into `streams` whatever the number of processes, and so has the same loss; where
        that is no multiple of the processes, idle streams without a label fill up.

        To be read with per_device_eval_batch_size = plan.streams / processes.
        """
        check_whole("streams", streams, 1)
        idle = -streams % processes
        return cls(tokens, streams=streams + idle, segment_length=segment_length, idle_streams=idle)

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
        begin, length = self._segments.begins[update], self._segments.lengths[update]
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

    def segment_length_at(self, update: int) -> int:
        """Tokens per stream in that update (from 0)."""
        return int(self._segments.lengths[update])

    def tokens_at(self, update: int) -> int:
        """Targets of that update (from 0), over all streams."""
        begin, length = self._segments.begins[update], self._segments.lengths[update]
        return int(np.clip(self._phases[0].tokens - begin, 0, length).sum())

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
