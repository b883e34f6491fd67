"""hfseq evaluate --benchmark: what is printed and written, and what is refused before any work."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from hfseq import LSTMForCausalLM, plots

PAIRS = [
    ("p1", "syntax", "islands", "the king came back", "the came king back"),
    ("p1", "syntax", "islands", "In the year", "In year the"),
    ("p2", "morphology", "agreement", "the king went", "the kings went"),
]


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.tsv"
    lines = ["paradigm\tfield\tphenomenon\tgood\tbad", *map("\t".join, PAIRS)]
    file.write_text("\n".join(lines) + "\n")
    return file


def score(directory, sentence: str) -> float:
    """After the end-of-document token, by one forward pass."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(sentence).input_ids]])
    model = LSTMForCausalLM.from_pretrained(directory).eval()
    with torch.no_grad():
        return -model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)


def test_minimal_pairs(run, language_model, pairs, tmp_path):
    out = tmp_path / "out.json"
    told = run("evaluate", language_model, "--benchmark", "blimp", "--file", pairs, "--output", out)
    right = [score(language_model, good) > score(language_model, bad) for *_, good, bad in PAIRS]
    expected = [50.0 * sum(right[:2]), 100.0 * right[2]]
    content = json.loads(out.read_text())
    assert content["accuracy"] == pytest.approx(sum(expected) / 2)
    assert content["by_phenomenon"] == {"islands": expected[0], "agreement": expected[1]}
    assert (content["pairs"], content["ties"], content["method"]) == (3, 0, "log-probability")
    assert content["model"] == str(language_model) and content["published"] == {}
    assert f"{content['accuracy']:.2f}" in told and "3 pairs in 2 paradigms" in told


def test_blimp_itself_beside_published_systems(run, language_model, shared_data, tmp_path, monkeypatch):
    if not (shared_data / "blimp" / "published.tsv").is_file():
        pytest.skip("no blimp in the folder of benchmarks")
    monkeypatch.setenv("HFSEQ_DATA", str(shared_data))
    out = tmp_path / "out.json"
    words = ["--benchmark", "blimp", "--limit", 2, "--leading_space", "--output", out]
    if plots.has_matplotlib():
        words += ["--plot", tmp_path / "out.png"]
    told = run("evaluate", language_model, *words)
    content = json.loads(out.read_text())
    assert content["pairs"] == 134 and len(content["by_paradigm"]) == 67 and content["leading_space"]
    assert content["published"]["GPT-2 large"]["accuracy"] == pytest.approx(83.0, abs=0.05)
    assert set(content["published"]["5-gram"]["by_phenomenon"]) == set(content["by_phenomenon"])
    assert "GPT-2 large" in told and "134 pairs in 67 paradigms" in told
    assert not plots.has_matplotlib() or (tmp_path / "out.png").stat().st_size > 10_000


def test_surprisal_of_words(run, language_model, tmp_path):
    (tmp_path / "text.txt").write_text("the king came\n\nIn the year\n")
    text, table, out = (tmp_path / name for name in ("text.txt", "out.tsv", "out.json"))
    words = ["evaluate", language_model, "--benchmark", "surprisal", "--file", text]
    assert "6 words of 3 lines, 1 of them empty" in run(*words, "--output", table)
    rows = [line.split("\t") for line in table.read_text().splitlines()]
    assert rows[0] == ["line", "word_index", "word", "surprisal", "corrected", "tokens"]
    assert [row[:3] for row in rows[1:]] == [
        *(["1", str(i), word] for i, word in enumerate(("the", "king", "came"), 1)),
        *(["3", str(i), word] for i, word in enumerate(("In", "the", "year"), 1)),
    ]
    for line, text in (("1", "the king came"), ("3", "In the year")):
        bits = sum(float(row[3]) for row in rows[1:] if row[0] == line)
        assert bits == pytest.approx(-score(language_model, text) / math.log(2), abs=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(language_model)
    pieces = [piece for row in rows[4:] for piece in json.loads(row[5])]
    assert pieces == tokenizer.convert_ids_to_tokens(tokenizer("In the year").input_ids)
    run(*words, "--output", out)
    content = json.loads(out.read_text())
    assert [f"{word['surprisal']:.6f}" for word in content["words"]] == [row[3] for row in rows[1:]]
    assert content["bits"] == pytest.approx(sum(float(row[3]) for row in rows[1:]), abs=1e-4)
    assert content["unit"] == "bit" and content["method"] == "log-probability"
    assert run(*words) == table.read_text()


def test_bad_input(refused, language_model, pairs, tmp_path):
    def told(*words):
        return refused("evaluate", language_model, *words)

    blimp, surprisal = ("--benchmark", "blimp"), ("--benchmark", "surprisal")
    assert "takes one --file" in told(*blimp, "--file", pairs, pairs)
    assert "--corpus is not for --benchmark blimp" in told(*blimp, "--corpus", "kjv")
    assert "--streams is not for --benchmark surprisal" in told(*surprisal, "--streams", 2)
    assert "--limit is not for --benchmark surprisal" in told(*surprisal, "--limit", 2)
    assert "--limit is for --benchmark" in told("--file", pairs, "--limit", 2)
    assert "--leading_space is for --benchmark" in told("--file", pairs, "--leading_space")
    assert "at least 1 pair a paradigm, not 0" in told(*blimp, "--file", pairs, "--limit", 0)
    assert "surprisal needs --file" in told(*surprisal)
    assert "must end in .tsv or .json" in told(*surprisal, "--file", pairs, "--output", tmp_path / "out.txt")
    assert "No file" in told(*surprisal, "--file", tmp_path / "missing.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "holds no words" in told(*surprisal, "--file", tmp_path / "empty.txt")
    assert "A source is for models with an encoder" in told(*blimp, "--file", pairs, "--source", "x")
    (tmp_path / "pairs.tsv").write_text("paradigm\tgood\tbad\np\ta\tb\n")
    assert "Minimal pairs have the columns" in told(*blimp, "--file", pairs)
    assert not (tmp_path / "out.txt").exists()


def test_a_classifier_is_refused(refused, pairs, tmp_path):
    from hfseq import LSTMConfig, LSTMForSequenceClassification

    LSTMForSequenceClassification(LSTMConfig(embedding_size=8, hidden_size=8)).save_pretrained(
        tmp_path / "model"
    )
    told = refused("evaluate", tmp_path / "model", "--benchmark", "blimp", "--file", pairs)
    assert "was saved as LSTMForSequenceClassification, which has no head that predicts tokens" in told


def test_the_baseline_is_counted_on_the_runs_own_text(run, refused, language_model, texts, pairs, tmp_path):
    if importlib.util.find_spec("phonetisaurus") is None and shutil.which("lmplz") is None:
        pytest.skip("no Kneser-Ney estimator is installed")
    directory = tmp_path / "run"
    shutil.copytree(language_model, directory)
    (tmp_path / "text.txt").write_text("\n\n".join(texts), encoding="utf-8")
    data = {"train_file": str(tmp_path / "text.txt"), "validation_share": 0.2}
    (directory / "recipe.yaml").write_text(
        yaml.safe_dump({"data": data, "model": {"model_type": "hfseq_lstm"}})
    )
    out = tmp_path / "out.json"
    words = [
        "--benchmark",
        "blimp",
        "--file",
        pairs,
        "--baseline",
        "kneser-ney",
        "--order",
        3,
        "--output",
        out,
    ]
    told = run("evaluate", directory, *words)
    content = json.loads(out.read_text())
    assert content["model"] == "kneser-ney" and content["counted_on"] == str(directory)
    assert "order 3" in content["method"] and "3 pairs in 2 paradigms" in told
    assert content["by_phenomenon"]["islands"] >= 50  # "In the year" is in the text, "In year the" is not
    blimp = ("--benchmark", "blimp", "--file", pairs)
    assert "--order is of the n-grams" in refused("evaluate", directory, *blimp, "--order", 3)
    assert "at least 2, not 1" in refused(
        "evaluate", directory, *blimp, "--baseline", "kneser-ney", "--order", 1
    )
    assert "--baseline is for --benchmark" in refused("evaluate", directory, "--baseline", "kneser-ney")
