"""Texts that begin with a vector (colours and their names, images and their captions), from tables to batches.

A *table* has a text and a vector of numbers in every row: the packaged `colours`, or .csv and .jsonl files (also .gz)
whose `feature_columns` hold the numbers; in .jsonl a column may hold a list. The vector can be anything that was
measured or computed before: an encoder's output, attributes, other statistics. Numbers go to the model as they are, so
bring them to about -1 ... 1 before.

The side of a row (train, validation, test) is a hash of its text up to case and white space: what has the same name is
on the same side, whatever its vector. Names are tokenised like any other documents (`FeatureTable.corpus` into
`build_token_arrays`), and row i of a side is document i of its token array.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .corpora import SPLITS, Corpus, split_of
from .files import find_files, format_of, table_rows
from .hints import nearest_hint
from .packages import Package, packaged_file

RGB, LAB = ("red", "green", "blue"), ("lightness", "green_red", "blue_yellow")
TABLE_FORMATS = (".csv", ".jsonl")
Place = str
TextAndVector = tuple[Place, str, list[float]]


@dataclass
class FeatureTable:
    """Texts with a vector each, on three sides."""

    name: str
    columns: tuple[str, ...]
    """What the numbers were called."""
    texts: dict[str, list[str]]
    """{side: texts}; a side without rows is left out."""
    features: dict[str, np.ndarray]
    """{side: float32 [texts, width]}."""

    @property
    def width(self) -> int:
        """Numbers in a vector: the model's feature_size."""
        return next(iter(self.features.values())).shape[1]

    def corpus(self) -> Corpus:
        """The texts alone, in the order of the features."""
        return Corpus.from_documents(**self.texts, name=self.name)


def load_features(
    corpus: str | None = None,
    *,
    feature_columns: str | Sequence[str] | None = None,
    train_file: str | list[str] | None = None,
    validation_file: str | list[str] | None = None,
    test_file: str | list[str] | None = None,
    text_column: str = "text",
    validation_share: float = 0.05,
    test_share: float = 0.05,
    split_seed: int = 0,
) -> FeatureTable:
    """A table from its name or from files.

    Args:
        corpus: "colours": 30,222 names of colours. Its columns are red, green and blue from 0 to 1 (the default) and
            CIELAB's lightness, green_red and blue_yellow, about -1 to 1.
        feature_columns: which numbers make the vector, in this order.
        train_file: instead of `corpus`: .csv or .jsonl files, folders or globs.
        validation_file, test_file: sides of their own; then nothing is split off for them.
        text_column: the column of the text.
        validation_share, test_share, split_seed: as in `hfseq.data.load_corpus`.

    Raises:
        ValueError: no or an unknown source or column, an empty text, a value that is no finite number, vectors of
            different widths, an empty side; each says where.
        FileNotFoundError, ModuleNotFoundError: no such file; the package of `colours` is not installed.
    """
    if (corpus is None) == (train_file is None):
        raise ValueError(
            f"Give either a corpus ('colours') or train_file, not {'both' if corpus else 'neither'}."
        )
    columns = (feature_columns,) if isinstance(feature_columns, str) else tuple(feature_columns or ())
    if corpus is not None:
        if corpus != "colours":
            raise ValueError(
                f"Unknown table {corpus!r}.{nearest_hint(corpus, ['colours'])} Known: colours; your own .csv or .jsonl "
                "goes to train_file."
            )
        columns = columns or RGB
    if not columns:
        raise ValueError("feature_columns is empty: name the columns that hold the numbers of each text.")
    if len(set(columns)) < len(columns):
        raise ValueError(f"feature_columns names a column twice: {', '.join(columns)}.")

    given = {
        side: _file_rows(files, text_column, columns)
        for side, files in (("validation", validation_file), ("test", test_file))
        if files is not None
    }
    shares = {
        "validation": 0.0 if "validation" in given else validation_share,
        "test": 0.0 if "test" in given else test_share,
    }
    rows: dict[str, list[TextAndVector]] = {side: [] for side in SPLITS}
    for row in _colour_rows(columns) if corpus else _file_rows(train_file, text_column, columns):
        rows[split_of(row[1].lower(), **shares, seed=split_seed)].append(row)
    for side, own in given.items():
        rows[side] = list(own)
    name = corpus or str(train_file)
    for side in SPLITS:
        if not rows[side] and (side == "train" or side in given or shares[side]):
            raise ValueError(
                f"{name}: no row fell on the {side} side (shares: validation {shares['validation']}, test "
                f"{shares['test']}). Give more rows, {side}_file, or another share."
            )
    width = len(rows["train"][0][2])
    for place, _, vector in (row for side in SPLITS for row in rows[side]):
        if len(vector) != width:
            raise ValueError(
                f"{place}: {len(vector)} numbers, but the first row of {name} has {width}: every text needs a vector "
                "of the same width."
            )
    return FeatureTable(
        name=name,
        columns=columns,
        texts={side: [text for _, text, _ in of_side] for side, of_side in rows.items() if of_side},
        features={
            side: np.array([vector for _, _, vector in of_side], dtype=np.float32)
            for side, of_side in rows.items()
            if of_side
        },
    )


def _file_rows(files, text_column: str, columns: Sequence[str]) -> Iterator[TextAndVector]:
    for path in (
        p for pattern in ([files] if isinstance(files, str) else files) for p in find_files(pattern)
    ):
        if format_of(path) not in TABLE_FORMATS:
            raise ValueError(
                f"{path}: texts with vectors are read from {' and '.join(TABLE_FORMATS)} (also .gz), not from "
                f"{format_of(path)}."
            )
        for place, row in table_rows(path):
            for column in (text_column, *columns):
                if column not in row:
                    raise ValueError(
                        f"{place}: no column {column!r}; there are {', '.join(map(repr, row))}."
                        f"{nearest_hint(column, row)} See text_column and feature_columns."
                    )
            text = row[text_column]
            if not isinstance(text, str) or not text.strip():
                raise ValueError(
                    f"{place}: column {text_column!r} holds {text!r}, which is no text. Remove the row."
                )
            numbers: list[float] = []
            for column in columns:
                value = row[column]
                for number in value if isinstance(value, list) else [value]:
                    numbers.append(finite_number(number, f"{place}, column {column!r}"))
            yield place, text, numbers


def finite_number(value, place: str) -> float:
    """The value as a float; ValueError, naming the place, where it is none or is NaN or infinite."""
    try:
        if isinstance(value, bool) or value is None:
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: {value!r:.60} is no number. Repair the row, or remove it.") from None
    if not math.isfinite(number):
        raise ValueError(f"{place}: {value!r} is not finite. Repair the row, or remove it.")
    return number


# ---- colours


def _colours_in(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, name, "#rrggbb")."""
    with open(path, encoding="utf-8", newline="") as file:
        for number, (name, code, _) in enumerate(csv.reader(file), 1):
            yield number, name, code


COLOURS = Package(
    "colourmapper-dev",
    "0.0.7",
    "colourmapper/ColourMapperValues.csv",
    lambda path: (name for _, name, _ in _colours_in(path)),
)


def _colour_rows(columns: Sequence[str]) -> Iterator[TextAndVector]:
    known = (*RGB, *LAB)
    for column in columns:
        if column not in known:
            raise ValueError(
                f"colours has no column {column!r}.{nearest_hint(column, known)} Known: {', '.join(known)}."
            )
    path, asks_for_lab = packaged_file("colours", COLOURS), not set(LAB).isdisjoint(columns)
    for number, name, code in _colours_in(path):
        rgb = rgb_of(code)
        values = dict(zip(RGB, rgb, strict=True))
        if asks_for_lab:
            values |= zip(LAB, _scaled_lab(rgb), strict=True)
        yield f"{path}, line {number}", name, [values[column] for column in columns]


def load_colours() -> list[tuple[str, tuple[float, float, float]]]:
    """All named colours of the package: (name, red, green and blue from 0 to 1)."""
    return [(name, tuple(vector)) for _, name, vector in _colour_rows(RGB)]


def rgb_of(code: str) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1: of "#c93f38" (0.788, 0.247, 0.220)."""
    digits = code.strip().removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        red, green, blue = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    except ValueError:
        raise ValueError(f"{code!r} is no colour: write six hexadecimal digits, such as #c93f38.") from None
    return red, green, blue


def lab_of(rgb: Sequence[float]) -> tuple[float, float, float]:
    """sRGB (IEC 61966-2-1) from 0 to 1 -> CIELAB (white point D65): distances of 2.3 are just noticeable there."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in rgb]
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.95047, 1.0, 1.08883)
    x, y, z = (
        sum(weight * v for weight, v in zip(row, linear, strict=True)) / w
        for row, w in zip(matrix, white, strict=True)
    )
    x, y, z = (t ** (1 / 3) if t > 216 / 24389 else t * 841 / 108 + 4 / 29 for t in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _scaled_lab(rgb: Sequence[float]) -> tuple[float, float, float]:
    lightness, a, b = lab_of(rgb)
    return lightness / 100, a / 128, b / 128
