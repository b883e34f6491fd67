"""Vector-to-sequence from the shell: a table with numbers, its training, and texts from new vectors."""

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, BertConfig, BertModel

from hfseq import data

ROOT = Path(__file__).parents[3]
SIZES = ["--tokenizer.type", "word", "--hidden_size", "24", "--embedding_size", "8"]
SIZES += ["--tokens_per_update", "64"]
SIZES += ["--cache_dir", "cache", "--eval_steps", "0.5", "--input_dropout", "0", "--output_dropout", "0"]
SIZES += ["--optimizer", "adamw", "--optimizer_arguments", "{}"]
OWN = ["--corpus", "null", "--train_file", "table.csv", "--text_column", "name", "--validation_share", "0.2"]
OWN += ["--test_share", "0.2"]


@pytest.fixture
def table(folder):
    """Names that say where a point lies: without the vector nobody can know."""
    places = [
        ("left", "low", -1, -1),
        ("left", "high", -1, 1),
        ("right", "low", 1, -1),
        ("right", "high", 1, 1),
    ]
    rows = [f"{x} {y} {n},{a},{b}" for n in range(40) for x, y, a, b in places]
    (folder / "table.csv").write_text("name,x,y\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def script(monkeypatch, capsys):
    def call(name: str, *words: str) -> str:
        capsys.readouterr()
        folder, _, name = name.rpartition("/")
        if folder:
            spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / folder / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
            module.main()
        else:
            importlib.import_module(f"hfseq.commands.{name}").main([str(word) for word in words])
        return capsys.readouterr().out

    return call


def fails(capsys, call, *words) -> str:
    with pytest.raises(SystemExit) as raised:
        call(*words)
    return f"{raised.value} {capsys.readouterr().err}"


def test_a_table_is_learnt_and_new_vectors_are_described(table, pretrain, script, capsys):
    options = [*OWN, *SIZES, "--feature_columns", "[x, y]", "--num_train_epochs", "12"]
    pretrain(*options, "--prompt", "1, -1", "--output_dir", "out", recipe="lstm-colours")
    pretrain(*options, "--feature_size", "0", "--output_dir", "blind", recipe="lstm-colours")
    summary, blind = (
        json.loads((table / name / "training_summary.json").read_text()) for name in ("out", "blind")
    )
    score, without = summary["scores"]["test"], blind["scores"]["test"]
    assert score["texts"] > 10 and AutoConfig.from_pretrained("out").feature_size == 2
    # Two bits of each name are in its vector; that of another text misleads.
    assert score["bits_per_text"] < without["bits_per_text"] - 1.5
    assert score["perplexity_permuted"] > 1.5 * score["perplexity_per_token"]
    assert "perplexity_permuted" not in without and "described" not in blind
    assert summary["described"].startswith("right low")
    card = (table / "out/README.md").read_text()
    assert "right low" in card and "with the vectors of other texts" in card and "features=features" in card
    assert AutoConfig.from_pretrained("blind").feature_size == 0

    (table / "vectors.txt").write_text("-1 -1\n1, 1\n-1 1\n")
    greedy = ["--do_sample", "false", "--max_new_tokens", "12"]
    lines = script("generate", "out", "--features", "vectors.txt", *greedy).splitlines()
    assert [" ".join(line.split()[:2]) for line in lines] == ["left low", "right high", "left high"]
    assert script("generate", "out", "--features", "1 -1", *greedy).startswith("right low")
    started = script("generate", "out", "--features", "1 -1", "--prompt", "right", *greedy)
    assert started.startswith("right")

    message = fails(capsys, script, "generate", "out", "--prompt", "left")
    assert "begins every text with a vector of 2 numbers: give --features" in message
    message = fails(capsys, script, "generate", "blind", "--features", "1 1")
    assert "--features is for models with a feature_size" in message
    assert "has 3 numbers" in fails(capsys, script, "generate", "out", "--features", "1 1 1")
    assert "'nan' is not finite" in fails(capsys, script, "generate", "out", "--features", "1 nan")
    (table / "vectors.txt").write_text("1 1\n1 x\n")
    message = fails(capsys, script, "generate", "out", "--features", "vectors.txt")
    assert "vectors.txt, line 2" in message and "'x' is no number" in message
    (table / "lines.txt").write_text("left\nright\nleft\n")
    message = fails(capsys, script, "generate", "out", "--features", "vectors.txt", "--input", "lines.txt")
    assert "line 2" in message


def test_recipes_that_do_not_fit_are_refused(table, pretrain, capsys):
    def run(*words):
        return pretrain(*words, "--output_dir", "out", "--overwrite", recipe="lstm-colours")

    columns = ["--feature_columns", "[x, y]"]
    message = fails(capsys, run, *OWN, *SIZES, *columns, "--feature_size", "3")
    assert "model.feature_size 3 is not the width of the vectors, 2 (x, y)" in message
    message = fails(capsys, run, *OWN, *SIZES, "--feature_columns", "[x, z]")
    assert "no column 'z'" in message
    message = fails(capsys, run, *OWN, *SIZES, *columns, "--prompt", "1 2 3")
    assert "'1 2 3' has 3 numbers" in message
    message = fails(capsys, run, *OWN, *SIZES, *columns, "--prompt", "null", "--tokens_per_update", "3")
    assert "raise tokens_per_update" in message
    message = fails(capsys, run, *SIZES, "--corpus", "[kjv, wiki]")
    assert "data.corpus must be str | None" in message


def test_named_colours_get_a_picture_and_distances(folder, pretrain, script, capsys):
    try:
        importlib.metadata.distribution("colourmapper-dev")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("colourmapper-dev is not installed (extra demo)")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra report)")
    # few of them to train on and to name
    sizes = "--hidden_size 8 --embedding_size 8 --tokens_per_update 32768 --max_steps 3 --eval_steps 0.9"
    shares = "--tokenizer.vocab_size 300 --cache_dir cache --test_share 0.005 --validation_share 0.005"
    small = [*sizes.split(), *shares.split()]
    pretrain(*small, "--output_dir", "out", recipe="lstm-colours")
    printed = script("examples/swatches", "out", "--colours", "#c04e01", "#0000ff").splitlines()
    assert [line.split()[0] for line in printed] == ["#c04e01", "#0000ff"]
    script("examples/swatches", "out", "--twin", "out")
    summary = json.loads((folder / "out/training_summary.json").read_text())
    rows = {row["names"]: row for row in summary["swatches"]["distances"]}
    assert set(rows) >= {"most likely (4 beams)", "sampled", "the names in the table"}
    assert (folder / "out/swatches.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    card = (folder / "out/README.md").read_text()
    assert "](swatches.png)" in card and "trained without the vector" in card and "mean distance" in card
    assert "'#12' is no colour" in fails(capsys, script, "examples/swatches", "out", "--colours", "#12")


def test_the_vectors_of_an_encoder_make_a_table(tmp_path, monkeypatch, capsys):
    """With a small random encoder; a published one loads by the same call."""
    torch.manual_seed(0)
    texts = [f"A {size} dog number {n}." for n in range(30) for size in ("small", "large")]
    tokenizer = data.train_tokenizer(texts, "wordpiece", 80, masked=True)
    config = BertConfig(
        vocab_size=80, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = BertModel(config).eval()
    model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    spec = importlib.util.spec_from_file_location("encode_texts", ROOT / "scripts/examples/encode_texts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["encode_texts", *map(str, words)])
        module.main()

    run(tmp_path / "encoder", tmp_path / "texts.txt", tmp_path / "table.jsonl", "--batch_size", "7")
    table = data.load_features(train_file=str(tmp_path / "table.jsonl"), feature_columns="vector")
    assert table.width == 8
    with torch.no_grad():
        for text, vector in zip(table.texts["train"][:5], table.features["train"], strict=False):
            mean = model(**tokenizer([text], return_tensors="pt")).last_hidden_state.mean(1)
            expected = mean[0] / mean.norm() * 8**0.5
            torch.testing.assert_close(torch.from_numpy(vector), expected, atol=1e-4, rtol=0)
    (tmp_path / "short.txt").write_text("one\n")
    files = [tmp_path / name for name in ("texts.txt", "table.jsonl")]
    message = fails(capsys, run, tmp_path / "encoder", *files, "--targets", tmp_path / "short.txt")
    assert "60 lines" in message
