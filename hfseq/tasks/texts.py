"""What the tasks that say something of a text share: examples from tables, rows of a text or of a pair.

The tables are .tsv, .csv, .jsonl and .json (each also .gz), a row an example.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..data.tables import read_table
from ..hints import nearest_hint
from .base import BaselineAnswers, Prediction, Row, Task, TaskData, TaskOptions, encode_texts

Label = str | tuple[str, ...] | float
NAME_COLUMNS = "Name it with text_column, text_pair_column or label_column."


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, and what is to be said of it."""

    text: str
    label: Label | None
    """A class, several classes (multi-label), a number (regression); None where nobody knows (test side only)."""
    place: str
    """Where it stands: file and line."""
    text_pair: str | None = None


@dataclass
class TextOptions(TaskOptions):
    """The columns (or JSON keys) of a table of texts."""

    text_column: str = "text"
    text_pair_column: str | None = None
    """The second text of a pair."""
    label_column: str = "label"

    @property
    def text_columns(self) -> list[str]:
        return [self.text_column, *([self.text_pair_column] if self.text_pair_column else [])]


class TextTask(Task):
    """Something is said of a text or a pair of texts."""

    auto_class = "AutoModelForSequenceClassification"
    pipeline = "text-classification"
    options_class = TextOptions
    problem_type: ClassVar[str]
    """Of the model's config: which loss the head has."""

    # What a subclass adds.

    @classmethod
    def label_of(cls, value: Any, place: str, options: TextOptions) -> Label:
        """The label in a cell that is not empty; ValueError names the place."""
        raise NotImplementedError

    def target(self, label: Label | None) -> int | float | list[float]:
        """What the model is taught; anything of the right shape where the label is None."""
        raise NotImplementedError

    def answer(self, logits: np.ndarray) -> Prediction:
        """The prediction from a row's logits [labels]."""
        raise NotImplementedError

    # ---- data

    @classmethod
    def read(cls, path: Path, options: Any, labelled: bool) -> list[TextExample]:
        examples = []
        wanted = [*options.text_columns, *([options.label_column] if labelled else [])]
        for place, row in read_table(path, wanted, remedy=NAME_COLUMNS):
            value = row.get(options.label_column)
            if value is None or value == "":
                if labelled:
                    raise ValueError(
                        f"{place}: no label in column {options.label_column!r}. Drop the row, or name the column "
                        "with label_column."
                    )
                label = None
            else:
                label = cls.label_of(value, place, options)
            examples.append(text_example(row, label, place, options))
        unlabelled = [example for example in examples if example.label is None]
        if unlabelled and len(unlabelled) < len(examples):
            raise ValueError(
                f"{unlabelled[0].place}: no label in column {options.label_column!r}, but other rows have one. A test "
                "file is labelled throughout or not at all."
            )
        return examples

    @classmethod
    def identity(cls, example: TextExample) -> str:
        return example.text

    def record(self, example: TextExample) -> dict[str, Any]:
        pair = {} if example.text_pair is None else {"text_pair": example.text_pair}
        label = list(example.label) if isinstance(example.label, tuple) else example.label
        return {"text": example.text, **pair, "label": label}

    # ---- rows

    def encode(
        self, examples: Sequence, tokenizer: Any, max_length: int | None
    ) -> tuple[list[Row], dict[str, int]]:
        rows, cut = [], 0
        for number, example in enumerate(examples):
            texts = [example.text] + ([example.text_pair] if example.text_pair is not None else [])
            encoded, truncated = encode_texts(texts, tokenizer, max_length, example.place)
            cut += truncated
            rows.append({**encoded, "labels": self.target(example.label), "example": number})
        return rows, {"examples_truncated": cut}

    # ---- answers

    def decode(self, rows: list[Row], examples: Sequence, output: list[np.ndarray]) -> list[Prediction]:
        found: list[Prediction] = [{}] * len(examples)
        for row, logits in zip(rows, output, strict=True):
            found[row["example"]] = self.answer(logits.astype(np.float64))
        return found

    def baseline(self) -> BaselineAnswers:
        from ..metrics.baselines.linear import fit_texts

        def texts(examples: Sequence[TextExample]) -> list[tuple[str, ...]]:
            return [(e.text,) if e.text_pair is None else (e.text, e.text_pair) for e in examples]

        def score(predictions: list[Any]) -> float:
            validation = self.data.sides["validation"]
            return self.score(validation, [{"prediction": p} for p in predictions])[self.metric]

        train = self.data.sides["train"]
        found = fit_texts(
            texts(train),
            [list(e.label) if isinstance(e.label, tuple) else e.label for e in train],
            {side: texts(examples) for side, examples in self.data.sides.items() if side != "train"},
            self.data.labels,
            self.problem_type,
            score,
        )
        answers = {side: [{"prediction": p} for p in values] for side, values in found.predictions.items()}
        return BaselineAnswers(found.description, found.parameters, found.trials, answers, found.seconds)


def text_example(row: dict[str, Any], label: Label | None, place: str, options: TextOptions) -> TextExample:
    """The example in a table's row, whose texts must not be empty."""
    texts = [full_text(row.get(column), place, column) for column in options.text_columns]
    return TextExample(texts[0], label, place, texts[1] if len(texts) > 1 else None)


def full_text(value: Any, place: str, column: str) -> str:
    """A cell's text without white space around it; ValueError where it holds none."""
    if not isinstance(value, str):
        kind = "nothing" if value is None else f"{value!r:.60}, a {type(value).__name__}"
        raise ValueError(f"{place}: column {column!r} holds {kind}, not text.")
    text = value.strip()
    if not text:
        raise ValueError(f"{place}: column {column!r} is empty. Drop the row: a model needs at least a word.")
    return text


def check_classes(data: TaskData, given: Sequence[str] | None) -> list[str]:
    """The classes, into which every label of every side fits.

    A class without an example is an error on the training side, where nothing can be learnt of it, and a warning on the
    others.
    """

    def classes_of(example: TextExample) -> tuple[Any, ...]:
        if example.label is None:
            return ()
        return example.label if isinstance(example.label, tuple) else (example.label,)

    counts = {
        side: Counter(name for example in examples for name in classes_of(example))
        for side, examples in data.sides.items()
    }
    known = list(given) if given else sort_labels(counts["train"])
    for examples in data.sides.values():
        for example in examples:
            for name in classes_of(example):
                if name not in known:
                    source = "those given" if given else "those of the training side"
                    raise ValueError(
                        f"{example.place}: label {name!r:.60} is outside the classes, {source}: "
                        f"{', '.join(known)}.{nearest_hint(name, known)}"
                    )
    for side, found in counts.items():
        empty = [name for name in known if name not in found]
        if not empty or (side != "train" and all(e.label is None for e in data.sides[side])):
            continue
        file = data.sides[side][0].place.rsplit(", ", 1)[0]
        what = f"{file}: class {', '.join(map(repr, empty))} has no example on the {side} side"
        if side == "train":
            raise ValueError(
                f"{what}, so nothing can be learnt of it. Give examples, another split_seed, or drop the class from "
                "the data and the labels."
            )
        data.warnings.append(f"{what}: the scores say nothing of it.")
    return known


def sort_labels(names: Iterable[str]) -> list[str]:
    """Class names in order: as numbers if all are, else by the alphabet."""
    names = list(names)
    # 18 digits fit into any reader's integers; longer ones are identifiers.
    numeric = all(name.lstrip("-").isdecimal() and len(name) <= 18 for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if numeric else None)


__all__ = [
    "TextExample",
    "TextOptions",
    "TextTask",
    "check_classes",
    "full_text",
    "sort_labels",
    "text_example",
]
