"""Contract 9: a run that was interrupted and resumed ends as the run that was not, every bit of it.

Weights, optimiser, data order, dropout masks, the state that streams carry, what callbacks remember: one of them lost
is a run that nobody can reproduce, and mostly nobody notices.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from .cases import Case, dropout_fields
from .comparing import FLOAT32, require_close, require_same_bits
from .loss import random_tokens
from .training_runs import losses, trainer
from .violation import require, run_checks

UPDATES, INTERRUPTED_AT = 6, 4


def contract(case: Case) -> None:
    checks = [shuffled_rows]
    if case.streams:
        checks += [contiguous_streams, streams_without_their_state_are_refused]
    run_checks(case, *checks)


class StopAfter(TrainerCallback):
    """Ends a run in the middle, the schedule being that of the whole run."""

    def __init__(self, update: int):
        self.update = update

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.update


def rows_trainer(case: Case, directory: str, *callbacks, **options):
    """AdamW with a schedule, dropout, shuffling, accumulation, evaluations in between."""
    model = case.model(FLOAT32, dropout=True)
    lengths = [3, 5, 2, 6, 4, 5, 3, 6, 2, 4, 6, 5]
    return trainer(
        case,
        model,
        case.rows(model.config, lengths * 2),
        directory,
        eval_dataset=case.rows(model.config, lengths[:4], seed=1),
        max_steps=UPDATES,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        callbacks=list(callbacks),
        **{**_LONG_RUN, **options},
    )


def streams_trainer(case: Case, directory: str, *callbacks, **options):
    from ..data import StreamCollator, StreamPlan
    from ..training import CheckpointCallback

    model = case.model(FLOAT32, dropout=True)
    plan = StreamPlan(random_tokens(model.config, 4 * 12), streams=4, segment_length=4, epochs=2)
    return trainer(
        case,
        model,
        plan,
        directory,
        data_collator=StreamCollator(),
        eval_dataset=StreamPlan(random_tokens(model.config, 17), streams=2, segment_length=4),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        per_device_eval_batch_size=2,
        train_sampling_strategy="sequential",
        num_train_epochs=1,
        callbacks=[CheckpointCallback(streams=plan.streams), *callbacks],
        **{**_LONG_RUN, **options},
    )


_LONG_RUN = {
    "optim": "adamw_torch",
    "learning_rate": 0.01,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 1.0,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
}


def _require_resumed_run_is_the_same(case: Case, make) -> None:
    with tempfile.TemporaryDirectory() as whole_directory, tempfile.TemporaryDirectory() as directory:
        whole = make(case, whole_directory)
        whole.train()
        require(
            whole.state.global_step == UPDATES,
            f"the run made {whole.state.global_step} updates, not {UPDATES}",
        )

        make(case, directory, StopAfter(INTERRUPTED_AT)).train()
        # Another process would start with another random state.
        torch.manual_seed(12345)
        checkpoint = os.path.join(directory, f"checkpoint-{INTERRUPTED_AT}")
        resumed = make(case, directory)
        # As far from the checkpoint as a fresh model can be, but in what no checkpoint has: fixed positions.
        never_saved = getattr(resumed.model, "_keys_to_ignore_on_save", None) or ()
        with torch.no_grad():
            for name, parameter in resumed.model.named_parameters():
                if parameter.requires_grad and name not in never_saved:
                    parameter.zero_()
        resumed.train(resume_from_checkpoint=checkpoint)

        require_same_bits(
            "weights", dict(resumed.model.named_parameters()), dict(whole.model.named_parameters())
        )
        require_same_bits(
            "optimiser", _flat(resumed.optimizer.state_dict()), _flat(whole.optimizer.state_dict())
        )
        logged, expected = losses(resumed), losses(whole)
        require(
            torch.equal(logged, expected), f"logged losses {logged.tolist()} instead of {expected.tolist()}"
        )
        evaluated = [
            [e["eval_loss"] for e in run.state.log_history if "eval_loss" in e] for run in (resumed, whole)
        ]
        require(evaluated[0] == evaluated[1], f"evaluation losses {evaluated[0]} instead of {evaluated[1]}")
        last = f"checkpoint-{UPDATES}"
        for name in sorted(path.name for path in Path(whole_directory, last).glob("*.safetensors")):
            require_same_bits(
                f"{last}/{name}",
                load_file(Path(directory, last, name)),
                load_file(Path(whole_directory, last, name)),
            )
        _require_not_vacuous(case, make)


def _require_not_vacuous(case: Case, make) -> None:
    """Dropout, where the configuration has any, must have been at work: another seed gives other losses."""
    if not dropout_fields(case.config(dropout=True)):
        return
    runs = []
    for seed in (0, 1):
        with tempfile.TemporaryDirectory() as directory:
            made = make(case, directory, StopAfter(1), seed=seed, data_seed=0, save_strategy="no")
            made.train()
            runs.append(losses(made))
    require(not torch.equal(*runs), "vacuous: two seeds give the same losses, dropout does nothing")


def _flat(state: dict) -> dict[str, torch.Tensor]:
    """An optimiser's state as named tensors."""
    flat = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            flat[f"{index}.{name}"] = value if torch.is_tensor(value) else torch.tensor(value)
    for index, group in enumerate(state["param_groups"]):
        flat[f"group {index} learning rate"] = torch.tensor(group["lr"], dtype=torch.float64)
    return flat


def shuffled_rows(case: Case) -> None:
    _require_resumed_run_is_the_same(case, rows_trainer)


def contiguous_streams(case: Case) -> None:
    _require_resumed_run_is_the_same(case, streams_trainer)


def streams_without_their_state_are_refused(case: Case) -> None:
    with tempfile.TemporaryDirectory() as directory:
        streams_trainer(case, directory, StopAfter(INTERRUPTED_AT)).train()
        checkpoint = Path(directory, f"checkpoint-{INTERRUPTED_AT}")
        for file in checkpoint.glob("carried_state_*"):
            file.unlink()
        made = streams_trainer(case, directory)
        try:
            made.train(resume_from_checkpoint=str(checkpoint))
        except (FileNotFoundError, ValueError) as error:
            require(checkpoint.name in str(error), f"refused without naming {checkpoint.name}: {error}")
        else:
            require(False, "streams were resumed without the state that they carried")
    # The state matters: without carrying, the second update would have another loss.
    model = case.model(FLOAT32)
    plan = streams_trainer(case, tempfile.gettempdir(), save_strategy="no").train_dataset
    first, second = plan.__getitems__([0, 1]), plan.__getitems__([plan.streams, plan.streams + 1])
    ids, more = (torch.stack([row["input_ids"] for row in rows]) for rows in (first, second))
    labels = torch.stack([row["shift_labels"] for row in second])
    stream_id = torch.tensor([0, 1])
    with torch.no_grad():
        model(input_ids=ids, stream_id=stream_id, starts_anew=torch.tensor([True, True]))
        carried = model(input_ids=more, shift_labels=labels, stream_id=stream_id).loss
        joined = model(input_ids=torch.cat([ids, more], 1)).logits[:, ids.shape[1] :]
        fresh = model(input_ids=more, shift_labels=labels).loss
    expected = torch.nn.functional.cross_entropy(joined.flatten(0, 1), labels.flatten())
    require_close("loss of a second segment with carried state", carried, expected, FLOAT32.tolerance)
    require(float(carried) != float(fresh), "vacuous: the carried state does not matter")
