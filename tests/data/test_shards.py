"""The first shards of a text are the same arrays whenever they are taken, and a prefix of the whole."""

from __future__ import annotations

import json
import os
import pickle
import threading

import numpy as np
import pytest

from hfseq.data import Corpus, array_building, build_token_arrays, load_corpus, shards, train_tokenizer
from hfseq.data.corpora import Source

DOCUMENTS = [f"Document number {i} tells of {i * i}.\n  It ends." for i in range(300)]
SHARD = 2000


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(DOCUMENTS, "bpe", 300)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(array_building, "BATCH_CHARACTERS", 300)
    for module in (array_building, shards):
        monkeypatch.setattr(module, "SHARD_CHARACTERS", SHARD)


def corpus(documents=DOCUMENTS, **options) -> Corpus:
    return Corpus.from_documents(documents, validation_share=0.2, test_share=0.2, **options)


def in_shards(number: int) -> list[str]:
    """The documents of the first shards: a shard ends with the document that fills it."""
    found, size = [], 0
    for document in DOCUMENTS:
        found.append(document)
        size += len(document)
        if size >= SHARD:
            number, size = number - 1, 0
            if not number:
                return found
    return found


def test_a_shard_holds_each_of_its_documents_once(tokenizer, tmp_path, caplog):
    first = build_token_arrays(corpus(), tokenizer, tmp_path, shards=3)
    expected = build_token_arrays(corpus(in_shards(3)), tokenizer, tmp_path / "expected")
    whole = build_token_arrays(corpus(), tokenizer, tmp_path / "whole")
    assert set(first) == set(expected) == {"train", "validation", "test"}
    assert 80 < sum(array.n_documents for array in first.values()) == len(in_shards(3)) < 200
    for side, array in first.items():
        assert np.array_equal(array.tokens, expected[side].tokens)
        assert np.array_equal(array.tokens, whole[side].tokens[: len(array)])
        assert np.array_equal(array.offsets, expected[side].offsets)
        assert (array.n_bytes, array.n_words) == (expected[side].n_bytes, expected[side].n_words)
        assert np.array_equal(pickle.loads(pickle.dumps(array)).tokens, array.tokens)
    held_out = {
        array.document(i).tobytes()
        for s, array in first.items()
        if s != "train"
        for i in range(len(array.offsets) - 1)
    }
    assert held_out.isdisjoint(
        first["train"].document(i).tobytes() for i in range(first["train"].n_documents)
    )
    assert "the first 3 of an unknown number of shards (3 are finished)" in caplog.text


@pytest.mark.parametrize("workers", [False, True])
def test_the_rest_is_built_from_there(tokenizer, tmp_path, monkeypatch, caplog, workers):
    if workers:
        monkeypatch.setattr(array_building, "WORKERS_FROM", 1000)
    first = build_token_arrays(corpus(), tokenizer, tmp_path, shards=2, processes=2)
    before = first["train"].tokens.tobytes()
    with caplog.at_level("INFO"):
        whole = build_token_arrays(corpus(), tokenizer, tmp_path, processes=2)
    assert "going on after" in caplog.text
    expected = build_token_arrays(corpus(), tokenizer, tmp_path / "expected")
    for side in expected:
        assert (whole[side].path / "tokens.bin").read_bytes() == (
            expected[side].path / "tokens.bin"
        ).read_bytes()
        assert (whole[side].path / "meta.json").read_bytes() == (
            expected[side].path / "meta.json"
        ).read_bytes()
    tables = [
        json.loads((arrays["train"].path.parent / "shards.json").read_text()) for arrays in (whole, expected)
    ]
    assert tables[0] == tables[1] and len(tables[0]) == -(-sum(map(len, DOCUMENTS)) // (SHARD + 30))
    assert first["train"].tokens.tobytes() == before  # mapped all the while
    # Taken from the finished arrays they are the same, down to the fingerprint.
    again = build_token_arrays(corpus(), tokenizer, tmp_path / "expected", shards=2)
    for side in first:
        assert again[side].fingerprint == first[side].fingerprint != whole[side].fingerprint
        assert (again[side].path / "tokens.bin").read_bytes() == (
            first[side].path / "tokens.bin"
        ).read_bytes()
    assert f"the first 2 of {len(tables[0])} shards" in caplog.text
    assert (
        build_token_arrays(corpus(), tokenizer, tmp_path, shards=3)["train"].fingerprint
        != first["train"].fingerprint
    )


def test_they_are_taken_while_another_builds(tokenizer, tmp_path):
    """A thread builds the whole and stops in the fourth shard until the second shards were taken."""
    go_on, reached = threading.Event(), threading.Event()
    fourth = len(in_shards(3)) + 5

    def read():
        for number, document in enumerate(DOCUMENTS):
            if number == fourth and threading.current_thread() is builder:
                reached.set()
                assert go_on.wait(60)
            yield document

    def streamed() -> Corpus:
        return Corpus([(None, Source("documents", "one fingerprint", read))], streaming=True)

    def build() -> None:
        array_building.WORKERS_FROM, before = (
            100,
            array_building.WORKERS_FROM,
        )  # or nothing is written before the end
        try:
            build_token_arrays(streamed(), tokenizer, tmp_path, processes=1)
        finally:
            array_building.WORKERS_FROM = before

    builder = threading.Thread(target=build)
    builder.start()
    try:
        assert reached.wait(60)
        taken = build_token_arrays(streamed(), tokenizer, tmp_path, shards=2)
        assert builder.is_alive() and list(tmp_path.glob("*.partial"))
    finally:
        go_on.set()
        builder.join()
    whole = build_token_arrays(streamed(), tokenizer, tmp_path)
    for side, array in taken.items():
        assert np.array_equal(array.tokens, whole[side].tokens[: len(array)])
    assert sum(array.n_documents for array in taken.values()) == len(in_shards(2))


def test_how_many_there_will_be(tokenizer, tmp_path, caplog):
    file = tmp_path / "text.jsonl"
    file.write_text("".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS))
    build_token_arrays(load_corpus(train_file=str(file)), tokenizer, tmp_path / "cache", shards=2)
    said = caplog.text.partition("the first 2 of about ")[2]
    assert 4 <= int(said.split()[0]) <= 9 and "shards (2 are finished)" in said


def test_what_is_refused(tokenizer, tmp_path, monkeypatch):
    for number in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="shards must be a whole number from 1 on"):
            build_token_arrays(corpus(), tokenizer, tmp_path, shards=number)
    with pytest.raises(ValueError, match="verify reads the whole text"):
        build_token_arrays(corpus(), tokenizer, tmp_path, shards=1, verify=True)
    with pytest.raises(ValueError, match="shards is 99, but documents has only 7"):
        build_token_arrays(corpus(), tokenizer, tmp_path / "few", shards=99)
    sides = Corpus.from_documents(validation=DOCUMENTS[:200], train=DOCUMENTS[200:])
    with pytest.raises(ValueError, match="the first 1 shards hold no training text.*Raise shards"):
        build_token_arrays(sides, tokenizer, tmp_path / "held out", shards=1)
    whole = build_token_arrays(corpus(), tokenizer, tmp_path / "old")
    os.unlink(whole["train"].path.parent / "shards.json")
    with pytest.raises(ValueError, match="built before shards were noted"):
        build_token_arrays(corpus(), tokenizer, tmp_path / "old", shards=1)


def test_damaged_tokens_are_not_taken(tokenizer, tmp_path):
    whole = build_token_arrays(corpus(), tokenizer, tmp_path)
    file = whole["train"].path / "tokens.bin"
    damaged = bytearray(file.read_bytes())
    damaged[100] ^= 4
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match="damaged: its tokens are not those that were written"):
        build_token_arrays(corpus(), tokenizer, tmp_path, shards=1)
