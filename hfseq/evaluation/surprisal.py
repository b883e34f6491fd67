"""Each word's surprisal, -log2 p(word given what stands before it in its line), in bits.

A line is a document: it begins without context, and a causal model carries all of it from word to word. Words are what
white space separates (space, tab, line feed, carriage return, vertical tab, form feed), punctuation included. A token
belongs to the word that its characters are of; one of white space alone, to the word after it (at the end of a line, to
the last word). So every token belongs to one word, and the surprisals of a line add up to minus its log-probability.
With a masked model they add up to its pseudo-log-likelihood (`likelihoods`), and a word is guessed from both sides.

**Where a word ends.** With tokens that bring the space before them (byte-level BPE, SentencePiece) and with characters,
the tokens of "the" are also the beginning of "then": that the word is over only the next token says, whose space is
then paid for by the next word. Pimentel and Meister (2024) move that cost to where it belongs: with B the tokens that
begin with white space and the special ones, a word's own probability is

    p(its tokens given what is before) x p(B after its last token) / p(B before its first token)

`corrected` is that, for causal models. The first word of a line has no space before it and is divided by nothing; a
sum over a line is minus log2 of the line's probability times that of a word's end after it. Tokenizers whose tokens do
not hold white space (WordPiece, whole words) do not say where one could begin: there `corrected` is None, as for masked
and sequence-to-sequence models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from .likelihoods import CausalLikelihood, Likelihood, Tokens

SPACES = " \t\n\r\v\f"
WORD = re.compile(f"[^{SPACES}]+")
# What white space is at the beginning of tokens, beside itself: byte-level BPE's letters for these bytes (the 33 bytes
# up to the space are U+0100 ...; "Ġ" is the space), and SentencePiece's sign.
BYTE_LEVEL_SPACES = "".join(chr(0x100 + ord(space)) for space in SPACES)
SENTENCE_PIECE_SPACE = "▁"


@dataclass(frozen=True)
class WordSurprisal:
    """A word of a line."""

    line: int
    """From 1."""
    word_index: int
    """In its line, from 1."""
    word: str
    surprisal: float
    """In bits; of a line, they add up to minus its log-probability."""
    corrected: float | None
    """In bits, the word's end counted to it; see the module."""
    tokens: tuple[str, ...]
    """As the tokenizer writes them."""


def word_surprisals(likelihood: Likelihood, lines: Sequence[str], name: str = "text") -> list[WordSurprisal]:
    """Of all words of all lines, in their order; a line without words has none.

    Args:
        name: of the text, for messages.

    Raises:
        ValueError: a tokenizer that does not tell which characters a token is of; a line or a word that becomes no
            token; a token of two words; a line longer than the model's positions. FloatingPointError: see
            `Likelihood.log_probabilities`.
    """
    if not likelihood.tokenizer.is_fast:
        raise ValueError(
            f"{type(likelihood.tokenizer).__name__} does not tell which characters a token is of, so that tokens "
            "cannot be added up to words. Load the fast tokenizer of the model (one with a tokenizer.json)."
        )
    numbers = [number for number, line in enumerate(lines, 1) if WORD.search(line)]
    texts = [lines[number - 1] for number in numbers]
    places = [f"{name}, line {number}" for number in numbers]
    sentences = likelihood.encode(texts, places)
    scores = likelihood.log_probabilities(sentences)
    ends = _word_ends(likelihood, sentences)
    return [
        word
        for number, text, place, sentence, values, end in zip(
            numbers, texts, places, sentences, scores, ends, strict=True
        )
        for word in _words_of(likelihood.tokenizer, number, text, place, sentence, values, end)
    ]


def begins_word(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[bool] | None:
    """Which ids begin with white space, or are special and so end a word too; None: the tokens hold no white space.

    Ids that no token has are no end of a word.
    """
    sample = tokenizer.convert_ids_to_tokens(tokenizer("a a", add_special_tokens=False).input_ids)
    spaces = next(
        (
            marks
            for marks in (BYTE_LEVEL_SPACES, SENTENCE_PIECE_SPACE, SPACES)
            if any(mark in token for token in sample for mark in marks)
        ),
        None,
    )
    if spaces is None:
        return None
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    begins = [False] * vocab_size
    for token, i in tokenizer.get_vocab().items():
        if i < vocab_size:
            begins[i] = i in special or token.startswith(tuple(spaces))
    return begins


def _word_ends(likelihood: Likelihood, sentences: Sequence[Tokens]) -> list[np.ndarray] | list[None]:
    """log p(B) after each id of each sentence, [ids]."""
    if isinstance(likelihood, CausalLikelihood):
        begins = begins_word(likelihood.tokenizer, likelihood.vocab_size)
        if begins is not None:
            return likelihood.boundary_log_probabilities(sentences, begins)
    return [None] * len(sentences)


def _words_of(
    tokenizer: PreTrainedTokenizerBase,
    number: int,
    text: str,
    place: str,
    sentence: Tokens,
    values: np.ndarray,
    ends: np.ndarray | None,
) -> list[WordSurprisal]:
    words = [match.span() for match in WORD.finditer(text)]
    names = tokenizer.convert_ids_to_tokens([sentence.ids[i] for i in sentence.scored])
    of_word: list[list[int]] = [[] for _ in words]
    for token, span in enumerate(sentence.spans or ()):
        of_word[_word_of(text, words, span, place, names[token])].append(token)
    result = []
    for index, ((start, end), tokens) in enumerate(zip(words, of_word, strict=True)):
        word = text[start:end]
        if not tokens:
            raise ValueError(
                f"{place}: word {index + 1}, {word!r:.80}, becomes no token, so that it has no probability. Look at "
                "the tokenizer, or take the word out."
            )
        nats = -float(values[tokens].sum())
        corrected = None
        if ends is not None:
            # `ends` is after each id: before the first token of a word stands the last of the word before.
            own = -nats + float(ends[sentence.scored[tokens[-1]]])
            if index:
                own -= float(ends[sentence.scored[tokens[0]] - 1])
            corrected = -own / math.log(2)
        pieces = tuple(names[token] for token in tokens)
        result.append(WordSurprisal(number, index + 1, word, nats / math.log(2), corrected, pieces))
    return result


def _word_of(text: str, words: list[tuple[int, int]], span: tuple[int, int], place: str, token: str) -> int:
    """The word that a token of these characters belongs to."""
    inside = WORD.search(text, span[0], span[1])
    start = inside.start() if inside else span[1] if span[1] > span[0] else span[0]
    found = next((i for i, (_, end) in enumerate(words) if start < end), len(words) - 1)
    if inside and WORD.search(text, words[found][1], span[1]):
        raise ValueError(
            f"{place}: token {token!r} is of more than one word ({text[span[0] : span[1]]!r:.80}): its probability "
            "cannot be divided among them. Take a tokenizer whose tokens end where words do."
        )
    return found


__all__ = ["WORD", "WordSurprisal", "begins_word", "word_surprisals"]
