"""Only what was written to the end counts as a checkpoint."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from transformers import TrainerCallback

from hfseq.training import checkpoints, refused_pickles_told
from hfseq.training.checkpoints import MARKER_NAME, is_complete, newest_complete_checkpoint, write_marker


@pytest.fixture
def checkpoint(tmp_path):
    def make(step: int, marked: bool = True):
        directory = tmp_path / f"checkpoint-{step}"
        (directory / "sub").mkdir(parents=True)
        (directory / "model.safetensors").write_bytes(b"12345")
        (directory / "sub" / "other").write_bytes(b"1")
        if marked:
            write_marker(directory, step, 1)
        return directory

    return make


class TestMarker:
    def test_content(self, checkpoint):
        marker = json.loads((checkpoint(7) / MARKER_NAME).read_text())
        checksums = marker.pop("checksums")
        assert marker == {
            "global_step": 7,
            "world_size": 1,
            "files": {"model.safetensors": 5, "sub/other": 1},
        }
        assert checksums.keys() == marker["files"].keys()

    def test_newest_by_number_not_by_name(self, checkpoint, tmp_path):
        checkpoint(9)
        newest = checkpoint(10)
        checkpoint(11, marked=False)
        (tmp_path / "checkpoint-best").mkdir()
        (tmp_path / "checkpoint-12").write_text("no directory")
        assert newest_complete_checkpoint(tmp_path) == newest

    def test_none(self, tmp_path, checkpoint):
        assert newest_complete_checkpoint(tmp_path / "absent") is None
        assert newest_complete_checkpoint(tmp_path) is None
        checkpoint(1, marked=False)
        assert newest_complete_checkpoint(tmp_path) is None

    @pytest.mark.parametrize("damage", ["missing", "truncated", "marker torso", "marker without files"])
    def test_a_marker_that_is_not_true(self, checkpoint, damage):
        directory = checkpoint(1)
        assert is_complete(directory)
        if damage == "missing":
            (directory / "sub" / "other").unlink()
        elif damage == "truncated":
            (directory / "model.safetensors").write_bytes(b"123")
        elif damage == "marker torso":
            (directory / MARKER_NAME).write_text('{"files": {')
        else:
            (directory / MARKER_NAME).write_text("{}")
        assert not is_complete(directory)


class Killed(BaseException):
    """Like a signal: nothing catches it."""


class TestTrainerRun:
    def test_a_run_without_streams_gets_its_markers_too(self, tiny_run, tmp_path):
        tiny_run.make_trainer(tmp_path, streams=None).train()
        assert all(is_complete(tmp_path / f"checkpoint-{step}") for step in (2, 4, 6))
        assert not list(tmp_path.glob("*/carried_state*"))

    def test_a_save_cut_short_is_ignored_and_written_over(self, tiny_run, tmp_path, monkeypatch):
        def killed(directory, global_step, *more):
            if global_step == 4:
                raise Killed
            write_marker(directory, global_step, *more)

        monkeypatch.setattr(checkpoints, "write_marker", killed)
        with pytest.raises(Killed):
            tiny_run.make_trainer(tmp_path).train()
        assert (tmp_path / "checkpoint-4" / "model.safetensors").exists()
        assert newest_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-2"

        # as if that save had been by more processes
        stale = tmp_path / "checkpoint-4" / "carried_state_7.safetensors"
        shutil.copy(tmp_path / "checkpoint-4" / "carried_state_0.safetensors", stale)
        monkeypatch.setattr(checkpoints, "write_marker", write_marker)
        tiny_run.make_trainer(tmp_path).train(resume_from_checkpoint=newest_complete_checkpoint(tmp_path))
        assert is_complete(tmp_path / "checkpoint-4") and not stale.exists()

    def test_writing_over_a_complete_one_takes_its_marker_first(self, tiny_run, tmp_path, monkeypatch):
        tiny_run.make_trainer(tmp_path).train()
        trainer = tiny_run.make_trainer(tmp_path)

        def killed(*args):
            raise Killed

        monkeypatch.setattr(trainer, "_save_checkpoint", killed)
        with pytest.raises(Killed):
            trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
        assert not is_complete(tmp_path / "checkpoint-4")
        assert is_complete(tmp_path / "checkpoint-6") and is_complete(tmp_path / "checkpoint-2")

    def test_best_checkpoints_are_marked_too(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(tmp_path, save_strategy="best", metric_for_best_model="eval_loss")
        trainer.train()
        assert newest_complete_checkpoint(tmp_path) is not None

    def test_saving_only_the_last_is_refused(self, tiny_run, tmp_path):
        with pytest.raises(ValueError, match="save_total_limit=1 deletes the last complete checkpoint"):
            tiny_run.make_trainer(tmp_path, save_total_limit=1).train()

    def test_a_limit_of_two_always_keeps_a_complete_one(self, tiny_run, tmp_path):
        kept = []

        class Look(TrainerCallback):  # after Trainer's deletions, before the marker
            def on_step_begin(self, args, state, control, **kwargs):
                kept.append(newest_complete_checkpoint(tmp_path))

        tiny_run.make_trainer(tmp_path, save_total_limit=2, callbacks=[Look()]).train()
        assert [p and p.name for p in kept] == [None, None, *["checkpoint-2"] * 2, *["checkpoint-4"] * 2]
        assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-6"]

    def test_streams_are_checked_before_the_first_update(self, tiny_run, tmp_path):
        with pytest.raises(ValueError, match="8 streams, but an update takes 4 rows"):
            tiny_run.make_trainer(tmp_path, per_device_train_batch_size=4).train()

    def test_a_model_without_carried_states(self, tiny_run, tmp_path):
        trainer = tiny_run.make_trainer(tmp_path)
        model = trainer.model
        type_without = type("Plain", (type(model).__mro__[1],), {"carried_states": property(_absent)})
        model.__class__ = type_without
        with pytest.raises(ValueError, match="Plain carries no states between segments"):
            trainer.train()


def _absent(self):
    raise AttributeError


class Trap:
    """Leaves a mark in the working directory when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("trapped",)


@pytest.fixture(scope="module")
def stopped_run(tiny_run, tmp_path_factory):
    """The folder of a run that ended early."""
    folder = tmp_path_factory.mktemp("stopped")
    tiny_run.make_trainer(folder, callbacks=[tiny_run.StopAfter(2)]).train()
    return folder


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "pytorch_model.bin"])
def test_a_state_that_runs_code_is_refused_and_does_not_run(
    tiny_run, stopped_run, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(stopped_run, tmp_path, dirs_exist_ok=True)
    checkpoint = tmp_path / "checkpoint-2"
    torch.save({"state": Trap()}, checkpoint / name)
    if name == "pytorch_model.bin":  # what Trainer reads where there are no safetensors
        (checkpoint / "model.safetensors").unlink()
    trainer = tiny_run.make_trainer(tmp_path)
    with (
        pytest.raises(ValueError, match=r"checkpoint-2 cannot be resumed from: .*can run code") as raised,
        refused_pickles_told(checkpoint),
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint))
    assert "weights_only" not in str(raised.value) and not (tmp_path / "trapped").exists()
