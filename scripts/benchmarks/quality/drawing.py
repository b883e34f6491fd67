"""Score over seconds, a panel for each task: ours and the peer's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfseq.plots.figure import new_figure, save

STYLES = (
    {"color": "#0072B2", "marker": "o"},
    {"color": "#555555", "marker": "s"},
    {"color": "#D55E00", "marker": "^"},
)
"""Of ours, then of the peers: told apart without colours too."""


def draw(tasks: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes the picture.

    Args:
        tasks: as `time_to_quality.json` has them.
        path: .png or .svg.
    """
    figure = new_figure(4.6 * len(tasks), 3.6)
    for axis, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks.values(), strict=True):
        names = [task["ours"], *(name for name in task["best"] if name != task["ours"])]
        for name, style in zip(names, STYLES, strict=False):
            curve = task["best"][name]["curve"]
            seconds, scores = [p["seconds"] for p in curve], [p["score"] for p in curve]
            axis.plot(seconds, scores, label=name, markersize=4, **style)
        for target in task["targets"]:
            axis.axhline(target["score"], color="#999999", linewidth=0.8, linestyle=":")
        axis.set_xscale("log")
        axis.set_xlabel("processor seconds, one core")
        axis.set_ylabel(task["unit"])
        axis.set_title(task["title"], fontsize=10)
        axis.legend(fontsize=8)
    save(figure, path)
