"""How far back a model remembers: copying and associative recall against distance.

Learning rates (`contestants.py`) were chosen on seed 100, which no report uses, after 800 updates of the copy task:
LSTM 0.75 at 1e-2 and 0.42 at 3e-3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch

from ..contestants import CAUSAL, Contestant, equal_model, inner_parameters, width_for
from ..drawing import Line, line_figure, rows_of
from ..experiment import Context, Experiment, Measurement, Picture, Result, Section, Table
from ..fitting import fit
from ..statistics import Interval, interval
from ..wording import listed, ranked, told
from .gradient import gradient_norms
from .recall_tasks import COPY_VOCABULARY, SYMBOLS, WORD, Batch, accuracy, copy_batch, drawn, recall_batch

LAYERS = 2
TESTED = 128
"""Rows of each difficulty that a model is tested on."""
SURE = 0.9
"""The accuracy up to which a model is said to remember."""
LEARNT = 0.01
"""The loss at which a task counts as learnt and training ends."""
TASKS = {"copy": "copying", "recall": "associative recall"}


class Remembering(Experiment):
    """Accuracy against distance, after equally many updates or when all is learnt."""

    name = "remembering"
    title = "How far back does each model remember?"
    story = (
        "A plain recurrent network writes over its state at every step, so the past fades. Gates were invented to hold "
        "on to it. Attention need not hold on: it looks back. Two tasks of pure memory: say again what was said "
        "before a long stretch of noise, and recall what belongs to a key among many."
    )
    reading = (
        "Up is better: 1 is every answer right, the dotted line is guessing. To the right the task becomes harder: "
        "more noise to hold on through, or more pairs to keep apart. A line that stays up remembers; a wide band says "
        "that some seeds learned the task and others did not."
    )

    def measurements(self, context: Context) -> list[Measurement]:
        return [
            Measurement(
                f"{seed}-{contestant.model_type}-{task}",
                partial(remember, contestant, task, seed, context),
            )
            for seed in range(context.seeds)
            for task in TASKS
            for contestant in CAUSAL
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        section = Section()
        for task, words in TASKS.items():
            lines = _lines(results, task)
            if not lines:
                continue
            far = max(x for line in lines for x in line.points)
            unit = f"{words}, " + (f"a delay of {far:g} words" if task == "copy" else f"among {far:g} pairs")
            last = {line.label: interval(line.points[far]) for line in lines if far in line.points}
            section.sentences += ranked(last, higher_is_better=True, what=f"accuracy in {unit}")
            reached = {line.label: _reach(line) for line in lines}
            section.sentences.append(
                f"Furthest {'delay' if task == 'copy' else 'number of pairs'} with an accuracy of {SURE:.0%} or "
                f"more in {words} (the mean over seeds, and all shorter ones too): "
                + listed([f"{name} {'none' if x is None else f'{x:g}'}" for name, x in reached.items()])
                + "."
            )
            section.pictures.append(_picture(task, words, lines))
        section.tables = [_budget(results)] if results else []
        scale = context.scale
        section.setup = (
            f"Copying: {WORD} symbols out of {SYMBOLS}, a delay of noise, then “what was the i-th?”. Recall: "
            f"pairs of a key and one of {SYMBOLS} values, then all keys in another order. Chance is 1 in "
            f"{SYMBOLS}. Models of {LAYERS} layers with about {scale.inner_parameters:,} parameters beside the "
            f"embeddings, AdamW, up to {scale.recall_updates:,} updates of {scale.recall_rows} rows, fewer where a "
            f"model has learnt all (loss below {LEARNT:g}), difficulties mixed, the same rows for all; tested on "
            f"{TESTED} new rows of each. Learning rates were chosen on a seed that is not shown."
        )
        return section


def remember(contestant: Contestant, task: str, seed: int, context: Context) -> Result:
    """Trains on all difficulties together and tests each; of copying also the gradient by distance afterwards."""
    scale = context.scale
    keys = 2 * max(scale.pairs)
    longest = max(2 * WORD + max(scale.delays) + 1, 4 * max(scale.pairs), scale.gradient_length)
    vocabulary = COPY_VOCABULARY if task == "copy" else keys + SYMBOLS
    difficulties = scale.delays if task == "copy" else scale.pairs

    def batch(rows: int, difficulty: int, generator: torch.Generator) -> Batch:
        if task == "copy":
            return copy_batch(rows, difficulty, generator)
        return recall_batch(rows, difficulty, generator, keys=keys)

    def stream() -> Iterator[dict[str, Any]]:
        for n in range(scale.recall_updates):
            generator = drawn(seed, n)
            difficulty = difficulties[int(torch.randint(len(difficulties), (1,), generator=generator))]
            yield batch(scale.recall_rows, difficulty, generator)._asdict()

    torch.manual_seed(seed)
    model = equal_model(contestant, scale.inner_parameters, vocabulary, layers=LAYERS, longest=longest).to(
        context.device
    )
    done = fit(
        model,
        stream(),
        learning_rate=contestant.learning_rate,
        updates=scale.recall_updates,
        enough=LEARNT,
    )
    rows = {d: batch(TESTED, d, drawn(seed, -1 - d)) for d in difficulties}
    result: Result = {
        "accuracy": {str(d): accuracy(model, [rows[d]]) for d in difficulties},
        "seconds": done.seconds,
        "updates": done.updates,
        "tokens": done.tokens,
        "parameters": sum(p.numel() for p in model.parameters()),
        "inner_parameters": inner_parameters(
            contestant,
            width_for(contestant, scale.inner_parameters, vocabulary, LAYERS, longest),
            vocabulary,
            LAYERS,
            longest,
        ),
    }
    if task == "copy":
        result["gradient"] = gradient_norms(model, COPY_VOCABULARY, scale.gradient_length, seed)
    return result


def _lines(results: Mapping[str, Result], task: str) -> list[Line]:
    lines = []
    for contestant in CAUSAL:
        points: dict[float, list[float]] = {}
        for key, result in results.items():
            _, model_type, of = key.split("-")
            if (model_type, of) == (contestant.model_type, task):
                for distance, value in result["accuracy"].items():
                    points.setdefault(float(distance), []).append(value)
        if points:
            lines.append(Line(contestant.label, points, contestant.style))
    return lines


def _reach(line: Line) -> float | None:
    """The furthest distance up to which the mean accuracy is SURE."""
    far = None
    for x, value in line.intervals():
        if value.mean < SURE:
            break
        far = x
    return far


def _picture(task: str, words: str, lines: list[Line]) -> Picture:
    label = "delay [words]" if task == "copy" else "pairs to be remembered"
    ticks = sorted({x for line in lines for x in line.points})
    figure = line_figure(
        lines,
        x_label=label,
        y_label="accuracy",
        log_x=True,
        chance=1 / SYMBOLS,
        ticks=ticks,
        y_limits=(-0.03, 1.05),
    )
    alt = f"Accuracy in {words} against distance. " + " ".join(
        f"{line.label}: {told(line.intervals()[0][1], 2)} at {line.intervals()[0][0]:g}, "
        f"{told(line.intervals()[-1][1], 2)} at {line.intervals()[-1][0]:g}."
        for line in lines
    )
    rows = rows_of(lines)
    return Picture(
        f"remembering_{task}", figure, f"Accuracy in {words}; the dotted line is guessing.", alt, rows
    )


def _budget(results: Mapping[str, Result]) -> Table:
    rows = []
    for contestant in CAUSAL:
        own = [r for key, r in results.items() if key.split("-")[1:] == [contestant.model_type, "copy"]]
        if own:
            seconds: Interval = interval([r["seconds"] for r in own])
            rows.append(
                [
                    contestant.label,
                    f"{own[0]['inner_parameters']:,}",
                    told(interval([r["updates"] for r in own])),
                    told(seconds),
                ]
            )
    return Table(
        "What the copying models are and took until they had learnt it, or for all updates there were.",
        ["model", "parameters beside embeddings", "updates", "seconds of training"], rows,
    )  # fmt: skip


__all__ = ["Remembering", "remember"]
