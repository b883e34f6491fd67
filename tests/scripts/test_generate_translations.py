"""scripts/generate.py with an encoder-decoder: a tiny untrained one."""

from __future__ import annotations

import gzip
import importlib.util
import io
import sys

import pytest
import torch
from transformers import AutoTokenizer

from hfseq import TransformerConfig, TransformerForSeq2SeqLM, data
from hfseq.contracts.cases import sharpen

LINES = ["Two men walk 7 dogs through the park.", "", "dogs", "   ", "The park"]
OPTIONS = ["--max_length", "12", "--no_repeat_ngram_size", "1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    texts = [f"Two men walk {n} dogs through the park." for n in range(30)]
    tokenizer = data.train_tokenizer(texts, "bpe", 300, translation=True)
    config = TransformerConfig(
        d_model=16, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=40,
        decoder_start_token_id=tokenizer.bos_token_id, **data.tokenizer_config_fields(tokenizer),
    )  # fmt: skip
    model = TransformerForSeq2SeqLM(config)
    with torch.no_grad():
        sharpen(model, 0.6, seed=0)
    # Printable letters only: what an untrained model says may be anything else.
    letters = [i for i in range(len(tokenizer)) if tokenizer.decode([i]).strip().isalpha()]
    others = set(range(config.vocab_size)) - {*letters, tokenizer.eos_token_id}
    model.generation_config.suppress_tokens = sorted(others)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def run(repository, monkeypatch, capsys):
    def call(*words, stdin: str = "") -> list[str]:
        spec = importlib.util.spec_from_file_location("generate_script", repository / "scripts/generate.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(sys, "argv", ["generate.py", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        module.main()
        return capsys.readouterr().out.split("\n")[:-1]

    return call


def alone(checkpoint, line: str, **options) -> list[str]:
    model = TransformerForSeq2SeqLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    options = {"max_length": 12, "no_repeat_ngram_size": 1, **options}
    ids = model.generate(**tokenizer(line, return_tensors="pt"), **options)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def test_lines_keep_their_order_and_blank_ones_stay_blank(run, checkpoint, tmp_path):
    printed = run(checkpoint, *OPTIONS, "--num_beams", 3, stdin="\n".join(LINES) + "\n")
    expected = [alone(checkpoint, line, num_beams=3)[0] if line.strip() else "" for line in LINES]
    assert printed == expected and len(set(filter(None, printed))) == 3
    with gzip.open(tmp_path / "in.gz", "wt", encoding="utf-8") as file:
        file.write("\r\n".join(LINES))
    files = ["--input", tmp_path / "in.gz", "--output", tmp_path / "out.txt", "--batch_tokens", 1]
    assert run(checkpoint, *OPTIONS, "--num_beams", 3, *files) == []
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "".join(f"{line}\n" for line in expected)


def test_several_translations_of_each(run, checkpoint):
    beams = {"num_beams": 3, "num_return_sequences": 2}
    words = [word for name, value in beams.items() for word in (f"--{name}", value)]
    printed = run(checkpoint, *OPTIONS, *words, "--batch_size", 2, stdin="\n".join(LINES))
    expected = [
        text for line in LINES for text in (alone(checkpoint, line, **beams) if line.strip() else ["", ""])
    ]
    assert printed == expected


def test_one_sentence_and_its_attention(run, checkpoint, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hfseq[report]'")
    words = [checkpoint, *OPTIONS, "--prompt", LINES[0]]
    plain = run(*words)
    assert plain == alone(checkpoint, LINES[0])
    for plotted in ("cross", "encoder"):
        picture = tmp_path / f"{plotted}.png"
        assert run(*words, "--plot-attention", picture, "--plotted", plotted) == plain
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_attention_beside_that_of_another_model(run, checkpoint, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hfseq[report]'")
    words = [checkpoint, *OPTIONS, "--prompt", LINES[0], "--plot_attention", tmp_path / "both.png"]
    assert run(*words, "--beside", checkpoint) == alone(checkpoint, LINES[0])
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")


def test_bad_input(run, checkpoint, capsys, tmp_path):
    def message(*words, stdin="") -> str:
        with pytest.raises(SystemExit):
            run(*words, stdin=stdin)
        return capsys.readouterr().err

    assert "nothing to continue or translate" in message(checkpoint, stdin=" \n\n")
    long = "ok\n" + "Two men walk. " * 30
    assert "Source 2 has" in message(checkpoint, stdin=long)
    assert "no-such-file" in message(checkpoint, "--input", tmp_path / "no-such-file")
    two = message(checkpoint, "--plot_attention", tmp_path / "a.png", stdin="dogs\nmen\n")
    assert "draws one sentence: give it by --prompt" in two
    alone = message(checkpoint, "--prompt", "a", "--beside", checkpoint)
    assert "it needs --plot_attention FILE.png" in alone
    assert "--batch_tokens must be at least 1, not 0" in message(
        checkpoint, "--batch_tokens", 0, "--prompt", "a"
    )
    assert not list(tmp_path.iterdir())
