"""Processes that start together: late ones are waited for, missing ones named, and a launcher that starts too few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
import torch

from hfseq.training import processes

# What each process of a group of two does: joins, is told a decision, shares work. The second comes late.
TOGETHER = """
import json, os, sys, time
from hfseq.training.processes import collect, decide, rank, share, start_processes
time.sleep(float(os.environ["LATE"]) if rank() == 1 else 0)
start_processes("gloo")
told = decide(lambda: f"by {rank()}")
doubled = collect([2 * item for item in share(range(5))], 5)
print(json.dumps([told, doubled]))
if os.environ.get("REFUSED"):
    decide(lambda: sys.exit("no such folder"))
"""


def start(number: int, port: int, **variables: str) -> subprocess.Popen:
    variables = {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "LATE": "0", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", TOGETHER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(port), **variables},
    )  # fmt: skip


@pytest.fixture
def port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.long
def test_a_late_process_is_waited_for_and_told_what_was_decided(port):
    both = [start(number, port, LATE="3", REFUSED="yes") for number in (0, 1)]
    ends = [process.communicate(timeout=120) for process in both]
    assert [json.loads(out) for out, _ in ends] == [["by 0", [0, 2, 4, 6, 8]]] * 2
    # What the main process refuses ends both, with one message.
    assert [process.returncode for process in both] == [1, 1]
    assert "no such folder" in ends[0][1] and "no such folder" not in ends[1][1]


def test_a_process_that_does_not_come_ends_the_wait(port):
    alone = start(0, port, HFSEQ_START_TIMEOUT="1")
    error = alone.communicate(timeout=120)[1]
    assert alone.returncode == 1
    assert f"Process 0 of 2 waited 1 s for the others at 127.0.0.1:{port}" in error


def test_under_torchrun_the_missing_one_is_named(monkeypatch, capsys):
    """torchrun keeps the store, so that each process sees who is there."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=0.1))
    store = torch.distributed.HashStore()
    store.set("hfseq/started/1", "1")
    assert processes._missing(store, timedelta(seconds=0.3)) == ["2"]
    assert "Waiting for process 2 to start." in capsys.readouterr().err
    store.set("hfseq/started/2", "1")
    assert processes._missing(store, timedelta(seconds=0.3)) == []


@pytest.mark.parametrize("seconds", ["soon", "0"])
def test_a_limit_that_is_no_number(monkeypatch, seconds):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("HFSEQ_START_TIMEOUT", seconds)
    with pytest.raises(SystemExit, match="HFSEQ_START_TIMEOUT must be a whole number of seconds"):
        processes.start_processes()


@pytest.mark.long
def test_accelerate_that_starts_one_process_in_place_of_two(tmp_path):
    """What `accelerate launch --cpu --num_processes 2` leaves in the environment, made by accelerate itself."""
    script = tmp_path / "script.py"
    script.write_text("from hfseq.training.processes import start_processes\nstart_processes()\n")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    for count, refused in (("2", True), ("1", False)):
        done = subprocess.run(
            [*command, "--num_processes", count, str(script)], capture_output=True, text=True, timeout=120
        )
        assert (done.returncode != 0) is refused, done.stderr
        assert ("Launch them with: torchrun --nproc_per_node 2" in done.stderr) is refused


@pytest.mark.parametrize(
    ("world", "device", "own"),
    [("1", "cuda", "cuda"), ("2", "cpu", "cpu"), ("2", "cuda", "cuda:1"), ("2", "cuda:0", "cuda:0")],
)
def test_each_process_has_its_own_device(monkeypatch, world, device, own):
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes.own_device(device) == own
