"""The pictures of the report: lines with intervals, bars, and maps.

They are drawn as wide as a phone shows them, so that letters keep their size there; a colour is never the only
difference between two lines.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..plots.figure import new_figure
from .contestants import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILLION, Style
from .experiment import Row
from .statistics import Interval, interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.6
"""Inches; a phone shows 1 inch as 78 pixels then, nearly as a desktop does."""
STYLES = [
    Style(BLUE, "s", (0, (4, 2))),
    Style(GREEN, "o", "-"),
    Style(VERMILLION, "v", (0, (1, 1))),
    Style(ORANGE, "^", (0, (4, 1, 1, 1))),
    Style(PURPLE, "D", (0, (6, 1))),
    Style(SKY, "P", (0, (2, 1))),
    Style(BLACK, "X", "-"),
]
"""For whatever has no style of its own."""


@dataclass
class Line:
    """A series of a figure: values of several seeds at each x."""

    label: str
    points: Mapping[float, Sequence[float]]
    style: Style

    def intervals(self) -> list[tuple[float, Interval]]:
        """(x, mean and interval), in the order of x."""
        return [(x, interval(values)) for x, values in sorted(self.points.items()) if len(values)]

    def rows(self) -> list[Row]:
        """For the CSV."""
        return [
            Row(
                self.label,
                x,
                i.mean,
                None if i.margin is None else i.low,
                None if i.margin is None else i.high,
                i.count,
            )
            for x, i in self.intervals()
        ]


def rows_of(lines: Sequence[Line]) -> list[Row]:
    """Of all lines, for the CSV."""
    return [row for line in lines for row in line.rows()]


def line_figure(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    chance: float | None = None,
    ticks: Sequence[float] | None = None,
    y_limits: tuple[float | None, float | None] | None = None,
    title: str | None = None,
) -> Figure:
    """Lines with a band for the 95% interval; the legend stands above the axes, where it hides nothing.

    Args:
        chance: a level that guessing reaches, drawn as a thin line with its name.
        ticks: of x; None: matplotlib's.
    """
    figure = new_figure(WIDTH, 3.5)
    axes = figure.subplots()
    for line in lines:
        points = line.intervals()
        if not points:
            continue
        xs, means = [x for x, _ in points], [i.mean for _, i in points]
        axes.plot(
            xs, means, color=line.style.colour, marker=line.style.marker, linestyle=line.style.line,
            markersize=5, linewidth=1.6, label=line.label,
        )  # fmt: skip
        # An interval may go below zero, which a logarithmic axis does not have: it is cut at a tenth of its mean.
        low = [max(i.low, i.mean / 10) if log_y else i.low for _, i in points]
        high = [i.high for _, i in points]
        axes.fill_between(xs, low, high, color=line.style.colour, alpha=0.18, linewidth=0)
    if chance is not None:
        axes.axhline(chance, color="0.35", linewidth=0.9, linestyle=":", label="chance")
    if log_x:
        axes.set_xscale("log", base=2)
    if log_y:
        axes.set_yscale("log")
    if ticks is not None:
        axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    _finish(axes, x_label, y_label)
    if title:
        axes.set_title(title, fontsize=10)
    figure.legend(loc="outside upper center", ncols=2, fontsize=9, frameon=False, handlelength=3.2)
    return figure


def bar_figure(
    groups: Sequence[str],
    series: Mapping[str, Mapping[str, Interval]],
    *,
    y_label: str,
    chance: float | None = None,
    styles: Mapping[str, Style] | None = None,
    bottom: float | None = None,
) -> Figure:
    """Points with their intervals, one place for each group.

    Args:
        series: by their label, of each group a value.
    """
    figure = new_figure(WIDTH, 3.5)
    axes = figure.subplots()
    for number, (label, values) in enumerate(series.items()):
        style = (styles or {}).get(label, STYLES[number % len(STYLES)])
        shift = (number - (len(series) - 1) / 2) * min(0.16, 0.7 / max(len(series), 1))
        xs = [i + shift for i, group in enumerate(groups) if group in values]
        found = [values[group] for group in groups if group in values]
        axes.errorbar(
            xs, [v.mean for v in found], yerr=[v.margin or 0.0 for v in found], fmt=style.marker,
            color=style.colour, markersize=6, capsize=3, linewidth=1.4, label=label,
        )  # fmt: skip
    if chance is not None:
        axes.axhline(chance, color="0.35", linewidth=0.9, linestyle=":", label="chance")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    if bottom is not None:
        axes.set_ylim(bottom=bottom)
    _finish(axes, "", y_label)
    figure.legend(loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    return figure


def map_figure(
    panels: Sequence[tuple[str, Any, Sequence[str], Sequence[str]]],
    *,
    columns: int = 1,
    marks: Sequence[tuple[int, int]] = (),
    panel_size: tuple[float, float] | None = None,
    colour_bar: str | None = None,
    font: float = 8,
) -> Figure:
    """Panels of shares from 0 (white) to 1 (dark), each with a word for every line and column.

    Args:
        panels: (title, values [lines, columns], words of the lines, words of the columns).
        columns: panels side by side.
        marks: (line, column) that are ringed in every panel.
        panel_size: inches; None: by the number of words.
        font: of the words; 0: none is written.
    """
    rows = -(-len(panels) // columns)
    _, values, lines, heads = panels[0]
    width, height = panel_size or (max(0.24 * len(heads), 1.4), max(0.24 * len(lines), 1.2))
    longest = max((len(word) for panel in panels for word in (*panel[2], *panel[3])), default=1)
    room = 0.075 * min(longest, 16) * (font / 8)
    figure = new_figure(columns * (width + 0.2) + room + 0.4, rows * (height + 0.35) + room + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False)
    image = None
    for place, ax in enumerate(axes.flat):
        if place >= len(panels):
            ax.set_axis_off()
            continue
        title, values, lines, heads = panels[place]
        image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        ax.set_title(title, fontsize=8 if columns > 2 else 9)
        ax.tick_params(length=0)
        first, last = place % columns == 0, place + columns >= len(panels)
        ax.set_xticks(range(len(heads)), heads if font and (last or columns == 1) else [""] * len(heads))
        ax.set_yticks(range(len(lines)), lines if font and first else [""] * len(lines))
        ax.tick_params(axis="x", rotation=90, labelsize=font or 1)
        ax.tick_params(axis="y", labelsize=font or 1)
        for line, column in marks:
            if line < len(lines) and column < len(heads):
                ax.plot(
                    column,
                    line,
                    "o",
                    markersize=7,
                    markerfacecolor="none",
                    color=VERMILLION,
                    markeredgewidth=1.3,
                )
    if colour_bar and image is not None:
        figure.colorbar(image, ax=axes, label=colour_bar, shrink=0.7, pad=0.02, aspect=30)
    return figure


def value_grid(
    title: str, values: Sequence[Sequence[float]], lines: Sequence[str], heads: Sequence[str], label: str
) -> Figure:
    """A grid of numbers, each written in its cell; red is above zero, blue below."""
    figure = new_figure(max(WIDTH, 0.62 * len(heads) + 1.6), 0.34 * len(lines) + 1.3)
    axes = figure.subplots()
    most = max((abs(v) for row in values for v in row), default=1.0) or 1.0
    image = axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            dark = abs(value) > 0.6 * most
            axes.text(
                j, i, f"{value:.1f}", ha="center", va="center", fontsize=8, color="white" if dark else "black"
            )
    axes.set_xticks(range(len(heads)), heads, fontsize=8)
    axes.set_yticks(range(len(lines)), lines, fontsize=8)
    axes.set_title(title, fontsize=9)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, label=label, shrink=0.9, pad=0.02)
    return figure


def svg_of(figure: Figure, name: str) -> str:
    """The figure as the text of an SVG; the same text for the same figure.

    Args:
        name: of the figure: two on one page have no names inside in common.
    """
    import matplotlib

    buffer = io.BytesIO()
    # Letters as paths: no reader lacks the font, so no label is cut.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = re.sub(r"<!--.*?-->|(?<=>)\s+(?=<)", "", buffer.getvalue().decode(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", text.partition("<svg")[1] + text.partition("<svg")[2])


def data_uri(svg: str) -> str:
    """An SVG inside an address, for `<img src=...>`; escaped, it is a quarter shorter than in base64."""
    return "data:image/svg+xml," + quote(svg, safe=" /:;,.=()-+*?!@$_~")


def _finish(axes: Any, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, fontsize=10)
    axes.set_ylabel(y_label, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


__all__ = [
    "STYLES",
    "WIDTH",
    "Line",
    "bar_figure",
    "data_uri",
    "line_figure",
    "rows_of",
    "map_figure",
    "svg_of",
    "value_grid",
]
