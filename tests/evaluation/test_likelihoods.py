"""Every token's log-probability is what a forward pass for it alone says, whatever it is batched with."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForPreTraining, BertModel, GPT2Config, GPT2ForSequenceClassification

from hfseq.evaluation import likelihoods
from hfseq.evaluation.likelihoods import (
    CausalLikelihood,
    ConditionalLikelihood,
    MaskedLikelihood,
    likelihood_class,
    load_likelihood,
)


def beside(name: str):
    """A module of this folder: tests are no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = beside("oracle")
SENTENCES = ["The king came back.", "In the year 7 the men went", "went", "then  the city's\tmen, and naïve"]
KINDS = {
    "lstm bpe": (CausalLikelihood, oracle.causal),
    "lstm character": (CausalLikelihood, oracle.causal),
    "gpt2": (CausalLikelihood, oracle.causal),
    "encoder wordpiece": (MaskedLikelihood, oracle.masked),
    "encoder masked bpe": (MaskedLikelihood, oracle.masked),
    "bert": (MaskedLikelihood, oracle.masked),
    "transformer": (ConditionalLikelihood, oracle.conditional),
    "bart": (ConditionalLikelihood, oracle.conditional),
}


def encoded(likelihood, texts):
    return likelihood.encode(texts, [f"text {i}" for i in range(len(texts))])


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("budget", [1, 40, 4096])
def test_each_token_has_the_log_probability_of_a_pass_of_its_own(models, name, budget):
    model, tokenizer = models[name]
    kind, slow = KINDS[name]
    likelihood = kind(model, tokenizer, positions_per_batch=budget)
    values = likelihood.log_probabilities(encoded(likelihood, SENTENCES))
    with torch.no_grad():
        for sentence, found in zip(SENTENCES, values, strict=True):
            np.testing.assert_allclose(found, slow(model, tokenizer, sentence), rtol=1e-9, atol=1e-9)


def test_the_source_is_what_the_encoder_reads(models):
    model, tokenizer = models["transformer"]
    likelihood = ConditionalLikelihood(model, tokenizer, source="the king")
    (found,) = likelihood.log_probabilities(encoded(likelihood, SENTENCES[:1]))
    with torch.no_grad():
        np.testing.assert_allclose(
            found, oracle.conditional(model, tokenizer, SENTENCES[0], "the king"), rtol=1e-9
        )
        assert abs(sum(found) - sum(oracle.conditional(model, tokenizer, SENTENCES[0]))) > 1e-3


@pytest.mark.parametrize("name", ["lstm bpe", "encoder wordpiece", "transformer"])
def test_equal_sentences_have_equal_scores_to_the_last_bit(models, name):
    model, tokenizer = models[name]
    likelihood = KINDS[name][0](model, tokenizer, positions_per_batch=30)
    scores = likelihood.sentence_scores(encoded(likelihood, [*SENTENCES, *SENTENCES[::-1]]))
    assert scores[:4].tolist() == scores[:3:-1].tolist()


def test_the_model_is_left_in_its_mode(models):
    model, tokenizer = models["lstm bpe"]
    likelihood = CausalLikelihood(model.train(), tokenizer)
    likelihood.sentence_scores(encoded(likelihood, ["went"]))
    assert model.training
    model.eval()


def test_a_masked_model_projects_masked_positions_only(models):
    model, tokenizer = models["encoder wordpiece"]
    shapes = []
    handle = model.lm_head.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    likelihood = MaskedLikelihood(model, tokenizer)
    sentences = encoded(likelihood, SENTENCES)
    likelihood.log_probabilities(sentences)
    handle.remove()
    assert shapes == [(1, sum(len(sentence.scored) for sentence in sentences), model.config.vocab_size)]


@pytest.mark.parametrize("name", ["lstm bpe", "gpt2"])
def test_a_common_beginning_is_projected_once(models, name):
    model, tokenizer = models[name]
    shapes = []
    handle = model.lm_head.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    likelihood = CausalLikelihood(model, tokenizer)
    # Shorter, longer and equally long ones that begin alike, out of order.
    texts = [
        "men came",
        "men",
        "men went",
        "the men",
        "men came back",
        "men went back",
        "the king",
        "men came back.",
    ]
    sentences = encoded(likelihood, texts)
    values = likelihood.log_probabilities(sentences)
    handle.remove()
    with torch.no_grad():
        for text, found in zip(texts, values, strict=True):
            np.testing.assert_allclose(found, oracle.causal(model, tokenizer, text), rtol=1e-9, atol=1e-9)
    beginnings = {sentence.ids[:n] for sentence in sentences for n in range(1, len(sentence.ids))}
    assert len(beginnings) <= sum(shape[1] for shape in shapes) < sum(len(one.scored) for one in sentences)


def test_a_head_that_projects_in_its_own_way(models, monkeypatch):
    """Without output embeddings to hold on to, all positions are projected, and the numbers are the same."""
    for name in ("lstm bpe", "bert"):
        likelihood = KINDS[name][0](*models[name])
        expected = likelihood.sentence_scores(encoded(likelihood, SENTENCES))
        with monkeypatch.context() as patch:
            patch.setattr(likelihoods, "_projected_only_at", lambda *arguments: nullcontext())
            found = likelihood.sentence_scores(encoded(likelihood, SENTENCES))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_text_that_is_no_token_or_too_long(models):
    model, tokenizer = models["gpt2"]
    likelihood = CausalLikelihood(model, tokenizer)
    with pytest.raises(ValueError, match="text 1: '' becomes no token at all"):
        encoded(likelihood, ["went", ""])
    with pytest.raises(ValueError, match=r"text 0: .* the model has 128 positions"):
        encoded(likelihood, ["went " * 200])


def test_a_tokenizer_that_lacks_what_is_needed(models, tokenizers):
    with pytest.raises(ValueError, match="has no mask token"):
        MaskedLikelihood(models["bert"][0], tokenizers["bpe"])
    bare = type(tokenizers["bpe"])(tokenizer_object=tokenizers["bpe"].backend_tokenizer)
    with pytest.raises(ValueError, match="neither a bos nor an eos token"):
        CausalLikelihood(models["gpt2"][0], bare)
    with pytest.raises(ValueError, match="The source '' becomes no token"):
        ConditionalLikelihood(models["bart"][0], bare)


def test_numbers_that_are_none_are_told(models):
    model, tokenizer = models["lstm word"]
    likelihood = CausalLikelihood(model, tokenizer)
    bias = model.lm_head.bias.detach().clone()
    torch.nn.init.constant_(model.lm_head.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="log-probability nan"):
        likelihood.sentence_scores(encoded(likelihood, ["went"]))
    with torch.no_grad():
        model.lm_head.bias.copy_(bias)


HEADS = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
SMALL_BERT = BertConfig(**HEADS, max_position_embeddings=64, vocab_size=128)
SMALL_GPT2 = GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=64, vocab_size=384)


@pytest.mark.parametrize("name", KINDS)
def test_a_checkpoint_is_scored_by_the_head_it_was_saved_with(models, name, tmp_path):
    model, tokenizer = models[name]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    likelihood = load_likelihood(str(tmp_path))
    assert type(likelihood) is KINDS[name][0] and type(likelihood.model) is type(model)
    scores = likelihood.sentence_scores(encoded(likelihood, SENTENCES))
    expected = KINDS[name][0](model, tokenizer)
    np.testing.assert_allclose(scores, expected.sentence_scores(encoded(expected, SENTENCES)), rtol=1e-3)


def test_bert_with_both_heads_of_its_pretraining(tokenizers, tmp_path):
    BertForPreTraining(SMALL_BERT).save_pretrained(tmp_path)
    tokenizers["wordpiece"].save_pretrained(tmp_path)
    assert type(load_likelihood(str(tmp_path))) is MaskedLikelihood


@pytest.mark.parametrize(
    ("model", "saved"),
    [
        (lambda: BertModel(SMALL_BERT), "BertModel"),
        # Its body has all that GPT-2's tied language model needs: it would load, and mean nothing.
        (lambda: GPT2ForSequenceClassification(SMALL_GPT2), "GPT2ForSequenceClassification"),
    ],
)
def test_a_model_without_a_fitting_head_is_refused(tokenizers, tmp_path, model, saved):
    model().save_pretrained(tmp_path)
    tokenizers["bpe"].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"was saved as {saved}, which has no head that predicts tokens"):
        load_likelihood(str(tmp_path))


def test_code_of_the_checkpoint_names_its_head():
    config = BertConfig(
        architectures=["OwnForCausalLM"],
        auto_map={"AutoModelForMaskedLM": "own.OwnForMaskedLM", "AutoModelForCausalLM": "own.OwnForCausalLM"},
    )
    assert likelihood_class(config, "own") is CausalLikelihood


def test_a_source_is_for_an_encoder_and_a_decoder(models, tmp_path):
    models["lstm bpe"][0].save_pretrained(tmp_path)
    models["lstm bpe"][1].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="A source is for models with an encoder and a decoder"):
        load_likelihood(str(tmp_path), source="x")
