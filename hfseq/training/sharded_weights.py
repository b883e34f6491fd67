"""Weights that the processes share out among themselves (FSDP2), whole again where they are needed whole.

Under FSDP2 each process holds a part of every weight (a DTensor), and a forward pass gathers them layer by layer: all
processes must call the model equally often. Training and Trainer's own evaluation do. Scoring does not: each process
translates its own sentences, as many tokens as they take, and gathering every layer for every token would cost far more
than the token. So what is scored, averaged or written is a whole copy, made once by all processes together. It costs
the memory of the weights, without gradients and optimiser: small beside what training needs.

DDP and DeepSpeed's stages 1 and 2 keep whole weights in every process; nothing here does anything then.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.utils import logging as transformers_logging

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(model: nn.Module) -> bool:
    """Whether a process holds only a part of the weights."""
    return any(_is_part(parameter) for parameter in model.parameters())


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of it, without asking the others."""
    return tensor.to_local() if _is_part(tensor) else tensor


def part_like(whole: torch.Tensor, sharded: torch.Tensor) -> torch.Tensor:
    """Of a tensor that all processes have whole and equal, the part that each holds of `sharded`; nothing is sent."""
    if not _is_part(sharded):
        return whole
    from torch.distributed.tensor import DTensor, Replicate

    everywhere = [Replicate()] * sharded.device_mesh.ndim
    replicated = DTensor.from_local(whole, sharded.device_mesh, everywhere, run_check=False)
    return replicated.redistribute(sharded.device_mesh, sharded.placements)


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gathered from all processes, where it is sharded; all call this in the same order."""
    return tensor.full_tensor() if _is_part(tensor) else tensor


def gathered_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """`model.state_dict()` with whole tensors, where the model is; called by all processes, all have it."""
    whole: dict[int, torch.Tensor] = {}  # a tied weight has two names and is gathered once
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in whole:
            whole[id(tensor)] = whole_tensor(tensor.detach())
        state[name] = whole[id(tensor)]
    return state


@contextmanager
def whole_model(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model itself, or where its weights are sharded, a whole copy of it in evaluation mode, computed with in the
    precision of the run. All processes enter it together; inside, each may call it as often as it likes."""
    if not is_sharded(model):
        yield model
        return
    model = _uncompiled(model)
    weights = gathered_weights(model)
    with _no_progress_bar(), _loaded_by_all():
        whole = plain_class(model).from_pretrained(
            None, config=copy.deepcopy(model.config), state_dict=weights, dtype=model.dtype
        )
    whole.to(model.device)
    if model.can_generate():
        whole.generation_config = copy.deepcopy(model.generation_config)
    precision = _precision()
    with torch.autocast(model.device.type, precision, enabled=precision is not None):
        yield whole.eval()


def plain_class(model: nn.Module) -> Any:
    """The model's class as it was before `fully_shard` put one of its own in front."""
    from torch.distributed.fsdp import FSDPModule

    return next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))


def save_whole_weights(
    model: PreTrainedModel, directory: str | os.PathLike, tokenizer: PreTrainedTokenizerBase | None = None
) -> None:
    """Writes a sharded model as `save_pretrained` does a whole one; called by all processes.

    Trainer itself writes whole weights only with fsdp_state_dict_type FULL_STATE_DICT, and then tied ones twice.
    """
    model = _uncompiled(model)
    weights = gathered_weights(model)
    if torch.distributed.get_rank() == 0:
        with _no_progress_bar():
            model.save_pretrained(directory, state_dict=weights)
        if tokenizer is not None:
            tokenizer.save_pretrained(directory)


def save_model(trainer: Trainer, directory: str | os.PathLike) -> None:
    """`trainer.save_model`, with whole weights where the trainer's are sharded."""
    if is_sharded(trainer.model):
        save_whole_weights(trainer.model, directory, trainer.processing_class)
    else:
        trainer.save_model(str(directory))


def _uncompiled(model: PreTrainedModel) -> PreTrainedModel:
    """accelerate compiles a model before it shards it, and Trainer then has the compiled one."""
    return getattr(model, "_orig_mod", model)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Around what is done at every evaluation, by every process."""
    was_enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            transformers_logging.enable_progress_bar()


@contextmanager
def _loaded_by_all() -> Iterator[None]:
    """`from_pretrained` leaves the weights out in all processes but one where fsdp_cpu_ram_efficient_loading is set."""
    name = "FSDP_CPU_RAM_EFFICIENT_LOADING"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _precision() -> torch.dtype | None:
    from accelerate.state import AcceleratorState

    if not AcceleratorState._shared_state:
        return None
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(AcceleratorState().mixed_precision)


def _is_part(tensor: torch.Tensor) -> TypeGuard[DTensor]:
    if type(tensor) is torch.Tensor or not torch.distributed.is_available():
        return False
    from torch.distributed import tensor as distributed

    return isinstance(tensor, distributed.DTensor)


__all__ = [
    "gathered_weights", "is_sharded", "own_part", "part_like", "plain_class", "save_model",
    "save_whole_weights", "whole_model", "whole_tensor",
]  # fmt: skip
