"""`hfseq pretrain` on an encoder-decoder, on a few dozen pairs in the shape of Multi30k."""

import gzip
import json
import random
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, Trainer

from hfseq.commands import evaluate
from hfseq.training import translate

pytest.importorskip("sacrebleu")

RECIPE = "transformer-multi30k-en-de"
NUMBERS = ["one", "two", "three", "four", "five", "six"], ["eins", "zwei", "drei", "vier", "fünf", "sechs"]
THINGS = ["dogs", "cats", "birds", "men"], ["Hunde", "Katzen", "Vögel", "Männer"]
SIZES = [
    "--tokenizer.vocab_size", "330", "--d_model", "32", "--encoder_layers", "1", "--decoder_layers", "1",
    "--encoder_ffn_dim", "32", "--decoder_ffn_dim", "32", "--encoder_attention_heads", "2",
    "--decoder_attention_heads", "2", "--tokens_per_update", "256", "--num_train_epochs", "2",
    "--translated_sentences", "4", "--num_beams", "2", "--average_checkpoints", "0",
    "--output_dir", "out", "--cache_dir", "cache",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, and $HFSEQ_DATA with a small multi30k/."""
    sentences = [
        (f"Here are {NUMBERS[0][n]} {THINGS[0][a]} and {NUMBERS[0][m]} {THINGS[0][b]}.",
         f"Hier sind {NUMBERS[1][n]} {THINGS[1][a]} und {NUMBERS[1][m]} {THINGS[1][b]}.")
        for n in range(6) for m in range(6) for a in range(4) for b in range(4) if a != b
    ]  # fmt: skip
    data = tmp_path / "data" / "multi30k"
    data.mkdir(parents=True)
    random.Random(0).shuffle(sentences)
    sides = {"train": sentences[:150], "val": sentences[150:168], "test_2016_flickr": sentences[168:186]}
    for name, pairs in sides.items():
        for column, language in enumerate(("en", "de")):
            text = "".join(pair[column] + "\n" for pair in pairs)
            (data / f"{name}.{language}.gz").write_bytes(gzip.compress(text.encode()))
        (data / f"{name}.fr.gz").write_bytes((data / f"{name}.de.gz").read_bytes())
    monkeypatch.setenv("HFSEQ_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_leaves_everything_and_learns(folder, pretrain, capsys):
    prompt = "Here are two dogs and six cats."
    pretrain(*SIZES, "--num_train_epochs", "50", "--dropout", "0.0", "--eval_steps", "0.5", "--prompt", prompt,
             "--learning_rate", "0.01", recipe=RECIPE)  # fmt: skip
    output = folder / "out"
    summary = json.loads((output / "training_summary.json").read_text())
    for split in ("validation", "test"):
        score = summary["scores"][split]
        assert score["bleu_lowercase"] > 50 and score["chrf"] > 50  # near 0 untrained
        assert score["perplexity"] < 2
        assert "case:lc" in score["bleu_lowercase_signature"]
    assert summary["scores"]["test"]["sentences"] == 18
    assert summary["evaluations"][-1]["eval_bleu_lowercase"] > 50
    assert "tok:13a" in summary["evaluation_signatures"]["eval_bleu_signature"]
    assert summary["train_pairs"] == 150 and summary["train_target_tokens"] > 1500
    printed = capsys.readouterr()
    assert "-> hier sind" in printed.out and "4 sentences: BLEU" in printed.err

    card = (output / "README.md").read_text()
    assert "pipeline_tag: translation" in card and "license: other" in card and "- de" in card
    assert f"{summary['scores']['test']['bleu_lowercase']:.2f}" in card
    assert "AutoModelForSeq2SeqLM" in card and "case:lc" in card and prompt in card
    assert (output / "loss_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    # Padding, the start token and surplus ids are never generated; beams come from the config.
    generation = json.loads((output / "generation_config.json").read_text())
    assert generation["num_beams"] == 2 and generation["max_length"] == 256
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    surplus = range(len(tokenizer), model.config.vocab_size)
    assert generation["suppress_tokens"] == [0, 1, *surplus]
    assert model.config.decoder_start_token_id == tokenizer.bos_token_id
    assert translate(model, tokenizer, [prompt]) == [summary["translation"]]


def test_evaluate_repeats_what_the_run_measured(folder, pretrain, capsys):
    separate = ["--vocabulary", "separate"]  # the other tests have one vocabulary
    pretrain(*SIZES, *separate, "--num_train_epochs", "8", recipe=RECIPE)
    config = json.loads((folder / "out/config.json").read_text())
    assert not config["share_encoder_decoder_embeddings"]
    assert (folder / "out/target_tokenizer/tokenizer.json").is_file()
    expected = json.loads((folder / "out/training_summary.json").read_text())["scores"]["test"]
    sides = [f"data/multi30k/test_2016_flickr.{language}.gz" for language in ("en", "de")]
    for number, source in enumerate((["--corpus", "multi30k"], ["--pairs", *sides])):
        evaluate.main(["out", *source, "--output", "scores.json", "--output_text", f"{number}.hyp"])
        scores = json.loads((folder / "scores.json").read_text())
        for name in ("bleu", "bleu_lowercase", "chrf", "bleu_signature"):
            assert scores[name] == expected[name]
        assert len((folder / f"{number}.hyp").read_text().splitlines()) == expected["sentences"]
    assert "tok:13a" in capsys.readouterr().out
    (folder / "short.de").write_text("Eine Zeile.\n")
    for words, text in (
        (["--pairs", sides[0], "short.de"], f"{sides[0]} has 18 lines, short.de has 1"),
        (["--pairs", "nowhere.tsv"], "nowhere.tsv"),
        (["--corpus", "kjv"], "kjv"),
        (["--file", "text.txt"], "needs pairs: give --pairs SOURCE TARGET"),
    ):
        with pytest.raises(SystemExit):
            evaluate.main(["out", *words])
        assert text in capsys.readouterr().err


def test_interrupted_and_resumed_equals_uninterrupted(folder, pretrain, dies_after_saving):
    words = [*SIZES, "--eval_steps", "4", "--save_steps", "4", "--average_checkpoints", "2"]
    pretrain(*words, recipe=RECIPE)
    whole = load_file(folder / "out/model.safetensors")
    before = json.loads((folder / "out/training_summary.json").read_text())
    with dies_after_saving(8):
        pretrain(*words, "--output_dir", "again", recipe=RECIPE)
    pretrain(*words, "--output_dir", "again", recipe=RECIPE)
    resumed = load_file(folder / "again/model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
    after = json.loads((folder / "again/training_summary.json").read_text())
    for key in ("scores", "evaluations", "averaging"):
        assert before[key] == after[key]


@pytest.mark.parametrize("better", ["last", "average"])
def test_validation_chooses_between_the_last_weights_and_their_mean(folder, pretrain, monkeypatch, better):
    from hfseq.training import weight_averaging

    seen = []
    mean = weight_averaging.average_weights

    def remember(checkpoints):
        weights = mean(checkpoints)
        if better == "last":  # spoilt, so that validation must refuse it
            weights = {name: torch.randn_like(tensor) for name, tensor in weights.items()}
        seen.append((checkpoints, weights))
        return weights

    monkeypatch.setattr("hfseq.training.average_weights", remember)
    if better == "average":  # spoilt after the last checkpoint
        train = Trainer.train

        def spoil(self, *args, **kwargs):
            result = train(self, *args, **kwargs)
            for parameter in self.model.parameters():
                torch.nn.init.normal_(parameter)
            return result

        monkeypatch.setattr(Trainer, "train", spoil)
    pretrain(*SIZES, "--average_checkpoints", "3", "--eval_steps", "0.1", "--num_train_epochs", "10",
             "--dropout", "0", recipe=RECIPE)  # fmt: skip
    summary = json.loads((folder / "out/training_summary.json").read_text())
    averaging = summary["averaging"]
    ((checkpoints, weights),) = seen
    assert averaging["checkpoints"] == [int(path.name[11:]) for path in checkpoints]
    assert len(checkpoints) == 3 and averaging["score"] == "bleu_lowercase"
    scores = {name: score["bleu_lowercase"] for name, score in averaging["validation"].items()}
    kept = "average" if scores["average"] > scores["last"] else "last"
    assert averaging["kept"] == kept
    assert summary["scores"]["validation"] == averaging["validation"][kept]
    expected = weights if kept == "average" else load_file(checkpoints[-1] / "model.safetensors")
    saved = load_file(folder / "out/model.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in saved.items())
    assert kept == better
    card = (folder / "out/README.md").read_text()
    assert "mean of the last 3 checkpoints" in card and "(kept)" in card


def test_a_run_goes_on_from_another_ones_weights(folder, pretrain):
    pretrain(*SIZES, "--num_train_epochs", "8", recipe=RECIPE)
    first = json.loads((folder / "out/training_summary.json").read_text())
    more = [
        "--initialize_from",
        "out",
        "--tokenizer.path",
        "out",
        "--output_dir",
        "more",
        "--learning_rate",
        "1e-6",
    ]
    pretrain(*SIZES[2:], *more, "--dropout", "0.1", recipe=RECIPE)  # the tokenizer is there already
    second = json.loads((folder / "more/training_summary.json").read_text())
    assert second["scores"]["test"]["loss"] == pytest.approx(first["scores"]["test"]["loss"], abs=0.01)
    assert json.loads((folder / "more/config.json").read_text())["dropout"] == 0.1


def test_pairs_from_a_table(folder, pretrain, capsys):
    lines = [f"the {n} dogs\tdie {n} Hunde" for n in range(199)] + ["the " * 70 + "dogs\tdie Hunde"]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
    words = [
        "--corpus",
        "null",
        "--train_file",
        "pairs.tsv",
        "--test_share",
        "0",
        "--max_source_length",
        "60",
    ]
    # Rows of several pairs, which the model keeps apart.
    pretrain(*SIZES, *words, "--packing", "packed", "--row_length", "64", recipe=RECIPE)
    summary = json.loads((folder / "out/training_summary.json").read_text())
    assert list(summary["scores"]) == ["validation"]
    dropped = 200 - summary["train_pairs"] - summary["scores"]["validation"]["sentences"]
    assert dropped == 1 and "Dropped 1 of" in summary["filter"] and "1 source too long" in summary["filter"]
    assert summary["filter"] in capsys.readouterr().out
    card = (folder / "out/README.md").read_text()
    assert "local text files" in card and "licence of the training data was not known" in card


@pytest.mark.parametrize("name", ["transformer-iwslt14-de-en", "transformer-base-wmt14"])
def test_recipes_for_users_run_on_other_pairs(folder, pretrain, name):
    """The recipes' own settings, on a small model and a small table."""
    lines = [f"the {n} dogs\tdie {n} Hunde" for n in range(200)]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n")
    words = [
        "--corpus",
        "null",
        "--train_file",
        "pairs.tsv",
        "--validation_file",
        "null",
        "--test_file",
        "null",
    ]
    few = ["--bf16", "false", "--warmup_steps", "2", "--eval_steps", "0.5", "--logging_steps", "0.5"]
    pretrain(*SIZES, *words, *few, recipe=name)
    summary = json.loads((folder / "out/training_summary.json").read_text())
    assert set(summary["scores"]) == {"validation", "test"} and summary["filter"].startswith("Dropped 0")


def test_french_too(folder, pretrain):
    pretrain(*SIZES, "--translated_sentences", "0", recipe="transformer-multi30k-en-fr")
    summary = json.loads((folder / "out/training_summary.json").read_text())
    assert summary["language"] == ["en", "fr"]
    assert not any("eval_bleu" in entry for entry in summary["evaluations"])
    assert "moses-fr" in summary["scores"]["test"].get("tokenized_bleu_signature", "moses-fr")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--corpus", "kjv"], "'kjv'"),
        (["--target_language", "xx"], "xx"),
        (["--tokens_per_update", "10"], "tokens_per_update"),
        (["--initialize_from", "nowhere"], "nowhere"),
        (["--decoder_attention_heads", "5"], "decoder_attention_heads"),
        (["--tokenizer.path", "nowhere"], "nowhere"),
        (["--max_position_embeddings", "8"], "max_position_embeddings 8. Raise that"),
        (["--max_length_ratio", "0.5"], "max_length_ratio is 0.5"),
        (
            ["--corpus", "null", "--train_file", "t.tsv", "--validation_share", "0"],
            "There is no validation side",
        ),
        (["--packing", "nsp"], "packing 'nsp' of pairs"),
        (["--packing", "packed", "--row_length", "512"], "row_length 512 is longer than"),
        (["--vocabulary", "two"], "vocabulary 'two'"),
        (["--average_checkpoints", "1"], "at least 2"),
        (["--average_checkpoints", "3", "--save_total_limit", "2"], "save_total_limit keeps only 2"),
        (["--average_checkpoints", "9", "--eval_steps", "0.2"], "only 5 times: lower save_steps"),
        (
            ["--average_checkpoints", "2", "--save_strategy", "epoch"],
            "save_strategy must be steps, not epoch",
        ),
        (["--average_checkpoints", "2", "--load_best_model_at_end", "true"], "use one of the two"),
    ],
)
def test_bad_values_are_refused_before_training(folder, pretrain, capsys, words, text):
    (folder / "t.tsv").write_text("".join(f"the {n} dogs\tdie {n} Hunde\n" for n in range(60)))
    with pytest.raises(SystemExit) as raised:
        pretrain(*SIZES, *words, recipe=RECIPE)
    assert text in f"{raised.value} {capsys.readouterr().err}"
    assert not list(folder.glob("out/checkpoint-*"))


def test_without_sacrebleu_nothing_begins(folder, pretrain, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(SystemExit, match=r"hfseq\[metrics\]"):
        pretrain(*SIZES, recipe=RECIPE)
