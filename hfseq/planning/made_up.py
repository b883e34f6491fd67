"""Data to plan with where the real ones are not at hand: text of made-up words, as many as the vocabulary has.

What an update takes depends on shapes alone: the vocabulary, how long documents are, how many tokens there are. So a
recipe whose corpus is somewhere else (the Hub, another machine) is planned on a text with these, through the same
readers, tokenizer and batch plan as pretraining. What is assumed stands in `ASSUMED`, and the command prints it.

Lengths are log-normal. Against plans with the real text, on an H100: lstm-kjv has the same memory and time,
encoder-kjv (packed documents) the same memory and 1.17 times the time, transformer-multi30k-en-de 1.01 times the memory
and 1.08 times the time.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np

from ..recipe import Recipe

# (median, spread of the logarithm) of tokens: of a document, a sentence in it, a text of a pair, a text with a vector.
DOCUMENT, SENTENCE, PAIR, TITLE = (150, 1.0), (20, 0.5), (22, 0.5), (4, 0.5)
LONGEST = {"document": 4000, "pair": 100, "title": 20}
# Updates whose text is made: more would be more of the same.
UPDATES = 6
LEAST, HELD_OUT = 100_000, 20_000
ASSUMED = {
    "text": f"documents of {DOCUMENT[0]} tokens (median, log-normal with spread {DOCUMENT[1]:g}, at most "
    f"{LONGEST['document']:,})",
    "pairs": f"sentences of {PAIR[0]} tokens (median, log-normal with spread {PAIR[1]:g}, at most {LONGEST['pair']}), "
    "translations 0.8 to 1.25 times as long; --tokens counts those of the targets",
    "vectors": f"texts of {TITLE[0]} tokens (median, log-normal with spread {TITLE[1]:g}, at most {LONGEST['title']})",
}
COLOURS = ["red", "green", "blue", "lightness", "green_red", "blue_yellow"]  # of the packaged corpus


def made_up(
    recipe: Recipe, folder: Path, tokens: float, vocab_size: int, longest: int | None
) -> tuple[Recipe, str]:
    """The recipe on a made-up text in `folder`, and what was assumed.

    Args:
        recipe: its data need not be there.
        folder: empty; token arrays are kept there too.
        tokens: of the training side; at most so many are made.
        vocab_size: of the tokenizer; at least so many tokens are made.
        longest: text that the model has positions for; None: any.
    """
    section, fields = recipe.data, {f.name for f in dataclasses.fields(recipe.data)}
    kind = "pairs" if "source_language" in fields else "vectors" if "feature_columns" in fields else "text"
    count = int(max(vocab_size, min(tokens, max(LEAST, UPDATES * tokens_per_update(recipe)))))
    draw = np.random.default_rng(0)
    changes: dict[str, Any] = {"corpus": None, "test_file": None, "cache_dir": str(folder)}
    for side, amount in (("train", count), ("validation", HELD_OUT)):
        if kind == "text":
            path = folder / f"{side}.txt"
            path.write_text("\n\n".join(_documents(draw, amount, vocab_size)), encoding="utf-8")
        elif kind == "pairs":
            path = folder / f"{side}.tsv"
            limits = [section.max_source_length, section.max_target_length, longest, LONGEST["pair"]]
            most = min(limit for limit in limits if limit is not None) - 1  # the end token
            lines = ["source\ttarget", *_pairs(draw, amount, vocab_size, most)]
            path.write_text("\n".join(lines), encoding="utf-8")
        else:
            path = folder / f"{side}.csv"
            path.write_text("\n".join(_rows(draw, amount, vocab_size, section)), encoding="utf-8")
        changes[f"{side}_file"] = str(path)
    if kind == "text":
        changes["txt_document"] = "paragraph"
    elif kind == "pairs":
        changes |= {"source_column": "source", "target_column": "target"}
    else:
        changes["feature_columns"] = section.feature_columns or COLOURS
    tokenizer = type(recipe.tokenizer)(type="word", vocab_size=vocab_size)
    sections = {**recipe.sections, "data": dataclasses.replace(section, **changes), "tokenizer": tokenizer}
    return dataclasses.replace(recipe, sections=sections), f"a vocabulary of {vocab_size:,}; {ASSUMED[kind]}"


def tokens_per_update(recipe: Recipe) -> int:
    """As the objective's section says it."""
    fields = recipe.objective
    streams = getattr(fields, "streams", 0) * getattr(fields, "segment_length", 0)
    return streams or fields.tokens_per_update


def _words(draw: np.random.Generator, count: int, vocab_size: int) -> list[str]:
    """Every word once, as far as the count goes; then any of them."""
    ids = np.concatenate(
        [draw.permutation(vocab_size), draw.integers(vocab_size, size=max(0, count - vocab_size))]
    )
    return [f"w{i}" for i in ids[:count]]


def _lengths(draw: np.random.Generator, count: int, shape: tuple[float, float], most: int) -> list[int]:
    """Lengths of texts that have `count` tokens together."""
    median, spread = shape
    mean = median * math.exp(spread**2 / 2)
    lengths: list[int] = []
    while (missing := count - sum(lengths)) > 0:
        drawn = draw.lognormal(math.log(median), spread, size=int(missing / mean) + 1)
        lengths += drawn.round().clip(1, most).astype(int).tolist()
    return lengths


def _documents(draw: np.random.Generator, count: int, vocab_size: int) -> list[str]:
    words = iter(_words(draw, count, vocab_size))
    texts = []
    for length in _lengths(draw, count, DOCUMENT, LONGEST["document"]):
        pieces, left = [], length
        for size in _lengths(draw, length, SENTENCE, 100):
            sentence = [next(words, "w0") for _ in range(min(size, left) - 1)]
            left -= min(size, left)
            pieces.append(" ".join([*sentence, "."]))
        texts.append(" ".join(pieces))
    return texts


def _pairs(draw: np.random.Generator, count: int, vocab_size: int, most: int) -> list[str]:
    words, others = iter(_words(draw, count, vocab_size)), iter(_words(draw, 2 * count, vocab_size))
    lines = []
    for length in _lengths(draw, count, PAIR, most):
        source = max(1, min(most, round(length / draw.uniform(0.8, 1.25))))
        texts = [next(others, "w0") for _ in range(source)], [next(words, "w0") for _ in range(length)]
        lines.append("\t".join(map(" ".join, texts)))
    return lines


def _rows(draw: np.random.Generator, count: int, vocab_size: int, section: Any) -> list[str]:
    columns = section.feature_columns or COLOURS
    columns = [columns] if isinstance(columns, str) else columns
    words = iter(_words(draw, count, vocab_size))
    lines = [",".join([section.text_column, *columns])]
    for length in _lengths(draw, count, TITLE, LONGEST["title"]):
        text = " ".join(next(words, "w0") for _ in range(length))
        lines.append(",".join([text, *(f"{value:.3f}" for value in draw.random(len(columns)))]))
    return lines


__all__ = ["ASSUMED", "made_up", "tokens_per_update"]
