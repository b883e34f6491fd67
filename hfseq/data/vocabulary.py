"""What masking and row building know of a tokenizer, as plain arrays over its vocabulary.

Made once from a tokenizer; afterwards nothing needs the tokenizer any more, and no text is ever looked at again: where
words and sentences begin is read off the token ids, by a look-up in a boolean table.

**Words.** A token continues the word of the token before it where `joins_left[token] & joins_right[token before]`:

| kind of tokenizer | joins_left: the piece | joins_right: the piece before |
|---|---|---|
| WordPiece (BERT) | begins with `##` | is no special token |
| byte-level BPE (GPT-2); with `▁` | begins with a letter or digit, not a space | ends with one, or is a single space |
| BPE with an end-of-word suffix | any | does not end with the suffix |
| words, characters | never | never |

So a mark of punctuation is a word of its own, as in BERT; bytes of half a character count as letters.

**Sentences.** See `sentences.py`, which uses `ends_sentence`, `closes`, `begins_word` and `breaks_line`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CLOSERS = "\"'\u201d\u2019\u00bb)]}"
_ENDS = re.compile(rf"[.!?\u2026\u3002\uff01\uff1f][{re.escape(CLOSERS)}]*\s*$")
# BERT's vocabularies have places for tokens that never came.
_UNUSED = re.compile(r"\[unused\d+\]$")
SPACE = "\u2581"


@dataclass
class MaskingVocabulary:
    """Special ids and boolean tables [size] of a tokenizer; `from_tokenizer` makes it."""

    size: int
    """One more than the largest id."""
    pad_id: int
    """Fills what is left of a row."""
    cls_id: int
    """Begins every text."""
    sep_id: int
    """Ends every text."""
    mask_id: int
    """Stands where a token was taken out."""
    ordinary: np.ndarray = field(repr=False)
    """int64 [n]: the ids that random replacement draws from: no special, added or unused token."""
    special: np.ndarray = field(repr=False)
    """Never masked, and a border of words and sentences: special tokens, the unknown token, ids without a token."""
    joins_left: np.ndarray = field(repr=False)
    """May continue the word of the token before it."""
    joins_right: np.ndarray = field(repr=False)
    """May be continued by the token after it."""
    ends_sentence: np.ndarray = field(repr=False)
    """Ends with . ! ? or another such mark, closing quotes and brackets after it included."""
    closes: np.ndarray = field(repr=False)
    """Is nothing but closing quotes and brackets, no space before them."""
    begins_word: np.ndarray = field(repr=False)
    """May begin a sentence: follows white space, or could, where the tokenizer drops it."""
    breaks_line: np.ndarray = field(repr=False)
    """Holds a line break."""

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerFast) -> MaskingVocabulary:
        """Reads a fast tokenizer.

        Raises:
            ValueError: no fast tokenizer, or it lacks one of mask, pad, cls (or bos) and sep (or eos) token.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(
                f"{type(tokenizer).__name__} is not a fast tokenizer. Load it with AutoTokenizer.from_pretrained from "
                "a directory that has a tokenizer.json."
            )
        ids = _special_ids(tokenizer)
        vocab = tokenizer.get_vocab()
        size = max(max(vocab.values()), *ids.values()) + 1
        special = np.ones(size, bool)
        special[list(vocab.values())] = False
        special[list(tokenizer.all_special_ids)] = True
        special[[i for i, token in tokenizer.added_tokens_decoder.items() if token.special]] = True
        rare = {i for piece, i in vocab.items() if _UNUSED.match(piece)} | set(tokenizer.added_tokens_decoder)
        ordinary = np.array(sorted(i for i in set(vocab.values()) - rare if not special[i]), np.int64)
        if not len(ordinary):
            raise ValueError("The tokenizer has no token but special ones: train it on some text.")

        kind, mark = _kind(json.loads(backend.to_str()))
        tables: dict[str, Any] = {name: np.zeros(size, bool) for name in _TABLES}
        for piece, i in vocab.items():
            if not special[i]:
                for name, value in zip(_TABLES, _properties(piece, kind, mark), strict=True):
                    tables[name][i] = value
        return cls(size=size, ordinary=ordinary, special=special, **ids, **tables)

    def starts_word(self, ids: np.ndarray) -> np.ndarray:
        """Where a word begins in rows of ids [rows, T] (or [T]); bool of that shape. Special tokens: always."""
        starts = np.ones(ids.shape, bool)
        starts[..., 1:] = ~(self.joins_left[ids[..., 1:]] & self.joins_right[ids[..., :-1]])
        return starts

    def check_array(self, vocab_size: int, end_id: int) -> None:
        """Refuses a token array that another tokenizer made.

        Args:
            vocab_size, end_id: of the `TokenArray`.

        Raises:
            ValueError: more ids than the tables have, or another end token than [SEP].
        """
        remedy = "Build the token array again with the tokenizer of this model."
        if vocab_size > self.size:
            raise ValueError(
                f"The token array has {vocab_size} ids, the tokenizer only {self.size}. {remedy}"
            )
        if end_id != self.sep_id:
            raise ValueError(
                f"The documents of the token array end with id {end_id}, but the tokenizer's sep_token is "
                f"{self.sep_id}. {remedy} (Its eos_token must be its sep_token.)"
            )


_TABLES = ("joins_left", "joins_right", "ends_sentence", "closes", "begins_word", "breaks_line")


def _special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    found = {
        "mask_id": tokenizer.mask_token_id,
        "pad_id": tokenizer.pad_token_id,
        "cls_id": _first(tokenizer.cls_token_id, tokenizer.bos_token_id),
        "sep_id": _first(tokenizer.sep_token_id, tokenizer.eos_token_id),
    }
    for name, value in found.items():
        if value is None:
            token = name.removesuffix("_id")
            where = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
            raise ValueError(
                f"The tokenizer {where} has no {token}_token, which masked-language training needs. Train one with "
                f"train_tokenizer(..., masked=True), take a BERT tokenizer, or add it: "
                f"tokenizer.add_special_tokens({{'{token}_token': '[{token.upper()}]'}})."
            )
    return found


def _first(*ids: int | None) -> int | None:
    return next((i for i in ids if i is not None), None)


def _kind(content: dict) -> tuple[str, str]:
    """(kind, mark): prefix, suffix, bytes, spaces or words; the mark is a prefix or suffix."""
    model = content["model"]
    around = json.dumps([content.get(part) for part in ("normalizer", "pre_tokenizer", "decoder")])
    if model["type"] == "WordPiece":
        return "prefix", model.get("continuing_subword_prefix") or "##"
    if model["type"] == "BPE" and model.get("end_of_word_suffix"):
        return "suffix", model["end_of_word_suffix"]
    if model["type"] == "BPE" and model.get("continuing_subword_prefix"):
        return "prefix", model["continuing_subword_prefix"]
    if model["type"] == "WordLevel":
        return "words", ""
    if '"ByteLevel"' in around:
        return "bytes", ""
    return "spaces", ""


def _properties(piece: str, kind: str, mark: str) -> tuple[bool, ...]:
    """The six properties of `_TABLES`."""
    if kind in ("prefix", "suffix"):
        if kind == "prefix":
            left, right = piece.startswith(mark), True
            text = piece.removeprefix(mark)
        else:
            left, right = True, not piece.endswith(mark)
            text = piece.removesuffix(mark)
        # White space is gone: a digit after a full stop is rather the rest of a number.
        begins = not (kind == "prefix" and left) and (
            text[:1].isalpha() or text[:1] in "\"'([\u201c\u2018\u00ab"
        )
        closes = bool(text) and not text.strip(CLOSERS)
        return left, right, bool(_ENDS.search(text)), closes, begins and not closes, "\n" in text
    if kind == "words":
        spaced = piece.isspace()  # a tokenizer of characters has the spaces themselves
        closes = bool(piece) and not piece.strip(CLOSERS)
        begins = piece == " " or (not closes and piece[:1].isalpha())
        return False, False, bool(_ENDS.search(piece)) and not spaced, closes, begins, "\n" in piece
    text = _bytes_to_text(piece) if kind == "bytes" else piece.replace(SPACE, " ")
    closes = bool(text) and not text.strip(CLOSERS)
    return (
        _in_word(text[:1]),
        _in_word(text[-1:]) or text == " ",
        bool(_ENDS.search(text)),
        closes,
        text[:1] == " ",
        "\n" in text,
    )


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_" or character == "\ufffd"


def _bytes_to_text(piece: str) -> str:
    """What a piece of byte-level BPE stands for; half characters become U+FFFD."""
    try:
        return bytes(map(_BYTES.__getitem__, piece)).decode("utf-8", errors="replace")
    except KeyError:  # an added token, written as itself
        return piece


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's: visible Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTES = _byte_alphabet()
