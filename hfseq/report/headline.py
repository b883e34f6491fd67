"""One picture of the whole: what the next architecture could do and the one before could not, four panels side by side.

It is drawn from the numbers of the page's own pictures, for whoever links to the page (a README, a slide).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..plots.figure import new_figure
from .contestants import CAUSAL
from .experiment import Picture, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "headline"
MOST_TICKS = 5


@dataclass(frozen=True)
class Panel:
    """A picture of the page, in small."""

    picture: str
    title: str
    x_label: str
    y_label: str
    log_y: bool = False


PANELS = (
    Panel("remembering_copy", "What it can remember", "words in between", "accuracy"),
    Panel("gradient", "How far learning reaches", "distance [words]", "share of the gradient", log_y=True),
    Panel(
        "step_time", "What a word costs in training", "length of the text", "time per token [µs]", log_y=True
    ),
    Panel("memory_carried", "What is carried along", "words read", "bytes", log_y=True),
)


def headline(pictures: Mapping[str, Picture]) -> Figure | None:
    """The panels whose pictures are there; None: fewer than two are."""
    panels = [panel for panel in PANELS if panel.picture in pictures]
    if len(panels) < 2:
        return None
    styles = {contestant.label: contestant.style for contestant in CAUSAL}
    figure = new_figure(3.1 * len(panels), 3.1)
    legend = {}
    for axes, panel in zip(figure.subplots(1, len(panels)), panels, strict=True):
        series: dict[str, list[Row]] = {}
        for row in pictures[panel.picture].rows:
            if row.series in styles:
                series.setdefault(row.series, []).append(row)
        for label, rows in series.items():
            style = styles[label]
            xs, means = [float(row.x) for row in rows], [row.mean for row in rows]
            (legend[label],) = axes.plot(
                xs, means, color=style.colour, marker=style.marker, linestyle=style.line, markersize=4,
                linewidth=1.5, label=label,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        places = sorted({float(row.x) for rows in series.values() for row in rows})
        ticks = places[:: math.ceil(len(places) / MOST_TICKS)]
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axes.minorticks_off()
        if panel.log_y:
            axes.set_yscale("log")
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(panel.x_label, fontsize=9)
        axes.set_ylabel(panel.y_label, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        legend.values(), legend.keys(), loc="outside lower center", ncols=len(legend), fontsize=9, frameon=False,
        handlelength=3.2,
    )  # fmt: skip
    return figure


__all__ = ["NAME", "headline"]
