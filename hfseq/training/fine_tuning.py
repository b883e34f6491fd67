"""What differs between the tasks that a pretrained model is fine-tuned for.

A `FineTuningTask` turns examples into rows, what a model puts out into predictions, and predictions into scores, a
picture and records for a file; everything else of fine-tuning (scripts/finetune.py) is the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
)

from .. import metrics
from ..data import answering, tagging, tasks
from ..plots import plot_class_scores, plot_confusion_matrix, plot_regression


@dataclass(frozen=True)
class RowOptions:
    """How examples become rows."""

    max_length: int | None = None
    """Tokens of a row; None: no limit."""
    doc_stride: int = 128
    """Tokens that windows of a long context share."""
    labelled_pieces: str = "first"
    """The pieces of a word that have its tag: first, or all, the last one's then being read."""


class FineTuningTask:
    """What scripts/finetune.py asks of a task; `TASK_CLASSES` has one class for each kind of data."""

    auto_class: str
    """The Auto class of the models that have the head."""
    collator: type = DataCollatorWithPadding
    """Made of the tokenizer; rows -> a batch."""
    preprocess_logits: Callable | None = None
    """(logits, labels) -> what is kept of them during evaluation."""
    metric: str
    """The score that chooses learning rates and checkpoints; higher is better."""

    def __init__(self, data: tasks.TaskData):
        self.data = data

    def config_fields(self) -> dict[str, Any]:
        """What the model's config has to know of the labels."""
        return {}

    def encode(self, examples: Sequence, tokenizer, options: RowOptions) -> tuple[list[dict], dict]:
        """(rows, each with the number of its "example"; what had to be cut).

        Raises:
            ValueError: an example of which the tokenizer leaves nothing.
        """
        raise NotImplementedError

    def decode(self, rows: list[dict], examples: Sequence, output) -> list[dict[str, Any]]:
        """A prediction for each example, from what the model put out for all rows."""
        raise NotImplementedError

    def score(self, examples: Sequence, predictions: list[dict]) -> dict[str, float]:
        """The scores of predictions, `metric` among them."""
        raise NotImplementedError

    def classes(self, examples: Sequence, predictions: list[dict]) -> dict[str, dict[str, float]]:
        """The scores of each class; empty where there are none."""
        return {}

    def picture(self, examples: Sequence, predictions: list[dict], path: Path, title: str) -> Path | None:
        """Draws what went wrong; None where there is nothing to draw."""
        return None

    def record(self, example) -> dict[str, Any]:
        """The example as `predictions.jsonl` tells it."""
        raise NotImplementedError


class TextTask(FineTuningTask):
    """One class, several classes or a number for a text or a pair of texts."""

    auto_class = "AutoModelForSequenceClassification"

    def __init__(self, data: tasks.TaskData):
        super().__init__(data)
        kinds = {
            "sequence-classification": ("single_label_classification", "accuracy"),
            "multi-label": ("multi_label_classification", "f1"),
            "regression": ("regression", "pearson"),
        }
        self.problem, self.metric = kinds[data.task]

    def config_fields(self) -> dict[str, Any]:
        return {"problem_type": self.problem, **(label_fields(self.data.labels) or {"num_labels": 1})}

    def encode(self, examples, tokenizer, options) -> tuple[list[dict], dict[str, int]]:
        rows, cut = [], 0
        for number, example in enumerate(examples):
            texts = [example.text] + ([example.text_pair] if example.text_pair is not None else [])
            encoded, truncated = encode_texts(texts, tokenizer, options.max_length, example.place)
            cut += truncated
            rows.append({**encoded, "labels": self.target(example.label), "example": number})
        return rows, {"examples_truncated": cut}

    def target(self, label) -> int | float | list[float]:
        labels = self.data.labels
        if self.problem == "regression":
            return float(label or 0.0)
        if self.problem == "multi_label_classification":
            return [float(name in (label or ())) for name in labels]
        return 0 if label is None else labels.index(label)

    def decode(self, rows, examples, output) -> list[dict[str, Any]]:
        """A prediction for each example, from logits [rows, labels]."""
        found: list[dict[str, Any]] = [{}] * len(examples)
        for row, logits in zip(rows, output.astype(np.float64), strict=True):
            if self.problem == "regression":
                found[row["example"]] = {"prediction": float(logits[0])}
            elif self.problem == "multi_label_classification":
                chosen = [n for n, x in zip(self.data.labels, logits, strict=True) if x > 0]
                found[row["example"]] = {"prediction": chosen}
            else:
                best, shifted = int(logits.argmax()), logits - logits.max()
                share = 1 / np.exp(shifted).sum()
                found[row["example"]] = {"prediction": self.data.labels[best], "probability": float(share)}
        return found

    def score(self, examples, predictions) -> dict[str, float]:
        true = [self.target(example.label) for example in examples]
        if self.problem == "regression":
            claimed = [p["prediction"] for p in predictions]
            errors = np.array(true) - np.array(claimed)
            return {
                "pearson": metrics.pearson(true, claimed),
                "spearman": metrics.spearman(true, claimed),
                "mean_squared_error": float(np.mean(errors**2)),
            }
        claimed = [self.target(p["prediction"]) for p in predictions]
        scores = {"accuracy": metrics.accuracy(true, claimed)}
        if self.problem == "multi_label_classification":
            return {
                "f1": metrics.f1(true, claimed, "micro"),
                "f1_macro": metrics.f1(true, claimed, "macro"),
                **scores,
            }
        scores["f1_macro"] = metrics.f1(true, claimed, "macro")
        return {**scores, "matthews_correlation": metrics.matthews_correlation(true, claimed)}

    def classes(self, examples, predictions) -> dict[str, dict[str, float]]:
        if self.problem == "regression":
            return {}
        true = [self.target(example.label) for example in examples]
        claimed = [self.target(p["prediction"]) for p in predictions]
        scores = metrics.class_scores(true, claimed, len(self.data.labels))
        return dict(zip(self.data.labels, scores, strict=True))

    def picture(self, examples, predictions, path: Path, title: str) -> Path | None:
        true = [self.target(example.label) for example in examples]
        claimed = [self.target(p["prediction"]) for p in predictions]
        if self.problem == "regression":
            return plot_regression(true, claimed, path, title)
        if self.problem == "multi_label_classification":
            return plot_class_scores(self.classes(examples, predictions), path, title)
        matrix = metrics.confusion_matrix(true, claimed, len(self.data.labels))
        return plot_confusion_matrix(matrix, self.data.labels, path, title)

    def record(self, example) -> dict[str, Any]:
        pair = {} if example.text_pair is None else {"text_pair": example.text_pair}
        label = list(example.label) if isinstance(example.label, tuple) else example.label
        return {"text": example.text, **pair, "label": label}


class TaggingTask(FineTuningTask):
    """A tag for each word."""

    auto_class = "AutoModelForTokenClassification"
    collator = DataCollatorForTokenClassification
    metric = "f1"

    def config_fields(self) -> dict[str, Any]:
        return label_fields(self.data.labels)

    def encode(self, examples, tokenizer, options) -> tuple[list[dict], dict[str, int]]:
        labels = self.data.labels
        return tagging.encode_tagged(examples, tokenizer, labels, options.max_length, options.labelled_pieces)

    @staticmethod
    def preprocess_logits(logits, labels) -> torch.Tensor:
        """Only the best tag leaves the device, not the logits of all."""
        return (logits[0] if isinstance(logits, tuple) else logits).argmax(-1)

    def decode(self, rows, examples, output) -> list[dict[str, Any]]:
        return [
            {"prediction": tags} for tags in tagging.tags_of_rows(rows, output, examples, self.data.labels)
        ]

    def score(self, examples, predictions) -> dict[str, float]:
        scores = self._scores(examples, predictions)
        return {name: value for name, value in scores.items() if name != "by_type"}

    def classes(self, examples, predictions) -> dict[str, dict[str, float]]:
        return self._scores(examples, predictions)["by_type"]

    def _scores(self, examples, predictions) -> dict[str, Any]:
        return metrics.entity_scores([e.tags for e in examples], [p["prediction"] for p in predictions])

    def picture(self, examples, predictions, path: Path, title: str) -> Path | None:
        return plot_class_scores(self.classes(examples, predictions), path, title)

    def record(self, example) -> dict[str, Any]:
        return {"words": list(example.words), "tags": None if example.tags is None else list(example.tags)}


class AnsweringTask(FineTuningTask):
    """Where in a text the answer to a question stands."""

    auto_class = "AutoModelForQuestionAnswering"
    metric = "f1"

    def __init__(self, data: tasks.TaskData):
        super().__init__(data)
        # SQuAD 2.0 is where the training side has questions without an answer.
        self.allow_none = any(not question.answers for question in data.sides["train"])

    def encode(self, examples, tokenizer, options) -> tuple[list[dict], dict[str, int]]:
        return answering.encode_questions(examples, tokenizer, options.max_length, options.doc_stride)

    def decode(self, rows, examples, output) -> list[dict[str, Any]]:
        answers = answering.answers_of_windows(rows, *output[:2], examples, allow_none=self.allow_none)
        return [{"prediction": answer} for answer in answers]

    def score(self, examples, predictions) -> dict[str, float]:
        references = [[text for text, _ in question.answers] for question in examples]
        return metrics.answer_scores(references, [p["prediction"] for p in predictions])

    def record(self, example) -> dict[str, Any]:
        answers = [text for text, _ in example.answers]
        return {"id": example.id, "question": example.question, "answers": answers}


class ChoiceTask(FineTuningTask):
    """Which of several texts goes with a question."""

    auto_class = "AutoModelForMultipleChoice"
    collator = DataCollatorForMultipleChoice
    metric = "accuracy"

    def encode(self, examples, tokenizer, options) -> tuple[list[dict], dict[str, int]]:
        rows, cut = [], 0
        for number, example in enumerate(examples):
            pairs = [
                encode_texts([example.question, c], tokenizer, options.max_length, example.place)
                for c in example.choices
            ]
            cut += any(truncated for _, truncated in pairs)
            columns = {name: [encoded[name] for encoded, _ in pairs] for name in pairs[0][0]}
            rows.append({**columns, "labels": example.label or 0, "example": number})
        return rows, {"examples_truncated": cut}

    def decode(self, rows, examples, output) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [{}] * len(examples)
        for row, logits in zip(rows, output, strict=True):
            found[row["example"]] = {"prediction": int(logits.argmax())}
        return found

    def score(self, examples, predictions) -> dict[str, float]:
        return {
            "accuracy": metrics.accuracy([e.label for e in examples], [p["prediction"] for p in predictions])
        }

    def record(self, example) -> dict[str, Any]:
        return {"question": example.question, "choices": list(example.choices), "label": example.label}


TASK_CLASSES = {
    **dict.fromkeys(tasks.TEXT_TASKS, TextTask),
    "token-classification": TaggingTask,
    "question-answering": AnsweringTask,
    "multiple-choice": ChoiceTask,
}


def label_fields(labels: list[str]) -> dict[str, Any]:
    """The fields of a config from which a pipeline knows the classes' names."""
    if not labels:
        return {}
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: number for number, name in enumerate(labels)},
    }


def encode_texts(texts: list[str], tokenizer, max_length: int | None, place: str) -> tuple[dict, bool]:
    """Inputs of a text or a pair, and whether it had to be cut."""
    if len(texts) == 2 and tokenizer.num_special_tokens_to_add(pair=True) == 0:
        # A tokenizer of a language model knows no pairs: its end token, if any, stands between them.
        texts = [(tokenizer.eos_token or " ").join(texts)]
    encoded = tokenizer(*texts, return_token_type_ids=True, verbose=False)
    length = len(encoded["input_ids"])
    if length <= tokenizer.num_special_tokens_to_add(pair=len(texts) == 2):
        raise ValueError(f"{place}: the tokenizer makes nothing of {texts[0]!r:.60}. Drop the row.")
    truncated = max_length is not None and length > max_length
    if truncated:
        encoded = tokenizer(*texts, truncation=True, max_length=max_length, return_token_type_ids=True)
    return dict(encoded), truncated
