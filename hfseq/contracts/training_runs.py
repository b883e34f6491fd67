"""The stock `Trainer`, silent and deterministic, for the contracts that need one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from .cases import Case
from .kinds import Row


class Rows(torch.utils.data.Dataset):
    """A list of examples as a dataset."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]


def arguments(directory: str, **options) -> TrainingArguments:
    """Training on the CPU, every loss logged, nothing printed, nothing saved unless asked."""
    defaults = {
        "output_dir": directory,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "optim": "sgd",
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "weight_decay": 0.0,
        "seed": 0,
    }
    if "WORLD_SIZE" in os.environ:  # under torchrun
        defaults.update(ddp_backend="gloo", ddp_find_unused_parameters=False)
    return TrainingArguments(**{**defaults, **options})


def trainer(
    case: Case, model, rows: Sequence[Row] | torch.utils.data.Dataset, directory: str, **options
) -> Trainer:
    """A stock Trainer over rows that are padded on the right.

    Args:
        rows: examples, or a dataset that brings its own collator in `data_collator`.
        options: fields of `TrainingArguments`; `callbacks`, `compute_metrics`, `data_collator` and `eval_dataset` go to
            the Trainer.
    """
    extras = {
        name: options.pop(name)
        for name in ("callbacks", "compute_metrics", "data_collator", "eval_dataset")
        if name in options
    }
    if isinstance(rows, Sequence):
        rows = Rows(rows)
        extras.setdefault("data_collator", partial(case.batch, config=model.config))
    if isinstance(extras.get("eval_dataset"), Sequence):
        extras["eval_dataset"] = Rows(extras["eval_dataset"])
    made = Trainer(model=model, args=arguments(directory, **options), train_dataset=rows, **extras)
    made.remove_callback(PrinterCallback)
    return made


def losses(made: Trainer) -> torch.Tensor:
    """The logged loss of every update."""
    return torch.tensor(
        [entry["loss"] for entry in made.state.log_history if "loss" in entry], dtype=torch.float64
    )
