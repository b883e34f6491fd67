"""What a model is given to read: ids, or vectors in their place."""

from __future__ import annotations

import torch


def one_of(
    ids: torch.Tensor | None, vectors: torch.Tensor | None, names: str = "input_ids and inputs_embeds"
) -> torch.Tensor:
    """Whichever of ids [batch, time] and vectors [batch, time, width] is given; ValueError unless just one of them is.

    Args:
        names: of the two, for the message.
    """
    given = ids if vectors is None else vectors
    if given is None or (ids is not None and vectors is not None):
        raise ValueError(f"Pass exactly one of {names}.")
    return given
