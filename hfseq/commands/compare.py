"""Compare a trained model with Kneser-Ney, with fine-tuned runs, or with other translations, on its card.

    hfseq compare outputs/lstm-kjv
    hfseq compare outputs/lstm-kjv --models outputs/gru-kjv outputs/rnn-kjv
    hfseq compare outputs/encoder-wiki-imdb --finetuned outputs/sst2 outputs/sst2-scratch outputs/sst2-bow
    hfseq compare --arrays ~/.cache/hfseq/FINGERPRINT --orders 3 4 5 6 --output kneser-ney.json
    hfseq compare --translations theirs.de ours.de --references test.de
    hfseq compare outputs/pervasive --translations transformer.de pervasive.de --references test.de \\
        --models outputs/transformer
    hfseq compare --report report
    hfseq compare --report report --only remembering heads --models outputs/transformer-multi30k-en-de

N-gram models of each order are counted on train; the order is chosen on validation. For a model directory (what
hfseq pretrain wrote) the result goes into its training_summary.json and its model card; for a directory of
token arrays it is only printed, and written to --output. --models adds other models of the same text to the card.
An encoder gives no probability of a text; its card takes what hfseq finetune measured (--finetuned).
Translations of the same sentences, one per line (hfseq evaluate --output_text), are compared by a paired bootstrap
of BLEU: is the difference from the first file larger than the choice of sentences explains? With the directory of the
model that made the last of the files, its card begins with whether it won; with that of the first one's as well
(--models), also with how large both are and how much they read.
--report writes a page that shows why each architecture replaced the last (hfseq/report): it trains small models and
measures time, memory, how far back each remembers and more; --models adds trained runs. What it has measured it keeps
in DIRECTORY/data, so that a run that was stopped goes on. --scale cpu takes about an hour on two cores.
Needs the metrics extra: pip install 'hfseq[metrics]'.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from hfseq import data, metrics, training
from hfseq.cards import write_model_card
from hfseq.commands.console import CommandParser, mistakes_told, path
from hfseq.commands.outputs import check_output_directory, check_output_file
from hfseq.data.files import lines_of
from hfseq.data.tables import read_json
from hfseq.objectives import objective_of
from hfseq.objectives.causal import Causal
from hfseq.objectives.records import load_own_recipe, objective_of_summary
from hfseq.objectives.translation import Translation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", type=path, help="what hfseq pretrain wrote")
    parser.add_argument(
        "--arrays", type=path, help="instead of a model: <cache>/<fingerprint>, with train/ in it"
    )
    parser.add_argument("--orders", type=int, nargs="+", default=[3, 4, 5, 6], help="default: 3 4 5 6")
    parser.add_argument(
        "--estimator", choices=["mitlm", "kenlm"], help="default: the first that is installed"
    )
    parser.add_argument(
        "--models", type=path, nargs="+", default=[], help="other models of the same data, for the card"
    )
    parser.add_argument(
        "--finetuned", type=path, nargs="+", default=[], help="what hfseq finetune wrote, for the card"
    )
    parser.add_argument(
        "--translations",
        type=path,
        nargs="+",
        default=[],
        help="files of translations, the baseline first",
    )
    parser.add_argument("--references", type=path, help="what --translations are held against")
    parser.add_argument(
        "--lowercase", action="store_true", help="of --translations: capitals are the same words"
    )
    parser.add_argument("--output", type=path, help="also write the result to this JSON file")
    parser.add_argument(
        "--attention", type=path, metavar="FILE.png", help="with --translations: a picture for the card"
    )

    parser.add_argument(
        "--report", type=path, metavar="DIRECTORY", help="write the page of all comparisons there"
    )
    parser.add_argument("--scale", help="of the report: cpu (default), gpu, or tiny, a trial in seconds")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="experiments of the report to run (default: all)"
    )
    parser.add_argument(
        "--seeds", type=int, help="of the report: runs of everything that is drawn (default: 3)"
    )


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("compare", __doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with mistakes_told(parser):
        check_arguments(arguments)
        if arguments.report:
            report(arguments)
        elif arguments.translations:
            compared = compare_translations(arguments)
            if arguments.model:
                add_comparison(arguments.model, compared, arguments.models, arguments.attention)
        elif arguments.finetuned:
            add_finetuned(arguments.model, arguments.finetuned)
        else:
            compare_with_kneser_ney(arguments)


def check_arguments(arguments: argparse.Namespace) -> None:
    """What is wrong before anything is read."""
    if arguments.report:
        others = ("model", "arrays", "translations", "references", "finetuned", "output", "attention")
        if given := [name for name in others if getattr(arguments, name)]:
            raise ValueError(
                f"--report writes a page of its own: leave {given[0]} out (trained runs: --models)."
            )
        check_output_directory(arguments.report, "--report")
        return
    if alone := [name for name in ("scale", "only", "seeds") if getattr(arguments, name) is not None]:
        raise ValueError(f"--{alone[0]} is of a report: name its directory with --report.")
    if arguments.translations:
        if arguments.references is None or arguments.arrays:
            raise ValueError("--translations needs --references FILE, and no --arrays")
    elif (arguments.model is None) == (arguments.arrays is None):
        raise ValueError("give a model directory or --arrays DIRECTORY, one of the two")
    if arguments.attention and not (arguments.translations and arguments.model):
        raise ValueError("--attention is for the card of a model whose --translations are compared")
    if arguments.attention and not arguments.attention.is_file():
        raise FileNotFoundError(f"--attention {arguments.attention}: there is no such file.")
    if wrong := [order for order in arguments.orders if order < 1]:
        raise ValueError(f"--orders are at least 1, not {wrong[0]}")
    check_output_file(arguments.output, "--output")
    if arguments.model:
        read_summary(arguments.model)
        check_output_file(arguments.model / "README.md", "the card")


def report(arguments: argparse.Namespace) -> None:
    """Measures what is missing and writes the page."""
    from hfseq.report import EXPERIMENTS, write_report

    page = write_report(
        arguments.report,
        EXPERIMENTS,
        scale=arguments.scale or "cpu",
        only=arguments.only or (),
        seeds=arguments.seeds,
        models=arguments.models,
    )
    print(page)


def compare_with_kneser_ney(arguments: argparse.Namespace) -> None:
    """N-gram models of the same tokens, each order; the model's card gets the best on validation."""
    estimator = metrics.find_estimator(arguments.estimator)
    model_facts = read_language_model(arguments.model) if arguments.model else None
    arrays = model_arrays(arguments.model) if arguments.model else data.load_token_arrays(arguments.arrays)
    others = [read_language_model(directory) for directory in arguments.models]
    if model_facts:
        check_same_text(arguments.model, model_facts, arrays)
        check_same_scores(model_facts, others)
    try:
        baseline = metrics.best_kneser_ney(arrays, arguments.orders, estimator)
    except RuntimeError as error:  # the program of another library failed, and says why
        raise ChildProcessError(str(error)) from error
    show(baseline, model_facts)
    if arguments.output:
        training.write_json(arguments.output, baseline)
    if model_facts:
        add_to_card(arguments.model, model_facts, [*map(as_baseline, others), baseline])


def read_translations(path: Path) -> list[str]:
    """One text a line; a line ends with \\n (or \\r\\n) and with nothing else."""
    return [line for _, line in lines_of(path)]


def compare_translations(arguments: argparse.Namespace) -> dict:
    """BLEU of each file with its 95% interval, and how likely so large a difference from the first is by chance."""
    files, references = arguments.translations, arguments.references
    lines = {path: read_translations(path) for path in [*files, references]}
    names = [path.stem if arguments.model else str(path) for path in files]
    if len(set(names)) < len(names):
        raise ValueError(f"Files of the same name: {', '.join(map(str, files))}. Name them by their models.")
    systems = {name: lines[path] for name, path in zip(names, files, strict=True)}
    compared = metrics.paired_bootstrap(systems, lines[references], lowercase=arguments.lowercase)
    width = max(len(name) for name in compared) + 2
    print(f"{'':{width}}{'BLEU':>8}{'+-':>8}{'p':>8}")
    for name, score in compared.items():
        p = f"{score['p_value']:.3f}" if "p_value" in score else "-"
        print(f"{name:{width}}{score['bleu']:8.2f}{score['margin']:8.2f}{p:>8}")
    if arguments.output:
        training.write_json(arguments.output, compared)
    return {"systems": compared, "sentences": len(lines[references]), "lowercase": arguments.lowercase}


def add_comparison(directory: Path, compared: dict, rivals: list[Path], attention: Path | None) -> None:
    """The model's card says first whether it won; its translations are the last of those compared."""
    facts, *others = summaries = [read_summary(d) for d in (directory, *rivals)]
    for model, summary in zip((directory, *rivals), summaries, strict=True):
        if (objective := objective_of_summary(summary)) is not Translation:
            raise ValueError(f"{model} was trained by the objective {objective.name}, not by translation.")
    names = list(compared["systems"])
    files = {**{other["recipe"]: other for other in others}, names[-1]: facts}
    if unknown := set(files) - set(names):
        raise ValueError(f"No file of translations is named after {unknown.pop()}, a model of --models.")
    for name, summary in files.items():
        read = summary["epochs"] * summary["train_target_tokens"] if "epochs" in summary else None
        compared["systems"][name] |= {
            "parameters": summary["parameters"],
            "tokens_read": read and round(read),
        }
    facts["compared"] = compared
    if attention:
        facts["alignment"] = f"attention{attention.suffix}"
        shutil.copyfile(attention, directory / facts["alignment"])
    save_card(directory, facts)


def read_language_model(directory: Path) -> dict:
    """The summary of a model that predicts the next token."""
    facts = read_summary(directory)
    if (objective := objective_of_summary(facts)) is not Causal:
        raise ValueError(
            f"{directory} was trained by the objective {objective.name}: only a model that predicts the next token "
            "compares with Kneser-Ney. "
            "Name fine-tuned models with --finetuned, files of translations with --translations."
        )
    return facts


def add_finetuned(directory: Path, finetuned: list[Path]) -> None:
    """Puts the results of fine-tuning on the pretrained model's card."""
    if directory is None:
        raise ValueError("--finetuned needs the pretrained model's directory.")
    facts = read_summary(directory)
    facts["fine_tuning"] = []
    for run_directory in finetuned:
        file = run_directory / "finetune_summary.json"
        if not file.is_file():
            raise FileNotFoundError(
                f"{run_directory} has no finetune_summary.json: hfseq finetune writes it at its end."
            )
        run = read_facts(file, ("runs", "scores"), "finetune")
        facts["fine_tuning"].append({k: v for k, v in run.items() if k not in ("runs", "classes", "machine")})
        facts["fine_tuning"][-1]["runs"] = [{"seed": r["seed"]} for r in run["runs"]]
    save_card(directory, facts)


def read_summary(directory: Path) -> dict:
    path = directory / "training_summary.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} has no training_summary.json: hfseq pretrain writes it when it finishes."
        )
    return read_facts(path, ("scores", "recipe", "recipe_content"), "pretrain")


def read_facts(path: Path, needed: tuple[str, ...], command: str) -> dict:
    """A summary; ValueError where the file is none of that command's."""
    facts = read_json(path)
    missing = [name for name in needed if not isinstance(facts, dict) or name not in facts]
    if missing:
        raise ValueError(f"{path} is no summary of `hfseq {command}`: it has no {missing[0]!r}.")
    return facts


def model_arrays(directory: Path) -> dict[str, data.TokenArray]:
    """The token arrays that the model was trained on, by its own recipe and tokenizer; cached, so seldom built."""
    objective = objective_of(load_own_recipe(directory))
    objective.prepare()
    return objective.arrays


def check_same_text(directory: Path, facts: dict, arrays: dict[str, data.TokenArray]) -> None:
    """The model was scored on these very tokens, or the two numbers would not compare."""
    for split, score in facts["scores"].items():
        tokens = len(arrays[split]) - 1 if split in arrays else None
        if score["tokens"] != tokens:
            raise ValueError(
                f"{directory} was scored on {score['tokens']} tokens of {split}, now there are {tokens}: the corpus or "
                "the tokenizer has changed since. Train again, or name the old token arrays with --arrays."
            )


def check_same_scores(facts: dict, others: list[dict]) -> None:
    """Other models go on the card only if they were scored on the same text."""
    for other in others:
        for split, score in facts["scores"].items():
            theirs = other["scores"].get(split, {})
            if theirs.get("bytes") != score["bytes"]:
                raise ValueError(
                    f"{other['recipe']} was scored on {theirs.get('bytes')} bytes of {split}, {facts['recipe']} on "
                    f"{score['bytes']}: they did not see the same text, and do not compare."
                )


def as_baseline(facts: dict) -> dict:
    """Another model's row on the card."""
    return {"name": f"{facts['recipe']}, {facts['parameters']:,} parameters", **facts["scores"]}


def show(baseline: dict, model_facts: dict | None) -> None:
    splits = [split for split in ("validation", "test") if split in baseline]
    print(f"{baseline['smoothing']}, {baseline['library']}; bits per byte:\n")
    print(f"{'':24}" + "".join(f"{split:>12}" for split in splits) + f"{'seconds':>10}")
    for tried in baseline["orders"]:
        chosen = "  <- best on validation" if tried["order"] == baseline["order"] else ""
        scores = "".join(f"{tried[split]:12.4f}" for split in splits)
        print(f"{'order ' + str(tried['order']):24}{scores}{tried['seconds']:10.1f}{chosen}")
    if model_facts:
        scored = {split: f"{score['bits_per_byte']:.4f}" for split, score in model_facts["scores"].items()}
        print(f"{model_facts['recipe']:24}" + "".join(f"{scored.get(split, '-'):>12}" for split in splits))


def add_to_card(directory: Path, facts: dict, baselines: list[dict]) -> None:
    """Replaces what an earlier comparison wrote; adds nothing twice."""
    names = {baseline["name"] for baseline in baselines}
    kept = [
        b
        for b in facts.get("baselines") or []
        if b["name"] not in names and not b["name"].startswith("interpolated Kneser-Ney")
    ]
    facts["baselines"] = [*kept, *baselines]
    save_card(directory, facts)


def save_card(directory: Path, facts: dict) -> None:
    card = write_model_card(directory, facts, objective_of_summary(facts).card)
    training.write_json(directory / "training_summary.json", facts)
    print(f"\nwritten to {directory / 'training_summary.json'} and {card}")
