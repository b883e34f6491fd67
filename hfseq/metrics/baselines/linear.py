"""Linear baselines: what a bag of words and a logistic regression (scikit-learn) reach on the sides of a task.

Texts: TF-IDF of words and pairs of words (Wang and Manning 2012 show how strong that is); several labels by one
classifier each, numbers by ridge regression. Tags: one classifier of words by a window of two words to either side,
with suffixes, prefixes and word shape (in the manner of Ratinov and Roth 2009), each word decided by itself. The
strength of regularisation is chosen on the validation side by the same metric that chooses a model's learning rate.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...data.tagging import TaggedSentence
from ...data.tasks import TaskData, TextExample
from ..classification import accuracy, f1, pearson
from ..entities import entity_scores

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Inverse strengths of regularisation (scikit-learn's C) to choose from."""


@dataclass
class LinearBaseline:
    """A fitted baseline's answers."""

    description: str
    parameters: int
    """Weights, biases included."""
    trials: list[dict[str, float]]
    """{C, validation} of all that was tried."""
    predictions: dict[str, list[Any]]
    """Of the validation and test examples: class, list of classes, number, or list of tags."""
    seconds: float


def bag_of_words(data: TaskData, strengths: Sequence[float] = STRENGTHS) -> LinearBaseline:
    """Fits the baseline of a task.

    Args:
        strengths: inverse strengths of regularisation to choose from.

    Raises:
        ValueError: a task without such a baseline; ModuleNotFoundError: scikit-learn is not installed.
    """
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The baseline needs scikit-learn: pip install 'hfseq[metrics]' (or scikit-learn)"
        ) from error
    if not strengths:
        raise ValueError("No strengths of regularisation to choose from: give one at least, such as 1.0.")
    start = time.perf_counter()
    if data.task == "token-classification":
        found = _tagger(data, strengths)
    elif data.task in ("sequence-classification", "multi-label", "regression"):
        found = _texts(data, strengths)
    else:
        raise ValueError(f"There is no bag-of-words baseline for {data.task}.")
    found.seconds = round(time.perf_counter() - start, 1)
    return found


def _texts(data: TaskData, strengths: Sequence[float]) -> LinearBaseline:
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    train = data.sides["train"]
    # What white space separates, and single signs: "n't", "!" and "a" say something, too.
    options: dict[str, Any] = {
        "ngram_range": (1, 2),
        "token_pattern": r"\w+(?:'\w+)*|[^\w\s]",
        "sublinear_tf": True,
        "min_df": 2,
    }
    if len(train) < 1000:
        options["min_df"] = 1
    parts = [lambda example: example.text]
    if train[0].text_pair is not None:
        parts.append(lambda example: example.text_pair)
    vectorizers = [TfidfVectorizer(**options).fit(map(part, train)) for part in parts]

    def features(examples: Sequence[TextExample]) -> Any:
        columns = [v.transform(map(part, examples)) for v, part in zip(vectorizers, parts, strict=True)]
        return sparse.hstack(columns).tocsr()

    def target(examples: Sequence[Any]) -> list[Any]:
        if data.task == "multi-label":
            return [[int(name in example.label) for name in data.labels] for example in examples]
        return [example.label for example in examples]

    def model(strength: float) -> Any:
        if data.task == "regression":
            return Ridge(alpha=1 / strength)
        # One-against-rest, by the solver that is quick on sparse rows.
        one = LogisticRegression(C=strength, solver="liblinear", random_state=0)
        several = data.task == "multi-label" or len(data.labels) > 2
        return OneVsRestClassifier(one) if several else one

    def score(true: Any, claimed: Any) -> float:
        if data.task == "regression":
            return pearson(true, claimed)
        return f1(true, claimed, "micro") if data.task == "multi-label" else accuracy(true, claimed)

    inputs = {side: features(examples) for side, examples in data.sides.items()}
    wanted, truth = target(train), target(data.sides["validation"])
    best: tuple[float, Any] = (-math.inf, None)
    trials = []
    for strength in strengths:
        fitted = model(strength).fit(inputs["train"], wanted)
        value = score(truth, fitted.predict(inputs["validation"]))
        trials.append({"C": strength, "validation": value})
        if value > best[0]:
            best = (value, fitted)
    claimed = {side: best[1].predict(x) for side, x in inputs.items() if side != "train"}
    predictions: dict[str, list[Any]]
    if data.task == "multi-label":
        predictions = {
            side: [[n for n, yes in zip(data.labels, row, strict=True) if yes] for row in rows]
            for side, rows in claimed.items()
        }
    else:
        kind = float if data.task == "regression" else str
        predictions = {side: [kind(value) for value in values] for side, values in claimed.items()}
    outputs = 1 if data.task == "regression" or len(data.labels) == 2 else len(data.labels)
    name = "ridge regression" if data.task == "regression" else "logistic regression"
    return LinearBaseline(
        f"TF-IDF of words and word pairs, {name}",
        outputs * (inputs["train"].shape[1] + 1),
        trials,
        predictions,
        0.0,
    )


def _tagger(data: TaskData, strengths: Sequence[float]) -> LinearBaseline:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    vectorizer = DictVectorizer()
    train = data.sides["train"]
    inputs = {"train": _narrow(vectorizer.fit_transform(_windows(train)))}
    wanted = [tag for sentence in train for tag in sentence.tags]
    for side, sentences in data.sides.items():
        if side != "train":
            inputs[side] = _narrow(vectorizer.transform(_windows(sentences)))

    def tags_of(fitted: Any, side: str) -> list[list[str]]:
        flat = iter(fitted.predict(inputs[side]))
        return [[str(next(flat)) for _ in sentence.words] for sentence in data.sides[side]]

    truth = [sentence.tags for sentence in data.sides["validation"]]
    best: tuple[float, Any] = (-math.inf, None)
    trials = []
    for strength in strengths:
        one = LogisticRegression(C=strength, solver="liblinear", random_state=0)
        fitted = OneVsRestClassifier(one).fit(inputs["train"], wanted)
        value = entity_scores(truth, tags_of(fitted, "validation"))["f1"]
        trials.append({"C": strength, "validation": value})
        if value > best[0]:
            best = (value, fitted)
    return LinearBaseline(
        "words in a window of five with affixes and shapes, logistic regression",
        len(set(wanted)) * (len(vectorizer.feature_names_) + 1),
        trials,
        {side: tags_of(best[1], side) for side in inputs if side != "train"},
        0.0,
    )


def _narrow(matrix: Any) -> Any:
    """With 32-bit indices, which are all that liblinear takes (DictVectorizer makes 64-bit ones)."""
    matrix.indices, matrix.indptr = matrix.indices.astype("int32"), matrix.indptr.astype("int32")
    return matrix


def _windows(sentences: Sequence[TaggedSentence]) -> Iterator[dict[str, float]]:
    """The features of each word of all sentences."""
    for sentence in sentences:
        words = sentence.words
        lower, shapes = [word.lower() for word in words], [word_shape(word) for word in words]
        for here in range(len(words)):
            features = {"bias": 1.0}
            for shift in (-2, -1, 0, 1, 2):
                place = here + shift
                inside = 0 <= place < len(words)
                features[f"{shift} word {lower[place] if inside else '<none>'}"] = 1.0
                features[f"{shift} shape {shapes[place] if inside else '<none>'}"] = 1.0
            for size in (1, 2, 3, 4):
                features[f"prefix {lower[here][:size]}"] = features[f"suffix {lower[here][-size:]}"] = 1.0
            if here:
                features[f"pair {lower[here - 1]} {lower[here]}"] = 1.0
            yield features


def word_shape(word: str) -> str:
    """Letters as A or a, digits as 0, runs shortened: "McDonald's" is "AaAa'a"."""
    shape = re.sub(r"[^\W\d_]", lambda match: "A" if match[0].isupper() else "a", word)
    return re.sub(r"(.)\1+", r"\1", re.sub(r"\d", "0", shape))


__all__ = ["STRENGTHS", "LinearBaseline", "bag_of_words", "word_shape"]
