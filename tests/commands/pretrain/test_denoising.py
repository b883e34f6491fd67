"""`hfseq pretrain` on an encoder-decoder that repairs plain text, and on going on from there to translations."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

LOCAL = ["--corpus", "null", "--train_file", "text.txt", "--output_dir", "out", "--cache_dir", "cache"]
SHAPE = [
    "--d_model", "32", "--encoder_layers", "1", "--decoder_layers", "1", "--encoder_ffn_dim", "32",
    "--decoder_ffn_dim", "32", "--encoder_attention_heads", "2", "--decoder_attention_heads", "2",
]  # fmt: skip
SIZES = [
    *SHAPE, "--tokenizer.vocab_size", "340", "--row_length", "32", "--tokens_per_update", "512",
    "--num_train_epochs", "2", "--validation_share", "0.1", "--test_share", "0.1", "--prompt", "null",
]  # fmt: skip
RECIPE = "transformer-denoise-wiki"


def test_a_run_leaves_everything_and_learns(folder, pretrain, capsys):
    prompt = "and king 7 <extra_id_0> 3 years"
    pretrain(*LOCAL, *SIZES, "--num_train_epochs", "12", "--prompt", prompt, recipe=RECIPE)
    summary = json.loads((folder / "out/training_summary.json").read_text())
    for split in ("validation", "test"):
        assert summary["scores"][split]["perplexity"] < 60  # 340 at the start
    assert summary["evaluations"] and "eval_bleu" not in summary["evaluations"][-1]
    assert f"{prompt}\n  -> " in capsys.readouterr().out
    card = (folder / "out/README.md").read_text()
    assert "pipeline_tag: text2text-generation" in card and "It repairs a damaged text like this" in card
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained("out"), AutoTokenizer.from_pretrained("out")
    assert model.config.decoder_start_token_id == tokenizer.bos_token_id
    generation = json.loads((folder / "out/generation_config.json").read_text())
    assert generation["suppress_tokens"][:2] == [0, 1]
    assert tokenizer.convert_tokens_to_ids("<extra_id_0>") not in generation["suppress_tokens"]


def test_infilling_with_shuffled_sentences_resumes_to_the_bit(folder, pretrain, dies_after_saving):
    words = [*LOCAL, *SIZES, "--noise", "infilling", "--permute_sentences", "true"]
    words += ["--eval_steps", "5", "--save_steps", "5"]
    pretrain(*words, recipe=RECIPE)
    whole = load_file(folder / "out/model.safetensors")
    with dies_after_saving(10):
        pretrain(*words, "--output_dir", "again", recipe=RECIPE)
    pretrain(*words, "--output_dir", "again", recipe=RECIPE)
    resumed = load_file(folder / "again/model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_then_it_learns_to_translate(folder, pretrain):
    pytest.importorskip("sacrebleu")
    pretrain(*LOCAL, *SIZES, "--output_dir", "outputs/transformer-denoise-wiki", recipe=RECIPE)
    lines = [f"the {n} dogs\tdie {n} hunde" for n in range(100)]
    Path("pairs.tsv").write_text("\n".join(lines) + "\n")
    pretrain(
        *SHAPE, "--corpus", "null", "--train_file", "pairs.tsv", "--output_dir", "out", "--cache_dir", "cache",
        "--num_train_epochs", "2", "--average_checkpoints", "0", "--eval_steps", "0.5",
        recipe="transformer-multi30k-en-de-pretrained",
    )  # fmt: skip
    summary = json.loads((folder / "out/training_summary.json").read_text())
    assert summary["objective"] == "translation" and "bleu" in summary["scores"]["test"]
    card = (folder / "out/README.md").read_text()
    assert "trained from the weights of `outputs/transformer-denoise-wiki`" in card
    # What stands for a hole in a text is no translation.
    tokenizer = AutoTokenizer.from_pretrained("out")
    suppressed = json.loads((folder / "out/generation_config.json").read_text())["suppress_tokens"]
    assert tokenizer.convert_tokens_to_ids("<extra_id_5>") in suppressed


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--noise", "holes"], "'holes'"),
        (["--noise_rate", "1.5"], "1.5"),
        (["--sentinels", "1"], "sentinels"),
        (["--row_length", "512"], "longer than the model's 256 positions"),
        (["--prompt", "nothing is missing"], "has no <extra_id_0> to fill in"),
        (["--permute_sentences", "true"], "infilling"),
    ],
)
def test_bad_values_are_refused_before_training(folder, pretrain, capsys, words, text):
    with pytest.raises(SystemExit) as raised:
        pretrain(*LOCAL, *SIZES, *words, recipe=RECIPE)
    assert text in f"{raised.value} {capsys.readouterr().err}"
    assert not list(folder.glob("out/checkpoint-*"))
