"""Damaged text: source and target together are the text, the counts are exact, and nothing depends on company."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from hfseq.data import Denoising, DenoisingPlan, DenoisingVocabulary, NoisyTexts
from hfseq.data.hashing import draws, row_keys
from hfseq.data.plans.denoising import _composition, _poisson, corrupt_spans, infill

SIZE, PAD, START, END, MASK = 500, 0, 2, 3, 4
SENTINELS = np.arange(400, 440)
LENGTHS = np.array([2, 3, 5, 17, 64, 64, 40, 100])


@pytest.fixture(scope="module")
def vocabulary(hand):
    return DenoisingVocabulary(PAD, START, END, SENTINELS, MASK, hand[0](400))


@pytest.fixture(scope="module")
def array(hand, tmp_path_factory):
    generator = np.random.default_rng(0)
    documents = [generator.integers(7, 400, n) for n in generator.integers(0, 150, 40)]
    for document in documents:
        document[generator.random(len(document)) < 0.1] = 5  # full stops
    return hand[1](documents, SIZE, tmp_path_factory.mktemp("noise"))


def rows_of(lengths: np.ndarray) -> np.ndarray:
    """Every token of a row is another one."""
    return np.tile(np.arange(10, 10 + lengths.max()), (len(lengths), 1))


def repaired(source: list[int], target: list[int]) -> list[int]:
    """A T5 source with the target's spans put in."""
    spans: dict[int, list[int]] = {}
    for token in target:
        if token in SENTINELS:
            spans[token] = current = []
        else:
            current.append(token)
    used = [token for token in source if token in SENTINELS]
    assert used == sorted(spans) == SENTINELS[: len(used)].tolist()  # each once, in order
    assert all(spans.values())
    return [t for token in source for t in spans.get(token, [token])]


@pytest.mark.parametrize(
    "options", [{}, {"rate": 0.5}, {"rate": 0.9}, {"rate": 0.3, "mean_span": 1.0}, {"mean_span": 9}]
)
def test_spans_and_what_is_left_make_the_text(options):
    denoising, ids = Denoising(**options), rows_of(LENGTHS)
    for epoch in range(20):
        keys = row_keys(0, epoch, np.arange(len(LENGTHS)))
        source, target = corrupt_spans(ids, LENGTHS, keys, denoising, SENTINELS)
        for row, length in enumerate(LENGTHS):
            s, t = (values[row][counted[row]].tolist() for values, counted in (source, target))
            assert repaired(s, t) == ids[row, :length].tolist()
            taken = int(np.clip(np.floor(denoising.rate * length + 0.5), 1, length - 1))
            spans = len(t) - taken
            assert spans == min(
                max(1, int(np.floor(taken / denoising.mean_span + 0.5))), taken, length - taken
            )
            assert len(s) == length - taken + spans
            assert not any(a in SENTINELS and b in SENTINELS for a, b in pairwise(s))


def test_all_ways_to_cut_are_equally_likely():
    keys = row_keys(1, np.arange(20_000))
    items, parts = np.full(len(keys), 5), np.full(len(keys), 3)
    seen = Counter(map(tuple, _composition(keys, items, parts, 0).tolist()))
    assert len(seen) == 6 and all(sum(way) == 5 and min(way) > 0 for way in seen)  # 4 over 2
    assert max(abs(count / len(keys) - 1 / 6) for count in seen.values()) < 0.012
    mixed = _composition(keys[:3], np.array([1, 4, 7]), np.array([1, 4, 2]), 0)
    assert mixed.tolist()[:2] == [[1, 0, 0, 0], [1, 1, 1, 1]] and mixed[2].sum() == 7


@pytest.mark.parametrize(
    "options", [{}, {"rate": 0.15}, {"rate": 0.9}, {"mean_span": 1.0}, {"mean_span": 8.0}]
)
def test_infilling_leaves_the_rest_in_order(options):
    denoising, ids = Denoising("infilling", **options), rows_of(LENGTHS)
    masks = inserted = 0
    for epoch in range(30):
        keys = row_keys(0, epoch, np.arange(len(LENGTHS)))
        values, counted = infill(ids, LENGTHS, keys, denoising, MASK)
        for row, length in enumerate(LENGTHS):
            source = values[row][counted[row]].tolist()
            rest = [token for token in source if token != MASK]
            taken = int(np.clip(np.floor(denoising.rate * length + 0.5), 1, length - 1))
            assert rest == sorted(set(rest)) and set(rest) <= set(ids[row, :length].tolist())
            assert len(rest) == length - taken and len(source) <= length
            masks += len(source) - len(rest)
            # A single mask with nothing missing around it.
            for place, token in enumerate(source):
                near = source[place - 1 : place + 2]
                inserted += token == MASK and len(near) == 3 and near[2] == near[0] + 1
    assert masks and (inserted > 0) == (denoising.mean_span < 8)  # of 8, one length in 3,000 is 0


def test_span_lengths_are_poisson():
    lengths = _poisson(draws(row_keys(3, np.arange(200)), 500, 0), 3.0)
    assert lengths.mean() == pytest.approx(3, abs=0.03) and lengths.var() == pytest.approx(3, abs=0.06)
    assert (lengths == 0).mean() == pytest.approx(np.exp(-3), abs=0.003)


def test_no_place_is_spared():
    """Only near the ends, where fewer spans reach, is less taken away."""
    ids, lengths = np.tile(np.arange(10, 40), (4000, 1)), np.full(4000, 30)
    keys = row_keys(5, np.arange(4000))
    source, _ = corrupt_spans(ids, lengths, keys, Denoising(rate=0.3), SENTINELS)
    for objective, (values, counted) in (
        ("infilling", infill(ids, lengths, keys, Denoising("infilling"), MASK)),
        ("spans", source),
    ):
        gone = 1 - np.bincount(values[counted], minlength=50)[10:40] / 4000
        assert gone.mean() == pytest.approx(0.3, abs=1e-9), objective
        assert gone[4:-4].min() > 0.2 and gone[4:-4].max() < 0.4, objective
    assert gone[0] == 0 and gone[-1] == 1  # T5's texts begin with what is kept and end with what is not


def plan_of(array, vocabulary, objective="spans", **options) -> DenoisingPlan:
    sizes = {"row_length": 32, "tokens_per_update": 512, "denoising": Denoising(objective)}
    return DenoisingPlan(array, vocabulary, **{**sizes, **options})


def pieces_of(array, room: int) -> Counter:
    """All pieces of more than one token."""
    found = Counter()
    for i in range(array.n_documents):
        text = array.document(i).tolist()
        found.update(tuple(text[j : j + room]) for j in range(0, len(text), room))
    return Counter({piece: n for piece, n in found.items() if len(piece) > 1})


def texts(batch: dict, objective: str) -> list[tuple]:
    """The text of each row, put together again."""
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    found = []
    for row in range(len(mask)):
        source = batch["input_ids"][row][mask[row]].tolist()
        labels = batch["labels"][row]
        given = batch["decoder_input_ids"][row][labels != -100].tolist()
        target = labels[labels != -100].tolist()
        if not target:
            continue
        assert source[-1] == target[-1] == END and given == [START, *target[:-1]]
        assert set(batch["decoder_input_ids"][row][len(target) :].tolist()) <= {PAD, END}  # read by no label
        found.append(tuple(repaired(source[:-1], target[:-1]) if objective == "spans" else target[:-1]))
    return found


OBJECTIVES = pytest.mark.parametrize("objective", ["spans", "infilling"])


@OBJECTIVES
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_every_piece_once_per_epoch_damaged_anew(array, vocabulary, objective, micro_batches):
    plan = plan_of(array, vocabulary, objective, epochs=2, micro_batches=micro_batches)
    batches = [plan[i] for i in range(len(plan))]
    half = len(plan) // 2
    sources = []
    for epoch in range(2):
        own = batches[epoch * half : (epoch + 1) * half]
        assert Counter(text for b in own for text in texts(b, objective)) == pieces_of(array, 31)
        sources.append({tuple(row.tolist()) for b in own for row in b["input_ids"]})
        assert all(max(b["input_ids"].shape[1], b["labels"].shape[1]) <= 32 for b in own)
    assert len(sources[0] & sources[1]) < 0.5 * len(sources[0])
    if micro_batches == 1:
        assert all(b["labels"].numel() <= 512 and b["input_ids"].numel() <= 512 for b in batches)


@OBJECTIVES
def test_company_seed_and_order(array, vocabulary, objective):
    whole = plan_of(array, vocabulary, objective, epochs=2)
    parts = pickle.loads(pickle.dumps(plan_of(array, vocabulary, objective, epochs=2, micro_batches=4)))

    def pairs(plan, update):
        found = Counter()
        for i in range(update * plan.micro_batches, (update + 1) * plan.micro_batches):
            batch = plan[i]
            for source, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
                kept = tuple(label for label in labels if label != -100)
                if kept:
                    found[tuple(t for t in source if t != PAD), kept] += 1
        return found

    assert parts.n_updates == whole.n_updates
    for update in reversed(range(whole.n_updates)):
        assert pairs(parts, update) == pairs(whole, update)
        assert whole.tokens_at(update) == sum(
            len(labels) * n for (_, labels), n in pairs(whole, update).items()
        )
    other = plan_of(array, vocabulary, objective, seed=1)
    assert pairs(other, 0) != pairs(whole, 0)


@OBJECTIVES
def test_evaluation_never_changes(array, vocabulary, objective):
    options = {"row_length": 32, "denoising": Denoising(objective), "tokens_per_batch": 200, "processes": 2}
    plans = [DenoisingPlan.evaluation(array, vocabulary, **options) for _ in range(2)]
    assert len(plans[0]) % 2 == 0
    batches = [plans[0][i] for i in range(len(plans[0]))]
    assert Counter(text for b in batches for text in texts(b, objective)) == pieces_of(array, 31)
    for i, batch in enumerate(batches):
        assert all(torch.equal(batch[name], plans[1][i][name]) for name in batch)


def test_sentences_are_shuffled_whole(array, vocabulary):
    denoising = Denoising("infilling", rate=0.01, permute_sentences=True)
    texts_ = NoisyTexts(array, vocabulary, denoising, row_length=64)
    numbers = np.arange(len(texts_))
    moved = 0
    for i in numbers:
        begin, length = int(texts_.begins[i]), int(texts_.lengths[i])
        original = np.asarray(array.tokens[begin : begin + length])
        keys = row_keys(0, 0, np.array([i]))
        permuted = texts_._permuted(original[None].astype(np.int64), np.array([i]), keys)[0]
        inner = [int(p) - begin for p in texts_._starts if begin < p < begin + length]
        sentences = [tuple(s.tolist()) for s in np.split(original, inner)]
        rest, place = Counter(sentences), 0
        while place < length:  # the row is its sentences, each once
            sentence = next(
                s
                for s in sorted(rest, key=len, reverse=True)
                if rest[s] and tuple(permuted[place : place + len(s)]) == s
            )
            rest[sentence] -= 1
            place += len(sentence)
        assert place == length and not +rest
        moved += len(sentences) > 1 and permuted.tolist() != original.tolist()
    assert moved > 0.3 * len(numbers)
    batch = texts_.batch(numbers)
    assert Counter(texts(batch, "infilling")) == pieces_of(array, 63)  # the target keeps the order
    assert not torch.equal(batch["input_ids"], NoisyTexts(
        array, vocabulary, Denoising("infilling", rate=0.01), row_length=64
    ).batch(numbers)["input_ids"])  # fmt: skip


def test_a_tokenizer_with_sentinels_and_mask():
    from hfseq.data import train_tokenizer

    tokenizer = train_tokenizer(["a b c. d e f."], "bpe", 300, translation=True, sentinels=8, mask=True)
    vocabulary = DenoisingVocabulary.from_tokenizer(tokenizer)
    assert tokenizer.convert_ids_to_tokens(vocabulary.sentinels.tolist()) == [
        f"<extra_id_{i}>" for i in range(8)
    ]
    assert vocabulary.mask_id == tokenizer.mask_token_id and vocabulary.start_id == tokenizer.bos_token_id
    assert vocabulary.end_id == tokenizer.eos_token_id and vocabulary.sentences is not None
    plain = DenoisingVocabulary.from_tokenizer(train_tokenizer(["a b c"], "bpe", 300, translation=True))
    assert not len(plain.sentinels) and plain.mask_id is None
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no eos_token"):
        DenoisingVocabulary.from_tokenizer(tokenizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "span"}, "Unknown objective 'span': choose spans or infilling"),
        ({"rate": 0.0}, "noise rate is 0.0"),
        ({"rate": 1}, "noise rate is 1"),
        ({"mean_span": 0.5}, "mean_span is 0.5"),
        ({"permute_sentences": True}, "permute_sentences belongs to the objective infilling"),
    ],
)
def test_noise_that_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Denoising(**options)


def test_tokenizers_and_texts_that_do_not_do(array, vocabulary, hand, tmp_path):
    few = DenoisingVocabulary(PAD, START, END, SENTINELS[:2])
    with pytest.raises(
        ValueError, match=r"up to 6 spans, but the tokenizer has 2 sentinels. Train it with sentinels=100"
    ):
        NoisyTexts(array, few, Denoising(), row_length=128)
    with pytest.raises(ValueError, match="Infilling needs a mask_token"):
        NoisyTexts(array, few, Denoising("infilling"), row_length=32)
    with pytest.raises(ValueError, match="end with id 3, but the tokenizer's eos_token is 9"):
        NoisyTexts(array, DenoisingVocabulary(PAD, START, 9, SENTINELS), Denoising(), row_length=32)
    with pytest.raises(ValueError, match="row_length 2 has no room"):
        NoisyTexts(array, vocabulary, Denoising(), row_length=2)
    with pytest.raises(ValueError, match="no document has two tokens"):
        NoisyTexts(hand[1]([[7], []], SIZE, tmp_path), vocabulary, Denoising(), row_length=32)
