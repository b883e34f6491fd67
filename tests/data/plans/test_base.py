"""What holds for every kind of plan: updates are cut first and dealt out second, and bad numbers are named."""

from __future__ import annotations

import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch

from hfseq.data import (
    BatchPlan,
    BucketPlan,
    Denoising,
    DenoisingPlan,
    DenoisingVocabulary,
    FeaturePlan,
    MaskedPlan,
    Masking,
    PairArray,
    PairPlan,
    RowPlan,
    StreamPlan,
)

SIZE = 500


@pytest.fixture(scope="module")
def plans(hand, tmp_path_factory):
    """{kind: makes a plan of the given options}"""
    vocabulary_of, array_of = hand
    path, generator = tmp_path_factory.mktemp("plans"), np.random.default_rng(0)
    text = array_of(
        [generator.integers(7, 400, n) for n in generator.integers(1, 90, 60)], SIZE, path / "text"
    )
    vocabulary, repair = vocabulary_of(SIZE), DenoisingVocabulary(0, 2, 3, np.arange(400, 440), 4)
    lengths = generator.integers(1, 40, 150), generator.integers(1, 40, 150)
    sides = [
        array_of([generator.integers(7, SIZE, n) for n in side], SIZE, path / str(i))
        for i, side in enumerate(lengths)
    ]
    pairs = PairArray(*sides, 2, 0)
    vectors = generator.normal(size=(60, 2)).astype(np.float32)

    def of(plan, *source, **sizes):
        return lambda **given: plan(*source, **{"tokens_per_update": 512, **sizes, **given})

    masked = (MaskedPlan, text, vocabulary)
    return {
        "streams": lambda micro_batches=1, **given: StreamPlan(
            text, **{"streams": 8, "segment_length": 20, **given}
        ),
        "rows-blocks": of(RowPlan, text, row_length=32),
        "rows-documents": of(RowPlan, text, row_length=32, packing="documents"),
        "masked-blocks": of(*masked, row_length=32),
        "masked-documents": of(
            *masked, row_length=32, packing="documents", masking=Masking(0.3, "span", rate_end=0.1)
        ),
        "masked-sop": of(*masked, row_length=32, packing="sop"),
        "masked-curriculum": of(*masked, row_length=[[0.5, 16], [0.5, 64]]),
        "pairs": of(PairPlan, pairs),
        "pairs-cells": of(PairPlan, pairs, cells_per_update=3000),
        "pairs-packed": of(PairPlan, pairs, packing="packed", row_length=64),
        "denoising": of(DenoisingPlan, text, repair, row_length=32),
        "infilling": of(DenoisingPlan, text, repair, row_length=32, denoising=Denoising("infilling")),
        "buckets": of(BucketPlan, text, max_length=50),
        "features": of(FeaturePlan, text, vectors),
    }


KINDS = (
    "streams", "rows-blocks", "rows-documents", "masked-blocks", "masked-documents", "masked-sop",
    "masked-curriculum", "pairs", "pairs-cells", "pairs-packed", "denoising", "infilling", "buckets", "features",
)  # fmt: skip
MICRO_BATCH_KINDS = [kind for kind in KINDS if kind != "streams"]


def labelled_rows(batch: dict) -> Counter:
    """Inputs and labels of every row that has a label, padding at the end aside."""
    found: Counter = Counter()
    inputs = "decoder_input_ids" if "decoder_input_ids" in batch else "input_ids"
    for ids, labels in zip(batch[inputs].tolist(), batch["labels"].tolist(), strict=True):
        last = max((place for place, label in enumerate(labels) if label != -100), default=-1)
        if last >= 0:
            found[tuple(ids[: last + 1]), tuple(labels[: last + 1])] += 1
    return found


def update_of(plan: BatchPlan, update: int, parts: list[int] | None = None) -> Counter:
    parts = list(range(plan.micro_batches)) if parts is None else parts
    return sum((labelled_rows(plan[update * plan.micro_batches + part]) for part in parts), Counter())


@pytest.mark.parametrize("kind", MICRO_BATCH_KINDS)
def test_one_process_accumulation_and_several_processes_see_the_same_updates(plans, kind):
    make = plans[kind]
    whole = make(epochs=2, seed=3)
    for micro_batches in (2, 4, 8):
        parts = make(epochs=2, seed=3, micro_batches=micro_batches)
        assert parts.n_updates == whole.n_updates and len(parts) == whole.n_updates * micro_batches
        for update in range(whole.n_updates):
            assert update_of(parts, update) == update_of(whole, update)
            assert parts.tokens_at(update) == whole.tokens_at(update)
            assert parts.epoch_at(update) == whole.epoch_at(update)
    # As accelerate deals items out: process p of 2 gets every second one, and accumulates four.
    for update in range(0, whole.n_updates, 3):
        dealt = [update_of(parts, update, [2 * step + process for step in range(4)]) for process in (0, 1)]
        assert dealt[0] + dealt[1] == update_of(whole, update)


def test_streams_are_whole_in_any_cut_of_an_update(plans):
    """Items of a stream plan are rows: what an update has does not depend on how the sampler puts them together."""
    plan = plans["streams"](epochs=2)
    for update in range(plan.n_updates):
        first = update * plan.streams
        together = plan.__getitems__(list(range(first, first + 8)))
        dealt = [row for p in (0, 1) for step in (0, 1) for row in plan.__getitems__(
            list(range(first + 4 * step + 2 * p, first + 4 * step + 2 * p + 2)))]  # fmt: skip
        assert Counter(tuple(r["labels"].tolist()) for r in together) == Counter(
            tuple(r["labels"].tolist()) for r in dealt
        )


@pytest.mark.parametrize("kind", KINDS)
def test_all_plans_have_one_face(plans, kind):
    plan = plans[kind](epochs=2.5, micro_batches=2)
    assert isinstance(plan, BatchPlan) and len(plan) == plan.n_updates * plan.micro_batches
    epochs = [plan.epoch_at(update) for update in range(plan.n_updates + 1)]
    assert epochs[0] == 0 and epochs[-1] == plan.epoch_at(10**9) == plan.epochs == 2.5
    assert (
        epochs == sorted(epochs) and 0.5 < plan.n_updates / 2.5 / plans[kind](micro_batches=2).n_updates < 1.5
    )
    whole = plans[kind](epochs=3, micro_batches=2)
    same = list(range(0, min(len(plan), len(whole)) // 2, 7)) if kind != "masked-curriculum" else []
    again = pickle.loads(pickle.dumps(plan))
    for index in (len(plan) - 1, *same):
        for other in (again, *([whole] if index in same and kind != "masked-documents" else [])):
            one, two = plan[index], other[index]
            assert torch.equal(one["input_ids"], two["input_ids"]) and torch.equal(
                one["labels"], two["labels"]
            )
    longest = max(plan[i]["input_ids"].shape[-1] for i in range(0, len(plan), 3))
    if kind == "streams":
        assert plan.longest_row is None
    else:
        assert longest <= plan.longest_row <= 90
        assert all(plan.tokens_at(update) <= 512 for update in range(plan.n_updates))
    for index in (-1, len(plan)):
        with pytest.raises(IndexError, match="outside this plan"):
            plan[index]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "epochs must be above 0, not 0: passes over the data"),
        ("epochs", -1, "not -1"),
        ("epochs", math.nan, "not nan"),
        ("epochs", math.inf, "not inf"),
        ("epochs", "3", "not '3'"),
        ("epochs", True, "not True"),
        ("seed", -1, "seed must be at least 0, not -1"),
        ("seed", "a", "not 'a'"),
        ("micro_batches", 0, r"micro_batches must be at least 1, not 0 \(processes x gradient_accumulation_steps\)"),
        ("micro_batches", 1.5, "not 1.5"),
        ("tokens_per_update", 0, "tokens_per_update must be at least 1, not 0"),
        ("tokens_per_update", "many", "tokens_per_update must be at least 1, not 'many'"),
    ],
)  # fmt: skip
def test_numbers_that_make_no_sense_are_named(plans, kind, name, value, message):
    if kind == "streams" and name in ("micro_batches", "tokens_per_update"):
        name, message = "streams", f"streams must be at least 1, not {value!r}"
        value = value if value != 1.5 else 0.5
        message = f"streams must be at least 1, not {value!r}"
    with pytest.raises(ValueError, match=message):
        plans[kind](**{name: value})
