"""Token arrays of a large file: two cores against one, and the most memory that a build takes.

    python scripts/benchmark.py arrays --output scripts/benchmarks/cpu-arrays.json

The text is the Bible over and over, each copy with its own words swapped for others now and then, so that words are
met that were not met before, as in a web crawl. Each build runs in a process of its own and its children; their
resident memory is read together four times a second. The reader is a process of its own beside those that tokenise:
one core is one for all of them, where the system can bind them to it. On a machine that does other work the clock says
little: then what counts is the share of the work that only one process can do. With t1 seconds of processor time in all
and t0 of them in the reader, two cores need at least max(t0, t1 / 2): the line of two idle cores, an estimate that
meets no goal.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hfseq import data

from .measuring import REPOSITORY, Line, Report
from .text import bible

GOAL_SPEEDUP, GOAL_MEMORY = 1.8, 700e6
# Of the text; of one that is five times as large; of the single word.
BYTES, LARGE_BYTES, WORD_BYTES = 200_000_000, 1_000_000_000, 20_000_000
# Every so many words another one: some 500 new words a megabyte.
SWAPPED = 400


def arrays(report: Report) -> None:
    settings = report.settings
    corpus, source = bible(settings)
    with tempfile.TemporaryDirectory(prefix="hfseq-arrays-") as name:
        folder = Path(name)
        tokenizer = data.train_tokenizer(corpus.train, "bpe", 300 if settings.quick else 8192)
        tokenizer.save_pretrained(folder / "tokenizer")
        report.section(speed_lines, corpus, source, folder)
        report.section(large_line, corpus, folder)
        report.section(word_line, folder)


def made_text(corpus: data.Corpus, file: Path, size: int) -> None:
    """`size` bytes of documents, no two the same."""
    draw, written = random.Random(0), 0
    texts = [text.split(" ") for _, text in corpus]
    with open(file, "w", encoding="utf-8") as out:
        while written < size:
            for words in texts:
                changed = list(words)
                for place in range(draw.randrange(SWAPPED), len(words), SWAPPED):
                    changed[place] = f"{changed[place]}{draw.randrange(10**6):x}"
                written += out.write(" ".join(changed).replace("\n\n", "\n") + "\n\n")
                if written >= size:
                    break


def speed_lines(report: Report, corpus: data.Corpus, source: str, folder: Path) -> None:
    """One process that tokenises on one core, then two on two, in turn; and the most memory that either takes."""
    settings, file = report.settings, folder / "text.txt"
    made_text(corpus, file, 10_000_000 if settings.quick else BYTES)
    runs: dict[int, list[dict]] = {1: [], 2: []}
    for _ in range(1 if settings.quick else 2):
        for processes, found in runs.items():
            found.append(built(file, folder, processes))
    sums = {json.dumps(run["checksums"], sort_keys=True) for found in runs.values() for run in found}
    report.check("arrays: different ones of one process and of two", len(sums) - 1, 0)
    one, two = (min(found, key=lambda run: run["wall"]) for found in runs.values())
    megabytes, name = file.stat().st_size / 1e6, f"token arrays of {file.stat().st_size / 1e6:,.0f} MB"
    note = f"{source}; clock"
    wall = [megabytes / run["wall"] for run in (two, one)]
    report.add(
        Line(f"{name}, two cores", "one core", *wall, "MB/s", wall[0] / wall[1], GOAL_SPEEDUP, note=note)
    )
    total, reader = (min(run[key] for run in runs[2]) for key in ("cpu", "reader cpu"))
    alone = min(run["cpu"] for run in runs[1])
    allowed = min(2.0, alone / max(reader, total / 2))  # more is the noise of other work
    note = f"reader {reader:.1f} s of {total:.1f} s; processor time"
    rates = megabytes / max(reader, total / 2), megabytes / alone
    report.add(Line(f"{name}, two idle cores", "one core", *rates, "MB/s", allowed, None, note=note))
    report.facts["builds"] = runs
    _memory(report, name, [run["memory"] for found in runs.values() for run in found])


def large_line(report: Report, corpus: data.Corpus, folder: Path) -> None:
    """Five times the text takes no more memory."""
    file = folder / "large.txt"
    made_text(corpus, file, 2_000_000 if report.settings.quick else LARGE_BYTES)
    run = built(file, folder, 2)
    report.facts["build of a large file"] = run
    _memory(report, f"token arrays of {file.stat().st_size / 1e6:,.0f} MB", [run["memory"]])
    file.unlink()


def word_line(report: Report, folder: Path) -> None:
    """One word without an end, as encoded data have it."""
    draw, file = random.Random(0), folder / "word.txt"
    size = 100_000 if report.settings.quick else WORD_BYTES
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    file.write_text("Before it.\n\n" + "".join(draw.choices(letters, k=size)) + "\n\nAfter it.\n\nAnd again.")
    run = built(file, folder, 2)
    report.facts["build of one word"] = run
    _memory(report, f"token arrays of one word of {size / 1e6:g} MB", [run["memory"]])


def _memory(report: Report, name: str, peaks: list[int]) -> None:
    most = max(peaks)
    report.add(
        Line(
            f"{name}, memory",
            "goal",
            most / 1e6,
            GOAL_MEMORY / 1e6,
            "MB",
            most / GOAL_MEMORY,
            1.0,
            at_least=False,
        )
    )


_BUILD = """
import json, resource, sys, time
from transformers import AutoTokenizer
from hfseq.data import build_token_arrays, load_corpus
file, folder, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])
tokenizer = AutoTokenizer.from_pretrained(folder + "/tokenizer")
corpus = load_corpus(train_file=file, validation_share=0, test_share=0)
def cpu(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime
before, begun = cpu(resource.RUSAGE_SELF), time.perf_counter()
arrays = build_token_arrays(corpus, tokenizer, folder + "/cache", processes=processes)
seconds, own = time.perf_counter() - begun, cpu(resource.RUSAGE_SELF) - before
metas = {side: json.load(open(array.path / "meta.json")) for side, array in arrays.items()}
sums = {side: [meta["tokens_crc32"], meta["offsets_crc32"]] for side, meta in metas.items()}
others = cpu(resource.RUSAGE_CHILDREN)
print(json.dumps({"wall": seconds, "reader cpu": own, "cpu": own + others, "checksums": sums,
                  "tokens": sum(map(len, arrays.values()))}))
"""


def built(file: Path, folder: Path, processes: int) -> dict:
    """One build: seconds of the clock and of processors, checksums, and the most resident memory of all processes."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "RAYON_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", _BUILD, str(file), str(folder), str(processes)]
    if processes == 1 and shutil.which("taskset"):
        command = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *command]
    answer, memory = folder / "answer", 0
    with (
        open(answer, "w") as out,
        subprocess.Popen(command, stdout=out, env=environment, cwd=folder) as child,
    ):
        while child.poll() is None:
            memory = max(memory, resident(child.pid))
            time.sleep(0.25)
    if child.returncode:
        raise RuntimeError(f"building the token arrays of {file} ended with code {child.returncode}")
    shutil.rmtree(folder / "cache")
    return {**json.loads(answer.read_text().splitlines()[-1]), "memory": memory, "processes": processes}


def resident(process: int) -> int:
    """Bytes of a process and of all that it started; pages that they share are counted once."""
    total = 0
    for number in [process, *children(process)]:
        try:
            text = Path(f"/proc/{number}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # ended
            continue
        total += (
            next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0) * 1024
        )
    return total


def children(process: int) -> list[int]:
    """Those that a process started, and what they started."""
    try:
        tasks = list(Path(f"/proc/{process}/task").iterdir())
        direct = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return []
    return [number for child in direct for number in [child, *children(child)]]
