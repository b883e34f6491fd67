"""The refusal of packed rows, by every model that cannot keep several sequences in one row apart.

What says that a row is packed, in transformers' words: borders (`cu_seq_lens_q`, from `DataCollatorWithFlattening`),
numbers (`seq_idx`), or position_ids without an attention mask that do not go on from their left neighbour. Positions
that merely count a row's tokens say nothing of the kind: TRL and `generate` send them with every batch.
"""

from __future__ import annotations

from typing import Any

import torch

from .attention import new_segment

BORDERS = ("cu_seq_lens", "decoder_cu_seq_lens", "cu_seq_lens_q", "seq_idx")


def refuse_packed_rows(
    who: str, because: str, remedy: str, arguments: dict[str, Any], *masked: tuple[str, bool]
) -> None:
    """Raises ValueError if anything among the arguments says that a row holds several sequences.

    Args:
        who, because, remedy: who refuses, what would happen, what to do instead, for the message.
        arguments: forward arguments by name.
        masked: names of positions among them, and whether a mask or a cache beside them says where a row's
            sequence begins, so that positions say nothing. By default position_ids, without.
    """
    packed = [name for name in BORDERS if arguments.get(name) is not None]
    for name, is_masked in masked or (("position_ids", False),):
        positions = arguments.get(name)
        if positions is not None and not is_masked and begins_again(positions):
            packed.append(f"{name} that begin again, without an attention_mask")
    if packed:
        raise ValueError(
            f"{who} packed rows ({', '.join(packed)}): {because}. {remedy} (In TRL: packing=False, or "
            'packing_strategy="wrapped", which packs plain blocks of text.)'
        )


def begins_again(position_ids: torch.Tensor) -> bool:
    """Whether some position [batch, time] does not go on from its left neighbour.

    An exported graph cannot ask; it is made for any positions, so they count as ones that do.
    """
    if position_ids.ndim != 2:
        return False
    return torch.compiler.is_exporting() or bool(new_segment(position_ids)[:, 1:].any())
