"""Runs that must be equal: accumulated, resumed, on two processes (contracts 6, 8 and 9 for the training loop).

Dropout is on where a resume must restore it, and off where rows are dealt differently. All of it on text streams with
carried state, with evaluations (which carry their own) in between.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hfseq.training.checkpoints import is_complete, newest_complete_checkpoint

OPTIMIZERS = ("adamw", "ntasgd", "muon")
TIMES = ("_runtime", "_per_second", "trained_seconds")


def assert_same(one, two, rtol: float = 0.0) -> None:
    """Equal structures with equal tensors and numbers: to the bit, or to `rtol` relative to the largest value."""
    assert type(one) is type(two)
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype and one.shape == two.shape
        if rtol and one.is_floating_point():
            assert (one - two).abs().max() <= rtol * one.abs().max()
        else:
            assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            # Trainer sums the logged losses in float32, whatever the model is in
            assert_same(one[key], two[key], rtol and max(rtol, 1e-6 if key == "log" else 0))
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two)
        for x, y in zip(one, two, strict=True):
            assert_same(x, y, rtol)
    elif isinstance(one, float) and rtol:
        assert one == pytest.approx(two, rel=rtol)
    else:
        assert one == two


def checkpoint_contents(directory: Path) -> dict:
    """Everything in a checkpoint that decides how the run goes on, and its log."""
    carried = [load_file(path) for path in sorted(directory.glob("carried_state_*.safetensors"))]
    ids = torch.cat([part.pop("stream_id") for part in carried])
    state = json.loads((directory / "trainer_state.json").read_text())
    return {
        "weights": load_file(directory / "model.safetensors"),
        "optimizer": torch.load(directory / "optimizer.pt", weights_only=True),
        "scheduler": torch.load(directory / "scheduler.pt", weights_only=True),
        "carried": {
            key: torch.cat([part[key] for part in carried], dim=1)[:, ids.argsort()] for key in carried[0]
        },
        "log": [{k: v for k, v in entry.items() if not k.endswith(TIMES)} for entry in state["log_history"]],
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_is_uninterrupted_to_the_bit(tiny_run, tmp_path, optimizer):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer = tiny_run.make_trainer(whole, optimizer=optimizer, eval_steps=1)
    trainer.train()
    tiny_run.make_trainer(parts, optimizer=optimizer, eval_steps=1, callbacks=[tiny_run.StopAfter(4)]).train()
    assert newest_complete_checkpoint(parts) == parts / "checkpoint-4"
    resumed = tiny_run.make_trainer(parts, optimizer=optimizer, eval_steps=1)
    resumed.train(resume_from_checkpoint=str(parts / "checkpoint-4"))

    assert_same(checkpoint_contents(whole / "checkpoint-6"), checkpoint_contents(parts / "checkpoint-6"))
    assert_same(
        dict(trainer.model.state_dict()), dict(resumed.model.state_dict())
    )  # the averages, for ntasgd
    if optimizer == "ntasgd":
        # the interruption came amid averaging
        assert resumed.optimizer.param_groups[0]["averaged_updates"] > 2


def test_the_carried_state_matters(tiny_run, tmp_path):
    """The test above would see a resume that forgets it."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_run.make_trainer(whole).train()
    shutil.copytree(whole / "checkpoint-2", parts / "checkpoint-2")
    tiny_run.make_trainer(parts, streams=None).train(resume_from_checkpoint=str(parts / "checkpoint-2"))
    one, two = (load_file(run / "checkpoint-6" / "model.safetensors") for run in (whole, parts))
    assert not torch.equal(one["model.embed_tokens.weight"], two["model.embed_tokens.weight"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_accumulated_is_whole(tiny_run, tmp_path, optimizer):
    """8 rows x 1 == 2 rows x 4 steps, in float64 to 1e-9."""
    fields = {"optimizer": optimizer, "dtype": torch.float64, "dropout": 0.0, "eval_steps": 1}
    tiny_run.make_trainer(tmp_path / "whole", **fields).train()
    tiny_run.make_trainer(
        tmp_path / "parts", per_device_train_batch_size=2, gradient_accumulation_steps=4, **fields
    ).train()
    one, two = (checkpoint_contents(tmp_path / run / "checkpoint-6") for run in ("whole", "parts"))
    assert_same(one, two, rtol=1e-9)
    assert [e["step"] for e in one["log"] if "eval_loss" in e] == [1, 2, 3, 4, 5, 6]


class TestRefusedResumes:
    def saved(self, tiny_run, tmp_path) -> Path:
        tiny_run.make_trainer(tmp_path, callbacks=[tiny_run.StopAfter(2)]).train()
        return tmp_path / "checkpoint-2"

    def test_without_the_state(self, tiny_run, tmp_path):
        checkpoint = self.saved(tiny_run, tmp_path)
        (checkpoint / "carried_state_0.safetensors").unlink()
        assert newest_complete_checkpoint(tmp_path) is None
        with pytest.raises(FileNotFoundError, match=rf"{checkpoint} has no carried_state_\*.safetensors"):
            tiny_run.make_trainer(tmp_path).train(resume_from_checkpoint=str(checkpoint))

    def test_with_another_number_of_streams(self, tiny_run, tmp_path):
        checkpoint = self.saved(tiny_run, tmp_path)
        trainer = tiny_run.make_trainer(
            tmp_path, plan=tiny_run.train_plan(streams=4), streams=4, per_device_train_batch_size=4
        )
        with pytest.raises(ValueError, match="states of 8 streams .* but this run has 4"):
            trainer.train(resume_from_checkpoint=str(checkpoint))

    def test_from_elsewhere_without_saying_so(self, tiny_run, tmp_path):
        """Trainer does not tell callbacks where it resumes from: a checkpoint of the same number must not do."""
        checkpoint = self.saved(tiny_run, tmp_path / "one")
        other = tmp_path / "two"
        tiny_run.make_trainer(other, learning_rate=0.01, callbacks=[tiny_run.StopAfter(2)]).train()
        with pytest.raises(ValueError, match="resume_from_checkpoint=DIRECTORY"):
            tiny_run.make_trainer(other).train(resume_from_checkpoint=str(checkpoint))
        resumed = tiny_run.make_trainer(other, resume_from_checkpoint=str(checkpoint))
        resumed.train(resume_from_checkpoint=str(checkpoint))
        assert is_complete(other / "checkpoint-6")


class TestTwoProcesses:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_two_are_one(self, two_processes, optimizer):
        one, two = (
            checkpoint_contents(two_processes / f"{n}-{optimizer}" / "checkpoint-6") for n in ("one", "two")
        )
        assert_same(one, two, rtol=1e-9)
        marker = json.loads(
            (two_processes / f"two-{optimizer}" / "checkpoint-6" / "complete.json").read_text()
        )
        assert marker["world_size"] == 2
        assert {"carried_state_0.safetensors", "carried_state_1.safetensors"} <= marker["files"].keys()

    def test_resumed_twice_on_two_processes_is_uninterrupted_to_the_bit(self, two_processes):
        whole = checkpoint_contents(two_processes / "two-adamw" / "checkpoint-6")
        assert_same(whole, checkpoint_contents(two_processes / "two-in-parts" / "checkpoint-6"))

    def test_one_process_goes_on_with_two(self, two_processes):
        one = checkpoint_contents(two_processes / "one-adamw" / "checkpoint-6")
        assert_same(one, checkpoint_contents(two_processes / "one-then-two" / "checkpoint-6"), rtol=1e-9)

    def test_two_processes_go_on_with_one(self, two_processes, tiny_run):
        checkpoint = two_processes / "two-then-one" / "checkpoint-2"
        shutil.copytree(two_processes / "two-adamw" / "checkpoint-2", checkpoint)
        trainer = tiny_run.make_trainer(checkpoint.parent, dtype=torch.float64, dropout=0.0, eval_steps=1)
        trainer.train(resume_from_checkpoint=str(checkpoint))
        one = checkpoint_contents(two_processes / "one-adamw" / "checkpoint-6")
        assert_same(one, checkpoint_contents(checkpoint.parent / "checkpoint-6"), rtol=1e-9)

    def test_one_process_with_a_nan_stops_both(self, two_processes):
        errors = [(two_processes / f"nan-{rank}.txt").read_text() for rank in (0, 1)]
        assert errors[0].startswith("Another process met a loss or weight that is not finite by update 3")
        assert errors[1].startswith("The training loss is nan at update 3")
        assert newest_complete_checkpoint(two_processes / "nan") == two_processes / "nan" / "checkpoint-2"
        assert not (two_processes / "nan" / "checkpoint-4").exists()
