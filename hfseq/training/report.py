"""What a finished run leaves behind beside the weights: a summary in numbers and pictures.

Pictures need matplotlib (`pip install hfseq[report]`); without it there are none, and the functions return None.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_json(path: str | os.PathLike, content: dict[str, Any]) -> Path:
    """Writes JSON atomically: a reader sees the old file or the whole new one."""
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return path


def describe_machine() -> dict[str, Any]:
    """Processor, cores, GPU and versions: what a time or a number was measured with."""
    import torch
    import transformers

    from .. import __version__

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "hfseq": __version__,
    }


def plot_loss_curve(log_history: list[dict[str, Any]], path: str | os.PathLike, title: str) -> Path | None:
    """Draws training and validation loss against updates as a PNG; below it BLEU, where validation was translated.

    Args:
        log_history: `trainer.state.log_history`.

    Returns:
        The path, or None where matplotlib is not installed (`pip install hfseq[report]`).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    training = _curve(log_history, "loss")
    validation = _curve(log_history, "eval_loss")
    scores = {name: _curve(log_history, f"eval_{name}") for name in _TRANSLATION_SCORES}
    panels = 2 if any(scores.values()) else 1
    figure = Figure(figsize=(7, 1 + 3 * panels), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    if training:
        axes[0].plot(
            *zip(*training, strict=True), color="tab:blue", linewidth=1.2, label="training (with dropout)"
        )
    if validation:
        axes[0].plot(
            *zip(*validation, strict=True), "o-", color="tab:orange", markersize=4, label="validation"
        )
        step, loss = min(validation, key=lambda pair: pair[1])
        _annotate(axes[0], f"{loss:.3f}", (step, loss))
    axes[0].set_ylabel("cross-entropy per token [nats]")
    axes[0].set_title(title)
    if training or validation:
        axes[0].legend()
    if panels == 2:
        for (name, points), marker in zip(scores.items(), ("o-", "s-", "^-"), strict=True):
            if points:
                axes[1].plot(
                    *zip(*points, strict=True), marker, markersize=4, label=_TRANSLATION_SCORES[name]
                )
                step, score = max(points, key=lambda pair: pair[1])
                _annotate(axes[1], f"{score:.1f}", (step, score))
        axes[1].set_ylabel("validation [%]")
        axes[1].legend()
    axes[-1].set_xlabel("updates")
    for panel in axes:
        panel.margins(y=0.12)  # room for the numbers at the points
        panel.grid(alpha=0.3)
    return _save(figure, path)


_TRANSLATION_SCORES = {"bleu": "BLEU (greedy)", "bleu_lowercase": "BLEU, lower-cased", "chrf": "chrF"}


def _curve(log_history: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(entry["step"], entry[key]) for entry in log_history if key in entry]


def _annotate(axes, text: str, point: tuple[float, float]) -> None:
    axes.annotate(text, point, textcoords="offset points", xytext=(0, -14), ha="center", fontsize=8)


def plot_confusion_matrix(
    matrix: np.ndarray, labels: Sequence[str], path: str | os.PathLike, title: str
) -> Path | None:
    """Draws how often each class (row) was taken for each (column) as a PNG: counts, coloured by their row's share.

    Args:
        matrix: [classes, classes], counts.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = max(4.0, 0.55 * len(labels) + 2.5)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    if len(labels) <= 30:  # more do not fit into their cells
        for row, column in np.ndindex(*matrix.shape):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(
                column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=8, color=colour
            )
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title)
    return _save(figure, path)


def plot_class_scores(
    scores: Mapping[str, Mapping[str, float]], path: str | os.PathLike, title: str
) -> Path | None:
    """Draws precision, recall and F1 of each class as bars, a PNG.

    Args:
        scores: {class: {precision, recall, f1, support}}, shares from 0 to 1.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(max(6.0, 1.1 * len(scores) + 2), 4), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(scores))
    for shift, name in enumerate(("precision", "recall", "f1")):
        values = [score[name] for score in scores.values()]
        axes.bar(places + (shift - 1) * 0.27, values, 0.25, label=name)
    names = [f"{label}\n({score['support']:,})" for label, score in scores.items()]
    axes.set_xticks(places, names, rotation=30 if len(scores) > 8 else 0)
    axes.set_ylim(0, 1)
    axes.set_title(title)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend()
    return _save(figure, path)


def plot_regression(
    true: Sequence[float], predicted: Sequence[float], path: str | os.PathLike, title: str
) -> Path | None:
    """Draws predictions against true values as a PNG, with the diagonal on which they should lie."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(true, predicted, ".", markersize=4, alpha=0.5)
    ends = [min(*true, *predicted), max(*true, *predicted)]
    axes.plot(ends, ends, color="grey", linewidth=0.8)
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    return _save(figure, path)


def _save(figure, path: str | os.PathLike) -> Path:
    path = Path(path)
    figure.savefig(path, dpi=140)
    return path
