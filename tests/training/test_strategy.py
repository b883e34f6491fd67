"""What does not go together with FSDP or DeepSpeed is refused before training, and the message says what does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin

from hfseq.training.strategy import check_strategy


def trainer(deepspeed=None, fsdp=None, asked_for=False):
    """What `check_strategy` reads of one; accelerate's plugins are real."""
    state = SimpleNamespace(deepspeed_plugin=deepspeed, fsdp_plugin=fsdp)
    return SimpleNamespace(
        is_deepspeed_enabled=deepspeed is not None,
        is_fsdp_enabled=fsdp is not None,
        accelerator=SimpleNamespace(state=state),
        args=SimpleNamespace(fsdp=asked_for),
    )


@pytest.fixture(autouse=True)
def nothing_launched(monkeypatch):
    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fsdp2(monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", "2")
    return FullyShardedDataParallelPlugin(fsdp_version=2)


def test_what_goes_together_passes(fsdp2):
    for optimizer in ("adamw", "muon", "ntasgd"):
        check_strategy(trainer(), optimizer)
    check_strategy(trainer(deepspeed=DeepSpeedPlugin(zero_stage=2)), "adamw")
    for optimizer in ("adamw", "muon"):
        check_strategy(trainer(fsdp=fsdp2, asked_for=True), optimizer)


def test_zero_flattens_parameters():
    two = trainer(deepspeed=DeepSpeedPlugin(zero_stage=2))
    with pytest.raises(
        ValueError, match="muon does not go with DeepSpeed: Muon needs matrices.*FSDP2.*with muon"
    ):
        check_strategy(two, "muon")
    with pytest.raises(ValueError, match="ntasgd does not go with DeepSpeed.*adamw"):
        check_strategy(two, "ntasgd")


def test_zero_3_and_an_optimizer_of_its_own():
    with pytest.raises(ValueError, match="stage 3 .*use stage 2"):
        check_strategy(trainer(deepspeed=DeepSpeedPlugin(zero_stage=3)), "adamw")
    own = {"zero_optimization": {"stage": 2}, "optimizer": {"type": "Adam"}, "train_batch_size": 8}
    with pytest.raises(ValueError, match="an optimizer of its own.*leave its section out"):
        check_strategy(trainer(deepspeed=DeepSpeedPlugin(hf_ds_config=own)), "adamw")


def test_fsdp(fsdp2):
    with pytest.raises(ValueError, match="ntasgd does not go with FSDP"):
        check_strategy(trainer(fsdp=fsdp2), "ntasgd")
    with pytest.raises(ValueError, match="version 1 .*fsdp_version: 2"):
        check_strategy(trainer(fsdp=SimpleNamespace(fsdp_version=1)), "adamw")


def test_fsdp_that_would_be_ddp_without_a_word(monkeypatch):
    with pytest.raises(ValueError, match="nothing to shard over"):
        check_strategy(trainer(asked_for=True), "adamw")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="nothing to shard over"):
        check_strategy(trainer(), "adamw")


def test_a_checkpoint_of_another_way_of_sharding(tmp_path, fsdp2):
    now = {
        "DDP": trainer(),
        "FSDP": trainer(fsdp=fsdp2),
        "DeepSpeed": trainer(deepspeed=DeepSpeedPlugin(zero_stage=2)),
    }
    saved = {"DDP": "optimizer.pt", "FSDP": "pytorch_model_fsdp_0", "DeepSpeed": "global_step4"}
    for before, name in saved.items():
        checkpoint = tmp_path / before
        (checkpoint / name).mkdir(parents=True)
        for after, made in now.items():
            if before == after:
                check_strategy(made, "adamw", checkpoint)
                continue
            with pytest.raises(ValueError, match=f"was saved under {before}.*this run is under {after}"):
                check_strategy(made, "adamw", checkpoint)
