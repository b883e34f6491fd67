"""Padded batches of texts of one length with their vectors: `features` [rows, width] beside the ids."""

from __future__ import annotations

import numpy as np
import torch

from .buckets import BucketPlan
from .token_arrays import TokenArray


def _check(features: np.ndarray, array: TokenArray) -> None:
    if features.ndim != 2 or len(features) != array.n_documents:
        raise ValueError(
            f"features are {list(features.shape)}, but {array.path} has {array.n_documents} texts: give "
            "[texts, width], in the order of the texts."
        )
    wrong = np.argwhere(~np.isfinite(features))
    if len(wrong):
        row, column = map(int, wrong[0])
        raise ValueError(
            f"features[{row}, {column}] is {features[row, column]}: {len(wrong)} of the numbers are not finite. Repair "
            "or remove their rows."
        )


class FeaturePlan(BucketPlan):
    """Batches of texts of one length with their vectors, for all epochs; one dataset, each item a whole micro-batch.

    The rows are `BucketPlan`'s: a text and its end, predicted from the end token before it.

    Args:
        array: of one side.
        features: float32 [documents, width], a row for each document of the array; None: the same batches without,
            for an unconditional twin.
        tokens_per_update: padded positions of an update, over all its micro-batches, at most.
        epochs: passes over the texts.
        micro_batches: processes x accumulation steps.
        seed: of the order.
        permuted: give each text the vector of another one: what a model makes of them then shows what it gains by the
            right ones.

    Attributes:
        n_updates: optimiser steps.

    Raises:
        ValueError: features that are not finite or not one row for each document, a text longer than a micro-batch.
    """

    def __init__(
        self,
        array: TokenArray,
        features: np.ndarray | None,
        *,
        tokens_per_update: int,
        epochs: int = 1,
        micro_batches: int = 1,
        seed: int = 0,
        permuted: bool = False,
    ):
        if features is not None:
            features = np.asarray(features, dtype=np.float32)
            _check(features, array)
        longest = int(np.diff(array.offsets).max())
        budget = tokens_per_update // micro_batches
        if longest > budget:
            raise ValueError(
                f"The longest text has {longest} tokens, more than a micro-batch of {budget} (data.tokens_per_update "
                f"{tokens_per_update} / {micro_batches}): raise tokens_per_update, or remove the text."
            )
        super().__init__(
            array,
            batch_tokens=budget,
            max_length=longest,
            epochs=epochs,
            multiple_of=micro_batches,
            seed=seed,
        )
        self.features, self.micro_batches = features, micro_batches
        self.epochs = epochs
        if permuted and features is not None:
            order = np.random.default_rng(0).permutation(len(features))
            # Along one cycle: no text keeps its own.
            self.features = features[order[np.argsort(order) - 1]]
        self.n_updates = len(self) // micro_batches

    def epoch_at(self, update: int) -> float:
        """Epochs done after that many updates."""
        return super().epoch_at(update * self.micro_batches)

    def tokens_at(self, update: int) -> int:
        """Targets of that update, over all micro-batches."""
        first = update * self.micro_batches
        return sum(
            int(self._lengths[self._rows_of(index)].sum())
            for index in range(first, first + self.micro_batches)
            if index < self._n_batches
        )

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """`BucketPlan`'s batch and, if there are any, features float32 [rows, width]."""
        batch = super().__getitem__(index)
        if self.features is None:
            return batch
        rows = self._rows_of(index) if index < self._n_batches else np.zeros(1, dtype=np.int64)
        return {**batch, "features": torch.from_numpy(self.features[rows])}
