"""The attention layer of the Transformer families: projections, heads, and the call of the implementation.

Which implementation runs (eager, SDPA, flash, flex) is transformers' affair (`ALL_ATTENTION_FUNCTIONS`), but for two
cases: packed segments with known borders go to `attend_segments`, and a call that asks for attention weights is
computed eagerly, as no other implementation keeps them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .attention import (
    Angles,
    Packed,
    Segments,
    attend_segments,
    attention,
    eager_attention,
    formula_pays,
    in_16_bits,
)

Mask = Any
"""What transformers' `masking_utils` make for an implementation: a tensor, a BlockMask of flex attention, or None."""


@dataclass(frozen=True)
class AttentionContext:
    """What the attention of every layer needs beside the hidden states.

    Args:
        mask: as the implementation takes it.
        segments: borders of packed segments, in place of a mask.
        angles: rotary cosines and sines of all positions; asked_angles: of those asked for.
        asked: [batch, n] columns that the layer is asked for; None for all.
        options: passed on to the implementation.
        implementation: its name.
    """

    mask: Mask = None
    segments: Segments | None = None
    angles: Angles | None = None
    asked_angles: Angles | None = None
    asked: torch.Tensor | None = None
    options: dict | None = None
    implementation: str = "sdpa"


class AttentionLayer(nn.Module):
    """Multi-head attention with its four projections.

    Args:
        config: for `_attn_implementation`, which other implementations than our own read of it.
        width, heads: of the hidden states, and into how many parts they are split.
        dropout: on the attention weights, in training.
        causal: a position sees none after it.
    """

    def __init__(
        self,
        config: PreTrainedConfig,
        width: int,
        heads: int,
        *,
        dropout: float,
        bias: bool = True,
        causal: bool = False,
    ):
        super().__init__()
        self.config = config
        self.heads = heads
        self.dropout = dropout
        self.is_causal = causal
        self.scaling = (width // heads) ** -0.5
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.k_proj = nn.Linear(width, width, bias=bias)
        self.v_proj = nn.Linear(width, width, bias=bias)
        self.o_proj = nn.Linear(width, width, bias=bias)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, time, width] -> [batch, heads, time, width / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, context: AttentionContext
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attends, and projects what was found.

        Args:
            query: [batch, heads, queries, width / heads]; key, value: [batch, heads, keys, width / heads].

        Returns:
            (output [batch, queries, width], weights [batch, heads, queries, keys] or None)
        """
        p = self.dropout if self.training else 0.0
        weights = None
        if context.segments is not None:
            q, k, v = [t.transpose(1, 2).flatten(0, 1) for t in (query, key, value)]
            output = attend_segments(q, k, v, context.segments, self.scaling, p, self.is_causal)
        elif context.implementation == "sdpa" and not context.options and formula_pays(query):
            causal = self.is_causal and context.mask is None and query.shape[2] > 1
            output = attention(query, key, value, context.mask, self.scaling, p, causal).transpose(1, 2)
        else:
            function = ALL_ATTENTION_FUNCTIONS.get_interface(context.implementation, eager_attention)
            options = context.options or {}
            output, weights = function(
                self, query, key, value, context.mask, scaling=self.scaling, dropout=p, **options
            )
        return self.o_proj(output.reshape(query.shape[0], query.shape[2], -1)), weights


def keeping_weights(config: PreTrainedConfig) -> PreTrainedConfig:
    """The config for a call that returns attention weights: only the eager implementation has any."""
    if config._attn_implementation == "eager":
        return config
    config = copy.copy(config)
    config._attn_implementation = "eager"
    return config


def attends_by_segment(config: PreTrainedConfig, x: torch.Tensor, packed: Packed, dropout: float) -> bool:
    """Whether segments are attended to one by one, exactly and faster than under a mask.

    Args:
        x: hidden states [batch, time, width], for their device and type.
        dropout: on the attention weights in this call; the GPU's kernel has none.
    """
    if config._attn_implementation != "sdpa":
        return False
    if x.device.type == "cpu":
        return not torch.compiler.is_compiling()  # the number of calls depends on the data
    return x.is_cuda and in_16_bits(x) and not dropout and packed.has_borders


def flash_options(borders: Segments) -> dict[str, object]:
    """Borders of packed segments under the names that flash attention knows them by."""
    return {
        "cu_seq_lens_q": borders.queries,
        "cu_seq_lens_k": borders.keys,
        "max_length_q": borders.longest_query,
        "max_length_k": borders.longest_key,
    }
