"""Whether a model keeps the documents of a packed row apart: tried on the model itself, before anything is built.

Packed rows save the padding, but a model that reads over the border between two documents learns from noise, and none
says so. Of transformers 5.23, BERT and ModernBERT do (their logits move by 9e-3 and 5e-3 of their spread), and Mamba
(0.3); Llama and GPT-2 keep documents apart to the last bit as long as they fill no cache, which `ModelBatches` sees to
(with its cache GPT-2 leaks 8e-2).
"""

from __future__ import annotations

from typing import Any

import torch

from ..training.model_batches import ModelBatches

TOLERANCE = 1e-3
"""Of the logits' own spread; models that keep documents apart are within 1e-5."""


@torch.no_grad()
def check_packed_rows(auto_class: Any, config: Any) -> None:
    """Compares two documents in one row with the same two, each alone.

    Args:
        auto_class: builds the model.
        config: of the model; a copy with a small vocabulary is built.

    Raises:
        ValueError: the model lets one document see another, with the size of the difference.
    """
    ids = {
        name: 0
        for name in config.to_dict()
        if name.endswith("_token_id") and getattr(config, name) is not None
    }
    small = type(config).from_dict({**config.to_dict(), **ids, "vocab_size": 64})
    model = auto_class.from_config(small).eval()
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, 64, (1, length), generator=generator) for length in (7, 6))
    borders = torch.tensor([0, 7, 13], dtype=torch.int32)
    batch = {
        "input_ids": torch.cat([first, second], dim=1),
        "position_ids": torch.cat([torch.arange(7), torch.arange(6)])[None],
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": 7,
        "max_length_k": 7,
    }
    batch = ModelBatches(type(model))([batch])
    try:
        packed = model(**batch).logits[0, 7:]
        alone = model(input_ids=second).logits[0]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{type(model).__name__} takes no packed rows ({error}). Set objective.packing to blocks."
        ) from error
    leak = ((packed - alone).abs().max() / alone.std()).item()
    if not leak < TOLERANCE:
        raise ValueError(
            f"objective.packing documents needs a model that keeps the documents of a row apart. "
            f"{type(model).__name__} does not: what stands before a document in its row moves its logits by {leak:.1e} "
            "of their spread. Set "
            "objective.packing to blocks."
        )
