"""NT-ASGD: SGD whose weights are averaged once the evaluation stops improving (Merity, Keskar and Socher 2017).

Plain SGD until an evaluation's loss is not better than the best of the evaluations more than `nonmono` ago; from then
on the mean of all later weights is kept beside them. Evaluations, and the model at the end of training, use the mean;
training goes on with the raw weights.

Where things live decides whether a resume is exact: evaluation history, trigger, count and averages are all in the
optimiser's `state_dict()`, so the stock checkpoint holds them. The swap rides on `optimizer.eval()` and
`optimizer.train()`, which `Trainer` calls itself at each evaluation and each training step; `AveragedEvaluation`
only swaps back before a checkpoint of the same step is written (it must hold the raw weights).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy


class NTASGD(torch.optim.SGD):
    """SGD without momentum, averaging once `record_evaluation` triggers it.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        weight_decay: L2 penalty on everything in the group.
        nonmono: how many of the latest evaluations the new one is *not* compared with.
    """

    def __init__(self, params: Iterable, lr: float, weight_decay: float = 0.0, nonmono: int = 5) -> None:
        if nonmono < 1:
            raise ValueError(f"nonmono must be at least 1 evaluation, not {nonmono}.")
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self._holds_averages = False
        for group in self.param_groups:
            # Immutable values: `param_groups` is what `state_dict` saves besides tensors.
            group.update(nonmono=nonmono, evaluations=(), is_averaging=False, averaged_updates=0)

    @property
    def is_averaging(self) -> bool:
        """Whether the trigger has fired."""
        return self.param_groups[0]["is_averaging"]

    def record_evaluation(self, loss: float) -> None:
        """Appends an evaluation's loss and starts averaging if it is time. All processes must pass the same loss."""
        for group in self.param_groups:
            earlier = group["evaluations"][: -group["nonmono"]]
            if earlier and not loss < min(earlier):
                group["is_averaging"] = True
            group["evaluations"] = (*group["evaluations"], float(loss))

    @torch.no_grad()
    # torch declares two overloads, of which this is the one function.
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        self.train()
        loss = super().step(closure)
        for group in self.param_groups:
            if not group["is_averaging"]:
                continue
            group["averaged_updates"] += 1
            for parameter in group["params"]:
                state = self.state[parameter]
                if "average" not in state:
                    state["average"] = parameter.detach().clone()
                else:
                    state["average"].lerp_(parameter, 1 / group["averaged_updates"])
        return loss

    def eval(self) -> None:
        """Puts the averages into the model (and the raw weights aside) if there are any."""
        if not self._holds_averages and self.param_groups[0]["averaged_updates"]:
            self._swap()
            self._holds_averages = True

    def train(self) -> None:
        """Puts the raw weights back."""
        if self._holds_averages:
            self._swap()
            self._holds_averages = False

    @torch.no_grad()
    def _swap(self) -> None:
        # Values, not storages: a GPU's recurrent weights are parts of one flat buffer.
        for group in self.param_groups:
            for parameter in group["params"]:
                average = self.state[parameter]["average"]
                raw = parameter.detach().clone()
                parameter.copy_(average)
                average.copy_(raw)

    def state_dict(self) -> dict:
        if self._holds_averages:
            raise RuntimeError(
                "The model holds the averaged weights now, so this state would not fit it: call `optimizer.train()` "
                "first, then save model and optimizer together."
            )
        return super().state_dict()


class AveragedEvaluation(TrainerCallback):
    """Tells `NTASGD` the evaluation losses and leaves the averages in the model when training ends.

    Args:
        metric: the metric to watch; lower is better. With several evaluation sets, name one: "eval_NAME_loss".

    Raises:
        ValueError: at the start, where the run could not use the averages.
    """

    def __init__(self, metric: str = "eval_loss") -> None:
        self.metric = metric
        self._in_training = False
        self._last_step = 0
        self._other_metrics: list[str] | None = None  # what the last evaluations held instead of `metric`

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: object,
    ) -> None:
        if not isinstance(_unwrapped(optimizer), NTASGD):
            raise ValueError(
                f"AveragedEvaluation needs the optimizer 'ntasgd', not {type(_unwrapped(optimizer)).__name__}: pass "
                "optimizer_cls_and_kwargs=optimizer_factory('ntasgd', args), or drop the callback."
            )
        if args.load_best_model_at_end:
            raise ValueError(
                "load_best_model_at_end=True would load a checkpoint's raw weights over the averages, which are "
                "NT-ASGD's result: set it to False."
            )
        if args.eval_strategy == IntervalStrategy.NO:
            raise ValueError(
                "NT-ASGD starts averaging after evaluations: set eval_strategy to 'steps' or 'epoch'."
            )
        self._in_training = True
        self._last_step = state.global_step  # eval_on_start repeats nothing and counts for nothing

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: dict,
        optimizer: torch.optim.Optimizer | None = None, **kwargs: object,
    ) -> None:  # fmt: skip
        if not self._in_training:
            return
        ntasgd = _unwrapped(optimizer)
        ntasgd.train()  # a checkpoint of this step holds the raw weights
        if self.metric not in metrics:
            if state.global_step > self._last_step:
                self._other_metrics = [*(self._other_metrics or []), *metrics]
        elif state.global_step > self._last_step:
            if not math.isfinite(metrics[self.metric]):
                raise FloatingPointError(
                    f"{self.metric} is {metrics[self.metric]} at step {state.global_step}: lower the learning rate "
                    f"(now {args.learning_rate}) or max_grad_norm (now {args.max_grad_norm})."
                )
            ntasgd.record_evaluation(metrics[self.metric])
            self._last_step = state.global_step
            self._other_metrics = None

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        if self._other_metrics is not None and state.global_step > self._last_step:
            raise ValueError(
                f"The evaluation at step {state.global_step} has no metric {self.metric!r}, on which averaging "
                f"depends. Pass AveragedEvaluation(metric=...) one of {self._other_metrics}."
            )

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: object,
    ) -> None:
        self._in_training = False
        _unwrapped(optimizer).eval()


def _unwrapped(optimizer: torch.optim.Optimizer | None) -> Any:
    """accelerate's wrapper keeps the real optimizer in `.optimizer`."""
    return getattr(optimizer, "optimizer", optimizer)
