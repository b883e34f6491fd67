"""What every model refuses that takes padded pairs alone."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from ..cases import BadInput, changed, config_with


def with_a_short_mask(model, batch):
    """The source is encoded with its own mask, and read with another: one column would be spread over all."""
    memory = model.get_encoder()(batch["input_ids"], attention_mask=batch["attention_mask"])
    return model(
        encoder_outputs=memory,
        attention_mask=batch["attention_mask"][:, :1],
        decoder_input_ids=batch["decoder_input_ids"],
    )


SHORT_MASK = BadInput(
    "a mask shorter than the source", with_a_short_mask, ("attention_mask", "[3, 1]", "[3, 5]")
)


def padded_pair_bad_inputs(cache: str) -> tuple[BadInput, ...]:
    """What every model refuses that turns one sequence into another and takes padded batches alone.

    Args:
        cache: the only kind that it takes.
    """
    ids, borders = torch.full((3, 5), 5), torch.tensor([0, 5, 10, 15], dtype=torch.int32)
    masks = "attention_mask", "decoder_attention_mask"
    packed = {"cu_seq_lens": borders, "decoder_cu_seq_lens": borders}
    return (
        BadInput("vocab_size of 0", config_with(vocab_size=0), ("vocab_size", "0")),
        BadInput("a dropout of 1", config_with(hidden_dropout=1.0), ("hidden_dropout", "1.0")),
        BadInput("label smoothing of 1.5", config_with(label_smoothing=1.5), ("label_smoothing", "1.5")),
        BadInput(
            "one embedding for two vocabularies",
            config_with(vocab_size=40, decoder_vocab_size=50),
            ("50", "40", "share_encoder_decoder_embeddings"),
        ),
        BadInput(
            "a source without tokens", changed("attention_mask", input_ids=ids[:, :0]), ("source", "token")
        ),
        BadInput(
            "a target without tokens",
            changed("decoder_attention_mask", decoder_input_ids=ids[:, :0]),
            ("target", "decoder_start_token_id"),
        ),
        BadInput("no target", changed("decoder_input_ids", "labels"), ("decoder_input_ids",)),
        BadInput(
            "as many sources as there are not targets",
            changed("decoder_attention_mask", decoder_input_ids=ids[:1]),
            ("3 sources", "1 targets"),
        ),
        SHORT_MASK,
        BadInput(
            "packed pairs by borders",
            changed(*masks, input_ids=ids, decoder_input_ids=ids, **packed),
            ("packed", "cu_seq_lens"),
        ),
        BadInput(
            "a key-value cache",
            changed(past_key_values=DynamicCache(), use_cache=True),
            ("DynamicCache", cache),
        ),
    )
