"""The tasks are what they say, and a model that remembers everything has no error."""

from types import SimpleNamespace

import torch
from torch import nn

from hfseq.models.losses import IGNORE_INDEX
from hfseq.report.experiments.recall_tasks import SYMBOLS, WORD, accuracy, copy_batch, drawn, recall_batch


class Oracle(nn.Module):
    """Solves both tasks by looking."""

    def __init__(self, solve):
        super().__init__()
        self.unused, self.solve = nn.Parameter(torch.zeros(1)), solve

    def forward(self, input_ids):
        return SimpleNamespace(logits=nn.functional.one_hot(self.solve(input_ids), 64).float())


def copy(ids):
    out = torch.zeros_like(ids)
    out[:, -WORD - 1 : -1] = ids[:, :WORD]
    return out


def recall(ids):
    out, half = torch.zeros_like(ids), ids.shape[1] // 2
    for row in range(len(ids)):
        known = dict(zip(ids[row, 0:half:2].tolist(), ids[row, 1:half:2].tolist(), strict=True))
        for t in range(half, ids.shape[1], 2):
            out[row, t] = known[int(ids[row, t])]
    return out


def test_copying_can_be_solved_and_not_be_guessed():
    batch = copy_batch(64, 9, drawn(0, 1))
    assert batch.input_ids.shape == (64, 2 * WORD + 9 + 1)
    assert accuracy(Oracle(copy), [batch]) == 1
    assert accuracy(Oracle(torch.zeros_like), [batch]) < 2 / SYMBOLS
    assert (batch.labels != IGNORE_INDEX).sum() == 64 * WORD


def test_recall_can_be_solved():
    batch = recall_batch(32, 5, drawn(0, 1), keys=10)
    assert batch.input_ids.shape == (32, 20)
    assert accuracy(Oracle(recall), [batch]) == 1


def test_rows_are_a_function_of_seed_and_number():
    assert torch.equal(copy_batch(4, 3, drawn(1, 7)).input_ids, copy_batch(4, 3, drawn(1, 7)).input_ids)
    assert not torch.equal(copy_batch(4, 3, drawn(1, 7)).input_ids, copy_batch(4, 3, drawn(2, 7)).input_ids)
