"""Scores against numbers by hand and, where installed, scikit-learn and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hfseq import metrics
from hfseq.metrics.classification import class_scores, confusion_matrix

RANDOM = np.random.default_rng(0)
CASES = [(RANDOM.integers(0, k, n), RANDOM.integers(0, k, n)) for k, n in ((2, 40), (2, 7), (5, 60), (4, 9))]
CASES += [(np.array([0, 0, 1]), np.array([0, 0, 0])), (np.array([1, 1]), np.array([1, 1]))]


def test_by_hand():
    true, claimed = [1, 1, 1, 0, 0], [1, 1, 0, 1, 0]  # 2 hits, 1 missed, 1 false alarm, 1 right no
    assert metrics.accuracy(true, claimed) == 3 / 5
    assert metrics.f1(true, claimed) == pytest.approx(2 / 3)
    assert metrics.matthews_correlation(true, claimed) == pytest.approx(
        (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)
    )
    assert confusion_matrix(true, claimed, 2).tolist() == [[1, 1], [1, 2]]
    assert class_scores(true, claimed, 3)[2] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert metrics.pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert metrics.spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1)
    assert metrics.spearman([1, 2, 2, 3], [3, 2, 2, 1]) == pytest.approx(-1)
    assert metrics.pearson([1, 1, 1], [1, 2, 3]) == 0


@pytest.mark.parametrize("case", CASES)
def test_against_scikit_learn(case):
    reference = pytest.importorskip("sklearn.metrics")
    true, claimed = case
    assert metrics.accuracy(true, claimed) == pytest.approx(reference.accuracy_score(true, claimed))
    assert metrics.matthews_correlation(true, claimed) == pytest.approx(
        reference.matthews_corrcoef(true, claimed)
    )
    for average in ("micro", "macro", "weighted", *(["binary"] if true.max() < 2 else [])):
        expected = reference.f1_score(true, claimed, average=average, zero_division=0)
        assert metrics.f1(true, claimed, average) == pytest.approx(expected), average
    several = np.eye(5, dtype=int)[true] | np.eye(5, dtype=int)[claimed], np.eye(5, dtype=int)[claimed]
    for average in ("micro", "macro", "weighted"):
        expected = reference.f1_score(*several, average=average, zero_division=0)
        assert metrics.f1(*several, average) == pytest.approx(expected), average
    assert metrics.accuracy(*several) == pytest.approx(reference.accuracy_score(*several))


@pytest.mark.parametrize("case", CASES)
def test_weights_and_chosen_classes_against_scikit_learn(case):
    reference = pytest.importorskip("sklearn.metrics")
    true, claimed = case
    weights = np.random.default_rng(1).uniform(0.1, 2, len(true))
    weighed = {"sample_weight": weights}
    assert metrics.accuracy(true, claimed, weights) == pytest.approx(
        reference.accuracy_score(true, claimed, **weighed)
    )
    assert metrics.matthews_correlation(true, claimed, weights) == pytest.approx(
        reference.matthews_corrcoef(true, claimed, **weighed)
    )
    several = np.eye(5, dtype=int)[true] | np.eye(5, dtype=int)[claimed], np.eye(5, dtype=int)[claimed]
    for labels in (None, [1, 0]):
        for average in ("micro", "macro", "weighted"):
            options = {"average": average, "labels": labels, **weighed}
            for sides in (case, several):
                expected = reference.f1_score(*sides, zero_division=0, **options)
                assert metrics.f1(*sides, **options) == pytest.approx(expected), options
        expected = reference.f1_score(*several, average="samples", labels=labels, zero_division=0, **weighed)
        assert metrics.f1(*several, "samples", labels=labels, **weighed) == pytest.approx(expected)
        expected = reference.f1_score(*case, average=None, labels=labels, zero_division=0, **weighed)
        assert metrics.f1_of_classes(*case, labels, weights).tolist() == pytest.approx(expected.tolist())


def test_against_scipy():
    stats = pytest.importorskip("scipy.stats")
    for x, y in (*CASES[:4], (RANDOM.normal(size=50), RANDOM.normal(size=50))):
        assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0])
        assert metrics.spearman(x, y) == pytest.approx(stats.spearmanr(x, y)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.accuracy([1], [1, 2]), "do not pair"),
        (lambda: metrics.accuracy([], []), "nothing to score"),
        (lambda: metrics.pearson([1.0, 2.0], [1.0, math.nan]), "predictions hold NaN"),
        (lambda: metrics.f1([0, 1, 2], [0, 1, 2]), "3 classes"),
        (lambda: metrics.f1([0, 1], [0, 1], "mean"), "Unknown average 'mean'"),
        (lambda: metrics.f1([0, 1], [0, 1], "samples"), "several labels per text"),
        (lambda: metrics.accuracy([0, 1], [0, 1], [1.0]), "one number for each of 2 examples"),
        (lambda: metrics.entity_scores([["O"]], [["O", "O"]]), "Sentence 0: 1 reference tags, 2"),
        (lambda: metrics.answer_scores([["a"]], []), "1 questions have references, 0"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_entities():
    pytest.importorskip("seqeval")
    true = [["B-a", "I-a", "O", "B-b"], ["O", "B-a"]]
    claimed = [["B-a", "I-a", "O", "B-a"], ["B-b", "B-a"]]
    scores = metrics.entity_scores(true, claimed)
    assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((2 / 4, 2 / 3, 4 / 7))
    assert scores["by_type"]["b"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert metrics.entity_scores([["O"]], [["O"]])["f1"] == 0
    assert metrics.entity_scores([["B-a"]], [["O"]])["f1"] == 0
    # conlleval: an I- tag after O begins an entity.
    assert metrics.entity_scores([["O", "B-a"]], [["O", "I-a"]])["f1"] == 1


def test_answers():
    assert metrics.normalize_answer("The  Eiffel-Tower, (a) ") == "eiffeltower"
    scores = metrics.answer_scores([["the cat sat", "a dog"], ["Paris"]], ["cat sat down", "paris!"])
    # "cat sat down" has 2 of its 3 words in "cat sat": precision 2/3, recall 1.
    assert scores == {"exact_match": 50.0, "f1": pytest.approx((80 + 100) / 2), "questions": 2}
    scores = metrics.answer_scores([["x y"], [], []], ["x", "", "z"])
    assert scores["exact_match"] == pytest.approx(100 / 3)
    assert scores["f1"] == pytest.approx((200 / 3 + 100) / 3)
    assert scores["exact_match_unanswerable"] == 50 and scores["f1_answerable"] == pytest.approx(200 / 3)
