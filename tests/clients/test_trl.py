"""TRL: supervised, preference and reward training, given the path of a checkpoint."""

from __future__ import annotations

import math

import pytest

from hfseq.contracts.comparing import FLOAT32

trl = pytest.importorskip("trl", reason="pip install trl")
datasets = pytest.importorskip("datasets")
pytestmark = [pytest.mark.clients, pytest.mark.filterwarnings("ignore")]


def options(tmp_path) -> dict:
    return {
        "output_dir": str(tmp_path / "out"), "max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1,
        "learning_rate": 1e-2, "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True,
        "gradient_checkpointing": False, "save_strategy": "no",
    }  # fmt: skip


def trained(made) -> None:
    """Two updates, with finite losses, that change the weights."""
    before = [p.detach().clone() for p in made.model.parameters()]
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    assert any(not (a == b).all() for a, b in zip(before, made.model.parameters(), strict=True))


def preferences(texts):
    pairs = zip(texts[:4], texts[4:], strict=True)
    rows = [{"prompt": one.split()[0], "chosen": one, "rejected": other} for one, other in pairs]
    return datasets.Dataset.from_list(rows)


def test_sft(case, saved, texts, tmp_path):
    rows = datasets.Dataset.from_list([{"text": text} for text in texts])
    made = trl.SFTTrainer(
        model=saved, args=trl.SFTConfig(**options(tmp_path), max_length=16), train_dataset=rows
    )
    assert type(made.model) is case.model_class
    trained(made)


def test_dpo(case, saved, texts, tmp_path):
    made = trl.DPOTrainer(
        model=saved, args=trl.DPOConfig(**options(tmp_path), max_length=16), train_dataset=preferences(texts)
    )
    assert type(made.model) is type(made.ref_model) is case.model_class
    trained(made)


def test_reward(case, texts, tmp_path):
    from hfseq.contracts.clients import tokenizer_of

    model = case.model(FLOAT32, num_labels=1)
    rows = preferences(texts).remove_columns("prompt")
    made = trl.RewardTrainer(
        model=model, args=trl.RewardConfig(**options(tmp_path), max_length=16), train_dataset=rows,
        processing_class=tokenizer_of(model.config),
    )  # fmt: skip
    trained(made)


def test_a_projection_before_a_tied_output_layer_is_not_passed_over_in_silence(texts, tmp_path):
    """TRL computes the loss from the base model's output and the output layer's matrix alone."""
    from hfseq import LSTMConfig, LSTMForCausalLM
    from hfseq.contracts.clients import tokenizer_of

    model = LSTMForCausalLM(LSTMConfig(vocab_size=40, embedding_size=8, hidden_size=12, eos_token_id=2))
    assert model.projection is not None
    rows = datasets.Dataset.from_list([{"text": text} for text in texts])
    made = trl.SFTTrainer(
        model, trl.SFTConfig(**options(tmp_path), max_length=16), train_dataset=rows,
        processing_class=tokenizer_of(model.config),
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="shape"):
        made.train()
