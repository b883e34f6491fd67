"""The linear baselines learn what a bag of words can, and their strength is chosen by the score that they are given."""

from __future__ import annotations

import pytest

from hfseq.metrics import fit_tags, fit_texts

pytest.importorskip("sklearn")
WORDS = ["good", "fine", "bad", "poor"]
TEXTS = [(f"a {WORDS[n % 4]} film {n}",) for n in range(60)]
HELD_OUT = {"validation": TEXTS[:20], "test": TEXTS[20:30]}
SEVERAL = [*WORDS, "yes"]


@pytest.mark.parametrize(
    ("problem", "label", "labels"),
    [
        ("single_label_classification", lambda n: "yes" if n < 2 else "no", ["no", "yes"]),
        ("single_label_classification", lambda n: WORDS[n], WORDS),
        ("multi_label_classification", lambda n: [WORDS[n], "yes"] if n < 2 else [WORDS[n]], SEVERAL),
    ],
    ids=["two", "four", "several"],
)
def test_texts(problem, label, labels):
    targets = [label(n % 4) for n in range(60)]

    def score(predictions):
        return sum(sorted(p) == sorted(t) for p, t in zip(predictions, targets, strict=False)) / len(
            predictions
        )

    found = fit_texts(TEXTS, targets, HELD_OUT, labels, problem, score, [1.0, 10.0])
    assert [sorted(p) for p in found.predictions["test"]] == [sorted(t) for t in targets[20:30]]
    assert [trial["C"] for trial in found.trials] == [1.0, 10.0] and found.trials[1]["validation"] == 1


def test_numbers_and_pairs():
    pairs = [(text, text.upper()) for (text,) in TEXTS]
    targets = [float(n % 4) for n in range(60)]
    found = fit_texts(
        pairs,
        targets,
        {"validation": pairs[:20], "test": pairs[20:30]},
        [],
        "regression",
        lambda p: 0.0,
        [10.0],
    )
    assert found.predictions["test"] == pytest.approx(targets[20:30], abs=0.5)


def test_the_score_chooses():
    targets = [float(n % 4) for n in range(60)]
    tried = []

    def worse_and_worse(predictions):
        tried.append(predictions)
        return -len(tried)

    found = fit_texts(TEXTS, targets, HELD_OUT, [], "regression", worse_and_worse, [1e-3, 10.0])
    assert found.predictions["validation"] == tried[0] != tried[1]


def test_tags():
    names = ("Ann", "Bob", "Carl", "Dora", "Eve")
    sentences = [("he", "saw", name, "in", "town") for name in names]
    tags = [("O", "O", "B-p", "O", "O")] * 5
    held_out = {"validation": sentences[3:4], "test": sentences[4:]}
    found = fit_tags(sentences[:3], tags[:3], held_out, lambda found: 1.0, [10.0])
    assert found.predictions["test"] == [
        ["O", "O", "B-p", "O", "O"]
    ]  # by its shape and place: the name is new
