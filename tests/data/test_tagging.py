"""Tagged sentences: files, the list of tags, and labels on the first piece of each word."""

from __future__ import annotations

import pytest

from hfseq.data import train_tokenizer
from hfseq.data.tagging import (
    TaggedSentence,
    check_tags,
    encode_tagged,
    read_conll,
    tags_of_rows,
    word_pieces,
)

TEXT = ["The Empire State Building, seen by anti-realists in New York's streets ."] * 3 + [
    "abcdefghij klmnopqrst uvwxyz"
]
SENTENCES = [
    TaggedSentence(
        ("seen", "in", "New", "York", "'s", "streets"), ("O", "O", "B-l", "I-l", "O", "O"), "f, line 1", 1
    ),
    TaggedSentence(("🙂", "Empire", "New-York-Building"), ("O", "B-l", "B-l"), "f, line 8", 8),
]
LABELS = ["O", "B-l", "I-l"]


@pytest.fixture(params=["bpe", "wordpiece", "unigram", "word", "character", "bpe of a language model"])
def tokenizer(request):
    return train_tokenizer(TEXT, request.param.split()[0], 330, masked="language" not in request.param)


@pytest.fixture
def conll(tmp_path):
    def write(text: str):
        (tmp_path / "a.conll").write_text(text, encoding="utf-8")
        return tmp_path / "a.conll"

    return write


class TestFiles:
    def test_sentences_end_at_blank_lines_lone_tabs_and_byte_order_marks(self, conll):
        found = read_conll(conll("\ufeffa\tO\nb\tB-x\n\n\nc\tO\n\t\nd\tO\n\ufeff\ne\tI-x\r\n"))
        assert [s.words for s in found] == [("a", "b"), ("c",), ("d",), ("e",)]
        assert [s.line for s in found] == [1, 5, 7, 9]
        assert found[-1].tags == ("I-x",)

    def test_tokens_without_tags(self, conll):
        (sentence,) = read_conll(conll("a\nb\n"), labelled=False)
        assert sentence.words == ("a", "b") and sentence.tags is None

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("a\tO\nb\n", r"a\.conll, line 2: 1 columns \('b'\), expected token TAB tag"),
            ("a O\n", r"line 1: 1 columns.*by a tab, not by spaces"),
            ("a\tO\tx\n", r"line 1: 3 columns"),
            ("a\tO\n\tB-x\n", r"line 2: tag 'B-x' without a token.*misaligned"),
            ("a\tO\nb\t\n", r"line 2: token 'b' without a tag.*misaligned"),
            ("a\tO\nb\tperson\n", r"line 2: tag 'person' is malformed"),
            ("a\tB-\n", r"line 1: tag 'B-' is malformed"),
            ("a\tE-x\n", r"line 1: tag 'E-x' is malformed"),
        ],
    )
    def test_refused(self, conll, text, message):
        with pytest.raises(ValueError, match=message):
            read_conll(conll(text))

    def test_an_inside_tag_after_another_type_is_warned_of(self, conll, caplog):
        read_conll(conll("a\tB-x\nb\tI-y\n\nc\tI-x\n"))
        assert "a.conll, line 2" in caplog.text and "(2 in the file)" in caplog.text


class TestTags:
    def test_list(self):
        assert check_tags({"train": SENTENCES}) == ["O", "B-l", "I-l"]

    def test_a_tag_that_does_not_fit(self):
        other = [TaggedSentence(("a", "b"), ("B-l", "B-loc"), "g, line 5", 5)]
        with pytest.raises(
            ValueError, match=r"g, line 6: tag 'B-loc' does not fit the types of the training side"
        ):
            check_tags({"train": SENTENCES, "test": other})
        with pytest.raises(ValueError, match=r"f, line 4: tag 'I-l' does not fit the given list: O, B-l"):
            check_tags({"train": SENTENCES}, ["O", "B-l"])

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["B-l", "I-l"], "lack O"),
            (["O", "I-l"], "I-l but no B-l"),
            (["O", "l"], "'l' of the given list is malformed"),
            (["O", "B-l", "I-l", "B-l"], "twice"),
            (["O", "B-l", "I-l", "B-p"], r"f: type 'p' has no entity on the train side"),
        ],
    )
    def test_lists_that_are_none(self, labels, message):
        with pytest.raises(ValueError, match=message):
            check_tags({"train": SENTENCES}, labels)

    def test_no_entity(self):
        with pytest.raises(ValueError, match=r"f, line 1: no entity on the whole training side"):
            check_tags({"train": [TaggedSentence(("a",), ("O",), "f, line 1", 1)]})


class TestPieces:
    def test_are_those_of_running_text(self, tokenizer):
        for sentence in SENTENCES:
            pieces = word_pieces(sentence.words, tokenizer)
            assert [*pieces.before, *pieces.ids, *pieces.after] == tokenizer(" ".join(sentence.words))[
                "input_ids"
            ]

    def test_belong_to_their_words(self, tokenizer):
        for sentence in SENTENCES:
            pieces = word_pieces(sentence.words, tokenizer)
            for number, word in enumerate(sentence.words):
                ids = [i for i, owner in zip(pieces.ids, pieces.words, strict=True) if owner == number]
                if tokenizer.unk_token_id not in ids or tokenizer.unk_token_id is None:
                    assert tokenizer.decode(ids).replace(" ", "") == word

    def test_labels_stand_on_the_first_piece(self, tokenizer):
        rows, counts = encode_tagged(SENTENCES, tokenizer, LABELS)
        assert counts == {"sentences_cut": 0, "words_cut": 0, "words_without_pieces": 0}
        for row, sentence in zip(rows, SENTENCES, strict=True):
            assert [label for label in row["labels"] if label != -100] == [
                LABELS.index(t) for t in sentence.tags
            ]
            pieces = word_pieces(sentence.words, tokenizer)
            firsts = [len(pieces.before) + pieces.words.index(n) for n in range(len(sentence.words))]
            assert [column for column, label in enumerate(row["labels"]) if label != -100] == firsts

    def test_labels_stand_on_all_pieces_if_asked_and_the_last_is_read(self, tokenizer):
        rows, _ = encode_tagged(SENTENCES, tokenizer, LABELS, labelled_pieces="all")
        for row, sentence in zip(rows, SENTENCES, strict=True):
            pieces = word_pieces(sentence.words, tokenizer)
            tags = [-100 if word is None else LABELS.index(sentence.tags[word]) for word in pieces.words]
            outside = [-100] * len(pieces.before), [-100] * len(pieces.after)
            assert row["labels"] == [*outside[0], *tags, *outside[1]]
            backwards = pieces.words[::-1]
            lasts = [len(pieces.ids) - 1 - backwards.index(n) for n in range(len(sentence.words))]
            read = [column for column, word in enumerate(row["word_of"]) if word >= 0]
            assert read == [len(pieces.before) + last for last in lasts]
        with pytest.raises(ValueError, match="one of first, all, not 'last'"):
            encode_tagged(SENTENCES, tokenizer, LABELS, labelled_pieces="last")

    @pytest.mark.parametrize("labelled", ["first", "all"])
    @pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 100])
    def test_long_sentences_are_cut_between_words(self, tokenizer, room, labelled):
        length = room + tokenizer.num_special_tokens_to_add()
        rows, counts = encode_tagged(
            SENTENCES, tokenizer, LABELS, max_length=length, labelled_pieces=labelled
        )
        assert all(len(row["input_ids"]) <= length for row in rows)
        # Every word is labelled once, and the true labels come back as the true tags.
        assert tags_of_rows(rows, [row["labels"] for row in rows], SENTENCES, LABELS) == [
            list(s.tags) for s in SENTENCES
        ]
        words = sorted((row["sentence"], word) for row in rows for word in row["word_of"] if word >= 0)
        assert words == [(s, w) for s in range(2) for w in range(len(SENTENCES[s].words))]
        if not counts["words_cut"]:
            whole, _ = encode_tagged(SENTENCES, tokenizer, LABELS)
            special = tokenizer.num_special_tokens_to_add()
            assert sum(len(r["input_ids"]) - special for r in rows) == sum(
                len(r["input_ids"]) - special for r in whole
            )
        longer = any(len(word_pieces(s.words, tokenizer).ids) > room for s in SENTENCES)
        assert (counts["sentences_cut"] + counts["words_cut"] > 0) == longer

    def test_words_without_pieces_are_outside(self):
        class Deaf:
            is_fast = True

            def __call__(self, text, **options):
                return {"input_ids": [7], "special_tokens_mask": [0], "offset_mapping": [(0, 1)]}

        sentence = TaggedSentence(("a", "\u200b"), ("O", "B-l"), "f, line 1", 1)
        rows, counts = encode_tagged([sentence], Deaf(), LABELS)
        assert counts["words_without_pieces"] == 1
        assert tags_of_rows(rows, [[1]], [sentence], LABELS) == [["B-l", "O"]]

    def test_refused(self, tokenizer):
        with pytest.raises(ValueError, match=r"f, line 1: rows of \d leave no room"):
            encode_tagged(SENTENCES, tokenizer, LABELS, max_length=tokenizer.num_special_tokens_to_add())
