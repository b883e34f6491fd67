"""Predicted numbers against true ones, with the diagonal on which they should lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .figure import new_figure, save


def plot_regression(
    true: Sequence[float], predicted: Sequence[float], path: str | os.PathLike[str], title: str
) -> Path:
    """Draws a point an example.

    Args:
        true, predicted: of the same examples, one at least.
        path: of the picture; its ending chooses the format.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure = new_figure(5, 5)
    axes = figure.add_subplot()
    axes.plot(true, predicted, ".", markersize=4, alpha=0.5)
    ends = [min(*true, *predicted), max(*true, *predicted)]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return save(figure, path)


__all__ = ["plot_regression"]
