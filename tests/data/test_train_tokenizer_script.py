"""scripts/train_tokenizer.py as a user runs it."""

from __future__ import annotations

import runpy

import pytest
from transformers import AutoTokenizer


@pytest.fixture
def script(repository):
    return runpy.run_path(str(repository / "scripts" / "train_tokenizer.py"))["main"]


def test_trains_reports_and_does_not_overwrite(script, tmp_path, capsys):
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
    script(command)
    printed = capsys.readouterr().out
    assert "word tokenizer with 200 tokens" in printed and "vocab_size: 256" in printed
    assert "tokens per word" in printed and "unknown" in printed
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (
        tokenizer.decode(tokenizer("Text number 1 is about 1.")["input_ids"]) == "Text number 1 is about 1."
    )
    with pytest.raises(FileExistsError, match="holds a tokenizer.*--overwrite"):
        script(command)
    script([*command, "--overwrite", "--algorithm", "bpe", "--vocab_size", "300"])
    assert "documents decoded exactly" in capsys.readouterr().out


def test_bad_input_is_told_before_anything_is_written(script, tmp_path):
    with pytest.raises(FileNotFoundError, match="No file matches"):
        script([str(tmp_path / "out"), "--train_file", str(tmp_path / "*.txt")])
    assert not (tmp_path / "out" / "tokenizer.json").exists()
