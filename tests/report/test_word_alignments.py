"""Alignment error rate by hand, words of tokens, and the aligned sentences themselves."""

from pathlib import Path

import numpy as np
import pytest

from hfseq.report.experiment import Context
from hfseq.report.scales import SCALES
from hfseq.report.word_alignments import (
    AlignedPair,
    aligned_pairs,
    diagonal,
    error_rate,
    links_of,
    word_map,
    words_of,
    words_of_tokens,
)


def test_words_and_marks():
    assert [word for word, _, _ in words_of("Saftig-grünes Gras, hier.")] == [
        "Saftig",
        "-",
        "grünes",
        "Gras",
        ",",
        "hier",
        ".",
    ]


def test_error_rate_of_och_and_ney():
    sure, possible = frozenset({(0, 0), (1, 1)}), frozenset({(0, 0), (1, 1), (2, 1)})
    pair = AlignedPair("a b c", "x y", sure, possible)
    assert error_rate([pair], [{(0, 0), (1, 1)}]) == 0
    assert error_rate([pair], [{(0, 0), (2, 1)}]) == pytest.approx(1 - (1 + 2) / 4)
    assert error_rate([pair], [{(2, 0), (0, 1)}]) == 1


def test_diagonal():
    pair = AlignedPair("a b c", "x y z w v", frozenset(), frozenset())
    assert diagonal(pair) == {(0, 0), (0, 1), (1, 2), (2, 3), (2, 4)}  # halves are rounded to even


def test_tokens_become_words():
    weights = np.array([[0.2, 0.3, 0.5, 0.0], [0.1, 0.1, 0.6, 0.2], [0.5, 0.3, 0.1, 0.1]])
    words = word_map(weights, [0, 0, 1], [0, 0, 1, None])
    assert words == pytest.approx(np.array([[0.35, 0.55], [0.8, 0.1]]))
    assert links_of(words) == {(1, 0), (0, 1)}


def test_which_word_a_token_is_of():
    from hfseq.data import train_tokenizer

    tokenizer = train_tokenizer(["ab cd, ab. cd"] * 5, "bpe", 270, translation=True)
    text = "ab cd."
    owners = words_of_tokens(tokenizer, text)
    assert owners[-1] is None  # the end
    assert [w for w in dict.fromkeys(owners) if w is not None] == [0, 1, 2]


def test_the_hand_made_alignments_fit_their_sentences(shared_data, monkeypatch):
    monkeypatch.setenv("HFSEQ_DATA", str(shared_data))
    pairs = aligned_pairs(Context(Path("unused"), SCALES["cpu"], 3))
    assert len(pairs) == 20
    for pair in pairs:
        sources, targets = len(words_of(pair.source)), len(words_of(pair.target))
        assert pair.sure <= pair.possible
        assert all(i < sources and j < targets for i, j in pair.possible)
        # Every word but a comma, a relative pronoun or a particle is linked.
        assert len({i for i, _ in pair.possible}) >= sources - 1
    assert ("roof", "Dach") in {
        (words_of(p.source)[i][0], words_of(p.target)[j][0]) for p in pairs for i, j in p.sure
    }
