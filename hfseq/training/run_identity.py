"""What makes a run the run it is, in `OUTPUT/run.json`: a resume with anything else would go on with other data.

`recipe.yaml` says where the data are; here is what they were: fingerprints of the token arrays and the tokenizer, the
plan, the seeds and the optimiser. What may change between two parts of a run is not in it: the number of processes and
accumulation steps (the updates are the same), learning rates, intervals of evaluations and saves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..data.fingerprints import fingerprint_of
from .report import write_json

FILE_NAME = "run.json"


def run_identity(
    fingerprints: dict[str, str], tokenizers: list[Any], plan: Any, training: dict[str, Any]
) -> dict[str, Any]:
    """{what: value}, all of JSON.

    Args:
        fingerprints: of the data, by side (`Objective.fingerprints`).
        tokenizers: all of the run.
        plan: of the training side.
        training: seeds and optimiser, under their names in the recipe.
    """
    return {
        "text and its tokens": fingerprints,
        "tokenizer": [_tokenizer_fingerprint(tokenizer) for tokenizer in tokenizers],
        "plan": {"kind": type(plan).__name__, "updates": plan.n_updates, "epochs": plan.epochs},
        **{f"training.{name}": value for name, value in training.items()},
    }


def _tokenizer_fingerprint(tokenizer: Any) -> str:
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # Traces of a call, not of what the tokenizer is.
    content.pop("padding", None)
    content.pop("truncation", None)
    return fingerprint_of([content, tokenizer.special_tokens_map])


def check_identity(output: Path, identity: dict[str, Any]) -> None:
    """Compares the run that is about to go on with the one that began in `output`.

    Raises:
        ValueError: what is not the same, or a run.json that cannot be read. A run of hfseq 0.1 has none, and passes.
    """
    path = output / FILE_NAME
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, value in identity.items() if before[name] != json.loads(json.dumps(value))]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({type(error).__name__}: {error}): whether data, tokenizer, seed and optimiser are "
            "what they were cannot be said. Say --resume_anyway if you know it, or start again with --overwrite."
        ) from error
    if changed:
        said = [
            f"{name} (it was {_short(before[name])}, now it is {_short(identity[name])})" for name in changed
        ]
        raise ValueError(
            f"Cannot resume {output}: not what the run began with: {'; '.join(said)}. Restore it, say --resume_anyway "
            "if you know that the weights still mean the same, or start again with --overwrite."
        )


def write_identity(output: Path, identity: dict[str, Any]) -> None:
    """Writes run.json, whole or not at all."""
    write_json(output / FILE_NAME, identity)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


__all__ = ["FILE_NAME", "check_identity", "run_identity", "write_identity"]
