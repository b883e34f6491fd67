"""`eval_loss` as the mean over all labels of the evaluation data, for any batches and any number of processes.

Trainer gives each evaluation batch (all processes' together, where `average_tokens_across_devices` is on) the same
weight. How many labels a batch has depends on how the data were dealt out, so two processes report another loss than
one (by up to 8e-3, measured), early stopping and `load_best_model_at_end` may choose other weights, and a learning rate
that was tuned on one machine is compared with another number on the next.

Nothing can be had from the batches themselves: Trainer counts their labels itself, and puts its count in the place of
any `num_items_in_batch` that they bring. So the loss of each batch is noted as the sum that it was, and the mean over
batches is replaced where Trainer logs it, before anything reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..models.losses import IGNORE_INDEX


class LabelWeightedLoss(TrainerCallback):
    """Notes the loss of every evaluation batch; see the module. Installed by `weigh_losses_by_labels`."""

    def __init__(self) -> None:
        self._last: torch.Tensor | None = None  # [2]: sum over labels, number of labels
        self._batches: list[torch.Tensor] = []

    def record(self, loss: torch.Tensor, labels: torch.Tensor | int, processes: int = 1) -> None:
        """A batch's loss, a sum over its labels divided by `labels`, those of all `processes` together."""
        count = torch.as_tensor(labels, device=loss.device, dtype=torch.float)
        self._last = torch.stack([loss.detach().float() * count, count / processes])

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        # Only now is it known that the batch was one of Trainer's evaluation.
        if self._last is not None:
            self._batches.append(self._last)
        self._last = None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict,
        **kwargs: object,
    ) -> None:
        # The keys of an evaluation begin with its prefix, and one is the time it took.
        found = [key.removesuffix("_runtime") for key in logs if key.endswith("_runtime")]
        names = [f"{prefix}_loss" for prefix in found if prefix != "train" and f"{prefix}_loss" in logs]
        if not names or not self._batches:
            return
        total = torch.stack(self._batches).cpu().double().sum(0)
        self._batches = []
        if args.world_size > 1:
            total = total.to(args.device)
            torch.distributed.all_reduce(total)
        loss, labels = total.tolist()
        if labels:
            logs[names[0]] = state.log_history[-1][names[0]] = loss / labels

    def _forget(self, *args: object, **kwargs: object) -> None:
        self._last, self._batches = None, []

    on_train_begin = on_predict = _forget


def weigh_losses_by_labels(trainer: Trainer) -> LabelWeightedLoss:
    """Makes `trainer` report `eval_loss` (and `eval_NAME_loss`) as the mean over labels, whatever the batches.

    For models whose loss is a sum over labels divided by the `num_items_in_batch` that Trainer gives them, or, where
    they do not take it, by the batch's labels; and for any `compute_loss_func` that divides by it.
    """
    weighted = LabelWeightedLoss()
    processes = trainer.args.world_size if trainer.args.average_tokens_across_devices else 1

    def look(model: nn.Module, args: tuple, kwargs: Mapping[str, Any], output: Any) -> None:
        if model.training or not isinstance(output, dict) or output.get("loss") is None:
            return
        count = kwargs.get("num_items_in_batch")
        if count is not None:
            weighted.record(output["loss"], count, processes)
            return
        labels = kwargs.get("shift_labels")
        labels = kwargs.get("labels") if labels is None else labels
        if labels is not None:
            weighted.record(output["loss"], (labels != IGNORE_INDEX).sum())

    trainer.model.register_forward_hook(look, with_kwargs=True)
    if (compute_loss := trainer.compute_loss_func) is not None:

        def watched(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
            loss = compute_loss(outputs, labels, num_items_in_batch=num_items_in_batch)
            if not trainer.model.training:
                weighted.record(loss, num_items_in_batch, processes)
            return loss

        trainer.compute_loss_func = watched
    # Before all others: loggers, and what chooses weights, read the loss.
    trainer.callback_handler.callbacks.insert(0, weighted)
    return weighted
