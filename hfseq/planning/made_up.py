"""Data to plan with where the real ones are not at hand: text of made-up words, as many as the vocabulary has.

What an update takes depends on shapes alone: the vocabulary, how long documents are, how many tokens there are. So a
recipe whose corpus is somewhere else (the Hub, another machine) is planned on a text with these, through the same
readers, tokenizer and batch plan as pretraining. The objective says what such data are and what is assumed of them
(`Objective.made_up`), and the command prints it.

Against plans with the real text, on an H100: lstm-kjv has the same memory and time, encoder-kjv (packed documents) the
same memory and 1.17 times the time, transformer-multi30k-en-de 1.01 times the memory and 1.08 times the time.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ..data.made_up import MadeUpTexts
from ..objectives import objective_of
from ..recipe import Recipe

# Updates whose text is made: more would be more of the same.
UPDATES = 6
LEAST, HELD_OUT = 100_000, 20_000


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
    objective, texts = objective_of(recipe), MadeUpTexts(vocab_size)
    count = int(max(vocab_size, min(tokens, max(LEAST, UPDATES * objective.tokens_per_update))))
    # No test side: a plan needs none, and of few documents none may fall on it.
    changes: dict[str, Any] = {
        "corpus": None, "test_file": None, "test_share": 0.0, "cache_dir": str(folder),
    }  # fmt: skip
    for side, amount in (("train", count), ("validation", HELD_OUT)):
        made = objective.made_up(texts, amount, longest)
        path = folder / f"{side}{made.suffix}"
        path.write_text(made.content, encoding="utf-8")
        changes |= {f"{side}_file": str(path), **made.fields}
    tokenizer = type(recipe.tokenizer)(type="word", vocab_size=vocab_size)
    section = dataclasses.replace(recipe.data, **changes)
    sections = {**recipe.sections, "data": section, "tokenizer": tokenizer}
    return dataclasses.replace(recipe, sections=sections), f"a vocabulary of {vocab_size:,}; {made.assumed}"


__all__ = ["made_up"]
