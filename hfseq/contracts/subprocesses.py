"""Contracts that need an interpreter of their own: once per family, one subprocess for all of its heads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .violation import ContractViolation


def run_python(arguments: Sequence[str], directory: str, seconds: float, **environment: str) -> str:
    """Runs this Python with standard input closed, offline, from `directory`; returns what it printed.

    Raises:
        ContractViolation: with the end of its output, when it failed or took longer than `seconds`.
    """
    package = str(Path(__file__).resolve().parents[2])
    settings = {
        **os.environ,
        # The hfseq that runs here, installed or not (`python -I` ignores it).
        "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONWARNINGS": "ignore",
        **environment,
    }
    command = [sys.executable, *arguments]
    try:
        done = subprocess.run(
            command, cwd=directory, env=settings, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ContractViolation(
            f"took longer than {seconds:.0f} s; its output ends in\n{_tail(error.output)}"
        ) from error
    if done.returncode:
        raise ContractViolation(f"exit status {done.returncode}; its output ends in\n{_tail(done.stdout)}")
    return done.stdout


def _tail(output: str | bytes | None) -> str:
    """The last lines, but for what torchrun says after them: that a process failed, and nothing of why."""
    text = output.decode(errors="replace") if isinstance(output, bytes) else output or ""
    lines = text.strip().splitlines()
    report = (
        i for i, line in enumerate(lines) if "torch/distributed/elastic" in line or "elastic.multi" in line
    )
    return "\n".join(lines[: next(report, len(lines))][-30:] or lines[-30:])
