"""The pictures of the report: lines and dots with intervals, and maps.

They are drawn as wide as a phone shows them, so that letters keep their size there; a colour is never the only
difference between two lines.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
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

WIDTH = 4.2
"""Inches; a phone shows 1 inch as 85 pixels then, so that 10 points are 12 of them."""
PLOT = 2.9
"""Inches of a figure's height below its legend, however many lines that has."""
LABEL, TICK = 11, 10
"""Points of the axes' names, and of all other letters."""
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
    bytes_y: bool = False,
) -> Figure:
    """Lines with a band for the 95% interval; the legend stands above the axes, where it hides nothing.

    Args:
        chance: a level that guessing reaches, drawn as a thin line with its name.
        ticks: of x; None: matplotlib's.
        bytes_y: y is a number of bytes, and is written as such: 10 kB, 1 MB.
    """
    figure = new_figure(WIDTH, PLOT)
    axes = figure.subplots()
    for place, line in enumerate(lines):
        points = line.intervals()
        if not points:
            continue
        xs, means = [x for x, _ in points], [i.mean for _, i in points]
        # Each is drawn smaller than the one below it: of two with the same values both are seen.
        axes.plot(
            xs, means, color=line.style.colour, marker=line.style.marker, linestyle=line.style.line,
            markersize=max(8 - place, 4), linewidth=max(2.6 - 0.3 * place, 1.4), label=line.label,
        )  # fmt: skip
        # An interval may go below zero, which a logarithmic axis does not have: it is cut at a tenth of its mean.
        low = [max(i.low, i.mean / 10) if log_y else i.low for _, i in points]
        high = [i.high for _, i in points]
        axes.fill_between(xs, low, high, color=line.style.colour, alpha=0.14, linewidth=0)
    if chance is not None:
        axes.axhline(chance, color="0.35", linewidth=0.9, linestyle=":", label="chance")
    if log_x:
        axes.set_xscale("log", base=2)
    if log_y:
        axes.set_yscale("log")
        _logarithmic_ticks(axes, in_bytes=bytes_y)
    if ticks is not None:
        axes.set_xticks(list(ticks), [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    if y_limits is not None:
        axes.set_ylim(*y_limits)
    _finish(axes, x_label, y_label)
    _legend_above(figure)
    return figure


def dot_figure(
    values: Mapping[str, Interval],
    *,
    x_label: str,
    styles: Mapping[str, Style] | None = None,
    baseline: tuple[str, float] | None = None,
) -> Figure:
    """One line of the picture for each value, with its name on the left and its interval as a whisker; from zero.

    Args:
        styles: by the values' names, of those that have one.
        baseline: a name and a level, drawn as a dotted line from top to bottom.
    """
    figure = new_figure(WIDTH, 1.1 + 0.45 * len(values))
    axes = figure.subplots()
    for place, (label, value) in enumerate(values.items()):
        style = (styles or {}).get(label, STYLES[place % len(STYLES)])
        axes.errorbar(
            value.mean, place, xerr=value.margin or 0.0, fmt=style.marker, color=style.colour,
            markersize=8, capsize=4, linewidth=1.8,
        )  # fmt: skip
    if baseline is not None:
        axes.axvline(baseline[1], color="0.25", linewidth=1.2, linestyle=":", label=baseline[0])
    axes.set_yticks(range(len(values)), [textwrap.fill(label, 20) for label in values])
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlim(left=0)
    _finish(axes, x_label, "")
    if baseline is not None:
        _legend_above(figure)
    return figure


def map_figure(
    panels: Sequence[tuple[str, Any, Sequence[str], Sequence[str]]],
    *,
    columns: int = 1,
    marks: Sequence[tuple[int, int]] = (),
    panel_size: tuple[float, float] | None = None,
    colour_bar: str | None = None,
    font: float = 9,
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
    # The scale stands below: beside the panels it would take of their width, which a phone has least of.
    below = 0.7 if colour_bar else 0.0
    figure = new_figure(columns * (width + 0.2) + room + 0.2, rows * (height + 0.4) + room + 0.3 + below)
    axes = figure.subplots(rows, columns, squeeze=False)
    image = None
    for place, ax in enumerate(axes.flat):
        if place >= len(panels):
            ax.set_axis_off()
            continue
        title, values, lines, heads = panels[place]
        image = ax.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        ax.set_title(textwrap.fill(title, max(int(width / 0.075), 8)), fontsize=9)
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
        bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.8, pad=0.02, aspect=40)
        bar.set_label(colour_bar, fontsize=TICK)
        bar.ax.tick_params(labelsize=9)
    return figure


def value_grid(
    title: str, values: Sequence[Sequence[float]], lines: Sequence[str], heads: Sequence[str], label: str
) -> Figure:
    """A grid of numbers, each written in its cell; red is above zero, blue below."""
    figure = new_figure(max(WIDTH, 0.62 * len(heads) + 1.6), 0.34 * len(lines) + 1.4)
    axes = figure.subplots()
    most = max((abs(v) for row in values for v in row), default=1.0) or 1.0
    image = axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            dark = abs(value) > 0.6 * most
            axes.text(
                j, i, f"{round(value, 1) + 0.0:.1f}",  # + 0: no "-0.0"
                ha="center", va="center", fontsize=TICK, color="white" if dark else "black",
            )  # fmt: skip
    axes.set_xticks(range(len(heads)), heads, fontsize=TICK)
    axes.set_yticks(range(len(lines)), lines, fontsize=TICK)
    axes.set_title(textwrap.fill(title, 44), fontsize=TICK)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, location="bottom", shrink=0.9, pad=0.02, aspect=40)
    bar.set_label(label, fontsize=TICK)
    bar.ax.tick_params(labelsize=9)
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
    axes.set_xlabel(x_label, fontsize=LABEL)
    axes.set_ylabel(textwrap.fill(y_label, 26), fontsize=LABEL)  # longer than the axis, it would be cut
    axes.tick_params(labelsize=TICK)
    axes.xaxis.get_offset_text().set_fontsize(TICK)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _logarithmic_ticks(axes: Any, *, in_bytes: bool) -> None:
    """More than one, whatever part of a decade the values fill, and written as people write numbers."""
    from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_ylim()
    decades = math.log10(high / low)
    if decades < 6:
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=12))
        axes.yaxis.set_minor_formatter(NullFormatter())
        plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
        axes.yaxis.set_major_formatter(EngFormatter("B") if in_bytes else plain)


def _legend_above(figure: Figure) -> None:
    """Where it hides nothing: in two columns, or in one where two are too wide; the figure grows by its height."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    labels = [textwrap.fill(label, 38) for label in labels]
    height = figure.get_figheight()
    for columns in (2, 1):
        legend = figure.legend(
            handles, labels, loc="outside upper center", ncols=columns, fontsize=TICK, frameon=False,
            handlelength=3.0, columnspacing=1.2,
        )  # fmt: skip
        figure.draw_without_rendering()
        box = legend.get_window_extent()
        if box.width < 0.98 * figure.bbox.width or columns == 1:
            figure.set_figheight(height + box.height / figure.dpi)
            return
        legend.remove()


__all__ = [
    "STYLES",
    "WIDTH",
    "Line",
    "data_uri",
    "dot_figure",
    "line_figure",
    "map_figure",
    "rows_of",
    "svg_of",
    "value_grid",
]
