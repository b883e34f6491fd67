"""Scores a text with a trained language model, or the translations of an encoder-decoder.

    python scripts/evaluate.py outputs/lstm-kjv --corpus kjv --split test
    python scripts/evaluate.py outputs/lstm-kjv --file my.txt --output scores.json
    python scripts/evaluate.py outputs/encoder-kjv --corpus kjv --packing documents
    python scripts/evaluate.py outputs/transformer-multi30k-en-de --corpus multi30k --output_text test.hyp
    python scripts/evaluate.py outputs/transformer-multi30k-en-de --pairs test.en test.de --num_beams 1

A recurrent model scores every token once, reading contiguous streams with carried state. An encoder guesses 15% of the
tokens, always the same ones: perplexity and accuracy. With `--corpus` the split is the one that a recipe with the same
settings held out. An encoder-decoder translates the sources of pairs (--pairs: two parallel files, or a .tsv, .csv or
.jsonl, also .gz): BLEU and chrF, each with its signature.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

import hfseq  # noqa: F401  (registers the model classes)
from hfseq import data, metrics, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a checkpoint directory or a Hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--corpus", nargs="+", help="kjv, wiki, imdb, multi30k or a Hub data set id")
    source.add_argument("--file", nargs="+", help="local text: files, folders or globs")
    source.add_argument(
        "--pairs", nargs="+", help="for translation: two parallel files, or a .tsv, .csv or .jsonl of pairs"
    )
    parser.add_argument(
        "--split", default="test", choices=("train", "validation", "test"), help="of --corpus"
    )
    parser.add_argument("--validation_share", type=float, default=0.05, help="of --corpus, as in the recipe")
    parser.add_argument("--test_share", type=float, default=0.05, help="of --corpus, as in the recipe")
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--streams", type=int, default=8, help="contiguous parts, each begun without context")
    parser.add_argument("--row_length", type=int, default=128, help="tokens per row, for an encoder")
    parser.add_argument(
        "--packing", default="blocks", help="rows for an encoder: blocks, documents, sentences"
    )
    parser.add_argument(
        "--source_language", default="en", help="for translation; in tables, the column's name"
    )
    parser.add_argument("--target_language", default="de", help="likewise")
    parser.add_argument("--num_beams", type=int, help="for translation; default: the model's own")
    parser.add_argument("--output_text", type=Path, help="write the translations to this file, one per line")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", help="also write the scores to this JSON file")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the Hub repository"
    )
    arguments = parser.parse_args()
    remote = {"trust_remote_code": arguments.trust_remote_code}
    config = AutoConfig.from_pretrained(arguments.model, **remote)
    if (arguments.pairs or arguments.output_text) and not config.is_encoder_decoder:
        parser.error(f"--pairs and --output_text are for encoder-decoders, but this is {config.model_type}")
    if arguments.file and config.is_encoder_decoder:
        parser.error("an encoder-decoder needs pairs: give --pairs SOURCE TARGET in place of --file")
    try:
        scores = score_pairs(arguments) if config.is_encoder_decoder else score_text(arguments, config)
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    for name, value in scores.items():
        if not name.endswith("_signature"):
            signature = scores.get(f"{name}_signature", "")
            shown = f"{value:>16,.4f}" if isinstance(value, float) else f"{value:>16,}"
            print(f"{name:22}{shown}  {signature}".rstrip())
    if arguments.output:
        split = arguments.split if arguments.corpus else arguments.file or arguments.pairs
        training.write_json(arguments.output, {"model": arguments.model, "split": split, **scores})


def score_text(arguments: argparse.Namespace, config) -> dict:
    """Loss and its units, of a language model or an encoder."""
    remote = {"trust_remote_code": arguments.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, **remote)
    masked = config.model_type == "hfseq_encoder"
    auto_class = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = auto_class.from_pretrained(arguments.model, **remote).to(arguments.device)
    if not (masked or hasattr(model, "carried_states")):
        raise ValueError(
            f"{type(model).__name__} is neither recurrent nor an encoder of hfseq's; this script scores those"
        )
    data.check_vocabulary(tokenizer, model.config)
    if arguments.corpus:
        corpus = data.load_corpus(
            arguments.corpus,
            text_column=arguments.text_column,
            validation_share=arguments.validation_share,
            test_share=arguments.test_share,
        )
        split = arguments.split
    else:
        corpus = data.load_corpus(
            None,
            train_file=arguments.file,
            text_column=arguments.text_column,
            validation_share=0.0,
            test_share=0.0,
        )
        split = "train"
    with tempfile.TemporaryDirectory() as cache:
        array = data.build_token_arrays(corpus, tokenizer, cache)[split]
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
    return score.as_dict()


def score_pairs(arguments: argparse.Namespace) -> dict:
    """BLEU and chrF of an encoder-decoder's translations, which --output_text keeps."""
    metrics.require_sacrebleu()
    remote = {"trust_remote_code": arguments.trust_remote_code}
    tokenizer, target_tokenizer = data.load_pair_tokenizers(arguments.model, **remote)
    model = AutoModelForSeq2SeqLM.from_pretrained(arguments.model, **remote).to(arguments.device)
    sources, references = read_pairs(arguments)
    options = {"target_tokenizer": target_tokenizer}
    if arguments.num_beams:
        options["num_beams"] = arguments.num_beams
    hypotheses = training.translate(model, tokenizer, sources, progress=sys.stderr.isatty(), **options)
    if arguments.output_text:
        lines = [text.replace("\n", " ") for text in hypotheses]
        arguments.output_text.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return metrics.all_translation_scores(hypotheses, references, arguments.target_language)


def read_pairs(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Sources and references."""
    languages = {
        "source_language": arguments.source_language,
        "target_language": arguments.target_language,
    }
    if arguments.pairs:
        corpus = data.load_pairs(
            train_file=arguments.pairs, **languages, validation_share=0.0, test_share=0.0
        )
        return corpus.texts["train"]
    corpus = data.load_pairs(" ".join(arguments.corpus), **languages)
    if arguments.split not in corpus.texts:
        raise ValueError(f"{corpus.name} has no {arguments.split} side.")
    return corpus.texts[arguments.split]


if __name__ == "__main__":
    main()
