"""What the processes of a run do together: start, wait for each other with a limit, decide, share work, add up.

One process decides what must be the same for all (whether an output directory is overwritten, from which checkpoint a
run goes on) and tells the others; nobody looks at a file that another one is just writing. A start waits
`HFSEQ_START_TIMEOUT` seconds (default 600) for processes that come late, and then names those that are missing. After
the start a process waits for the others as long as `ddp_timeout` says: one that computes is not one that is missing.

With one process everything here does nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ..accelerators import available_accelerator

T = TypeVar("T")
START_TIMEOUT = 600
# Of TrainingArguments.
DDP_TIMEOUT = 1800
# How long one waits before one says so.
PATIENCE = timedelta(seconds=10)
# One of these tells a process its number: of torchrun, Open MPI, MPICH and Intel MPI, MVAPICH.
_RANKS = {"RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"}


def rank() -> int:
    """Of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def start_processes(backend: str | None = None, ddp_timeout: int = DDP_TIMEOUT) -> None:
    """Joins the other processes of `torchrun` or `accelerate launch`, and waits until all of them are there.

    Args:
        backend: of torch.distributed; None: gloo without an accelerator, else torch's own choice for it.
        ddp_timeout: seconds that a process waits for the others once all have started, as TrainingArguments has it.

    Raises:
        SystemExit: the others did not come within the limit, or the launcher asked for several processes and started
            one.
    """
    _check_launcher()
    if world_size() == 1 or dist.is_initialized():
        return
    limit = timedelta(seconds=_start_timeout())
    if backend is None:
        backend = "gloo" if available_accelerator() is None else None
    try:
        store, _, _ = next(dist.rendezvous("env://", rank(), world_size(), timeout=limit))
        if missing := _missing(store, limit):
            waited_for = f"process {', '.join(missing)}"
        else:
            dist.init_process_group(
                backend, store=store, rank=rank(), world_size=world_size(),
                timeout=timedelta(seconds=ddp_timeout),
            )  # fmt: skip
            return
    except (RuntimeError, ValueError) as error:
        waited_for = (
            f"the others at {os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')} ({error})"
        )
    sys.exit(
        f"Process {rank()} of {world_size()} waited {limit.total_seconds():.0f} s for {waited_for}. Look at their "
        "output; HFSEQ_START_TIMEOUT is the limit in seconds."
    )


def process_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What of a recipe's TrainingArguments `start_processes` takes. A wrong value is refused with all the others."""
    timeout = arguments.get("ddp_timeout")
    is_right = isinstance(timeout, int) and not isinstance(timeout, bool) and timeout > 0
    return {"backend": arguments.get("ddp_backend"), "ddp_timeout": timeout if is_right else DDP_TIMEOUT}


def _start_timeout() -> int:
    given = os.environ.get("HFSEQ_START_TIMEOUT") or str(START_TIMEOUT)
    if not given.isdecimal() or int(given) < 1:
        sys.exit(f"HFSEQ_START_TIMEOUT must be a whole number of seconds, not {given!r}.")
    return int(given)


def _missing(store: dist.Store, limit: timedelta) -> list[str]:
    """Numbers of the processes that do not come within the limit; says after `PATIENCE` that it waits."""
    here = "hfseq/started/{}".format
    store.set(here(rank()), "1")
    everyone, absent = list(range(world_size())), []
    for patience in (limit,) if limit <= PATIENCE else (PATIENCE, limit - PATIENCE):
        try:
            store.wait([here(number) for number in everyone], patience)
            return []
        except RuntimeError:  # DistStoreError: the time is over
            absent = [str(number) for number in everyone if not store.check([here(number)])]
            if absent and is_main() and patience < limit:
                print(f"Waiting for process {', '.join(absent)} to start.", file=sys.stderr, flush=True)
    return absent


def _check_launcher() -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process and says nothing: say it.

    It leaves its choice of the CPU and an address at which the processes were to meet, but no rank; of how many
    processes it was asked for nothing is left.
    """
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    if on_cpu and "MASTER_ADDR" in os.environ and not _RANKS & os.environ.keys():
        sys.exit(
            "accelerate launch was asked for several processes on the CPU and started one. Launch them with: torchrun "
            f"--nproc_per_node 2 -m hfseq {' '.join(sys.argv[1:2]) or 'pretrain'} ... (2 or as many as you want)."
        )


def decide(decision: Callable[[], T]) -> T:
    """What the main process decides, in all of them; where it exits or raises, all exit with its message."""
    if world_size() == 1 or not dist.is_initialized():
        return decision()
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome = [decision(), None]
        except SystemExit as error:
            outcome = [None, str(error)]
        except (ValueError, OSError, ImportError) as error:
            outcome = [None, f"{type(error).__name__}: {error}"]
    dist.broadcast_object_list(outcome, src=0)
    value, problem = outcome
    if problem is not None:
        sys.exit(problem if is_main() else 1)
    return value


def own_device(device: str) -> str:
    """Where this process works: of several accelerators each process of a machine has its own, unless one is named."""
    if world_size() == 1 or device == "cpu" or ":" in device:
        return device
    return f"{device}:{os.environ.get('LOCAL_RANK', 0)}"


def add_up(*totals: torch.Tensor) -> list[torch.Tensor]:
    """Sums over all processes."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for total in totals:
            dist.all_reduce(total)
    return list(totals)


def share(items: Sequence[T]) -> list[T]:
    """This process' part: every world_size-th item."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        return list(items[dist.get_rank() :: dist.get_world_size()])
    return list(items)


def collect(parts: Sequence[T], count: int) -> list[T]:
    """All items again, in order, from what each process made of its `share`.

    Args:
        parts: one for each item of this process' share.
        count: items of all.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return list(parts)
    of_each: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(of_each, list(parts))
    items: list[Any] = [None] * count
    for start, part in enumerate(of_each):
        items[start :: len(of_each)] = part
    return items


__all__ = [
    "add_up", "collect", "decide", "is_main", "own_device", "process_options", "rank", "share", "start_processes",
    "world_size",
]  # fmt: skip
