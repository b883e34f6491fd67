"""Extractive question answering: SQuAD files, overlapping windows over long contexts, and the best span of all.

A context longer than a row is read in windows that overlap by `doc_stride` pieces; in a window without the answer the
target is column 0 (`[CLS]`, "no answer here"; Devlin et al. 2018). To answer, the best pairs of begin and end of all
windows of a question are compared by the sum of their logits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding

from .. import metrics
from ..data.tables import read_json
from .base import Prediction, Row, Task, TaskData, TaskOptions

TARGETS = ("start_positions", "end_positions")


@dataclass(frozen=True)
class Question:
    """A question about a text that contains the answer, or (SQuAD 2.0) does not."""

    id: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None
    """(text, first character) of each accepted answer; empty where the text has none; None where nobody knows."""
    place: str
    """File and id."""


@dataclass
class AnsweringOptions(TaskOptions):
    """Fields of the task question-answering."""

    doc_stride: int = 128
    """Tokens that neighbouring windows of a long context share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.doc_stride < 0:
            raise ValueError(f"doc_stride must be at least 0, not {self.doc_stride}.")


@dataclass
class AnsweringCollator:
    """Pads rows; where that is on the left, the answers' columns move along."""

    tokenizer: Any

    def __call__(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        batch = DataCollatorWithPadding(self.tokenizer)(rows)
        if self.tokenizer.padding_side == "left":
            time = batch["input_ids"].shape[1]
            padded = torch.tensor([time - len(row["input_ids"]) for row in rows])
            for name in TARGETS:
                batch[name] = batch[name] + padded
        return batch


class QuestionAnswering(Task):
    """Where in a text the answer stands; chosen by SQuAD's F1."""

    name = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    metric = "f1"
    options: AnsweringOptions
    options_class = AnsweringOptions
    per_column = True

    def __init__(self, data: TaskData, options: AnsweringOptions | None = None):
        super().__init__(data, options)
        # SQuAD 2.0 is where the training side has questions without an answer.
        self.allow_none = any(not question.answers for question in data.sides["train"])

    @classmethod
    def read(cls, path: Path, options: Any, labelled: bool) -> list[Question]:
        return read_squad(path, labelled)

    @classmethod
    def identity(cls, example: Question) -> str:
        return example.context

    @classmethod
    def is_labelled(cls, examples: Sequence) -> bool:
        return any(question.answers is not None for question in examples)

    def record(self, example: Question) -> dict[str, Any]:
        answers = None if example.answers is None else [text for text, _ in example.answers]
        return {"id": example.id, "question": example.question, "answers": answers}

    def prepare(self, tokenizer: Any, config: Any) -> None:
        super().prepare(tokenizer, config)
        if not tokenizer.is_fast or tokenizer.num_special_tokens_to_add(pair=True) == 0:
            raise ValueError(
                f"{type(tokenizer).__name__} is slow or adds no special tokens; question answering needs a fast "
                "tokenizer with BERT's [CLS] question [SEP] text [SEP]."
            )

    def encode(
        self, examples: Sequence, tokenizer: Any, max_length: int | None
    ) -> tuple[list[Row], dict[str, int]]:
        return encode_questions(examples, tokenizer, max_length, self.options.doc_stride)

    def collator(self, tokenizer: Any) -> Callable[[list[Row]], dict[str, Any]]:
        return AnsweringCollator(tokenizer)

    def keep(self, output: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return torch.stack(output[:2], dim=-1)  # [rows, time, 2], begin and end

    def decode(self, rows: list[Row], examples: Sequence, output: list[np.ndarray]) -> list[Prediction]:
        answers = answers_of_windows(rows, output, examples, allow_none=self.allow_none)
        return [{"prediction": answer} for answer in answers]

    def score(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, float]:
        references = [[text for text, _ in question.answers or ()] for question in examples]
        return metrics.answer_scores(references, [p["prediction"] for p in predictions])


def read_squad(path: str | os.PathLike, labelled: bool = True) -> list[Question]:
    """Reads {"data": [{"paragraphs": [{"context", "qas": [{"id", "question", "answers"}]}]}]}.

    Args:
        labelled: False: questions whose answers nobody knows are fine, too.

    Raises:
        ValueError: another structure, repeated ids, answers that are not where they are said to be.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise ValueError(f'{path}: no "data" list at the top: this is not a file of SQuAD\'s format.')
    questions: dict[str, Question] = {}
    for number, article in enumerate(content["data"], 1):
        for paragraph in _get(article, "paragraphs", list, f"{path}, article {number}"):
            context = _get(paragraph, "context", str, f"{path}, article {number}, a paragraph")
            for entry in _get(paragraph, "qas", list, f"{path}, article {number}, a paragraph"):
                place = f"{path}, question {entry.get('id') if isinstance(entry, dict) else entry!r}"
                question = _question(entry, context, place, labelled)
                if question.id in questions:
                    raise ValueError(f"{place}: this id stands twice in the file.")
                questions[question.id] = question
    return list(questions.values())


def _question(entry: Any, context: str, place: str, labelled: bool) -> Question:
    identity = str(_get(entry, "id", (str, int), place))
    text = _get(entry, "question", str, place).strip()
    if not text:
        raise ValueError(f"{place}: the question is empty.")
    if not context.strip():
        raise ValueError(f"{place}: its context is empty.")
    if not labelled and entry.get("answers") is None and not entry.get("is_impossible", False):
        return Question(identity, text, context, None, place)
    given = entry.get("answers") or []
    if not isinstance(given, list):
        raise ValueError(f'{place}: "answers" is {given!r:.60}, not a list of {{"text", "answer_start"}}.')
    answers = []
    for answer in given:
        words, start = _get(answer, "text", str, place), _get(answer, "answer_start", int, place)
        if not words.strip():
            raise ValueError(f"{place}: an empty answer. A question without one has the answers [].")
        if start < 0 or context[start : start + len(words)] != words:
            found = context[max(start, 0) : max(start, 0) + len(words)]
            raise ValueError(
                f"{place}: answer {words!r:.60} is not at character {start} of its context; there stands {found!r:.60}."
            )
        answers.append((words, start))
    if labelled and not answers and not entry.get("is_impossible", False):
        raise ValueError(f'{place}: no answers. A question that has none says "is_impossible": true.')
    return Question(identity, text, context, tuple(answers), place)


def _get(entry: Any, key: str, kind: type | tuple[type, ...], place: str) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), kind):
        raise ValueError(f"{place}: no {key!r} as SQuAD's format has it.")
    return entry[key]


def encode_questions(
    questions: Sequence[Question],
    tokenizer: Any,
    max_length: int | None = None,
    doc_stride: int = 128,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Windows for a model of question answering.

    Args:
        tokenizer: a fast one that puts a special token first (the target where a window has no answer).
        max_length: of a window; None: no limit, one window per question.
        doc_stride: pieces that neighbouring windows share.

    Returns:
        rows {input_ids, attention_mask, token_type_ids, start_positions, end_positions, question, offsets};
        `question` is the number of the question, `offsets` [time] the (begin, end) in the context of each piece, None
        for pieces outside it;
        counts {windows, questions_in_several_windows, answers_in_no_window}.

    Raises:
        ValueError: a question that fills a window.
    """
    rows: list[dict[str, Any]] = []
    counts = {"windows": 0, "questions_in_several_windows": 0, "answers_in_no_window": 0}
    specials = tokenizer.num_special_tokens_to_add(pair=True)
    for number, question in enumerate(questions):
        options = {}
        if max_length is not None:
            length = len(tokenizer(question.question, add_special_tokens=False, verbose=False)["input_ids"])
            room = max_length - length - specials
            if room <= doc_stride:
                raise ValueError(
                    f"{question.place}: the question has {length} pieces, which leaves {max(room, 0)} of {max_length} "
                    f"for the text, not more than doc_stride = {doc_stride}. Shorten the question or lower doc_stride."
                )
            options = {
                "truncation": "only_second",
                "max_length": max_length,
                "stride": doc_stride,
                "return_overflowing_tokens": True,
            }
        encoded = tokenizer(
            [question.question], [question.context], return_offsets_mapping=True, return_token_type_ids=True,
            verbose=False, **options,
        )  # fmt: skip
        windows, found = len(encoded["input_ids"]), False
        for window in range(windows):
            sequences = encoded.sequence_ids(window)
            offsets = [
                pair if sequence == 1 else None
                for pair, sequence in zip(encoded["offset_mapping"][window], sequences, strict=True)
            ]
            start, end = _answer_columns(question, offsets)
            found |= end > 0
            rows.append(
                {
                    "input_ids": encoded["input_ids"][window],
                    "attention_mask": encoded["attention_mask"][window],
                    "token_type_ids": encoded["token_type_ids"][window],
                    "start_positions": start,
                    "end_positions": end,
                    "question": number,
                    "offsets": offsets,
                }
            )
        counts["windows"] += windows
        counts["questions_in_several_windows"] += windows > 1
        counts["answers_in_no_window"] += bool(question.answers) and not found
    return rows, counts


def _answer_columns(question: Question, offsets: list[tuple[int, int] | None]) -> tuple[int, int]:
    """First and last column of the first answer, (0, 0) where it is not wholly in the window."""
    if not question.answers:
        return 0, 0
    text, begin = question.answers[0]
    end = begin + len(text)
    columns = [c for c, pair in enumerate(offsets) if pair is not None and pair[0] < end and begin < pair[1]]
    inside = [pair for pair in offsets if pair is not None]
    if not columns or inside[0][0] > begin or inside[-1][1] < end:
        return 0, 0
    return columns[0], columns[-1]


def answers_of_windows(
    rows: Sequence[dict[str, Any]],
    logits: Sequence[np.ndarray],
    questions: Sequence[Question],
    *,
    allow_none: bool,
    max_answer_pieces: int = 30,
    candidates: int = 20,
) -> list[str]:
    """The answer to each question; "" is "the text has none".

    Args:
        logits: of each row [its time, 2], for begin and end.
        allow_none: whether no answer may win (SQuAD 2.0): if column 0 beats the best span.
        max_answer_pieces: longer spans are not considered.
        candidates: as many begins and ends of a window are combined.
    """
    best = [("", -np.inf)] * len(questions)
    none = [np.inf] * len(questions)
    for row, own in zip(rows, logits, strict=True):
        number, offsets = row["question"], row["offsets"]
        starts, ends = own[:, 0], own[:, 1]
        # Of all windows the one that is least sure that there is nothing (as in Devlin et al.'s code for SQuAD 2.0).
        none[number] = min(none[number], float(starts[0] + ends[0]))
        columns = np.array(
            [c for c, pair in enumerate(offsets) if pair is not None and pair[1] > pair[0]], dtype=int
        )
        first = columns[np.argsort(-starts[columns], kind="stable")[:candidates]]
        last = columns[np.argsort(-ends[columns], kind="stable")[:candidates]]
        for a in first.tolist():
            for b in last.tolist():
                score = float(starts[a] + ends[b])
                if a <= b < a + max_answer_pieces and score > best[number][1]:
                    text = questions[number].context[offsets[a][0] : offsets[b][1]].strip()
                    best[number] = (text, score)
    return ["" if allow_none and none[number] > score else text for number, (text, score) in enumerate(best)]


__all__ = [
    "AnsweringOptions",
    "Question",
    "QuestionAnswering",
    "answers_of_windows",
    "encode_questions",
    "read_squad",
]
