"""Rows: all text, once, in rows that are full."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from hfseq.data import Corpus, build_token_arrays, load_corpus, make_rows, train_tokenizer
from hfseq.data.plans.rows import best_fit_decreasing, split_long
from hfseq.data.vocabulary import MaskingVocabulary

SIZE = 300


@pytest.fixture(scope="module")
def array(hand, tmp_path_factory):
    generator = np.random.default_rng(0)
    lengths = [0, 1, 300, *generator.integers(0, 90, 200).tolist(), 0]
    documents = [generator.integers(5, SIZE, n) for n in lengths]
    for document in documents:
        document[10::11] = 5  # full stops
    return hand[1](documents, SIZE, tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def vocabulary(hand):
    return hand[0](SIZE)


def text_of(array) -> list[int]:
    return [t for i in range(array.n_documents) for t in array.document(i).tolist()]


@pytest.mark.parametrize("width", [2, 3, 32, 100, 5000])
def test_blocks_are_the_text_from_end_to_end(array, vocabulary, width):
    rows = make_rows(array, vocabulary, width, "blocks")
    ids, row, lengths = rows.gather(array.tokens, np.arange(len(rows)), vocabulary)
    assert ids.shape == (len(rows), width) and (ids[:, 0] == 2).all()
    text = ids[:, 1:].ravel()
    n = len(array) - 1
    assert (text[:n] == array.tokens[1:]).all() and (text[n:] == 0).all() and len(text) - n < width - 1
    assert row.tolist() == list(range(len(rows))) and lengths.sum() == (ids != 0).sum() == rows.filled.sum()
    assert len(rows) == 1 or rows.fullness > 1 - 1 / len(rows)


@pytest.mark.parametrize("packing", ["documents", "sentences"])
@pytest.mark.parametrize("width", [3, 10, 32, 100, 400])
def test_packed_texts_are_whole_and_all_there(array, vocabulary, packing, width):
    rows = make_rows(array, vocabulary, width, packing)
    ids, row, lengths = rows.gather(array.tokens, np.arange(len(rows)), vocabulary)
    assert ids.shape == (len(rows), width)
    assert (np.bincount(row, minlength=len(rows)) > 0).all() and (np.diff(row) >= 0).all()
    found, places = [], np.zeros(len(rows), int)
    for r, length in zip(row, lengths, strict=True):
        text = ids[r, places[r] : places[r] + length].tolist()
        places[r] += length
        assert text[0] == 2 and text[-1] == 3 and min(text[1:-1]) >= 5
        found.append(text[1:-1])
    assert (places == rows.filled).all()
    for r in range(len(rows)):
        assert (ids[r, places[r] :] == 0).all()
    assert sum(len(t) for t in found) == len(text_of(array))
    expected = []
    for i in range(array.n_documents):
        document = array.document(i).tolist()
        units = [document]
        if packing == "sentences":
            borders = [0, *[k + 1 for k in range(len(document) - 1) if is_border(document, k, vocabulary)]]
            units = [document[a:b] for a, b in zip(borders, [*borders[1:], len(document)], strict=True)]
        for unit in units:
            expected += [unit[a : a + width - 2] for a in range(0, len(unit), width - 2)]
    assert Counter(map(tuple, found)) == Counter(map(tuple, expected))


def is_border(document: list[int], k: int, vocabulary) -> bool:
    """Whether a sentence ends after token k, by the rule as one would say it."""
    last = k
    while last > 0 and vocabulary.closes[document[last]]:
        last -= 1
    return bool(vocabulary.ends_sentence[document[last]] and vocabulary.begins_word[document[k + 1]])


def test_any_rows_in_any_order_and_rows_of_padding(array, vocabulary):
    for packing in ("blocks", "documents"):
        rows = make_rows(array, vocabulary, 64, packing)
        everything, _, _ = rows.gather(array.tokens, np.arange(len(rows)), vocabulary)
        wanted = np.array([5, -1, 0, 5, len(rows) - 1, -1])
        ids, row, lengths = rows.gather(array.tokens, wanted, vocabulary)
        for r, w in zip(ids, wanted, strict=True):
            assert (r == (everything[w] if w >= 0 else 0)).all()
        assert not set(row.tolist()) & {1, 5} and len(row) == len(lengths)
        ids, row, lengths = rows.gather(array.tokens, np.array([-1, -1]), vocabulary)
        assert (ids == 0).all() and ids.shape == (2, 64) and len(row) == len(lengths) == 0


def slow_best_fit(lengths: list[int], width: int) -> list[int]:
    left: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [r for r in range(len(left)) if left[r] >= length]
        if fitting:
            left[min(fitting, key=lambda r: left[r])] -= length
        else:
            left.append(width - length)
    return sorted(left)


@pytest.mark.parametrize("width", [1, 7, 64, 1024])
def test_best_fit_equals_the_slow_one(width):
    generator = np.random.default_rng(width)
    for n in (0, 1, 300):
        lengths = generator.integers(1, width + 1, n)
        row_of, n_rows = best_fit_decreasing(lengths, width)
        sums = np.bincount(row_of, lengths, minlength=n_rows)
        assert len(sums) == n_rows
        assert sorted((width - sums).astype(int).tolist()) == slow_best_fit(lengths.tolist(), width)


def test_many_texts_are_packed_in_seconds():
    import time

    lengths = np.random.default_rng(0).integers(3, 60, 200_000)
    start = time.process_time()
    row_of, n_rows = best_fit_decreasing(lengths, 512)
    assert time.process_time() - start < 3  # 0.2 s; rows tried one by one: hours
    assert lengths.sum() / (n_rows * 512) > 0.999 and np.bincount(row_of, lengths).max() <= 512


def test_long_texts_are_cut_into_full_pieces():
    begins, lengths = split_long(np.array([0, 10, 10, 100]), np.array([5, 0, 23, 20]), 10)
    assert begins.tolist() == [0, 10, 20, 30, 100, 110] and lengths.tolist() == [5, 10, 10, 3, 10, 10]


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("kjv", [("documents", 128), ("sentences", 128), ("documents", 256)]),
        ("wiki", [("documents", 256), ("sentences", 128)]),
    ],
)
def test_real_text_fills_rows(name, ways, tmp_path):
    """King James chapters and wiki summaries, tokenised by word."""
    try:
        documents = list(load_corpus(name, validation_share=0, test_share=0).train)[
            : 200 if name == "kjv" else 1100
        ]
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(f"the packaged corpus {name} is not installed: {error}")
    tokenizer = train_tokenizer(documents[:200], "word", 2000, masked=True)
    array = build_token_arrays(Corpus.from_documents(train=documents), tokenizer, tmp_path)["train"]
    for packing, width in ways:
        rows = make_rows(array, MaskingVocabulary.from_tokenizer(tokenizer), width, packing)
        assert rows.fullness >= 0.99, (packing, width, rows.fullness)


def test_errors(array, vocabulary, hand, tmp_path):
    with pytest.raises(
        ValueError, match="Unknown packing 'block': choose one of blocks, documents, sentences"
    ):
        make_rows(array, vocabulary, 32, "block")
    with pytest.raises(ValueError, match="Unknown long_documents 'cut': choose split or error"):
        make_rows(array, vocabulary, 32, "documents", "cut")
    with pytest.raises(ValueError, match="row_length 2 has no room for text"):
        make_rows(array, vocabulary, 2, "documents")
    with pytest.raises(
        ValueError,
        match=r"Document 2 \(from 0\) in .*train has 300 tokens, the longest of \d+ too long ones 300, but a row of 64 "
        r"has room for 62. Set row_length to 302, or long_documents to 'split'",
    ):
        make_rows(array, vocabulary, 64, "documents", "error")
    assert make_rows(array, vocabulary, 302, "documents", "error").lengths.max() == 300
    with pytest.raises(ValueError, match=r"A sentence of document \d+ \(from 0\).*a row of 8 has room for 6"):
        make_rows(array, vocabulary, 8, "sentences", "error")
    with pytest.raises(ValueError, match="has 300 ids, the tokenizer only 200. Build the token array again"):
        make_rows(array, hand[0](200), 32)
    with pytest.raises(ValueError, match="end with id 9, but the tokenizer's sep_token is 3"):
        make_rows(SimpleNamespace(vocab_size=SIZE, end_id=9), vocabulary, 32)
    empty = hand[1]([[], []], SIZE, tmp_path)
    for packing in ("documents", "sentences"):
        with pytest.raises(ValueError, match="holds no text: all its documents are empty"):
            make_rows(empty, vocabulary, 32, packing)
