"""The documents of one file, by its format: blocks or lines of a .txt, one column of a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .files import Meter, format_of, lines_of, open_bytes
from .tables import missing_column, read_table, text_of

TXT_DOCUMENTS = ("paragraph", "line", "file")


def read_documents(
    path: Path, text_column: str = "text", txt_document: str = "paragraph", meter: Meter | None = None
) -> Iterator[str]:
    """Documents of one file; the format follows from its ending. Null values are skipped.

    Args:
        meter: is told of the file.

    Raises:
        ValueError: as `lines_of` and `read_table`, or a value that is no text; each says where and what to do.
    """
    kind = format_of(path)
    if kind == ".txt":
        yield from _txt_documents(path, txt_document, meter)
    elif kind == ".parquet":
        yield from _parquet_documents(path, text_column, meter)
    else:
        for place, row in read_table(path, [text_column], meter=meter):
            text = text_of(row[text_column], place, text_column)
            if text:
                yield text


def _txt_documents(path: Path, unit: str, meter: Meter | None) -> Iterator[str]:
    lines = (line for _, line in lines_of(path, meter=meter))
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


def _parquet_documents(path: Path, column: str, meter: Meter | None) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Reading {path} needs pyarrow: pip install pyarrow (or datasets)"
        ) from error
    with open_bytes(path) as file:
        if meter is not None:
            meter.watch(file)
        row = 0
        try:
            table = pyarrow.parquet.ParquetFile(file)
            if column not in table.schema_arrow.names:
                raise ValueError(missing_column(str(path), column, table.schema_arrow.names))
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    text = text_of(value, f"{path}, row {row}", column)
                    if text:
                        yield text
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path}, after row {row}: not a readable parquet file: {error}") from error
