"""Attention maps: the model's own weights, with the right tokens, as a picture."""

from __future__ import annotations

import pytest
import torch

from hfseq import (
    LSTMConfig,
    LSTMForCausalLM,
    LSTMForSeq2SeqLM,
    LSTMSeq2SeqConfig,
    PervasiveConfig,
    PervasiveForSeq2SeqLM,
    TransformerConfig,
    TransformerForSeq2SeqLM,
    data,
)
from hfseq.attention_maps import attention_maps, readable_tokens
from hfseq.contracts.cases import sharpen
from hfseq.plots import plot_attention, plot_side_by_side

SENTENCE = "Zwei Männer gehen."


@pytest.fixture(scope="module")
def tokenizer():
    return data.train_tokenizer(
        [f"Zwei Männer gehen {n} mal." for n in range(9)], "bpe", 290, translation=True
    )


@pytest.fixture(scope="module")
def model(tokenizer):
    config = TransformerConfig(
        d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=40,
        decoder_start_token_id=tokenizer.bos_token_id, **data.tokenizer_config_fields(tokenizer),
    )  # fmt: skip
    model = TransformerForSeq2SeqLM(config)
    with torch.no_grad():
        sharpen(model, 0.6, seed=0)
    return model.eval()


def test_cross_attention_is_that_of_the_tokens_produced(model, tokenizer):
    maps = attention_maps(model, tokenizer, SENTENCE, max_length=9, no_repeat_ngram_size=1)
    assert model.config._attn_implementation == "sdpa" and not model.training
    inputs = tokenizer(SENTENCE, return_tensors="pt")
    ids = model.generate(**inputs, max_length=9, no_repeat_ngram_size=1)
    assert maps.columns == readable_tokens(tokenizer, inputs["input_ids"][0].tolist())
    assert maps.lines == readable_tokens(tokenizer, ids[0, 1:].tolist())
    assert maps.weights.shape == (2, 2, len(maps.lines), len(maps.columns))
    # By hand, in the first layer: what one position asks, of what the encoder says.
    layer = model.model.decoder.layers[0].cross_attention
    seen = []
    handles = [
        p.register_forward_hook(lambda m, i, out: seen.append(out)) for p in (layer.q_proj, layer.k_proj)
    ]
    model(**inputs, decoder_input_ids=ids[:, :-1])
    for handle in handles:
        handle.remove()
    q, k = (t[0].unflatten(-1, (2, 8)).transpose(0, 1) for t in seen)  # [heads, time, width]
    expected = (q @ k.transpose(1, 2) * 8**-0.5).softmax(-1)
    torch.testing.assert_close(maps.weights[0], expected)


def test_self_attention_of_both_sides(model, tokenizer):
    target = "Zwei gehen"
    encoder = attention_maps(model, tokenizer, SENTENCE, "encoder", target=target)
    assert encoder.lines == encoder.columns and encoder.lines[0] == "Zwei" and encoder.lines[-1] == "</s>"
    assert encoder.weights.shape == (1, 4, len(encoder.lines), len(encoder.lines))
    decoder = attention_maps(model, tokenizer, SENTENCE, "decoder", target=target)
    assert decoder.lines == decoder.columns == ["<s>", "Zwei", "gehen"]
    assert decoder.weights.shape == (2, 2, 3, 3) and not decoder.weights.triu(1).any()
    cross = attention_maps(model, tokenizer, SENTENCE, target=target)
    assert cross.lines == ["Zwei", "gehen", "</s>"]


def test_alignment_of_a_maximum(tokenizer):
    """Shares of the channels that each source position wins (the picture of Elbayad et al. 2018), counted by hand."""
    config = PervasiveConfig(
        embedding_size=8, num_hidden_layers=2, growth_size=5, decoder_start_token_id=tokenizer.bos_token_id,
        **data.tokenizer_config_fields(tokenizer),
    )  # fmt: skip
    model = PervasiveForSeq2SeqLM(config)
    sharpen(model, 0.6, seed=0)
    grids = []
    handle = model.model.decoder.grid.aggregation.register_forward_pre_hook(
        lambda module, inputs: grids.append(inputs[0])
    )
    maps = attention_maps(model.eval(), tokenizer, SENTENCE, target="Zwei gehen")
    handle.remove()
    assert maps.lines == ["Zwei", "gehen", "</s>"] and maps.weights.shape == (1, 1, 3, len(maps.columns))
    (cells,) = grids  # [1, target, source, channels]
    for line, row in enumerate(cells[0]):
        # a channel that is zero everywhere (ReLU) has no winner
        channels = [[float(cell[c]) for cell in row] for c in range(row.shape[-1])]
        winners = [values.index(max(values)) for values in channels if values.count(max(values)) == 1]
        assert 0 < len(winners) < len(channels)
        expected = [winners.count(place) / len(winners) for place in range(len(row))]
        assert maps.weights[0, 0, line].tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="no self-attention of its encoder"):
        attention_maps(model, tokenizer, SENTENCE, "encoder", target="Zwei")


def recurrent(tokenizer, **fields):
    config = LSTMSeq2SeqConfig(
        embedding_size=8, hidden_size=8, encoder_layers=1, decoder_layers=2,
        decoder_start_token_id=tokenizer.bos_token_id, **data.tokenizer_config_fields(tokenizer), **fields,
    )  # fmt: skip
    model = LSTMForSeq2SeqLM(config)
    sharpen(model, 0.6, seed=0)
    return model.eval()


@pytest.mark.parametrize("position", ["first", "last"])
def test_attention_of_a_recurrent_model_is_one_head(tokenizer, position):
    model = recurrent(tokenizer, attention_position=position)
    maps = attention_maps(model, tokenizer, SENTENCE, max_length=9, no_repeat_ngram_size=1)
    inputs = tokenizer(SENTENCE, return_tensors="pt")
    ids = model.generate(**inputs, max_length=9, no_repeat_ngram_size=1)
    assert maps.lines == readable_tokens(tokenizer, ids[0, 1:].tolist())
    assert maps.weights.shape == (1, 1, len(maps.lines), inputs["input_ids"].shape[1])
    torch.testing.assert_close(maps.weights.sum(-1), torch.ones(1, 1, len(maps.lines)))
    (expected,) = model(**inputs, decoder_input_ids=ids[:, :-1], output_attentions=True).cross_attentions
    torch.testing.assert_close(maps.weights, expected.detach())
    with pytest.raises(ValueError, match="LSTMForSeq2SeqLM has no self-attention of its encoder"):
        attention_maps(model, tokenizer, SENTENCE, "encoder")


def test_a_model_without_attention_has_none_to_draw(tokenizer):
    with pytest.raises(ValueError, match="config.attention is None"):
        attention_maps(recurrent(tokenizer, attention=None), tokenizer, SENTENCE)


def test_a_part_of_a_character_keeps_its_name(tokenizer):
    ids = tokenizer("Männer ☃")["input_ids"]
    texts = readable_tokens(tokenizer, ids)
    assert texts[0] == "Männer" and len(texts) == len(ids)
    assert not any("\ufffd" in text or not text for text in texts)


def test_the_picture(model, tokenizer, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hfseq[report]'")
    from matplotlib.image import imread

    maps = attention_maps(model, tokenizer, SENTENCE, max_length=9)
    path = plot_attention(maps, tmp_path / "maps.png")
    pixels = imread(path)
    assert pixels.shape[0] > 300 and pixels.shape[1] > 300 and pixels[..., :3].std() > 0.05


def test_side_by_side_a_model_is_the_mean_of_its_heads(model, tokenizer, tmp_path, monkeypatch):
    figure = pytest.importorskip(
        "matplotlib.figure", reason="matplotlib is not installed: pip install 'hfseq[report]'"
    )
    drawn = []

    class Figure(figure.Figure):
        def savefig(self, *args, **kwargs):
            drawn.append(self)
            super().savefig(*args, **kwargs)

    monkeypatch.setattr(figure, "Figure", Figure)
    many = attention_maps(model, tokenizer, SENTENCE, target="Zwei gehen")
    one = attention_maps(recurrent(tokenizer), tokenizer, SENTENCE, target="Zwei gehen")
    path = plot_side_by_side({"transformer": many, "lstm": one}, tmp_path / "both.png")
    assert path.exists()
    first, second = drawn[0].axes[:2]
    torch.testing.assert_close(torch.tensor(first.images[0].get_array().data), many.weights[0].mean(0))
    torch.testing.assert_close(torch.tensor(second.images[0].get_array().data), one.weights[0, 0])
    assert (
        first.get_title() == "transformer\nlayer 1 of 2, mean of 2 heads" and second.get_title() == "lstm\n"
    )
    with pytest.raises(ValueError, match="no attention maps"):
        plot_side_by_side({}, path)


def test_what_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="Unknown kind of attention 'both': choose one of cross"):
        attention_maps(model, tokenizer, SENTENCE, "both")
    with pytest.raises(ValueError, match="the text is blank"):
        attention_maps(model, tokenizer, "  ")
    other = LSTMForCausalLM(LSTMConfig(vocab_size=8, embedding_size=4, hidden_size=4, num_hidden_layers=1))
    with pytest.raises(ValueError, match="LSTMForCausalLM is no encoder-decoder"):
        attention_maps(other, tokenizer, SENTENCE)
