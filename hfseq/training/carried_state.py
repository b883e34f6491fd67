"""The state that text streams carry from segment to segment, as files of a checkpoint.

Trainer's checkpoints hold parameters, optimiser and random states, but not the recurrent state in which each stream
stands; a run resumed without it restarts every stream at zero. Each process writes the streams it trained,
`carried_state_{rank}.safetensors`: `stream_id` [n] and tensors [layers, n, hidden]. Every process reads all files, so a
run resumes under another number of processes. (What a process only loaded it does not write again, see
`CarriedStates.state_dict`: another one has trained it further.)
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments

FILE_NAME = "carried_state_{rank}.safetensors"


def check_stream_arguments(
    args: TrainingArguments, streams: int, evaluation_streams: int | None = None
) -> None:
    """Raises ValueError where `args` would break the streams silently: their order, or which process has which.

    Args:
        args: the run's arguments.
        streams: of the training plan; must be the global batch.
        evaluation_streams: of the evaluation plan, if it is one; must fill whole batches of all processes.
    """
    if evaluation_streams is not None and evaluation_streams % (args.eval_batch_size * args.world_size):
        raise ValueError(
            f"The evaluation plan has {evaluation_streams} streams, but {args.eval_batch_size} rows per process x "
            f"{args.world_size} processes are evaluated at once: a batch would hold two segments of one stream, or a "
            "stream change its process. Set per_device_eval_batch_size so that the product divides the streams."
        )
    if args.auto_find_batch_size:
        raise ValueError("auto_find_batch_size=True would change the number of streams: set it to False.")
    global_batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    if streams != global_batch:
        raise ValueError(
            f"The plan has {streams} streams, but an update takes {global_batch} rows ({args.train_batch_size} per "
            f"process x {args.gradient_accumulation_steps} accumulated x {args.world_size} processes): each update "
            "must be one segment of every stream. Change per_device_train_batch_size, gradient_accumulation_steps "
            "or the plan's streams."
        )
    if args.train_sampling_strategy != "sequential":
        raise ValueError(
            f"train_sampling_strategy={args.train_sampling_strategy!r} would shuffle the segments of the streams: set "
            "it to 'sequential' (the plan is in its final order)."
        )
    if args.accelerator_config.split_batches or args.accelerator_config.dispatch_batches:
        raise ValueError(
            "accelerator_config with split_batches or dispatch_batches moves streams between processes: leave both off."
        )
    if args.dataloader_persistent_workers:
        raise ValueError("dataloader_persistent_workers=True breaks exact resumes: set it to False.")
    if args.ignore_data_skip:
        raise ValueError(
            "ignore_data_skip=True would restart the text, but not the streams' states: set it to False."
        )


def write_carried_state(states: dict[str, torch.Tensor], directory: Path, rank: int) -> None:
    """Writes this process's streams, `model.carried_states.state_dict()`, whole or not at all."""
    if "stream_id" not in states:
        raise ValueError(
            "No stream was trained: the data collator must pass `stream_id` (use StreamCollator)."
        )
    name = FILE_NAME.format(rank=rank)
    partial = directory / f"{name}.partial"
    save_file(states, partial)
    os.replace(partial, directory / name)


def read_carried_state(directory: Path, streams: int) -> dict[str, torch.Tensor]:
    """The states of all streams, from the files of all processes, in the order of their ids.

    Returns:
        {"stream_id": [streams], "block0.state0": [layers, streams, hidden], ...} on the CPU.

    Raises:
        FileNotFoundError: the checkpoint has no carried state.
        ValueError: it has not exactly the streams 0 ... streams - 1.
    """
    files = sorted(directory.glob(FILE_NAME.format(rank="*")))
    if not files:
        raise FileNotFoundError(
            f"{directory} has no {FILE_NAME.format(rank='*')}: the streams cannot go on from where they stood. Resume "
            "from a checkpoint written with CheckpointCallback(streams=...), or start a new run from its weights."
        )
    parts = [load_file(file) for file in files]
    ids = torch.cat([part["stream_id"] for part in parts])
    if not torch.equal(ids.sort().values, torch.arange(streams)):
        raise ValueError(
            f"{directory} holds the states of {ids.numel()} streams ({len(files)} files), but this run has {streams}. "
            "Resume with the same number of streams (the global batch: rows x accumulation x processes)."
        )
    order = ids.argsort()
    merged = {
        k: torch.cat([part[k] for part in parts], dim=1)[:, order] for k in parts[0] if k != "stream_id"
    }
    return {"stream_id": ids[order], **merged}
