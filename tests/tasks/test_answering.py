"""SQuAD files, windows, and spans out of logits."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hfseq.data import train_tokenizer
from hfseq.tasks import TaskData
from hfseq.tasks.answering import (
    AnsweringCollator,
    Question,
    QuestionAnswering,
    answers_of_windows,
    encode_questions,
    read_squad,
)

CONTEXT = "The tower was built in 1889 by Gustave Eiffel's company. " * 2 + "It is 330 metres high, in Paris."


def squad(*entries, context=CONTEXT):
    return json.dumps({"data": [{"paragraphs": [{"context": context, "qas": list(entries)}]}]})


def entry(identity="q1", text="330 metres", start=None, **more):
    start = CONTEXT.index(text) if start is None else start
    return {
        "id": identity,
        "question": "How high is it?",
        "answers": [{"text": text, "answer_start": start}],
        **more,
    }


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([CONTEXT, "How high is it?"], "bpe", 300, masked=True)


def test_reads_both_versions(write):
    none = {"id": 2, "question": "Who?", "answers": [], "is_impossible": True}
    first, second = read_squad(write("a.json", squad(entry(), none)))
    assert first.answers == (("330 metres", CONTEXT.index("330 metres")),)
    assert (second.id, second.answers) == ("2", ())
    unknown = {"id": 2, "question": "Who?"}
    (question,) = read_squad(write("a.json", squad(unknown)), labelled=False)
    assert question.answers is None and not QuestionAnswering.is_labelled([question])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.json: no examples"),
        ("{", r"a\.json, line 1: not JSON"),
        ("[]", r'no "data" list'),
        ('{"data": [{}]}', r"article 1: no 'paragraphs'"),
        (
            squad(entry(start=3)),
            r"question 'q1': answer '330 metres' is not at character 3.*there stands ' tower was'",
        ),
        (squad(entry(), entry()), r"question 'q1': this id stands twice"),
        (squad({"id": "q", "question": "Who?", "answers": []}), r"question 'q': no answers.*is_impossible"),
        (squad({"id": "q", "question": "Who?", "answers": 5}), r"question 'q': .answers. is 5, not a list"),
        (squad({"id": "q", "question": "Who?", "answers": {"text": ["a"]}}), r"question 'q': .answers. is {"),
        (squad({"id": "q", "question": " ", "answers": []}), r"question 'q': the question is empty"),
        (squad({"question": "Who?"}), r"no 'id'"),
        (squad(entry(text="", start=0)), r"an empty answer"),
    ],
)
def test_refused(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_squad(write("a.json", content))


@pytest.mark.parametrize("length", [None, 60, 45])
def test_true_spans_come_back_from_every_window(write, tokenizer, length):
    none = {"id": "q3", "question": "Who?", "answers": [], "is_impossible": True}
    questions = read_squad(write("a.json", squad(entry(), entry("q2", text="Gustave Eiffel"), none)))
    rows, counts = encode_questions(questions, tokenizer, length, doc_stride=12)
    assert all(len(row["input_ids"]) <= (length or 1000) for row in rows)
    assert (counts["windows"] > 3) == (length is not None) and counts["answers_in_no_window"] == 0
    logits = [np.zeros((len(row["input_ids"]), 2)) for row in rows]
    for row, own in zip(rows, logits, strict=True):
        own[row["start_positions"], 0] = own[row["end_positions"], 1] = 5
    answers = answers_of_windows(rows, logits, questions, allow_none=True)
    assert answers == ["330 metres", "Gustave Eiffel", ""]
    assert answers_of_windows(rows, logits, questions, allow_none=False)[:2] == answers[:2]


@pytest.mark.parametrize("side", ["left", "right"])
def test_answers_stay_on_their_pieces_wherever_rows_are_padded(write, tokenizer, side):
    questions = read_squad(write("a.json", squad(entry(), entry("q2", text="Gustave Eiffel"))))
    rows, _ = encode_questions(questions, tokenizer, 45, doc_stride=12)
    names = ("input_ids", "attention_mask", "token_type_ids", "start_positions", "end_positions")
    tokenizer.padding_side = side
    batch = AnsweringCollator(tokenizer)([{name: row[name] for name in names} for row in rows])
    assert len({len(row["input_ids"]) for row in rows}) > 1
    for row, ids, *places in zip(
        rows, batch["input_ids"], batch["start_positions"], batch["end_positions"], strict=True
    ):
        own = [row["input_ids"][row[name]] for name in ("start_positions", "end_positions")]
        assert [int(ids[place]) for place in places] == own
    tokenizer.padding_side = "right"


def test_spans_go_forward_and_are_not_too_long(tokenizer):
    question = Question("q", "How high is it?", CONTEXT, (), "f, question q")
    rows, _ = encode_questions([question], tokenizer)
    columns = [c for c, pair in enumerate(rows[0]["offsets"]) if pair is not None]
    logits = np.zeros((len(rows[0]["input_ids"]), 2))
    logits[columns[5], 0], logits[columns[2], 1], logits[columns[6], 1] = 9, 9, 3
    (text,) = answers_of_windows(rows, [logits], [question], allow_none=False)
    begin, end = rows[0]["offsets"][columns[5]][0], rows[0]["offsets"][columns[6]][1]
    assert text == CONTEXT[begin:end].strip()
    logits[:] = 0
    logits[columns[0], 0] = logits[columns[-1], 1] = 9
    (text,) = answers_of_windows(rows, [logits], [question], allow_none=False, max_answer_pieces=4)
    assert len(text) < 40


def test_refused_windows(tokenizer):
    question = Question("q", "How high is it?", CONTEXT, (), "f, question q")
    with pytest.raises(ValueError, match=r"f, question q: the question has \d+ pieces.*doc_stride = 40"):
        encode_questions([question], tokenizer, max_length=40, doc_stride=40)
    task = QuestionAnswering(TaskData("q", "question-answering", {"train": [question]}))
    with pytest.raises(ValueError, match="adds no special tokens"):
        task.prepare(train_tokenizer([CONTEXT], "bpe", 300), None)
