"""A run over pairs: every pair once per epoch, the same updates however they are dealt out, budgets kept."""

from __future__ import annotations

import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hfseq.data import PairArray, PairFilter, PairPlan, WholeBatchCollator, pack_pairs

PAD, START, END = 0, 2, 3
PAIRS, BUDGET, ROW = 300, 256, 64


@pytest.fixture(scope="module")
def pairs(hand, tmp_path_factory):
    """Random texts of 1 to 40 tokens; the first token of both texts of a pair is its number + 10."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("plan")
    sources = generator.integers(1, 41, PAIRS)
    targets = np.clip(sources + generator.integers(-4, 5, PAIRS), 1, 40)
    sides = [
        hand[1](
            [[i + 10, *generator.integers(10, 400, n - 1)] for i, n in enumerate(lengths)], 400, folder / name
        )
        for name, lengths in (("source", sources), ("target", targets))
    ]
    return PairArray(*sides, START, PAD)


def plan_of(pairs, packing="batches", **options) -> PairPlan:
    sizes = {
        "tokens_per_update": BUDGET,
        "packing": packing,
        "row_length": ROW if packing == "packed" else None,
    }
    return PairPlan(pairs, **{**sizes, **options})


def texts(batch: dict) -> list[tuple[tuple, tuple, tuple]]:
    """(source, what the decoder reads, labels) of every pair in a batch that has labels, padding aside."""
    found = []
    if "cu_seq_lens" in batch:
        borders = [batch[name].tolist() for name in ("cu_seq_lens", "decoder_cu_seq_lens")]
        flat = [batch[name].flatten().tolist() for name in ("input_ids", "decoder_input_ids", "labels")]
        for s, s_end, t, t_end in zip(borders[0], borders[0][1:], borders[1], borders[1][1:], strict=False):
            if -100 not in flat[2][t:t_end] and t_end > t:
                found.append((tuple(flat[0][s:s_end]), tuple(flat[1][t:t_end]), tuple(flat[2][t:t_end])))
        return found
    masks = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).bool()
    for source, mask, given, labels in zip(
        batch["input_ids"], masks, batch["decoder_input_ids"], batch["labels"], strict=True
    ):
        counted = labels != -100
        if counted.any():
            found.append(
                (
                    tuple(source[mask].tolist()),
                    tuple(given[counted].tolist()),
                    tuple(labels[counted].tolist()),
                )
            )
    return found


def all_texts(pairs: PairArray, numbers=range(PAIRS)) -> Counter:
    found = Counter()
    for i in numbers:
        source, target = pairs.source.document(i).tolist(), pairs.target.document(i).tolist()
        found[(*source, END), (START, *target), (*target, END)] += 1
    return found


def update_of(plan: PairPlan, update: int) -> Counter:
    first = update * plan.micro_batches
    return Counter(text for part in range(plan.micro_batches) for text in texts(plan[first + part]))


PACKINGS = pytest.mark.parametrize("packing", ["batches", "packed"])


@PACKINGS
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_every_pair_once_per_epoch_and_right_to_the_token(pairs, packing, micro_batches):
    plan = plan_of(pairs, packing, epochs=3, micro_batches=micro_batches)
    assert len(plan) == plan.n_updates * micro_batches and plan.n_updates == 3 * plan.updates_per_epoch
    updates = [update_of(plan, update) for update in range(plan.n_updates)]
    for epoch in range(3):
        of_epoch = updates[epoch * plan.updates_per_epoch : (epoch + 1) * plan.updates_per_epoch]
        assert sum(of_epoch, Counter()) == all_texts(pairs)
    together = [frozenset(update) for update in updates]
    assert len(set(together)) > 0.7 * len(
        together
    )  # other neighbours, but for lengths that only a few pairs have
    assert plan.epoch_at(plan.updates_per_epoch) == 1 and plan.epoch_at(10**9) == 3


@PACKINGS
def test_the_number_of_micro_batches_changes_nothing(pairs, packing):
    """4 steps of accumulation, 4 processes or 2 x 2: what an update consists of depends on their product alone, and
    not even on that."""
    whole = plan_of(pairs, packing, epochs=2, seed=3)
    for micro_batches in (2, 4):
        parts = plan_of(pairs, packing, epochs=2, seed=3, micro_batches=micro_batches)
        assert parts.n_updates == whole.n_updates
        for update in range(whole.n_updates):
            assert update_of(parts, update) == update_of(whole, update)
            assert (
                parts.tokens_at(update)
                == whole.tokens_at(update)
                == sum(len(labels) * n for (_, _, labels), n in update_of(whole, update).items())
            )


@PACKINGS
def test_two_processes_with_two_steps_read_the_same_updates(pairs, packing):
    """As Trainer deals items out: process p gets every second one, and makes an update of two."""
    plan = plan_of(pairs, packing, micro_batches=4)
    for update in range(0, plan.n_updates, 5):
        of_process = [[4 * update + 2 * step + process for step in (0, 1)] for process in (0, 1)]
        dealt = Counter(text for items in of_process for i in items for text in texts(plan[i]))
        assert dealt == update_of(plan_of(pairs, packing), update)


@PACKINGS
def test_items_are_a_function_of_seed_and_index(pairs, packing):
    options = {"epochs": 2, "micro_batches": 2}
    plan = plan_of(pairs, packing, **options)
    again = pickle.loads(pickle.dumps(plan))
    alone = {i: plan_of(pairs, packing, **options)[i] for i in (0, len(plan) // 2 + 1, len(plan) - 1)}
    backwards = {i: again[i] for i in reversed(range(len(again)))}
    loader = DataLoader(
        plan, batch_size=1, num_workers=2 * (packing == "packed"), collate_fn=WholeBatchCollator()
    )
    for i, batch in enumerate(loader):
        for other in (plan[i], backwards[i], *([alone[i]] if i in alone else [])):
            assert batch.keys() == other.keys()
            assert all(torch.equal(torch.as_tensor(batch[k]), torch.as_tensor(other[k])) for k in batch)
    seeded = plan_of(pairs, packing, seed=1, **options)
    assert update_of(seeded, 0) != update_of(plan, 0)
    with pytest.raises(IndexError, match="outside this plan"):
        plan[len(plan)]


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_budgets_are_kept_and_filled(pairs, micro_batches):
    plan = plan_of(pairs, micro_batches=micro_batches)
    sizes = []
    for update in range(plan.n_updates):
        parts = [plan[update * micro_batches + part] for part in range(micro_batches)]
        longest = max(max(p["input_ids"].shape[1], p["labels"].shape[1]) for p in parts)
        rows = sum(len(p["labels"]) for p in parts if (p["labels"] != -100).any())
        sizes.append(rows * longest)
    assert max(sizes) <= BUDGET and np.mean(sizes) > 0.75 * BUDGET
    assert 0.8 < plan.fullness <= 1


@pytest.mark.parametrize("budget", [2_000, 10**9])
def test_budgets_of_cells_are_kept(pairs, budget):
    """Grids of source x target, in every epoch, beside the tokens'; a budget that is never full changes nothing."""
    plan = plan_of(pairs, cells_per_update=budget, epochs=2)
    found = Counter()
    for update in range(plan.n_updates):
        batch = plan[update]
        rows, time = batch["labels"].shape
        assert rows * time * batch["input_ids"].shape[1] <= budget
        assert rows * max(time, batch["input_ids"].shape[1]) <= BUDGET
        if update < plan.updates_per_epoch:
            found += update_of(plan, update)
    assert found == all_texts(pairs)
    free = plan_of(pairs, epochs=2)
    assert (plan.n_updates > free.n_updates) == (budget == 2_000)
    if budget == 10**9:
        assert all(update_of(plan, u) == update_of(free, u) for u in range(free.n_updates))
    for batch in PairPlan.evaluation(pairs, cells_per_batch=budget, processes=1):
        assert len(batch["labels"]) * batch["labels"].shape[1] * batch["input_ids"].shape[1] <= budget


def test_too_few_pairs_for_all_parts_are_filled_up_without_labels(pairs):
    plan = plan_of(pairs, tokens_per_update=44, micro_batches=4)
    assert sum((update_of(plan, u) for u in range(plan.n_updates)), Counter()) == all_texts(pairs)
    idle = [plan[i] for i in range(len(plan)) if not (plan[i]["labels"] != -100).any()]
    assert idle and all(len(batch["input_ids"]) == 1 for batch in idle)


def test_parts_of_an_epoch(pairs):
    plan = plan_of(pairs, epochs=1.5)
    assert plan.n_updates == -(-3 * plan.updates_per_epoch // 2)
    seen = sum((update_of(plan, u) for u in range(plan.n_updates)), Counter())
    assert set(seen) == set(all_texts(pairs)) and max(seen.values()) == 2


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_evaluation_has_all_pairs_once_in_a_multiple_of_processes(pairs, processes):
    plan = PairPlan.evaluation(pairs, tokens_per_batch=200, processes=processes)
    assert len(plan) % processes == 0
    assert sum((Counter(texts(plan[i])) for i in range(len(plan))), Counter()) == all_texts(pairs)
    again = PairPlan.evaluation(pairs, tokens_per_batch=200, processes=processes)
    assert all(torch.equal(plan[i]["labels"], again[i]["labels"]) for i in range(len(plan)))


@PACKINGS
def test_filtered_pairs(pairs, packing):
    few = PairFilter(max_source_length=20, max_length_ratio=1.2).apply(pairs)
    assert 0 < len(few) < 0.8 * PAIRS
    plan = plan_of(few, packing)
    seen = sum((update_of(plan, u) for u in range(plan.n_updates)), Counter())
    assert seen == all_texts(pairs, few.chosen.tolist())


# ---- packed rows


def test_packed_batches_have_one_shape_and_borders_that_agree(pairs):
    plan = plan_of(pairs, "packed", epochs=2, micro_batches=2)
    shapes = set()
    for i in range(len(plan)):
        batch = plan[i]
        assert "attention_mask" not in batch and batch["max_length"] == batch["decoder_max_length"] == ROW
        shapes.add(tuple(tuple(v.shape) for v in batch.values() if torch.is_tensor(v)))
        padding = batch["labels"].flatten() == -100
        for side, ids in (("", "input_ids"), ("decoder_", "decoder_input_ids")):
            borders, positions = batch[f"{side}cu_seq_lens"], batch[f"{side}position_ids"]
            assert borders.dtype == torch.int32 and borders[0] == 0 and borders[-1] == positions.numel()
            sizes = borders.diff()
            assert (sizes >= 0).all() and {0, ROW} <= {*(borders % ROW).tolist(), ROW}
            assert set(range(0, positions.numel() + 1, ROW)) <= set(borders.tolist())  # none crosses a row
            counted = torch.cat([torch.arange(n) for n in sizes.tolist()])
            assert torch.equal(positions.flatten(), counted)
            starts = borders[:-1][sizes > 0].long()
            assert (batch[ids].flatten()[starts] != PAD).sum() >= len(starts) - BUDGET // ROW
        assert (batch["decoder_input_ids"].flatten()[padding] == PAD).all()
    assert len(shapes) == 1 and len(next(iter(shapes))) == 7


def test_rows_are_nearly_full(pairs):
    rows = pack_pairs(pairs, ROW)
    assert sorted(rows.order.tolist()) == list(range(PAIRS))
    for row in range(len(rows)):
        numbers = rows.pairs_in(np.array([row]))
        assert pairs.source_lengths[numbers].sum() <= ROW and pairs.target_lengths[numbers].sum() <= ROW
    least = max(pairs.source_lengths.sum(), pairs.target_lengths.sum()) / ROW
    assert len(rows) <= 1.1 * least + 1 and rows.fullness > 0.9
    assert plan_of(pairs, "packed").fullness == rows.fullness


def test_a_model_sees_packed_pairs_as_it_sees_them_alone(pairs):
    """Loss and gradients of an update are the same to rounding, and padding leaves no trace."""
    from hfseq.models.configuration_transformer import TransformerConfig
    from hfseq.models.modeling_transformer import TransformerForSeq2SeqLM

    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=448, d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, dropout=0.0, max_position_embeddings=ROW,
        pad_token_id=PAD, bos_token_id=START, eos_token_id=END, decoder_start_token_id=START,
    )  # fmt: skip
    model = TransformerForSeq2SeqLM(config).double().train()
    plan = plan_of(pairs, "packed")
    for update in (0, plan.n_updates - 1):  # the last is filled up
        model.zero_grad()
        loss = model(**plan[update], num_items_in_batch=1).loss
        loss.backward()
        packed = {name: p.grad.clone() for name, p in model.named_parameters()}
        model.zero_grad()
        alone = 0.0
        for number in plan._rows.pairs_in(plan._phases[0].cut.rows(update)[1]):
            one = model(**pairs.batch(np.array([number])), num_items_in_batch=1).loss
            one.backward()
            alone += one.item()
        assert loss.item() == pytest.approx(alone, rel=1e-9)
        for name, p in model.named_parameters():
            assert torch.allclose(packed[name], p.grad, rtol=1e-7, atol=1e-9), name


# ---- what does not fit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"micro_batches": 0}, "micro_batches must be at least 1"),
        ({"epochs": 0}, "epochs must be above 0"),
        ({"packing": "rows"}, "Unknown packing 'rows' of pairs: choose batches or packed"),
        ({"tokens_per_update": 30}, r"Pair \d+ has 4\d source .* Raise tokens_per_update"),
        (
            {"cells_per_update": 300},
            r"Pair \d+ has \d+ source and \d+ target tokens: a grid of 1\d+ cells .* Raise cells_per_update",
        ),
        ({"packing": "packed", "cells_per_update": 300}, "leave cells_per_update 300 out"),
        ({"packing": "packed", "row_length": None}, "Packed pairs need a row_length"),
        ({"packing": "packed", "row_length": [[1.0, 64]]}, "one number of positions"),
        (
            {"packing": "packed", "tokens_per_update": 100},
            "100 is not a multiple of row_length 64 x 1 .* Set it to 128",
        ),
        ({"packing": "packed", "micro_batches": 3}, "not a multiple of row_length 64 x 3 .* Set it to 192"),
        ({"packing": "packed", "row_length": 32}, r"Pair \d+ .* pairs that do not fit into a row of 32"),
    ],
)
def test_sizes_that_do_not_fit_are_named(pairs, options, message):
    with pytest.raises(ValueError, match=message):
        plan_of(pairs, **{"packing": "batches", "row_length": ROW, **options})
