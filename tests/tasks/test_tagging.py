"""Tagged sentences: files, the list of tags, and labels on the first piece of each word."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hfseq.data import train_tokenizer
from hfseq.tasks import TaskData
from hfseq.tasks.tagging import (
    TaggedSentence,
    TaggingOptions,
    TokenClassification,
    check_tags,
    encode_tagged,
    read_conll,
    tags_of_rows,
    trim_offsets,
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
def conll(write):
    return lambda text: write("a.conll", text)


def data(**sides) -> TaskData:
    return TaskData("tags", "token-classification", sides)


def certain(numbers) -> np.ndarray:
    """Probabilities [time, labels] that leave no doubt; -100 is anything."""
    return np.eye(len(LABELS))[np.maximum(numbers, 0)]


class TestFiles:
    def test_sentences_end_at_blank_lines_lone_tabs_and_byte_order_marks(self, conll):
        found = read_conll(conll("\ufeffa\tO\nb\tB-x\n\n\nc\tO\n\t\nd\tO\n\ufeff\ne\tI-x\r\n"))
        assert [s.words for s in found] == [("a", "b"), ("c",), ("d",), ("e",)]
        assert [s.line for s in found] == [1, 5, 7, 9]
        assert found[-1].tags == ("I-x",)

    def test_lines_that_part_documents_are_no_sentence(self, conll):
        found = read_conll(conll("-DOCSTART-\tO\n\na\tO\n-DOCSTART- -X- O O\nb\tB-x\n"))
        assert [s.words for s in found] == [("a",), ("b",)] and [s.line for s in found] == [3, 5]

    @pytest.mark.parametrize("blank", ["\f", "\u2028", "\x85", "\xa0", "\ufeff \v"])
    def test_a_line_of_white_space_alone_is_blank(self, conll, blank):
        found = read_conll(conll(f"a\tO\n{blank}\nb\u2028c\tB-x\n"))
        assert [s.words for s in found] == [("a",), ("b\u2028c",)]

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
        assert check_tags(data(train=SENTENCES)) == ["O", "B-l", "I-l"]

    def test_a_tag_that_does_not_fit(self):
        other = [TaggedSentence(("a", "b"), ("B-l", "B-loc"), "g, line 5", 5)]
        with pytest.raises(
            ValueError, match=r"g, line 6: tag 'B-loc' does not fit the types of the training side"
        ):
            check_tags(data(train=SENTENCES, test=other))
        with pytest.raises(ValueError, match=r"f, line 4: tag 'I-l' does not fit the given list: O, B-l"):
            check_tags(data(train=SENTENCES), ["O", "B-l"])

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (["B-l", "I-l"], "lack O"),
            (["O", "I-l"], "I-l but no B-l"),
            (["O", "l"], "'l' of the given list is malformed"),
            (["O", "B-l", "I-l", "B-p"], r"f: type 'p' has no entity on the train side"),
        ],
    )
    def test_lists_that_are_none(self, labels, message):
        with pytest.raises(ValueError, match=message):
            check_tags(data(train=SENTENCES), labels)

    def test_a_type_that_is_missing_elsewhere_is_a_warning(self):
        other = [TaggedSentence(("a",), ("O",), "g, line 5", 5)]
        sides = data(train=SENTENCES, validation=other)
        assert check_tags(sides) == LABELS
        assert sides.warnings == [
            "g: type 'l' has no entity on the validation side: the scores say nothing of it."
        ]

    def test_no_entity(self):
        with pytest.raises(ValueError, match=r"f, line 1: no entity on the whole training side"):
            check_tags(data(train=[TaggedSentence(("a",), ("O",), "f, line 1", 1)]))


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
            pieces = word_pieces(sentence.words, tokenizer)
            firsts = [len(pieces.before) + pieces.words.index(n) for n in range(len(sentence.words))]
            assert [row["labels"][column] for column in firsts] == [LABELS.index(t) for t in sentence.tags]
            assert [column for column, word in enumerate(row["word_of"]) if word >= 0] == firsts
            spaces = [column for column, word in enumerate(row["space_before"]) if word >= 0]
            others = set(range(len(row["labels"]))) - {*firsts, *spaces}
            assert {row["labels"][column] for column in others} <= {-100}

    def test_white_space_between_two_words_of_an_entity_is_inside_it(self):
        tokenizer = train_tokenizer(TEXT, "character", 330)
        (row, _), _ = encode_tagged(SENTENCES, tokenizer, LABELS)
        # seen in New York 's streets: the spaces before words 1 to 5, of which one is within New York
        spaces = [(w, row["labels"][column]) for column, w in enumerate(row["space_before"]) if w >= 0]
        assert spaces == [(1, 0), (2, 0), (3, LABELS.index("I-l")), (4, 0), (5, 0)]
        assert tags_of_rows([row], [certain(row["labels"])], SENTENCES[:1], LABELS) == [
            ["O", "O", "B-l", "I-l", "O", "O"]
        ]
        # To the pipeline another tag there ends the entity, so it does in what is scored.
        outside = [
            0 if w == 3 else label for w, label in zip(row["space_before"], row["labels"], strict=True)
        ]
        assert tags_of_rows([row], [certain(outside)], SENTENCES[:1], LABELS) == [
            ["O", "O", "B-l", "B-l", "O", "O"]
        ]

    def test_labels_stand_on_all_pieces_if_asked_and_all_are_read(self, tokenizer):
        rows, _ = encode_tagged(SENTENCES, tokenizer, LABELS, labelled_pieces="all")
        for row, sentence in zip(rows, SENTENCES, strict=True):
            pieces = word_pieces(sentence.words, tokenizer)
            words = [*[-1] * len(pieces.before), *(-1 if w is None else w for w in pieces.words)]
            words += [-1] * len(pieces.after)
            assert row["word_of"] == words
            for label, word, space in zip(row["labels"], words, row["space_before"], strict=True):
                assert (
                    label == LABELS.index(sentence.tags[word]) if word >= 0 else space >= 0 or label == -100
                )
        with pytest.raises(ValueError, match="one of first, all, not 'last'"):
            TaggingOptions(labelled_pieces="last")

    def test_a_word_has_the_tag_of_its_pieces_mean(self):
        row = {"sentence": 0, "word_of": [0, 0, 1], "space_before": [-1, -1, -1]}
        shares = np.array([[0.9, 0.1, 0.0], [0.0, 0.7, 0.3], [0.0, 0.4, 0.6]])
        sentence = TaggedSentence(("ab", "c"), None, "f, line 1", 1)
        assert tags_of_rows([row], [shares], [sentence], LABELS) == [["O", "I-l"]]
        shares[1] = [0.0, 1.0, 0.0]
        assert tags_of_rows([row], [shares], [sentence], LABELS) == [["B-l", "I-l"]]

    @pytest.mark.parametrize("labelled", ["first", "all"])
    @pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 100])
    def test_long_sentences_are_cut_between_words(self, tokenizer, room, labelled):
        length = room + tokenizer.num_special_tokens_to_add()
        rows, counts = encode_tagged(
            SENTENCES, tokenizer, LABELS, max_length=length, labelled_pieces=labelled
        )
        assert all(len(row["input_ids"]) <= length for row in rows)
        # Every word is labelled once, and the true labels come back as the true tags.
        assert tags_of_rows(rows, [certain(row["labels"]) for row in rows], SENTENCES, LABELS) == [
            list(s.tags) for s in SENTENCES
        ]
        words = sorted({(row["sentence"], word) for row in rows for word in row["word_of"] if word >= 0})
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
            def __call__(self, text, **options):
                return {"input_ids": [7], "special_tokens_mask": [0], "offset_mapping": [(0, 1)]}

        sentence = TaggedSentence(("a", "\u200b"), ("O", "B-l"), "f, line 1", 1)
        rows, counts = encode_tagged([sentence], Deaf(), LABELS)
        assert counts["words_without_pieces"] == 1
        assert tags_of_rows(rows, [certain([1])], [sentence], LABELS) == [["B-l", "O"]]

    def test_refused(self, tokenizer):
        with pytest.raises(ValueError, match=r"f, line 1: rows of \d leave no room"):
            encode_tagged(SENTENCES, tokenizer, LABELS, max_length=tokenizer.num_special_tokens_to_add())


class TestOffsets:
    def test_leave_out_the_space_and_stay_so_when_saved(self, tokenizer, tmp_path):
        text = "seen in New York 's anti-realists  , \n end"
        ids = tokenizer(text)["input_ids"]
        trim_offsets(tokenizer)
        tokenizer.save_pretrained(tmp_path)
        for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
            encoded = each(text, return_offsets_mapping=True)
            assert encoded["input_ids"] == ids
            if "unigram" in str(type(each.backend_tokenizer.model)).lower():
                continue  # its mark of a space is no byte
            pieces = [text[start:end] for start, end in encoded["offset_mapping"]]
            assert all(piece == piece.strip() or not piece.strip() for piece in pieces), pieces

    def test_of_a_tokenizer_that_begins_with_a_space_of_its_own(self):
        backend = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "\u0120": 2, "\u0120a": 3, "\u0120b": 4},
                                       merges=[("\u0120", "a"), ("\u0120", "b")]))  # fmt: skip
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
        trim_offsets(tokenizer)
        assert tokenizer("a b", return_offsets_mapping=True)["offset_mapping"] == [(0, 1), (2, 3)]


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast, init_kwargs = False, {}

    task = TokenClassification(data(train=SENTENCES))
    with pytest.raises(ValueError, match="Slow is a slow tokenizer"):
        task.prepare(Slow(), None)
