"""CTranslate2's engine against the models it was written from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import hfseq
from hfseq.contracts.cases import sharpen
from hfseq.convert import export_model

ctranslate2 = pytest.importorskip(
    "ctranslate2", reason="ctranslate2 is not installed: pip install 'hfseq[deploy]'"
)

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(26))]
ROWS = 32  # two more than there are words
TRANSFORMER = {
    "vocab_size": ROWS, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "max_position_embeddings": 32,
}  # fmt: skip
ENCODER = {
    "vocab_size": ROWS, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 32,
}  # fmt: skip
SOURCES = [[4, 9, 17, 6, 2], [20, 5, 2], [8, 8, 13, 21, 4, 7, 2]]
TARGETS = [[11, 5, 23], [6], [15, 16, 4, 9, 9]]


def make_tokenizer(words: list[str] = WORDS) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def words(rows: list[list[int]]) -> list[list[str]]:
    return [[WORDS[i] for i in row] for row in rows]


def make_transformer(**fields):
    model = hfseq.TransformerForSeq2SeqLM(hfseq.TransformerConfig(**{**TRANSFORMER, **fields}))
    sharpen(model, 0.5, 0, 0.3)
    model.generation_config.suppress_tokens = [0, 30, 31]
    return model.eval()


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (width - len(row)) for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }


@torch.no_grad()
def log_probabilities(model, source: list[int], target: list[int]) -> list[float]:
    """Of each target token and the end, as the engine counts them: over the tokens that may be chosen."""
    ids = torch.tensor([[model.config.decoder_start_token_id, *target]])
    logits = model(input_ids=torch.tensor([source]), decoder_input_ids=ids).logits[0]
    logits[:, model.generation_config.suppress_tokens] = -1e9
    return logits.log_softmax(-1).gather(1, torch.tensor([*target, 2]).unsqueeze(1)).squeeze(1).tolist()


VARIANTS = {
    "plain": {},
    "pre-norm": {"pre_norm": True},
    "gated": {"gated_mlp": True, "activation_function": "silu", "pre_norm": True},
    "learned positions": {"position_embedding_type": "learned", "activation_function": "gelu"},
    "rotary": {"position_embedding_type": "rotary", "rope_theta": 100.0},
    "interleaved": {"interleaved_positions": True, "scale_embedding": False, "output_bias": True},
    "two embeddings": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_translator_scores_like_the_model(name, tmp_path):
    model = make_transformer(**VARIANTS[name])
    export_model(model, tmp_path, "ctranslate2", tokenizers=(make_tokenizer(), make_tokenizer()))
    translator = ctranslate2.Translator(str(tmp_path), compute_type="float32", intra_threads=1)
    scores = translator.score_batch(words(SOURCES), words(TARGETS))
    for source, target, score in zip(SOURCES, TARGETS, scores, strict=True):
        expected = log_probabilities(model, source, target)
        np.testing.assert_allclose(score.log_probs, expected, atol=2e-4)
        assert min(expected) < -0.5


def translations(model, folder, beams: int) -> tuple[list[list[int]], list[list[int]]]:
    """(the engine's, generate()'s) of SOURCES."""
    export_model(model, folder, "ctranslate2", tokenizers=(make_tokenizer(), make_tokenizer()))
    translator = ctranslate2.Translator(str(folder), compute_type="float32", intra_threads=1)
    found = translator.translate_batch(words(SOURCES), beam_size=beams, max_decoding_length=8)
    rows = model.generate(**padded(SOURCES), num_beams=beams, max_new_tokens=8, do_sample=False).tolist()
    rows = [row[1 : row.index(2) if 2 in row else None] for row in rows]
    return [[WORDS.index(token) for token in result.hypotheses[0]] for result in found], rows


def test_greedy_search_never_chooses_what_generation_suppresses(tmp_path):
    model = make_transformer(tie_word_embeddings=False, pre_norm=True)
    with torch.no_grad():
        model.lm_head.weight[[0, 30, 31]] *= 3  # they would be chosen
    ours, theirs = translations(model, tmp_path, beams=1)
    assert ours == theirs and len(set(map(tuple, ours))) == 3


def test_beam_search_finds_the_same(tmp_path):
    # Without suppressed ids: generate() leaves them their share of each distribution, the engine does not.
    model = make_transformer(tie_word_embeddings=False, pre_norm=True, vocab_size=len(WORDS))
    model.generation_config.suppress_tokens = None
    ours, theirs = translations(model, tmp_path, beams=4)
    assert ours == theirs and len(set(map(tuple, ours))) == 3


def test_int8_is_small_and_near(tmp_path):
    model = make_transformer(d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128, encoder_attention_heads=4)
    tokenizers = (make_tokenizer(), make_tokenizer())
    for form in ("float32", "int8"):
        export_model(model, tmp_path / form, "ctranslate2", tokenizers=tokenizers, quantization=form)
    sizes = [(tmp_path / form / "model.bin").stat().st_size for form in ("float32", "int8")]
    assert sizes[1] < 0.35 * sizes[0]
    translator = ctranslate2.Translator(str(tmp_path / "int8"), compute_type="int8", intra_threads=1)
    found = [score.log_probs for score in translator.score_batch(words(SOURCES), words(TARGETS))]
    expected = [log_probabilities(model, *pair) for pair in zip(SOURCES, TARGETS, strict=True)]
    found, expected = np.concatenate(found), np.concatenate(expected)
    assert 1e-4 < np.abs(found - expected).mean() < 0.15 * np.abs(expected).mean()


def test_what_marian_can_express_is_what_the_engines_own_converter_makes(tmp_path):
    converters = pytest.importorskip("ctranslate2.converters")
    model = make_transformer(decoder_attention_heads=2, vocab_size=len(WORDS), decoder_ffn_dim=24)
    model.generation_config.suppress_tokens = None
    export_model(model, tmp_path / "marian", "marian")
    make_tokenizer().save_pretrained(tmp_path / "marian")
    loader = converters.transformers.MarianMTLoader
    with pytest.MonkeyPatch.context() as patch:
        # It takes the last row for Marian's padding, and begins with zeros where ours begins with a token.
        patch.setattr(loader, "_remove_pad_weights", lambda self, spec: None)
        converter = converters.TransformersConverter(str(tmp_path / "marian"))
        theirs = converter.convert(str(tmp_path / "theirs"))
    export_model(model, tmp_path / "ours", "ctranslate2", tokenizers=(make_tokenizer(), make_tokenizer()))
    ours = (tmp_path / "ours/model.bin").read_bytes()
    assert abs(len(ours) - (tmp_path / "theirs/model.bin").stat().st_size) < 200, theirs


ENCODERS = {
    "plain": {},
    "pre-norm, gated": {"pre_norm": True, "gated_mlp": True, "hidden_act": "gelu"},
    "no biases": {"use_bias": False, "hidden_act": "relu"},
    "rotary": {"position_embedding_type": "rotary", "pre_norm": True},
    "no types": {"type_vocab_size": 0},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_gives_the_same_vectors(name, tmp_path):
    model = hfseq.EncoderModel(hfseq.EncoderConfig(**{**ENCODER, "pooler": True, **ENCODERS[name]}))
    sharpen(model, 0.5, 0, 0.3)
    model.eval()
    export_model(model, tmp_path, "ctranslate2", tokenizers=(make_tokenizer(), make_tokenizer()))
    encoder = ctranslate2.Encoder(str(tmp_path), compute_type="float32", intra_threads=1)
    found = encoder.forward_batch(words(SOURCES))
    batch = padded(SOURCES)
    with torch.no_grad():
        expected = model(**batch)
    real = batch["attention_mask"].bool()
    hidden = torch.from_numpy(np.array(found.last_hidden_state))
    torch.testing.assert_close(hidden[real], expected.last_hidden_state[real], atol=2e-4, rtol=1e-3)
    pooled = torch.from_numpy(np.array(found.pooler_output))
    torch.testing.assert_close(pooled, expected.pooler_output, atol=2e-4, rtol=1e-3)
    assert not (tmp_path / "head.safetensors").exists()


@pytest.mark.parametrize("quantization", ["float32", "int8"])
def test_the_head_of_a_classifier_lies_beside_it(quantization, tmp_path):
    model = hfseq.EncoderForSequenceClassification(hfseq.EncoderConfig(**ENCODER, num_labels=3))
    sharpen(model, 0.5, 0, 0.3)
    model.eval()
    export_model(
        model,
        tmp_path,
        "ctranslate2",
        tokenizers=(make_tokenizer(), make_tokenizer()),
        quantization=quantization,
    )
    encoder = ctranslate2.Encoder(str(tmp_path), intra_threads=1)
    head = load_file(tmp_path / "head.safetensors")
    pooled = torch.from_numpy(np.array(encoder.forward_batch(words(SOURCES)).pooler_output))
    logits = pooled @ head["classifier.weight"].T + head["classifier.bias"]
    with torch.no_grad():
        expected = model(**padded(SOURCES)).logits
    tolerance = {"float32": 1e-3, "int8": 0.4}[quantization]
    torch.testing.assert_close(logits, expected, atol=tolerance, rtol=0)
    assert expected.std() > 0.5


def test_what_is_refused(tmp_path):
    pair = (make_tokenizer(), make_tokenizer())
    lstm = hfseq.LSTMForCausalLM(hfseq.LSTMConfig(vocab_size=8, embedding_size=4, hidden_size=4))
    with pytest.raises(ValueError, match=r"not LSTMForCausalLM \(hfseq_lstm\).*convert export onnx"):
        export_model(lstm, tmp_path, "ctranslate2", tokenizers=pair)
    model = make_transformer()
    with pytest.raises(ValueError, match="pass the model's tokenizer"):
        export_model(model, tmp_path, "ctranslate2")
    with pytest.raises(ValueError, match="no quantization 'int9'.*int8"):
        export_model(model, tmp_path, "ctranslate2", tokenizers=pair, quantization="int9")
    with pytest.raises(ValueError, match="33 entries, the model only 32"):
        many = make_tokenizer([*WORDS, "a", "b", "c"])
        export_model(model, tmp_path, "ctranslate2", tokenizers=(many, many))
    with pytest.raises(ValueError, match="no activation 'mish'"):
        export_model(make_transformer(activation_function="mish"), tmp_path, "ctranslate2", tokenizers=pair)
    with pytest.raises(ValueError, match="format marian has no quantization"):
        export_model(model, tmp_path, "marian", quantization="int8")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_what_the_engine_loads(tmp_path, capsys):
    from hfseq.commands import convert

    make_transformer().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    convert.main(
        ["export", "ctranslate2", str(tmp_path / "model"), str(tmp_path / "out"), "--quantization", "int8"]
    )
    assert "as ctranslate2" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/config.json").read_text())["decoder_start_token"] == "<s>"
    assert (tmp_path / "out/tokenizer.json").is_file()
    translator = ctranslate2.Translator(str(tmp_path / "out"), intra_threads=1)
    assert translator.translate_batch(words(SOURCES), max_decoding_length=4)[0].hypotheses[0]
