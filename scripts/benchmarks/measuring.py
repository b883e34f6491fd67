"""How things are measured: turns, medians, memory, and the table with its goals.

Both sides of a comparison run in this process and take turns (A B A B ...). A line's ratio is the median over the turns
of theirs / ours. On a CPU it counts processor time, which other work on the machine disturbs less than it does the
clock; the output file has both. Memory is what a fresh process grows by (on a GPU: what the allocator handed out at
most). Before anything is timed, both sides must give the same results (`Report.check`): otherwise the line is void.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
import transformers

import hfseq
from hfseq.models.losses import IGNORE_INDEX as IGNORE_INDEX  # what all lines count labels by

REPOSITORY = Path(__file__).resolve().parents[2]
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How to measure; made from the command line."""

    device: str = "cpu"
    threads: int = 1
    quick: bool = False
    """Tiny sizes and two turns: shows that the script works, measures nothing."""
    only: str = ""
    """Only the parts with this in their name: "decoding"; empty for all."""
    model: str = ""
    """A trained checkpoint, for the lines that measure quality too; empty: random weights."""
    sentences: int = 0
    """Score only the first so many translations; 0: all."""

    @property
    def turns(self) -> int:
        return 2 if self.quick else 5

    @property
    def repeats(self) -> int:
        """Updates per turn: on a GPU one is too short to time."""
        return 10 if self.device == "cuda" else 1


@dataclass
class Times:
    """Seconds of each turn."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def on(self, clock: str) -> list[float]:
        return self.wall if clock == "wall" else self.cpu

    def median(self, clock: str) -> float:
        return statistics.median(self.on(clock))

    def scaled(self, factor: float) -> Times:
        return Times([t * factor for t in self.wall], [t * factor for t in self.cpu])


@dataclass
class Line:
    """One row of the table."""

    name: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    """How many times better ours is; of memory our share; of added seconds the seconds."""
    goal: float | None = None
    at_least: bool = True
    note: str = ""
    details: dict = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    def cells(self) -> tuple[str, ...]:
        goal = "" if self.goal is None else f"{'>=' if self.at_least else '<='} {self.goal:g}"
        verdict = {None: "", True: "met", False: "NOT MET"}[self.met]
        ours, theirs = (f"{side:,.4g} {self.unit}" for side in (self.ours, self.theirs))
        return self.name, self.peer, ours, theirs, f"{self.ratio:.2f}", goal, verdict, self.note


class VoidComparisonError(Exception):
    """The two sides do not compute the same: nothing to compare."""


class Report:
    """Lines and checks of one run, written to the output file as they come."""

    def __init__(self, settings: Settings, output: Path | None = None):
        self.settings = settings
        self.output = output
        self.clock = "wall" if settings.device == "cuda" else "cpu"
        self.lines: list[Line] = []
        self.checks: dict[str, dict[str, float]] = {}
        self.facts: dict[str, object] = {}
        self.failures: list[str] = []
        self.header = {
            "machine": machine(settings),
            "versions": versions(),
            "settings": asdict(settings),
            "clock": self.clock,
            "load average before": os.getloadavg(),
        }

    def section(self, measure: Callable[..., None], *arguments, **options) -> None:
        """Runs one part, if it is wanted; if it is void or fails, the others still run and the script ends with an
        error."""
        if self.settings.only not in measure.__name__:
            return
        try:
            measure(self, *arguments, **options)
        except (VoidComparisonError, RuntimeError) as error:
            self.failures.append(f"{measure.__name__}: {type(error).__name__}: {error}")
            print(f"  FAILED {self.failures[-1]}", flush=True)
        self.save()

    def check(self, name: str, error: float, limit: float) -> None:
        """Notes a difference.

        Raises:
            VoidComparisonError: it is too large, or not a number.
        """
        self.checks[name] = {"error": error, "limit": limit}
        if not error <= limit:
            raise VoidComparisonError(f"{name}: a difference of {error:.3g}, more than {limit:.3g}")

    def compare(
        self,
        name: str,
        peer: str,
        unit: str,
        amount: float,
        ours: Times,
        theirs: Times,
        goal: float | None = None,
        note: str = "",
    ) -> None:
        """Adds a line of throughputs: `amount` units per turn on either side."""
        details = {}
        for clock in ("cpu", "wall"):
            ratios = [t / o for t, o in zip(theirs.on(clock), ours.on(clock), strict=True)]
            details[clock] = {
                "ours": amount / ours.median(clock),
                "theirs": amount / theirs.median(clock),
                "ratio": statistics.median(ratios),
                "ratios": sorted(ratios),
            }
        used = details[self.clock]
        self.add(
            Line(
                name,
                peer,
                used["ours"],
                used["theirs"],
                unit,
                used["ratio"],
                goal,
                note=note,
                details=details,
            )
        )

    def add(self, line: Line) -> None:
        if self.settings.quick:
            line.goal = None
        self.lines.append(line)
        print(f"  {line.name} | {line.peer}: {line.ratio:.2f}", flush=True)

    def save(self) -> None:
        if self.output is None:
            return
        result = {
            **self.header,
            "load average after": os.getloadavg(),
            "failures": self.failures,
            "facts": self.facts,
            "checks": self.checks,
            "lines": [{**asdict(line), "met": line.met} for line in self.lines],
        }
        self.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    def show(self) -> None:
        print(f"\n{json.dumps(self.header)}")
        for name, fact in self.facts.items():
            print(f"{name}: {fact:.4g}" if isinstance(fact, float) else f"{name}: {fact}")
        print(f"{len(self.checks)} checks of equality. Ratios of {self.clock} time.\n")
        rows = [("what", "against", "ours", "theirs", "ratio", "goal", "", "")]
        rows += [line.cells() for line in self.lines]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def take_turns(
    runs: dict[str, Callable[[], object]], settings: Settings, repeats: int = 1
) -> dict[str, Times]:
    """Runs each once to warm up, then all of them in turn; seconds per call."""
    for run in runs.values():
        run()
    times = {name: Times() for name in runs}
    for _ in range(settings.turns):
        for name, run in runs.items():
            synchronize(settings.device)
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                run()
            synchronize(settings.device)
            times[name].wall.append((time.perf_counter() - wall) / repeats)
            times[name].cpu.append((time.process_time() - cpu) / repeats)
    return times


def trainer_of(model, loss: Callable[..., torch.Tensor], batches, autocast=contextlib.nullcontext):
    """A function that makes one update per batch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def train() -> None:
        for batch in batches:
            with autocast():
                value = loss(**batch)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()

    return train


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| / ||b||, in float64."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def peak_memory(device: str, reset: bool = False) -> int:
    """Bytes at most so far. `reset` starts anew from what is held now, where the system can do that."""
    if device == "cuda":
        torch.cuda.synchronize()
        if reset:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    # Not ru_maxrss, which a process inherits from the (larger) one that started it.
    lines = status.read_text(encoding="utf-8").splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024


def machine(settings: Settings) -> dict[str, object]:
    """What this ran on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    facts: dict[str, object] = {"cpu": name, "cores": os.cpu_count(), "system": platform.platform()}
    if settings.device == "cuda":
        facts |= {
            "gpu": torch.cuda.get_device_name(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return facts


def versions() -> dict[str, str]:
    """Of what was measured; hfseq by its commit, with "+" where the checkout differs from it."""

    def git(*command: str) -> str:
        try:
            done = subprocess.run(["git", *command], cwd=REPOSITORY, capture_output=True, text=True)
        except OSError:  # no git
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = "+" if git("status", "--porcelain", "--", "hfseq", "scripts") else ""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hfseq": f"{hfseq.__version__} ({commit}{changed})",
    }


@contextlib.contextmanager
def precision(name: str, device: str) -> Iterator[Callable]:
    """Sets how float32 is multiplied ("fp32": exactly), and gives a context: autocast for "bf16" and "fp16"."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = name != "fp32"
    try:
        yield partial(torch.autocast, device, dtype=LOW[name]) if name in LOW else contextlib.nullcontext
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def matmul_peak(settings: Settings, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product: what MFU is a share of."""
    n = 8192 if settings.device == "cuda" else 256
    a, b = torch.randn(2, n, n, device=settings.device, dtype=dtype)
    times = take_turns({"matmul": lambda: a @ b}, settings, repeats=10)
    return 2 * n**3 / times["matmul"].median("wall")


def busiest_kernels(run: Callable[[], object], number: int = 8) -> dict[str, float]:
    """The GPU kernels in which most time is spent (their names tell the precision), in milliseconds."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        synchronize("cuda")
    kernels = [e for e in profiler.key_averages() if str(e.device_type).endswith("CUDA")]
    kernels.sort(key=lambda e: e.self_device_time_total, reverse=True)
    return {e.key[:120]: e.self_device_time_total / 1000 for e in kernels[:number]}
