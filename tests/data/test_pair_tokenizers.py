"""Tokenizers of sequence-to-sequence models: special tokens, one or two vocabularies, what denoising adds."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from hfseq.data import (
    ALGORITHMS,
    PairCorpus,
    cached_pair_tokenizers,
    load_pair_tokenizers,
    save_pair_tokenizers,
    sentinel_ids,
    surplus_ids,
    train_tokenizer,
)
from hfseq.data.encoding import CorpusEncoder

ENGLISH = [
    "Two men are walking a dog.",
    "A man (in blue) smiles; it's a child's toy!",
    "Two dogs, two men: walking?",
]
GERMAN = ["Zwei Männer führen einen Hund aus.", "Ein Mann in Blau lächelt.", "Straße, Ärger und Übermut!"]
PAIRS = list(zip(ENGLISH * 20, GERMAN * 20, strict=True))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every algorithm, trained on both languages and reloaded."""
    found = {}
    for algorithm in ALGORITHMS:
        folder = tmp_path_factory.mktemp(algorithm)
        train_tokenizer([*ENGLISH * 20, *GERMAN * 20], algorithm, 400, translation=True).save_pretrained(
            folder
        )
        found[algorithm] = AutoTokenizer.from_pretrained(folder)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_special_tokens(trained, algorithm):
    tokenizer = trained[algorithm]
    first = ["<pad>", "<s>", "</s>"] + (["<unk>"] if algorithm != "bpe" else [])
    assert tokenizer.convert_ids_to_tokens(list(range(len(first)))) == first
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    both = tokenizer([ENGLISH[0], "A man"], text_target=GERMAN[:2], padding=True)
    assert set(both) == {"input_ids", "attention_mask", "labels"}
    assert both["input_ids"][0][-1] == 2 and both["labels"][1].count(2) == 1
    short = both["input_ids"][1]
    assert short[-1] == 0 and short[short.index(0) - 1] == 2  # padded on the right, behind the end token
    assert 1 not in short  # the start token is the decoder's alone


def test_byte_level_text_comes_back(trained):
    tokenizer = trained["bpe"]
    for text in [*ENGLISH, *GERMAN, "two  spaces\tand tab ", "日本語 \u00a0 😀", "x"]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert tokenizer.batch_decode([ids], skip_special_tokens=True) == [text]


def test_a_word_is_the_same_token_at_the_beginning_and_inside(trained):
    tokenizer = trained["bpe"]
    assert tokenizer("men walking")["input_ids"] == [
        *tokenizer("men", add_special_tokens=False)["input_ids"],
        *tokenizer("walking", add_special_tokens=False)["input_ids"],
        2,
    ]


def test_tokens_stay_within_words_and_apart_from_punctuation(trained):
    for token in trained["bpe"].get_vocab():
        if len(token) > 1 and not token.startswith("<"):
            text = trained["bpe"].convert_tokens_to_string([token]) if token.isascii() else token
            assert " " not in text.strip() and "Ġ" not in token[1:]
            letters = [c.isalnum() for c in token.lstrip("Ġ") if c.isascii() and c != "'"]
            assert all(letters) or not any(letters), token  # "dog" or ".", never "dog."


def test_lower_case():
    tokenizer = train_tokenizer(ENGLISH * 20, "bpe", 300, translation=True, lowercase=True)
    assert tokenizer.decode(tokenizer("Two MEN")["input_ids"], skip_special_tokens=True) == "two men"


def test_denoising_tokens(tmp_path):
    plain = train_tokenizer(ENGLISH * 20, "bpe", 300, translation=True)
    train_tokenizer(ENGLISH * 20, "bpe", 304, translation=True, mask=True, sentinels=3).save_pretrained(
        tmp_path
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.convert_ids_to_tokens(list(range(8))) == [
        "<pad>", "<s>", "</s>", "<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>", "!",
    ]  # fmt: skip
    assert sentinel_ids(tokenizer) == [4, 5, 6] and sentinel_ids(plain) == []
    assert tokenizer.mask_token_id == 3 and plain.mask_token_id is None
    assert set(tokenizer.all_special_ids) == {0, 1, 2, 3, 4, 5, 6}
    # The text's tokens are the same, four further on.
    assert [i - 4 for i in tokenizer(ENGLISH[0])["input_ids"][:-1]] == plain(ENGLISH[0])["input_ids"][:-1]
    ids = [4, *tokenizer("a dog")["input_ids"], 5]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a dog"
    assert tokenizer("A <mask> walks <extra_id_1>")["input_ids"].count(3) == 1
    # What a text spells out is text where arrays are made.
    found, _ = CorpusEncoder(tokenizer).encode(["A <mask> walks <extra_id_1> </s>"])
    assert not set(found.tolist()) & set(tokenizer.all_special_ids)
    assert surplus_ids(tokenizer, 304) == [0]


def test_joint_and_separate_vocabularies(tmp_path):
    corpus = PairCorpus.from_pairs(train=PAIRS, validation=[("a unicorn" * 9, "ein Einhorn" * 9)])
    options = {"lowercase": True, "cache_dir": tmp_path / "cache"}
    joint, same = cached_pair_tokenizers(corpus, "bpe", 340, **options)
    assert same is joint
    expected = train_tokenizer(
        [*corpus.sources.train, *corpus.targets.train], "bpe", 340, lowercase=True, translation=True
    )
    assert joint.backend_tokenizer.to_str() == expected.backend_tokenizer.to_str()
    source, target = cached_pair_tokenizers(corpus, "bpe", 340, vocabulary="separate", **options)
    for tokenizer, texts in ((source, ENGLISH), (target, GERMAN)):
        alone = train_tokenizer(texts * 20, "bpe", 340, lowercase=True, translation=True)
        assert tokenizer.backend_tokenizer.to_str() == alone.backend_tokenizer.to_str()
        assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert len(source("männer")["input_ids"]) > len(target("männer")["input_ids"])
    assert len(list((tmp_path / "cache").glob("tokenizer-*/tokenizer.json"))) == 3
    with_mask, _ = cached_pair_tokenizers(corpus, "bpe", 340, mask=True, sentinels=5, **options)
    assert len(sentinel_ids(with_mask)) == 5 and with_mask.mask_token == "<mask>"
    with pytest.raises(ValueError, match="Unknown vocabulary 'seperate'. Did you mean 'separate'"):
        cached_pair_tokenizers(corpus, "bpe", 340, vocabulary="seperate", **options)


def test_both_tokenizers_are_saved_and_loaded(tmp_path):
    source, target = (
        train_tokenizer(texts * 20, "bpe", 300, translation=True) for texts in (ENGLISH, GERMAN)
    )
    save_pair_tokenizers(tmp_path, source, target)
    for loaded, original in zip(load_pair_tokenizers(tmp_path), (source, target), strict=True):
        assert loaded("Männer, men")["input_ids"] == original("Männer, men")["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == source.get_vocab()
    save_pair_tokenizers(tmp_path, target, target)
    one, other = load_pair_tokenizers(tmp_path)
    assert one is other and one.get_vocab() == target.get_vocab()


def test_errors():
    for options, message in (
        ({"masked": True, "translation": True}, "not for both"),
        ({"mask": True}, "mask and sentinels are for translation=True"),
        ({"sentinels": 3, "masked": True}, "mask and sentinels are for translation=True"),
        ({"sentinels": -1, "translation": True}, "sentinels must be at least 0, not -1"),
    ):
        with pytest.raises(ValueError, match=message):
            train_tokenizer(["a"], "bpe", 400, **options)
    with pytest.raises(ValueError, match=r"at least 269 \(13 special tokens and 256 bytes\)"):
        train_tokenizer(["a"], "bpe", 268, translation=True, sentinels=10)
