r"""Files of text: which ones a user means, their lines, and lines written to them.

**What a line is.** A line ends with `\n` or `\r\n`, and with nothing else: a lone carriage return, U+2028, NEL
(U+0085), a vertical tab, a form feed are text. Python's `splitlines()` and its files opened as text have other rules
each; with them the lines of two files that belong together shift against each other. So hfseq reads lines with
`lines_of` and writes them with `write_lines` alone, and what the one writes the other reads.

Bytes that are not UTF-8 are an error that names file, line and remedy. Each file may end in .gz.
"""

from __future__ import annotations

import glob
import gzip
import io
import os
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..hints import nearest_hint
from ..paths import user_path

TEXT_FORMATS = (".txt", ".jsonl", ".csv", ".tsv", ".parquet")
LINE_BREAKS = ("refuse", "space")
STANDARD_INPUT = "standard input"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What would end a line, or (a carriage return at its end) be taken for a part of its end.
_BREAK = re.compile(r"\r?\n|\r\Z")


def find_files(pattern: str | os.PathLike, formats: tuple[str, ...] = TEXT_FORMATS) -> list[Path]:
    """The files that a path, folder or glob means, sorted.

    Raises:
        FileNotFoundError: it matches nothing that hfseq reads.
        ValueError: a file of another format; see also `user_path`.
    """
    path = user_path(pattern)
    known = ", ".join(formats)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and format_of(p) in formats)
        if not found:
            raise FileNotFoundError(f"Folder {path} holds no {known} file (nor one of these with .gz).")
        return found
    if path.exists():
        found = [path]
    else:
        found = sorted(Path(p) for p in glob.glob(str(path), recursive=True) if os.path.isfile(p))
        if not found and glob.has_magic(str(path)):
            raise FileNotFoundError(
                f"No file matches {str(path)!r} (seen from {Path.cwd()}). '**/' reaches into folders below; quote the "
                "pattern in a shell."
            )
        if not found:
            raise FileNotFoundError(missing_file(path, "file or folder"))
    for p in found:
        if format_of(p) not in formats:
            raise ValueError(
                f"{p}: cannot read {format_of(p) or 'a file without an ending'}; known: {known}, each also with .gz. "
                "Rename it if it is one of these."
            )
    return found


def missing_file(path: Path, kind: str = "file") -> str:
    """What to say of a path where nothing is, with the nearest name beside it."""
    near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    return f"No {kind} {path} (seen from {Path.cwd()}).{nearest_hint(path.name, near)}"


def format_of(path: Path) -> str:
    """.txt, .jsonl, .csv, ...: the file's ending, .gz aside."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def open_bytes(path: Path) -> io.BufferedIOBase:
    """The file's content, unpacked."""
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


class Meter:
    """How far a pass over files has come, in bytes on disk: for progress bars."""

    _file: io.BufferedIOBase | None

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new pass begins."""
        self._done, self._file, self._size = 0, None, 0

    def watch(self, file: io.BufferedIOBase) -> None:
        """The next file, opened by `open_bytes`."""
        packed: io.BufferedIOBase = getattr(file, "fileobj", file)
        self._done, self._file = self._done + self._size, packed
        self._size = os.fstat(packed.fileno()).st_size

    def position(self) -> int:
        """Bytes so far."""
        if self._file is None or self._file.closed:
            return self._done + self._size
        return self._done + self._file.tell()


def lines_of(
    source: Path | BinaryIO, name: str | None = None, meter: Meter | None = None
) -> Iterator[tuple[int, str]]:
    """(line number from 1, line without its end), decoded strictly; a byte-order mark at the beginning is dropped.

    Args:
        source: a file, or bytes that are open for reading, such as `sys.stdin.buffer`.
        name: what messages call it; by default the path, or "standard input".
        meter: is told of the file.

    Raises:
        ValueError: bytes that are not UTF-8 or not text at all, a damaged .gz.
    """
    for number, line in raw_lines(source, name, meter):
        yield number, line[: -2 if line.endswith("\r\n") else -1] if line.endswith("\n") else line


def raw_lines(
    source: Path | BinaryIO, name: str | None = None, meter: Meter | None = None
) -> Iterator[tuple[int, str]]:
    """`lines_of`, each line with its end: for formats in which a line break may be text (a cell of a .csv)."""
    if not isinstance(source, Path):
        yield from _decoded(source, name or STANDARD_INPUT, is_packed=False)
        return
    name = name or str(source)
    with open_bytes(source) as file:
        if meter is not None:
            meter.watch(file)
        try:
            yield from _decoded(file, name, is_packed=source.suffix.lower() == ".gz")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{name}: not a whole gzip file ({error}). Copy it again, or drop the .gz of a plain file."
            ) from error


def _decoded(file: Iterable[bytes], name: str, is_packed: bool) -> Iterator[tuple[int, str]]:
    offset = 0
    for number, raw in enumerate(file, 1):
        if number == 1 and raw.startswith(BYTE_ORDER_MARK):
            raw, offset = raw[3:], 3
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                _no_text(name, raw, number, offset + error.start, raw[error.start], is_packed)
            ) from error
        if "\0" in line:
            raise ValueError(_no_text(name, raw, number, offset + raw.index(0), 0, is_packed))
        offset += len(raw)
        yield number, line


def _no_text(name: str, raw: bytes, number: int, offset: int, byte: int, is_packed: bool) -> str:
    encoding = "LATIN1"
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff") and number == 1:
        guess, encoding = "It begins like UTF-16.", "UTF-16"
    elif byte == 0:
        guess, encoding = "It may be UTF-16 without a byte-order mark, or no text at all.", "UTF-16LE"
    else:
        guess = "If it is Western European text, it may be Latin-1."
    unpacked = " (counted in the unpacked text)" if is_packed else ""
    what = "is no character of a text" if byte == 0 else "is not UTF-8"
    file = Path(name).name
    piped = name == STANDARD_INPUT
    remedy = f"iconv -f {encoding} -t UTF-8 " + ("FILE | hfseq ..." if piped else f"{file} > utf8-{file}")
    return f"{name}, line {number}: byte 0x{byte:02x} at offset {offset}{unpacked} {what}. {guess} Convert it: {remedy}"


def one_line(text: str, breaks: str = "refuse", place: str = "") -> str:
    """A text as one line of a file.

    Args:
        breaks: what becomes of line breaks within: "refuse" them, or put a "space" in their place.
        place: for the message.

    Raises:
        ValueError: the text would be read back as several lines, or in another form.
    """
    if breaks not in LINE_BREAKS:
        raise ValueError(f"breaks must be one of {', '.join(LINE_BREAKS)}, not {breaks!r}.")
    if not _BREAK.search(text):
        return text
    if breaks == "refuse":
        raise ValueError(
            f"{place or 'A text'}: {text!r:.80} holds a line break, so that it would be read back as several lines. "
            "Write such texts as .jsonl, or with a space in its place."
        )
    return _BREAK.sub(" ", text)


def write_lines(path: Path, lines: Iterable[str], *, breaks: str = "refuse") -> int:
    """Writes texts, one a line; the file appears under its name when all is written. How many is returned.

    Args:
        path: .gz is packed.
        breaks: see `one_line`.

    Raises:
        ValueError: a text with a line break, or with half a surrogate pair.
    """
    path = Path(path)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    number = 0
    try:
        is_packed = path.suffix.lower() == ".gz"
        with os.fdopen(handle, "wb") as file, gzip.open(file, "wb") if is_packed else file as packed:
            for number, line in enumerate(lines, 1):
                place = f"{path}, line {number}"
                packed.write(encoded(one_line(line, breaks, place), place) + b"\n")
        os.chmod(part, 0o666 & ~current_umask())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return number


def encoded(text: str, place: str) -> bytes:
    """UTF-8 of a text; ValueError, naming the place, where it holds half a surrogate pair."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(half_a_pair(place, text)) from error


def half_a_pair(place: str, text: str) -> str:
    """What to say of a text with half a surrogate pair."""
    start = next(i for i, character in enumerate(text) if "\ud800" <= character <= "\udfff")
    return (
        f"{place}: half a surrogate pair ({text[start]!r} at character {start}), which is no text. Repair the program "
        "that wrote it: it cut a text within a character."
    )


def current_umask() -> int:
    """The permissions that new files lack; private temporary files are given the others when they are done."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
