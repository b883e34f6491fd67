"""Memory of a training step against length, and what a model carries along while it writes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from ...planning.simulation import simulate
from ..contestants import ATTENTION, Contestant, equal_model
from ..drawing import Line, line_figure, rows_of
from ..experiment import Context, Experiment, Measurement, Picture, Result, Section
from ..statistics import interval, slope
from ..wording import listed, number
from .step_time import LAYERS, TIMED, VOCABULARY, lines_of, timed_model


class Memory(Experiment):
    """What a step keeps for its backward pass; what a state or a cache of one text takes."""

    name = "memory"
    title = "How much memory does a longer text take?"
    story = (
        "A recurrent network carries a state of fixed size, however long the text was. Attention keeps every "
        "earlier word to look back at. While training, all have to keep what the backward pass needs."
    )
    reading = (
        "Down is better. First picture, while training: a flat line means that a text of twice the length takes twice "
        "the memory, a rising one that it takes more. Second picture, while writing: a flat line is a state of fixed "
        "size; a rising one is a memory that grows with the text."
    )

    def measurements(self, context: Context) -> list[Measurement]:
        # What is counted does not depend on weights: one seed says it all.
        return [
            Measurement(f"0-{contestant.model_type}-{length}", partial(memory, contestant, length, context))
            for contestant in TIMED
            for length in context.scale.lengths
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        training = lines_of(results, "training_bytes_per_token", TIMED)
        carried = lines_of(results, "carried_bytes", TIMED)
        published = lines_of(
            {k: r for k, r in results.items() if "plain_bytes_per_token" in r}, "plain_bytes_per_token", TIMED
        )
        for line in published:
            line.label, line.style = (
                "attention, every pair stored",
                type(line.style)("#000000", "x", (0, (1, 2))),
            )
        if not training:
            return Section()
        sentences, longest = [], context.scale.lengths[-1]
        flat = [
            line.label for line in carried if len(set(_means(line).values())) == 1 and len(_means(line)) > 1
        ]
        grows = [
            f"{line.label} {number(max(_means(line).values()) / min(_means(line).values()))} times"
            for line in carried
            if line.label not in flat and len(_means(line)) > 1
        ]
        if flat:
            sentences.append(
                f"What is carried from one word to the next has the same size after any length for {listed(flat)}"
                + (
                    f"; between the shortest and the longest text it grows for {listed(grows)}."
                    if grows
                    else "."
                )
            )
        for line in [*training, *published]:
            means = _means(line)
            if len(means) > 1:
                growth = slope(list(means), [v * n for n, v in means.items()])
                sentences.append(
                    f"{line.label}: memory of one text in training grows as its length to the power of {growth:.2f}; "
                    f"{number(means[max(means)] / 1024)} KiB a token at length {max(means):,.0f}."
                )
        ticks = [n for i, n in enumerate(context.scale.lengths) if i % 2 == 0 or n == longest]
        pictures = [
            _picture("memory_training", [*training, *published], "memory per token",
                     "Memory that a training step needs beside weights and gradients, per token.", ticks),
            _picture("memory_carried", carried, "carried for one text",
                     "What is kept of one text while it is written on: the state, or the cache of keys and values.",
                     ticks),
        ]  # fmt: skip
        counted = (
            "counted operation by operation on tensors without content (hfseq plan does the same; within 4% of what "
            "torch's allocator records)"
            if context.device == "cpu"
            else "the peak of torch's CUDA allocator"
        )
        setup = (
            f"The models and batches of the section on time; memory is {counted}, without weights and "
            "gradients. It does not depend on the seed, so there is no interval. “Every pair stored” is "
            "attention as it was published, with the table of all pairs in memory; the other line is the fused kernel."
        )
        return Section(sentences, pictures, setup=setup)


def memory(contestant: Contestant, length: int, context: Context) -> Result:
    """Bytes per token in training, and of what is carried after one text of that length."""
    model, batch = timed_model(contestant, length, 0, context)
    tokens = batch["input_ids"].numel()
    result: Result = {
        "training_bytes_per_token": _training_bytes(contestant, model, batch, context, None) / tokens
    }
    if contestant is ATTENTION:
        result["plain_bytes_per_token"] = _training_bytes(contestant, model, batch, context, "eager") / tokens
    model.eval()
    with torch.inference_mode():
        cache = model(input_ids=batch["input_ids"][:1], use_cache=True).past_key_values
    result["carried_bytes"] = bytes_of(cache)
    return result


def _training_bytes(
    contestant: Contestant,
    model: Any,
    batch: dict[str, torch.Tensor],
    context: Context,
    attention: str | None,
) -> int:
    longest = context.scale.lengths[-1]
    if context.device != "cpu":
        if attention:
            model.set_attn_implementation(attention)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        model(**batch).loss.backward()
        gradients = sum(p.numel() * p.element_size() for p in model.parameters())
        model.zero_grad(set_to_none=True)
        if attention:
            model.set_attn_implementation("sdpa")
        return int(torch.cuda.max_memory_allocated() - before - gradients)

    def make() -> torch.nn.Module:
        new = equal_model(contestant, context.scale.step_width, VOCABULARY, layers=LAYERS, longest=longest)
        if attention:
            new.set_attn_implementation(attention)
        return new

    return simulate(make, batch).activation_bytes


def bytes_of(cache: Any) -> int:
    """Of all tensors that a cache holds, wherever it keeps them."""
    seen: set[int] = set()

    def walk(value: Any) -> int:
        if id(value) in seen:
            return 0
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            # A tensor made of part of a larger one: what counts is what the text needs.
            return value.numel() * value.element_size() if value.is_floating_point() else 0
        if isinstance(value, dict):
            return sum(walk(v) for v in value.values())
        if isinstance(value, list | tuple):
            return sum(walk(v) for v in value)
        return walk(vars(value)) if hasattr(value, "__dict__") else 0

    return walk(cache)


def _means(line: Line) -> dict[float, float]:
    return {x: interval(values).mean for x, values in sorted(line.points.items())}


def _picture(name: str, lines: list[Line], y_label: str, caption: str, ticks: list[int]) -> Picture:
    figure = line_figure(
        lines, x_label="length of the text [tokens]", y_label=y_label, log_x=True, log_y=True, ticks=ticks,
        bytes_y=True,
    )  # fmt: skip
    alt = f"{caption} " + " ".join(
        f"{line.label}: {number(line.intervals()[0][1].mean)} bytes at length {line.intervals()[0][0]:g}, "
        f"{number(line.intervals()[-1][1].mean)} bytes at {line.intervals()[-1][0]:g}."
        for line in lines
    )
    return Picture(name, figure, caption, alt, rows_of(lines))


__all__ = ["Memory", "bytes_of", "memory"]
