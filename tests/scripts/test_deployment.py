"""scripts/benchmark.py deployment: what every form is scored on is what `hfseq evaluate` scores."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml

from hfseq.objectives import load_recipe, objective_of, prepared_config
from hfseq.training.model_batches import ModelBatches

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
    "vector_to_text": {"model_type": "hfseq_lstm", "embedding_size": 16, "hidden_size": 16, "num_hidden_layers": 2},
}  # fmt: skip
SHAPES["denoising"] = SHAPES["translation"]
OBJECTIVES = {
    "causal": {"type": "causal", "streams": 4, "segment_length": 8, "evaluation_streams": 2},
    "masked": {"type": "masked", "packing": "documents", "row_length": 64, "tokens_per_update": 256},
    "translation": {"type": "translation", "num_beams": 2},
    "denoising": {"type": "denoising", "row_length": 32, "tokens_per_update": 256, "sentinels": 8},
    "vector_to_text": {"type": "vector_to_text", "tokens_per_update": 256},
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
        if name == "vector_to_text":
            table = ["red,green,text", *(f"{n / 60},{n % 7 / 7},{text}" for n, text in enumerate(TEXTS))]
            (folder / "text.csv").write_text("\n".join(table))
            data |= {"train_file": str(folder / "text.csv"), "feature_columns": ["red", "green"]}
            data["text_column"] = "text"
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


def perplexity_without(never: list[int], model, objective) -> float:
    """What CTranslate2 gives: tokens that are never written have no probability there, and the others have it all."""
    plan, nll, targets = objective.evaluation_plan("test"), 0.0, 0
    for index in range(len(plan)):
        batch = ModelBatches(type(model))([plan[index]])
        with torch.no_grad():
            logits = model(**batch).logits
        logits[..., never] = -math.inf
        nll += torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch["labels"].flatten(), reduction="sum"
        )
        targets += int((batch["labels"] != -100).sum())
    return math.exp(nll / targets)


SCORES = {
    "causal": "bits_per_byte", "masked": "perplexity", "denoising": "perplexity", "vector_to_text": "bits_per_byte",
}  # fmt: skip


@pytest.mark.parametrize(("name", "score"), list(SCORES.items()))
def test_every_form_is_scored_as_evaluation_scores_it(checkpoint, monkeypatch, name, score):
    """The whole test side: of packed rows each text by itself, of streams with the state carried on."""
    folder = checkpoint(name)
    monkeypatch.setattr(deployment.filling, "ROWS", 4)
    test_batches = deployment.filling.test_batches
    report, rows = measured(folder)
    engines = ("ONNX",) if name in ("causal", "vector_to_text") else ("ONNX", "CTranslate2")
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
        expected = plain
        if name == "denoising" and form.startswith("CTranslate2"):
            expected = perplexity_without(model.generation_config.suppress_tokens, model, objective)
        assert row["quality"][score] == pytest.approx(expected, rel=0.05 if "int8" in form else 1e-5), form
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
