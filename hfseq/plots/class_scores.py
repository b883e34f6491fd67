"""Precision, recall and F1 of each class as bars."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .figure import new_figure, save


def plot_class_scores(
    scores: Mapping[str, Mapping[str, float]], path: str | os.PathLike[str], title: str
) -> Path:
    """Draws three bars a class.

    Args:
        scores: {class: {precision, recall, f1, support}}, shares from 0 to 1.
        path: of the picture; its ending chooses the format.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure = new_figure(max(6.0, 1.1 * len(scores) + 2), 4)
    axes = figure.add_subplot()
    places = np.arange(len(scores))
    for shift, name in enumerate(("precision", "recall", "f1")):
        values = [score[name] for score in scores.values()]
        axes.bar(places + (shift - 1) * 0.27, values, 0.25, label=name)
    names = [f"{label}\n({score['support']:,})" for label, score in scores.items()]
    axes.set_xticks(places, names, rotation=30 if len(scores) > 8 else 0)
    axes.set_ylim(0, 1)
    axes.set_title(title)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend()
    return save(figure, path)


__all__ = ["plot_class_scores"]
