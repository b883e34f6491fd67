"""`hfseq pretrain` on encoders, on a text of a few kilobytes."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining, AutoTokenizer, pipeline

from hfseq.commands import evaluate

LOCAL = ["--corpus", "null", "--train_file", "text.txt", "--output_dir", "out", "--cache_dir", "cache"]
SIZES = [
    "--tokenizer.vocab_size", "120", "--hidden_size", "16", "--num_hidden_layers", "2", "--num_attention_heads", "2",
    "--intermediate_size", "32", "--tokens_per_update", "512", "--row_length", "64", "--num_train_epochs", "2",
    "--validation_share", "0.1", "--test_share", "0.1",
]  # fmt: skip
RECIPE = "encoder-kjv"


def test_a_run_leaves_everything_and_learns(folder, pretrain, capsys):
    pretrain(
        *LOCAL,
        *SIZES,
        "--tokenizer.type",
        "bpe",
        "--tokenizer.vocab_size",
        "320",
        "--num_train_epochs",
        "30",
        "--prompt",
        "And king 7[MASK] 3 years",
        recipe=RECIPE,
    )
    output = folder / "out"
    summary = json.loads((output / "training_summary.json").read_text())
    for split in ("validation", "test"):
        score = summary["scores"][split]
        assert score["perplexity"] < 40  # 60 at the start
        assert 0 < score["accuracy"] <= 1
        assert score["targets"] < score["tokens"] / 6
    printed = capsys.readouterr().out
    assert "perplexity of masked tokens" in printed and "reigned" in printed
    card = (output / "README.md").read_text()
    assert f"{summary['scores']['test']['accuracy']:.4f}" in card
    assert "pipeline_tag: fill-mask" in card and "AutoModelForCausalLM" not in card
    fill = pipeline("fill-mask", model=str(output))
    assert fill("And king 7 [MASK] 3 years")[0]["token_str"].strip() == "reigned"


def test_evaluate_repeats_what_the_run_measured(folder, pretrain):
    (folder / "held.txt").write_text(
        "And king 3 reigned 2 years in the city of 6.\n\n" * 30, encoding="utf-8"
    )
    pretrain(*LOCAL, *SIZES, "--test_share", "0", "--validation_file", "held.txt", recipe=RECIPE)
    score = json.loads((folder / "out/training_summary.json").read_text())["scores"]["validation"]
    words = ["--file", "held.txt", "--output", "scores.json", "--packing", "documents", "--row_length", "64"]
    evaluate.main(["out", *words])
    assert json.loads((folder / "scores.json").read_text())["loss"] == pytest.approx(score["loss"], rel=1e-5)


@pytest.mark.parametrize("recipe", ["encoder-wiki-imdb", "encoder-base"])
def test_every_recipe_runs(folder, pretrain, recipe):
    compiled = ["--bf16", "false", "--torch_compile", "false"] if recipe == "encoder-base" else []
    pretrain(*LOCAL, *SIZES, *compiled, "--streaming", "false", recipe=recipe)
    assert (folder / "out/training_summary.json").is_file()


@pytest.mark.parametrize("packing", ["blocks", "sentences", "nsp", "sop"])
def test_every_packing_runs(folder, pretrain, packing):
    pretrain(*LOCAL, *SIZES, "--packing", packing, "--type_vocab_size", "2", recipe=RECIPE)
    pairs = packing in ("nsp", "sop")
    model = (AutoModelForPreTraining if pairs else AutoModelForMaskedLM).from_pretrained("out")
    assert type(model).__name__ == ("EncoderForPreTraining" if pairs else "EncoderForMaskedLM")
    tokenizer = AutoTokenizer.from_pretrained("out")
    assert tokenizer.model_max_length == model.config.max_position_embeddings


def test_interrupted_and_resumed_equals_uninterrupted(folder, pretrain, dies_after_saving):
    words = [*LOCAL, *SIZES, "--eval_steps", "5", "--save_steps", "5", "--hidden_dropout_prob", "0.1"]
    pretrain(*words, recipe=RECIPE)
    whole = load_file(folder / "out/model.safetensors")
    with dies_after_saving(10):
        pretrain(*words, "--output_dir", "again", recipe=RECIPE)
    pretrain(*words, "--output_dir", "again", recipe=RECIPE)
    resumed = load_file(folder / "again/model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_a_curriculum_goes_from_short_to_long_rows(folder, pretrain):
    pretrain(*LOCAL, *SIZES, "--row_length", "[[0.5, 32], [0.5, 128]]", recipe=RECIPE)
    assert json.loads((folder / "out/training_summary.json").read_text())["epochs"] == 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--mask_rate", "1.5"], "rate"),
        (["--row_length", "1024", "--tokens_per_update", "1024"], "longer than the model's 512 positions"),
        (["--tokens_per_update", "500"], "500"),
        (["--packing", "whole"], "packing 'whole'"),
        (["--mask_strategy", "letter"], "letter"),
        (["--prompt", "Nothing is hidden here"], "[MASK]"),
        (["--prompt", "[MASK] and [MASK]"], "has 2 [MASK]: one is filled in"),
        (["--prompt", "[MASK] " + 600 * "a "], "too many for a model with 512 positions"),
        (["--long_documents", "error", "--packing", "documents", "--row_length", "32"], "row of 32 has room for 30"),
        (["--num_attention_heads", "3"], "num_attention_heads"),
        (["--packing", "nsp", "--type_vocab_size", "0"], "type_vocab_size"),
    ],
)  # fmt: skip
def test_bad_values_are_refused_before_training(folder, pretrain, capsys, words, text):
    with pytest.raises(SystemExit) as raised:
        pretrain(*LOCAL, *SIZES, *words, recipe=RECIPE)
    assert text in f"{raised.value} {capsys.readouterr().err}"
    assert not list(folder.glob("out/checkpoint-*"))
