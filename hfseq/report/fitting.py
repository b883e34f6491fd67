"""The training loop of the report's small models: AdamW or Muon, a warm-up, then a constant rate.

The rate does not decay, so every point of a curve is what a run of that length reaches: one run answers both "after
equally many tokens" and "after equally many seconds". Seconds are those of the updates alone: on a CPU of processor
time, which other programs do not lengthen, on a GPU of the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..training.optimizers import build_adamw, build_muon

WARM_UP = 0.05
"""Share of the budget in which the rate rises to its value."""
STEADY = 100
"""Updates in which a task stays learnt, before a training that has `enough` ends."""
CLIP = 1.0
"""Largest norm of an update's gradient."""


@dataclass
class Fit:
    """How a training went."""

    updates: int = 0
    tokens: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    """What `look` said: updates, tokens, seconds, and its own numbers."""


def fit(
    model: nn.Module,
    batches: Iterable[dict[str, Any]],
    *,
    learning_rate: float,
    updates: int | None = None,
    seconds: float | None = None,
    optimizer: str = "adamw",
    weight_decay: float = 0.0,
    look: Callable[[], dict[str, float]] | None = None,
    looks: int = 0,
    tokens_of: Callable[[dict[str, Any]], int] | None = None,
    decay: bool = False,
    enough: float | None = None,
) -> Fit:
    """Trains a model in place.

    Args:
        model: computes its loss from a batch.
        batches: as many as are needed.
        updates, seconds: where training ends, whichever comes first; at least one is given.
        optimizer: "adamw" or "muon".
        look: asked `looks` times, evenly over the budget, and at the end; its time does not count.
        tokens_of: tokens of a batch; None: its labels' number.
        enough: end as soon as no loss of the last `STEADY` updates was above this: the task is learnt.
        decay: let the rate fall linearly to zero over the budget, where only the end is of interest.

    Raises:
        ValueError: neither updates nor seconds. FloatingPointError: the loss is not finite.
    """
    if updates is None and seconds is None:
        raise ValueError("A training needs an end: updates or seconds.")
    build = build_muon if optimizer == "muon" else build_adamw
    optimiser = build(model, lr=learning_rate, weight_decay=weight_decay)
    device = next(model.parameters()).device
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    done, next_look, steady = Fit(), 1, 0
    model.train()
    for batch in batches:
        share = _share(done, updates, seconds)
        if share >= 1:
            break
        start = clock()
        factor = min(1.0, (share + 1e-3) / WARM_UP) * ((1 - share) if decay else 1)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * factor
        loss = model(**{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The loss of {type(model).__name__} is {float(loss)} at update {done.updates}: a lower learning rate "
                f"than {learning_rate:g} may help."
            )
        steady = steady + 1 if enough is not None and float(loss.detach()) <= enough else 0
        done.seconds += clock() - start
        done.updates += 1
        done.tokens += batch["labels"].numel() if tokens_of is None else tokens_of(batch)
        if steady >= STEADY:
            break
        if look is not None and _share(done, updates, seconds) * looks >= next_look:
            next_look = int(_share(done, updates, seconds) * looks) + 1
            done.curve.append(_point(done, model, look))
    if look is not None and (not done.curve or done.curve[-1]["updates"] < done.updates):
        done.curve.append(_point(done, model, look))
    model.eval()
    return done


def _share(done: Fit, updates: int | None, seconds: float | None) -> float:
    shares = [done.updates / updates] if updates else []
    return max([*shares, done.seconds / seconds] if seconds else shares)


def _point(done: Fit, model: nn.Module, look: Callable[[], dict[str, float]]) -> dict[str, float]:
    model.eval()
    try:
        return {"updates": done.updates, "tokens": done.tokens, "seconds": done.seconds, **look()}
    finally:
        model.train()


__all__ = ["Fit", "fit"]
