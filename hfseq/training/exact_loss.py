"""The loss of any model as one sum over its targets, whatever its class makes of `num_items_in_batch`.

Trainer counts the labels of a whole update and hands their number to the model, which divides the sum of its losses by
it: so 16 x 1 rows learn what 4 x 4 do, and two processes what one does. Some classes of transformers (BERT, BART,
Marian, T5 of version 5) take the argument and ignore it: `honours_item_count` finds out by asking, and
`loss_from_logits` is what such a model should have returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from ..models.losses import IGNORE_INDEX


@torch.no_grad()
def honours_item_count(model: torch.nn.Module, batch: Mapping[str, Any]) -> bool:
    """Whether the model's loss is the sum over the batch's labels divided by `num_items_in_batch`.

    Args:
        model: on any device; its mode, and the random state, are left as found.
        batch: inputs and labels, run through the model twice.
    """
    batch = on_device(batch, model)
    was_training = model.training
    model.eval()
    try:
        one, two = (
            model(**batch, num_items_in_batch=torch.tensor(n, device=_device(model))).loss for n in (100, 200)
        )
    except TypeError:  # no such argument
        return False
    finally:
        model.train(was_training)
    return bool(torch.isclose(one, 2 * two, rtol=1e-3))


def loss_from_logits(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None, shifts: bool
) -> torch.Tensor:
    """Summed cross-entropy of the labels, divided by their number in the update.

    Args:
        outputs: of the model, with `logits` (or `prediction_logits`) [batch, time, vocabulary].
        labels: [batch, time], -100 where there is none.
        num_items_in_batch: the number to divide by; None: the labels of this batch.
        shifts: position t predicts label t + 1.
    """
    logits = outputs["prediction_logits"] if "prediction_logits" in outputs else outputs["logits"]
    if shifts:
        logits, labels = logits[:, :-1], labels[:, 1:]
    labels = labels.to(logits.device)
    if num_items_in_batch is None:
        num_items_in_batch = (labels != IGNORE_INDEX).sum().clamp(min=1)
    elif torch.is_tensor(num_items_in_batch):
        num_items_in_batch = num_items_in_batch.to(logits.device)
    total = F.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )
    return total / num_items_in_batch


def summed_loss(
    model: torch.nn.Module, batch: Mapping[str, Any], *, honours: bool, shifts: bool
) -> torch.Tensor:
    """Sum of the losses of the batch's labels, in nats, float64.

    Args:
        model: in evaluation mode.
        batch: on any device.
        honours: what `honours_item_count` says of the model.
        shifts: position t predicts label t + 1.
    """
    batch = on_device(batch, model)
    if honours:
        return model(**batch, num_items_in_batch=1).loss.double()
    labels = batch.pop("labels")
    return loss_from_logits(model(**batch), labels, 1, shifts).double()


def on_device(batch: Mapping[str, Any], model: torch.nn.Module) -> dict[str, Any]:
    """The batch where the model is."""
    device = _device(model)
    return {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device


__all__ = ["honours_item_count", "loss_from_logits", "on_device", "summed_loss"]
