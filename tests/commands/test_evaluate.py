"""hfseq evaluate on a tiny untrained language model: which text it scores, and that the numbers are right."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from hfseq import LSTMForCausalLM, data


def scores_of(run, folder, *words) -> dict:
    run("evaluate", *words, "--output", folder / "out.json")
    return json.loads((folder / "out.json").read_text())


def direct_loss(directory, documents: list[str]) -> tuple[float, int]:
    """Mean loss by one forward pass over the documents, and how many targets there are."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = [tokenizer.eos_token_id]
    for document in documents:
        ids += [*tokenizer(document).input_ids, tokenizer.eos_token_id]
    model = LSTMForCausalLM.from_pretrained(directory).eval()
    with torch.no_grad():
        return model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.item(), len(ids) - 1


def test_scores_are_the_loss_over_the_whole_text(run, language_model, texts, tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    scores = scores_of(run, tmp_path, language_model, "--file", tmp_path / "text.txt", "--streams", 1)
    loss, targets = direct_loss(language_model, texts)
    size = sum(len(document.encode()) for document in texts)
    assert scores["tokens"] == targets and scores["bytes"] == size
    assert scores["loss"] == pytest.approx(loss, rel=1e-5)
    assert scores["bits_per_byte"] == pytest.approx(loss * targets / math.log(2) / size, rel=1e-5)


def test_a_file_is_not_read_twice(run, language_model, texts, tmp_path, caplog):
    """All of it is held out: no training text stands there as well."""
    (tmp_path / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    run("evaluate", language_model, "--file", tmp_path / "text.txt", "--streams", 1)
    assert "stand in the validation" not in caplog.text


def test_scores_and_translations_go_to_different_files(refused, language_model, tmp_path):
    same = tmp_path / "same"
    assert "both name" in refused(
        "evaluate", language_model, "--output", same, "--output_text", tmp_path / "./same"
    )


@pytest.fixture
def run_directory(language_model, texts, tmp_path):
    """What a run leaves: the checkpoint and the recipe that says how its text was split."""
    directory = tmp_path / "run"
    shutil.copytree(language_model, directory)
    (tmp_path / "text.txt").write_text("\n\n".join([*texts, *texts[:3]]), encoding="utf-8")
    section = {
        "train_file": str(tmp_path / "text.txt"), "validation_share": 0.2, "test_share": 0.3, "split_seed": 7,
        "deduplicate": "exact",
    }  # fmt: skip
    recipe = {"data": section, "model": {"model_type": "hfseq_lstm"}}
    (directory / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return directory


def held_out(tmp_path, side: str, **changes) -> list[str]:
    options = {"validation_share": 0.2, "test_share": 0.3, "split_seed": 7, "deduplicate": "exact", **changes}
    corpus = data.load_corpus(None, train_file=str(tmp_path / "text.txt"), **options)
    return list(getattr(corpus, side))


def test_a_run_is_scored_on_what_its_own_recipe_held_out(run, run_directory, tmp_path):
    for words, side, changes in (
        ([], "test", {}),
        (["--split", "validation"], "validation", {}),
        (["--split_seed", "8"], "test", {"split_seed": 8}),
    ):
        scores = scores_of(run, tmp_path, run_directory, "--streams", 1, *words)
        documents = held_out(tmp_path, side, **changes)
        loss, targets = direct_loss(run_directory, documents)
        assert scores["tokens"] == targets and scores["loss"] == pytest.approx(loss, rel=1e-5)
        assert scores["split"] == side and scores["split_seed"] == changes.get("split_seed", 7)
        assert scores["split_by"] == str(run_directory / "recipe.yaml")
    assert held_out(tmp_path, "test") != held_out(tmp_path, "test", split_seed=8)
    assert "split test" in run("evaluate", run_directory)


def damaged(directory, change) -> None:
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("lm_head.bias"), "lacks lm_head.bias of LSTMForCausalLM"),
        (lambda w: w.update(extra=torch.zeros(2)), "holds extra, which LSTMForCausalLM does not have"),
        (lambda w: w.update({"lm_head.bias": torch.zeros(3)}), "lm_head.bias is 3 there, 320 by the config"),
        (lambda w: w["lm_head.bias"].fill_(float("nan")), "lm_head.bias holds numbers that are not finite"),
    ],
    ids=["missing", "unexpected", "mismatched", "not finite"],
)
@pytest.mark.parametrize("command", ["evaluate", "generate", "push", "check"])
def test_damaged_weights_are_refused(run_directory, refused, change, message, command, tmp_path):
    damaged(run_directory, change)
    more = {"generate": ["--prompt", "a"], "push": ["--directory", tmp_path / "out"]}.get(command, [])
    told = refused(command, run_directory, *more)
    assert message in told and str(run_directory / "model.safetensors") in told


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "is not a valid JSON file"),
        (
            "config.json",
            '{"model_type": "hfseq_lstm", "hidden_size": "many"}',
            "Field 'hidden_size' expected int",
        ),
        ("config.json", '{"model_type": ["gpt2"]}', "config.json"),
        ("generation_config.json", "{", "generation_config.json, line 1: not JSON"),
        ("tokenizer.json", "{", "tokenizer.json cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["evaluate", "generate", "push", "check"])
def test_damaged_files_are_refused(run_directory, refused, file, content, message, command, tmp_path):
    """A generation_config that cannot be read would be left out, and suppressed tokens come out."""
    if command == "check" and file == "tokenizer.json":
        pytest.skip("no contract needs a tokenizer")
    (run_directory / file).write_text(content)
    more = {"generate": ["--prompt", "a"], "push": ["--directory", tmp_path / "out"]}.get(command, [])
    assert message in refused(command, run_directory, *more)


def test_a_file_that_was_cut(run_directory, refused):
    file = run_directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file} cannot be read" in refused("evaluate", run_directory)


def test_bad_input(refused, language_model, tmp_path):
    assert "missing.txt" in refused("evaluate", language_model, "--file", tmp_path / "missing.txt")
    assert "has no recipe.yaml that says what text is its own" in refused("evaluate", language_model)
    (tmp_path / "text.txt").write_text("some text")
    file = ["--file", tmp_path / "text.txt"]
    assert "--split is of a corpus" in refused("evaluate", language_model, *file, "--split", "test")
    assert "--streams must be at least 1" in refused("evaluate", language_model, *file, "--streams", 0)
    pairs = refused("evaluate", language_model, "--pairs", "a", "b")
    assert "--pairs and --output_text are for translation" in pairs
    out = refused("evaluate", language_model, *file, "--output", tmp_path / "no/out.json")
    assert f"there is no folder {tmp_path / 'no'}" in out


def test_rows_that_are_longer_than_the_models_positions(refused, language_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    config = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=12, **data.tokenizer_config_fields(tokenizer)
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "text.txt").write_text("some text\n" * 40)
    message = refused("evaluate", tmp_path, "--file", tmp_path / "text.txt", "--row_length", 40)
    assert "row_length 40 is longer than the model's 12 positions" in message


@pytest.mark.long
def test_two_processes_score_what_one_does(language_model, texts, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("\n\n".join(texts))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = ["evaluate", str(language_model), "--file", str(file), "--output"]
    for name, launcher in {
        "one": [],
        "two": ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"],
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "hfseq", *words, str(tmp_path / name)],
            capture_output=True, text=True, timeout=240, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("bits per byte") + done.stdout.count("bits_per_byte") == 1
    one, two = (json.loads((tmp_path / name).read_text()) for name in ("one", "two"))
    assert two.pop("nll") == pytest.approx(one.pop("nll"), rel=1e-6)
    assert two["tokens"] == one["tokens"]


def test_a_model_that_adapts_is_reported_apart(run, run_directory, tmp_path):
    words = ["--dynamic_evaluation", "tokens=4", "batches=2", "--neural_cache", "size=9"]
    plain = scores_of(run, tmp_path, run_directory)
    scores = scores_of(run, tmp_path, run_directory, *words)
    adapted = scores.pop("adapted")
    assert scores == plain
    assert adapted.pop("dynamic") == {
        "rate": 0.002,
        "decay": 0.02,
        "epsilon": 0.001,
        "tokens": 4,
        "batches": 2,
    }
    assert adapted.pop("cache") == {"size": 9, "theta": 10.0, "weight": 0.15}
    assert set(adapted) <= set(plain) and adapted["tokens"] == plain["tokens"]
    assert adapted["bits_per_byte"] != plain["bits_per_byte"]
    printed = run("evaluate", run_directory, *words)
    assert "adapting to the text" in printed and printed.count("bits_per_byte") == 2


def test_adapting_is_refused_where_it_cannot_be(refused, language_model, texts, tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    scored = ("evaluate", language_model, "--file", tmp_path / "text.txt")
    assert "needs the training text" in refused(*scored, "--dynamic_evaluation")
    assert "--neural_cache: 'sise=3' is no NAME=NUMBER" in refused(*scored, "--neural_cache", "sise=3")
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    fields = data.tokenizer_config_fields(tokenizer)
    fields.pop("pad_token_id", None)
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, n_positions=32, **fields)).save_pretrained(
        tmp_path / "gpt"
    )
    tokenizer.save_pretrained(tmp_path / "gpt")
    said = refused("evaluate", tmp_path / "gpt", "--file", tmp_path / "text.txt", "--neural_cache")
    assert "for models that carry their state" in said
    assert "--neural_cache is not for --benchmark blimp" in refused(
        *scored, "--benchmark", "blimp", "--neural_cache"
    )
