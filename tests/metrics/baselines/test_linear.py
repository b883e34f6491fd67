"""The linear baselines learn what a bag of words can."""

from __future__ import annotations

import pytest

from hfseq.data.tagging import TaggedSentence
from hfseq.data.tasks import TaskData, TextExample
from hfseq.metrics import bag_of_words

pytest.importorskip("sklearn")
WORDS = ["good", "fine", "bad", "poor"]


def data(task: str, label, labels=()) -> TaskData:
    examples = [TextExample(f"a {WORDS[n % 4]} film {n}", label(n % 4), f"line {n}") for n in range(60)]
    sides = {"train": examples, "validation": examples[:20], "test": examples[20:30]}
    return TaskData("films", task, sides, list(labels))


@pytest.mark.parametrize(
    "task",
    [
        data("sequence-classification", lambda n: "yes" if n < 2 else "no", ["no", "yes"]),
        data("sequence-classification", lambda n: WORDS[n], WORDS),
        data("multi-label", lambda n: (WORDS[n], "yes") if n < 2 else (WORDS[n],), [*WORDS, "yes"]),
    ],
    ids=["two", "four", "several"],
)
def test_texts(task):
    found = bag_of_words(task, [1.0, 10.0])
    expected = [list(e.label) if isinstance(e.label, tuple) else e.label for e in task.sides["test"]]
    assert [sorted(p) for p in found.predictions["test"]] == [sorted(e) for e in expected]
    assert [trial["C"] for trial in found.trials] == [1.0, 10.0] and found.trials[1]["validation"] == 1


def test_numbers():
    found = bag_of_words(data("regression", float), [10.0])
    assert found.predictions["test"] == pytest.approx([e % 4 for e in range(20, 30)], abs=0.5)


def test_tags():
    pytest.importorskip("seqeval")
    sentences = [
        TaggedSentence(("he", "saw", name, "in", "town"), ("O", "O", "B-p", "O", "O"), "", 0)
        for name in ("Ann", "Bob", "Carl", "Dora", "Eve")
    ]
    sides = {"train": sentences[:3], "validation": sentences[3:4], "test": sentences[4:]}
    found = bag_of_words(TaskData("names", "token-classification", sides, ["O", "B-p", "I-p"]), [10.0])
    assert found.predictions["test"] == [
        ["O", "O", "B-p", "O", "O"]
    ]  # by its shape and place: the name is new


def test_refused():
    with pytest.raises(ValueError, match="no bag-of-words baseline for multiple-choice"):
        bag_of_words(TaskData("x", "multiple-choice", {"train": [0]}))
