"""One class for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import metrics
from ..plots import plot_confusion_matrix
from .base import Prediction, TaskData, label_fields
from .texts import TextTask, check_classes


class SequenceClassification(TextTask):
    """Which of several classes; chosen by accuracy."""

    name = "sequence-classification"
    metric = "accuracy"
    problem_type = "single_label_classification"
    has_labels = True
    can_smooth = True

    @classmethod
    def label_of(cls, value: Any, place: str, options: Any) -> str:
        if isinstance(value, list | dict | float):
            raise ValueError(
                f"{place}: label {value!r:.60} is no class name. Several labels per text are task multi-label, numbers "
                "are task regression."
            )
        return str(value).strip()

    @classmethod
    def check(cls, data: TaskData, options: Any) -> None:
        data.labels = check_classes(data, options.labels)
        if len(data.labels) < 2:
            raise ValueError(
                f"{data.name}: the training side has a single class ({', '.join(data.labels) or 'none'}); at least two "
                "are needed."
            )

    def config_fields(self) -> dict[str, Any]:
        return {"problem_type": self.problem_type, **label_fields(self.data.labels)}

    def target(self, label: Any) -> int:
        return 0 if label is None else self.data.labels.index(label)

    def answer(self, logits: np.ndarray) -> dict[str, Any]:
        best, shifted = int(logits.argmax()), logits - logits.max()
        return {"prediction": self.data.labels[best], "probability": float(1 / np.exp(shifted).sum())}

    def _numbers(self, examples: Sequence, predictions: list[Prediction]) -> tuple[list[int], list[int]]:
        true = [self.target(example.label) for example in examples]
        return true, [self.target(p["prediction"]) for p in predictions]

    def score(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, float]:
        true, claimed = self._numbers(examples, predictions)
        return {
            "accuracy": metrics.accuracy(true, claimed),
            "f1_macro": metrics.f1(true, claimed, "macro"),
            "matthews_correlation": metrics.matthews_correlation(true, claimed),
        }

    def classes(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, dict[str, float]]:
        scores = metrics.class_scores(*self._numbers(examples, predictions), len(self.data.labels))
        return dict(zip(self.data.labels, scores, strict=True))

    def picture(
        self, examples: Sequence, predictions: list[Prediction], path: Path, title: str
    ) -> Path | None:
        matrix = metrics.confusion_matrix(*self._numbers(examples, predictions), len(self.data.labels))
        return plot_confusion_matrix(matrix, self.data.labels, path, title)


__all__ = ["SequenceClassification"]
