"""How long a sequence may be that a model reads."""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers


def position_limit(config: Any) -> int | None:
    """The longest sequence that a model takes, in tokens; None: any, for it has no positions.

    RoBERTa and its relatives count positions from the padding token's id on, so that with 514 of them they take 512
    tokens; whether a model does is seen on its table of positions, which has a row for padding.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None or positions == -1:  # XLNet's
        return None
    padding = getattr(config, "pad_token_id", None)
    if padding is None or type(config) not in transformers.AutoModel._model_mapping:
        return positions
    return positions - padding - 1 if _counts_from_padding(type(config)) else positions  # type: ignore[arg-type]


@functools.cache
def _counts_from_padding(config_class: type) -> bool:
    config = config_class()
    if config.pad_token_id is None:
        config.pad_token_id = 0
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    return any(
        name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
        for name, module in model.named_modules()
    )


__all__ = ["position_limit"]
