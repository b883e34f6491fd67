"""Attention weights of an encoder-decoder for one sentence; `hfseq.plots` draws them.

The sentence is translated, then source and translation go through the model once more with eager attention, the only
form that keeps its weights. Every line of a map is a distribution: where the model looks for the token of that line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    source: str,
    kind: str = "cross",
    *,
    target: str | None = None,
    target_tokenizer: PreTrainedTokenizerBase | None = None,
    special_tokens_in_text: bool = False,
    **generate_options: Any,
) -> AttentionMaps:
    """The attention weights of one sentence and its translation.

    Args:
        model: any `*ForSeq2SeqLM` that can return attention weights; its mode and attention are left as found.
        tokenizer: of the source; `target_tokenizer` of the target, where that is another one.
        kind: "cross", "encoder" or "decoder".
        target: a translation to look at; None: the model's own, by `generate(**generate_options)`.
        special_tokens_in_text: as `translate` takes it.

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
    as_text = {"return_tensors": "pt", "split_special_tokens": not special_tokens_in_text}
    ids = tokenizer(source, **as_text)["input_ids"].to(model.device)  # [1, source]
    if target is None:
        options = {"max_length": 2 * ids.shape[1] + 10, **generate_options, "num_return_sequences": 1}
        target_ids = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    else:
        start = torch.tensor([[model.config.decoder_start_token_id]])
        target_ids = torch.cat([start, target_tokenizer(text_target=target, **as_text)["input_ids"]], 1)
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


def readable_tokens(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[str]:
    """Each token as a reader knows it: decoded, or its name in the vocabulary where it is but a part of a character."""
    texts = []
    for i in ids:
        text = tokenizer.decode([i]).strip()
        texts.append(text if text and "�" not in text else str(tokenizer.convert_ids_to_tokens(i)))
    return texts


__all__ = ["KINDS", "AttentionMaps", "attention_maps", "readable_tokens"]
