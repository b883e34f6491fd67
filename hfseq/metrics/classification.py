"""Scores of classifiers and of regression, in plain NumPy.

Undefined ratios (a class that is never predicted, no variance) are 0, as in scikit-learn, so that a run in its first
updates has a score; NaN among the inputs is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

AVERAGES = ("binary", "micro", "macro", "weighted")


def accuracy(references: Sequence[Any], predictions: Sequence[Any]) -> float:
    """Share of predictions [n] (or rows [n, labels], all entries of which must agree) that equal their reference."""
    references, predictions = _pair(references, predictions)
    same = references == predictions
    return float(same.reshape(len(same), -1).all(1).mean())


def class_scores(
    references: Sequence[Any], predictions: Sequence[Any], classes: int
) -> list[dict[str, float]]:
    """Precision, recall, F1 and support of each class.

    Args:
        references, predictions: class numbers [n], or 0/1 [n, classes] where a text has several classes.
    """
    references, predictions = _pair(references, predictions)
    if references.ndim == 1:
        references = references[:, None] == np.arange(classes)
        predictions = predictions[:, None] == np.arange(classes)
    references, predictions = references.astype(bool), predictions.astype(bool)
    hits, claimed, true = (references & predictions).sum(0), predictions.sum(0), references.sum(0)
    return [
        {
            "precision": _ratio(hits[c], claimed[c]),
            "recall": _ratio(hits[c], true[c]),
            "f1": _ratio(2 * hits[c], claimed[c] + true[c]),
            "support": int(true[c]),
        }
        for c in range(references.shape[1])
    ]


def f1(
    references: Sequence[Any], predictions: Sequence[Any], average: str = "binary", positive: int = 1
) -> float:
    """The harmonic mean of precision and recall.

    Args:
        references, predictions: class numbers [n], or 0/1 [n, labels].
        average: "binary": of class `positive`; "macro": mean over the classes that occur in either; "weighted": the
            same, weighted by their number in the references; "micro": of all decisions together.
        positive: the class that "binary" is about.

    Raises:
        ValueError: an unknown average, or "binary" with more than two classes.
    """
    if average not in AVERAGES:
        raise ValueError(f"Unknown average {average!r}; known: {', '.join(AVERAGES)}.")
    references, predictions = _pair(references, predictions)
    if references.ndim == 1:
        values = np.union1d(references, predictions)
        if average == "binary":
            if len(np.union1d(values, [positive])) > 2:
                raise ValueError(
                    f"average='binary' scores class {positive} against one other, but there are "
                    f"{len(values)} classes. Choose micro, macro or weighted."
                )
            values = np.array([positive])
        references, predictions = references[:, None] == values, predictions[:, None] == values
    elif average == "binary":
        raise ValueError("average='binary' is for one label per text. Choose micro, macro or weighted.")
    if average == "micro":
        references, predictions = references.astype(bool), predictions.astype(bool)
        return _ratio(2 * (references & predictions).sum(), references.sum() + predictions.sum())
    scores = class_scores(references, predictions, references.shape[1])
    weights = np.array([s["support"] for s in scores] if average == "weighted" else [1] * len(scores))
    return _ratio(sum(w * s["f1"] for w, s in zip(weights, scores, strict=True)), weights.sum())


def matthews_correlation(references: Sequence[Any], predictions: Sequence[Any]) -> float:
    """Matthews' correlation coefficient of any number of classes (Gorodkin 2004), from -1 to 1."""
    references, predictions = _pair(references, predictions)
    classes = np.union1d(references, predictions)
    true, claimed = references[:, None] == classes, predictions[:, None] == classes  # [n, classes]
    n, hits = float(len(references)), float((references == predictions).sum())
    t, p = true.sum(0).astype(float), claimed.sum(0).astype(float)
    return _ratio(hits * n - t @ p, float(np.sqrt((n * n - p @ p) * (n * n - t @ t))))


def pearson(references: Sequence[float], predictions: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    x, y = (side.astype(np.float64) for side in _pair(references, predictions))
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(_ratio(x @ y, np.linalg.norm(x) * np.linalg.norm(y)), -1, 1))


def spearman(references: Sequence[float], predictions: Sequence[float]) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    x, y = _pair(references, predictions)
    return pearson(_ranks(x), _ranks(y))


def confusion_matrix(references: Sequence[int], predictions: Sequence[int], classes: int) -> np.ndarray:
    """Counts [classes, classes]: row = reference, column = prediction."""
    references, predictions = _pair(references, predictions)
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (references, predictions), 1)
    return matrix


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else 0.0


def _pair(references: Sequence[Any], predictions: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(references), np.asarray(predictions)
    if x.shape != y.shape or x.ndim not in (1, 2):
        raise ValueError(f"References {list(x.shape)} and predictions {list(y.shape)} do not pair.")
    if len(x) == 0:
        raise ValueError("No references and predictions: nothing to score.")
    for name, side in (("references", x), ("predictions", y)):
        if side.dtype.kind == "f" and not np.isfinite(side).all():
            raise ValueError(
                f"The {name} hold NaN or infinity. Look for NaN in the model's weights or the data."
            )
    return x, y


__all__ = [
    "accuracy",
    "class_scores",
    "confusion_matrix",
    "f1",
    "matthews_correlation",
    "pearson",
    "spearman",
]
