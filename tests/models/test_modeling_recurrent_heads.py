"""Recurrent classifiers and taggers against their layers run row by row, without padding, in float64."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, pipeline

import hfseq
from hfseq.data import train_tokenizer
from hfseq.models.modeling_recurrent import TextPooling

POOLINGS = ("last", "mean", "max", "concat", "attention")
CELLS = ("RNN", "GRU", "LSTM")
LENGTHS = [5, 1, 7, 3]
SIZES = {"vocab_size": 30, "embedding_size": 6, "hidden_size": 8, "num_hidden_layers": 2, "pad_token_id": 0}


def make(cell: str = "LSTM", head: str = "SequenceClassification", seed: int = 0, **fields):
    torch.manual_seed(seed)
    config = getattr(hfseq, f"{cell}Config")(**{"num_labels": 3, **SIZES, **fields})
    model = getattr(hfseq, f"{cell}For{head}")(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model


def rows(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, 30, (n,), generator=generator) for n in LENGTHS]


def batch(texts: list[torch.Tensor], where: str) -> dict[str, torch.Tensor]:
    """Texts padded with words, not zeros: on the right, on the left, or with a gap inside."""
    width = max(map(len, texts)) + 2
    ids = torch.randint(1, 30, (len(texts), width), generator=torch.Generator().manual_seed(9))
    mask = torch.zeros(len(texts), width, dtype=torch.long)
    for i, text in enumerate(texts):
        columns = torch.arange(len(text))
        if where == "left":
            columns += width - len(text)
        elif where == "gap":
            columns[1:] += 1
        ids[i, columns], mask[i, columns] = text, 1
    return {"input_ids": ids, "attention_mask": mask}


def layers_of(model, text: torch.Tensor) -> list[torch.Tensor]:
    """The embedding and every layer's output for one text [time, width], by torch's own modules."""
    x = model.model.embed_tokens(text)
    found = [x]
    for block in model.model.blocks:
        ways = 2 if block.bidirectional else 1
        for layer in range(block.num_layers):
            single = type(block.rnn)(
                x.shape[-1], block.hidden_size, bidirectional=ways == 2,
                **({"nonlinearity": block.rnn.nonlinearity} if block.mode.startswith("RNN") else {}),
            ).double()  # fmt: skip
            for name, parameter in single.named_parameters():
                parameter.data = getattr(block.rnn, name.replace("_l0", f"_l{layer}")).data
            x = single(x.unsqueeze(1))[0].squeeze(1)
            found.append(x)
    return found


def pooled(model, text: torch.Tensor) -> torch.Tensor:
    """One vector by the definition of each pooling."""
    config, layers = model.config, layers_of(model, text)
    layers = layers if config.classifier_layers == "all" else layers[-1:]
    x = torch.cat(layers, -1)  # [time, width]
    last = []
    for number, layer in enumerate(layers):
        if config.bidirectional and (len(layers) == 1 or number):
            half = layer.shape[-1] // 2
            last += [layer[-1, :half], layer[0, half:]]
        else:
            last.append(layer[-1])
    ways = {"last": torch.cat(last), "mean": x.mean(0), "max": x.max(0).values}
    if config.classifier_pooling == "attention":
        scores = (x @ model.pooling.attention.weight[0]).exp()
        return (x * (scores / scores.sum()).unsqueeze(-1)).sum(0)
    if config.classifier_pooling == "concat":
        return torch.cat([ways["last"], ways["max"], ways["mean"]])
    return ways[config.classifier_pooling]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("which", ["last", "all"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_is_that_of_each_text_alone(pooling, which, bidirectional):
    for cell in CELLS:
        model = make(
            cell, classifier_pooling=pooling, classifier_layers=which, bidirectional=bidirectional,
            last_hidden_size=7 if bidirectional else None,
        )  # fmt: skip
        with torch.no_grad():
            expected = torch.stack([model.classifier.out_proj(pooled(model, text)) for text in rows()])
            for where in ("right", "left", "gap"):
                logits = model(**batch(rows(), where)).logits
                torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-12)
            text = rows()[2]
            alone = model(input_ids=text.unsqueeze(0)).logits[0]  # no mask at all
            torch.testing.assert_close(alone, expected[2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("which", ["last", "all"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_tags_are_those_of_each_text_alone(which, bidirectional):
    for cell in CELLS:
        model = make(
            cell, "TokenClassification", classifier_layers=which, bidirectional=bidirectional,
            classifier_hidden_size=5,
        )  # fmt: skip
        for where in ("right", "left", "gap"):
            inputs = batch(rows(), where)
            with torch.no_grad():
                logits = model(**inputs).logits
                for i, text in enumerate(rows()):
                    layers = layers_of(model, text)
                    x = torch.cat(layers if which == "all" else layers[-1:], -1)
                    hidden = torch.relu(model.classifier.dense(x))
                    got = logits[i][inputs["attention_mask"][i].bool()]
                    torch.testing.assert_close(got, model.classifier.out_proj(hidden), rtol=1e-9, atol=1e-12)


def test_textgenrnn_form_attends_to_padding_where_it_is_not_masked():
    model = make(classifier_layers="all", classifier_pooling="attention", num_labels=30)
    ids = torch.cat([torch.zeros(4, dtype=torch.long), rows()[0]])
    with torch.no_grad():
        expected = model.classifier.out_proj(pooled(model, ids))
        torch.testing.assert_close(model(input_ids=ids.unsqueeze(0)).logits[0], expected)
        masked = model(input_ids=ids.unsqueeze(0), attention_mask=(ids > 0).long().unsqueeze(0)).logits[0]
    assert model.pooling.attention.bias is None
    assert (masked - expected).abs().max() > 1e-3


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_row_of_padding_pools_to_zeros_and_gives_finite_gradients(pooling):
    model = make(classifier_pooling=pooling).train()
    inputs = batch(rows(), "right")
    inputs["attention_mask"][1] = 0
    with torch.no_grad():
        layers = (model.model(**inputs, use_cache=False).last_hidden_state,)
        assert not model.pooling(layers, inputs["attention_mask"].bool())[1].any()
    model(**inputs, labels=torch.tensor([0, -100, 2, 1])).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_last_in_two_directions_reads_both_ends():
    model = make(bidirectional=True, num_hidden_layers=1)
    text = rows()[2].unsqueeze(0)
    changed = text.clone()
    with torch.no_grad():
        hidden = model.model(text).last_hidden_state
        got = model.pooling((hidden,), None)
        torch.testing.assert_close(got, torch.cat([hidden[:, -1, :8], hidden[:, 0, 8:]], -1))
        for column in (0, -1):
            changed = text.clone()
            changed[0, column] = text[0, column] % 29 + 1
            assert (model(changed).logits - model(text).logits).abs().max() > 1e-4


@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
def test_dropout_of_the_head(head):
    """None takes that of the output; it falls on every linear layer's input, in training alone."""
    assert make(head=head, output_dropout=0.25).classifier.dropout.p == 0.25
    assert make(head=head, output_dropout=0.25, classifier_dropout=0.0).classifier.dropout.p == 0.0
    model = make(head=head, classifier_dropout=0.5, classifier_hidden_size=50)
    inputs = batch(rows(), "right")
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model(**inputs).logits)
        model.train()
        assert not torch.equal(model(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("head", ["SequenceClassification", "TokenClassification"])
def test_a_language_model_becomes_a_classifier(tmp_path, cell, head):
    torch.manual_seed(1)
    language_model = getattr(hfseq, f"{cell}ForCausalLM")(
        getattr(hfseq, f"{cell}Config")(**SIZES, last_hidden_size=6)
    )
    language_model.save_pretrained(tmp_path)
    auto = {
        "SequenceClassification": AutoModelForSequenceClassification,
        "TokenClassification": AutoModelForTokenClassification,
    }[head]
    model, info = auto.from_pretrained(
        tmp_path, num_labels=4, classifier_pooling="attention", output_loading_info=True
    )
    assert type(model) is getattr(hfseq, f"{cell}For{head}")
    assert not [name for name in info["missing_keys"] if name.startswith("model.")]
    for name, value in language_model.model.state_dict().items():
        assert torch.equal(value, model.model.state_dict()[name]), name
    assert model.classifier.out_proj.out_features == 4


def test_a_language_model_reads_one_way_only(tmp_path):
    hfseq.LSTMForCausalLM(hfseq.LSTMConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch|mismatch"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, bidirectional=True)


def test_hidden_states_come_only_when_asked_for():
    for which in ("last", "all"):
        for head in ("SequenceClassification", "TokenClassification"):
            model = make(head=head, classifier_layers=which)
            assert model(**batch(rows(), "right")).hidden_states is None
            states = model(**batch(rows(), "right"), output_hidden_states=True).hidden_states
            assert [h.shape[-1] for h in states] == [6, 8, 8]


def test_losses_by_problem():
    inputs = batch(rows(), "right")
    for problem, labels, expected in (
        ("single_label_classification", torch.tensor([0, 2, -100, 1]), "cross"),
        ("multi_label_classification", torch.rand(4, 3).round().double(), "binary"),
        ("regression", torch.rand(4, 3).double(), "square"),
    ):
        model = make(problem_type=problem)
        result = model(**inputs, labels=labels)
        if expected == "cross":
            kept = labels >= 0
            value = -result.logits.log_softmax(-1)[kept, labels[kept]].mean()
        elif expected == "binary":
            p = result.logits.sigmoid()
            value = -(labels * p.log() + (1 - labels) * (1 - p).log()).sum() / labels.numel()
        else:
            value = ((result.logits - labels) ** 2).mean()
        torch.testing.assert_close(result.loss, value)
        halved = model(**inputs, labels=labels, num_items_in_batch=2 * (labels != -100).sum()).loss
        torch.testing.assert_close(halved, value / 2)


def test_labels_of_the_wrong_type_are_refused():
    inputs = batch(rows(), "right")
    for problem, labels, words in (
        ("single_label_classification", torch.rand(4), "int64"),
        ("single_label_classification", torch.zeros(4, 3).long(), r"\[4, 3\]"),
        ("multi_label_classification", torch.zeros(4).long(), r"\[4, 3\]"),
        ("regression", torch.zeros(3), r"\[4, 3\]"),
    ):
        with pytest.raises(ValueError, match=words):
            make(problem_type=problem)(**inputs, labels=labels)
    with pytest.raises(ValueError, match=r"labels must be \[4, 9\].*not \[4, 8\]"):
        make(head="TokenClassification")(**inputs, labels=torch.zeros(4, 8).long())


def test_texts_without_words_and_packed_rows_are_refused():
    for head in ("SequenceClassification", "TokenClassification"):
        model = make(head=head)
        with pytest.raises(ValueError, match="no time steps"):
            model(input_ids=torch.zeros(2, 0, dtype=torch.long))
        with pytest.raises(ValueError, match="refuse packed rows"):
            model(input_ids=torch.ones(1, 4).long(), position_ids=torch.tensor([[0, 1, 0, 1]]))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"classifier_pooling": "first"}, "classifier_pooling.*last, mean, max, concat, attention.*first"),
        ({"classifier_layers": "top"}, "classifier_layers.*last, all.*top"),
        ({"classifier_hidden_size": 0}, "classifier_hidden_size.*0"),
        ({"classifier_dropout": 1.0}, "classifier_dropout.*1.0"),
    ],
)
def test_configurations_that_make_no_sense(fields, words):
    with pytest.raises(StrictDataclassError, match=words):
        hfseq.LSTMConfig(**fields)


def test_width_that_the_head_reads():
    config = hfseq.GRUConfig(
        **SIZES, last_hidden_size=5, bidirectional=True, classifier_layers="all", classifier_pooling="concat"
    )
    assert config.classifier_input_size == 6 + 2 * 8 + 2 * 5
    assert TextPooling(config).width == 3 * config.classifier_input_size


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["Ann saw a good film", "Bob saw a bad book", "Carl likes songs"] * 20, "bpe", 300)


def test_text_classification_pipeline(tmp_path, tokenizer):
    torch.manual_seed(0)
    config = hfseq.LSTMConfig(
        **{**SIZES, "vocab_size": 320}, bidirectional=True, classifier_pooling="attention",
        id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1},
    )  # fmt: skip
    config.pad_token_id = tokenizer.pad_token_id
    hfseq.LSTMForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", str(tmp_path))
    texts = ["Ann saw a good film", "Bob", "Carl likes a bad book"]
    together = classify(texts, batch_size=3)
    for text, found in zip(texts, together, strict=True):
        assert found["label"] in ("bad", "good")
        assert found["score"] == pytest.approx(classify(text)[0]["score"], abs=1e-6)


def test_token_classification_pipeline(tmp_path, tokenizer):
    torch.manual_seed(0)
    config = hfseq.GRUConfig(
        **{**SIZES, "vocab_size": 320, "pad_token_id": tokenizer.pad_token_id}, bidirectional=True,
        id2label={0: "O", 1: "B-person"}, label2id={"O": 0, "B-person": 1},
    )  # fmt: skip
    model = hfseq.GRUForTokenClassification(config)
    with torch.no_grad():
        model.classifier.out_proj.bias.copy_(torch.tensor([0.0, 5.0]))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = pipeline("token-classification", str(tmp_path), aggregation_strategy="simple")("Ann saw Bob")
    assert {entity["entity_group"] for entity in found} == {"person"}
    assert found[0]["start"] == 0 and found[-1]["end"] == len("Ann saw Bob")
