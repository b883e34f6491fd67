"""Tokenising a corpus by tokenising each distinct word of it once.

`tokenizers` spends some 3 us per token on text that is mostly words seen before: 340,000 tokens/s and core for
byte-level BPE, however it is called. Where a tokenizer never looks across the space between two words, the text can be
cut there, each distinct piece encoded once and the rest looked up.

That holds at a single space between two visible characters for the pre-tokenizers that `train_tokenizer` makes, GPT-2's
and BERT's: none has a pattern that goes on after a visible character into a space. It does not hold for every
tokenizer (SentencePiece models without pre-tokenizer, added tokens with spaces, BPE-dropout); those are encoded
document by document, as are texts in scripts without spaces, whose pieces are whole sentences.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BETWEEN_WORDS = re.compile(r"(?<=\S)(?= \S)")
# Pieces are forgotten when they come to that many characters; some 100 MB with their dictionary.
REMEMBERED_CHARACTERS = 1 << 23


class CorpusEncoder:
    """Token ids of texts, as `tokenizer.encode(text, add_special_tokens=False)` gives them, except that it neither
    pads nor cuts and reads special tokens that are spelled out in a text as ordinary text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        from tokenizers import Tokenizer

        copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        copy.no_padding()
        copy.no_truncation()
        copy.encode_special_tokens = True
        self.tokenizer = copy
        self.by_word = splits_between_words(copy)
        self._forget()

    def _forget(self) -> None:
        self._index: dict[str, int] = {}
        self._ids = np.empty(0, np.uint32)  # of all pieces, one after the other
        self._begins = np.zeros(1, np.int64)  # where each piece begins in it, and the end
        self._characters = 0

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Args:
            texts: documents.

        Returns:
            ids uint32 [n] of all texts one after the other, number of ids of each text int64 [len(texts)].
        """
        split = _BETWEEN_WORDS.split if self.by_word else lambda text: [text]
        pieces = [split(text) for text in texts]
        counts = np.fromiter(map(len, pieces), np.int64, len(pieces))
        flat = list(chain.from_iterable(pieces))
        if self._characters > REMEMBERED_CHARACTERS:
            self._forget()
        self._learn([piece for piece in dict.fromkeys(flat) if piece not in self._index])

        index = np.fromiter(map(self._index.__getitem__, flat), np.int64, len(flat))
        begins = self._begins[index]
        lengths = self._begins[index + 1] - begins
        ends = np.cumsum(lengths)
        # Position k of the result lies in piece p at offset k - (ends[p] - lengths[p]).
        source = np.repeat(begins - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
        per_text = np.diff(np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(counts)])])
        return self._ids[source], per_text

    def _learn(self, pieces: list[str]) -> None:
        if not pieces:
            return
        encodings = [e.ids for e in self.tokenizer.encode_batch_fast(pieces, add_special_tokens=False)]
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        ids = np.fromiter(chain.from_iterable(encodings), np.uint32, int(lengths.sum()))
        self._index.update(zip(pieces, range(len(self._index), len(self._index) + len(pieces)), strict=True))
        self._begins = np.concatenate([self._begins, self._begins[-1] + np.cumsum(lengths)])
        self._ids = np.concatenate([self._ids, ids])
        self._characters += sum(map(len, pieces))


def splits_between_words(tokenizer) -> bool:
    """Whether a `tokenizers.Tokenizer` encodes the two sides of a single space between visible characters, the space
    on the right side, to what it encodes both together to. False where this is not known."""
    from tokenizers import normalizers, pre_tokenizers

    from .tokenizers import ALGORITHMS, pre_tokenizer_of

    def state(part) -> bytes:
        return part.__getstate__()

    pre_tokenizer, normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    gpt2 = (
        isinstance(pre_tokenizer, pre_tokenizers.ByteLevel)
        and pre_tokenizer.use_regex
        and not pre_tokenizer.add_prefix_space
    )
    known = gpt2 or (
        pre_tokenizer is not None
        and state(pre_tokenizer) in [state(pre_tokenizer_of(algorithm)) for algorithm in ALGORITHMS]
    )
    letter_by_letter = normalizer is None or isinstance(
        normalizer, (normalizers.Lowercase, normalizers.BertNormalizer)
    )
    only_special = all(token.special for token in tokenizer.get_added_tokens_decoder().values())
    return known and letter_by_letter and only_special and not getattr(tokenizer.model, "dropout", None)
