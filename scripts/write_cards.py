"""Writes the cards in model_cards/ anew from their numbers (training_summary.json): after a change of the card's form.

    python scripts/write_cards.py                 # all
    python scripts/write_cards.py lstm-kjv gru-kjv

No number changes: all of them are in the summaries, in the `deployment.json` that `scripts/benchmark.py deployment
--model DIRECTORY --output model_cards/NAME/deployment.json` left, in the `adapted.json` of `hfseq evaluate DIRECTORY
--dynamic_evaluation ... --neural_cache ... --output model_cards/NAME/adapted.json`, or in the `blimp.json` of
`--benchmark blimp`. Summaries of hfseq 0.1 are brought
to today's form on the way.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from hfseq.cards import write_model_card
from hfseq.objectives import OBJECTIVES
from hfseq.objectives.old_recipes import is_old, modernise
from hfseq.training import write_json

CARDS = Path(__file__).parents[1] / "model_cards"


def main(names: list[str]) -> None:
    for directory in sorted(CARDS.iterdir()):
        summary = directory / "training_summary.json"
        if summary.is_file() and (not names or directory.name in names):
            facts = todays_form(json.loads(summary.read_text(encoding="utf-8")))
            measured = directory / "deployment.json"
            if measured.is_file():
                facts["deployment"] = deployment(json.loads(measured.read_text(encoding="utf-8")))
            judged = {path.stem: path for path in directory.glob("blimp*.json")}
            if "blimp" in judged:
                facts["blimp"] = grammar(judged)
            adapted = directory / "adapted.json"
            if adapted.is_file():
                facts["adapted"] = adaptation(json.loads(adapted.read_text(encoding="utf-8")))
            write_json(summary, facts)
            write_model_card(directory, facts, OBJECTIVES[facts["objective"]].card)


def deployment(written: dict[str, Any]) -> dict[str, Any]:
    """What a card tells of an output file of `scripts/benchmark.py deployment`."""
    return {
        "how": written["facts"]["how"],
        "forms": written["facts"]["deployment"],
        "updates": written["facts"].get("updates"),
        "cpu": written["machine"]["cpu"],
        "threads": written["settings"]["threads"],
        "clock": written["clock"],
    }


def grammar(files: dict[str, Path]) -> dict[str, Any]:
    """What a card tells of `blimp.json`, which `hfseq evaluate MODEL --benchmark blimp --output` wrote, and of the
    `blimp-NAME.json` of its --baseline."""
    read = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()}
    found = read.pop("blimp")
    return {**found, "baselines": {one["model"]: one for one in read.values()}}


def adaptation(written: dict[str, Any]) -> dict[str, Any]:
    """What a card tells of an output file of `hfseq evaluate MODEL --dynamic_evaluation ... --neural_cache ...`."""
    scores = dict(written["adapted"])
    options = {name: scores.pop(name) for name in ("dynamic", "cache") if name in scores}
    return {"options": options, "split": written["split"], "scores": scores}


def todays_form(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a run with the recipe, the command and the names of today."""
    if is_old(facts["recipe_content"]):
        facts["recipe_content"] = modernise(facts["recipe_content"])
    if "objective" not in facts:
        facts = {("objective" if key == "task" else key): value for key, value in facts.items()}
        facts["objective"] = facts["recipe_content"]["objective"]["type"]
    facts["command"] = todays_command(facts["command"])
    for run in facts.get("fine_tuning") or []:
        if "command" in run:
            run["command"] = todays_command(run["command"])
    return facts


def todays_command(command: str) -> str:
    """A command line of hfseq 0.1 as one writes it now."""
    command = re.sub(r"python scripts/(\w+)\.py", r"hfseq \1", command)
    for old, new in (("swatches", None), ("push_to_hub", "push"), ("train_tokenizer", "tokenize")):
        command = command.replace(
            f"hfseq {old}", f"hfseq {new}" if new else f"python scripts/examples/{old}.py"
        )
    return re.sub(r"scripts/recipes/([\w-]+)\.yaml", r"\1", command)


if __name__ == "__main__":
    main(sys.argv[1:])
