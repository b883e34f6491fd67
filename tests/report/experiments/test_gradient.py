"""The gradient's norm by distance, of models for which it is known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hfseq.report.experiments.gradient import gradient_norms


class Fading(nn.Module):
    """The last logits are a sum of all vectors, each worth half of the next."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 6)

    def get_input_embeddings(self):
        return self.table

    def forward(self, inputs_embeds, use_cache):
        time = inputs_embeds.shape[1]
        weights = 0.5 ** torch.arange(time - 1, -1, -1.0)
        logits = (inputs_embeds * weights[None, :, None]).sum(1, keepdim=True) @ torch.randn(
            6, 10, generator=torch.Generator().manual_seed(0)
        )
        return SimpleNamespace(logits=logits.expand(-1, time, -1))


def test_it_halves_with_every_step():
    norms = gradient_norms(Fading(), 10, 12, seed=0)
    assert list(norms) == ["1", "2", "4", "8"]
    assert [norms[d] for d in norms] == pytest.approx([1, 0.5, 0.125, 2**-7], rel=1e-4)
