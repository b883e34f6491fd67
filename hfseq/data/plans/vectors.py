"""Batches of texts of one length, each with its vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..token_arrays import TokenArray
from .base import Phase
from .buckets import BucketPlan


class FeaturePlan(BucketPlan):
    """All micro-batches of texts with their vectors.

    The rows are `BucketPlan`'s: a text and its end, predicted from the end token before it.

    Args:
        array: of one side.
        features: float32 [documents, width], a row for each document of the array; None: the same batches without,
            for an unconditional twin.
        tokens_per_update: at most so many positions, rows x the longest row, in an update of all processes and
            accumulation steps together.
        epochs: passes over the texts; need not be whole.
        micro_batches: processes x accumulation steps.
        seed: of the order.
        permuted: give each text the vector of another one: what a model makes of them then shows what it gains by the
            right ones.
        shuffled: False: batches in order of length, always the same, as `evaluation` reads them.

    Raises:
        ValueError: features that are not finite or not one row for each document, a text longer than an update.
    """

    def __init__(
        self,
        array: TokenArray,
        features: np.ndarray | None,
        *,
        tokens_per_update: int,
        epochs: float = 1,
        micro_batches: int = 1,
        seed: int = 0,
        permuted: bool = False,
        shuffled: bool = True,
    ):
        if features is not None:
            features = np.asarray(features, dtype=np.float32)
            _check(features, array)
        super().__init__(
            array,
            tokens_per_update=tokens_per_update,
            epochs=epochs,
            micro_batches=micro_batches,
            seed=seed,
            shuffled=shuffled,
        )
        self.features = features
        if permuted and features is not None:
            order = np.random.default_rng(0).permutation(len(features))
            # Along one cycle: no text keeps its own.
            self.features = features[order[np.argsort(order) - 1]]

    @classmethod
    def evaluation(
        cls,
        array: TokenArray,
        features: np.ndarray | None,
        *,
        tokens_per_batch: int,
        processes: int = 1,
        permuted: bool = False,
    ) -> FeaturePlan:
        """All texts once, sorted by length, always in the same batches; their number is a multiple of the processes."""
        return cls(
            array,
            features,
            tokens_per_update=tokens_per_batch * processes,
            micro_batches=processes,
            permuted=permuted,
            shuffled=False,
        )

    def _batch(self, phase: Phase, update: int, epochs: np.ndarray, rows: np.ndarray) -> dict[str, Any]:
        """`BucketPlan`'s batch and, if there are any, features float32 [rows, width]."""
        batch = super()._batch(phase, update, epochs, rows)
        if self.features is not None:
            batch["features"] = torch.from_numpy(self.features[rows])
        return batch


def _check(features: np.ndarray, array: TokenArray) -> None:
    if features.ndim != 2 or len(features) != array.n_documents:
        raise ValueError(
            f"features are {list(features.shape)}, but {array.path} has {array.n_documents} texts: give "
            "[texts, width], in the order of the texts."
        )
    if not features.shape[1]:
        raise ValueError(
            f"The vectors of {array.path} are empty (features are {list(features.shape)}): give each text at least one "
            "number, or None for a model without vectors."
        )
    wrong = np.argwhere(~np.isfinite(features))
    if len(wrong):
        row, column = map(int, wrong[0])
        raise ValueError(
            f"features[{row}, {column}] is {features[row, column]}: {len(wrong)} of the numbers are not finite. Repair "
            "or remove their rows."
        )
