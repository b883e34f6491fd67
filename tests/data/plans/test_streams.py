"""Streams see every target once per epoch, in order, whatever fetches them; and say so when they cannot."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hfseq.data import StreamCollator, StreamPlan, check_ids


def walk(plan: StreamPlan, epoch: int) -> list[list[tuple[int, int]]]:
    """(input, target) pairs of each stream in one epoch, targets on padding left out."""
    streams = [[] for _ in range(plan.streams)]
    first, last = plan._segments.epoch_starts[epoch], plan._segments.epoch_starts[epoch + 1]
    for update in range(first, last):
        for j in range(plan.streams):
            row = plan[update * plan.streams + j]
            assert row["stream_id"] == j
            assert row["starts_anew"] == (update == first)
            assert torch.equal(row["labels"], row["shift_labels"])
            assert row["input_ids"].dtype == row["labels"].dtype == torch.int64
            assert len(row["input_ids"]) == len(row["labels"]) == plan.segment_length_at(update)
            pairs = zip(row["input_ids"].tolist(), row["shift_labels"].tolist(), strict=True)
            streams[j] += [pair for pair in pairs if pair[1] != -100]
    return streams


@pytest.mark.parametrize("random_lengths", [False, True])
@pytest.mark.parametrize(
    ("n", "streams", "length"),
    [
        (101, 4, 7),
        (1000, 8, 16),
        (1001, 8, 16),
        (33, 4, 8),
        (38, 4, 8),
        (500, 1, 3),
        (65, 64, 1),
        (2000, 3, 70),
    ],
)
def test_every_target_exactly_once_and_in_order(n, streams, length, random_lengths):
    tokens = np.arange(n, dtype=np.uint16)
    plan = StreamPlan(
        tokens, streams=streams, segment_length=length, epochs=2, random_lengths=random_lengths, seed=3
    )
    for epoch in range(2):
        pairs = [pair for stream in walk(plan, epoch) for pair in stream]
        assert pairs == [(t, t + 1) for t in range(n - 1)]  # consecutive within and across streams
    assert plan.n_targets == n - 1
    assert len(plan) == plan.n_updates * streams


@pytest.mark.parametrize(
    ("n", "streams", "length"), [(10_002, 1, 16), (10_018, 1, 16), (999, 7, 16), (5000, 4, 64)]
)
def test_no_runt_segment_and_no_row_longer_than_asked(n, streams, length):
    plan = StreamPlan(np.zeros(n, np.uint16), streams=streams, segment_length=length)
    lengths = plan._segments.lengths
    assert lengths.max() <= length and lengths.max() - lengths.min() <= 1
    assert plan.updates_per_epoch == -(-plan.stream_length // length)  # not one more than needed
    # Nothing is padded but the end of the last streams.
    assert plan.stream_length * streams - plan.n_targets < streams


def test_random_lengths_are_merity_s_and_a_function_of_seed_and_epoch():
    tokens = np.zeros(400_001, np.uint16)
    options = {"streams": 4, "segment_length": 70, "random_lengths": True}
    plan = StreamPlan(tokens, epochs=2, seed=5, **options)
    lengths = plan._segments.lengths
    assert lengths.min() >= 5 and lengths.max() <= 90 + 5
    usual = lengths[lengths > 52]
    assert 0.02 < 1 - len(usual) / len(lengths) < 0.08  # one in twenty is half as long
    assert usual.mean() == pytest.approx(70, abs=0.5) and usual.std() == pytest.approx(5, abs=0.5)
    # The second epoch has lengths of its own, and they do not depend on how many epochs there are.
    border = plan._segments.epoch_starts[1]
    assert lengths[:border].tolist() != lengths[border:].tolist()
    assert (
        StreamPlan(tokens, epochs=1, seed=5, **options)._segments.lengths.tolist()
        == lengths[:border].tolist()
    )
    assert (
        StreamPlan(tokens, epochs=1, seed=6, **options)._segments.lengths.tolist()
        != lengths[:border].tolist()
    )


def test_items_do_not_depend_on_how_they_are_fetched():
    tokens = np.random.default_rng(0).integers(0, 300, 3000).astype(np.uint16)
    for random_lengths in (False, True):
        plan = StreamPlan(
            tokens, streams=8, segment_length=20, epochs=2, random_lengths=random_lengths, seed=1
        )
        indices = list(range(len(plan)))
        for rows in (8, 4, 1):
            for start in range(0, len(plan), rows):
                batch = plan.__getitems__(indices[start : start + rows])
                for i, row in zip(indices[start:], batch, strict=False):
                    single = plan[i]
                    assert all(
                        torch.equal(torch.as_tensor(row[k]), torch.as_tensor(single[k])) for k in single
                    )


def test_global_random_state_is_left_alone():
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    plan = StreamPlan(np.arange(2000), streams=4, segment_length=20, epochs=2, random_lengths=True)
    StreamCollator()(plan.__getitems__([0, 1, 2, 3]))
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_see_the_same_and_share_the_file(tmp_path, context):
    np.arange(5000, dtype=np.uint16).tofile(tmp_path / "tokens.bin")
    tokens = np.memmap(tmp_path / "tokens.bin", dtype=np.uint16, mode="r")
    plan = StreamPlan(tokens, streams=4, segment_length=100)
    assert len(pickle.dumps(plan)) < 4000  # not the 10 kB of tokens
    assert (
        pickle.loads(pickle.dumps(StreamPlan(tokens[100:], streams=4, segment_length=9)))[0]["input_ids"][0]
        == 100
    )
    if context == "spawn":
        return  # the pickle is what spawning sends
    options = {"batch_size": 4, "collate_fn": StreamCollator()}
    alone = list(DataLoader(plan, **options))
    shared = list(DataLoader(plan, num_workers=2, multiprocessing_context=context, **options))
    assert len(alone) == len(shared) == plan.n_updates
    assert all(torch.equal(a[k], b[k]) for a, b in zip(alone, shared, strict=True) for k in a)


def test_epochs_are_counted_truly():
    plan = StreamPlan(np.arange(401), streams=4, segment_length=10, epochs=3)
    assert plan.updates_per_epoch == 10 and plan.n_updates == 30
    assert [plan.epoch_at(u) for u in (0, 5, 10, 15, 29, 30, 99)] == [0, 0.5, 1, 1.5, 2.9, 3, 3]
    plan = StreamPlan(np.arange(4001), streams=4, segment_length=10, epochs=3, random_lengths=True)
    epochs = [plan.epoch_at(u) for u in range(plan.n_updates + 1)]
    assert epochs[0] == 0 and epochs[-1] == 3 and epochs == sorted(set(epochs))
    assert all(plan.epoch_at(start) == e for e, start in enumerate(plan._segments.epoch_starts))
    done = [
        sum(plan.segment_length_at(u) for u in range(k)) / plan.stream_length
        for k in range(plan.n_updates + 1)
    ]
    assert epochs == pytest.approx(done)


def test_collator_stacks_segments():
    plan = StreamPlan(np.arange(41), streams=4, segment_length=5)
    loader = DataLoader(plan, batch_size=2, collate_fn=StreamCollator())
    batches = list(loader)
    assert len(batches) == plan.n_updates * 2
    second = batches[1]
    assert second["input_ids"].tolist() == [list(range(20, 25)), list(range(30, 35))]
    assert (
        second["shift_labels"].tolist()
        == second["labels"].tolist()
        == [list(range(21, 26)), list(range(31, 36))]
    )
    assert second["stream_id"].tolist() == [2, 3] and second["stream_id"].dtype == torch.int64
    assert second["starts_anew"].tolist() == [True, True] and second["starts_anew"].dtype == torch.bool
    assert not batches[2]["starts_anew"].any()


def test_collator_refuses_batches_that_mix_segments():
    plan = StreamPlan(np.arange(41), streams=4, segment_length=5)
    with pytest.raises(
        ValueError, match=r"A batch of 3 rows mixes segments \(stream ids \[3, 0, 3\]\).*sample sequentially"
    ):
        StreamCollator()([plan[i] for i in (3, 4, 7)])
    plan = StreamPlan(np.arange(46), streams=4, segment_length=5)
    assert set(plan._segments.lengths) == {4}
    plan = StreamPlan(np.arange(4 * 9 + 1), streams=4, segment_length=5)
    assert plan._segments.lengths.tolist() == [4, 5]
    with pytest.raises(ValueError, match="mixes segments"):
        StreamCollator()([plan[i] for i in (3, 4)])


@pytest.mark.parametrize("random_lengths", [False, True])
def test_the_last_epoch_may_be_a_part(random_lengths):
    options = {"streams": 4, "segment_length": 10, "random_lengths": random_lengths}
    plan = StreamPlan(np.arange(4001), epochs=2.5, **options)
    whole = StreamPlan(np.arange(4001), epochs=3, **options)
    assert len(plan) == plan.n_updates * 4 and plan.epoch_at(plan.n_updates) == 2.5
    assert 2.4 < plan.epoch_at(plan.n_updates - 1) < 2.5 <= whole.epoch_at(plan.n_updates) < 2.53
    for index in (0, len(plan) // 2, len(plan) - 1):
        assert torch.equal(plan[index]["input_ids"], whole[index]["input_ids"])
    if not random_lengths:
        assert plan.n_updates == 250 and StreamPlan(np.arange(4001), epochs=2.1, **options).n_updates == 210


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_evaluation_is_cut_into_the_same_streams_for_any_number_of_processes(processes):
    plan = StreamPlan.evaluation(np.arange(402), streams=4, segment_length=10, processes=processes)
    assert plan.streams % processes == 0
    one = StreamPlan(np.arange(402), streams=4, segment_length=10)
    for update in range(one.n_updates):
        rows = [plan[update * plan.streams + stream] for stream in range(plan.streams)]
        for stream in range(4):
            expected = one[update * 4 + stream]
            assert all(
                torch.equal(torch.as_tensor(rows[stream][k]), torch.as_tensor(expected[k])) for k in expected
            )
        assert all((row["labels"] == -100).all() for row in rows[4:])
        assert (
            plan.tokens_at(update) == one.tokens_at(update) == sum((r["labels"] != -100).sum() for r in rows)
        )
    assert plan.n_updates == one.n_updates


def test_short_texts_and_wrong_sizes():
    with pytest.raises(
        ValueError,
        match=r"has 100 tokens, but one batch of 32 streams of segments of 64 needs 2049. "
        r"Use at most 1 streams, or segments of at most 3, or more text",
    ):
        StreamPlan(np.arange(100), streams=32, segment_length=64)
    StreamPlan(np.arange(100), streams=1, segment_length=64)
    StreamPlan(np.arange(100), streams=32, segment_length=3)
    with pytest.raises(ValueError, match=r"needs 2049. Use more text"):
        StreamPlan(np.arange(3), streams=32, segment_length=64)
    with pytest.raises(ValueError, match="streams must be at least 1, not 0"):
        StreamPlan.evaluation(np.arange(100), streams=0, segment_length=5)
    for name in ("streams", "segment_length"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
            StreamPlan(np.arange(100), **{"streams": 1, "segment_length": 1, name: 0})
    with pytest.raises(ValueError, match=r"tokens must be integers \[N\], not float64 \[3, 4\]"):
        StreamPlan(np.zeros((3, 4)), streams=1, segment_length=1)
    plan = StreamPlan(np.arange(100), streams=3, segment_length=5)
    for index in (-1, len(plan)):
        with pytest.raises(IndexError, match="outside this plan"):
            plan[index]


def test_ids_outside_the_vocabulary():
    tokens = np.array([1, 2, 3, 299, 4], np.uint16)
    check_ids(tokens, 300)
    with pytest.raises(
        ValueError, match=r"Token 299 at position 3 is outside the model's vocabulary of 299.*build it again"
    ):
        check_ids(tokens, 299)
    with pytest.raises(ValueError, match="Token -1 at position 1"):
        check_ids(np.array([0, -1]), 300)
