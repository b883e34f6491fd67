"""Scores a text with a trained language model: loss, perplexity per token and per word, bits per byte.

    python scripts/evaluate.py outputs/lstm-kjv --corpus kjv --split test
    python scripts/evaluate.py outputs/lstm-kjv --file my.txt --output scores.json
    python scripts/evaluate.py outputs/encoder-kjv --corpus kjv --packing documents

A recurrent model scores every token once, reading contiguous streams with carried state. An encoder guesses 15% of the
tokens, always the same ones: perplexity and accuracy. With `--corpus` the split is the one that a recipe with the same
settings held out.
"""

from __future__ import annotations

import argparse
import tempfile

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import hfseq  # noqa: F401  (registers the model classes)
from hfseq import data, training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a checkpoint directory or a Hub id")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--corpus", nargs="+", help="kjv, wiki, imdb or a Hub data set id")
    source.add_argument("--file", nargs="+", help="local text: files, folders or globs")
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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", help="also write the scores to this JSON file")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run model code from the Hub repository"
    )
    arguments = parser.parse_args()

    remote = {"trust_remote_code": arguments.trust_remote_code}
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, **remote)
    masked = AutoConfig.from_pretrained(arguments.model, **remote).model_type == "hfseq_encoder"
    auto_class = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    model = auto_class.from_pretrained(arguments.model, **remote).to(arguments.device)
    if not (masked or hasattr(model, "carried_states")):
        parser.error(
            f"{type(model).__name__} is neither recurrent nor an encoder of hfseq's; this script scores those"
        )
    data.check_vocabulary(tokenizer, model.config)
    try:
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
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))
    for name, value in score.as_dict().items():
        print(f"{name:22}{value:>16,.4f}" if isinstance(value, float) else f"{name:22}{value:>16,}")
    if arguments.output:
        training.write_json(arguments.output, {"model": arguments.model, "split": split, **score.as_dict()})


if __name__ == "__main__":
    main()
