"""A small text, and `hfseq pretrain` as a function."""

import sys
from contextlib import contextmanager

import pytest
from transformers import Trainer

from hfseq.commands import pretrain as command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory with a small text of 40 documents."""
    documents = [
        "\n".join(f"And king {n} reigned {year} years in the city of {n * year % 7}." for year in range(1, 8))
        for n in range(40)
    ]
    (tmp_path / "text.txt").write_text("\n\n".join(documents), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pretrain(monkeypatch):
    """pretrain(*words, recipe=...): the command in this process; nobody answers questions."""
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115

    def run(*words: str, recipe: str = "lstm-kjv") -> None:
        command.main([recipe, *words])

    return run


@pytest.fixture
def dies_after_saving(monkeypatch):
    """dies_after_saving(step): a context in which a run is interrupted when that checkpoint's files are written, before
    any callback makes it complete; it must be."""

    @contextmanager
    def interrupted(step: int):
        save = Trainer._save_checkpoint

        def die_after_saving(self, model, trial):
            save(self, model, trial)
            if self.state.global_step == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_save_checkpoint", die_after_saving)
            with pytest.raises(KeyboardInterrupt):
                yield

    return interrupted
