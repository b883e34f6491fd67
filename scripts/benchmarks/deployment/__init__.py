"""The deployment lines: one trained model in the forms that it is served in.

    python scripts/benchmark.py deployment --model outputs/transformer-multi30k-en-de --output deployment.json

All forms come from one checkpoint and take turns on one thread in one run; quality is that of the whole test side of
the model's own recipe. What is timed depends on what the model does:

| it was trained to | speed | quality |
|---|---|---|
| translate (`translation.py`) | sentences by beam search, against `MarianMTModel.generate` for a Transformer | BLEU |
| go on with a text (`continuation.py`) | tokens read, and tokens written one at a time | bits per byte |
| fill in (`filling.py`) | tokens of whole texts read | perplexity and accuracy of masked tokens |
| repair text (`repairing.py`) | texts repaired by beam search | perplexity |
| describe vectors (`describing.py`) | texts written greedily | bits per byte |

Without --model, a translator with random weights: sizes and speeds of a fresh model, and no quality.
`pip install 'hfseq[deploy]'` brings CTranslate2 and onnxruntime; a form whose package is missing is left out and said.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from hfseq.loading import load_model
from hfseq.objectives import objective_of
from hfseq.objectives.base import Objective
from hfseq.objectives.records import read_own_sections, recipe_of_sections

from ..measuring import Report
from . import continuation, describing, filling, repairing, translation
from .table import Task, write_table

TASKS: dict[str, Callable[..., Task]] = {
    "translation": translation.task,
    "causal": continuation.task,
    "masked": filling.task,
    "denoising": repairing.task,
    "vector_to_text": describing.task,
}


def deployment(report: Report) -> None:
    report.section(deployed_lines)


def deployed_lines(report: Report) -> None:
    """Every form's size, speed and quality."""
    name = report.settings.model
    with tempfile.TemporaryDirectory() as folder:
        if name:
            objective = own_objective(name)
            objective.prepare()
            task = TASKS[objective.name](
                report, load_model(objective.auto_class, name).eval(), objective, Path(folder)
            )
        else:
            task = translation.untrained_task(report, Path(folder))
        write_table(report, task)
    report.facts["model"] = name or "random weights"
    summary = Path(name, "training_summary.json")
    if name and summary.is_file():
        report.facts["updates"] = json.loads(summary.read_text(encoding="utf-8")).get("updates")


def own_objective(directory: str) -> Objective:
    """What the checkpoint was trained to do, with its own tokenizer."""
    sections = read_own_sections(directory)
    sections["tokenizer"] = {"path": directory}
    sections.pop("training", None)
    return objective_of(recipe_of_sections(sections, f"{directory}/recipe.yaml"))
