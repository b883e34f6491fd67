"""The picture of the whole is drawn from the page's own, with those that there are."""

import pytest

from hfseq.report.contestants import CAUSAL
from hfseq.report.experiment import Picture, Row
from hfseq.report.headline import headline


def picture(name: str, *more: Row) -> Picture:
    rows = [Row(contestant.label, x, 1.0 + x) for contestant in CAUSAL[:2] for x in (16.0, 32.0, 64.0)]
    return Picture(name, None, "caption", "alt", [*rows, *more])


def test_panels_of_what_was_measured():
    pytest.importorskip("matplotlib")
    found = {
        name: picture(name, Row("a run of the user's", 16.0, 9.0)) for name in ("step_time", "gradient", "x")
    }
    figure = headline(found)
    assert [axes.get_title() for axes in figure.axes] == [
        "How far learning reaches",
        "What a word costs in training",
    ]
    for axes in figure.axes:
        assert [line.get_label() for line in axes.lines] == [contestant.label for contestant in CAUSAL[:2]]
        assert axes.lines[0].get_ydata().tolist() == [17.0, 33.0, 65.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [c.label for c in CAUSAL[:2]]


def test_one_picture_is_no_headline():
    assert headline({"gradient": picture("gradient"), "x": picture("x")}) is None
