"""Encoder-decoders: RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Iterator

from transformers.modeling_outputs import BaseModelOutput

from .. import kinds
from ..cases import BadInput, Case, config_with
from .padded_pairs import padded_pair_bad_inputs


def _recurrent_seq2seq_bad_inputs() -> tuple[BadInput, ...]:
    def without_the_first_state(model, batch):
        memory = model.get_encoder()(input_ids=batch["input_ids"]).last_hidden_state
        return model(encoder_outputs=BaseModelOutput(memory), decoder_input_ids=batch["decoder_input_ids"])

    return (
        *padded_pair_bad_inputs("RecurrentCache"),
        BadInput("hidden_size of -1", config_with(hidden_size=-1), ("hidden_size", "-1")),
        BadInput(
            "encoder_hidden_size of 0",
            config_with(encoder_hidden_size=0),
            ("encoder_hidden_size", "0", "None"),
        ),
        BadInput("unknown scores", config_with(attention="dot"), ("dot", "multiplicative")),
        BadInput("an unknown position", config_with(attention_position="middle"), ("middle", "first")),
        BadInput("an unknown bridge", config_with(bridge="first"), ("first", "mean")),
        BadInput(
            "nothing to feed", config_with(attention=None, input_feeding=True), ("input_feeding", "attention")
        ),
        BadInput(
            "attention between layers of one layer",
            config_with(attention_position="first", decoder_layers=1),
            ("decoder_layers 1", "last"),
        ),
        BadInput(
            "an encoder's outputs without the first state",
            without_the_first_state,
            ("initial_state", "get_encoder"),
        ),
    )


def _recurrent_seq2seq_cases() -> Iterator[Case]:
    from ...models import configuration_recurrent_seq2seq as configs
    from ...models import modeling_recurrent_seq2seq as models

    def tiny(config_class, **fields):
        def make(**overrides):
            return config_class(**{**sizes, **fields, **overrides})

        sizes = {
            "vocab_size": 40, "embedding_size": 12, "hidden_size": 14, "encoder_layers": 1, "decoder_layers": 2,
            "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
        }  # fmt: skip
        return make

    dropped = {"input_dropout": 0.2, "hidden_dropout": 0.3, "output_dropout": 0.2}
    variants = {
        "last": {"encoder_layers": 2, **dropped},
        # Wu et al. 2016, with every size and dropout of its own.
        "first": {
            "attention": "additive", "attention_position": "first", "attention_size": 9, "encoder_hidden_size": 10,
            "tie_word_embeddings": False, "variational_dropout": True,
            "weight_dropout": 0.3, **dropped,
        },
        "none": {"attention": None, "hidden_dropout": 0.2},
        "hands-over": {"attention": None, "bidirectional": False, "encoder_layers": 2},
        "mean": {"attention": "additive", "bridge": "mean", "bidirectional": False},
        "luong": {"input_feeding": True, **dropped},
        "bahdanau": {
            "input_feeding": True, "attention": "additive", "attention_position": "first", "decoder_layers": 1,
            "tie_word_embeddings": False,
        },
        "separate": {
            "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50, "attention_position": "first",
        },
    }  # fmt: skip
    cells = {
        # The first variant is the class's own; base models run in that alone.
        "LSTM": ("last", "first", "none", "hands-over", "mean", "luong", "bahdanau", "separate"),
        "GRU": ("first", "hands-over", "bahdanau", "mean"),
        "RNN": ("none", "last", "luong"),
    }
    heads = (("Seq2SeqModel", kinds.SEQ2SEQ_BASE), ("ForSeq2SeqLM", kinds.SEQ2SEQ_LM))
    for cell, names in cells.items():
        for head, kind in heads:
            for variant in names if kind.labels else names[:1]:
                yield Case(
                    f"{cell}{head}-{variant}",
                    family="recurrent_seq2seq",
                    model_class=getattr(models, f"{cell}{head}"),
                    kind=kind,
                    make_config=tiny(getattr(configs, f"{cell}Seq2SeqConfig"), **variants[variant]),
                    # Without gates a loop over time is chaotic: gradients grow at each step until float32 is lost.
                    sharpness=0.4 if cell == "RNN" else 0.7,
                    bad_inputs=_recurrent_seq2seq_bad_inputs(),
                    full=variant != names[0],
                    in_subprocesses=variant == names[0],
                )


RECURRENT_SEQ2SEQ = tuple(_recurrent_seq2seq_cases())
