"""The recurrent models under onnxruntime."""

import json

import numpy as np
import pytest
import torch

import hfseq
from hfseq.convert import export_model

pytest.importorskip("onnx", reason="onnx is not installed: pip install 'hfseq[convert]'")
onnxruntime = pytest.importorskip(
    "onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime"
)

SIZES = {"vocab_size": 30, "embedding_size": 6, "hidden_size": 7, "num_hidden_layers": 3, "num_labels": 4}
LENGTHS = torch.tensor([9, 1, 5])
TOLERANCE = {"rtol": 1e-5, "atol": 5e-6}  # float32 through other kernels: 2.2e-6 seen on one processor


def make(name, head, **fields):
    torch.manual_seed(0)
    config = getattr(hfseq, f"{name}Config")(**{**SIZES, **fields})
    model = getattr(hfseq, f"{name}{head}")(config).eval()
    # ReLU has no bound, and float32 forgets what is small beside its states.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if "nonlinearity" in fields else 0.5)
    return model


def session(model, folder, file="model.onnx"):
    export_model(model, folder, "onnx")
    return onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])


def batch():
    ids = torch.randint(30, (3, 9), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": (torch.arange(9) < LENGTHS.unsqueeze(1)).long()}


def encoded(directory, source):
    """The decoder's session, and {name: what the encoder makes of the source}."""
    encoder, decoder = (
        onnxruntime.InferenceSession(directory / f"{side}.onnx") for side in ("encoder", "decoder")
    )
    return decoder, dict(zip([o.name for o in encoder.get_outputs()], encoder.run(None, source), strict=True))


LANGUAGE_MODELS = [
    ("LSTM", {}),
    ("GRU", {}),
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("LSTM", {"last_hidden_size": 6}),
    ("GRU", {"num_hidden_layers": 1, "tie_word_embeddings": False}),
]


@pytest.mark.parametrize(("name", "fields"), LANGUAGE_MODELS)
def test_language_models_step_by_step(name, fields, tmp_path):
    model = make(name, "ForCausalLM", **fields)
    run = session(model, tmp_path)
    ids = batch()["input_ids"]
    with torch.no_grad():
        expected = model(ids).logits.numpy()
    states = {
        value.name: np.zeros((value.shape[0], 3, value.shape[2]), dtype=np.float32)
        for value in run.get_inputs()
        if value.name.startswith("state_")
    }
    parts = []
    for begin, end in ((0, 4), (4, 5), (5, 9)):  # several tokens at once, and one
        logits, *new = run.run(None, {"input_ids": ids[:, begin:end].numpy(), **states})
        states = dict(zip(states, new, strict=True))
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, **TOLERANCE)
    assert json.loads((tmp_path / "config.json").read_text())["vocab_size"] == 30


@pytest.mark.parametrize(
    ("name", "fields"), [("LSTM", {"last_hidden_size": 5}), ("GRU", {}), ("RNN", {"num_hidden_layers": 1})]
)
def test_language_models_that_begin_with_a_vector(name, fields, tmp_path):
    model = make(name, "ForCausalLM", feature_size=4, **fields)
    run = session(model, tmp_path)
    begin = onnxruntime.InferenceSession(tmp_path / "initial_state.onnx", providers=["CPUExecutionProvider"])
    ids, features = batch()["input_ids"], torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(ids, features=features).logits.numpy()
    names = [output.name for output in begin.get_outputs()]
    states = dict(zip(names, begin.run(None, {"features": features.numpy()}), strict=True))
    first, *new = run.run(None, {"input_ids": ids[:, :4].numpy(), **states})
    states = dict(zip(names, new, strict=True))
    rest, *_ = run.run(None, {"input_ids": ids[:, 4:].numpy(), **states})
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), expected, **TOLERANCE)


def test_a_model_without_vectors_begins_with_zeros(tmp_path):
    session(make("GRU", "ForCausalLM"), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "config.json"}


CLASSIFIERS = [
    ("LSTM", {"classifier_pooling": "last"}),
    ("LSTM", {"classifier_pooling": "last", "bidirectional": True, "classifier_layers": "all"}),
    ("GRU", {"classifier_pooling": "concat", "bidirectional": True, "classifier_hidden_size": 5}),
    ("RNN", {"classifier_pooling": "mean", "classifier_layers": "all"}),
    ("LSTM", {"classifier_pooling": "max", "last_hidden_size": 5}),
    ("LSTM", {"classifier_pooling": "attention", "classifier_layers": "all"}),
    ("GRU", {"classifier_pooling": "attention", "bidirectional": True}),
]


@pytest.mark.parametrize(("name", "fields"), CLASSIFIERS)
def test_classifiers_of_ragged_texts(name, fields, tmp_path):
    model, inputs = make(name, "ForSequenceClassification", **fields), batch()
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    (logits,) = session(model, tmp_path).run(None, {k: v.numpy() for k, v in inputs.items()})
    np.testing.assert_allclose(logits, expected, **TOLERANCE)
    assert np.ptp(expected, axis=0).min() > 1e-3


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("layers", ["last", "all"])
def test_taggers_of_ragged_texts(name, layers, tmp_path):
    fields = {"bidirectional": True, "classifier_layers": layers, "classifier_hidden_size": 5}
    model, inputs = make(name, "ForTokenClassification", **fields), batch()
    with torch.no_grad():
        expected = model(**inputs).logits.numpy()
    (logits,) = session(model, tmp_path).run(None, {k: v.numpy() for k, v in inputs.items()})
    real = inputs["attention_mask"].bool().numpy()
    np.testing.assert_allclose(logits[real], expected[real], **TOLERANCE)


SEQ2SEQ = [
    ("LSTM", {}),
    ("GRU", {"attention_position": "first", "decoder_layers": 3}),
    ("LSTM", {"attention": "additive", "bridge": "mean", "tie_word_embeddings": False}),
    ("LSTM", {"attention": None}),
    ("GRU", {"attention": None, "bidirectional": False}),
    ("RNN", {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 25, "encoder_hidden_size": 4}),
    ("LSTM", {"input_feeding": True}),
    ("GRU", {"input_feeding": True, "attention": "additive", "attention_position": "first"}),
]


@pytest.mark.parametrize(("name", "fields"), SEQ2SEQ)
def test_encoder_decoders_step_by_step(name, fields, tmp_path):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 30,
        "embedding_size": 6,
        "hidden_size": 7,
        "encoder_layers": 2,
        "decoder_layers": 2,
    }
    config = getattr(hfseq, f"{name}Seq2SeqConfig")(**{**sizes, **fields})
    model = getattr(hfseq, f"{name}ForSeq2SeqLM")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    source = batch()
    target = torch.randint(25, (3, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(**source, decoder_input_ids=target).logits.numpy()
    export_model(model, tmp_path, "onnx")
    source = {name: value.numpy() for name, value in source.items()}
    decoder, outputs = encoded(tmp_path, source)
    wanted = {value.name for value in decoder.get_inputs()}
    known = {"memory": outputs.pop("memory"), "attention_mask": source["attention_mask"]}
    known = {name: value for name, value in known.items() if name in wanted}
    assert bool(known) == (config.attention is not None)
    chunks = [(t, t + 1) for t in range(6)] if config.input_feeding else [(0, 3), (3, 4), (4, 6)]
    parts = []
    for begin, end in chunks:
        logits, *new = decoder.run(
            None, {"decoder_input_ids": target[:, begin:end].numpy(), **known, **outputs}
        )
        outputs = dict(zip(outputs, new, strict=True))
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, **TOLERANCE)


ENCODER = {
    "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12,
    "num_labels": 4, "max_position_embeddings": 16,
}  # fmt: skip
ENCODERS = [
    ("Model", {"pooler": True}),
    ("Model", {"pre_norm": True, "gated_mlp": True, "use_bias": False, "position_embedding_type": "rotary"}),
    ("ForMaskedLM", {"hidden_act": "gelu_new", "tie_word_embeddings": False}),
    ("ForPreTraining", {"hidden_act": "relu", "type_vocab_size": 3}),
    ("ForSequenceClassification", {}),
    ("ForSequenceClassification", {"classifier_pooling": "mean", "type_vocab_size": 0}),
    ("ForTokenClassification", {"pre_norm": True, "hidden_act": "silu"}),
    ("ForQuestionAnswering", {"position_embedding_type": "rotary", "rope_theta": 100.0}),
    ("ForMultipleChoice", {}),
]


def sharp(model):
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=1.0 if "norm.weight" in name else 0.0, std=0.4)
    return model.eval()


@pytest.mark.parametrize(("head", "fields"), ENCODERS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_encoders_of_ragged_texts(head, fields, side, tmp_path):
    model = sharp(getattr(hfseq, f"Encoder{head}")(hfseq.EncoderConfig(**{**ENCODER, **fields})))
    inputs = batch()
    if side == "left":
        inputs = {name: value.flip(1) for name, value in inputs.items()}
    if model.config.type_vocab_size:
        inputs["token_type_ids"] = (inputs["input_ids"] > 15).long()
    if head == "ForMultipleChoice":
        inputs = {name: torch.stack([value, value.flip(0)], dim=1) for name, value in inputs.items()}
    with torch.no_grad():
        expected = model(**inputs)
    run = session(model, tmp_path)
    found = run.run(None, {name: value.numpy() for name, value in inputs.items()})
    real = inputs["attention_mask"].bool().numpy()
    for output, value in zip(run.get_outputs(), found, strict=True):
        wanted = expected[output.name].numpy()
        by_token = wanted.shape[:2] == real.shape and real.ndim == 2
        kept = real if by_token else slice(None)
        np.testing.assert_allclose(value[kept], wanted[kept], rtol=1e-4, atol=2e-5)
        assert np.ptp(wanted) > 0.1
    assert {output.name for output in run.get_outputs()} == {k for k in expected if k != "loss"}


TRANSFORMER = {
    "vocab_size": 30, "d_model": 8, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 12, "decoder_ffn_dim": 10, "max_position_embeddings": 16,
}  # fmt: skip
PERVASIVE = {
    "vocab_size": 30, "embedding_size": 6, "num_hidden_layers": 3, "growth_size": 4, "hidden_size": 8,
    "intermediate_size": 10,
}  # fmt: skip
GRID_FORMS = [
    ("Pervasive", {**PERVASIVE, **fields})
    for fields in (
        {},
        {"aggregation": "average", "kernel_size": 1},
        {"aggregation": "attention", "norm": "batch", "kernel_size": 5},
        {"aggregation": "gated_max", "tie_word_embeddings": False},
        {"form": "residual", "aggregation": "gated_max"},
        {"form": "residual", "aggregation": "average", "kernel_size": 5},
        {"form": "densenet_2018"},
        {"form": "densenet_2018", "aggregation": "average", "padding": "masked"},
        {"form": "resnet_2020", "kernel_size": 5},
        {"form": "resnet_2020", "aggregation": "max", "padding": "masked"},
    )
]
STEPPING = [
    ("Transformer", TRANSFORMER),
    ("Transformer", {**TRANSFORMER, "pre_norm": True, "gated_mlp": True, "activation_function": "gelu"}),
    ("Transformer", {**TRANSFORMER, "position_embedding_type": "rotary", "output_bias": True}),
    (
        "Transformer",
        {**TRANSFORMER, "position_embedding_type": "learned", "share_encoder_decoder_embeddings": False,
         "decoder_vocab_size": 25, "scale_embedding": False},
    ),
    *GRID_FORMS,
]  # fmt: skip


@pytest.mark.parametrize(("name", "fields"), STEPPING)
def test_what_keeps_a_cache_step_by_step(name, fields, tmp_path):
    """In chunks of several tokens and one: as torch in one piece. The same loop for every family."""
    model = sharp(getattr(hfseq, f"{name}ForSeq2SeqLM")(getattr(hfseq, f"{name}Config")(**fields)))
    for module in model.modules():  # statistics of the batch norms that were never trained
        if hasattr(module, "running_var"):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2.0)
    source, target = batch(), torch.randint(25, (3, 6), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(**source, decoder_input_ids=target).logits.numpy()
    export_model(model, tmp_path, "onnx")
    source = {name: value.numpy() for name, value in source.items()}
    decoder, outputs = encoded(tmp_path, source)
    fixed = {name: value for name, value in outputs.items() if name.startswith("memory")}
    states = {name: value for name, value in outputs.items() if name.startswith("state")}
    fixed["attention_mask"] = source["attention_mask"]
    parts = []
    for begin, end in ((0, 3), (3, 4), (4, 6)):
        given = {"decoder_input_ids": target[:, begin:end].numpy(), **fixed, **states}
        logits, *new = decoder.run(None, given)
        states = dict(zip(states, new, strict=True))
        parts.append(logits)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, rtol=1e-4, atol=3e-5)
    assert np.ptp(expected, axis=2).min() > 1e-2


def test_every_family_with_a_head_has_a_form():
    """Whatever is registered with a head other than the bare model's is written; so is the bare encoder."""
    from hfseq.convert import onnx
    from hfseq.models import AUTO_CLASSES

    written = [
        onnx.RecurrentForCausalLM, onnx.RecurrentForSequenceClassification, onnx.RecurrentForTokenClassification,
        onnx.RecurrentForSeq2SeqLM, onnx.EncoderPreTrainedModel, onnx.TransformerForSeq2SeqLM,
        onnx.PervasiveForSeq2SeqLM,
    ]  # fmt: skip
    heads = {head for heads in AUTO_CLASSES.values() for auto, head in heads.items() if auto != "AutoModel"}
    assert [head for head in heads if not issubclass(head, tuple(written))] == []


def test_what_has_no_head_is_refused(tmp_path):
    with pytest.raises(ValueError, match="TransformerModel has no ONNX form here: only models with a head"):
        export_model(hfseq.TransformerModel(hfseq.TransformerConfig(**TRANSFORMER)), tmp_path, "onnx")
    config = hfseq.EncoderConfig(**{**ENCODER, "hidden_act": "mish"})
    with pytest.raises(ValueError, match="no activation 'mish'"):
        export_model(hfseq.EncoderModel(config), tmp_path, "onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "fields"), [("LSTM", {}), ("GRU", {}), ("RNN", {})])
def test_int8_is_smaller_and_nearly_the_same(name, fields, tmp_path):
    """One byte a weight, of what onnxruntime has in bytes: of a GRU and an RNN that is all but the recurrence."""
    model = make(
        name, "ForCausalLM", **{**fields, "hidden_size": 64, "embedding_size": 64, "vocab_size": 200}
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # a state that is not chaotic
    for form in ("float32", "int8"):
        export_model(model, tmp_path / form, "onnx", quantization=form)
    sizes = {form: (tmp_path / form / "model.onnx").stat().st_size for form in ("float32", "int8")}
    assert sizes["int8"] < sizes["float32"] * (0.35 if name == "LSTM" else 0.85)
    assert sorted(path.name for path in (tmp_path / "int8").iterdir()) == ["config.json", "model.onnx"]
    runs = {form: onnxruntime.InferenceSession(tmp_path / form / "model.onnx") for form in sizes}
    states = {
        value.name: np.zeros([3 if size == "batch" else size for size in value.shape], np.float32)
        for value in runs["int8"].get_inputs()[1:]
    }
    ids = torch.randint(200, (3, 9), generator=torch.Generator().manual_seed(0)).numpy()
    full, small = (runs[form].run(None, {"input_ids": ids, **states})[0] for form in ("float32", "int8"))
    assert 0 < np.linalg.norm(small - full) < 0.1 * np.linalg.norm(full)


def test_unknown_int_is_refused_before_anything_is_written(tmp_path):
    model = make("LSTM", "ForCausalLM")
    with pytest.raises(
        ValueError, match=r"no quantization 'int9' here\. Did you mean 'int8'\?.*float32, int8"
    ):
        export_model(model, tmp_path / "out", "onnx", quantization="int9")
    assert not (tmp_path / "out").exists()
