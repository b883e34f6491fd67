"""How often each class (row) was taken for each (column)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .figure import new_figure, save

MOST_NUMBERS = 30
"""Classes whose counts are written into the cells; those of more do not fit."""


def plot_confusion_matrix(
    matrix: np.ndarray, labels: Sequence[str], path: str | os.PathLike[str], title: str
) -> Path:
    """Draws counts, coloured by their row's share.

    Args:
        matrix: [classes, classes], counts.
        path: of the picture; its ending chooses the format.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = max(4.0, 0.55 * len(labels) + 2.5)
    figure = new_figure(size + 1, size)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    if len(labels) <= MOST_NUMBERS:
        for row, column in np.ndindex(*matrix.shape):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(
                column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=8, color=colour
            )
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    return save(figure, path)


__all__ = ["plot_confusion_matrix"]
