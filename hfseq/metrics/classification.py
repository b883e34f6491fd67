"""Scores of classifiers and of regression, in plain NumPy.

Undefined ratios (a class that is never predicted, no variance) are 0, as in scikit-learn, so that a run in its first
updates has a score; NaN among the inputs is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

AVERAGES = ("binary", "micro", "macro", "weighted", "samples")


def accuracy(
    references: Sequence[Any], predictions: Sequence[Any], sample_weight: Sequence[float] | None = None
) -> float:
    """Share of predictions [n] (or rows [n, labels], all entries of which must agree) that equal their reference.

    Args:
        sample_weight: how much each counts [n]; None: all the same.
    """
    true, claimed = _pair(references, predictions)
    same = (true == claimed).reshape(len(true), -1).all(1)
    weights = _weights(sample_weight, len(same))
    return _ratio(same @ weights, weights.sum())


def class_scores(
    references: Sequence[Any], predictions: Sequence[Any], classes: int
) -> list[dict[str, float]]:
    """Precision, recall, F1 and support of each class.

    Args:
        references, predictions: class numbers [n], or 0/1 [n, classes] where a text has several classes.
    """
    true, claimed = _pair(references, predictions)
    if true.ndim == 1:
        true, claimed = (side[:, None] == np.arange(classes) for side in (true, claimed))
    true, claimed = true.astype(bool), claimed.astype(bool)
    hits, found, there = (true & claimed).sum(0), claimed.sum(0), true.sum(0)
    return [
        {
            "precision": _ratio(hits[c], found[c]),
            "recall": _ratio(hits[c], there[c]),
            "f1": _ratio(2 * hits[c], found[c] + there[c]),
            "support": int(there[c]),
        }
        for c in range(true.shape[1])
    ]


def f1(
    references: Sequence[Any],
    predictions: Sequence[Any],
    average: str = "binary",
    positive: int = 1,
    labels: Sequence[int] | None = None,
    sample_weight: Sequence[float] | None = None,
) -> float:
    """The harmonic mean of precision and recall.

    Args:
        references, predictions: class numbers [n], or 0/1 [n, labels].
        average: "binary": of class `positive`; "macro": mean over the classes that occur in either; "weighted": the
            same, weighted by their number in the references; "micro": of all decisions together; "samples": mean over
            the texts, where each has several labels.
        positive: the class that "binary" is about.
        labels: the classes (of several labels per text, the columns) that count; None: all. "binary" ignores it.
        sample_weight: how much each text counts [n]; None: all the same.

    Raises:
        ValueError: an unknown average, "binary" with more than two classes, "samples" with one label per text.
    """
    if average not in AVERAGES:
        raise ValueError(f"Unknown average {average!r}; known: {', '.join(AVERAGES)}.")
    true, claimed = _pair(references, predictions)
    if true.ndim == 1 and average == "samples":
        raise ValueError("average='samples' is for several labels per text. Choose micro, macro or weighted.")
    if true.ndim == 2 and average == "binary":
        raise ValueError("average='binary' is for one label per text. Choose micro, macro or weighted.")
    if average == "binary":
        values = np.union1d(true, claimed)
        if len(np.union1d(values, [positive])) > 2:
            raise ValueError(
                f"average='binary' scores class {positive} against one other, but there are {len(values)} classes. "
                "Choose micro, macro or weighted."
            )
        labels = [positive]
    weights = _weights(sample_weight, len(true))
    if average in ("micro", "samples"):
        true, claimed = _indicators(true, claimed, labels)
        if average == "samples":
            each = [_ratio(2 * (t & c).sum(), t.sum() + c.sum()) for t, c in zip(true, claimed, strict=True)]
            return _ratio(weights @ np.array(each), weights.sum())
        return _ratio(2 * (weights @ (true & claimed)).sum(), (weights @ true + weights @ claimed).sum())
    scores, support = _f1_of_classes(true, claimed, labels, weights)
    return _ratio(scores @ support, support.sum()) if average == "weighted" else float(scores.mean())


def f1_of_classes(
    references: Sequence[Any],
    predictions: Sequence[Any],
    labels: Sequence[int] | None = None,
    sample_weight: Sequence[float] | None = None,
) -> np.ndarray:
    """F1 of each class [classes], in the order of `labels`, or of the classes' numbers; see `f1`."""
    true, claimed = _pair(references, predictions)
    return _f1_of_classes(true, claimed, labels, _weights(sample_weight, len(true)))[0]


def _f1_of_classes(
    true: np.ndarray, claimed: np.ndarray, labels: Sequence[int] | None, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """F1 of each class, and its weight in the references."""
    true, claimed = _indicators(true, claimed, labels)
    hits, support, found = weights @ (true & claimed), weights @ true, weights @ claimed
    scores = [_ratio(2 * h, s + f) for h, s, f in zip(hits, support, found, strict=True)]
    return np.array(scores), support


def _indicators(
    true: np.ndarray, claimed: np.ndarray, labels: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each text has each class [n, classes]."""
    if true.ndim == 1:
        values = np.union1d(true, claimed) if labels is None else np.asarray(labels)
        return true[:, None] == values, claimed[:, None] == values
    columns = slice(None) if labels is None else list(labels)
    return true[:, columns].astype(bool), claimed[:, columns].astype(bool)


def matthews_correlation(
    references: Sequence[Any], predictions: Sequence[Any], sample_weight: Sequence[float] | None = None
) -> float:
    """Matthews' correlation coefficient of any number of classes (Gorodkin 2004), from -1 to 1.

    Args:
        sample_weight: how much each counts [n]; None: all the same.
    """
    x, y = _pair(references, predictions)
    weights = _weights(sample_weight, len(x))
    true, claimed = _indicators(x, y, None)  # [n, classes]
    n, hits = weights.sum(), weights @ (x == y)
    t, p = weights @ true, weights @ claimed
    return _ratio(hits * n - t @ p, float(np.sqrt((n * n - p @ p) * (n * n - t @ t))))


def pearson(references: Sequence[float], predictions: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one side is constant."""
    return _pearson(*_pair(references, predictions))


def spearman(references: Sequence[float], predictions: Sequence[float]) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    x, y = _pair(references, predictions)
    return _pearson(_ranks(x), _ranks(y))


def confusion_matrix(references: Sequence[int], predictions: Sequence[int], classes: int) -> np.ndarray:
    """Counts [classes, classes]: row = reference, column = prediction."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, _pair(references, predictions), 1)
    return matrix


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = (side - side.mean() for side in (x.astype(np.float64), y.astype(np.float64)))
    return float(np.clip(_ratio(x @ y, float(np.linalg.norm(x) * np.linalg.norm(y))), -1, 1))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else 0.0


def _weights(sample_weight: Sequence[float] | None, n: int) -> np.ndarray:
    weights = np.ones(n) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all():
        raise ValueError(f"sample_weight is one number for each of {n} examples, not {sample_weight!r:.60}.")
    return weights


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
    "f1_of_classes",
    "matthews_correlation",
    "pearson",
    "spearman",
]
