"""Files of text, read strictly: what is not UTF-8, not JSON, not there or not text is named with file, line and remedy.

`find_files` says which files a path, folder or glob means; `read_file` reads a file's documents, by its ending;
`lines_of` and `csv_rows` read lines and rows for whoever makes something else of them (pairs, tags, tables). Each file
may end in .gz.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .hints import nearest_hint

TEXT_FORMATS = (".txt", ".jsonl", ".csv", ".parquet")
TXT_DOCUMENTS = ("paragraph", "line", "file")


def find_files(pattern: str | os.PathLike) -> list[Path]:
    """The files that a path, folder or glob means, sorted.

    Raises:
        FileNotFoundError: it matches nothing that hfseq reads.
        ValueError: a file of another format.
    """
    pattern = os.path.expanduser(os.fspath(pattern))
    formats = ", ".join(TEXT_FORMATS)
    path = Path(pattern)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and format_of(p) in TEXT_FORMATS)
        if not found:
            raise FileNotFoundError(f"Folder {pattern} holds no {formats} file (nor one of these with .gz).")
        return found
    if path.exists():
        found = [path]
    else:
        found = sorted(Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p))
        if not found and glob.has_magic(pattern):
            raise FileNotFoundError(
                f"No file matches {pattern!r} (seen from {Path.cwd()}). '**/' reaches into folders below; quote the "
                "pattern in a shell."
            )
        if not found:
            near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise FileNotFoundError(
                f"No file or folder {pattern} (seen from {Path.cwd()}).{nearest_hint(path.name, near)}"
            )
    for p in found:
        if format_of(p) not in TEXT_FORMATS:
            raise ValueError(
                f"{p}: cannot read {format_of(p) or 'a file without an ending'}; known: {formats}, each also with .gz. "
                "Rename it if it is one of these."
            )
    return found


def read_file(path: Path, text_column: str = "text", txt_document: str = "paragraph") -> Iterator[str]:
    """Documents of one file; the format follows from its ending.

    Raises:
        ValueError: bytes that are not UTF-8, broken JSON, a missing text column, a value that is no text; each says
            where and what to do.
    """
    kind = format_of(path)
    if kind == ".txt":
        yield from _txt_documents(path, txt_document)
    elif kind in (".jsonl", ".csv"):
        for place, row in table_rows(path, text_column):
            text = text_of(row[text_column], place, text_column)
            if text:
                yield text
    else:
        yield from _parquet_documents(path, text_column)


def _txt_documents(path: Path, unit: str) -> Iterator[str]:
    lines = (line.rstrip("\r\n") for _, line in lines_of(path))
    if unit == "line":
        yield from lines
    elif unit == "file":
        yield "\n".join(lines)
    else:
        block: list[str] = []
        for line in lines:
            if line.strip():
                block.append(line)
            elif block:
                yield "\n".join(block)
                block = []
        if block:
            yield "\n".join(block)


def table_rows(path: Path, column: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a .jsonl or .csv file; `column`, if given, must be in it."""
    return (csv_rows if format_of(path) == ".csv" else json_lines)(path, column)


def json_lines(path: Path, column: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of a .jsonl file; `column`, if given, must be in each."""
    example = "" if column is None else f" such as {{{json.dumps(column)}: ...}}"
    for number, line in lines_of(path):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{place}: not JSON ({error.msg} at character {error.pos}). A .jsonl file holds one JSON object per "
                "line."
            ) from error
        if not isinstance(row, dict):
            raise ValueError(f"{place}: a {type(row).__name__}, not a JSON object{example}.")
        if column is not None and column not in row:
            raise ValueError(missing_column(place, column, row))
        yield place, row


def csv_rows(path: Path, column: str | None = None) -> Iterator[tuple[str, dict[str, str | None]]]:
    """(place, row) of a table with a header; `column`, if given, must be in it."""
    # The module's limit of 131,072 characters per field is shorter than many a document; it is global to the process.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    reader = csv.DictReader((line for _, line in lines_of(path)), strict=True)
    try:
        if reader.fieldnames is None:
            return
        if column is not None and column not in reader.fieldnames:
            raise ValueError(missing_column(f"{path}", column, reader.fieldnames))
        for row in reader:
            yield f"{path}, line {reader.line_num}", row
    except csv.Error as error:
        raise ValueError(
            f"{path}, after line {reader.line_num}: not CSV ({error}). Is a quotation mark missing? "
            "Within quotes it is doubled."
        ) from error


def _parquet_documents(path: Path, column: str) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Reading {path} needs pyarrow: pip install pyarrow (or datasets)"
        ) from error
    with _open(path) as file:
        try:
            table = pyarrow.parquet.ParquetFile(file)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path} is not a readable parquet file: {error}") from error
        if column not in table.schema_arrow.names:
            raise ValueError(missing_column(str(path), column, table.schema_arrow.names))
        row = 0
        for batch in table.iter_batches(batch_size=1024, columns=[column]):
            for value in batch.column(0).to_pylist():
                row += 1
                text = text_of(value, f"{path}, row {row}", column)
                if text:
                    yield text


def text_of(value, place: str, column: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ValueError(
        f"{place}: column {column!r} holds {value!r:.60}, a {type(value).__name__}, not text. Name the text column "
        "with text_column."
    )


def missing_column(place: str, column: str, columns: Iterable[str]) -> str:
    columns = list(columns)
    return (
        f"{place}: no column {column!r}; there are {', '.join(map(repr, columns)) or 'none'}."
        f"{nearest_hint(column, columns)} Name the text column with text_column."
    )


def format_of(path: Path) -> str:
    """.txt, .jsonl, .csv, ...: the file's ending, .gz aside."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, line with its end), decoded strictly; a byte-order mark is dropped."""
    offset = 0
    with _open(path) as file:
        try:
            for number, raw in enumerate(file, 1):
                if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                    raw, offset = raw[3:], 3
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise ValueError(_undecodable(path, raw, number, offset, error)) from error
                offset += len(raw)
                yield number, line
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{path}: not a whole gzip file ({error}). Copy it again, or drop the .gz of a plain file."
            ) from error


def _undecodable(path: Path, raw: bytes, number: int, offset: int, error: UnicodeDecodeError) -> str:
    if number == 1 and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        guess, encoding = "It begins like UTF-16.", "UTF-16"
    else:
        guess, encoding = "If it is Western European text, it may be Latin-1.", "LATIN1"
    byte = raw[error.start]
    unpacked = " (counted in the unpacked text)" if path.suffix.lower() == ".gz" else ""
    return (
        f"{path}, line {number}: byte 0x{byte:02x} at offset {offset + error.start}{unpacked} is not UTF-8. {guess} "
        f"Convert it: iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
    )
