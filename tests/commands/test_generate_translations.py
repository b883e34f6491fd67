"""hfseq generate with an encoder-decoder: a tiny untrained one."""

from __future__ import annotations

import gzip

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
def lines(run):
    """The lines that hfseq generate prints."""
    return lambda *words, stdin="": run("generate", *words, stdin=stdin).split("\n")[:-1]


def alone(checkpoint, line: str, **options) -> list[str]:
    model = TransformerForSeq2SeqLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    options = {"max_length": 12, "no_repeat_ngram_size": 1, **options}
    ids = model.generate(**tokenizer(line, return_tensors="pt"), **options)
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def test_lines_keep_their_order_and_blank_ones_stay_blank(lines, checkpoint, tmp_path):
    printed = lines(checkpoint, *OPTIONS, "--num_beams", 3, stdin="\n".join(LINES) + "\n")
    expected = [alone(checkpoint, line, num_beams=3)[0] if line.strip() else "" for line in LINES]
    assert printed == expected and len(set(filter(None, printed))) == 3
    with gzip.open(tmp_path / "in.gz", "wt", encoding="utf-8") as file:
        file.write("\r\n".join(LINES))
    files = ["--input", tmp_path / "in.gz", "--output", tmp_path / "out.txt", "--batch_tokens", 1]
    assert lines(checkpoint, *OPTIONS, "--num_beams", 3, *files) == []
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "".join(f"{line}\n" for line in expected)


def test_several_translations_of_each(lines, checkpoint):
    beams = {"num_beams": 3, "num_return_sequences": 2}
    words = [word for name, value in beams.items() for word in (f"--{name}", value)]
    printed = lines(checkpoint, *OPTIONS, *words, "--batch_size", 2, stdin="\n".join(LINES))
    expected = [
        text for line in LINES for text in (alone(checkpoint, line, **beams) if line.strip() else ["", ""])
    ]
    assert printed == expected


def test_one_sentence_and_its_attention(lines, checkpoint, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hfseq[report]'")
    words = [checkpoint, *OPTIONS, "--prompt", LINES[0]]
    plain = lines(*words)
    assert plain == alone(checkpoint, LINES[0])
    for plotted in ("cross", "encoder"):
        picture = tmp_path / f"{plotted}.png"
        assert lines(*words, "--plot-attention", picture, "--plotted", plotted) == plain
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_attention_beside_that_of_another_model(lines, checkpoint, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install 'hfseq[report]'")
    words = [checkpoint, *OPTIONS, "--prompt", LINES[0], "--plot_attention", tmp_path / "both.png"]
    assert lines(*words, "--beside", checkpoint) == alone(checkpoint, LINES[0])
    assert (tmp_path / "both.png").read_bytes().startswith(b"\x89PNG")


def test_stop_strings_and_max_length(lines, checkpoint):
    plain = lines(checkpoint, *OPTIONS, "--prompt", "dogs")[0]
    first = plain[: len(plain) // 2]
    assert first and plain != first
    for options in (["--stop_strings", first], ["--stop_strings", f"[{first}]", "--num_return_sequences", 1]):
        assert lines(checkpoint, *OPTIONS, *options, "--prompt", "dogs")[0].startswith(first)
        assert len(lines(checkpoint, *OPTIONS, *options, "--prompt", "dogs")[0]) < len(plain)
    both = lines(
        checkpoint, *OPTIONS, "--num_beams", 2, "--num_return_sequences", 2, "--stop_strings", first,
        "--prompt", "dogs",
    )  # fmt: skip
    assert len(both) == 2


def test_bad_input(refused, checkpoint, tmp_path):
    def message(*words, stdin="") -> str:
        return refused("generate", *words, stdin=stdin)

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
