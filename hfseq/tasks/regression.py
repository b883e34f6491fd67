"""A number for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import metrics
from ..data.tables import finite_number
from ..plots import plot_regression
from .base import Prediction
from .texts import TextTask


class Regression(TextTask):
    """How much; chosen by Pearson's correlation."""

    name = "regression"
    metric = "pearson"
    problem_type = "regression"

    @classmethod
    def label_of(cls, value: Any, place: str, options: Any) -> float:
        return finite_number(value, f"{place}, label")

    def config_fields(self) -> dict[str, Any]:
        return {"problem_type": self.problem_type, "num_labels": 1}

    def target(self, label: Any) -> float:
        return float(label or 0.0)

    def answer(self, logits: np.ndarray) -> dict[str, Any]:
        return {"prediction": float(logits[0])}

    def score(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, float]:
        true, claimed = [e.label for e in examples], [p["prediction"] for p in predictions]
        errors = np.array(true) - np.array(claimed)
        return {
            "pearson": metrics.pearson(true, claimed),
            "spearman": metrics.spearman(true, claimed),
            "mean_squared_error": float(np.mean(errors**2)),
        }

    def picture(
        self, examples: Sequence, predictions: list[Prediction], path: Path, title: str
    ) -> Path | None:
        true = [self.target(example.label) for example in examples]
        return plot_regression(true, [p["prediction"] for p in predictions], path, title)


__all__ = ["Regression"]
