"""How long until a model is as good as the peer's? hfseq's command against the script that a user would run.

    python scripts/time_to_quality.py lstm --peer examples/word_language_model
    python scripts/time_to_quality.py masked --peer transformers/examples/pytorch/language-modeling/run_mlm.py
    python scripts/time_to_quality.py causal --peer transformers/examples/pytorch/language-modeling/run_clm.py
    python scripts/time_to_quality.py translation --peer transformers/examples/pytorch/translation/run_translation.py
    python scripts/time_to_quality.py --draw docs/published/time_to_quality.png

The peer trains first, a whole schedule at each of three learning rates, its script and its schedule as they are; the
best score of the best of them is the target. Then hfseq trains by its recipe, cut to fewer updates (--our_updates), and
what counts is when its curve crosses the target. Each run is a process of its own on one thread; what is compared is
processor time from its start. `--their_options=--bf16` gives the peer's runs an option more, as a side of its own.

Runs that are in WORK are not done again. Everything measured goes to scripts/benchmarks/time_to_quality.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from benchmarks.quality import drawing, record
from benchmarks.quality.racing import Contender, race
from benchmarks.quality.tasks import TASKS, Run, Task

import hfseq
from hfseq.commands.console import path

RESULTS = Path(__file__).with_name("benchmarks") / "time_to_quality.json"


def main() -> None:
    arguments = parse()
    if arguments.task:
        measure(arguments)
    if arguments.draw:
        drawing.draw(json.loads(RESULTS.read_text(encoding="utf-8"))["tasks"], arguments.draw)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="?", choices=TASKS)
    parser.add_argument("--peer", type=path, help="the peer's script, or its folder")
    parser.add_argument(
        "--work",
        type=path,
        default=Path("outputs/time_to_quality"),
        help="where runs go; default: %(default)s",
    )
    parser.add_argument(
        "--rates", type=float, nargs="+", help="the peer's learning rates; default: the task's"
    )
    parser.add_argument("--their_updates", type=int, help="of each of the peer's runs (lstm: epochs)")
    parser.add_argument("--our_updates", type=int)
    parser.add_argument("--our_rate", type=float, help="default: the recipe's")
    parser.add_argument(
        "--their_options", nargs="*", default=[], help="of the peer's command: --their_options=--bf16"
    )
    parser.add_argument("--our_options", nargs="*", default=[], help="likewise of ours")
    parser.add_argument(
        "--limit", type=float, default=7200, help="processor seconds of a run; default: %(default)s"
    )
    parser.add_argument("--draw", type=path, help="(also) draw all tasks measured so far to this file")
    arguments = parser.parse_args()
    if not (arguments.task or arguments.draw):
        parser.error("name a task, or --draw FILE")
    if arguments.task and not (arguments.peer and arguments.peer.exists()):
        parser.error(f"--peer {arguments.peer}: the peer's script is not there; see the top of this file")
    return arguments


def measure(arguments: argparse.Namespace) -> None:
    """Runs what is not there yet and writes the results."""
    work = arguments.work.resolve() / arguments.task
    work.mkdir(parents=True, exist_ok=True)
    task = TASKS[arguments.task](arguments.peer.resolve(), work)
    task.prepare()
    theirs = " ".join([task.theirs, *arguments.their_options])
    runs = [
        Run(theirs, rate, arguments.their_updates or task.their_updates, tuple(arguments.their_options))
        for rate in arguments.rates or task.rates
    ]
    ours = Run(
        task.ours,
        arguments.our_rate or task.our_rate,
        arguments.our_updates or task.our_updates,
        tuple(arguments.our_options),
    )
    warm = work / "warm"
    first = task.warm_up(warm / "run")
    if first is not None and not (warm / "done").exists():
        warm.mkdir(exist_ok=True)
        race(first, warm / "log.txt", limit=arguments.limit)
        (warm / "done").touch()
    for run in [*runs, ours]:
        result = one_run(task, run, work, arguments.limit)
        print(f"{run.side}, rate {run.rate:g}: {[round(p['score'], 4) for p in result['curve']]}", flush=True)
    write_results(task, work)


def one_run(task: Task, run: Run, work: Path, limit: float) -> dict[str, Any]:
    """The curve of a run: trained and scored now, unless it is there."""
    key = "_".join([run.side, f"{run.rate:g}", str(run.updates)]).replace(" ", "_").replace("/", "_")
    folder = work / "runs" / key
    done = folder / "result.json"
    if done.exists():
        return json.loads(done.read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    contender = contender_of(task, run, folder / "out")
    moments = race(contender, folder / "log.txt", limit=limit)
    for moment in moments:
        if moment.score is None:
            moment.score = task.score(folder / "out" / str(moment.checkpoint))
    here = {str(task.peer.parent): "PEER", str(work): "WORK"}
    command = " ".join(["python", *contender.command[1:]])
    for place, name in here.items():
        command = command.replace(place, name)
    result = {
        "side": run.side,
        "rate": run.rate,
        "updates": run.updates,
        "command": command,
        "curve": [
            {name: value for name, value in asdict(moment).items() if name != "checkpoint"}
            for moment in moments
        ],
    }
    done.write_text(json.dumps(result), encoding="utf-8")
    for checkpoint in (folder / "out").glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    return result


def contender_of(task: Task, run: Run, output: Path) -> Contender:
    return (task.our_contender if run.side == task.ours else task.their_contender)(run, output)


def write_results(task: Task, work: Path) -> None:
    """Sums up all runs of the task that are in WORK."""
    sides: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(work.glob("runs/*/result.json")):
        run = json.loads(file.read_text(encoding="utf-8"))
        sides.setdefault(run["side"], []).append(run)
    everything = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"tasks": {}}
    everything["tasks"][task.name] = {
        "title": task.title,
        "unit": task.unit,
        "lower_is_better": task.lower_is_better,
        "ours": task.ours,
        **record.summary(sides, task.ours, task.lower_is_better, task.targets),
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "bfloat16_units": hfseq.models.processors.CPU_MULTIPLIES_BFLOAT16,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "hfseq": hfseq.__version__,
        },
    }
    RESULTS.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    for target in everything["tasks"][task.name]["targets"]:
        print(f"{target['score']:.4f} {task.unit}: seconds {target['seconds']}; times {target['times']}")


if __name__ == "__main__":
    main()
