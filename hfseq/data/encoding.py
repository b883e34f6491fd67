"""Tokenising a corpus by tokenising each distinct word of it once.

`tokenizers` spends some 3 us per token on text that is mostly words seen before: 340,000 tokens/s and core for
byte-level BPE, however it is called. Where a tokenizer never looks across the space between two words, the text can be
cut there, each distinct piece encoded once and the rest looked up.

That holds at a single space between two visible characters for the pre-tokenizers that `train_tokenizer` makes, GPT-2's
and BERT's: none has a pattern that goes on after a visible character into a space. It does not hold for every
tokenizer (SentencePiece models without pre-tokenizer, added tokens with spaces, BPE-dropout); those are encoded
document by document, as are texts in scripts without spaces, whose pieces are whole sentences.

Long texts take memory by the piece, not by the document: a document is encoded in parts, cut at such spaces, and a
piece of byte-level BPE (a "word" of 20 MB of encoded data, whose merges alone would take 2.5 GB) in windows. Two
neighbouring windows are joined where the tokens on both sides of the border, encoded together, stay what they are:
merges only ever grow tokens, so that if none crosses the border of these two, none does in the whole.

Special tokens that are spelled out in a text ("<|endoftext|>") are text, in training of every kind: a document about
tokenizers must not end in its middle. `parse_special_tokens=True` makes them special again, for text that was prepared
with markers. A saved tokenizer, called by its user, behaves as everywhere in transformers and does parse them
(`fill-mask` needs its [MASK]); `tokenizer(text, split_special_tokens=True)` is what training did.

This file imports nothing of hfseq at its top: `serve` runs it in processes of their own, which would else pay for torch
(see `array_building.py`).
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_BETWEEN_WORDS = re.compile(r"(?<=\S)(?= \S)")
_LETTERS = re.compile(r"[0-9A-Za-z]+")
# Pieces are forgotten when they come to that many characters; some 100 MB with their dictionary.
REMEMBERED_CHARACTERS = 1 << 23
# Longer documents are encoded in parts of about that many characters.
PART_CHARACTERS = 1 << 20
# Longer pieces are encoded in windows of that many characters, and not remembered.
WINDOW_CHARACTERS = 1 << 16
# How many borders are tried before two windows are given up and the piece is encoded whole.
BORDERS_TRIED = 64


def encoder_settings(
    tokenizer: PreTrainedTokenizerFast, parse_special_tokens: bool = False
) -> dict[str, Any]:
    """What a `CorpusEncoder` needs of a tokenizer, as plain values that another process can read."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    # They add tokens around a text, cut it or fill it up; a token array has texts alone.
    content |= {"padding": None, "truncation": None, "post_processor": None}
    return {
        "tokenizer": json.dumps(content),
        "by_word": splits_between_words(tokenizer.backend_tokenizer, parse_special_tokens),
        "by_character": _is_cut_for(tokenizer.backend_tokenizer, ["character"]),
        "parse_special_tokens": parse_special_tokens,
    }


class CorpusEncoder:
    """Token ids of texts, as `tokenizer.encode(text, add_special_tokens=False)` gives them, except that it neither
    pads nor cuts and reads special tokens that are spelled out in a text as ordinary text."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast | dict[str, Any], parse_special_tokens: bool = False
    ):
        """
        Args:
            tokenizer: a fast tokenizer, or the `encoder_settings` of one.
            parse_special_tokens: read special tokens in a text as special after all.
        """
        from tokenizers import Tokenizer

        settings = tokenizer
        if not isinstance(settings, dict):
            settings = encoder_settings(tokenizer, parse_special_tokens)
        content = json.loads(settings["tokenizer"])
        self.tokenizer = Tokenizer.from_str(settings["tokenizer"])
        self.tokenizer.encode_special_tokens = not settings["parse_special_tokens"]
        self.by_word = settings["by_word"]
        model, cutter = content["model"], content.get("pre_tokenizer") or {}
        is_plain = self.by_word and not settings["parse_special_tokens"]
        # How a long piece is encoded, other than whole.
        self._in_pieces: Callable[[str], list[np.ndarray]] | None = None
        if is_plain and model["type"] == "BPE":
            self._in_pieces = self._in_windows
        elif is_plain and settings["by_character"]:
            self._in_pieces = self._by_character
        # Of these models a longer run of letters is one unknown token, however long it is.
        self._longest_word: int | None = None
        if model["type"] == "WordPiece" or (model["type"] == "WordLevel" and cutter.get("invert")):
            limits = map(len, model["vocab"]), [model.get("max_input_chars_per_word", 1)]
            self._longest_word = max(chain(*limits)) if is_plain else None
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
        found, lengths = self.encode_in_arrays(texts)
        return found[0] if len(found) == 1 else np.concatenate([np.empty(0, np.uint32), *found]), lengths

    def encode_in_arrays(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        """As `encode`, the ids in several arrays one after the other: a long text's are in memory once."""
        if not self.by_word or all(len(text) <= PART_CHARACTERS for text in texts):
            return self._encode(texts)
        ids: list[np.ndarray] = []
        lengths = np.zeros(len(texts), np.int64)
        for number, text in enumerate(texts):
            for part in parts_of(text):
                own, length = self._encode([part])
                ids += own
                lengths[number] += length[0]
        return ids, lengths

    def _encode(self, texts: list[str]) -> tuple[list[np.ndarray], np.ndarray]:
        split = _BETWEEN_WORDS.split if self.by_word else lambda text: [text]
        pieces = [split(text) for text in texts]
        counts = np.fromiter(map(len, pieces), np.int64, len(pieces))
        flat = list(chain.from_iterable(pieces))
        if self._characters > REMEMBERED_CHARACTERS:
            self._forget()
        windows = (
            {i: in_pieces(flat[i]) for i in self._long_ones(flat)} if (in_pieces := self._in_pieces) else {}
        )
        apart = {flat[i] for i in windows}
        self._learn([p for p in dict.fromkeys(flat) if p not in self._index and p not in apart])

        # -1 for the long ones: any place of the table, their lengths follow.
        index = np.fromiter((self._index.get(piece, -1) for piece in flat), np.int64, len(flat))
        begins = self._begins[index]
        lengths = self._begins[index + 1] - begins
        for i, arrays in windows.items():
            lengths[i] = sum(map(len, arrays))
        ends = np.cumsum(lengths)
        per_text = np.diff(np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(counts)])])
        # A long piece is copied as it lies: gathering takes 24 bytes a token (450 MB for a word of 20 MB).
        parts, first = [], 0
        for long in sorted({*windows, *np.flatnonzero(lengths > WINDOW_CHARACTERS // 8).tolist()}):
            parts.append(self._gathered(begins[first:long], lengths[first:long]))
            if long in windows:
                parts += windows.pop(long)
            else:
                parts.append(self._ids[begins[long] : begins[long] + lengths[long]])
            first = long + 1
        parts.append(self._gathered(begins[first:], lengths[first:]))
        return [part for part in parts if len(part)], per_text

    @staticmethod
    def _long_ones(pieces: list[str]) -> Iterator[int]:
        """Which of the pieces are encoded in windows."""
        return (i for i, piece in enumerate(pieces) if len(piece) > WINDOW_CHARACTERS)

    def _gathered(self, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Ids of the pieces that begin there and are so long, one after the other."""
        ends = np.cumsum(lengths)
        # Position k of the result lies in piece p at offset k - (ends[p] - lengths[p]).
        source = np.repeat(begins - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
        return self._ids[source]

    def _learn(self, pieces: list[str]) -> None:
        if not pieces:
            return
        encodings = self._ids_of(pieces)
        lengths = np.fromiter(map(len, encodings), np.int64, len(encodings))
        ids = np.fromiter(chain.from_iterable(encodings), np.uint32, int(lengths.sum()))
        self._index.update(zip(pieces, range(len(self._index), len(self._index) + len(pieces)), strict=True))
        self._begins = np.concatenate([self._begins, self._begins[-1] + np.cumsum(lengths)])
        self._ids = np.concatenate([self._ids, ids])
        self._characters += sum(map(len, pieces))

    def _ids_of(self, pieces: list[str]) -> list[list[int]]:
        if self._longest_word is not None:
            pieces = [_shortened(piece, self._longest_word) for piece in pieces]
        return [e.ids for e in self.tokenizer.encode_batch_fast(pieces, add_special_tokens=False)]

    def _by_character(self, piece: str) -> list[np.ndarray]:
        windows = (piece[i : i + WINDOW_CHARACTERS] for i in range(0, len(piece), WINDOW_CHARACTERS))
        return [self._whole(window) for window in windows]

    def _in_windows(self, piece: str) -> list[np.ndarray]:
        """Ids of a long piece; see the module for why they are those of the whole."""
        found: list[np.ndarray] = []
        position = 0
        before: tuple[str, list[int]] = ("", [])  # text and ids of what stands before the border
        while True:
            window = piece[position : position + WINDOW_CHARACTERS]
            groups = self._groups(window)
            if position and not self._stay_apart(before, groups[0]):
                return [self._whole(piece)]
            if position + len(window) == len(piece):
                found.append(np.array([i for _, ids in groups for i in ids], np.uint32))
                return found
            # The last tokens of a window may be others where the text goes on; a border before them is sought.
            for kept in range(len(groups) - 8, max(len(groups) - 8 - BORDERS_TRIED, 0), -1):
                end = position + sum(len(text) for text, _ in groups[:kept])
                ahead = self._groups(piece[end : end + 256])
                if self._stay_apart(groups[kept - 1], ahead[0]):
                    break
            else:
                return [self._whole(piece)]
            found.append(np.array([i for _, ids in groups[:kept] for i in ids], np.uint32))
            position, before = end, groups[kept - 1]

    def _groups(self, text: str) -> list[tuple[str, list[int]]]:
        """Its tokens with their text; those that share a character (bytes of it) together."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        groups: list[tuple[str, list[int]]] = []
        ids: list[int] = []
        begin = end = 0
        for token, (first, last) in zip(encoding.ids, encoding.offsets, strict=True):
            if ids and first >= end:
                groups.append((text[begin:first], ids))
                ids, begin = [], first
            ids.append(token)
            end = max(end, last)
        groups.append((text[begin:], ids))
        return groups

    def _stay_apart(self, left: tuple[str, list[int]], right: tuple[str, list[int]]) -> bool:
        both = self.tokenizer.encode(left[0] + right[0], add_special_tokens=False)
        return both.ids == left[1] + right[1]

    def _whole(self, piece: str) -> np.ndarray:
        return np.array(self.tokenizer.encode(piece, add_special_tokens=False).ids, np.uint32)


def _shortened(piece: str, longest: int) -> str:
    """The piece with runs of letters cut to a length at which they are unknown already."""
    if len(piece) <= longest:
        return piece
    return _LETTERS.sub(lambda run: run[0][: longest + 1], piece)


def parts_of(text: str, size: int = PART_CHARACTERS) -> Iterator[str]:
    """The text in parts of about `size` characters, cut where words are: see the module."""
    begin = 0
    while len(text) - begin > size:
        border = _BETWEEN_WORDS.search(text, begin + size)
        if border is None:
            break
        yield text[begin : border.start()]
        begin = border.start()
    yield text[begin:] if begin else text


def splits_between_words(tokenizer: Tokenizer, parse_special_tokens: bool = False) -> bool:
    """Whether a `tokenizers.Tokenizer` encodes the two sides of a single space between visible characters, the space
    on the right side, to what it encodes both together to. False where this is not known."""
    from tokenizers import normalizers, pre_tokenizers

    from .pre_tokenizers import ALGORITHMS

    pre_tokenizer, normalizer = tokenizer.pre_tokenizer, tokenizer.normalizer
    gpt2 = (
        isinstance(pre_tokenizer, pre_tokenizers.ByteLevel)
        and pre_tokenizer.use_regex
        and not pre_tokenizer.add_prefix_space
    )
    known = gpt2 or _is_cut_for(tokenizer, ALGORITHMS)
    letter_by_letter = normalizer is None or isinstance(
        normalizer, (normalizers.Lowercase, normalizers.BertNormalizer)
    )
    added = tokenizer.get_added_tokens_decoder().values()
    harmless = all(token.special for token in added)
    if parse_special_tokens:  # a token with a space within, or one that takes the space after it
        harmless &= not any(token.rstrip or re.search(r"\s", token.content) for token in added)
    return known and letter_by_letter and harmless and not getattr(tokenizer.model, "dropout", None)


def _is_cut_for(tokenizer: Tokenizer, algorithms: Sequence[str]) -> bool:
    """Whether its words are those that `train_tokenizer` makes for one of these algorithms."""
    from .pre_tokenizers import pre_tokenizer_of

    if tokenizer.pre_tokenizer is None:
        return False
    state = tokenizer.pre_tokenizer.__getstate__()
    return any(pre_tokenizer_of(algorithm).__getstate__() == state for algorithm in algorithms)


# ---- documents to arrays, here or in a process of its own


class ArrayEncoder:
    """Documents as they stand in a token array."""

    def __init__(self, settings: dict[str, Any], end_id: int, vocab_size: int):
        self.encoder, self.end_id, self.vocab_size = CorpusEncoder(settings), end_id, vocab_size
        self.dtype = dtype_of(vocab_size)

    def __call__(self, texts: list[str]) -> dict[str, Any]:
        """Returns:
            tokens: bytes of all documents, each with its end token; lengths int64 [len(texts)], with it; n_bytes
            (UTF-8) and n_words of the text.

        Raises:
            ValueError: the tokenizer makes ids outside its vocabulary.
        """
        arrays, lengths = self.encoder.encode_in_arrays(texts)
        ids, end = np.empty(int(lengths.sum()), self.dtype), 0
        arrays.reverse()
        while arrays:  # each is let go as soon as it is copied
            array = arrays.pop()
            check_known(array, self.vocab_size)
            ids[end : end + len(array)] = array
            end += len(array)
        return {
            "tokens": with_ends(ids, lengths, self.end_id, self.vocab_size).tobytes(),
            "lengths": lengths + 1,
            "n_bytes": sum(len(part.encode("utf-8")) for text in texts for part in parts_of(text)),
            "n_words": sum(len(part.split()) for text in texts for part in parts_of(text)),
        }


def dtype_of(vocab_size: int) -> np.dtype:
    """The smallest type of the ids of a token array."""
    return np.dtype(np.uint16 if vocab_size <= 65536 else np.uint32)


def with_ends(ids: np.ndarray, lengths: np.ndarray, end_id: int, vocab_size: int) -> np.ndarray:
    """ids [n] of texts of these lengths, one after the other, an end token after each."""
    check_known(ids, vocab_size)
    # Opens a place after each document for its end token.
    return np.insert(ids.astype(dtype_of(vocab_size), copy=False), np.cumsum(lengths), end_id)


def check_known(ids: np.ndarray, vocab_size: int) -> None:
    """ValueError for ids outside the vocabulary."""
    if ids.size and ids.max() >= vocab_size:
        raise ValueError(
            f"The tokenizer made id {ids.max()}, but its vocabulary ends at {vocab_size - 1}. Its files do not belong "
            "together; save it again from where it came."
        )


def send(value: Any, pipe: BinaryIO) -> None:
    """Writes one value to another process, its size before it."""
    data = pickle.dumps(value, protocol=5)
    pipe.write(len(data).to_bytes(8, "little"))
    pipe.write(data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Reads one value; EOFError where the other process is gone."""
    size = pipe.read(8)
    data = pipe.read(int.from_bytes(size, "little")) if len(size) == 8 else b""
    if not data:
        raise EOFError
    return pickle.loads(data)


def serve(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Encodes batches until the other side closes its pipe, or dies. First comes the `ArrayEncoder`'s arguments."""
    try:
        encoder = ArrayEncoder(**receive(incoming))
        while True:
            texts = receive(incoming)
            try:
                answer = encoder(texts)
            except ValueError as error:
                answer = {"error": str(error)}
            send(answer, outgoing)
    except (EOFError, BrokenPipeError):
        return
