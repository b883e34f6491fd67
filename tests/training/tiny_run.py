"""A whole training run in a second: LSTM, text streams, the stock Trainer and everything of hfseq.training.

8 streams of 12 targets, 2 epochs of 3 updates of 4 tokens; an evaluation every 2 updates, a checkpoint every 2.
In float64 two runs that should be equal are equal to 1e-9.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import set_seed

from hfseq import LSTMConfig, LSTMForCausalLM
from hfseq.data import StreamCollator, StreamPlan
from hfseq.training.averaging import AveragedEvaluation
from hfseq.training.callbacks import (
    ReadableProgress,
    ScaleRateWithLength,
    StopOnNonFiniteLoss,
    TrueEpoch,
    replace_progress,
)
from hfseq.training.checkpoints import CheckpointCallback
from hfseq.training.optimizers import optimizer_factory

STREAMS = 8
EVALUATION_STREAMS = 2
VOCABULARY = 50
OPTIMIZERS = ("adamw", "ntasgd", "muon")


class StopAfter(TrainerCallback):
    """Ends a run after that many updates, schedule and all else as if it were to go on."""

    def __init__(self, update: int) -> None:
        self.update = update

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step == self.update
        return control


def text(tokens: int, seed: int) -> np.ndarray:
    """Tokens with something to learn and to remember: the next is mostly given by the one two before."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, VOCABULARY, tokens)
    for i in range(2, tokens):
        if generator.random() < 0.8:
            ids[i] = (3 * ids[i - 2] + 1) % VOCABULARY
    return ids


def train_plan(**options) -> StreamPlan:
    return StreamPlan(
        text(STREAMS * 12 - 1, 0), **{"streams": STREAMS, "segment_length": 4, "epochs": 2, **options}
    )


def evaluation_plan() -> StreamPlan:
    return StreamPlan(text(EVALUATION_STREAMS * 9, 1), streams=EVALUATION_STREAMS, segment_length=4)


def make_trainer(
    output_dir: Path,
    *,
    optimizer: str = "adamw",
    plan: StreamPlan | None = None,
    eval_dataset=None,
    dtype: torch.dtype = torch.float32,
    dropout: float = 0.2,
    callbacks: list[TrainerCallback] | None = None,
    stop_on_non_finite: bool = True,
    averaged_metric: str = "eval_loss",
    streams: int | None = STREAMS,
    **arguments,
) -> Trainer:
    """A Trainer of the run above; `arguments` go to `TrainingArguments`."""
    rate = {"adamw": 0.02, "ntasgd": 30.0, "muon": 0.05}[optimizer]
    fields = {
        "output_dir": str(output_dir),
        "use_cpu": True,
        "seed": 3,
        "num_train_epochs": 1,
        "per_device_train_batch_size": STREAMS,
        "per_device_eval_batch_size": EVALUATION_STREAMS,
        "train_sampling_strategy": "sequential",
        "learning_rate": rate,
        "weight_decay": 1e-5 if optimizer == "ntasgd" else 0.01,
        "lr_scheduler_type": "constant" if optimizer == "ntasgd" else "linear",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,
        **arguments,
    }
    training_arguments = TrainingArguments(**fields)
    set_seed(3)
    model = LSTMForCausalLM(
        LSTMConfig(
            vocab_size=VOCABULARY,
            embedding_size=6,
            hidden_size=8,
            num_hidden_layers=2,
            hidden_dropout=dropout,
            output_dropout=dropout,
            weight_dropout=dropout,
        )
    ).to(dtype)
    plan = train_plan() if plan is None else plan
    chosen = [TrueEpoch(plan), ScaleRateWithLength(plan)]
    if stop_on_non_finite:
        chosen.append(StopOnNonFiniteLoss())
    if optimizer == "ntasgd":
        chosen.append(AveragedEvaluation(averaged_metric))
    chosen += [CheckpointCallback(streams=streams), *(callbacks or [])]
    options = {"nonmono": 1} if optimizer == "ntasgd" else {}
    trainer = Trainer(
        model,
        training_arguments,
        train_dataset=plan,
        eval_dataset=evaluation_plan() if eval_dataset is None else eval_dataset,
        data_collator=StreamCollator(),
        callbacks=chosen,
        optimizer_cls_and_kwargs=optimizer_factory(optimizer, training_arguments, **options),
    )
    replace_progress(trainer, ReadableProgress(lambda update: plan.segment_length_at(update) * plan.streams))
    return trainer


class SpoilOneProcess(TrainerCallback):
    """Makes the loss (not the gradients) of one update NaN on the second process only."""

    def __init__(self, update: int) -> None:
        self.update, self.current = update, 0

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        def spoil(module, inputs, output):
            if module.training and self.current == self.update and args.process_index == 1:
                output.loss = output.loss + math.nan

        model.register_forward_hook(spoil, prepend=True)

    def on_step_begin(self, args, state, control, **kwargs):
        self.current = state.global_step + 1


def two_processes(folder: Path) -> None:
    """What `test_exact_runs.py` compares; `two_processes.py` calls it."""
    fields = {
        "dtype": torch.float64,
        "dropout": 0.0,
        "eval_steps": 1,
        "per_device_train_batch_size": STREAMS // 2,
        "per_device_eval_batch_size": EVALUATION_STREAMS // 2,
        "ddp_backend": "gloo",
    }
    for optimizer in OPTIMIZERS:
        trainer = make_trainer(folder / f"two-{optimizer}", optimizer=optimizer, **fields)
        # `accelerate launch --cpu` has been seen to run one process without a word.
        if trainer.args.world_size != 2:
            raise RuntimeError(f"world size is {trainer.args.world_size}, not 2")
        trainer.train()

    # Twice interrupted: at the second resume, what each process only loaded is stale.
    parts = folder / "two-in-parts"
    make_trainer(parts, callbacks=[StopAfter(2)], **fields).train()
    make_trainer(parts, callbacks=[StopAfter(4)], **fields).train(
        resume_from_checkpoint=str(parts / "checkpoint-2")
    )
    make_trainer(parts, **fields).train(resume_from_checkpoint=str(parts / "checkpoint-4"))

    started_alone = folder / "one-then-two"
    make_trainer(started_alone, **fields).train(resume_from_checkpoint=str(started_alone / "checkpoint-2"))

    spoiled = make_trainer(folder / "nan", callbacks=[SpoilOneProcess(3)], **fields)
    try:
        spoiled.train()
    except FloatingPointError as error:
        (folder / f"nan-{spoiled.args.process_index}.txt").write_text(str(error))
