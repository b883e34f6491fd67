"""Every picture is drawn and whole; none is drawn without matplotlib; what the loss curve says can be read."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from hfseq import plots
from hfseq.attention_maps import AttentionMaps

MAPS = AttentionMaps("cross", torch.full((1, 2, 2, 3), 1 / 3), ["a", "b"], ["x", "y", "z"])
SCORES = {"PER": {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 4}}
LOSSES = [
    *({"step": step, "loss": 8 / step**0.5} for step in range(1, 60)),
    *({"step": step, "eval_loss": 8 / step**0.5 + 0.01} for step in range(10, 61, 10)),
]
PICTURES = {
    "attention": lambda path: plots.plot_attention(MAPS, path),
    "side by side": lambda path: plots.plot_side_by_side({"one": MAPS, "two": MAPS}, path),
    "class scores": lambda path: plots.plot_class_scores(SCORES, path, "title"),
    "confusion matrix": lambda path: plots.plot_confusion_matrix(
        np.array([[3, 1], [0, 5]]), "ab", path, "title"
    ),
    "loss curve": lambda path: plots.plot_loss_curve(LOSSES, path, "title"),
    "minimal pairs": lambda path: plots.plot_minimal_pairs(
        {"all": 58.4, "island_effects": 49.0},
        path,
        "title",
        {"5-gram": {"all": 61.2, "island_effects": 50.0}},
    ),
    "regression": lambda path: plots.plot_regression([0.0, 1.0], [0.2, 0.7], path, "title"),
    "swatches": lambda path: plots.plot_swatches([plots.Swatch((1, 0, 0), "red", ["r"])], path, "title"),
}
needs_matplotlib = pytest.mark.skipif(
    not plots.has_matplotlib(), reason="matplotlib is not installed: pip install 'hfseq[report]'"
)


@needs_matplotlib
@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_a_whole_file_in_the_format_of_its_ending(draw, tmp_path):
    assert draw(tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert draw(tmp_path / "a.svg").read_bytes()[:5] == b"<?xml"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]


@pytest.mark.parametrize("draw", PICTURES.values(), ids=PICTURES)
def test_without_matplotlib_every_picture_says_what_to_install(draw, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not plots.has_matplotlib()
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'hfseq\[report\]'"):
        draw(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    figure = pytest.importorskip("matplotlib.figure")
    figures, save = [], figure.Figure.savefig

    def remember(self, *args, **kwargs):
        figures.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(figure.Figure, "savefig", remember)
    return figures


def test_the_best_values_are_written_where_they_cover_no_axis(drawn, tmp_path):
    scored = [*LOSSES, {"step": 30, "eval_bleu": 31.25}, {"step": 60, "eval_bleu": 30.0}]
    plots.plot_loss_curve(scored, tmp_path / "curve.png", "title")
    drawn[0].draw_without_rendering()
    for panel, words in zip(
        drawn[0].axes, ("validation, 1.043 at best", "BLEU (greedy), 31.2 at best"), strict=True
    ):
        frame = panel.get_window_extent()
        texts = [*panel.texts, *panel.get_legend().get_texts()]
        assert words in [text.get_text() for text in texts]
        for text in texts:
            box = text.get_window_extent()
            assert frame.x0 < box.x0 and box.x1 < frame.x1, text
            assert frame.y0 < box.y0 and box.y1 < frame.y1, text


def test_bleu_is_drawn_below_the_loss(drawn, tmp_path):
    plain = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5}]
    scored = [*plain[:2], {"step": 2, "eval_loss": 2.5, "eval_bleu": 30.0, "eval_chrf": 55.0}]
    for log in (plain, scored):
        plots.plot_loss_curve(log, tmp_path / "curve.png", "title")
    panels = [[axes.get_ylabel() for axes in figure.axes] for figure in drawn]
    assert [len(labels) for labels in panels] == [1, 2]
    assert panels[1][1] == "validation [%]"
