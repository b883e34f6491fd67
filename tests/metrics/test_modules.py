"""The metric modules as `evaluate.load` takes them, also beside a script that is called evaluate.py."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hfseq import metrics

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
        {"predictions": ["a b c d."], "references": ["a b c d."]},
        {
            "bleu": 100.0,
            "bleu_lowercase": 100.0,
            "chrf": 100.0,
            "sentences": 1,
        },
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
if "--already" in sys.argv:
    sys.argv = sys.argv[:1]
    import evaluate
    assert not hasattr(evaluate, "load")
from hfseq import metrics
examples = json.load(open({examples!r}))
found = {{name: metrics.load(name).compute(**inputs) for name, inputs in examples.items()}}
found["multilabel"] = metrics.load("f1", "multilabel").compute(
    predictions=[[0, 1]], references=[[1, 1]], average="micro")
import evaluate
found["is library"] = hasattr(evaluate, "load")
from hfseq.metrics import accuracy, f1, bits_per_byte
found["functions stay"] = [accuracy([1], [1]), f1([1], [1]), round(bits_per_byte(1, 1), 3)]
print(json.dumps(found, default=float))
"""


@pytest.mark.parametrize("already", [False, True], ids=["first", "after the script's namesake"])
def test_loads_without_network_from_a_script_beside_evaluate_py(tmp_path, repository, already):
    for name in ("evaluate", "sacrebleu", "seqeval", "sklearn"):
        pytest.importorskip(name)
    assert (repository / "scripts/evaluate.py").is_file()
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "evaluate.py").write_bytes((repository / "scripts/evaluate.py").read_bytes())
    examples = {"accuracy": EXAMPLES["accuracy"]} if already else EXAMPLES
    (tmp_path / "examples.json").write_text(
        json.dumps({name: inputs for name, (inputs, _) in examples.items()})
    )
    (scripts / "score.py").write_text(SCRIPT.format(examples=str(tmp_path / "examples.json")))
    run = subprocess.run(
        [sys.executable, str(scripts / "score.py"), *(["--already"] if already else [])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(repository)},
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    for name, (_, expected) in examples.items():
        for key, value in expected.items():
            assert found[name][key] == pytest.approx(value), name
    assert found["multilabel"] == {"f1": pytest.approx(2 / 3)}
    assert found["is library"] and found["functions stay"] == [1.0, 1.0, 1.443]


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
