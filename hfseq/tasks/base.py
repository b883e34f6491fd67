"""What a task is: from labelled examples to rows, from a model's output to predictions, scores and a picture.

A `Task` owns all of it: its reader and checks, its metric (the one score that chooses learning rates, seeds and
checkpoints, and says when to stop), its head, the pipeline that a card tells its user to call, its baseline. Everything
else of fine-tuning (`hfseq finetune`) is the same for all tasks and asks only what stands here. A new task is one file
with a subclass, and one line in `hfseq.tasks.TASKS`.

Rows are not padded. Where padding goes is decided per model (`hfseq.tasks.padding`), and a task never counts columns of
a batch: what `decode` gets are a row's own columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import DataCollatorWithPadding

Row = dict[str, Any]
Prediction = dict[str, Any]


@dataclass
class TaskOptions:
    """The fields of a recipe's `task` section beside `type`; a task that has more subclasses it."""

    labels: list[str] | None = None
    """The classes (tags) in the order of their numbers; by default those of the training side, sorted."""
    max_length: int | None = None
    """Tokens of a row; by default as many as the model has positions."""
    special_tokens_in_text: bool = False
    """Whether "[MASK]" or "</s>" written in a text is that token. By default it is text, as in pretraining."""

    def __post_init__(self) -> None:
        if self.labels is not None:
            odd = next((label for label in self.labels if label is None or isinstance(label, bool)), "")
            if odd != "":
                raise ValueError(
                    f"labels hold {odd!r}: YAML reads yes, no, on, off and null so. Put quotes around them."
                )
            self.labels = [str(label) for label in self.labels]
            twice = next((label for label in self.labels if self.labels.count(label) > 1), None)
            if twice is not None:
                raise ValueError(f"labels name {twice!r} twice.")
        if self.max_length is not None and self.max_length < 1:
            raise ValueError(f"max_length must be at least 1, not {self.max_length}.")


@dataclass
class TaskData:
    """The examples of a task on its sides."""

    name: str
    task: str
    """A key of `hfseq.tasks.TASKS`."""
    sides: dict[str, list]
    """Examples of train, validation and, where there is one, test."""
    labels: list[str] = field(default_factory=list)
    """The classes (tags for token-classification) in the order of their numbers; empty for tasks without."""
    split: str = ""
    """How the sides were made, for cards."""
    terms: str = ""
    """Where the data comes from and what may be done with it, for cards."""
    warnings: list[str] = field(default_factory=list)
    """What is odd about the data and no reason to stop."""

    def __post_init__(self) -> None:
        for side, examples in self.sides.items():
            if not examples:
                remedy = {
                    "train": "Give more examples, or a smaller validation_share.",
                    "validation": "Give validation_file, more examples, or another validation_share or split_seed.",
                }.get(side, "Leave that file out.")
                raise ValueError(f"{self.name}: no examples on the {side} side. {remedy}")


@dataclass
class BaselineAnswers:
    """What a task's baseline reached: no network, but fitted on the same sides and chosen by the same metric."""

    description: str
    parameters: int
    trials: list[dict[str, float]]
    """Everything that was tried, with its score on validation."""
    predictions: dict[str, list[Prediction]]
    """Of every side but train."""
    seconds: float


class Task:
    """A kind of data and what is done with it; made of checked `TaskData` and the task's options."""

    name: ClassVar[str]
    """In recipes, on the command line, in cards."""
    auto_class: ClassVar[str]
    """The Auto class of the models that have the head."""
    metric: ClassVar[str]
    """The score that chooses, everywhere; higher is better. A key of what `score` returns."""
    pipeline: ClassVar[str | None] = None
    """The pipeline of transformers that uses the fine-tuned model; None: it has none."""
    options_class: ClassVar[type[TaskOptions]] = TaskOptions
    has_labels: ClassVar[bool] = False
    """Whether there are classes: the option `labels` means something."""
    per_column: ClassVar[bool] = False
    """Whether the output has one entry for each token of a row."""
    can_smooth: ClassVar[bool] = False
    """Whether Trainer's label_smoothing_factor means something: one class is right for each row or column."""

    def __init__(self, data: TaskData, options: TaskOptions | None = None):
        self.data = data
        self.options = options or self.options_class()

    # ---- data

    @classmethod
    def read(cls, path: Path, options: Any, labelled: bool) -> list:
        """The examples of a file.

        Args:
            options: of `options_class`.
            labelled: False: a file without any labels is fine, too.

        Raises:
            ValueError: what does not fit; the message names file and line.
        """
        raise NotImplementedError

    @classmethod
    def check(cls, data: TaskData, options: Any) -> None:
        """What needs all sides: sets `data.labels`, and adds to `data.warnings`.

        Raises:
            ValueError: an example that does not fit.
        """

    @classmethod
    def identity(cls, example: Any) -> str:
        """What must not stand on two sides; a hash of it parts them."""
        raise NotImplementedError

    @classmethod
    def is_labelled(cls, examples: Sequence) -> bool:
        """Whether somebody knows what is right."""
        return any(example.label is not None for example in examples)

    def record(self, example: Any) -> dict[str, Any]:
        """The example as `predictions.jsonl` tells it."""
        raise NotImplementedError

    # ---- rows

    def prepare(self, tokenizer: Any, config: Any) -> None:
        """Settles what depends on both, and changes the tokenizer as it is to be saved."""
        tokenizer.split_special_tokens = not self.options.special_tokens_in_text
        tokenizer.init_kwargs["split_special_tokens"] = tokenizer.split_special_tokens  # what is saved

    def config_fields(self) -> dict[str, Any]:
        """What the model's config has to know of the labels."""
        return {}

    def encode(
        self, examples: Sequence, tokenizer: Any, max_length: int | None
    ) -> tuple[list[Row], dict[str, int]]:
        """(rows, what had to be cut).

        Raises:
            ValueError: an example of which the tokenizer leaves nothing.
        """
        raise NotImplementedError

    def collator(self, tokenizer: Any) -> Callable[[list[Row]], dict[str, torch.Tensor]]:
        """Rows -> a batch, padded on the tokenizer's side."""
        return DataCollatorWithPadding(tokenizer)

    @classmethod
    def count(cls, batch: dict[str, torch.Tensor]) -> int:
        """The labels over which a batch's loss is a mean."""
        return len(next(iter(batch.values())))

    # ---- answers

    def keep(self, output: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Of a model's output (without the loss) what `decode` needs: [rows, ...], [rows, time, ...] `per_column`."""
        return output[0]

    def decode(self, rows: list[Row], examples: Sequence, output: list[np.ndarray]) -> list[Prediction]:
        """A prediction for each example, from what `keep` left of each row (`per_column`: without padding)."""
        raise NotImplementedError

    def score(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, float]:
        """The scores of predictions, `metric` among them."""
        raise NotImplementedError

    def classes(self, examples: Sequence, predictions: list[Prediction]) -> dict[str, dict[str, float]]:
        """The scores of each class; empty where there are none."""
        return {}

    def picture(
        self, examples: Sequence, predictions: list[Prediction], path: Path, title: str
    ) -> Path | None:
        """Draws what went wrong; None where there is nothing to draw."""
        return None

    def usage(self) -> dict[str, str]:
        """More arguments of the pipeline, for its user."""
        return {}

    def baseline(self) -> BaselineAnswers:
        """Fits the task's baseline.

        Raises:
            ValueError: the task has none; ModuleNotFoundError: scikit-learn is not installed.
        """
        raise ValueError(f"There is no bag-of-words baseline for {self.name}.")


def label_fields(labels: list[str]) -> dict[str, Any]:
    """The fields of a config from which a pipeline knows the classes' names."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {name: number for number, name in enumerate(labels)},
    }


def encode_texts(
    texts: Sequence[str], tokenizer: Any, max_length: int | None, place: str
) -> tuple[Row, bool]:
    """Inputs of a text or a pair, and whether it had to be cut.

    A tokenizer of a language model knows no pairs: its end token, if any, stands between the two.

    Raises:
        ValueError: the tokenizer makes nothing of the text, or nothing fits into `max_length`.
    """
    is_pair = len(texts) == 2
    specials = tokenizer.num_special_tokens_to_add(pair=is_pair)
    if max_length is not None and max_length <= specials:
        raise ValueError(f"{place}: rows of {max_length} leave no room beside the special tokens.")
    if is_pair and specials == 0:
        first, second = (tokenizer(text, verbose=False)["input_ids"] for text in texts)
        between = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        ids = [*first, *between, *second]
        kept = ids
        if max_length is not None and len(ids) > max_length:
            kept = ids[-max_length:] if tokenizer.truncation_side == "left" else ids[:max_length]
        if not first and not second:
            raise ValueError(f"{place}: the tokenizer makes nothing of {texts[0]!r:.60}. Drop the row.")
        row = {"input_ids": kept, "attention_mask": [1] * len(kept), "token_type_ids": [0] * len(kept)}
        return row, len(kept) < len(ids)
    encoded = tokenizer(*texts, return_token_type_ids=True, verbose=False)
    length = len(encoded["input_ids"])
    if length <= specials:
        raise ValueError(f"{place}: the tokenizer makes nothing of {texts[0]!r:.60}. Drop the row.")
    truncated = max_length is not None and length > max_length
    if truncated:
        encoded = tokenizer(*texts, truncation=True, max_length=max_length, return_token_type_ids=True)
    return dict(encoded), truncated


__all__ = [
    "BaselineAnswers",
    "Prediction",
    "Row",
    "Task",
    "TaskData",
    "TaskOptions",
    "encode_texts",
    "label_fields",
]
