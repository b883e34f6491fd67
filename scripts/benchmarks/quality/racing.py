"""Runs a training command as a user would, and notes what it costs until each of its checkpoints.

What is noted is processor time of the process and all its children, from its start: reading data, building the model
and saving are in it, as a user waits for them too. Other work on the machine disturbs it less than it does the clock,
which is noted beside it. Scores of checkpoints are computed afterwards, by one scorer for both sides, and cost neither
any time; a script that keeps no checkpoints but prints scores is taken at its word, and its time for them is counted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

POLL_SECONDS = 0.2
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
}


@dataclass(frozen=True)
class Contender:
    """A command that trains."""

    name: str
    """Of the side in tables and pictures."""
    command: Sequence[str]
    directory: Path
    """Where it runs."""
    checkpoints: Path | None = None
    """The folder in which `checkpoint-N` appear."""
    printed: Callable[[str], float | None] | None = None
    """The score in a line of its output, if there is one."""
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Moment:
    """When something was reached."""

    seconds: float
    """Processor time."""
    clock: float
    checkpoint: str | None = None
    score: float | None = None


def race(contender: Contender, log: Path, *, limit: float) -> list[Moment]:
    """Runs the command to its end, on one thread.

    Args:
        log: gets all that it prints.
        limit: processor seconds after which it is stopped.

    Raises:
        RuntimeError: the command failed, or left nothing to score.
    """
    environment = {**os.environ, **ONE_THREAD, "TOKENIZERS_PARALLELISM": "false", **contender.environment}
    started, moments, seen = time.perf_counter(), list[Moment](), set[str]()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            contender.command, cwd=contender.directory, env=environment, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        tree = psutil.Process(process.pid)

        def now(**what: object) -> Moment:
            return Moment(_processor_seconds(tree), time.perf_counter() - started, **what)  # type: ignore[arg-type]

        def read() -> None:
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                score = contender.printed(line) if contender.printed else None
                if score is not None:
                    moments.append(now(score=score))

        reader = threading.Thread(target=read)
        reader.start()
        stopped = False
        while process.poll() is None:
            if contender.checkpoints is not None:
                for path in sorted(contender.checkpoints.glob("checkpoint-*")):
                    if path.name not in seen:
                        seen.add(path.name)
                        moments.append(now(checkpoint=path.name))
            if not stopped and _processor_seconds(tree) > limit:
                os.killpg(process.pid, signal.SIGTERM)
                stopped = True
            time.sleep(POLL_SECONDS)
        reader.join()
    if process.returncode and not stopped:
        tail = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-20:])
        raise RuntimeError(f"{contender.name} ended with {process.returncode}; {log} ends:\n{tail}")
    if not moments:
        raise RuntimeError(f"{contender.name} left nothing to score; see {log}.")
    return moments


def _processor_seconds(process: psutil.Process) -> float:
    """Of a process, its children and theirs, ended ones too; 0 when it is gone."""
    total = 0.0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return total
    for member in family:
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
