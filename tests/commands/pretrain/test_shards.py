"""`hfseq pretrain` on the first shards of a text."""

import json

import pytest
from safetensors.torch import load_file
from torch import equal

from hfseq.data import array_building, shards
from tests.commands.pretrain.test_streams import LOCAL, SIZES, message

WORDS = [*LOCAL, *SIZES, "--segment_length", "8", "--validation_share", "0.3", "--test_share", "0"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    for module in (array_building, shards):
        monkeypatch.setattr(module, "SHARD_CHARACTERS", 4000)


def summary(output) -> dict:
    return json.loads((output / "training_summary.json").read_text())


def test_a_run_on_shards_is_resumed_on_the_same(folder, pretrain, capsys, monkeypatch, dies_after_saving):
    pretrain(*WORDS, "--shards", "2", "--save_steps", "4")
    undisturbed = summary(folder / "out")
    assert undisturbed["train_shards"] == 2 and 15 < undisturbed["train_documents"] < 28
    assert list((folder / "cache").glob("*.partial"))  # the rest is not built

    with dies_after_saving(8):
        pretrain(*WORDS, "--shards", "2", "--save_steps", "4", "--output_dir", "again")
    with pytest.raises(SystemExit) as raised:
        pretrain(*WORDS, "--shards", "1", "--save_steps", "4", "--output_dir", "again", "--resume")
    assert "it was started with data.shards = 2, now it is 1" in message(raised, capsys)
    # The whole is built meanwhile, and the run goes on with what it had.
    pretrain(*WORDS, "--save_steps", "4", "--output_dir", "whole")
    assert not list((folder / "cache").glob("*.partial"))
    pretrain(*WORDS, "--shards", "2", "--save_steps", "4", "--output_dir", "again", "--resume")
    before, after = (load_file(folder / name / "model.safetensors") for name in ("out", "again"))
    assert all(equal(before[name], after[name]) for name in before)
    assert summary(folder / "again")["scores"] == undisturbed["scores"]
    assert summary(folder / "whole")["train_documents"] > undisturbed["train_documents"] + 5
    assert "train_shards" not in summary(folder / "whole")


@pytest.mark.parametrize(
    ("recipe", "words", "expected"),
    [
        ("lstm-kjv", [*WORDS, "--shards", "0"], "shards must be a whole number from 1 on"),
        ("lstm-kjv", [*WORDS, "--shards", "50"], "shards is 50, but text.txt has only"),
        ("lstm-multi30k-en-de", ["--shards", "2"], "data of objective translation has no field 'shards'"),
        ("lstm-colours", ["--shards", "2"], "data of objective vector_to_text has no field 'shards'"),
    ],
)
def test_what_is_refused(folder, pretrain, capsys, recipe, words, expected):
    with pytest.raises(SystemExit) as raised:
        pretrain(*words, recipe=recipe)
    assert expected in message(raised, capsys) and not (folder / "out").exists()
