"""Sentence borders on tokens, and pairs of text."""

from __future__ import annotations

import numpy as np
import pytest

from hfseq.data import MaskingVocabulary, sentence_starts, train_tokenizer
from hfseq.data.hashing import row_keys
from hfseq.data.plans import sentences as module
from hfseq.data.plans.sentences import chunks_of

TEXT = 'He said: don\'t go! "Well-known," she said. (Yes.) It is 3.14 today.\nNew line. "And?" More...'
EXACT = [
    "He said: don't go!",
    ' "Well-known," she said.',
    " (Yes.)",
    " It is 3.14 today.\n",
    "New line.",
    ' "And?"',
    " More...",
]
# Where white space is lost, it is not known whether a quote opens or closes.
EXPECTED = {
    "bpe": EXACT,
    "unigram": EXACT,
    "character": EXACT,
    "wordpiece": [
        "He said : don ' t go! \"",
        'Well - known, " she said.',
        "( Yes. )",
        "It is 3. 14 today.",
        'New line. "',
        'And? "',
        "More...",
    ],
}


@pytest.mark.parametrize("algorithm", EXPECTED)
def test_borders(algorithm):
    tokenizer = train_tokenizer([TEXT] * 3, algorithm, 300, masked=True)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    tokens = np.array([tokenizer.eos_token_id, *ids, tokenizer.eos_token_id])
    starts = sentence_starts(
        tokens, np.array([1, len(tokens)]), MaskingVocabulary.from_tokenizer(tokenizer)
    ).tolist()
    found = [
        tokenizer.decode(tokens[a:b]) for a, b in zip(starts, [*starts[1:], len(tokens) - 1], strict=True)
    ]
    assert found == EXPECTED[algorithm]


def documents_of(generator, n: int, shortest: int = 0, longest: int = 60) -> list[list[int]]:
    """Documents of which one sees where each token is from: document d has the ids 100 d + 7, 100 d + 8, ..., with full
    stops (5) here and there."""
    found = []
    for d in range(n):
        length = int(generator.integers(shortest, longest))
        document = 100 * d + 7 + np.arange(length)
        document[generator.random(length) < 0.12] = 5
        found.append(document.tolist())
    return found


def test_windows_do_not_matter(hand, tmp_path, monkeypatch):
    array = hand[1](documents_of(np.random.default_rng(0), 50), 6000, tmp_path)
    vocabulary = hand[0](6000)
    expected = sentence_starts(array.tokens, array.offsets, vocabulary)
    for window in (1, 17, 500):
        monkeypatch.setattr(module, "WINDOW", window)
        assert (sentence_starts(array.tokens, array.offsets, vocabulary) == expected).all()
    texts = np.diff(array.offsets) > 1
    assert set(array.offsets[:-1][texts]) <= set(expected.tolist())
    assert not set((array.offsets[1:] - 1).tolist()) & set(expected.tolist())  # end tokens


@pytest.mark.parametrize("width", [5, 8, 20, 200])
def test_chunks_are_all_text_in_whole_sentences(hand, tmp_path, width):
    array = hand[1](documents_of(np.random.default_rng(1), 60), 7000, tmp_path)
    vocabulary = hand[0](7000)
    pairs = chunks_of(array.tokens, array.offsets, vocabulary, width, "sop")
    assert pairs.lengths.max() <= width - 3 and pairs.lengths.min() >= 2
    covered = np.zeros(len(array), int)
    for begin, length in zip(pairs.begins, pairs.lengths, strict=True):
        covered[begin : begin + length] += 1
    text = np.ones(len(array), bool)
    text[[0, *(array.offsets[1:] - 1)]] = False
    assert covered.max() == 1 and not covered[~text].any()
    assert (text & (covered == 0)).sum() <= len(pairs.begins)  # only chunks of one token are left out
    starts = set(sentence_starts(array.tokens, array.offsets, vocabulary).tolist())
    ends = set((array.offsets[1:] - 1).tolist())
    for begin, length in zip(pairs.begins.tolist(), pairs.lengths.tolist(), strict=True):
        # It ends with a sentence or a document, or is a full row of a sentence that is longer.
        assert begin + length in starts | ends or length == width - 3
        if begin + length not in ends:
            # One sentence more would not have fitted.
            following = min(p for p in starts | ends if p > begin + length)
            assert following - begin > width - 3


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_pairs(hand, tmp_path, objective):
    array = hand[1](documents_of(np.random.default_rng(2), 80), 9000, tmp_path)
    vocabulary, width = hand[0](9000), 40
    pairs = chunks_of(array.tokens, array.offsets, vocabulary, width, objective)
    starts = set(sentence_starts(array.tokens, array.offsets, vocabulary).tolist())
    rows = np.arange(len(pairs.begins))
    labels, cuts = [], []
    for epoch in range(20):
        a_begin, a_length, b_begin, b_length, label = pairs.draw(rows, row_keys(0, epoch, rows), width - 3)
        labels.append(label)
        cuts.append(a_length)
        assert a_length.min() > 0 and b_length.min() > 0 and (a_length + b_length).max() <= width - 3
        for r in rows.tolist():
            chunk = (int(pairs.begins[r]), int(pairs.begins[r] + pairs.lengths[r]))
            a = (int(a_begin[r]), int(a_begin[r] + a_length[r]))
            b = (int(b_begin[r]), int(b_begin[r] + b_length[r]))
            if label[r] == 0:
                assert a[1] == b[0] and (a[0], b[1]) == chunk
            elif objective == "sop":
                assert b[1] == a[0] and (b[0], a[1]) == chunk
            else:
                assert a[0] == chunk[0] and a[1] < chunk[1] and b[0] in starts
                document = np.searchsorted(array.offsets, b[0], side="right") - 1
                assert document != np.searchsorted(array.offsets, a[0], side="right") - 1
                # Grown until the row is full or the document ends.
                assert b[1] == array.offsets[document + 1] - 1 or a_length[r] + b_length[r] == width - 3
            border = max(a[0], b[0]) if label[r] == 0 or objective == "sop" else a[1]
            inside = [p for p in range(chunk[0] + 1, chunk[1]) if p in starts]
            assert border in inside if inside else border == chunk[0] + (chunk[1] - chunk[0]) // 2
    labels, cuts = np.array(labels), np.array(cuts)
    assert labels.mean() == pytest.approx(0.5, abs=0.03)
    assert set(labels.mean(axis=0).tolist()).isdisjoint({0, 1})  # no chunk always has the same label
    assert (cuts.min(axis=0) < cuts.max(axis=0)).mean() > 0.2  # another cut in another epoch
    # Each row's pair does not depend on the others.
    keys = row_keys(0, 3, rows)
    together = pairs.draw(rows, keys, width - 3)
    for r in (0, 7, len(rows) - 1):
        alone = pairs.draw(rows[r : r + 1], keys[r : r + 1], width - 3)
        assert all(x[0] == y[r] for x, y in zip(alone, together, strict=True))


def test_all_documents_are_drawn(hand, tmp_path):
    array = hand[1]([[], [7, 8, 9], [107, 108], [], [207, 5, 209, 210]], 300, tmp_path)
    pairs = chunks_of(array.tokens, array.offsets, hand[0](300), 10, "nsp")
    keys = row_keys(0, np.arange(300))
    _, _, b_begin, _, label = pairs.draw(np.zeros(300, int), keys, 7)
    drawn = array.tokens[b_begin[label == 1]]
    assert set(drawn.tolist()) == {107, 207, 209}  # other documents, at the beginning of a sentence


def test_pair_errors(hand, tmp_path):
    vocabulary = hand[0](300)
    one = hand[1]([[7, 8, 9], []], 300, tmp_path / "one")
    with pytest.raises(ValueError, match="there are 1 documents that are not empty. Use packing 'sop'"):
        chunks_of(one.tokens, one.offsets, vocabulary, 20, "nsp")
    assert len(chunks_of(one.tokens, one.offsets, vocabulary, 20, "sop").begins) == 1
    with pytest.raises(
        ValueError, match=r"row_length 4 has no room for \[CLS\] A \[SEP\] B \[SEP\]: at least 5"
    ):
        chunks_of(one.tokens, one.offsets, vocabulary, 4, "sop")
    short = hand[1]([[7], [8]], 300, tmp_path / "short")
    with pytest.raises(ValueError, match="No document has two tokens"):
        chunks_of(short.tokens, short.offsets, vocabulary, 20, "nsp")
