"""Rows for any causal model: each target once, none across the border of packed documents."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers

from hfseq.data import RowPlan

SIZE, END = 400, 3


@pytest.fixture(scope="module")
def array(hand, tmp_path_factory):
    """Documents of 0 to 80 tokens, no token of which comes twice in the text but its end."""
    lengths = np.random.default_rng(0).integers(0, 81, 40)
    ids = iter(range(7, 10_000))
    return hand[1]([[next(ids) for _ in range(n)] for n in lengths], 10_000, tmp_path_factory.mktemp("rows"))


def plan_of(array, packing="blocks", **options) -> RowPlan:
    return RowPlan(array, **{"row_length": 32, "tokens_per_update": 32 * 8, "packing": packing, **options})


def targets(batch: dict) -> list[tuple[int, int]]:
    """(input, target) as a model of transformers reads them, which shifts by itself."""
    found = []
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        assert labels[0] == -100  # so that labels and labels[1:] count the same
        found += [(ids[place], label) for place, label in enumerate(labels[1:]) if label != -100]
    return found


PACKINGS = pytest.mark.parametrize("packing", ["blocks", "documents"])


@PACKINGS
@pytest.mark.parametrize("row_length", [2, 5, 32, 400])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_every_target_exactly_once(array, packing, row_length, micro_batches):
    plan = plan_of(
        array, packing, row_length=row_length, tokens_per_update=8 * row_length, micro_batches=micro_batches
    )
    expected = Counter(pairwise(array.tokens.tolist()))
    assert sum((Counter(targets(plan[i])) for i in range(len(plan))), Counter()) == expected
    assert plan.n_targets == len(array) - 1 == expected.total()
    evaluation = RowPlan.evaluation(
        array, row_length=row_length, tokens_per_batch=5 * row_length, processes=3, packing=packing
    )
    assert sum((Counter(targets(evaluation[i])) for i in range(len(evaluation))), Counter()) == expected
    assert len(evaluation) % 3 == 0 and evaluation[0]["input_ids"].numel() <= 5 * row_length
    sizes = [int((evaluation[i]["labels"] != -100).any(1).sum()) for i in range(len(evaluation))]
    assert max(sizes) - min(sizes) <= 1


@PACKINGS
def test_every_epoch_has_all_rows_in_another_order(array, packing):
    plan = plan_of(array, packing, epochs=3, seed=1)
    rows = [tuple(row) for i in range(len(plan)) for row in plan[i]["input_ids"].tolist()]
    n = plan.rows_per_epoch
    epochs = [rows[e * n : (e + 1) * n] for e in range(3)]
    assert Counter(epochs[0]) == Counter(epochs[1]) == Counter(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    filling = rows[3 * n :]
    assert len(rows) == 8 * plan.n_updates and len(filling) < 8 and set(filling) <= {(END,) * 32}
    assert (plan[len(plan) - 1]["labels"][8 - len(filling) :] == -100).all()
    assert plan_of(array, packing, epochs=3, seed=2)[0]["input_ids"].tolist() != plan[0]["input_ids"].tolist()


def test_blocks_are_full_and_need_nothing_else(array):
    plan = plan_of(array)
    assert set(plan[0]) == {"input_ids", "labels"} and plan.fullness > 0.97 and plan.longest_row == 32
    # In order they are the text, each row beginning with the last token of the one before.
    evaluation = RowPlan.evaluation(array, row_length=32, tokens_per_batch=10**6)
    rows = evaluation[0]["input_ids"]
    assert rows[:, 1:].flatten().tolist()[: len(array) - 1] == array.tokens[1:].tolist()
    assert torch.equal(rows[1:, 0], rows[:-1, -1])


def test_documents_are_whole_and_kept_apart(array):
    plan = plan_of(array, "documents", row_length=96, tokens_per_update=96 * 4, epochs=2, micro_batches=2)
    found, shapes = Counter(), set()
    for i in range(len(plan)):
        batch = plan[i]
        shapes.add(tuple((k, tuple(v.shape)) for k, v in batch.items() if torch.is_tensor(v)))
        ids, labels, positions = (
            batch[k].flatten().tolist() for k in ("input_ids", "labels", "position_ids")
        )
        borders = batch["cu_seq_lens_q"].tolist()
        assert batch["cu_seq_lens_q"].dtype == torch.int32 and batch["max_length_q"] == 96
        assert torch.equal(batch["cu_seq_lens_q"], batch["cu_seq_lens_k"])
        assert borders[0] == 0 and borders[-1] == len(ids)
        for a, b in pairwise(borders):
            assert positions[a:b] == list(range(b - a)) and a // 96 == max(a, b - 1) // 96
            if any(label != -100 for label in labels[a:b]):
                assert labels[a:b] == [-100, *ids[a + 1 : b]] and ids[a] == ids[b - 1] == END
                found[tuple(ids[a + 1 : b - 1])] += 1
            else:
                assert set(ids[a:b]) <= {END}
    assert found == Counter(
        {tuple(array.document(d).tolist()): 0 for d in range(array.n_documents)}
    ) + Counter(tuple(array.document(d).tolist()) for d in range(array.n_documents) for _ in range(2))
    assert len(shapes) == 1 and plan.fullness > 0.9


def test_a_llama_reads_rows_as_it_reads_the_text(array):
    """The loss of packed documents is that of each alone (in float32, as transformers computes it)."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=10_000, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=96, attn_implementation="sdpa",
        initializer_range=0.5,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).double().eval()
    plan = plan_of(array, "documents", row_length=96, tokens_per_update=96 * 100)
    with torch.inference_mode():
        packed = model(**plan[0], num_items_in_batch=1, use_cache=False).loss.item()
        alone = 0.0
        for d in range(array.n_documents):
            ids = torch.tensor([[END, *array.document(d).tolist(), END]])
            alone += model(input_ids=ids, labels=ids, num_items_in_batch=1).loss.item()
    assert packed == pytest.approx(alone, rel=1e-6)


def test_sizes_that_do_not_fit_are_named(array, hand, tmp_path):
    for options, message in (
        ({"row_length": 1}, "row_length must be at least 2, not 1: a token and the next one"),
        ({"row_length": [[1, 32]]}, r"row_length must be at least 2, not \[\[1, 32\]\]"),
        ({"packing": "sentences"}, "Unknown packing 'sentences' of rows: choose blocks or documents"),
        ({"tokens_per_update": 100}, "100 is not a multiple of row_length 32 x 1 .* Set it to 96"),
        ({"micro_batches": 3}, "256 is not a multiple of row_length 32 x 3 .* Set it to 288"),
    ):
        with pytest.raises(ValueError, match=message):
            plan_of(array, **options)
    with pytest.raises(ValueError, match="tokens_per_batch 31 has no room for a row of 32"):
        RowPlan.evaluation(array, row_length=32, tokens_per_batch=31)
    with pytest.raises(ValueError, match="has 1 tokens: nothing to predict"):
        plan_of(hand[1]([], SIZE, tmp_path))
