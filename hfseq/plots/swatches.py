"""Colours with their names: the true one and what a model calls them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .figure import require_matplotlib, save


@dataclass
class Swatch:
    """A colour and what it is called."""

    rgb: tuple[float, float, float]
    """From 0 to 1."""
    true: str
    """Its name in the table."""
    given: list[str]
    """What a model calls it."""


def plot_swatches(
    swatches: Sequence[Swatch], path: str | os.PathLike[str], title: str, columns: int = 3
) -> Path:
    """Draws every colour with its true name and, below it, the model's.

    Args:
        swatches: one at least.
        path: of the picture; its ending chooses the format.
        columns: how many colours stand beside each other.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    rows = -(-len(swatches) // columns)
    lines = 1 + max(len(swatch.given) for swatch in swatches)
    height = 0.12 + 0.19 * lines  # inches
    figure = Figure(figsize=(3.4 * columns, height * rows + 0.5))  # laid out by hand, not `new_figure`
    axes = figure.add_axes((0.01, 0.01, 0.98, 1 - 0.45 / (height * rows + 0.5)))
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)
    for number, swatch in enumerate(swatches):
        column, row = divmod(number, rows)
        axes.add_patch(Rectangle((column, row + 0.06), 0.27, 0.88, facecolor=swatch.rgb, edgecolor="0.7"))
        for line, name in enumerate([swatch.true, *swatch.given]):
            true = line == 0
            axes.text(
                column + 0.29,
                row + 0.06 + 0.88 * (line + 0.5) / lines,
                name,
                va="center",
                fontsize=8,
                color="0.45" if true else "black",
                style="italic" if true else "normal",
                weight="normal" if true or line > 1 else "bold",
            )
    return save(figure, path)


__all__ = ["Swatch", "plot_swatches"]
