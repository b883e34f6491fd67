"""PEFT: adapters on every linear layer, and prompts and prefixes that are learned."""

from __future__ import annotations

import pytest
import torch

from hfseq.contracts import CASES

peft = pytest.importorskip("peft", reason="pip install peft")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]

TASKS = {
    "AutoModelForCausalLM": "CAUSAL_LM", "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
    "AutoModelForSequenceClassification": "SEQ_CLS",
}  # fmt: skip


def learns(case, wrapped, batch, tmp_path, rate: float = 0.02) -> torch.nn.Module:
    """The wrapped model after four steps, on a batch that it has to get better at; what is saved is loaded again."""
    optimizer = torch.optim.SGD([p for p in wrapped.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(4):
        loss = wrapped.train()(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        assert not [n for n, p in wrapped.named_parameters() if p.requires_grad and p.grad is None]
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    wrapped.eval().save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(case.model(), tmp_path).double().eval()
    with torch.no_grad():
        got, expected = again(**batch).logits, wrapped(**batch).logits
    assert torch.allclose(got, expected, atol=1e-4)  # PEFT loads what it learned in float32
    return wrapped


def test_lora(case, tmp_path):
    model = case.model()
    batch = case.batch(case.rows(model.config, [6, 3, 5]), model.config)
    linear = sorted({name.split(".")[-1] for name, m in model.named_modules() if type(m) is torch.nn.Linear})
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=linear)).double()
    learns(case, wrapped, batch, tmp_path)
    expected = case.outputs(wrapped, batch)
    merged = wrapped.merge_and_unload()
    for name, value in expected.items():
        assert torch.allclose(case.outputs(merged, batch)[name], value, atol=1e-9)


def test_prompt_tuning(case, tmp_path):
    model = case.model()
    batch = case.batch(case.rows(model.config, [6, 3, 5]), model.config)
    batch.pop("position_ids", None)
    width = model.get_input_embeddings().embedding_dim
    for number, config in enumerate((peft.PromptTuningConfig, peft.PromptEncoderConfig)):
        options = {"encoder_hidden_size": 8} if config is peft.PromptEncoderConfig else {}
        # What PEFT cannot read off the config of a model without attention: a head count, and the embedding's width.
        options |= {"num_attention_heads": 1, "token_dim": width, "num_virtual_tokens": 3}
        wrapped = peft.get_peft_model(
            case.model(), config(task_type=TASKS[case.kind.auto_class], **options)
        ).double()
        wrapped = learns(case, wrapped, batch, tmp_path / str(number))
        if case.kind.generates:
            ids = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            tokens = wrapped.generate(**ids, max_new_tokens=3, do_sample=False)
            without = model.generate(**ids, max_new_tokens=3, do_sample=False)
            assert tokens.shape == without.shape


def test_prefix_tuning(case, tmp_path):
    model = case.model()
    batch = case.batch(case.rows(model.config, [6, 3, 5]), model.config)
    batch.pop("position_ids", None)
    config = peft.PrefixTuningConfig(
        task_type=TASKS[case.kind.auto_class], num_virtual_tokens=3, num_layers=model.config.decoder_layers
    )
    wrapped = learns(case, peft.get_peft_model(model, config).double(), batch, tmp_path)
    tokens = wrapped.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=3
    )
    assert tokens.shape[0] == 3


@pytest.mark.parametrize("name, cache", [
    ("LSTMForCausalLM-tied", "RecurrentCache"), ("LSTMForSeq2SeqLM-last", "RecurrentCache"),
    ("PervasiveForSeq2SeqLM-dense", "GridCache"),
])  # fmt: skip
def test_prefixes_are_refused_by_a_model_without_keys_and_values(name, cache):
    """At the first forward, before anything is trained, in words that name the kind of cache which it has."""
    (case,) = [case for case in CASES if case.name == name]
    model = case.model()
    sizes = {"num_layers": 2, "num_attention_heads": 1, "token_dim": 8, "num_virtual_tokens": 2}
    config = peft.PrefixTuningConfig(task_type=TASKS[case.kind.auto_class], **sizes)
    batch = case.without_labels(case.batch(case.rows(model.config, [6, 3]), model.config))
    batch.pop("position_ids", None)
    wrapped = peft.get_peft_model(model, config).double().eval()
    with pytest.raises(TypeError, match=f"must be a {cache}, not"):
        wrapped(**batch)
