"""How long a sequence may be, held against what the models of transformers really take."""

import pytest
import torch
from transformers import AutoModel, BertConfig, GPT2Config, LlamaConfig, RobertaConfig, T5Config, XLNetConfig

from hfseq import LSTMConfig
from hfseq.positions import position_limit

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 50,
}


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SIZES, max_position_embeddings=20),
        RobertaConfig(**SIZES, max_position_embeddings=20),  # counts from its padding's id on, 1
        RobertaConfig(**SIZES, max_position_embeddings=20, pad_token_id=4),
        GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=20, vocab_size=50),
    ],
    ids=["bert", "roberta", "roberta with another padding", "gpt2"],
)
def test_a_model_takes_as_many_and_no_more(config):
    model = AutoModel.from_config(config).eval()
    row = torch.full((1, position_limit(config)), 7)
    assert torch.isfinite(model(input_ids=row).last_hidden_state).all()
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, row.shape[1] + 1), 7))


@pytest.mark.parametrize(
    "config", [T5Config(), XLNetConfig(), LSTMConfig()], ids=lambda config: config.model_type
)
def test_models_without_a_limit(config):
    assert position_limit(config) is None


def test_positions_that_are_computed_are_as_many_as_the_config_says():
    assert position_limit(LlamaConfig(max_position_embeddings=64, pad_token_id=3)) == 64
