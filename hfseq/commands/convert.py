"""Bring published weights into a checkpoint directory, or write a checkpoint in another library's format.

    hfseq convert import textgenrnn path/to/textgenrnn checkpoint/
    hfseq convert import marian path/to/opus-mt-en-de checkpoint/
    hfseq convert import g2pm path/to/g2pM checkpoint/
    hfseq convert export marian checkpoint/ other/
    hfseq convert export onnx checkpoint/ other/
    hfseq convert export ctranslate2 checkpoint/ other/ --quantization int8
    hfseq convert export onnx checkpoint/ other/ --quantization int8

An imported checkpoint loads with `AutoModel.from_pretrained("checkpoint/")` after `import hfseq`, with its tokenizer;
an exported one in the library whose format it is, without hfseq.
"""

from __future__ import annotations

import argparse

from hfseq.commands.console import CommandParser, mistakes_told, path
from hfseq.commands.outputs import check_output_directory
from hfseq.convert import (
    EXPORTERS,
    IMPORTERS,
    TARGET_TOKENIZER_IMPORTERS,
    TOKENIZER_IMPORTERS,
    export_model,
    import_model,
    import_tokenizer,
)
from hfseq.data import load_pair_tokenizers, save_pair_tokenizers
from hfseq.hub import load_checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    directions = parser.add_subparsers(dest="direction", required=True)

    importing = directions.add_parser("import", help="published weights -> a checkpoint directory")
    importing.add_argument("format", help=f"one of: {', '.join(sorted(IMPORTERS))}")
    importing.add_argument("source", type=path, help="the published file, or the directory that holds it")
    importing.add_argument("directory", type=path, help="the checkpoint directory to write")
    importing.add_argument("--head", help="the class to fill, where the format holds several")

    exporting = directions.add_parser("export", help="a checkpoint -> another library's format")
    exporting.add_argument("format", help=f"one of: {', '.join(sorted(EXPORTERS)) or 'none yet'}")
    exporting.add_argument("source", type=path, help="the checkpoint directory to read")
    exporting.add_argument("directory", type=path, help="the directory to write")
    exporting.add_argument(
        "--quantization", help="how ctranslate2 and onnx store numbers: float32, int8, ..."
    )

    for direction in (importing, exporting):
        direction.add_argument(
            "--overwrite", action="store_true", help="write into a directory that is not empty"
        )


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("convert", __doc__)
    add_arguments(parser)
    args = parser.parse_args(argv)
    with mistakes_told(parser):
        run(args)


def run(args: argparse.Namespace) -> None:
    if args.directory.exists() and not args.directory.is_dir():
        raise FileExistsError(f"{args.directory} is a file: name a directory to write.")
    if args.directory.is_dir() and any(args.directory.iterdir()) and not args.overwrite:
        raise FileExistsError(f"{args.directory} is not empty: name another directory or add --overwrite.")

    check_output_directory(args.directory, "DIRECTORY")

    if args.direction == "export":
        if not (args.source / "config.json").is_file():
            raise FileNotFoundError(f"No checkpoint in {args.source}: it has no config.json.")
        model = load_checkpoint(args.source)
        has_tokenizer = (args.source / "tokenizer.json").is_file()
        tokenizers = load_pair_tokenizers(args.source, trust_remote_code=False) if has_tokenizer else None
        export_model(
            model, args.directory, args.format, tokenizers=tokenizers, quantization=args.quantization
        )
        if tokenizers is not None:
            save_pair_tokenizers(args.directory, *tokenizers)
        print(f"{args.source} written to {args.directory} as {args.format}.")
        return

    model = import_model(args.source, args.format, args.head)
    model.save_pretrained(args.directory)
    if args.format in TOKENIZER_IMPORTERS:
        try:
            tokenizer = import_tokenizer(args.source, args.format)
            of_targets = TARGET_TOKENIZER_IMPORTERS.get(args.format)
            target = tokenizer if of_targets is None else of_targets(args.source)
            save_pair_tokenizers(args.directory, tokenizer, target)
        except FileNotFoundError as error:
            print(f"No tokenizer written: {error}")
    print(
        f"{type(model).__name__} with {model.num_parameters():,} parameters written to {args.directory}.\n"
        f"Load it with: import hfseq.hub; hfseq.hub.load_checkpoint({str(args.directory)!r})"
    )
