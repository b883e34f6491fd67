"""peft's LoRA on every linear layer of every family, the output layer included; and on the recurrent embedding."""

from __future__ import annotations

import pytest
import torch

from hfseq.contracts import CASES

peft = pytest.importorskip("peft", reason="pip install peft")

NAMES = (
    "LSTMForCausalLM-untied", "LSTMForSequenceClassification-both-ways", "GRUForSeq2SeqLM-first",
    "EncoderForMaskedLM-bert-untied", "TransformerForSeq2SeqLM-modern",
)  # fmt: skip


@pytest.fixture(params=NAMES)
def case(request):
    return next(case for case in CASES if case.name == request.param)


@pytest.mark.filterwarnings("ignore")
def test_every_adapter_is_trained_and_merges(case, tmp_path):
    model = case.model()
    batch = case.batch(case.rows(model.config, [6, 3, 5]), model.config)
    linear = sorted({name.split(".")[-1] for name, m in model.named_modules() if type(m) is torch.nn.Linear})
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=linear)).double()
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for _ in range(4):
        loss = wrapped.train()(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        missing = [n for n, p in wrapped.named_parameters() if "lora_B" in n and p.grad is None]
        assert not missing
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    expected = case.outputs(wrapped.eval(), batch)
    wrapped.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(case.model(), tmp_path).double().eval()
    merged = wrapped.merge_and_unload()
    for name, value in expected.items():
        assert torch.allclose(case.outputs(again, batch)[name], value, atol=1e-9)
        assert torch.allclose(case.outputs(merged, batch)[name], value, atol=1e-9)
