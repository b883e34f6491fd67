"""What others hang on a layer takes effect in every model: hooks, adapters, parametrisations, pruning."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from hfseq import (
    EncoderConfig,
    EncoderForMaskedLM,
    EncoderForSequenceClassification,
    GRUConfig,
    GRUForCausalLM,
    GRUForTokenClassification,
    LSTMConfig,
    LSTMForCausalLM,
    LSTMForSeq2SeqLM,
    LSTMForSequenceClassification,
    LSTMSeq2SeqConfig,
    TransformerConfig,
    TransformerForSeq2SeqLM,
)
from hfseq.contracts.cases import dropout_fields, sharpen
from hfseq.models.layouts import decoding
from hfseq.models.plain_layers import is_plain

IDS = torch.tensor([[5, 9, 3, 7, 11, 4], [8, 3, 6, 10, 0, 0]])
MASK = (IDS != 0).long()
LABELS = IDS.masked_fill(MASK == 0, -100)
RECURRENT = {"vocab_size": 24, "embedding_size": 8, "hidden_size": 8, "pad_token_id": 0}
PAIR = {
    "vocab_size": 24,
    "decoder_start_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WIDE = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
ENCODER = {
    "vocab_size": 24, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "max_position_embeddings": 16, "pad_token_id": 0,
}  # fmt: skip
MODELS = {
    "lstm": (LSTMForCausalLM, lambda **o: LSTMConfig(**RECURRENT, **o)),
    "encoder": (EncoderForMaskedLM, lambda **o: EncoderConfig(**ENCODER, **o)),
    "transformer": (
        TransformerForSeq2SeqLM,
        lambda **o: TransformerConfig(
            d_model=8, encoder_ffn_dim=12, decoder_ffn_dim=12, max_position_embeddings=32, **WIDE, **PAIR, **o
        ),
    ),
    "lstm-seq2seq": (
        LSTMForSeq2SeqLM,
        lambda **o: LSTMSeq2SeqConfig(embedding_size=8, hidden_size=8, attention="additive", **PAIR, **o),
    ),
}


def build(name: str, **options):
    model_class, make_config = MODELS[name]
    config = make_config(**options)
    for field in (*dropout_fields(config), "label_smoothing"):
        setattr(config, field, 0.0)
    model = model_class(config)
    sharpen(model, 0.4, 0)
    return model.eval()


@pytest.fixture(params=MODELS)
def model(request):
    return build(request.param, tie_word_embeddings=False)


def batch() -> dict[str, torch.Tensor]:
    return {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}


class Adapter(nn.Module):
    """A LoRA layer as peft makes them: the layer it replaces, frozen, and a product of two thin matrices."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Linear(layer.in_features, 2, bias=False)
        self.b = nn.Linear(2, layer.out_features, bias=False)

    @property
    def weight(self) -> torch.Tensor:  # peft has it too: reading it would leave the adapter out
        return self.layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + self.b(self.a(x))


def linears(model) -> dict[str, nn.Linear]:
    return {name: module for name, module in model.named_modules() if type(module) is nn.Linear}


def wrap_all(model) -> list[Adapter]:
    adapters = []
    for name in linears(model):
        parent, _, attribute = name.rpartition(".")
        adapters.append(Adapter(model.get_submodule(name)))
        setattr(model.get_submodule(parent), attribute, adapters[-1])
    return adapters


def test_every_adapter_is_trained(model):
    adapters = wrap_all(model)
    model.train()(**batch()).loss.backward()
    for adapter in adapters:
        assert adapter.b.weight.grad is not None and adapter.b.weight.grad.abs().sum() > 0


def test_adapters_merged_into_the_weights_are_adapters_called(model):
    """The same loss, and the same tokens, whichever way."""
    merged = copy.deepcopy(model)
    torch.manual_seed(0)
    adapters = wrap_all(model)
    with torch.no_grad():
        for adapter, layer in zip(adapters, linears(merged).values(), strict=True):
            layer.weight += adapter.b.weight @ adapter.a.weight
    for training in (True, False):
        got, expected = (m.train(training)(**batch()).loss for m in (model, merged))
        assert torch.allclose(got, expected, rtol=1e-5)
    if model.can_generate():
        options = {"attention_mask": MASK, "max_new_tokens": 6, "do_sample": False}
        assert torch.equal(model.generate(IDS, **options), merged.generate(IDS, **options))


def test_hooks_on_every_linear_layer_run_in_training_and_in_decoding(model):
    called: set[str] = set()
    for name, layer in linears(model).items():
        layer.register_forward_hook(lambda *_, name=name: called.add(name))
    model.train()(**batch())
    assert called == set(linears(model))
    called.clear()
    if model.can_generate():
        model.eval().generate(IDS, attention_mask=MASK, max_new_tokens=4, do_sample=False)
        assert called == set(linears(model))


@pytest.mark.parametrize("name", MODELS)
def test_what_a_hook_changes_changes_the_loss(name):
    model = build(name)
    expected = model.train()(**batch()).loss
    handle = model.lm_head.register_forward_hook(lambda module, inputs, output: output * 0)
    got = model(**batch()).loss
    assert torch.allclose(got, torch.tensor(24.0).log())  # all words are as likely
    handle.remove()
    assert torch.equal(model(**batch()).loss, expected)


class Halved(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / 2


def test_parametrised_and_pruned_layers(model):
    halved = copy.deepcopy(model)
    with torch.no_grad():
        halved.lm_head.weight /= 2
    parametrize.register_parametrization(model.lm_head, "weight", Halved())
    for training in (True, False):
        got, expected = (m.train(training)(**batch()).loss for m in (model, halved))
        assert torch.allclose(got, expected, rtol=1e-6)
    parametrize.remove_parametrizations(model.lm_head, "weight")
    prune.l1_unstructured(model.lm_head, "weight", amount=0.5)
    model.train()(**batch()).loss.backward()
    pruned = model.lm_head.weight_mask == 0
    assert pruned.any() and not model.lm_head.weight_orig.grad[pruned].any()


def test_what_is_plain():
    layer = nn.Linear(4, 4)
    assert is_plain(layer)
    assert not is_plain(nn.Embedding(4, 4)) and is_plain(nn.Embedding(4, 4), nn.Embedding)
    for register in ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
        handle = getattr(layer, f"register_{register}")(lambda *arguments: None)
        assert not is_plain(layer)
        handle.remove()
        assert is_plain(layer)
    everywhere = nn.modules.module.register_module_forward_hook(lambda *arguments: None)
    assert not is_plain(layer)
    everywhere.remove()
    original, layer.forward = layer.forward, lambda x: x
    assert not is_plain(layer)
    layer.forward = original


# --- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_who_watches_the_embedding_sees_rows_of_time_steps(name):
    model = build(name).train()
    expected, seen = model(**batch()).loss, []
    embedding = model.get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output.shape)))
    assert torch.equal(model(**batch()).loss, expected)
    assert any(torch.equal(ids, IDS) for ids, _ in seen)
    assert all(shape == (*IDS.shape, 8) for _, shape in seen)


def test_positions_and_types_that_are_watched_are_called():
    encoder, transformer = build("encoder"), build("transformer", position_embedding_type="learned")
    watched = [
        encoder.model.embed_types, encoder.model.embed_positions,
        transformer.model.encoder.embed_positions, transformer.model.decoder.embed_positions,
    ]  # fmt: skip
    expected = [m(**batch(), output_hidden_states=False).loss for m in (encoder, transformer)]
    seen = []
    for module in watched:
        module.register_forward_hook(lambda module, *_: seen.append(module))
    got = [m(**batch()).loss for m in (encoder, transformer)]
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert all(module in seen for module in watched)


# --- recurrent layers ------------------------------------------------------------------------------------------------


def recurrent(model_class, config_class, **options):
    model = model_class(config_class(**RECURRENT, **options))
    sharpen(model, 0.4, 0)
    return model.eval()


WAYS = [
    (LSTMForCausalLM, LSTMConfig, {}),
    (GRUForCausalLM, GRUConfig, {}),
    (LSTMForSequenceClassification, LSTMConfig, {"bidirectional": True, "num_labels": 3}),
    (GRUForTokenClassification, GRUConfig, {"bidirectional": True, "num_labels": 3}),
]


@pytest.mark.parametrize(("model_class", "config_class", "options"), WAYS)
def test_recurrent_layers_with_hooks_are_called(model_class, config_class, options):
    """Ragged rows, both sides of padding, one step at a time: the same numbers, through the module."""
    model = recurrent(model_class, config_class, **options)
    inputs = [
        {"input_ids": IDS, "attention_mask": MASK},
        {"input_ids": IDS.flip(1), "attention_mask": MASK.flip(1)},
    ]
    expected = [model(**i).logits for i in inputs]
    calls = []
    model.model.blocks[0].rnn.register_forward_hook(lambda *_: calls.append(1))
    for given, logits in zip(inputs, expected, strict=True):
        assert torch.allclose(model(**given).logits, logits, atol=1e-6)
    assert len(calls) == 2
    if model.can_generate():
        with torch.no_grad():
            model.generate(IDS, attention_mask=MASK, max_new_tokens=3, do_sample=False)
        assert len(calls) >= 5


def test_what_cannot_be_done_between_the_layers_of_a_module_is_refused():
    model = recurrent(LSTMForCausalLM, LSTMConfig, weight_dropout=0.5)
    model.model.blocks[0].rnn.register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="LSTM has hooks.*weight_dropout"):
        model.train()(**batch())
    with pytest.raises(ValueError, match="the output of every layer"):
        model.eval()(**batch(), output_hidden_states=True)


def test_pruned_recurrent_weights_stay_pruned():
    model = recurrent(LSTMForCausalLM, LSTMConfig).train()
    rnn = model.model.blocks[0].rnn
    prune.l1_unstructured(rnn, "weight_hh_l0", amount=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(2):
        model(**batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model(**batch())
    assert not rnn.weight_hh_l0[rnn.weight_hh_l0_mask == 0].any()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("model_class", "config_class", "options"), WAYS)
def test_dynamic_quantisation(model_class, config_class, options):
    """A quarter of the bytes of what is quantised, and nearly the same numbers; `generate` too."""
    model = recurrent(model_class, config_class, **options)
    small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.LSTM, nn.GRU, nn.Linear})
    assert type(small.model.blocks[0].rnn) is not type(model.model.blocks[0].rnn)
    for given in ({"input_ids": IDS, "attention_mask": MASK}, {"input_ids": IDS[:1]}):
        got, expected = small(**given).logits, model(**given).logits
        assert (got - expected).abs().max() < 0.05 * expected.abs().max()
    if model.can_generate():
        options = {"attention_mask": MASK, "max_new_tokens": 4, "do_sample": False}
        assert small.generate(IDS, **options).shape == model.generate(IDS, **options).shape


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["encoder", "transformer", "lstm-seq2seq"])
def test_dynamic_quantisation_of_linear_layers(name):
    model = build(name)
    small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear, nn.LSTM})
    got, expected = (m(**batch()).logits for m in (small, model))
    assert (got - expected).abs().max() < 0.1 * expected.abs().max()
    if model.can_generate():
        with decoding():
            assert small.generate(IDS, attention_mask=MASK, max_new_tokens=4, do_sample=False).shape[0] == 2


def test_a_classifier_reads_its_layers_and_accepts_use_cache():
    model = recurrent(LSTMForSequenceClassification, LSTMConfig, num_labels=3)
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    assert torch.equal(model(**inputs, use_cache=False).logits, model(**inputs).logits)
    encoder = EncoderForSequenceClassification(EncoderConfig(**ENCODER)).eval()
    assert torch.equal(encoder(**inputs, use_cache=False).logits, encoder(**inputs).logits)
