"""hfseq compare --finetuned puts what fine-tuning reached on the pretrained model's card."""

import json
from pathlib import Path


def write(folder: Path, name: str, accuracies: list[float]) -> None:
    """A summary as hfseq finetune writes it."""
    (folder / name).mkdir()
    score = {"accuracy": {"mean": sum(accuracies) / len(accuracies), "std": 0.01, "runs": accuracies}}
    facts = {
        "name": name,
        "command": f"hfseq finetune outputs/encoder --output_dir {name}",
        "data": "films",
        "split": "test: the last ones",
        "metric": "accuracy",
        "initialization": "pretrained" if name == "sst2" else "from scratch",
        "learning_rate": 3e-4,
        "scores": {"validation": score, "test": score},
        "runs": [{"seed": seed, "test": {"accuracy": value}} for seed, value in enumerate(accuracies)],
        "classes": {},
    }
    (folder / name / "finetune_summary.json").write_text(json.dumps(facts))


def test_the_card_holds_pretrained_and_scratch(run, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    score = {"perplexity": 9.5, "accuracy": 0.55, "targets": 10, "tokens": 70}
    facts = {
        "recipe": "encoder",
        "recipe_content": {
            "data": {"corpus": ["wiki", "imdb"]},
            "objective": {"type": "masked"},
            "model": {"model_type": "hfseq_encoder"},
        },
        "command": "hfseq pretrain encoder.yaml",
        "model_class": "EncoderForMaskedLM",
        "parameters": 1000,
        "scores": {"validation": score},
    }
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/training_summary.json").write_text(json.dumps(facts))
    write(tmp_path, "sst2", [0.84, 0.86])
    write(tmp_path, "sst2-scratch", [0.79, 0.81])
    for _ in range(2):  # a second time it replaces, and adds nothing twice
        run("compare", "encoder", "--finetuned", "sst2", "sst2-scratch")
    card = (tmp_path / "encoder/README.md").read_text()
    assert card.count("0.8500 ± 0.0100") == 2 and card.count("0.8000 ± 0.0100") == 2
    assert "from scratch" in card and "license: other" in card
    assert len(json.loads((tmp_path / "encoder/training_summary.json").read_text())["fine_tuning"]) == 2

    assert "--finetuned" in refused("compare", "encoder")
    assert "nowhere has no finetune_summary.json" in refused("compare", "encoder", "--finetuned", "nowhere")
