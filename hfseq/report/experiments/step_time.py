"""Time of a training step, per token, against the length of the text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from statistics import median

import torch

from ..contestants import CAUSAL, Contestant, equal_model
from ..drawing import Line, line_figure, rows_of
from ..experiment import Context, Experiment, Measurement, Picture, Result, Section
from ..statistics import interval
from ..wording import listed, number, ranked, told

VOCABULARY = 256
"""Small: the output layer is the same for all and is not what is compared."""
LAYERS = 2
REPETITIONS = 3
TIMED = tuple(contestant for contestant in CAUSAL if not contestant.in_loop)
"""Mamba's fast kernels are for GPUs; on a CPU transformers runs it as a loop of Python."""


class StepTime(Experiment):
    """Forward and backward pass of models of equal size."""

    name = "step_time"
    title = "How long does a training step take?"
    story = (
        "A recurrent network has to compute word after word: step 1,000 waits for step 999. Attention computes "
        "all words at once, but compares every word with every other, which grows with the square of the length."
    )
    reading = (
        "Down is better. A flat line: a word costs the same in a long text as in a short one. A rising line: the "
        "longer the text, the dearer each of its words. Both axes go by doublings and powers of ten, so that short and "
        "long texts are seen at once."
    )

    def measurements(self, context: Context) -> list[Measurement]:
        return [
            Measurement(
                f"{seed}-{contestant.model_type}-{length}",
                partial(step_time, contestant, length, seed, context),
            )
            for seed in range(context.seeds)
            for contestant in TIMED
            for length in context.scale.lengths
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        lines = lines_of(results, "microseconds_per_token", TIMED)
        shortest, longest = context.scale.lengths[0], context.scale.lengths[-1]
        sentences = []
        for length in (longest, shortest):
            at = {line.label: interval(line.points[length]) for line in lines if line.points.get(length)}
            sentences += ranked(
                at,
                higher_is_better=False,
                what=f"microseconds per token at length {length:,}",
                best="fastest",
            )
        grown = [
            f"{line.label} {number(interval(line.points[longest]).mean / interval(line.points[shortest]).mean, 2)}"
            for line in lines
            if line.points.get(longest) and line.points.get(shortest)
        ]
        if grown:
            sentences.append(
                f"Times the cost of a token at length {shortest}, a token at length {longest:,} costs: {listed(grown)}."
            )
        figure = line_figure(
            lines, x_label="length of the text [tokens]", y_label="time per token [µs]",
            log_x=True, log_y=True,
            ticks=[n for i, n in enumerate(context.scale.lengths) if i % 2 == 0 or n == longest],
        )  # fmt: skip
        alt = "Time per token of a training step against length. " + " ".join(
            f"{line.label}: {told(line.intervals()[0][1])} µs at length {line.intervals()[0][0]:g}, "
            f"{told(line.intervals()[-1][1])} at {line.intervals()[-1][0]:g}."
            for line in lines
        )
        picture = Picture(
            "step_time", figure, "Time of a training step (forward and backward) per token.", alt,
            rows_of(lines),
        )  # fmt: skip
        where = "processor time of one process" if context.device == "cpu" else "time on the GPU"
        setup = (
            f"Models of {LAYERS} layers with about {context.scale.step_width:,} parameters each beside the embeddings, "
            f"{context.scale.step_tokens:,} tokens a step whatever the length (at least one text), {where}, the median "
            f"of {REPETITIONS} steps after one that is not counted. Mamba is left out: its CPU form in "
            "transformers is a loop in Python, which says nothing of the architecture. Attention runs PyTorch's "
            "fused kernel, which never stores the table of all pairs, but computes it."
        )
        return Section(sentences, [picture] if lines else [], setup=setup)


def step_time(contestant: Contestant, length: int, seed: int, context: Context) -> Result:
    """Microseconds per token of a forward and backward pass."""
    model, batch = timed_model(contestant, length, seed, context)
    clock = time.process_time if context.device == "cpu" else time.perf_counter
    seconds = []
    for _ in range(1 + REPETITIONS):
        start = clock()
        model(**batch).loss.backward()
        if context.device != "cpu":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
        model.zero_grad(set_to_none=True)
    tokens = batch["input_ids"].numel()
    return {
        "microseconds_per_token": 1e6 * median(seconds[1:]) / tokens,
        "rows": batch["input_ids"].shape[0],
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def timed_model(
    contestant: Contestant, length: int, seed: int, context: Context
) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A model in training and a batch of one length."""
    torch.manual_seed(seed)
    longest = context.scale.lengths[-1]
    model = equal_model(contestant, context.scale.step_width, VOCABULARY, layers=LAYERS, longest=longest)
    rows = max(1, context.scale.step_tokens // length)
    ids = torch.randint(VOCABULARY, (rows, length)).to(context.device)
    return model.to(context.device).train(), {"input_ids": ids, "labels": ids}


def lines_of(results: Mapping[str, Result], what: str, contestants: tuple[Contestant, ...]) -> list[Line]:
    """A line for each contestant, from results whose keys are SEED-MODEL_TYPE-X."""
    lines = []
    for contestant in contestants:
        points: dict[float, list[float]] = {}
        for key, result in results.items():
            _, model_type, x = key.split("-")
            if model_type == contestant.model_type:
                points.setdefault(float(x), []).append(result[what])
        if points:
            lines.append(Line(contestant.label, points, contestant.style))
    return lines


__all__ = ["StepTime", "lines_of", "step_time", "timed_model"]
