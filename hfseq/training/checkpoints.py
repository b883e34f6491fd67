"""Checkpoints that are whole, or are not there.

A run may be killed in the middle of a save, and `get_last_checkpoint` would resume from the torso: it looks at
directory names only. So the last thing written is a marker, `complete.json`, that lists the checkpoint's files with
their sizes and checksums; `newest_complete_checkpoint` takes only directories whose marker is true, and says which it
passes over and why. Order of a save: Trainer's own files, each process's carried state, a barrier, the marker (rank 0).

A checkpoint that a signal asked for (`interruption.py`) is one more than the run would have made. It counts neither
for `save_total_limit` nor for averaging: the next one that is complete takes its place.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, SaveStrategy

from ..models.caches import CarriedStates
from .carried_state import FILE_NAME, check_stream_arguments, read_carried_state, write_carried_state
from .checksums import checksum_of, is_unchanged
from .interruption import StopOnSignal
from .sharded_weights import is_sharded, save_whole_weights

logger = logging.getLogger(__name__)

MARKER_NAME = "complete.json"


def newest_complete_checkpoint(output_dir: str | os.PathLike) -> Path | None:
    """The `checkpoint-N` of the highest N in `output_dir` that was written to the end and is still what was written, or
    None. Those that it passes over are logged, with what is wrong with them."""
    for path in numbered_checkpoints(output_dir):
        problem = fault_of(path)
        if problem is None:
            return path
        logger.warning("%s %s: an older checkpoint is taken, if there is one.", path, problem)
    return None


def numbered_checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """All directories `checkpoint-N` in `output_dir`, the newest first, whole or not."""
    numbered = []
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if (match := re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name)) and path.is_dir():
            numbered.append((int(match[1]), path))
    return [path for _, path in sorted(numbered, reverse=True)]


def is_complete(checkpoint: str | os.PathLike) -> bool:
    """Whether the directory has its marker, and every file that the marker lists, unchanged."""
    return fault_of(Path(checkpoint)) is None


def fault_of(checkpoint: Path) -> str | None:
    """Why a run cannot go on from there ("was not written to the end", "is damaged: ..."); None: it can.

    Checkpoints of hfseq 0.1 have no checksums: they are known by the sizes of their files.
    """
    if not (checkpoint / MARKER_NAME).is_file():
        return "was not written to the end"
    marker = read_marker(checkpoint)
    if marker is None:
        return f"is damaged: {MARKER_NAME} cannot be read"
    checksums = marker.get("checksums", {})
    for name, size in marker["files"].items():
        file = checkpoint / name
        if not file.is_file():
            return f"is damaged: {name} is missing"
        if file.stat().st_size != size:
            return f"is damaged: {name} has {file.stat().st_size} bytes, but {size} were written"
        if name in checksums and not is_unchanged(file, checksums[name]):
            return f"is damaged: {name} has another checksum than was written"
    return None


def read_marker(checkpoint: Path) -> dict | None:
    """What `write_marker` wrote; None where there is none, or something else."""
    try:
        marker = json.loads((checkpoint / MARKER_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(marker, dict) or not isinstance(marker.get("files"), dict):
        return None
    checksums = marker.get("checksums", {})
    if not isinstance(checksums, dict):
        return None
    return marker if all(isinstance(text, str) for text in checksums.values()) else None


def clear_the_way(output_dir: Path) -> None:
    """Removes what saves that were cut short left, and puts damaged checkpoints aside, as `damaged-checkpoint-N`.

    Trainer counts directories when it deletes the oldest beyond `save_total_limit`: a torso would cost a whole one.
    """
    for path in numbered_checkpoints(output_dir):
        if not (path / MARKER_NAME).is_file():
            shutil.rmtree(path)
        elif fault_of(path) is not None:
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)


@contextmanager
def refused_pickles_told(checkpoint: str | os.PathLike | None) -> Iterator[None]:
    """Around `trainer.train(resume_from_checkpoint=checkpoint)`: what a refused pickle means, in our words.

    Trainer keeps optimiser, schedule and random state as pickles of torch and reads them with `weights_only`, so that
    nothing in them is run; but the error names no file and tells how to switch the protection off.

    Raises:
        ValueError: one of them is damaged, or holds what could run code.
    """
    try:
        yield
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{checkpoint} cannot be resumed from: its optimizer.pt, scheduler.pt, rng_state*.pth or pytorch_model.bin "
            "is damaged, or holds more than tensors and plain values, and a pickle of anything else can run code. Take "
            "another checkpoint, or begin anew."
        ) from error


def write_marker(checkpoint: Path, global_step: int, world_size: int, interrupted: bool = False) -> None:
    """Declares everything in the directory complete.

    The marker is {"global_step", "world_size", "files": {name: bytes}, "checksums": {name: text}}, and for a checkpoint
    that a signal asked for {"interrupted": true}.
    """
    files = {
        path.relative_to(checkpoint).as_posix(): path
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name != MARKER_NAME and path.suffix != ".partial"
    }
    marker = {
        "global_step": global_step,
        "world_size": world_size,
        "files": {name: path.stat().st_size for name, path in files.items()},
        "checksums": {name: checksum_of(path) for name, path in files.items()},
        **({"interrupted": True} if interrupted else {}),
    }
    partial = checkpoint / f"{MARKER_NAME}.partial"
    partial.write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, checkpoint / MARKER_NAME)


def interrupted_checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """Those that a signal asked for."""
    return [
        path
        for path in numbered_checkpoints(output_dir)
        if (read_marker(path) or {}).get("interrupted") is True
    ]


class CheckpointCallback(TrainerCallback):
    """Completes each of Trainer's checkpoints: whole weights of a sharded model, carried state of the streams, then
    the marker.

    On a resume it gives the streams their state back, from `args.resume_from_checkpoint` if that is set, else from
    `checkpoint-{global_step}` in `args.output_dir`; `trainer.train(resume_from_checkpoint=)` gets the same directory.
    Add it after callbacks that decide what is saved.

    Args:
        streams: number of text streams of the plan; None where no state is carried.
        interruption: tells which checkpoints a signal asked for.

    Raises:
        ValueError, FileNotFoundError: when training begins, where the streams could not be trained or resumed rightly.
    """

    def __init__(self, streams: int | None = None, interruption: StopOnSignal | None = None) -> None:
        self.streams, self.interruption = streams, interruption
        self._limit: int | None = None

    @property
    def _is_interrupted(self) -> bool:
        return self.interruption is not None and self.interruption.signal is not None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        **kwargs: object,
    ) -> None:
        if args.save_total_limit == 1:
            raise ValueError(
                "save_total_limit=1 deletes the last complete checkpoint before the next one is complete: set it to 2."
            )
        self._limit = args.save_total_limit
        if self.streams is None:
            return
        check_stream_arguments(args, self.streams)
        carried = _carried_states(model)
        carried.clear()
        carried.reserve(self.streams)
        if state.global_step > 0:
            carried.load_state_dict(read_carried_state(_resumed_directory(args, state), self.streams))

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        # A directory that is written again is incomplete until it is done.
        may_be_best = control.should_evaluate and args.save_strategy == SaveStrategy.BEST
        if state.is_world_process_zero and (control.should_save or may_be_best):
            (_directory(args, state) / MARKER_NAME).unlink(missing_ok=True)
            if self._limit:
                extra = len(interrupted_checkpoints(args.output_dir)) + self._is_interrupted
                args.save_total_limit = self._limit + extra

    on_epoch_end = on_step_end

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module,
        processing_class: Any = None,
        **kwargs: object,
    ) -> None:
        directory = _directory(args, state)
        if is_sharded(model):
            save_whole_weights(model, directory, processing_class)
        if self.streams is not None:
            write_carried_state(_carried_states(model).state_dict(), directory, args.process_index)
        if args.world_size > 1:
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        expected = {FILE_NAME.format(rank=rank) for rank in range(args.world_size if self.streams else 0)}
        found = {path.name for path in directory.glob(FILE_NAME.format(rank="*"))}
        for name in found - expected:  # of a save under more processes that was cut short
            (directory / name).unlink()
        if expected - found:
            raise FileNotFoundError(
                f"{directory} lacks {sorted(expected - found)}: all processes must write to one file system. Put "
                "output_dir on a shared one."
            )
        write_marker(directory, state.global_step, args.world_size, self._is_interrupted)
        for older in interrupted_checkpoints(args.output_dir):
            if older != directory:
                shutil.rmtree(older)


def _directory(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _carried_states(model: nn.Module) -> CarriedStates:
    model = getattr(
        model, "module", model
    )  # DDP and FSDP wrap; Trainer hands callbacks the bare model otherwise
    carried = getattr(model, "carried_states", None)
    if carried is None:
        raise ValueError(
            f"{type(model).__name__} carries no states between segments: use a recurrent model, or "
            "CheckpointCallback() without streams."
        )
    return carried


def _resumed_directory(args: TrainingArguments, state: TrainerState) -> Path:
    """Where the run resumes from. Trainer does not tell callbacks, so the guess is checked against the run's log."""
    given = args.resume_from_checkpoint
    directory = (
        Path(given) if isinstance(given, str) and given not in ("True", "true") else _directory(args, state)
    )
    saved = directory / "trainer_state.json"
    if not saved.is_file() or TrainerState.load_from_json(str(saved)).log_history != state.log_history:
        raise ValueError(
            f"The run resumes at step {state.global_step}, but not from {directory}, where its carried state was "
            "looked for. Set TrainingArguments(resume_from_checkpoint=DIRECTORY) to the one given to trainer.train()."
        )
    return directory
