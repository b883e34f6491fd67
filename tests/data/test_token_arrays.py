"""Token arrays hold the whole text once, and no cache that is not whole is ever taken for one."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest

from hfseq.data import (
    Corpus,
    build_token_arrays,
    load_corpus,
    load_token_array,
    load_token_arrays,
    token_arrays,
    train_tokenizer,
)
from hfseq.data.corpora import Source

DOCUMENTS = [
    f"Document number {i} tells of {i * i}.\n  It ends at <|endoftext|>, naïve {chr(900 + i)}"
    for i in range(300)
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(DOCUMENTS, "bpe", 400)


@pytest.fixture(scope="module")
def arrays(tokenizer, tmp_path_factory):
    return build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path_factory.mktemp("cache"))


def test_every_document_is_there_once_between_end_tokens(arrays, tokenizer):
    corpus = Corpus.from_documents(DOCUMENTS)
    for side, array in arrays.items():
        documents = getattr(corpus, side)
        expected = [0]
        for i, document in enumerate(documents):
            ids = tokenizer(document, split_special_tokens=True)["input_ids"]
            assert array.document(i).tolist() == ids
            assert tokenizer.decode(array.document(i)) == document
            expected += [*ids, 0]
        assert array.tokens.tolist() == expected and len(array) == len(expected)
        assert array.offsets[0] == 1 and array.offsets[-1] == len(array) and array.offsets.dtype == np.int64
        assert np.flatnonzero(array.tokens == 0).tolist() == [0, *(array.offsets[1:] - 1).tolist()]
        assert array.n_documents == len(documents)
        assert array.n_bytes == sum(len(d.encode()) for d in documents)
        assert array.n_words == sum(len(d.split()) for d in documents)
        assert (array.vocab_size, array.end_id) == (len(tokenizer), 0)
        assert isinstance(array.tokens, np.memmap) and array.tokens.dtype == np.uint16


def test_batches_of_documents_are_put_together(arrays, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(token_arrays, "BATCH_CHARACTERS", 100)
    small = build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path)
    for side in arrays:
        assert np.array_equal(small[side].tokens, arrays[side].tokens)
        assert np.array_equal(small[side].offsets, arrays[side].offsets)
        assert small[side].n_bytes == arrays[side].n_bytes and small[side].n_words == arrays[side].n_words


def test_second_call_loads(arrays, tokenizer, monkeypatch):
    monkeypatch.setattr(token_arrays, "_build", None)
    cache = arrays["train"].path.parents[1]
    again = build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, cache)
    assert again["train"].path == arrays["train"].path
    assert set(load_token_arrays(cache / arrays["train"].fingerprint)) == {"train", "validation", "test"}


def test_fingerprint_changes_with_corpus_split_and_tokenizer(arrays, tokenizer):
    def fingerprint(documents=DOCUMENTS, tokenizer=tokenizer, **options):
        return token_arrays._fingerprint(Corpus.from_documents(documents, **options), tokenizer)

    other_end = train_tokenizer(DOCUMENTS, "bpe", 400)
    other_end.eos_token = "<|pad|>"
    prints = [
        fingerprint(),
        fingerprint([*DOCUMENTS[:-1], "x"]),
        fingerprint(validation_share=0.06),
        fingerprint(split_seed=1),
        fingerprint(deduplicate=True),
        fingerprint(tokenizer=train_tokenizer(DOCUMENTS, "bpe", 401)),
        fingerprint(tokenizer=train_tokenizer(DOCUMENTS, "bpe", 400, lowercase=True)),
        fingerprint(tokenizer=other_end),
    ]
    assert len(set(prints)) == len(prints)
    assert prints[0] == arrays["train"].fingerprint
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=4)  # leaves its traces in the tokenizer
    assert fingerprint() == prints[0]


def test_large_vocabularies_take_32_bits(tmp_path):
    words = [f"w{i}" for i in range(65_600)]
    corpus = Corpus.from_documents(
        train=["w7 w8", *(" ".join(words[i : i + 100]) for i in range(0, 65_600, 100))]
    )
    for size, dtype in ((65_536, np.uint16), (65_537, np.uint32)):
        tokenizer = train_tokenizer(words, "word", size)
        array = build_token_arrays(corpus, tokenizer, tmp_path)["train"]
        assert array.tokens.dtype == dtype and array.vocab_size == size
        assert array.tokens.max() == size - 1
        assert tokenizer.decode(array.document(0)) == "w7 w8"


def test_sides_without_a_share_are_left_out(tokenizer, tmp_path):
    corpus = Corpus.from_documents(DOCUMENTS, test_share=0.0)
    assert set(build_token_arrays(corpus, tokenizer, tmp_path)) == {"train", "validation"}


def test_streaming_builds_the_same(tokenizer, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": d}) + "\n" for d in DOCUMENTS))
    held = build_token_arrays(load_corpus(train_file=str(path)), tokenizer, tmp_path / "held")
    streamed = load_corpus(train_file=str(path), streaming=True)
    built = build_token_arrays(streamed, tokenizer, tmp_path / "streamed")
    assert streamed._sides is None
    for side in held:
        assert np.array_equal(held[side].tokens, built[side].tokens)


def test_pickle_maps_the_file_again(arrays):
    data = pickle.dumps(arrays["train"])
    assert len(data) < 500
    assert np.array_equal(pickle.loads(data).tokens, arrays["train"].tokens)


def test_default_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("HFSEQ_CACHE", str(tmp_path / "there"))
    assert token_arrays.default_cache_dir() == tmp_path / "there"
    monkeypatch.delenv("HFSEQ_CACHE")
    assert token_arrays.default_cache_dir() == Path.home() / ".cache" / "hfseq"


# ---- what must not be taken for whole


def test_errors_while_building_leave_nothing(tokenizer, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n\n" * 50 + b"b\xff\xff")
    cache = tmp_path / "cache"
    corpus = load_corpus(train_file=str(path), streaming=True)
    with pytest.raises(ValueError, match="is not UTF-8"):
        build_token_arrays(corpus, tokenizer, cache)
    assert [p.suffix for p in cache.iterdir()] == [".lock"]


def build_in_process(tokenizer, cache: Path, halfway, results) -> None:
    """Builds 300 documents; with `halfway`, tells when 200 are written and goes no further."""

    def read():
        for i in range(300):
            if halfway is not None and i == 200:
                halfway.set()
                time.sleep(600)
            yield f"text number {i}"

    token_arrays.BATCH_CHARACTERS = 100
    corpus = Corpus([(None, Source("texts", "fixed", read))], streaming=True)
    array = build_token_arrays(corpus, tokenizer, cache)["train"]
    results.put((len(array), array.n_documents, int(array.tokens.astype(int).sum())))


def test_killed_build_and_several_processes(tokenizer, tmp_path):
    """One process is killed halfway; three that wait for it then start at once: one builds, all read the same."""
    context = multiprocessing.get_context(
        "fork"
    )  # a new interpreter each would cost half a minute of imports
    halfway, results = context.Event(), context.Queue()

    def start(halfway) -> multiprocessing.Process:
        process = context.Process(target=build_in_process, args=(tokenizer, tmp_path, halfway, results))
        process.start()
        return process

    first = start(halfway)
    assert halfway.wait(60)
    [partial] = tmp_path.glob("*.partial-*")
    assert (partial / "train" / "tokens.bin").is_file()
    waiting = [start(None) for _ in range(3)]
    time.sleep(0.5)
    assert all(process.is_alive() for process in waiting)
    first.kill()
    first.join()
    found = {results.get(timeout=120) for _ in waiting}
    for process in waiting:
        process.join(60)
        assert process.exitcode == 0
    assert not list(tmp_path.glob("*.partial-*"))
    [built] = [p for p in tmp_path.iterdir() if p.is_dir()]
    array = load_token_array(built / "train")
    assert found == {(len(array), array.n_documents, int(array.tokens.astype(int).sum()))}


@pytest.mark.parametrize("file", ["tokens.bin", "offsets.npy", "meta.json"])
def test_damaged_arrays_are_refused(tokenizer, tmp_path, file):
    array = build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path)["train"]
    path = array.path / file
    if file == "tokens.bin":
        os.truncate(path, path.stat().st_size - 2)
        message = r"tokens.bin has \d+ bytes.*Delete .*it will be built again"
    elif file == "offsets.npy":
        np.save(path, array.offsets[:-1])
        message = r"offsets.npy \d+ entries.*Delete .*it will be built again"
    else:
        path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
        message = "has format 99, this version of hfseq reads 1. Delete"
    with pytest.raises(ValueError, match=message):
        load_token_array(array.path)


def test_missing_arrays(tmp_path):
    with pytest.raises(FileNotFoundError, match="No token array at .*build_token_arrays makes one"):
        load_token_array(tmp_path)
    with pytest.raises(FileNotFoundError, match="No token arrays in"):
        load_token_arrays(tmp_path)


def test_unwritable_cache_directory(tokenizer, tmp_path):
    """A file in the way: permissions would not stop a test that runs as root."""
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionError, match=r"Cannot write token arrays to .*file.*cache_dir.*HFSEQ_CACHE"):
        build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path / "file" / "cache")
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        return
    with pytest.raises(PermissionError, match="Cannot write token arrays to .*locked"):
        build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, locked)


def test_unusable_tokenizers(tokenizer, tmp_path):
    corpus = Corpus.from_documents(DOCUMENTS)
    with pytest.raises(ValueError, match="object is not a fast tokenizer"):
        build_token_arrays(corpus, object(), tmp_path)
    endless = train_tokenizer(DOCUMENTS, "bpe", 300)
    endless.eos_token = None
    with pytest.raises(ValueError, match="no eos_token to end documents with"):
        build_token_arrays(corpus, endless, tmp_path)
    with pytest.raises(ValueError, match="made id 399, but its vocabulary ends at 299"):
        token_arrays._Writer(tmp_path / "w", 300, 0).write(["a"], np.array([5, 399]), np.array([2]))


def test_a_published_bert_tokenizer_ends_documents_with_sep(tmp_path):
    """It has no eos token."""
    bert = train_tokenizer(DOCUMENTS, "wordpiece", 300, masked=True)
    bert.eos_token = bert.bos_token = None
    array = build_token_arrays(Corpus.from_documents(train=DOCUMENTS), bert, tmp_path)["train"]
    assert array.end_id == bert.sep_token_id
    assert (array.tokens[array.offsets[1:] - 1] == bert.sep_token_id).all()
