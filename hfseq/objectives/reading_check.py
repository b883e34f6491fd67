"""Whether a model reads from left to right only: tried on the model itself, before it trains.

A class may have a causal head and look ahead all the same: of transformers, BERT and its relatives do unless
`is_decoder` is set, XLNet always where nothing masks it. Such a model learns to copy the token that it is asked to
predict: its loss falls towards 0 and means nothing.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from ..positions import position_limit

TOLERANCE = 1e-4
"""Of the logits' own spread; models that do not look ahead are within 1e-5, a BERT of 16 units moves 2e-3."""


@torch.no_grad()
def check_reads_forward(model: PreTrainedModel) -> None:
    """Changes the last tokens of a row and compares the logits before them.

    Args:
        model: on any device; its mode is left as found.

    Raises:
        ValueError: what follows changes them, with the size of the difference.
    """
    config = model.config
    generator = torch.Generator().manual_seed(0)
    length = min(12, position_limit(config) or 12)
    same = max(1, length - 4)
    row = torch.randint(0, config.vocab_size, (1, length), generator=generator)
    other = row.clone()
    other[:, same:] = (row[:, same:] + 1 + torch.arange(length - same)) % config.vocab_size
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    try:
        one, two = (model(input_ids=ids.to(device)).logits[:, :same].float() for ids in (row, other))
    finally:
        model.train(was_training)
    seen = ((one - two).abs().max() / one.std()).item()
    if not seen < TOLERANCE:
        remedy = (
            "Set model.is_decoder to true" if hasattr(config, "is_decoder") else "Choose objective masked"
        )
        raise ValueError(
            f"objective causal needs a model that does not see the tokens to come. {type(model).__name__} does: they "
            f"move the logits before them by {seen:.1e} of their spread, and it would learn to copy. {remedy}, or "
            "choose another model_type."
        )


__all__ = ["check_reads_forward"]
