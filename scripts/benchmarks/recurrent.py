"""The recurrent lines: training, memory, streams, decoding; on a GPU also precisions and the kernels' own speed."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import hfseq
from hfseq import data
from hfseq.models.layouts import decoding

from .measuring import (
    IGNORE_INDEX,
    LOW,
    Line,
    Report,
    Settings,
    busiest_kernels,
    difference,
    matmul_peak,
    peak_memory,
    precision,
    take_turns,
    trainer_of,
)
from .text import SMALLEST_BPE, bible


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
    @decoding()
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
                output, *state = block(x.unsqueeze(0), *state)
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
