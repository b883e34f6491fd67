"""Attention maps as pictures: a row of panels per layer, a column per head; or one panel for each of several models.

In a panel every line is a distribution: where the model looks for the word on its left. `hfseq.attention_maps` computes
them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..attention_maps import KINDS, AttentionMaps
from .figure import new_figure, save


def plot_attention(maps: AttentionMaps, path: str | os.PathLike[str], title: str | None = None) -> Path:
    """Draws layers x heads panels as a PNG (or what the ending of `path` says).

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    layers, heads, height, width = maps.weights.shape
    panel = [
        min(max(0.17 * n, 1.3), 5.0) for n in (width, height)
    ]  # inches; tokens stay legible up to thirty
    font = [min(8.0, 72 * inches / n * 0.75) for inches, n in zip(panel, (width, height), strict=True)]
    longest = [max(map(len, tokens)) for tokens in (maps.lines, maps.columns)]
    size = (
        heads * (panel[0] + 0.15) + 0.07 * longest[0] + 1.5,
        layers * (panel[1] + 0.35) + 0.07 * longest[1] + 1.0,
    )
    figure = new_figure(*size)
    axes = figure.subplots(layers, heads, squeeze=False, sharex=True, sharey=True)
    for layer in range(layers):
        for head in range(heads):
            ax = axes[layer, head]
            image = ax.imshow(maps.weights[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
            ax.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
            ax.tick_params(length=0)
            # Thin lines between the tokens.
            ax.set_xticks([x - 0.5 for x in range(1, width)], minor=True)
            ax.set_yticks([y - 0.5 for y in range(1, height)], minor=True)
            ax.grid(which="minor", color="0.9", linewidth=0.4)
            ax.tick_params(which="minor", length=0)
    axes[0, 0].set_xticks(range(width), maps.columns, rotation=90, fontsize=font[0])
    axes[0, 0].set_yticks(range(height), maps.lines, fontsize=font[1])
    for ax in axes[-1]:
        ax.tick_params(axis="x", labelsize=font[0], labelrotation=90)
    for ax in axes[:, 0]:
        ax.tick_params(axis="y", labelsize=font[1])
    figure.colorbar(image, ax=axes, label="attention", shrink=0.6, aspect=40, pad=0.01)
    figure.suptitle(KINDS[maps.kind] if title is None else title, fontsize=10)
    return save(figure, path)


def plot_side_by_side(maps: Mapping[str, AttentionMaps], path: str | os.PathLike[str]) -> Path:
    """One panel for each model, under its name: of several heads their mean, of several layers the last but one.

    That layer is where the heads' mean of a Transformer comes nearest to a word alignment (Garg et al. 2019).

    Raises:
        ValueError: nothing to draw.
        ModuleNotFoundError: matplotlib is not installed.
    """
    if not maps:
        raise ValueError("There are no attention maps to draw side by side.")
    sizes = [(max(0.28 * len(m.columns), 2.0), max(0.28 * len(m.lines), 2.0)) for m in maps.values()]
    longest = max(len(token) for m in maps.values() for token in (*m.lines, *m.columns))
    width = sum(w for w, _ in sizes) + (0.08 * longest + 0.3) * len(sizes) + 1.0
    figure = new_figure(width, max(h for _, h in sizes) + 0.08 * longest + 0.9)
    axes = figure.subplots(1, len(maps), squeeze=False, width_ratios=[w for w, _ in sizes])[0]
    for ax, (name, one) in zip(axes, maps.items(), strict=True):
        layers, heads = one.weights.shape[:2]
        layer = max(layers - 2, 0)
        image = ax.imshow(one.weights[layer].mean(0).numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
        part = [f"layer {layer + 1} of {layers}"] * (layers > 1) + [f"mean of {heads} heads"] * (heads > 1)
        ax.set_title("\n".join([name, ", ".join(part)]), fontsize=9)
        ax.set_xticks(range(len(one.columns)), one.columns, rotation=90, fontsize=8)
        ax.set_yticks(range(len(one.lines)), one.lines, fontsize=8)
        ax.tick_params(length=0)
    figure.colorbar(image, ax=list(axes), label="share", shrink=0.8, pad=0.01)
    return save(figure, path)


__all__ = ["plot_attention", "plot_side_by_side"]
