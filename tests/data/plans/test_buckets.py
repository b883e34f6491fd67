"""Bucketed batches: every token once per epoch, little padding, and nobody waits."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from hfseq.data import BucketPlan, Corpus, WholeBatchCollator, build_token_arrays, train_tokenizer


@pytest.fixture(scope="module")
def array(tmp_path_factory):
    generator = np.random.default_rng(0)
    documents = [" ".join(map(str, generator.integers(0, 99, generator.integers(1, 60)))) for _ in range(250)]
    tokenizer = train_tokenizer(documents, "word", 200)
    corpus = Corpus.from_documents(train=documents)
    return build_token_arrays(corpus, tokenizer, tmp_path_factory.mktemp("cache"))["train"]


def windows(batch: dict[str, torch.Tensor]):
    """(inputs, targets) of each row without padding."""
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        n = int(mask.sum())
        assert (
            mask[:n].all()
            and not mask[n:].any()
            and (labels[n:] == -100).all()
            and (labels[:n] != -100).all()
        )
        yield ids[:n].tolist(), labels[:n].tolist()


@pytest.mark.parametrize("max_length", [200, 20, 7])
def test_every_token_is_a_target_once_per_epoch(array, max_length):
    plan = BucketPlan(array, tokens_per_update=400, max_length=max_length, epochs=3, pad_id=1)
    for epoch in range(3):
        found = Counter()
        for index in range(epoch * plan.updates_per_epoch, (epoch + 1) * plan.updates_per_epoch):
            batch = plan[index]
            assert batch["input_ids"].numel() <= 400 and batch["input_ids"].shape[1] <= max_length
            assert (batch["input_ids"][batch["attention_mask"] == 0] == 1).all()
            assert torch.equal(batch["labels"], batch["shift_labels"])
            for inputs, targets in windows(batch):
                assert inputs[1:] == targets[:-1]
                found[tuple(inputs), targets[-1]] += 1
        expected = Counter()
        for i in range(array.n_documents):
            text = [array.end_id, *array.document(i).tolist(), array.end_id]
            for start in range(0, len(text) - 1, max_length):
                row = text[start : start + max_length + 1]
                expected[tuple(row[:-1]), row[-1]] += 1
        assert found == expected
    assert plan.n_targets == len(array) - 1
    assert plan.epoch_at(plan.updates_per_epoch) == 1 and plan.epoch_at(10**6) == 3


def test_little_padding_and_a_new_order_each_epoch(array):
    plan = BucketPlan(array, tokens_per_update=400, max_length=100, epochs=2)
    batches = [plan[i] for i in range(len(plan))]
    padded = sum(b["input_ids"].numel() for b in batches)
    real = sum(int(b["attention_mask"].sum()) for b in batches)
    assert real / padded > 0.9  # 0.55 for documents as they come
    first, second = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    assert [b["input_ids"].tolist() for b in first] != [b["input_ids"].tolist() for b in second]
    lengths = [b["input_ids"].shape[1] for b in first]
    assert lengths != sorted(lengths)


def test_items_are_a_function_of_seed_and_index(array):
    options = {"tokens_per_update": 300, "max_length": 50, "epochs": 2}
    plan, again = BucketPlan(array, **options), pickle.loads(pickle.dumps(BucketPlan(array, **options)))
    backwards = {i: again[i] for i in reversed(range(len(again)))}
    for i in range(len(plan)):
        assert all(torch.equal(plan[i][k], backwards[i][k]) for k in plan[i])
    other = BucketPlan(array, seed=1, **options)
    assert any(plan[i]["input_ids"].tolist() != other[i]["input_ids"].tolist() for i in range(len(plan)))


@pytest.mark.parametrize("micro_batches", [2, 8, 300])
def test_parts_without_a_row_have_no_label(array, micro_batches):
    plan = BucketPlan(array, tokens_per_update=400, max_length=100, epochs=3, micro_batches=micro_batches)
    assert len(plan) == 3 * plan.updates_per_epoch * micro_batches
    idle = [b for b in (plan[i] for i in range(len(plan))) if (b["labels"] == -100).all()]
    assert (len(idle) > 0) == (micro_batches > 2)
    for batch in idle:
        assert (batch["shift_labels"] == -100).all() and len(batch["input_ids"]) == 1
    assert sum(int((plan[i]["labels"] != -100).sum()) for i in range(len(plan))) == 3 * plan.n_targets


def test_collator_unwraps(array):
    plan = BucketPlan(array, tokens_per_update=400, max_length=100)
    assert WholeBatchCollator()([plan[0]])["input_ids"] is not None
    with pytest.raises(ValueError, match="2 batches at once.*batch size per device to 1"):
        WholeBatchCollator()([plan[0], plan[1]])


def test_wrong_sizes(array):
    with pytest.raises(
        ValueError, match="longest text has 20 tokens, more than an update of tokens_per_update 10 .*Raise it"
    ):
        BucketPlan(array, tokens_per_update=10, max_length=20)
    for name in ("max_length", "micro_batches", "tokens_per_update"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            BucketPlan(array, **{"tokens_per_update": 10, "max_length": 5, name: 0})
    plan = BucketPlan(array, tokens_per_update=400, max_length=100)
    for index in (-1, len(plan)):
        with pytest.raises(IndexError, match="outside this plan"):
            plan[index]
