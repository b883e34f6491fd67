"""Pairs of token arrays: batches, filters that drop training pairs and say so, lengths a model has no positions for."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from hfseq.data import PairArray, PairCorpus, PairFilter, build_pair_arrays, train_tokenizer

SEP, PAD, START = 3, 0, 2  # the arrays by hand end texts with 3


@pytest.fixture(scope="module")
def array(hand, tmp_path_factory):
    """Pairs of (source, target) lengths, end tokens aside."""
    lengths = [(3, 4), (10, 10), (2, 8), (30, 28), (5, 0), (12, 9), (1, 40), (4, 4)]
    folder = tmp_path_factory.mktemp("pairs")
    sides = [
        hand[1]([[10 * i + 7] * pair[side] for i, pair in enumerate(lengths)], 200, folder / str(side))
        for side in (0, 1)
    ]
    return PairArray(*sides, START, PAD)


def test_a_batch_is_right_to_the_token(array):
    batch = array.batch(np.array([2, 0]))
    assert batch["input_ids"].tolist() == [[27, 27, SEP, PAD], [7, 7, 7, SEP]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[27] * 8 + [SEP], [7] * 4 + [SEP] + [-100] * 4]
    assert batch["decoder_input_ids"].tolist() == [[START] + [27] * 8, [START] + [7] * 4 + [SEP] + [PAD] * 3]
    assert "attention_mask" not in array.batch(np.array([4, 4]))
    assert array.source_lengths.tolist() == [4, 11, 3, 31, 6, 13, 2, 5]


@pytest.mark.parametrize(
    ("limits", "kept", "counts"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7], (0, 0, 0)),
        ({"max_source_length": 13}, [0, 1, 2, 4, 5, 6, 7], (1, 0, 0)),
        ({"max_source_length": 12, "max_target_length": 10}, [0, 2, 4, 7], (2, 2, 0)),
        (
            {"max_length_ratio": 4.0},
            [0, 1, 2, 3, 5, 7],
            (0, 0, 2),
        ),  # a text without tokens is never near another
        ({"max_length_ratio": 1.0}, [1, 7], (0, 0, 6)),
        (
            {"max_source_length": 13, "max_target_length": 20, "max_length_ratio": 1.34},
            [0, 1, 5, 7],
            (1, 1, 2),
        ),
    ],
)
def test_filters_drop_and_count(array, limits, kept, counts):
    filtered = PairFilter(**limits).apply(array)
    report = filtered.report
    assert filtered.chosen.tolist() == kept and len(filtered) == report.kept == len(kept)
    assert (report.source_too_long, report.target_too_long, report.lengths_apart) == counts
    assert report.pairs == 8 == report.kept + sum(counts)
    assert str(report).startswith(f"Dropped {sum(counts)} of 8 training pairs")
    assert filtered.target_lengths.tolist() == array.target_lengths[kept].tolist()
    last = filtered.batch(np.array([len(kept) - 1]))
    assert last["input_ids"].tolist() == array.batch(np.array([kept[-1]]))["input_ids"].tolist()
    # Twice is once, and a worker gets the same.
    twice = pickle.loads(pickle.dumps(PairFilter(**limits).apply(filtered)))
    assert twice.chosen.tolist() == kept and twice.report.kept == twice.report.pairs == len(kept)


def test_filters_name_what_they_cannot_do(array):
    with pytest.raises(
        ValueError, match="Dropped 8 of 8 .*: 7 source too long, 1 target too long: nothing is left"
    ):
        PairFilter(max_source_length=2, max_target_length=2).apply(array)
    for limits in ({"max_source_length": 1}, {"max_target_length": 0}, {"max_length_ratio": 0.9}):
        with pytest.raises(ValueError, match=next(iter(limits))):
            PairFilter(**limits)


def test_pairs_longer_than_a_models_positions_are_named(array):
    array.check_positions(41, "train")
    with pytest.raises(
        ValueError, match=r"source of train pair 3 \(from 0\) has 31 tokens, .* max_source_length 30"
    ):
        array.check_positions(30, "train")
    with pytest.raises(ValueError, match="target of test pair 6 .* has 41 tokens, .* never dropped"):
        array.check_positions(40, "test")
    few = PairFilter(max_source_length=13).apply(
        array
    )  # numbers are those of the corpus, not of what is left
    with pytest.raises(ValueError, match="target of validation pair 6"):
        few.check_positions(40, "validation")


def test_arrays_of_other_corpora_do_not_pair(array, hand, tmp_path):
    with pytest.raises(ValueError, match="has 8 documents, .* has 2"):
        PairArray(array.source, hand[1]([[7], [8]], 200, tmp_path), START, PAD)


def test_building_filters_the_training_side_alone(tmp_path):
    short, long = ("a b c", "d e f"), ("a b c " * 20, "d")
    corpus = PairCorpus.from_pairs(train=[short, long, short], validation=[long], test=[long, short])
    tokenizer = train_tokenizer(corpus.both.train, "bpe", 280, translation=True)
    arrays = build_pair_arrays(
        corpus, tokenizer, cache_dir=tmp_path, filters=PairFilter(max_length_ratio=3.0)
    )
    assert {side: len(pairs) for side, pairs in arrays.items()} == {"train": 2, "validation": 1, "test": 2}
    assert arrays["train"].report.lengths_apart == 1 and arrays["test"].report is None
    again = build_pair_arrays(corpus, tokenizer, cache_dir=tmp_path)  # the same cache, unfiltered
    assert len(again["train"]) == 3 and again["train"].source.path == arrays["train"].source.path
    batch = again["train"].batch(np.array([0]))
    assert tokenizer.decode(batch["labels"][0]) == "d e f</s>" and batch["decoder_input_ids"][0, 0] == 1
    assert batch["input_ids"][0].tolist() == tokenizer("a b c")["input_ids"]
