"""What cuts a text into words before an algorithm of `train_tokenizer` sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer

ALGORITHMS = ("bpe", "wordpiece", "unigram", "word", "character")

# Words with inner apostrophes and hyphens; line breaks; every other visible character.
_WORDS = r"\w+(?:['’\-]\w+)*|\n|[^\w\s]"  # noqa: RUF001 - writers use both apostrophes
# Words and runs of punctuation with the space before them; any other white space by itself.
_SPACED_WORDS = r" ?\w+| ?[^\w\s]+|\s"
_CHARACTER = r"[\s\S]"


def pre_tokenizer_of(algorithm: str) -> PreTokenizer:
    """What cuts the text into words before the algorithm sees it (a `tokenizers.pre_tokenizers.PreTokenizer`)."""
    from tokenizers import Regex, pre_tokenizers

    if algorithm == "bpe":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if algorithm == "wordpiece":
        return pre_tokenizers.BertPreTokenizer()
    if algorithm == "unigram":
        # No space is put before the first word: text comes back as it was, and documents begin without one anyway.
        spaced = pre_tokenizers.Split(Regex(_SPACED_WORDS), "isolated")
        return pre_tokenizers.Sequence([spaced, pre_tokenizers.Metaspace(prepend_scheme="never")])
    if algorithm == "word":
        return pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True)
    return pre_tokenizers.Split(Regex(_CHARACTER), "isolated")
