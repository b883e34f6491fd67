"""Colours with names: a picture of them, and how far the colour that a name stands for is from the one that was named.

A name stands for the colour that the table of names gives it. One that is not in the table stands for the mean colour
of the known names that end in the same words, as many of them as possible ("old dusty pink" for those that end in
"dusty pink", or else in "pink"). Distances are those of CIELAB (Delta E of 1976), where 2.3 is just noticeable.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from .data.colours import lab_of

Colour = tuple[float, float, float]


@dataclass
class Swatch:
    """A colour and what it is called."""

    rgb: Colour
    """From 0 to 1."""
    true: str
    """Its name in the table."""
    given: list[str]
    """What a model calls it."""


class KnownColours:
    """What names stand for.

    Args:
        table: (name, red, green and blue from 0 to 1) of every known name; upper and lower case are one.
    """

    def __init__(self, table: Iterable[tuple[str, Colour]]):
        self.exact: dict[tuple[str, ...], list[Colour]] = defaultdict(list)
        self.ending: dict[tuple[str, ...], list[Colour]] = defaultdict(list)
        for name, rgb in table:
            words, lab = tuple(name.lower().split()), lab_of(rgb)
            self.exact[words].append(lab)
            for first in range(len(words)):
                self.ending[words[first:]].append(lab)

    def knows(self, name: str) -> bool:
        """Whether the name itself is in the table."""
        return tuple(name.lower().split()) in self.exact

    def lab(self, name: str) -> Colour | None:
        """CIELAB of what the name stands for; None where not even its last word is known."""
        words = tuple(name.lower().split())
        if words in self.exact:
            return _mean(self.exact[words])
        for first in range(len(words)):
            if words[first:] in self.ending:
                return _mean(self.ending[words[first:]])
        return None

    def distance(self, name: str, rgb: Colour) -> float | None:
        """Delta E between what the name stands for and a colour."""
        lab = self.lab(name)
        return None if lab is None else math.dist(lab, lab_of(rgb))


def _mean(colours: Sequence[Colour]) -> Colour:
    return tuple(sum(values) / len(colours) for values in zip(*colours, strict=True))


def plot_swatches(
    swatches: Sequence[Swatch], path: str | PathLike, title: str, columns: int = 3
) -> Path | None:
    """Draws every colour with its true name and, below it, the model's, as a PNG.

    Returns:
        The path, or None where matplotlib is not installed (`pip install hfseq[report]`).
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Rectangle
    except ImportError:
        return None
    rows = -(-len(swatches) // columns)
    lines = 1 + max(len(swatch.given) for swatch in swatches)
    height = 0.12 + 0.19 * lines  # inches
    figure = Figure(figsize=(3.4 * columns, height * rows + 0.5))
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
    path = Path(path)
    figure.savefig(path, dpi=140)
    return path
