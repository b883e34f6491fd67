"""Measures hfseq against what a user has today. Every line of the table is one claim, with its goal.

    python scripts/benchmark.py lstm                     # training, memory, streams, decoding (minutes)
    python scripts/benchmark.py import                   # what `import hfseq` costs
    python scripts/benchmark.py data                     # tokenising and batching
    python scripts/benchmark.py all --output scripts/benchmarks/cpu.json
    python scripts/benchmark.py lstm --device cuda --output scripts/benchmarks/gpu.json

The peer is what people write, at its best: a batch-first `nn.LSTM` under a linear layer and `F.cross_entropy`, fused
AdamW, the same batches, dtype and threads; `datasets.map(batched=True)`; transformers' collators. Before anything is
timed, both sides must give the same losses, gradients, logits or ids: otherwise the line is void
and the script fails.

Both sides run in this process and take turns (A B A B ...). A line's ratio is the median over the turns of theirs /
ours. On a CPU it counts processor time, which other work on the machine disturbs less than it does the clock; the
output file has both. Memory is what a fresh process grows by (on a GPU: what the allocator handed out at most).
One thread unless --threads says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import hfseq
from hfseq import data

REPOSITORY = Path(__file__).resolve().parents[1]
IGNORE_INDEX = -100
LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}
SMALLEST_BPE = 258
"""256 bytes, end of text, padding."""
HEAVY_MODULES = ("datasets", "evaluate", "sklearn", "matplotlib")


# ---- what is measured, and how


@dataclass(frozen=True)
class Settings:
    """How to measure; made from the command line."""

    device: str = "cpu"
    threads: int = 1
    quick: bool = False
    """Tiny sizes and two turns: shows that the script works, measures nothing."""

    @property
    def turns(self) -> int:
        return 2 if self.quick else 5

    @property
    def repeats(self) -> int:
        """Updates per turn: on a GPU one is too short to time."""
        return 10 if self.device == "cuda" else 1


@dataclass(frozen=True)
class Size:
    """A language model and its batches."""

    vocabulary: int
    width: int
    """Of the embedding and of every layer."""
    layers: int
    rows: int
    time: int
    """Tokens per row and update."""
    tied: bool = True

    def __str__(self) -> str:
        kind = "" if self.tied else ", untied"
        return f"{self.layers} x {self.width}, {self.vocabulary} words, [{self.rows} x {self.time}]{kind}"

    @property
    def tokens(self) -> int:
        return self.rows * self.time

    def lstm_flops(self) -> int:
        """Multiplications and additions of one update in the recurrent layers, forward and backward."""
        return 3 * 2 * self.tokens * self.layers * 4 * self.width * (2 * self.width)

    def flops(self) -> int:
        """The same with the output layer."""
        return self.lstm_flops() + 3 * 2 * self.tokens * self.vocabulary * self.width


def training_size(settings: Settings, vocabulary: int = 16384, tied: bool = True) -> Size:
    if settings.quick:
        return Size(vocabulary // 64, width=32, layers=2, rows=4, time=8, tied=tied)
    if settings.device == "cuda":
        return Size(2 * vocabulary, width=1024, layers=2, rows=128, time=128, tied=tied)
    return Size(vocabulary, width=512, layers=2, rows=32, time=64, tied=tied)


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
        """Runs one part; if it is void or fails, the others still run and the script ends with an error."""
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


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| / ||b||, in float64."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


# ---- the peers of the LSTM


class NaiveLanguageModel(nn.Module):
    """A language model as most people write it."""

    def __init__(self, size: Size):
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.rnn = nn.LSTM(size.width, size.width, size.layers, batch_first=True)
        self.output = nn.Linear(size.width, size.vocabulary)
        if size.tied:
            self.output.weight = self.embedding.weight
        self.state = None

    def forward(self, input_ids: torch.Tensor, state=None):
        output, state = self.rnn(self.embedding(input_ids), state)
        return self.output(output), state

    def loss(self, input_ids, shift_labels, **_) -> torch.Tensor:
        """Of the next segment: the state is carried on, detached ("repackaged")."""
        logits, state = self(input_ids, self.state)
        self.state = tuple(s.detach() for s in state)
        return F.cross_entropy(logits.flatten(0, 1), shift_labels.flatten())

    def padded_loss(self, input_ids, labels, lengths, *, packed: bool, selected: bool) -> torch.Tensor:
        """Of a padded batch. packed: through PackedSequence. selected: no logits at padding."""
        x = self.embedding(input_ids)
        if packed:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, _ = self.rnn(x)
        if packed and selected:
            labels = pack_padded_sequence(labels, lengths, batch_first=True, enforce_sorted=False).data
            return F.cross_entropy(self.output(output.data), labels)
        if packed:
            output, _ = pad_packed_sequence(output, batch_first=True, total_length=labels.shape[1])
        if selected:
            real = labels != IGNORE_INDEX
            output, labels = output[real], labels[real]
        return F.cross_entropy(
            self.output(output).flatten(0, -2), labels.flatten(), ignore_index=IGNORE_INDEX
        )

    def parts(self) -> dict[str, torch.Tensor]:
        """Parameters under the names that `parts_of` gives ours."""
        return {
            "embedding": self.embedding.weight,
            "output": self.output.weight,
            "output_bias": self.output.bias,
            **dict(self.rnn.named_parameters()),
        }


class CellLoopLanguageModel(nn.Module):
    """The same with nn.LSTMCell and a Python loop over time."""

    def __init__(self, size: Size):
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.cells = nn.ModuleList(nn.LSTMCell(size.width, size.width) for _ in range(size.layers))
        self.output = nn.Linear(size.width, size.vocabulary)
        if size.tied:
            self.output.weight = self.embedding.weight
        self.state = None

    def loss(self, input_ids, shift_labels, **_) -> torch.Tensor:
        x = self.embedding(input_ids)  # [batch, time, width]
        zeros = x.new_zeros(x.shape[0], x.shape[2])
        states = self.state or [(zeros, zeros)] * len(self.cells)
        outputs = []
        for t in range(x.shape[1]):
            h = x[:, t]
            for layer, cell in enumerate(self.cells):
                states = [*states[:layer], cell(h, states[layer]), *states[layer + 1 :]]
                h = states[layer][0]
            outputs.append(h)
        self.state = [(h.detach(), c.detach()) for h, c in states]
        logits = self.output(torch.stack(outputs, dim=1))
        return F.cross_entropy(logits.flatten(0, 1), shift_labels.flatten())

    def parts(self) -> dict[str, torch.Tensor]:
        layers = {
            f"{name}_l{k}": p for k, cell in enumerate(self.cells) for name, p in cell.named_parameters()
        }
        return {
            "embedding": self.embedding.weight,
            "output": self.output.weight,
            "output_bias": self.output.bias,
            **layers,
        }


def our_model(size: Size, device: str) -> hfseq.LSTMForCausalLM:
    config = hfseq.LSTMConfig(
        vocab_size=size.vocabulary,
        embedding_size=size.width,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        tie_word_embeddings=size.tied,
    )
    torch.manual_seed(0)
    return hfseq.LSTMForCausalLM(config).to(device).train()


def parts_of(model: hfseq.LSTMForCausalLM) -> dict[str, torch.Tensor]:
    return {
        "embedding": model.model.embed_tokens.weight,
        "output": model.lm_head.weight,
        "output_bias": model.lm_head.bias,
        **dict(model.model.blocks[0].rnn.named_parameters()),
    }


@torch.no_grad()
def with_our_weights(peer, ours):
    """The peer, on the same device with the same weights."""
    peer.to(ours.device)
    source = parts_of(ours)
    for name, parameter in peer.parts().items():
        parameter.copy_(source[name])
    return peer.train(ours.training)


def stream_batches(size: Size, number: int, device: str, tokens: np.ndarray | None = None) -> list[dict]:
    """The first segments of contiguous streams, of random tokens if none are given."""
    if tokens is None:
        random = np.random.default_rng(0)
        tokens = random.integers(size.vocabulary, size=size.tokens * number + 1, dtype=np.int64)
    plan = data.StreamPlan(tokens, streams=size.rows, segment_length=size.time)
    collate = data.StreamCollator()
    rows = [plan.__getitems__(list(range(u * size.rows, (u + 1) * size.rows))) for u in range(number)]
    return [{name: value.to(device) for name, value in collate(update).items()} for update in rows]


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


def our_loss(model) -> Callable[..., torch.Tensor]:
    return lambda **batch: model(**batch).loss


def check_equal_training(report: Report, name: str, ours, peer, batches) -> None:
    """Two segments with carried state: the same losses, and the same gradients of the second."""
    losses, gradients = [], []
    for model, loss in ((ours, our_loss(ours)), (peer, peer.loss)):
        with torch.no_grad():
            first = loss(**batches[0])
        second = loss(**batches[1])
        second.backward()
        losses.append(torch.stack([first, second]))
        parts = parts_of(model) if model is ours else model.parts()
        gradients.append({part: p.grad for part, p in parts.items()})
        model.zero_grad()
    report.check(f"{name}: losses", difference(*losses), 1e-5)
    worst = max(difference(gradients[0][part], gradients[1][part]) for part in gradients[1])
    report.check(f"{name}: gradients", worst, 1e-4)


# ---- LSTM: training


def lstm(report: Report) -> None:
    settings = report.settings
    for vocabulary in (8192, 16384, 32768):
        report.section(train_lines, training_size(settings, vocabulary), vocabulary == 16384)
    report.section(train_lines, training_size(settings, tied=False))
    report.section(memory_line, training_size(settings))
    report.section(streams_lines, training_size(settings))
    for vocabulary in (8192, 16384):
        report.section(decoding_line, training_size(settings, vocabulary), vocabulary == 16384)
    if settings.device == "cuda":
        report.section(device_checks)
        for name in ("fp32", "tf32", "bf16", "fp16"):
            report.section(precision_lines, training_size(settings), name)
        report.section(decoding_paths, training_size(settings))


def train_lines(report: Report, size: Size, is_claim: bool = False) -> None:
    """The same batches of contiguous streams, carried state on both sides."""
    settings = report.settings
    ours = our_model(size, settings.device)
    peers = {"nn.LSTM, full logits": with_our_weights(NaiveLanguageModel(size), ours)}
    if is_claim:
        peers["nn.LSTMCell loop, full logits"] = with_our_weights(CellLoopLanguageModel(size), ours)
    batches = stream_batches(size, 2, settings.device)
    for name, peer in peers.items():
        check_equal_training(report, f"training, {size}, {name}", ours, peer, batches)
    runs = {"hfseq": trainer_of(ours, our_loss(ours), batches[1:])}
    runs |= {name: trainer_of(peer, peer.loss, batches[1:]) for name, peer in peers.items()}
    times = take_turns(runs, settings, settings.repeats)
    note = f"{size.flops() / times['hfseq'].median(report.clock) / 1e9:,.0f} GFLOP/s"
    for name in peers:
        goal = 1.3 if is_claim and "loop" not in name else None
        line = f"LSTM training, {size}"
        report.compare(line, name, "tokens/s", size.tokens, times["hfseq"], times[name], goal, note)


def memory_line(report: Report, size: Size) -> None:
    """Parameters, gradients, optimiser, activations: all that a process has beyond its imports."""
    grown = {}
    for side in ("hfseq", "naive"):
        if report.settings.device == "cuda":
            grown[side] = training_memory(side, size, report.settings)
        else:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh_process:
                grown[side] = fresh_process.submit(training_memory, side, size, report.settings).result()
    ours, theirs = grown["hfseq"] / 2**20, grown["naive"] / 2**20
    name, peer = f"LSTM training memory, {size}", "nn.LSTM, full logits"
    report.add(Line(name, peer, ours, theirs, "MiB", ours / theirs, 0.5, at_least=False))


def training_memory(side: str, size: Size, settings: Settings) -> int:
    """Bytes by which three updates of a new model raise the peak."""
    torch.set_num_threads(settings.threads)
    batches = stream_batches(size, 3, settings.device)
    before = peak_memory(settings.device, reset=True)
    if side == "hfseq":
        model = our_model(size, settings.device)
        trainer_of(model, our_loss(model), batches)()
    else:
        model = NaiveLanguageModel(size).to(settings.device)
        trainer_of(model, model.loss, batches)()
    return peak_memory(settings.device) - before


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


# ---- LSTM: contiguous streams against padded random batches


def streams_lines(report: Report, size: Size) -> None:
    """Bible verses as streams with carried state, against shuffled verses padded to the longest of their batch."""
    settings = report.settings
    updates = 2
    verses, source = verse_tokens(settings, size.vocabulary)
    end = verses[0][0]
    streams = stream_batches(size, updates, settings.device, np.concatenate([*verses, [end]]))
    rows = max(2, round(size.tokens / np.mean([len(verse) for verse in verses])))
    order = np.random.default_rng(0).permutation(len(verses))[: updates * rows].reshape(updates, rows)
    padded = [pad_verses([verses[i] for i in batch], end, settings.device) for batch in order]
    real = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in padded)
    report.facts["padded batches"] = {
        "source": source,
        "rows": rows,
        "share of positions that are tokens": real / sum(batch["labels"].numel() for batch in padded),
    }

    ours = our_model(size, settings.device)
    naive = with_our_weights(NaiveLanguageModel(size), ours)

    def ours_padded(input_ids, labels, lengths) -> torch.Tensor:
        mask = torch.arange(labels.shape[1]).lt(lengths.unsqueeze(1)).to(labels.device)
        return ours(input_ids, attention_mask=mask, shift_labels=labels).loss

    peers = {
        "nn.LSTM, padded": partial(naive.padded_loss, packed=False, selected=False),
        "nn.LSTM, packed": partial(naive.padded_loss, packed=True, selected=False),
        "nn.LSTM, padded, logits of tokens only": partial(naive.padded_loss, packed=False, selected=True),
        "nn.LSTM, packed, logits of tokens only": partial(naive.padded_loss, packed=True, selected=True),
        "hfseq, padded": ours_padded,
    }
    reference = ours_padded(**padded[0])
    for name, loss in peers.items():
        report.check(f"padded batches, {name}: loss", difference(loss(**padded[0]), reference), 1e-5)
    runs = {"streams": trainer_of(ours, our_loss(ours), streams)}
    for name, loss in peers.items():
        runs[name] = trainer_of(ours if name.startswith("hfseq") else naive, loss, padded)
    times = take_turns(runs, settings)

    # The padded batches hold about as many tokens as the streams: seconds for just as many.
    amount = updates * size.tokens
    for name in peers:
        times[name] = times[name].scaled(amount / real)
    usual = min(("nn.LSTM, padded", "nn.LSTM, packed"), key=lambda n: times[n].median(report.clock))
    for name in peers:
        goal = 3.0 if name == usual else None
        line = f"LSTM training on streams, {size}"
        peer = f"random verses, {name}"
        report.compare(line, peer, "real tokens/s", amount, times["streams"], times[name], goal, source)


def pad_verses(verses: list[np.ndarray], end: int, device: str) -> dict[str, torch.Tensor]:
    """Input: end, words. Labels: words, end. Padded on the right to the longest; lengths stay on the CPU."""
    lengths = torch.tensor([len(verse) for verse in verses])
    input_ids = torch.full((len(verses), int(lengths.max())), int(end))
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    for row, verse in enumerate(verses):
        input_ids[row, : len(verse)] = torch.from_numpy(verse)
        labels[row, : len(verse)] = torch.from_numpy(np.append(verse[1:], end))
    return {"input_ids": input_ids.to(device), "labels": labels.to(device), "lengths": lengths}


def verse_tokens(settings: Settings, vocabulary: int) -> tuple[list[np.ndarray], str]:
    """Verses as ids, each beginning with the end-of-text token, and where they come from."""
    corpus, source = bible(settings)
    tokenizer = data.train_tokenizer(corpus.train, "bpe", max(vocabulary, SMALLEST_BPE))
    verses = [verse for chapter in corpus.train for verse in chapter.split("\n")]
    # --quick has models of fewer words than a tokenizer must have.
    ids = [
        np.array([tokenizer.eos_token_id, *verse]) % vocabulary for verse in tokenizer(verses)["input_ids"]
    ]
    return ids, source


def bible(settings: Settings) -> tuple[data.Corpus, str]:
    """The King James Bible, chapters of verses; where it is not installed (or for --quick) verses of random words."""
    if not settings.quick:
        with contextlib.suppress(ModuleNotFoundError):
            return data.load_corpus("kjv"), "King James Bible"
    # As there: 25.5 words to a verse, lognormal (3.14, 0.45), of many thousand words that follow Zipf's law.
    random = np.random.default_rng(0)
    number = 300 if settings.quick else 28000
    letters = np.array(list("aeiounstrlhdm"))
    words = ["".join(random.choice(letters, size=random.integers(2, 9))) for _ in range(12000)]
    share = 1 / np.arange(1, len(words) + 1)
    lengths = np.clip(random.lognormal(3.14, 0.45, size=number), 2, 90).astype(int)
    drawn = np.split(
        random.choice(len(words), size=lengths.sum(), p=share / share.sum()), np.cumsum(lengths)[:-1]
    )
    verses = [" ".join(words[i] for i in verse) for verse in drawn]
    chapters = ["\n".join(verses[i : i + 26]) for i in range(0, number, 26)]
    corpus = data.Corpus.from_documents(chapters, validation_share=0.0, test_share=0.0, name="random words")
    return corpus, "random words, verses as long as in the King James Bible"


# ---- LSTM: decoding


def decoding_line(report: Report, size: Size, is_claim: bool) -> None:
    """One token at a time, batch 1, from token to logits; `generate()` for information."""
    settings = report.settings
    ours = our_model(size, settings.device).eval()
    naive = with_our_weights(NaiveLanguageModel(size), ours)
    tokens = stream_batches(size, 1, settings.device)[0]["input_ids"].flatten()
    tokens = tokens[: 8 if settings.quick else 64].view(-1, 1, 1)

    @torch.no_grad()
    def decode_naive() -> torch.Tensor:
        state, outputs = None, []
        for token in tokens:
            logits, state = naive(token, state)
            outputs.append(logits)
        return torch.cat(outputs)

    @torch.no_grad()
    def decode_ours() -> torch.Tensor:
        cache, outputs = None, []
        for token in tokens:
            output = ours(token, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            outputs.append(output.logits)
        return torch.cat(outputs)

    def generate() -> torch.Tensor:
        new = len(tokens)
        return ours.generate(
            tokens[0], do_sample=False, min_new_tokens=new, max_new_tokens=new, pad_token_id=0
        )

    error = float((decode_ours() - decode_naive()).abs().max())
    report.check(f"decoding, {size}: logits", error, 1e-6 if settings.device == "cpu" else 1e-4)
    times = take_turns({"hfseq": decode_ours, "naive": decode_naive, "generate": generate}, settings)
    report.compare(
        f"LSTM decoding, batch 1, {size.layers} x {size.width}, {size.vocabulary} words",
        "nn.LSTM per step",
        "tokens/s",
        len(tokens),
        times["hfseq"],
        times["naive"],
        2.5 if is_claim else None,
        f"generate(): {len(tokens) / times['generate'].median(report.clock):,.0f} tokens/s",
    )


# ---- LSTM on a GPU: precisions, cuDNN as the ceiling


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


def precision_lines(report: Report, size: Size, name: str) -> None:
    """Training in one precision; the recurrent layers against the bare kernel; shares of the matmul peak (MFU)."""
    settings = report.settings
    batches = stream_batches(size, 2, settings.device)
    with precision(name, settings.device) as autocast:
        peak = matmul_peak(settings, LOW.get(name, torch.float32))
        report.facts[f"matmul peak, {name}, TFLOP/s"] = peak / 1e12
        ours = our_model(size, settings.device)
        naive = with_our_weights(NaiveLanguageModel(size), ours)
        with torch.no_grad(), autocast():
            error = difference(our_loss(ours)(**batches[0]), naive.loss(**batches[0]))
        report.check(f"training, {name}: loss", error, 1e-5 if name == "fp32" else 1e-3)
        runs = {
            "hfseq": trainer_of(ours, our_loss(ours), batches[1:], autocast),
            "naive": trainer_of(naive, naive.loss, batches[1:], autocast),
        }
        times = take_turns(runs, settings, settings.repeats)
        mfu = size.flops() / times["hfseq"].median("wall") / peak
        line, peer = f"LSTM training, {name}, {size}", "nn.LSTM, full logits"
        note = f"MFU {mfu:.1%}"
        report.compare(line, peer, "tokens/s", size.tokens, times["hfseq"], times["naive"], None, note)
        for dropout in (0.0, 0.2):
            layer_lines(report, size, name, ours.model.blocks[0], dropout, peak, autocast)


def layer_lines(report: Report, size: Size, name: str, block, dropout: float, peak: float, autocast) -> None:
    """Our recurrent layers, forward and backward, against a bare nn.LSTM that has the weights in float32 (as ours,
    cast at every call) or in the low precision already (the ceiling)."""
    settings = report.settings
    shape = size.time, size.rows, size.width
    low = LOW.get(name, torch.float32)
    block.hidden_dropout = dropout
    layers = {"hfseq": (block, torch.float32, autocast)}
    for label, dtype, context in (
        ("bare nn.LSTM", torch.float32, autocast),
        (f"bare nn.LSTM in {str(low).removeprefix('torch.')}", low, contextlib.nullcontext),
    ):
        bare = nn.LSTM(size.width, size.width, size.layers, dropout=dropout).to(settings.device, dtype)
        bare.load_state_dict(block.rnn.state_dict())
        layers[label] = bare, dtype, context

    def forward_backward(module, x, gradient, context) -> torch.Tensor:
        with context():
            output = module(x)[0]
        output.backward(gradient.to(output.dtype))
        module.zero_grad()
        return output

    torch.manual_seed(0)
    x, gradient = torch.randn(2, *shape, device=settings.device)
    runs = {
        label: partial(forward_backward, module, x.to(dtype).requires_grad_(), gradient, context)
        for label, (module, dtype, context) in layers.items()
    }
    if not dropout:
        for label in list(runs)[1:]:
            error = difference(runs[label](), runs["hfseq"]())
            report.check(f"layers, {name}, {label}", error, 1e-5 if name == "fp32" else 2e-2)
    times = take_turns(runs, settings, settings.repeats)
    for label in list(runs)[1:]:
        report.compare(
            f"LSTM layers, {name}, dropout {dropout:g}",
            label,
            "tokens/s",
            size.tokens,
            times["hfseq"],
            times[label],
            0.95 if label == "bare nn.LSTM" and not dropout else None,
            f"MFU {size.lstm_flops() / times['hfseq'].median('wall') / peak:.1%}",
        )
    if settings.device == "cuda" and not dropout:
        report.facts[f"kernels, {name}, ms"] = busiest_kernels(runs["hfseq"])
    block.hidden_dropout = 0.0


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


def decoding_paths(report: Report, size: Size) -> None:
    """One token by `*_cell` functions (what the model does on a CPU) against a fused call of length 1 (on a GPU)."""
    settings = report.settings
    block = our_model(size, settings.device).eval().model.blocks[0]
    steps = 2 if settings.quick else 32
    for batch in (1, 16, 128):
        x = torch.randn(batch, size.width, device=settings.device)

        @torch.no_grad()
        def cells(x=x) -> torch.Tensor:
            state = block.zero_state(x.unsqueeze(0))
            for _ in range(steps):
                output, state = block.step(x, state)
            return output

        @torch.no_grad()
        def fused(x=x) -> torch.Tensor:
            state = block.zero_state(x.unsqueeze(0))
            for _ in range(steps):
                output, _, *state = block(x.unsqueeze(0), *state)
            return output[0]

        report.check(f"one step by cells, batch {batch}", difference(cells(), fused()), 1e-3)
        times = take_turns({"cells": cells, "fused": fused}, settings)
        name, peer = f"LSTM layers, one step by cells, batch {batch}", "a fused call per step"
        report.compare(name, peer, "tokens/s", steps * batch, times["cells"], times["fused"])


def device_checks(report: Report) -> None:
    """Is everything right on this device? Tiny and in float64."""
    device = report.settings.device
    size = Size(vocabulary=97, width=24, layers=2, rows=3, time=11)
    model = our_model(size, device).double()
    batch = stream_batches(size, 1, device)[0]
    ids, labels = batch["input_ids"], batch["shift_labels"]

    # The loss without logits, and its gradients, against full logits.
    weight = model.lm_head.weight
    loss = model(ids, shift_labels=labels).loss
    reference = F.cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten())
    report.check("output loss", difference(loss, reference), 1e-9)
    gradients = [torch.autograd.grad(value, weight)[0] for value in (loss, reference)]
    report.check("output loss: gradient", difference(*gradients), 1e-9)

    # Carried state: two segments give what one of both gives.
    half = size.time // 2
    parts = slice(0, half), slice(half, None)
    losses = [
        model(ids[:, p], shift_labels=labels[:, p], stream_id=batch["stream_id"]).loss * ids[:, p].shape[1]
        for p in parts
    ]
    report.check("carried state", difference(sum(losses) / size.time, loss), 1e-9)

    # A padded row gives what it gives alone.
    model.eval()
    with torch.no_grad():
        alone = model(ids[:1, :5]).logits[0]
        for side, kept in (("right", slice(0, 5)), ("left", slice(-5, None))):
            padded, mask = ids.clone(), torch.ones_like(ids)
            mask[0] = 0
            mask[0, kept] = 1
            padded[0, kept] = ids[0, :5]
            logits = model(padded, attention_mask=mask).logits[0, kept]
            report.check(f"padding on the {side}", difference(logits, alone), 1e-9)

    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    cached, recomputed = (model.generate(ids, use_cache=use, **options) for use in (True, False))
    report.check("generate() with and without cache", float((cached != recomputed).sum()), 0)


# ---- import


def import_cost(report: Report) -> None:
    """Seconds that `import hfseq` adds, in fresh processes."""
    report.section(import_line)


def import_line(report: Report) -> None:
    code = (
        "import json, sys, time, torch, transformers.modeling_utils\n"
        "wall, cpu = time.perf_counter(), time.process_time()\n"
        "import hfseq\n"
        "added = {'wall': time.perf_counter() - wall, 'cpu': time.process_time() - cpu, 'before': cpu}\n"
        f"print(json.dumps({{**added, 'heavy': [name for name in {HEAVY_MODULES} if name in sys.modules]}}))\n"
    )
    command = [sys.executable, "-c", code]
    results = []
    for _ in range(2 if report.settings.quick else 7):
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    report.check(f"modules of {HEAVY_MODULES} that were imported", len(results[0]["heavy"]), 0)
    medians = {key: statistics.median(r[key] for r in results) for key in ("wall", "cpu", "before")}
    name, peer = "import hfseq: seconds more", "torch, transformers.modeling_utils"
    details = {"medians": medians, "processes": results}
    report.add(
        Line(name, peer, medians["cpu"], medians["before"], "s", medians["cpu"], 0.2, False, details=details)
    )


# ---- data


def data_lines(report: Report) -> None:
    """From text to token arrays, and from token arrays to batches."""
    import datasets

    datasets.disable_progress_bars()
    corpus, source = bible(report.settings)
    tokenizer = data.train_tokenizer(corpus.train, "bpe", SMALLEST_BPE if report.settings.quick else 4096)
    report.section(tokenising_lines, corpus, source, tokenizer)
    report.section(batching_lines, corpus, tokenizer)


def tokenising_lines(report: Report, corpus: data.Corpus, source: str, tokenizer) -> None:
    """All documents to files of ids: `build_token_arrays` against `datasets.map`."""
    import datasets

    table = datasets.Dataset.from_dict({"text": [document for _, document in corpus]})
    with tempfile.TemporaryDirectory() as directory:
        number = itertools.count()

        def ours() -> dict[str, data.TokenArray]:
            return data.build_token_arrays(corpus, tokenizer, Path(directory, f"ours-{next(number)}"))

        def theirs(**options) -> datasets.Dataset:
            return table.map(
                lambda rows: tokenizer(rows["text"], **options),
                batched=True,
                remove_columns=["text"],
                cache_file_name=str(Path(directory, f"theirs-{next(number)}.arrow")),
                load_from_cache_file=False,
            )

        arrays = ours()
        documents = {side: map(array.document, range(array.n_documents)) for side, array in arrays.items()}
        ids = theirs()["input_ids"]
        different = sum(
            next(documents[side]).tolist() != row for (side, _), row in zip(corpus, ids, strict=True)
        )
        report.check("tokenising: documents with other ids", different, 0)

        peers = {
            "datasets.map(batched=True)": theirs,
            "datasets.map(batched=True), ids only": partial(
                theirs, return_attention_mask=False, return_token_type_ids=False
            ),
        }
        times = take_turns({"hfseq": ours, **peers}, report.settings)
    tokens = sum(len(array) for array in arrays.values())
    for name in peers:
        goal = 1.5 if name.endswith("(batched=True)") else None
        report.compare("tokenising", name, "tokens/s", tokens, times["hfseq"], times[name], goal, source)


def batching_lines(report: Report, corpus: data.Corpus, tokenizer) -> None:
    """Streams against transformers' collators over `group_texts` blocks, through the same DataLoader."""
    import datasets
    from torch.utils.data import DataLoader
    from transformers import DataCollatorForLanguageModeling, default_data_collator

    rows, length, number = (4, 16, 4) if report.settings.quick else (32, 128, 50)
    ids = tokenizer(list(itertools.islice(corpus.train, 2000)))["input_ids"]
    tokens = np.concatenate([np.array(i, dtype=np.uint16) for i in ids])[: number * rows * length + 1]
    plan = data.StreamPlan(tokens, streams=rows, segment_length=length)
    blocks = tokens[:-1].reshape(-1, length).tolist()
    both = datasets.Dataset.from_dict({"input_ids": blocks, "labels": blocks})
    only_ids = datasets.Dataset.from_dict({"input_ids": blocks})

    def batches(dataset, collate) -> list[torch.Tensor]:
        loader = DataLoader(dataset, batch_size=rows, collate_fn=collate)
        return [batch["input_ids"] for batch in loader]

    runs = {
        "hfseq": partial(batches, plan, data.StreamCollator()),
        "default_data_collator": partial(batches, both, default_data_collator),
        "default_data_collator, torch format": partial(
            batches, both.with_format("torch"), default_data_collator
        ),
        "DataCollatorForLanguageModeling": partial(
            batches, only_ids, DataCollatorForLanguageModeling(tokenizer, mlm=False)
        ),
    }
    text = torch.from_numpy(tokens[:-1].astype(np.int64))
    for name, run in runs.items():
        read = torch.cat(run(), dim=1 if name == "hfseq" else 0).flatten()
        report.check(f"batching, {name}: tokens out of place", int((read != text).sum()), 0)
    times = take_turns(runs, report.settings)
    peers = list(runs)[1:]
    fastest = min(peers, key=lambda name: times[name].median(report.clock))
    for name in peers:
        goal = 10.0 if name == fastest else None
        line = f"batching [{rows} x {length}]"
        report.compare(line, name, "batches/s", number, times["hfseq"], times[name], goal)


# ---- the run


BENCHMARKS: dict[str, Callable[[Report], None]] = {"lstm": lstm, "import": import_cost, "data": data_lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing"
    )
    parser.add_argument("--output", type=Path, help="also write everything to this JSON file")
    arguments = parser.parse_args()
    if arguments.threads < 1:
        parser.error(f"--threads must be at least 1, not {arguments.threads}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no GPU: leave the option out to measure on the CPU")
    if arguments.output and not arguments.output.parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no directory {arguments.output.parent}")

    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)  # read when `tokenizers` first uses its threads
    torch.set_num_threads(arguments.threads)
    settings = Settings(device=arguments.device, threads=arguments.threads, quick=arguments.quick)
    report = Report(settings, arguments.output)
    for name in BENCHMARKS if arguments.what == "all" else [arguments.what]:
        print(f"{name} ...", flush=True)
        BENCHMARKS[name](report)
    report.show()
    if report.failures:
        sys.exit("\n".join(["", "FAILED:", *report.failures]))


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
    changed = "+" if git("status", "--porcelain", "--", "hfseq", "scripts/benchmark.py") else ""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hfseq": f"{hfseq.__version__} ({commit}{changed})",
    }


if __name__ == "__main__":
    main()
