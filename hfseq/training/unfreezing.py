"""ULMFiT: lower learning rates for lower layers, layers that join one after another, slanted triangular rates.

All three are from Howard and Ruder (2018), there for an LSTM language model: its lower layers hold what is general and
should move less, and a new head's first gradients are noise that they should not see. The paper divides the rate by 2.6
from layer to layer and thaws one layer per epoch. This works for every model whose layers are numbered, as hfseq's and
transformers' are: a *group* is the head, then each layer from the last to the first, then what comes before it (the
embeddings). The layers of a fused `nn.LSTM` count one by one.

The slanted triangular schedule rises steeply and falls slowly, from the 32nd part of the rate back to it. Trainer's
"linear" one with warm-up has that shape too, but begins and ends at zero.

Which groups train is a function of the epoch alone, so a resumed run goes on as it would have. Frozen groups cost
neither backward pass nor optimiser state.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

NUMBERED = re.compile(r"^(.*?\.)?\d+\.")  # up to the first number: "model.layers.3."
STACKED = re.compile(r"_l(\d+)(_reverse)?$")  # "weight_hh_l1_reverse" of nn.LSTM
# A batch count does not divide an epoch exactly.
ROUNDING = 1e-6

Named = dict[str, nn.Parameter]


def layer_groups(model: PreTrainedModel) -> list[Named]:
    """The trainable parameters by depth: the head, the layers from last to first, the embeddings.

    What the body holds after its layers (a final norm, a pooler) belongs to the head. A tied parameter appears once.

    Raises:
        ValueError: the model has no numbered layers.
    """
    prefix = f"{model.base_model_prefix}."
    embeddings: Named = {}
    head: Named = {}
    layers: dict[tuple[str, int], Named] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        number = NUMBERED.match(name) if name.startswith(prefix) else None
        if number is not None:
            stacked = STACKED.search(name)
            layer = (number.group(), int(stacked.group(1)) if stacked else 0)
            layers.setdefault(layer, {})[name] = parameter
        elif name.startswith(prefix) and not layers:
            embeddings[name] = parameter
        else:
            head[name] = parameter
    if not layers or not head:
        missing = "head" if layers else "numbered layers"
        raise ValueError(
            f"{type(model).__name__} has no trainable {missing}, so it cannot be trained layer by layer. Leave out "
            "layer_learning_rate_decay and gradual_unfreezing."
        )
    by_depth = [head, *reversed(layers.values()), embeddings]
    return [group for group in by_depth if group]


def layerwise_optimizer(trainer: Trainer, decay: float) -> torch.optim.Optimizer:
    """The optimiser that `trainer.args` name, with the learning rate times `decay` for each group further down.

    Assign it to `trainer.optimizer` before training. Weight decay falls on the parameters that Trainer would choose.

    Raises:
        ValueError: decay is not above 0 and at most 1, or the model has no numbered layers.
    """
    if not 0 < decay <= 1:
        raise ValueError(
            f"layer_learning_rate_decay must be above 0 and at most 1, not {decay}: 1 is one rate for all."
        )
    kind, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    decayed = set(trainer.get_decay_parameter_names(trainer.model))
    groups: list[dict[str, Any]] = []
    for depth, group in enumerate(layer_groups(trainer.model)):
        rate = trainer.args.learning_rate * decay**depth
        for decays, weight_decay in ((True, trainer.args.weight_decay), (False, 0.0)):
            chosen = [parameter for name, parameter in group.items() if (name in decayed) == decays]
            if chosen:
                groups.append({"params": chosen, "lr": rate, "weight_decay": weight_decay})
    return kind(groups, **options)


def slanted_triangular(
    optimizer: torch.optim.Optimizer, updates: int, *, cut_fraction: float = 0.1, ratio: float = 32.0
) -> LambdaLR:
    """The paper's schedule: update t of T has the rate times (1 + p (ratio - 1)) / ratio, where p is t / cut up to
    cut = floor(T cut_fraction), and then 1 - (t - cut) / (cut (1 / cut_fraction - 1)).

    Args:
        updates: T, of the whole run.
        cut_fraction: the share of updates in which the rate rises.
        ratio: how many times smaller than the highest the lowest rate is.

    Raises:
        ValueError: cut_fraction is not between 0 and 1, or ratio is below 1.
    """
    if not 0 < cut_fraction < 1:
        raise ValueError(f"cut_fraction must be above 0 and below 1, not {cut_fraction}.")
    if not 1 <= ratio < math.inf:
        raise ValueError(f"ratio must be a number of at least 1, not {ratio}.")
    cut = math.floor(updates * cut_fraction)
    # Of so few updates that none rises, the first has the highest rate.
    falling = (cut or updates * cut_fraction) * (1 / cut_fraction - 1)

    def factor(update: int) -> float:
        p = update / cut if update < cut else max(0.0, 1 - (update - cut) / falling)
        return (1 + p * (ratio - 1)) / ratio

    return LambdaLR(optimizer, factor)


class GradualUnfreezing(TrainerCallback):
    """Trains the head alone first, then one more group every `epochs` epochs, until all train.

    Several processes need `ddp_find_unused_parameters=True`.

    Args:
        model: the model that is trained, with everything trainable that ever will be.
        epochs: epochs from one group to the next.
        stopping: early stopping, which then counts only from when all groups train; give it to Trainer first.

    Raises:
        ValueError: epochs is not above 0, or the model has no numbered layers.
    """

    def __init__(
        self, model: PreTrainedModel, epochs: float = 1.0, stopping: EarlyStoppingCallback | None = None
    ):
        if not epochs > 0:
            raise ValueError(f"gradual_unfreezing takes epochs per layer above 0, not {epochs}.")
        self.groups = layer_groups(model)
        self.epochs, self.stopping = epochs, stopping
        self.training = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.training = 0
        self.on_step_begin(args, state, control)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        training = 1 + math.floor((state.epoch or 0) / self.epochs + ROUNDING)
        if training != self.training:
            self._train(training)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self.stopping is not None and self.training < len(self.groups):
            self.stopping.early_stopping_patience_counter = 0
            control.should_training_stop = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._train(len(self.groups))

    def _train(self, count: int) -> None:
        """Lets the first `count` groups train."""
        self.training = count
        for depth, group in enumerate(self.groups):
            for parameter in group.values():
                parameter.requires_grad_(depth < count)


__all__ = ["GradualUnfreezing", "layer_groups", "layerwise_optimizer", "slanted_triangular"]
