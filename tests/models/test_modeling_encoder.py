"""The encoder against what shares nothing with it: transformers' BERT, a plain forward written here, loops."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
import transformers

import hfseq
from hfseq import (
    EncoderConfig,
    EncoderForMaskedLM,
    EncoderForPreTraining,
    EncoderForQuestionAnswering,
    EncoderForSequenceClassification,
    EncoderForTokenClassification,
    EncoderModel,
)
from hfseq.contracts.cases import sharpen
from hfseq.convert import import_model
from hfseq.convert.bert import HEADS
from hfseq.models import attention, attention_layer, modeling_encoder

SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 32, "num_labels": 3, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
MODERN = {
    "pre_norm": True, "position_embedding_type": "rotary", "gated_mlp": True, "hidden_act": "silu", "use_bias": False,
    "type_vocab_size": 0,
}  # fmt: skip
VARIANTS = {"bert": {}, "modern": MODERN}
LENGTHS = ((5, 1, 6), (4, 8), (12,))
ROWS, TIME = 3, 12
BATCH = {
    "input_ids": torch.randint(4, 40, (ROWS, TIME), generator=torch.Generator().manual_seed(1)),
    "attention_mask": torch.tensor([[1] * TIME, [1] * 9 + [0] * 3, [1] * 4 + [0] * 8]),
}
LABELS = torch.full((ROWS, TIME), -100)
LABELS[0, [0, 4, 11]] = torch.tensor([7, 39, 12])
LABELS[1, [3, 8]] = torch.tensor([20, 5])
POSITIONS = torch.tensor([[0, 4, 11, -1], [3, 8, -1, -1], [-1, -1, -1, -1]])


@pytest.fixture(params=VARIANTS)
def variant(request):
    return VARIANTS[request.param]


def build(model_class, attn="sdpa", seed=0, **fields):
    config = EncoderConfig(**{**SIZES, **fields}, attn_implementation=attn)
    model = model_class(config)
    sharpen(model, 0.4, seed)
    return model.double()


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
    for name, gradient in expected_gradients.items():
        assert (gradients[name] - gradient).abs().max() <= tolerance * largest, name


# --- the loss at the labels alone == the loss of all logits ---------------------------------------------------------


def full_loss(model, batch, labels, **options):
    """Cross-entropy of all logits, as any other masked-LM head computes it."""
    logits = model.eval()(**batch, **options).logits
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("positions", [None, POSITIONS, POSITIONS[:, :3]], ids=["found", "given", "exact"])
def test_sparse_is_full(variant, attn, positions):
    model = build(EncoderForMaskedLM, attn, **variant)
    expected = loss_and_gradients(model, full_loss(model, BATCH, LABELS))
    output = model.train()(**BATCH, labels=LABELS, masked_positions=positions)
    assert output.logits is None
    require_same(loss_and_gradients(model, output.loss), expected)


def test_sparse_is_full_without_a_mask(variant):
    model = build(EncoderForMaskedLM, **variant)
    batch = {"input_ids": BATCH["input_ids"]}
    expected = loss_and_gradients(model, full_loss(model, batch, LABELS))
    got = model.train()(**batch, labels=LABELS, masked_positions=POSITIONS).loss
    require_same(loss_and_gradients(model, got), expected)


def test_sparse_is_full_with_label_smoothing():
    model = build(EncoderForMaskedLM, label_smoothing=0.1)
    logits = model.eval()(**BATCH).logits.flatten(0, 1)
    smoothed = F.cross_entropy(logits, LABELS.flatten(), label_smoothing=0.1)
    expected = loss_and_gradients(model, smoothed)
    got = model.train()(**BATCH, labels=LABELS, masked_positions=POSITIONS).loss
    require_same(loss_and_gradients(model, got), expected)


def test_no_label_at_all():
    model = build(EncoderForMaskedLM).train()
    nothing = torch.full_like(LABELS, -100)
    for positions in (None, torch.full_like(POSITIONS, -1)):
        loss, gradients = loss_and_gradients(
            model, model(**BATCH, labels=nothing, masked_positions=positions).loss
        )
        assert loss == 0 and all((g == 0).all() for g in gradients.values())


def test_evaluation_ignores_masked_positions_and_gives_all_logits():
    model = build(EncoderForMaskedLM).eval()
    plain = model(**BATCH, labels=LABELS)
    given = model(**BATCH, labels=LABELS, masked_positions=POSITIONS)
    assert torch.equal(plain.logits, given.logits) and plain.logits.shape == (ROWS, TIME, 40)
    assert torch.equal(plain.loss, given.loss)


def test_the_output_layer_sees_the_labelled_positions_alone(monkeypatch):
    seen = []
    original = modeling_encoder.output_layer_loss
    monkeypatch.setattr(
        modeling_encoder, "output_layer_loss",
        lambda layer, hidden, *rest: (seen.append(hidden.shape), original(layer, hidden, *rest))[1],
    )  # fmt: skip
    build(EncoderForMaskedLM).train()(**BATCH, labels=LABELS)
    assert seen == [(ROWS * 3, 16)]  # as many slots in each row as the fullest has labels


# --- output_positions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [True, False])
def test_output_positions_are_a_choice_of_all(variant, attn, masked):
    model = build(EncoderModel, attn, **variant)
    batch = BATCH if masked else {"input_ids": BATCH["input_ids"]}
    columns = torch.tensor([[0, 3, 11], [1, 2, 8], [0, 1, 3]])
    weights = torch.randn(ROWS, 3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    full = model(**batch).last_hidden_state
    chosen = torch.stack([full[row, columns[row]] for row in range(ROWS)])
    expected = loss_and_gradients(model, (chosen * weights).sum())
    got = model(**batch, output_positions=columns).last_hidden_state
    assert torch.allclose(got, chosen, rtol=0, atol=1e-12)
    require_same(loss_and_gradients(model, (got * weights).sum()), expected)


def test_the_last_layer_computes_only_what_is_asked_for():
    model = build(EncoderModel)
    shapes = []
    for layer in model.layers:
        layer.mlp.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[1]))
    model(**BATCH, output_positions=torch.zeros(ROWS, 1).long())
    assert shapes == [TIME, 1]


def test_a_pooled_head_gives_the_same_with_all_hidden_states():
    model = build(EncoderForSequenceClassification).eval()
    short, whole = model(**BATCH), model(**BATCH, output_hidden_states=True)
    assert torch.allclose(short.logits, whole.logits, rtol=0, atol=1e-12)
    assert [h.shape[1] for h in whole.hidden_states] == [TIME] * 3


@pytest.mark.parametrize("side", ["right", "left"])
def test_mean_pooling_reads_the_mean_of_the_text_alone(variant, side):
    model = build(EncoderForSequenceClassification, classifier_pooling="mean", **variant).eval()
    batch = BATCH if side == "right" else {name: value.flip(1) for name, value in BATCH.items()}
    hidden = model.model(**batch).last_hidden_state
    means = torch.stack(
        [h[mask.bool()].mean(0) for h, mask in zip(hidden, batch["attention_mask"], strict=True)]
    )
    torch.testing.assert_close(model(**batch).logits, model.classifier(means))
    assert model.model.pooler is None


def test_mean_pooling_has_no_counterpart_in_bert(tmp_path):
    model = build(EncoderForSequenceClassification, classifier_pooling="mean").float()
    with pytest.raises(ValueError, match="classifier_pooling"):
        hfseq.convert.export_model(model, tmp_path / "bert", "bert")
    with pytest.raises(Exception, match="'cls' or 'mean', not 'max'"):
        EncoderConfig(classifier_pooling="max")


def test_the_pooler_reads_the_first_token_wherever_the_padding_is():
    model = build(EncoderForSequenceClassification).eval()
    ids, mask = BATCH["input_ids"], BATCH["attention_mask"]
    left = torch.stack([row.roll(int((m == 0).sum())) for row, m in zip(ids, mask, strict=True)])
    positions = (mask.flip(1).cumsum(1) - 1).clamp(min=0)
    got = model(input_ids=left, attention_mask=mask.flip(1), position_ids=positions).logits
    assert torch.allclose(got, model(**BATCH).logits, rtol=0, atol=1e-12)


# --- packed == separate -----------------------------------------------------------------------------------------------


def packed():
    ids = BATCH["input_ids"]
    positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in LENGTHS])
    flat = torch.tensor([n for row in LENGTHS for n in row])
    borders = torch.cat([torch.zeros(1).long(), flat.cumsum(0), torch.tensor([ROWS * TIME] * 3)]).int()
    labels = LABELS.clone()
    labels[2, [2, 11]] = torch.tensor([9, 30])
    columns = torch.tensor([[0, 4, 11], [3, 8, -1], [2, 11, -1]])
    return ids, positions, borders, labels, columns


def separate(model, ids, labels):
    """Each segment as a batch of its own, full logits; their losses as one mean."""
    total = 0.0
    for row, lengths in enumerate(LENGTHS):
        for start, length in zip([0, *torch.tensor(lengths).cumsum(0)], lengths, strict=False):
            part = slice(int(start), int(start) + length)
            logits = model.eval()(input_ids=ids[row : row + 1, part]).logits[0]
            total = total + F.cross_entropy(logits, labels[row, part], reduction="sum")
    return total / (labels != -100).sum()


FORMS = ["positions", "borders", "borders and positions", "numbers"]


def in_form(form):
    _, positions, borders, _, _ = packed()
    given = {}
    if "positions" in form:
        given["position_ids"] = positions
    if "borders" in form:
        given |= {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": 12, "max_length_k": 12}
    if "numbers" in form:
        given["seq_idx"] = (positions == 0).cumsum(1)
    return given


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("form", FORMS)
def test_packed_is_separate(variant, attn, form):
    model = build(EncoderForMaskedLM, attn, **variant)
    ids, _, _, labels, columns = packed()
    expected = loss_and_gradients(model, separate(model, ids, labels))
    for given in (None, columns):
        output = model.train()(input_ids=ids, labels=labels, masked_positions=given, **in_form(form))
        require_same(loss_and_gradients(model, output.loss), expected)
    got = model.eval()(input_ids=ids, labels=labels, **in_form(form)).loss
    require_same(loss_and_gradients(model, got), expected)


def test_packed_under_sdpa_on_a_cpu_goes_segment_by_segment(monkeypatch):
    calls = []
    original = attention_layer.attend_segments
    monkeypatch.setattr(
        attention_layer, "attend_segments", lambda *a, **k: (calls.append(a[3]), original(*a, **k))[1]
    )
    ids, _, borders, labels, columns = packed()
    model = build(EncoderForMaskedLM).train()
    model(input_ids=ids, labels=labels, masked_positions=columns, **in_form("borders"))
    assert len(calls) == 2
    assert torch.equal(calls[0].queries, borders)  # what was given, not found again
    assert calls[1].queries[-1] == columns.numel()  # the last layer: of the labelled positions alone


def test_packed_under_the_compilers_mask(monkeypatch):
    """A number of calls that depends on the data cannot be compiled: there a block-diagonal mask does it."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(attention_layer, "attend_segments", None)  # not to be called
    ids, _, _, labels, columns = packed()
    model = build(EncoderForMaskedLM)
    assert not attention_layer.attends_by_segment(model.config, torch.zeros(1), None, 0.0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: False)
    monkeypatch.setattr(modeling_encoder, "attends_by_segment", lambda *arguments: False)
    expected = loss_and_gradients(model, separate(model, ids, labels))
    output = model.train()(
        input_ids=ids, labels=labels, masked_positions=columns, **in_form("borders and positions")
    )
    require_same(loss_and_gradients(model, output.loss), expected)


def test_packed_compiled(variant):
    ids, _, _, labels, columns = packed()
    model = build(EncoderForMaskedLM, **variant)
    expected = loss_and_gradients(model, separate(model, ids, labels))
    torch.compiler.reset()
    compiled = torch.compile(model.train(), backend="eager", fullgraph=True)
    got = compiled(input_ids=ids, labels=labels, masked_positions=columns, **in_form("borders and positions"))
    require_same(loss_and_gradients(model, got.loss), expected)


def test_packed_on_a_gpu_goes_through_one_call_per_layer(monkeypatch):
    """The kernel's stand-in computes on the CPU; what is tested is that it gets the right borders."""
    lengths = []

    def fake(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None):
        assert int(cu_seq_q.diff().max()) <= max_q and int(cu_seq_k.diff().max()) <= max_k
        lengths.append((len(query), len(key)))
        borders = attention.Segments(cu_seq_q, cu_seq_k, max_q, max_k)
        return original(query, key, value, borders, scale)

    original = attention.attend_segments
    monkeypatch.setattr(
        attention_layer, "attend_segments",
        lambda q, k, v, s, scaling, dropout, causal: fake(
            q, k, v, s.queries, s.keys, s.longest_query, s.longest_key, scale=scaling
        ),
    )  # fmt: skip
    monkeypatch.setattr(
        modeling_encoder, "attends_by_segment", lambda config, x, packed, p: packed.has_borders
    )
    ids, _, _, labels, columns = packed()
    model = build(EncoderForMaskedLM)
    expected = loss_and_gradients(model, separate(model, ids, labels))
    output = model.train()(
        input_ids=ids, labels=labels, masked_positions=columns, **in_form("borders and positions")
    )
    require_same(loss_and_gradients(model, output.loss), expected)
    assert lengths == [(36, 36), (9, 36)]


def test_packed_rows_of_a_token_classifier():
    model = build(EncoderForTokenClassification, **MODERN)
    ids, positions, *_ = packed()
    labels = ids % 3
    together = model(input_ids=ids, position_ids=positions, labels=labels).loss
    expected = loss_and_gradients(model, separate(model, ids, labels))
    require_same(loss_and_gradients(model, together), expected)


def test_positions_that_go_on_are_no_packing():
    """0, 1, 2, ... in every row, as a caller may well pass them."""
    model = build(EncoderModel)
    ids = BATCH["input_ids"]
    plain = model(input_ids=ids).last_hidden_state
    given = model(input_ids=ids, position_ids=torch.arange(TIME).expand(ROWS, TIME)).last_hidden_state
    once = model(input_ids=ids, position_ids=torch.arange(TIME).unsqueeze(0)).last_hidden_state
    assert torch.allclose(given, plain, rtol=0, atol=1e-12)
    assert torch.allclose(once, plain, rtol=0, atol=1e-12)


# --- the function itself ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("head", HEADS)
def test_post_norm_is_bert(head, attn, tmp_path):
    """Every head, random weights, hidden states and logits, through hfseq.convert."""
    sizes = {name: value for name, value in SIZES.items() if name != "num_labels"}
    config = transformers.BertConfig(**sizes, num_labels=2)
    torch.manual_seed(0)
    theirs = getattr(transformers, f"Bert{head}")(config)
    sharpen(theirs, 0.4, 0)
    theirs.double().eval().save_pretrained(tmp_path)
    ours = import_model(tmp_path, "bert", head=head)
    ours.set_attn_implementation(attn)
    batch = {**BATCH, "token_type_ids": (torch.arange(TIME) > 5).long().expand(ROWS, TIME)}
    if head == "ForMultipleChoice":
        batch = {name: torch.stack([value, value.flip(0)], dim=1) for name, value in batch.items()}
    with torch.no_grad():
        got = ours(**batch, output_hidden_states=True)
        expected = theirs(**batch, output_hidden_states=True)
    real = batch["attention_mask"].reshape(-1, TIME).bool()
    for name in expected:
        values = [(got[name], expected[name])]
        if isinstance(expected[name], tuple):
            values = list(zip(got[name], expected[name], strict=True))
        for a, b in values:
            if a.shape[:2] == real.shape:
                a, b = a[real], b[real]
            assert (a - b).abs().max() <= 1e-9 * max(1.0, float(b.abs().max())), name


def test_attention_weights_are_berts(tmp_path):
    sizes = {name: value for name, value in SIZES.items() if name != "num_labels"}
    theirs = (
        transformers.BertModel(transformers.BertConfig(**sizes, attn_implementation="eager")).double().eval()
    )
    theirs.save_pretrained(tmp_path)
    ours = import_model(tmp_path, "bert")
    ours.set_attn_implementation("eager")
    got, expected = (m(**BATCH, output_attentions=True).attentions for m in (ours, theirs))
    assert len(got) == 2
    for a, b in zip(got, expected, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9)


def norm(x, weight):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.square().mean(-1, keepdim=True) + 1e-12).sqrt() * weight


def plain_modern(weights, ids, layers=2, heads=2):
    """Pre-norm, rotary positions, SwiGLU, no biases, for one sequence [time], in plain operations."""
    x = norm(weights["embed_tokens.weight"][ids], weights["embed_norm.weight"])
    states = [x]
    time, width = x.shape
    per_head = width // heads
    for n in range(layers):
        w = {k.removeprefix(f"layers.{n}."): v for k, v in weights.items() if k.startswith(f"layers.{n}.")}
        y = norm(x, w["attention_norm.weight"])
        q, k, v = (y @ w[f"attention.{p}_proj.weight"].T for p in "qkv")
        outputs = []
        for h in range(heads):
            part = slice(h * per_head, (h + 1) * per_head)
            turned = []
            for z in (q[:, part], k[:, part]):
                rows = []
                for t in range(time):
                    half = per_head // 2
                    angle = torch.tensor(
                        [t / 10000.0 ** (2 * i / per_head) for i in range(half)], dtype=torch.float64
                    )
                    a, b = z[t, :half], z[t, half:]
                    cos, sin = angle.cos(), angle.sin()
                    rows.append(torch.cat([a * cos - b * sin, a * sin + b * cos]))
                turned.append(torch.stack(rows))
            scores = turned[0] @ turned[1].T / math.sqrt(per_head)
            outputs.append(scores.softmax(-1) @ v[:, part])
        x = x + torch.cat(outputs, -1) @ w["attention.o_proj.weight"].T
        y = norm(x, w["mlp_norm.weight"])
        gate = y @ w["mlp.gate_proj.weight"].T
        x = x + (gate * gate.sigmoid() * (y @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T
        states.append(x)
    states[-1] = norm(x, weights["final_norm.weight"])
    return states


def test_pre_norm_rotary_gated_against_plain_operations():
    model = build(EncoderModel, **MODERN).eval()
    got = model(**BATCH, output_hidden_states=True).hidden_states
    weights = dict(model.named_parameters())
    for row in range(ROWS):
        length = int(BATCH["attention_mask"][row].sum())
        expected = plain_modern(weights, BATCH["input_ids"][row, :length])
        for a, b in zip(got, expected, strict=True):
            assert torch.allclose(a[row, :length], b, rtol=0, atol=1e-9)


def test_no_bias_anywhere_but_in_the_classifier():
    model = build(EncoderForTokenClassification, **MODERN)
    assert [name for name, _ in model.named_parameters() if name.endswith("bias")] == ["classifier.bias"]
    assert not any(name.endswith("bias") for name in build(EncoderForMaskedLM, **MODERN).state_dict())


@pytest.mark.parametrize(
    ("name", "pooler"),
    [
        ("EncoderModel", False),
        ("EncoderForMaskedLM", False),
        ("EncoderForPreTraining", True),
        ("EncoderForSequenceClassification", True),
        ("EncoderForTokenClassification", False),
        ("EncoderForQuestionAnswering", False),
        ("EncoderForMultipleChoice", True),
    ],
)
def test_a_pooler_where_it_is_used_and_nowhere_else(name, pooler):
    model = build(getattr(hfseq, name))
    assert (getattr(model, "model", model).pooler is not None) == pooler
    assert build(EncoderModel, pooler=True).pooler is not None


# --- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("form", ["padded", "borders and positions"])
def test_gradient_checkpointing(variant, reentrant, form):
    model = build(EncoderForMaskedLM, **variant).train()
    ids, _, _, labels, columns = packed()
    given = {**BATCH} if form == "padded" else {"input_ids": ids, **in_form(form)}
    given |= {"labels": labels, "masked_positions": columns}
    expected = loss_and_gradients(model, model(**given).loss)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    if reentrant:
        model.enable_input_require_grads()
    require_same(loss_and_gradients(model, model(**given).loss), expected)


@pytest.mark.parametrize("field", ["hidden_dropout_prob", "attention_probs_dropout_prob"])
@pytest.mark.parametrize("form", ["padded", "borders"])
def test_each_dropout_acts_in_training_alone(field, form):
    model = build(EncoderForMaskedLM, **{field: 0.5})
    ids, _, _, labels, _ = packed()
    given = BATCH if form == "padded" else {"input_ids": ids, **in_form(form)}
    losses = {float(model.train()(**given, labels=labels).loss.detach()) for _ in range(3)}
    assert len(losses) == 3
    losses = {float(model.eval()(**given, labels=labels).loss.detach()) for _ in range(3)}
    assert len(losses) == 1


def test_the_second_task_weighs_rows_by_their_labels():
    model = build(EncoderForPreTraining)
    order = torch.tensor([1, 0, -100])
    outputs = model.eval()(**BATCH, labels=LABELS, next_sentence_label=order)
    words = F.cross_entropy(outputs.prediction_logits.flatten(0, 1), LABELS.flatten())
    rows = F.cross_entropy(outputs.seq_relationship_logits[:2], order[:2], reduction="none")
    expected = words + (3 * rows[0] + 2 * rows[1]) / 5  # rows with 3 and 2 labels
    assert torch.isclose(outputs.loss, expected, rtol=1e-12)
    reference = loss_and_gradients(model, outputs.loss)
    for positions in (None, POSITIONS):
        given = model.train()(
            **BATCH,
            labels=LABELS,
            next_sentence_label=order,
            masked_positions=positions,
            num_items_in_batch=5,
        )
        assert given.prediction_logits is None and given.seq_relationship_logits.shape == (ROWS, 2)
        require_same(loss_and_gradients(model, given.loss), reference)


def test_the_second_task_alone_is_a_mean_over_rows():
    model = build(EncoderForPreTraining).eval()
    order = torch.tensor([1, -100, 0])
    outputs = model(**BATCH, next_sentence_label=order)
    expected = F.cross_entropy(outputs.seq_relationship_logits, order)
    assert torch.isclose(outputs.loss, expected, rtol=1e-12)


def test_answers_that_were_cut_off_do_not_count_and_none_lies_in_padding():
    model = build(EncoderForQuestionAnswering).eval()
    # Row 1 has 9 tokens and row 2 has 4; the rest of them is padding.
    starts, ends = torch.tensor([2, 1, TIME + 5]), torch.tensor([4, 10, -100])
    outputs = model(**BATCH, start_positions=starts, end_positions=ends)
    begin, end = outputs.start_logits, outputs.end_logits
    expected = [
        F.cross_entropy(begin[0], starts[0]),
        F.cross_entropy(begin[1, :9], starts[1]),  # its other columns are padding
        F.cross_entropy(end[0], ends[0]),
    ]
    assert torch.isclose(outputs.loss, sum(expected) / 3, rtol=1e-12)


def test_embeddings_in_place_of_ids(variant):
    model = build(EncoderForMaskedLM, **variant).train()
    embeds = model.get_input_embeddings()(BATCH["input_ids"])
    rest = {"attention_mask": BATCH["attention_mask"], "labels": LABELS}
    assert torch.allclose(
        model(inputs_embeds=embeds, **rest).loss, model(input_ids=BATCH["input_ids"], **rest).loss
    )


def test_a_fresh_model_guesses_evenly():
    torch.manual_seed(0)
    model = EncoderForMaskedLM(EncoderConfig(**{**SIZES, "hidden_size": 64, "intermediate_size": 64}))
    assert abs(float(model.eval()(**BATCH, labels=LABELS).loss.detach()) - math.log(40)) < 0.1


def test_rotary_positions_under_autocast():
    """Queries and keys keep the type of the values, packed or not."""
    sizes = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    model = EncoderForMaskedLM(EncoderConfig(**sizes, position_embedding_type="rotary")).eval()
    ids = torch.randint(5, 40, (2, 8))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(input_ids=ids).logits
        packed = model(input_ids=ids, position_ids=torch.arange(4).repeat(2, 2)).logits
    with torch.no_grad():
        exact = model(input_ids=ids).logits
    assert torch.isfinite(packed).all()
    assert (plain.float() - exact).abs().max() < 0.05
