"""Token arrays and vocabularies made by hand, in which one sees where every token came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hfseq.data import MaskingVocabulary, TokenArray

PAD, UNKNOWN, CLS, SEP, MASK = range(5)


def vocabulary_by_hand(size: int) -> MaskingVocabulary:
    """Ids 0 to 4 are special, 5 is a full stop, 6 a closing quote; of the others every third continues a word."""
    ids = np.arange(size)
    ordinary = ids >= 5
    joins = ordinary & (ids % 3 == 0) & (ids > 6)
    return MaskingVocabulary(
        size=size,
        pad_id=PAD,
        cls_id=CLS,
        sep_id=SEP,
        mask_id=MASK,
        ordinary=ids[ordinary],
        special=~ordinary,
        joins_left=joins,
        joins_right=ordinary,
        ends_sentence=ids == 5,
        closes=ids == 6,
        begins_word=(ids > 6) & ~joins,
        breaks_line=np.zeros(size, bool),
    )


def array_by_hand(documents: list, vocab_size: int, path: Path) -> TokenArray:
    """A memory-mapped token array of lists of ids, written as `build_token_arrays` writes it."""
    from hfseq.data import load_token_array
    from hfseq.data.token_arrays import ArrayWriter

    path.mkdir(parents=True, exist_ok=True)
    writer = ArrayWriter(path / "train", vocab_size, SEP)
    lengths = np.array([len(d) for d in documents], np.int64)
    ids = (
        np.concatenate([np.asarray(d, np.uint32) for d in documents]) if documents else np.empty(0, np.uint32)
    )
    writer.write([""] * len(documents), ids, lengths)
    writer.close("by hand")
    return load_token_array(path / "train")


@pytest.fixture(scope="session")
def hand():
    """(vocabulary of so many ids, token array of lists of ids)"""
    return vocabulary_by_hand, array_by_hand
