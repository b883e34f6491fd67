"""What generate() does otherwise than in transformers gives what transformers gives."""

import pytest
import torch
from transformers.generation import GenerationMixin, SuppressTokensLogitsProcessor

from hfseq import LSTMConfig, LSTMForCausalLM, TransformerConfig, TransformerForSeq2SeqLM
from hfseq.contracts import CASES
from hfseq.contracts.comparing import FLOAT64
from hfseq.models.generation import HfseqGenerationMixin, SuppressTokensInPlace

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


def test_a_hooked_projection_is_not_fused():
    attention = transformer().model.decoder.layers[0].attention
    weight, bias = attention.fused()
    assert weight.shape == (24, 8) and bias.shape == (24,)
    attention.v_proj.register_forward_hook(lambda *arguments: None)
    assert attention.fused() is None


def test_a_prompt_may_be_read_in_pieces():
    model, ids = lstm(), torch.randint(3, 40, (2, 7))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    options = {"attention_mask": mask, "max_new_tokens": 5, "do_sample": False, "num_beams": 2}
    expected = model.generate(ids, **options)
    for size in (1, 3, 9):
        assert torch.equal(model.generate(ids, prefill_chunk_size=size, **options), expected)


def test_a_source_is_not_cut_into_pieces():
    """transformers would cut its mask to the length of the target, and the model would read the whole padding."""
    with pytest.raises(ValueError, match="prefill_chunk_size=2.*Leave the option out"):
        transformer().generate(torch.randint(3, 40, (2, 7)), prefill_chunk_size=2, max_new_tokens=2)


GENERATING = {
    case.model_class.__name__: case for case in CASES if case.in_subprocesses and case.kind.generates
}


@pytest.mark.parametrize("name", GENERATING)
def test_logits_to_keep_are_the_last(name):
    """generate() asks for the last position's, and speculative decoding for a few."""
    case = GENERATING[name]
    model = case.model(FLOAT64)
    batch = case.without_labels(case.batch(case.rows(model.config, [6, 6]), model.config))
    with torch.no_grad():
        everything = model(**batch).logits  # [rows, time, vocabulary]; a target is longer than its source
        for number in (1, 3):
            kept = model(**batch, logits_to_keep=number).logits
            torch.testing.assert_close(kept, everything[:, -number:], rtol=0, atol=1e-9)
            assert kept.shape[1] == number
