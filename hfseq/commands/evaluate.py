"""Score a text with a trained language model, or the translations of an encoder-decoder.

    hfseq evaluate outputs/lstm-kjv                       # the test side of its own recipe
    hfseq evaluate outputs/lstm-kjv --split validation --output scores.json
    hfseq evaluate outputs/lstm-kjv --file my.txt
    hfseq evaluate outputs/encoder-kjv --packing documents
    hfseq evaluate outputs/transformer-multi30k-en-de --output_text test.hyp
    hfseq evaluate outputs/transformer-multi30k-en-de --pairs test.en test.de --num_beams 1
    torchrun --nproc_per_node 2 -m hfseq evaluate outputs/lstm-kjv     # each process scores its part
    hfseq evaluate outputs/lstm-kjv --split validation --dynamic_evaluation rate=0.002 tokens=20
    hfseq evaluate outputs/lstm-kjv --neural_cache size=2000 theta=10 weight=0.1
    hfseq evaluate outputs/lstm-kjv --benchmark blimp --output blimp.json --plot blimp.png
    hfseq evaluate outputs/lstm-kjv --benchmark blimp --baseline kneser-ney
    hfseq evaluate outputs/lstm-kjv --benchmark surprisal --file stories.txt --output surprisal.tsv

What a run was trained on, and how that was split, stands in its recipe.yaml and is what counts here too: --corpus and
the options of the split are for models without one, or on top of it. A recurrent model scores every token once, reading
contiguous streams with carried state. An encoder guesses 15% of the tokens, always the same ones: perplexity and
accuracy. An encoder-decoder translates the sources of pairs (--pairs: two parallel files, or a .tsv, .csv or .jsonl,
also .gz): BLEU and chrF, each with its signature. Weights that are missing, left over or not finite are refused.

With --dynamic_evaluation or --neural_cache a recurrent model is scored once more while it goes on learning from what it
has read: a number of its own, for options chosen on the validation side.

With --benchmark it scores sentences instead, with any causal, masked or sequence-to-sequence model: minimal pairs
(BLiMP's 67,000, accuracy in per cent), or each word's surprisal in bits; --baseline kneser-ney judges the pairs by
n-grams of the model's training text instead. A causal model reads a sentence after its bos
or eos token, a masked one guesses each token in turn, a sequence-to-sequence one writes it to an empty source.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from hfseq import training
from hfseq.commands.benchmarks import add_benchmark_arguments, check_no_benchmark, run_benchmark
from hfseq.commands.console import CommandParser, device, mistakes_told, model_id, path
from hfseq.commands.outputs import check_different_files, check_output_file
from hfseq.data.files import write_lines
from hfseq.evaluation.adaptation import DynamicEvaluation, NeuralCache, options_of, score_adapting
from hfseq.loading import check_tokenizer, load_config, load_model
from hfseq.objectives import Objective, objective_of
from hfseq.objectives.base import model_class_of, position_limit
from hfseq.objectives.causal import Causal
from hfseq.objectives.masked import Masked
from hfseq.objectives.records import read_own_sections, recipe_of_sections
from hfseq.objectives.translation import Translation
from hfseq.recipe import RawSections
from hfseq.training.processes import is_main, own_device, start_processes, world_size

# Options that stand for a field of the data section, and of the objective's.
DATA_OPTIONS = (
    "corpus", "text_column", "txt_document", "validation_share", "test_share", "split_seed", "deduplicate",
    "source_language", "target_language",
)  # fmt: skip
OBJECTIVE_OPTIONS = {
    "streams": "evaluation_streams",
    "row_length": "row_length",
    "packing": "packing",
    "num_beams": "num_beams",
}
# What of a recipe's data section says how files are read, not which.
READING = (
    "text_column",
    "feature_columns",
    "txt_document",
    "source_language",
    "target_language",
    "source_column",
    "target_column",
)
# A row as long as a model's positions allow, but no longer than this.
LONGEST_ROW = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=model_id, help="a checkpoint directory or a Hub id")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--corpus", nargs="+", help="kjv, wiki, imdb, multi30k or a Hub data set id")
    source.add_argument("--file", nargs="+", help="local text, all of it: files, folders or globs")
    source.add_argument(
        "--pairs", nargs="+", help="for translation: two parallel files, or a .tsv, .csv or .jsonl of pairs"
    )
    parser.add_argument(
        "--split", choices=("validation", "test"), help="of the corpus; default: test, or validation if none"
    )
    parser.add_argument("--output_text", type=path, help="write the translations to this file, one per line")
    parser.add_argument("--output", type=path, help="also write the scores to this JSON file")
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the Hub repository"
    )
    split = parser.add_argument_group(
        "how the corpus is split and read; default: as in the model's recipe.yaml"
    )
    split.add_argument("--validation_share", type=float)
    split.add_argument("--test_share", type=float)
    split.add_argument("--split_seed", type=int)
    split.add_argument("--deduplicate", choices=("exact", "whitespace"))
    split.add_argument("--txt_document", choices=("paragraph", "line", "file"))
    split.add_argument("--text_column")
    split.add_argument("--source_language", help="of pairs; in tables, the column's name")
    split.add_argument("--target_language", help="likewise")
    how = parser.add_argument_group("how it is scored; default: as in the model's recipe.yaml")
    how.add_argument(
        "--streams", type=int, help="with carried state: contiguous parts, each begun without context"
    )
    how.add_argument("--row_length", type=int, help="without: tokens per row")
    how.add_argument("--packing", help="rows: blocks, documents, sentences")
    how.add_argument("--num_beams", type=int, help="for translation")
    adapting = parser.add_argument_group("with carried state: a model that goes on learning, reported apart")
    adapting.add_argument(
        "--dynamic_evaluation",
        nargs="*",
        metavar="NAME=NUMBER",
        help="weights follow the text (Krause et al. 2018), with rate, decay, epsilon, tokens, batches",
    )
    adapting.add_argument(
        "--neural_cache",
        nargs="*",
        metavar="NAME=NUMBER",
        help="what followed like states counts (Grave et al. 2017), with size, theta, weight",
    )
    add_benchmark_arguments(parser)


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("evaluate", __doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with mistakes_told(parser):
        if arguments.benchmark:
            run_benchmark(arguments, parser)
        else:
            score_text(arguments)


def score_text(arguments: argparse.Namespace) -> None:
    """The model's own kind of text, by its objective."""
    with tempfile.TemporaryDirectory() as scratch:
        check_arguments(arguments)
        adapting = adaptation_of(arguments)
        start_processes()
        config = load_config(arguments.model, trust_remote_code=arguments.trust_remote_code)
        objective, what = make_objective(arguments, config, scratch)
        objective.check_before(config)
        check_adaptation(adapting, objective)
        model = load_model(
            objective.auto_class, arguments.model, trust_remote_code=arguments.trust_remote_code
        ).to(own_device(arguments.device))
        objective.prepare()
        check_tokenizer(objective.tokenizer, config)
        objective.check_lengths(config)
        side = what.setdefault("split", "test" if "test" in objective.arrays else "validation")
        if side not in objective.held_out:
            there = ", ".join(objective.held_out)
            raise ValueError(f"{what['text']} has no {side} side: there is {there or 'none'}.")
        score = objective.score(model, side)
        scores = score.as_dict()
        if adapting:
            train = objective.arrays.get("train")
            adapted = score_adapting(model, objective.arrays[side], **adapting, train=train)
            own_scores = adapted.as_dict()
            how = {name: asdict(value) for name, value in adapting.items()}
        if not is_main():
            return
        if arguments.output:
            more = {"adapted": {**how, **own_scores}} if adapting else {}
            training.write_json(arguments.output, {"model": arguments.model, **what, **scores, **more})
        if arguments.output_text:
            hypotheses = score.hypotheses  # type: ignore[attr-defined]  # of translation, as checked
            write_lines(arguments.output_text, hypotheses, breaks="space")
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in what.items()))
    show(scores)
    if adapting:
        print("\nadapting to the text, read as one stream:")
        for name, options in how.items():
            print(f"  {name}: " + ", ".join(f"{key} {value}" for key, value in options.items()))
        show(own_scores)


def show(scores: dict[str, Any]) -> None:
    """A line for each, signatures behind their scores."""
    for name, value in scores.items():
        if not name.endswith("_signature"):
            signature = scores.get(f"{name}_signature", "")
            shown = f"{value:>16,.4f}" if isinstance(value, float) else f"{value:>16,}"
            print(f"{name:22}{shown}  {signature}".rstrip())


def adaptation_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """{argument of `score_adapting`: how}, of what is asked for."""
    kinds = {
        "dynamic": ("dynamic_evaluation", DynamicEvaluation),
        "cache": ("neural_cache", NeuralCache),
    }
    chosen = {}
    for name, (option, kind) in kinds.items():
        words = getattr(arguments, option)
        if words is not None:
            try:
                chosen[name] = options_of(kind, words)
            except ValueError as error:
                raise ValueError(f"--{option}: {error}") from None
    return chosen


def check_adaptation(adapting: dict[str, Any], objective: Objective) -> None:
    """ValueError where the model cannot adapt, or there is no training text to measure its gradients on."""
    if not adapting:
        return
    if not (isinstance(objective, Causal) and objective.by_streams):
        raise ValueError(
            "--dynamic_evaluation and --neural_cache are for models that carry their state: hfseq's RNN, GRU and LSTM "
            "language models"
        )
    if world_size() > 1:
        raise ValueError(
            "--dynamic_evaluation and --neural_cache read the text in its order: start them in one process"
        )
    section = objective.recipe.data
    if "dynamic" in adapting and not (section.corpus or section.train_file):
        raise ValueError(
            "--dynamic_evaluation needs the training text, for the size of its gradients: score a side of the model's "
            "own corpus instead of --file"
        )


def check_arguments(arguments: argparse.Namespace) -> None:
    """What is wrong whatever the model is."""
    check_no_benchmark(arguments)
    for name in ("streams", "row_length", "num_beams"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if arguments.split and (arguments.file or arguments.pairs):
        raise ValueError("--split is of a corpus: what --file or --pairs name is scored whole")
    check_output_file(arguments.output, "--output")
    check_output_file(arguments.output_text, "--output_text")
    check_different_files({"--output": arguments.output, "--output_text": arguments.output_text})


def make_objective(
    arguments: argparse.Namespace, config: PretrainedConfig, scratch: str
) -> tuple[Objective, dict[str, Any]]:
    """What the model was trained to do, on the text that is to be scored; and in words which text that is.

    Both come from the recipe.yaml beside the model, with the options on top. A model without one is asked what it is.
    """
    has_own = (Path(arguments.model) / "recipe.yaml").is_file()
    files = arguments.file or arguments.pairs
    if not (has_own or arguments.corpus or files):
        raise ValueError(
            f"{arguments.model} has no recipe.yaml that says what text is its own: give --corpus, --file or --pairs"
        )
    sections = read_own_sections(arguments.model) if has_own else default_sections(config)
    translates = sections["objective"]["type"] == Translation.name
    if (arguments.pairs or arguments.output_text) and not translates:
        raise ValueError(f"--pairs and --output_text are for translation, but this is {config.model_type}")
    if arguments.file and translates:
        raise ValueError("an encoder-decoder needs pairs: give --pairs SOURCE TARGET in place of --file")

    text = choose_text(arguments, sections)
    for option, field in OBJECTIVE_OPTIONS.items():
        if getattr(arguments, option) is not None:
            sections["objective"][field] = getattr(arguments, option)
    if files or not has_own:
        sections["data"]["cache_dir"] = scratch
    where = str(Path(arguments.model) / "recipe.yaml") if has_own else "options"
    kept = {name: sections[name] for name in ("data", "objective")}
    others = {"tokenizer": {"path": arguments.model}, "model": {"model_type": config.model_type}}
    objective = objective_of(recipe_of_sections({**kept, **others}, where))
    what: dict[str, Any] = {"text": text}
    if files:
        what["split"] = "validation"
    else:
        what |= {"split": arguments.split} if arguments.split else {}
        what |= {"split_seed": objective.recipe.data.split_seed, "split_by": where}
    return objective, what


def choose_text(arguments: argparse.Namespace, sections: RawSections) -> str:
    """Puts what the options say into the data section; returns the name of the text."""
    section = sections["data"]
    files = arguments.file or arguments.pairs
    if files:
        # The whole text is held out, and there is none to train on.
        kept = {name: section[name] for name in READING if name in section}
        section = {**kept, "validation_file": files}
    elif arguments.corpus:
        own_files = ("train_file", "validation_file", "test_file")
        section = {name: value for name, value in section.items() if name not in own_files}
    for option in DATA_OPTIONS:
        value = getattr(arguments, option)
        if value is not None:
            section[option] = value[0] if isinstance(value, list) and len(value) == 1 else value
    sections["data"] = section
    names: Any = files or section.get("corpus") or section.get("train_file")
    return names if isinstance(names, str) else " ".join(names)


def default_sections(config: PretrainedConfig) -> RawSections:
    """Data and objective of a model that says nothing of its training: the objective whose head it was saved with, or
    has."""
    saved = (config.architectures or [""])[0]
    heads = {}
    for objective in (Translation, Masked, Causal):
        head = model_class_of(objective.auto_class_name({}), type(config))
        if head is not None:
            heads[objective] = head
    if not heads:
        raise ValueError(
            f"{saved or config.model_type} neither continues nor fills in nor translates a text: there is nothing "
            "that this command scores"
        )
    objective = next((o for o, head in heads.items() if head.__name__ == saved), next(iter(heads)))
    section: dict[str, Any] = {"type": objective.name}
    if objective is Translation:
        section["num_beams"] = 1
    elif "row_length" in {field.name for field in fields(objective.section(heads[objective]))}:
        section["row_length"] = min(position_limit(config) or LONGEST_ROW, LONGEST_ROW)
    return {"data": {}, "objective": section}
