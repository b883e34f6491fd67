"""All that a GPU is asked for, in bf16 and within ten minutes: shares of the matmul peak, cuDNN's own speed, memory.

    python scripts/benchmark.py gpu --device cuda --output scripts/benchmarks/gpu.json

The longer lines of each family (peers, other precisions, decoding) are those of `encoder`, `transformer`, `lstm` and
`pervasive` with `--device cuda`. Nothing is read: ids are random, lengths are those of sentences. What compiles comes
last, each part only if the time for it is left; what was left out is among the facts, and each part is written to the
output as soon as it is measured.

A share of the peak counts the work to do: of masked-LM training logits at the labelled positions, of causal attention
the half that is not masked. The peak is that of a bf16 product of two matrices [8192, 8192], measured in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from . import encoder, pervasive, recurrent, transformer
from .encoder import loss_of
from .measuring import Line, Report, Settings, matmul_peak, peak_memory, precision, take_turns, trainer_of

# Seconds after which nothing is compiled any more: it takes one to two minutes a model.
COMPILE_UNTIL = 400
LENGTHS = (16, 32, 64, 128)
PRECISION, BITS = "bf16", torch.bfloat16


def gpu(report: Report) -> None:
    begun, settings = time.perf_counter(), report.settings
    report.section(matmul_line)
    for part in (encoder_line, transformer_line):
        report.section(part)
    report.section(packing_lines)
    report.section(lstm_lines)
    for length in (6, 9) if settings.quick else LENGTHS:
        report.section(pervasive_line, length)
    for part in (encoder_line, transformer_line, pervasive_line):
        spent = time.perf_counter() - begun
        if settings.device == "cpu" or spent > COMPILE_UNTIL:
            why = (
                "on a CPU it takes minutes and says nothing"
                if settings.device == "cpu"
                else f"{spent:.0f} s spent"
            )
            report.facts[f"{part.__name__}, compiled: left out"] = why
        else:
            report.section(part, compiled=True)
    report.facts["seconds in all"] = time.perf_counter() - begun


def matmul_line(report: Report) -> None:
    """Of every section, so that each has its share even where only one is asked for."""
    report.facts["matmul peak, bf16, TFLOP/s"] = _peak(report) / 1e12


def _peak(report: Report) -> float:
    known = report.facts.get("matmul peak, bf16, TFLOP/s")
    return known * 1e12 if isinstance(known, float) else matmul_peak(report.settings, BITS)


def encoder_line(report: Report, compiled: bool = False) -> None:
    """BERT-base's shape on full rows."""
    size = encoder.encoder_size(report.settings, 30528)
    model = encoder.our_model(size, report.settings.device)
    batch = encoder.random_blocks(size, report.settings.device, 1)[0]
    name = f"MLM training, full rows, {size}"
    _share_of_peak(report, name, model, batch, size.flops(), size.tokens, 0.5, compiled)


def transformer_line(report: Report, compiled: bool = False) -> None:
    """The base model of Vaswani et al. (2017) on full rows."""
    size = transformer.transformer_size(report.settings)
    length = 8 if report.settings.quick else 64
    rows = size.tokens // length
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, size.vocabulary, (3, rows, length), generator=generator).to(report.settings.device)
    batch = {"input_ids": ids[0], "decoder_input_ids": ids[1], "labels": ids[2]}
    model = transformer.our_model(size, report.settings.device)
    name = f"Transformer training, [{rows} x {length}], {size}"
    _share_of_peak(report, name, model, batch, size.flops(rows, length), rows * length, 0.45, compiled)


def _share_of_peak(
    report: Report,
    name: str,
    model: torch.nn.Module,
    batch: dict[str, torch.Tensor],
    flops: int,
    tokens: int,
    goal: float,
    compiled: bool,
) -> None:
    settings = report.settings
    name = f"{name}, {PRECISION}{', compiled' if compiled else ''}"
    made = torch.compile(model) if compiled else model
    with precision(PRECISION, settings.device) as autocast:
        train = trainer_of(model, loss_of(made), [batch], autocast)
        seconds, memory = _measured(train, settings)
    rate, peak = flops / seconds, _peak(report)
    note = f"{tokens / seconds:,.0f} tokens/s, {memory / 2**30:.2f} GiB"
    report.add(Line(name, "matmul peak", rate / 1e12, peak / 1e12, "TFLOP/s", rate / peak, goal, note=note))
    report.facts[f"{name}: MFU"] = rate / peak
    report.facts[f"{name}: GiB"] = memory / 2**30


def _measured(train: Callable[[], None], settings: Settings) -> tuple[float, int]:
    """(seconds of an update, bytes at most)."""
    peak_memory(settings.device, reset=True)
    train()
    memory = peak_memory(settings.device)
    return take_turns({"train": train}, settings, settings.repeats)["train"].median("wall"), memory


def packing_lines(report: Report) -> None:
    """Sentences of 8 to 128 tokens, many to a row: varlen attention, against padded batches of BertForMaskedLM."""
    encoder.gpu_packed_lines(report, encoder.encoder_size(report.settings, 30528), PRECISION)


def lstm_lines(report: Report) -> None:
    """Training, and the recurrent layers alone against a bare nn.LSTM: cuDNN's own speed."""
    size = recurrent.training_size(report.settings)
    recurrent.precision_lines(report, size, PRECISION)
    report.facts[f"LSTM training, {size}: GiB"] = (
        recurrent.training_memory("hfseq", size, report.settings) / 2**30
    )


def pervasive_line(report: Report, length: int = 32, compiled: bool = False) -> None:
    """The dense network, whose grid has its channels last, on pairs of one length; against plain convolutions."""
    settings = report.settings
    rows = max(1, (512 if settings.quick else 65536) // length**2)
    size = pervasive.PervasiveSize(10048, 128, 24, 32, rows, length, length)
    if settings.quick:
        size = replace(pervasive.QUICK, rows=4, source=length, target=length)
    name = f"Pervasive training, {size}, {PRECISION}{', compiled' if compiled else ''}"
    batches = size.batches(1, settings.device)
    with precision(PRECISION, settings.device) as autocast:
        ours = pervasive.our_model(size, settings.device)
        plain = pervasive.PlainPervasive(ours)
        made = torch.compile(ours) if compiled else ours
        runs = {
            "ours": trainer_of(ours, loss_of(made), batches, autocast),
            "plain": trainer_of(plain, plain.loss, batches, autocast),
        }
        memory = {side: _measured(run, settings)[1] / 2**30 for side, run in runs.items()}
        times = take_turns(runs, settings)
    tokens = int((batches[0]["labels"] >= 0).sum())
    note = f"{memory['ours']:.2f} against {memory['plain']:.2f} GiB"
    report.compare(
        name, "plain masked convolutions", "tokens/s", tokens, times["ours"], times["plain"], None, note
    )
    report.facts[f"{name}: GiB"] = memory["ours"]
