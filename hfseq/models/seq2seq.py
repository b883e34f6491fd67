"""What the encoder-decoder models share: one embedding for both sides or two, targets made of labels, assistants."""

from __future__ import annotations

import torch
from torch import nn

from .generation import HfseqGenerationMixin
from .losses import IGNORE_INDEX


class TwoSidedEmbeddings:
    """Embeddings of a `PreTrainedModel` with `encoder.embed_tokens`, which both sides share if the config says so."""

    def get_input_embeddings(self) -> nn.Embedding:
        return getattr(self, "model", self).encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        getattr(self, "model", self).encoder.embed_tokens = value

    def resize_token_embeddings(self, *args, **kwargs):
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
