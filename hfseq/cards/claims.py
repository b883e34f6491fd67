"""What each recipe's model card claims, in one number: for lists, where the cards themselves do not travel."""

from __future__ import annotations

import json
from pathlib import Path

from .texts import TASKS


def read_claims(model_cards: Path) -> dict[str, dict[str, str]]:
    """{recipe: {score, split, value}}, from the training_summary.json beside every card.

    The split is test, or validation where there is no test side; value is printed as on the card.
    """
    claims = {}
    for file in sorted(model_cards.glob("*/training_summary.json")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        text = TASKS[facts.get("task", "text-generation")]
        split = "test" if "test" in facts["scores"] else "validation"
        key = text.claim or next(iter(text.metrics))
        name, shape = text.metrics[key]
        claims[facts["recipe"]] = {
            "score": name,
            "split": split,
            "value": format(facts["scores"][split][key], shape),
        }
    return claims


__all__ = ["read_claims"]
