"""What a model is, how it is used and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import hfseq

from .card_text import CardText
from .markdown import plain, table


def introduction(facts: Mapping[str, Any], corpus: Mapping[str, str]) -> str:
    section = facts["recipe_content"].get("training", {})
    origin = section.get("initialize_from")
    start = f"from the weights of `{origin}`" if origin else "from scratch"
    version = facts.get("machine", {}).get("hfseq", hfseq.__version__)
    text = (
        f"`{facts['model_class']}`, {facts['parameters']:,} parameters, trained {start} with "
        f"hfseq {version}. Training data: {corpus['name']}."
    )
    if note := section.get("note"):
        text += f" {note}"
    if facts.get("prompt") and facts.get("guesses"):
        text += f"\n\nWhat it puts in place of the mask in *{facts['prompt']}*:\n\n{table(facts['guesses'])}"
    if facts.get("prompt") and facts.get("translation"):
        text += f"\n\nIt translates like this:\n\n> {facts['prompt']}\n>\n> **{facts['translation']}**"
    if facts.get("prompt") and facts.get("described"):
        text += f"\n\nWhat it says of the vector `{facts['prompt']}`:\n\n> **{facts['described']}**"
    if facts.get("prompt") and facts.get("repaired"):
        text += (
            f"\n\nIt repairs a damaged text like this:\n\n> `{facts['prompt']}`\n>\n> `{facts['repaired']}`"
        )
    if facts.get("prompt") and facts.get("continuation"):
        continuation = facts["continuation"].removeprefix(facts["prompt"]).rstrip()
        quoted = f"**{facts['prompt'].strip()}**{continuation}".replace("\n", "\n> ")
        text += f"\n\nIt continues a prompt (in bold) like this:\n\n> {quoted}"
    return text


def usage(directory: Path, facts: Mapping[str, Any], text: CardText) -> str:
    """How the model is called; `hfseq push` puts the repository's id in the place of the directory's name."""
    code = text.usage.format(
        path=json.dumps(directory.name), prompt=json.dumps(facts.get("prompt") or "Once upon a time")
    )
    return (
        f"```python\n{code}\n```\n\n"
        "`trust_remote_code=True` runs the model's code from this repository (`hfseq push` puts it there). "
        "After `import hfseq` the installed library is used instead, and the option is not needed."
    )


def making(facts: Mapping[str, Any]) -> str:
    keys = (
        "vocabulary", "train_documents", "train_words", "train_tokens", "train_bytes", "train_pairs",
        "train_source_tokens", "train_target_tokens", "filter", "updates", "epochs", "training_seconds",
        "tokens_per_second", "words_per_second", "peak_memory",
    )  # fmt: skip
    facts = {**facts, **_derived(facts)}
    details = {key.replace("_", " "): facts.get(key) for key in keys} | dict(facts.get("machine") or {})
    rows = [{"what": key, "value": value} for key, value in details.items() if value is not None]
    recipe = yaml.safe_dump(plain(facts["recipe_content"]), sort_keys=False, allow_unicode=True)
    text = f"```bash\n{facts['command']}\n```"
    if rows:
        text += "\n\n" + table(rows)
    return f"{text}\n\nThe whole recipe, command line included:\n\n```yaml\n{recipe}```"


def _derived(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from the numbers of a run."""
    found: dict[str, Any] = {}
    words, tokens, speed = (facts.get(key) for key in ("train_words", "train_tokens", "tokens_per_second"))
    if words and tokens and speed:
        found["words_per_second"] = round(speed * words / tokens)
    if memory := facts.get("peak_memory_bytes"):
        found["peak_memory"] = f"{memory / 1e9:.2f} GB, data and all"
    return found


__all__ = ["introduction", "making", "usage"]
