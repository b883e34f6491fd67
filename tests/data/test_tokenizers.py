"""Each algorithm is trained, saved, reloaded by AutoTokenizer, and gives text back as its table says."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from hfseq.data import (
    ALGORITHMS,
    Corpus,
    cached_tokenizer,
    check_vocabulary,
    id_count,
    padded_vocab_size,
    surplus_ids,
    tokenizer_config_fields,
    tokenizers,
    train_tokenizer,
)
from hfseq.data.encoding import CorpusEncoder

TEXT = "in the beginning God created heaven and earth Moses' don't well-known (so) light: day; night? yes! no"
SENTENCE = "The well-known God (he) said: don't go!\nAnd the light, 5%."


def sentences(n: int = 300) -> list[str]:
    choose = random.Random(0)
    lines = [" ".join(choose.choices(TEXT.split(), k=12)) + ".\nAnd more." for _ in range(n)]
    return [SENTENCE, *lines]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Every algorithm, trained and reloaded."""
    found = {}
    for algorithm in ALGORITHMS:
        directory = tmp_path_factory.mktemp(algorithm)
        train_tokenizer(iter(sentences()), algorithm, 400).save_pretrained(directory)
        found[algorithm] = AutoTokenizer.from_pretrained(directory)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_reloads_with_its_special_tokens(trained, algorithm):
    tokenizer = trained[algorithm]
    assert tokenizer.is_fast
    assert tokenizer.convert_ids_to_tokens([0, 1]) == ["<|endoftext|>", "<|pad|>"]
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == 0 and tokenizer.pad_token_id == 1
    assert tokenizer.unk_token_id == (None if algorithm == "bpe" else 2)
    assert tokenizer.model_max_length > 10**9
    assert len(tokenizer) <= 400
    both = tokenizer(["in", "in the beginning God"], padding=True)
    assert set(both) == {"input_ids", "attention_mask"}  # generate() refuses token_type_ids
    assert both["input_ids"][0][0] == 1 and both["attention_mask"][0][0] == 0  # on the left
    assert 0 not in tokenizer("in the beginning")["input_ids"]


def random_text(choose: random.Random) -> str:
    alphabet = " \t\n\r\u00a0\u2003\x00\x1c\x85\ufeff\u200d\u0301aAé中😀'’.,<|>Ġ▁#\U0010ffff"  # noqa: RUF001
    parts = [
        *alphabet,
        "  ",
        " the",
        "\r\n",
        " 's",
        "<|endoftext|>",
        "<|pad|>",
        chr(choose.randrange(0x20, 0xD800)),
    ]
    return "".join(choose.choices(parts, k=choose.randrange(40)))


def test_byte_level_gives_any_text_back(trained):
    choose = random.Random(1)
    for _ in range(500):
        text = random_text(choose)
        assert trained["bpe"].decode(trained["bpe"](text)["input_ids"]) == text
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000)]))
    assert trained["bpe"].decode(trained["bpe"](everything)["input_ids"]) == everything


@pytest.mark.parametrize("algorithm", ["bpe", "unigram", "character"])
def test_known_characters_come_back_exactly(trained, algorithm):
    text = f"  {SENTENCE}\n\n  And  the   light \n"
    assert trained[algorithm].decode(trained[algorithm](text)["input_ids"]) == text


def test_word_level_decodes_as_one_writes(trained):
    tokenizer = trained["word"]
    ids = tokenizer(f" {SENTENCE}\n")["input_ids"]
    assert tokenizer.decode(ids) == SENTENCE + "\n"
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens[:6] == ["The", "well-known", "God", "(", "he", ")"] and "don't" in tokens and "\n" in tokens


def test_wordpiece_decodes_with_spaces_between_words(trained):
    tokenizer = trained["wordpiece"]
    assert tokenizer.decode(tokenizer("And the\n beginning, God.")["input_ids"]) == "And the beginning, God."


@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram", "word", "character"])
def test_what_is_not_known_is_unknown(trained, algorithm):
    ids = trained[algorithm]("the \u4e2d light")["input_ids"]
    assert ids.count(2) == 1
    assert trained[algorithm].decode(ids) == "the <|unk|> light"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_lowercase(algorithm):
    tokenizer = train_tokenizer(sentences(50), algorithm, 400, lowercase=True)
    assert tokenizer("THE LIGHT")["input_ids"] == tokenizer("the light")["input_ids"]
    assert tokenizer.decode(tokenizer("The Light")["input_ids"]) == "the light"


def test_training_again_gives_the_same_where_promised():
    for algorithm in ("bpe", "word", "character"):
        first, second = (train_tokenizer(sentences(), algorithm, 350) for _ in range(2))
        assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


def test_model_max_length_can_be_set(tmp_path):
    train_tokenizer(sentences(20), "word", 60, model_max_length=512).save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).model_max_length == 512


def test_training_errors():
    with pytest.raises(
        ValueError, match="Unknown tokenizer algorithm 'wordpeice'. Did you mean 'wordpiece'?"
    ):
        train_tokenizer(["a"], "wordpeice", 400)
    with pytest.raises(ValueError, match="vocab_size 257 is too small for bpe: it needs at least 258"):
        train_tokenizer(["a"], "bpe", 257)
    with pytest.raises(ValueError, match="vocab_size 3 is too small for word: it needs at least 4"):
        train_tokenizer(["a"], "word", 3)
    for algorithm in ALGORITHMS:
        with pytest.raises(ValueError, match="No text to train a tokenizer on"):
            train_tokenizer(["", ""], algorithm, 400)


def test_the_limit_is_kept_or_the_needed_number_named(tmp_path, caplog):
    """Han text: every character is a token, and for wordpiece another one inside a word."""
    characters = [chr(0x4E00 + i) for i in range(800)]
    documents = ["".join(characters[i : i + 40]) for i in range(0, 800, 20)] + [characters[0] * 9] * 9
    for algorithm in set(ALGORITHMS) - {"unigram"}:
        assert len(train_tokenizer(documents, algorithm, 300)) <= 300, algorithm
    assert (
        "wordpiece keeps the 148 most frequent, and words with others are <|unk|>. All need 1" in caplog.text
    )
    train_tokenizer(documents, "wordpiece", 300, masked=True).save_pretrained(tmp_path)
    limited = AutoTokenizer.from_pretrained(tmp_path)
    assert sorted(limited.get_vocab().values()) == list(range(len(limited)))
    assert limited.convert_ids_to_tokens([0, 1, 2, 3, 4]) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = limited(characters[0] * 3 + " " + characters[20] + " " + characters[799])["input_ids"]
    assert limited.convert_ids_to_tokens(known) == [
        "[CLS]", characters[0], f"##{characters[0]}", f"##{characters[0]}", characters[20], "[UNK]", "[SEP]",
    ]  # fmt: skip
    with pytest.raises(
        ValueError, match="vocab_size 300 is too small for unigram .* alone need 804"
    ) as error:
        train_tokenizer(documents, "unigram", 300)
    assert "Set vocab_size to 804 or more, or take bpe" in str(error.value)
    assert len(train_tokenizer(documents, "unigram", 804)) <= 804
    # These limits made the trainer of tokenizers exceed them, or run for ever.
    for size in (5, 7):
        with pytest.raises(ValueError, match="too small for unigram"):
            train_tokenizer(["a b c. "] * 3, "unigram", size)


def test_encoded_data_in_a_text_does_not_cost_its_length():
    counted = list(tokenizers._Counted(["x" * 500_000, "a " + "y" * 100_001 + " b", "c " * 100_000]))
    assert [len(text) for text in counted] == [100_000, 100_004, 200_000]


def test_vocabulary_is_rounded_up_and_the_surplus_never_generated(trained):
    tokenizer = trained["character"]
    n = id_count(tokenizer)
    assert n == len(tokenizer) and n % 64 != 0
    size = padded_vocab_size(tokenizer)
    assert size % 64 == 0 and 0 < size - n < 64
    assert padded_vocab_size(tokenizer, 1) == n
    assert surplus_ids(tokenizer, size) == [1, *range(n, size)]  # 1: padding
    tokenizer = train_tokenizer(sentences(20), "word", 60)
    tokenizer.pad_token = tokenizer.eos_token
    assert 0 not in surplus_ids(tokenizer, 64)  # banning the end would make every text endless


def test_tokenizer_and_model_must_have_the_same_vocabulary(trained):
    tokenizer = trained["word"]
    n, size = len(tokenizer), padded_vocab_size(tokenizer)

    def config(vocab_size, **ids):
        fields = {"eos_token_id": 0, "pad_token_id": 1, "bos_token_id": 0, **ids}
        return SimpleNamespace(vocab_size=vocab_size, **fields)

    check_vocabulary(tokenizer, config(size))
    check_vocabulary(tokenizer, config(n))
    check_vocabulary(tokenizer, config(size, eos_token_id=[0, 5], pad_token_id=None))
    with pytest.raises(
        ValueError, match=f"The tokenizer has {n} ids, the model only {n - 1}.*same checkpoint"
    ):
        check_vocabulary(tokenizer, config(n - 1))
    with pytest.raises(ValueError, match=f"The model has {n + 64} ids .*, the tokenizer only {n}"):
        check_vocabulary(tokenizer, config(n + 64))
    check_vocabulary(tokenizer, config(n + 64), multiple=128)
    with pytest.raises(ValueError, match="eos_token_id is 0 in the tokenizer but 7 in the model's config"):
        check_vocabulary(tokenizer, config(size, eos_token_id=7))


def test_cached_tokenizer_is_trained_once(tmp_path, monkeypatch):
    corpus = Corpus.from_documents(sentences(), validation_share=0.1)
    first = cached_tokenizer(corpus, "wordpiece", 300, cache_dir=tmp_path)
    monkeypatch.setattr("hfseq.data.tokenizers.train_tokenizer", None)  # a second training would fail
    again = cached_tokenizer(corpus, "wordpiece", 300, cache_dir=tmp_path)
    assert first.backend_tokenizer.to_str() == again.backend_tokenizer.to_str()
    with pytest.raises(TypeError):
        cached_tokenizer(corpus, "wordpiece", 301, cache_dir=tmp_path)
    assert not list(tmp_path.glob("tmp*"))  # the failed training left nothing


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """Every algorithm for a masked-language model, trained and reloaded."""
    found = {}
    for algorithm in ALGORITHMS:
        directory = tmp_path_factory.mktemp(algorithm)
        tokenizer = train_tokenizer(iter(sentences()), algorithm, 400, masked=True, model_max_length=128)
        tokenizer.save_pretrained(directory)
        found[algorithm] = AutoTokenizer.from_pretrained(directory)
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_masked_reloads_with_bert_s_special_tokens(masked, algorithm):
    tokenizer = masked[algorithm]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    if algorithm == "bpe":
        specials.remove("[UNK]")
    assert tokenizer.convert_ids_to_tokens(range(len(specials))) == specials
    assert sorted(tokenizer.all_special_tokens) == sorted(specials)
    assert tokenizer.unk_token_id == (None if algorithm == "bpe" else 1)
    names = ("pad", "cls", "sep", "mask", "bos", "eos")
    found = [tokenizer.convert_ids_to_tokens(getattr(tokenizer, f"{name}_token_id")) for name in names]
    assert found == ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[CLS]", "[SEP]"]
    assert tokenizer.padding_side == "right" and tokenizer.model_max_length == 128
    assert tokenizer_config_fields(tokenizer) == {
        "vocab_size": padded_vocab_size(tokenizer),
        "pad_token_id": 0,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "mask_token_id": tokenizer.mask_token_id,
    }


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_masked_puts_texts_between_special_tokens(masked, algorithm):
    tokenizer = masked[algorithm]
    a, b = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in ("in the beginning", "and light"))
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert not {cls, sep} & {*a, *b}
    assert tokenizer("in the beginning")["input_ids"] == [cls, *a, sep]
    pair = tokenizer("in the beginning", "and light")
    assert pair["input_ids"] == [cls, *a, sep, *b, sep]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    both = tokenizer(["in the beginning", "in"], padding=True)
    assert both["input_ids"][1][-1] == 0 and both["attention_mask"][1][-1] == 0
    cut = tokenizer("in the beginning " * 200, truncation=True)["input_ids"]
    assert len(cut) == 128 and cut[0] == cls and cut[-1] == sep
    # The words are the same as without BERT's special tokens.
    plain = train_tokenizer(iter(sentences()), algorithm, 400)
    if algorithm in ("word", "character"):
        ours, theirs = (
            t.convert_ids_to_tokens(t(SENTENCE, add_special_tokens=False)["input_ids"])
            for t in (tokenizer, plain)
        )
        assert ours == theirs


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_mask_stands_for_a_word_with_its_space(masked, algorithm):
    tokenizer = masked[algorithm]
    whole = tokenizer("the light", add_special_tokens=False)["input_ids"]
    before = tokenizer("the", add_special_tokens=False)["input_ids"]
    with_mask = tokenizer("the [MASK]", add_special_tokens=False)["input_ids"]
    assert whole[: len(before)] == before
    if algorithm == "character":  # there the space is a character to be guessed or not like any other
        assert with_mask == [
            *before,
            *tokenizer(" ", add_special_tokens=False)["input_ids"],
            tokenizer.mask_token_id,
        ]
    else:
        assert with_mask == [*before, tokenizer.mask_token_id]
        # What follows the mask keeps its space.
        tail = tokenizer("the [MASK] God", add_special_tokens=False)["input_ids"][len(with_mask) :]
        assert tail == tokenizer("the God", add_special_tokens=False)["input_ids"][len(before) :]
    assert tokenizer.decode(tokenizer("the light")["input_ids"], skip_special_tokens=True) == "the light"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_token_arrays_get_masked_texts_without_special_tokens(masked, algorithm):
    tokenizer = masked[algorithm]
    encoder = CorpusEncoder(tokenizer)
    assert encoder.by_word
    texts = [SENTENCE, "the [MASK] [SEP] light", "", "and  the\nlight"]
    ids, lengths = encoder.encode(texts)
    assert not set(ids.tolist()) & set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    for i in (0, 3):
        begin = lengths[:i].sum()
        expected = tokenizer(texts[i], add_special_tokens=False)["input_ids"]
        assert ids[begin : begin + lengths[i]].tolist() == expected


def test_offsets_of_byte_level_tokens_are_those_of_the_word(masked):
    tokens = masked["bpe"]("the light", return_offsets_mapping=True)
    assert tokens["offset_mapping"][0] == tokens["offset_mapping"][-1] == (0, 0)
    assert all("the light"[a:b].strip() == "the light"[a:b] for a, b in tokens["offset_mapping"])


def test_masked_is_kept_apart_in_the_cache(tmp_path):
    corpus = Corpus.from_documents(sentences(), validation_share=0.1)
    plain = cached_tokenizer(corpus, "word", 60, cache_dir=tmp_path)
    masked = cached_tokenizer(corpus, "word", 60, masked=True, model_max_length=64, cache_dir=tmp_path)
    assert plain.mask_token is None and masked.mask_token_id == 4 and masked.model_max_length == 64
    assert "mask_token_id" not in tokenizer_config_fields(plain)
    again = cached_tokenizer(corpus, "word", 60, masked=True, model_max_length=64, cache_dir=tmp_path)
    assert again.backend_tokenizer.to_str() == masked.backend_tokenizer.to_str()
    assert len(list(tmp_path.glob("tokenizer-*/tokenizer.json"))) == 2


def test_masked_training_errors():
    with pytest.raises(ValueError, match="vocab_size 259 is too small for bpe: it needs at least 260"):
        train_tokenizer(["a"], "bpe", 259, masked=True)
    with pytest.raises(ValueError, match="vocab_size 5 is too small for word: it needs at least 6"):
        train_tokenizer(["a"], "word", 5, masked=True)
