"""Kills and damages pretraining runs in every way that machines do, and compares what comes of them.

    make faults                                   # all of it: objectives x processes x faults; hours on two cores
    python scripts/faults.py --short              # one objective, a few faults: minutes
    python scripts/faults.py --only starts --count 50 --processes 2 4
    python scripts/faults.py --table scripts/benchmarks/faults.md

Every run is `hfseq pretrain` as a user starts it, on a made-up text of a few kilobytes. For each objective and number
of processes one run is left alone; then runs are disturbed and started again until they finish, and the final weights
must be those of the undisturbed one, bit for bit - or the start must be refused with a message. Anything else (other
weights, a traceback, a wait without an end) is a failure, and the exit code says so.

Faults: SIGKILL, SIGTERM and SIGKILL of the launcher alone, at a random moment of the training or in the middle of
a save; truncation and a flipped bit of each file of the newest checkpoint, of the token arrays, of run.json and
recipe.yaml; data that are gone. `starts` are fresh starts in which each process comes late by a random time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

UPDATES = 40
SAVE_EVERY = 8
# A start or an end that takes longer is a wait without an end.
LIMIT = 600
COMMON = [
    "--use_cpu", "true", "--max_steps", str(UPDATES), "--save_steps", str(SAVE_EVERY), "--eval_steps", str(SAVE_EVERY),
    "--save_total_limit", "3", "--logging_steps", "4", "--prompt", "null", "--seed", "3", "--average_checkpoints", "0",
    "--num_train_epochs", "20", "--warmup_steps", "4", "--bf16", "false", "--torch_compile", "false",
]  # fmt: skip
TEXT = ["--corpus", "null", "--train_file", "text.txt", "--tokenizer.vocab_size", "300"]
PAIRS = ["--corpus", "null", "--train_file", "[text.en, text.de]", "--tokenizer.vocab_size", "300"]
OBJECTIVES = {
    "causal": [
        "lstm-kjv", *TEXT, "--hidden_size", "16", "--embedding_size", "8", "--streams", "8", "--segment_length", "16",
        "--evaluation_streams", "4", "--hidden_dropout", "0.1",
    ],
    "masked": [
        "encoder-kjv", *TEXT, "--hidden_size", "16", "--intermediate_size", "32", "--num_hidden_layers", "1",
        "--num_attention_heads", "2", "--tokens_per_update", "512",
    ],
    "translation": [
        "transformer-multi30k-en-de", *PAIRS, "--validation_share", "0.1", "--test_share", "0.1", "--d_model", "16",
        "--encoder_layers", "1", "--decoder_layers", "1", "--encoder_attention_heads", "2",
        "--decoder_attention_heads", "2", "--encoder_ffn_dim", "32", "--decoder_ffn_dim", "32",
        "--tokens_per_update", "512", "--num_beams", "1",
    ],
}  # fmt: skip
# What a refusal says.
REFUSALS = ("Cannot resume", "damaged", "will be built again")
# Loaded by Python itself in each process: a process of a test comes late; the product knows nothing of it.
LATE = """
import os, random, time
if "RANK" in os.environ and "FAULTS_LATEST" in os.environ:
    draw = random.Random(os.environ["FAULTS_SEED"] + os.environ["RANK"])
    time.sleep(draw.uniform(0, float(os.environ["FAULTS_LATEST"])))
"""


@dataclass
class Case:
    """One objective with so many processes, its folder and its undisturbed weights."""

    objective: str
    processes: int
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    weights: bytes = b""

    def command(self, output: str, *words: str) -> list[str]:
        launcher = [sys.executable, "-m"]
        if self.processes > 1:
            launcher += [
                "torch.distributed.run",
                "--standalone",
                "--nproc_per_node",
                str(self.processes),
                "-m",
            ]
            words = (*words, "--ddp_backend", "gloo")
        name, *fields = OBJECTIVES[self.objective]
        return [*launcher, "hfseq", "pretrain", name, *fields, *COMMON, "--output_dir", output, *words]

    def start(self, output: str, *words: str, **environment: str) -> subprocess.Popen:
        with open(self.folder / f"{output}.log", "ab") as log:
            return subprocess.Popen(
                self.command(output, *words), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.environment, **environment}, start_new_session=True,
            )  # fmt: skip

    def log(self, output: str) -> str:
        return (self.folder / f"{output}.log").read_text(encoding="utf-8", errors="replace")


def prepare(folder: Path) -> dict[str, str]:
    """The texts, the hook that makes processes late, and the environment of all runs."""
    draw = random.Random(0)
    kings = [
        f"And king {n} reigned {draw.randrange(60)} years in city {draw.randrange(9)}." for n in range(400)
    ]
    (folder / "text.txt").write_text("\n\n".join(kings), encoding="utf-8")
    (folder / "text.en").write_text("\n".join(kings), encoding="utf-8")
    german = (line.replace("And king", "Und König").replace("reigned", "regierte").replace("years in city", "Jahre in")
              for line in kings)  # fmt: skip
    (folder / "text.de").write_text("\n".join(german), encoding="utf-8")
    (folder / "late").mkdir()
    (folder / "late/sitecustomize.py").write_text(LATE, encoding="utf-8")
    return {
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg",
        "HFSEQ_CACHE": str(folder / "cache"), "PYTHONPATH": str(folder / "late"),
    }  # fmt: skip


def finish(case: Case, output: str, process: subprocess.Popen) -> int:
    """The exit code; a run that does not end within the limit is killed, with all its processes: -100."""
    try:
        return process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        kill_all(case, output, process)
        return -100


def kill_all(case: Case, output: str, process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    kill_workers(case, output)


def kill_workers(case: Case, output: str) -> None:
    """Those of a launcher that is no more: they are in sessions of their own. The run's lock names them."""
    lock = case.folder / output / ".lock"
    numbers = re.findall(rb"process (\d+) on", lock.read_bytes()) if lock.exists() else []
    for number in map(int, numbers):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{number}/cwd") == str(case.folder):  # not one that got the number since
                os.kill(number, signal.SIGKILL)
                while os.readlink(f"/proc/{number}/cwd"):  # until it is gone
                    time.sleep(0.01)


def until(process: subprocess.Popen, condition) -> bool:
    """Waits for the condition; False: the process ended, or the limit did, before it came."""
    end = time.monotonic() + LIMIT
    while process.poll() is None and time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.002)
    return False


def weights_of(case: Case, output: str) -> bytes:
    return (case.folder / output / "model.safetensors").read_bytes()


def goes_on(case: Case, output: str, *words: str) -> str:
    """Starts again until it ends; says what came of it."""
    code = finish(case, output, case.start(output, *words))
    log = case.log(output)
    if code == -100:
        return "FAILED: no end"
    if code != 0:
        refusal = next(
            (line for line in reversed(log.splitlines()) if any(word in line for word in REFUSALS)), ""
        )
        traceback = "Traceback" in log and case.processes == 1  # torchrun shows one of its own
        return (
            f"FAILED: code {code}, {log[-300:]!r}" if traceback or not refusal else f"refused: {refusal[:90]}"
        )
    return "equal" if weights_of(case, output) == case.weights else "FAILED: other weights"


def kill(case: Case, output: str, how: str, in_save: bool, draw: random.Random) -> str:
    """Disturbs one run at a random update, in a save or between two, and lets it go on."""
    process = case.start(output)
    folder = case.folder / output
    if in_save:
        step = SAVE_EVERY * draw.randrange(1, UPDATES // SAVE_EVERY)
        came = until(process, lambda: (folder / f"checkpoint-{step}").is_dir())
    else:
        step = SAVE_EVERY * draw.randrange(0, UPDATES // SAVE_EVERY - 1)
        marker = folder / (f"checkpoint-{step}/complete.json" if step else "run.json")
        came = until(process, marker.exists)
        time.sleep(draw.uniform(0, 0.5))
    if not came:
        kill_all(case, output, process)
        return f"FAILED: it never came to update {step}: {case.log(output)[-300:]!r}"
    if how == "SIGTERM":
        process.send_signal(signal.SIGTERM)
        code = finish(case, output, process)
        if case.processes == 1 and code not in (75, 0, -signal.SIGTERM):
            return f"FAILED: code {code} after SIGTERM"
    elif how == "SIGKILL":
        kill_all(case, output, process)
    else:  # the launcher alone: its workers may live on, and then hold the directory
        process.kill()
        process.wait()
        code = finish(case, output, case.start(output))
        if code != 0 and "is being written by" not in case.log(output):
            return f"FAILED: code {code} beside living workers"
        kill_workers(case, output)
        if code == 0:
            return "equal" if weights_of(case, output) == case.weights else "FAILED: other weights"
    if (folder / "training_summary.json").exists():
        return "equal" if weights_of(case, output) == case.weights else "FAILED: other weights"
    return goes_on(case, output)


def damage(file: Path, how: str, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    else:
        place = draw.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)


def stopped_run(case: Case) -> str:
    """A run that was stopped in its middle; damages are done to copies of it."""
    process = case.start("stopped")
    if not until(process, (case.folder / f"stopped/checkpoint-{2 * SAVE_EVERY}/complete.json").exists):
        kill_all(case, "stopped", process)
        raise RuntimeError(f"{case.objective}: no run to damage: {case.log('stopped')[-500:]}")
    kill_all(case, "stopped", process)
    return "stopped"


def damages(case: Case, draw: random.Random, short: bool) -> Iterator[tuple[str, str]]:
    source = case.folder / stopped_run(case)
    newest = max(
        (int(marker.parent.name.rpartition("-")[2]) for marker in source.glob("checkpoint-*/complete.json")),
        default=0,
    )
    checkpoint = f"checkpoint-{newest}"
    names = sorted(path.name for path in (source / checkpoint).iterdir())
    if short:
        names = [
            name for name in names if name in ("model.safetensors", "trainer_state.json", "complete.json")
        ]
    for name in [f"{checkpoint}/{name}" for name in names] + ["run.json", "recipe.yaml"]:
        for how in ("truncated", "flipped"):
            output = f"damaged-{name.replace('/', '-')}-{how}"
            shutil.copytree(source, case.folder / output)
            damage(case.folder / output / name, how, draw)
            yield f"{name.replace(checkpoint, 'newest checkpoint')} {how}", goes_on(case, output)
            shutil.rmtree(case.folder / output)
    cache, kept = case.folder / "cache", case.folder / "kept-cache"
    shutil.copytree(cache, kept)
    for name in ("tokens.bin", "offsets.npy", "meta.json"):
        for how in ("truncated", "flipped"):
            damage(next(cache.glob(f"*/train/{name}")), how, draw)
            output = f"arrays-{name}-{how}"
            shutil.copytree(source, case.folder / output)
            yield f"token array: {name} {how}", goes_on(case, output)
            shutil.rmtree(cache)
            shutil.copytree(kept, cache)
    for text in case.folder.glob("text.*"):
        text.rename(text.with_name(f"gone-{text.name}"))
    shutil.copytree(source, case.folder / "vanished")
    code = finish(case, "vanished", case.start("vanished"))
    yield (
        "data vanished",
        "refused: " + case.log("vanished").splitlines()[-1][:90] if code > 0 else "FAILED: no word",
    )
    for text in case.folder.glob("gone-text.*"):
        text.rename(text.with_name(text.name.removeprefix("gone-")))


def starts(case: Case, count: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Fresh starts, each process late by up to five seconds; two updates are enough."""
    for number in range(count):
        output = f"start-{case.processes}-{number}"
        shutil.rmtree(case.folder / "cache", ignore_errors=True)  # the processes build it together
        process = case.start(
            output, "--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no",
            FAULTS_LATEST="5", FAULTS_SEED=str(draw.random()),
        )  # fmt: skip
        code = finish(case, output, process)
        yield "late start", "equal" if code == 0 else f"FAILED: code {code}, {case.log(output)[-400:]!r}"
        shutil.rmtree(case.folder / output, ignore_errors=True)


def faults(arguments: argparse.Namespace, root: Path) -> Iterator[tuple[str, int, str, str]]:
    """(objective, processes, fault, outcome) of every fault."""
    draw = random.Random(arguments.seed)
    for objective in arguments.objectives:
        for processes in arguments.processes:
            folder = root / f"{objective}-{processes}"
            folder.mkdir()
            case = Case(objective, processes, folder, prepare(folder))
            if "starts" in arguments.only and processes > 1:
                for fault, outcome in starts(case, arguments.count, draw):
                    yield objective, processes, fault, outcome
            if not {"kills", "damages"} & {*arguments.only}:
                continue
            if finish(case, "whole", case.start("whole")) != 0:
                yield objective, processes, "none", f"FAILED: {case.log('whole')[-500:]!r}"
                continue
            case.weights = weights_of(case, "whole")
            if "kills" in arguments.only:
                kinds = ["SIGKILL", "SIGTERM", *(["launcher alone"] if processes > 1 else [])]
                kills = [(how, in_save) for how in kinds for in_save in (False, True)] * arguments.count
                if arguments.short:
                    kills = [("SIGKILL", True), ("SIGTERM", False)]
                for number, (how, in_save) in enumerate(kills):
                    fault = f"{how} {'in a save' if in_save else 'in training'}"
                    yield objective, processes, fault, kill(case, f"kill-{number}", how, in_save, draw)
            if "damages" in arguments.only:
                for fault, outcome in damages(case, draw, arguments.short):
                    yield objective, processes, fault, outcome


def table(rows: list[tuple[str, int, str, str]]) -> str:
    """Markdown: how often each fault was done, and what came of it."""
    lines = [
        "| objective | processes | fault | times | equal weights | refused | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys(row[:3] for row in rows):
        outcomes = [row[3].partition(":")[0] for row in rows if row[:3] == key]
        counts = [outcomes.count(kind) for kind in ("equal", "refused", "FAILED")]
        lines.append(f"| {' | '.join(map(str, [*key, len(outcomes), *counts]))} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="causal, one process, two kills, three files")
    parser.add_argument(
        "--only", nargs="+", choices=("starts", "kills", "damages"), default=["starts", "kills", "damages"]
    )
    parser.add_argument("--objectives", nargs="+", choices=sorted(OBJECTIVES), default=sorted(OBJECTIVES))
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--count", type=int, default=4, help="of each kill; of starts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, help="write the table to this file, too")
    arguments = parser.parse_args(argv)
    if arguments.short:
        arguments.objectives, arguments.processes, arguments.count = ["causal"], [1], 1
    rows = []
    with tempfile.TemporaryDirectory(prefix="hfseq-faults-") as root:
        for row in faults(arguments, Path(root)):
            rows.append(row)
            print(*row, sep="  ", flush=True)
    print("\n" + table(rows))
    if arguments.table:
        arguments.table.write_text(table(rows), encoding="utf-8")
    failed = sum(row[3].startswith("FAILED") for row in rows)
    if failed or not rows:
        sys.exit(f"{failed} of {len(rows)} faults were not survived")


if __name__ == "__main__":
    main()
