"""How much of the last word's loss reaches a word further back: the gradient's norm against distance.

What has no gradient cannot be learned: this is why plain recurrent networks do not learn long distances (Hochreiter
1991; Bengio, Simard and Frasconi 1994).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch

from ..contestants import CAUSAL, Contestant, equal_model
from ..drawing import Line, line_figure, rows_of
from ..experiment import Context, Experiment, Measurement, Picture, Result, Section, by_subject
from ..statistics import interval
from ..wording import listed, number
from .recall_tasks import COPY_VOCABULARY

ROWS = 8
LAYERS = 2
SMALLEST = 1e-30
"""Below, float32 has hardly any more numbers: drawn as this."""


class Gradient(Experiment):
    """Of new models; the section on memory has what trained ones become."""

    name = "gradient"
    title = "Does the past receive a learning signal?"
    story = (
        "Learning sends a signal, the gradient, from an error back to the words that could have prevented it. "
        "In a plain recurrent network the signal passes every step in between and shrinks at each; attention "
        "has a direct way."
    )
    reading = (
        "On the left is the word before the last, on the right are words further back; the scale goes by powers "
        "of ten. A line that stays up brings the whole signal back to far words; where a line has fallen to a "
        "thousandth, training can hardly tell what those words should have been."
    )

    def measurements(self, context: Context) -> list[Measurement]:
        return [
            Measurement(f"{seed}-{contestant.model_type}", partial(untrained, contestant, seed, context))
            for seed in range(context.seeds)
            for contestant in CAUSAL
        ]

    def section(self, results: Mapping[str, Result], context: Context) -> Section:
        lines, contestants = [], {c.model_type: c for c in CAUSAL}
        for model_type, own in by_subject(results, contestants).items():
            points: dict[float, list[float]] = {}
            for result in own:
                for distance, norm in result["norm"].items():
                    points.setdefault(float(distance), []).append(max(norm, SMALLEST))
            lines.append(Line(contestants[model_type].label, points, contestants[model_type].style))
        if not lines:
            return Section()
        far = max(lines[0].points)
        at = {line.label: interval(line.points[far]).mean for line in lines}
        kept = {name: value for name, value in at.items() if value > 1e-3}
        lost = {name: value for name, value in at.items() if value <= 1e-3}
        sentences = []
        if lost:
            sentences.append(
                f"Before training, a word {far:g} steps back receives less than a thousandth of the last word's "
                f"gradient in {listed([f'{n} ({_share(v)})' for n, v in lost.items()])}"
                + (
                    f", more in {listed([f'{n} ({number(v, 2)})' for n, v in kept.items()])}."
                    if kept
                    else "."
                )
            )
        else:
            sentences.append(
                f"Before training, a word {far:g} steps back receives this share of the last word's gradient: "
                f"{listed([f'{n} {number(v, 2)}' for n, v in kept.items()])}."
            )
        ticks = sorted(lines[0].points)
        figure = line_figure(
            lines, x_label="distance [words]", y_label="gradient (1: as at the last word)", log_x=True, log_y=True,
            ticks=ticks[:: 2 if len(ticks) > 6 else 1],
        )  # fmt: skip
        alt = (
            "Norm of the gradient at a word, by its distance from the loss, relative to the nearest. "
            + " ".join(f"At distance {far:g}: {name} {_share(value)}." for name, value in at.items())
        )
        picture = Picture(
            "gradient", figure, "Gradient of the last word's loss at earlier words, in new models.", alt,
            rows_of(lines),
        )  # fmt: skip
        setup = (
            f"Models of {LAYERS} layers with about {context.scale.inner_parameters:,} parameters beside the "
            f"embeddings, as they are initialised (torch's own for the recurrent ones, transformers' for the "
            f"others), {ROWS} rows of random words; the norm of the gradient of the last word's loss with "
            "respect to each word's vector, divided by that at distance 1. What float32 cannot hold is drawn at 1e-30."
        )
        return Section(sentences, [picture], setup=setup)


def _share(value: float) -> str:
    return f"at most {SMALLEST:.0e}" if value <= SMALLEST else number(value, 2)


def untrained(contestant: Contestant, seed: int, context: Context) -> Result:
    """Of a model as it is initialised."""
    torch.manual_seed(seed)
    length = context.scale.gradient_length
    model = equal_model(
        contestant, context.scale.inner_parameters, COPY_VOCABULARY, layers=LAYERS, longest=length
    )
    return {"norm": gradient_norms(model.to(context.device), COPY_VOCABULARY, length, seed)}


def gradient_norms(model: Any, vocabulary: int, length: int, seed: int) -> dict[str, float]:
    """{distance: norm}, at powers of two: of the last prediction's loss at the vector of the word so far before it.

    Args:
        model: any causal model; its parameters' gradients are left as they were.
        length: of the rows, at which the largest distance is half of it or less.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    ids = torch.randint(vocabulary, (ROWS, length), generator=generator).to(device)
    vectors = model.get_input_embeddings()(ids).detach().requires_grad_()  # [rows, time, width]
    target = torch.randint(vocabulary, (ROWS,), generator=generator).to(device)
    was_training = model.training
    model.eval()
    logits = model(inputs_embeds=vectors, use_cache=False).logits[:, -1].float()  # [rows, vocabulary]
    loss = torch.nn.functional.cross_entropy(logits, target, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, vectors)
    model.train(was_training)
    norms = gradient.float().norm(dim=-1).mean(0)  # [time]
    nearest = float(norms[-2])
    distances = [2**i for i in range(length.bit_length()) if 2**i < length]
    return {str(d): float(norms[-1 - d]) / nearest if nearest else 0.0 for d in distances}


__all__ = ["Gradient", "gradient_norms", "untrained"]
