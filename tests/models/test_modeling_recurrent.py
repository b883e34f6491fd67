"""The recurrent models against loops anyone can check, and their regularisers one by one."""

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, DynamicCache, Trainer, TrainingArguments

from hfseq import (
    GRUConfig,
    GRUForCausalLM,
    LSTMConfig,
    LSTMForCausalLM,
    LSTMModel,
    RNNConfig,
    RNNForCausalLM,
)
from hfseq.models import modeling_recurrent
from hfseq.models.modeling_recurrent import dropout

SIZES = {"vocab_size": 30, "embedding_size": 6, "hidden_size": 7, "num_hidden_layers": 3}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MODELS = {
    "lstm": (LSTMConfig, LSTMForCausalLM, {}),
    "lstm-narrow-top": (LSTMConfig, LSTMForCausalLM, {"last_hidden_size": 6}),
    "gru": (GRUConfig, GRUForCausalLM, {}),
    "rnn-tanh": (RNNConfig, RNNForCausalLM, {}),
    "rnn-relu": (RNNConfig, RNNForCausalLM, {"nonlinearity": "relu"}),
}


def make(name="lstm", **overrides):
    config_class, model_class, fields = MODELS[name]
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, **SPECIAL, **fields, **overrides})).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def ids(rows=3, time=9, seed=0):
    return torch.randint(3, 30, (rows, time), generator=torch.Generator().manual_seed(seed))


def cell(name, x, state, w_ih, w_hh, b_ih, b_hh):
    """One step of one layer, from the published equations (GRU in cuDNN's form: the reset gate inside)."""
    if name.startswith("lstm"):
        h, c = state
        i, f, g, o = (x @ w_ih.T + b_ih + h @ w_hh.T + b_hh).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return (o.sigmoid() * c.tanh(), c)
    (h,) = state
    if name == "gru":
        x_r, x_z, x_n = (x @ w_ih.T + b_ih).chunk(3, dim=1)
        h_r, h_z, h_n = (h @ w_hh.T + b_hh).chunk(3, dim=1)
        z = (x_z + h_z).sigmoid()
        return ((1 - z) * (x_n + (x_r + h_r).sigmoid() * h_n).tanh() + z * h,)
    total = x @ w_ih.T + b_ih + h @ w_hh.T + b_hh
    return (total.relu() if name == "rnn-relu" else total.tanh(),)


def loop(name, model, input_ids):
    """Logits and every layer's outputs, step by step and layer by layer."""
    x = model.model.embed_tokens.weight[input_ids]
    outputs = [x]
    for block in model.model.blocks:
        for layer in range(block.num_layers):
            weights = [
                getattr(block.rnn, f"{n}_l{layer}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            state = tuple(x.new_zeros(len(x), block.hidden_size) for _ in range(block.state_tensors))
            steps = []
            for t in range(x.shape[1]):
                state = cell(name, x[:, t], state, *weights)
                steps.append(state[0])
            x = torch.stack(steps, dim=1)
            outputs.append(x)
    hidden = x if model.projection is None else x @ model.projection.weight.T
    return hidden @ model.lm_head.weight.T + model.lm_head.bias, outputs


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tied", [True, False])
def test_equals_the_loop(name, tied):
    model = make(name, tie_word_embeddings=tied)
    expected, layers = loop(name, model, ids())
    assert torch.allclose(model(ids()).logits, expected, rtol=1e-10, atol=1e-10)
    output = model(ids(), output_hidden_states=True)
    assert len(output.hidden_states) == len(layers) == 4
    for ours, theirs in zip(output.hidden_states, layers, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-10)
    assert torch.allclose(output.logits, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_training_loss_and_gradients_equal_the_loop(name):
    model = make(name).train()
    model(ids(), labels=ids()).loss.backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    logits, _ = loop(name, model, ids())
    F.cross_entropy(logits[:, :-1].flatten(0, 1), ids()[:, 1:].flatten()).backward()
    for n, p in model.named_parameters():
        assert torch.allclose(ours[n], p.grad, rtol=1e-9, atol=1e-12), n


def test_parameters_have_torchs_names_and_ties_only_when_asked():
    tied, untied = make(), make(tie_word_embeddings=False)
    names = dict(tied.named_parameters())
    assert {f"model.blocks.0.rnn.weight_hh_l{n}" for n in range(3)} < names.keys()
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    assert tied.projection is not None and untied.projection is None
    assert make("lstm-narrow-top").projection is None
    # the regularisers rename nothing
    regularised = make(
        weight_dropout=0.5, variational_dropout=True, hidden_dropout=0.1, embedding_dropout=0.1
    )
    assert dict(regularised.named_parameters()).keys() == names.keys()


class TestRegularisers:
    def test_off_stays_one_fused_call(self, monkeypatch):
        calls = []
        kernel = torch._VF.lstm
        monkeypatch.setattr(torch._VF, "lstm", lambda *a: calls.append(1) or kernel(*a), raising=False)
        make().train()(ids(), labels=ids())
        make(hidden_dropout=0.3).train()(ids(), labels=ids())
        assert len(calls) == 2
        make(weight_dropout=0.3).train()(ids(), labels=ids())
        assert len(calls) == 5  # layer by layer
        make(weight_dropout=0.3)(ids())
        assert len(calls) == 6  # fused again in evaluation

    def test_locked_dropout_keeps_one_mask_over_time(self):
        torch.manual_seed(0)
        x = torch.ones(5, 4, 50)
        locked = dropout(x, 0.5, True, locked=True)
        assert torch.equal(locked, locked[:1].expand_as(locked))
        assert not torch.equal(locked[0, 0], locked[0, 1])  # another mask for another row
        assert set(locked.unique().tolist()) == {0.0, 2.0}
        free = dropout(x, 0.5, True, locked=False)
        assert not torch.equal(free, free[:1].expand_as(free))
        assert dropout(x, 0.5, False, locked=True) is x

    def test_embedding_dropout_drops_words_everywhere(self):
        model = make(embedding_dropout=0.5).model.train()
        torch.manual_seed(1)
        tokens = ids(4, 20)
        x = model._embed(tokens)
        plain = model.embed_tokens(tokens.t())
        scale = (x / plain).mean(-1).t()
        assert set(scale.round().unique().tolist()) == {0.0, 2.0}
        for word in tokens.unique():
            assert len(scale[tokens == word].round().unique()) == 1

    @pytest.mark.parametrize("name", MODELS)
    def test_weight_dropout_is_the_plain_model_with_masked_recurrent_matrices(self, name):
        model, plain = make(name, weight_dropout=0.4).train(), make(name)
        torch.manual_seed(3)
        loss = model(ids(), labels=ids()).loss
        torch.manual_seed(3)
        with torch.no_grad():
            for block in plain.model.blocks:
                for layer in range(block.num_layers):
                    weight = getattr(block.rnn, f"weight_hh_l{layer}")
                    weight.copy_(F.dropout(weight, 0.4))
        expected = plain(ids(), labels=ids()).loss
        assert torch.isclose(loss, expected, rtol=1e-10)
        assert not torch.isclose(loss, make(name)(ids(), labels=ids()).loss, rtol=1e-6)

    def test_every_dropout_acts_in_training_only(self):
        for field in ("input", "hidden", "output", "embedding", "weight"):
            model = make(**{f"{field}_dropout": 0.5})
            assert torch.equal(model(ids()).logits, make()(ids()).logits), field
            model.train()
            torch.manual_seed(0)
            first = model(ids(), labels=ids()).loss
            assert first != model(ids(), labels=ids()).loss, field

    def test_activation_regularisation_in_the_loss(self):
        plain, regularised = (
            make(activation_regularization=a, temporal_activation_regularization=b).train()
            for a, b in ((0, 0), (2, 1))
        )
        labels = ids()
        out = plain.eval().model(labels).last_hidden_state
        counted = out[:, :-1]  # the last position has no label
        expected = 2 * counted.pow(2).mean() + (counted[:, 1:] - counted[:, :-1]).pow(2).mean()
        difference = regularised(labels, labels=labels).loss - plain.train()(labels, labels=labels).loss
        assert torch.isclose(difference, expected, rtol=1e-9)
        assert regularised.eval()(labels, labels=labels).loss == plain.eval()(labels, labels=labels).loss


@pytest.mark.parametrize("name", MODELS)
class TestStreams:
    def test_segments_with_carried_state_are_one_long_row(self, name):
        model = make(name)
        whole = model(ids(4, 12)).logits
        for rows in (4, 2):  # one batch, or two per segment
            model.carried_states.clear()
            parts = []
            for segment in range(3):
                for first in range(0, 4, rows):
                    stream = torch.arange(first, first + rows)
                    anew = torch.full((rows,), segment == 0)
                    piece = ids(4, 12)[first : first + rows, 4 * segment : 4 * segment + 4]
                    parts.append((stream, segment, model(piece, stream_id=stream, starts_anew=anew).logits))
            for stream, segment, logits in parts:
                expected = whole[stream, 4 * segment : 4 * segment + 4]
                assert torch.allclose(logits, expected, rtol=1e-10, atol=1e-12)

    def test_evaluation_in_between_changes_nothing(self, name):
        losses = []
        for evaluates in (False, True):
            model = make(name).train()
            for segment in range(3):
                piece = ids(2, 12)[:, 4 * segment : 4 * segment + 4]
                batch = {"stream_id": torch.arange(2), "starts_anew": torch.full((2,), segment == 0)}
                loss = model(piece, labels=piece, **batch).loss
                if evaluates:
                    model.eval()(ids(2, 4, seed=5), stream_id=torch.arange(2))
                    model.train()
            losses.append(loss)
        assert losses[0] == losses[1]

    def test_gradients_stop_at_the_border(self, name):
        model = make(name).train()
        piece = ids(2, 4)
        for segment in range(2):
            embeds = model.model.embed_tokens(piece).detach().requires_grad_()
            batch = {"stream_id": torch.arange(2), "starts_anew": torch.full((2,), segment == 0)}
            if segment == 0:
                first = embeds
            loss = model(inputs_embeds=embeds, labels=piece, **batch).loss
        loss.backward()
        assert first.grad is None and embeds.grad is not None


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ({}, "exactly one of input_ids and inputs_embeds"),
            ({"input_ids": ids(), "inputs_embeds": torch.zeros(3, 9, 6)}, "exactly one"),
            ({"input_ids": ids()[:, :0]}, "no time steps"),
            ({"input_ids": ids(), "attention_mask": torch.ones(3, 4)}, r"batch 3 and time 9, not \(3, 4\)"),
            (
                {"input_ids": ids(), "stream_id": torch.arange(3), "use_cache": True},
                "neither past_key_values",
            ),
            (
                {"input_ids": ids(), "stream_id": torch.arange(3), "attention_mask": torch.ones(3, 9)},
                "no padding",
            ),
            ({"input_ids": ids(), "position_ids": (torch.arange(9) % 5).expand(3, 9)}, "refuse packed rows"),
            ({"input_ids": ids(), "cu_seq_lens_q": torch.tensor([0, 4, 9])}, "StreamPlan"),
        ],
    )
    def test_forward(self, arguments, expected):
        with pytest.raises(ValueError, match=expected):
            make()(**arguments)

    def test_another_models_cache(self):
        with pytest.raises(TypeError, match=r"must be a RecurrentCache, not DynamicCache"):
            make()(ids(), past_key_values=DynamicCache())

    @pytest.mark.parametrize(
        "fields",
        [
            {"hidden_size": 0},
            {"num_hidden_layers": 0},
            {"last_hidden_size": 0},
            {"input_dropout": 1.0},
            {"weight_dropout": -0.1},
            {"label_smoothing": 1.0},
            {"hidden_size": "wide"},
        ],
    )
    def test_config(self, fields):
        with pytest.raises(Exception, match=next(iter(fields))):
            LSTMConfig(**fields)

    def test_nonlinearity(self):
        with pytest.raises(Exception, match="'tanh' or 'relu', not 'gelu'"):
            RNNConfig(nonlinearity="gelu")

    def test_static_caches_do_not_apply(self):
        with pytest.raises(ValueError, match="constant size"):
            make().generate(ids(1, 3), max_new_tokens=2, cache_implementation="static")


def test_trainers_label_smoothing_knows_the_shift(tmp_path):
    """Trainer shifts labels only for class names in its own table (a silently wrong loss otherwise)."""
    model = make(tie_word_embeddings=False)
    rows = [{"input_ids": row, "labels": row} for row in ids(4, 9)]
    arguments = TrainingArguments(tmp_path, label_smoothing_factor=0.1, use_cpu=True)
    trainer = Trainer(model, arguments, train_dataset=rows)
    batch = {"input_ids": ids(4, 9), "labels": ids(4, 9)}
    theirs = trainer.compute_loss(model, dict(batch))
    smoothed = make(tie_word_embeddings=False, label_smoothing=0.1)
    smoothed.load_state_dict(model.state_dict())
    ours = smoothed.train()(**batch).loss
    assert torch.isclose(ours, theirs, rtol=1e-6)


def test_an_auto_map_without_its_code_is_not_written(tmp_path):
    model = make()
    model.config.auto_map = {"AutoConfig": "configuration_recurrent.LSTMConfig"}
    model.save_pretrained(tmp_path)
    assert "auto_map" not in (tmp_path / "config.json").read_text()
    assert model.config.auto_map  # only the file
    again = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert torch.allclose(again(ids()).logits, model(ids()).logits, rtol=1e-12)


def test_initialisation():
    """torch's own for the recurrent matrices, which transformers leaves out for GRU and RNN."""
    for name in MODELS:
        config_class, model_class, fields = MODELS[name]
        model = model_class(config_class(**{**SIZES, "hidden_size": 50, **fields}))
        weight = model.model.blocks[0].rnn.weight_hh_l0
        assert 0.9 * 50**-0.5 < weight.abs().max() <= 50**-0.5
        assert 0.09 < model.model.embed_tokens.weight.abs().max() <= 0.1
        assert model.lm_head.bias.eq(0).all()


def test_base_model_has_no_head():
    assert not hasattr(LSTMModel(LSTMConfig(**SIZES)), "lm_head")
    assert modeling_recurrent.LSTMModel is LSTMModel
