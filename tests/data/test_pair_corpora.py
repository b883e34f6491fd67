"""Pairs from every kind of file, their sides, and what is said about files that cannot be read."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import pytest

from hfseq.data import PairCorpus, load_multi30k, load_pairs, split_of
from hfseq.data.pair_corpora import first_suspicious_line

PAIRS = [
    (f"Sentence {i} has {'many ' * (i % 7)}words.", f"Satz {i} hat {'viele ' * (i % 7)}Wörter.")
    for i in range(60)
]
NO_SPLIT = {"validation_share": 0.0, "test_share": 0.0}


def write(path: Path, pairs: list[tuple] = PAIRS, names: tuple[str, str] = ("en", "de")) -> Path:
    """Pairs in the format that the path ends in."""
    plain = path.name.removesuffix(".gz")
    if plain.endswith(".tsv"):
        text = "".join("\t".join(pair) + "\n" for pair in pairs)
    elif plain.endswith(".csv"):
        rows = [names, *pairs]
        text = "".join(",".join(f'"{cell}"' for cell in row) + "\n" for row in rows)
    elif plain.endswith(".nested.jsonl"):
        text = "".join(json.dumps({"translation": dict(zip(names, p, strict=True))}) + "\n" for p in pairs)
    else:
        text = "".join(json.dumps(dict(zip(names, pair, strict=True))) + "\n" for pair in pairs)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_one(folder: Path) -> Path:
    path = folder / "one.tsv"
    path.write_text("a\tb\n")
    return path


def parallel(folder: Path, sources: list[str], targets: list[str], suffix: str = "") -> list[str]:
    paths = []
    for language, lines in (("en", sources), ("de", targets)):
        data = "".join(line + "\n" for line in lines).encode()
        paths.append(folder / f"train.{language}{suffix}")
        paths[-1].write_bytes(gzip.compress(data) if suffix else data)
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    "name", ["p.tsv", "p.tsv.gz", "p.csv", "p.csv.gz", "p.jsonl", "p.jsonl.gz", "p.nested.jsonl"]
)
def test_every_format_gives_the_same_pairs(tmp_path, name):
    corpus = load_pairs(train_file=write(tmp_path / name), **NO_SPLIT)
    assert list(zip(*corpus.texts["train"], strict=True)) == PAIRS and list(corpus.texts) == ["train"]
    assert corpus.sources.train == [source for source, _ in PAIRS]
    assert list(corpus.targets) == [("train", target) for _, target in PAIRS]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parallel_files(tmp_path, suffix):
    files = parallel(tmp_path, *zip(*PAIRS, strict=True), suffix=suffix)
    one = load_pairs(train_file=files, **NO_SPLIT)
    assert list(zip(*one.texts["train"], strict=True)) == PAIRS
    other = load_pairs(train_file=write(tmp_path / "p.tsv"), **NO_SPLIT)
    assert list(one) == list(other)
    assert len({one.sources.fingerprint, one.targets.fingerprint, one.both.fingerprint}) == 3
    again = load_pairs(train_file=files, **NO_SPLIT)
    assert (again.fingerprint, again.both.fingerprint) == (one.fingerprint, one.both.fingerprint)
    Path(files[0]).write_bytes(Path(files[1]).read_bytes())
    assert load_pairs(train_file=files, **NO_SPLIT).fingerprint != one.fingerprint


def test_named_columns_and_several_files(tmp_path):
    first = write(tmp_path / "a.jsonl", PAIRS[:20], ("question", "answer"))
    second = write(tmp_path / "b.csv", PAIRS[20:], ("question", "answer"))
    third = tmp_path / "c.tsv"
    third.write_text("id\tanswer\tquestion\n1\tb\ta\n")
    columns = {"source_column": "question", "target_column": "answer"}
    corpus = load_pairs(train_file=[str(first), str(second), str(third)], **columns, **NO_SPLIT)
    assert list(zip(*corpus.texts["train"], strict=True)) == [*PAIRS, ("a", "b")]


def test_the_source_alone_decides_the_side(tmp_path):
    twice = [*PAIRS, *((source, target + "!") for source, target in PAIRS)]
    corpus = load_pairs(train_file=write(tmp_path / "p.tsv", twice), validation_share=0.2, test_share=0.2)
    assert set(corpus.texts) == {"train", "validation", "test"}
    for side, (sources, targets) in corpus.texts.items():
        assert all(split_of(source, validation=0.2, test=0.2) == side for source in sources)
        assert {(s, t) for s, t in zip(sources, targets, strict=True)} <= set(twice)
        assert len(sources) == 2 * len(set(sources))
    assert sum(len(sources) for sources, _ in corpus.texts.values()) == len(twice)
    own = load_pairs(
        train_file=write(tmp_path / "q.tsv"),
        validation_file=write(tmp_path / "v.tsv", PAIRS[:3]),
        test_share=0.0,
    )
    assert len(own.sources.train) == 60 and len(own.sources.validation) == 3 and not own.sources.test


def test_empty_texts_are_left_out_and_counted(tmp_path, caplog):
    rows = [("a", "b"), ("", "b"), ("a", " "), ("c", "d")]
    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps({"en": s, "de": t}) + "\n" for s, t in [*rows, (None, "x")]))
    corpus = load_pairs(train_file=path, **NO_SPLIT)
    assert corpus.skipped == {"train": 3} and corpus.texts["train"] == (["a", "c"], ["b", "d"])
    assert f"skipped pairs with an empty side: 3 (train); the first is {path}, line 2." in caplog.text
    assert len(caplog.records) == 1
    assert list(corpus.sources) == [("train", "a"), ("train", "c")]  # the halves stay in step


def test_repeated_pairs_are_told_once_and_dropped_when_asked(tmp_path, caplog):
    more = [PAIRS[5], (PAIRS[6][0], "Anders."), ("Sentence  7 x", "y"), ("Sentence 7 x", "y")]
    train = write(tmp_path / "t.tsv", [*PAIRS, *more])
    held_out = {"validation_file": write(tmp_path / "v.tsv", PAIRS[:2]), "test_share": 0.0}
    plain = load_pairs(train_file=train, **held_out)
    assert len(plain.sources.train) == len(plain.targets.train) == 64
    _ = plain.skipped, list(plain), plain.both.train
    # Pairs are counted, not sentences, and once.
    assert len(caplog.records) == 1 and "2 training pairs stand in the validation or test" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        for how, dropped in (("exact", 3), (True, 4), ("whitespace", 4)):
            corpus = load_pairs(train_file=train, deduplicate=how, **held_out)
            assert len(corpus.sources.train) == 64 - dropped
            assert corpus.sources.fingerprint != plain.sources.fingerprint
            assert len(corpus.sources.validation) == 2  # what is held out stays
    assert "dropped 3 repeated pairs" in caplog.text and "stand in" not in caplog.text


def test_streaming_keeps_no_training_pairs_and_gives_the_same(tmp_path, caplog):
    path = write(tmp_path / "p.tsv", [*PAIRS, ("", "x")])
    whole, streamed = (
        load_pairs(train_file=path, validation_share=0.2, test_share=0.2, streaming=s) for s in (False, True)
    )
    assert streamed.fingerprint == whole.fingerprint and streamed.sources.streaming
    assert sorted(streamed) == sorted(whole)
    for half in ("sources", "targets", "both"):
        one, other = getattr(whole, half), getattr(streamed, half)
        for side in ("train", "validation", "test"):
            assert list(getattr(one, side)) == list(getattr(other, side))
            assert [text for s, text in other if s == side] == list(getattr(one, side))
    assert list(streamed.both.train) == [*whole.sources.train, *whole.targets.train]
    assert set(streamed.texts) == {"validation", "test"} and "train" in whole.texts
    assert streamed.skipped == {"train": 1}
    assert caplog.text.count("skipped pairs") == 2  # once each, however often they are read


def test_hub_data_sets(monkeypatch, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{"translation": {"en": s, "de": t}} for s, t in PAIRS]
    flat = [{"en": s, "de": t, "id": i} for i, (s, t) in enumerate(PAIRS[:4])]
    sides = datasets.DatasetDict(
        train=datasets.Dataset.from_list(rows), validation=datasets.Dataset.from_list(flat)
    )
    asked = []
    builder = type("Builder", (), {"hash": "1a2b"})
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *names: builder)
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, **options: asked.append(names) or sides)
    corpus = load_pairs("some/thing:de-en", test_share=0.0)
    assert asked == [("some/thing", "de-en")]
    assert list(zip(*corpus.texts["train"], strict=True)) == PAIRS
    assert list(zip(*corpus.texts["validation"], strict=True)) == PAIRS[:4]
    assert "test" not in corpus.texts
    builder.hash = "3c4d"
    assert load_pairs("some/thing:de-en", test_share=0.0).fingerprint != corpus.fingerprint
    with pytest.raises(
        ValueError, match=r"\(train\), row 1, in translation: no column 'fr'; there are 'en', 'de'"
    ):
        _ = load_pairs("some/thing", target_language="fr", validation_file=write_one(tmp_path)).texts
    sides.pop("train")
    with pytest.raises(ValueError, match="has no train side; there are validation"):
        load_pairs("some/thing")


def test_multi30k(shared_data, monkeypatch, caplog):
    monkeypatch.setenv("HFSEQ_DATA", str(shared_data))
    corpus = load_multi30k("de", "fr")
    assert {side: len(pair[0]) for side, pair in corpus.texts.items()} == {
        "train": 29000, "validation": 1014, "test": 1000,
    }  # fmt: skip
    assert corpus.texts["train"][0][0].startswith("Zwei junge weiße Männer") and "Elliott" in corpus.terms
    assert corpus.name == "multi30k"
    # Where a line is missing, the lengths of real sentences tell it, nearly to the line.
    sources, targets = corpus.texts["train"]
    line, _ = first_suspicious_line(sources, [*targets[:20_000], *targets[20_001:]])
    assert abs(line - 20_001) <= 3
    assert corpus.texts["train"][1][0].startswith("Deux jeunes hommes blancs")
    assert not corpus.skipped and "sentence" not in caplog.text
    with pytest.raises(FileNotFoundError, match="multi30k: no language 'it' in .* there are de, en, fr"):
        load_multi30k("en", "it")
    with pytest.raises(ValueError, match="Source and target are both 'en'"):
        load_multi30k("en", "en")
    monkeypatch.delenv("HFSEQ_DATA")
    with pytest.raises(FileNotFoundError, match="HFSEQ_DATA is not set"):
        load_multi30k()


@pytest.mark.parametrize("missing", [1, 2, 5])
def test_parallel_files_out_of_step_name_both_counts_and_the_place(tmp_path, missing):
    lengths = [3 + i * 7 % 11 for i in range(100)]
    sources, targets = ([f"{word * n}." for n in lengths] for word in ("word ", "Worte "))
    for left, right, which, place in (
        (sources, [*targets[:62], *targets[62 + missing :]], "first", 63),
        ([*sources[:20], *sources[20 + missing :]], targets, "second", 21),
        (sources, targets[:-missing], "first", 101 - missing),  # cut off at the end
    ):
        message = rf"train.en has {len(left)} lines, .*train.de has {len(right)}"
        with pytest.raises(ValueError, match=message) as error:
            _ = load_pairs(train_file=parallel(tmp_path, left, right), **NO_SPLIT).texts
        number = "1 line seems" if missing == 1 else f"{missing} lines seem"
        assert (
            f"The first suspicious line is {place} (judging by the lengths, {number} to be too many"
            in str(error.value)
        )
        assert f"in the {which} file" in str(error.value)
    empty = [*sources[:30], "", *sources[30:]]
    with pytest.raises(
        ValueError, match=r"suspicious line is 31 \(an empty line faces text\): '' faces 'Worte"
    ):
        _ = load_pairs(train_file=parallel(tmp_path, empty, targets)).texts
    with pytest.raises(ValueError, match="has 1 lines, .* has 0: .* The second file is empty"):
        _ = load_pairs(train_file=parallel(tmp_path, ["a"], [])).texts


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("p.tsv", "a\tb\nc\n", {}, r"p.tsv, line 2: 1 cells, but a row has 2 \(en, de\)"),
        ("p.tsv", "a\tb\n", {"source_column": "scr", "target_column": "b"},
         r"line 1: no column 'scr'; there are 'a', 'b'"),
        ("p.tsv", "src\ttgt\na\n", {"source_column": "src", "target_column": "tgt"},
         r"line 2: 1 cells, but the heading has 2"),
        ("p.csv", "en,ger\na,b\n", {}, r"p.csv, line 1: no column 'de'; there are 'en', 'ger'. .*target_column"),
        ("p.csv", "en,deu\na,b\n", {}, r"no column 'de'; there are 'en', 'deu'. Did you mean 'deu'"),
        ("p.csv", "en,de\na,b,c\n", {}, r"line 2: 3 cells, but the heading has 2"),
        ("p.jsonl", '{"en": "a", "de": "b"}\n{"en"\n', {}, r"p.jsonl, line 2: not JSON"),
        ("p.jsonl", "[1]\n", {}, r"line 1: a list, not a JSON object"),
        ("p.jsonl", '{"en": "a", "de": 3}\n', {}, r"line 1: column 'de' holds 3, a int, not text"),
        ("p.jsonl", '{"en": "a", "de": "\\ud800"}\n', {}, r"line 1: half a surrogate pair"),
        ("p.tsv", b"a\tb\nc\t\xe4\n", {}, r"p.tsv, line 2: byte 0xe4 at offset 6 is not UTF-8.*iconv"),
        ("p.tsv", "", {}, "p.tsv: no pairs. The corpus is empty"),
        ("p.tsv", "\tb\n", {}, "every pair has an empty side"),
        ("p.tsv", "a\tb\n", {"validation_share": 0.5}, "fell on the (test|validation|train) side"),
        ("p.txt", "a\n", {}, r"p.txt: one text file holds no pairs"),
        ("p.tsv", "a\tb\n", {"source_column": "x"}, "Name both columns or neither: target_column is missing"),
        ("p.tsv", "a\tb\n", {"source_column": "x", "target_column": "x"}, "Source and target are both 'x'"),
        ("p.tsv", "a\tb\n", {"test_share": 1.5}, "test_share must be at least 0 and below 1"),
        ("p.tsv", "a\tb\n", {"deduplicate": "yes"}, "deduplicate must be"),
        ("p.tsv", "a\tb\n", {"corpus": "multi30k"}, "not both"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(tmp_path, name, content, options, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        _ = load_pairs(**{"train_file": path, **options}).texts


def test_names_and_files_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="not neither"):
        load_pairs()
    with pytest.raises(ValueError, match="Unknown corpus of pairs 'multi30'. Did you mean 'multi30k'"):
        load_pairs("multi30")
    with pytest.raises(ValueError, match="not from a list"):
        load_pairs(["a/b", "c/d"])
    write(tmp_path / "train.tsv")
    with pytest.raises(FileNotFoundError, match=r"No file .*Did you mean 'train.tsv'"):
        load_pairs(train_file=tmp_path / "trian.tsv")
    with pytest.raises(FileNotFoundError, match="It is a folder"):
        load_pairs(train_file=tmp_path)
    files = parallel(tmp_path, ["a"], ["b"])
    for given, message in (
        ([], "An empty list of files"),
        ([str(tmp_path / "train.tsv"), *files], "3 files that are neither all tables"),
        ([files[0], files[0]], "is given as source and as target"),
    ):
        with pytest.raises(ValueError, match=message):
            load_pairs(train_file=given)
    with pytest.raises(ValueError, match=r"Pair 1 is \('b',\), not \(source text, target text\)"):
        PairCorpus.from_pairs(train=[("a", "b"), ("b",)])
