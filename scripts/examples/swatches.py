"""What a model of colour names has learnt: a picture of held-out colours with its names for them, and numbers.

    hfseq pretrain lstm-colours
    hfseq pretrain lstm-colours --feature_size 0 --output_dir outputs/colours-blind
    python scripts/examples/swatches.py outputs/lstm-colours --twin outputs/colours-blind
    python scripts/examples/swatches.py outputs/lstm-colours --colours "#c04e01" "#a0b0c0"

Writes swatches.png and, with the distances between the named colours and those that the names stand for,
training_summary.json and the model card anew. With --colours it only prints names.

A name stands for the colour that the table of names gives it. One that is not in the table stands for the mean colour
of the known names that end in the same words, as many of them as possible ("old dusty pink" for those that end in
"dusty pink", or else in "pink"). Distances are those of CIELAB (Delta E of 1976), where 2.3 is just noticeable.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from hfseq import data
from hfseq.cards import write_model_card
from hfseq.commands.console import path, print_what_the_terminal_can
from hfseq.data.colours import RGB, lab_of, rgb_of
from hfseq.loading import load_model
from hfseq.objectives.vector_to_text import VectorToText
from hfseq.plots import Swatch, plot_swatches, require_matplotlib
from hfseq.training import write_json
from hfseq.training.describing import describe_vectors

SAMPLED = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "max_new_tokens": 20}
SHOWN = 30

Colour = tuple[float, float, float]


def main() -> None:
    print_what_the_terminal_can()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=path, help="a run of hfseq pretrain on the corpus colours")
    parser.add_argument("--twin", type=path, help="the same trained with --feature_size 0, for comparison")
    parser.add_argument("--colours", nargs="+", metavar="#RRGGBB", help="name these, and write nothing")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        if arguments.colours:
            vectors = [rgb_of(code) for code in arguments.colours]
            for code, name in zip(
                arguments.colours, describe_vectors(*load(arguments.model), vectors), strict=True
            ):
                print(f"{code}  {name}")
            return
        complete(arguments)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


def load(directory: Path):
    model = load_model(AutoModelForCausalLM, directory)
    if model.config.feature_size != len(RGB):
        raise ValueError(
            f"{directory} has feature_size {model.config.feature_size}: colours need red, green and blue."
        )
    return model, AutoTokenizer.from_pretrained(directory)


def complete(arguments: argparse.Namespace) -> None:
    """Names every test colour; writes picture, summary and card."""
    require_matplotlib()
    model, tokenizer = load(arguments.model)
    summary = arguments.model / "training_summary.json"
    facts = json.loads(summary.read_text(encoding="utf-8"))
    section = facts["recipe_content"]["data"]
    if section["corpus"] != "colours":
        raise ValueError(f"{arguments.model} was trained on {section['corpus']!r}, not on colours.")
    table = data.load_features(
        "colours", **{key: section[key] for key in ("validation_share", "test_share", "split_seed")}
    )
    colours = [tuple(map(float, rgb)) for rgb in table.features["test"]]
    true = table.texts["test"]
    train = list(zip(table.texts["train"], map(tuple, table.features["train"].tolist()), strict=True))
    known = KnownColours(train)

    set_seed(arguments.seed)
    ways = {"most likely (4 beams)": describe_vectors(model, tokenizer, colours)}
    ways["sampled"] = describe_vectors(model, tokenizer, colours, **SAMPLED)
    order = np.random.default_rng(arguments.seed)
    shuffled = [ways["sampled"][i] for i in order.permutation(len(true))]
    rows = [measured(known, name, names, colours) for name, names in ways.items()]
    rows.append(measured(known, "sampled for another test colour", shuffled, colours))
    rows.append(measured(known, "the names in the table", true, colours))

    chosen = sorted(
        order.choice(len(true), size=min(SHOWN, len(true)), replace=False).tolist(),
        key=lambda i: hue(colours[i]),
    )
    shown = [Swatch(colours[i], true[i], [names[i] for names in ways.values()]) for i in chosen]
    title = "held-out colours: the table's name (grey), the likeliest (bold) and a sampled one"
    picture = plot_swatches(shown, arguments.model / "swatches.png", title)
    facts["swatches"] = {
        "picture": picture.name,
        "test_colours": len(true),
        "distances": rows,
        "command": shlex.join(["python", "scripts/swatches.py", *sys.argv[1:]]),
    }
    if arguments.twin:
        twin = json.loads((arguments.twin / "training_summary.json").read_text(encoding="utf-8"))
        facts["baselines"] = [
            {"name": "the same, trained without the vector", "command": twin["command"], **twin["scores"]}
        ]
        facts["swatches"]["command"] = f"{twin['command']}\n{facts['swatches']['command']}"
    write_json(summary, facts)
    print(write_model_card(arguments.model, facts, VectorToText.card))
    for row in rows:
        print(row)


class KnownColours:
    """What names stand for.

    Args:
        table: (name, red, green and blue from 0 to 1) of every known name; upper and lower case are one.
    """

    def __init__(self, table: Iterable[tuple[str, Colour]]):
        self.exact: dict[tuple[str, ...], list[Colour]] = defaultdict(list)
        self.ending: dict[tuple[str, ...], list[Colour]] = defaultdict(list)
        for name, rgb in table:
            words, lab = tuple(name.lower().split()), lab_of(rgb)
            self.exact[words].append(lab)
            for first in range(len(words)):
                self.ending[words[first:]].append(lab)

    def knows(self, name: str) -> bool:
        """Whether the name itself is in the table."""
        return tuple(name.lower().split()) in self.exact

    def lab(self, name: str) -> Colour | None:
        """CIELAB of what the name stands for; None where not even its last word is known."""
        words = tuple(name.lower().split())
        if words in self.exact:
            return _mean(self.exact[words])
        for first in range(len(words)):
            if words[first:] in self.ending:
                return _mean(self.ending[words[first:]])
        return None

    def distance(self, name: str, rgb: Colour) -> float | None:
        """Delta E between what the name stands for and a colour."""
        lab = self.lab(name)
        return None if lab is None else math.dist(lab, lab_of(rgb))


def _mean(colours: Sequence[Colour]) -> Colour:
    return tuple(sum(values) / len(colours) for values in zip(*colours, strict=True))


def measured(known: KnownColours, way: str, names: list[str], colours) -> dict[str, object]:
    """How far names are from the colours that they were given to, a row of the card."""
    distances = [known.distance(name, rgb) for name, rgb in zip(names, colours, strict=True)]
    found = np.array([d for d in distances if d is not None])
    return {
        "names": way,
        "mean_distance": round(float(found.mean()), 1) if len(found) else None,
        "median_distance": round(float(np.median(found)), 1) if len(found) else None,
        "without_a_known_word": round(1 - len(found) / len(names), 3),
        "in_the_training_table": round(sum(map(known.knows, names)) / len(names), 3),
        "different": len(set(names)),
    }


def hue(rgb) -> tuple[float, float]:
    """For sorting: greys first, then around the wheel."""
    import colorsys

    h, lightness, saturation = colorsys.rgb_to_hls(*rgb)
    return (round(h * 12) if saturation > 0.12 else -1, lightness)


if __name__ == "__main__":
    main()
