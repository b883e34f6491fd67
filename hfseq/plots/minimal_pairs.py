"""Accuracy on minimal pairs by phenomenon: bars of the model, marks of other systems beside them, a line at chance."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from .figure import new_figure, save

MARKS = "o^sDvP"


def plot_minimal_pairs(
    accuracies: Mapping[str, float],
    path: str | os.PathLike[str],
    title: str,
    others: Mapping[str, Mapping[str, float]] | None = None,
) -> Path:
    """Draws a bar for each phenomenon, from the top in the order given.

    Args:
        accuracies: {phenomenon: per cent} of the model.
        path: of the picture; its ending chooses the format.
        others: {system: {phenomenon: per cent}}.

    Raises:
        ValueError: nothing to draw.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if not accuracies:
        raise ValueError("There are no accuracies to draw.")
    figure = new_figure(8, 1.6 + 0.36 * len(accuracies))
    axes = figure.add_subplot()
    places = range(len(accuracies))
    bars = axes.barh(
        places, list(accuracies.values()), height=0.7, color="tab:blue", alpha=0.6, label="this model"
    )
    axes.bar_label(bars, fmt="%.1f", label_type="center", fontsize=8)
    for mark, (system, values) in zip(MARKS, (others or {}).items(), strict=False):
        axes.plot(
            [values[name] for name in accuracies], places, mark, label=system, markersize=5, linestyle="none"
        )
    axes.axvline(50, color="0.4", linestyle="--", linewidth=1, label="chance")
    axes.set_yticks(places, [name.replace("_", " ") for name in accuracies])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("accuracy [%]")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return save(figure, path)


__all__ = ["plot_minimal_pairs"]
