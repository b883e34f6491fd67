"""List the packaged recipes, each with the number that its model card claims.

hfseq recipes
hfseq recipes lstm-kjv      # the file itself, to copy and change
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from hfseq.commands.console import CommandParser, mistakes_told
from hfseq.recipe import find_recipe, packaged_recipes, read_recipe, recipe_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="print this recipe")


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("recipes", __doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with mistakes_told(parser):
        if arguments.name is None:
            print(overview(packaged_recipes()))
        else:
            print(read_recipe(find_recipe(arguments.name)), end="")


def overview(recipes: dict[str, Path]) -> str:
    """A line for each recipe, and what its card claims under it."""
    claims = json.loads((recipe_folder() / "claims.json").read_text(encoding="utf-8"))
    width = max(map(len, recipes), default=0) + 2
    lines = []
    for name, path in recipes.items():
        lines.append(f"{name:{width}}{first_sentence(path.read_text(encoding='utf-8'))}")
        if name in claims:
            lines.append(f"{'':{width}}{'{score} {value} ({split})'.format(**claims[name])}")
    return "\n".join([*lines, "", "hfseq pretrain NAME trains one; hfseq recipes NAME prints it."])


def first_sentence(recipe: str) -> str:
    """Of the comment that a recipe begins with."""
    comment = re.match(r"(?:#.*\n)*", recipe)[0]  # type: ignore[index]  # matches the empty text
    text = " ".join(line.lstrip("# ").rstrip() for line in comment.splitlines())
    # "et al. 2018" ends no sentence
    return re.match(r".*?\.(?=\s+[A-Z]|$)|.*", text)[0]  # type: ignore[index]  # likewise
