"""`hfseq pretrain` that is told to stop, runs out of disk, is resumed with something else, or finds damage."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from hfseq.commands import pretrain as command
from hfseq.training import interruption

WORDS = [
    "--corpus", "null", "--train_file", "text.txt", "--cache_dir", "cache", "--tokenizer.vocab_size", "300",
    "--hidden_size", "16", "--embedding_size", "8", "--streams", "8", "--segment_length", "16",
    "--evaluation_streams", "2", "--num_train_epochs", "1", "--eval_steps", "5", "--save_steps", "5",
    "--hidden_dropout", "0.1", "--max_steps", "12", "--prompt", "null",
]  # fmt: skip


class SignalAt(TrainerCallback):
    """Sends this process a signal in the middle of an update."""

    def __init__(self, update: int, number: int) -> None:
        self.update, self.number = update, number

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.update:
            os.kill(os.getpid(), self.number)


@pytest.fixture
def signalled(monkeypatch, pretrain):
    """signalled(update, number, *words): a run that gets a signal; returns its exit code."""

    def run(update: int, number: int, *words: str) -> object:
        trainer = command.Trainer
        with monkeypatch.context() as patch:
            patch.setattr(
                command,
                "Trainer",
                lambda **options: trainer(
                    **{**options, "callbacks": [*options["callbacks"], SignalAt(update, number)]}
                ),
            )
            with pytest.raises(SystemExit) as raised:
                pretrain(*WORDS, *words)
        return raised.value.code

    return run


def same_weights(one, two) -> bool:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def whole(folder, pretrain):
    """A finished run that nothing disturbed, and its folder."""
    pretrain(*WORDS, "--output_dir", "whole")
    return folder / "whole"


def test_sigterm_and_ctrl_c_save_and_the_run_goes_on_to_equal_weights(
    folder, whole, signalled, pretrain, capsys
):
    output = folder / "out"
    before = signal.getsignal(signal.SIGTERM)
    words = ["--output_dir", "out", "--enable_jit_checkpoint", "true"]
    assert signalled(3, signal.SIGTERM, *words) == 75
    assert signal.getsignal(signal.SIGTERM) is before
    said = capsys.readouterr().err
    assert "Stopped at update 3 of 12 by SIGTERM; checkpoint-3 is whole. Go on with: hfseq pretrain" in said
    assert "--output_dir out" in said and said.rstrip().endswith("--resume")
    # Not the card of a finished run.
    assert not {"README.md", "training_summary.json", "model.safetensors"} & {
        file.name for file in output.iterdir()
    }
    assert signalled(8, signal.SIGINT, *words) == 130
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-5", "checkpoint-8"]
    pretrain(*WORDS, *words)
    assert same_weights(whole, output)
    # What a signal asked for has made way for what the run would have had anyway.
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-12"]


def test_a_signal_after_the_last_update_is_not_swallowed(monkeypatch):
    """There is nothing left to save: it does what it would have done."""
    from types import SimpleNamespace

    sent = []
    monkeypatch.setattr(interruption.os, "kill", lambda process, number: sent.append(number))
    monkeypatch.setattr(interruption.os, "write", lambda *text: None)
    callback, control = interruption.StopOnSignal(), SimpleNamespace(should_save=False)
    args, state = SimpleNamespace(world_size=1), SimpleNamespace(global_step=4, max_steps=4)
    callback.on_train_begin(args, state, control)
    callback._note(signal.SIGTERM, None)
    callback.on_step_end(args, state, control)
    assert not control.should_save and callback.signal is None
    callback.on_train_end(args, state, control)
    assert sent == [signal.SIGTERM]


def test_sigterm_twice_is_one_request_and_ctrl_c_then_ends_at_once(monkeypatch):
    """A worker gets it from the scheduler and from its launcher."""
    from types import SimpleNamespace

    sent = []
    monkeypatch.setattr(interruption.os, "kill", lambda process, number: sent.append(number))
    monkeypatch.setattr(interruption.os, "write", lambda *text: None)
    callback = interruption.StopOnSignal()
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    args, state = SimpleNamespace(world_size=1), SimpleNamespace(global_step=2, max_steps=4)
    callback.on_train_begin(args, state, control)
    try:
        for _ in range(2):
            callback._note(signal.SIGTERM, None)
        assert sent == []
        callback._note(signal.SIGINT, None)
        assert sent == [signal.SIGINT]
        callback.on_step_end(args, state, control)
        assert control.should_save and callback.signal == signal.SIGTERM
    finally:
        callback._restore()


class TestDamage:
    """Of the newest checkpoint: the older one is taken, and that is said."""

    @pytest.fixture
    def stopped(self, folder, signalled):
        assert signalled(11, signal.SIGTERM, "--output_dir", "out") == 75
        return folder / "out"

    def test_each_file(self, folder, whole, stopped, pretrain, caplog):
        newest = stopped / "checkpoint-11"
        names = [path.name for path in newest.iterdir()]
        assert {"trainer_state.json", "rng_state.pth", "complete.json", "carried_state_0.safetensors"} <= {
            *names
        }
        from hfseq.training.checkpoints import newest_complete_checkpoint

        for name in names:
            file = newest / name
            content = file.read_bytes()
            middle = len(content) // 2
            for damage in (
                content[:middle],
                content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
                b"",
            ):
                caplog.clear()
                file.write_bytes(damage)
                assert newest_complete_checkpoint(stopped) == stopped / "checkpoint-10", (name, len(damage))
                named = "" if name == "complete.json" else name  # which lists the others
                assert f"checkpoint-11 is damaged: {named}" in caplog.text
            file.write_bytes(content)
        assert newest_complete_checkpoint(stopped) == newest

        content = bytearray((newest / "model.safetensors").read_bytes())
        content[-10] ^= 1
        (newest / "model.safetensors").write_bytes(content)
        pretrain(*WORDS, "--output_dir", "out")
        assert same_weights(whole, stopped)
        assert (stopped / "damaged-checkpoint-11").is_dir()


class TestResumingSomethingElse:
    @pytest.fixture
    def stopped(self, folder, signalled):
        assert signalled(6, signal.SIGTERM, "--output_dir", "out") == 75
        return folder / "out"

    def test_is_refused(self, folder, stopped, pretrain):
        recipe = (stopped / "recipe.yaml").read_text()
        text = (folder / "text.txt").read_text()
        changes = {
            "training.seed": ["--seed", "7"],
            "training.optimizer": ["--optimizer", "adamw"],
            "plan": ["--num_train_epochs", "2"],
            "text and its tokens": [],
        }
        for what, words in changes.items():
            if not words:
                (folder / "text.txt").write_text(text.replace("king 5", "queen 5"))
            with pytest.raises(SystemExit, match=f"not what the run began with: .*{what}.*--resume_anyway"):
                pretrain(*WORDS, "--output_dir", "out", "--resume", *words)
            assert (stopped / "recipe.yaml").read_text() == recipe
        # The tokenizer was trained on the text: it is another one too.
        with pytest.raises(SystemExit, match="tokenizer"):
            pretrain(*WORDS, "--output_dir", "out")
        (folder / "text.txt").write_text(text)
        (stopped / "run.json").write_text("{")
        with pytest.raises(SystemExit, match=r"run.json is damaged.*--resume_anyway"):
            pretrain(*WORDS, "--output_dir", "out", "--resume")

    def test_is_done_for_who_knows(self, stopped, pretrain):
        pretrain(*WORDS, "--output_dir", "out", "--resume_anyway", "--seed", "7")
        assert json.loads((stopped / "training_summary.json").read_text())["updates"] == 12
        assert json.loads((stopped / "run.json").read_text())["training.seed"] == 7


class TestFullDisk:
    @pytest.mark.parametrize(
        "failure",
        [
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/checkpoint-10/scheduler.pt"),
            RuntimeError(
                "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0: file write failed"
            ),
        ],
        ids=["system", "torch"],
    )
    def test_says_file_and_disk_and_keeps_the_older_checkpoint(self, folder, pretrain, monkeypatch, failure):
        save = torch.save

        def full(content, file, *more, **options):
            if "checkpoint-10" in str(file):
                raise failure
            save(content, file, *more, **options)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", full)
            with pytest.raises(SystemExit) as raised:
                pretrain(*WORDS, "--output_dir", "out")
        message = str(raised.value)
        assert "Writing out/checkpoint-10/" in message and "MB are free" in message
        assert "checkpoint-5 is whole" in message and "Go on with: hfseq pretrain" in message
        assert not (folder / "out/training_summary.json").exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="no limits of processes")
    def test_a_limit_on_the_size_of_files(self, folder, pretrain):
        import resource

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        pretrain(*WORDS, "--output_dir", "out", "--max_steps", "5")  # all that is cached is there
        shutil.rmtree(folder / "out")
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
        try:
            with pytest.raises(
                SystemExit, match=r"Writing out/checkpoint-5/.* failed: .*No checkpoint was comp"
            ):
                pretrain(*WORDS, "--output_dir", "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
