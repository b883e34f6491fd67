"""`hfseq pretrain` as a user runs it, on a text of a few kilobytes."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

SIZES = ["--tokenizer.vocab_size", "300", "--hidden_size", "16", "--embedding_size", "8", "--streams", "8"]
SIZES += [
    "--segment_length",
    "16",
    "--num_train_epochs",
    "1",
    "--evaluation_streams",
    "2",
    "--cache_dir",
    "cache",
]
LOCAL = ["--corpus", "null", "--train_file", "text.txt", "--output_dir", "out"]
RUN_FILES = {
    "README.md", "config.json", "generation_config.json", "loss_curve.png", "model.safetensors", "recipe.yaml",
    "tokenizer.json", "training_summary.json",
}  # fmt: skip


def message(raised, capsys) -> str:
    """What a user reads: argparse prints, sys.exit carries."""
    return f"{raised.value} {capsys.readouterr().err}"


def test_a_run_leaves_everything_and_learns(folder, pretrain, capsys):
    pretrain(*LOCAL, *SIZES, "--num_train_epochs", "4", "--learning_rate", "0.02")
    output = folder / "out"
    assert {path.name for path in output.iterdir()} >= RUN_FILES
    summary = json.loads((output / "training_summary.json").read_text())
    for split in ("validation", "test"):
        score = summary["scores"][split]
        assert score["perplexity_per_token"] < 40  # 300 at the start
        assert 0 < score["bits_per_byte"] < 3
    assert summary["evaluations"][-1]["eval_loss"] == pytest.approx(
        summary["scores"]["validation"]["loss"], rel=0.05
    )
    printed = capsys.readouterr().out
    assert "bits per byte" in printed and "In the beginning" in printed
    card = (output / "README.md").read_text()
    assert f"{summary['scores']['test']['bits_per_byte']:.4f}" in card
    assert (output / "loss_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    # padding, and surplus ids (the vocabulary is rounded up to a multiple of 64), are never generated
    generation = json.loads((output / "generation_config.json").read_text())
    assert generation["suppress_tokens"] == [generation["pad_token_id"], *range(300, 320)]


@pytest.mark.parametrize("recipe", ["gru-kjv", "rnn-kjv", "lstm-wiki", "awd-lstm-imdb", "awd-lstm-imdb-cpu"])
def test_every_recipe_runs(folder, pretrain, recipe):
    """The recipes' own settings, on small models and a small text."""
    few = ["--last_hidden_size", "8"] if recipe.startswith("awd") else []
    rate = ["--learning_rate", "1"] if recipe == "awd-lstm-imdb" else []
    pretrain(*LOCAL, *SIZES, *few, *rate, recipe=recipe)
    assert {path.name for path in (folder / "out").iterdir()} >= RUN_FILES


def test_interrupted_and_resumed_equals_uninterrupted(folder, pretrain, dies_after_saving):
    words = [*LOCAL, *SIZES, "--eval_steps", "5", "--save_steps", "5", "--hidden_dropout", "0.1"]
    pretrain(*words)
    whole = load_file(folder / "out/model.safetensors")
    with dies_after_saving(15):
        pretrain(*words, "--output_dir", "again")
    # killed before the callbacks ran, checkpoint-15 has no marker, so the run goes on from checkpoint-10
    assert not (folder / "again/checkpoint-15/complete.json").exists()
    pretrain(*words, "--output_dir", "again")
    resumed = load_file(folder / "again/model.safetensors")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


class TestSecondRun:
    def test_a_finished_run_is_not_overwritten_unasked(self, folder, pretrain):
        pretrain(*LOCAL, *SIZES)
        before = (folder / "out/model.safetensors").read_bytes()
        with pytest.raises(SystemExit, match="holds a finished run: say --resume or --overwrite"):
            pretrain(*LOCAL, *SIZES)
        assert (folder / "out/model.safetensors").read_bytes() == before
        (folder / "out/notes.txt").write_text("mine")
        pretrain(*LOCAL, *SIZES, "--overwrite", "--seed", "7")
        assert (folder / "out/model.safetensors").read_bytes() != before
        assert (folder / "out/notes.txt").read_text() == "mine"

    def test_it_asks_on_a_terminal(self, folder, pretrain, monkeypatch):
        pretrain(*LOCAL, *SIZES)

        class Terminal:
            def isatty(self):
                return True

        monkeypatch.setattr(sys, "stdin", Terminal())
        monkeypatch.setattr("builtins.input", lambda question: "q")
        with pytest.raises(SystemExit, match="Nothing was changed"):
            pretrain(*LOCAL, *SIZES)

    def test_resuming_another_model_is_refused(self, folder, pretrain):
        pretrain(*LOCAL, *SIZES)
        with pytest.raises(SystemExit, match=r"started with model\.hidden_size = 16, now it is 24"):
            pretrain(*LOCAL, *SIZES, "--hidden_size", "24", "--resume")


class TestBadInput:
    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--hiden_size", "4"], "Did you mean 'hidden_size'"),
            (["--objective.streem", "4"], "Did you mean 'streams'"),
            (["--streams", "many"], "objective.streams must be int"),
            (["--hidden_size"], "has no value"),
            (["--resume", "--overwrite"], "not allowed with argument"),
        ],
    )
    def test_command_line(self, folder, pretrain, capsys, words, expected):
        with pytest.raises(SystemExit) as raised:
            pretrain(*LOCAL, *words)
        assert expected in message(raised, capsys)
        assert not (folder / "out").exists()

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("objective: {type: causal}\nmodel: {model_type: hfseq_lstn}", "Did you mean 'hfseq_lstm'"),
            ("objective: {type: causal}\ndata: {corpus: kjv}", "needs a model_type"),
            (
                "objective: {type: causal}\nmodel: {model_type: hfseq_lstm}\nmodell: {}",
                "Did you mean 'model'",
            ),
            ("model: [", "not valid YAML"),
            (
                "objective: {type: causal}\nmodel: {model_type: hfseq_lstm, hiddensize: 3}",
                "Did you mean 'hidden_size'",
            ),
        ],
    )
    def test_recipe(self, folder, pretrain, capsys, content, expected):
        Path("bad.yaml").write_text(content)
        with pytest.raises(SystemExit) as raised:
            pretrain(recipe="./bad.yaml")
        assert expected in message(raised, capsys)

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--streams", "4000"], "one batch of 4000 streams"),
            (["--train_file", "nothing-*.txt"], "nothing-"),
            (["--input_dropout", "1.5"], "input_dropout must be at least 0 and below 1"),
            (["--per_device_train_batch_size", "3"], "must be rows x accumulation x processes"),
            (["--train_sampling_strategy", "random"], "follows from the objective"),
            (["--lr_scheduler_type", "cosin"], "cosin"),
            (["--tokenizer.path", "no/such-tokenizer"], "no/such-tokenizer"),
            (["--optimizer_arguments", "{split_gate: true}"], "has no argument 'split_gate'"),
            (["--optimizer", "adamm"], "Unknown optimizer 'adamm'"),
            (["--optimizer_arguments", "{betas: x}"], "betas must be two numbers, not 'x'"),
            (
                ["--optimizer", "ntasgd", "--optimizer_arguments", "{nonmono: 2.5}"],
                "nonmono must be a whole number",
            ),
            (
                ["--lr_scheduler_kwargs", "{foo: 1}"],
                "training.lr_scheduler_type cosine with lr_scheduler_kwargs",
            ),
            (["--report_to", "foo"], "foo is not supported"),
            (["--average_checkpoints", "1"], "a mean needs at least 2"),
            (["--tokenizer.vocab_size", "1e18"], "more than any text fills"),
        ],
    )
    def test_values(self, folder, pretrain, capsys, words, expected):
        with pytest.raises(SystemExit) as raised:
            pretrain(*LOCAL, *SIZES, *words)
        assert raised.value.code == 2 and expected in message(raised, capsys)
        assert not (folder / "out").exists()

    @pytest.mark.parametrize(
        ("words", "expected"),
        [
            (["--train_file", "nothing.txt"], "data.train_file: No file or folder nothing.txt"),
            (["--validation_file", "test.txt"], "data.validation_file: No file or folder test.txt"),
            (["--train_file", "null"], "not neither"),
            (["--corpus", "kjv"], "not both"),
            (["--validation_share", "0"], "There is no validation side"),
            (["--split_seed", "-4"], "split_seed must be a whole number, at least 0, not -4"),
            (["--output_dir", "[a]"], "A path must be text, not ['a']"),
            (["--seed", "5000000000"], "training.seed must be at most 4294967295"),
            (["--seed", "-1"], "training.seed must be 0 or more"),
            (["--data_seed", "1.5"], "training.data_seed must be a whole number"),
            (["--learning_rate", "nan"], "training.learning_rate must be a number"),
            (["--max_steps", "0"], "training.max_steps must be at least 1, or -1"),
            (["--eval_steps", "0"], "training.eval_steps must be above 0"),
            (["--save_total_limit", "0"], "training.save_total_limit must be above 0"),
            (["--bf16", "maybe"], "training.bf16 must be true or false, not 'maybe'"),
            (["--adam_beta1", "1"], "training.adam_beta1 must be below 1"),
            (["--adam_epsilon", "0"], "training.adam_epsilon must be above 0"),
            (["--dataloader_num_workers", "-1"], "training.dataloader_num_workers must be 0 or more"),
            (["--save_strategy", "step"], "Did you mean 'steps'"),
        ],
    )
    def test_what_is_refused_before_anything_is_read(
        self, folder, pretrain, capsys, monkeypatch, words, expected
    ):
        monkeypatch.setattr("hfseq.data.corpora.Corpus._read_sources", lambda self: pytest.fail("read"))
        with pytest.raises(SystemExit) as raised:
            pretrain(*LOCAL, *SIZES, *words)
        assert raised.value.code == 2 and expected in message(raised, capsys)
        assert not (folder / "out").exists()

    def test_output_directory_that_cannot_be_written(self, folder, pretrain):
        (folder / "file").write_text("")
        with pytest.raises(SystemExit, match=r"Cannot write to output_dir file/out.*--output_dir"):
            pretrain(*LOCAL, *SIZES, "--output_dir", "file/out")

    def test_empty_text(self, folder, pretrain):
        (folder / "text.txt").write_text(" \n\n")
        with pytest.raises(SystemExit, match=r"text\.txt"):
            pretrain(*LOCAL, *SIZES)

    def test_a_loss_that_is_not_finite_stops_the_run(self, folder, pretrain):
        with pytest.raises(SystemExit, match="learning_rate") as raised:
            pretrain(*LOCAL, *SIZES, "--optimizer", "ntasgd", "--optimizer_arguments", "{}", "--learning_rate", "1e30",
                     "--max_grad_norm", "0", "--lr_scheduler_type", "constant")  # fmt: skip
        assert raised.value.code == 2
        assert not list(folder.glob("out/checkpoint-*/complete.json"))
        assert not (folder / "out/model.safetensors").exists()


def test_saved_recipe_is_itself_a_recipe(folder, pretrain):
    pretrain(*LOCAL, *SIZES)
    saved = yaml.safe_load((folder / "out/recipe.yaml").read_text())
    assert saved["model"]["hidden_size"] == 16
    pretrain("--output_dir", "other", recipe="./out/recipe.yaml")
    first, second = load_file("out/model.safetensors"), load_file("other/model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
