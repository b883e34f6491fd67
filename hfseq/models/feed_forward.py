"""The feed-forward network of the Transformer families (Vaswani et al. 2017), gated by option (Shazeer 2020)."""

from __future__ import annotations

import torch
from torch import nn
from transformers.activations import ACT2FN

from .dropout import dropout


class FeedForward(nn.Module):
    """down(dropout(act(up x))), or gated down(dropout(act(gate x) * up x)).

    Args:
        width, inner: of the hidden states, and of the layer between.
        activation: transformers' name of it.
        dropout: on the layer between, in training.
    """

    def __init__(
        self, width: int, inner: int, activation: str, *, gated: bool, bias: bool = True, dropout: float = 0.0
    ):
        super().__init__()
        self.dropout = dropout
        self.gate_proj = nn.Linear(width, inner, bias=bias) if gated else None
        self.up_proj = nn.Linear(width, inner, bias=bias)
        self.down_proj = nn.Linear(inner, width, bias=bias)
        self.act = ACT2FN[activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] -> the same."""
        if self.gate_proj is None:
            x = self.act(self.up_proj(x))
        else:
            x = self.act(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(dropout(x, self.dropout, self.training))
