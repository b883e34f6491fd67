"""What works on a grid [batch, target time, source time, channels]: convolutions, normalisation, aggregation.

Channels are last throughout: a 1x1 convolution is a matrix product, a norm per cell reads contiguous memory, and a
convolution sees the same memory as a channels_last tensor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from .plain_layers import is_watched


@dataclass
class Resumed:
    """Where an earlier call of a `CausalGridConv` ended."""

    pending: torch.Tensor | None
    """What the rows before add to the next rows_kept rows [rows, batch, source, out]; None: there are none."""
    kernel: torch.Tensor | None = None
    """The convolution's `step_kernel()`, where it is at hand and no gradient is wanted."""
    every_step: bool = False
    """Whether a later call may go on after any of the rows, not after the last alone."""


class CausalGridConv(nn.Module):
    """A convolution that sees no target position below its own; only its live taps are stored.

    Args:
        channels: [in, out].
        kernel_size: odd; (kernel_size + 1) / 2 target positions, the last its own, x kernel_size source positions.
        groups, bias: as of nn.Conv2d.

    The weight is the upper half of a masked kernel [out, in / groups, target positions, source positions], without
    groups as one matrix [out, in * target positions * source positions], which is what Muon takes.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, groups: int = 1, bias: bool = False
    ):
        super().__init__()
        self.rows_kept, self.reach, self.groups = kernel_size // 2, kernel_size // 2, groups
        self.shape = (out_channels, in_channels // groups, self.rows_kept + 1, kernel_size)
        taps = math.prod(self.shape[1:])
        self.weight = nn.Parameter(torch.empty(self.shape if groups > 1 else (out_channels, taps)))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None

    def forward(
        self, x: torch.Tensor, resumed: Resumed | None = None
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """Convolves x [batch, time, source, in].

        Args:
            resumed: what an earlier call left, where x goes on and a later call will.

        Returns:
            [batch, time, source, out]; with `resumed` what these and earlier rows add to the next rows_kept rows
            [rows, batch, source, out], one after the last row, or one after each.
        """
        time = x.shape[1]
        if resumed is None:
            return self._with_later_rows(x, self.bias)[:, :time], None
        if resumed.every_step and time > 1:
            outputs, after = [], []
            for row in x.split(1, dim=1):
                output, later = self(row, resumed)
                resumed = replace(resumed, pending=later[0])
                outputs.append(output)
                after += later
            return torch.cat(outputs, dim=1), after
        if time == 1 and resumed.kernel is not None:
            rows = self._step(x.squeeze(1), resumed.kernel)
        else:
            rows = self._with_later_rows(x)
        if resumed.pending is not None:
            rows[:, : self.rows_kept] += resumed.pending.transpose(0, 1)
        output = rows[:, :time] if self.bias is None else rows[:, :time] + self.bias
        return output, [rows[:, time:].transpose(0, 1).contiguous()]

    def _with_later_rows(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """[batch, time, source, in] -> [batch, time + rows_kept, source, out]: padding one end alone would copy x."""
        x, padding = x.permute(0, 3, 1, 2), (self.rows_kept, self.reach)
        x = F.conv2d(x, self.weight.view(self.shape), bias, padding=padding, groups=self.groups)
        return x.permute(0, 2, 3, 1)

    @torch.no_grad()
    def step_kernel(self) -> torch.Tensor:
        """The weight laid out for a call of one row: what the row adds to itself and to the rows_kept rows after it."""
        weight = self.weight.view(self.shape).flip(2)  # the last of a kernel's rows is the row itself
        if self.groups > 1:
            return (
                weight.transpose(1, 2).flatten(0, 1).unsqueeze(2)
            )  # [out * rows, in / groups, 1, source taps]
        return weight.permute(3, 2, 0, 1).flatten(0, 2).contiguous()  # [source taps * rows * out, in]

    def _step(self, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        """One row [batch, source, in] -> it and what it adds to later ones [batch, 1 + rows_kept, source, out].

        As one matrix product over the row and a few additions: for so few cells a convolution's preparations, or
        laying the taps beside each other, cost more than the products.
        """
        out, _, rows, taps = self.shape
        if self.groups > 1:
            x = F.conv2d(
                x.permute(0, 2, 1).unsqueeze(2), kernel, padding=(0, self.reach), groups=self.groups
            )  # [batch, out * rows, 1, source]
            return x.squeeze(2).unflatten(1, (out, rows)).permute(0, 2, 3, 1)
        x = F.linear(x, kernel).unflatten(-1, (taps, rows * out))
        total = x[:, :, self.reach]
        for away in range(1, self.reach + 1):
            total[:, :-away] += x[:, away:, self.reach + away]
            total[:, away:] += x[:, :-away, self.reach - away]
        return total.unflatten(-1, (rows, out)).transpose(1, 2)


@dataclass
class StepWeights:
    """Weights of a grid for calls of one row, laid out once for a whole translation."""

    kernels: list[torch.Tensor | None]
    """Of every convolution, see `step_kernels`."""
    target_shares: torch.Tensor | None = None
    """Of all layers' shares of the target [layers * width, embedding], where one product makes them all."""


def step_kernels(convolutions: Iterable[CausalGridConv]) -> list[torch.Tensor | None]:
    """`step_kernel()` of each; None where the weight may be elsewhere until the convolution is called (offload)."""
    return [None if is_watched(conv) else conv.step_kernel() for conv in convolutions]


class GrowingChannels:
    """The channels of a dense network in one buffer, which every layer reads a part of and adds to.

    Concatenating them anew for each layer would copy, and keep for backward, a number of channels that grows with the
    square of the layers; and of the gradients of the parts, each would be copied and added once for every reader.
    Here a reader's matrix product adds to the gradient itself. As nothing tells autograd so, a scalar is handed from
    layer to layer: whoever writes channels gives the next one, whoever reads takes it, and so the gradient of some
    channels is asked for after all that read them have added to it.

    Args:
        shape: of all channels together [batch, time, source, channels]; like: for dtype and device.
    """

    def __init__(self, shape: tuple[int, ...], like: torch.Tensor):
        self.values = like.new_empty(shape)
        self.gradient: torch.Tensor | None = None
        self.count = 0
        self.turn = like.new_zeros((), requires_grad=True)

    def append(self, x: torch.Tensor) -> None:
        """Adds x [batch, time, source, more]."""
        if torch.is_grad_enabled():
            self.turn = _Append.apply(x, self.turn, self, self.count)
        else:
            self.values[..., self.count : self.count + x.shape[-1]] = x
        self.count += x.shape[-1]

    def add_product(self, x: torch.Tensor, weight: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
        """x [batch, time, source, out] + channels so far @ weight.T, in place of x; weight: [out, channels so far]."""
        if torch.is_grad_enabled():
            return _AddProduct.apply(x, weight, turn, self)
        x.view(-1, x.shape[-1]).addmm_(self.values[..., : weight.shape[1]].flatten(0, -2), weight.t())
        return x

    def finish(self) -> torch.Tensor:
        """All channels [batch, time, source, channels], as autograd knows them."""
        # Nodes of the graph hold this object, so it may not hold the graph: nobody would free such a circle.
        turn = self.turn
        del self.turn
        return _Finish.apply(turn, self) if torch.is_grad_enabled() else self.values


class _Append(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, turn, channels, start):
        ctx.channels, ctx.part = channels, slice(start, start + x.shape[-1])
        channels.values[..., ctx.part] = x
        return turn.detach().clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, turn):
        gradient = ctx.channels.gradient[..., ctx.part]
        if ctx.part.start == 0:  # the last to ask
            ctx.channels.gradient = None
        return gradient, turn, None, None


class _AddProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, turn, channels):
        ctx.channels = channels
        ctx.save_for_backward(weight)
        known = channels.values[..., : weight.shape[1]].flatten(0, -2)
        x.view(-1, x.shape[-1]).addmm_(known, weight.t())
        ctx.mark_dirty(x)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (weight,), channels = ctx.saved_tensors, ctx.channels
        count = weight.shape[1]
        flat = gradient.reshape(-1, gradient.shape[-1])
        channels.gradient[..., :count].flatten(0, -2).addmm_(flat, weight)
        return gradient, flat.t() @ channels.values[..., :count].flatten(0, -2), gradient.new_zeros(()), None


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, turn, channels):
        ctx.channels = channels
        return channels.values.view_as(channels.values)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        # Ours to add to: what it came from may still be read by someone else.
        ctx.channels.gradient = gradient.clone(memory_format=torch.contiguous_format)
        return gradient.new_zeros(()), None


class GridBatchNorm(nn.Module):
    """Batch normalisation (Ioffe and Szegedy 2015) over the cells that count, or over all of them.

    A tensor that does not vary along target or source may have length 1 there: its statistics are those of the grid
    that it would be broadcast to.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight, self.bias = nn.Parameter(torch.empty(channels)), nn.Parameter(torch.empty(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor, cells: torch.Tensor | None) -> torch.Tensor:
        """Normalises each channel.

        Args:
            x: [batch, time or 1, source or 1, channels].
            cells: [batch, time, source], in training 1 where a cell counts; None: all count, and x is a whole grid.
        """
        mean, variance = self.running_mean, self.running_var
        if self.training and cells is None:
            flat = F.batch_norm(
                x.reshape(-1, x.shape[-1]),
                mean,
                variance,
                self.weight,
                self.bias,
                True,
                self.momentum,
                self.eps,
            )
            return flat.view(x.shape)
        if self.training and cells is not None:
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
        maps_values: gated_max: what is gated is a learned map of the channels, not the channels themselves.
    """

    def __init__(self, kind: str, channels: int, maps_values: bool = False):
        super().__init__()
        self.kind = kind
        self.value = nn.Linear(channels, channels) if maps_values and kind == "gated_max" else None
        self.gate = nn.Linear(channels, channels) if kind == "gated_max" else None
        self.hidden = nn.Linear(channels, channels) if kind == "attention" else None
        self.score = nn.Linear(channels, 1, bias=False) if kind == "attention" else None

    def forward(
        self,
        cells: torch.Tensor,
        source: torch.Tensor | None,
        mask: torch.Tensor | None,
        wants_weights: bool = False,
        target: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Aggregates.

        Args:
            cells: [batch, time, source, channels].
            source: further channels that do not depend on the target [batch, source, more], or None.
            mask: bool [batch, source], or None where nothing is padding.
            target: further channels that do not depend on the source [batch, time, still more], or None.

        Returns:
            (vectors [batch, time, channels + more + still more], and where asked what each source position contributed:
            its weight, or the share of `cells`' channels whose maximum it is [batch, time, source]; channels with
            several maxima, as where a ReLU leaves nothing but zeros, have picked none and do not count)
        """
        time, weights = cells.shape[1], None
        if self.kind == "average":
            count = cells.new_full((1,), cells.shape[2]) if mask is None else mask.sum(1).clamp(min=1)
            scale = count.to(cells.dtype).rsqrt().view(-1, 1, 1)
            keep = None if mask is None else mask.to(cells.dtype)
            pooled = cells.sum(2) if keep is None else torch.einsum("btsc,bs->btc", cells, keep)
            parts = [pooled * scale]
            if source is not None:
                vector = source.sum(1) if keep is None else (source * keep.unsqueeze(-1)).sum(1)
                parts.append((vector.unsqueeze(1) * scale).expand(-1, time, -1))
            if target is not None:
                parts.append(target / scale)  # the same in every cell: S of them over sqrt(S)
            if wants_weights:
                share = torch.ones_like(cells[:, :, :, 0]) if keep is None else keep.unsqueeze(1)
                weights = (share / count.view(-1, 1, 1)).expand(cells.shape[:3])
            return torch.cat(parts, dim=-1), weights
        if self.hidden is not None and self.score is not None:  # attention
            scores = self.score(torch.tanh(self.hidden(cells))).squeeze(-1)  # [batch, time, source]
            if mask is not None:
                scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
            weights = scores.softmax(-1)
            parts = [torch.einsum("btsc,bts->btc", cells, weights)]
            if source is not None:
                parts.append(weights @ source)
            if target is not None:
                parts.append(target)
            return torch.cat(parts, dim=-1), weights if wants_weights else None
        if self.gate is not None:  # gated_max
            gates = self.gate(cells).sigmoid()
            cells = gates * (cells if self.value is None else self.value(cells))
        lowest = torch.finfo(cells.dtype).min
        if mask is not None:
            cells = cells.masked_fill(~mask[:, None, :, None], lowest)
        pooled, _ = cells.max(dim=2)  # [batch, time, channels]
        parts = [pooled]
        if source is not None:
            seen = source if mask is None else source.masked_fill(~mask.unsqueeze(-1), lowest)
            parts.append(seen.amax(1, keepdim=True).expand(-1, time, -1))
        if target is not None:
            parts.append(target)
        if wants_weights:
            weights = shares_of_maxima(cells, pooled)
        return torch.cat(parts, dim=-1), weights


def shares_of_maxima(cells: torch.Tensor, maxima: torch.Tensor) -> torch.Tensor:
    """Where the maxima stand, each channel one vote; those with several maxima vote only where no channel has one.

    Args:
        cells: [batch, time, source, channels]; maxima: [batch, time, channels].

    Returns:
        [batch, time, source], each row's sum 1
    """
    peaks = (cells == maxima.unsqueeze(2)).to(cells.dtype)
    counts = peaks.sum(2, keepdim=True)
    votes = (peaks * (counts == 1)).sum(-1)
    votes = torch.where(votes.sum(-1, keepdim=True) > 0, votes, (peaks / counts).sum(-1))
    return votes / votes.sum(-1, keepdim=True)


def sinusoids(positions: torch.Tensor, channels: int, dtype: torch.dtype) -> torch.Tensor:
    """Positions [...] as sines, then cosines [..., channels], of frequencies 10000^(-i / (channels / 2 - 1)).

    Those of tensor2tensor and fairseq; Vaswani et al. 2017 write 10000^(-2i / channels).
    """
    half, wide = channels // 2, torch.promote_types(dtype, torch.float32)
    exponents = torch.arange(half, device=positions.device, dtype=wide) / max(half - 1, 1)
    angles = positions.unsqueeze(-1) * torch.exp(exponents * -math.log(10000.0))
    return torch.cat([angles.sin(), angles.cos()], dim=-1).to(dtype)
