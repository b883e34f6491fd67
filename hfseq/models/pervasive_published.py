"""The two networks that the authors of Pervasive Attention released, as they are (github.com/elbayadm/attn2d).

`DenseNet2018` is the paper's (Elbayad, Besacier and Verbeek 2018; `config/l24.yaml` and `nmt/models` of August 2018),
`ResNet2020` the later one (`examples/pervasive` of May 2020, --convnet resnet --aggregator gated-max). Our own forms
are in `modeling_pervasive.py`. What differs from the authors' code changes no number: the first 1x1 convolution is a
product of the source's vectors and one of the target's, kernels hold live taps only, decoding keeps sums in place of
rows.

padding="published" is theirs too: padded cells are cells. 2018: convolutions, statistics and the maximum read them
(the average does not). 2020: what a convolution puts out there is zero, but the next one and the maximum read what
the residual carries. Either way an output depends on how its row is padded; padding="masked" mends that, and is the
same network for rows without padding.

One thing is not theirs: of a padded target the authors zero the rows after its end as well, which no earlier row reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_pervasive import PervasiveConfig
from .dropout import dropout
from .grid import Aggregation, CausalGridConv, GridBatchNorm, Resumed, StepWeights, sinusoids, step_kernels
from .layer_list import LayerList

HALF = 0.5**0.5


def scaled_with_positions(
    vectors: torch.Tensor, first: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """sqrt(width) * vectors [batch, time, width] + sinusoids.

    Args:
        first: the position of the first word. fairseq counts from the padding's id + 1.
        mask: [batch, time], 0 at padding, which has no position and counts as none.
    """
    width = vectors.shape[-1]
    if mask is None:
        positions = torch.arange(first, first + vectors.shape[1], device=vectors.device)
        return vectors * width**0.5 + sinusoids(positions, width, vectors.dtype)
    places = sinusoids(mask.long().cumsum(1) + (first - 1), width, vectors.dtype)
    return vectors * width**0.5 + places * mask.unsqueeze(-1).to(vectors.dtype)


@dataclass(frozen=True)
class Begins:
    """How a layer's weights begin, where that is not as in our own forms: an attribute of that name on the layer.

    On the layer and not on the network, as transformers may initialise layers alone: those that a checkpoint lacks.
    """

    bound: float = 0.0
    """Weights are uniform on (-bound, bound)."""
    std: float = 0.0
    """Where bound is 0: they are normal."""
    bias_bound: float = 0.0
    """Biases are uniform on (-bias_bound, bias_bound)."""

    def draw(self, layer: nn.Module) -> None:
        if self.bound:
            init.uniform_(layer.weight, -self.bound, self.bound)
        else:
            init.normal_(layer.weight, std=self.std)
        if layer.bias is not None:
            init.uniform_(layer.bias, -self.bias_bound, self.bias_bound)

    def of(self, *layers: nn.Module) -> None:
        """Makes it so for these layers."""
        for layer in layers:
            layer.begins = self  # type: ignore[assignment]  # torch knows of tensors and modules on a module alone

    @classmethod
    def as_in_torch(cls, fan_in: int) -> Begins:
        """torch's own initialisation of linear layers and convolutions, which the authors mostly kept."""
        return cls(bound=fan_in**-0.5, bias_bound=fan_in**-0.5)

    @classmethod
    def as_glorot(cls, fan_in: int, fan_out: int) -> Begins:
        return cls(bound=math.sqrt(6 / (fan_in + fan_out)))


class DenseNet2018Layer(GradientCheckpointingLayer):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, causal convolution, dropout; no biases.

    Args:
        read: how many channels it reads.
    """

    def __init__(self, config: PervasiveConfig, read: int):
        super().__init__()
        width = config.bottleneck_width
        self.dropout = config.hidden_dropout
        self.read_norm, self.bottleneck_norm = GridBatchNorm(read), GridBatchNorm(width)
        self.bottleneck = nn.Linear(read, width, bias=False)
        self.conv = CausalGridConv(width, config.growth_size, config.kernel_size)
        Begins.as_in_torch(read).of(self.bottleneck)
        Begins.as_in_torch(width * config.kernel_size**2).of(self.conv)  # the fan of the masked kernel

    def forward(
        self,
        keep: torch.Tensor | None,
        cells: torch.Tensor | None,
        resumed: Resumed | None,
        *channels: torch.Tensor,
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """Adds channels.

        Args:
            keep: [batch, 1, source, 1], 0 where padding is to be zero, or None.
            cells: as in `GridBatchNorm`.
            resumed: where the convolution goes on.
            channels: those so far, [batch, time, source, some] each; concatenated here, so that checkpointing keeps
                none of it.

        Returns:
            (new channels [batch, time, source, growth], of the convolution)
        """
        x = self.read_norm(torch.cat(channels, dim=-1), cells)
        x = self.bottleneck_norm(self.bottleneck(F.relu(x, inplace=True)), cells)
        x = F.relu(x, inplace=True)
        x = x if keep is None else x * keep
        x, later = self.conv(x, resumed)
        return dropout(x, self.dropout, self.training), later


class PublishedGrid(nn.Module):
    """What both networks do alike: words enter the grid in its first cells alone."""

    source: nn.Module
    layers: LayerList[DenseNet2018Layer] | LayerList[ResNet2020Layer]
    output_size: int

    def projection_begins(self) -> Begins:
        """Of the layer between the aggregated channels and the output layer."""
        raise NotImplementedError

    def step_weights(self) -> StepWeights:
        return StepWeights(step_kernels(layer.conv for layer in self.layers))

    def read_source(
        self, source: torch.Tensor, mask: torch.Tensor | None, cells: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """The source's share of the first cells [batch, source, their width]."""
        return [self.source(source)]


class DenseNet2018(PublishedGrid):
    """The paper's DenseNet: a 1x1 convolution that halves both sides' channels, dense layers, norm, ReLU, a 1x1
    convolution that halves again, norm, ReLU.

    Weights begin as the authors' do; but norms at one, where theirs, torch 0.4's, were uniform on (0, 1).
    """

    layers: LayerList[DenseNet2018Layer]

    def __init__(self, config: PervasiveConfig):
        super().__init__()
        size, growth = config.embedding_size, config.growth_size
        self.masks_padding = config.padding == "masked"
        # Halves of one 1x1 convolution [size, 2 * size]; its bias is the target's.
        self.source, self.target = nn.Linear(size, size, bias=False), nn.Linear(size, size)
        self.layers = LayerList(
            DenseNet2018Layer(config, size + growth * i) for i in range(config.num_hidden_layers)
        )
        features = size + growth * config.num_hidden_layers
        self.output_size = features // 2
        self.transition_norm = GridBatchNorm(features)
        self.transition = nn.Linear(features, self.output_size, bias=False)
        self.output_norm = GridBatchNorm(self.output_size)
        self.aggregation = Aggregation(config.aggregation, self.output_size)
        Begins.as_in_torch(2 * size).of(self.source, self.target)
        Begins.as_in_torch(features).of(self.transition)

    def projection_begins(self) -> Begins:
        return Begins.as_in_torch(self.output_size)

    def forward(
        self,
        source: list[torch.Tensor],
        target: torch.Tensor,
        mask: torch.Tensor | None,
        cells: torch.Tensor | None,
        start: int,
        resumed: list[Resumed] | None,
        wants_weights: bool,
        target_shares: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[list[torch.Tensor] | None]]:
        """As `DenseGrid.forward`; there is one share of the target."""
        masked = mask if self.masks_padding else None
        keep = None if masked is None else masked[:, None, :, None].to(target.dtype)
        channels, later = [source[0].unsqueeze(1) + self.target(target).unsqueeze(2)], []
        for i, layer in enumerate(self.layers):
            new, adds = layer(keep, cells, None if resumed is None else resumed[i], *channels)
            channels.append(new)
            later.append(adds)
        x = F.relu(self.transition_norm(torch.cat(channels, dim=-1), cells), inplace=True)
        x = F.relu(self.output_norm(self.transition(x), cells), inplace=True)
        # The authors average over the words of the source, but take the maximum over its padding too.
        counted = mask if self.aggregation.kind == "average" else masked
        pooled, weights = self.aggregation(x, None, counted, wants_weights)
        return pooled, weights, later


class ResNet2020Layer(GradientCheckpointingLayer):
    """sqrt(1/2) (x + f(x)) twice: f a 1x1 convolution, then a causal depthwise one, with biases and no ReLU between;
    and f a feed-forward network. Dropout on what each f puts out."""

    def __init__(self, config: PervasiveConfig):
        super().__init__()
        width = config.hidden_size
        self.dropout = config.hidden_dropout
        self.masks_padding = config.padding == "masked"
        self.mix = nn.Linear(width, width)
        self.conv = CausalGridConv(width, width, config.kernel_size, groups=width, bias=True)
        self.up = nn.Linear(width, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, width)
        Begins.as_in_torch(width).of(self.mix)
        Begins.as_in_torch(config.kernel_size**2).of(self.conv)  # the fan of the masked kernel

    def forward(
        self, x: torch.Tensor, keep: torch.Tensor | None, resumed: Resumed | None
    ) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """x [batch, time, source, hidden] -> (the same, of the convolution).

        Args:
            keep: [batch, 1, source, 1], 0 at padding, or None.
            resumed: where the convolution goes on.
        """
        read = self.mix(x)
        if keep is not None and self.masks_padding:
            read = read * keep
        read, later = self.conv(read, resumed)
        if keep is not None and not self.masks_padding:
            read = read * keep
        x = HALF * (x + dropout(read, self.dropout, self.training))
        hidden = self.down(F.relu(self.up(x), inplace=True))
        return HALF * (x + dropout(hidden, self.dropout, self.training)), later


class ResNet2020(PublishedGrid):
    """The authors' later network: residual blocks without norms, and the mean over the input and all their outputs.

    It reads scaled word vectors with positions, see `scaled_with_positions`.
    """

    layers: LayerList[ResNet2020Layer]

    def __init__(self, config: PervasiveConfig):
        super().__init__()
        size, width = config.embedding_size, config.hidden_size
        self.masks_padding = config.padding == "masked"
        # Halves of one 1x1 convolution [width, 2 * size]; its bias is the target's.
        self.source, self.target = nn.Linear(size, width, bias=False), nn.Linear(size, width)
        self.layers = LayerList(ResNet2020Layer(config) for _ in range(config.num_hidden_layers))
        self.output_size = width
        self.aggregation = Aggregation(config.aggregation, width, maps_values=True)
        self.projection_dropout = config.output_dropout
        Begins.as_glorot(2 * size, width).of(self.source, self.target)
        value, gate = self.aggregation.value, self.aggregation.gate
        if value is not None and gate is not None:
            Begins.as_glorot(width, 2 * width).of(value, gate)  # halves of one matrix

    def projection_begins(self) -> Begins:
        """So small, by a misplaced bracket."""
        return Begins(std=(1 - self.projection_dropout) / self.output_size)

    def forward(
        self,
        source: list[torch.Tensor],
        target: torch.Tensor,
        mask: torch.Tensor | None,
        cells: torch.Tensor | None,
        start: int,
        resumed: list[Resumed] | None,
        wants_weights: bool,
        target_shares: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[list[torch.Tensor] | None]]:
        """As `DenseGrid.forward`; there is one share of the target."""
        keep = None if mask is None else mask[:, None, :, None].to(target.dtype)
        x = source[0].unsqueeze(1) + self.target(target).unsqueeze(2)  # [batch, time, source, hidden]
        share = 1 / (len(self.layers) + 1)
        mean, later = x * share, []
        for i, layer in enumerate(self.layers):
            x, adds = layer(x, keep, None if resumed is None else resumed[i])
            later.append(adds)
            mean = torch.add(mean, x, alpha=share)
        pooled, weights = self.aggregation(mean, None, mask if self.masks_padding else None, wants_weights)
        return pooled, weights, later
