"""scripts/benchmark.py deployment: what every form is scored on is what `hfseq evaluate` scores."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml

from hfseq.objectives import load_recipe, objective_of, prepared_config

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))  # as Python does for the script
try:
    from benchmarks import deployment, measuring
finally:
    sys.path.remove(str(SCRIPTS))

TEXTS = [f"In the year {n} the king went to the city of {n % 5} and came back." for n in range(60)]
SHAPES = {
    "causal": {"model_type": "hfseq_lstm", "embedding_size": 16, "hidden_size": 16},
    "masked": {
        "model_type": "hfseq_encoder", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64,
    },
    "translation": {
        "model_type": "hfseq_transformer", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "max_position_embeddings": 64, "pre_norm": True,
    },
}  # fmt: skip
OBJECTIVES = {
    "causal": {"type": "causal", "streams": 4, "segment_length": 8, "evaluation_streams": 2},
    "masked": {"type": "masked", "packing": "documents", "row_length": 64, "tokens_per_update": 256},
    "translation": {"type": "translation", "num_beams": 2},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """checkpoint(objective) -> the folder of an untrained model with sharp weights, its tokenizer and its recipe."""
    made = {}

    def make(name: str) -> Path:
        if name in made:
            return made[name]
        folder = made[name] = tmp_path_factory.mktemp(name)
        files = {"text.txt": TEXTS, "text.en": TEXTS, "text.de": [text.upper() for text in TEXTS]}
        for file, lines in files.items():
            (folder / file).write_text("\n\n".join(lines) if file == "text.txt" else "\n".join(lines))
        data = {"validation_share": 0.2, "test_share": 0.3, "cache_dir": str(folder / "cache")}
        data["train_file"] = str(folder / "text.txt")
        if name == "translation":
            data["train_file"] = [str(folder / "text.en"), str(folder / "text.de")]
        sections = {
            "data": data,
            "tokenizer": {"type": "bpe", "vocab_size": 300},
            "objective": OBJECTIVES[name],
            "model": SHAPES[name],
            "training": {"output_dir": str(folder)},
        }
        (folder / "recipe.yaml").write_text(yaml.safe_dump(sections))
        recipe = load_recipe(folder / "recipe.yaml")
        objective = objective_of(recipe)
        objective.prepare()
        torch.manual_seed(0)
        config = prepared_config(recipe, objective)
        model = objective.model_class(config)(config)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.4)
        if model.can_generate():
            model.generation_config.update(**objective.generation(config))
        model.save_pretrained(folder)
        objective.tokenizer.save_pretrained(folder)
        objective.save_tokenizers(folder)
        return folder

    return make


def measured(folder: Path) -> tuple[measuring.Report, dict[str, dict]]:
    report = measuring.Report(measuring.Settings(quick=True, model=str(folder)))
    deployment.deployment(report)
    assert report.failures == []
    return report, {row["form"]: row for row in json.loads(json.dumps(report.facts["deployment"]))}


def expected_forms(*engines: str) -> set[str]:
    """torch, and what is installed."""
    packages = {"ONNX": ("onnx", "onnxruntime"), "CTranslate2": ("ctranslate2",)}
    forms = {"torch", "torch int8"}
    for engine in engines:
        if all(importlib.util.find_spec(package) for package in packages[engine]):
            float32 = "ONNX" if engine == "ONNX" else "CTranslate2 float32"
            forms |= {float32, f"{engine} int8"}
    return forms


@pytest.mark.parametrize(("name", "score"), [("causal", "bits_per_byte"), ("masked", "perplexity")])
def test_every_form_is_scored_as_evaluation_scores_it(checkpoint, monkeypatch, name, score):
    """The whole test side: of packed rows each text by itself, of streams with the state carried on."""
    folder = checkpoint(name)
    monkeypatch.setattr(deployment.filling, "ROWS", 4)
    test_batches = deployment.filling.test_batches
    report, rows = measured(folder)
    engines = ("ONNX",) if name == "causal" else ("ONNX", "CTranslate2")
    assert set(rows) == expected_forms(*engines)
    objective = deployment.own_objective(str(folder))
    objective.prepare()
    model = objective.auto_class.from_pretrained(folder).eval()
    whole = objective.score(model, "test").as_dict()
    if name == "masked":
        batches = test_batches(model, objective)
        assert len(batches) > 2 and sum(int(batch.masked.sum()) for batch in batches) == whole["targets"]
        guess = lambda batch: deployment.filling.by_torch(model, batch)  # noqa: E731
        found = deployment.filling.quality(guess, batches)
        assert found["accuracy"] == pytest.approx(whole["accuracy"])
        assert found[score] == pytest.approx(whole[score], rel=1e-5)
        plain = rows["torch"]["quality"][score]  # of two batches: quick
    else:
        plain = whole[score]
    for form, row in rows.items():
        assert row["quality"][score] == pytest.approx(plain, rel=0.05 if "int8" in form else 1e-5), form
        assert row["bytes"] > 0 and all(speed > 0 for speed in row["speeds"].values())
    assert rows["torch int8"]["bytes"] != rows["torch"]["bytes"]
    assert report.lines and not any(line.met for line in report.lines)


def test_translations_of_every_form_are_scored(checkpoint):
    _, rows = measured(checkpoint("translation"))
    peer = "MarianMTModel.generate, same shape, as many steps"
    assert set(rows) == {*expected_forms("ONNX", "CTranslate2"), peer}
    assert rows["torch"]["quality"]["as_torch"] == 1 and "quality" not in rows[peer]
    for form in rows.keys() - {peer}:
        assert {"bleu_lowercase", "as_torch"} == set(rows[form]["quality"])
    if "ONNX" in rows:
        assert rows["ONNX"]["quality"]["as_torch"] == 1


def test_what_cannot_be_measured_is_said(checkpoint, tmp_path):
    folder = checkpoint("causal")
    for file in folder.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    sections = yaml.safe_load((folder / "recipe.yaml").read_text())
    sections["objective"] = {"type": "vector_to_text"}
    sections["data"]["feature_columns"] = ["red"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sections))
    report = measuring.Report(measuring.Settings(quick=True, model=str(tmp_path)))
    deployment.deployment(report)
    assert "was trained by vector_to_text: known are translation, causal, masked" in report.failures[0]
