"""torchao's int8 weights: smaller, nearly the same numbers, in training's loss and in `generate`."""

from __future__ import annotations

import copy

import pytest
import torch

from hfseq import TransformerConfig, TransformerForSeq2SeqLM
from hfseq.contracts.cases import sharpen

quantization = pytest.importorskip("torchao.quantization", reason="pip install torchao")

IDS = torch.tensor([[5, 9, 3, 7, 11, 4], [8, 3, 6, 10, 5, 2]])


@pytest.mark.filterwarnings("ignore")
def test_int8_weights_of_the_transformer():
    config = TransformerConfig(
        vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=32,
        decoder_start_token_id=1, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = TransformerForSeq2SeqLM(config).eval()
    sharpen(model, 0.2, 0)
    small = copy.deepcopy(model)
    quantization.quantize_(small, quantization.Int8WeightOnlyConfig())
    assert type(small.lm_head.weight) is not torch.nn.Parameter
    got, expected = (m(IDS, decoder_input_ids=IDS).logits for m in (small, model))
    assert 0 < (got - expected).abs().max() < 0.05 * expected.abs().max()
    options = {"max_new_tokens": 8, "do_sample": False, "num_beams": 2}
    tokens = small.generate(IDS, **options)
    assert tokens.shape[0] == 2 and tokens.max() < 64
