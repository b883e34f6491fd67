"""Weights in another layout give the same products, and no copy outlives the decoding it was made for."""

import pytest
import torch
from torch import nn

from hfseq import GRUConfig, GRUForCausalLM, LSTMConfig, LSTMForCausalLM, RNNConfig, RNNForCausalLM
from hfseq.models import layouts
from hfseq.models.layouts import PRODUCTS_OF_MORE_ROWS, PRODUCTS_OF_ONE_ROW, decoding, linear, one_row_weight

ENOUGH = 2 + max(PRODUCTS_OF_ONE_ROW, PRODUCTS_OF_MORE_ROWS)
blocks = pytest.mark.skipif(not layouts.HAS_BLOCKS, reason="this torch has no oneDNN layouts")


@pytest.fixture(autouse=True)
def small_matrices_count_too(monkeypatch):
    monkeypatch.setattr(layouts, "SMALLEST", 1)


def copies() -> dict[str, int]:
    """How many copies of each kind the running decoding has."""
    current = layouts._current.get()
    kinds = {"columns": current._columns, "blocks": current._blocks}
    return {kind: sum(copy is not None for *_, copy in made.values()) for kind, made in kinds.items()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(12,), (1, 12), (1, 1, 12), (3, 1, 12), (2, 5, 12)])
@torch.no_grad()
def test_products_are_the_same_in_every_layout(shape, bias):
    layer = nn.Linear(12, 70, bias=bias)
    with decoding():
        for use in range(ENOUGH):
            x = torch.randn(shape)
            torch.testing.assert_close(linear(layer, x), layer(x), msg=f"use {use}")
        one_row = x.numel() == 12
        assert copies() == {"columns": one_row, "blocks": layouts.HAS_BLOCKS and not one_row}


@torch.no_grad()
def test_a_short_decoding_copies_nothing():
    layer, row, rows = nn.Linear(4, 6), torch.randn(1, 4), torch.randn(5, 4)
    with decoding():
        for _ in range(PRODUCTS_OF_ONE_ROW):
            linear(layer, row)
        for _ in range(PRODUCTS_OF_MORE_ROWS):
            linear(layer, rows)
        assert copies() == {"columns": 0, "blocks": 0}
        linear(layer, row)
        assert copies() == {"columns": 1, "blocks": 0}


@torch.no_grad()
def test_small_matrices_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(layouts, "SMALLEST", 25)
    with decoding():
        for layer in (nn.Linear(4, 6), nn.Linear(5, 5)):
            for _ in range(ENOUGH):
                linear(layer, torch.randn(1, layer.in_features))
        assert copies() == {"columns": 1, "blocks": 0}


@pytest.mark.parametrize("rows", [1, pytest.param(5, marks=blocks)])
@torch.no_grad()
def test_copies_end_with_the_decoding(rows):
    layer, x = nn.Linear(4, 6), torch.randn(rows, 4)
    with pytest.raises(KeyboardInterrupt), decoding():
        for _ in range(ENOUGH):
            linear(layer, x)
        with decoding():  # an inner one, as generate() within a loop of steps, ends nothing
            linear(layer, x)
        assert sum(copies().values()) == 1
        raise KeyboardInterrupt
    assert layouts._current.get() is None
    layer.weight.zero_()
    with decoding():
        for _ in range(ENOUGH):
            torch.testing.assert_close(linear(layer, x), layer.bias.expand(rows, -1))


def test_what_is_no_plain_product_keeps_its_own_way():
    class Adapted(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    hooked = nn.Linear(4, 4)
    hooked.register_forward_hook(lambda layer, x, output: output + 1)
    adapted = Adapted(4, 4)
    with decoding():
        for layer in (hooked, adapted):
            for _ in range(ENOUGH):
                x = torch.randn(1, 4)
                with torch.no_grad():
                    torch.testing.assert_close(linear(layer, x), layer(x))
        double = nn.Linear(4, 4).double()
        plain = nn.Linear(4, 4)
        for _ in range(ENOUGH):
            with torch.no_grad():
                linear(double, torch.randn(1, 4).double())
                linear(nn.Linear(4, 4, device="meta"), torch.randn(1, 4, device="meta"))
            linear(plain, torch.randn(1, 4)).sum().backward()  # gradients are wanted
        assert copies() == {"columns": 0, "blocks": 0}
        assert plain.weight.grad is not None


@pytest.mark.parametrize(
    ("model_class", "config_class"),
    [(RNNForCausalLM, RNNConfig), (GRUForCausalLM, GRUConfig), (LSTMForCausalLM, LSTMConfig)],
)
@torch.no_grad()
def test_steps_of_recurrent_models_are_the_same(model_class, config_class):
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = config_class(vocab_size=40, embedding_size=8, hidden_size=10, num_hidden_layers=2, **special)
    model = model_class(config).eval()
    ids = torch.randint(3, 40, (1, ENOUGH + 4))
    expected = model(ids).logits[0]
    cache, steps = None, []
    with decoding():
        for token in ids[0]:
            output = model(token.view(1, 1), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            steps.append(output.logits[0, 0])
        # Two matrices of each of two layers, that to the embedding's width, the output layer.
        assert copies() == {"columns": 2 * 2 + 2, "blocks": 0}
    torch.testing.assert_close(torch.stack(steps), expected)
    block = model.model.blocks[0]
    assert one_row_weight(block.rnn.weight_hh_l0, torch.randn(1, 10)) is block.rnn.weight_hh_l0


def test_generate_is_a_decoding():
    config = LSTMConfig(vocab_size=40, embedding_size=8, hidden_size=8, num_hidden_layers=1, pad_token_id=0)
    model, seen = LSTMForCausalLM(config).eval(), []

    def stop(ids, scores):
        seen.append(layouts._current.get())
        return scores

    model.generate(torch.tensor([[3]]), max_new_tokens=2, eos_token_id=None, logits_processor=[stop])
    assert len(seen) == 2 and seen[0] is seen[1] is not None
    assert layouts._current.get() is None
