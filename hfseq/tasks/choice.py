"""Which of several texts goes with a question.

Files are .jsonl or .json of {"question", "choices", "label"}; the label is the number of the right choice, from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import DataCollatorForMultipleChoice

from .. import metrics
from ..data.tables import read_table
from .base import Prediction, Row, Task, TaskData, encode_texts
from .texts import full_text


@dataclass(frozen=True)
class ChoiceExample:
    """A question (or the beginning of a text) and the choices to go with it."""

    question: str
    choices: tuple[str, ...]
    label: int | None
    """The number of the right choice, from 0."""
    place: str


class ChoiceCollator(DataCollatorForMultipleChoice):
    """Before transformers 5.22 this takes the labels out of the very rows that it is given: the next epoch has none."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        return super().torch_call([dict(example) for example in examples])


class MultipleChoice(Task):
    """Which choice; chosen by accuracy."""

    name = "multiple-choice"
    auto_class = "AutoModelForMultipleChoice"
    metric = "accuracy"
    can_smooth = True

    @classmethod
    def read(cls, path: Path, options: Any, labelled: bool) -> list[ChoiceExample]:
        examples: list[ChoiceExample] = []
        wanted = ["question", "choices", *(["label"] if labelled else [])]
        for place, row in read_table(path, wanted, remedy="These names are fixed."):
            choices, label = row["choices"], row.get("label")
            if not isinstance(choices, list) or len(choices) < 2:
                raise ValueError(f"{place}: choices {choices!r:.60} is no list of at least two texts.")
            choices = tuple(full_text(choice, place, "choices") for choice in choices)
            if examples and len(choices) != len(examples[0].choices):
                raise ValueError(
                    f"{place}: {len(choices)} choices, but {examples[0].place} has {len(examples[0].choices)}. All "
                    "questions of a task need the same number."
                )
            if label is not None or labelled:
                if isinstance(label, str) and label.isdecimal() and len(label) < 10:
                    label = int(label)
                if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(choices):
                    raise ValueError(
                        f"{place}: label {label!r:.60} is not the number of a choice, 0 to {len(choices) - 1}."
                    )
            examples.append(
                ChoiceExample(full_text(row["question"], place, "question"), choices, label, place)
            )
        return examples

    @classmethod
    def check(cls, data: TaskData, options: Any) -> None:
        first = data.sides["train"][0]
        for examples in data.sides.values():
            if len(examples[0].choices) != len(first.choices):
                raise ValueError(
                    f"{examples[0].place}: {len(examples[0].choices)} choices, but {first.place} has "
                    f"{len(first.choices)}. All questions of a task need the same number."
                )

    @classmethod
    def identity(cls, example: ChoiceExample) -> str:
        return example.question

    def record(self, example: ChoiceExample) -> dict[str, Any]:
        return {"question": example.question, "choices": list(example.choices), "label": example.label}

    def encode(
        self, examples: Sequence, tokenizer: Any, max_length: int | None
    ) -> tuple[list[Row], dict[str, int]]:
        rows, cut = [], 0
        for number, example in enumerate(examples):
            pairs = [
                encode_texts([example.question, choice], tokenizer, max_length, example.place)
                for choice in example.choices
            ]
            cut += any(truncated for _, truncated in pairs)
            columns = {name: [encoded[name] for encoded, _ in pairs] for name in pairs[0][0]}
            rows.append({**columns, "labels": example.label or 0, "example": number})
        return rows, {"examples_truncated": cut}

    def collator(self, tokenizer: Any) -> Callable[[list[Row]], dict[str, Any]]:
        return ChoiceCollator(tokenizer)

    def decode(self, rows: list[Row], examples: Sequence, output: list[np.ndarray]) -> list[Prediction]:
        found: list[Prediction] = [{}] * len(examples)
        for row, logits in zip(rows, output, strict=True):
            found[row["example"]] = {"prediction": int(logits.argmax())}
        return found

    def score(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, float]:
        claimed = [p["prediction"] for p in predictions]
        return {"accuracy": metrics.accuracy([e.label for e in examples], claimed)}


__all__ = ["ChoiceCollator", "ChoiceExample", "MultipleChoice"]
