"""Runs `hfseq check` over models of transformers with random weights, and writes what it finds.

    python scripts/check_in_tree.py --folder outputs/in-tree           # all models; an hour on two cores
    python scripts/check_in_tree.py --folder outputs/in-tree gpt2 t5   # these again
    python scripts/check_in_tree.py --folder outputs/in-tree t5 --only saving   # of these, one contract again
    python scripts/check_in_tree.py --folder outputs/in-tree --table   # docs/in-tree-findings.md, nothing run

Every model is its class's own defaults but for the sizes, with no code of ours: built, saved and checked as a
checkpoint that somebody gave us. Weights are large enough that everything matters (`hfseq.contracts.cases.sharpen`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

from hfseq.commands.check import FAILED, NOT_APPLICABLE, PASSED, verdicts
from hfseq.contracts import CONTRACTS
from hfseq.contracts.cases import sharpen
from hfseq.contracts.checkpoints import checkpoint_case

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "in-tree-findings.md"
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2}
ATTENTION = {**SIZES, "intermediate_size": 24, "num_attention_heads": 2, "max_position_embeddings": 64}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
# BART's own pad is 1; names of fields as Marian, BART and Pegasus share them.
PAIRS = {
    "vocab_size": 40, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64,
}  # fmt: skip
MODELS = {
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, **IDS}),
    "llama": ("LlamaForCausalLM", {**ATTENTION, "num_key_value_heads": 1, **IDS}),
    "opt": ("OPTForCausalLM", {
        "vocab_size": 40, "hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 24, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 64, **IDS,
    }),
    "gpt_neox": ("GPTNeoXForCausalLM", {**ATTENTION, **IDS}),
    "mamba": ("MambaForCausalLM", {**SIZES, "state_size": 4, **IDS}),
    "bert": ("BertForMaskedLM", {**ATTENTION, "pad_token_id": 0}),
    "roberta": ("RobertaForMaskedLM", {**ATTENTION, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "distilbert": ("DistilBertForMaskedLM", {
        "vocab_size": 40, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64,
    }),
    "electra": ("ElectraForMaskedLM", {**ATTENTION, "embedding_size": 16}),
    "modernbert": ("ModernBertForMaskedLM", {
        **ATTENTION, "local_attention": 8, "cls_token_id": 1, "sep_token_id": 2, **IDS,
    }),
    "bert-classifier": ("BertForSequenceClassification", {**ATTENTION, "pad_token_id": 0, "num_labels": 3}),
    "marian": ("MarianMTModel", {
        **PAIRS, "pad_token_id": 39, "eos_token_id": 0, "forced_eos_token_id": 0, "decoder_start_token_id": 39,
    }),
    "bart": ("BartForConditionalGeneration", {**PAIRS, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "pegasus": ("PegasusForConditionalGeneration", PAIRS),
    "t5": ("T5ForConditionalGeneration", {
        "vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
        "decoder_start_token_id": 0,
    }),
}  # fmt: skip
LONGEST = 230
# Why models do so, by how a finding begins ("contract: check: ..."); the first that fits counts. Shown without hfseq in
# tests/scripts/test_check_in_tree.py.
REASONS = {
    r"padding: .*padded on the left.*: loss|padding: loss padded on the left":
        "by design: labels are shifted by one place, so the last padding position learns to predict the first token, "
        "which a row without padding never does",
    r"loss: nothing to count": "by design: a mean over no labels",
    r"packing: .*by position_ids": "it takes position_ids, and attends across the borders that they show",
    r"resuming: .*embed_in":
        "`save_pretrained` calls the head `embed_out.weight`, the model `lm_head.weight`: Trainer resumes without it, "
        "and no error",
    r"numerics: .*the loss is in torch.bfloat16": "by design: a cross-entropy of the logits as they are",
    r"numerics: .*gave logits in torch.float32": "by design: logits are turned into float32",
    r".*A_log|.*e-0[6789] relative, allowed 1e-09": "by design: the state is computed in float32, whatever the weights",
    r"caching: .*stateful models": "by design: a state cannot be taken back, and the message says so",
    r"clients: .*never called with a hook": "the scan reads the layer's weight: a hook or adapter on it does nothing",
    r"clients: evaluated by the stock trainer": "Trainer counts the labels of first tokens, which are never scored",
    r"loss: (num items|micro batches|sixteen)":
        "its loss is the mean over each batch's labels, whatever num_items_in_batch says: labels of short batches "
        "weigh more",
    r"distributed: .*logged losses":
        "likewise: its forward takes num_items_in_batch, so Trainer multiplies the loss by the number of processes, "
        "and its loss does not divide by it",
    r"caching: (in ragged chunks|left padded in chunks|masked tokens|reordered cache)":
        "several tokens after a state begin the scan anew; only a single one goes on from it",
    r"caching: (repeated|selected|cropped) cache": "the layers of its cache have no such method",
    r"caching: (greedy|prefix allowed|end of sequence|suppressed tokens)":
        "by design: its config forces the end as the last token (`forced_eos_token_id`), whatever else is asked for",
    r"numerics: resized embeddings: .*embed_positions|distributed: work ddp: .*finished reduction":
        "its fixed positions are no parameter to train when it is built, but are one after `from_pretrained`, and no "
        "gradient reaches them",
    r"distributed: work fsdp: no module": "FSDP then has no blocks to shard, and gathers the whole model at once",
    r"distributed: work fsdp: .*is shared with":
        "its embeddings are a block of their own in `_no_split_modules`, and tied to the head, which is outside",
    r"clients: the embedding sees rows":
        "`get_input_embeddings()` is a table that no forward calls: encoder and decoder have modules of their own, "
        "tied to it, and a hook or adapter on it does nothing",
}  # fmt: skip
HEAD = """# What `hfseq check` finds in transformers' own models

transformers {transformers}, torch {torch}, hfseq {hfseq}. Tiny models with random weights, each saved and checked as a
stranger's checkpoint; written by `python scripts/check_in_tree.py --folder FOLDER`. A finding is a deviation from what
hfseq promises of its own classes (the contracts, in CONTRIBUTING.md), mostly by design there; each line says which
check saw it, by how much, and why. What several checks see of one cause is listed under each.

"""


def make(name: str, directory: str) -> None:
    """A tiny model of the class, with weights that matter, as `save_pretrained` writes it."""
    class_name, fields = MODELS[name]
    model_class = getattr(transformers, class_name)
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**fields))
    sharpen(model, 0.4, seed=0)
    model.save_pretrained(directory)


def check(name: str, only: list[str] | None = None) -> dict[str, tuple[str, list[str]]]:
    """{contract: (verdict, findings or the reason)}, of all contracts or of `only` these."""
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        make(name, directory)
        case = checkpoint_case(directory)
        begun = time.perf_counter()
        for contract, verdict, details, seconds in verdicts(case, f"checkpoint:{directory}", only):
            if "took longer than" in details:  # says nothing of the model
                sys.exit(
                    f"{name}: {contract.key} {details.splitlines()[0]}: the machine is too busy, start again"
                )
            lines = [details] if verdict == NOT_APPLICABLE else findings(details, directory)
            found[contract.key] = verdict, lines
            print(
                f"{name:16} {contract.key:12} {seconds:6.1f} s  {verdict}", *lines, sep="\n    ", flush=True
            )
        print(f"{name:16} {time.perf_counter() - begun:.0f} s", flush=True)
    return found


def findings(details: str, directory: str) -> list[str]:
    """One line for each failed check: of what a subprocess printed, the lines of checks, each once."""
    details = details.replace(directory, "checkpoint")
    lines = re.findall(r"(?m)^(?:\[rank\d+\]:)?\s*- (.+)$", details)
    if not lines and details:
        lines = [details.strip().splitlines()[-1]]
    short = [line if len(line) <= LONGEST else f"{line[:LONGEST]} ..." for line in lines]
    return list(dict.fromkeys(short))


def reason(contract: str, finding: str) -> str:
    """Why a model does so, where that is known."""
    line = f"{contract}: {finding}"
    return next((f" ({why})" for pattern, why in REASONS.items() if re.match(pattern, line)), "")


def table(results: dict[str, dict]) -> str:
    """Markdown: model x contract, then each finding, then the reasons."""
    keys = [contract.key for contract in CONTRACTS]
    lines = [
        HEAD.format(**{name: version(name) for name in ("transformers", "torch", "hfseq")}),
        f"| | {' | '.join(f'{c.number} {c.key}' for c in CONTRACTS)} |",
        f"|---|{'---|' * len(keys)}",
    ]
    marks = {
        PASSED: lambda _: "holds",
        FAILED: lambda found: f"**{len(found)}**",
        NOT_APPLICABLE: lambda _: "-",
    }
    for name, result in results.items():
        cells = [marks[verdict](found) for verdict, found in (result[key] for key in keys)]
        lines.append(f"| {name} (`{MODELS[name][0]}`) | {' | '.join(cells)} |")
    lines += [
        "",
        "**3**: so many checks of the contract found something. -: does not apply, for the reason below.",
        "",
    ]
    if missing := [name for name in MODELS if name not in results]:
        lines += [f"Not run yet: {', '.join(missing)}.", ""]
    lines += ["\n## Findings\n"]
    for name, result in results.items():
        if any(verdict == FAILED for verdict, _ in result.values()):
            lines.append(f"### {name}\n")
        for key in keys:
            verdict, found = result[key]
            if verdict == FAILED:
                lines += [f"- {key}: {line}{reason(key, line)}" for line in found]
        lines.append("")
    lines += ["## Why a contract does not apply\n"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for name, result in results.items():
        for key in keys:
            verdict, found = result[key]
            if verdict == NOT_APPLICABLE:
                reasons.setdefault((key, found[0]), []).append(name)
    lines += [f"- {key}: {reason} ({', '.join(names)})" for (key, reason), names in reasons.items()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; all that FOLDER lacks"
    )
    parser.add_argument("--folder", type=Path, required=True, help="one file of results for each model")
    parser.add_argument("--table", action="store_true", help="run nothing, write the page from FOLDER")
    parser.add_argument(
        "--only", nargs="+", choices=[contract.key for contract in CONTRACTS],
        help="run these contracts of the MODELs again",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if unknown := sorted({*arguments.models} - MODELS.keys()):
        parser.error(f"no model {', '.join(unknown)}; choose from {', '.join(MODELS)}")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    files = {name: arguments.folder / f"{name}.json" for name in MODELS}
    chosen = arguments.models or [name for name, file in files.items() if not file.exists()]
    if arguments.only and not all(files[name].exists() for name in arguments.models or MODELS):
        parser.error(f"--only is for models that {arguments.folder} has: name them")
    for name in [] if arguments.table else arguments.models or MODELS if arguments.only else chosen:
        before = json.loads(files[name].read_text(encoding="utf-8")) if arguments.only else {}
        files[name].write_text(
            json.dumps({**before, **check(name, arguments.only)}, indent=1), encoding="utf-8"
        )
    there = {name: file for name, file in files.items() if file.exists()}
    results = {name: json.loads(file.read_text(encoding="utf-8")) for name, file in there.items()}
    DOCUMENT.write_text(table(results), encoding="utf-8")
    print(f"wrote {DOCUMENT}")


if __name__ == "__main__":
    main()
