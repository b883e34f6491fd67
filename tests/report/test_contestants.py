"""Equal means equal: parameters beside the embeddings are near the number that was asked for."""

import pytest
import torch

from hfseq.report.contestants import CAUSAL, equal_model, inner_parameters, width_for


@pytest.mark.parametrize("contestant", CAUSAL, ids=lambda c: c.label)
def test_sizes_are_about_equal(contestant):
    width = width_for(contestant, 16_000, 32, 2, 64)
    assert width % 8 == 0
    assert inner_parameters(contestant, width, 32, 2, 64) == pytest.approx(16_000, rel=0.35)


@pytest.mark.parametrize("contestant", CAUSAL, ids=lambda c: c.label)
def test_nothing_is_dropped_and_a_seed_says_all(contestant):
    def logits():
        torch.manual_seed(3)
        model = equal_model(contestant, 2_000, 16, layers=1, longest=8).train()
        return model(input_ids=torch.arange(8)[None]).logits

    assert torch.equal(logits(), logits())


@pytest.mark.parametrize("contestant", CAUSAL, ids=lambda c: c.label)
def test_every_width_that_may_be_chosen_can_be_built(contestant):
    for width in (8, 24, 56, 64):
        contestant.build(16, width, layers=1, longest=8)


def test_colours_lines_and_markers_all_differ():
    for values in zip(*((c.style.colour, c.style.marker, str(c.style.line)) for c in CAUSAL), strict=True):
        assert len(set(values)) == len(CAUSAL)
