"""The card of a fine-tuned model: generated from the numbers that the run wrote, none typed by hand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Pipelines that transformers has for a task; the others are used through their Auto class.
PIPELINES = {
    "sequence-classification": "text-classification",
    "multi-label": "text-classification",
    "regression": "text-classification",
    "token-classification": "token-classification",
}


def write_task_card(directory: str | os.PathLike, facts: Mapping[str, Any]) -> Path:
    """Writes `directory/README.md`.

    Args:
        facts: what scripts/finetune.py writes to `finetune_summary.json`: name, command, task, data, examples, split,
            terms, metric, scores {side: {metric: {mean, std, runs}}}, model, model_class, initialization, runs;
            optional: parameters, learning_rate_trials, classes, picture, machine.

    Returns:
        The path of the card.
    """
    directory = Path(directory)
    runs = len(facts["runs"])
    parameters = f", {facts['parameters']:,} parameters" if facts.get("parameters") else ""
    sides = ", ".join(f"{count:,} {side}" for side, count in facts["examples"].items())
    spread = f", mean ± sample standard deviation of {runs} seeds" if runs > 1 else ""
    parts = [
        f"# {facts['name']}",
        f"`{facts['model_class']}`{parameters}, {facts['initialization']}, trained for {facts['task']} on "
        f"{facts['data']} with hfseq. Starting point: `{facts['model']}`.",
        "## Results",
        f"On {sides} examples ({facts['split']}){spread}:",
        _table(
            [
                {"side": side, **{metric: _spread(value, runs) for metric, value in scores.items()}}
                for side, scores in facts["scores"].items()
            ]
        ),
    ]
    if facts.get("kept_seed") is not None and runs > 1:
        parts.append(f"The weights here are those of seed {facts['kept_seed']}, the best on validation.")
    if facts.get("learning_rate_trials"):
        metric = facts["metric"]
        parts += [
            "Learning rates tried, chosen on validation:",
            _table(
                [
                    {
                        "learning rate": f"{trial['learning_rate']:g}",
                        "seed": trial["seed"],
                        f"validation {metric}": trial["validation"][metric]
                        if trial["validation"]
                        else "diverged",
                        "epochs": trial["epochs"],
                    }
                    for trial in facts["learning_rate_trials"]
                ]
            ),
        ]
    if facts.get("regularization_trials"):
        parts += ["Tried, chosen on validation:", _table(facts["regularization_trials"])]
    if facts.get("classes"):
        parts += [
            f"By class, {facts['predictions_of']} side, the weights here:",
            _table([{"class": name, **scores} for name, scores in facts["classes"].items()]),
        ]
    if facts.get("picture"):
        parts.append(f"![{facts['predictions_of']} side]({facts['picture']})")
    if (directory / "config.json").is_file():
        parts += ["## Use", _usage(directory, facts["task"], facts.get("labelled_pieces"))]
    machine = {key: value for key, value in (facts.get("machine") or {}).items() if value is not None}
    parts += [
        "## How it was made",
        f"```bash\n{facts['command']}\n```",
        _table([{"what": key, "value": value} for key, value in machine.items()]),
    ]
    if facts.get("terms"):
        parts += ["## Data", facts["terms"]]
    path = directory / "README.md"
    part = path.with_suffix(".md.part")
    part.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def _usage(directory: Path, task: str, labelled_pieces: str | None) -> str:
    if task in PIPELINES:
        extra = ""
        if task == "token-classification":
            # Where all pieces of a word were taught its tag, the first knows least of it.
            extra = f', aggregation_strategy="{"average" if labelled_pieces == "all" else "first"}"'
        lines = [
            "from transformers import pipeline",
            "import hfseq",
            "",
            f'model = pipeline("{PIPELINES[task]}", "{directory.name}"{extra})',
            'print(model("some text"))',
        ]
    else:
        auto = {"question-answering": "AutoModelForQuestionAnswering"}.get(task, "AutoModelForMultipleChoice")
        lines = [
            f"from transformers import AutoTokenizer, {auto}",
            "import hfseq",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{directory.name}")',
            f'model = {auto}.from_pretrained("{directory.name}")',
        ]
    return "```python\n" + "\n".join(lines) + "\n```"


def _spread(value: Mapping[str, Any], runs: int) -> str:
    return f"{value['mean']:.4f} ± {value['std']:.4f}" if runs > 1 else f"{value['mean']:.4f}"


def _table(rows: list[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


__all__ = ["write_task_card"]
