"""The card of a fine-tuned model: generated from the numbers that the run wrote, none typed by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cards.markdown import table


def write_task_card(directory: str | os.PathLike, facts: Mapping[str, Any]) -> Path:
    """Writes `directory/README.md`.

    Args:
        facts: what `hfseq finetune` writes to `finetune_summary.json`: name, command, task, data, examples, split,
            terms, metric, scores {side: {metric: {mean, std, runs}}}, model, model_class, initialization, runs,
            pipeline, pipeline_arguments, auto_class;
            optional: parameters, learning_rate_trials, classes, picture, machine, drawn, warnings.

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
        f"{facts['data']} with hfseq. Starting point: `{facts['model']}`"
        + (f"; drawn anew: {facts['drawn']}." if facts.get("drawn") else "."),
        "## Results",
        f"On {sides} examples ({facts['split']}){spread}:",
        table(
            [
                {"side": side, **{metric: _spread(value, runs) for metric, value in scores.items()}}
                for side, scores in facts["scores"].items()
            ]
        ),
    ]
    parts += [f"Note: {warning}" for warning in facts.get("warnings", [])]
    if facts.get("kept_seed") is not None and runs > 1:
        parts.append(f"The weights here are those of seed {facts['kept_seed']}, the best on validation.")
    if facts.get("learning_rate_trials"):
        metric = facts["metric"]
        parts += [
            "Learning rates tried, chosen on validation:",
            table(
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
        parts += ["Tried, chosen on validation:", table(facts["regularization_trials"])]
    if facts.get("classes"):
        parts += [
            f"By class, {facts['predictions_of']} side, the weights here:",
            table([{"class": name, **scores} for name, scores in facts["classes"].items()]),
        ]
    if facts.get("picture"):
        parts.append(f"![{facts['predictions_of']} side]({facts['picture']})")
    if (directory / "config.json").is_file():
        parts += ["## Use", _usage(directory, facts)]
    machine = {key: value for key, value in (facts.get("machine") or {}).items() if value is not None}
    parts += [
        "## How it was made",
        f"```bash\n{facts['command']}\n```",
        table([{"what": key, "value": value} for key, value in machine.items()]),
    ]
    if facts.get("terms"):
        parts += ["## Data", facts["terms"]]
    path = directory / "README.md"
    part = path.with_suffix(".md.part")
    part.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def _usage(directory: Path, facts: Mapping[str, Any]) -> str:
    """Python lines: the pipeline, with the arguments that the task wants, or where there is none the Auto class.

    `hfseq push` puts the repository's id in the place of the directory's name.
    """
    path = f"path = {json.dumps(directory.name)}  # this repository's id, or the directory"
    if facts["pipeline"]:
        extra = "".join(f', {name}="{value}"' for name, value in facts["pipeline_arguments"].items())
        lines = [
            "from transformers import pipeline",
            "",
            path,
            f'model = pipeline("{facts["pipeline"]}", model=path{extra}, trust_remote_code=True)',
            'print(model("some text"))',
        ]
    else:
        auto_class = facts["auto_class"]
        lines = [
            f"from transformers import AutoTokenizer, {auto_class}",
            "",
            path,
            "tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=True)",
            f"model = {auto_class}.from_pretrained(path, trust_remote_code=True)",
        ]
    return "```python\n" + "\n".join(lines) + "\n```"


def _spread(value: Mapping[str, Any], runs: int) -> str:
    return f"{value['mean']:.4f} ± {value['std']:.4f}" if runs > 1 else f"{value['mean']:.4f}"


__all__ = ["write_task_card"]
