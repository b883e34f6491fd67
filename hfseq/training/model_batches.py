"""Whole batches for any model: what a model's forward has no argument for is left out.

Hints that only some models use must not reach those that would take them for something else, and no model fills a cache
while it trains.
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PreTrainedModel

from ..data import WholeBatchCollator

HINTS = ("masked_positions",)
"""Keys of our plans that save time where a model has the argument, and mean nothing elsewhere."""


class ModelBatches(WholeBatchCollator):
    """Unwraps items that are whole batches, for models of one class.

    Args:
        model_class: whose forward gets the batches.
    """

    def __init__(self, model_class: type[PreTrainedModel]):
        names = inspect.signature(model_class.forward).parameters
        self.left_out = tuple(name for name in HINTS if name not in names)
        # transformers tells packed rows apart by their positions only where there is no cache (masking_utils).
        self.more: dict[str, Any] = {"use_cache": False} if "use_cache" in names else {}

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        batch = super().__call__(items)
        return {name: value for name, value in batch.items() if name not in self.left_out} | self.more


__all__ = ["ModelBatches"]
