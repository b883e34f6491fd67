"""Attention weights of an encoder-decoder as a picture: one row of panels per layer, one column per head.

The sentence is translated, then source and translation go through the model once more with eager attention, the only
form that keeps its weights. In a panel every line is a distribution: where the model looks for the word on its left.
Several models side by side are drawn with one panel each, for the same translation.

Pictures need matplotlib (`pip install hfseq[report]`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

KINDS = {
    "cross": "Cross-attention: translation (lines) to source (columns)",
    "encoder": "Self-attention of the encoder",
    "decoder": "Self-attention of the decoder",
}


@dataclass
class AttentionMaps:
    """Attention weights of one sentence, with the tokens they belong to."""

    kind: str
    """One of `KINDS`."""
    weights: torch.Tensor
    """[layers, heads, lines, columns]; lines sum to one."""
    lines: list[str]
    """The tokens that look; with "cross" those that are produced."""
    columns: list[str]
    """The tokens that are looked at."""


@torch.no_grad()
def attention_maps(
    model,
    tokenizer,
    source: str,
    kind: str = "cross",
    *,
    target: str | None = None,
    target_tokenizer=None,
    **generate_options: Any,
) -> AttentionMaps:
    """The attention weights of one sentence and its translation.

    Args:
        model: any `*ForSeq2SeqLM` that can return attention weights; its mode and attention are left as found.
        tokenizer: of the source; `target_tokenizer` of the target, where that is another one.
        kind: "cross", "encoder" or "decoder".
        target: a translation to look at; None: the model's own, by `generate(**generate_options)`.

    Raises:
        ValueError: unknown kind, one that the model does not have, no encoder-decoder, or nothing to translate.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of attention {kind!r}: choose one of {', '.join(KINDS)}.")
    if not model.config.is_encoder_decoder:
        raise ValueError(f"{type(model).__name__} is no encoder-decoder: it has no cross-attention to draw.")
    if not source.strip():
        raise ValueError("There is no sentence to draw the attention of: the text is blank.")
    target_tokenizer = tokenizer if target_tokenizer is None else target_tokenizer
    before, was_training = model.config._attn_implementation, model.training
    model.eval()
    ids = tokenizer(source, return_tensors="pt")["input_ids"].to(model.device)  # [1, source]
    if target is None:
        options = {"max_length": 2 * ids.shape[1] + 10, **generate_options, "num_return_sequences": 1}
        target_ids = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    else:
        start = torch.tensor([[model.config.decoder_start_token_id]])
        target_ids = torch.cat(
            [start, target_tokenizer(text_target=target, return_tensors="pt")["input_ids"]], 1
        )
    target_ids = target_ids.to(model.device)
    given, made = target_ids[:, :-1], target_ids[:, 1:]  # each token is produced by the position before it
    try:
        model.set_attn_implementation("eager")
        output = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            decoder_input_ids=given,
            output_attentions=True,
            use_cache=False,
        )
    finally:
        model.set_attn_implementation(before)
        model.train(was_training)
    weights = output.cross_attentions if kind == "cross" else getattr(output, f"{kind}_attentions", None)
    if weights is None:
        raise ValueError(
            f"{type(model).__name__} has no self-attention of its {kind}: draw its cross-attention."
        )
    source_tokens = readable_tokens(tokenizer, ids[0].tolist())
    tokens = readable_tokens(target_tokenizer, (made if kind == "cross" else given)[0].tolist())
    lines = source_tokens if kind == "encoder" else tokens
    columns = tokens if kind == "decoder" else source_tokens
    return AttentionMaps(kind, torch.cat(weights).float().cpu(), lines, columns)


def readable_tokens(tokenizer, ids: list[int]) -> list[str]:
    """Each token as a reader knows it: decoded, or its name in the vocabulary where it is but a part of a character."""
    texts = []
    for i in ids:
        text = tokenizer.decode([i]).strip()
        texts.append(text if text and "�" not in text else str(tokenizer.convert_ids_to_tokens(i)))
    return texts


def plot_attention(maps: AttentionMaps, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draws layers x heads panels as a PNG (or what the ending of `path` says).

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure_class = _figure_class()
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
    figure = figure_class(figsize=size, layout="constrained")
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
    path = Path(path)
    figure.savefig(path, dpi=140)
    return path


def plot_side_by_side(maps: dict[str, AttentionMaps], path: str | os.PathLike) -> Path:
    """One panel for each model, under its name: of several heads their mean, of several layers the last but one.

    That layer is where the heads' mean of a Transformer comes nearest to a word alignment (Garg et al. 2019).

    Raises:
        ValueError: nothing to draw.
        ImportError: matplotlib is not installed.
    """
    if not maps:
        raise ValueError("There are no attention maps to draw side by side.")
    figure_class = _figure_class()
    sizes = [(max(0.28 * len(m.columns), 2.0), max(0.28 * len(m.lines), 2.0)) for m in maps.values()]
    longest = max(len(token) for m in maps.values() for token in (*m.lines, *m.columns))
    width = sum(w for w, _ in sizes) + (0.08 * longest + 0.3) * len(sizes) + 1.0
    figure = figure_class(
        figsize=(width, max(h for _, h in sizes) + 0.08 * longest + 0.9), layout="constrained"
    )
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
    path = Path(path)
    figure.savefig(path, dpi=140)
    return path


def _figure_class() -> type:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("Pictures need matplotlib: pip install 'hfseq[report]'") from error
    return Figure


__all__ = [
    "KINDS",
    "AttentionMaps",
    "attention_maps",
    "plot_attention",
    "plot_side_by_side",
    "readable_tokens",
]
