"""scripts/compare.py --translations: a paired bootstrap of BLEU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCES = [f"the {n}th man walks his dog through street {n * 7 % 11} in the rain" for n in range(40)]


def compare(folder: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts/compare.py", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_translations_of_two_systems(tmp_path):
    pytest.importorskip("sacrebleu")
    (tmp_path / "test.en").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "ours.en").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "theirs.en").write_text("\n".join(text.replace("dog", "cat") for text in REFERENCES) + "\n")
    files = ["--translations", "theirs.en", "ours.en", "--references", "test.en"]
    done = compare(tmp_path, *files, "--output", "scores.json")
    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["ours.en"]["bleu"] == pytest.approx(100) and scores["ours.en"]["p_value"] < 0.01
    assert "p_value" not in scores["theirs.en"] and scores["theirs.en"]["bleu"] < 80
    assert "100.00" in done.stdout

    (tmp_path / "short.en").write_text("one line\n")
    done = compare(tmp_path, "--translations", "ours.en", "short.en", "--references", "test.en")
    assert done.returncode != 0 and "1 hypotheses of short.en, but 40 references" in done.stderr
    done = compare(tmp_path, "--translations", "ours.en", "short.en")
    assert done.returncode != 0 and "--references" in done.stderr


def test_the_model_that_translated_has_it_on_its_card(tmp_path):
    pytest.importorskip("sacrebleu")
    (tmp_path / "test.en").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "rnn.en").write_text("\n".join(text.replace("dog", "cat") for text in REFERENCES) + "\n")
    (tmp_path / "lstm.en").write_text("\n".join(text.upper() for text in REFERENCES) + "\n")
    (tmp_path / "maps.png").write_bytes(b"a picture")
    score = {"loss": 1.0, "perplexity": 2.7, "tokens": 400, "sentences": 40, "bleu": 90.0}
    facts = {
        "recipe": "lstm", "task": "translation", "command": "x", "model_class": "LSTMForSeq2SeqLM", "parameters": 9,
        "recipe_content": {"data": {"corpus": "multi30k"}, "model": {"model_type": "hfseq_lstm_seq2seq"}},
        "scores": {"test": score},
    }  # fmt: skip
    model = tmp_path / "lstm"
    model.mkdir()
    (model / "training_summary.json").write_text(json.dumps(facts))
    files = ["lstm", "--translations", "rnn.en", "lstm.en", "--references", "test.en"]
    done = compare(tmp_path, *files, "--lowercase", "--attention", "maps.png")
    assert done.returncode == 0, done.stderr
    card = (model / "README.md").read_text()
    assert "**It beats rnn**: 100.00" in card and "(attention.png)" in card
    assert (model / "attention.png").read_bytes() == b"a picture"
    done = compare(tmp_path, *files)
    assert "**It loses to rnn**" in (model / "README.md").read_text(), done.stderr
    trained = {"epochs": 2.0, "train_target_tokens": 3_000_000}
    rival = tmp_path / "rival"
    rival.mkdir()
    (rival / "training_summary.json").write_text(json.dumps({**facts, **trained, "recipe": "rnn"}))
    (model / "training_summary.json").write_text(json.dumps({**facts, **trained, "parameters": 2_000_000}))
    done = compare(tmp_path, *files, "--models", "rival")
    assert "2.00M parameters and 6.0M target tokens" in (model / "README.md").read_text(), done.stderr
    (rival / "training_summary.json").write_text(json.dumps({**facts, **trained, "recipe": "gru"}))
    done = compare(tmp_path, *files, "--models", "rival")
    assert done.returncode != 0 and "No file of translations is named after gru" in done.stderr
    (model / "training_summary.json").write_text(json.dumps({**facts, "task": "text-generation"}))
    done = compare(tmp_path, *files)
    assert done.returncode != 0 and "not for translation" in done.stderr
    done = compare(tmp_path, "lstm", "--translations", "lstm.en", "lstm.en", "--references", "test.en")
    assert done.returncode != 0 and "same name" in done.stderr
