"""What `hfseq evaluate --benchmark` does: minimal pairs, and surprisal word by word."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hfseq import training
from hfseq.commands.console import path
from hfseq.commands.outputs import check_different_files, check_output_file, check_picture
from hfseq.data.files import lines_of, missing_file, write_lines
from hfseq.evaluation import Likelihood, judge, load_likelihood, read_minimal_pairs, word_surprisals
from hfseq.evaluation.blimp import grouped, published_accuracies
from hfseq.evaluation.ngram_likelihood import NgramLikelihood
from hfseq.evaluation.surprisal import WORD, WordSurprisal
from hfseq.metrics import find_estimator
from hfseq.objectives import objective_of
from hfseq.objectives.causal import Causal
from hfseq.objectives.records import load_own_recipe
from hfseq.paths import user_path
from hfseq.plots import plot_minimal_pairs

# Options of one benchmark or of both; all others that `evaluate` has are for a run's own kind of text.
OPTIONS = {"blimp": ("limit", "leading_space", "plot", "baseline", "order"), "surprisal": ()}
BOTH = ("model", "benchmark", "file", "source", "output", "device", "trust_remote_code")
ORDER = 5
"""As long as the published 5-gram's (Warstadt et al. 2020)."""
SURPRISAL_FORMATS = (".tsv", ".json")
# Shown on a terminal; the rest stands in the file.
COLUMNS = ("line", "word_index", "word", "surprisal", "corrected", "tokens")


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("benchmarks, for any model that gives probabilities of tokens")
    group.add_argument(
        "--benchmark",
        choices=tuple(OPTIONS),
        help="blimp: minimal pairs, BLiMP's or those of --file (a table: paradigm, field, phenomenon, good, bad); "
        "surprisal: of each word of --file, a line being a document, to --output (.tsv or .json) or standard output",
    )
    group.add_argument("--limit", type=int, help="blimp: only the first N pairs of each paradigm")
    group.add_argument(
        "--leading_space",
        action="store_true",
        help="blimp: a space before each sentence, as in lm-evaluation-harness",
    )
    group.add_argument(
        "--baseline",
        choices=("kneser-ney",),
        help="blimp: judge this instead of the model, counted on the tokens that the model was trained on",
    )
    group.add_argument("--order", type=int, help=f"of the n-grams of --baseline; default: {ORDER}")
    group.add_argument("--plot", type=path, help="blimp: a picture of the accuracies, written to this file")
    group.add_argument(
        "--source", help="sequence-to-sequence: what the encoder reads; default: an empty text"
    )


def run_benchmark(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Whatever is wrong with the options or the data is told before the model is loaded."""
    name = arguments.benchmark
    allowed = {*BOTH, *OPTIONS[name]}
    for option, value in vars(arguments).items():
        if option not in allowed and value != parser.get_default(option):
            raise ValueError(f"--{option} is not for --benchmark {name}: leave it out")
    if arguments.file and len(arguments.file) > 1:
        raise ValueError(f"--benchmark {name} takes one --file, not {len(arguments.file)}")
    check_output_file(arguments.output, "--output")
    if arguments.order is not None and not arguments.baseline:
        raise ValueError("--order is of the n-grams of --baseline kneser-ney: name it, or leave it out")
    if arguments.order is not None and arguments.order < 2:
        raise ValueError(f"--order must be at least 2, not {arguments.order}")
    if name == "blimp":
        run_blimp(arguments)
    else:
        run_surprisal(arguments)


def check_no_benchmark(arguments: argparse.Namespace) -> None:
    """What is a benchmark's is refused without one."""
    for option in ("limit", "leading_space", "plot", "source", "baseline", "order"):
        if getattr(arguments, option) not in (None, False):
            raise ValueError(f"--{option} is for --benchmark: name one ({', '.join(OPTIONS)})")


def run_blimp(arguments: argparse.Namespace) -> None:
    check_picture(arguments.plot, "--plot")
    check_different_files({"--output": arguments.output, "--plot": arguments.plot})
    file = arguments.file[0] if arguments.file else None
    pairs = read_minimal_pairs(file, limit=arguments.limit)
    likelihood = count(arguments) if arguments.baseline else load(arguments)
    name = arguments.baseline or arguments.model
    result = judge(likelihood, pairs, leading_space=arguments.leading_space)
    scores: dict[str, Any] = result.as_dict()
    published: dict[str, dict[str, Any]] = {
        system: {
            "accuracy": sum(values.values()) / len(values),
            "by_phenomenon": grouped(pairs, values, "phenomenon"),
        }
        for system, values in ({} if file else published_accuracies(result.by_paradigm)).items()
    }
    if arguments.output:
        what = {
            "model": name,
            **({"counted_on": arguments.model} if arguments.baseline else {}),
            "benchmark": "blimp",
            "data": file or "BLiMP",
            "method": likelihood.method,
            "leading_space": arguments.leading_space,
            "limit": arguments.limit,
        }
        training.write_json(arguments.output, {**what, **scores, "published": published})
    if arguments.plot:
        plot_minimal_pairs(
            {"all": scores["accuracy"], **scores["by_phenomenon"]},
            arguments.plot,
            f"{name}: {scores['accuracy']:.1f}% of {len(pairs):,} minimal pairs ({likelihood.method})",
            {
                system: {"all": values["accuracy"], **values["by_phenomenon"]}
                for system, values in published.items()
            },
        )
    show_blimp(scores, published, likelihood.method)


def show_blimp(scores: dict[str, Any], published: dict[str, Any], method: str) -> None:
    width = max(map(len, [*scores["by_phenomenon"], *scores["by_field"], "all paradigms"])) + 2
    print(f"{'accuracy [%]':{width}}{'model':>8}" + "".join(f"  {system}" for system in published))
    others = {system: values["by_phenomenon"] for system, values in published.items()}
    for name, value in scores["by_phenomenon"].items():
        beside = "".join(f"  {values[name]:{len(system)}.1f}" for system, values in others.items())
        print(f"{name:{width}}{value:8.1f}{beside}")
    print()
    for name, value in scores["by_field"].items():
        print(f"{name:{width}}{value:8.1f}")
    print()
    beside = "".join(f"  {values['accuracy']:{len(system)}.1f}" for system, values in published.items())
    print(f"{'all paradigms':{width}}{scores['accuracy']:8.2f}{beside}")
    ties = f"{scores['ties']:,} tied, counted as wrong"
    if scores["equal_pairs"]:
        ties += f" ({scores['equal_pairs']} of them twice the same sentence)"
    print(f"{scores['pairs']:,} pairs in {len(scores['by_paradigm'])} paradigms, by {method}; {ties}")


def run_surprisal(arguments: argparse.Namespace) -> None:
    if not arguments.file:
        raise ValueError("--benchmark surprisal needs --file: a text, each line a document")
    output: Path | None = arguments.output
    if output and output.suffix.lower() not in SURPRISAL_FORMATS:
        raise ValueError(f"--output {output} must end in {' or '.join(SURPRISAL_FORMATS)}")
    file = user_path(arguments.file[0])
    if not file.is_file():
        raise FileNotFoundError(missing_file(file))
    lines = [line for _, line in lines_of(file)]
    if not any(map(WORD.search, lines)):
        raise ValueError(f"{file} holds no words")
    likelihood = load(arguments)
    words = word_surprisals(likelihood, lines, str(file))
    if output and output.suffix.lower() == ".json":
        what = {
            "model": arguments.model,
            "benchmark": "surprisal",
            "file": str(file),
            "method": likelihood.method,
            "unit": "bit",
            "lines": len(lines),
            "bits": sum(word.surprisal for word in words),
        }
        training.write_json(output, {**what, "words": [asdict(word) for word in words]})
    elif output:
        write_lines(output, table_of(words))
    else:
        print("\n".join(table_of(words)))
    if output:
        empty = sum(not WORD.search(line) for line in lines)
        blank = f", {empty:,} of them empty" if empty else ""
        print(f"{len(words):,} words of {len(lines):,} lines{blank}: {output}")


def table_of(words: list[WordSurprisal]) -> list[str]:
    """Lines of a .tsv with the columns COLUMNS: bits with six decimals, tokens as a JSON list, `corrected` empty where
    there is none."""
    rows = ["\t".join(COLUMNS)]
    for word in words:
        corrected = "" if word.corrected is None else f"{word.corrected:.6f}"
        tokens = json.dumps(word.tokens, ensure_ascii=False)
        cells = [str(word.line), str(word.word_index), word.word, f"{word.surprisal:.6f}", corrected, tokens]
        rows.append("\t".join(cells))
    return rows


def count(arguments: argparse.Namespace) -> NgramLikelihood:
    """The baseline: n-grams of the tokens that the model was trained on."""
    if arguments.source is not None:
        raise ValueError("--source is for sequence-to-sequence models, not for --baseline: leave it out")
    objective = objective_of(load_own_recipe(user_path(arguments.model)))
    if not isinstance(objective, Causal):
        raise ValueError(
            f"{arguments.model} was trained by the objective {objective.name}: --baseline is counted on the tokens of "
            "a model that predicts the next one"
        )
    estimator = find_estimator()
    objective.prepare()
    return NgramLikelihood(
        objective.arrays["train"], objective.tokenizer, arguments.order or ORDER, estimator
    )


def load(arguments: argparse.Namespace) -> Likelihood:
    likelihood = load_likelihood(
        arguments.model,
        source=arguments.source,
        trust_remote_code=arguments.trust_remote_code,
        device=arguments.device,
    )
    likelihood.show_progress = True
    return likelihood


__all__ = ["add_benchmark_arguments", "check_no_benchmark", "run_benchmark"]
