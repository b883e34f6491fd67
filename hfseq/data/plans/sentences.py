"""Sentences, found on token ids; and pairs of text for next-sentence and sentence-order prediction.

**Borders** are a heuristic: a sentence ends after a token that ends with . ! ? (closing quotes and brackets may follow)
where the next token follows white space, and after a token with a line break, for tokenizers that keep them. So "Mr.
Smith" is two sentences, and where a tokenizer drops white space (WordPiece, words) a sentence must begin with a
letter, a quote or an opening bracket. That is what Devlin et al. (2018) used too: sentences here are units to fill rows
with, not linguistics. The look-ups are in the tables of `MaskingVocabulary`; 1M tokens take some 30 ms.

**Pairs.** A row is `[CLS] A [SEP] B [SEP]`. Each document's sentences are put together until a row is full
(`chunks_of`); such a chunk is cut in two at a sentence border (one sentence: in its middle). Then, half the time,

- NSP (Devlin et al. 2018): B is replaced by text of another document, from a random sentence on until the row is full;
- SOP (Lan et al. 2020): A and B change places.

Cut, coin and replacement are drawn anew in each epoch, from (seed, epoch, row). BERT's script puts the replaced half
back for the next row, which makes the rows of an epoch depend on one another; here the chunks are fixed, and what was
replaced in one epoch is seen in others, or as somebody's random B.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..hashing import draws, uniform
from ..vocabulary import MaskingVocabulary

# Tokens looked at together: enough to be fast, little enough to stay in memory.
WINDOW = 1 << 22


def sentence_starts(tokens: np.ndarray, offsets: np.ndarray, vocabulary: MaskingVocabulary) -> np.ndarray:
    """Where sentences begin.

    Args:
        tokens: [N], see `TokenArray`.
        offsets: int64 [documents + 1], where documents begin; each ends with an end token.

    Returns:
        int64 [sentences], ascending positions in tokens; every document that is not empty begins one. A sentence ends
        where the next one begins, or before its document's end token.
    """
    found = []
    last = len(offsets) - 1
    first = 0
    while first < last:
        # Whole documents, so that no border depends on where a window ends.
        until = int(np.searchsorted(offsets, offsets[first] + WINDOW, side="right")) - 1
        until = min(max(until, first + 1), last)
        begin, end = int(offsets[first]), int(offsets[until])
        window = np.asarray(tokens[begin:end])
        starts = np.zeros(len(window), bool)
        starts[1:] = _ends(window, vocabulary)
        own = offsets[first:until] - begin
        starts[offsets[first + 1 : until + 1] - 1 - begin] = False  # end tokens
        filled = np.diff(offsets[first : until + 1]) > 1
        starts[own[filled]] = True
        found.append(np.flatnonzero(starts) + begin)
        first = until
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _ends(window: np.ndarray, vocabulary: MaskingVocabulary) -> np.ndarray:
    """bool [n - 1]: whether a sentence ends between token i and token i + 1."""
    ends, closes = vocabulary.ends_sentence[window], vocabulary.closes[window]
    # Closing marks after a full stop belong to it: look at the last token that is none.
    place = np.maximum.accumulate(np.where(closes, 0, np.arange(len(window))))
    ended = ends[place]
    breaks = vocabulary.breaks_line[window]
    return (ended[:-1] & vocabulary.begins_word[window[1:]]) | (breaks[:-1] & ~breaks[1:])


@dataclass
class Pairs:
    """The chunks of text that pairs are made of; made by `chunks_of`."""

    objective: str
    """nsp or sop."""
    begins: np.ndarray = field(repr=False)
    """int64 [rows]: where each chunk begins in the token array."""
    lengths: np.ndarray = field(repr=False)
    """int64 [rows]: tokens of each chunk, at most row_length - 3."""
    documents: np.ndarray = field(repr=False)
    """int64 [rows]: the document each chunk is from, among those that are not empty."""
    starts: np.ndarray = field(repr=False)
    """int64 [sentences]: see `sentence_starts`."""
    document_starts: np.ndarray = field(repr=False)
    """int64 [documents + 1]: the first sentence of each document that is not empty, and the end."""
    document_ends: np.ndarray = field(repr=False)
    """int64 [documents]: where each of those documents' text ends in the token array."""

    def draw(
        self, rows: np.ndarray, keys: np.ndarray, room: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The two texts of some rows.

        Args:
            rows: int64 [n].
            keys: uint64 [n], see `hashing.row_keys`.
            room: tokens in both texts, row_length - 3.

        Returns:
            begin and length of A, begin and length of B, label (0: B really follows A, in that order), int64 [n] each.
        """
        numbers = draws(keys, 4, stream=16)  # [n, 4]
        begin, length = self.begins[rows], self.lengths[rows]
        # Sentence borders inside the chunk: starts[low:high].
        low = np.searchsorted(self.starts, begin, side="right")
        high = np.searchsorted(self.starts, begin + length, side="left")
        inside = high - low
        border = self.starts[
            np.minimum(low + uniform(numbers[:, 0], np.maximum(inside, 1)), len(self.starts) - 1)
        ]
        middle = np.where(inside > 0, border, begin + length // 2)
        a_begin, a_length = begin, middle - begin
        b_begin, b_length = middle, begin + length - middle
        changed = (numbers[:, 1] >> np.uint64(63)).astype(bool)
        if self.objective == "sop":
            a_begin, b_begin = np.where(changed, b_begin, a_begin), np.where(changed, a_begin, b_begin)
            a_length, b_length = np.where(changed, b_length, a_length), np.where(changed, a_length, b_length)
        else:
            count = len(self.document_ends)
            other = self.documents[rows] + 1 + uniform(numbers[:, 2], np.full(len(rows), count - 1))
            other %= count
            first, until = self.document_starts[other], self.document_starts[other + 1]
            place = self.starts[first + uniform(numbers[:, 3], until - first)]
            grown = np.minimum(self.document_ends[other] - place, room - a_length)
            b_begin, b_length = np.where(changed, place, b_begin), np.where(changed, grown, b_length)
        return a_begin, a_length, b_begin, b_length, changed.astype(np.int64)


def chunks_of(
    tokens: np.ndarray, offsets: np.ndarray, vocabulary: MaskingVocabulary, row_length: int, objective: str
) -> Pairs:
    """Cuts documents into chunks of whole sentences that fill a row; sentences longer than a row go on in the next.

    Chunks of one token, which cannot be cut in two, are left out.

    Raises:
        ValueError: no room for two texts, a single document (nothing to draw another B from), no text.
    """
    room = row_length - 3
    if room < 2:
        raise ValueError(f"row_length {row_length} has no room for [CLS] A [SEP] B [SEP]: at least 5.")
    starts = sentence_starts(tokens, offsets, vocabulary)
    filled = np.flatnonzero(np.diff(offsets) > 1)
    if len(filled) < 2 and objective == "nsp":
        raise ValueError(
            f"Next-sentence prediction needs texts of other documents, but there are {len(filled)} documents that are "
            "not empty. Use packing 'sop' (sentence order), or give each document its own entry in the corpus."
        )
    document_starts = np.searchsorted(starts, offsets[filled])
    document_ends = offsets[filled + 1] - 1
    begins: list[int] = []
    documents: list[int] = []
    until: list[int] = []
    positions = starts.tolist()
    bounds = [*document_starts.tolist(), len(positions)]
    for document, end in enumerate(document_ends.tolist()):
        begin = positions[bounds[document]]
        sentence = bounds[document] + 1
        last = bounds[document + 1]
        while begin < end:
            # As many whole sentences as fit; of one that does not fit alone, what fits.
            best = None
            while sentence < last and positions[sentence] - begin <= room:
                best = positions[sentence]
                sentence += 1
            if end - begin <= room:
                best = end
            elif best is None:
                best = begin + room
            begins.append(begin)
            until.append(best)
            documents.append(document)
            begin = best
    chunk_begins = np.array(begins, np.int64)
    lengths = np.array(until, np.int64) - chunk_begins
    keep = lengths > 1
    if not keep.any():
        raise ValueError("No document has two tokens to make a pair of: give more text.")
    return Pairs(
        objective=objective,
        begins=chunk_begins[keep],
        lengths=lengths[keep],
        documents=np.array(documents, np.int64)[keep],
        starts=starts,
        document_starts=np.array(bounds, np.int64),
        document_ends=document_ends,
    )
