"""Writes hfseq/recipes/claims.json, which `hfseq recipes` shows, from the model cards: after a card has changed.

python scripts/write_claims.py
"""

from __future__ import annotations

import json
from pathlib import Path

from hfseq.objectives.records import objective_of_summary
from hfseq.training import write_json

ROOT = Path(__file__).parents[1]


def read_claims(model_cards: Path) -> dict[str, dict[str, str]]:
    """{recipe: {score, split, value}}, from the training_summary.json beside every card.

    The split is test, or validation where there is no test side; value is printed as on the card.
    """
    claims = {}
    for file in sorted(model_cards.glob("*/training_summary.json")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        text = objective_of_summary(facts).card
        split = "test" if "test" in facts["scores"] else "validation"
        key = text.claim or next(iter(text.metrics))
        name, shape = text.metrics[key]
        value = format(facts["scores"][split][key], shape)
        claims[facts["recipe"]] = {"score": name, "split": split, "value": value}
    return claims


if __name__ == "__main__":
    print(f"written to {write_json(ROOT / 'hfseq/recipes/claims.json', read_claims(ROOT / 'model_cards'))}")
