"""Committed checkpoints whose logits never change: what was saved once loads for ever, and means the same.

A new family adds its config to `GOLDEN` and runs `python tests/models/test_golden.py`, which writes what is missing
and touches nothing that is there.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

from hfseq import (
    EncoderConfig,
    GRUConfig,
    GRUSeq2SeqConfig,
    LSTMConfig,
    LSTMSeq2SeqConfig,
    PervasiveConfig,
    RNNConfig,
    RNNSeq2SeqConfig,
    TransformerConfig,
)

FOLDER = Path(__file__).parents[1] / "golden"
SIZES = {"vocab_size": 32, "embedding_size": 6, "hidden_size": 8, "num_hidden_layers": 2}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
ENCODER = {
    "vocab_size": 32, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 8,
}  # fmt: skip
TRANSFORMER = {
    "vocab_size": 32, "d_model": 8, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "max_position_embeddings": 8,
    "decoder_start_token_id": 1,
}  # fmt: skip
SEQ2SEQ = {
    "vocab_size": 32, "embedding_size": 6, "hidden_size": 8, "encoder_layers": 2, "decoder_layers": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
PERVASIVE = {
    "vocab_size": 32, "embedding_size": 6, "num_hidden_layers": 2, "growth_size": 4, "bottleneck_size": 8,
    "hidden_size": 8, "intermediate_size": 12, "decoder_start_token_id": 1,
}  # fmt: skip
GOLDEN = {
    "rnn": RNNConfig(**SIZES, **SPECIAL),
    "rnn-relu": RNNConfig(nonlinearity="relu", **SIZES, **SPECIAL),
    "gru": GRUConfig(tie_word_embeddings=False, **SIZES, **SPECIAL),
    "lstm": LSTMConfig(**SIZES, **SPECIAL),
    "lstm-awd": LSTMConfig(
        last_hidden_size=6, weight_dropout=0.5, variational_dropout=True, **SIZES, **SPECIAL
    ),
    "encoder": EncoderConfig(**ENCODER, **SPECIAL),
    "encoder-modern": EncoderConfig(
        pre_norm=True,
        position_embedding_type="rotary",
        gated_mlp=True,
        hidden_act="silu",
        use_bias=False,
        type_vocab_size=0,
        tie_word_embeddings=False,
        **ENCODER,
        **SPECIAL,
    ),
    "transformer": TransformerConfig(**TRANSFORMER, **SPECIAL),
    "transformer-modern": TransformerConfig(
        pre_norm=True,
        position_embedding_type="rotary",
        gated_mlp=True,
        activation_function="silu",
        share_encoder_decoder_embeddings=False,
        decoder_vocab_size=40,
        tie_word_embeddings=False,
        output_bias=True,
        **TRANSFORMER,
        **SPECIAL,
    ),
    "seq2seq-lstm": LSTMSeq2SeqConfig(**SEQ2SEQ, **SPECIAL),
    "seq2seq-gru-first": GRUSeq2SeqConfig(
        attention="additive",
        attention_position="first",
        bridge="mean",
        share_encoder_decoder_embeddings=False,
        decoder_vocab_size=40,
        tie_word_embeddings=False,
        **SEQ2SEQ,
        **SPECIAL,
    ),
    "seq2seq-rnn-feeding": RNNSeq2SeqConfig(input_feeding=True, **SEQ2SEQ, **SPECIAL),
    "seq2seq-lstm-none": LSTMSeq2SeqConfig(attention=None, **SEQ2SEQ, **SPECIAL),
    "pervasive": PervasiveConfig(**PERVASIVE, **SPECIAL),
    "pervasive-published": PervasiveConfig(
        norm="batch",
        kernel_size=5,
        aggregation="average",
        share_encoder_decoder_embeddings=False,
        decoder_vocab_size=40,
        tie_word_embeddings=False,
        **PERVASIVE,
        **SPECIAL,
    ),
    "pervasive-residual": PervasiveConfig(
        form="residual", kernel_size=5, aggregation="gated_max", **PERVASIVE, **SPECIAL
    ),
    "pervasive-densenet-2018": PervasiveConfig(form="densenet_2018", kernel_size=5, **PERVASIVE, **SPECIAL),
    "pervasive-resnet-2020": PervasiveConfig(
        form="resnet_2020", kernel_size=5, aggregation="gated_max", **PERVASIVE, **SPECIAL
    ),
}
INPUT_IDS = torch.tensor([[1, 5, 9, 31, 7, 2, 2], [1, 30, 4, 4, 17, 22, 3]])
ATTENTION_MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1, 1]])
DECODER_INPUT_IDS = torch.tensor([[1, 8, 21, 3, 31], [1, 12, 6, 0, 0]])


def auto_class(name: str):
    if name.startswith(("transformer", "seq2seq", "pervasive")):
        return AutoModelForSeq2SeqLM
    return AutoModelForMaskedLM if name.startswith("encoder") else AutoModelForCausalLM


def logits_of(folder: Path) -> torch.Tensor:
    model = auto_class(folder.name).from_pretrained(folder).eval()
    target = {"decoder_input_ids": DECODER_INPUT_IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(INPUT_IDS, attention_mask=ATTENTION_MASK, **target).logits


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_have_not_changed(name):
    expected = load_file(FOLDER / name / "logits.safetensors")["logits"]
    tolerance = 1e-5 * max(
        1.0, float(expected.abs().max())
    )  # roundings of the largest number, over many steps
    assert torch.allclose(logits_of(FOLDER / name), expected, rtol=0, atol=tolerance)
    assert expected.std() > 0.5  # sharp weights: a broken cell would show


def test_every_golden_checkpoint_is_tested():
    assert {path.name for path in FOLDER.iterdir()} == set(GOLDEN)


def write_missing() -> None:
    for seed, (name, config) in enumerate(GOLDEN.items()):
        if (FOLDER / name).exists():
            continue
        torch.manual_seed(seed)
        model = auto_class(name).from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
        model.save_pretrained(FOLDER / name)
        save_file({"logits": logits_of(FOLDER / name).contiguous()}, FOLDER / name / "logits.safetensors")


if __name__ == "__main__":
    write_missing()
