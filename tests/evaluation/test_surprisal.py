"""Words' surprisals add up to their line's log-probability; which token is which word's; the space between words."""

from __future__ import annotations

import math

import pytest
import torch

from hfseq.evaluation.likelihoods import CausalLikelihood, ConditionalLikelihood, MaskedLikelihood
from hfseq.evaluation.surprisal import begins_word, word_surprisals

LINES = ["The king came back.", "", "then  the city's\tmen, and the naïve queen ", "went"]
KINDS = {
    "lstm bpe": CausalLikelihood,
    "lstm character": CausalLikelihood,
    "lstm unigram": CausalLikelihood,
    "lstm word": CausalLikelihood,
    "gpt2": CausalLikelihood,
    "encoder wordpiece": MaskedLikelihood,
    "encoder masked bpe": MaskedLikelihood,
    "transformer": ConditionalLikelihood,
}


@pytest.mark.parametrize("name", KINDS)
def test_words_add_up_to_the_log_probability_of_their_line(models, name):
    likelihood = KINDS[name](*models[name])
    words = word_surprisals(likelihood, LINES)
    assert [(word.line, word.word) for word in words] == [
        (number, word) for number, line in enumerate(LINES, 1) for word in line.split()
    ]
    for number in (1, 3, 4):
        (sentence,) = likelihood.encode([LINES[number - 1]], ["line"])
        (score,) = likelihood.sentence_scores([sentence])
        own = [word for word in words if word.line == number]
        assert [word.word_index for word in own] == list(range(1, len(own) + 1))
        assert sum(word.surprisal for word in own) == pytest.approx(-score / math.log(2), rel=1e-12)
        assert sum(len(word.tokens) for word in own) == len(sentence.scored)


def tokens_of(models, name, line) -> list[tuple[str, ...]]:
    return [word.tokens for word in word_surprisals(KINDS[name](*models[name]), [line])]


def test_which_token_is_which_words(models):
    assert tokens_of(models, "lstm character", "the  men ") == [tuple("the"), tuple("  men ")]
    for name in ("lstm bpe", "encoder masked bpe"):
        words = tokens_of(models, name, "the  king's men")
        assert ["".join(tokens) for tokens in words] == ["the", "ĠĠking's", "Ġmen"]
        assert len(words[1]) > 2  # a space alone, " king", "'s"
    pieces = tokens_of(models, "encoder wordpiece", "the king's men.")
    assert pieces[1] == ("king", "'", "s") and "".join(pieces[2]).replace("##", "") == "men."
    # Two tokens for the bytes of one letter, both of its word.
    assert "".join(tokens_of(models, "lstm bpe", "a naïve man")[1]) == "ĠnaÃ¯ve"


@pytest.mark.parametrize("name", ["lstm bpe", "lstm character", "lstm unigram", "gpt2"])
def test_the_end_of_a_word_is_counted_to_it(models, name):
    """Against a whole softmax after each prefix, and a spelling of Pimentel and Meister's formula of its own."""
    model, tokenizer = models[name]
    space = {"lstm bpe": "Ġ", "gpt2": "Ġ", "lstm character": " ", "lstm unigram": "▁"}[name]
    ends = [
        i for token, i in tokenizer.get_vocab().items()
        if token[0] in (space, "\n", "\t", *"ĉĊċČč") or token in ("<|endoftext|>", "<|pad|>")
    ]  # fmt: skip
    line = "the king's men came"
    ids = [tokenizer.bos_token_id, *tokenizer(line).input_ids]
    with torch.no_grad():
        p = [torch.softmax(model(torch.tensor([ids[: n + 1]])).logits[0, -1], -1) for n in range(len(ids))]
    words = word_surprisals(CausalLikelihood(model, tokenizer), [line])
    place = 0
    for index, word in enumerate(words):
        probability = 1.0 if index == 0 else 1 / p[place][ends].sum().item()
        for token in word.tokens:
            assert tokenizer.convert_ids_to_tokens(ids[place + 1]) == token
            probability *= p[place][ids[place + 1]].item()
            place += 1
        probability *= p[place][ends].sum().item()
        assert word.corrected == pytest.approx(-math.log2(probability), rel=1e-9)
    total = sum(word.surprisal for word in words) - math.log2(p[-1][ends].sum().item())
    assert sum(word.corrected for word in words) == pytest.approx(total, rel=1e-9)


def test_tokenizers_without_spaces_have_no_corrected_surprisal(models, tokenizers):
    for name in ("lstm word", "encoder wordpiece"):
        assert {word.corrected for word in word_surprisals(KINDS[name](*models[name]), ["the king"])} == {
            None
        }
    assert begins_word(tokenizers["wordpiece"], 128) is None


def test_a_word_that_becomes_no_token_is_told(models):
    likelihood = MaskedLikelihood(*models["bert"])
    from tokenizers import normalizers

    backend = likelihood.tokenizer.backend_tokenizer
    before = backend.normalizer
    backend.normalizer = normalizers.BertNormalizer(lowercase=False)
    try:
        with pytest.raises(ValueError, match="text, line 2: word 2, .* becomes no token"):
            word_surprisals(likelihood, ["", "the \u200b king"])
        with pytest.raises(ValueError, match="text, line 1: .* becomes no token at all"):
            word_surprisals(likelihood, ["\u200b"])
    finally:
        backend.normalizer = before


def test_a_token_of_two_words_is_refused(models):
    from tokenizers import Tokenizer
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(kinds.WordLevel({"[UNK]": 0, "by the": 1}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", bos_token="[UNK]")
    with pytest.raises(ValueError, match="token 'by the' is of more than one word"):
        word_surprisals(CausalLikelihood(models["gpt2"][0], tokenizer), ["by the"])
