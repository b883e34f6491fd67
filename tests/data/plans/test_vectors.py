"""Batches of texts with their vectors."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from hfseq.data import FeaturePlan


@pytest.fixture(scope="module")
def table(hand, tmp_path_factory):
    """(vectors [texts, 2], token array)"""
    generator = np.random.default_rng(0)
    texts = [generator.integers(7, 60, n) for n in generator.integers(4, 16, 48)]
    features = np.stack([np.arange(48), -np.arange(48)], axis=1).astype(np.float32)
    return features, hand[1](texts, 60, tmp_path_factory.mktemp("table"))


def test_every_text_once_an_epoch_within_the_budget(table):
    features, array = table
    plan = FeaturePlan(array, features, tokens_per_update=200, epochs=2, micro_batches=2, seed=3)
    assert len(plan) == 2 * plan.n_updates and plan.epoch_at(plan.n_updates) == 2
    assert sum(plan.tokens_at(update) for update in range(plan.n_updates)) == 2 * (len(array) - 1)
    batches = [plan[i] for i in range(len(plan))]
    seen = Counter(
        tuple(vector.tolist())
        for batch in batches
        for vector, labels in zip(batch["features"], batch["labels"], strict=True)
        if (labels != -100).any()
    )
    assert seen == {tuple(vector): 2 for vector in features.tolist()}
    for one, other in zip(batches[::2], batches[1::2], strict=True):
        longest = max(part["input_ids"].shape[1] for part in (one, other))
        rows = sum(int((part["labels"] != -100).any(1).sum()) for part in (one, other))
        assert rows * longest <= 200
    assert all(set(batch) == {*batches[0]} for batch in batches)  # those that fill up, too


def test_evaluation_has_all_texts_once(table):
    features, array = table
    for processes in (1, 3):
        plan = FeaturePlan.evaluation(array, features, tokens_per_batch=100, processes=processes)
        assert len(plan) % processes == 0
        batches = [plan[i] for i in range(len(plan))]
        assert sum(int((b["labels"] != -100).sum()) for b in batches) == len(array) - 1


def test_the_twin_reads_the_same_rows_without_vectors(table):
    features, array = table
    with_vectors, without = (
        FeaturePlan(array, given, tokens_per_update=100, seed=1) for given in (features, None)
    )
    for index in range(len(with_vectors)):
        batch = with_vectors[index]
        features = batch.pop("features")
        assert features.dtype == torch.float32 and len(features) == len(batch["input_ids"])
        twin = without[index]
        assert twin.keys() == batch.keys() and all(torch.equal(twin[k], batch[k]) for k in twin)


def test_permuted_vectors_are_those_of_other_texts(table):
    features, array = table
    plan = FeaturePlan(array, features, tokens_per_update=100, permuted=True)
    assert not (plan.features == features).all(1).any()
    assert sorted(map(tuple, plan.features)) == sorted(map(tuple, features))


def test_a_plan_refuses_what_does_not_fit(table):
    features, array = table
    with pytest.raises(ValueError, match=r"\[texts, width\]"):
        FeaturePlan(array, features[1:], tokens_per_update=100)
    with pytest.raises(ValueError, match=r"\[texts, width\]"):
        FeaturePlan(array, features[:, 0], tokens_per_update=100)
    spoilt = features.copy()
    spoilt[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"features\[3, 1\] is nan: 1 of"):
        FeaturePlan(array, spoilt, tokens_per_update=100)
    with pytest.raises(ValueError, match=r"The vectors of .* are empty \(features are \[\d+, 0\]\)"):
        FeaturePlan(array, features[:, :0], tokens_per_update=100)
    with pytest.raises(ValueError, match="more than an update of tokens_per_update 5 "):
        FeaturePlan(array, features, tokens_per_update=5)
