"""What works on a grid [batch, target time, source time, channels]: convolutions, normalisation, aggregation.

Channels are last throughout: a 1x1 convolution is a matrix product, a norm per cell reads contiguous memory, and a
convolution sees the same memory as a channels_last tensor.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class CausalGridConv(nn.Module):
    """A convolution that sees no target position below its own; only its live taps are stored.

    Args:
        channels: [in, out].
        kernel_size: odd; (kernel_size + 1) / 2 target positions, the last its own, x kernel_size source positions.
        groups: as of nn.Conv2d.

    The weight is the upper half of a masked kernel [out, in / groups, target positions, source positions], without
    groups as one matrix [out, in * target positions * source positions], which is what Muon takes.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1):
        super().__init__()
        self.rows_kept, self.reach, self.groups = kernel_size // 2, kernel_size // 2, groups
        self.shape = (out_channels, in_channels // groups, self.rows_kept + 1, kernel_size)
        taps = math.prod(self.shape[1:])
        self.weight = nn.Parameter(torch.empty(self.shape if groups > 1 else (out_channels, taps)))

    def forward(self, x: torch.Tensor, before: torch.Tensor | None = None) -> torch.Tensor:
        """x [batch, time, source, in] -> [batch, time, source, out].

        Args:
            before: the rows_kept rows of x before these [rows, batch, source, in]; None: there is nothing before.
        """
        time = x.shape[1]
        if before is None:
            # Padding both ends computes a few rows too many; padding one end would copy the grid.
            x = x.permute(0, 3, 1, 2)
            padding = (self.rows_kept, self.reach)
        else:
            x = torch.cat([before.transpose(0, 1), x], dim=1).permute(0, 3, 1, 2)
            padding = (0, self.reach)
        x = F.conv2d(x, self.weight.view(self.shape), padding=padding, groups=self.groups)
        return x[:, :, :time].permute(0, 2, 3, 1)


class GridBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over the cells that are no padding.

    A tensor that does not vary along target or source may have length 1 there: its statistics are those of the grid that
    it would be broadcast to.
    """

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor, cells: torch.Tensor | None) -> torch.Tensor:
        """x [batch, time or 1, source or 1, channels]; cells: [batch, time, source], 1 where a cell counts (training)."""
        mean, variance = self.running_mean, self.running_var
        if self.training:
            counts = cells.to(torch.promote_types(x.dtype, torch.float32))
            for axis in (1, 2):
                if x.shape[axis] == 1:
                    counts = counts.sum(axis, keepdim=True)
            counts = counts.unsqueeze(-1)
            total = counts.sum().clamp(min=1)
            wide = x.to(counts.dtype)
            mean = (wide * counts).sum((0, 1, 2)) / total
            variance = ((wide - mean).square() * counts).sum((0, 1, 2)) / total
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                unbiased = variance * total / (total - 1).clamp(min=1)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (x * scale + (self.bias - mean * scale)).to(x.dtype)


class Aggregation(nn.Module):
    """From a row of cells, one for each source position, to one vector.

    Args:
        kind: "max", "average", "attention" or "gated_max"; see `PervasiveConfig`.
        channels: of a cell.
    """

    def __init__(self, kind: str, channels: int):
        super().__init__()
        self.kind = kind
        self.gate = nn.Linear(channels, channels) if kind == "gated_max" else None
        self.hidden = nn.Linear(channels, channels) if kind == "attention" else None
        self.score = nn.Linear(channels, 1, bias=False) if kind == "attention" else None

    def forward(
        self,
        cells: torch.Tensor,
        source: torch.Tensor | None,
        mask: torch.Tensor | None,
        wants_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Aggregates.

        Args:
            cells: [batch, time, source, channels].
            source: further channels that do not depend on the target [batch, source, more], or None.
            mask: bool [batch, source], or None where nothing is padding.

        Returns:
            (vectors [batch, time, channels + more], and where asked what each source position contributed: its weight,
            or the share of `cells`' channels whose maximum it is [batch, time, source])
        """
        time, weights = cells.shape[1], None
        if self.kind == "average":
            count = cells.new_tensor(cells.shape[2]) if mask is None else mask.sum(1).clamp(min=1)
            scale = count.to(cells.dtype).rsqrt().view(-1, 1, 1)
            keep = None if mask is None else mask.to(cells.dtype)
            pooled = cells.sum(2) if keep is None else torch.einsum("btsc,bs->btc", cells, keep)
            parts = [pooled * scale]
            if source is not None:
                vector = source.sum(1) if keep is None else (source * keep.unsqueeze(-1)).sum(1)
                parts.append((vector.unsqueeze(1) * scale).expand(-1, time, -1))
            if wants_weights:
                share = torch.ones_like(cells[:, :, :, 0]) if keep is None else keep.unsqueeze(1)
                weights = (share / count.view(-1, 1, 1)).expand(cells.shape[:3])
            return torch.cat(parts, dim=-1), weights
        if self.kind == "attention":
            scores = self.score(torch.tanh(self.hidden(cells))).squeeze(-1)  # [batch, time, source]
            if mask is not None:
                scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
            weights = scores.softmax(-1)
            parts = [torch.einsum("btsc,bts->btc", cells, weights)]
            if source is not None:
                parts.append(weights @ source)
            return torch.cat(parts, dim=-1), weights if wants_weights else None
        if self.kind == "gated_max":
            cells = cells * self.gate(cells).sigmoid()
        lowest = torch.finfo(cells.dtype).min
        if mask is not None:
            cells = cells.masked_fill(~mask[:, None, :, None], lowest)
        pooled, picked = cells.max(dim=2)  # [batch, time, channels]
        parts = [pooled]
        if source is not None:
            seen = source if mask is None else source.masked_fill(~mask.unsqueeze(-1), lowest)
            parts.append(seen.amax(1, keepdim=True).expand(-1, time, -1))
        if wants_weights:
            weights = F.one_hot(picked, cells.shape[2]).to(cells.dtype).mean(2)
        return torch.cat(parts, dim=-1), weights
