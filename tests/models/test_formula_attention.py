"""Attention in 16 bits on a CPU: by the formula where gradients are wanted, with what the fused kernel gives."""

import pytest
import torch
import torch.nn.functional as F

from hfseq import EncoderConfig, EncoderForMaskedLM, TransformerConfig, TransformerForSeq2SeqLM
from hfseq.models import attention as module
from hfseq.models.attention import Segments, attention, formula_pays, mask_pays

SHAPE = (2, 3, 7, 8)
SEEN = torch.rand(2, 1, 7, 7, generator=torch.Generator().manual_seed(3)) > 0.4
SEEN[..., 0] = True
MASKS = {
    "none": None,
    "bool": SEEN,
    "added": torch.where(SEEN, 0.0, -1e9).to(torch.bfloat16),
}


def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator).to(torch.bfloat16).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", MASKS)
def test_as_the_fused_kernel(mask, causal):
    if causal and mask != "none":
        pytest.skip("a causal call has no mask")
    query, key, value = tensors()
    assert formula_pays(query)
    found = attention(query, key, value, MASKS[mask], 0.3, causal=causal)
    expected = F.scaled_dot_product_attention(
        *(t.float() for t in (query, key, value)),
        MASKS[mask] if mask != "added" else MASKS[mask].float(), scale=0.3, is_causal=causal,
    )  # fmt: skip
    assert (found.float() - expected).abs().max() < 0.03
    for one, other in zip(
        torch.autograd.grad(found.float().square().sum(), (query, key, value)),
        torch.autograd.grad(expected.square().sum(), (query, key, value)), strict=True,
    ):  # fmt: skip
        assert torch.cosine_similarity(one.flatten().float(), other.flatten().float(), dim=0) > 0.999


def test_only_where_it_pays():
    query, *_ = tensors()
    with torch.no_grad():
        assert not formula_pays(query)
    assert not formula_pays(query.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert formula_pays(query.float())


def test_dropout_falls_on_the_weights():
    torch.manual_seed(0)
    query, key, value = tensors()
    kept = attention(query, key, value, None, 0.3)
    assert not torch.equal(attention(query, key, value, None, 0.3, dropout=0.5), kept)
    assert attention(query, key, value, None, 0.3, dropout=1.0).abs().max() == 0


def test_short_rows_of_many_segments_take_the_mask():
    x = torch.zeros(4, 128, 16, dtype=torch.bfloat16, requires_grad=True)
    many = torch.arange(0, 513, 32, dtype=torch.int32)
    assert mask_pays(Segments(many, many, 32, 32), x, heads=4)
    rows = torch.arange(0, 513, 128, dtype=torch.int32)  # as many scores, and calls that the mask spares
    assert mask_pays(Segments(rows, rows, 128, 128), x, heads=4)
    long = torch.zeros(1, 4096, 16, dtype=torch.bfloat16, requires_grad=True)
    few = torch.arange(0, 4097, 1024, dtype=torch.int32)
    assert not mask_pays(Segments(few, few, 1024, 1024), long, heads=4)
    assert not mask_pays(Segments(many, many, 32, 32), x.float(), heads=4)


def test_packed_rows_are_the_same_by_mask_and_by_segment(monkeypatch):
    torch.manual_seed(0)
    model = EncoderForMaskedLM(
        EncoderConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            position_embedding_type="rotary", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            initializer_range=0.5,
        )
    ).to(torch.bfloat16)  # fmt: skip
    ids = torch.randint(5, 40, (2, 12))
    labels = torch.where(torch.rand(2, 12) < 0.4, ids, -100)
    losses = []
    for by_mask in (False, True):
        monkeypatch.setattr("hfseq.models.modeling_encoder.mask_pays", lambda *_, answer=by_mask: answer)
        loss = model(input_ids=ids, labels=labels, position_ids=torch.arange(4).repeat(2, 3)).loss
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    unpacked = float(model(input_ids=ids, labels=labels).loss.detach())
    assert abs(unpacked - losses[0]) > 1e-3  # segments matter


def test_a_translator_trains_alike_by_both(monkeypatch):
    """Causal self-attention, cross-attention to padded sources."""
    torch.manual_seed(0)
    sides = {f"{s}_{w}": n for s in ("encoder", "decoder")
             for w, n in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))}  # fmt: skip
    config = TransformerConfig(vocab_size=40, d_model=16, dropout=0.0, pad_token_id=0, **sides)
    model = TransformerForSeq2SeqLM(config)
    source = torch.randint(3, 40, (2, 9))
    mask = torch.ones_like(source)
    mask[1, 5:] = 0
    labels = torch.randint(3, 40, (2, 6))
    found = []
    for pays in (formula_pays, lambda x: False):
        monkeypatch.setattr(module, "formula_pays", pays)
        monkeypatch.setattr("hfseq.models.attention_layer.formula_pays", pays)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=source, attention_mask=mask, labels=labels).loss
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((float(loss.detach()), gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=0.01)
    assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.99
