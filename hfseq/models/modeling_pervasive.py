"""Pervasive Attention (Elbayad, Besacier and Verbeek 2018): translation by one 2-D network, without an encoder.

Every pair of a target and a source position is a cell of a grid, and begins with both word vectors. Causal convolutions
run over the grid; then the cells of each target position are aggregated over the source, by a maximum for one, and
predict the next word: every layer attends, so to say.

The forms "dense" and "residual" here are ours: causal in training too with norm="layer", and blind to padding. The
networks that the authors released are in `pervasive_published.py`.

What makes it lean is exact:

- The grid of concatenated word vectors is never built. In the first 1x1 convolution that reads them (of each dense
  layer), their share is a product of the source's vectors and one of the target's, added to every cell of a column or
  a row. For that they must be normalised apart from the cells: with norm="layer" the source's vectors, the target's and
  each layer's channels have a norm each, whose output all later layers share; with norm="batch", where every channel is
  normalised on its own, nothing differs from the paper.
- Kernels hold the taps that they may see, and no masked ones.
- Decoding keeps, of each layer, what the rows so far add to the next ones; a step costs one row: O(source).

Padding of the source is zero wherever a convolution reads it, as what lies beyond the border is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.utils import can_return_tuple

from .caches import RecurrentCache
from .configuration_pervasive import PervasiveConfig
from .dropout import dropout
from .grid import (
    Aggregation,
    CausalGridConv,
    GridBatchNorm,
    GrowingChannels,
    Resumed,
    StepWeights,
    sinusoids,
    step_kernels,
)
from .layer_list import LayerList
from .losses import IGNORE_INDEX
from .pervasive_published import DenseNet2018, PublishedGrid, ResNet2020, scaled_with_positions
from .plain_layers import is_plain
from .seq2seq import (
    Seq2SeqGenerationMixin,
    TwoSidedEmbeddings,
    check_as_many,
    check_one_source,
    refuse_packed_pairs,
    source_vectors,
    target_vectors,
)

REFUSES_PACKING = ("Pervasive", "most cells would stand between two pairs")

Later = list[torch.Tensor]
"""What a convolution adds to the rows after these [rows, batch, source, channels], after one row or several."""


class GridCache(RecurrentCache):
    """What is kept between two calls of `forward`: of each convolution what the rows so far add to the next ones, each
    layer's share of the source, and weights laid out for single rows.

    What is added is [rows, batch, source, channels]: what a recurrent cache calls a state.

    Args:
        fixed_source: beams never leave their source (generate()), so that reordering need not move what is its own.
    """

    is_grid_cache = True  # the model file's own copy of this class may differ: remote code

    def __init__(self, fixed_source: bool = False) -> None:
        super().__init__(1)
        self.fixed_source = fixed_source
        self.source: list[torch.Tensor] | None = None  # [batch, source, channels] each
        self.weights: StepWeights | None = None

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        super().reorder_cache(beam_idx)
        if not self.fixed_source:
            self._map_source(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self._map_source(lambda x: x[indices.to(x.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._map_source(lambda x: x.repeat_interleave(repeats, dim=0))

    def reset(self) -> None:
        super().reset()
        self.source = self.weights = None

    def _map_source(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.source = None if self.source is None else [function(x) for x in self.source]


class GridShare(nn.Module):
    """One side's part of a 1x1 convolution over word vectors: [batch, length, embedding] -> [batch, length, width].

    Args:
        axis: where the grid has the other side: 1 for the source, 2 for the target.
        width: None for the normalised vectors themselves.
    """

    def __init__(self, config: PervasiveConfig, axis: int, width: int | None):
        super().__init__()
        self.axis = axis
        self.norm = GridBatchNorm(config.embedding_size) if config.norm == "batch" else None
        self.linear = None if width is None else nn.Linear(config.embedding_size, width, bias=False)

    def forward(self, x: torch.Tensor, cells: torch.Tensor | None) -> torch.Tensor:
        if self.norm is not None:
            x = F.relu(self.norm(x.unsqueeze(self.axis), cells)).squeeze(self.axis)
        return x if self.linear is None else self.linear(x)


class DenseGridLayer(GradientCheckpointingLayer):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, causal convolution, dropout; with norm="layer" another norm and ReLU,
    whose output the later layers read as it is."""

    def __init__(self, config: PervasiveConfig, index: int):
        super().__init__()
        features, width = config.growth_size * index, config.bottleneck_width
        self.dropout = config.hidden_dropout
        self.is_batch = config.norm == "batch"
        self.features = nn.Linear(features, width, bias=False) if features else None
        self.conv = CausalGridConv(width, config.growth_size, config.kernel_size)
        self.features_norm = GridBatchNorm(features) if features and self.is_batch else None
        self.bottleneck_norm: GridBatchNorm | nn.LayerNorm
        if self.is_batch:
            self.bottleneck_norm = GridBatchNorm(width)
        else:
            self.bottleneck_norm = nn.LayerNorm(width)
            self.output_norm = nn.LayerNorm(config.growth_size)

    def forward(
        self,
        features: torch.Tensor | None,
        source_share: torch.Tensor,
        target_share: torch.Tensor,
        mask: torch.Tensor | None,
        cells: torch.Tensor | None,
        resumed: Resumed | None,
        channels: GrowingChannels | None = None,
    ) -> tuple[torch.Tensor, Later | None]:
        """Adds channels.

        Args:
            features: what the layers before made [batch, time, source, growth * layers]; with `channels` their `turn`.
            source_share: [batch, source, bottleneck]; target_share: [batch, time, bottleneck]; see `GridShare`.
            mask: [batch, 1, source, 1], 0 at padding, in the model's dtype, or None.
            cells: [batch, time, source], 1 where a cell counts, for batch statistics.
            resumed: where the convolution goes on.
            channels: in training, where `features` stand.

        Returns:
            (new channels [batch, time, source, growth], of the convolution)
        """
        x = source_share.unsqueeze(1) + target_share.unsqueeze(2)  # [batch, time, source, bottleneck]
        if features is not None and self.features is not None:
            if channels is not None:
                x = channels.add_product(x, self.features.weight, features)
            else:
                if self.features_norm is not None:
                    features = F.relu(self.features_norm(features, cells))
                x = x + self.features(features)
        x = self.bottleneck_norm(x, cells) if self.is_batch else self.bottleneck_norm(x)
        # In place, and masked first: a grid of the bottleneck's width less to write, and one less to keep.
        x = x if mask is None else x.mul_(mask)
        x, later = self.conv(F.relu(x, inplace=True), resumed)
        if not self.is_batch:
            x = F.relu(self.output_norm(x), inplace=True)
        return dropout(x, self.dropout, self.training), later


class DenseGrid(nn.Module):
    """A DenseNet (Huang et al. 2017) as the paper draws it: every layer reads both words and all channels so far."""

    def __init__(self, config: PervasiveConfig):
        super().__init__()
        self.is_batch = config.norm == "batch"
        self.source_norm = self.target_norm = self.final_norm = None
        features = config.growth_size * config.num_hidden_layers
        if self.is_batch:
            self.final_norm = GridBatchNorm(features)
        else:
            self.source_norm = nn.LayerNorm(config.embedding_size)
            self.target_norm = nn.LayerNorm(config.embedding_size)
        # Outside of the layers: the source's are computed once in generate(). The last ones are what is aggregated.
        widths = [config.bottleneck_width] * config.num_hidden_layers + [None]
        self.source_shares = LayerList(GridShare(config, 1, width) for width in widths)
        self.target_shares = LayerList(GridShare(config, 2, width) for width in widths)
        self.layers = LayerList(DenseGridLayer(config, i) for i in range(config.num_hidden_layers))
        self.aggregation = Aggregation(config.aggregation, features)
        self.output_size = features + 2 * config.embedding_size

    def read_source(
        self, source: torch.Tensor, mask: torch.Tensor | None, cells: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """What the layers take from the source [batch, source, embedding]: a share for each, and what is aggregated."""
        source = source if self.source_norm is None else self.source_norm(source)
        return [share(source, cells) for share in self.source_shares]

    @torch.no_grad()
    def step_weights(self) -> StepWeights:
        shares, linear = None, [share.linear for share in self.target_shares if share.linear is not None]
        if not self.is_batch and all(is_plain(layer) for layer in linear):
            shares = torch.cat([layer.weight for layer in linear])
        return StepWeights(step_kernels(layer.conv for layer in self.layers), shares)

    def _grows(self, target: torch.Tensor) -> bool:
        """Whether the layers share a buffer: for plain matrices in one precision, without a compiler."""
        return (
            not self.is_batch
            and not torch.compiler.is_compiling()
            and not torch.is_autocast_enabled(target.device.type)
            and target.dtype == self.layers[0].conv.weight.dtype
            and all(layer.features is None or is_plain(layer.features) for layer in self.layers)
        )

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
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[Later | None]]:
        """Runs over the grid.

        Args:
            source: of `read_source`; target: [batch, time, embedding].
            mask: bool [batch, source] or None; cells: as in `DenseGridLayer`.
            start: the target position of the first row.
            resumed: where each convolution goes on, or None.
            target_shares: of `StepWeights`.

        Returns:
            (aggregated [batch, time, output_size], weights as of `Aggregation`, of each convolution)
        """
        *shares, vectors = source
        keep = None if mask is None else mask[:, None, :, None].to(target.dtype)
        target = target if self.target_norm is None else self.target_norm(target)
        if target_shares is None:
            *of_target, own = (share(target, cells) for share in self.target_shares)
        else:
            of_target = list(F.linear(target, target_shares).chunk(len(self.layers), dim=-1))
            own = self.target_shares[-1](target, cells)
        channels = None
        if self._grows(target):
            shape = (*target.shape[:2], shares[0].shape[1], self.output_size - 2 * target.shape[-1])
            channels = GrowingChannels(shape, target)
        together, later = None, []
        for i, layer in enumerate(self.layers):
            rows = None if resumed is None else resumed[i]
            known = together if channels is None else channels.turn
            new, adds = layer(known, shares[i], of_target[i], keep, cells, rows, channels)
            later.append(adds)
            if channels is not None:
                channels.append(new)
            else:
                together = new if together is None else torch.cat([together, new], dim=-1)
        if channels is not None:
            together = channels.finish()
        if self.final_norm is not None:
            together = F.relu(self.final_norm(together, cells))
        pooled, weights = self.aggregation(together, vectors, mask, wants_weights, own)
        return pooled, weights, later


class ResidualGridLayer(GradientCheckpointingLayer):
    """A depthwise causal convolution and a 1x1 convolution, then a feed-forward network, each added to its input."""

    def __init__(self, config: PervasiveConfig):
        super().__init__()
        width = config.hidden_size
        self.dropout = config.hidden_dropout
        self.conv_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.conv = CausalGridConv(width, width, config.kernel_size, groups=width)
        self.mix = nn.Linear(width, width)
        self.up, self.down = (
            nn.Linear(width, config.intermediate_size),
            nn.Linear(config.intermediate_size, width),
        )

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, resumed: Resumed | None
    ) -> tuple[torch.Tensor, Later | None]:
        """x [batch, time, source, hidden] -> (the same, of the convolution); the rest as in `DenseGridLayer`."""
        read = self.conv_norm(x)
        read = read if mask is None else read * mask
        read, later = self.conv(read, resumed)
        x = x + dropout(self.mix(F.relu(read)), self.dropout, self.training)
        hidden = F.relu(self.up(self.mlp_norm(x)))
        return x + dropout(self.down(hidden), self.dropout, self.training), later


class ResidualGrid(nn.Module):
    """Residual blocks of depthwise convolutions with norms and sinusoidal positions, after the authors' later code."""

    def __init__(self, config: PervasiveConfig):
        super().__init__()
        width = self.output_size = config.hidden_size
        self.source, self.target = (nn.Linear(config.embedding_size, width, bias=False) for _ in range(2))
        self.layers = LayerList(ResidualGridLayer(config) for _ in range(config.num_hidden_layers))
        self.output_norm = nn.LayerNorm(width)
        self.aggregation = Aggregation(config.aggregation, width)

    def step_weights(self) -> StepWeights:
        return StepWeights(step_kernels(layer.conv for layer in self.layers))

    def read_source(
        self, source: torch.Tensor, mask: torch.Tensor | None, cells: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """The source's share of the first cells [batch, source, hidden], positions included."""
        share = self.source(source)
        known = torch.ones(source.shape[:2], device=source.device) if mask is None else mask.float()
        positions = (known.cumsum(1) - 1).clamp(min=0)
        return [share + sinusoids(positions, share.shape[-1], share.dtype)]

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
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[Later | None]]:
        """As `DenseGrid.forward`; the one share of the target is one product as it is."""
        keep = None if mask is None else mask[:, None, :, None].to(target.dtype)
        row = self.target(target)
        positions = torch.arange(start, start + target.shape[1], device=target.device)
        row = row + sinusoids(positions, row.shape[-1], row.dtype)
        x = source[0].unsqueeze(1) + row.unsqueeze(2)  # [batch, time, source, hidden]
        later = []
        for i, layer in enumerate(self.layers):
            x, adds = layer(x, keep, None if resumed is None else resumed[i])
            later.append(adds)
        pooled, weights = self.aggregation(self.output_norm(x), None, mask, wants_weights)
        return pooled, weights, later


Grid = DenseGrid | ResidualGrid | DenseNet2018 | ResNet2020

GRIDS: dict[str, type[Grid]] = {
    "dense": DenseGrid,
    "residual": ResidualGrid,
    "densenet_2018": DenseNet2018,
    "resnet_2020": ResNet2020,
}


def embedding_of(config: PervasiveConfig, rows: int) -> nn.Embedding:
    """A table of word vectors; where the authors' networks are built, the padding's is not trained by what reads it."""
    return nn.Embedding(
        rows, config.embedding_size, padding_idx=config.pad_token_id if config.is_published else None
    )


class PervasivePreTrainedModel(TwoSidedEmbeddings):
    """Initialisation shared by all classes."""

    config_class = PervasiveConfig
    config: PervasiveConfig
    _no_split_modules = ["DenseGridLayer", "ResidualGridLayer", "DenseNet2018Layer", "ResNet2020Layer"]
    _skip_keys_device_placement = ["past_key_values"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        begins = getattr(module, "begins", None)
        if begins is not None:
            begins.draw(module)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, CausalGridConv):
            init.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            is_2018 = self.config.form == "densenet_2018"
            init.normal_(module.weight, std=0.01 if is_2018 else self.config.embedding_size**-0.5)
            padded = module.padding_idx is not None and not is_2018
            if padded and not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, (nn.LayerNorm, GridBatchNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            if isinstance(module, GridBatchNorm):
                init.zeros_(module.running_mean)
                init.ones_(module.running_var)


class PervasiveEncoder(PervasivePreTrainedModel):
    """Embeds the source: all that is done for it alone."""

    supports_gradient_checkpointing = False  # it has no layers

    def __init__(self, config: PervasiveConfig):
        super().__init__(config)
        self.embed_tokens = embedding_of(config, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: object,
    ) -> BaseModelOutput:
        """See `PervasiveModel.forward` for the arguments."""
        refuse_packed_pairs(kwargs, *REFUSES_PACKING)
        x = source_vectors(self.embed_tokens, input_ids, inputs_embeds, attention_mask)
        if self.config.form == "resnet_2020":
            x = scaled_with_positions(x, self.config.first_position, attention_mask)
        x = dropout(x, self.config.embedding_dropout, self.training)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutput(last_hidden_state=x, hidden_states=(x,) if wanted else None)


class PervasiveDecoder(PervasivePreTrainedModel):
    """Embeds the target and runs over the grid."""

    def __init__(self, config: PervasiveConfig):
        super().__init__(config)
        own = not config.share_encoder_decoder_embeddings
        self.embed_tokens = embedding_of(config, config.target_vocab_size) if own else None
        self.grid: Grid = GRIDS[config.form](config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding | None:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value

    @property
    def output_size(self) -> int:
        """Width of what `forward` returns."""
        return self.grid.output_size

    def forward(
        self,
        target: torch.Tensor,
        source: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        cache: GridCache | None = None,
        wants_weights: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """target: word vectors [batch, time, embedding]; source: likewise; the rest as in `PervasiveModel.forward`.

        Returns:
            last hidden state [batch, time, output_size], aggregation weights [batch, time, source time] or None.
        """
        config, grid = self.config, self.grid
        start = 0 if cache is None else cache.seen_tokens
        if config.form == "resnet_2020":
            target = scaled_with_positions(target, config.first_position + start)
        target = dropout(target, config.embedding_dropout, self.training)
        mask = None
        if attention_mask is not None:
            if attention_mask.shape != source.shape[:2]:
                raise ValueError(
                    f"attention_mask must be {list(source.shape[:2])} like the source, not "
                    f"{list(attention_mask.shape)}."
                )
            mask = attention_mask.bool()
            mask = mask | ~mask.any(
                1, keepdim=True
            )  # a row of nothing but padding has no maximum; nobody reads it
            # On a GPU it would wait for the answer, and a graph that is exported holds for every mask.
            if mask.device.type == "cpu" and not torch.compiler.is_compiling() and bool(mask.all()):
                mask = None
        cells = None
        if config.norm == "batch" and config.padding == "masked" and self.training:
            cells = target.new_ones(*target.shape[:2], source.shape[1])
            if mask is not None:
                cells = cells * mask.unsqueeze(1)
            if decoder_attention_mask is not None:
                cells = cells * decoder_attention_mask[:, -target.shape[1] :].unsqueeze(2)
        read = resumed = shares = None
        if cache is not None:
            read = cache.source
            resumed, shares = self._resumed(cache, target)
        if read is None:
            read = grid.read_source(source, mask, cells)
        x, weights, later = grid(read, target, mask, cells, start, resumed, wants_weights, shares)
        if cache is not None:
            cache.source = read
            history = list(zip(*later, strict=True))  # by time, all layers
            cache.layers[0].update(history[-1], history if cache.is_recording else None)
            cache.seen_tokens += target.shape[1]
        return x, weights

    def _resumed(self, cache: GridCache, target: torch.Tensor) -> tuple[list[Resumed], torch.Tensor | None]:
        """Where each convolution goes on, and of `StepWeights` those of the target."""
        layers = len(self.grid.layers)
        pending = cache.layers[0].states or [None] * layers
        kernels: list[torch.Tensor | None] = [None] * layers
        shares = None
        # A translation takes many steps, one row each, of weights that stay as they are.
        if target.shape[1] == 1 and not (
            torch.is_grad_enabled() or torch.is_autocast_enabled(target.device.type)
        ):
            cache.weights = cache.weights or self.grid.step_weights()
            kernels, shares = cache.weights.kernels, cache.weights.target_shares
        each = cache.is_recording
        return [Resumed(p, kernel, each) for p, kernel in zip(pending, kernels, strict=True)], shares


class PervasiveModel(PervasivePreTrainedModel):
    """The grid without an output layer."""

    def __init__(self, config: PervasiveConfig):
        super().__init__(config)
        self.encoder = PervasiveEncoder(config)
        self.decoder = PervasiveDecoder(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: object,
    ) -> Seq2SeqModelOutput:
        """Reads source and target together.

        Args:
            input_ids: [batch, source time], or inputs_embeds [batch, source time, embedding_size].
            attention_mask: [batch, source time], 0 at padding, on whichever side.
            decoder_input_ids: [batch, time], beginning with decoder_start_token_id, or decoder_inputs_embeds.
            decoder_attention_mask: [batch, time], 0 at padding, on the right: it changes nothing but the batch
                statistics of norm="batch".
            encoder_outputs: what the encoder returned for this source, in place of input_ids.
            past_key_values: a `GridCache` of earlier steps.
            use_cache: return a cache; by default where the model is not in training.
            output_hidden_states: also return what has one vector per word: both sides' word vectors, and of the target
                the aggregated cells.
            output_attentions: also return what each source position contributed, as of one head.

        Returns:
            last_hidden_state [batch, time, decoder.output_size]; past_key_values; encoder_last_hidden_state, the
            source's word vectors; where asked hidden states of both sides and cross_attentions, one [batch, 1, time,
            source time] (with a maximum the share of channels that a source position wins).
        """
        refuse_packed_pairs(kwargs, *REFUSES_PACKING)
        config = self.config
        check_one_source(input_ids, inputs_embeds, encoder_outputs)
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                return_dict=True,
            )
        embedding = self.decoder.embed_tokens or self.encoder.embed_tokens
        target = target_vectors(embedding, decoder_input_ids, decoder_inputs_embeds)
        source = encoder_outputs.last_hidden_state
        check_as_many(source, target)
        if use_cache is None:
            use_cache = config.use_cache and not self.training
        if past_key_values is None:
            past_key_values = GridCache() if use_cache else None
        elif not getattr(past_key_values, "is_grid_cache", False):
            raise TypeError(
                f"past_key_values must be a GridCache, not {type(past_key_values).__name__}: use GridCache(), or leave "
                "it out."
            )
        if past_key_values is not None and self.training and config.norm == "batch":
            raise ValueError(
                "norm 'batch' has statistics of whole batches in training: use_cache must be false."
            )
        wanted = config.output_attentions if output_attentions is None else output_attentions
        wants_states = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        x, weights = self.decoder(
            target, source, attention_mask, decoder_attention_mask, past_key_values, bool(wanted)
        )
        return Seq2SeqModelOutput(
            last_hidden_state=x,
            past_key_values=past_key_values if use_cache else None,
            decoder_hidden_states=(target, x) if wants_states else None,
            cross_attentions=(weights.unsqueeze(1),) if wanted else None,
            encoder_last_hidden_state=source,
            encoder_hidden_states=(source,) if wants_states else None,
        )


class PervasiveForSeq2SeqLM(PervasivePreTrainedModel, Seq2SeqGenerationMixin):
    """`PervasiveModel` with its output layer."""

    cache_in_words = "a grid: its cache is a few rows of each layer, of constant size"

    def __init__(self, config: PervasiveConfig):
        super().__init__(config)
        side = "encoder" if config.share_encoder_decoder_embeddings else "decoder"
        self._tied_weights_keys = {"lm_head.weight": f"model.{side}.embed_tokens.weight"}
        self.model = PervasiveModel(config)
        self.projection = nn.Linear(self.model.decoder.output_size, config.embedding_size)
        grid = self.model.decoder.grid
        if isinstance(grid, PublishedGrid):
            grid.projection_begins().of(self.projection)
        self.lm_head = nn.Linear(config.embedding_size, config.target_vocab_size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        logits_to_keep: int = 0,
        **kwargs: object,
    ) -> Seq2SeqLMOutput:
        """See `PervasiveModel.forward` for the arguments not listed.

        Args:
            labels: [batch, time], the target and its end token, -100 where it does not count. Without decoder_input_ids
                these are made of them.
            num_items_in_batch: what the summed loss is divided by; by default this batch's labels.
            logits_to_keep: compute logits only for the last positions; 0 for all.

        Returns:
            loss; logits [batch, time, vocabulary] (None in training with labels); and what the base model returns.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            refuse_packed_pairs(kwargs, *REFUSES_PACKING)
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if labels is not None and use_cache is None:
            use_cache = False
        if labels is not None and decoder_attention_mask is None and self.config.norm == "batch":
            decoder_attention_mask = labels != IGNORE_INDEX  # padding stays out of the batch's statistics
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )
        hidden, config = outputs.last_hidden_state, self.config  # [batch, time, output_size]
        if config.is_published:
            hidden = dropout(self.projection(hidden), config.output_dropout, self.training)
        else:
            hidden = self.projection(dropout(hidden, config.output_dropout, self.training))
        return self.language_model_output(outputs, hidden, labels, num_items_in_batch, logits_to_keep)

    def new_cache(self) -> GridCache:
        return GridCache(fixed_source=True)


# What each class is registered and exported as: {config: {Auto class: class}}.
AUTO_CLASSES = {
    PervasiveConfig: {"AutoModel": PervasiveModel, "AutoModelForSeq2SeqLM": PervasiveForSeq2SeqLM},
}

__all__ = ["PervasivePreTrainedModel", "PervasiveModel", "PervasiveForSeq2SeqLM"]
