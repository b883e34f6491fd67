"""Autocast on a CPU: recurrent kernels follow it where the CPU multiplies bfloat16, and stay in float32 where not."""

import pytest
import torch

from hfseq import GRUConfig, LSTMConfig, RNNConfig
from hfseq.models import processors
from hfseq.models.modeling_recurrent import RecurrentBlock

CONFIGS = {"LSTM": LSTMConfig, "GRU": GRUConfig, "RNN": RNNConfig}
TIME, ROWS, WIDTH, HIDDEN = 12, 5, 8, 16
LENGTHS = torch.tensor([12, 3, 7, 12, 1])


def block_of(name: str) -> RecurrentBlock:
    torch.manual_seed(0)
    return RecurrentBlock(CONFIGS[name](), WIDTH, HIDDEN, 2)


def run(
    block: RecurrentBlock, lengths: torch.Tensor | None, enabled: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and the gradient of the first recurrent matrix."""
    block.zero_grad()
    x = torch.randn(TIME, ROWS, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        output, *_ = block(x, lengths=lengths)
    output.float().square().sum().backward()
    return output, block.rnn.weight_hh_l0.grad.clone()


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["padded", "packed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_without_the_units_nothing_changes(name, lengths, monkeypatch):
    monkeypatch.setattr(processors, "CPU_MULTIPLIES_BFLOAT16", False)
    block = block_of(name)
    expected, found = run(block, lengths, False), run(block, lengths, True)
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.skipif(not processors.CPU_MULTIPLIES_BFLOAT16, reason="this CPU has no units for bfloat16")
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["padded", "packed"])
@pytest.mark.parametrize("name", CONFIGS)
def test_with_the_units_products_are_of_bfloat16_and_nearly_the_same(name, lengths):
    block = block_of(name)
    (expected, gradient), (output, found) = run(block, lengths, False), run(block, lengths, True)
    assert 0 < (output.float() - expected).abs().max() < 0.02
    assert torch.cosine_similarity(gradient.flatten(), found.flatten(), dim=0) > 0.999


def test_float16_has_no_units(monkeypatch):
    monkeypatch.setattr(processors, "CPU_MULTIPLIES_BFLOAT16", True)
    with torch.autocast("cpu", torch.float16):
        assert not processors.autocast_pays("cpu")
    with torch.autocast("cpu", torch.bfloat16):
        assert processors.autocast_pays("cpu")
    assert processors.autocast_pays("cuda")


@pytest.mark.parametrize(
    ("capabilities", "emulates", "multiplies"),
    [
        ({"architecture": "x86_64", "amx_bf16": True, "avx512_bf16": True}, False, True),
        ({"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": True}, False, False),
        ({"architecture": "x86_64", "amx_bf16": False, "avx512_bf16": False}, True, False),
        ({"architecture": "arm64"}, False, False),
        ({}, False, False),
    ],
)
def test_capabilities(capabilities, emulates, multiplies, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert processors.multiplies_bfloat16() == multiplies
    assert processors.emulates_bfloat16() == emulates
