"""Any number of classes for a text or a pair of texts.

The labels of a text stand in one column, as a JSON list or as one string with a separator; an empty cell is a text with
none of them. Or each class has a column of its own that holds 0 or 1: `label_columns` names them, and where neither
`label_column` nor these are there, all columns beside the texts that hold nothing but 0 and 1 are taken for classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import metrics
from ..data.tables import missing_column, read_table
from ..plots import plot_class_scores
from .base import Prediction, TaskData, label_fields
from .texts import NAME_COLUMNS, TextExample, TextOptions, TextTask, check_classes, text_example

# pandas writes 1.0 where another row of the column was empty.
YES_OR_NO = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


@dataclass
class MultiLabelOptions(TextOptions):
    """The columns of texts with several labels."""

    label_separator: str = ","
    """Between the labels of a text, where they are one string."""
    label_columns: list[str] | None = None
    """The columns that are classes and hold 0 or 1, in place of label_column."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.label_separator:
            raise ValueError("label_separator is empty: nothing parts the labels.")
        if self.label_columns is not None:
            self.label_columns = [str(column) for column in self.label_columns]


class MultiLabel(TextTask):
    """Which of several classes, any number of them; chosen by F1 over all decisions."""

    name = "multi-label"
    metric = "f1"
    problem_type = "multi_label_classification"
    options_class = MultiLabelOptions
    has_labels = True

    @classmethod
    def read(cls, path: Path, options: MultiLabelOptions, labelled: bool) -> list[TextExample]:
        rows = list(read_table(path, options.text_columns, remedy=NAME_COLUMNS))
        heading = {column: None for _, row in rows for column in row}
        columns = options.label_columns
        if columns is None and rows and options.label_column not in heading:
            columns = _columns_of_zero_and_one(rows, options)
            if not columns:
                if not labelled:
                    return [text_example(row, None, place, options) for place, row in rows]
                remedy = f"{NAME_COLUMNS} Or give each class a column of 0 and 1 (label_columns)."
                raise ValueError(missing_column(rows[0][0], options.label_column, heading, remedy))
        if columns is not None and not labelled and not any(column in heading for column in columns):
            return [text_example(row, None, place, options) for place, row in rows]
        return [
            text_example(row, cls._labels_of_row(row, columns, place, options), place, options)
            for place, row in rows
        ]

    @classmethod
    def _labels_of_row(
        cls, row: dict[str, Any], columns: list[str] | None, place: str, options: Any
    ) -> tuple[str, ...]:
        if columns is None:
            value = row.get(options.label_column)
            return () if value is None else cls.label_of(value, place, options)
        found = []
        for column in columns:
            if column not in row:
                raise ValueError(missing_column(place, column, row, "Name the columns with label_columns."))
            answer = _yes_or_no(row[column])
            if answer is None:
                raise ValueError(
                    f"{place}: column {column!r} holds {row[column]!r:.60}; the column of a class holds 0 or 1."
                )
            if answer:
                found.append(column)
        return tuple(found)

    @classmethod
    def label_of(cls, value: Any, place: str, options: Any) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(options.label_separator)]
            value = [part for part in value if part]
        if not isinstance(value, list) or not all(isinstance(v, str | int) for v in value):
            raise ValueError(
                f"{place}: label {value!r:.60} is neither a list of names nor a string of names separated by "
                f"{options.label_separator!r} (label_separator)."
            )
        return tuple(dict.fromkeys(str(v) for v in value))

    @classmethod
    def check(cls, data: TaskData, options: Any) -> None:
        given = options.labels or options.label_columns
        data.labels = check_classes(data, given)
        if not data.labels:
            raise ValueError(f"{data.name}: no text of the training side has a label.")

    def config_fields(self) -> dict[str, Any]:
        return {"problem_type": self.problem_type, **label_fields(self.data.labels)}

    def target(self, label: Any) -> list[float]:
        return [float(name in (label or ())) for name in self.data.labels]

    def answer(self, logits: np.ndarray) -> dict[str, Any]:
        return {"prediction": [name for name, x in zip(self.data.labels, logits, strict=True) if x > 0]}

    def _decisions(
        self, examples: Sequence, predictions: list[Prediction]
    ) -> tuple[list[list[float]], list[list[float]]]:
        true = [self.target(example.label) for example in examples]
        return true, [self.target(p["prediction"]) for p in predictions]

    def score(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, float]:
        true, claimed = self._decisions(examples, predictions)
        return {
            "f1": metrics.f1(true, claimed, "micro"),
            "f1_macro": metrics.f1(true, claimed, "macro"),
            "accuracy": metrics.accuracy(true, claimed),
        }

    def classes(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, dict[str, float]]:
        scores = metrics.class_scores(*self._decisions(examples, predictions), len(self.data.labels))
        return dict(zip(self.data.labels, scores, strict=True))

    def picture(
        self, examples: Sequence, predictions: list[Prediction], path: Path, title: str
    ) -> Path | None:
        return plot_class_scores(self.classes(examples, predictions), path, title)


def _columns_of_zero_and_one(rows: list[tuple[str, dict]], options: MultiLabelOptions) -> list[str]:
    first = [column for column in rows[0][1] if column not in options.text_columns]
    return [column for column in first if all(_yes_or_no(row.get(column)) is not None for _, row in rows)]


def _yes_or_no(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    return YES_OR_NO.get(str(value).strip().lower())


__all__ = ["MultiLabel", "MultiLabelOptions"]
