"""Upload a trained checkpoint to the Hub, with its code, tokenizer and card.

    hfseq push outputs/lstm-kjv you/lstm-kjv
    hfseq push outputs/lstm-kjv you/lstm-kjv --revision longer     # to a branch, made if missing
    hfseq push outputs/lstm-kjv --directory exported               # only write what would be uploaded

What is uploaded loads with `trust_remote_code=True` where hfseq is not installed. Log in once with `hf auth login`, or
set HF_TOKEN; nothing is asked. The card's Python block names the repository, and no path of this machine is published.
After an upload that broke off the same command sends what is missing.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from huggingface_hub.utils import validate_repo_id

from hfseq.cards.published import PUBLISHED_TEXTS, without_local_paths
from hfseq.commands.console import CommandParser, mistakes_told, path
from hfseq.commands.outputs import check_output_directory
from hfseq.data import load_pair_tokenizers, save_pair_tokenizers
from hfseq.data.files import raw_lines
from hfseq.hub import export, load_checkpoint, push

# Shown by the card. Training checkpoints stay where they are.
PICTURES = ("*.png",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=path, help="the checkpoint directory that a command wrote")
    parser.add_argument("repo_id", nargs="?", help="where to: name or organisation/name; made if missing")
    parser.add_argument(
        "--directory", type=path, help="write the export here; without REPO_ID nothing is uploaded"
    )
    parser.add_argument("--revision", help="the branch to upload to; default: main")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--trust_remote_code", action="store_true", help="run code that the checkpoint brings; never asked"
    )


def main(argv: list[str] | None = None) -> None:
    parser = CommandParser("push", __doc__)
    add_arguments(parser)
    arguments = parser.parse_args(argv)
    with mistakes_told(parser), tempfile.TemporaryDirectory() as temporary:
        check_arguments(arguments)
        directory = arguments.directory or Path(temporary)
        prepare(arguments, directory)
        if not (directory / "README.md").is_file():
            print(
                f"{arguments.model} has no README.md: the Hub page will be empty. hfseq pretrain writes one."
            )
        if arguments.repo_id:
            address = push(
                directory, arguments.repo_id, private=arguments.private, revision=arguments.revision
            )
            print(f"uploaded: {address}")
        else:
            print(f"exported to {directory}; nothing uploaded")


def check_arguments(arguments: argparse.Namespace) -> None:
    if not (arguments.repo_id or arguments.directory):
        raise ValueError("name a repository to upload to, or --directory to only write the export")
    if arguments.repo_id:
        validate_repo_id(arguments.repo_id)
    elif arguments.revision or arguments.private:
        raise ValueError("--revision and --private belong to a repository: name one to upload to")
    if not (arguments.model / "config.json").is_file():
        raise ValueError(f"no config.json in {arguments.model}: give the directory of a trained model")
    if arguments.directory:
        if arguments.directory.resolve() == arguments.model.resolve():
            raise ValueError("--directory must be another directory than the model's")
        check_output_directory(arguments.directory, "--directory")


def prepare(arguments: argparse.Namespace, directory: Path) -> None:
    """Exports the checkpoint with its tokenizers and code, and copies its card and figures."""
    source = arguments.model
    model = load_checkpoint(source, trust_remote_code=arguments.trust_remote_code)
    tokenizers = load_pair_tokenizers(source, trust_remote_code=arguments.trust_remote_code)
    export(model, directory, tokenizers[0])
    save_pair_tokenizers(directory, *tokenizers)
    for name in PUBLISHED_TEXTS:
        if (source / name).is_file():
            text = "".join(line for _, line in raw_lines(source / name))
            (directory / name).write_text(without_local_paths(text), encoding="utf-8")
    for pattern in PICTURES:
        for file in source.glob(pattern):
            shutil.copy2(file, directory / file.name)
