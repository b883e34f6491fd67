"""Train a tokenizer on the training side of a corpus and save it for `AutoTokenizer.from_pretrained`.

    hfseq tokenize tokenizer/ --corpus kjv --algorithm bpe --vocab_size 4096
    hfseq tokenize tokenizer/ --train_file 'texts/**/*.txt' --algorithm unigram

Prints what it makes of the validation side: tokens per word, bytes per token, the share of unknown tokens, and
whether the text comes back letter by letter.
"""

from __future__ import annotations

import argparse

from transformers import AutoTokenizer

from hfseq.commands.console import CommandParser, mistakes_told, path
from hfseq.commands.outputs import check_output_directory
from hfseq.data import ALGORITHMS, load_corpus, padded_vocab_size, train_tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=path, help="where the tokenizer is saved")
    parser.add_argument("--corpus", help="kjv, wiki, imdb, or a Hub data set id org/name[:configuration]")
    parser.add_argument(
        "--train_file", nargs="+", help=".txt, .jsonl, .csv, .parquet: files, folders or globs"
    )
    parser.add_argument("--validation_file", nargs="+", help="text to measure on; else split off the corpus")
    parser.add_argument("--text_column", default="text", help="column that holds the text")
    parser.add_argument(
        "--txt_document", default="paragraph", help="document in .txt: paragraph, line or file"
    )
    parser.add_argument("--validation_share", type=float, default=0.05, help="share of documents set aside")
    parser.add_argument("--test_share", type=float, default=0.05, help="share of documents never looked at")
    parser.add_argument("--split_seed", type=int, default=0, help="another number is another split")
    parser.add_argument("--streaming", action="store_true", help="hold nothing in memory")
    parser.add_argument("--algorithm", default="bpe", help=f"one of: {', '.join(ALGORITHMS)}")
    parser.add_argument(
        "--vocab_size", type=int, default=4096, help="largest vocabulary, special tokens included"
    )
    parser.add_argument("--lowercase", action="store_true", help="lower-case the text first")
    parser.add_argument(
        "--masked", action="store_true", help="for a masked-language model: [CLS], [SEP], [MASK]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a tokenizer that is there")


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("tokenize", __doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    with mistakes_told(parser):
        run(args)


def run(args: argparse.Namespace) -> None:
    if (args.directory / "tokenizer.json").exists() and not args.overwrite:
        raise FileExistsError(
            f"{args.directory} holds a tokenizer: name another directory or add --overwrite."
        )
    check_output_directory(args.directory, "DIRECTORY")

    corpus = load_corpus(
        args.corpus,
        train_file=args.train_file,
        validation_file=args.validation_file,
        text_column=args.text_column,
        txt_document=args.txt_document,
        validation_share=args.validation_share,
        test_share=args.test_share,
        split_seed=args.split_seed,
        streaming=args.streaming,
    )
    tokenizer = train_tokenizer(
        corpus.train, args.algorithm, args.vocab_size, lowercase=args.lowercase, masked=args.masked
    )
    tokenizer.save_pretrained(args.directory)
    print(
        f"{args.algorithm} tokenizer with {len(tokenizer)} tokens in {args.directory}; a model's vocab_size: "
        f"{padded_vocab_size(tokenizer)}"
    )

    tokenizer = AutoTokenizer.from_pretrained(args.directory)
    tokens = words = size = unknown = exact = documents = 0
    for document in corpus.validation:
        ids = tokenizer(document, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        documents += 1
        tokens += len(ids)
        words += len(document.split())
        size += len(document.encode("utf-8"))
        unknown += ids.count(tokenizer.unk_token_id) if tokenizer.unk_token_id is not None else 0
        exact += tokenizer.decode(ids) == document
    if tokens:
        print(
            f"validation: {documents} documents, {tokens / words:.3f} tokens per word, {size / tokens:.3f} bytes per "
            f"token, {unknown / tokens:.3%} unknown, {exact} documents decoded exactly"
        )
