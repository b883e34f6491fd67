"""hfseq compare --translations: a paired bootstrap of BLEU."""

import json

import pytest

REFERENCES = [f"the {n}th man walks his dog through street {n * 7 % 11} in the rain" for n in range(40)]


def test_translations_of_two_systems(run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("sacrebleu")
    (tmp_path / "test.en").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "ours.en").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "theirs.en").write_text("\n".join(text.replace("dog", "cat") for text in REFERENCES) + "\n")
    files = ["--translations", "theirs.en", "ours.en", "--references", "test.en"]
    printed = run("compare", *files, "--output", "scores.json")
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["ours.en"]["bleu"] == pytest.approx(100) and scores["ours.en"]["p_value"] < 0.01
    assert "p_value" not in scores["theirs.en"] and scores["theirs.en"]["bleu"] < 80
    assert "100.00" in printed

    (tmp_path / "short.en").write_text("one line\n")
    message = refused("compare", "--translations", "ours.en", "short.en", "--references", "test.en")
    assert "1 hypotheses of short.en, but 40 references" in message
    assert "--references" in refused("compare", "--translations", "ours.en", "short.en")


def test_only_a_line_feed_ends_a_line(run, tmp_path, monkeypatch):
    """U+2028, NEL, a form feed or a lone carriage return inside a sentence is a letter like others."""
    pytest.importorskip("sacrebleu")
    monkeypatch.chdir(tmp_path)
    strange = list(REFERENCES)
    for number, letter in enumerate("\u2028\u0085\x0c\x1d\r"):
        strange[number] = strange[number].replace(" in ", f" in{letter} ")
    (tmp_path / "test.en").write_bytes("".join(f"{text}\n" for text in strange).encode())
    (tmp_path / "same.en").write_bytes("".join(f"{text}\r\n" for text in strange).encode())
    (tmp_path / "other.en").write_text("\n".join(text.replace("dog", "cat") for text in REFERENCES))
    files = ["--translations", "other.en", "same.en", "--references", "test.en"]
    run("compare", *files, "--output", "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["same.en"]["bleu"] == pytest.approx(100)


def test_the_model_that_translated_has_it_on_its_card(run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("sacrebleu")
    (tmp_path / "test.en").write_text("\n".join(REFERENCES) + "\n")
    (tmp_path / "rnn.en").write_text("\n".join(text.replace("dog", "cat") for text in REFERENCES) + "\n")
    (tmp_path / "lstm.en").write_text("\n".join(text.upper() for text in REFERENCES) + "\n")
    (tmp_path / "maps.png").write_bytes(b"a picture")
    score = {"loss": 1.0, "perplexity": 2.7, "tokens": 400, "sentences": 40, "bleu": 90.0}
    facts = {
        "recipe": "lstm", "command": "x", "model_class": "LSTMForSeq2SeqLM", "parameters": 9,
        "recipe_content": {
            "data": {"corpus": "multi30k"}, "objective": {"type": "translation"},
            "model": {"model_type": "hfseq_lstm_seq2seq"},
        },
        "scores": {"test": score},
    }  # fmt: skip
    model = tmp_path / "lstm"
    model.mkdir()
    (model / "training_summary.json").write_text(json.dumps(facts))
    files = ["lstm", "--translations", "rnn.en", "lstm.en", "--references", "test.en"]
    run("compare", *files, "--lowercase", "--attention", "maps.png")
    card = (model / "README.md").read_text()
    assert "**It beats rnn**: 100.00" in card and "(attention.png)" in card
    assert (model / "attention.png").read_bytes() == b"a picture"
    run("compare", *files)
    assert "**It loses to rnn**" in (model / "README.md").read_text()
    trained = {"epochs": 2.0, "train_target_tokens": 3_000_000}
    rival = tmp_path / "rival"
    rival.mkdir()
    (rival / "training_summary.json").write_text(json.dumps({**facts, **trained, "recipe": "rnn"}))
    (model / "training_summary.json").write_text(json.dumps({**facts, **trained, "parameters": 2_000_000}))
    run("compare", *files, "--models", "rival")
    assert "2.00M parameters and 6.0M target tokens" in (model / "README.md").read_text()
    (rival / "training_summary.json").write_text(json.dumps({**facts, **trained, "recipe": "gru"}))
    message = refused("compare", *files, "--models", "rival")
    assert "No file of translations is named after gru" in message
    (model / "training_summary.json").write_text(
        json.dumps({**facts, "recipe_content": {**facts["recipe_content"], "objective": {"type": "causal"}}})
    )
    assert "by the objective causal, not by translation" in refused("compare", *files)
    message = refused("compare", "lstm", "--translations", "lstm.en", "lstm.en", "--references", "test.en")
    assert "same name" in message
    message = refused("compare", *files, "--output", "nowhere/scores.json")
    assert "--output nowhere/scores.json: there is no folder nowhere" in message
