"""Loads `tiny_run.py`: tests/ is no package, and the same file is what `torchrun` starts.

What two processes do for several files of tests is done by one `torchrun`, of `two_processes.py`: to start it takes
longer than the work.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from hfseq.contracts.subprocesses import run_python


@pytest.fixture(scope="session")
def tiny_run():
    """The module tests/training/tiny_run.py."""
    spec = importlib.util.spec_from_file_location("tiny_run", Path(__file__).with_name("tiny_run.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def two_processes(tiny_run, tmp_path_factory):
    """The folder of what two processes left, after their one-process parts (see `two_processes.py`).

    One for all workers of pytest-xdist: the first makes it, the others wait.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder, begun = shared / "two", shared / "two.begun"
    with FileLock(shared / "two.lock"):
        if begun.exists():
            pytest.fail("another of these tests could not make what two processes leave, and says why")
        if not folder.exists():
            begun.touch()
            make_two_processes(tiny_run, folder)
            begun.unlink()
    return folder


def make_two_processes(tiny_run, folder: Path) -> None:
    fields = {"dtype": torch.float64, "dropout": 0.0, "eval_steps": 1}
    for optimizer in tiny_run.OPTIMIZERS:
        tiny_run.make_trainer(folder / f"one-{optimizer}", optimizer=optimizer, **fields).train()
    shutil.copytree(folder / "one-adamw" / "checkpoint-2", folder / "one-then-two" / "checkpoint-2")
    worker = str(Path(__file__).with_name("two_processes.py"))
    run_python(
        ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", worker, str(folder)],
        str(folder), seconds=900,
    )  # fmt: skip
