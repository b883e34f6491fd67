"""Two runs in one output directory, and what is left of a run whose launcher was killed."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from hfseq.training.output_lock import OutputLock

HOLD = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("output_lock", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
lock, number = module.OutputLock(Path(sys.argv[2])), int(sys.argv[3])
try:
    lock.join(number) if number else lock.take()
except ValueError as error:
    sys.exit(str(error))
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold(tmp_path):
    """hold(number) -> a process of another run that holds its place, or was refused."""
    started = []

    def start(number: int) -> subprocess.Popen:
        module = sys.modules[OutputLock.__module__].__file__
        command = [sys.executable, "-S", "-c", HOLD, module, str(tmp_path), str(number)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_run_is_refused_and_told_who_the_first_is(tmp_path, hold):
    first = hold(0)
    with pytest.raises(ValueError, match=re.escape(f"process {first.pid} on {socket.gethostname()}")):
        OutputLock(tmp_path).take()
    # The lock dies with its process, however that ends.
    first.kill()
    first.wait()
    with OutputLock(tmp_path) as lock:
        lock.take()
        second = hold(0)
        assert f"process {os.getpid()} on" in second.communicate()[1]
    assert hold(0).poll() is None  # given back


def test_workers_that_outlive_their_launcher_and_main_process(tmp_path, hold):
    main, worker = hold(0), hold(1)
    assert worker.poll() is None
    main.kill()
    main.wait()
    with pytest.raises(ValueError, match=f"is being written by process {worker.pid} on") as raised:
        OutputLock(tmp_path).take()
    assert str(main.pid) not in str(raised.value)
    worker.kill()
    worker.wait()
    with OutputLock(tmp_path) as lock:
        lock.take()


def test_where_nothing_can_be_locked_it_is_said(tmp_path, monkeypatch, capsys):
    from hfseq.training import output_lock

    def refuse(*args):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(output_lock.fcntl, "lockf", refuse)
    with OutputLock(tmp_path) as lock:
        lock.take()
    assert "cannot be locked (No locks available)" in capsys.readouterr().err
