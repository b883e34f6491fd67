"""A run's training and validation loss against updates; below it BLEU, where validation was translated.

The best value of each curve stands in the legend and is ringed in the panel: a number beside its point, the lowest
of all and often the last, was written over the axis.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .figure import new_figure, save

SCORES = {"bleu": "BLEU (greedy)", "bleu_lowercase": "BLEU, lower-cased", "chrf": "chrF"}


def plot_loss_curve(
    log_history: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str
) -> Path:
    """Draws the loss curves of a run.

    Args:
        log_history: `trainer.state.log_history`.
        path: of the picture; its ending chooses the format.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    training, validation = _curve(log_history, "loss"), _curve(log_history, "eval_loss")
    scores = {label: _curve(log_history, f"eval_{name}") for name, label in SCORES.items()}
    panels = 2 if any(scores.values()) else 1
    figure = new_figure(7, 1 + 3 * panels)
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    if training:
        axes[0].plot(*training, color="tab:blue", linewidth=1.2, label="training")
    if validation:
        best = min(zip(*validation, strict=True), key=lambda point: point[1])
        label = f"validation, {best[1]:.3f} at best"
        axes[0].plot(*validation, "o-", color="tab:orange", markersize=4, label=label)
        _ring(axes[0], best)
    axes[0].set_ylabel("cross-entropy per token [nats]")
    axes[0].set_title(title)
    if training or validation:
        axes[0].legend()
    if panels == 2:
        for (label, points), marker in zip(scores.items(), ("o-", "s-", "^-"), strict=True):
            if points:
                best = max(zip(*points, strict=True), key=lambda point: point[1])
                axes[1].plot(*points, marker, markersize=4, label=f"{label}, {best[1]:.1f} at best")
                _ring(axes[1], best)
        axes[1].set_ylabel("validation [%]")
        axes[1].legend()
    axes[-1].set_xlabel("updates")
    for panel in axes:
        panel.grid(alpha=0.3)
    return save(figure, path)


def _curve(log_history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]] | None:
    points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
    return ([step for step, _ in points], [value for _, value in points]) if points else None


def _ring(axes: Any, point: tuple[float, float]) -> None:
    axes.plot(*point, "o", color="0.3", markersize=9, markerfacecolor="none", label="_best")


__all__ = ["plot_loss_curve"]
