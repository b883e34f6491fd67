"""The metric modules as `evaluate.load` takes them, also beside a script that is called evaluate.py."""

from __future__ import annotations

import ast
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hfseq import LSTMConfig, LSTMForCausalLM, data, metrics
from hfseq.contracts.cases import sharpen

EXAMPLES = {
    "accuracy": ({"predictions": [0, 1], "references": [0, 0]}, {"accuracy": 0.5}),
    "f1": ({"predictions": [0, 1], "references": [1, 1]}, {"f1": 2 / 3}),
    "matthews_correlation": (
        {"predictions": [0, 1, 1], "references": [0, 1, 0]},
        {"matthews_correlation": 0.5},
    ),
    "pearsonr": ({"predictions": [1.0, 2.0, 3.0], "references": [2.0, 4.0, 6.0]}, {"pearsonr": 1.0}),
    "spearmanr": ({"predictions": [1.0, 2.0, 3.0], "references": [1.0, 4.0, 9.0]}, {"spearmanr": 1.0}),
    "seqeval": (
        {"predictions": [["B-a", "O"]], "references": [["B-a", "B-b"]]},
        {"overall_f1": 2 / 3, "overall_precision": 1.0, "overall_recall": 0.5, "overall_accuracy": 0.5},
    ),
    "squad": (
        {
            "predictions": [{"id": "1", "prediction_text": "the cat"}],
            "references": [{"id": "1", "answers": {"text": ["cat"], "answer_start": [3]}}],
        },
        {"exact_match": 100.0, "f1": 100.0},
    ),
    "sacrebleu": (
        {"predictions": ["a b c d."], "references": [["a b c d."]]},
        {"score": 100.0, "bp": 1.0, "sys_len": 5, "ref_len": 5},
    ),
    "perplexity": ({"predictions": [1.0, 2.0]}, {"perplexity": 4.4816890703380645}),
    "bits_per_byte": (
        {"predictions": [3.0], "references": ["aé"]},
        {"bits_per_byte": 1 / 0.6931471805599453},
    ),
}

SCRIPT = """
import json, socket, sys
def refuse(*a, **k): raise OSError("no network")
socket.socket.connect = socket.getaddrinfo = refuse
from hfseq import metrics
accuracy = {"predictions": [0, 1], "references": [0, 0]}
found = {"first": metrics.load("accuracy").compute(**accuracy)}
for name in [name for name in sys.modules if name.split(".")[0] in ("evaluate", "evaluate_modules")]:
    del sys.modules[name]
import evaluate
found["namesake"] = not hasattr(evaluate, "load")
found["after its namesake"] = metrics.load("accuracy").compute(**accuracy)
import evaluate
found["library"] = hasattr(evaluate, "load")
print(json.dumps(found))
"""


def test_loads_without_network_from_a_script_beside_evaluate_py(tmp_path, repository):
    pytest.importorskip("evaluate")
    (tmp_path / "evaluate.py").write_text("")
    (tmp_path / "score.py").write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, str(tmp_path / "score.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(repository)},
    )
    assert run.returncode == 0, run.stderr
    half = {"accuracy": 0.5}
    assert json.loads(run.stdout.splitlines()[-1]) == {
        "first": half, "namesake": True, "after its namesake": half, "library": True,
    }  # fmt: skip


@pytest.fixture
def load(tmp_path, monkeypatch):
    """`metrics.load`, with evaluate's caches in a folder of the test."""
    pytest.importorskip("evaluate")

    def load(name: str, config: str | None = None):
        return metrics.load(name, config, cache_dir=str(tmp_path / "cache"))

    return load


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_gives_the_number_of_its_function(load, name):
    for library in ("sacrebleu", "seqeval"):
        pytest.importorskip(library)
    inputs, expected = EXAMPLES[name]
    found = load(name).compute(**inputs)
    assert {key: found[key] for key in expected} == pytest.approx(expected)


# What the modules of these names on the Hub print of their own documentation's examples.
PUBLISHED = {
    "accuracy": (
        None,
        {"predictions": [0, 1, 1, 2, 1, 0], "references": [0, 1, 2, 0, 1, 2]},
        {"sample_weight": [0.5, 2, 0.7, 0.5, 9, 0.4]},
        {"accuracy": 0.8778625954198473},
    ),
    "accuracy, number": (
        None,
        {"predictions": [0, 1, 1, 2, 1, 0], "references": [0, 1, 2, 0, 1, 2]},
        {"normalize": False},
        {"accuracy": 3.0},
    ),
    "accuracy, several": (
        "multilabel",
        {"predictions": [[0, 1], [1, 1]], "references": [[0, 1], [0, 1]]},
        {},
        {"accuracy": 0.5},
    ),
    "f1, other class": (
        None,
        {"predictions": [0, 0, 1, 1, 0], "references": [0, 1, 0, 1, 0]},
        {"pos_label": 0},
        {"f1": 0.6666666666666666},
    ),
    "f1, weights": (
        None,
        {"predictions": [0, 0, 1, 1, 0], "references": [0, 1, 0, 1, 0]},
        {"sample_weight": [0.9, 0.5, 3.9, 1.2, 0.3]},
        {"f1": 0.35294117647058826},
    ),
    "f1, each": (
        None,
        {"predictions": [0, 2, 1, 0, 0, 1], "references": [0, 1, 2, 0, 1, 2]},
        {"average": None},
        {"f1": [0.8, 0.0, 0.0]},
    ),
    "f1, several": (
        "multilabel",
        {"predictions": [[0, 1, 1], [1, 1, 0]], "references": [[0, 1, 1], [0, 1, 0]]},
        {"average": "macro"},
        {"f1": 0.6666666666666666},
    ),
    "matthews_correlation": (
        None,
        {"predictions": [1, 2, 2, 0, 3, 3], "references": [1, 3, 2, 0, 3, 2]},
        {"sample_weight": [0.5, 1, 0, 0, 0, 1]},
        {"matthews_correlation": -0.25},
    ),
    "pearsonr": (
        None,
        {"predictions": [10, 9, 2.5, 6, 4], "references": [1, 2, 3, 4, 5]},
        {"return_pvalue": True},
        {"pearsonr": -0.74, "p-value": 0.15},
    ),
    "spearmanr": (
        None,
        {"predictions": [10, 9, 2.5, 6, 4], "references": [1, 2, 3, 4, 5]},
        {"return_pvalue": True},
        {"spearmanr": -0.7, "spearmanr_pvalue": 0.19},
    ),
    "sacrebleu": (
        None,
        {
            "predictions": ["hello there general kenobi", "on our way to ankh morpork"],
            "references": [
                ["hello there general kenobi", "hello there !"],
                ["goodbye ankh morpork", "ankh morpork"],
            ],
        },
        {},
        {"score": 39.76353643835254, "counts": [6, 4, 2, 1], "totals": [10, 8, 6, 4], "bp": 1.0, "sys_len": 10,
         "ref_len": 7, "precisions": [60.0, 50.0, 100 / 3, 25.0]},
    ),
    "seqeval": (
        None,
        {
            "predictions": [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
            "references": [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]],
        },
        {"mode": "strict", "scheme": "IOB2"},
        {
            "MISC": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "number": 1},
            "PER": {"precision": 1.0, "recall": 1.0, "f1": 1.0, "number": 1},
            "overall_precision": 0.5, "overall_recall": 0.5, "overall_f1": 0.5, "overall_accuracy": 0.8,
        },
    ),
    "squad": (
        None,
        {
            "predictions": [{"prediction_text": "1976", "id": "56e10a3be3433e1400422b22"}],
            "references": [{"answers": {"answer_start": [97], "text": ["1976"]}, "id": "56e10a3be3433e1400422b22"}],
        },
        {},
        {"exact_match": 100.0, "f1": 100.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_takes_and_gives_what_the_published_module_does(load, name):
    config, inputs, options, expected = PUBLISHED[name]
    for library in ("sacrebleu", "seqeval", "scipy"):
        pytest.importorskip(library)
    found = load(name.split(",")[0], config).compute(**inputs, **options)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=5e-3), key  # the documentation rounds


def test_references_of_bleu_may_be_bare_or_in_lists_and_options_are_sacrebleus(load):
    sacrebleu = pytest.importorskip("sacrebleu")
    made, truth = ["The cat sat on A mat today ."], ["the cat sat on a mat ."]
    expected = sacrebleu.corpus_bleu(made, [truth]).score
    for references in (truth, [truth]):
        assert load("sacrebleu").compute(predictions=made, references=references)["score"] == expected
    lower = load("sacrebleu").compute(
        predictions=made, references=truth, lowercase=True, smooth_method="none"
    )
    assert lower["score"] == sacrebleu.corpus_bleu(made, [truth], lowercase=True, smooth_method="none").score
    with pytest.raises(ValueError, match=r"equally many references .* \[1, 2\]"):
        load("sacrebleu").compute(predictions=["a", "b"], references=[["a"], ["b", "c"]])


def test_perplexity_of_texts_under_a_model(load, tmp_path):
    tokenizer = data.train_tokenizer(["a man walks", "the men walk"], "bpe", 270)
    config = LSTMConfig(
        embedding_size=8, hidden_size=8, num_hidden_layers=1, **data.tokenizer_config_fields(tokenizer)
    )
    model = LSTMForCausalLM(config).eval()
    sharpen(model, 0.6, seed=0)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    texts = ["a man", "the men walk home"]
    found = load("perplexity").compute(predictions=texts, model_id=str(tmp_path / "model"), device="cpu")
    for text, perplexity in zip(texts, found["perplexities"], strict=True):
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        scores = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        nll = -sum(float(scores[place, i].detach()) for place, i in enumerate(ids[1:]))
        assert perplexity == pytest.approx(math.exp(nll / (len(ids) - 1)), rel=1e-4)
    assert found["mean_perplexity"] == pytest.approx(sum(found["perplexities"]) / 2)
    with pytest.raises(ValueError, match="name it by model_id"):
        load("perplexity").compute(predictions=texts)


def test_every_module_is_there_is_shipped_and_imports_what_evaluate_can_parse(repository):
    assert set(EXAMPLES) == set(metrics.NAMES)
    files = (repository / "hfseq/metrics").glob("*/*.py")
    folders = {file.parent.name for file in files if not (file.parent / "__init__.py").exists()}
    assert folders == set(metrics.NAMES)
    for name in metrics.NAMES:
        file = Path(metrics.path(name)) / f"{name}.py"
        imports = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import)]
        assert all(len(node.names) == 1 for node in imports), name
    tomllib = pytest.importorskip("tomllib", reason="tomllib comes with Python 3.11")
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["package-data"]["hfseq.metrics"] == ["*/*.py"]


def test_unknown():
    with pytest.raises(ValueError, match="Unknown metric 'acuracy'. Did you mean 'accuracy'"):
        metrics.path("acuracy")
