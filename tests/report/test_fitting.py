"""The loop ends where it should, looks as often as it should, and refuses a loss that is none."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hfseq.report.fitting import fit


class Line(nn.Module):
    """y = w x, with a loss."""

    def __init__(self):
        super().__init__()
        self.w = nn.Linear(1, 1, bias=False)

    def forward(self, x, labels):
        return SimpleNamespace(loss=((self.w(x) - labels) ** 2).mean())


def batches():
    x = torch.randn(16, 1)
    return itertools.repeat({"x": x, "labels": 2 * x})


def test_it_learns_and_looks():
    torch.manual_seed(0)
    model = Line()
    done = fit(
        model, batches(), learning_rate=0.05, updates=200, looks=4, look=lambda: {"w": float(model.w.weight)}
    )
    assert done.updates == 200 and done.tokens == 200 * 16
    assert [point["updates"] for point in done.curve] == [50, 100, 150, 200]
    assert done.curve[-1]["w"] == pytest.approx(2, abs=0.05)
    assert done.curve[-1]["seconds"] <= done.seconds and not model.training


def test_it_ends_with_the_time():
    assert fit(Line(), batches(), learning_rate=0.01, seconds=0.02).updates > 1
    with pytest.raises(ValueError, match="updates or seconds"):
        fit(Line(), batches(), learning_rate=0.01)


def test_a_loss_that_is_no_number_stops_it():
    bad = [{"x": torch.full((2, 1), float("nan")), "labels": torch.zeros(2, 1)}] * 3
    with pytest.raises(FloatingPointError, match="lower learning rate"):
        fit(Line(), bad, learning_rate=0.1, updates=3)
