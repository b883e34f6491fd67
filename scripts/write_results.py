"""Writes the tables of README.md and docs/results.md from the cards, so that no number stands there that no card has.

    python scripts/write_results.py           # after a card has changed
    python scripts/write_results.py --check   # writes nothing, fails where a table is not that of the cards

A table stands between `<!-- results: NAME -->` and `<!-- end of results -->`. Within a row the better comes first.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "model_cards"
PAGES = ("README.md", "docs/results.md")
PLACE = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


@dataclass(frozen=True)
class System:
    """A number of a card.

    Args:
        text: with {} for the number.
        card: a folder of model_cards/.
        path: where it stands in the card's training_summary.json, by keys; of lists by `name`, or how it begins.
        shape: how it is written.
    """

    text: str
    card: str
    path: tuple[str, ...]
    shape: str = ".3f"


@dataclass(frozen=True)
class Row:
    """Systems that compare, by a measure."""

    data: str
    measure: str
    systems: tuple[System, ...]
    higher_is_better: bool
    in_order: bool = False
    """As they stand here, not by their numbers."""


BITS, BLEU = ("scores", "test", "bits_per_byte"), ("scores", "test", "tokenized_bleu")


def tuned(name: str, measure: str) -> tuple[str, ...]:
    return ("fine_tuning", name, "scores", "test", measure, "mean")


KJV = Row(
    "King James Bible, 1.75M parameters",
    "bits per byte, lower is better",
    (
        System("LSTM {}", "lstm-kjv", BITS),
        System("GRU {}", "gru-kjv", BITS),
        System("RNN {}", "rnn-kjv", BITS),
        System("Llama of transformers {}", "llama-kjv", BITS),
        System("GPT-2 of transformers {}", "gpt2-kjv", BITS),
        System(
            "Kneser-Ney {}", "lstm-kjv", ("baselines", "interpolated Kneser-Ney", "test", "bits_per_byte")
        ),
    ),
    higher_is_better=False,
)
ENGLISH = Row(
    "9M words of small-english, 10M parameters",
    "bits per byte, lower is better",
    (
        System("LSTM {}", "lstm-small-english", BITS),
        System(
            "Kneser-Ney {}",
            "lstm-small-english",
            ("baselines", "interpolated Kneser-Ney", "test", "bits_per_byte"),
        ),
    ),
    higher_is_better=False,
)
GRAMMAR = Row(
    "likewise",
    "BLiMP, per cent of 67,000 pairs, higher is better",
    (
        System("LSTM {}", "lstm-small-english", ("blimp", "accuracy"), ".1f"),
        System(
            "Kneser-Ney of order 5 {}",
            "lstm-small-english",
            ("blimp", "baselines", "kneser-ney", "accuracy"),
            ".1f",
        ),
    ),
    higher_is_better=True,
)
GERMAN = Row(
    "Multi30k English to German, 2.1M to 3.1M",
    "tokenised BLEU, lower-cased, higher is better",
    (
        System("LSTM with attention {}", "lstm-multi30k-en-de", BLEU, ".1f"),
        System("Transformer {}", "transformer-multi30k-en-de", BLEU, ".1f"),
        System(
            "Pervasive Attention {} after a third of the Transformer's epochs",
            "pervasive-multi30k-en-de",
            BLEU,
            ".1f",
        ),
    ),
    higher_is_better=True,
)
FRENCH = Row(
    "Multi30k English to French, 2.6M",
    "likewise",
    (System("Transformer {}", "transformer-multi30k-en-fr", BLEU, ".1f"),),
    higher_is_better=True,
)
ENTITIES = Row(
    "Wikipedia and IMDB, 3.4M",
    "entity F1 on WNUT17, 3 seeds",
    (
        System("encoder {} pretrained", "encoder-wiki-imdb", tuned("wnut17", "f1")),
        System("{} from scratch", "encoder-wiki-imdb", tuned("wnut17-scratch", "f1")),
        System("linear tagger {}", "encoder-wiki-imdb", tuned("wnut17-bow", "f1")),
    ),
    higher_is_better=True,
    in_order=True,
)
ENTITIES_OF_REVIEWS = Row(
    "IMDB reviews, 4.5M",
    "likewise",
    (
        System("LSTM {} pretrained", "awd-lstm-imdb-cpu", tuned("lstm-wnut17", "f1")),
        System("{} from scratch", "awd-lstm-imdb-cpu", tuned("lstm-wnut17-scratch", "f1")),
    ),
    higher_is_better=True,
    in_order=True,
)
SENTIMENT = Row(
    "IMDB reviews, 4.5M",
    "accuracy on SST-2, 3 seeds",
    (
        System("LSTM {} pretrained", "awd-lstm-imdb-cpu", tuned("lstm-sst2", "accuracy")),
        System("{} from scratch", "awd-lstm-imdb-cpu", tuned("lstm-sst2-scratch", "accuracy")),
        System("bag of words {}", "awd-lstm-imdb-cpu", tuned("sst2-bow", "accuracy")),
    ),
    higher_is_better=True,
    in_order=True,
)
COLOURS = Row(
    "30,222 colours, 0.6M",
    "perplexity per token of held-out names, lower is better",
    (
        System("LSTM with the colour {}", "lstm-colours", ("scores", "test", "perplexity_per_token"), ".1f"),
        System(
            "without {}", "lstm-colours",
            ("baselines", "the same, trained without the vector", "test", "perplexity_per_token"), ".1f",
        ),
    ),
    higher_is_better=False,
    in_order=True,
)  # fmt: skip
TABLES = {
    "short": (KJV, ENGLISH, GRAMMAR, GERMAN, ENTITIES),
    "all": (KJV, ENGLISH, GRAMMAR, GERMAN, FRENCH, ENTITIES, ENTITIES_OF_REVIEWS, SENTIMENT, COLOURS),
}


def number_of(system: System) -> float:
    """The card's number.

    Raises:
        SystemExit: there is none at that place.
    """
    file = CARDS / system.card / "training_summary.json"
    value: Any = json.loads(file.read_text(encoding="utf-8"))
    for key in system.path:
        if isinstance(value, list):
            value = next((item for item in value if item["name"] == key), None) or next(
                (item for item in value if item["name"].startswith(key)), None
            )
        else:
            value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, float):
        sys.exit(f"{file} has no number at {' / '.join(system.path)}")
    return value


def table(rows: tuple[Row, ...]) -> str:
    lines = ["| trained from scratch on one CPU thread | score on the test side | |", "|---|---|---|"]
    for row in rows:
        numbers = [(number_of(system), system) for system in row.systems]
        if not row.in_order:
            numbers.sort(key=lambda pair: -pair[0] if row.higher_is_better else pair[0])
        shown = ", ".join(system.text.format(format(number, system.shape)) for number, system in numbers)
        lines.append(f"| {row.data} | {row.measure} | {shown} |")
    return "\n".join(lines) + "\n"


def with_tables(text: str) -> str:
    return PLACE.sub(lambda match: match[1] + table(TABLES[match[2]]) + match[3], text)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing, fail where a page is not up to date"
    )
    arguments = parser.parse_args(argv)
    for name in PAGES:
        page = ROOT / name
        text = page.read_text(encoding="utf-8")
        if not PLACE.search(text):
            sys.exit(f"{name} has no place for a table: <!-- results: {' or '.join(TABLES)} -->")
        written = with_tables(text)
        if written != text and arguments.check:
            sys.exit(f"{name} is not what the cards say: python scripts/write_results.py")
        page.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
