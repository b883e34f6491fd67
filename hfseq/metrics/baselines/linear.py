"""Linear baselines: what a bag of words and a logistic regression (scikit-learn) reach on the sides of a task.

Texts: TF-IDF of words and pairs of words (Wang and Manning 2012 show how strong that is); several labels by one
classifier each, numbers by ridge regression. Tags: one classifier of words by a window of two words to either side,
with suffixes, prefixes and word shape (in the manner of Ratinov and Roth 2009), each word decided by itself. The
strength of regularisation is chosen on the validation side by the score that the caller gives: that of its task.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Inverse strengths of regularisation (scikit-learn's C) to choose from."""

Texts = Sequence[tuple[str, ...]]
"""Each a text, or a pair of texts."""


@dataclass
class LinearBaseline:
    """A fitted baseline's answers."""

    description: str
    parameters: int
    """Weights, biases included."""
    trials: list[dict[str, float]]
    """{C, validation} of all that was tried."""
    predictions: dict[str, list[Any]]
    """Of the held-out sides: class, list of classes, number, or list of tags."""
    seconds: float


def fit_texts(
    train: Texts,
    targets: Sequence[Any],
    held_out: Mapping[str, Texts],
    labels: Sequence[str],
    problem: str,
    score: Callable[[list[Any]], float],
    strengths: Sequence[float] = STRENGTHS,
) -> LinearBaseline:
    """Fits the baseline of texts.

    Args:
        targets: of the training texts: a class, several (a list), or a number.
        held_out: {side: texts}, "validation" among them.
        labels: the classes in order.
        problem: as in a config of transformers: single_label_classification, multi_label_classification, regression.
        score: of predictions for the validation side; higher is better.
        strengths: inverse strengths of regularisation to choose from.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    _require_sklearn()
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    start = time.perf_counter()
    # What white space separates, and single signs: "n't", "!" and "a" say something, too.
    options = {
        "ngram_range": (1, 2),
        "token_pattern": r"\w+(?:'\w+)*|[^\w\s]",
        "sublinear_tf": True,
        "min_df": 2,
    }
    if len(train) < 1000:
        options["min_df"] = 1
    parts = range(len(train[0]))
    vectorizers = [TfidfVectorizer(**options).fit([texts[part] for texts in train]) for part in parts]

    def features(examples: Texts) -> Any:
        columns = [v.transform([texts[part] for texts in examples]) for part, v in enumerate(vectorizers)]
        return sparse.hstack(columns).tocsr()

    several = problem == "multi_label_classification"

    def model(strength: float) -> Any:
        if problem == "regression":
            return Ridge(alpha=1 / strength)
        # One-against-rest, by the solver that is quick on sparse rows.
        one = LogisticRegression(C=strength, solver="liblinear", random_state=0)
        return OneVsRestClassifier(one) if several or len(labels) > 2 else one

    def answers(fitted: Any, side: str) -> list[Any]:
        values = fitted.predict(inputs[side])
        if several:
            return [[n for n, yes in zip(labels, row, strict=True) if yes] for row in values]
        return [float(value) if problem == "regression" else str(value) for value in values]

    inputs = {"train": features(train), **{side: features(texts) for side, texts in held_out.items()}}
    wanted = [[int(name in target) for name in labels] for target in targets] if several else list(targets)
    best, trials = _choose(strengths, lambda c: model(c).fit(inputs["train"], wanted), answers, score)
    outputs = 1 if problem == "regression" or len(labels) == 2 else len(labels)
    name = "ridge regression" if problem == "regression" else "logistic regression"
    return LinearBaseline(
        f"TF-IDF of words and word pairs, {name}",
        outputs * (inputs["train"].shape[1] + 1),
        trials,
        {side: answers(best, side) for side in held_out},
        round(time.perf_counter() - start, 1),
    )


def fit_tags(
    train: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]],
    held_out: Mapping[str, Sequence[Sequence[str]]],
    score: Callable[[list[list[str]]], float],
    strengths: Sequence[float] = STRENGTHS,
) -> LinearBaseline:
    """Fits the baseline of tagged sentences.

    Args:
        train: sentences of words; tags: theirs.
        held_out: {side: sentences}, "validation" among them.
        score, strengths: as in `fit_texts`.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    _require_sklearn()
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    start = time.perf_counter()
    vectorizer = DictVectorizer()
    inputs = {"train": _narrow(vectorizer.fit_transform(_windows(train)))}
    for side, sentences in held_out.items():
        inputs[side] = _narrow(vectorizer.transform(_windows(sentences)))
    wanted = [tag for sentence in tags for tag in sentence]

    def fit(strength: float) -> Any:
        one = LogisticRegression(C=strength, solver="liblinear", random_state=0)
        return OneVsRestClassifier(one).fit(inputs["train"], wanted)

    def answers(fitted: Any, side: str) -> list[list[str]]:
        flat = iter(fitted.predict(inputs[side]))
        return [[str(next(flat)) for _ in words] for words in held_out[side]]

    best, trials = _choose(strengths, fit, answers, score)
    return LinearBaseline(
        "words in a window of five with affixes and shapes, logistic regression",
        len(set(wanted)) * (len(vectorizer.feature_names_) + 1),
        trials,
        {side: answers(best, side) for side in held_out},
        round(time.perf_counter() - start, 1),
    )


def _require_sklearn() -> None:
    try:
        import sklearn  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The baseline needs scikit-learn: pip install 'hfseq[metrics]' (or scikit-learn)"
        ) from error


def _choose(
    strengths: Sequence[float],
    fit: Callable[[float], Any],
    answers: Callable[[Any, str], Any],
    score: Callable[[Any], float],
) -> tuple[Any, list[dict[str, float]]]:
    """The model that is best on validation, and {C, validation} of all."""
    best: Any = None
    trials = []
    for strength in strengths:
        fitted = fit(strength)
        value = score(answers(fitted, "validation"))
        trials.append({"C": strength, "validation": value})
        if best is None or value > best[0]:
            best = (value, fitted)
    return best[1], trials


def _narrow(matrix: Any) -> Any:
    """With 32-bit indices, which are all that liblinear takes (DictVectorizer makes 64-bit ones)."""
    matrix.indices, matrix.indptr = matrix.indices.astype("int32"), matrix.indptr.astype("int32")
    return matrix


def _windows(sentences: Sequence[Sequence[str]]) -> Iterator[dict[str, float]]:
    """The features of each word of all sentences."""
    for words in sentences:
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


__all__ = ["STRENGTHS", "LinearBaseline", "fit_tags", "fit_texts", "word_shape"]
