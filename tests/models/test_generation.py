"""What generate() does otherwise than in transformers gives what transformers gives."""

import pytest
import torch
from torch import nn
from transformers.generation import GenerationMixin, SuppressTokensLogitsProcessor

from hfseq import LSTMConfig, LSTMForCausalLM, TransformerConfig, TransformerForSeq2SeqLM
from hfseq.models.generation import HfseqGenerationMixin, PackedLinear, SuppressTokensInPlace

SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def lstm():
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "embedding_size": 8, "hidden_size": 8, "num_hidden_layers": 1}
    return LSTMForCausalLM(LSTMConfig(**sizes, **SPECIAL)).eval()


def transformer():
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    config = TransformerConfig(vocab_size=40, d_model=8, **sizes, **heads, **SPECIAL, init_std=0.5)
    return TransformerForSeq2SeqLM(config).eval()


@pytest.mark.parametrize("tokens", [[3], [0, 5, 9], [-1, 2, 10, 99]])
def test_suppressed_scores_equal_those_of_transformers(tokens):
    scores = torch.randn(4, 10)
    expected = SuppressTokensLogitsProcessor(tokens)(None, scores)
    given = scores.clone()
    assert SuppressTokensInPlace(tokens)(None, given) is given
    assert torch.equal(given, expected)
    assert not torch.equal(given, scores)


@pytest.mark.parametrize("make", [lstm, transformer])
@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 3}, {"do_sample": True}], ids=["greedy", "beam", "sample"]
)
def test_generate_equals_transformers_own(make, options, monkeypatch):
    model, ids = make(), torch.randint(3, 40, (5, 4))
    options = {"max_new_tokens": 8, "suppress_tokens": [0, 7, 11], "output_scores": True, **options}
    options |= {"return_dict_in_generate": True, "do_sample": False} | options
    torch.manual_seed(1)
    ours = model.generate(ids, **options)
    monkeypatch.delattr(HfseqGenerationMixin, "generate")
    monkeypatch.delattr(HfseqGenerationMixin, "_get_logits_processor")
    assert type(model).generate is GenerationMixin.generate
    torch.manual_seed(1)
    theirs = model.generate(ids, **options)
    assert torch.equal(ours.sequences, theirs.sequences)
    for mine, other in zip(ours.scores, theirs.scores, strict=True):
        torch.testing.assert_close(mine, other)


def test_raw_scores_are_not_touched():
    model, ids = lstm(), torch.randint(3, 40, (2, 4))
    options = {"max_new_tokens": 3, "suppress_tokens": [7], "return_dict_in_generate": True}
    output = model.generate(ids, output_logits=True, output_scores=True, **options)
    for raw, processed in zip(output.logits, output.scores, strict=True):
        assert torch.isfinite(raw).all()
        assert torch.isneginf(processed[:, 7]).all()


def test_the_packed_layer_lives_as_long_as_generate():
    model, ids, seen = lstm(), torch.randint(3, 40, (2, 4)), []

    def stop(ids, scores):
        seen.append(model._packed_output_layer)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.generate(ids, logits_processor=[stop])
    assert isinstance(seen[0], PackedLinear)
    assert model._packed_output_layer is None
    with torch.no_grad():
        model.lm_head.weight.zero_()
    assert model.generate(ids, max_new_tokens=1).shape == (2, 5)


def test_packed_equals_linear_with_and_without_a_bias():
    for bias in (True, False):
        layer = nn.Linear(12, 70, bias=bias)
        x = torch.randn(3, 1, 12)
        with torch.no_grad():
            torch.testing.assert_close(PackedLinear(layer)(x), layer(x))


def test_what_is_no_plain_layer_keeps_its_own_way():
    class Adapted(nn.Linear):
        pass

    hooked = nn.Linear(4, 4)
    assert PackedLinear.fits(hooked)
    hooked.register_forward_hook(lambda *arguments: None)
    for layer in (hooked, Adapted(4, 4), nn.Linear(4, 4).double(), nn.Linear(4, 4, device="meta")):
        assert not PackedLinear.fits(layer)


def test_a_hooked_projection_is_not_fused():
    attention = transformer().model.decoder.layers[0].attention
    weight, bias = attention.fused()
    assert weight.shape == (24, 8) and bias.shape == (24,)
    attention.v_proj.register_forward_hook(lambda *arguments: None)
    assert attention.fused() is None
