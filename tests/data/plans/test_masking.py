"""Masking against a slow reference that does one row at a time with Python's integers."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hfseq.data import Masking
from hfseq.data.hashing import draws, row_keys, uniform
from hfseq.data.plans.masking import _SPAN_BORDERS, LONGEST_SPAN

BITS = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & BITS
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & BITS
    return x ^ (x >> 31)


def key_of(*parts: int) -> int:
    key = 0
    for part in parts:
        key = mix((key ^ (part & BITS)) + STEP & BITS)
    return key


def draw(key: int, column: int, stream: int) -> int:
    return mix(mix(key + stream * STEP & BITS) + (column + 1) * STEP & BITS)


def reference(ids: list[int], key: int, vocabulary, masking: Masking, progress: float = 0.0):
    """(input ids, labels, positions) of one row."""
    width = len(ids)
    rates = [masking.rate, masking.rate if masking.rate_end is None else masking.rate_end]
    slots = max(1, int(max(rates) * width + 0.5))
    can = [c for c in range(width) if not vocabulary.special[ids[c]]]
    rate = rates[0] + (rates[1] - rates[0]) * progress
    budget = min(max(1, min(int(rate * len(can) + 0.5), slots)), len(can))

    if masking.strategy == "token":
        chosen = sorted(can, key=lambda c: draw(key, c, 0))[:budget]
    else:
        words: list[list[int]] = []
        for c in can:
            goes_on = c - 1 in can and vocabulary.joins_left[ids[c]] and vocabulary.joins_right[ids[c - 1]]
            if goes_on:
                words[-1].append(c)
            else:
                words.append([c])
        at_random = sorted(range(len(words)), key=lambda w: draw(key, w, 0) | masking_bit(masking))
        order: list[int] = []
        if masking.strategy == "span":
            for j in range(slots if words else 0):
                number = draw(key, j, 1)
                anchor = (number >> 32) * len(words) >> 32
                share = (number & 0xFFFFFFFF) / 2**32
                weights = [0.2 * 0.8**k for k in range(10)]
                length = 1
                while length < 10 and share >= sum(weights[:length]) / sum(weights):
                    length += 1
                for w in range(anchor, min(anchor + length, len(words))):
                    # A special token between two words ends the span.
                    if w > anchor and words[w][0] != words[w - 1][-1] + 1:
                        break
                    order.append(w)
        order = list(dict.fromkeys([*order, *at_random]))
        chosen = []
        for w in order:
            if len(chosen) + len(words[w]) <= budget:
                chosen += words[w]
        if budget and not chosen:
            chosen = words[order[0]][:budget]

    masked, labels = list(ids), [-100] * width
    for c in chosen:
        labels[c] = ids[c]
        place = c
        while masking.strategy == "span" and place - 1 in chosen:
            place -= 1
        share = draw(key, place, 2) / 2.0**64
        if masking.replacement == "mask" or share < 0.8:
            masked[c] = vocabulary.mask_id
        elif share < 0.9:
            masked[c] = int(vocabulary.ordinary[(draw(key, c, 3) >> 32) * len(vocabulary.ordinary) >> 32])
    return masked, labels, sorted(chosen) + [-1] * (slots - len(chosen))


def masking_bit(masking: Masking) -> int:
    return 1 << 63 if masking.strategy == "span" else 0


def some_rows(n: int, width: int, size: int, seed: int = 0) -> np.ndarray:
    """Rows of text with special tokens at both ends, some in the middle, and padding."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(5, size, (n, width))
    ids[:, 0] = 2
    for row in range(n):
        end = generator.integers(3, width + 1)
        ids[row, end:] = 0
        ids[row, end - 1] = 3
        if end > 8:
            ids[row, end // 2 : end // 2 + 2] = 3, 2
    ids[0] = 0  # nothing at all
    ids[1, 2:] = 0  # one token
    return ids


SIZE = 60
WAYS = [
    Masking(),
    Masking(0.5, replacement="mask"),
    Masking(0.15, "whole_word"),
    Masking(0.4, "whole_word", "mask"),
    Masking(0.3, "span"),
    Masking(0.15, "span", "mask"),
    Masking(0.9, "span"),
    Masking(0.3, "token", rate_end=0.1),
    Masking(0.1, "whole_word", rate_end=0.45),
    Masking(0.02, "span", rate_end=0.01),
]


@pytest.mark.parametrize("masking", WAYS, ids=lambda m: f"{m.strategy}-{m.rate}-{m.replacement}-{m.rate_end}")
@pytest.mark.parametrize("width", [4, 33])
def test_equals_the_reference(hand, masking, width):
    vocabulary = hand[0](SIZE)
    ids = some_rows(40, width, SIZE)
    numbers = np.arange(40) * 7 - 3
    keys = row_keys(5, numbers)
    assert keys.tolist() == [key_of(5, int(n)) for n in numbers]
    for progress in (0.0, 0.37, 1.0):
        found = masking.apply(ids, keys, vocabulary, progress)
        for row in range(40):
            expected = reference(ids[row].tolist(), int(keys[row]), vocabulary, masking, progress)
            assert tuple(part[row].tolist() for part in found) == expected
        assert all(part.dtype == np.int64 for part in found)


@pytest.mark.parametrize("masking", WAYS[:6], ids=lambda m: f"{m.strategy}-{m.rate}-{m.replacement}")
def test_a_row_does_not_depend_on_its_neighbours(hand, masking):
    vocabulary = hand[0](SIZE)
    ids, keys = some_rows(30, 40, SIZE), row_keys(1, np.arange(30))
    together = masking.apply(ids, keys, vocabulary)
    order = np.random.default_rng(0).permutation(30)
    shuffled = masking.apply(ids[order], keys[order], vocabulary)
    for row in range(30):
        alone = masking.apply(ids[row : row + 1], keys[row : row + 1], vocabulary)
        assert all((a[0] == t[row]).all() for a, t in zip(alone, together, strict=True))
    assert all((s == t[order]).all() for s, t in zip(shuffled, together, strict=True))
    before = ids.copy()
    masking.apply(ids, keys, vocabulary)
    assert (ids == before).all()


def test_counts_are_exact_and_special_tokens_never_masked(hand):
    vocabulary = hand[0](SIZE)
    ids, keys = some_rows(200, 128, SIZE), row_keys(2, np.arange(200))
    available = (ids >= 5).sum(axis=1)
    for strategy in ("token", "whole_word", "span"):
        masked, labels, positions = Masking(0.15, strategy).apply(ids, keys, vocabulary)
        guessed = labels != -100
        assert not (guessed & (ids < 5)).any() and (masked[~guessed] == ids[~guessed]).all()
        assert positions.shape == (200, 19) == (200, Masking(0.15).slots(128))
        budget = np.minimum(np.maximum(1, np.floor(0.15 * available + 0.5)), available)
        missing = budget - guessed.sum(axis=1)
        if strategy == "token":
            assert (missing == 0).all()
        else:
            # Words here are of one token twice as often as of more, so that little is ever missing.
            assert (
                (missing >= 0).all()
                and (guessed.sum(axis=1) >= (available > 0)).all()
                and missing.mean() < 0.3
            )
        for row in range(200):
            used = positions[row][positions[row] >= 0]
            assert used.tolist() == np.flatnonzero(guessed[row]).tolist()
            assert (positions[row][len(used) :] == -1).all()


def test_words_are_masked_whole(hand):
    vocabulary = hand[0](SIZE)
    ids, keys = some_rows(200, 128, SIZE), row_keys(3, np.arange(200))
    for strategy in ("whole_word", "span"):
        _, labels, _ = Masking(0.15, strategy, "mask").apply(ids, keys, vocabulary)
        guessed = labels != -100
        starts = vocabulary.starts_word(ids)
        inside = ~starts[:, 1:]
        partly = inside & (guessed[:, 1:] != guessed[:, :-1])
        short = (ids >= 5).sum(axis=1) < 30  # there the only word that is drawn may be longer than the budget
        assert not partly[~short].any() and inside.any()
    # A single word longer than the budget is begun, so that no row is without a label.
    row = np.array([[2, 7, 9, 12, 15, 18, 3]])
    _, labels, positions = Masking(0.3, "whole_word").apply(row, row_keys(0, np.arange(1)), vocabulary)
    assert positions.tolist() == [[1, 2]] and (labels != -100).sum() == 2


def test_spans_are_spans_and_lengths_are_span_bert_s(hand):
    shares = np.diff(np.concatenate([[0], _SPAN_BORDERS, [1]]))
    assert len(shares) == LONGEST_SPAN and shares[1] / shares[0] == pytest.approx(0.8)
    assert (shares * np.arange(1, 11)).sum() == pytest.approx(3.8, abs=0.01)  # as Joshi et al. report

    vocabulary = hand[0](SIZE)
    vocabulary.joins_left[:] = False  # every token a word
    ids = np.full((400, 512), 11)
    lengths = {}
    for strategy in ("whole_word", "span"):
        _, labels, _ = Masking(0.1, strategy).apply(ids, row_keys(4, np.arange(400)), vocabulary)
        guessed = (labels != -100).astype(int)
        edges = np.abs(np.diff(np.pad(guessed, ((0, 0), (1, 1))), axis=1)).sum() // 2
        lengths[strategy] = guessed.sum() / edges
    # Independent words make runs of 1 / (1 - 0.1); spans sometimes touch, and the last is cut.
    assert lengths["whole_word"] == pytest.approx(1.11, abs=0.02) and 3.5 < lengths["span"] < 4.3


def test_shares_of_replacement(hand):
    vocabulary = hand[0](1000)
    ids, keys = np.random.default_rng(1).integers(5, 1000, (600, 128)), row_keys(6, np.arange(600))
    masked, labels, _ = Masking(0.3).apply(ids, keys, vocabulary)
    new, old = masked[labels != -100], labels[labels != -100]
    assert (new == 4).mean() == pytest.approx(0.8, abs=0.01)
    assert (new == old).mean() == pytest.approx(0.1, abs=0.01)
    at_random = new[(new != 4) & (new != old)]
    assert len(at_random) / len(new) == pytest.approx(0.1, abs=0.01)
    assert at_random.min() >= 5 and len(set(at_random.tolist())) > 800  # ordinary ids, and all of them
    masked, labels, _ = Masking(0.3, replacement="mask").apply(ids, keys, vocabulary)
    assert (masked[labels != -100] == 4).all()
    # All columns are masked equally often, but for the first words, which fewer spans reach (as in SpanBERT).
    for strategy in ("token", "whole_word", "span"):
        _, labels, _ = Masking(0.3, strategy).apply(ids, keys, vocabulary)
        per_column = (labels != -100).mean(axis=0)[10 if strategy == "span" else 0 :]
        assert per_column.min() > 0.22 and per_column.max() < 0.4


def test_a_span_is_hidden_in_one_way(hand):
    """SpanBERT's `--replacement-method span`: of runs of two or more none is treated unevenly."""
    vocabulary = hand[0](1000)
    ids, keys = np.random.default_rng(1).integers(7, 1000, (300, 128)), row_keys(6, np.arange(300))
    uneven = {}
    for strategy in ("whole_word", "span"):
        masked, labels, _ = Masking(0.15, strategy).apply(ids, keys, vocabulary)
        ways: list[set[str]] = []
        for row in range(len(ids)):
            guessed = np.flatnonzero(labels[row] != -100)
            for run in np.split(guessed, np.flatnonzero(np.diff(guessed) > 1) + 1):
                if len(run) > 1:
                    new, old = masked[row, run], ids[row, run]
                    # A random token may be the old one: of two in a row, that is one run in a million.
                    ways.append(
                        {
                            "mask" if n == 4 else "kept" if n == o else "random"
                            for n, o in zip(new, old, strict=True)
                        }
                    )
        uneven[strategy] = np.mean([len(way) > 1 for way in ways])
        if strategy == "span":
            kinds = Counter(next(iter(way)) for way in ways if len(way) == 1)
            shares = {kind: count / len(ways) for kind, count in kinds.items()}
            assert shares == pytest.approx({"mask": 0.8, "random": 0.1, "kept": 0.1}, abs=0.03)
    assert uneven["whole_word"] > 0.3 and uneven["span"] < 0.005


def test_random_numbers_are_uniform_and_independent():
    keys = row_keys(0, np.arange(500))
    first, second = draws(keys, 200, 0) / 2.0**64, draws(keys, 200, 1) / 2.0**64
    for numbers in (first, second):
        assert numbers.mean() == pytest.approx(0.5, abs=0.004) and numbers.var() == pytest.approx(
            1 / 12, abs=0.001
        )
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.012
    counts = Counter(uniform(draws(keys, 200, 2), 7).ravel().tolist())
    assert set(counts) == set(range(7)) and max(counts.values()) / min(counts.values()) < 1.1
    assert len(set(row_keys(0, np.arange(3), 5).tolist()) | set(row_keys(0, 5, np.arange(3)).tolist())) == 6
    assert row_keys(-1, np.array([2])) != row_keys(1, np.array([2]))


def test_rate_follows_a_line():
    masking = Masking(0.3, rate_end=0.1)
    assert [masking.rate_at(p) for p in (0, 0.5, 1)] == pytest.approx([0.3, 0.2, 0.1])
    assert masking.slots(100) == 30 and Masking(0.1, rate_end=0.3).slots(100) == 30  # static over the run
    assert Masking(0.01).slots(8) == 1


def test_wrong_masking():
    for rate in (0, 1, 1.5, -0.1, float("nan"), True, "0.15", None):
        with pytest.raises(ValueError, match="The mask rate is .*above 0 and below 1"):
            Masking(rate)
    for rate in (0, 1, "x"):
        with pytest.raises(ValueError, match="The mask rate_end is .*above 0 and below 1"):
            Masking(0.15, rate_end=rate)
    with pytest.raises(ValueError, match="Unknown mask strategy 'word': choose token or whole_word or span"):
        Masking(strategy="word")
    with pytest.raises(ValueError, match="Unknown mask replacement 'none': choose bert or mask"):
        Masking(replacement="none")
