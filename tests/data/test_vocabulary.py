"""What is read off a tokenizer's vocabulary, ours and a published one's kind."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hfseq.data import MaskingVocabulary, train_tokenizer

TEXT = "He said: don't undo well-known 3.14 naïve words! \n\n中文 tokenization"


def words(tokenizer, text: str) -> list[str]:
    """The text's words as the tables see them, pieces joined by |."""
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
    starts = MaskingVocabulary.from_tokenizer(tokenizer).starts_word(ids)
    found: list[list[str]] = []
    for start, i in zip(starts, ids.tolist(), strict=True):
        piece = tokenizer.decode([i]) if "\ufffd" not in tokenizer.decode([i]) else "*"
        if start:
            found.append([])
        found[-1].append(piece)
    return ["|".join(word) for word in found]


def published_wordpiece() -> PreTrainedTokenizerFast:
    """As a BERT checkpoint's: places for tokens that never came, no end token, ids as they happen to be."""
    pieces = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused2]"]
    pieces += [
        "the",
        "un",
        "##do",
        "##able",
        "is",
        ".",
        ",",
        '"',
        "said",
        "do",
        "3",
        "##4",
        "he",
        "(",
        ")",
        "yes",
    ]
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = {
        name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token")
    }
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **special)


def test_words_of_a_published_wordpiece_vocabulary():
    tokenizer = published_wordpiece()
    vocabulary = MaskingVocabulary.from_tokenizer(tokenizer)
    assert (vocabulary.size, vocabulary.pad_id, vocabulary.cls_id) == (24, 0, 4)
    assert (vocabulary.sep_id, vocabulary.mask_id) == (5, 6)
    assert vocabulary.ordinary.tolist() == list(range(8, 24))  # neither special nor unused
    assert np.flatnonzero(vocabulary.special).tolist() == [0, 3, 4, 5, 6]
    ids = np.array([tokenizer("The undoable thing is undo.")["input_ids"]])
    tokens = tokenizer.convert_ids_to_tokens(ids[0])
    assert tokens == ["the", "un", "##do", "##able", "[UNK]", "is", "un", "##do", "."]
    assert vocabulary.starts_word(ids).tolist() == [[True, True, False, False, True, True, True, False, True]]
    # A piece that goes on after a special token (a row that begins within a word) begins a word of the row.
    row = np.array([4, *tokenizer.convert_tokens_to_ids(["##do", "##able", "[SEP]", "##able"])])
    assert vocabulary.starts_word(row).tolist() == [True, True, False, True, True]


def test_words_of_each_kind():
    texts = [TEXT, "He undo undone word token said words naive"] * 5
    for algorithm in ("bpe", "unigram"):
        tokenizer = train_tokenizer(texts, algorithm, 300, masked=True)
        found = words(tokenizer, "He said undone words 3.14 don't naive tokens!")
        joined = [word.replace("|", "").strip() for word in found]
        # The apostrophe is a word of its own, or one with what follows it.
        assert [w for w in joined if w not in ("'", "t", "'t")] == [
            "He",
            "said",
            "undone",
            "words",
            "3",
            ".",
            "14",
            "don",
            "naive",
            "tokens",
            "!",
        ]
        assert any("|" in word for word in found)
    wordpiece = train_tokenizer(texts, "wordpiece", 120, masked=True)
    joined = ["".join(w.split("|")).replace("##", "") for w in words(wordpiece, "He undone don't")]
    assert joined == ["He", "undone", "don", "'", "t"]
    for algorithm in ("word", "character"):
        tokenizer = train_tokenizer(texts, algorithm, 120, masked=True)
        assert all("|" not in word for word in words(tokenizer, "He undo, don't"))


def test_half_characters_belong_to_the_word():
    bpe = train_tokenizer(["plain text only"] * 3, "bpe", 262, masked=True)
    assert words(bpe, "na\u00efve \u4e2d\u6587") == ["n|a|*|*|v|e", " |*|*|*|*|*|*"]


def test_end_of_word_suffixes_are_understood():
    pieces = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3, "un": 4, "do</w>": 5, "the</w>": 6, ".</w>": 7}
    tokenizer = Tokenizer(models.BPE(pieces, [], end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    vocabulary = MaskingVocabulary.from_tokenizer(tokenizer)
    assert vocabulary.starts_word(np.array([6, 4, 5, 4, 5, 7])).tolist() == [
        True,
        True,
        False,
        True,
        False,
        True,
    ]
    assert vocabulary.ends_sentence[7] and vocabulary.begins_word[6]


def test_holes_and_added_tokens_are_never_drawn():
    tokenizer = train_tokenizer([TEXT] * 5, "word", 60, masked=True)
    tokenizer.add_tokens(["<place>"])
    vocabulary = MaskingVocabulary.from_tokenizer(tokenizer)
    added = tokenizer.convert_tokens_to_ids("<place>")
    assert vocabulary.size == added + 1 and added not in vocabulary.ordinary and not vocabulary.special[added]
    assert set(vocabulary.ordinary.tolist()) == set(range(5, added))


def test_bos_and_eos_will_do_for_cls_and_sep():
    tokenizer = train_tokenizer([TEXT] * 5, "word", 60)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    vocabulary = MaskingVocabulary.from_tokenizer(tokenizer)
    assert vocabulary.cls_id == vocabulary.sep_id == 0 and vocabulary.pad_id == 1
    assert vocabulary.mask_id == len(tokenizer) - 1 == vocabulary.size - 1


def test_tokenizers_that_do_not_fit_are_refused():
    plain = train_tokenizer([TEXT] * 5, "word", 60)
    with pytest.raises(ValueError, match=r"has no mask_token.*masked=True.*'mask_token': '\[MASK\]'"):
        MaskingVocabulary.from_tokenizer(plain)
    tokenizer = published_wordpiece()
    for name in ("pad_token", "cls_token", "sep_token"):
        kept = getattr(tokenizer, name)
        setattr(tokenizer, name, None)
        with pytest.raises(ValueError, match=f"has no {name}, which masked-language training needs"):
            MaskingVocabulary.from_tokenizer(tokenizer)
        setattr(tokenizer, name, kept)
    with pytest.raises(ValueError, match="object is not a fast tokenizer"):
        MaskingVocabulary.from_tokenizer(object())
    empty = Tokenizer(models.WordLevel({"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3}, unk_token="[PAD]"))
    special = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "CLS", "SEP", "MASK")}
    with pytest.raises(ValueError, match="has no token but special ones"):
        MaskingVocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=empty, **special))
