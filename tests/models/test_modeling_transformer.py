"""The Transformer against what shares nothing with it: torch.nn.Transformer, the paper's formulas, each pair alone.

Parity with transformers' Marian, on random weights, is tested in tests/convert/test_marian.py.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache, set_seed
from transformers.modeling_outputs import BaseModelOutput

from hfseq import TransformerConfig, TransformerForSeq2SeqLM, TransformerModel
from hfseq.contracts.cases import sharpen
from hfseq.models import attention_layer, modeling_transformer
from hfseq.models.modeling_transformer import TransformerDecoder

SIZES = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "max_position_embeddings": 24,
    "dropout": 0.0, "label_smoothing": 0.0,
}  # fmt: skip
MODERN = {
    "pre_norm": True, "position_embedding_type": "rotary", "gated_mlp": True, "activation_function": "silu",
    "output_bias": True,
}  # fmt: skip
APART = {
    "position_embedding_type": "learned", "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50,
    "tie_word_embeddings": False, "scale_embedding": False,
}  # fmt: skip
VARIANTS = {"paper": {}, "modern": MODERN, "learned, two vocabularies": APART}
ROWS, SOURCE, TARGET = 3, 12, 10
GENERATOR = torch.Generator().manual_seed(1)
IDS = torch.randint(3, 40, (ROWS, SOURCE), generator=GENERATOR)
MASK = torch.tensor([[1] * SOURCE, [1] * 9 + [0] * 3, [1] * 2 + [0] * 10])
LABELS = torch.randint(3, 40, (ROWS, TARGET), generator=GENERATOR)
LABELS[0, 6:] = LABELS[2, 9:] = -100
BATCH = {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}


@pytest.fixture(params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


def build(model_class=TransformerForSeq2SeqLM, attn="sdpa", seed=0, std=0.4, **fields):
    model = model_class(TransformerConfig(**{**SIZES, **fields}, attn_implementation=attn))
    with torch.no_grad():
        sharpen(model, std, seed)
    return model.double().eval()


def loss_and_gradients(model, loss):
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return loss.detach(), found


def require_same(got, expected, tolerance=1e-9):
    (loss, gradients), (reference, expected_gradients) = got, expected
    assert abs(loss - reference) <= tolerance * abs(reference)
    assert gradients.keys() == expected_gradients.keys()
    largest = max(float(g.abs().max()) for g in expected_gradients.values())
    assert largest > 1e-3 and math.isfinite(largest)
    for name, gradient in expected_gradients.items():
        assert (gradients[name] - gradient).abs().max() <= tolerance * largest, name


def close(got, expected, tolerance=1e-10):
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance


def left(ids, mask):
    """The same rows with their padding on the left."""
    return torch.stack([i.roll(int((m == 0).sum())) for i, m in zip(ids, mask, strict=True)]), mask.flip(1)


# --- torch.nn.Transformer of the same shape, random weights ------------------------------------------------
def torch_layers(model: TransformerModel) -> tuple[nn.TransformerEncoder, nn.TransformerDecoder]:
    """torch's encoder and decoder with our weights; where norms come last, without the one that torch would add."""
    config = model.config
    options = {"dropout": 0.0, "activation": F.relu, "batch_first": True, "norm_first": config.pre_norm}
    width = config.d_model
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(width, config.encoder_attention_heads, config.encoder_ffn_dim, **options),
        config.encoder_layers,
        nn.LayerNorm(width) if config.pre_norm else None,
        enable_nested_tensor=False,
    ).double()
    decoder = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(width, config.decoder_attention_heads, config.decoder_ffn_dim, **options),
        config.decoder_layers,
        nn.LayerNorm(width) if config.pre_norm else None,
    ).double()
    copy_layers(model.encoder, encoder, {"self_attn": "attention"})
    copy_layers(model.decoder, decoder, {"self_attn": "attention", "multihead_attn": "cross_attention"})
    return encoder, decoder


@torch.no_grad()
def copy_layers(ours, theirs, attentions: dict[str, str]) -> None:
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        for theirs_name, ours_name in attentions.items():
            source, target = getattr(mine, ours_name), getattr(other, theirs_name)
            parts = [source.q_proj, source.k_proj, source.v_proj]
            target.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            target.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            target.out_proj.load_state_dict(source.o_proj.state_dict())
        other.linear1.load_state_dict(mine.mlp.up_proj.state_dict())
        other.linear2.load_state_dict(mine.mlp.down_proj.state_dict())
        residuals = [*attentions.values(), "mlp"]
        for number, name in enumerate(residuals, 1):
            norm = getattr(mine, f"{name}_residual").norm
            getattr(other, f"norm{number}").load_state_dict(norm.state_dict())
    if theirs.norm is not None:
        theirs.norm.load_state_dict(ours.final_norm.state_dict())


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_it_is_torchs_transformer(pre_norm, attn):
    model = build(TransformerModel, attn, pre_norm=pre_norm)
    encoder, decoder = torch_layers(model)
    target_ids = LABELS.clamp(min=0)
    table = model.encoder.embed_positions.table
    embed = model.encoder.embed_tokens
    source = embed(IDS) * 4.0 + table[:SOURCE]  # sqrt(d_model)
    target = embed(target_ids) * 4.0 + table[:TARGET]
    hidden = MASK == 0
    causal = torch.ones(TARGET, TARGET, dtype=torch.bool).triu(1)
    encoded = encoder(source, src_key_padding_mask=hidden)
    decoded = decoder(target, encoded, tgt_mask=causal, memory_key_padding_mask=hidden)
    got = model(input_ids=IDS, attention_mask=MASK, decoder_input_ids=target_ids)
    close(got.encoder_last_hidden_state[~hidden], encoded[~hidden])
    close(got.last_hidden_state, decoded)
    assert decoded.std() > 0.5


def test_logits_are_products_with_the_embedding():
    model = build(output_bias=True)
    got = model(**BATCH)
    start = torch.cat([torch.ones(ROWS, 1).long(), LABELS[:, :-1].clamp(min=0)], 1)  # <s>, pad for -100
    hidden = model.model(input_ids=IDS, attention_mask=MASK, decoder_input_ids=start).last_hidden_state
    close(got.logits, hidden @ model.model.encoder.embed_tokens.weight.T + model.lm_head.bias)


# --- positions ---------------------------------------------------------------------------------------------
def paper_positions(positions: int, width: int) -> torch.Tensor:
    """PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) = cos(the same), in double precision."""
    table = torch.zeros(positions, width, dtype=torch.float64)
    for position in range(positions):
        for i in range(width // 2):
            angle = position / 10000 ** (2 * i / width)
            table[position, 2 * i], table[position, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return table


def test_sinusoidal_positions_are_the_papers():
    expected = paper_positions(24, 16)
    interleaved = TransformerModel(TransformerConfig(**SIZES, interleaved_positions=True))
    halves = TransformerModel(TransformerConfig(**SIZES))
    for stack in (interleaved.encoder, interleaved.decoder):
        close(stack.embed_positions.table.double(), expected, 1e-7)
    order = [*range(0, 16, 2), *range(1, 16, 2)]
    for stack in (halves.encoder, halves.decoder):
        close(stack.embed_positions.table.double(), expected[:, order], 1e-7)


def test_both_orders_of_columns_are_one_model():
    """With the columns of everything that reads or writes the residual stream permuted likewise."""
    halves = build(TransformerModel, seed=3)
    interleaved = build(TransformerModel, seed=3, interleaved_positions=True)
    order = torch.tensor([c for pair in zip(range(8), range(8, 16), strict=True) for c in pair])
    weights = {}
    for name, value in halves.state_dict().items():
        reads = any(p in name for p in ("q_proj.w", "k_proj.w", "v_proj.w", "up_proj.w", "embed_tokens"))
        writes = any(p in name for p in ("o_proj", "down_proj", "norm"))
        weights[name] = value[:, order] if reads else value[order] if writes else value
    interleaved.load_state_dict(weights)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": LABELS.clamp(min=0)}
    close(interleaved(**inputs).last_hidden_state, halves(**inputs).last_hidden_state[..., order])


def test_rotary_positions_are_relative(variant):
    """In a rotary model nothing depends on where a sentence stands, in the others it does."""
    model = build(**variant)
    target = {"decoder_input_ids": LABELS[:, :5].clamp(min=0), "attention_mask": torch.ones_like(IDS)}
    places = torch.arange(SOURCE).expand(ROWS, -1)
    a, b = (model(input_ids=IDS, position_ids=places + shift, **target).logits for shift in (0, 7))
    assert ((a - b).abs().max() < 1e-9) == (model.config.position_embedding_type == "rotary")


# --- padding -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_a_padded_source_gives_what_it_gives_alone(variant, side, attn):
    model = build(attn=attn, **variant)
    ids, mask = (IDS, MASK) if side == "right" else left(IDS, MASK)
    ids = ids.masked_fill(mask == 0, 7)  # whatever stands there
    target = LABELS.clamp(min=0)
    together = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target)
    for row in range(ROWS):
        alone = model(
            input_ids=IDS[row : row + 1, : MASK[row].sum()], decoder_input_ids=target[row : row + 1]
        )
        close(together.logits[row], alone.logits[0])
        encoded = together.encoder_last_hidden_state[row, mask[row].bool()]
        close(encoded, alone.encoder_last_hidden_state[0])


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
def test_a_left_padded_target_gives_what_it_gives_alone(variant, attn):
    model = build(attn=attn, **variant)
    target_mask = torch.ones(ROWS, TARGET, dtype=torch.long)
    target_mask[0, 6:] = target_mask[1, 3:] = 0
    target, moved = left(LABELS.clamp(min=0), target_mask)
    source = {"input_ids": IDS, "attention_mask": MASK}
    got = model(**source, decoder_input_ids=target, decoder_attention_mask=moved).logits
    plain = model(**source, decoder_input_ids=LABELS.clamp(min=0)).logits
    for row in range(ROWS):
        close(got[row, moved[row].bool()], plain[row, target_mask[row].bool()])


@pytest.mark.parametrize("beams", [1, 5])
def test_generation_does_not_depend_on_padding_or_neighbours(variant, beams):
    model = build(std=0.7, **variant)
    options = {"num_beams": beams, "num_return_sequences": beams, "max_length": 14, "do_sample": False}
    options |= {
        "length_penalty": 0.7,
        "no_repeat_ngram_size": 1,
    }  # else a tied model says one word again and again
    alone = []
    for row in range(ROWS):
        alone += model.generate(IDS[row : row + 1, : MASK[row].sum()], **options).tolist()
    for ids, mask in ((IDS, MASK), left(IDS, MASK)):
        together = model.generate(ids, attention_mask=mask, **options).tolist()
        assert [trimmed(row) for row in together] == [trimmed(row) for row in alone]
    assert len({tuple(trimmed(row)) for row in alone}) > ROWS * beams // 2
    assert len({token for row in alone for token in row}) > 12


def trimmed(row: list[int]) -> list[int]:
    """Up to the end token: what fills a row after it depends on the longest (and beam search fills with the end)."""
    return row[: row.index(2) + 1] if 2 in row else row


# --- packed == separate ------------------------------------------------------------------------------------
# Lengths of the segments in each row. Row 0 ends with padding, a segment of its own on both sides: given by borders,
# the source's has no length; given by positions it must have some.
SOURCES = {"borders": ((5, 1, 6, 0), (4, 8), (12,)), "positions": ((5, 1, 5, 1), (4, 8), (12,))}
TARGETS = ((3, 4, 2, 1), (1, 9), (10,))
REAL = ((1, 1, 1, 0), (1, 1), (1,))


def sources_in(form: str):
    return SOURCES["borders" if "borders" in form else "positions"]


def borders_of(lengths, filled: int) -> torch.Tensor:
    """Borders, the last one repeated as the data plan does it."""
    flat = torch.tensor([0] + [n for row in lengths for n in row]).cumsum(0)
    return torch.cat([flat, flat[-1:].expand(filled)]).int()


def positions_in(lengths) -> torch.Tensor:
    return torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths])


def packed_batch(form: str) -> dict:
    labels = LABELS.clamp(min=3)
    decoder_ids = labels.roll(1, 1)
    decoder_ids[positions_in(TARGETS) == 0] = 1
    labels[0, 9] = -100
    batch = {"input_ids": IDS, "decoder_input_ids": decoder_ids, "labels": labels}
    sources = sources_in(form)
    if "positions" in form:
        batch |= {"position_ids": positions_in(sources), "decoder_position_ids": positions_in(TARGETS)}
    if "borders" in form:
        batch |= {"cu_seq_lens": borders_of(sources, 2), "decoder_cu_seq_lens": borders_of(TARGETS, 2)}
        batch |= {"max_length": 12, "decoder_max_length": 10}
    return batch


def separate_loss(model, form: str) -> torch.Tensor:
    """Each pair a batch of its own, all logits; their losses as one mean."""
    batch = packed_batch(form)
    total, count = 0.0, 0
    for row, lengths in enumerate(sources_in(form)):
        source = target = 0
        for s, t, real in zip(lengths, TARGETS[row], REAL[row], strict=True):
            if real:
                ids = batch["input_ids"][row : row + 1, source : source + s]
                part = slice(target, target + t)
                decoder_ids = batch["decoder_input_ids"][row : row + 1, part]
                logits = model(input_ids=ids, decoder_input_ids=decoder_ids).logits[0]
                total = total + F.cross_entropy(logits, batch["labels"][row, part], reduction="sum")
                count += t
            source, target = source + s, target + t
    assert count == (batch["labels"] != -100).sum()
    return total / count


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("form", ["positions", "borders", "borders and positions"])
def test_packed_is_separate(variant, form, attn):
    model = build(attn=attn, **variant)
    expected = loss_and_gradients(model, separate_loss(model, form))
    for training in (True, False):
        got = model.train(training)(**packed_batch(form)).loss
        require_same(loss_and_gradients(model, got), expected)


def test_packed_under_a_mask_is_separate(variant, monkeypatch):
    """sdpa where segments cannot be attended to one by one, as under torch.compile."""
    model = build(**variant)
    expected = loss_and_gradients(model, separate_loss(model, "borders"))
    monkeypatch.setattr(modeling_transformer, "attends_by_segment", lambda *arguments: False)
    got = model.train()(**packed_batch("borders and positions")).loss
    require_same(loss_and_gradients(model, got), expected)


def test_packed_goes_segment_by_segment_between_the_given_borders(monkeypatch):
    calls = []
    original = attention_layer.attend_segments
    monkeypatch.setattr(
        attention_layer, "attend_segments", lambda *a, **k: (calls.append(a[3]), original(*a, **k))[1]
    )
    build().train()(**packed_batch("borders and positions"))
    assert len(calls) == 2 + 2 * 3
    sources, targets = borders_of(SOURCES["borders"], 2), borders_of(TARGETS, 2)
    kinds = [(sources, sources)] * 2 + [(targets, targets), (targets, sources)] * 3
    for call, (queries, keys) in zip(calls, kinds, strict=True):
        assert torch.equal(call.queries, queries) and torch.equal(call.keys, keys)


def test_positions_that_go_on_are_no_packing():
    model = build()
    places = {"position_ids": torch.arange(SOURCE).expand(ROWS, -1)}
    places["decoder_position_ids"] = torch.arange(TARGET).expand(ROWS, -1)
    decoder_ids = LABELS.clamp(min=0)
    close(
        model(input_ids=IDS, decoder_input_ids=decoder_ids, **places).logits,
        model(input_ids=IDS, decoder_input_ids=decoder_ids).logits,
    )


# --- decoding: with a cache, by steps, without -------------------------------------------------------------
def decode(model, ids, mask, target, chunks, spy=None):
    """Logits of a target given piece by piece, with a cache."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    source = model.model.encoder(input_ids=ids, attention_mask=mask)
    pieces, start = [], 0
    for length in chunks:
        output = model(
            encoder_outputs=source,
            attention_mask=mask,
            decoder_input_ids=target[:, start : start + length],
            past_key_values=cache,
        )
        pieces.append(output.logits)
        cache, start = output.past_key_values, start + length
        assert cache.get_seq_length() == start
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("chunks", [(1,) * TARGET, (3, 1, 1, 4, 1)], ids=["one by one", "ragged"])
@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("side", ["right", "left", "none"])
def test_cached_is_uncached(variant, side, attn, chunks):
    model = build(attn=attn, **variant)
    ids, mask = {"right": (IDS, MASK), "left": left(IDS, MASK), "none": (IDS, None)}[side]
    target = LABELS.clamp(min=0)
    full = model(input_ids=ids, attention_mask=mask, decoder_input_ids=target).logits
    close(decode(model, ids, mask, target, chunks), full)  # with gradients: no short way
    with torch.no_grad():
        close(decode(model, ids, mask, target, chunks), full)


@pytest.mark.parametrize("side", ["right", "left", "none"])
def test_a_single_token_takes_the_short_way(variant, side, monkeypatch):
    """`TransformerDecoder.step` is taken where it may be, and computes what `forward` computes."""
    model = build(**variant)
    ids, mask = {"right": (IDS, MASK), "left": left(IDS, MASK), "none": (IDS, None)}[side]
    target = LABELS.clamp(min=0)
    taken = []
    step = TransformerDecoder.step
    monkeypatch.setattr(TransformerDecoder, "step", lambda *a: (taken.append(a[1].shape), step(*a))[1])
    with torch.no_grad():
        short = decode(model, ids, mask, target, (2, *[1] * (TARGET - 2)))
        assert taken == [(ROWS, 1, 16)] * (TARGET - 2)
        monkeypatch.setattr(TransformerDecoder, "can_step", lambda *arguments: False)
        close(short, decode(model, ids, mask, target, (2, *[1] * (TARGET - 2))))
    assert len(taken) == TARGET - 2


def test_the_short_way_is_refused_where_it_would_not_do():
    model = build()
    taken = []
    model.model.decoder.step = lambda *arguments: taken.append(arguments)
    target = LABELS.clamp(min=0)
    chunks = (2, 1)
    decode(model, IDS, MASK, target, chunks)  # gradients
    with torch.no_grad():
        decode(model.train(), IDS, MASK, target, chunks)
        model.eval().set_attn_implementation("eager")
        decode(model, IDS, MASK, target, chunks)
        decode(model, IDS, MASK, target, (1, 2))
    assert not taken


@pytest.mark.parametrize("beams", [1, 4])
def test_generate_is_the_same_without_cache_and_with_other_attention(variant, beams):
    options = {"attention_mask": MASK, "num_beams": beams, "max_length": 12, "do_sample": False}
    options |= {"num_return_sequences": beams, "no_repeat_ngram_size": 1}
    outputs = [
        build(std=0.7, attn=attn, **variant).generate(IDS, use_cache=cached, **options).tolist()
        for attn, cached in (("sdpa", True), ("sdpa", False), ("eager", True))
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert len({token for row in outputs[0] for token in row}) > 8


def test_the_source_is_projected_once_and_not_moved_by_beams():
    model = build()
    seen = []
    for layer in model.model.decoder.layers:
        layer.cross_attention.k_proj.register_forward_hook(lambda m, i, output: seen.append(output.shape))
    output = model.generate(IDS, num_beams=4, max_length=9, return_dict_in_generate=True, do_sample=False)
    assert seen == [(ROWS * 4, SOURCE, 16)] * 3
    cross = output.past_key_values.cross_attention_cache
    before = cross.layers[0].keys.clone()
    cross.reorder_cache(torch.tensor([1, 0, 3, 2] + [4] * 8))
    assert torch.equal(cross.layers[0].keys, before)


# --- the ways of generate() --------------------------------------------------------------------------------
def test_several_returns_are_different_and_in_order():
    model = build(std=0.7)
    output = model.generate(
        IDS, attention_mask=MASK, num_beams=5, num_return_sequences=3, max_length=12, do_sample=False,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    assert len(output.sequences) == 9
    for row in range(ROWS):
        of_row = output.sequences[3 * row : 3 * row + 3].tolist()
        assert len({tuple(ids) for ids in of_row}) == 3
        scores = output.sequences_scores[3 * row : 3 * row + 3].tolist()
        assert scores == sorted(scores, reverse=True)


def test_no_ngram_comes_twice():
    model = build(std=0.7)
    options = {"attention_mask": MASK, "num_beams": 3, "max_length": 20, "suppress_tokens": [0, 2]}
    plain = model.generate(IDS, do_sample=False, **options)
    blocked = model.generate(IDS, do_sample=False, no_repeat_ngram_size=2, **options)

    def bigrams(row):
        return list(itertools.pairwise(row))

    assert any(len(bigrams(row)) > len(set(bigrams(row))) for row in plain.tolist())
    assert all(len(bigrams(row)) == len(set(bigrams(row))) for row in blocked.tolist())


@pytest.mark.parametrize("beams", [1, 4])
def test_a_prefix_says_which_tokens_may_follow(beams):
    """After token n only n + 1 or n + 2 (or the end), for each source from another first token on."""
    model = build()

    def allowed(row, ids):
        last = int(ids[-1])
        return [10 + 5 * row] if len(ids) == 1 else [last + 1, last + 2, 2]

    output = model.generate(
        IDS, attention_mask=MASK, num_beams=beams, max_length=9, do_sample=False,
        prefix_allowed_tokens_fn=allowed,
    )  # fmt: skip
    for row, ids in enumerate(output.tolist()):
        ids = trimmed(ids)
        assert ids[:2] == [1, 10 + 5 * row]
        assert all(b in (a + 1, a + 2, 2) for a, b in itertools.pairwise(ids[1:]))


def test_sampling_with_a_seed_is_the_same_again():
    model = build(std=0.3)
    drawn = []
    for seed in (0, 0, 1):
        set_seed(seed)
        drawn.append(
            model.generate(IDS, attention_mask=MASK, do_sample=True, max_length=12, top_k=0).tolist()
        )
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_assistant_changes_nothing():
    # transformers 5.23 gives an encoder-decoder assistant the whole prefix again, after a cache that holds it already:
    # without `prepare_inputs_for_generation` its guesses are bad, and it needs room for twice the length.
    model = build(std=0.7, max_position_embeddings=24)
    options = {"max_length": 16, "do_sample": False, "no_repeat_ngram_size": 1}
    for row in range(ROWS):
        ids = IDS[row : row + 1, : MASK[row].sum()]
        expected = model.generate(ids, **options)
        for assistant in (model, build(std=0.7, seed=1, max_position_embeddings=24)):
            assert torch.equal(model.generate(ids, assistant_model=assistant, **options), expected)
        assert torch.equal(model.generate(ids, prompt_lookup_num_tokens=2, **options), expected)


# --- losses ------------------------------------------------------------------------------------------------
def flat_logits(model, batch):
    """All logits of a batch, one row for each position, in training mode."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    decoder_ids = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    hidden = model.model(**inputs, decoder_input_ids=decoder_ids).last_hidden_state
    return model.lm_head(hidden).flatten(0, 1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_training_loss_is_cross_entropy(variant, smoothing):
    model = build(label_smoothing=smoothing, **variant)
    logits, labels = flat_logits(model, BATCH), LABELS.flatten()
    plain = F.cross_entropy(logits, labels)
    expected = loss_and_gradients(model, F.cross_entropy(logits, labels, label_smoothing=smoothing))
    output = model.train()(**BATCH)
    assert output.logits is None and output.past_key_values is None
    require_same(loss_and_gradients(model, output.loss), expected)
    output = model.eval()(**BATCH)  # no smoothing here, and the logits
    assert abs(output.loss - plain) < 1e-12
    assert output.logits.shape == (ROWS, TARGET, model.config.decoder_vocab_size)


def test_the_loss_is_divided_by_what_trainer_counted():
    model = build(label_smoothing=0.1)
    count = int((LABELS != -100).sum())
    for training in (True, False):
        model.train(training)
        whole = model(**BATCH).loss
        close(model(**BATCH, num_items_in_batch=torch.tensor(count * 4)).loss * 4, whole)


def test_no_label_at_all():
    model = build(label_smoothing=0.1, r_drop=1.0).train()
    nothing = {**BATCH, "labels": torch.full_like(LABELS, -100)}
    loss, gradients = loss_and_gradients(model, model(**nothing).loss)
    assert loss == 0 and all((g == 0).all() for g in gradients.values())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_r_drop_is_two_losses_and_their_divergence(dropout):
    """Liang et al. 2021, equations 2 to 4, position by position."""
    model = build(label_smoothing=0.1, r_drop=2.5, dropout=dropout).train()
    flat = LABELS.flatten()
    torch.manual_seed(5)
    p, q = (flat_logits(model, BATCH)[flat != -100].log_softmax(-1) for _ in range(2))
    total = 0.0
    for a, b, label in zip(p, q, flat[flat != -100], strict=True):
        for x in (a, b):
            total = total + 0.5 * F.cross_entropy(x, label, label_smoothing=0.1)
        divergence = (a.exp() * (a - b)).sum() + (b.exp() * (b - a)).sum()
        total = total + 2.5 * 0.5 * divergence
    expected = loss_and_gradients(model, total / len(p))
    torch.manual_seed(5)
    # The divergence is computed in float32.
    require_same(loss_and_gradients(model, model(**BATCH).loss), expected)
    assert ((p - q).abs().max().item() > 0.1) == (dropout > 0)
    model.eval()
    close(model(**BATCH).loss, F.cross_entropy(flat_logits(model, BATCH), flat))


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_gradient_checkpointing_changes_nothing(variant, dropout):
    model = build(dropout=dropout, label_smoothing=0.1, **variant).train()
    torch.manual_seed(0)
    expected = loss_and_gradients(model, model(**BATCH).loss)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    runs = []
    for layer in [*model.model.encoder.layers, *model.model.decoder.layers]:
        layer.attention.q_proj.register_forward_hook(lambda *arguments: runs.append(1))
    torch.manual_seed(0)
    require_same(loss_and_gradients(model, model(**BATCH).loss), expected)
    assert len(runs) == 2 * 5  # forward, and again in backward


# --- embeddings, saving ------------------------------------------------------------------------------------
@pytest.mark.parametrize("fields", [{}, {"output_bias": True}, {"tie_word_embeddings": False}], ids=str)
def test_resized_embeddings_keep_what_was_there(fields):
    model = build(**fields)
    with torch.no_grad():
        before = model(**BATCH).logits
    model.resize_token_embeddings(47)
    config = model.config
    assert config.vocab_size == config.decoder_vocab_size == 47
    tied = config.tie_word_embeddings
    assert (model.lm_head.weight is model.model.encoder.embed_tokens.weight) == tied
    after = model(**BATCH).logits
    assert after.shape[-1] == 47
    close(after[..., :40], before)
    model.train()(**BATCH).loss.backward()
    model.eval().resize_token_embeddings(40)
    close(model(**BATCH).logits, before)


def test_two_vocabularies_are_not_resized_by_one_number():
    with pytest.raises(ValueError, match="share_encoder_decoder_embeddings is false"):
        build(**APART).resize_token_embeddings(60)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_saving_and_loading_gives_every_bit_back(shared, tied, tmp_path):
    fields = {} if shared else {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50}
    model = build(tie_word_embeddings=tied, **fields).float()
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert (loaded.lm_head.weight is loaded.model.target_embedding.weight) == tied
    assert (loaded.model.decoder.embed_tokens is None) == shared
    for stack in ("encoder", "decoder"):  # loading goes through the meta device, where tables have no numbers
        tables = [getattr(m.model, stack).embed_positions.table for m in (loaded, model)]
        close(tables[0], tables[1].float(), 1e-7)
    close(loaded(**BATCH).logits, model(**BATCH).logits, 0)
    assert (loaded.get_input_embeddings().num_embeddings, loaded.lm_head.out_features) == (
        40,
        40 if shared else 50,
    )


def test_loading_in_another_precision_fills_the_positions(tmp_path):
    build().float().save_pretrained(tmp_path)
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.bfloat16, 1e-2)):
        loaded = TransformerModel.from_pretrained(tmp_path, dtype=dtype)
        order = [*range(0, 16, 2), *range(1, 16, 2)]
        table = loaded.encoder.embed_positions.table
        assert table.dtype == dtype
        close(table.double(), paper_positions(24, 16)[:, order], tolerance)


def test_a_new_model_is_the_papers():
    """Embeddings that are scaled by sqrt(d_model) come out with variance one, linear layers are Glorot's."""
    torch.manual_seed(0)
    model = TransformerForSeq2SeqLM(TransformerConfig(**{**SIZES, "d_model": 64, "vocab_size": 500}))
    embedded = model.model.encoder.embed_tokens.weight * model.model.encoder.embed_scale
    assert embedded.std().item() == pytest.approx(1.0, abs=0.05)
    up = model.model.encoder.layers[0].mlp.up_proj
    assert up.weight.abs().max().item() == pytest.approx(math.sqrt(6 / (64 + 24)), rel=0.02)
    assert not up.bias.any() and model.lm_head.bias is None
    assert model.lm_head.weight is model.model.encoder.embed_tokens.weight


# --- attention weights and hidden states -------------------------------------------------------------------
def test_attention_weights_are_distributions_over_what_may_be_seen(variant):
    model = build(attn="eager", **variant)
    target = LABELS.clamp(min=0)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": target}
    output = model(**inputs, output_attentions=True, output_hidden_states=True)
    assert (len(output.encoder_attentions), len(output.decoder_attentions), len(output.cross_attentions)) == (
        2,
        3,
        3,
    )
    hidden = (MASK == 0)[:, None, None, :]
    for weights in (*output.encoder_attentions, *output.decoder_attentions, *output.cross_attentions):
        close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    for weights in output.encoder_attentions:
        assert weights.shape == (ROWS, 4, SOURCE, SOURCE)
        assert not weights.masked_select(hidden).any()
    for weights in output.cross_attentions:
        assert weights.shape == (ROWS, 2, TARGET, SOURCE)
        assert not weights.masked_select(hidden).any()
    for weights in output.decoder_attentions:
        assert weights.shape == (ROWS, 2, TARGET, TARGET)
        assert not weights.triu(1).any()
    assert len(output.encoder_hidden_states) == 3 and len(output.decoder_hidden_states) == 4
    close(output.encoder_hidden_states[-1], output.encoder_last_hidden_state, 0)
    close(model.lm_head(output.decoder_hidden_states[-1]), output.logits, 0)
    plain = build(**variant)(**inputs)
    close(plain.logits, output.logits)


# --- bad input ---------------------------------------------------------------------------------------------
def refused(words: str, **inputs):
    base = {"input_ids": IDS, "decoder_input_ids": LABELS.clamp(min=0)}
    inputs = {name: value for name, value in {**base, **inputs}.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        build()(**inputs)


def test_inputs_that_are_missing_or_given_twice():
    vectors = torch.zeros(ROWS, SOURCE, 16, dtype=torch.float64)
    refused("exactly one of input_ids and inputs_embeds", inputs_embeds=vectors)
    refused("exactly one of input_ids and inputs_embeds", input_ids=None)
    refused("exactly one of decoder_input_ids", decoder_inputs_embeds=vectors)
    refused("exactly one of decoder_input_ids.*labels alone", decoder_input_ids=None)


def test_shapes_that_do_not_fit():
    refused(r"attention_mask must be \[3, 12\].*not \[3, 11\]", attention_mask=MASK[:, 1:])
    mask = torch.ones(ROWS, TARGET + 1, dtype=torch.long)
    refused(r"decoder_attention_mask must be \[3, 10\].*not \[3, 11\]", decoder_attention_mask=mask)
    refused(r"labels must be \[3, 10\].*not \[3, 9\]", labels=LABELS[:, 1:])
    refused("2 sources, but 3 targets", input_ids=IDS[:2])
    encoded = BaseModelOutput(last_hidden_state=torch.zeros(4, 5, 16, dtype=torch.float64))
    refused("4 sources, but 3 targets", input_ids=None, encoder_outputs=encoded)


def test_too_long_and_empty():
    long = torch.full((ROWS, 25), 5)
    refused("source has 25 positions, the model only 24.*max_position_embeddings", input_ids=long)
    refused("target has 25 positions, the model only 24.*max_position_embeddings", decoder_input_ids=long)
    refused("source has no time steps", input_ids=IDS[:, :0])
    refused("target has no time steps", decoder_input_ids=LABELS[:, :0])


def test_a_cache_that_is_full():
    model = build()
    with torch.no_grad(), pytest.raises(ValueError, match="target has 25 positions, the model only 24"):
        decode(model, IDS, MASK, torch.full((ROWS, 25), 5), [1] * 25)


def test_packed_rows_that_do_not_fit_together():
    whole = packed_batch("borders and positions")
    half = {name: value for name, value in whole.items() if name not in ("cu_seq_lens", "position_ids")}
    with pytest.raises(ValueError, match="targets are packed, the sources are not.*cu_seq_lens"):
        build()(**half)
    half = {
        name: value for name, value in whole.items() if not name.startswith(("decoder_cu", "decoder_pos"))
    }
    with pytest.raises(ValueError, match="sources are packed, the targets are not"):
        build()(**half)
    fewer = {**whole, "cu_seq_lens": whole["cu_seq_lens"][:-1]}
    with pytest.raises(ValueError, match="sources have 8 packed segments, the targets 9"):
        build()(**fewer)
    with pytest.raises(ValueError, match="no attention_mask"):
        build()(**whole, attention_mask=MASK)
    del whole["decoder_input_ids"]
    with pytest.raises(ValueError, match="Packed rows need decoder_input_ids"):
        build()(**whole)


def test_a_call_that_asks_for_weights_is_computed_eagerly():
    """SDPA keeps none: the weights are those of an eager model, and other calls stay with SDPA."""
    inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": LABELS.clamp(min=0)}
    eager, sdpa = build(attn="eager"), build()
    sdpa.load_state_dict(eager.state_dict())
    expected, got = (m(**inputs, output_attentions=True) for m in (eager, sdpa))
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        for one, other in zip(getattr(expected, name), getattr(got, name), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(got.logits, expected.logits)
    assert sdpa.config._attn_implementation == "sdpa"
    assert sdpa(**inputs).cross_attentions is None


@pytest.mark.parametrize("field", ["decoder_start_token_id", "pad_token_id"])
def test_labels_without_the_tokens_to_shift_them(field):
    with pytest.raises(ValueError, match=f"config.{field} is None"):
        build(**{field: None})(**BATCH)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"encoder_layers": 0}, "encoder_layers must be at least 1, not 0"),
        ({"decoder_attention_heads": 3}, "d_model 16 is not a multiple of decoder_attention_heads 3"),
        ({"d_model": 15, "encoder_attention_heads": 5, "decoder_attention_heads": 5}, "must be even, not 15"),
        ({"position_embedding_type": "relative"}, "sinusoidal, learned, rotary, not 'relative'"),
        ({"position_embedding_type": "rotary", "encoder_attention_heads": 16}, "must be even, not 16 / 16"),
        ({"decoder_vocab_size": 50}, "decoder_vocab_size 50 differs from vocab_size 40"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing must be at least 0"),
        ({"r_drop": -1.0}, "r_drop must be at least 0, not -1.0"),
        ({"activation_function": "rleu"}, "'rleu' is no activation"),
    ],
)
def test_configs_that_make_no_model(fields, words):
    with pytest.raises(Exception, match=words):  # transformers wraps the ValueError
        TransformerConfig(**{**SIZES, **fields})
