"""MarianMT: the numbers of transformers' own Marian, in both directions, on random weights of several shapes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, MarianConfig, MarianMTModel

import hfseq
from hfseq import TransformerConfig, TransformerForSeq2SeqLM, data
from hfseq.contracts.cases import sharpen
from hfseq.convert import export_model, import_model, import_tokenizer

SIZES = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 32,
    "dropout": 0.0,
}  # fmt: skip
IDS = {"pad_token_id": 39, "eos_token_id": 0, "bos_token_id": None, "decoder_start_token_id": 39}
# Random weights throughout: there is no published Marian to test with where the Hub cannot be reached.
SHAPES = {
    "scaled and tied": {"scale_embedding": True, "activation_function": "swish"},
    "not scaled, relu": {"scale_embedding": False, "activation_function": "relu"},
    "not tied": {"tie_word_embeddings": False, "activation_function": "gelu"},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50},
    "two vocabularies, not tied": {
        "share_encoder_decoder_embeddings": False, "decoder_vocab_size": 50, "tie_word_embeddings": False,
    },
    "deep encoder, wide decoder": {
        "encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 2,
        "decoder_ffn_dim": 40,
    },
}  # fmt: skip
BEAMS = {"num_beams": 5, "max_new_tokens": 12}
GREEDY = {"num_beams": 1, "max_new_tokens": 12}


def random_marian(bias: bool = True, **fields) -> MarianMTModel:
    """Sharp weights in float64; with a `final_logits_bias`, which Marian keeps as a buffer."""
    model = MarianMTModel(MarianConfig(**{**SIZES, **IDS, "forced_eos_token_id": None, **fields}))
    with torch.no_grad():
        sharpen(model, 0.3, seed=0)
        if bias:
            generator = torch.Generator().manual_seed(1)
            model.final_logits_bias.copy_(torch.randn(model.final_logits_bias.shape, generator=generator) / 3)
    return model.double().eval()


def random_ours(**fields) -> TransformerForSeq2SeqLM:
    model = TransformerForSeq2SeqLM(TransformerConfig(**{**SIZES, **fields}))
    with torch.no_grad():
        sharpen(model, 0.3, seed=0)
    return model.double().eval()


def batch_for(config) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 38, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 6:] = mask[2, 4:] = 0
    target = torch.randint(3, config.decoder_vocab_size - 2, (3, 7), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": target}


def require_same(ours: TransformerForSeq2SeqLM, theirs: MarianMTModel) -> None:
    """Logits, every hidden state, the loss of labels, greedy and beam outputs."""
    inputs = batch_for(theirs.config)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        got, expected = (model(**inputs, output_hidden_states=True) for model in (ours, theirs))
        assert got.logits.shape == expected.logits.shape and expected.logits.std() > 0.3
        torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=1e-10)
        for side in ("encoder_hidden_states", "decoder_hidden_states"):
            for a, b in zip(got[side], expected[side], strict=True):
                chosen = real if side.startswith("encoder") else torch.ones(a.shape[:2], dtype=torch.bool)
                torch.testing.assert_close(a[chosen], b[chosen], rtol=0, atol=1e-10)
        labels = inputs.pop("decoder_input_ids").clone()
        labels[1, 5:] = -100
        got, expected = (model(**inputs, labels=labels) for model in (ours, theirs))
        torch.testing.assert_close(got.loss, expected.loss, rtol=0, atol=1e-10)
        direct = F.cross_entropy(expected.logits.flatten(0, 1), labels.flatten())
        torch.testing.assert_close(got.loss, direct, rtol=0, atol=1e-10)
    for options in (GREEDY, BEAMS, {**BEAMS, "num_return_sequences": 3, "length_penalty": 0.6}):
        got, expected = (model.generate(**inputs, **options) for model in (ours, theirs))
        assert torch.equal(got, expected), options
    assert len({tuple(row) for row in expected.tolist()}) > 1


# --- both ways -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_in_and_back(shape, tmp_path):
    theirs = random_marian(**SHAPES[shape])
    theirs.save_pretrained(tmp_path / "theirs")
    ours = import_model(tmp_path / "theirs", "marian")
    assert type(ours) is TransformerForSeq2SeqLM and ours.dtype == torch.float64 and not ours.training
    require_same(ours, theirs)
    tied = SHAPES[shape].get("tie_word_embeddings", True)
    assert ours.config.tie_word_embeddings == tied
    assert (ours.lm_head.weight is ours.model.target_embedding.weight) == tied

    export_model(ours, tmp_path / "back", "marian")
    back = MarianMTModel.from_pretrained(tmp_path / "back", dtype="auto")
    expected = theirs.state_dict()
    if not ours.config.share_encoder_decoder_embeddings:
        # Where the output layer is not tied, transformers ties no embedding at all, and reads no shared one.
        expected.pop("model.shared.weight", None)
    assert back.state_dict().keys() == expected.keys()
    for name, value in back.state_dict().items():
        assert torch.equal(value, expected[name]), name
    for name in (*SIZES, *IDS, *SHAPES[shape]):
        assert getattr(back.config, name) == getattr(theirs.config, name), name


@pytest.mark.parametrize("shape", SHAPES)
def test_out_and_back(shape, tmp_path):
    """Our own fresh-made model: other special tokens, no bias."""
    ours = random_ours(**SHAPES[shape])
    export_model(ours, tmp_path, "marian")
    theirs = MarianMTModel.from_pretrained(tmp_path, dtype="auto")
    assert theirs.dtype == torch.float64 and not theirs.final_logits_bias.any()
    require_same(ours, theirs)
    back = import_model(tmp_path, "marian")
    assert not back.config.output_bias
    assert back.state_dict().keys() == ours.state_dict().keys()
    for name, value in back.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_an_output_bias_is_final_logits_bias(tmp_path):
    ours = random_ours(output_bias=True)
    export_model(ours, tmp_path, "marian")
    theirs = MarianMTModel.from_pretrained(tmp_path, dtype="auto")
    assert torch.equal(theirs.final_logits_bias, ours.lm_head.bias.detach()[None])
    require_same(ours, theirs)


def test_in_training_dropouts_are_those_of_the_original(tmp_path):
    theirs = random_marian(dropout=0.25, attention_dropout=0.15, activation_dropout=0.05)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = import_model(tmp_path / "theirs", "marian")
    export_model(ours, tmp_path / "back", "marian")
    back = transformers.AutoConfig.from_pretrained(tmp_path / "back")
    for config in (ours.config, back):
        assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.25, 0.15, 0.05)
    assert ours.config.label_smoothing == 0


def test_it_decodes_as_the_original_is_told_to(tmp_path):
    """Published Marians forbid the padding token and say how many beams, in generation_config.json."""
    theirs = random_marian()
    options = {"bad_words_ids": [[39]], "num_beams": 4, "max_length": 11, "forced_eos_token_id": 0}
    for name, value in options.items():
        setattr(theirs.generation_config, name, value)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = import_model(tmp_path / "theirs", "marian")
    ours.save_pretrained(tmp_path / "ours")
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "ours")
    export_model(ours, tmp_path / "back", "marian")
    back = MarianMTModel.from_pretrained(tmp_path / "back")
    inputs = batch_for(theirs.config)
    del inputs["decoder_input_ids"]
    expected = theirs.generate(**inputs)
    for model in (ours, loaded, back):
        assert {name: getattr(model.generation_config, name) for name in options} == options
        assert torch.equal(model.generate(**inputs), expected)


# --- files -----------------------------------------------------------------------------------------------------------


def test_an_old_file_in_half_precision(tmp_path):
    """Published ones are pytorch_model.bin, some of them in float16."""
    theirs = random_marian().half()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    ours = import_model(tmp_path, "marian")
    assert ours.dtype == torch.float16
    ours, theirs = ours.double(), theirs.double()
    inputs = batch_for(theirs.config)
    with torch.no_grad():
        # Marian's table of positions was rounded to half precision with the weights, ours as well.
        torch.testing.assert_close(ours(**inputs).logits, theirs(**inputs).logits, rtol=0, atol=1e-10)


def test_the_tokenizer_goes_along(tmp_path):
    texts = [f"Two men walk {n} dogs." for n in range(30)]
    tokenizer = data.train_tokenizer(texts, "bpe", 280, translation=True)
    ours = random_ours(**data.tokenizer_config_fields(tokenizer))
    export_model(ours, tmp_path, "marian")
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Two men walk 7 dogs."
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"], skip_special_tokens=True) == text
    assert import_tokenizer(tmp_path, "marian")(text)["input_ids"] == tokenizer(text)["input_ids"]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    random_marian().save_pretrained(tmp_path / "marian")
    return tmp_path / "marian"


def change_config(folder: Path, **fields) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "bart"}, "model_type 'bart'"),
        ({"normalize_before": True}, "normalize_before"),
        ({"normalize_embedding": True}, "normalize_embedding"),
        ({"decoder_layers": 3}, "lacks model.decoder.layers.2"),
    ],
)
def test_a_config_that_is_not_ours(saved, fields, words):
    change_config(saved, **fields)
    with pytest.raises(ValueError, match=words):
        import_model(saved, "marian")


def test_no_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        import_model(tmp_path, "marian")


def test_no_weights(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"model\.safetensors"):
        import_model(saved, "marian")


def test_an_unknown_head(saved):
    with pytest.raises(ValueError, match="ForCausalLM.*ForSeq2SeqLM"):
        import_model(saved, "marian", head="ForCausalLM")


@pytest.mark.parametrize(
    "fields",
    [
        {"pre_norm": True},
        {"gated_mlp": True},
        {"position_embedding_type": "rotary"},
        {"position_embedding_type": "learned"},
        {"interleaved_positions": True},
        {"layer_norm_eps": 1e-6},
    ],
)
def test_options_that_marian_lacks(fields, tmp_path):
    model = random_ours(**fields)
    (name, value), *_ = fields.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        export_model(model, tmp_path, "marian")
    assert not list(tmp_path.iterdir())


def test_several_options_are_all_named(tmp_path):
    with pytest.raises(ValueError, match="pre_norm=True, gated_mlp=True"):
        export_model(random_ours(pre_norm=True, gated_mlp=True), tmp_path, "marian")


def test_interleaving_of_positions_that_are_not_sinusoidal_is_not_what_stops_it(tmp_path):
    """Only what the model computes with is named."""
    with pytest.raises(ValueError) as error:
        export_model(random_ours(position_embedding_type="learned"), tmp_path, "marian")
    assert "interleaved" not in str(error.value)


def test_another_family_or_no_head(tmp_path):
    encoder = hfseq.EncoderModel(
        hfseq.EncoderConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1)
    )
    for model in (encoder, hfseq.TransformerModel(TransformerConfig(**SIZES))):
        with pytest.raises(ValueError, match=type(model).__name__):
            export_model(model, tmp_path, "marian")


def test_files_of_different_models(saved):
    change_config(saved, encoder_ffn_dim=28)
    with pytest.raises(ValueError, match=r"\[24(, 16)?\].*\[28(, 16)?\]: the files belong to different"):
        import_model(saved, "marian")


# --- in plain transformers --------------------------------------------------------------------------------------------


def test_a_model_of_ours_forces_no_end(tmp_path):
    """MarianConfig forces token 0 at the length limit unless told otherwise."""
    export_model(random_ours(), tmp_path, "marian")
    back = MarianMTModel.from_pretrained(tmp_path)
    assert back.config.forced_eos_token_id is None and back.generation_config.forced_eos_token_id is None


def test_the_exported_directory_translates_without_hfseq(tmp_path):
    """Classes of transformers load model and tokenizer, from files that know nothing of hfseq: the same ids."""
    tokenizer = data.train_tokenizer(
        [f"Two men walk {n} dogs." for n in range(30)], "bpe", 280, translation=True
    )
    model = random_ours(**data.tokenizer_config_fields(tokenizer), decoder_start_token_id=1).float()
    export_model(model, tmp_path, "marian")
    tokenizer.save_pretrained(tmp_path)
    texts = ["Two dogs.", "7 men walk", "élan"]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    expected = model.generate(**inputs, max_length=12, num_beams=3)
    for file in tmp_path.iterdir():
        assert b"hfseq" not in file.read_bytes() and b"auto_map" not in file.read_bytes(), file.name
    theirs = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for thing in (theirs, theirs.config, theirs.generation_config, loaded):
        assert type(thing).__module__.startswith("transformers."), type(thing)
    again = loaded(texts, return_tensors="pt", padding=True)
    assert again["input_ids"].tolist() == inputs["input_ids"].tolist()
    translated = theirs.generate(**again, max_length=12, num_beams=3)
    assert translated.tolist() == expected.tolist()
    assert loaded.batch_decode(translated, skip_special_tokens=True) == tokenizer.batch_decode(
        expected, skip_special_tokens=True
    )
