"""What a card says of all models of one kind: an objective hands it over."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CardText:
    """What a card says of the models of one kind.

    Args:
        pipeline: the Hub's name of the task.
        tag: another name people look for.
        metrics: {key of a score: (how the card calls it, its format)}.
        note: what the numbers mean.
        sizes: keys of a score that say how much was measured.
        metric: the Hub's name of the main metric.
        usage: Python lines that use the model; {path} and {prompt} are filled in.
        claim: the key of the score that stands for the model in a list; by default the first of `metrics`.
    """

    pipeline: str
    tag: str
    metrics: dict[str, tuple[str, str]]
    note: str
    sizes: tuple[str, ...]
    metric: str
    usage: str
    claim: str | None = None


__all__ = ["CardText"]
