"""`TrainingArguments` from what a recipe or a command line says: values of the wrong kind are refused by name.

TrainingArguments takes whatever it is given: a learning rate that is a word fails inside the optimizer, after the
corpus was read, a negative one trains backwards, `bf16: maybe` counts as true. Optimizer and schedule refuse what does
not fit them when training begins; `check_optimization` makes both before.
"""

from __future__ import annotations

import enum
import logging
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from transformers import TrainingArguments, get_scheduler

from ..hints import nearest_hint
from ..models.processors import emulates_bfloat16
from ..recipe import kinds_of

logger = logging.getLogger(__name__)

NUMBERS = {int, float, type(None)}
FLAGS = {bool, type(None)}
LARGEST_SEED = 2**32 - 1  # numpy's
ABOVE_ZERO = (
    "learning_rate",
    "num_train_epochs",
    "gradient_accumulation_steps",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "adam_epsilon",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "ddp_timeout",
)
FROM_ZERO = (
    "seed",
    "data_seed",
    "weight_decay",
    "warmup_steps",
    "max_grad_norm",
    "eval_delay",
    "dataloader_num_workers",
    "adam_beta1",
    "adam_beta2",
    "label_smoothing_factor",
)
BELOW_ONE = ("adam_beta1", "adam_beta2", "label_smoothing_factor")


def check_values(given: Mapping[str, Any]) -> None:
    """Refuses values that mean nothing, whatever the rest of the run is.

    Raises:
        ValueError: no number where one belongs, one out of range, no true or false, an unknown word; by its name.
    """
    hints = typing.get_type_hints(TrainingArguments)
    for name, value in given.items():
        kinds = kinds_of(hints[name]) if name in hints else set()
        if value is None:
            continue
        if kinds and kinds <= FLAGS and not isinstance(value, bool):
            raise ValueError(f"training.{name} must be true or false, not {value!r:.100}.")
        if kinds and kinds <= NUMBERS:
            _check_number(name, value, whole=float not in kinds)
        words = [
            member.value
            for kind in kinds
            if isinstance(kind, type) and issubclass(kind, enum.Enum)
            for member in kind.__members__.values()
        ]
        if words and value not in words:
            raise ValueError(
                f"training.{name} is {value!r:.100}, none of {', '.join(map(str, words))}.{nearest_hint(value, words)}"
            )


def _check_number(name: str, value: Any, whole: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"training.{name} must be a number, not {value!r:.100}.")
    if whole and not isinstance(value, int):
        raise ValueError(f"training.{name} must be a whole number, not {value!r}.")
    if name in ABOVE_ZERO and value <= 0:
        raise ValueError(f"training.{name} must be above 0, not {value!r}.")
    if name in FROM_ZERO and value < 0:
        raise ValueError(f"training.{name} must be 0 or more, not {value!r}.")
    if name in BELOW_ONE and value >= 1:
        raise ValueError(f"training.{name} must be below 1, not {value!r}.")
    if name in ("seed", "data_seed") and value > LARGEST_SEED:
        raise ValueError(f"training.{name} must be at most {LARGEST_SEED}, not {value!r}.")
    if name == "max_steps" and value < 1 and value != -1:
        raise ValueError(f"training.max_steps must be at least 1, or -1 for all epochs, not {value!r}.")


def training_arguments(given: Mapping[str, Any]) -> TrainingArguments:
    """The arguments.

    Raises:
        ValueError: as `check_values` raises it, or what TrainingArguments refuses.
    """
    check_values(given)
    try:
        arguments = TrainingArguments(**given)
    except (TypeError, ValueError, ImportError) as error:
        raise ValueError(f"section training: {error}") from error
    if arguments.bf16 and arguments.device.type == "cpu" and emulates_bfloat16():
        logger.warning(
            "This CPU has no instruction for bfloat16 and emulates it: --bf16 false is faster here."
        )
    return arguments


def check_optimization(
    model: nn.Module, optimizer: tuple[Callable, dict[str, Any]], arguments: TrainingArguments
) -> None:
    """Makes the optimizer and the schedule once, as Trainer will.

    Args:
        optimizer: what `optimizer_factory` made.

    Raises:
        ValueError: they refuse what they are given.
    """
    factory, options = optimizer
    try:
        built = factory()(model, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"training.optimizer with {options}: {error}") from error
    try:
        get_scheduler(
            arguments.lr_scheduler_type,
            optimizer=built,
            num_warmup_steps=1,
            num_training_steps=10,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs or {},
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"training.lr_scheduler_type {arguments.lr_scheduler_type.value} with lr_scheduler_kwargs "
            f"{arguments.lr_scheduler_kwargs}: {error}"
        ) from error


__all__ = ["check_optimization", "check_values", "training_arguments"]
