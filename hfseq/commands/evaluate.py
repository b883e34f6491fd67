"""Score a text with a trained language model, or the translations of an encoder-decoder.

    hfseq evaluate outputs/lstm-kjv                       # the test side of its own recipe
    hfseq evaluate outputs/lstm-kjv --split validation --output scores.json
    hfseq evaluate outputs/lstm-kjv --file my.txt
    hfseq evaluate outputs/encoder-kjv --packing documents
    hfseq evaluate outputs/transformer-multi30k-en-de --output_text test.hyp
    hfseq evaluate outputs/transformer-multi30k-en-de --pairs test.en test.de --num_beams 1

What a run was trained on, and how that was split, stands in its recipe.yaml and is what counts here too: --corpus and
the options of the split are for models without one, or on top of it. A recurrent model scores every token once, reading
contiguous streams with carried state. An encoder guesses 15% of the tokens, always the same ones: perplexity and
accuracy. An encoder-decoder translates the sources of pairs (--pairs: two parallel files, or a .tsv, .csv or .jsonl,
also .gz): BLEU and chrF, each with its signature. Weights that are missing, left over or not finite are refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer

from hfseq import data, metrics, training
from hfseq.commands.console import CommandParser, device, mistakes_told, model_id, user_path
from hfseq.commands.outputs import check_output_file
from hfseq.loading import check_tokenizer, load_config, load_model
from hfseq.recipe import DataSection, load_recipe

# Options that stand for a field of the recipe's data section.
DATA_OPTIONS = (
    "corpus", "text_column", "txt_document", "validation_share", "test_share", "split_seed", "deduplicate",
    "source_language", "target_language",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=model_id, help="a checkpoint directory or a Hub id")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--corpus", nargs="+", help="kjv, wiki, imdb, multi30k or a Hub data set id")
    source.add_argument("--file", nargs="+", help="local text, all of it: files, folders or globs")
    source.add_argument(
        "--pairs", nargs="+", help="for translation: two parallel files, or a .tsv, .csv or .jsonl of pairs"
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        help="of the corpus; default: test, or validation if none",
    )
    split = parser.add_argument_group("of the corpus; default: as in the model's recipe.yaml")
    split.add_argument("--validation_share", type=float)
    split.add_argument("--test_share", type=float)
    split.add_argument("--split_seed", type=int)
    split.add_argument("--deduplicate", choices=("exact", "whitespace"))
    split.add_argument("--txt_document", choices=("paragraph", "line", "file"))
    split.add_argument("--text_column")
    split.add_argument("--source_language", help="of pairs; in tables, the column's name")
    split.add_argument("--target_language", help="likewise")
    parser.add_argument("--streams", type=int, default=8, help="contiguous parts, each begun without context")
    parser.add_argument("--row_length", type=int, default=128, help="tokens per row, for an encoder")
    parser.add_argument(
        "--packing", default="blocks", help="rows for an encoder: blocks, documents, sentences"
    )
    parser.add_argument("--num_beams", type=int, help="for translation; default: the model's own")
    parser.add_argument(
        "--output_text", type=user_path, help="write the translations to this file, one per line"
    )
    parser.add_argument("--device", type=device, default="cpu")
    parser.add_argument("--output", type=user_path, help="also write the scores to this JSON file")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the Hub repository"
    )


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("evaluate", __doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with mistakes_told(parser):
        check_arguments(arguments)
        config = load_config(arguments.model, trust_remote_code=arguments.trust_remote_code)
        if (arguments.pairs or arguments.output_text) and not config.is_encoder_decoder:
            raise ValueError(
                f"--pairs and --output_text are for encoder-decoders, but this is {config.model_type}"
            )
        if arguments.file and config.is_encoder_decoder:
            raise ValueError("an encoder-decoder needs pairs: give --pairs SOURCE TARGET in place of --file")
        what, scores = score_pairs(arguments) if config.is_encoder_decoder else score_text(arguments, config)
        if arguments.output:
            training.write_json(arguments.output, {"model": arguments.model, **what, **scores})
    print(" ".join(f"{name} {value}" for name, value in what.items()))
    for name, value in scores.items():
        if not name.endswith("_signature"):
            signature = scores.get(f"{name}_signature", "")
            shown = f"{value:>16,.4f}" if isinstance(value, float) else f"{value:>16,}"
            print(f"{name:22}{shown}  {signature}".rstrip())


def check_arguments(arguments: argparse.Namespace) -> None:
    """What is wrong whatever the model is."""
    for name in ("streams", "row_length", "num_beams"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} must be at least 1, not {value}")
    if arguments.split and (arguments.file or arguments.pairs):
        raise ValueError("--split is of a corpus: what --file or --pairs name is scored whole")
    check_output_file(arguments.output, "--output")
    check_output_file(arguments.output_text, "--output_text")


def data_section(arguments: argparse.Namespace) -> tuple[DataSection, str]:
    """What is read and how it is split, by the model's own recipe where it has one; and in words."""
    given = {name: getattr(arguments, name) for name in DATA_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.corpus and len(arguments.corpus) == 1:
        given["corpus"] = arguments.corpus[0]
    recipe = Path(arguments.model) / "recipe.yaml"
    if recipe.is_file():
        words = [f"--data.{name}={value}" for name, value in given.items()]
        section, origin = load_recipe(recipe, words).data, f"by {recipe}"
    elif arguments.corpus or arguments.file or arguments.pairs:
        section, origin = DataSection(**given), "by the options"
    else:
        raise ValueError(
            f"{arguments.model} has no recipe.yaml that says what text is its own: give --corpus, --file or --pairs"
        )
    return section, origin


def side_of(sides: Any, asked: str | None, name: str) -> str:
    """The side that is scored, or ValueError where the corpus lacks it."""
    side = asked or ("test" if "test" in sides else "validation")
    if side not in sides:
        raise ValueError(f"{name} has no {side} side: there are {', '.join(sides)}.")
    return side


def described(section: DataSection, side: str, origin: str) -> dict[str, Any]:
    """Which text was scored, for the reader and for --output."""
    corpus = section.corpus or section.train_file
    return {
        "split": side,
        "corpus": corpus if isinstance(corpus, str) else " ".join(corpus),
        "split_seed": section.split_seed,
        "split_made": origin,
    }


def score_text(arguments: argparse.Namespace, config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which text it was; loss and its units, of a language model or an encoder."""
    remote = {"trust_remote_code": arguments.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, **remote)
    masked = config.model_type == "hfseq_encoder"
    auto_class = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = load_model(auto_class, arguments.model, **remote).to(arguments.device)
    if not (masked or hasattr(model, "carried_states")):
        raise ValueError(
            f"{type(model).__name__} is neither recurrent nor an encoder of hfseq's: only those are scored"
        )
    check_tokenizer(tokenizer, model.config)
    with tempfile.TemporaryDirectory() as cache:
        if arguments.file:
            options = {"text_column": arguments.text_column, "txt_document": arguments.txt_document}
            options = {name: value for name, value in options.items() if value is not None}
            corpus = data.load_corpus(
                None, train_file=arguments.file, validation_share=0.0, test_share=0.0, **options
            )
            array = data.build_token_arrays(corpus, tokenizer, cache)["train"]
            what = {"file": " ".join(arguments.file)}
        else:
            section, origin = data_section(arguments)
            corpus = data.load_corpus(section.corpus, **section.arguments_of(data.load_corpus))
            arrays = data.build_token_arrays(corpus, tokenizer, section.cache_dir or cache)
            side = side_of(arrays, arguments.split, str(section.corpus or section.train_file))
            array, what = arrays[side], described(section, side, origin)
        if masked:
            plan = data.MaskedPlan.evaluation(
                array,
                data.MaskingVocabulary.from_tokenizer(tokenizer),
                row_length=arguments.row_length,
                tokens_per_batch=max(4096, arguments.row_length),
                packing=arguments.packing,
            )
            score = training.score_masked_language_model(model, plan)
        else:
            score = training.score_language_model(model, array, streams=arguments.streams)
    return what, score.as_dict()


def score_pairs(arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Which pairs they were; BLEU and chrF of the translations, which --output_text keeps."""
    metrics.require_sacrebleu()
    remote = {"trust_remote_code": arguments.trust_remote_code}
    tokenizer, target_tokenizer = data.load_pair_tokenizers(arguments.model, **remote)
    model = load_model(AutoModelForSeq2SeqLM, arguments.model, **remote).to(arguments.device)
    check_tokenizer(tokenizer, model.config)
    what, (sources, references), language = read_pairs(arguments)
    options = {"target_tokenizer": target_tokenizer}
    if arguments.num_beams:
        options["num_beams"] = arguments.num_beams
    hypotheses = training.translate(model, tokenizer, sources, progress=sys.stderr.isatty(), **options)
    if arguments.output_text:
        lines = [" ".join(text.split("\n")) for text in hypotheses]
        arguments.output_text.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return what, metrics.all_translation_scores(hypotheses, references, language)


def read_pairs(arguments: argparse.Namespace) -> tuple[dict[str, Any], tuple[list[str], list[str]], str]:
    """Which pairs they are, sources and references, and the language of the references."""
    if arguments.pairs:
        languages = {
            "source_language": arguments.source_language or "en",
            "target_language": arguments.target_language or "de",
        }
        corpus = data.load_pairs(
            train_file=arguments.pairs, **languages, validation_share=0.0, test_share=0.0
        )
        return {"file": " ".join(arguments.pairs)}, corpus.texts["train"], languages["target_language"]
    section, origin = data_section(arguments)
    corpus = data.load_pairs(section.corpus, **section.arguments_of(data.load_pairs))
    side = side_of(corpus.texts, arguments.split, corpus.name)
    return described(section, side, origin), corpus.texts[side], section.target_language
