"""What does not go together with the way in which the processes share a model out: refused before training.

accelerate's configuration decides between DDP, FSDP2 and DeepSpeed, a recipe decides the rest, and neither knows of the
other. What would fail after the first hours, or be wrong without a word, is looked for when both are known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import Trainer

# What the optimisers of hfseq need that flat vectors of parameters do not give.
_WITHOUT_ZERO = {
    "muon": "Muon needs matrices",
    "ntasgd": "NT-ASGD puts its averages into the model's own parameters",
}


def is_shared_out(given: Mapping[str, Any]) -> bool:
    """Whether FSDP or DeepSpeed was asked for, by TrainingArguments' fields or by `accelerate launch`."""
    launched = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
    return bool(given.get("fsdp") or given.get("deepspeed")) or any(
        os.environ.get(name, "").lower() == "true" for name in launched
    )


def check_strategy(trainer: Trainer, optimizer: str, resume_from: Path | None = None) -> None:
    """Compares what the trainer was launched with and what it is to train.

    Args:
        trainer: before training.
        optimizer: one of `hfseq.training.optimizers.BUILDERS`.
        resume_from: the checkpoint that it goes on from.

    Raises:
        ValueError: what does not go together, and what does.
    """
    if trainer.is_deepspeed_enabled:
        _check_deepspeed(trainer, optimizer)
    elif trainer.is_fsdp_enabled:
        if trainer.accelerator.state.fsdp_plugin.fsdp_version != 2:
            raise ValueError(
                "FSDP version 1 flattens the parameters, so that they can be neither scored nor averaged here: set "
                "fsdp_version: 2 (scripts/launch/fsdp2.yaml)."
            )
        if optimizer == "ntasgd":
            raise ValueError(
                "optimizer ntasgd does not go with FSDP: its averages come into being after the first checkpoints, and "
                "a sharded checkpoint loads only what a new optimizer has. Use DDP, or optimizer adamw with "
                "average_checkpoints."
            )
    elif trainer.args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise ValueError(
            "FSDP was asked for, but there is nothing to shard over (it takes several processes with an "
            "accelerator each), and accelerate would train with whole weights: leave it out, or launch with "
            "scripts/launch/fsdp2.yaml on such a machine."
        )
    if resume_from is not None:
        _check_checkpoint(trainer, resume_from)


def _check_deepspeed(trainer: Trainer, optimizer: str) -> None:
    plugin = trainer.accelerator.state.deepspeed_plugin
    if plugin.zero_stage >= 3:
        raise ValueError(
            "DeepSpeed's ZeRO stage 3 shards the weights, which are never whole then, so that they can be neither "
            "scored nor averaged here: use stage 2 (scripts/launch/zero2.yaml), or FSDP2 (scripts/launch/fsdp2.yaml)."
        )
    if "optimizer" in plugin.deepspeed_config:
        raise ValueError(
            f"The DeepSpeed configuration has an optimizer of its own, which would be used in place of optimizer "
            f"{optimizer}: leave its section out."
        )
    if reason := _WITHOUT_ZERO.get(optimizer):
        raise ValueError(
            f"optimizer {optimizer} does not go with DeepSpeed: {reason}, and ZeRO gives it flat vectors of all "
            "parameters. Use optimizer adamw, or shard with FSDP2 (scripts/launch/fsdp2.yaml)"
            + (", which goes with muon." if optimizer == "muon" else " and adamw.")
        )


def _check_checkpoint(trainer: Trainer, checkpoint: Path) -> None:
    """Each way of sharding has its own form of checkpoint."""
    names = {path.name for path in checkpoint.iterdir()}
    saved = "DDP or one process"
    if any(name.startswith("pytorch_model_fsdp") for name in names):
        saved = "FSDP"
    elif any(name.startswith("global_step") for name in names):
        saved = "DeepSpeed"
    now = "DDP or one process"
    if trainer.is_fsdp_enabled:
        now = "FSDP"
    elif trainer.is_deepspeed_enabled:
        now = "DeepSpeed"
    if now != saved:
        raise ValueError(
            f"{checkpoint} was saved under {saved}, and this run is under {now}, which cannot read its optimizer: "
            "launch it as it was (the number of processes may be another), or begin a new run from its weights with "
            "training.initialize_from."
        )


__all__ = ["check_strategy", "is_shared_out"]
