"""Token arrays hold the whole text once, and no cache that is not whole is ever taken for one."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from hfseq.data import (
    Corpus,
    TokenArray,
    array_building,
    build_token_arrays,
    cache,
    default_cache_dir,
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
    monkeypatch.setattr(array_building, "BATCH_CHARACTERS", 100)
    small = build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path)
    for side in arrays:
        assert np.array_equal(small[side].tokens, arrays[side].tokens)
        assert np.array_equal(small[side].offsets, arrays[side].offsets)
        assert small[side].n_bytes == arrays[side].n_bytes and small[side].n_words == arrays[side].n_words


def test_second_call_loads(arrays, tokenizer, monkeypatch):
    monkeypatch.setattr(array_building, "_Build", None)
    cache = arrays["train"].path.parents[1]
    again = build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, cache)
    assert again["train"].path == arrays["train"].path
    assert set(load_token_arrays(cache / arrays["train"].fingerprint)) == {"train", "validation", "test"}


def test_fingerprint_changes_with_corpus_split_and_tokenizer(arrays, tokenizer):
    def fingerprint(documents=DOCUMENTS, tokenizer=tokenizer, **options):
        return array_building.array_fingerprint(Corpus.from_documents(documents, **options), tokenizer)

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
    assert default_cache_dir() == tmp_path / "there"
    monkeypatch.delenv("HFSEQ_CACHE")
    assert default_cache_dir() == Path.home() / ".cache" / "hfseq"


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

    array_building.BATCH_CHARACTERS, array_building.WORKERS_FROM = 100, 200
    array_building.JOURNAL_SECONDS = 0
    corpus = Corpus([(None, Source("texts", "fixed", read))], streaming=True)
    array = build_token_arrays(corpus, tokenizer, cache, processes=1)["train"]
    results.put((len(array), array.n_documents, int(array.tokens.astype(int).sum())))


def test_killed_build_and_several_processes(tokenizer, tmp_path, capfd):
    """One process is killed halfway; three that wait for it then start at once: one goes on where the first stopped,
    all read the same, and that is what an undisturbed build gives."""
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
    [partial] = tmp_path.glob("*.partial")
    assert (partial / "train" / "tokens.bin").is_file()
    before = json.loads((partial / "journal.json").read_text())
    assert before["batches"] > 5
    waiting = [start(None) for _ in range(3)]
    time.sleep(2)
    assert all(process.is_alive() for process in waiting)
    first.kill()
    first.join()
    found = {results.get(timeout=120) for _ in waiting}
    for process in waiting:
        process.join(60)
        assert process.exitcode == 0
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("*.builder"))
    [built] = [p for p in tmp_path.iterdir() if p.is_dir()]
    array = load_token_array(built / "train")
    assert found == {(len(array), array.n_documents, int(array.tokens.astype(int).sum()))}
    assert capfd.readouterr().err.count("Waiting for process ") == 3
    undisturbed = Corpus([(None, Source("texts", "fixed", lambda: [f"text number {i}" for i in range(300)]))])
    for side, other in build_token_arrays(undisturbed, tokenizer, tmp_path / "other").items():
        same_files(load_token_array(built / side), other)


def same_files(one: TokenArray, other: TokenArray) -> None:
    names = sorted(path.name for path in other.path.iterdir())
    assert names == ["meta.json", "offsets.npy", "tokens.bin"]
    for name in names:
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes(), name


@pytest.mark.parametrize("processes", [1, 3])
def test_processes_make_the_same_files(arrays, tokenizer, tmp_path, monkeypatch, processes):
    monkeypatch.setattr(array_building, "BATCH_CHARACTERS", 500)
    monkeypatch.setattr(array_building, "WORKERS_FROM", 1000)
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **options: started.append(real(*args, **options)) or started[-1]
    )
    built = build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path, processes=processes)
    for side in arrays:
        same_files(built[side], arrays[side])
    assert 1 <= len(started) <= processes and all(child.returncode == 0 for child in started)
    with pytest.raises(ValueError, match="processes must be at least 1, not 0"):
        build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path, processes=0)


class Stopped(BaseException):
    """A build is interrupted here, as by Ctrl-C."""


def stopping_source(after: int | None, documents=DOCUMENTS) -> Source:
    def read():
        for number, document in enumerate(documents):
            if number == after:
                raise Stopped
            yield document

    return Source("documents", "one fingerprint", read)


@pytest.mark.parametrize("damage", [None, "tokens.bin", "journal.json", "other text"])
def test_a_build_goes_on_where_it_stopped(arrays, tokenizer, tmp_path, monkeypatch, caplog, damage):
    monkeypatch.setattr(array_building, "BATCH_CHARACTERS", 500)
    monkeypatch.setattr(array_building, "WORKERS_FROM", 1000)
    monkeypatch.setattr(array_building, "JOURNAL_SECONDS", 0)
    with pytest.raises(Stopped):
        build_token_arrays(Corpus([(None, stopping_source(200))]), tokenizer, tmp_path, processes=1)
    [partial] = tmp_path.glob("*.partial")
    batches = json.loads((partial / "journal.json").read_text())["batches"]
    with open(partial / "train" / "tokens.bin", "ab") as file:
        file.write(b"half a batch")  # written, but not noted
    documents = list(DOCUMENTS)
    if damage == "tokens.bin":
        os.truncate(partial / "train" / damage, 10)
    elif damage == "journal.json":
        (partial / damage).write_text("{")
    elif damage == "other text":
        documents[3] = documents[3].replace("number", "No.")
    written = []
    real = token_arrays.ArrayWriter.append
    monkeypatch.setattr(
        token_arrays.ArrayWriter, "append", lambda self, **batch: written.append(1) or real(self, **batch)
    )
    with caplog.at_level("INFO"):
        built = build_token_arrays(Corpus([(None, stopping_source(None, documents))]), tokenizer, tmp_path)
    count, expected = len(written), arrays
    if damage == "other text":
        expected = build_token_arrays(Corpus.from_documents(documents), tokenizer, tmp_path / "other")
        assert "the text is not what it was" in caplog.text
    for side in expected:
        assert np.array_equal(built[side].tokens, expected[side].tokens)
        assert np.array_equal(built[side].offsets, expected[side].offsets)
        assert built[side].n_bytes == expected[side].n_bytes and built[side].n_words == expected[side].n_words
    assert (batches > 10 and f"going on after {batches} batches" in caplog.text) or damage
    total = len(list(array_building._Build._batches(FakeBuild(documents))))
    assert count == (total - batches if damage is None else total)


class FakeBuild:
    """As much of a build as cutting batches needs."""

    def __init__(self, documents):
        self.corpus, self.characters, self.checksums = Corpus.from_documents(documents), 0, {}

    _checksum = array_building._Build._checksum


def test_a_worker_that_dies_is_named(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(array_building, "WORKERS_FROM", 10)
    monkeypatch.setattr(array_building, "_START", "import sys; sys.exit(3)")
    with pytest.raises(RuntimeError, match="ended with exit code 3.*goes on where it stopped"):
        build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path, processes=2)


def test_a_full_disk_is_named(tokenizer, tmp_path, monkeypatch):
    def full(self, **batch):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(token_arrays.ArrayWriter, "append", full)
    with pytest.raises(
        OSError, match="No space left on device while the token arrays of documents .*HFSEQ_CACHE"
    ):
        build_token_arrays(Corpus.from_documents(DOCUMENTS), tokenizer, tmp_path)


def test_waiting_has_an_end(tmp_path, capsys):
    from filelock import FileLock

    target = tmp_path / "target"
    with FileLock(tmp_path / "target.lock"):
        (tmp_path / "target.builder").write_text("process 7 on elsewhere\n")
        with pytest.raises(
            TimeoutError, match="Waited 1 s for process 7 on elsewhere, which makes the thing in"
        ):
            cache.build_once(target, target.mkdir, "the thing", patience=1)
    assert "Waiting for process 7 on elsewhere, which makes the thing" in capsys.readouterr().err
    cache.build_once(target, target.mkdir, "the thing")
    cache.build_once(target, target.mkdir, "the thing")  # not a second time
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".lock"]


def test_verifying_reads_it_all(tokenizer, tmp_path):
    texts = list(DOCUMENTS)
    corpus = lambda: Corpus([(None, Source("texts", "one fingerprint", lambda: texts))])  # noqa: E731
    array = build_token_arrays(corpus(), tokenizer, tmp_path)["train"]
    build_token_arrays(corpus(), tokenizer, tmp_path, verify=True)
    place = texts.index(tokenizer.decode(array.document(5)))
    texts[place] = texts[place].replace("Document", "document")
    build_token_arrays(corpus(), tokenizer, tmp_path)
    with pytest.raises(ValueError, match="its train text is not what .* was made of.*Delete .*built again"):
        build_token_arrays(corpus(), tokenizer, tmp_path, verify=True)
    texts[place] = DOCUMENTS[place]
    with open(array.path / "tokens.bin", "r+b") as file:
        file.seek(100)
        file.write(b"\7")
    with pytest.raises(ValueError, match="is damaged: tokens.bin has another checksum"):
        build_token_arrays(corpus(), tokenizer, tmp_path, verify=True)


def test_a_side_that_is_not_there(tokenizer, tmp_path):
    built = build_token_arrays(Corpus.from_documents(DOCUMENTS, validation_share=0.0), tokenizer, tmp_path)
    assert "validation" not in built and built.get("validation") is None
    with pytest.raises(
        ValueError, match=r"no validation side \(there are: train, test\).*validation_share above 0"
    ):
        built["validation"]


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
        token_arrays.ArrayWriter(tmp_path / "w", 300, 0).write(["a"], np.array([5, 399]), np.array([2]))


def test_a_published_bert_tokenizer_ends_documents_with_sep(tmp_path):
    """It has no eos token."""
    bert = train_tokenizer(DOCUMENTS, "wordpiece", 300, masked=True)
    bert.eos_token = bert.bos_token = None
    array = build_token_arrays(Corpus.from_documents(train=DOCUMENTS), bert, tmp_path)["train"]
    assert array.end_id == bert.sep_token_id
    assert (array.tokens[array.offsets[1:] - 1] == bert.sep_token_id).all()
