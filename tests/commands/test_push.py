"""hfseq push: what is exported and uploaded, and what is not."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest

from hfseq import LSTMForCausalLM, cards, data, hub
from hfseq.cards.published import name_repository, without_local_paths
from hfseq.objectives.causal import Causal


@pytest.fixture
def trained(language_model, tmp_path):
    """What a run leaves: an ordinary checkpoint with its tokenizer, summary, recipe, card and training state."""
    directory = tmp_path / "trained"
    shutil.copytree(language_model, directory)
    facts = {
        "recipe": "trained",
        "command": "hfseq pretrain /home/somebody/mine.yaml --train_file '/home/somebody/texts/*.txt'",
        "model_class": "LSTMForCausalLM",
        "parameters": 9,
        "scores": {"test": {"bits_per_byte": 1.5}},
        "recipe_content": {
            "data": {"corpus": None, "train_file": ["/home/somebody/texts/*.txt"]},
            "objective": {"type": "causal"},
            "model": {"model_type": "hfseq_lstm"},
        },
    }
    (directory / "training_summary.json").write_text(json.dumps(facts))
    (directory / "recipe.yaml").write_text("data: {train_file: /home/somebody/texts/a.txt}\n")
    cards.write_model_card(directory, facts, Causal.card)
    (directory / "checkpoint-1").mkdir()
    (directory / "checkpoint-1/optimizer.pt").write_bytes(b"")
    return directory


def test_exports_and_uploads(run, trained, fake_hub):
    assert "https://huggingface.co/me/tiny/commit/0" in run("push", trained, "tiny")
    expected = {
        "README.md", "training_summary.json", "recipe.yaml", "model.safetensors", "tokenizer.json",
        "modeling_recurrent.py",
    }  # fmt: skip
    assert expected <= set(fake_hub.files) and "optimizer.pt" not in " ".join(fake_hub.files)
    assert not list(trained.glob("*.py"))  # the checkpoint itself stays as it was
    card = fake_hub.texts["README.md"]
    assert 'path = "me/tiny"\n' in card and 'path = "trained"' not in card
    for name, text in fake_hub.texts.items():
        assert "somebody" not in text, name
    assert "hfseq pretrain mine.yaml --train_file '*.txt'" in card
    assert 'path = "trained"' in (trained / "README.md").read_text()


def test_only_writes_the_directory(run, trained, tmp_path, fake_hub):
    assert (
        "nothing uploaded" in run("push", trained, "--directory", tmp_path / "out") and fake_hub.calls == []
    )
    hub.check_export(tmp_path / "out")
    assert "somebody" not in (tmp_path / "out/README.md").read_text()


def test_both_tokenizers_of_a_pair_are_exported(run, trained, tmp_path):
    source, target = (data.train_tokenizer(["one two"] * 3, "bpe", size) for size in (300, 290))
    data.save_pair_tokenizers(trained, source, target)
    run("push", trained, "--directory", tmp_path / "out")
    loaded = data.load_pair_tokenizers(tmp_path / "out")
    assert [len(tokenizer) for tokenizer in loaded] == [len(source), len(target)]


def test_takes_an_export_too_and_asks_nothing(run, language_model, tmp_path, fake_hub, monkeypatch):
    asked = []
    monkeypatch.setattr("builtins.input", asked.append)
    source, _ = data.load_pair_tokenizers(language_model)
    hub.export(LSTMForCausalLM.from_pretrained(language_model), tmp_path / "export", source)
    run("push", tmp_path / "export", "--directory", tmp_path / "again")
    hub.check_export(tmp_path / "again")
    assert (tmp_path / "again/tokenizer.json").is_file() and asked == []


def test_code_of_a_stranger_is_refused_without_a_question(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", None)
    (tmp_path / "model").mkdir()
    config = {"model_type": "strange", "auto_map": {"AutoConfig": "code.StrangeConfig"}}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    (tmp_path / "model/code.py").write_text("raise RuntimeError('ran')")
    message = refused("push", tmp_path / "model", "--directory", tmp_path / "out")
    assert "trust_remote_code" in message and not (tmp_path / "out").exists()


def test_bad_input(refused, trained):
    assert "name a repository to upload to, or --directory" in refused("push", trained)
    assert "no config.json in" in refused("push", trained / "nowhere", "x")
    assert "must be another directory" in refused("push", trained, "--directory", trained)


def test_asks_for_nothing_without_a_token(refused, trained, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr("builtins.input", None)
    assert "hfseq push: No Hub token: run `hf auth login`" in refused("push", trained, "me/tiny")


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("--out /tmp/x/ --in /home/me/a.yaml", "--out x/ --in a.yaml"),
        ("https://hf.co/me/x and a/b/c outputs/x ./a/b", "https://hf.co/me/x and a/b/c outputs/x ./a/b"),
        ("~/runs/a file:///home/me/x '/data/*.txt'", "a x '*.txt'"),
        ('{"cache_dir": "/home/me/.cache"}', '{"cache_dir": ".cache"}'),
        (r"C:\Users\some body\texts\a.txt and C:/Users/me/b.txt", "a.txt and b.txt"),
        ("10/12/13 and/or 5 / 3 / 2 km/h", "10/12/13 and/or 5 / 3 / 2 km/h"),
    ],
)
def test_no_path_of_this_machine_is_published(text, published):
    assert without_local_paths(text) == published


def test_the_card_names_its_repository_and_its_branch():
    card = 'x\npath = "trained"  # this repository\'s id\nmodel = load(path)\n'
    assert name_repository(card, "me/tiny") == 'x\npath = "me/tiny"\nmodel = load(path)\n'
    branch = name_repository(card, "me/tiny", "longer")
    assert branch == (
        "x\nfrom huggingface_hub import snapshot_download\n"
        'path = snapshot_download("me/tiny", revision="longer")\nmodel = load(path)\n'
    )
    # pushed once more, to another branch and back
    assert name_repository(branch, "me/tiny", "main") == name_repository(card, "me/tiny")


def test_what_belongs_to_a_repository_needs_one(refused, trained, tmp_path):
    assert "belong to a repository" in refused(
        "push", trained, "--directory", tmp_path / "x", "--revision", "longer"
    )
    assert "belong to a repository" in refused("push", trained, "--directory", tmp_path / "x", "--private")
    assert not (tmp_path / "x").exists()
