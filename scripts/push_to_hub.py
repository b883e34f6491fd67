"""Uploads a trained checkpoint to the Hub, with its code, tokenizer and card.

    python scripts/push_to_hub.py outputs/lstm-kjv you/lstm-kjv
    python scripts/push_to_hub.py outputs/lstm-kjv --directory exported    # only write what would be uploaded

What is uploaded loads with `trust_remote_code=True` where hfseq is not installed. Log in once with `hf auth login`, or
set HF_TOKEN; nothing is asked.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

from hfseq.hub import export, load_checkpoint, push

# What a run writes beside the weights and that belongs to the published model. Training checkpoints do not.
COMPANIONS = ("README.md", "training_summary.json", "recipe.yaml", "*.png")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the checkpoint directory that a script wrote")
    parser.add_argument("repo_id", nargs="?", help="where to: name or organisation/name; made if missing")
    parser.add_argument(
        "--directory", type=Path, help="write the export here; without REPO_ID nothing is uploaded"
    )
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    args = parser.parse_args(arguments)
    if not (args.repo_id or args.directory):
        parser.error("name a repository to upload to, or --directory to only write the export")
    if not (args.model / "config.json").is_file():
        parser.error(f"no config.json in {args.model}: give the directory of a trained model")
    if args.directory and args.directory.resolve() == args.model.resolve():
        parser.error("--directory must be another directory than the model's")
    return args


def prepare(source: Path, directory: Path) -> None:
    """Exports the checkpoint with its tokenizer and code and copies its card and figures."""
    export(load_checkpoint(source), directory, AutoTokenizer.from_pretrained(source))
    for pattern in COMPANIONS:
        for file in source.glob(pattern):
            shutil.copy2(file, directory / file.name)


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        directory = args.directory or Path(temporary)
        prepare(args.model, directory)
        if not (directory / "README.md").is_file():
            print(
                f"{args.model} has no README.md: the Hub page will be empty. scripts/pretrain.py writes one."
            )
        if args.repo_id:
            print(f"uploaded: {push(directory, args.repo_id, private=args.private)}")
        else:
            print(f"exported to {directory}; nothing uploaded")


if __name__ == "__main__":
    try:
        main()
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"push_to_hub.py: {error}")
