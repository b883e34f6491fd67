"""What the processes of a run do together: start, wait for each other with a limit, decide, share work, add up.

One process decides what must be the same for all (whether an output directory is overwritten, from which checkpoint a
run goes on) and tells the others; nobody looks at a file that another one is just writing. A wait ends after
`HFSEQ_START_TIMEOUT` seconds (default 600) with a message.

With one process everything here does nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
START_TIMEOUT = 600


def rank() -> int:
    """Of this process, from 0."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return rank() == 0


def start_processes(backend: str | None = None) -> None:
    """Joins the other processes of `torchrun` or `accelerate launch`.

    Args:
        backend: of torch.distributed; None: gloo without an accelerator, else torch's own choice for it.

    Raises:
        SystemExit: the others did not come within the limit, or the launcher asked for several processes and started
            one.
    """
    _check_launcher()
    if world_size() == 1 or dist.is_initialized():
        return
    seconds = int(os.environ.get("HFSEQ_START_TIMEOUT", START_TIMEOUT))
    if backend is None:
        backend = "gloo" if torch.accelerator.current_accelerator() is None else None
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    except (RuntimeError, ValueError) as error:
        sys.exit(
            f"Process {rank()} of {world_size()} waited {seconds} s for the others at "
            f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {error}. Look at their output; "
            "HFSEQ_START_TIMEOUT is the limit in seconds."
        )


def _check_launcher() -> None:
    """`accelerate launch --cpu --num_processes 2` starts one process and says nothing: say it."""
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and os.environ.get(
        "CCL_WORKER_COUNT", "1"
    )
    if asked and asked.isdecimal() and int(asked) > 1 and world_size() == 1:
        sys.exit(
            f"accelerate launch was asked for {asked} processes on the CPU and started one. Launch them with: torchrun "
            f"--nproc_per_node {asked} -m hfseq pretrain ..."
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


__all__ = ["add_up", "collect", "decide", "is_main", "rank", "share", "start_processes", "world_size"]
