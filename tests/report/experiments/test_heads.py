"""A pruned head hands on nothing, and comes back to the bit."""

import pytest
import torch

from hfseq import TransformerConfig, TransformerForSeq2SeqLM
from hfseq.report.experiments.heads import attention_layers, without_head


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=32, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=16, decoder_ffn_dim=16, dropout=0.0,
    )  # fmt: skip
    return TransformerForSeq2SeqLM(config).eval()


def test_every_attention_is_found_once(model):
    found = [(part, layer) for part, layer, _ in attention_layers(model)]
    assert sorted(found) == [(part, layer) for part in ("cross", "decoder", "encoder") for layer in (0, 1)]


def test_marian_has_the_same_heads():
    from transformers import MarianConfig, MarianMTModel

    config = MarianConfig(
        vocab_size=32, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, decoder_start_token_id=0,
    )  # fmt: skip
    assert [part for part, _, _ in attention_layers(MarianMTModel(config))] == ["encoder", "decoder", "cross"]


def test_a_head_is_gone_and_comes_back(model):
    inputs = {"input_ids": torch.arange(3, 9)[None], "decoder_input_ids": torch.arange(3, 8)[None]}
    before = model(**inputs).logits
    _, _, layer = next(iter(attention_layers(model)))
    with without_head(layer, 1):
        pruned = model(**inputs).logits
        # What the head computes no longer matters.
        kept = layer.v_proj.weight[4:8].clone()
        with torch.no_grad():
            layer.v_proj.weight[4:8] = 7.0
        assert torch.equal(model(**inputs).logits, pruned)
        with torch.no_grad():
            layer.v_proj.weight[4:8] = kept
    assert not torch.equal(pruned, before)
    assert torch.equal(model(**inputs).logits, before)
