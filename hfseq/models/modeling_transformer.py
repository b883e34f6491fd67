"""The encoder-decoder Transformer (Vaswani et al. 2017).

Its default is the paper's: post-norm, sinusoidal positions, scaled and shared embeddings, ReLU. Weights go to and from
`MarianMTModel` with equal logits (`hfseq/convert/marian.py`). Where its time goes, and what is done about it:

- The logits of a training batch are its largest tensor; the loss never keeps them (`losses.py`).
- Causal attention over a target without padding inside it needs no mask: padding on the right is never attended to by a
  token before it, and its own outputs carry no label.
- While decoding, the source's keys and values are projected once (`EncoderDecoderCache`) and never moved for beam
  search (`SourceCache`), and a single new token takes a short way through the layers (`TransformerDecoder.step`).
- Several pairs in one row do not see each other, and cost only their own length (`attention.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, EncoderDecoderCache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.utils import can_return_tuple

from .attention import Angles, Packed, Segments, find_packed, rotary_angles, rotate
from .attention_layer import (
    AttentionContext,
    AttentionLayer,
    Mask,
    attends_by_segment,
    flash_options,
    keeping_weights,
)
from .caches import SourceCache
from .configuration_transformer import TransformerConfig
from .dropout import dropout
from .feed_forward import FeedForward
from .layer_list import LayerList
from .losses import IGNORE_INDEX, cross_entropy
from .plain_layers import is_plain
from .seq2seq import (
    Seq2SeqGenerationMixin,
    TwoSidedEmbeddings,
    check_as_many,
    check_one_source,
    check_source_mask,
    source_vectors,
    target_vectors,
)


class TransformerAttention(AttentionLayer):
    """Attention of a sequence to itself, or of the target to the source."""

    def __init__(self, config: TransformerConfig, heads: int, layer: int, causal: bool = False):
        super().__init__(config, config.d_model, heads, dropout=config.attention_dropout, causal=causal)
        self.layer = layer

    def forward(
        self, x: torch.Tensor, context: AttentionContext, cache: Cache | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Self-attention, x [batch, time, d_model] -> ([batch, time, d_model], weights or None)."""
        q, k, v = (self.split(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        if context.angles is not None:
            q, k = rotate(q, context.angles), rotate(k, context.angles)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        return self.attend(q, k, v, context)

    def to_source(
        self,
        x: torch.Tensor,
        source: torch.Tensor,
        context: AttentionContext,
        cache: EncoderDecoderCache | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Cross-attention of x [batch, time, d_model] to the source [batch, source time, d_model]."""
        q = self.split(self.q_proj(x))
        if cache is not None and cache.is_updated.get(self.layer):
            kept = cache.cross_attention_cache.layers[self.layer]
            k, v = kept.keys, kept.values
        else:
            k, v = self.split(self.k_proj(source)), self.split(self.v_proj(source))
            if cache is not None:
                k, v = cache.cross_attention_cache.update(k, v, self.layer)
                cache.is_updated[self.layer] = True
        return self.attend(q, k, v, context)

    def fused(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Weight and bias of query, key and value in one; None where these are not plain layers (adapters, hooks)."""
        layers = self.q_proj, self.k_proj, self.v_proj
        if not all(is_plain(layer) for layer in layers):
            return None
        return torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])

    def step(
        self,
        x: torch.Tensor,
        cache: CacheLayerMixin,
        angles: Angles | None,
        fused: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Self-attention of one new token per row, x [batch, d_model] -> the same; see `TransformerDecoder.step`."""
        parts: tuple[torch.Tensor, ...]
        if fused is None:
            parts = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        else:
            parts = F.linear(x, *fused).chunk(3, dim=1)
        q, k, v = (part.view(x.shape[0], self.heads, 1, -1) for part in parts)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        k, v = cache.update(k, v)
        output = F.scaled_dot_product_attention(q, k, v, scale=self.scaling)
        return self.o_proj(output.reshape(x.shape))

    def step_to_source(
        self, x: torch.Tensor, cache: CacheLayerMixin, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Cross-attention of one new token per row to the source in the cache, x [batch, d_model] -> the same."""
        q = self.q_proj(x).view(x.shape[0], self.heads, 1, -1)
        output = F.scaled_dot_product_attention(q, cache.keys, cache.values, mask, scale=self.scaling)
        return self.o_proj(output.reshape(x.shape))


class Residual(nn.Module):
    """x and a sublayer's output together: dropout, sum and layer norm, in the order that the config says."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.pre_norm = config.pre_norm
        self.dropout = config.dropout
        self.norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)

    def enter(self, x: torch.Tensor) -> torch.Tensor:
        """What the sublayer reads."""
        return self.norm(x) if self.pre_norm else x

    def leave(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """What the next sublayer is given."""
        x = x + dropout(output, self.dropout, self.training)
        return x if self.pre_norm else self.norm(x)


def feed_forward(config: TransformerConfig, inner: int) -> FeedForward:
    return FeedForward(
        config.d_model,
        inner,
        config.activation_function,
        gated=config.gated_mlp,
        dropout=config.activation_dropout,
    )


class TransformerEncoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.attention = TransformerAttention(config, config.encoder_attention_heads, layer)
        self.attention_residual = Residual(config)
        self.mlp = feed_forward(config, config.encoder_ffn_dim)
        self.mlp_residual = Residual(config)

    def forward(self, x: torch.Tensor, context: AttentionContext) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [batch, time, d_model] -> (the same, attention weights or None)."""
        attended, weights = self.attention(self.attention_residual.enter(x), context)
        x = self.attention_residual.leave(x, attended)
        return self.mlp_residual.leave(x, self.mlp(self.mlp_residual.enter(x))), weights


class TransformerDecoderLayer(GradientCheckpointingLayer):
    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        heads = config.decoder_attention_heads
        self.attention = TransformerAttention(config, heads, layer, causal=True)
        self.attention_residual = Residual(config)
        self.cross_attention = TransformerAttention(config, heads, layer)
        self.cross_attention_residual = Residual(config)
        self.mlp = feed_forward(config, config.decoder_ffn_dim)
        self.mlp_residual = Residual(config)

    def forward(
        self,
        x: torch.Tensor,
        source: torch.Tensor,
        context: AttentionContext,
        cross_context: AttentionContext,
        cache: EncoderDecoderCache | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """x [batch, time, d_model], source [batch, source time, d_model] -> (like x, weights, cross weights)."""
        kept = None if cache is None else cache.self_attention_cache
        attended, weights = self.attention(self.attention_residual.enter(x), context, kept)
        x = self.attention_residual.leave(x, attended)
        attended, cross_weights = self.cross_attention.to_source(
            self.cross_attention_residual.enter(x), source, cross_context, cache
        )
        x = self.cross_attention_residual.leave(x, attended)
        return self.mlp_residual.leave(x, self.mlp(self.mlp_residual.enter(x))), weights, cross_weights

    def step(
        self,
        x: torch.Tensor,
        kept: CacheLayerMixin,
        cross: CacheLayerMixin,
        mask: torch.Tensor | None,
        angles: Angles | None,
        fused: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        """One new token per row in evaluation, x [batch, d_model] -> the same; see `TransformerDecoder.step`."""
        residual = self.attention_residual
        x = residual.leave(x, self.attention.step(residual.enter(x), kept, angles, fused))
        residual = self.cross_attention_residual
        x = residual.leave(x, self.cross_attention.step_to_source(residual.enter(x), cross, mask))
        residual = self.mlp_residual
        return residual.leave(x, self.mlp(residual.enter(x)))


class SinusoidalPositions(nn.Module):
    """The paper's positions, as a table [positions, width] that is no parameter and is not saved."""

    table: torch.Tensor

    def __init__(self, positions: int, width: int, interleaved: bool):
        super().__init__()
        self.interleaved = interleaved
        self.register_buffer("table", torch.empty(positions, width), persistent=False)
        self.fill()

    @torch.no_grad()
    def fill(self) -> None:
        """(Re)computes the table: after loading on the meta device there are no numbers in it."""
        positions, width = self.table.shape
        if self.table.is_meta:
            return
        frequencies = 10000.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        places = torch.arange(positions, dtype=torch.float64).unsqueeze(1)
        angles = places * frequencies  # [positions, width / 2]
        pair = (angles.sin(), angles.cos())
        table = torch.stack(pair, dim=2).flatten(1) if self.interleaved else torch.cat(pair, dim=1)
        # Through float32 whatever the model's type: a model that is cast has the table of one that is loaded so.
        init.copy_(self.table, table.float().to(self.table))


class TransformerPreTrainedModel(TwoSidedEmbeddings):
    """Initialisation shared by all classes."""

    config_class = TransformerConfig
    config: TransformerConfig
    _no_split_modules = ["TransformerEncoderLayer", "TransformerDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.init_std
        if isinstance(module, nn.Linear):
            if std is None:
                init.xavier_uniform_(module.weight)
            else:
                init.normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.d_model**-0.5 if std is None else std)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, SinusoidalPositions):
            module.fill()


class TransformerStack(TransformerPreTrainedModel):
    """What encoder and decoder share: embedding, positions, dropout."""

    embed_tokens: nn.Embedding | None

    def get_input_embeddings(self) -> nn.Embedding | None:
        return self.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embed_tokens = value

    def _build_positions(self, config: TransformerConfig) -> None:
        kind = config.position_embedding_type
        self.embed_positions: nn.Embedding | SinusoidalPositions | None = None
        if kind == "learned":
            self.embed_positions = nn.Embedding(config.max_position_embeddings, config.d_model)
        elif kind == "sinusoidal":
            size = config.max_position_embeddings, config.d_model
            self.embed_positions = SinusoidalPositions(*size, config.interleaved_positions)
        self.embed_scale = config.d_model**0.5 if config.scale_embedding else 1.0

    def _embed(self, x: torch.Tensor, first: int, position_ids: torch.Tensor | None) -> torch.Tensor:
        """Word vectors [batch, time, d_model], the first of them at position `first` -> the first layer's input."""
        x = x * self.embed_scale
        if self.embed_positions is not None:
            x = x + self._positions(self.embed_positions, first, x.shape[1], position_ids).to(x.dtype)
        return dropout(x, self.config.dropout, self.training)

    def _positions(
        self,
        positions: nn.Embedding | SinusoidalPositions,
        first: int,
        time: int,
        position_ids: torch.Tensor | None,
    ) -> torch.Tensor:
        """Vectors of the given positions, or of `time` positions from `first` on: [batch or nothing, time, d_model]."""
        if isinstance(positions, SinusoidalPositions):
            table = positions.table
        elif is_plain(positions, nn.Embedding):
            table = positions.weight
        else:
            if position_ids is None:
                position_ids = torch.arange(first, first + time, device=self.device).unsqueeze(0)
            return positions(position_ids)
        return table[first : first + time] if position_ids is None else F.embedding(position_ids, table)

    def _angles(
        self, x: torch.Tensor, first: int, position_ids: torch.Tensor | None, heads: int
    ) -> Angles | None:
        if self.config.position_embedding_type != "rotary":
            return None
        if position_ids is None:
            position_ids = torch.arange(first, first + x.shape[1], device=x.device).unsqueeze(0)
        return rotary_angles(position_ids, self.config.d_model // heads, self.config.rope_theta, x.dtype)

    def _check_length(self, side: str, length: int) -> None:
        if length == 0:
            raise ValueError(f"The {side} has no time steps: every row needs at least one token.")
        if length > self.config.max_position_embeddings:
            raise ValueError(
                f"The {side} has {length} positions, the model only {self.config.max_position_embeddings} "
                "(max_position_embeddings): truncate it in the tokenizer (truncation=True, max_length=...), split it "
                "into sentences, or train with more positions."
            )

    def _packed_context(
        self,
        config: TransformerConfig,
        borders: Segments | None,
        mask: Callable[[], Mask],
        angles: Angles | None = None,
    ) -> AttentionContext:
        """Attention within segments: by their borders where there are any, else under what `mask()` returns."""
        context = AttentionContext(angles=angles, implementation=config._attn_implementation)
        if borders is None:
            return replace(context, mask=mask())
        if "flash" in config._attn_implementation:
            return replace(context, options=flash_options(borders))
        return replace(context, segments=borders)

    def _uses_borders(self, config: TransformerConfig, x: torch.Tensor, packed: Packed) -> bool:
        drops = config.attention_dropout if self.training else 0.0
        return "flash" in config._attn_implementation or attends_by_segment(config, x, packed, drops)


def positions_from(attention_mask: torch.Tensor | None, time: int) -> torch.Tensor | None:
    """Positions of the last `time` columns [batch, time], counted from each row's first token, wherever that is."""
    if attention_mask is None or attention_mask.ndim != 2:
        return None
    return (attention_mask != 0).cumsum(1).sub(1).clamp(min=0)[:, -time:]


class TransformerEncoder(TransformerStack):
    """Embeds and encodes the source."""

    embed_tokens: nn.Embedding

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self._build_positions(config)
        self.layers = LayerList(TransformerEncoderLayer(config, i) for i in range(config.encoder_layers))
        self.final_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps) if config.pre_norm else None
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        packed: Packed | None = None,
        **kwargs: object,
    ) -> BaseModelOutput:
        """Encodes the source; see `TransformerModel.forward` for the arguments."""
        of_tokens = (
            attention_mask is not None and attention_mask.ndim == 2
        )  # else one of transformers' own masks
        x = source_vectors(self.embed_tokens, input_ids, inputs_embeds, attention_mask if of_tokens else None)
        batch, time = x.shape[:2]
        self._check_length("source", time if packed is None else 1)
        if packed is None:
            packed = find_packed(attention_mask, position_ids, None, None, None, batch, time)
        if packed is not None:
            position_ids = packed.position_ids
        elif position_ids is None:
            position_ids = positions_from(attention_mask, time)
        x = self._embed(x, 0, position_ids)
        angles = self._angles(x, 0, position_ids, self.config.encoder_attention_heads)
        wants_states, wants_weights = wanted(self.config, output_hidden_states, output_attentions)
        config = keeping_weights(self.config) if wants_weights else self.config
        if packed is None:
            mask = create_bidirectional_mask(config=config, inputs_embeds=x, attention_mask=attention_mask)
            context = AttentionContext(mask, angles=angles, implementation=config._attn_implementation)
        else:
            borders = packed.segments if self._uses_borders(config, x, packed) else None
            context = self._packed_context(
                config, borders, lambda: within_segments(config, x, packed), angles
            )
        states, attentions = [x], []
        for layer in self.layers:
            x, weights = layer(x, context)
            states.append(x)
            attentions.append(weights)
        if self.final_norm is not None:
            x = states[-1] = self.final_norm(x)
        return BaseModelOutput(
            last_hidden_state=x,
            hidden_states=tuple(states) if wants_states else None,
            attentions=tuple(attentions) if wants_weights else None,
        )


def wanted(
    config: TransformerConfig, hidden_states: bool | None, attentions: bool | None
) -> tuple[bool, bool]:
    """Whether to return hidden states and attention weights."""
    hidden_states = config.output_hidden_states if hidden_states is None else hidden_states
    attentions = config.output_attentions if attentions is None else attentions
    return hidden_states, attentions


def within_segments(
    config: TransformerConfig,
    x: torch.Tensor,
    packed: Packed,
    source: Packed | None = None,
    states: torch.Tensor | None = None,
) -> Mask:
    """The mask under which a position sees the segment of its own number: in its row, or in the source's.

    Args:
        x: [batch, time, d_model], for its sizes; states: the source's [batch, source time, d_model],
            for cross-attention.
        packed: of the queries; source: of the keys, where those are others.
    """
    queries = packed.numbers  # [batch, time]
    keys = queries if source is None else source.numbers

    def same_segment(b, head, q, k):
        return queries[b, q] == keys[b, k]

    return create_bidirectional_mask(
        config=config,
        inputs_embeds=x,
        attention_mask=None,
        encoder_hidden_states=states,
        and_mask_function=same_segment,
    )


class TransformerDecoder(TransformerStack):
    """Embeds the target and decodes it, reading the encoded source."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        own = not config.share_encoder_decoder_embeddings
        self.embed_tokens = nn.Embedding(config.target_vocab_size, config.d_model) if own else None
        self._build_positions(config)
        self.layers = LayerList(TransformerDecoderLayer(config, i) for i in range(config.decoder_layers))
        self.final_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps) if config.pre_norm else None
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        x: torch.Tensor,
        source: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        packed: Packed | None = None,
        source_packed: Packed | None = None,
        options: dict | None = None,
        wants_weights: bool = False,
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor | None], list[torch.Tensor | None]]:
        """x: target word vectors [batch, time, d_model]; the rest as in `TransformerModel.forward`.

        Returns:
            last hidden state, hidden states, attention weights, cross-attention weights.
        """
        time = x.shape[1]
        seen = 0 if cache is None else cache.get_seq_length()
        self._check_length("target", seen + time if packed is None else 1)
        if decoder_attention_mask is not None and decoder_attention_mask.ndim == 2:
            expected = (x.shape[0], seen + time)
            if decoder_attention_mask.shape != expected:
                raise ValueError(
                    f"decoder_attention_mask must be {list(expected)}, the tokens in the cache included, not "
                    f"{list(decoder_attention_mask.shape)}."
                )
        if packed is not None:
            position_ids = packed.position_ids
        elif position_ids is None:
            position_ids = positions_from(decoder_attention_mask, time)
        x = self._embed(x, seen, position_ids)
        angles = self._angles(x, seen, position_ids, self.config.decoder_attention_heads)
        config = keeping_weights(self.config) if wants_weights else self.config
        if packed is None or source_packed is None:  # both or neither: `TransformerModel._packed`
            context = AttentionContext(
                self._causal_mask(config, x, decoder_attention_mask, cache, seen),
                angles=angles,
                implementation=config._attn_implementation,
            )
            cross_context = AttentionContext(
                self._source_mask(config, x, source, attention_mask),
                implementation=config._attn_implementation,
            )
        else:
            context, cross_context = self._packed_contexts(config, x, source, packed, source_packed, angles)
        if options:
            context, cross_context = (
                replace(c, options={**(c.options or {}), **options}) for c in (context, cross_context)
            )
        states, attentions, cross_attentions = [x], [], []
        for layer in self.layers:
            x, weights, cross_weights = layer(x, source, context, cross_context, cache)
            states.append(x)
            attentions.append(weights)
            cross_attentions.append(cross_weights)
        if self.final_norm is not None:
            x = states[-1] = self.final_norm(x)
        return x, states, attentions, cross_attentions

    def can_step(
        self, time: int, decoder_attention_mask: torch.Tensor | None, cache: EncoderDecoderCache | None
    ) -> bool:
        """Whether `step` computes what `forward` would: one new token, all before it and the source in the cache."""
        return (
            time == 1
            and cache is not None
            and decoder_attention_mask is None
            and not torch.is_grad_enabled()
            and not self.training
            and self.config._attn_implementation == "sdpa"
            and len(cache.is_updated) == len(self.layers)
            and all(cache.is_updated.values())
            and not torch.compiler.is_compiling()
        )

    def step(
        self,
        x: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.LongTensor | None,
        cache: EncoderDecoderCache,
    ) -> torch.Tensor:
        """`forward` for one new token per row while decoding, without whatever a single token has no need of.

        A step of a small model is mostly the way to its matrix products: contexts, masks, the choice of a kernel,
        transposed views. Without them generate() is faster by a third (scripts/benchmark.py transformer).

        Args:
            x: word vectors [batch, 1, d_model].

        Returns:
            last hidden state [batch, 1, d_model].
        """
        seen = cache.get_seq_length()
        self._check_length("target", seen + 1)
        x = self._embed(x, seen, position_ids)
        angles = self._angles(x, seen, position_ids, self.config.decoder_attention_heads)
        mask = None if attention_mask is None else (attention_mask != 0)[:, None, None, :]
        x = x.squeeze(1)
        # Of the same weights as the keys in the cache, and so kept with them.
        if (weights := getattr(cache, "fused_projections", None)) is None:
            weights = cache.fused_projections = [layer.attention.fused() for layer in self.layers]
        caches = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
        for layer, kept, cross, fused in zip(self.layers, *caches, weights, strict=True):
            x = layer.step(x, kept, cross, mask, angles, fused)
        return (x if self.final_norm is None else self.final_norm(x)).unsqueeze(1)

    def _causal_mask(
        self,
        config: TransformerConfig,
        x: torch.Tensor,
        mask: torch.Tensor | None,
        cache: EncoderDecoderCache | None,
        seen: int,
    ) -> Mask:
        if config._attn_implementation == "sdpa" and mask is None and (x.shape[1] == 1 or not seen):
            return (
                None  # one token sees all before it; a target from its start is causal by the kernel's flag
            )
        return create_causal_mask(
            config=config,
            inputs_embeds=x,
            attention_mask=mask,
            past_key_values=None if cache is None else cache.self_attention_cache,
        )

    def _source_mask(
        self, config: TransformerConfig, x: torch.Tensor, source: torch.Tensor, mask: torch.Tensor | None
    ) -> Mask:
        if mask is None:
            return None
        if config._attn_implementation == "sdpa" and mask.ndim == 2:
            return (mask != 0)[:, None, None, :]  # at each step of decoding: nothing but a view
        return create_bidirectional_mask(
            config=config, inputs_embeds=x, attention_mask=mask, encoder_hidden_states=source
        )

    def _packed_contexts(
        self,
        config: TransformerConfig,
        x: torch.Tensor,
        source: torch.Tensor,
        packed: Packed,
        source_packed: Packed,
        angles: Angles | None,
    ) -> tuple[AttentionContext, AttentionContext]:
        targets = sources = cross = None
        if self._uses_borders(config, x, packed):
            targets, sources = packed.segments, source_packed.segments
            if len(targets.queries) != len(sources.queries):
                raise ValueError(
                    f"The sources have {len(sources.queries) - 1} packed segments, the targets "
                    f"{len(targets.queries) - 1}: segment k of the one belongs to segment k of the other."
                )
            longest = targets.longest_query, sources.longest_key
            cross = Segments(targets.queries, sources.keys, *longest)

        def causal_mask():
            numbers = packed.numbers

            def same_segment(b, head, q, k):
                return numbers[b, q] == numbers[b, k]

            return create_causal_mask(
                config=config,
                inputs_embeds=x,
                attention_mask=None,
                past_key_values=None,
                and_mask_function=same_segment,
            )

        def cross_mask():
            return within_segments(config, x, packed, source_packed, source)

        return (
            self._packed_context(config, targets, causal_mask, angles),
            self._packed_context(config, cross, cross_mask),
        )


class TransformerModel(TransformerPreTrainedModel):
    """Encoder and decoder, without an output layer."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.encoder = TransformerEncoder(config)
        self.decoder = TransformerDecoder(config)
        self.post_init()

    @property
    def target_embedding(self) -> nn.Embedding:
        """The embedding of target tokens; the source's, where they share it."""
        return self.encoder.embed_tokens if self.decoder.embed_tokens is None else self.decoder.embed_tokens

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        cu_seq_lens: torch.Tensor | None = None,
        decoder_cu_seq_lens: torch.Tensor | None = None,
        max_length: int | None = None,
        decoder_max_length: int | None = None,
        **kwargs: object,
    ) -> Seq2SeqModelOutput:
        """Encodes the source and decodes the target.

        Args:
            input_ids: [batch, source time], or inputs_embeds [batch, source time, d_model] (not yet scaled).
            attention_mask: [batch, source time], 0 at padding, on whichever side.
            decoder_input_ids: [batch, time], beginning with decoder_start_token_id, or decoder_inputs_embeds.
            decoder_attention_mask: [batch, tokens in the cache + time], 0 at padding. Not needed for padding on the
                right, whose outputs nobody reads.
            position_ids, decoder_position_ids: positions in the source and in the target; without them they are counted
                from each row's first token. Without masks, and without a cache, a position that does not go on from
                its left neighbour begins a new packed segment; segments see neither each other nor each other's source.
            encoder_outputs: an encoded source, in place of input_ids.
            past_key_values: an `EncoderDecoderCache` of earlier steps.
            use_cache: return a cache; by default where the model is not in training.
            output_hidden_states, output_attentions: also return them; attention weights are computed eagerly.
            cu_seq_lens, decoder_cu_seq_lens: borders int32 [n + 1] of packed segments in the rows laid one after the
                other, of sources and of targets; equally many, segment k of the one belongs to segment k of the other,
                and none crosses a row. max_length, decoder_max_length: lengths of the longest.

        Returns:
            last_hidden_state [batch, time, d_model]; past_key_values; encoder_last_hidden_state; hidden states and
            attention weights of both sides where asked.
        """
        foreign = [name for name in ("cu_seq_lens_q", "seq_idx") if kwargs.get(name) is not None]
        if foreign:
            raise ValueError(
                f"{foreign[0]} packs one kind of sequence, here there are two: pack sources and targets by cu_seq_lens "
                "and decoder_cu_seq_lens, or by position_ids and decoder_position_ids."
            )
        check_one_source(input_ids, inputs_embeds, encoder_outputs)
        target = target_vectors(self.target_embedding, decoder_input_ids, decoder_inputs_embeds)
        wants_states, wants_weights = wanted(self.config, output_hidden_states, output_attentions)
        if use_cache is None:
            use_cache = self.config.use_cache and not self.training
        packs = (position_ids, decoder_position_ids, cu_seq_lens, decoder_cu_seq_lens)
        source_packed = packed = None
        if encoder_outputs is None and past_key_values is None and any(t is not None for t in packs):
            source_packed, packed = self._packed(
                input_ids if inputs_embeds is None else inputs_embeds,
                target,
                attention_mask,
                decoder_attention_mask,
                (position_ids, cu_seq_lens, max_length),
                (decoder_position_ids, decoder_cu_seq_lens, decoder_max_length),
            )
            use_cache = use_cache and packed is None
        if encoder_outputs is None:
            encoded = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                inputs_embeds=inputs_embeds,
                output_hidden_states=wants_states,
                output_attentions=wants_weights,
                packed=source_packed,
                return_dict=True,
            )
        elif isinstance(encoder_outputs, BaseModelOutput):
            encoded = encoder_outputs
        else:
            encoded = BaseModelOutput(*encoder_outputs)
        source = encoded.last_hidden_state
        check_as_many(source, target)
        check_source_mask(attention_mask, source)
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if not (wants_states or wants_weights) and self.decoder.can_step(
            target.shape[1], decoder_attention_mask, past_key_values
        ):
            x = self.decoder.step(target, attention_mask, decoder_position_ids, past_key_values)
            return Seq2SeqModelOutput(
                last_hidden_state=x, past_key_values=past_key_values, encoder_last_hidden_state=source
            )
        x, states, attentions, cross_attentions = self.decoder(
            target,
            source,
            attention_mask,
            decoder_attention_mask,
            decoder_position_ids,
            past_key_values,
            packed,
            source_packed,
            wants_weights=wants_weights,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=x,
            past_key_values=past_key_values,
            decoder_hidden_states=tuple(states) if wants_states else None,
            decoder_attentions=tuple(attentions) if wants_weights else None,
            cross_attentions=tuple(cross_attentions) if wants_weights else None,
            encoder_last_hidden_state=source,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )

    @staticmethod
    def _packed(source, target, source_mask, target_mask, source_borders, target_borders):
        """(packed segments of the sources, of the targets), both or neither."""
        positions, borders, longest = source_borders
        source_packed = find_packed(source_mask, positions, borders, longest, None, *source.shape[:2])
        positions, borders, longest = target_borders
        packed = find_packed(target_mask, positions, borders, longest, None, *target.shape[:2])
        if (source_packed is None) != (packed is None):
            given, missing = ("targets", "sources") if source_packed is None else ("sources", "targets")
            raise ValueError(
                f"The {given} are packed, the {missing} are not: give position_ids and decoder_position_ids, or "
                "cu_seq_lens and decoder_cu_seq_lens, and no attention masks."
            )
        return source_packed, packed


class TransformerForSeq2SeqLM(TransformerPreTrainedModel, Seq2SeqGenerationMixin):
    """The Transformer with its output layer: translation, and whatever else turns one sequence into another."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        shared = config.share_encoder_decoder_embeddings
        side = "encoder" if shared else "decoder"
        self._tied_weights_keys = {"lm_head.weight": f"model.{side}.embed_tokens.weight"}
        self.model = TransformerModel(config)
        self.lm_head = nn.Linear(config.d_model, config.target_vocab_size, bias=config.output_bias)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        decoder_position_ids: torch.LongTensor | None = None,
        encoder_outputs: BaseModelOutput | tuple | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        decoder_inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        logits_to_keep: int = 0,
        **kwargs: object,
    ) -> Seq2SeqLMOutput:
        """See `TransformerModel.forward` for the arguments not listed.

        Args:
            labels: [batch, time], the target and its end token, -100 where it does not count. Without decoder_input_ids
                these are made of them; for packed rows they must be given.
            num_items_in_batch: what the summed loss is divided by; by default this batch's labels.
            logits_to_keep: compute logits only for the last positions; 0 for all.

        Returns:
            loss; logits [batch, time, vocabulary] (None in training with labels); and what `TransformerModel` returns.
        """
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            if decoder_position_ids is not None or kwargs.get("decoder_cu_seq_lens") is not None:
                raise ValueError(
                    "Packed rows need decoder_input_ids: labels alone do not say where a target begins."
                )
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if labels is not None and use_cache is None:
            use_cache = False
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "decoder_input_ids": decoder_input_ids,
            "decoder_attention_mask": decoder_attention_mask,
            "position_ids": position_ids,
            "decoder_position_ids": decoder_position_ids,
            "encoder_outputs": encoder_outputs,
            "past_key_values": past_key_values,
            "inputs_embeds": inputs_embeds,
            "decoder_inputs_embeds": decoder_inputs_embeds,
            "use_cache": use_cache,
            "return_dict": True,
            **kwargs,
        }
        outputs = self.model(**inputs)
        r_drop = functools.partial(self._r_drop_loss, inputs) if self.config.r_drop else None
        return self.language_model_output(
            outputs, outputs.last_hidden_state, labels, num_items_in_batch, logits_to_keep, r_drop
        )

    def _prepare_cache_for_generation(self, generation_config, model_kwargs, *args, **kwargs):
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)
        cache = model_kwargs.get("past_key_values")
        if not isinstance(cache, EncoderDecoderCache):
            return
        kept = cache.cross_attention_cache
        if type(kept) is DynamicCache and not kept.get_seq_length():
            cache.cross_attention_cache = SourceCache()

    def _r_drop_loss(self, inputs: dict, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Summed, label-smoothed loss of two passes, and how far they are apart (R-Drop, Liang et al. 2021)."""
        config, head, flat = self.config, self.lm_head, labels.flatten()
        again = self.model(**inputs).last_hidden_state  # other dropout
        counted = flat != IGNORE_INDEX
        flat = flat[counted]
        first, second = (head(x.flatten(0, 1)[counted]) for x in (hidden, again))  # [labels, vocabulary]
        loss = (cross_entropy(x, flat, config.label_smoothing) for x in (first, second))
        wide = torch.float64 if first.dtype == torch.float64 else torch.float32
        p, q = (x.log_softmax(-1, dtype=wide) for x in (first, second))
        apart = F.kl_div(p, q, reduction="sum", log_target=True) + F.kl_div(
            q, p, reduction="sum", log_target=True
        )
        return sum(loss) / 2 + config.r_drop * apart / 2


# What each class is registered and exported as: {config: {Auto class: class}}.
AUTO_CLASSES = {
    TransformerConfig: {
        "AutoModel": TransformerModel,
        "AutoModelForSeq2SeqLM": TransformerForSeq2SeqLM,
    }
}

__all__ = ["TransformerPreTrainedModel", "TransformerModel", "TransformerForSeq2SeqLM"]
