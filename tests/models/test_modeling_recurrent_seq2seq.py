"""The recurrent encoder-decoders against their papers' formulas, one row, one layer, one step at a time.

`Oracle` shares nothing with the models but their weights: no kernel, no padding, no cache, no attention of several
positions at once. Where the models read a whole target in one call, the oracle attends step by step; and where they
run the original recurrences, it does the same in the papers' own order.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel, AutoModelForSeq2SeqLM, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from hfseq import (
    GRUForSeq2SeqLM,
    GRUSeq2SeqConfig,
    LSTMForSeq2SeqLM,
    LSTMSeq2SeqConfig,
    LSTMSeq2SeqModel,
    RNNForSeq2SeqLM,
    RNNSeq2SeqConfig,
)
from hfseq.contracts.cases import sharpen
from hfseq.models.configuration_recurrent_seq2seq import RecurrentSeq2SeqConfig
from hfseq.models.modeling_recurrent import RecurrentBlock
from hfseq.models.modeling_recurrent_seq2seq import RecurrentSeq2SeqCache, SourceAttention

SIZES = {"vocab_size": 30, "embedding_size": 6, "hidden_size": 8, "encoder_layers": 2, "decoder_layers": 2}
CLASSES = {
    "LSTM": (LSTMForSeq2SeqLM, LSTMSeq2SeqConfig, {}),
    "GRU": (GRUForSeq2SeqLM, GRUSeq2SeqConfig, {}),
    "RNN": (RNNForSeq2SeqLM, RNNSeq2SeqConfig, {}),
    "RNN-relu": (RNNForSeq2SeqLM, RNNSeq2SeqConfig, {"nonlinearity": "relu"}),
}
UNTIED = {"tie_word_embeddings": False}
VARIANTS = {
    "last": {},
    "last, additive, one way": {"attention": "additive", "attention_size": 5, "bidirectional": False, **UNTIED},
    "first": {"attention_position": "first", "encoder_hidden_size": 5, "decoder_layers": 3},
    "first, additive": {"attention_position": "first", "attention": "additive", "bridge": "mean", **UNTIED},
    "Sutskever": {"attention": None, "bidirectional": False},
    "no attention, both ways": {"attention": None, "encoder_layers": 1, "decoder_layers": 3},
    "no attention, mean": {"attention": None, "bridge": "mean"},
    "Luong": {"input_feeding": True},
    "Luong, untied, one layer": {"input_feeding": True, "attention": "additive", "decoder_layers": 1, **UNTIED},
    "Bahdanau": {"input_feeding": True, "attention": "additive", "attention_position": "first"},
    "Bahdanau, multiplicative": {"input_feeding": True, "attention_position": "first", "bridge": "mean", **UNTIED},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 40},
}  # fmt: skip
GENERATOR = torch.Generator().manual_seed(0)
SOURCE_LENGTHS, TARGET_LENGTHS = (7, 4, 1), (3, 6, 5)
IDS = torch.randint(3, 30, (3, 7), generator=GENERATOR)
LABELS = torch.randint(3, 30, (3, 6), generator=GENERATOR)
MASK = torch.stack([(torch.arange(7) < n).long() for n in SOURCE_LENGTHS])
for row, length in enumerate(TARGET_LENGTHS):
    LABELS[row, length:] = -100
LABELS[1, 2] = -100  # a target within a row that does not count
BATCH = {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}


def build(cell="LSTM", std=0.6, **fields):
    model_class, config_class, more = CLASSES[cell]
    model = model_class(config_class(**{**SIZES, **more, **fields}))
    sharpen(model, 0.3 if cell == "RNN-relu" else std, seed=0)
    return model.double().eval()


def rows():
    """(source ids, ids that the decoder is given, labels) of each row, without padding."""
    shifted = torch.cat([torch.ones_like(LABELS[:, :1]), LABELS[:, :-1]], dim=1)
    shifted = torch.where(shifted == -100, 0, shifted)
    for row, (source, target) in enumerate(zip(SOURCE_LENGTHS, TARGET_LENGTHS, strict=True)):
        yield IDS[row, :source], shifted[row, :target], LABELS[row, :target]


# --- the oracle ----------------------------------------------------------------------------------------------------
class Oracle:
    def __init__(self, model):
        self.model, self.config = model, model.config
        self.encoder, self.decoder = model.model.encoder, model.model.decoder

    def cell(self, rnn, layer, x, state, way=""):
        """One step of one layer for one row: x [width], state (h,) or (h, c) -> new state."""
        w_ih, w_hh, b_ih, b_hh = (
            getattr(rnn, f"{name}_l{layer}{way}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = state[0]
        given, kept = w_ih @ x + b_ih, w_hh @ h + b_hh
        mode = self.config.rnn_mode
        if mode == "LSTM":
            i, f, g, o = (given + kept).chunk(4)
            c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
            return torch.sigmoid(o) * torch.tanh(c), c
        if mode == "GRU":
            (r, z, n), (kept_r, kept_z, kept_n) = given.chunk(3), kept.chunk(3)
            r, z = torch.sigmoid(r + kept_r), torch.sigmoid(z + kept_z)
            return ((1 - z) * torch.tanh(n + r * kept_n) + z * h,)
        return ((torch.tanh if mode == "RNN_TANH" else torch.relu)(given + kept),)

    def zeros(self, width):
        return tuple(torch.zeros(width).double() for _ in range(self.config.state_tensors))

    def encode(self, ids):
        """(memory: a list of vectors, final states by layer and direction)"""
        xs = list(self.encoder.embed_tokens.weight[ids])
        rnn, finals = self.encoder.block.rnn, []
        for layer in range(self.config.encoder_layers):
            ways = []
            for way in ("", "_reverse")[: 1 + self.config.bidirectional]:
                state, outputs = self.zeros(self.config.encoder_width), []
                for x in xs if not way else xs[::-1]:
                    state = self.cell(rnn, layer, x, state, way)
                    outputs.append(state[0])
                ways.append(outputs if not way else outputs[::-1])
                finals.append(state)
            xs = [torch.cat(vectors) for vectors in zip(*ways, strict=True)]
        return xs, finals

    def first_states(self, memory, finals):
        """The state of each decoder layer."""
        config, bridge = self.config, self.encoder.bridge
        layers, width = config.decoder_layers, config.hidden_size
        if config.attention is None and config.bridge == "last" and bridge.projection is None:
            return list(finals)  # Sutskever et al. 2014
        if config.bridge == "mean":
            h = torch.tanh(bridge.projection(torch.stack(memory).mean(0))).repeat(layers)
        elif config.attention is None:
            h = torch.tanh(bridge.projection(torch.cat([state[0] for state in finals])))
        else:
            top = finals[-2:] if config.bidirectional else finals[-1:]
            h = torch.tanh(bridge.projection(torch.cat([state[0] for state in top])))
        states = [h.view(layers, width)]
        if config.state_tensors == 2:
            c = torch.zeros(layers, width).double()
            if bridge.cell_projection is not None:
                c = bridge.cell_projection(torch.cat([state[1] for state in finals])).view(layers, width)
            states.append(c)
        return list(zip(*states, strict=True))

    def attend(self, query, memory):
        """(context, weights) of one query."""
        attention = self.decoder.attention
        if attention.additive:
            scores = [
                attention.score.weight[0] @ torch.tanh(attention.query(query) + attention.key.weight @ m)
                for m in memory
            ]
        else:
            scores = [query @ attention.query.weight.T @ m for m in memory]
        weights = torch.stack(scores).softmax(0)
        return sum(w * m for w, m in zip(weights, memory, strict=True)), weights

    def steps(self, memory, states, ids):
        """(vector that predicts, weights or None) of each step."""
        config, decoder = self.config, self.decoder
        embedding = (decoder if decoder.embed_tokens is not None else self.encoder).embed_tokens.weight
        rnns = [(block.rnn, layer) for block in decoder.blocks for layer in range(block.num_layers)]
        fed = torch.zeros(decoder.readout_size).double()
        for token in ids.tolist():
            x, weights = embedding[token], None
            if config.input_feeding and config.attention_position == "first":
                context, weights = self.attend(states[0][0], memory)
                x = torch.cat([x, context])
            elif config.input_feeding:
                x = torch.cat([x, fed])
            for number, (rnn, layer) in enumerate(rnns):
                states[number] = self.cell(rnn, layer, x, states[number])
                x = states[number][0]
                if number == 0 and self.decoder.attends_between:
                    context, weights = self.attend(x, memory)
                    x = torch.cat([x, context])
            if config.attention and (config.input_feeding or config.attention_position == "last"):
                if weights is None:
                    context, weights = self.attend(x, memory)
                fed = x = torch.tanh(decoder.combine(torch.cat([x, context])))
            yield x, weights

    def logits(self, source, target):
        """[time, vocabulary], weights [time, source time] or None"""
        memory, finals = self.encode(source)
        xs, weights = zip(*self.steps(memory, self.first_states(memory, finals), target), strict=True)
        x = torch.stack(xs)
        x = x if self.model.projection is None else self.model.projection(x)
        return self.model.lm_head(x), None if weights[0] is None else torch.stack(weights)


def left(ids, mask):
    """The same rows with their padding on the left."""
    return torch.stack([i.roll(int((m == 0).sum())) for i, m in zip(ids, mask, strict=True)]), mask.flip(1)


def close(got, expected, tolerance=1e-10):
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance


@pytest.mark.parametrize("cell", CLASSES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_what_the_papers_say(variant, cell):
    model = build(cell, **VARIANTS[variant])
    wants = {"output_attentions": True} if model.config.attention else {}
    moved_ids, moved_mask = left(IDS, MASK)
    with torch.no_grad():
        right = model(**BATCH, **wants)
        other = model(input_ids=moved_ids, attention_mask=moved_mask, labels=LABELS)
        for row, (source, target, _) in enumerate(rows()):
            expected, weights = Oracle(model).logits(source, target)
            assert expected.std() > 0.1
            close(right.logits[row, : len(target)], expected)
            close(other.logits[row, : len(target)], expected)
            if wants:
                (got,) = right.cross_attentions
                assert got.shape == (3, 1, 6, 7)
                close(got[row, 0, : len(target), : len(source)], weights)
                assert not got[row, 0, : len(target), len(source) :].any()


@pytest.mark.parametrize(
    ("cell", "variant"),
    [
        ("LSTM", "last"),
        ("GRU", "first, additive"),
        ("RNN", "first"),
        ("LSTM", "Sutskever"),
        ("LSTM", "no attention, both ways"),
        ("GRU", "Luong"),
        ("LSTM", "Bahdanau"),
    ],
)
def test_training_loss_and_gradients_are_those_of_the_formulas(cell, variant):
    model = build(cell, label_smoothing=0.1, **VARIANTS[variant]).train()
    oracle, total = Oracle(model), 0.0
    for source, target, labels in rows():
        logits, _ = oracle.logits(source, target)
        total = total + F.cross_entropy(logits, labels, reduction="sum", label_smoothing=0.1)
    count = int((LABELS != -100).sum())
    expected = torch.autograd.grad(total / count, list(model.parameters()))
    loss = model(**BATCH).loss
    close(loss, (total / count).detach())
    loss.backward()
    largest = max(float(g.abs().max()) for g in expected)
    for (name, parameter), gradient in zip(model.named_parameters(), expected, strict=True):
        assert parameter.grad is not None, name
        assert (parameter.grad - gradient).abs().max() <= 1e-9 * largest, name


def test_labels_are_smoothed_in_training_alone():
    model = build(label_smoothing=0.2)
    logits = model(**BATCH).logits.flatten(0, 1)
    plain = F.cross_entropy(logits, LABELS.flatten())
    smoothed = F.cross_entropy(logits, LABELS.flatten(), label_smoothing=0.2)
    close(model(**BATCH).loss, plain)
    close(model.train()(**BATCH).loss, smoothed)
    assert abs(plain - smoothed) > 0.01


def test_without_attention_the_decoder_begins_where_the_encoder_ended():
    """Also where rows end at different steps: the states are those of each row's last token, c included."""
    model = build(attention=None, bidirectional=False)
    assert model.model.encoder.bridge.projection is None
    states = model.get_encoder()(
        input_ids=IDS, attention_mask=MASK
    ).initial_state  # [batch, 2 x layers, hidden]
    for row, (source, _, _) in enumerate(rows()):
        _, finals = Oracle(model).encode(source)
        close(states[row], torch.stack([finals[0][0], finals[1][0], finals[0][1], finals[1][1]]))


# --- how it computes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("variant", "decoder_calls", "attentions"),
    [("last", 1, 1), ("first", 2, 1), ("Sutskever", 1, 0), ("Luong", 6, 6), ("Bahdanau", 6, 6)],
)
def test_only_input_feeding_loops_over_time(variant, decoder_calls, attentions, monkeypatch):
    model, blocks, attended = build(**VARIANTS[variant]).train(), [], []
    for module, calls in ((RecurrentBlock, blocks), (SourceAttention, attended)):
        forward = module.forward

        def counted(self, *arguments, forward=forward, calls=calls, **options):
            calls.append(self)
            return forward(self, *arguments, **options)

        monkeypatch.setattr(module, "forward", counted)
    model(**BATCH).loss.backward()
    assert len(blocks) == 1 + decoder_calls
    assert len(attended) == attentions


def test_additive_keys_are_computed_once_and_no_beam_moves_them(monkeypatch):
    model = build(attention="additive")
    keys, moved = [], []
    model.model.decoder.attention.key.register_forward_hook(lambda *call: keys.append(call))
    reorder = RecurrentSeq2SeqCache.reorder_cache

    def watched(self, beam_idx):
        before = self.keys
        reorder(self, beam_idx)
        moved.append(self.keys is not before)

    monkeypatch.setattr(RecurrentSeq2SeqCache, "reorder_cache", watched)
    model.generate(IDS, attention_mask=MASK, num_beams=3, max_new_tokens=5, min_new_tokens=5, do_sample=False)
    assert len(keys) == 1
    assert moved and not any(moved)


def test_a_cache_of_ones_own_moves_keys_with_its_rows():
    model = build(attention="additive")
    with torch.no_grad():
        encoded = model.get_encoder()(input_ids=IDS, attention_mask=MASK)
        ids, order = torch.tensor([[1, 8, 9], [1, 20, 4], [1, 5, 29]]), torch.tensor([2, 0, 1])
        cache = model(
            encoder_outputs=encoded, attention_mask=MASK, decoder_input_ids=ids[:, :2], use_cache=True
        ).past_key_values
        cache.reorder_cache(order)
        turned = type(encoded)(**{name: value[order] for name, value in encoded.items()})
        got = model(
            encoder_outputs=turned, attention_mask=MASK[order], decoder_input_ids=ids[order, 2:],
            past_key_values=cache,
        ).logits  # fmt: skip
        whole = model(encoder_outputs=encoded, attention_mask=MASK, decoder_input_ids=ids).logits
    close(got[:, 0], whole[order, 2])


def test_a_cache_that_was_reset_reads_another_source():
    model = build(attention="additive")
    cache, ids = (
        RecurrentSeq2SeqCache(model.model.decoder.num_states),
        torch.tensor([[1, 8], [1, 20], [1, 5]]),
    )
    with torch.no_grad():
        model(IDS, decoder_input_ids=ids, past_key_values=cache)
        cache.reset()
        got = model(IDS.flip(1), decoder_input_ids=ids, past_key_values=cache).logits
        close(got, model(IDS.flip(1), decoder_input_ids=ids).logits)


@pytest.mark.parametrize("field", ["input_dropout", "hidden_dropout", "output_dropout", "weight_dropout"])
@pytest.mark.parametrize("variant", ["last", "first"])
def test_dropout_drops_in_training_alone(field, variant):
    model = build(**VARIANTS[variant], **{field: 0.5})
    reference = build(**VARIANTS[variant])
    close(model(**BATCH).logits, reference(**BATCH).logits)
    losses = {float(model.train()(**BATCH).loss.detach()) for _ in range(3)}
    assert len(losses) == 3


@pytest.mark.parametrize("variant", ["last", "first", "Luong", "Bahdanau"])
def test_hidden_states_are_embeddings_and_every_layer(variant):
    model = build(**VARIANTS[variant])
    with torch.no_grad():
        outputs = model(**BATCH, output_hidden_states=True)
    config = model.config
    assert len(outputs.encoder_hidden_states) == 1 + config.encoder_layers
    assert len(outputs.decoder_hidden_states) == 1 + config.decoder_layers
    close(outputs.encoder_hidden_states[-1], outputs.encoder_last_hidden_state)
    for row, (source, target, _) in enumerate(rows()):
        oracle = Oracle(model)
        memory, finals = oracle.encode(source)
        states = oracle.first_states(memory, finals)
        steps = []
        for _ in oracle.steps(memory, states, target):  # changes `states` in place
            steps.append([state[0] for state in states])
        for layer in range(config.decoder_layers):
            expected = torch.stack([step[layer] for step in steps])
            close(outputs.decoder_hidden_states[1 + layer][row, : len(target)], expected)


def test_auto_classes_know_it(tmp_path):
    model = build("GRU", **VARIANTS["two vocabularies"])
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype="auto")
    close(again(**BATCH).logits, model(**BATCH).logits)
    assert type(AutoModel.from_config(LSTMSeq2SeqConfig(**SIZES))) is LSTMSeq2SeqModel
    assert again.lm_head.weight is again.model.decoder.embed_tokens.weight


# --- what is refused -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        *(({name: 0}, [name, "at least 1"]) for name in ("vocab_size", "decoder_vocab_size", "embedding_size")),
        *(({name: -1}, [name, "-1"]) for name in ("hidden_size", "encoder_layers", "decoder_layers")),
        *(({name: 0}, [name, "at least 1 or None"]) for name in ("encoder_hidden_size", "attention_size")),
        ({"decoder_vocab_size": 31}, ["31", "30", "share_encoder_decoder_embeddings"]),
        ({"attention": "dot"}, ["'dot'", "multiplicative, additive or None"]),
        ({"attention_position": "middle"}, ["'middle'", "first, last"]),
        ({"bridge": "first"}, ["'first'", "last, mean"]),
        ({"attention": None, "input_feeding": True}, ["input_feeding", "attention None"]),
        ({"input_feeding": True, "variational_dropout": True}, ["variational_dropout", "input_feeding"]),
        ({"input_feeding": True, "weight_dropout": 0.1}, ["weight_dropout", "input_feeding"]),
        ({"attention_position": "first", "decoder_layers": 1}, ["decoder_layers 1", "'last'"]),
        *(
            ({name: 1.0}, [name, "1.0"])
            for name in ("input_dropout", "hidden_dropout", "output_dropout", "weight_dropout")
        ),
        ({"label_smoothing": -0.1}, ["label_smoothing", "-0.1"]),
        ({"hidden_size": "wide"}, ["hidden_size", "wide"]),
    ],
)  # fmt: skip
def test_configs_that_cannot_be(fields, words):
    with pytest.raises(StrictDataclassError) as caught:
        LSTMSeq2SeqConfig(**{**SIZES, **fields})
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_unknown_nonlinearity_and_a_config_without_a_cell():
    with pytest.raises(StrictDataclassError, match="nonlinearity must be 'tanh' or 'relu', not 'sigmoid'"):
        RNNSeq2SeqConfig(nonlinearity="sigmoid")
    with pytest.raises(NotImplementedError, match="LSTMSeq2SeqConfig"):
        _ = RecurrentSeq2SeqConfig().rnn_mode


TARGET = LABELS.clamp(min=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, ["input_ids", "encoder_outputs"]),
        ({"input_ids": IDS}, ["decoder_input_ids", "labels alone"]),
        ({"input_ids": IDS[:, :0], "decoder_input_ids": TARGET}, ["source", "no time steps"]),
        ({"input_ids": IDS, "decoder_input_ids": TARGET[:, :0]}, ["target", "decoder_start_token_id"]),
        ({"input_ids": IDS, "decoder_input_ids": TARGET[:2]}, ["3 sources", "2 targets"]),
        (
            {"input_ids": IDS, "attention_mask": MASK[:, :5], "decoder_input_ids": TARGET},
            ["attention_mask", "[3, 7]", "[3, 5]"],
        ),
        (
            {"input_ids": IDS, "decoder_input_ids": TARGET, "labels": LABELS[:, :4]},
            ["labels", "[3, 6]", "[3, 4]"],
        ),
        ({"input_ids": IDS, "labels": LABELS, "position_ids": MASK}, ["packed", "position_ids", "PairPlan"]),
        (
            {"input_ids": IDS, "decoder_input_ids": TARGET, "decoder_cu_seq_lens": MASK},
            ["packed", "decoder_cu_seq_lens"],
        ),
        (
            {"encoder_outputs": BaseModelOutput(torch.zeros(3, 7, 16).double()), "labels": LABELS},
            ["initial_state", "get_encoder()"],
        ),
    ],
)
def test_arguments_that_cannot_be(arguments, words):
    with pytest.raises(ValueError) as caught:
        build()(**arguments)
    assert all(word in str(caught.value) for word in words), caught.value


def test_there_are_no_weights_without_attention():
    with pytest.raises(ValueError, match="config.attention is None"):
        build(attention=None)(**BATCH, output_attentions=True)


def test_two_vocabularies_cannot_have_one_new_size():
    with pytest.raises(ValueError, match="share_encoder_decoder_embeddings"):
        build(**VARIANTS["two vocabularies"]).resize_token_embeddings(50)


def test_targets_need_a_start_and_padding():
    for name in ("decoder_start_token_id", "pad_token_id"):
        with pytest.raises(ValueError, match=f"config.{name} is None"):
            build(**{name: None})(**BATCH)


def test_a_static_cache_has_no_meaning():
    with pytest.raises(ValueError, match="cache_implementation='static'"):
        build().generate(IDS, generation_config=GenerationConfig(cache_implementation="static", max_length=4))
