"""The encoder-decoder Transformer."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from .. import kinds
from ..cases import BadInput, Case, changed, config_with
from .padded_pairs import SHORT_MASK


def _transformer_bad_inputs() -> tuple[BadInput, ...]:
    def source_of(time):
        ids = torch.full((3, time), 5)
        return lambda model, batch: model(input_ids=ids, decoder_input_ids=batch["decoder_input_ids"])

    def target_of(time):
        ids = torch.full((3, time), 5)
        return lambda model, batch: model(
            **{**batch, "decoder_input_ids": ids, "decoder_attention_mask": None}
        )

    def only(**arguments):
        return lambda model, batch: model(**arguments)

    ids = torch.full((1, 6), 5)
    places, borders = torch.tensor([[0, 1, 2, 0, 1, 2]]), torch.tensor([0, 3, 6], dtype=torch.int32)
    pair = {"input_ids": ids, "decoder_input_ids": ids}
    masks = "attention_mask", "decoder_attention_mask", "position_ids"
    return (
        BadInput("vocab_size of 0", config_with(vocab_size=0), ("vocab_size", "0")),
        BadInput(
            "a width that heads do not divide",
            config_with(d_model=20, encoder_attention_heads=3),
            ("20", "3"),
        ),
        BadInput("a dropout of 1", config_with(dropout=1.0), ("dropout", "1.0")),
        BadInput("label smoothing of 1.5", config_with(label_smoothing=1.5), ("label_smoothing", "1.5")),
        BadInput("a negative r_drop", config_with(r_drop=-1.0), ("r_drop", "-1.0")),
        BadInput("unknown positions", config_with(position_embedding_type="rotarry"), ("rotarry", "rotary")),
        BadInput("an unknown activation", config_with(activation_function="rely"), ("rely", "relu")),
        BadInput(
            "one embedding for two vocabularies",
            config_with(vocab_size=40, decoder_vocab_size=50),
            ("50", "40", "share_encoder_decoder_embeddings"),
        ),
        BadInput(
            "a source longer than the positions", source_of(99), ("source", "99", "max_position_embeddings")
        ),
        BadInput(
            "a target longer than the positions", target_of(99), ("target", "99", "max_position_embeddings")
        ),
        BadInput("a source without tokens", source_of(0), ("source", "token")),
        BadInput("no target", changed("decoder_input_ids", "labels"), ("decoder_input_ids",)),
        BadInput(
            "a mask of another width", changed("attention_mask", attention_mask=torch.ones(3, 2)), ("[3, 2]",)
        ),
        BadInput(
            "packed sources, unpacked targets", only(**pair, position_ids=places), ("packed", "targets")
        ),
        BadInput(
            "packed rows with a mask",
            only(**pair, attention_mask=torch.ones(1, 6), cu_seq_lens=borders, decoder_cu_seq_lens=borders),
            ("acked", "attention_mask"),
        ),
        BadInput(
            "more packed sources than targets",
            only(**pair, cu_seq_lens=borders, decoder_cu_seq_lens=borders[[0, 2]]),
            ("2", "1", "segment"),
        ),
        BadInput("borders under another model's name", changed(*masks, seq_idx=ids), ("pack", "seq_idx")),
        BadInput(
            "as many sources as there are not targets",
            lambda model, batch: model(**{**batch, "decoder_input_ids": ids, "decoder_attention_mask": None}),
            ("sources", "1 targets"),
        ),
        SHORT_MASK,
    )


def _transformer_cases() -> Iterator[Case]:
    from ...models import modeling_transformer as models
    from ...models.configuration_transformer import TransformerConfig

    def tiny(**fields):
        def make(**overrides):
            return TransformerConfig(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24, "max_position_embeddings": 48, "label_smoothing": 0.0,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        }  # fmt: skip
        return make

    # "paper" is Vaswani et al. 2017, "modern" everything that is not, of different depths.
    modern = {
        "pre_norm": True, "position_embedding_type": "rotary", "gated_mlp": True, "activation_function": "silu",
        "tie_word_embeddings": False, "output_bias": True, "decoder_layers": 3, "attention_dropout": 0.1,
    }  # fmt: skip
    # With larger matrices a post-norm layer drowns the token that it is given, and every continuation is one token.
    sharp = {
        "paper": (0.2, 1.5), "modern": (0.4, 0.3), "learned": (0.2, 1.5), "interleaved": (0.4, 1.0),
        "separate": (0.2, 1.5),
    }  # fmt: skip
    variants = {
        "paper": {},
        "modern": modern,
        "learned": {
            "position_embedding_type": "learned",
            "scale_embedding": False,
            "activation_dropout": 0.1,
        },
        "interleaved": {"interleaved_positions": True, "pre_norm": True},
        "separate": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50},
    }
    for head, kind in (("Model", kinds.SEQ2SEQ_BASE), ("ForSeq2SeqLM", kinds.SEQ2SEQ_LM)):
        for variant, fields in variants.items():
            yield Case(
                f"Transformer{head}-{variant}",
                family="transformer",
                model_class=getattr(models, f"Transformer{head}"),
                kind=kind,
                make_config=tiny(**fields),
                sharpness=sharp[variant][0],
                norm_spread=sharp[variant][1],
                packs=kinds.PACKED_PAIR_FORMS,
                bad_inputs=_transformer_bad_inputs(),
                full=variant not in ("paper", "modern"),
                in_subprocesses=variant == "paper",
            )


TRANSFORMER = tuple(_transformer_cases())
