"""Hidden states and attention weights: whole, in every way to run a model, and on the way of the gradient."""

from __future__ import annotations

import pytest
import torch

from hfseq import (
    EncoderConfig,
    EncoderForMaskedLM,
    EncoderForSequenceClassification,
    GRUConfig,
    GRUForCausalLM,
    LSTMConfig,
    LSTMForCausalLM,
    LSTMForSeq2SeqLM,
    LSTMForSequenceClassification,
    LSTMSeq2SeqConfig,
)
from hfseq.contracts.cases import sharpen

IDS = torch.tensor([[5, 9, 3, 7, 11, 4], [8, 3, 6, 10, 0, 0]])
MASK = (IDS != 0).long()
SIZES = {"vocab_size": 24, "embedding_size": 8, "hidden_size": 8, "num_hidden_layers": 3, "pad_token_id": 0}
PAIR = {
    "vocab_size": 24, "embedding_size": 8, "hidden_size": 8, "decoder_layers": 2, "decoder_start_token_id": 1,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ENCODER = {
    "vocab_size": 24, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16, "pad_token_id": 0,
}  # fmt: skip


def build(model_class, config):
    model = model_class(config)
    sharpen(model, 0.4, 0)
    return model.double().eval()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (LSTMForCausalLM, LSTMConfig(**SIZES, last_hidden_size=6)),
        (GRUForCausalLM, GRUConfig(**SIZES)),
        (LSTMForSequenceClassification, LSTMConfig(**SIZES, bidirectional=True)),
    ],
)
def test_the_gradient_flows_through_every_hidden_state(model_class, config, side):
    model = build(model_class, config)
    ids, mask = (IDS, MASK) if side == "right" else (IDS.flip(1), MASK.flip(1))
    plain = model(input_ids=ids, attention_mask=mask)
    output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    assert torch.allclose(output.logits, plain.logits, rtol=0, atol=1e-12)
    assert len(output.hidden_states) == 4
    for state in output.hidden_states:
        state.retain_grad()
    (output.logits * mask.view(*mask.shape, 1) if output.logits.ndim == 3 else output.logits).sum().backward()
    for state in output.hidden_states:
        assert state.grad.abs().sum() > 0
        assert not state.grad[mask == 0].any()  # what is padding has no part in anything


def test_hidden_states_of_a_sequence_to_sequence_model_are_on_the_way():
    model = build(LSTMForSeq2SeqLM, LSTMSeq2SeqConfig(**PAIR))
    output = model(
        IDS, attention_mask=MASK, decoder_input_ids=IDS, output_hidden_states=True, output_attentions=True
    )
    seen = [*output.encoder_hidden_states, *output.decoder_hidden_states, *output.cross_attentions]
    for tensor in seen:
        tensor.retain_grad()
    output.logits.sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in seen)


@pytest.mark.parametrize(
    ("model_class", "config"),
    [
        (LSTMForCausalLM, LSTMConfig(**SIZES, eos_token_id=2)),
        (LSTMForSeq2SeqLM, LSTMSeq2SeqConfig(**PAIR)),
        (LSTMForSeq2SeqLM, LSTMSeq2SeqConfig(**PAIR, attention="additive", attention_position="first")),
        (LSTMForSeq2SeqLM, LSTMSeq2SeqConfig(**PAIR, input_feeding=True)),
    ],
)
def test_hidden_states_in_assisted_decoding(model_class, config):
    """The same as in greedy decoding, token by token.

    But for the second: there transformers repeats the prompt's last position (GPT-2's too), instead of the new token's.
    """
    model, assistant = build(model_class, config), build(model_class, config)
    options = {
        "max_new_tokens": 8, "do_sample": False, "return_dict_in_generate": True, "output_hidden_states": True,
    }  # fmt: skip
    plain = model.generate(IDS[:1], **options)
    assisted = model.generate(IDS[:1], assistant_model=assistant, **options)
    assert torch.equal(plain.sequences, assisted.sequences)
    name = "decoder_hidden_states" if model.config.is_encoder_decoder else "hidden_states"
    expected, got = plain[name], assisted[name]
    assert len(expected) == len(got)
    for step, other in [pair for i, pair in enumerate(zip(expected, got, strict=True)) if i != 1]:
        for layer, layer_of_other in zip(step, other, strict=True):
            assert torch.allclose(layer[:, -1], layer_of_other[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_the_last_layer_is_whole_where_somebody_looks_inside(attn):
    """Else it computes only the positions that the head reads."""
    for model_class, extra in (
        (EncoderForSequenceClassification, {"labels": torch.tensor([0, 1])}),
        (EncoderForMaskedLM, {"labels": IDS.where(IDS % 2 == 1, -100)}),
    ):
        config = EncoderConfig(**ENCODER, attn_implementation=attn)
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        model = build(model_class, config).train()
        inputs = {"input_ids": IDS, "attention_mask": MASK, **extra}
        expected = model(**inputs)
        output = model(**inputs, output_attentions=True, output_hidden_states=True)
        assert [tuple(weights.shape) for weights in output.attentions] == [(2, 2, 6, 6)] * 2
        assert [tuple(state.shape) for state in output.hidden_states] == [(2, 6, 8)] * 3
        assert torch.allclose(output.loss, expected.loss, rtol=1e-12)
        assert torch.allclose(output.attentions[-1].sum(-1), torch.ones(2, 2, 6, dtype=torch.float64))


def test_whole_graphs_of_recurrent_models():
    """No branch depends on the mask; torch itself asks for a flag before its compiler touches a recurrent layer."""
    import torch._dynamo

    model = build(GRUForCausalLM, GRUConfig(**{**SIZES, "num_hidden_layers": 1}))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(allow_rnn=True):
        for mask in (MASK, torch.ones_like(IDS)):
            got, expected = (m(IDS, attention_mask=mask, use_cache=False).logits for m in (compiled, model))
            assert torch.allclose(got, expected, rtol=0, atol=1e-12)
    torch.compiler.reset()


def test_a_graph_computes_the_final_states_of_ragged_rows(monkeypatch):
    """Step by step, as a graph holds no packed sequences: the cache goes on as the other one does."""
    for config in (LSTMConfig(**SIZES), GRUConfig(**SIZES)):
        model = build(LSTMForCausalLM if config.rnn_mode == "LSTM" else GRUForCausalLM, config)
        caches = []
        for compiling in (False, True):
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
            output = model(IDS.flip(1), attention_mask=MASK.flip(1), use_cache=True)
            caches.append([state for layer in output.past_key_values.layers for state in layer.states])
        for one, other in zip(*caches, strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-12)
