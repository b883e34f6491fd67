"""Encoding each distinct word once must be encoding: the tokenizer itself says so, on text that tries to differ."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from hfseq.data import ALGORITHMS, encoding, train_tokenizer
from hfseq.data.encoding import CorpusEncoder, splits_between_words

ALPHABET = " \t\n\r\u00a0\u2003\u3000\u180e\x1c\x85\u200b\u0301aAbΣσßİé19'’-.,\"(▁Ġ#😀中\x00\ufeff"  # noqa: RUF001
PARTS = [*ALPHABET, *" \n ", "  ", " a", " the", " \u0301", "<|endoftext|>", "'s", " '", "n't"]


def nasty_texts(n: int, seed: int = 0) -> list[str]:
    choose = random.Random(seed)
    return ["".join(choose.choices(PARTS, k=choose.randrange(60))) for _ in range(n)]


def as_lists(encoder: CorpusEncoder, texts: list[str]) -> list[list[int]]:
    ids, lengths = encoder.encode(texts)
    assert ids.dtype == np.uint32 and len(lengths) == len(texts)
    return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]


def reference(tokenizer, texts: list[str]) -> list[list[int]]:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    return [e.ids for e in backend.encode_batch(texts, add_special_tokens=False)]


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_equals_the_tokenizer(algorithm, lowercase):
    tokenizer = train_tokenizer(nasty_texts(300), algorithm, 500, lowercase=lowercase)
    encoder = CorpusEncoder(tokenizer)
    assert encoder.by_word
    for seed in (1, 2):  # the second time many pieces are known
        texts = ["", "a", *nasty_texts(1500, seed)]
        assert as_lists(encoder, texts) == reference(tokenizer, texts)


def test_forgetting_changes_nothing(monkeypatch):
    tokenizer = train_tokenizer(nasty_texts(300), "bpe", 500)
    monkeypatch.setattr(encoding, "REMEMBERED_CHARACTERS", 100)
    encoder = CorpusEncoder(tokenizer)
    for seed in range(4):
        texts = nasty_texts(50, seed)
        assert as_lists(encoder, texts) == reference(tokenizer, texts)
        assert len(encoder._index) <= sum(map(len, texts))


def test_padding_and_truncation_of_an_earlier_call_do_not_matter():
    tokenizer = train_tokenizer(nasty_texts(300), "bpe", 500)
    texts = nasty_texts(20)
    before = as_lists(CorpusEncoder(tokenizer), texts)
    tokenizer(texts, padding="max_length", truncation=True, max_length=3)
    assert as_lists(CorpusEncoder(tokenizer), texts) == before


def test_special_tokens_in_the_text_are_text():
    tokenizer = train_tokenizer(nasty_texts(300), "bpe", 500)
    [ids] = as_lists(CorpusEncoder(tokenizer), ["a <|endoftext|> b"])
    assert 0 not in ids and tokenizer.decode(ids) == "a <|endoftext|> b"


def test_tokenizers_that_look_across_spaces_are_not_cut():
    def trained():
        return train_tokenizer(nasty_texts(100), "bpe", 400).backend_tokenizer

    assert splits_between_words(trained())
    whole = trained()
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    prefixed = trained()
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    none = Tokenizer(models.BPE())
    replaced = trained()
    replaced.normalizer = normalizers.Replace("a b", "c")
    added = trained()
    added.add_tokens([AddedToken("a b")])
    dropout = trained()
    dropout.model.dropout = 0.1
    for tokenizer in (whole, prefixed, none, replaced, added, dropout):
        assert not splits_between_words(tokenizer)


def test_uncut_tokenizers_are_encoded_whole():
    tokenizer = train_tokenizer(nasty_texts(100), "bpe", 400)
    tokenizer.add_tokens(["a b"])
    texts = ["x a b y", *nasty_texts(100)]
    encoder = CorpusEncoder(tokenizer)
    assert not encoder.by_word
    assert as_lists(encoder, texts) == reference(tokenizer, texts)
    assert len(tokenizer) - 1 in as_lists(encoder, texts)[0]
