"""hfseq tokenize as a user runs it."""

from __future__ import annotations

from transformers import AutoTokenizer

from hfseq.objectives.sections import saved_tokenizer


def test_trains_reports_and_does_not_overwrite(run, refused, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(f"Text number {i} is about {i * i}." for i in range(300)))
    command = [
        str(tmp_path / "out"),
        "--train_file",
        str(texts),
        "--algorithm",
        "word",
        "--vocab_size",
        "200",
    ]
    printed = run("tokenize", *command)
    assert "word tokenizer with 200 tokens" in printed and "vocab_size: 256" in printed
    assert "tokens per word" in printed and "unknown" in printed
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (
        tokenizer.decode(tokenizer("Text number 1 is about 1.")["input_ids"]) == "Text number 1 is about 1."
    )
    message = refused("tokenize", *command)
    assert "holds a tokenizer: name another directory or add --overwrite" in message
    printed = run("tokenize", *command, "--overwrite", "--algorithm", "bpe", "--vocab_size", 300)
    assert "documents decoded exactly" in printed


def test_the_home_directory(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.txt").write_text("A text.\n\nAnother text.\n")
    shares = ["--validation_share", 0, "--test_share", 0]
    run("tokenize", "~/tokens", "--train_file", "~/a.txt", "--vocab_size", 260, *shares)
    assert len(saved_tokenizer("~/tokens")) == len(saved_tokenizer(str(tmp_path / "tokens")))


def test_bad_input_is_told_before_anything_is_written(refused, tmp_path):
    message = refused("tokenize", tmp_path / "out", "--train_file", tmp_path / "*.txt")
    assert "No file matches" in message
    assert not (tmp_path / "out").exists()
