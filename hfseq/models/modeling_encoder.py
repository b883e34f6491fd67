"""The BERT-style encoder (Devlin et al. 2018) and its heads.

Exactly BERT by default: published checkpoints load with equal logits (`hfseq/convert/bert.py`). What BERT's data had
beside it, a tenth of the sequences cut short at random, is left out: batches of text have short ones of their own.
Where the time goes in masked-LM training, and what is done about it:

- Logits are computed only where there is a label (15% of the positions), and never kept (`losses.py`): with 16k words
  the output layer of a small BERT costs more than the rest of it.
- The last layer computes keys and values for every position, but everything else only for the positions that are asked
  for: the labelled ones in masked-LM training, the first one for a pooled head. Nobody reads the others.
- Several sequences in one row do not see each other, and cost only their own length (`attention.py`).
- Without labels, and in evaluation, the output is that of any `*ForMaskedLM`.

`masked_positions` [batch, slots] names the labelled columns (-1: slot not used). With it, all shapes are known before
the batch is, and `torch.compile` and the GPU never wait; without it the columns are found in the labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPooling,
    MaskedLMOutput,
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import ModelOutput, can_return_tuple

from .attention import Packed, find_packed, mask_pays, rotary_angles, rotate
from .attention_layer import (
    AttentionContext,
    AttentionLayer,
    attends_by_segment,
    flash_options,
    keeping_weights,
)
from .configuration_encoder import EncoderConfig
from .dropout import dropout
from .feed_forward import FeedForward
from .inputs import one_of
from .losses import (
    IGNORE_INDEX,
    check_labels,
    classification_loss,
    count_labels,
    cross_entropy,
    output_layer_loss,
)
from .packed_rows import refuse_packed_rows
from .plain_layers import is_plain
from .pretrained import HfseqPreTrainedModel


class EncoderAttention(AttentionLayer):
    """Self-attention; of the last layer only some positions may be asked for."""

    def __init__(self, config: EncoderConfig):
        super().__init__(
            config,
            config.hidden_size,
            config.num_attention_heads,
            dropout=config.attention_probs_dropout_prob,
            bias=config.use_bias,
        )

    def forward(self, x: torch.Tensor, context: AttentionContext) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [batch, time, width] -> ([batch, asked or time, width], weights or None)."""
        asked = x if context.asked is None else take_columns(x, context.asked)
        query, key, value = (
            self.split(self.q_proj(asked)),
            self.split(self.k_proj(x)),
            self.split(self.v_proj(x)),
        )
        if context.angles is not None and context.asked_angles is not None:
            query, key = rotate(query, context.asked_angles), rotate(key, context.angles)
        return self.attend(query, key, value, context)


def ask(context: AttentionContext, columns: torch.Tensor, time: int) -> AttentionContext:
    """The context of a layer that is asked only for `columns` [batch, n], ascending, of rows of length `time`."""
    batch = columns.shape[0]
    mask, segments, angles = context.mask, context.segments, context.angles
    if segments is not None:
        starts = torch.arange(batch, device=columns.device).unsqueeze(1) * time
        segments = segments.of_positions((columns + starts).flatten())
    if mask is not None and mask.shape[2] > 1:
        mask = mask.expand(batch, -1, -1, -1)
        mask = mask.gather(2, columns[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
    if angles is not None:
        cos, sin = [
            a.expand(batch, -1, -1, -1).gather(2, columns[:, None, :, None].expand(-1, 1, -1, a.shape[3]))
            for a in angles
        ]
        angles = cos, sin
    return replace(context, mask=mask, segments=segments, asked_angles=angles, asked=columns)


def take_columns(x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """x [batch, time, width], columns [batch, n] -> [batch, n, width]."""
    starts = torch.arange(x.shape[0], device=x.device).unsqueeze(1) * x.shape[1]
    return x.flatten(0, 1).index_select(0, (columns + starts).flatten()).view(*columns.shape, -1)


def first_columns(example: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """The column of each row's first token [batch, 1]: 0, unless the row is padded on the left."""
    if attention_mask is None or attention_mask.ndim != 2:
        return torch.zeros(example.shape[0], 1, dtype=torch.long, device=example.device)
    return (attention_mask != 0).to(torch.uint8).argmax(dim=1, keepdim=True)


class EncoderLayer(GradientCheckpointingLayer):
    """Self-attention and feed-forward network, each with residual, dropout and layer norm."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.pre_norm = config.pre_norm
        self.dropout = config.hidden_dropout_prob
        self.attention_norm = layer_norm(config)
        self.attention = EncoderAttention(config)
        self.mlp_norm = layer_norm(config)
        self.mlp = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            config.hidden_act,
            gated=config.gated_mlp,
            bias=config.use_bias,
        )

    def forward(self, x: torch.Tensor, context: AttentionContext) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x [batch, time, width] -> ([batch, asked or time, width], attention weights or None)."""
        attended, weights = self.attention(self.attention_norm(x) if self.pre_norm else x, context)
        if context.asked is not None:
            x = take_columns(x, context.asked)
        x = x + self._drop(attended)
        if self.pre_norm:
            return x + self._drop(self.mlp(self.mlp_norm(x))), weights
        x = self.attention_norm(x)
        return self.mlp_norm(x + self._drop(self.mlp(x))), weights

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.dropout, self.training)


def layer_norm(config: EncoderConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps, bias=config.use_bias)


class EncoderPreTrainedModel(HfseqPreTrainedModel):
    """Initialisation shared by all encoder classes; matrices are N(0, initializer_range)."""

    config_class = EncoderConfig
    config: EncoderConfig
    _no_split_modules = ["EncoderLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
        if getattr(module, "bias", None) is not None:
            init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.base_model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.base_model.embed_tokens = value


class EncoderPooler(nn.Module):
    """BERT's pooler: tanh of a linear layer on the first position, [batch, time, width] -> [batch, width]."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(hidden[:, 0]))


class EncoderModel(EncoderPreTrainedModel):
    """Embeddings and layers.

    Args:
        config: the configuration.
        add_pooling_layer: whether to have the pooler; None: as `config.pooler` says. A pooler that no loss reaches
            would stop distributed training, so a head without use for it has none.
    """

    def __init__(self, config: EncoderConfig, add_pooling_layer: bool | None = None):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        rotary = config.position_embedding_type == "rotary"
        width = config.hidden_size
        self.embed_positions = None if rotary else nn.Embedding(config.max_position_embeddings, width)
        self.embed_types = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.embed_norm = layer_norm(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.final_norm = layer_norm(config) if config.pre_norm else None
        has_pooler = config.pooler if add_pooling_layer is None else add_pooling_layer
        self.pooler = EncoderPooler(config) if has_pooler else None
        self.gradient_checkpointing = False
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        cu_seq_lens_q: torch.Tensor | None = None,
        max_length_q: int | None = None,
        seq_idx: torch.Tensor | None = None,
        output_positions: torch.LongTensor | None = None,
        **kwargs: object,
    ) -> BaseModelOutputWithPooling:
        """Encodes the tokens.

        Args:
            input_ids: [batch, time], or inputs_embeds: [batch, time, hidden_size] in place of the word vectors.
            attention_mask: [batch, time], 0 at padding.
            token_type_ids: [batch, time] segment types; zeros by default.
            position_ids: [batch, time]; 0, 1, ... by default. Without an attention_mask a position that does not go on
                from its left neighbour begins a new packed segment, and segments do not see each other.
            output_hidden_states: also return the embeddings and every layer's output.
            output_attentions: also return attention weights [batch, heads, time, time]; the call is then computed
                eagerly, whatever config._attn_implementation says.
            cu_seq_lens_q, max_length_q: packed segments by their borders int32 [n + 1] in rows laid one after the
                other, and the longest one's length, as `DataCollatorWithFlattening` gives them. Segments never
                cross a row.
            seq_idx: packed segments by number [batch, time].
            output_positions: [batch, n] ascending columns: last_hidden_state is computed for those alone, and a pooler
                reads the first of them (without: each row's first token).

        Returns:
            last_hidden_state [batch, time or n, hidden_size]; pooler_output where there is a pooler; hidden_states;
            attentions.
        """
        batch, time = one_of(input_ids, inputs_embeds).shape[:2]
        if time == 0:
            raise ValueError("The input has no time steps: every row needs at least one token.")
        self._check_lengths(time, attention_mask, batch)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        config = keeping_weights(self.config) if output_attentions else self.config
        packed = find_packed(attention_mask, position_ids, cu_seq_lens_q, max_length_q, seq_idx, batch, time)
        if packed is not None:
            position_ids = packed.position_ids

        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        x = self._embed(x, position_ids, token_type_ids)
        context = self._context(config, x, attention_mask, position_ids, packed)

        hidden_states, attentions = [x], []
        last = len(self.layers) - 1
        # Who wants to see inside is shown whole layers.
        may_ask = self.can_ask() and not (output_attentions or output_hidden_states)
        for number, layer in enumerate(self.layers):
            if number == last and output_positions is not None and may_ask:
                context = ask(context, output_positions, time)
            x, weights = layer(x, context)
            hidden_states.append(x)
            attentions.append(weights)
        if self.final_norm is not None:
            x = hidden_states[-1] = self.final_norm(x)
        if output_positions is not None and context.asked is None:
            x = take_columns(x, output_positions)
        pooled = None
        if self.pooler is not None:
            first = x if output_positions is not None else take_columns(x, first_columns(x, attention_mask))
            pooled = self.pooler(first)
        return BaseModelOutputWithPooling(
            last_hidden_state=x,
            pooler_output=pooled,
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def can_ask(self) -> bool:
        """Whether the attention implementation takes fewer queries than keys."""
        return self.config._attn_implementation in ("eager", "sdpa")

    def _check_lengths(self, time: int, attention_mask: torch.Tensor | None, batch: int) -> None:
        if self.embed_positions is not None and time > self.embed_positions.num_embeddings:
            raise ValueError(
                f"The input has {time} positions, the model only {self.embed_positions.num_embeddings} "
                "(max_position_embeddings): truncate it in the tokenizer (truncation=True, max_length=...), or train "
                "with more positions."
            )
        if attention_mask is not None and attention_mask.ndim == 2 and attention_mask.shape != (batch, time):
            raise ValueError(
                f"attention_mask must be [{batch}, {time}] like the input, not {list(attention_mask.shape)}."
            )

    def _embed(
        self, x: torch.Tensor, position_ids: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Word vectors [batch, time, width] -> the first layer's input."""
        if self.embed_types is not None:
            if token_type_ids is None and is_plain(self.embed_types, nn.Embedding):
                x = x + self.embed_types.weight[0]
            else:
                types = (
                    x.new_zeros(x.shape[:2], dtype=torch.long) if token_type_ids is None else token_type_ids
                )
                x = x + self.embed_types(types)
        if self.embed_positions is not None:
            table = self.embed_positions
            if position_ids is not None:
                x = x + table(position_ids)
            elif is_plain(table, nn.Embedding):
                x = x + table.weight[: x.shape[1]]
            else:
                x = x + table(torch.arange(x.shape[1], device=x.device).unsqueeze(0))
        x = self.embed_norm(x)
        return dropout(x, self.config.hidden_dropout_prob, self.training)

    def _context(
        self,
        config: EncoderConfig,
        x: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        packed: Packed | None,
    ) -> AttentionContext:
        angles = None
        if config.position_embedding_type == "rotary":
            places = position_ids
            if places is None:
                places = torch.arange(x.shape[1], device=x.device).unsqueeze(0)
            width = config.hidden_size // config.num_attention_heads
            angles = rotary_angles(places, width, config.rope_theta, x.dtype)
        implementation = config._attn_implementation
        context = AttentionContext(angles=angles, asked_angles=angles, implementation=implementation)
        if packed is None:
            mask = create_bidirectional_mask(config=config, inputs_embeds=x, attention_mask=attention_mask)
            return replace(context, mask=mask)
        if "flash" in implementation:
            return replace(context, options=flash_options(packed.segments))
        drops = config.attention_probs_dropout_prob if self.training else 0.0
        by_segment = attends_by_segment(config, x, packed, drops)
        if by_segment and not mask_pays(packed.segments, x, config.num_attention_heads):
            return replace(context, segments=packed.segments)
        numbers = packed.numbers  # [batch, time]

        def same_segment(b, head, q, k):
            return numbers[b, q] == numbers[b, k]

        mask = create_bidirectional_mask(
            config=config, inputs_embeds=x, attention_mask=None, and_mask_function=same_segment
        )
        return replace(context, mask=mask)


class EncoderPredictionHead(nn.Module):
    """BERT's masked-LM transform: linear layer, activation, layer norm; the output layer follows it."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.use_bias)
        self.act = ACT2FN[config.hidden_act]
        self.norm = layer_norm(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.act(self.dense(x)))


class MaskedLanguageModel(EncoderPreTrainedModel):
    """What the two classes with a masked-LM head have in common."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    # Not `head`, as in version 0.1: accelerate would take it for a part of `lm_head` and fail with device_map="auto".
    renamed = {"head.": "transform."}

    def __init__(self, config: EncoderConfig, add_pooling_layer: bool):
        super().__init__(config)
        self.model = EncoderModel(config, add_pooling_layer)
        self.transform = EncoderPredictionHead(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=config.use_bias)

    def get_output_embeddings(self) -> nn.Linear:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        self.lm_head = value

    def _labelled(
        self, labels: torch.Tensor, masked_positions: torch.Tensor | None, input_shape: torch.Size
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The labelled columns [batch, slots], ascending, and their labels, -100 in slots to spare."""
        check_labels("labels", labels, input_shape)
        time = labels.shape[1]
        if masked_positions is None:
            counted = labels != IGNORE_INDEX
            slots = max(int(counted.sum(1).max()), 1)
            order = counted.logical_not().to(torch.uint8).sort(dim=1, stable=True).indices[:, :slots]
            masked_positions = order.where(counted.gather(1, order), -1)
        elif masked_positions.ndim != 2 or masked_positions.shape[0] != labels.shape[0]:
            raise ValueError(
                f"masked_positions must be [{labels.shape[0]}, slots], not {list(masked_positions.shape)}."
            )
        unused = masked_positions < 0
        columns = masked_positions.masked_fill(unused, time - 1)
        return columns, labels.gather(1, columns).masked_fill(unused, IGNORE_INDEX)

    def _summed_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Masked-LM loss of hidden [batch, slots, width] against labels [batch, slots], summed."""
        hidden = self.transform(hidden).flatten(0, 1)
        return output_layer_loss(self.lm_head, hidden, labels.flatten(), self.config.label_smoothing)


class EncoderForMaskedLM(MaskedLanguageModel):
    """The encoder with a masked-language-model head."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config, add_pooling_layer=False)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        masked_positions: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: object,
    ) -> MaskedLMOutput:
        """Predicts masked tokens; see `EncoderModel.forward` for the arguments not listed.

        Args:
            labels: [batch, time], the token at each masked position, -100 elsewhere.
            masked_positions: [batch, slots], columns of the labels in ascending order, -1 in unused slots at the end;
                used in training only, and found in the labels where it is missing.
            num_items_in_batch: number of labels in the whole update; the summed loss is divided by it.

        Returns:
            loss; logits [batch, time, vocab_size], None in training with labels; hidden_states; attentions.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        if self.training and labels is not None:
            shape = one_of(input_ids, inputs_embeds).shape[:2]
            columns, kept = self._labelled(labels, masked_positions, shape)
            outputs = self.model(**inputs, output_positions=columns, **kwargs)
            return MaskedLMOutput(
                loss=self._summed_loss(outputs.last_hidden_state, kept)
                / count_labels(kept, num_items_in_batch),
                hidden_states=outputs.hidden_states,
                attentions=outputs.attentions,
            )
        outputs = self.model(**inputs, **kwargs)
        logits = self.lm_head(self.transform(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            check_labels("labels", labels, logits.shape[:2])
            loss = cross_entropy(logits, labels) / count_labels(labels, num_items_in_batch)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


@dataclass
class EncoderForPreTrainingOutput(ModelOutput):
    """As BERT's: loss, prediction_logits [batch, time, vocab_size] (None in training with labels),
    seq_relationship_logits [batch, 2], hidden_states, attentions."""

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    seq_relationship_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class EncoderForPreTraining(MaskedLanguageModel):
    """BERT's two pretraining tasks: masked words, and whether the second segment follows the first (NSP, or SOP)."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config, add_pooling_layer=True)
        self.next_sentence = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        next_sentence_label: torch.LongTensor | None = None,
        masked_positions: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: object,
    ) -> EncoderForPreTrainingOutput:
        """Both tasks; see `EncoderForMaskedLM.forward`.

        Args:
            next_sentence_label: [batch], 0 where the segments belong together in this order, 1 where not, -100 where
                it does not count. In the loss a row weighs as much as it has masked-LM labels, so that the loss does
                not depend on how an update was cut into micro-batches.
        """
        refuse_packed(self, attention_mask, position_ids, kwargs)
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        logits = loss = None
        kept: torch.Tensor | None
        if self.training and labels is not None:
            shape = one_of(input_ids, inputs_embeds).shape[:2]
            columns, kept = self._labelled(labels, masked_positions, shape)
            # The pooler reads the first of the columns that are asked for.
            asked = torch.cat([first_columns(labels, attention_mask), columns], dim=1)
            outputs = self.model(**inputs, output_positions=asked, **kwargs)
            loss = self._summed_loss(outputs.last_hidden_state[:, 1:], kept)
        else:
            kept = labels
            outputs = self.model(**inputs, **kwargs)
            logits = self.lm_head(self.transform(outputs.last_hidden_state))
            if labels is not None:
                check_labels("labels", labels, logits.shape[:2])
                loss = cross_entropy(logits, labels)
        relationship = self.next_sentence(outputs.pooler_output)
        if next_sentence_label is not None:
            check_labels("next_sentence_label", next_sentence_label, relationship.shape[:1])
            rows = F.cross_entropy(
                relationship.float() if relationship.dtype.itemsize < 4 else relationship,
                next_sentence_label,
                ignore_index=IGNORE_INDEX,
                reduction="none",
            )
            if kept is None or loss is None:  # both or neither
                loss = rows.sum() / (next_sentence_label != IGNORE_INDEX).sum().clamp(min=1)
            else:
                loss = loss + (rows * (kept != IGNORE_INDEX).sum(1)).sum()
        if kept is not None and loss is not None:
            loss = loss / count_labels(kept, num_items_in_batch)
        return EncoderForPreTrainingOutput(
            loss=loss,
            prediction_logits=logits,
            seq_relationship_logits=relationship,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def refuse_packed(
    model: nn.Module,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    kwargs: dict[str, Any],
) -> None:
    """Heads that give one answer for a row refuse rows that hold several sequences."""
    refuse_packed_rows(
        f"{type(model).__name__} refuses",
        "it gives one answer per row",
        "Use padded batches with an attention_mask.",
        {**kwargs, "position_ids": position_ids},
        ("position_ids", attention_mask is not None),
    )


class PooledClassifier(EncoderPreTrainedModel):
    """An encoder and a linear layer on one vector per text: BERT's pooler, or the mean of the last layer."""

    def __init__(self, config: EncoderConfig, outputs: int):
        super().__init__(config)
        self.model = EncoderModel(config, add_pooling_layer=config.classifier_pooling == "cls")
        self.classifier = nn.Linear(config.hidden_size, outputs)
        self.post_init()

    def _classify(
        self, inputs: dict[str, torch.Tensor | None], kwargs: dict[str, Any]
    ) -> tuple[torch.Tensor, BaseModelOutputWithPooling]:
        """(logits [batch, outputs], the encoder's outputs). For a pooler the last layer computes one column alone."""
        mask = inputs["attention_mask"]
        refuse_packed(self, mask, inputs["position_ids"], kwargs)
        pooler = self.model.pooler is not None
        if pooler:
            example = inputs["inputs_embeds"] if inputs["input_ids"] is None else inputs["input_ids"]
            if example is not None:
                kwargs = {**kwargs, "output_positions": first_columns(example, mask)}
        outputs = self.model(**inputs, **kwargs)
        pooled = outputs.pooler_output if pooler else mean_over_text(outputs.last_hidden_state, mask)
        pooled = dropout(pooled, classifier_dropout(self.config), self.training)
        return self.classifier(pooled), outputs


def mean_over_text(hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """hidden [batch, time, width] -> its mean over the positions that are not padding [batch, width]."""
    if attention_mask is None or attention_mask.ndim != 2:
        return hidden.mean(1)
    kept = (attention_mask != 0).to(hidden.dtype).unsqueeze(-1)  # [batch, time, 1]
    return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1)


def classifier_dropout(config: EncoderConfig) -> float:
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


class EncoderForSequenceClassification(PooledClassifier):
    """Classification (of one label or of several) or regression of a text or a pair of texts."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config, config.num_labels)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: object,
    ) -> SequenceClassifierOutput:
        """See `EncoderModel.forward` for the arguments not listed.

        Args:
            labels: class numbers [batch] (-100 does not count); for several labels 0/1 [batch, num_labels]; for
                regression numbers [batch] or [batch, num_labels]. `config.problem_type` says which.

        Returns:
            loss; logits [batch, num_labels]; hidden_states; attentions.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        logits, outputs = self._classify(inputs, kwargs)
        loss = None
        if labels is not None:
            loss = classification_loss(logits, labels, self.config, num_items_in_batch, self.training)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EncoderForMultipleChoice(PooledClassifier):
    """Chooses one of several texts."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config, 1)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: object,
    ) -> MultipleChoiceModelOutput:
        """See `EncoderModel.forward` for the arguments not listed.

        Args:
            input_ids: [batch, choices, time], and every other input likewise.
            labels: [batch], the right choice's number.

        Returns:
            loss; logits [batch, choices]; hidden_states; attentions (of batch x choices rows).
        """
        given = one_of(input_ids, inputs_embeds)
        if given.ndim != (3 if inputs_embeds is None else 4):
            raise ValueError(f"Multiple choice takes inputs [batch, choices, time], not {list(given.shape)}.")
        choices = given.shape[1]
        for name, value in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if value is not None and value.shape != given.shape[:3]:
                raise ValueError(
                    f"{name} must be {list(given.shape[:3])} like the input, not {list(value.shape)}."
                )
        check_labels("labels", labels, given.shape[:1])
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        inputs = {name: None if value is None else value.flatten(0, 1) for name, value in inputs.items()}
        logits, outputs = self._classify(inputs, kwargs)
        logits = logits.view(-1, choices)
        loss = None
        if labels is not None:
            loss = cross_entropy(logits, labels) / count_labels(labels, num_items_in_batch)
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EncoderForTokenClassification(EncoderPreTrainedModel):
    """A label for every token."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        self.model = EncoderModel(config, add_pooling_layer=False)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: object,
    ) -> TokenClassifierOutput:
        """See `EncoderModel.forward` for the arguments not listed.

        Args:
            labels: [batch, time], -100 where a token (the second piece of a word, say) does not count.

        Returns:
            loss; logits [batch, time, num_labels]; hidden_states; attentions.
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        hidden = dropout(outputs.last_hidden_state, classifier_dropout(self.config), self.training)
        logits = self.classifier(hidden)
        loss = None
        if labels is not None:
            check_labels("labels", labels, logits.shape[:2])
            smoothing = self.config.label_smoothing if self.training else 0.0
            loss = cross_entropy(logits, labels, smoothing) / count_labels(labels, num_items_in_batch)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class EncoderForQuestionAnswering(EncoderPreTrainedModel):
    """Where in the text an answer begins and ends."""

    def __init__(self, config: EncoderConfig):
        super().__init__(config)
        self.model = EncoderModel(config, add_pooling_layer=False)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        start_positions: torch.LongTensor | None = None,
        end_positions: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: object,
    ) -> QuestionAnsweringModelOutput:
        """See `EncoderModel.forward` for the arguments not listed.

        Args:
            start_positions, end_positions: [batch], the answer's first and last column; a column beyond the row (the
                answer was cut off), or -100, does not count.

        Returns:
            loss (the mean of both); start_logits and end_logits [batch, time]; hidden_states; attentions.
        """
        refuse_packed(self, attention_mask, position_ids, kwargs)
        if (start_positions is None) != (end_positions is None):
            raise ValueError("Pass start_positions and end_positions, or neither.")
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        start, end = self.qa_outputs(outputs.last_hidden_state).unbind(-1)  # [batch, time] each
        loss = None
        if start_positions is not None and end_positions is not None:
            check_labels("start_positions", start_positions, start.shape[:1])
            check_labels("end_positions", end_positions, start.shape[:1])
            begin, begins = summed_place_loss(start, start_positions, attention_mask)
            finish, finishes = summed_place_loss(end, end_positions, attention_mask)
            count = (begins + finishes).clamp(min=1)
            # Trainer counts items by `labels`, which there are none of here; who passes a count means examples.
            loss = (begin + finish) / (count if num_items_in_batch is None else 2 * num_items_in_batch)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start,
            end_logits=end,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


def summed_place_loss(
    logits: torch.Tensor, places: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the summed loss of logits [batch, time] against columns [batch], how many of these count)."""
    places = places.masked_fill((places < 0) | (places >= logits.shape[1]), IGNORE_INDEX)
    if attention_mask is not None and attention_mask.ndim == 2:
        # Padding is beyond the row too: nothing begins or ends there.
        padding = attention_mask == 0
        logits = logits.masked_fill(padding, torch.finfo(logits.dtype).min)
        in_padding = padding.gather(1, places.clamp(min=0).unsqueeze(1)).squeeze(1)
        places = places.masked_fill(in_padding, IGNORE_INDEX)
    return cross_entropy(logits, places), (places != IGNORE_INDEX).sum()


# What each class is registered and exported as: {config: {Auto class: class}}.
AUTO_CLASSES = {
    EncoderConfig: {
        "AutoModel": EncoderModel,
        "AutoModelForMaskedLM": EncoderForMaskedLM,
        "AutoModelForPreTraining": EncoderForPreTraining,
        "AutoModelForSequenceClassification": EncoderForSequenceClassification,
        "AutoModelForTokenClassification": EncoderForTokenClassification,
        "AutoModelForQuestionAnswering": EncoderForQuestionAnswering,
        "AutoModelForMultipleChoice": EncoderForMultipleChoice,
    }
}

__all__ = [
    "EncoderPreTrainedModel",
    "EncoderModel",
    "EncoderForMaskedLM",
    "EncoderForPreTraining",
    "EncoderForSequenceClassification",
    "EncoderForTokenClassification",
    "EncoderForQuestionAnswering",
    "EncoderForMultipleChoice",
]
