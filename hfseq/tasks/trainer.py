"""The stock Trainer, with the same batches and the same scores whatever the number of processes.

- A batch of `batch_size` rows is cut first and dealt out second: each process takes its share of every batch.
  (Trainer's own sampler makes other batches for another number of processes, and fills up the last one with rows that
  were seen before.)
- Each process' loss is a mean over its labels; it is weighed by them, over processes and accumulation steps. Stock
  classes that ignore `num_items_in_batch` are thereby right, too.
- Evaluation deals out whole batches in the order of the examples; its loss is the mean over all labels.
- Predictions come back a row at a time, without padding (`hfseq.tasks.padding`).

What may still differ between numbers of processes is dropout, whose random numbers depend on a process' shapes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from ..training.processes import collect, decide, rank, share, world_size
from ..training.unfreezing import slanted_triangular
from .base import Prediction, Row, Task
from .padding import own_columns

WEIGHT = "weight"


class Rows(Dataset):
    """Rows by number; ~number is the same row where a process has nothing of a batch, and counts for nothing."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Row:
        return self.rows[number] if number >= 0 else {**self.rows[~number], WEIGHT: 0}


class Shares(Sampler[list[int]]):
    """This process' part of every batch of an order of rows.

    Args:
        order: of all rows; it is drawn by the main process, for all.
        batch_size: over all processes.
    """

    def __init__(self, order: Sampler[int], batch_size: int):
        self.order, self.batch_size = order, batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.batch_size)  # type: ignore[arg-type]  # Trainer's samplers have a length

    def __iter__(self) -> Iterator[list[int]]:
        order = decide(lambda: list(self.order))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            cuts = [len(batch) * part // world_size() for part in (rank(), rank() + 1)]
            yield batch[slice(*cuts)] or [~batch[0]]


class TaskTrainer(Trainer):
    """Trains a model for a task.

    Args:
        task: says how rows are padded, counted and scored.
        examples: {side: examples}, those of validation and test with their rows in `rows`.
        rows: {side: rows of `Task.encode`}, those of validation sorted as they are to be batched.
        inputs: {side: the same rows with the model's inputs alone}.
        tokenizer: the model's.
        batch_size: rows of a batch over all processes.
        slanted: arguments of `slanted_triangular`, to have that schedule.
        options: of Trainer.
    """

    # Each loss is already a part of the whole update's mean.
    loss_is_scaled_for_ga = True
    evaluating = False
    lr_scheduler: Any

    def __init__(
        self,
        *,
        task: Task,
        rows: dict[str, list[Row]],
        inputs: dict[str, list[Row]],
        tokenizer: Any,
        batch_size: int,
        slanted: dict[str, float] | None = None,
        **options: Any,
    ):
        self.task, self.rows, self.inputs, self.batch_size, self.slanted = (
            task,
            rows,
            inputs,
            batch_size,
            slanted,
        )
        self.collate = task.collator(tokenizer)
        self.padding_side = tokenizer.padding_side
        super().__init__(
            train_dataset=Rows(inputs["train"]),
            eval_dataset=Rows(inputs["validation"]),
            processing_class=tokenizer,
            compute_metrics=self._validation_scores,
            **options,
        )
        self.model_accepts_loss_kwargs = (
            True  # else Trainer neither counts labels nor leaves the loss as it is
        )

    # ---- batches

    def _collate(self, rows: list[Row]) -> dict[str, Any]:
        is_counted = all(row.get(WEIGHT, 1) for row in rows)
        batch = dict(self.collate([{k: v for k, v in row.items() if k != WEIGHT} for row in rows]))
        return {**batch, WEIGHT: self.task.count(batch) if is_counted else 0}

    def get_train_dataloader(self) -> DataLoader:
        # Groups of similar length are looked for among fifty of these.
        self._train_batch_size = self.batch_size
        rows_of_update = self.batch_size * self.args.gradient_accumulation_steps
        order = self._get_train_sampler()
        if hasattr(order, "batch_size"):
            order.batch_size = rows_of_update
        return DataLoader(
            self.train_dataset, batch_sampler=Shares(order, self.batch_size), collate_fn=self._collate
        )

    # ---- loss

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor | None:
        if self.evaluating:  # its batches are weighed afterwards, and not all processes have equally many
            return None
        total = torch.tensor(float(sum(batch[WEIGHT] for batch in batch_samples)), device=device)
        return self.accelerator.reduce(total, "sum")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        own = inputs.pop(WEIGHT)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        if num_items_in_batch is not None:
            # DDP takes the mean over processes.
            loss = loss * (own * self.accelerator.num_processes / num_items_in_batch.clamp(min=1))
        return (loss, outputs) if return_outputs else loss

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.slanted is not None and self.lr_scheduler is None:
            self.lr_scheduler = slanted_triangular(
                optimizer or self.optimizer, num_training_steps, **self.slanted
            )
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    # ---- answers

    def predictions(self, side: str) -> list[Prediction]:
        """Of the examples of a side, in their order."""
        output = self.predict(Rows(self.inputs[side])).predictions
        return self.task.decode(self.rows[side], self.task.data.sides[side], output)

    def _validation_scores(self, evaluated: Any) -> dict[str, float]:
        examples = self.task.data.sides["validation"]
        return self.task.score(
            examples, self.task.decode(self.rows["validation"], examples, evaluated.predictions)
        )

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        return self._in_order(self.eval_dataset if eval_dataset is None else eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        return self._in_order(test_dataset)

    def _in_order(self, dataset: Rows) -> DataLoader:
        size = self.args.per_device_eval_batch_size
        batches = [
            list(range(start, min(start + size, len(dataset)))) for start in range(0, len(dataset), size)
        ]
        mine = share(batches)
        # All processes call the model equally often.
        mine += batches[:1] * (math.ceil(len(batches) / world_size()) - len(mine))
        return DataLoader(dataset, batch_sampler=mine, collate_fn=self._collate)

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        dataset, size = dataloader.dataset, self.args.per_device_eval_batch_size
        n_batches = math.ceil(len(dataset) / size)
        parts: list[tuple[float, int, list[np.ndarray]]] = []
        self.model.eval()
        self.evaluating = True
        for numbers, batch in zip(dataloader.batch_sampler, dataloader, strict=True):
            weight = batch[WEIGHT]
            loss, output, _ = self.prediction_step(
                self.model_wrapped, batch, prediction_loss_only=False, ignore_keys=ignore_keys
            )
            output = output if isinstance(output, tuple) else (output,)
            kept = self.task.keep(output).float().cpu()
            own = [
                own_columns(self.task, dataset.rows[number], row, self.padding_side).numpy()
                for number, row in zip(numbers, kept, strict=True)
            ]
            parts.append((float(loss), weight, own))
        self.evaluating = False
        parts = collect(parts[: len(share(range(n_batches)))], n_batches)
        labels = max(sum(weight for _, weight, _ in parts), 1)
        metrics = {f"{metric_key_prefix}_loss": sum(loss * weight for loss, weight, _ in parts) / labels}
        rows = [row for _, _, own in parts for row in own]
        if self.compute_metrics is not None and description == "Evaluation":
            scores = self.compute_metrics(EvalLoopOutput(rows, None, None, len(rows)))
            metrics |= {f"{metric_key_prefix}_{name}": value for name, value in scores.items()}
        return EvalLoopOutput(predictions=rows, label_ids=None, metrics=metrics, num_samples=len(rows))


__all__ = ["Rows", "Shares", "TaskTrainer"]
