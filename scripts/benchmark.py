"""Measures hfseq against what a user has today. Every line of the table is one claim, with its goal.

    python scripts/benchmark.py lstm                     # training, memory, streams, decoding (minutes)
    python scripts/benchmark.py import                   # what `import hfseq` costs
    python scripts/benchmark.py data                     # tokenising and batching
    python scripts/benchmark.py all --output scripts/benchmarks/cpu.json
    python scripts/benchmark.py lstm --device cuda --output scripts/benchmarks/gpu.json

The peer is what people write, at its best: a batch-first `nn.LSTM` under a linear layer and `F.cross_entropy`, fused
AdamW, the same batches, dtype and threads; `datasets.map(batched=True)`; transformers' collators. Before anything is
timed, both sides must give the same losses, gradients, logits or ids: otherwise the script stops, for a line measured
against something unequal is void.

Both sides run in this process and take turns (A B A B ...). A line's ratio is the median over the turns of theirs /
ours. On a CPU it counts processor time, which other work on the machine disturbs less than it does the clock; the
output file has both. Memory is what a fresh process grows by (on a GPU: what the allocator handed out at most).
One thread unless --threads says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
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


@dataclass
class Line:
    """One row of the table."""

    name: str
    peer: str
    ours: float
    theirs: float
    unit: str
    ratio: float
    """How many times better ours is; for memory and seconds added: the share or the number itself."""
    goal: float | None = None
    at_least: bool = True
    details: dict = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


class Report:
    """Lines and checks of one run."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.lines: list[Line] = []
        self.checks: dict[str, dict[str, float]] = {}
        self.facts: dict[str, object] = {}
        self.load_before = os.getloadavg()

    @property
    def clock(self) -> str:
        return "wall" if self.settings.device == "cuda" else "cpu"

    def check(self, name: str, error: float, limit: float) -> None:
        """Notes a difference and refuses to go on where it is too large (or not a number)."""
        self.checks[name] = {"error": error, "limit": limit}
        if not error <= limit:
            raise SystemExit(
                f"VOID: {name} differ by {error:.3g}, more than {limit:.3g}: nothing was compared."
            )

    def compare(
        self,
        name: str,
        peer: str,
        ours: Times,
        theirs: Times,
        amount: float,
        unit: str,
        goal: float | None = None,
        **details,
    ) -> None:
        """A line of throughputs: `amount` of `unit` per turn."""
        ratios = {
            clock: statistics.median(t / o for t, o in zip(theirs.on(clock), ours.on(clock), strict=True))
            for clock in ("cpu", "wall")
        }
        rates = {
            f"{side}_{clock}": amount / statistics.median(times.on(clock))
            for side, times in (("ours", ours), ("theirs", theirs))
            for clock in ("cpu", "wall")
        }
        spread = sorted(t / o for t, o in zip(theirs.on(self.clock), ours.on(self.clock), strict=True))
        details = {
            **details,
            **rates,
            "ratio_cpu": ratios["cpu"],
            "ratio_wall": ratios["wall"],
            "turns": spread,
        }
        ours_rate, theirs_rate = rates[f"ours_{self.clock}"], rates[f"theirs_{self.clock}"]
        self.add(Line(name, peer, ours_rate, theirs_rate, unit, ratios[self.clock], goal, details=details))

    def add(self, line: Line) -> None:
        self.lines.append(line)
        print(f"  {line.name} | {line.peer}: {line.ratio:.2f}", flush=True)

    def as_dict(self) -> dict:
        return {
            "machine": machine(self.settings),
            "versions": versions(),
            "settings": asdict(self.settings),
            "clock": self.clock,
            "load_average": {"before": self.load_before, "after": os.getloadavg()},
            "facts": self.facts,
            "checks": self.checks,
            "lines": [{**asdict(line), "met": line.met} for line in self.lines],
        }

    def table(self) -> str:
        rows = [("what", "against", "ours", "theirs", "ratio", "goal", "")]
        for line in self.lines:
            goal = "" if line.goal is None else f"{'>=' if line.at_least else '<='} {line.goal:g}"
            verdict = "" if line.met is None else "met" if line.met else "NOT MET"
            rows.append(
                (
                    line.name,
                    line.peer,
                    f"{line.ours:,.4g} {line.unit}",
                    f"{line.theirs:,.4g} {line.unit}",
                    f"{line.ratio:.2f}",
                    goal,
                    verdict,
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


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

    def __init__(self, size: Size, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.rnn = nn.LSTM(size.width, size.width, size.layers, batch_first=True, dropout=dropout)
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


def our_model(size: Size, device: str, dropout: float = 0.0) -> hfseq.LSTMForCausalLM:
    config = hfseq.LSTMConfig(
        vocab_size=size.vocabulary,
        embedding_size=size.width,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        hidden_dropout=dropout,
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


def stream_batches(size: Size, number: int, device: str) -> list[dict[str, torch.Tensor]]:
    """Contiguous segments of random tokens, as hfseq's streams give them."""
    tokens = np.random.default_rng(0).integers(size.vocabulary, size=size.tokens * number + 1, dtype=np.int64)
    plan = data.StreamPlan(tokens, streams=size.rows, segment_length=size.time)
    collate = data.StreamCollator()
    batches = []
    for update in range(number):
        batch = collate(plan.__getitems__(list(range(update * size.rows, (update + 1) * size.rows))))
        batches.append({name: value.to(device) for name, value in batch.items()})
    return batches


def our_loss(model) -> Callable[..., torch.Tensor]:
    return lambda **batch: model(**batch).loss


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


def check_equal_training(report: Report, name: str, ours, peer, batches, limit: float = 1e-4) -> None:
    """Two segments with carried state: the same losses, and the same gradients of the second."""
    gradients, losses = [], []
    for model, loss in ((ours, our_loss(ours)), (peer, peer.loss)):
        model.zero_grad()
        with torch.no_grad():
            first = loss(**batches[0])
        second = loss(**batches[1])
        second.backward()
        losses.append(torch.stack([first, second]))
        parts = parts_of(model) if model is ours else model.parts()
        gradients.append({part: p.grad.clone() for part, p in parts.items()})
        model.zero_grad()
    ours.carried_states.clear()
    peer.state = None
    report.check(f"{name}: losses", difference(losses[0], losses[1]), 1e-5)
    worst = max(difference(gradients[0][part], g) for part, g in gradients[1].items())
    report.check(f"{name}: gradients", worst, limit)


# ---- LSTM: training


def lstm(report: Report) -> None:
    settings = report.settings
    for vocabulary in (8192, 16384, 32768):
        train_line(report, training_size(settings, vocabulary), goal=1.3 if vocabulary == 16384 else None)
    train_line(report, training_size(settings, tied=False))
    memory_line(report, training_size(settings), goal=0.5)
    streams_lines(report)
    decoding_lines(report)
    if settings.device == "cuda":
        precision_lines(report, training_size(settings))
        decoding_paths(report, training_size(settings))
        device_checks(report)


def train_line(report: Report, size: Size, goal: float | None = None) -> None:
    """The same batches of contiguous streams, carried state on both sides."""
    settings = report.settings
    ours = our_model(size, settings.device)
    batches = stream_batches(size, 2, settings.device)
    peers = {"nn.LSTM, full logits": with_our_weights(NaiveLanguageModel(size), ours)}
    if goal is not None:
        peers["nn.LSTMCell loop, full logits"] = with_our_weights(CellLoopLanguageModel(size), ours)
    for name, peer in peers.items():
        check_equal_training(report, f"training {size} and {name}", ours, peer, batches)
    runs = {"hfseq": trainer_of(ours, our_loss(ours), batches[:1])}
    runs |= {name: trainer_of(peer, peer.loss, batches[:1]) for name, peer in peers.items()}
    times = take_turns(runs, settings, repeats=1 if settings.device == "cpu" else 10)
    for name in peers:
        line_goal = goal if name.startswith("nn.LSTM,") else None
        report.compare(
            f"LSTM training {size}",
            name,
            times["hfseq"],
            times[name],
            size.tokens,
            "tokens/s",
            line_goal,
            gflops=size.flops() / statistics.median(times["hfseq"].on(report.clock)) / 1e9,
        )


def memory_line(report: Report, size: Size, goal: float) -> None:
    """Parameters, gradients, optimiser and activations of training, all that a process has beyond its imports."""
    settings = report.settings
    grown = {}
    for side in ("hfseq", "naive"):
        if settings.device == "cuda":
            grown[side] = training_memory(side, size, settings)
        else:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as fresh_process:
                grown[side] = fresh_process.submit(training_memory, side, size, settings).result()
    ours, theirs = (grown[side] / 2**20 for side in ("hfseq", "naive"))
    peer = "nn.LSTM, full logits"
    report.add(
        Line(f"LSTM training memory {size}", peer, ours, theirs, "MiB", ours / theirs, goal, at_least=False)
    )


def training_memory(side: str, size: Size, settings: Settings) -> int:
    """Bytes by which training a new model grows the peak."""
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
            Path("/proc/self/clear_refs").write_text("5")
    # Not ru_maxrss, which a process inherits from the (larger) one that started it.
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    return int(lines["VmHWM"].split()[0]) * 1024


# ---- LSTM: contiguous streams against padded random batches


def streams_lines(report: Report) -> None:
    """Bible verses as a stream with carried state, against shuffled verses padded to the longest of the batch."""
    settings = report.settings
    size = training_size(settings)
    verses, source = verse_tokens(settings, size.vocabulary)
    end = verses[0][0]
    ours = our_model(size, settings.device)
    naive = with_our_weights(NaiveLanguageModel(size), ours)

    updates = 2
    stream = np.concatenate([*verses, [end]])
    plan = data.StreamPlan(stream, streams=size.rows, segment_length=size.time)
    collate = data.StreamCollator()
    streams = [
        move(collate(plan.__getitems__(list(range(u * size.rows, (u + 1) * size.rows)))), settings.device)
        for u in range(updates)
    ]

    rows = max(2, round(size.tokens / np.mean([len(v) for v in verses])))
    order = np.random.default_rng(0).permutation(len(verses))
    padded = [
        pad_verses([verses[i] for i in order[u * rows : (u + 1) * rows]], end, settings.device)
        for u in range(updates)
    ]
    real = sum(int((batch["labels"] != IGNORE_INDEX).sum()) for batch in padded)
    share = real / sum(batch["labels"].numel() for batch in padded)
    report.facts["padded batches"] = {"source": source, "rows": rows, "real share of positions": share}

    def ours_padded(input_ids, labels, lengths):
        mask = torch.arange(labels.shape[1]).lt(lengths.unsqueeze(1)).to(labels.device)
        return ours(input_ids, attention_mask=mask, shift_labels=labels).loss

    peers = {
        "nn.LSTM, padded": lambda **b: naive.padded_loss(**b, packed=False, selected=False),
        "nn.LSTM, packed": lambda **b: naive.padded_loss(**b, packed=True, selected=False),
        "nn.LSTM, padded, logits only at tokens": lambda **b: naive.padded_loss(
            **b, packed=False, selected=True
        ),
        "nn.LSTM, packed, logits only at tokens": lambda **b: naive.padded_loss(
            **b, packed=True, selected=True
        ),
        "hfseq, padded": ours_padded,
    }
    reference = ours_padded(**padded[0])
    for name, loss in peers.items():
        report.check(f"padded batches, hfseq and {name}", difference(loss(**padded[0]), reference), 1e-5)

    runs = {"streams": trainer_of(ours, our_loss(ours), streams)}
    runs |= {
        name: trainer_of(ours if name.startswith("hfseq") else naive, loss, padded)
        for name, loss in peers.items()
    }
    times = take_turns(runs, settings)
    # Throughput in real tokens: theirs is brought to the number of tokens that ours had.
    scale = updates * size.tokens / real
    scaled = {
        name: Times([t * scale for t in times[name].wall], [t * scale for t in times[name].cpu])
        for name in peers
    }
    usual = min(
        ("nn.LSTM, padded", "nn.LSTM, packed"), key=lambda n: statistics.median(scaled[n].on(report.clock))
    )
    for name in peers:
        report.compare(
            "LSTM training, streams of verses",
            f"{name} random verses",
            times["streams"],
            scaled[name],
            updates * size.tokens,
            "real tokens/s",
            3.0 if name == usual else None,
            source=source,
        )


def move(batch: dict[str, torch.Tensor], device: str) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def pad_verses(verses: list[np.ndarray], end: int, device: str) -> dict[str, torch.Tensor]:
    """Input: end, words. Labels: words, end. Padded on the right to the longest."""
    lengths = torch.tensor([len(v) for v in verses])
    input_ids = torch.full((len(verses), int(lengths.max())), int(end))
    labels = torch.full_like(input_ids, IGNORE_INDEX)
    for row, verse in enumerate(verses):
        input_ids[row, : len(verse)] = torch.from_numpy(verse)
        labels[row, : len(verse)] = torch.from_numpy(np.append(verse[1:], end))
    return {"input_ids": input_ids.to(device), "labels": labels.to(device), "lengths": lengths}


def verse_tokens(settings: Settings, vocabulary: int) -> tuple[list[np.ndarray], str]:
    """Verses as ids, each beginning with the end-of-text token, and where they come from."""
    corpus, source = bible(settings)
    vocabulary = max(vocabulary, 512)  # byte-level BPE needs 258
    tokenizer = data.train_tokenizer(corpus.train, "bpe", vocabulary)
    verses = [verse for chapter in corpus.train for verse in chapter.split("\n")]
    if settings.quick:
        verses = verses[:200]
    ids = tokenizer(verses)["input_ids"]
    if settings.quick:
        # The tiny model has fewer words than a tokenizer must have.
        ids = [[i % training_size(settings).vocabulary for i in verse] for verse in ids]
    return [np.array([tokenizer.eos_token_id, *verse], dtype=np.int64) for verse in ids], source


def bible(settings: Settings) -> tuple[data.Corpus, str]:
    """The King James Bible, chapters of verses; where it is not installed (or for --quick) verses of random words."""
    if not settings.quick:
        with contextlib.suppress(ModuleNotFoundError):
            return data.load_corpus("kjv"), "King James Bible"
    # 25.5 words per verse, lognormal (3.14, 0.45), of 12,000 words after Zipf: as there.
    random = np.random.default_rng(0)
    number = 400 if settings.quick else 28000
    letters = np.array(list("aeiounstrlhdm"))
    words = ["".join(random.choice(letters, size=random.integers(2, 9))) for _ in range(12000)]
    share = 1 / np.arange(1, len(words) + 1)
    lengths = np.clip(random.lognormal(3.14, 0.45, size=number), 2, 90).astype(int)
    drawn = random.choice(len(words), size=lengths.sum(), p=share / share.sum())
    verses = [
        " ".join(words[i] for i in part) for part in np.split(drawn, np.cumsum(lengths)[:-1]) if len(part)
    ]
    chapters = ["\n".join(verses[i : i + 26]) for i in range(0, number, 26)]
    corpus = data.Corpus.from_documents(chapters, validation_share=0.0, test_share=0.0, name="synthetic")
    return corpus, "synthetic verses (random words, lengths as in the King James Bible)"


# ---- LSTM: decoding


def decoding_lines(report: Report) -> None:
    """One token at a time, batch 1, from model to logits."""
    settings = report.settings
    for vocabulary in (8192, 16384):
        size = training_size(settings, vocabulary)
        ours = our_model(size, settings.device).eval()
        naive = with_our_weights(NaiveLanguageModel(size), ours)
        steps = 8 if settings.quick else 64
        ids = stream_batches(size, 1, settings.device)[0]["input_ids"].flatten()[:steps].view(-1, 1, 1)

        @torch.no_grad()
        def decode_naive(model=naive, ids=ids) -> torch.Tensor:
            state, outputs = None, []
            for token in ids:
                logits, state = model(token, state)
                outputs.append(logits)
            return torch.cat(outputs)

        @torch.no_grad()
        def decode_ours(model=ours, ids=ids) -> torch.Tensor:
            cache, outputs = None, []
            for token in ids:
                output = model(token, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                outputs.append(output.logits)
            return torch.cat(outputs)

        error = float((decode_ours() - decode_naive()).abs().max())
        report.check(f"decoding {size}: logits", error, 1e-6 if settings.device == "cpu" else 1e-4)
        times = take_turns({"hfseq": decode_ours, "naive": decode_naive}, settings)
        goal = 2.5 if vocabulary == 16384 else None
        name = f"LSTM decoding, batch 1, {size.layers} x {size.width}, {size.vocabulary} words"
        report.compare(name, "nn.LSTM per step", times["hfseq"], times["naive"], len(ids), "tokens/s", goal)
        report.facts[f"generate() tokens/s, {size.vocabulary} words"] = generate_speed(
            ours, steps, settings, report.clock
        )


def generate_speed(model, steps: int, settings: Settings, clock: str) -> float:
    """Greedy `generate()`, batch 1, end to end."""
    prompt = torch.ones(1, 4, dtype=torch.long, device=settings.device)
    options = {"do_sample": False, "min_new_tokens": steps, "max_new_tokens": steps, "pad_token_id": 0}
    times = take_turns({"generate": lambda: model.generate(prompt, **options)}, settings)
    return steps / statistics.median(times["generate"].on(clock))


# ---- LSTM on a GPU: precisions, cuDNN as the ceiling


@contextlib.contextmanager
def precision(name: str, device: str) -> Iterator[Callable]:
    """Sets float32 ("fp32": exact, "tf32": TensorFloat-32) or gives an autocast context ("bf16", "fp16")."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow = name != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
    try:
        yield (lambda: torch.autocast(device, dtype=low)) if low else contextlib.nullcontext
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def precision_lines(
    report: Report, size: Size, precisions: tuple[str, ...] = ("fp32", "tf32", "bf16", "fp16")
) -> None:
    """Training in each precision; the recurrent layers against the bare kernel; shares of the matmul peak."""
    settings = report.settings
    device = settings.device
    repeats = 10 if device == "cuda" else 1
    batches = stream_batches(size, 2, device)
    for name in precisions:
        with precision(name, device) as autocast:
            peak = matmul_peak(name, settings, autocast)
            report.facts[f"matmul peak {name}, TFLOP/s"] = peak / 1e12

            ours = our_model(size, device)
            naive = with_our_weights(NaiveLanguageModel(size), ours)
            with autocast():
                # bf16: every matrix product rounds to 8 bits, on both sides in its own order.
                limit = {"fp32": 1e-4, "tf32": 1e-2}.get(name, 5e-2)
                losses = []
                for loss in (our_loss(ours), naive.loss):
                    losses.append(loss(**batches[0]))
                report.check(f"training {name}: losses", difference(*losses), limit)
            del losses
            ours.carried_states.clear()
            naive.state = None
            runs = {
                "hfseq": trainer_of(ours, our_loss(ours), batches[:1], autocast),
                "naive": trainer_of(naive, naive.loss, batches[:1], autocast),
            }
            times = take_turns(runs, settings, repeats)
            seconds = statistics.median(times["hfseq"].wall)
            report.compare(
                f"LSTM training {name}, {size}",
                "nn.LSTM, full logits",
                times["hfseq"],
                times["naive"],
                size.tokens,
                "tokens/s",
                mfu=size.flops() / seconds / peak,
            )
            kernel_lines(report, name, size, ours, peak, autocast)
    if device == "cuda":
        memory_line(report, size, goal=0.5)


def kernel_lines(report: Report, name: str, size: Size, ours, peak: float, autocast) -> None:
    """Our recurrent layers, forward and backward, against a bare nn.LSTM, with and without dropout between them."""
    settings = report.settings
    repeats = 10 if settings.device == "cuda" else 1
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)
    block = ours.model.blocks[0]
    for dropout in (0.0, 0.2):
        x = torch.randn(size.time, size.rows, size.width, device=settings.device, requires_grad=True)
        bare = nn.LSTM(size.width, size.width, size.layers, dropout=dropout).to(settings.device)
        bare.load_state_dict(block.rnn.state_dict())
        # The ceiling: weights and inputs in the low precision already, nothing to cast.
        ceiling = nn.LSTM(size.width, size.width, size.layers, dropout=dropout).to(settings.device, low)
        ceiling.load_state_dict(block.rnn.state_dict())
        x_low = x.detach().to(low).requires_grad_()
        block.hidden_dropout = dropout

        def run(module, x, context, gradient):
            def forward_backward():
                with context():
                    output = module(x)[0]
                output.backward(gradient.to(output.dtype))
                module.zero_grad()

            return forward_backward

        gradient = torch.randn(size.time, size.rows, size.width, device=settings.device)
        runs = {
            "hfseq": run(block, x, autocast, gradient),
            "bare": run(bare, x, autocast, gradient),
            "ceiling": run(ceiling, x_low, contextlib.nullcontext, gradient),
        }
        if not dropout:
            with autocast(), torch.no_grad():
                report.check(f"layers {name}", difference(block(x)[0], bare(x)[0]), 1e-2)
        times = take_turns(runs, settings, repeats)
        for peer, label in (("bare", "nn.LSTM"), ("ceiling", f"nn.LSTM in {low}")):
            report.compare(
                f"LSTM layers forward + backward, {name}, dropout {dropout:g}",
                f"bare {label}",
                times["hfseq"],
                times[peer],
                size.tokens,
                "tokens/s",
                0.95 if peer == "bare" and not dropout else None,
                mfu=size.lstm_flops() / statistics.median(times[peer].wall) / peak,
            )
        if settings.device == "cuda" and not dropout:
            report.facts[f"kernels of the layers, {name}"] = busiest_kernels(runs["hfseq"])
    block.hidden_dropout = 0.0


def matmul_peak(name: str, settings: Settings, autocast) -> float:
    """FLOP/s of a large matrix product in this precision: what MFU is a share of."""
    n = 8192 if settings.device == "cuda" else 256
    a, b = torch.randn(n, n, device=settings.device), torch.randn(n, n, device=settings.device)
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
    if low is not None:
        a, b = a.to(low), b.to(low)
    times = take_turns({"matmul": lambda: a @ b}, settings, repeats=10)
    return 2 * n**3 / statistics.median(times["matmul"].wall)


def busiest_kernels(run: Callable[[], None], number: int = 8) -> dict[str, float]:
    """Names of the GPU kernels in which most time is spent (do they compute in bf16?), in milliseconds."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        run()
        torch.cuda.synchronize()
    events = [e for e in profiler.key_averages() if e.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda e: e.self_device_time_total, reverse=True)
    return {e.key[:120]: e.self_device_time_total / 1000 for e in events[:number]}


def decoding_paths(report: Report, size: Size) -> None:
    """One token by `*_cell` functions (what the model does on a CPU) against a fused call of length 1 (on a GPU)."""
    settings = report.settings
    block = our_model(size, settings.device).eval().model.blocks[0]
    for batch in (1, 16, 128):
        x = torch.randn(batch, size.width, device=settings.device)
        state = block.zero_state(x.unsqueeze(0))

        @torch.no_grad()
        def cells(x=x, state=state):
            for _ in range(16):
                output, state = block.step(x, state)
            return output

        @torch.no_grad()
        def fused(x=x, state=state):
            for _ in range(16):
                output, _, *state = block(x.unsqueeze(0), *state)
            return output[0]

        report.check(f"one step, batch {batch}", difference(cells(), fused()), 1e-3)
        times = take_turns({"cells": cells, "fused": fused}, settings)
        report.compare(
            f"LSTM layers, one step by cells, batch {batch}",
            "one fused call per step",
            times["cells"],
            times["fused"],
            16 * batch,
            "tokens/s",
        )


def device_checks(report: Report) -> None:
    """Is everything right on this device? Tiny, in float64 where the kernels have it."""
    device = report.settings.device
    size = Size(vocabulary=97, width=24, layers=2, rows=3, time=11)
    model = our_model(size, device).double()
    batch = stream_batches(size, 1, device)[0]
    ids, labels = batch["input_ids"], batch["shift_labels"]

    # Fused loss and its gradients against full logits.
    loss = model(ids, shift_labels=labels).loss
    loss.backward()
    gradient = model.lm_head.weight.grad.clone()
    model.zero_grad()
    reference = F.cross_entropy(model(ids).logits.flatten(0, 1), labels.flatten())
    reference.backward()
    report.check("fused loss", difference(loss, reference), 1e-9)
    report.check("fused loss: gradient", difference(gradient, model.lm_head.weight.grad), 1e-9)

    # Carried state: two halves are the whole.
    stream = {"stream_id": batch["stream_id"]}
    half = size.time // 2
    first = model(ids[:, :half], shift_labels=labels[:, :half], **stream).loss
    second = model(ids[:, half:], shift_labels=labels[:, half:], **stream).loss
    halves = (first * half + second * (size.time - half)) / size.time
    report.check("carried state", difference(halves, loss), 1e-9)

    # Padding on either side changes nothing; neither does it in the state that generation goes on from.
    model.eval()
    with torch.no_grad():
        alone = model(ids[:1, :5]).logits
        for side in ("left", "right"):
            mask = torch.ones_like(ids)
            mask[0, 5:] = 0
            row = ids.clone()
            if side == "left":
                mask[0] = mask[0].flip(0)
                row[0, -5:] = ids[0, :5]
            logits = model(row, attention_mask=mask).logits[:1][:, mask[0].bool()]
            report.check(f"padding on the {side}", difference(logits, alone), 1e-9)
        options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
        cached = model.generate(ids, use_cache=True, **options)
        recomputed = model.generate(ids, use_cache=False, **options)
        report.check("generate with and without cache", float((cached != recomputed).sum()), 0)


# ---- import


def import_cost(report: Report) -> None:
    """Seconds that `import hfseq` adds, in fresh processes."""
    code = (
        "import json, sys, time, torch, transformers.modeling_utils\n"
        "a = time.perf_counter(), time.process_time()\n"
        "import hfseq\n"
        "b = time.perf_counter(), time.process_time()\n"
        "heavy = [m for m in ('datasets', 'evaluate', 'sklearn', 'matplotlib') if m in sys.modules]\n"
        "print(json.dumps({'wall': b[0] - a[0], 'cpu': b[1] - a[1], 'before': a[1], 'heavy': heavy}))\n"
    )
    results = []
    for _ in range(2 if report.settings.quick else 7):
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=REPOSITORY
        )
        results.append(json.loads(done.stdout.strip().splitlines()[-1]))
    report.check("heavy modules imported", len(results[0]["heavy"]), 0)
    added, wall, before = (
        statistics.median(r[clock] for r in results) for clock in ("cpu", "wall", "before")
    )
    report.add(
        Line(
            "import hfseq, seconds more",
            "torch + transformers.modeling_utils",
            added,
            before,
            "s",
            added,
            0.2,
            at_least=False,
            details={"wall": wall, "all": results},
        )
    )


# ---- data


def data_lines(report: Report) -> None:
    """From text to token arrays, and from token arrays to batches."""
    import datasets

    datasets.disable_progress_bars()
    corpus, source = bible(report.settings)
    tokenizer = data.train_tokenizer(corpus.train, "bpe", 512 if report.settings.quick else 4096)
    with tempfile.TemporaryDirectory() as directory:
        tokens = tokenising_line(report, corpus, source, tokenizer, Path(directory))
        batching_line(report, tokens, tokenizer)


def tokenising_line(report: Report, corpus, source: str, tokenizer, directory: Path) -> np.ndarray:
    """`build_token_arrays` of all documents against `datasets.map`, both written to disk."""
    import datasets

    documents = [document for _, document in corpus]
    table = datasets.Dataset.from_dict({"text": documents})
    number = iter(range(1000))

    def ours() -> dict[str, data.TokenArray]:
        return data.build_token_arrays(corpus, tokenizer, directory / f"ours-{next(number)}")

    def theirs(**options) -> datasets.Dataset:
        return table.map(
            lambda rows: tokenizer(rows["text"], **options),
            batched=True,
            remove_columns=["text"],
            cache_file_name=str(directory / f"theirs-{next(number)}.arrow"),
            load_from_cache_file=False,
        )

    arrays = ours()
    ids = theirs()["input_ids"]
    position = {"train": 0, "validation": 0, "test": 0}
    wrong = 0
    for (side, _), row in zip(corpus, ids, strict=True):
        wrong += arrays[side].document(position[side]).tolist() != list(row)
        position[side] += 1
    report.check("tokenising: documents with other ids", wrong, 0)

    peers = {
        "datasets.map(batched=True)": theirs,
        "datasets.map(batched=True), without masks": lambda: theirs(return_attention_mask=False),
    }
    times = take_turns({"hfseq": ours, **peers}, report.settings)
    fastest = min(peers, key=lambda name: statistics.median(times[name].cpu))
    total = sum(len(a.tokens) for a in arrays.values())
    for name in peers:
        report.compare(
            "tokenising to disk",
            name,
            times["hfseq"],
            times[name],
            total,
            "tokens/s",
            1.5 if name == fastest else None,
            source=source,
        )
    return np.array(arrays["train"].tokens)


def batching_line(report: Report, tokens: np.ndarray, tokenizer) -> None:
    """Batches of streams against transformers' collators over `group_texts` blocks, through the same DataLoader."""
    import datasets
    from torch.utils.data import DataLoader
    from transformers import DataCollatorForLanguageModeling, default_data_collator

    rows, length = (4, 16) if report.settings.quick else (32, 128)
    number = min(50, (len(tokens) - 1) // (rows * length))
    tokens = tokens[: number * rows * length + 1]
    plan = data.StreamPlan(tokens, streams=rows, segment_length=length)
    blocks = tokens[:-1].reshape(-1, length).tolist()
    table = datasets.Dataset.from_dict({"input_ids": blocks, "labels": blocks})
    masked = DataCollatorForLanguageModeling(tokenizer, mlm=False)

    def drain(dataset, collate) -> torch.Tensor:
        for batch in DataLoader(dataset, batch_size=rows, collate_fn=collate):
            pass
        return batch["input_ids"]

    peers = {
        "default_data_collator": lambda: drain(table, default_data_collator),
        "default_data_collator, torch format": lambda: drain(
            table.with_format("torch"), default_data_collator
        ),
        "DataCollatorForLanguageModeling": lambda: drain(table.remove_columns("labels"), masked),
    }
    last_of_streams = plan.__getitems__([len(plan) - 1])[0]["input_ids"]
    for name, run in peers.items():
        unequal = int((run()[-1] != last_of_streams).sum())
        report.check(f"batching: last row of {name}", unequal, 0)
    runs = {"hfseq": lambda: drain(plan, data.StreamCollator()), **peers}
    times = take_turns(runs, report.settings)
    fastest = min(peers, key=lambda name: statistics.median(times[name].cpu))
    for name in peers:
        report.compare(
            f"batching [{rows} x {length}]",
            name,
            times["hfseq"],
            times[name],
            number,
            "batches/s",
            10.0 if name == fastest else None,
        )


# ---- the run


BENCHMARKS: dict[str, Callable[[Report], None]] = {
    "lstm": lstm,
    "import": import_cost,
    "data": data_lines,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: to see that it runs")
    parser.add_argument("--output", type=Path, help="also write everything to this JSON file")
    arguments = parser.parse_args()
    if arguments.threads < 1:
        parser.error(f"--threads must be at least 1, not {arguments.threads}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no GPU: leave the option out to measure on the CPU")
    if arguments.output and not arguments.output.parent.is_dir():
        parser.error(f"--output {arguments.output}: there is no directory {arguments.output.parent}")

    # Threads of the tokenizers library; read when it first uses them.
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    settings = Settings(device=arguments.device, threads=arguments.threads, quick=arguments.quick)
    report = Report(settings)
    for name in BENCHMARKS if arguments.what == "all" else [arguments.what]:
        print(f"{name} ...", flush=True)
        BENCHMARKS[name](report)

    result = {"benchmark": arguments.what, **report.as_dict()}
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{json.dumps(result['machine'])}\n{json.dumps(result['versions'])}")
    for name, fact in report.facts.items():
        print(f"{name}: {fact:.4g}" if isinstance(fact, float) else f"{name}: {fact}")
    worst = max(report.checks.items(), key=lambda c: c[1]["error"] / (c[1]["limit"] or math.inf))
    print(f"{len(report.checks)} checks of equality passed; closest to its limit: {worst[0]} {worst[1]}")
    print(f"ratios of {'the clock' if report.clock == 'wall' else 'processor time'}\n\n{report.table()}")


def machine(settings: Settings) -> dict[str, object]:
    """What this ran on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        name = models[0] if models else name
    facts: dict[str, object] = {"cpu": name, "cores": os.cpu_count(), "system": platform.platform()}
    if settings.device == "cuda":
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"], facts["cudnn"] = torch.version.cuda, torch.backends.cudnn.version()
    return facts


def versions() -> dict[str, str]:
    """Of what was measured; hfseq by its commit, "+" where the checkout differs from it."""

    def git(*command: str) -> str:
        try:
            done = subprocess.run(["git", *command], cwd=REPOSITORY, capture_output=True, text=True)
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--", "hfseq", "scripts/benchmark.py")
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hfseq": hfseq.__version__,
        "hfseq commit": f"{commit or 'unknown'}{'+' if changed else ''}",
    }


if __name__ == "__main__":
    main()
