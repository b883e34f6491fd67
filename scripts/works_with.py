"""Writes docs/works-with.md, which tool works with which family, from the results of tests/clients.

python scripts/works_with.py clients.xml     # the report of `pytest tests/clients -m clients --junitxml clients.xml`
"""

from __future__ import annotations

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "works-with.md"
FAMILIES = {
    "recurrent": "RNN, GRU, LSTM", "recurrent_seq2seq": "recurrent seq2seq", "encoder": "encoder",
    "transformer": "Transformer", "pervasive": "Pervasive Attention",
}  # fmt: skip
HEAD = """# Works with

Other people's tools on our models, unchanged, after `import hfseq`. Every cell is a test of `tests/clients`: a tiny
model of the family goes through the real package. "2 of 2" is how many such models were tried and passed.
`make clients` runs them and writes this page (`scripts/works_with.py`).
"""
NOTES = """## What to know

**`transformers serve`** is a process of its own, which imports hfseq only if told to:
`python -c "import hfseq; from transformers.cli.transformers import main; main()" serve outputs/lstm-kjv`. Whatever
looks a class up in the namespace of transformers finds it after `import hfseq`: `SFTTrainer(model="path")` and
`DPOTrainer` without `ref_model` too.

**PEFT's prompts.** A recurrent model has no heads, and its embedding may be narrower than its layers; PEFT asks for
both: `PromptTuningConfig(..., num_attention_heads=1, token_dim=model.get_input_embeddings().embedding_dim)`. Prefix
tuning is made of keys and values: a recurrent model and Pervasive Attention refuse it. For a Transformer whose sides
differ in depth pass `num_layers=model.config.decoder_layers`.

**TRL and tied embeddings.** TRL computes its losses from the base model's output and the output layer's matrix, without
what a model does between them. Where a recurrent model's last layer is not as wide as its tied embedding there is a
projection between, and torch complains of shapes: train such models with `last_hidden_size` equal to `embedding_size`,
or with `tie_word_embeddings: false`. Output dropout, label smoothing and AWD-LSTM's penalties do not act in TRL.

**lm-evaluation-harness** takes a model of source and target for a causal one unless told: `backend=seq2seq`.

**transformers' own common tests** (`ModelTesterMixin`, `GenerationTesterMixin`) run over every class too, where
`HFSEQ_TRANSFORMERS_SOURCE` names a checkout of its repository; `tests/clients/common_skips.yaml` is the whole list of
what a class is not given, with the reasons.

**`prefill_chunk_size`** reads a prompt in pieces, with the same result. A model of source and target refuses it:
transformers would cut the source's mask.
"""


def results(reports: list[Path]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """({row: {case: passed, failed or skipped}}, {package: version}) of JUnit reports; of the last that has a cell."""
    trees = [ElementTree.parse(report) for report in reports]
    found: dict[str, dict[str, str]] = {}
    for test in (test for tree in trees for test in tree.iter("testcase")):
        match = re.fullmatch(r"test_(\w+)\[(.+)\]", test.get("name", ""))
        if match:
            bad = [child.tag for child in test if child.tag in ("failure", "error", "skipped")]
            outcome = "passed" if not bad else "skipped" if bad == ["skipped"] else "failed"
            found.setdefault(match[1], {})[match[2]] = outcome
    properties = [p for tree in trees for p in tree.iter("property")]
    return found, {p.get("name", ""): p.get("value", "") for p in properties}


def family_of() -> dict[str, str]:
    """{name of a case: its family}."""
    from hfseq.contracts import CASES

    return {case.name: case.family for case in CASES}


def document(rows: dict, found: dict[str, dict[str, str]], versions: dict[str, str]) -> str:
    """The page.

    Raises:
        ValueError: a cell that the report does not have, or that did not pass.
    """
    families, reasons = family_of(), []
    lines = [f"| | {' | '.join(FAMILIES.values())} |", "|---" * (len(FAMILIES) + 1) + "|"]
    for key, row in rows.items():
        cells = []
        for family in FAMILIES:
            names = [name for name in row["cells"] if families[name] == family]
            bad = [f"{name} {found.get(key, {}).get(name, 'was not run')}" for name in names
                   if found.get(key, {}).get(name) != "passed"]  # fmt: skip
            if bad:
                raise ValueError(f"{key}: {', '.join(bad)}. Run make clients, with every package installed.")
            if not names:
                reason = row["without"][family]
                if reason not in reasons:
                    reasons.append(reason)
            cells.append(f"{len(names)} of {len(names)}" if names else f"- ({reasons.index(reason) + 1})")
        lines.append(f"| {row['title']} | {' | '.join(cells)} |")
    listed = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return "\n".join(
        [HEAD, *lines, "", "Where there is no test:", "", *listed, "", f"Run with {packages}.", "", NOTES]
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", type=Path, nargs="+", help="JUnit reports of tests/clients")
    arguments = parser.parse_args(argv)
    rows = yaml.safe_load((ROOT / "tests" / "clients" / "cells.yaml").read_text(encoding="utf-8"))
    try:
        text = document(rows, *results(arguments.reports))
    except ValueError as error:
        sys.exit(str(error))
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
