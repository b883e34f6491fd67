"""Whether a model keeps the documents of a packed row apart: tried on the model itself, before anything is built.

Packed rows save the padding, but a model that reads over the border between two documents learns from noise, and none
says so: GPT-2 of transformers moves by 8e-2, BERT by 2e-3; Llama keeps them apart.
"""

from __future__ import annotations

from typing import Any

import torch

from ..training.model_batches import ModelBatches

TOLERANCE = 1e-3
"""Of the logits' own spread; models that keep documents apart are within 1e-5."""


@torch.no_grad()
def check_packed_rows(auto_class: type, config: Any) -> None:
    """Compares two documents in one row with the same two, each alone.

    Args:
        auto_class: builds the model.
        config: of the model; a copy with a small vocabulary is built.

    Raises:
        ValueError: the model lets one document see another, with the size of the difference.
    """
    small = type(config).from_dict({**config.to_dict(), "vocab_size": max(64, 1 + _largest_id(config))})
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
            "objective.packing documents needs a model that keeps the documents of a row apart. "
            f"{type(model).__name__} does not: what stands before a document in its row moves its logits by {leak:.1e} "
            "of their spread. Set objective.packing to blocks."
        )


def _largest_id(config: Any) -> int:
    ids = (getattr(config, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "mask", "sep", "cls"))
    return max((i for i in ids if isinstance(i, int)), default=0)
