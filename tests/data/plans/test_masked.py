"""A masked-language run: every row once per epoch, and nothing depends on who asks for what when."""

from __future__ import annotations

import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hfseq.data import MaskedPlan, Masking, WholeBatchCollator, make_rows

SIZE = 500
PACKINGS = ("blocks", "documents", "sentences", "nsp", "sop")


@pytest.fixture(scope="module")
def vocabulary(hand):
    return hand[0](SIZE)


@pytest.fixture(scope="module")
def array(hand, tmp_path_factory):
    generator = np.random.default_rng(0)
    documents = [generator.integers(7, SIZE, n) for n in generator.integers(0, 120, 45)]
    for document in documents:
        document[generator.random(len(document)) < 0.1] = 5
    return hand[1](documents, SIZE, tmp_path_factory.mktemp("plan"))


def plan_of(array, vocabulary, **options) -> MaskedPlan:
    return MaskedPlan(array, vocabulary, **{"row_length": 32, "tokens_per_update": 32 * 8, **options})


def text(batch: dict) -> torch.Tensor:
    """The rows before they were masked."""
    return torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"])


def update_of(plan: MaskedPlan, update: int) -> dict[str, torch.Tensor]:
    """All rows of an update, whatever its micro-batches; borders of packed texts left out."""
    parts = [plan[update * plan.micro_batches + m] for m in range(plan.micro_batches)]
    per_row = [k for k, v in parts[0].items() if torch.is_tensor(v) and not k.startswith("cu_")]
    return {k: torch.cat([part[k] for part in parts]) for k in per_row}


@pytest.mark.parametrize("packing", ["blocks", "documents", "sentences"])
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_every_row_once_per_epoch_and_no_more(array, vocabulary, packing, micro_batches):
    plan = plan_of(array, vocabulary, packing=packing, epochs=3, micro_batches=micro_batches)
    rows = make_rows(array, vocabulary, 32, packing)
    expected, _, _ = rows.gather(array.tokens, np.arange(len(rows)), vocabulary)
    expected = Counter(map(tuple, expected.tolist()))
    assert len(plan) == plan.n_updates * micro_batches and plan.n_updates == -(-3 * len(rows) // 8)
    assert plan.rows_per_epoch == len(rows) and len(rows) % 8  # updates go across the ends of epochs
    seen = torch.cat([text(plan[i]) for i in range(len(plan))]).tolist()
    labelled = torch.cat([(plan[i]["labels"] != -100).any(dim=1) for i in range(len(plan))])
    for epoch in range(3):
        assert Counter(map(tuple, seen[epoch * len(rows) : (epoch + 1) * len(rows)])) == expected
        assert labelled[epoch * len(rows) : (epoch + 1) * len(rows)].all()
    assert seen[: len(rows)] != seen[len(rows) : 2 * len(rows)]  # another order
    assert not labelled[3 * len(rows) :].any() and len(seen) - 3 * len(rows) < 8
    assert all(set(row) == {0} for row in seen[3 * len(rows) :])


@pytest.mark.parametrize("packing", PACKINGS)
def test_the_number_of_micro_batches_changes_nothing(array, vocabulary, packing):
    options = {"packing": packing, "epochs": 2, "masking": Masking(0.3, rate_end=0.1), "seed": 3}
    whole = plan_of(array, vocabulary, **options)
    for micro_batches in (2, 8):
        parts = plan_of(array, vocabulary, micro_batches=micro_batches, **options)
        assert parts.n_updates == whole.n_updates
        for update in range(whole.n_updates):
            one, other = update_of(whole, update), update_of(parts, update)
            assert all(torch.equal(one[k], other[k]) for k in one)
            assert parts.tokens_at(update) == whole.tokens_at(update)


@pytest.mark.parametrize("packing", PACKINGS)
def test_items_are_a_function_of_seed_and_index(array, vocabulary, packing):
    options = {"packing": packing, "epochs": 2, "micro_batches": 2, "masking": Masking(strategy="span")}
    plan = plan_of(array, vocabulary, **options)
    again = pickle.loads(pickle.dumps(plan))
    alone = {i: plan_of(array, vocabulary, **options)[i] for i in (0, 7, len(plan) - 1)}
    backwards = {i: again[i] for i in reversed(range(len(again)))}
    # Starting processes takes a second; one kind of rows shows it.
    workers = 2 if packing == "sentences" else 0
    loader = DataLoader(plan, batch_size=1, num_workers=workers, collate_fn=WholeBatchCollator())
    for i, batch in enumerate(loader):
        for other in (plan[i], backwards[i], *([alone[i]] if i in alone else [])):
            assert batch.keys() == other.keys()
            assert all(torch.equal(torch.as_tensor(batch[k]), torch.as_tensor(other[k])) for k in batch)
    seeded = plan_of(array, vocabulary, seed=1, **options)
    assert not torch.equal(seeded[0]["input_ids"], plan[0]["input_ids"])


def test_masks_differ_by_epoch_and_stay_with_their_row(array, vocabulary):
    """A row's mask in an epoch depends neither on the update it falls into nor on the number of epochs."""

    def masks(**options) -> list[dict[tuple, tuple]]:
        plan = plan_of(array, vocabulary, **options)
        items = [plan[i] for i in range(len(plan))]
        rows = list(
            zip(
                map(tuple, torch.cat([text(b) for b in items]).tolist()),
                map(tuple, torch.cat([b["masked_positions"] for b in items]).tolist()),
                strict=True,
            )
        )
        n = plan.rows_per_epoch
        return [dict(rows[e * n : (e + 1) * n]) for e in range(2)]

    first, second = masks(epochs=2)
    assert sum(first[row] != second[row] for row in first) > 0.9 * len(first)
    assert masks(epochs=5, tokens_per_update=32 * 20) == [first, second]


def test_shapes_are_static_and_batches_as_agreed(array, vocabulary):
    masking = Masking(0.2, rate_end=0.4)
    for packing in PACKINGS:
        plan = plan_of(array, vocabulary, packing=packing, epochs=2, micro_batches=2, masking=masking)
        shapes = set()
        for i in range(len(plan)):
            batch = plan[i]
            shapes.add(
                tuple(
                    (k, tuple(v.shape), v.dtype) if torch.is_tensor(v) else (k, v) for k, v in batch.items()
                )
            )
            positions, guessed = batch["masked_positions"], batch["labels"] != -100
            assert positions.shape == (4, 13)
            for row in range(4):
                used = positions[row][positions[row] >= 0].tolist()
                assert used == guessed[row].nonzero().flatten().tolist()
                assert (positions[row][len(used) :] == -1).all()
            assert (text(batch)[guessed] >= 5).all()
        assert len(shapes) == 1
        keys = {"input_ids", "labels", "masked_positions"}
        if packing in ("documents", "sentences"):
            keys |= {"position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
            assert batch["cu_seq_lens_q"].dtype == torch.int32 and batch["max_length_q"] == 32
        if packing in ("nsp", "sop"):
            keys |= {"attention_mask", "token_type_ids", "next_sentence_label"}
        assert set(batch) == keys
        assert all(v.dtype == torch.int64 for k, v in batch.items() if torch.is_tensor(v) and k[:2] != "cu")


@pytest.mark.parametrize("packing", ["documents", "sentences"])
def test_borders_and_positions_of_packed_rows(array, vocabulary, packing):
    plan = plan_of(array, vocabulary, packing=packing, epochs=2, micro_batches=2)
    most, paddings = 0, 0
    for i in range(len(plan)):
        batch = plan[i]
        flat, borders = text(batch).flatten().tolist(), batch["cu_seq_lens_q"].tolist()
        positions = batch["position_ids"].flatten().tolist()
        assert torch.equal(batch["cu_seq_lens_q"], batch["cu_seq_lens_k"])
        n = borders.index(len(flat))
        assert borders[0] == 0 and borders[n:] == [len(flat)] * (len(borders) - n)
        most = max(most, n)
        for a, b in pairwise(borders[: n + 1]):
            assert positions[a:b] == list(range(b - a)) and a // 32 == (b - 1) // 32
            segment = flat[a:b]
            if segment[0] == 0:
                assert set(segment) == {0}
                paddings += 1
            else:
                assert segment[0] == 2 and segment[-1] == 3 and min(segment[1:-1]) >= 5
    assert most == len(borders) - 1 and paddings  # no larger than needed


@pytest.mark.parametrize("packing", ["nsp", "sop"])
def test_pair_rows(array, vocabulary, packing):
    plan = plan_of(array, vocabulary, packing=packing, epochs=4, micro_batches=2)
    everything = " ".join(map(str, array.tokens.tolist()))
    labels, rows = Counter(), 0
    for i in range(len(plan)):
        batch = plan[i]
        for row in range(4):
            ids = text(batch)[row].tolist()
            mask, types = batch["attention_mask"][row].tolist(), batch["token_type_ids"][row].tolist()
            n, label = sum(mask), int(batch["next_sentence_label"][row])
            assert mask == [1] * n + [0] * (32 - n) and set(ids[n:]) <= {0}
            if label == -100:
                assert (
                    ids[:2] == [2, 3] and n == 2 and (batch["labels"][row] == -100).all() and not sum(types)
                )
                continue
            rows += 1
            labels[label] += 1
            middle = ids.index(3)
            assert ids[0] == 2 and ids[n - 1] == 3 and ids[:n].count(3) == 2
            assert types == [0] * (middle + 1) + [1] * (n - middle - 1) + [0] * (32 - n)
            a, b = ids[1:middle], ids[middle + 1 : n - 1]
            in_order = {0: a + b, 1: b + a if packing == "sop" else b}[label]
            assert a and b and " ".join(map(str, in_order)) in everything
    assert rows == 4 * plan.rows_per_epoch
    assert labels[1] / rows == pytest.approx(0.5, abs=0.1)


def test_curriculum_of_lengths(array, vocabulary):
    curriculum = [[0.75, 16], [0.25, 64]]
    plan = plan_of(array, vocabulary, row_length=curriculum, tokens_per_update=256, epochs=4, micro_batches=2)
    lengths = [plan[2 * u]["input_ids"].shape[1] for u in range(plan.n_updates)]
    border = lengths.index(64)
    assert set(lengths[:border]) == {16} and set(lengths[border:]) == {64}
    assert border / plan.n_updates == pytest.approx(0.75, abs=0.02) and plan.longest_row == 64
    for u in range(plan.n_updates):
        for m in range(2):
            assert plan[2 * u + m]["input_ids"].shape == (128 // lengths[u], lengths[u])
    # Each length sees its rows in turn: three times those of 16 (up to an update), once those of 64.
    short = Counter(tuple(r) for u in range(border) for r in text(update_of(plan, u)).tolist())
    rows = make_rows(array, vocabulary, 16)
    assert len(short) == len(rows) and abs(sum(short.values()) - 3 * len(rows)) <= 8
    assert set(short.values()) <= {2, 3, 4}
    long = Counter(tuple(r) for u in range(border, plan.n_updates) for r in text(update_of(plan, u)).tolist())
    rows = make_rows(array, vocabulary, 64)
    ids, _, _ = rows.gather(array.tokens, np.arange(len(rows)), vocabulary)
    padding = (0,) * 64
    assert Counter({r: n for r, n in long.items() if r != padding}) == Counter(map(tuple, ids.tolist()))
    epochs = [plan.epoch_at(u) for u in range(plan.n_updates + 1)]
    assert epochs[0] == 0 and epochs[border] == 3 and epochs[-1] == 4 and epochs == sorted(epochs)
    # A whole run of the first length begins in the same way.
    alone = plan_of(array, vocabulary, row_length=16, tokens_per_update=256, epochs=4, micro_batches=2)
    assert torch.equal(alone[5]["input_ids"], plan[5]["input_ids"])


def test_numbers_for_the_callbacks(array, vocabulary):
    plan = plan_of(array, vocabulary, packing="documents", epochs=3, micro_batches=2)
    n = plan.rows_per_epoch
    assert [plan.epoch_at(u) for u in range(plan.n_updates)] == [u * 8 / n for u in range(plan.n_updates)]
    assert plan.epoch_at(plan.n_updates) == plan.epoch_at(10**6) == plan.epochs == 3
    counted = [int((text(update_of(plan, u)) != 0).sum()) for u in range(plan.n_updates)]
    assert [plan.tokens_at(u) for u in range(plan.n_updates)] == counted
    assert plan.fullness == pytest.approx(sum(counted) / (3 * n * 32))
    labels = sum(int((plan[i]["labels"] != -100).sum()) for i in range(len(plan)))
    assert labels / 3 == pytest.approx(plan.n_targets, rel=0.001)
    for packing in PACKINGS:
        plan = plan_of(array, vocabulary, packing=packing, epochs=0.5)
        assert plan.epoch_at(plan.n_updates) == 0.5 and plan.tokens_at(0) <= 256
        assert plan.n_updates == -(-round(plan.rows_per_epoch / 2) // 8)


def test_the_rate_follows_the_run(array, vocabulary):
    plan = plan_of(array, vocabulary, epochs=4, masking=Masking(0.4, rate_end=0.1))
    share = [(plan[i]["labels"] != -100).float().mean().item() for i in range(len(plan) - 1)]
    line = np.linspace(0.4, 0.1, len(plan))[:-1]
    assert np.abs(np.array(share) - line).max() < 0.04


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("processes", [1, 3])
def test_evaluation_is_fixed_and_balanced(array, vocabulary, packing, processes):
    options = {"row_length": [[0.5, 16], [0.5, 32]], "tokens_per_batch": 32 * 8, "packing": packing}
    plan = MaskedPlan.evaluation(array, vocabulary, processes=processes, **options)
    batches = [plan[i] for i in range(len(plan))]
    assert len(plan) % processes == 0
    rows = [int((b["labels"] != -100).any(dim=1).sum()) for b in batches]
    assert sum(rows) == plan.rows_per_epoch and max(rows) - min(rows) <= 1
    assert {b["input_ids"].shape for b in batches} == {(max(rows), 32)} and max(rows) <= 8
    real = torch.cat([b["labels"] for b in batches])
    assert (real != -100).sum() / plan.rows_per_epoch == pytest.approx(0.15 * 29 * plan.fullness, rel=0.15)
    if packing == "blocks":
        in_order = torch.cat([text(b)[: rows[i], 1:] for i, b in enumerate(batches)]).flatten().tolist()
        assert in_order[: len(array) - 1] == array.tokens[1:].tolist()
        one = MaskedPlan.evaluation(array, vocabulary, **options)
        first = one[0]["labels"]
        assert torch.equal(first[:3], batches[0]["labels"][:3])  # the same masks for any number of processes
    assert plan.epoch_at(plan.n_updates) == 1


def test_pickles_without_the_tokens(array, vocabulary, hand, tmp_path):
    big = hand[1]([np.arange(7, SIZE).tolist() * 100], SIZE, tmp_path)
    plan = plan_of(big, vocabulary, row_length=512, tokens_per_update=2048)
    plan[0]
    pickled = pickle.dumps(plan)
    assert len(pickled) < 20_000 < big.tokens.nbytes
    assert isinstance(pickle.loads(pickled).array.tokens, np.memmap)


def test_global_random_state_is_left_alone(array, vocabulary):
    np.random.seed(0)
    torch.manual_seed(0)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for packing in PACKINGS:
        plan_of(array, vocabulary, packing=packing, masking=Masking(strategy="span"))[1]
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_errors(array, vocabulary, hand):
    for packing in PACKINGS:
        with pytest.raises(
            ValueError,
            match="tokens_per_update 250 is not a multiple of row_length 32 x 2 micro-batches.*Set it to 256",
        ):
            plan_of(array, vocabulary, tokens_per_update=250, micro_batches=2, packing=packing)
        with pytest.raises(ValueError, match="row_length 2 has no room"):
            plan_of(array, vocabulary, row_length=2, packing=packing)
        with pytest.raises(ValueError, match="has 500 ids, the tokenizer only 100"):
            plan_of(array, hand[0](100), packing=packing)
    with pytest.raises(ValueError, match="tokens_per_update 32 is not a multiple .* Set it to 64"):
        plan_of(array, vocabulary, tokens_per_update=32, micro_batches=2)
    for wrong, said in (
        ([[0.5, 16], [0.4, 32]], "the shares add up to 0.9, not 1"),
        ([[1, 16, 3]], r"each part must be \[share, length\]"),
        ([16, 32], r"each part must be \[share, length\]"),
        ([[0, 16], [1, 32]], "shares must be above 0 and lengths whole"),
        ([[0.5, 16], [0.5, 16]], "a length comes twice"),
        ([], "it must be a number"),
        ("128", "it must be a number"),
        (True, "it must be a number"),
    ):
        with pytest.raises(ValueError, match=f"row_length .*: {said}. Give a number, or a curriculum"):
            plan_of(array, vocabulary, row_length=wrong)
    with pytest.raises(
        ValueError, match="Unknown packing 'pairs': choose one of blocks, documents, sentences, nsp, sop"
    ):
        plan_of(array, vocabulary, packing="pairs")
    with pytest.raises(ValueError, match=r"Document \d+ .* too long ones"):
        plan_of(array, vocabulary, packing="documents", long_documents="error")
    with pytest.raises(ValueError, match="micro_batches must be at least 1, not 0"):
        plan_of(array, vocabulary, micro_batches=0)
    with pytest.raises(ValueError, match="epochs must be above 0, not 0"):
        plan_of(array, vocabulary, epochs=0)
    with pytest.raises(ValueError, match="tokens_per_batch 31 has no room for a row of 32"):
        MaskedPlan.evaluation(array, vocabulary, row_length=32, tokens_per_batch=31)
    plan = plan_of(array, vocabulary)
    for index in (-1, len(plan)):
        with pytest.raises(IndexError, match="outside this plan"):
            plan[index]
