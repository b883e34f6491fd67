"""Fine-tuning: the tasks that a pretrained model can be given a head for, one file each.

    sequence-classification, multi-label, regression    a text or a pair: .tsv .csv .jsonl .json
    token-classification                                 sentences of tagged words: .conll
    question-answering                                   .json of SQuAD 1.1 or 2.0
    multiple-choice                                      .jsonl .json

`base.py` says what a task is, `sides.py` reads its data, `datasets.py` knows data by name; `starting_point.py`,
`padding.py` and `trainer.py` are what training shares; `card.py` writes the card. The command is `hfseq finetune`.
"""

from __future__ import annotations

from .answering import QuestionAnswering
from .base import Task, TaskData, TaskOptions
from .choice import MultipleChoice
from .classification import SequenceClassification
from .datasets import DATASETS
from .multi_label import MultiLabel
from .regression import Regression
from .sides import SIDES, LabelledData, load_data
from .tagging import TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        SequenceClassification,
        MultiLabel,
        Regression,
        TokenClassification,
        QuestionAnswering,
        MultipleChoice,
    )
}
"""{name: class}. A new task is one line here."""

__all__ = ["DATASETS", "SIDES", "TASKS", "LabelledData", "Task", "TaskData", "TaskOptions", "load_data"]
