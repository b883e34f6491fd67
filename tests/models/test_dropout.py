"""Sixteen-bit dropout against what dropout means."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hfseq.models.dropout import dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("shape", [(7,), (513, 401)])
def test_elements_are_dropped_or_scaled_and_gradients_follow(p, shape):
    torch.manual_seed(0)
    x = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    y = dropout(x, p, True)
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - p)), rtol=1e-4, atol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_the_share_and_the_mean_are_right_in_every_lane(p):
    torch.manual_seed(1)
    n = 400_000
    y = dropout(torch.ones(n, dtype=torch.float64), p, True).view(-1, 4)
    share = (y == 0).double().mean(0)  # of each of the four numbers of one draw
    spread = (p * (1 - p) / (n / 4)) ** 0.5
    assert ((share - p).abs() < 5 * spread).all()
    assert abs(y.mean().item() - 1) < 5 * (p / (1 - p) / n) ** 0.5
    # Neighbours are independent: a pair is dropped with probability p squared.
    both = ((y[:, 0] == 0) & (y[:, 1] == 0)).double().mean().item()
    assert abs(both - p * p) < 5 * (p * p * (1 - p * p) / (n / 4)) ** 0.5


def test_it_follows_the_seed_and_moves_on():
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5, True), dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5, True))
    assert not torch.equal(first, second)


def test_nothing_happens_in_evaluation_or_without_a_rate():
    x = torch.ones(10)
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x


def test_a_compiled_model_has_torchs_dropout(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.manual_seed(0)
    ours = dropout(torch.ones(100), 0.5, True)
    torch.manual_seed(0)
    assert torch.equal(ours, F.dropout(torch.ones(100), 0.5))
