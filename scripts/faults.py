"""Kills and damages pretraining runs in every way that machines do, and compares what comes of them.

    make faults                                   # all of it: objectives x processes x faults; hours on two cores
    python scripts/faults.py --short              # one objective, a few faults: minutes
    python scripts/faults.py --only starts --count 50 --processes 2 4
    python scripts/faults.py --folder FOLDER --table docs/faults.md     # stopped, it goes on where it was

Every run is `hfseq pretrain` as a user starts it, on a made-up text of a few kilobytes. For each objective and number
of processes one run is left alone; then runs are disturbed and started again until they finish, and the final weights
must be those of the undisturbed one, bit for bit - or the start must be refused with a message. Anything else (other
weights, a traceback, a wait without an end) is a failure, and the exit code says so.

Faults: SIGKILL, SIGTERM and SIGKILL of the launcher alone, at a random moment of the training or in the middle of
a save; a disk (tmpfs in a mount namespace of its own) that is full before the run is; truncation and a flipped bit of
each file of the newest checkpoint, of the token arrays, of run.json and recipe.yaml; data that are gone. `starts` are
fresh starts in which each process comes late by a random time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

UPDATES = 40
SAVE_EVERY = 8
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
    "denoising": [
        "transformer-denoise-wiki", *TEXT, "--d_model", "16", "--encoder_layers", "1", "--decoder_layers", "1",
        "--encoder_attention_heads", "2", "--decoder_attention_heads", "2", "--encoder_ffn_dim", "32",
        "--decoder_ffn_dim", "32", "--tokens_per_update", "512", "--num_beams", "1", "--sentinels", "8",
    ],
    "vector_to_text": [
        "lstm-colours", "--corpus", "null", "--train_file", "text.csv", "--feature_columns", "[year, city]",
        "--text_column", "text", "--tokenizer.vocab_size", "300", "--hidden_size", "16", "--embedding_size", "8",
        "--tokens_per_update", "512",
    ],
}  # fmt: skip
# What a refusal says.
REFUSALS = ("Cannot resume", "damaged", "will be built again")
# A fault, and what does it: draws where and when, and says what came of it.
Fault = tuple[str, Callable[[random.Random], str]]
RESULTS = "results.jsonl"
KINDS = ("starts", "kills", "disks", "damages")
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
    limit: float
    """Seconds: a start or an end that takes longer is a wait without an end."""
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

    def start(
        self, output: str, *words: str, within: tuple[str, ...] = (), **environment: str
    ) -> subprocess.Popen:
        """`within`: a command that runs the command which follows it."""
        with open(self.folder / f"{output}.log", "ab") as log:
            return subprocess.Popen(
                [*within, *self.command(output, *words)], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**os.environ, **self.environment, **environment}, start_new_session=True,
            )  # fmt: skip

    def log(self, output: str) -> str:
        return (self.folder / f"{output}.log").read_text(encoding="utf-8", errors="replace")


def prepare(folder: Path) -> dict[str, str]:
    """The texts, the hook that makes processes late, and the environment of all runs."""
    draw = random.Random(0)
    kings = [
        f"And king {n} reigned {draw.randrange(60)} years in city {draw.randrange(9)}." for n in range(400)
    ]
    german = [
        line.replace("And king", "Und König")
        .replace("reigned", "regierte")
        .replace("years in city", "Jahre in")
        for line in kings
    ]
    table = [f"{n / 400:.4f},{n % 9},{line}" for n, line in enumerate(kings)]
    files = {
        "text.txt": "\n\n".join(kings), "text.en": "\n".join(kings), "text.de": "\n".join(german),
        "text.csv": "\n".join(["year,city,text", *table]),
    }  # fmt: skip
    files["late/sitecustomize.py"] = LATE
    (folder / "late").mkdir(exist_ok=True)
    for name, content in files.items():
        if not (folder / name).exists():  # one that is newer than its run is another one
            (folder / name).write_text(content, encoding="utf-8")
    paths = filter(None, [str(folder / "late"), os.environ.get("PYTHONPATH")])
    return {
        "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "agg",
        "HFSEQ_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join(paths),
    }  # fmt: skip


def finish(case: Case, output: str, process: subprocess.Popen) -> int:
    """The exit code; a run that does not end within the limit is killed, with all its processes: -100."""
    try:
        return process.wait(case.limit)
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


def until(case: Case, process: subprocess.Popen, condition) -> bool:
    """Waits for the condition; False: the process ended, or the limit did, before it came."""
    end = time.monotonic() + case.limit
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
        came = until(case, process, lambda: (folder / f"checkpoint-{step}").is_dir())
    else:
        step = SAVE_EVERY * draw.randrange(0, UPDATES // SAVE_EVERY - 1)
        marker = folder / (f"checkpoint-{step}/complete.json" if step else "run.json")
        came = until(case, process, marker.exists)
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
        refused = ("is being written by", "holds a finished run")  # by workers that were done first
        if code != 0 and not any(word in case.log(output) for word in refused):
            return f"FAILED: code {code} beside living workers"
        kill_workers(case, output)
        if code == 0:
            return "equal" if weights_of(case, output) == case.weights else "FAILED: other weights"
    if (folder / "training_summary.json").exists():
        return "equal" if weights_of(case, output) == case.weights else "FAILED: other weights"
    return goes_on(case, output)


def can_mount() -> bool:
    """Whether a process may have a disk of its own here."""
    try:
        return subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
# $1 size, $2 where, $3 where to keep what was on it, for it goes with the process; then the command.
_ON_A_SMALL_DISK = (
    "size=$1 where=$2 kept=$3; shift 3; mount -t tmpfs -o size=$size none $where || exit 99; "
    '"$@"; code=$?; cp -a $where $kept; exit $code'
)


def fill_disk(case: Case, output: str, draw: random.Random) -> str:
    """A disk that holds one checkpoint to three, where four are needed for a moment; then goes on with room enough."""
    size = int(draw.uniform(1.2, 3.5) * allocated(case.folder / "whole" / f"checkpoint-{UPDATES}"))
    kept = f"{output}-kept"
    (case.folder / output).mkdir()
    within = (*_NAMESPACE, "sh", "-c", _ON_A_SMALL_DISK, "sh", str(size), output, kept)
    code = finish(case, output, case.start(output, within=within))
    if code in (0, 99, -100):
        return f"FAILED: code {code} on a disk of {size} bytes: {case.log(output)[-300:]!r}"
    if not re.search(r"Writing \S+ failed: .* on \S+ \(", case.log(output)):
        return f"FAILED: no word of the disk: {case.log(output)[-300:]!r}"
    (case.folder / output).rmdir()
    (case.folder / kept).rename(case.folder / output)
    return goes_on(case, output)


def allocated(folder: Path) -> int:
    """What a folder takes on a disk that gives whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*"))


def damage(file: Path, how: str, draw: random.Random) -> None:
    content = bytearray(file.read_bytes())
    if how == "truncated":
        content = content[: len(content) // 2]
    else:
        place = draw.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)


def stopped_run(case: Case) -> Path:
    """A run that was stopped in its middle; damages are done to copies of it."""
    stopped = case.folder / "stopped"
    marker = stopped / f"checkpoint-{2 * SAVE_EVERY}/complete.json"
    if not marker.exists():
        clear(case, "stopped")
        process = case.start("stopped")
        came = until(case, process, marker.exists)
        kill_all(case, "stopped", process)
        if not came:
            raise RuntimeError(f"{case.objective}: no run to damage: {case.log('stopped')[-500:]}")
    return stopped


def clear(case: Case, output: str) -> None:
    """What an interrupted try left."""
    for path in case.folder.glob(f"{output}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def damages(case: Case, short: bool) -> Iterator[Fault]:
    source = stopped_run(case)
    newest = max(
        int(path.parent.name.rpartition("-")[2]) for path in source.glob("checkpoint-*/complete.json")
    )
    checkpoint = f"checkpoint-{newest}"
    names = sorted(path.name for path in (source / checkpoint).iterdir())
    if short:
        names = [
            name for name in names if name in ("model.safetensors", "trainer_state.json", "complete.json")
        ]
    for name in [f"{checkpoint}/{name}" for name in names] + ["run.json", "recipe.yaml"]:
        for how in ("truncated", "flipped"):
            shown = name.replace(checkpoint, "newest checkpoint")
            yield f"{shown} {how}", partial(damage_run, case, source, name, how)
    for name in ("tokens.bin", "offsets.npy", "meta.json"):
        for how in ("truncated", "flipped"):
            yield f"token array: {name} {how}", partial(damage_arrays, case, source, name, how)
    yield "data vanished", partial(vanish, case, source)


def damage_run(case: Case, source: Path, name: str, how: str, draw: random.Random) -> str:
    output = f"damaged-{name.replace('/', '-')}-{how}"
    clear(case, output)
    shutil.copytree(source, case.folder / output)
    damage(case.folder / output / name, how, draw)
    outcome = goes_on(case, output)
    shutil.rmtree(case.folder / output)
    return outcome


def damage_arrays(case: Case, source: Path, name: str, how: str, draw: random.Random) -> str:
    cache, kept, output = case.folder / "cache", case.folder / "kept-cache", f"arrays-{name}-{how}"
    clear(case, output)
    if not kept.exists():
        shutil.copytree(cache, case.folder / "keeping-cache", dirs_exist_ok=True)
        (case.folder / "keeping-cache").rename(kept)
    shutil.rmtree(cache, ignore_errors=True)
    shutil.copytree(kept, cache)
    damage(next(cache.glob(f"*/train/{name}")), how, draw)
    shutil.copytree(source, case.folder / output)
    outcome = goes_on(case, output)
    shutil.rmtree(cache)
    shutil.copytree(kept, cache)
    shutil.rmtree(case.folder / output)
    return outcome


def vanish(case: Case, source: Path, draw: random.Random) -> str:
    clear(case, "vanished")
    for text in case.folder.glob("gone-text.*"):  # of an interrupted try
        text.rename(text.with_name(text.name.removeprefix("gone-")))
    texts = sorted(case.folder.glob("text.*"))
    for text in texts:
        text.rename(text.with_name(f"gone-{text.name}"))
    shutil.copytree(source, case.folder / "vanished")
    code = finish(case, "vanished", case.start("vanished"))
    for text in texts:
        text.with_name(f"gone-{text.name}").rename(text)
    if code <= 0:
        return "FAILED: no word"
    return "refused: " + case.log("vanished").splitlines()[-1][:90]


def start_late(case: Case, number: int, draw: random.Random) -> str:
    """A fresh start, each process late by up to five seconds; two updates are enough."""
    output = f"start-{case.processes}-{number}"
    clear(case, output)
    shutil.rmtree(case.folder / "cache", ignore_errors=True)  # the processes build it together
    process = case.start(
        output, "--max_steps", "2", "--eval_strategy", "no", "--save_strategy", "no",
        FAULTS_LATEST="5", FAULTS_SEED=str(draw.random()),
    )  # fmt: skip
    code = finish(case, output, process)
    outcome = "equal" if code == 0 else f"FAILED: code {code}, {case.log(output)[-400:]!r}"
    shutil.rmtree(case.folder / output, ignore_errors=True)
    return outcome


def kills(case: Case, arguments: argparse.Namespace) -> Iterator[Fault]:
    ways = ["SIGKILL", "SIGTERM", *(["launcher alone"] if case.processes > 1 else [])]
    chosen = [(how, in_save) for how in ways for in_save in (False, True)] * arguments.count
    if arguments.short:
        chosen = [("SIGKILL", True), ("SIGTERM", False)]
    for number, (how, in_save) in enumerate(chosen):
        fault = f"{how} {'in a save' if in_save else 'in training'}"
        yield fault, partial(on_a_fresh_run, kill, case, f"kill-{number}-", how, in_save)


def on_a_fresh_run(fault: Callable, case: Case, output: str, *rest) -> str:
    clear(case, output)
    outcome = fault(case, output, *rest)
    shutil.rmtree(case.folder / output, ignore_errors=True)
    return outcome


def faults_of(kind: str, case: Case, arguments: argparse.Namespace) -> Iterator[Fault]:
    if kind == "starts":
        for number in range(arguments.count if case.processes > 1 else 0):
            yield "late start", partial(start_late, case, number)
    elif kind == "kills":
        yield from kills(case, arguments)
    elif kind == "disks" and not can_mount():
        print("no mount namespaces here: no disk is filled", file=sys.stderr)
    elif kind == "disks":
        for number in range(arguments.count):
            yield "full disk", partial(on_a_fresh_run, fill_disk, case, f"disk-{number}-")
    else:
        yield from damages(case, arguments.short)


def undisturbed(case: Case) -> bool:
    """Whether the run to compare with ended well; makes it, if it is not there."""
    if not (case.folder / "whole/training_summary.json").exists():
        clear(case, "whole")
        if finish(case, "whole", case.start("whole")) != 0:
            return False
    case.weights = weights_of(case, "whole")
    return True


def outcomes_in(root: Path) -> dict[tuple, tuple[str, int, str, str]]:
    """Those that earlier starts wrote down, by fault."""
    results = root / RESULTS
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return {tuple(key): tuple(row) for key, row in map(json.loads, lines)}


def faults(arguments: argparse.Namespace, root: Path) -> Iterator[tuple[str, int, str, str]]:
    """(objective, processes, fault, outcome) of every fault that `root` has no outcome of."""
    done = outcomes_in(root)
    whole_grid = [
        (k, o, p) for k in arguments.only for o in arguments.objectives for p in arguments.processes
    ]
    for kind, objective, processes in whole_grid:
        folder = root / f"{objective}-{processes}"
        folder.mkdir(exist_ok=True)
        case = Case(objective, processes, folder, arguments.limit, prepare(folder))
        if kind != "starts" and not undisturbed(case):
            yield objective, processes, "none", f"FAILED: {case.log('whole')[-500:]!r}"
            continue
        for number, (fault, do) in enumerate(faults_of(kind, case, arguments)):
            key = (kind, objective, processes, number, fault, arguments.seed)
            if key not in done:
                row = (objective, processes, fault, do(random.Random(repr(key))))
                with open(root / RESULTS, "a", encoding="utf-8") as file:
                    file.write(json.dumps([key, row]) + "\n")
                yield row


HEAD = """# What runs survive

Written by `make faults` (`scripts/faults.py`, which says what each fault is) with hfseq {hfseq}, transformers
{transformers}, torch {torch}. Equal weights: the run was started again, and its final weights are those of the run that
nobody disturbed, bit for bit. Refused: the start ended with a message that names what is damaged or gone.

"""


def versions() -> dict[str, str]:
    return {name: version(name) for name in ("hfseq", "transformers", "torch")}


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
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--objectives", nargs="+", choices=sorted(OBJECTIVES), default=sorted(OBJECTIVES))
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--count", type=int, default=4, help="of each kill; of starts; of full disks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--limit", type=float, default=600, help="seconds that a run may take; more on a machine that is busy"
    )
    parser.add_argument("--folder", type=Path, help="keep the runs and outcomes here, and go on from them")
    parser.add_argument("--table", type=Path, help="write the table to this file, too")
    arguments = parser.parse_args(argv)
    if arguments.short:
        arguments.objectives, arguments.processes, arguments.count = ["causal"], [1], 1
    with contextlib.ExitStack() as stack:
        if arguments.folder:
            root = arguments.folder.absolute()
            root.mkdir(parents=True, exist_ok=True)
        else:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hfseq-faults-")))
        rows = list(outcomes_in(root).values())
        for row in faults(arguments, root):
            rows.append(row)
            print(*row, sep="  ", flush=True)
    print("\n" + table(rows))
    if arguments.table:
        arguments.table.write_text(HEAD.format(**versions()) + table(rows), encoding="utf-8")
    failed = sum(row[3].startswith("FAILED") for row in rows)
    if failed or not rows:
        sys.exit(f"{failed} of {len(rows)} faults were not survived")


if __name__ == "__main__":
    main()
