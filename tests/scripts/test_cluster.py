"""The commands of docs/cluster.md, run: two nodes as two networks of one machine, and signals to every launcher.

They are taken from the page, made small and put on the CPU.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytestmark = pytest.mark.long

SMALL = [
    "--corpus", "null", "--train_file", "text.txt", "--cache_dir", "cache", "--tokenizer.vocab_size", "300",
    "--hidden_size", "16", "--embedding_size", "8", "--streams", "8", "--segment_length", "16",
    "--evaluation_streams", "4", "--num_train_epochs", "40", "--eval_steps", "200", "--save_steps", "200",
    "--logging_steps", "10", "--prompt", "null", "--bf16", "false", "--torch_compile", "false",
    "--use_cpu", "true",
]  # fmt: skip
GLOO = ["--ddp_backend", "gloo"]
# Seconds until a run that does not come to its next update is given up.
LIMIT = 1800


@pytest.fixture(scope="module")
def folder(tmp_path_factory, repository):
    """Where the commands are given: a text, and scripts/launch/ as in a clone."""
    folder = tmp_path_factory.mktemp("cluster")
    kings = [f"And king {n} reigned {7 * n % 60} years in city {n % 9}." for n in range(400)]
    (folder / "text.txt").write_text("\n\n".join(kings), encoding="utf-8")
    shutil.copytree(repository / "scripts" / "launch", folder / "scripts" / "launch")
    return folder


@pytest.fixture(scope="module")
def environment(folder, repository):
    """Of all commands; its PATH has accelerate, torchrun and what stands in for SLURM."""
    tools = folder / "tools"
    tools.mkdir()
    python = shlex.quote(sys.executable)
    scripts = {
        "torchrun": f'exec {python} -m torch.distributed.run "$@"',
        "accelerate": f'[ "$1" = launch ] && shift\nexec {python} -m accelerate.commands.launch "$@"',
        # All tasks of a step at once, signals to all of them, the highest code of all: as srun has it.
        "srun": SRUN,
        "scontrol": 'case "$1" in\n  show) echo 127.0.0.1 ;;\n  requeue) echo "requeued $2" >> requeued.txt ;;\nesac',
    }
    for name, script in scripts.items():
        (tools / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(repository),
        "OMP_NUM_THREADS": "1",
        "PYTHON": sys.executable,
    }


SRUN = """
while [[ "$1" == --* ]]; do shift; done
pids=()
trap 'kill -TERM "${pids[@]}"; kill -TERM "${pids[@]}"' TERM
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" & pids+=($!)
done
code=0
for pid in "${pids[@]}"; do
    while true; do
        wait "$pid"; status=$?
        kill -0 "$pid" 2>/dev/null || break   # a signal ends the waiting, not the task
    done
    (( status > code )) && code=$status
done
exit $code
"""


@pytest.fixture(scope="module")
def page(repository):
    """page(beginning) -> the words of the page's command that begins so, for two processes and the small recipe."""
    text = (repository / "docs" / "cluster.md").read_text(encoding="utf-8")
    lines = [
        line
        for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
        for line in block.splitlines()
    ]

    def words(beginning: str, output: str, *more: str) -> list[str]:
        (line,) = (line for line in lines if line.startswith(beginning))
        found = shlex.split(line.replace(" 8 ", " 2 "))
        found[found.index("--output_dir") + 1] = output
        return [word for word in found if word not in ("--use_cpu", "true", *GLOO)] + [*SMALL, *GLOO, *more]

    return words


def same_weights(one: Path, two: Path) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def losses(output: Path) -> list[float]:
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def forked(repository: Path, folder: Path, environment: dict[str, str], groups: list[dict]) -> None:
    (folder / "groups.json").write_text(json.dumps(groups), encoding="utf-8")
    subprocess.run(
        [sys.executable, str(repository / "tests/commands/forked_runs.py"), "groups.json"],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=LIMIT,
    )  # fmt: skip


class Run:
    """A command of the page, started; its output goes to a log."""

    def __init__(self, words: list[str], folder: Path, environment: dict[str, str], log: str) -> None:
        self.log = folder / log
        with open(self.log, "wb") as file:
            self.process = subprocess.Popen(
                words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until_update(self, update: int) -> None:
        end = time.monotonic() + LIMIT
        while max(map(int, re.findall(r"update (\d+)/", self.text)), default=0) < update:
            assert self.process.poll() is None and time.monotonic() < end, self.text[-3000:]
            time.sleep(0.01)

    def end(self) -> int:
        try:
            return self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_signals_to_every_launcher_and_the_run_goes_on_to_equal_weights(
    folder, environment, page, repository
):
    """accelerate launch gets SIGTERM, torchrun Ctrl-C, a SLURM job SIGTERM twice; the next job brings it to its end."""
    updates = ["--max_steps", "400"]
    forked(
        repository, folder, environment,
        [{"processes": 2, "runs": [["pretrain", "lstm-kjv", *SMALL, *GLOO, *updates, "--output_dir", "undisturbed"]]}],
    )  # fmt: skip
    output = folder / "out"

    def stopped(run: Run, update: int, number: int) -> int:
        run.until_update(update)
        run.process.send_signal(number)
        code = run.end()
        name = signal.Signals(number).name
        said = re.search(
            rf"Stopped at update (\d+) of 400 by {name}; checkpoint-\1 is whole. Go on with: torchrun",
            run.text,
        )
        assert said, run.text[-3000:]
        assert (output / f"checkpoint-{said[1]}" / "complete.json").is_file()
        assert not (output / "training_summary.json").exists()
        return code

    words = page("accelerate launch --config_file scripts/launch/ddp.yaml", "out", *updates)
    assert stopped(Run(words, folder, environment, "1.log"), 30, signal.SIGTERM) != 0
    words = page("torchrun --nproc_per_node 8", "out", *updates)
    assert stopped(Run(words, folder, environment, "2.log"), 60, signal.SIGINT) != 0

    job = page("sbatch", "out", *updates)
    slurm = {
        **environment, "SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "here", "SLURM_NTASKS": "2",
        "SLURM_NNODES": "1", "SLURM_CPUS_PER_TASK": "1",
    }  # fmt: skip
    run = Run(["bash", *job[1:]], folder, slurm, "3.log")
    run.until_update(90)
    (step,) = children(run.process.pid)  # srun, which hands it on as SLURM does
    os.kill(step, signal.SIGTERM)
    assert run.end() == 75, run.text[-3000:]
    assert (folder / "requeued.txt").read_text() == f"requeued {os.getpid()}\n"
    assert "by SIGTERM" in run.text
    run = Run(["bash", *job[1:]], folder, slurm, "4.log")
    assert run.end() == 0, run.text[-3000:]
    assert (folder / "requeued.txt").read_text().count("\n") == 1
    assert same_weights(folder / "undisturbed", output)
    assert json.loads((output / "training_summary.json").read_text())["updates"] == 400


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def two_nodes():
    """Two network namespaces joined by a cable: names and addresses; skips where they cannot be made."""
    if not (sys.platform == "linux" and shutil.which("ip")):
        pytest.skip("no `ip`: two networks on one machine are Linux's (iproute2)")
    tag = f"{os.getpid() % 10000:04d}"
    nodes = [
        (f"hfseq{tag}{side}", f"v{tag}{side}", f"10.213.77.{number}") for number, side in ((1, "a"), (2, "b"))
    ]
    (first, cable, _), (second, end, _) = nodes

    def ip(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["ip", *words], capture_output=True, text=True)

    made = ip("netns", "add", first)
    if made.returncode:
        pytest.skip(f"no network namespaces here, they take root: {made.stderr.strip()}")
    try:
        steps = [
            ip("netns", "add", second),
            ip("link", "add", cable, "netns", first, "type", "veth", "peer", "name", end, "netns", second),
        ]
        for name, interface, address in nodes:
            steps += [
                ip("-n", name, "address", "add", f"{address}/24", "dev", interface),
                ip("-n", name, "link", "set", interface, "up"),
                ip("-n", name, "link", "set", "lo", "up"),
            ]
        if failed := [step for step in steps if step.returncode]:
            pytest.skip(f"no cable between network namespaces here: {failed[0].stderr.strip()}")
        yield nodes
    finally:
        for name, _, _ in nodes:
            ip("netns", "delete", name)


def test_two_nodes_learn_what_one_process_does(folder, environment, page, repository, two_nodes):
    updates = [
        "--max_steps", "8", "--logging_steps", "1", "--save_steps", "4", "--eval_steps", "4", "--input_dropout", "0",
        "--output_dropout", "0",
    ]  # fmt: skip
    address = two_nodes[0][2]
    runs = []
    for name, interface, own in two_nodes:
        words = page("torchrun --nnodes 2", "nodes", *updates)
        words[words.index("--nproc_per_node") + 1] = "1"
        words[words.index("--rdzv_endpoint") + 1] = f"{address}:29511"
        words[words.index("--local_addr") + 1] = own
        words[words.index("--rdzv_conf") + 1] = f"is_host={int(own == address)}"
        there = {**environment, "GLOO_SOCKET_IFNAME": interface}
        runs.append(Run(["ip", "netns", "exec", name, *words], folder, there, f"{name}.log"))
    assert [run.end() for run in runs] == [0, 0], "\n".join(run.text[-3000:] for run in runs)
    words = ["pretrain", "lstm-kjv", *SMALL, *updates, "--output_dir", "alone"]
    forked(repository, folder, environment, [{"processes": 1, "runs": [words]}])

    for checkpoint in ("checkpoint-4", "checkpoint-8"):
        alone, nodes = losses(folder / "alone" / checkpoint), losses(folder / "nodes" / checkpoint)
        assert nodes == pytest.approx(alone, rel=1e-5)
        # Each node wrote what only it had.
        files = {path.name for path in (folder / "nodes" / checkpoint).iterdir()}
        assert {"carried_state_0.safetensors", "carried_state_1.safetensors", "complete.json"} <= files
    scores = [
        json.loads((folder / name / "training_summary.json").read_text())["scores"]
        for name in ("alone", "nodes")
    ]
    for side in scores[0]:
        assert scores[1][side]["nll"] == pytest.approx(scores[0][side]["nll"], rel=1e-5)
