"""torchao's int8 weights: nearly the same numbers, in the loss and in `generate`."""

from __future__ import annotations

import copy

import pytest
import torch

from hfseq.contracts.comparing import FLOAT32

quantization = pytest.importorskip("torchao.quantization", reason="pip install torchao")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]


def test_int8(case):
    model = case.model(FLOAT32)
    small = copy.deepcopy(model)
    quantization.quantize_(small, quantization.Int8WeightOnlyConfig())
    linear = [m for m in small.modules() if isinstance(m, torch.nn.Linear)]
    assert linear and any(type(m.weight) is not torch.nn.Parameter for m in linear)
    batch = case.batch(case.rows(model.config, [6, 3, 5]), model.config)
    got, expected = (case.outputs(m, batch)["logits"] for m in (small, model))
    assert 0 < (got - expected).abs().max() < 0.05 * expected.abs().max()
    if case.kind.generates:
        ids = batch["input_ids"][:1]
        tokens = small.generate(ids, max_new_tokens=4, do_sample=False, num_beams=2)
        assert tokens.shape[0] == 1 and tokens.max() < model.config.vocab_size
