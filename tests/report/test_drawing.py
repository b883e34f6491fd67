"""No label is cut, and a picture is the same picture every time."""

import pytest

pytest.importorskip("matplotlib")

from hfseq.report.contestants import CAUSAL
from hfseq.report.drawing import Line, data_uri, dot_figure, line_figure, map_figure, svg_of
from hfseq.report.statistics import Interval


def lines():
    return [Line(c.label, {1: [0.1, 0.2], 64: [0.5 + i / 10, 0.6]}, c.style) for i, c in enumerate(CAUSAL)]


LONG = ["GRU with attention (Bahdanau)", "transformer-multi30k-en-de-pretrained (given run), at the end"]
WORDS = ["Rettungsweste", "ein", "."]
FIGURES = {
    "lines": lambda: line_figure(
        lines(), x_label="delay [words]", y_label="accuracy", log_x=True, chance=0.1, ticks=[1, 64]
    ),
    "logarithms": lambda: line_figure(
        lines(), x_label="x", y_label="time per token [µs]", log_x=True, log_y=True
    ),
    "dots": lambda: dot_figure(
        {c.label: Interval(1, 0.1, 3) for c in CAUSAL}
        | {"transformer-of-a-long-name (given run)": Interval(0.5, None, 1)},
        x_label="rate",
        baseline=("guessing", 0.5),
    ),
    "long names": lambda: line_figure(
        [Line(name, {1: [10.0], 9: [40.0]}, CAUSAL[0].style) for name in LONG],
        x_label="x",
        y_label="a long name of what is measured, with [units]",
        log_y=True,
    ),
    "maps": lambda: map_figure(
        [("a", [[1, 0, 0]] * 3, WORDS, WORDS)] * 3, columns=2, marks=[(0, 1)], colour_bar="share"
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_all_words_are_inside(name):
    """The box around everything that is drawn, in inches, lies within the picture."""
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert box.x0 > -0.02 and box.y0 > -0.02 and box.x1 < width + 0.02 and box.y1 < height + 0.02


def test_a_picture_needs_nothing_else():
    svg = svg_of(FIGURES["dots"](), "name")
    assert svg == svg_of(FIGURES["dots"](), "name") and svg.startswith("<svg") and "<metadata>" in svg
    uri = data_uri(svg)
    assert uri.startswith("data:image/svg+xml,%3Csvg") and not set("\"'<>#") & set(uri)


def test_a_logarithmic_axis_has_several_ticks_that_people_can_read():
    shown = {"x_label": "x", "y_label": "y", "log_y": True}
    for values, options, wanted in (
        ([18.0, 360.0], {}, ["20", "50", "100", "200"]),
        ([4e3, 3.7e5], {"bytes_y": True}, ["10 kB", "100 kB"]),
    ):
        points = dict(enumerate([value] for value in values))
        figure = line_figure([Line("a", points, CAUSAL[0].style)], **shown, **options)
        figure.draw_without_rendering()
        words = [
            label.get_text().replace("\N{NO-BREAK SPACE}", " ") for label in figure.axes[0].get_yticklabels()
        ]
        assert set(wanted) <= set(words), words


def test_a_legend_that_is_too_wide_for_two_columns_has_one():
    short = line_figure(lines(), x_label="x", y_label="y")
    long = FIGURES["long names"]()
    assert [figure.legends[0]._ncols for figure in (short, long)] == [2, 1]
    assert len(long.legends) == 1 and long.get_figheight() > 3
