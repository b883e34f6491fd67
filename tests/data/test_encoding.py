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


def test_special_tokens_in_the_text_are_text_unless_asked_for():
    tokenizer = train_tokenizer(nasty_texts(300), "bpe", 500)
    [ids] = as_lists(CorpusEncoder(tokenizer), ["a <|endoftext|> b"])
    assert 0 not in ids and tokenizer.decode(ids) == "a <|endoftext|> b"
    encoder = CorpusEncoder(tokenizer, parse_special_tokens=True)
    assert encoder.by_word
    texts = ["a <|endoftext|> b<|endoftext|>", *nasty_texts(300)]
    found = as_lists(encoder, texts)
    assert (
        found == [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts)] and found[0].count(0) == 2
    )
    # What takes the space after it, or has one within, cannot be found word by word.
    for token in (AddedToken("<x>", rstrip=True, special=True), AddedToken("<a b>", special=True)):
        other = train_tokenizer(nasty_texts(300), "bpe", 500)
        other.add_special_tokens({"additional_special_tokens": [token]})
        assert CorpusEncoder(other).by_word and not CorpusEncoder(other, parse_special_tokens=True).by_word


# ---- long documents, long words


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_long_texts_in_parts_are_what_they_are_whole(algorithm, monkeypatch):
    """Parts, windows and shortened words, with limits so low that everything is long."""
    letters = random.Random(3)
    runs = ["".join(letters.choices("abAB19", k=n)) for n in (30, 200, 700)] * 2
    texts = ["".join(pair) for pair in zip(nasty_texts(6, 5), runs, strict=True)]
    texts += ["".join(nasty_texts(40, seed)) for seed in range(30)] + [
        "a" * 500,
        "é" * 300,
        "中" * 300,
        "😀a" * 200,
    ]
    tokenizer = train_tokenizer([*nasty_texts(300), *texts], algorithm, 700)
    expected = reference(tokenizer, texts)
    monkeypatch.setattr(encoding, "PART_CHARACTERS", 60)
    monkeypatch.setattr(encoding, "WINDOW_CHARACTERS", 40)
    encoder = CorpusEncoder(tokenizer)
    windows = []
    if algorithm in ("bpe", "character"):
        real = encoder._in_pieces
        encoder._in_pieces = lambda piece: windows.append(len(piece)) or real(piece)
    assert as_lists(encoder, texts) == expected
    assert len(windows) > 10 or algorithm not in ("bpe", "character")
    for text in texts:
        assert "".join(encoding.parts_of(text, 60)) == text
        assert sum(len(part.split()) for part in encoding.parts_of(text, 60)) == len(text.split())


def test_windows_are_joined_only_where_no_merge_crosses(monkeypatch):
    """Where the vocabulary is one of long runs, most borders would be crossed; none is taken for whole."""
    texts = ["ab" * 40 + "aab" * 30, "abc" * 50, "aaaaaaaab" * 20, "a" * 200]
    tokenizer = train_tokenizer(texts * 3, "bpe", 330)
    monkeypatch.setattr(encoding, "WINDOW_CHARACTERS", 64)
    encoder = CorpusEncoder(tokenizer)
    choose = random.Random(0)
    trials = texts + ["".join(choose.choices(["a", "ab", "abc", "aaab", "b"], k=150)) for _ in range(200)]
    assert as_lists(encoder, trials) == reference(tokenizer, trials)


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
