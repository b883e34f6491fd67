"""All scripts and the pipeline with a recurrent encoder-decoder, trained on some pairs in the shape of Multi30k."""

from __future__ import annotations

import gzip
import importlib
import json

import pytest
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

from hfseq import LSTMForSeq2SeqLM

pytest.importorskip("sacrebleu")

RECIPE = "lstm-multi30k-en-de"
WORDS = [
    ("one", "eins"),
    ("two", "zwei"),
    ("three", "drei"),
    ("four", "vier"),
    ("five", "fünf"),
    ("six", "sechs"),
]
SIZES = [
    "--tokenizer.vocab_size", "300", "--embedding_size", "16", "--hidden_size", "24", "--encoder_hidden_size", "12",
    "--encoder_layers", "1", "--tokens_per_update", "128", "--num_train_epochs", "2", "--translated_sentences", "4",
    "--num_beams", "2", "--average_checkpoints", "0", "--output_dir", "out", "--cache_dir", "cache",
    "--prompt", "one two one", "--eval_steps", "0.5",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, and $HFSEQ_DATA with a small multi30k/."""
    pairs = [
        [" ".join(word[side] for word in (a, b, c)) for side in (0, 1)]
        for a in WORDS for b in WORDS for c in WORDS[:2]
    ]  # fmt: skip
    folder = tmp_path / "data" / "multi30k"
    folder.mkdir(parents=True)
    for name, part in (("train", pairs[:56]), ("val", pairs[56:64]), ("test_2016_flickr", pairs[64:])):
        for side, language in enumerate(("en", "de")):
            text = "".join(f"{pair[side]}\n" for pair in part)
            (folder / f"{name}.{language}.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("HFSEQ_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def script(capsys):
    """Calls main of a command with a command line; returns what it printed."""

    def run(name: str, *words: str) -> str:
        capsys.readouterr()
        importlib.import_module(f"hfseq.commands.{name}").main(list(words))
        return capsys.readouterr().out

    return run


def test_trained_scored_drawn_and_served(folder, pretrain, script):
    pretrain(*SIZES, recipe=RECIPE)
    output = folder / "out"
    summary = json.loads((output / "training_summary.json").read_text())
    losses = [entry["eval_loss"] for entry in summary["evaluations"]]
    assert losses[-1] < losses[0]
    card = (output / "README.md").read_text()
    assert "pipeline_tag: translation" in card and "AutoModelForSeq2SeqLM" in card
    assert "hfseq_lstm_seq2seq" in (output / "config.json").read_text()

    script("evaluate", "out", "--corpus", "multi30k", "--output", "scores.json", "--output_text", "test.hyp")
    scores = json.loads((folder / "scores.json").read_text())
    assert {name: scores[name] for name in ("bleu", "chrf")} == {
        name: summary["scores"]["test"][name] for name in ("bleu", "chrf")
    }
    # Alone or in a batch, by generate(), by the script or by the pipeline: one translation.
    lines = ["six six one", "", "two"]
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(output), AutoTokenizer.from_pretrained(output)
    assert type(model) is LSTMForSeq2SeqLM
    alone = []
    for line in lines:
        options = {"max_length": 12, "min_new_tokens": 3}
        ids = model.generate(**tokenizer(line or "x", return_tensors="pt"), **options)
        alone.append(tokenizer.decode(ids[0], skip_special_tokens=True) if line else "")
    (folder / "lines.txt").write_text("\n".join(lines) + "\n")
    options = ["--max_length", "12", "--min_new_tokens", "3"]
    assert script("generate", "out", "--input", "lines.txt", *options).split("\n")[:-1] == alone
    translate = pipeline("translation", model=str(output), device="cpu")
    served = translate(lines, batch_size=3, max_length=12, min_new_tokens=3)
    assert [
        (result[0] if isinstance(result, list) else result)["translation_text"] for result in served
    ] == alone

    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hfseq[report]'")
    script("generate", "out", "--prompt", lines[0], "--plot_attention", "attention.png")
    assert (folder / "attention.png").read_bytes().startswith(b"\x89PNG")


def test_packed_pairs_are_refused(folder, pretrain):
    with pytest.raises(
        SystemExit, match="hfseq_lstm_seq2seq takes no packed rows.*Set objective.packing to batches"
    ):
        pretrain(*SIZES, "--packing", "packed", "--row_length", "32", recipe=RECIPE)
