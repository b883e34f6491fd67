"""A task's data: files or a named data set in, checked examples on three sides out.

Where a side is missing, examples are set aside from the training side by a hash of their text, so that duplicates are
never on two sides and the split does not depend on order. What does not fit is an error that names file and line:
silently dropped or renumbered rows would change what a score means.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..data.files import missing_file
from ..data.splits import split_of
from ..hints import nearest_hint
from ..paths import user_path
from .base import Task, TaskData, TaskOptions
from .datasets import DATASETS

SIDES = ("train", "validation", "test")


@dataclass
class LabelledData:
    """The `data` section of a fine-tuning recipe."""

    dataset: str | None = None
    """A named data set (sst2, sst2-sentences, wnut17, movie-reviews, wiki-topics) in place of files."""
    train_file: str | None = None
    """What it may be, its task says; also with .gz."""
    validation_file: str | None = None
    """Without it `validation_share` of the training examples is set aside."""
    test_file: str | None = None
    """Without it there is no test side."""
    validation_share: float = 0.1
    """Of the training examples, where there is no validation_file."""
    split_seed: int = 0
    """Another number is another split."""

    def __post_init__(self) -> None:
        if (self.dataset is None) == (self.train_file is None):
            both = "both" if self.dataset else "neither"
            raise ValueError(f"give either a data set (dataset) or a training file (train_file), not {both}.")
        if self.dataset is not None:
            if self.dataset not in DATASETS:
                raise ValueError(
                    f"unknown dataset {self.dataset!r}.{nearest_hint(self.dataset, DATASETS)} Known: "
                    f"{', '.join(DATASETS)}; everything else goes to train_file."
                )
            for name in ("validation_file", "test_file"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{self.dataset} has its own sides: leave out {name}.")
        elif self.validation_file is None and not 0 < self.validation_share < 1:
            raise ValueError(
                f"validation_share must be above 0 and below 1, not {self.validation_share}, or give validation_file."
            )


def load_data(task: type[Task], section: LabelledData, options: TaskOptions) -> TaskData:
    """Reads and checks a task's data.

    Raises:
        ValueError: anything that does not fit; the message names file and line.
        FileNotFoundError, ModuleNotFoundError: the data is not there.
    """
    if section.dataset is not None:
        dataset = DATASETS[section.dataset]
        if dataset.task != task.name:
            raise ValueError(f"{section.dataset} is a data set for {dataset.task}, not for {task.name}.")
        data = dataset.read(section.split_seed)
    else:
        data = _from_files(task, section, options)
    if options.labels and not task.has_labels:
        raise ValueError(f"Task {task.name} has no classes: leave out labels.")
    task.check(data, options)
    return data


def _from_files(task: type[Task], section: LabelledData, options: TaskOptions) -> TaskData:
    files = {
        side: user_path(path) for side in SIDES if (path := getattr(section, f"{side}_file")) is not None
    }
    sides = {side: read_file(task, path, options, labelled=side != "test") for side, path in files.items()}
    split = "sides as given"
    if "validation" not in sides:
        share = section.validation_share
        held_out = {
            text
            for text in map(task.identity, sides["train"])
            if split_of(text, validation=share, test=0, seed=section.split_seed) == "validation"
        }
        train = sides["train"]
        sides["validation"] = [example for example in train if task.identity(example) in held_out]
        sides["train"] = [example for example in train if task.identity(example) not in held_out]
        split = f"validation: {share:.0%} of the training examples, by a hash of their text"
    sides = {side: sides[side] for side in SIDES if side in sides}
    return TaskData(", ".join(path.name for path in files.values()), task.name, sides, split=split)


def read_file(task: type[Task], path: Path, options: TaskOptions, labelled: bool = True) -> list:
    """All examples of one file.

    Args:
        labelled: False: a file without any labels is fine, too.

    Raises:
        ValueError: as `load_data`; FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(missing_file(path))
    examples = task.read(path, options, labelled)
    if not examples:
        raise ValueError(f"{path}: no examples. The file is empty.")
    return examples


__all__ = ["SIDES", "LabelledData", "load_data", "read_file"]
