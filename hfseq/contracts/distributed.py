"""Contract 8: two processes compute what one does.

DDP runs through the stock Trainer over gloo, with `ddp_find_unused_parameters=False` (its default hides parameters
that no loss reaches). FSDP2 is `fully_shard` on a CPU mesh: on CPUs Trainer and accelerate fall back to DDP without a
word, so the parameters are asserted to be DTensors. Both save under one world size and load under another.

One subprocess (torchrun, two workers) covers all heads of a family; this module is the worker too.
"""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from .cases import Case
from .comparing import FLOAT64, require_close, require_same_bits
from .loss import random_tokens
from .sources import find_cases
from .subprocesses import run_python
from .training_runs import losses, trainer
from .violation import ContractViolation, require, run_checks

LENGTHS = [5, 2, 7, 4, 3, 6, 1, 8]
ROWS = 16
UPDATES = 3
STREAM_UPDATES, STREAMS_SAVED_AT = 6, 2


def contract(cases: Sequence[Case], source: str) -> None:
    """`source` is where the workers find the cases, as `find_cases` reads it."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        for case in cases:
            before_the_workers(case, folder_of(case, root))
        run_python(
            ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", __name__,
             source, directory, *(case.name for case in cases)],
            directory, seconds=900,
        )  # fmt: skip
        failures = []
        for case in cases:
            try:
                run_checks(
                    case,
                    *(
                        _named(check, partial(check, root=folder_of(case, root)))
                        for check in AFTER_THE_WORKERS
                    ),
                )
            except ContractViolation as violation:
                failures.append(str(violation))
        if failures:
            raise ContractViolation("\n".join(failures))


def folder_of(case: Case, root: Path) -> Path:
    """The folder of a case: its name may be the path of a checkpoint, or a Hub id."""
    return root / re.sub(r"[^\w.-]+", "-", case.name).strip("-.")


def _named(check, call):
    call.__name__ = check.__name__
    return call


# --- training, the same code under one process and two ---------------------------------------------------------------


def train_rows(case: Case, directory: Path, *, size: int, accumulation: int = 1) -> dict[str, torch.Tensor]:
    """Padded rows with unequal numbers of labels through the stock Trainer."""
    model = case.model(FLOAT64)
    rows = case.rows(model.config, (LENGTHS + LENGTHS[::-1]) * UPDATES)
    made = trainer(
        case, model, rows, str(directory), max_steps=UPDATES, train_sampling_strategy="sequential",
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    made.train()
    return {"losses": losses(made), **_weights(model)}


def train_streams(
    case: Case, directory: Path, *, size: int, accumulation: int = 1, resume: Path | None = None
) -> dict[str, torch.Tensor]:
    """Contiguous streams with carried state, saved after two of six updates, or resumed from there."""
    from ..data import StreamCollator, StreamPlan
    from ..training import CheckpointCallback

    model = case.model(FLOAT64)
    plan = StreamPlan(random_tokens(model.config, 16 * 12), streams=16, segment_length=4, epochs=2)
    made = trainer(
        case, model, plan, str(directory), data_collator=StreamCollator(), num_train_epochs=1,
        train_sampling_strategy="sequential", optim="adamw_torch", learning_rate=0.01,
        per_device_train_batch_size=size, gradient_accumulation_steps=accumulation,
        save_strategy="steps", save_steps=STREAMS_SAVED_AT, callbacks=[CheckpointCallback(streams=16)],
        resume_from_checkpoint=None if resume is None else str(resume),
    )  # fmt: skip
    made.train(resume_from_checkpoint=None if resume is None else str(resume))
    require(made.state.global_step == STREAM_UPDATES, f"the run ended at update {made.state.global_step}")
    return {"losses": losses(made)[-(STREAM_UPDATES - STREAMS_SAVED_AT) :], **_weights(model)}


def _weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone().contiguous() for name, parameter in model.named_parameters()}


# --- the one process that is the measure -----------------------------------------------------------------------------


def before_the_workers(case: Case, root: Path) -> None:
    """What the workers compare with or resume from."""
    root.mkdir()
    if not case.kind.labels:
        return
    save_file(train_rows(case, root / "rows-1", size=ROWS), root / "rows-1.safetensors")
    if case.streams:
        save_file(train_streams(case, root / "streams-1", size=16), root / "streams-1.safetensors")


def _require_same_run(what: str, got: Path, expected: Path) -> None:
    got, expected = load_file(got), load_file(expected)
    require_close(f"{what}: logged losses", got.pop("losses"), expected.pop("losses"), 1e-4)
    for name, value in expected.items():
        require_close(f"{what}: {name}", got[name], value, FLOAT64.tolerance)


def two_processes_with_ddp(case: Case, root: Path) -> None:
    for name in ("rows-2x8", "rows-2x4x2") if case.kind.labels else ():
        _require_same_run(f"{name} against 1x16", root / f"{name}.safetensors", root / "rows-1.safetensors")


def two_processes_on_streams(case: Case, root: Path) -> None:
    if case.streams and case.kind.labels:
        expected = root / "streams-1.safetensors"
        _require_same_run("2 processes x 8 streams", root / "streams-2.safetensors", expected)
        _require_same_run(
            "saved by one process, resumed by two", root / "streams-1-to-2.safetensors", expected
        )


def streams_saved_by_two_resumed_by_one(case: Case, root: Path) -> None:
    if case.streams and case.kind.labels:
        checkpoint = root / "streams-2" / f"checkpoint-{STREAMS_SAVED_AT}"
        files = sorted(path.name for path in checkpoint.glob("carried_state_*"))
        require(len(files) == 2, f"two processes left {files}")
        result = train_streams(case, root / "streams-2-to-1", size=4, accumulation=4, resume=checkpoint)
        save_file(result, root / "streams-2-to-1.safetensors")
        _require_same_run(
            "saved by two processes, resumed by one",
            root / "streams-2-to-1.safetensors",
            root / "streams-1.safetensors",
        )


def fully_sharded(case: Case, root: Path) -> None:
    got = load_file(root / "fsdp.safetensors")
    if not case.kind.labels:
        return
    _require_same_run("FSDP2 on two processes", root / "fsdp.safetensors", root / "rows-1.safetensors")
    # A sharded checkpoint, loaded by a single process.
    from torch.distributed import checkpoint

    state = {name: torch.zeros_like(value) for name, value in got.items() if name != "losses"}
    checkpoint.load(state, checkpoint_id=str(root / "fsdp-sharded"), no_dist=True)
    require_same_bits(
        "sharded checkpoint in one process", state, {n: v for n, v in got.items() if n != "losses"}
    )


AFTER_THE_WORKERS = (
    two_processes_with_ddp,
    two_processes_on_streams,
    streams_saved_by_two_resumed_by_one,
    fully_sharded,
)


# --- the workers -------------------------------------------------------------------------------------------------


def work_ddp(case: Case, root: Path) -> None:
    """Both cuts of the update, and streams from the start and from one process's checkpoint."""
    if not case.kind.labels:
        return
    runs = {
        "rows-2x8": lambda d: train_rows(case, d, size=8),
        "rows-2x4x2": lambda d: train_rows(case, d, size=4, accumulation=2),
    }
    if case.streams:
        saved = root / "streams-1" / f"checkpoint-{STREAMS_SAVED_AT}"
        runs["streams-2"] = lambda d: train_streams(case, d, size=8)
        runs["streams-1-to-2"] = lambda d: train_streams(case, d, size=4, accumulation=2, resume=saved)
    for name, run in runs.items():
        result = run(root / name)
        _require_same_on_all_ranks(name, result)
        if torch.distributed.get_rank() == 0:
            save_file(result, root / f"{name}.safetensors")


def _require_same_on_all_ranks(what: str, tensors: dict[str, torch.Tensor]) -> None:
    for name, value in tensors.items():
        first = value.clone()
        torch.distributed.broadcast(first, src=0)
        if name != "losses":
            require(torch.equal(first, value), f"{what}: {name} differs between the processes")


def work_fsdp(case: Case, root: Path) -> None:
    """The same updates as `train_rows` by hand, sharded; the weights come from one process's checkpoint.

    Labels are counted, and losses averaged, as Trainer does it for this class: of GPT2LMHeadModel it counts those of
    first tokens too, which are never scored (transformers 5.23), and to BERT it gives no count. What is wrong with
    either is told by contracts 6 and 12, not here.
    """
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        set_model_state_dict,
    )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    full, model = case.model(FLOAT64), case.model(FLOAT64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    mesh = init_device_mesh("cpu", (world,))
    # From the inside out, as accelerate does: a block may hold another.
    blocks = [
        m for m in reversed(list(model.modules())) if type(m).__name__ in (model._no_split_modules or [])
    ]
    require(bool(blocks), "no module is listed in _no_split_modules")
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    whole = [name for name, p in model.named_parameters() if not isinstance(p, DTensor)]
    require(not whole, f"not sharded: {whole}")
    set_model_state_dict(model, full.state_dict(), options=StateDictOptions(full_state_dict=True))

    logged = []
    if case.kind.labels:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        rows = case.rows(full.config, (LENGTHS + LENGTHS[::-1]) * UPDATES)
        stock = trainer(case, full, rows, str(root / "fsdp-counts"))
        for update in range(UPDATES):
            part = rows[update * ROWS : (update + 1) * ROWS]
            half = case.batch(part[rank * ROWS // world : (rank + 1) * ROWS // world], full.config)
            _, count = stock.get_batch_samples(iter([half]), 1, torch.device("cpu"))  # of all processes
            loss = model.train()(**half, **({} if count is None else {"num_items_in_batch": count})).loss
            loss = loss if count is None else loss * world  # gradients are averaged over processes
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            torch.distributed.all_reduce(loss := loss.detach().clone())
            logged.append(loss / world)
    else:
        batch = case.batch(case.rows(full.config, LENGTHS), full.config)
        for name, value in case.outputs(model, batch).items():
            require_close(f"FSDP2: {name}", value, case.outputs(full, batch)[name], FLOAT64.tolerance)

    # Sharded, for another world size; ties are one tensor, so shared names are saved once.
    names = [name for name, _ in model.named_parameters()]
    sharded = get_model_state_dict(model)
    checkpoint.save({name: sharded[name] for name in names}, checkpoint_id=str(root / "fsdp-sharded"))
    gathered = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if rank == 0:
        weights = {name: gathered[name].clone().contiguous() for name in names}
        extra = {"losses": torch.stack(logged).double()} if logged else {}
        save_file({**weights, **extra}, root / "fsdp.safetensors")


def main(source: str, directory: str, *names: str) -> None:
    torch.set_num_threads(1)
    gc.freeze()  # accelerate collects before each training, which takes longer than the training
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    world = torch.distributed.get_world_size()
    require(world == 2, f"{world} processes instead of 2")
    for case in find_cases(source, names):
        root = folder_of(case, Path(directory))
        run_checks(case, *(_named(check, partial(check, root=root)) for check in (work_ddp, work_fsdp)))
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(*sys.argv[1:])
