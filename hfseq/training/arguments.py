"""`TrainingArguments` from what a recipe or a command line says: values of the wrong kind are refused by name.

TrainingArguments takes whatever it is given: a learning rate that is a word fails inside the optimizer, after the
corpus was read, a negative one trains backwards.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from ..recipe import kinds_of

NUMBERS = {int, float, type(None)}
ABOVE_ZERO = (
    "learning_rate",
    "num_train_epochs",
    "gradient_accumulation_steps",
    "per_device_train_batch_size",
)
FROM_ZERO = (
    "seed",
    "data_seed",
    "weight_decay",
    "warmup_steps",
    "max_grad_norm",
    "logging_steps",
    "eval_steps",
    "save_steps",
)


def training_arguments(given: Mapping[str, Any]) -> TrainingArguments:
    """The arguments.

    Raises:
        ValueError: a value that is no number where one belongs, one out of range, or what TrainingArguments refuses.
    """
    hints = typing.get_type_hints(TrainingArguments)
    for name, value in given.items():
        kinds = kinds_of(hints[name]) if name in hints else set()
        if kinds and kinds <= NUMBERS and value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"training.{name} must be a number, not {value!r:.100}.")
            if float not in kinds and not isinstance(value, int):
                raise ValueError(f"training.{name} must be a whole number, not {value!r}.")
        if isinstance(value, int | float) and not isinstance(value, bool):
            if name in ABOVE_ZERO and value <= 0:
                raise ValueError(f"training.{name} must be above 0, not {value!r}.")
            if name in FROM_ZERO and value < 0:
                raise ValueError(f"training.{name} must be 0 or more, not {value!r}.")
    try:
        return TrainingArguments(**given)
    except (TypeError, ValueError, ImportError) as error:
        raise ValueError(f"section training: {error}") from error


__all__ = ["training_arguments"]
