"""Texts that begin with a vector: what it does to the states, in training and however one generates."""

import pytest
import torch
from torch import nn

import hfseq
from hfseq.models.modeling_recurrent import FeatureProjection

CELLS = ("LSTM", "GRU", "RNN")
SIZES = {
    "vocab_size": 30, "embedding_size": 6, "hidden_size": 7, "num_hidden_layers": 3, "last_hidden_size": 5,
    "feature_size": 4, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def make(cell, head="ForCausalLM", **fields):
    torch.manual_seed(0)
    model = getattr(hfseq, f"{cell}{head}")(getattr(hfseq, f"{cell}Config")(**{**SIZES, **fields}))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    model.tie_weights()
    return model.double().eval()


def inputs(rows=3, time=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 30, (rows, time), generator=generator)
    return ids, torch.randn(rows, 4, generator=generator, dtype=torch.double)


@pytest.mark.parametrize("cell", CELLS)
def test_layers_begin_with_an_affine_map_of_the_vector_through_tanh_for_h(cell):
    """Layer by layer in torch's own modules, from states computed by hand."""
    model = make(cell)
    ids, features = inputs()
    linear = model.model.feature_projection.linear
    projected = features @ linear.weight.t() + linear.bias
    x, used = model.model.embed_tokens(ids), 0
    for block in model.model.blocks:
        state = []
        for number in range(block.state_tensors):
            width = block.num_layers * block.hidden_size
            part = projected[:, used : used + width].view(3, block.num_layers, block.hidden_size)
            used += width
            state.append((part.tanh() if number == 0 else part).transpose(0, 1).contiguous())
        x, _ = block.rnn(x.transpose(0, 1), tuple(state) if len(state) == 2 else state[0])
        x = x.transpose(0, 1)
    assert used == projected.shape[1]
    with torch.no_grad():
        output = model.model(ids, features=features).last_hidden_state
    torch.testing.assert_close(output, x.detach())


def test_the_logits_are_as_long_as_the_ids_and_depend_on_the_vector():
    model = make("LSTM")
    ids, features = inputs()
    with torch.no_grad():
        logits = model(ids, features=features).logits
        others = model(ids, features=features.roll(1, 0)).logits
    assert logits.shape == (3, 5, 30)
    assert (logits - others).abs().amax((1, 2)).min() > 1e-2


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_reach_the_projection_and_the_vector(cell):
    model = make(cell).train()
    ids, features = inputs()
    features.requires_grad_()
    model(ids, features=features, labels=ids).loss.backward()
    assert model.model.feature_projection.linear.weight.grad.abs().amin() > 0
    assert features.grad.abs().amin() > 0  # an encoder in front of it would learn


@pytest.mark.parametrize("cell", CELLS)
def test_a_filled_cache_does_not_look_at_the_vector(cell):
    model = make(cell)
    ids, features = inputs()
    with torch.no_grad():
        whole = model(ids, features=features).logits
        first = model(ids[:, :2], features=features, use_cache=True)
        for given in (features, torch.full_like(features, torch.nan), features[:1], None):
            cache = model(ids[:, :2], features=features, use_cache=True).past_key_values
            rest = model(ids[:, 2:], features=given, past_key_values=cache).logits
            torch.testing.assert_close(torch.cat([first.logits, rest], 1), whole)


def test_left_padding_and_the_vector():
    """A row's padding must not use up its first state, in one piece or in several."""
    model = make("LSTM")
    ids, features = inputs()
    padded = torch.cat([torch.zeros(3, 2, dtype=torch.long), ids], 1)
    mask = (torch.arange(7) >= 2).long().expand(3, 7)
    with torch.no_grad():
        expected = model(ids, features=features).logits
        torch.testing.assert_close(
            model(padded, attention_mask=mask, features=features).logits[:, 2:], expected
        )
        # the first piece is padding alone
        first = model(padded[:, :2], attention_mask=mask[:, :2], features=features, use_cache=True)
        rest = model(padded[:, 2:], attention_mask=mask, past_key_values=first.past_key_values)
    torch.testing.assert_close(rest.logits, expected)


@pytest.mark.parametrize("cell", CELLS)
def test_every_way_to_generate_keeps_each_vector_with_its_row(cell):
    """Rows together, with beams and several returns, are what each row gives alone."""
    model = make(cell)
    _, features = inputs(rows=4)
    begin = torch.ones(4, 1, dtype=torch.long)
    options = {"max_new_tokens": 8, "min_new_tokens": 8}
    for more in ({}, {"num_beams": 4, "num_return_sequences": 3}, {"use_cache": False, "num_beams": 2}):
        together = model.generate(begin, features=features, **options, **more)
        returns = more.get("num_return_sequences", 1)
        assert len(together) == 4 * returns
        for row in range(4):
            alone = model.generate(begin[:1], features=features[row : row + 1], **options, **more)
            assert alone.tolist() == together[row * returns : (row + 1) * returns].tolist()
    torch.manual_seed(0)
    sampled = model.generate(begin, features=features, do_sample=True, num_return_sequences=2, **options)
    torch.manual_seed(0)
    by_hand = model.generate(
        begin.repeat_interleave(2, 0), features=features.repeat_interleave(2, 0), do_sample=True, **options
    )
    assert sampled.tolist() == by_hand.tolist()
    assert len({tuple(row) for row in model.generate(begin, features=features, **options).tolist()}) > 1


def test_assisted_decoding_with_a_vector():
    model, assistant = make("LSTM"), make("GRU")
    _, features = inputs(rows=1)
    begin = torch.ones(1, 1, dtype=torch.long)
    options = {"features": features, "max_new_tokens": 12, "min_new_tokens": 12}
    plain = model.generate(begin, **options)
    assert model.generate(begin, assistant_model=assistant, **options).tolist() == plain.tolist()
    assert model.generate(begin, assistant_model=model, **options).tolist() == plain.tolist()


def test_saved_and_loaded_with_the_projection(tmp_path):
    model = make("GRU")
    model.save_pretrained(tmp_path)
    loaded = hfseq.GRUForCausalLM.from_pretrained(tmp_path).eval()
    ids, features = inputs()
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.double()(ids, features=features).logits, model(ids, features=features).logits
        )


def test_a_classifier_takes_a_vector_beside_its_text():
    model = make("LSTM", "ForSequenceClassification", bidirectional=True, last_hidden_size=None, num_labels=3)
    ids, features = inputs()
    with torch.no_grad():
        logits = model(ids, features=features).logits
        others = model(ids, features=-features).logits
    assert logits.shape == (3, 3) and (logits - others).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "feature_size 4.*pass features \\[3, 4\\]"),
        (torch.zeros(3, 5), "\\[3, 4\\], not \\[3, 5\\]"),
        (torch.zeros(2, 4), "\\[3, 4\\], not \\[2, 4\\]"),
        (torch.zeros(4), "\\[3, 4\\], not \\[4\\]"),
        (torch.zeros(3, 4).long(), "floats.*int64"),
        ([[0.0] * 4] * 3, "floats.*list"),
    ],
)
def test_wrong_features_are_refused_by_name(given, words):
    model = make("LSTM")
    with pytest.raises((ValueError, TypeError), match=words):
        model(inputs()[0], features=given)


def test_features_are_refused_where_they_have_no_place():
    ids, features = inputs()
    with pytest.raises(ValueError, match="feature_size is 0"):
        make("LSTM", feature_size=0)(ids, features=features)
    with pytest.raises(ValueError, match="stream_id.*FeaturePlan"):
        make("LSTM")(ids, features=features, stream_id=torch.arange(3))
    with pytest.raises(ValueError, match="pass features"):
        make("LSTM").generate(ids, max_new_tokens=2)
    with pytest.raises(Exception, match="feature_size.*-1"):
        hfseq.LSTMConfig(feature_size=-1)


def test_no_vector_no_parameters():
    model = hfseq.LSTMForCausalLM(hfseq.LSTMConfig(**{**SIZES, "feature_size": 0}))
    assert model.model.feature_projection is None
    assert not [name for name in model.state_dict() if "feature" in name]


def test_the_order_of_states_in_the_projection():
    blocks = make("LSTM").model.blocks
    projection = FeatureProjection(4, blocks)
    assert projection.sizes == [14, 14, 5, 5]  # h and c of two layers of 7, then of one of 5
    states = projection(torch.randn(3, 4))
    assert [tuple(t.shape) for state in states for t in state] == [(2, 3, 7), (2, 3, 7), (1, 3, 5), (1, 3, 5)]
