"""Tables: .csv, .tsv, .jsonl and .json, each also .gz, row by row and strictly.

`read_table` is the only reader of tables: of text for language models, of pairs, of texts with vectors, of labelled
examples. So the same mistake in a file is the same error everywhere, with file, line and remedy; a row with a cell too
many is never cut, one with a cell too few never filled up.

- .csv: the first line names the columns; a cell with a comma, a quotation mark or a line break stands in quotation
  marks, and a mark within them is doubled.
- .tsv: the first line names the columns; no quoting, a quotation mark is text; a cell holds no tab and no line break.
- .jsonl: an object a line. .json: one list of objects.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..hints import nearest_hint
from .files import Meter, format_of, half_a_pair, lines_of, raw_lines

TABLE_FORMATS = (".csv", ".tsv", ".jsonl", ".json")
NAME_TEXT_COLUMN = "Name the text column with text_column."
# The only escapes that can make a text that is none.
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")


def read_table(
    path: Path,
    columns: Iterable[str] = (),
    *,
    heading: Sequence[str] | None = None,
    remedy: str = NAME_TEXT_COLUMN,
    meter: Meter | None = None,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of a table; the place is file and line, for messages.

    Args:
        columns: these must be there.
        heading: the names of the columns of a .tsv or .csv whose first line is a row already.
        remedy: the end of the message where a column is missing.
        meter: is told of the file.

    Raises:
        ValueError: another format, a missing column, a row with more or fewer cells than columns, what is not CSV or
            JSON, not UTF-8 or no text; each names file, line and remedy.
    """
    kind = format_of(path)
    wanted = list(columns)
    if kind == ".jsonl":
        yield from _json_lines(path, wanted, remedy, meter)
    elif kind == ".json":
        yield from _json_list(path, wanted, remedy)
    elif kind in (".csv", ".tsv"):
        cells = _csv_cells(path, meter) if kind == ".csv" else _tsv_cells(path, meter)
        yield from _with_heading(cells, kind, wanted, heading, remedy)
    else:
        raise ValueError(
            f"{path}: cannot read {kind or 'a file without an ending'} as a table; known: "
            f"{', '.join(TABLE_FORMATS)}, each also with .gz."
        )


def _with_heading(
    rows: Iterator[tuple[str, list[str]]],
    kind: str,
    wanted: list[str],
    heading: Sequence[str] | None,
    remedy: str,
) -> Iterator[tuple[str, dict[str, str]]]:
    names = None if heading is None else list(heading)
    for place, cells in rows:
        if names is None:
            names = [cell.strip() for cell in cells] if kind == ".tsv" else cells
            _check_heading(names, wanted, place, remedy)
            continue
        if len(cells) != len(names):
            how = (
                "A cell with a comma must stand in quotation marks."
                if kind == ".csv"
                else "Tabs and line breaks within a text must go."
            )
            whose = "the heading has" if heading is None else "a row has"
            raise ValueError(
                f"{place}: {len(cells)} cells, but {whose} {len(names)} ({', '.join(names)}). {how}"
            )
        yield place, dict(zip(names, cells, strict=True))


def _check_heading(names: list[str], wanted: list[str], place: str, remedy: str) -> None:
    for column in wanted:
        if column not in names:
            raise ValueError(missing_column(place, column, names, remedy))
    for column in names:
        if column and names.count(column) > 1:
            raise ValueError(f"{place}: two columns are called {column!r}. Rename one of them.")


def _csv_cells(path: Path, meter: Meter | None) -> Iterator[tuple[str, list[str]]]:
    # The module's limit of 131,072 characters per field is shorter than many a document; it is global to the process.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    reader = csv.reader((line for _, line in raw_lines(path, meter=meter)), strict=True)
    last = 0
    try:
        for cells in reader:
            last = reader.line_num
            if cells:
                yield f"{path}, line {last}", cells
    except csv.Error as error:
        how = (
            "A cell with a carriage return must stand in quotation marks."
            if "new-line character" in str(error)
            else "Is a quotation mark missing? Within quotes it is doubled."
        )
        raise ValueError(f"{path}, after line {last}: not CSV ({error}). {how}") from error


def _tsv_cells(path: Path, meter: Meter | None) -> Iterator[tuple[str, list[str]]]:
    for number, line in lines_of(path, meter=meter):
        if line and not line.isspace():
            yield f"{path}, line {number}", line.split("\t")


def _json_lines(
    path: Path, wanted: list[str], remedy: str, meter: Meter | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in lines_of(path, meter=meter):
        line = line.strip("\ufeff \t\r")  # a mark in the middle: files were joined
        if not line:
            continue
        place = f"{path}, line {number}"
        row = parse_json(line, str(path), number)
        _check_object(row, wanted, place, remedy)
        yield place, row


def _json_list(path: Path, wanted: list[str], remedy: str) -> Iterator[tuple[str, dict[str, Any]]]:
    content = read_json(path)
    if not isinstance(content, list):
        raise ValueError(
            f"{path}: a {type(content).__name__}, not a list of objects. One object per line is a .jsonl file."
        )
    for number, row in enumerate(content, 1):
        place = f"{path}, entry {number}"
        _check_object(row, wanted, place, remedy)
        yield place, row


def _check_object(row: Any, wanted: list[str], place: str, remedy: str) -> None:
    if not isinstance(row, dict):
        example = f" such as {{{json.dumps(wanted[0])}: ...}}" if wanted else ""
        raise ValueError(f"{place}: a {type(row).__name__}, not a JSON object{example}.")
    for column in wanted:
        if column not in row:
            raise ValueError(missing_column(place, column, row, remedy))


def read_json(path: Path) -> Any:
    """The content of a JSON file; ValueError names file and line of what is wrong."""
    text = "\n".join(line for _, line in lines_of(path))
    if not text.strip():
        raise ValueError(f"{path}: no examples. The file is empty.")
    return parse_json(text, str(path))


def parse_json(text: str, file: str, line: int | None = None) -> Any:
    """The value of a JSON text.

    Args:
        file: where it stands, for messages; line: its number there, where the text is a line, not a whole file.

    Raises:
        ValueError: broken JSON, nested too deeply, a number of thousands of digits, half a surrogate pair.
    """
    place = file if line is None else f"{file}, line {line}"
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        hint = " A .jsonl file holds one JSON object per line." if line else ""
        raise ValueError(
            f"{file}, line {line or error.lineno}: not JSON ({error.msg} at column {error.colno}).{hint}"
        ) from error
    except RecursionError as error:
        raise ValueError(
            f"{place}: JSON that is nested too deeply to be read. Texts stand in flat objects: "
            '{"text": "..."}.'
        ) from error
    except ValueError as error:  # Python's limit on the digits of an integer
        raise ValueError(
            f"{place}: JSON with a number of more than {sys.get_int_max_str_digits()} digits. Write it as text, in "
            "quotation marks, or leave it out."
        ) from error
    if _HALF_PAIR.search(text):
        _check_pairs(value, place)
    return value


def _check_pairs(value: Any, place: str) -> None:
    """Refuses texts, at any depth, with half a surrogate pair."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, str):
            try:
                part.encode("utf-8")
            except UnicodeEncodeError as error:
                raise ValueError(half_a_pair(place, part)) from error


def text_of(value: Any, place: str, column: str, remedy: str = NAME_TEXT_COLUMN) -> str | None:
    """A cell that must hold text or nothing."""
    if value is None or isinstance(value, str):
        return value
    raise ValueError(
        f"{place}: column {column!r} holds {value!r:.60}, a {type(value).__name__}, not text. {remedy}"
    )


def finite_number(value: Any, place: str) -> float:
    """A cell that must hold a number; ValueError, naming the place, where it is none or is NaN or infinite."""
    try:
        if isinstance(value, bool) or value is None:
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: {value!r:.60} is no number. Repair the row, or remove it.") from None
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{place}: {value!r:.60} is not finite. Repair the row, or remove it.")
    return number


def missing_column(place: str, column: str, columns: Iterable[str], remedy: str = NAME_TEXT_COLUMN) -> str:
    """What to say of a column that is not there."""
    columns = list(columns)
    return (
        f"{place}: no column {column!r}; there are {', '.join(map(repr, columns)) or 'none'}."
        f"{nearest_hint(column, columns)} {remedy}"
    )
