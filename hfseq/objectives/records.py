"""What a finished run says of itself: the recipe beside its model, and the objective of its summary.

Both are understood as hfseq 0.1 wrote them, too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..recipe import RawSections, Recipe, read_sections
from . import OBJECTIVES, load_recipe
from .base import Objective
from .old_recipes import is_old, modernise


def read_own_sections(directory: str | os.PathLike) -> RawSections:
    """The sections of the recipe.yaml in a run's directory, in today's form.

    Raises:
        FileNotFoundError: there is none. ValueError: no YAML, or no recipe of a pretraining.
    """
    file = Path(directory) / "recipe.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{directory} has no recipe.yaml: it is no directory that `hfseq pretrain` wrote."
        )
    sections = read_sections(file)
    sections = modernise(sections) if is_old(sections) else sections
    if "type" not in sections.get("objective", {}):
        message = f"{file} is no recipe of a pretraining: it has no objective.type."
        if "task" in sections:
            message += " What a fine-tuned model scores stands in its finetune_summary.json."
        raise ValueError(message)
    return sections


def recipe_of_sections(sections: RawSections, where: str) -> Recipe:
    """The recipe with these sections; `where` stands for its file in messages.

    Raises:
        ValueError: as `load_recipe` raises it.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(yaml.safe_dump(sections, allow_unicode=True), encoding="utf-8")
        try:
            recipe = load_recipe(file)
        except ValueError as error:
            raise ValueError(str(error).replace(str(file), where)) from error
    recipe.path = where
    return recipe


def load_own_recipe(directory: str | os.PathLike) -> Recipe:
    """The recipe of a run, its tokenizer the one that lies beside the model.

    Raises:
        FileNotFoundError, ValueError: as `read_own_sections` and `load_recipe` raise them.
    """
    sections = read_own_sections(directory)
    sections["tokenizer"] = {"path": str(directory)}
    return recipe_of_sections(sections, str(Path(directory) / "recipe.yaml"))


def objective_of_summary(facts: Mapping[str, Any]) -> type[Objective]:
    """The objective of a `training_summary.json`.

    Raises:
        ValueError: it is no summary of a pretraining.
    """
    content = facts.get("recipe_content") or {}
    content = modernise(content) if is_old(content) else content
    name = content.get("objective", {}).get("type")
    if name not in OBJECTIVES:
        raise ValueError(
            f"The summary of {facts.get('recipe')} names no objective of a pretraining: {name!r}."
        )
    return OBJECTIVES[name]


__all__ = ["load_own_recipe", "objective_of_summary", "read_own_sections", "recipe_of_sections"]
