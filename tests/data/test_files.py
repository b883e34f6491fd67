"""One rule for what a line is, one reader of tables, and the same words for the same mistake in every reader."""

from __future__ import annotations

import gzip
import io
import json
import sys

import pytest

from hfseq.data import load_corpus, load_features, load_pairs
from hfseq.data.files import lines_of, one_line, write_lines
from hfseq.data.tables import finite_number, read_json, read_table
from hfseq.tasks import TASKS
from hfseq.tasks.answering import read_squad
from hfseq.tasks.sides import read_file

# All that Python's str.splitlines takes for the end of a line, and more that might be.
STRANGE = [
    "a\u2028b",
    "NEL\u0085c",
    "v\x0bt",
    "f\x0cf",
    "\x1c\x1d\x1e",
    "lone\rreturn",
    "",
    " ",
    "\u2029",
    "\ufeffx",
]
WHOLE = {"validation_share": 0.0, "test_share": 0.0}


def labelled(path, task: str, **options) -> list:
    """Examples of a fine-tuning task."""
    return read_file(TASKS[task], path, TASKS[task].options_class(**options))


# ---- lines


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_what_is_written_is_read(tmp_path, name):
    path = tmp_path / name
    assert write_lines(path, STRANGE) == len(STRANGE)
    assert [line for _, line in lines_of(path)] == STRANGE
    assert [number for number, _ in lines_of(path)] == list(range(1, len(STRANGE) + 1))
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert path.stat().st_mode & 0o044  # others may read it, unlike a temporary file


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_only_line_feeds_end_a_line(tmp_path, end):
    path = tmp_path / "a.txt"
    path.write_bytes(("\ufeff" + end.join([*STRANGE, "last"])).encode())
    assert [line for _, line in lines_of(path)] == [*STRANGE, "last"], end
    path.write_bytes(b"x\r\r\n")
    assert [line for _, line in lines_of(path)] == ["x\r"]  # of two returns the first is text


def test_lines_of_standard_input(monkeypatch):
    assert list(lines_of(io.BytesIO("\ufeffé\u2028\r\nb".encode()))) == [(1, "é\u2028"), (2, "b")]
    with pytest.raises(ValueError, match=r"standard input, line 2: byte 0xff at offset 3 is not UTF-8"):
        list(lines_of(io.BytesIO(b"ab\n\xff")))


def test_line_breaks_within_a_text(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("a\nb", "a\r\nb", "ends\r"):
        with pytest.raises(ValueError, match=r"a.txt, line 2: .* holds a line break"):
            write_lines(path, ["fine", text])
        assert not list(tmp_path.iterdir())
    write_lines(path, ["a\nb\r\n\nc", "ends\r", "in\rside"], breaks="space")
    assert [line for _, line in lines_of(path)] == ["a b  c", "ends ", "in\rside"]
    with pytest.raises(ValueError, match="breaks must be one of refuse, space"):
        one_line("a", "drop")
    with pytest.raises(ValueError, match="a.txt, line 1: half a surrogate pair"):
        write_lines(path, ["\ud800"])
    assert next(line for _, line in lines_of(path)) == "a b  c"  # what was there stays


# ---- tables


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text,x\nI ate pie, ice cream,1\n",
            r"a.csv, line 2: 3 cells, but the heading has 2 \(text, x\).*quot",
        ),
        ("a.csv", "text,x\na,1\nb\n", r"a.csv, line 3: 1 cells, but the heading has 2"),
        ("a.tsv", "text\tx\na\t1\tb\n", r"a.tsv, line 2: 3 cells, but the heading has 2.*Tabs"),
        ("a.tsv", "text\tx\na\n", r"a.tsv, line 2: 1 cells, but the heading has 2"),
        ("a.csv", "text,x,text\na,1,b\n", r"a.csv, line 1: two columns are called 'text'"),
        (
            "a.csv",
            "txt,x\na,1\n",
            r"a.csv, line 1: no column 'text'; there are 'txt', 'x'. Did you mean 'txt'",
        ),
        (
            "a.csv",
            "text,x\na\rb,1\n",
            r"a.csv, after line 1: not CSV .*carriage return must stand in quotation",
        ),
        (
            "a.jsonl",
            '{"text": "a", "x": "1"}\n{"text": "a"\n',
            r"a.jsonl, line 2: not JSON .*one JSON object per line",
        ),
        ("a.jsonl", '\n["a"]\n', r"a.jsonl, line 2: a list, not a JSON object"),
    ],
)
def test_every_reader_of_tables_refuses_the_same_rows(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, newline="")
    readers = (
        lambda: list(read_table(path, ["text", "x"])),
        lambda: load_corpus(train_file=path, **WHOLE).train,
        lambda: load_pairs(train_file=path, source_column="text", target_column="x", **WHOLE).texts,
        lambda: load_features(train_file=path, feature_columns="x", **WHOLE),
        lambda: labelled(path, "sequence-classification", label_column="x"),
    )
    for reader in readers:
        with pytest.raises(ValueError, match=message):
            reader()


def test_tables_keep_what_is_text(tmp_path):
    texts = ["a\u2028b", 'say "x"', "NEL\u0085", "v\x0bt"]
    rows = [{"text": text, "n": str(i)} for i, text in enumerate(texts)]
    (tmp_path / "a.tsv").write_text("text\tn\n" + "".join(f"{t}\t{i}\n\n" for i, t in enumerate(texts)))
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows), newline=""
    )
    cells = [text.replace('"', '""') for text in texts]
    (tmp_path / "a.csv").write_text("text,n\n" + "".join(f'"{t}",{i}\n' for i, t in enumerate(cells)))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    for path in sorted(tmp_path.iterdir()):
        assert [row for _, row in read_table(path)] == rows, path
        packed = tmp_path / f"{path.name}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        assert [row for _, row in read_table(packed, ["n"])] == rows
    within = tmp_path / "b.csv"
    within.write_text('text,n\n"two\r\nlines\rhere",1\n', newline="")
    assert [row["text"] for _, row in read_table(within)] == ["two\r\nlines\rhere"]
    assert [place for place, _ in read_table(within)] == [f"{within}, line 3"]
    bare = tmp_path / "c.tsv"
    bare.write_text("x\ty\n")
    assert [row for _, row in read_table(bare, heading=("one", "two"))] == [{"one": "x", "two": "y"}]
    with pytest.raises(ValueError, match=r"cannot read .txt as a table; known: .csv, .tsv, .jsonl, .json"):
        list(read_table(tmp_path / "a.txt"))


# ---- the same words for the same mistake


DEEP = "[" * 200_000 + "]" * 200_000
NUMBER = "1" * 5000
MISTAKES = {
    "half a surrogate pair": ('"b\\ud800"', r"line 2: half a surrogate pair \('\\ud800' at character 1\)"),
    "depth": (DEEP, r"line 2: JSON that is nested too deeply"),
    "digits": (NUMBER, r"line 2: JSON with a number of more than 4300 digits"),
    "not UTF-8": (b'"b\xff"', r"line 2: byte 0xff at offset \d+ is not UTF-8.*iconv"),
    "NUL": (b'"b\0"', r"line 2: byte 0x00 at offset \d+ is no character of a text.*UTF-16"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_no_reader_ends_in_a_traceback(tmp_path, mistake):
    value, message = MISTAKES[mistake]
    assert sys.get_int_max_str_digits() == 4300
    value = value if isinstance(value, bytes) else value.encode()
    first = {"text": "a", "label": 1, "en": "a", "de": "b", "x": 1, "question": "a", "choices": ["a", "b"]}
    path = tmp_path / "a.jsonl"
    row = json.dumps(first).encode()
    path.write_bytes(row + b"\n" + row[:-1] + b', "more": ' + value + b"}\n")
    readers = (
        lambda: load_corpus(train_file=path, **WHOLE).train,
        lambda: load_pairs(train_file=path, **WHOLE).texts,
        lambda: load_features(train_file=path, feature_columns="x", **WHOLE),
        lambda: labelled(path, "sequence-classification"),
        lambda: labelled(path, "multiple-choice"),
    )
    for reader in readers:
        with pytest.raises(ValueError, match=f"a.jsonl, {message}"):
            reader()
    whole = tmp_path / "a.json"
    whole.write_bytes(b'{"data":\n' + value + b"}")
    for reader in (lambda: read_json(whole), lambda: read_squad(whole)):
        with pytest.raises(ValueError, match=r"a.json.*" + message.removeprefix("line 2: ")):
            reader()
    if isinstance(MISTAKES[mistake][0], bytes):
        for name, reader in (
            ("a.txt", lambda path: load_corpus(train_file=path, **WHOLE).train),
            ("a.csv", lambda path: load_corpus(train_file=path, **WHOLE).train),
            ("a.tsv", lambda path: load_pairs(train_file=path, **WHOLE).texts),
            ("a.conll", lambda path: labelled(path, "token-classification")),
        ):
            plain = tmp_path / name
            plain.write_bytes({".csv": b"text\n", ".tsv": b"en\tde\n"}.get(plain.suffix, b"O\tO\n") + value)
            with pytest.raises(ValueError, match=f"{name}, {message}"):
                reader(plain)


def test_whole_pairs_and_marks_are_fine(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "\\ud83d\\ude00"}\n\xef\xbb\xbf{"text": "joined files"}\n')
    assert load_corpus(train_file=path, **WHOLE).train == ["😀", "joined files"]


def test_numbers():
    assert finite_number("1e-3", "p") == 1e-3
    for value in ("inf", float("nan"), int("1" * 400), "1e999"):
        with pytest.raises(ValueError, match="p: .* is not finite"):
            finite_number(value, "p")
    for value in (True, None, "x", [1]):
        with pytest.raises(ValueError, match="p: .* is no number"):
            finite_number(value, "p")
