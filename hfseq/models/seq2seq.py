"""What the encoder-decoder models share: one embedding for both sides or two, what they refuse, targets made of
labels, the loss, assistants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput

from .generation import HfseqGenerationMixin
from .inputs import one_of
from .losses import IGNORE_INDEX, count_labels, cross_entropy, output_layer_loss
from .packed_rows import refuse_packed_rows
from .pretrained import HfseqPreTrainedModel


def source_vectors(
    embed_tokens: nn.Embedding,
    input_ids: torch.LongTensor | None,
    inputs_embeds: torch.FloatTensor | None,
    attention_mask: torch.Tensor | None,
) -> torch.Tensor:
    """The source's word vectors [batch, time, width], of ids or as given; ValueError if they and the mask disagree."""
    batch, time = _source_shape(one_of(input_ids, inputs_embeds))
    if attention_mask is not None and attention_mask.shape != (batch, time):
        raise ValueError(
            f"attention_mask must be [{batch}, {time}] like the input, not {list(attention_mask.shape)}."
        )
    return embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds


def target_vectors(
    embed_tokens: nn.Embedding,
    decoder_input_ids: torch.LongTensor | None,
    decoder_inputs_embeds: torch.FloatTensor | None,
) -> torch.Tensor:
    """The target's word vectors [batch, time, width], of ids or as given."""
    one_of(
        decoder_input_ids,
        decoder_inputs_embeds,
        "decoder_input_ids and decoder_inputs_embeds (for training of the model with its head, labels alone will do)",
    )
    x = embed_tokens(decoder_input_ids) if decoder_inputs_embeds is None else decoder_inputs_embeds
    if x.shape[1] == 0:
        raise ValueError("The target has no time steps: it begins with decoder_start_token_id.")
    return x


def check_one_source(
    input_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    encoder_outputs: BaseModelOutput | tuple | None,
) -> None:
    """Raises ValueError unless there is something to read; what is encoded already makes the rest superfluous."""
    if encoder_outputs is not None:
        return
    _source_shape(one_of(input_ids, inputs_embeds, "input_ids and inputs_embeds, or encoder_outputs"))


def _source_shape(given: torch.Tensor) -> tuple[int, int]:
    batch, time = given.shape[:2]
    if time == 0:
        raise ValueError("The source has no time steps: every row needs at least one token.")
    return batch, time


def check_as_many(source: torch.Tensor, target: torch.Tensor) -> None:
    """Raises ValueError unless there is one source for each target."""
    if source.shape[0] != target.shape[0]:
        raise ValueError(f"There are {source.shape[0]} sources, but {target.shape[0]} targets.")


def check_source_mask(attention_mask: torch.Tensor | None, source: torch.Tensor) -> None:
    """Raises ValueError unless a mask [batch, time] is as long as the encoded source [batch, time, width]: one column
    would be spread over all."""
    if attention_mask is not None and attention_mask.ndim == 2 and attention_mask.shape[1] != source.shape[1]:
        raise ValueError(
            f"attention_mask must be {list(source.shape[:2])} like the source, not {list(attention_mask.shape)}."
        )


def refuse_packed_pairs(
    arguments: dict[str, Any], models: str, because: str, masked: tuple[bool, bool] = (False, False)
) -> None:
    """Raises ValueError if anything among the arguments says that a row holds several pairs.

    Args:
        models, because: who refuses, and what would happen, for the message.
        masked: whether there is a mask (or a cache) of the sources, and of the targets; see `refuse_packed_rows`.
    """
    refuse_packed_rows(
        f"{models} models refuse",
        because,
        "Use padded batches with an attention_mask (PairPlan with packing off).",
        arguments,
        ("position_ids", masked[0]),
        ("decoder_position_ids", masked[1]),
    )


class TwoSidedEmbeddings(HfseqPreTrainedModel):
    """The base of a model with `encoder.embed_tokens`, an embedding that both sides share if the config says so."""

    def get_input_embeddings(self) -> nn.Embedding | None:
        return self.base_model.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.base_model.encoder.embed_tokens = value

    def resize_token_embeddings(self, *args: object, **kwargs: object) -> nn.Embedding:
        """As in transformers; refused where source and target have vocabularies of their own."""
        if not self.config.share_encoder_decoder_embeddings:
            raise ValueError(
                "Source and target have embeddings of their own (share_encoder_decoder_embeddings is false), and one "
                "new size cannot be meant for both: build a new model with the sizes that you want."
            )
        embedding = super().resize_token_embeddings(*args, **kwargs)
        self.config.decoder_vocab_size = self.config.vocab_size
        return embedding


class Seq2SeqGenerationMixin(HfseqGenerationMixin):
    """The base of every model that turns one sequence into another."""

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels [batch, time] moved one to the right behind decoder_start_token_id; -100 becomes padding."""
        start, pad = self.config.decoder_start_token_id, self.config.pad_token_id
        if start is None or pad is None:
            missing = "decoder_start_token_id" if start is None else "pad_token_id"
            raise ValueError(f"config.{missing} is None: set it, or pass decoder_input_ids.")
        shifted = torch.cat([torch.full_like(labels[:, :1], start), labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == IGNORE_INDEX, pad)

    def language_model_output(
        self,
        outputs: Seq2SeqModelOutput,
        hidden: torch.Tensor,
        labels: torch.LongTensor | None,
        num_items_in_batch: torch.Tensor | int | None,
        logits_to_keep: int,
        summed_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ) -> Seq2SeqLMOutput:
        """What the model with its head returns, given what the base model returned.

        Args:
            hidden: what the output layer reads [batch, time, width].
            labels, num_items_in_batch, logits_to_keep: as in `forward`.
            summed_loss: (hidden, labels) -> the loss of training; by default `self.summed_loss`.
        """
        if labels is not None and labels.shape != hidden.shape[:2]:
            raise ValueError(
                f"labels must be {list(hidden.shape[:2])} like the target, not {list(labels.shape)}."
            )
        loss = logits = None
        if labels is not None and self.training:
            loss = (summed_loss or self.summed_loss)(hidden, labels) / count_labels(
                labels, num_items_in_batch
            )
        else:
            logits = self.output_logits(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
            if labels is not None:
                kept = labels[:, -logits_to_keep:] if logits_to_keep else labels
                loss = cross_entropy(logits, kept) / count_labels(labels, num_items_in_batch)
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )

    def summed_loss(self, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The label-smoothed cross-entropy of all labels [batch, time], without materialising logits."""
        smoothing = self.config.label_smoothing
        return output_layer_loss(self.lm_head, hidden.flatten(0, 1), labels.flatten(), smoothing)

    def prepare_inputs_for_generation(
        self, input_ids, next_sequence_length=None, past_key_values=None, **kwargs
    ):
        """As in transformers, where an assistant of two sides is given the whole target again behind its cache."""
        seen = 0 if past_key_values is None else past_key_values.get_seq_length()
        if next_sequence_length is None and 0 < seen < input_ids.shape[1]:
            next_sequence_length = input_ids.shape[1] - seen
        return super().prepare_inputs_for_generation(
            input_ids, next_sequence_length=next_sequence_length, past_key_values=past_key_values, **kwargs
        )
